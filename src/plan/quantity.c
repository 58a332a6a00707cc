#include "plan/quantity.h"

#include "base/err.h"
#include "base/text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct unit_row {
    const char *name;
    double scale;
};

static const struct unit_row flops_units[] = {
    { "FLOP/s", 1 }, { "GFLOP/s", 1e9 }, { "TFLOP/s", 1e12 }, { "PFLOP/s", 1e15 }, { 0 } };
static const struct unit_row byte_units[] = {
    { "B", 1 }, { "kB", 1e3 }, { "MB", 1e6 }, { "GB", 1e9 }, { "TB", 1e12 }, { "PB", 1e15 },
    { "KiB", 0x1p10 }, { "MiB", 0x1p20 }, { "GiB", 0x1p30 }, { "TiB", 0x1p40 }, { 0 } };
static const struct unit_row rate_units[] = {
    { "B/s", 1 }, { "kB/s", 1e3 }, { "MB/s", 1e6 }, { "GB/s", 1e9 }, { "TB/s", 1e12 },
    { "MiB/s", 0x1p20 }, { "GiB/s", 0x1p30 }, { "Mb/s", 1e6 / 8 }, { "Gb/s", 1e9 / 8 },
    { "Tb/s", 1e12 / 8 }, { 0 } };
static const struct unit_row second_units[] = {
    { "ns", 1e-9 }, { "us", 1e-6 }, { "ms", 1e-3 }, { "s", 1 }, { "min", 60 }, { "h", 3600 },
    { "d", 86400 }, { 0 } };
static const struct unit_row watt_units[] = {
    { "W", 1 }, { "kW", 1e3 }, { "MW", 1e6 }, { 0 } };
static const struct unit_row ratio_units[] = { { "", 1 }, { "%", 0.01 }, { 0 } };

static const struct {
    const struct unit_row *units;
    const char *what, *example;
    const char *word; /* that must follow */
} kinds[QUANTITIES] = {
    [QUANTITY_FLOPS] = { flops_units, "a rate of arithmetic", "794.5 TFLOP/s", NULL },
    [QUANTITY_PEAK] = { flops_units, "a peak of arithmetic", "989 TFLOP/s dense", "dense" },
    [QUANTITY_BYTES] = { byte_units, "a size", "80 GB (1e9) or 80 GiB (2^30)", NULL },
    [QUANTITY_RATE] = { rate_units, "a rate of memory", "3350 GB/s", NULL },
    [QUANTITY_LINK] = { rate_units, "a link's rate", "450 GB/s one-way", "one-way" },
    [QUANTITY_SECONDS] = { second_units, "a time", "8 us", NULL },
    [QUANTITY_WATTS] = { watt_units, "a power", "700 W", NULL },
    [QUANTITY_RATIO] = { ratio_units, "a ratio", "2", NULL },
};

static const char *skip_blanks(const char *p)
{
    while (*p == ' ')
        p++;
    return p;
}

/* The word at p: up to a blank. */
static i64 word_chars(const char *p)
{
    return (i64)strcspn(p, " ");
}

static bool is_word(const char *p, const char *word)
{
    return word_chars(p) == (i64)strlen(word) && strncmp(p, word, strlen(word)) == 0;
}

/* Words that say outright that the number is another one. */
static int refuse_words(const char *text, const char *rest, enum quantity kind, double value,
                        const char *where)
{
    char half[64];
    quantity_text(value / 2, kind, half, sizeof half);
    if (kind == QUANTITY_PEAK && (strstr(rest, "sparse") || strstr(rest, "sparsity")))
        return err_set(ERR_CONFIG, "%s: '%s' counts zeros that are skipped (2:4 sparsity); "
                       "training does not: give the dense peak, usually half: %s", where, text,
                       half);
    if (kind == QUANTITY_LINK && (strstr(rest, "both") || strstr(rest, "bidi") ||
                                  strstr(rest, "two-way") || strstr(rest, "duplex")))
        return err_set(ERR_CONFIG, "%s: '%s' adds up both directions; give what goes one way: %s",
                       where, text, half);
    return OK;
}

static int check_rest(const char *text, const char *rest, enum quantity kind, double value,
                      const char *where)
{
    const char *word = kinds[kind].word;
    rest = skip_blanks(rest);
    TRY(refuse_words(text, rest, kind, value, where));
    if (word && is_word(rest, word))
        rest = skip_blanks(rest + strlen(word));
    else if (word && kind == QUANTITY_PEAK)
        return err_set(ERR_CONFIG, "%s: '%s' does not say whether it is dense; data sheets often "
                       "print twice that, for 2:4 sparsity. Write '%s dense' if it is", where, text,
                       text);
    else if (word)
        return err_set(ERR_CONFIG, "%s: '%s' does not say in which direction; data sheets often "
                       "add up both. Write '%s one-way' if it is what a device sends", where, text,
                       text);
    if (*rest)
        return err_set(ERR_CONFIG, "%s: '%s' behind a quantity; write %s", where, rest,
                       kinds[kind].example);
    return OK;
}

static int refuse_unit(const char *text, const char *unit, i64 chars, enum quantity kind,
                       const char *where)
{
    char typed[24];
    snprintf(typed, sizeof typed, "%.*s", (int)i64_min(chars, 20), unit);
    if (chars == 0 || (kinds[kind].word && is_word(unit, kinds[kind].word)))
        return err_set(ERR_CONFIG, "%s: '%s' has no unit; write %s such as %s", where, text,
                       kinds[kind].what, kinds[kind].example);
    if (kind == QUANTITY_BYTES && strchr("KMGTkmgt", *typed) && (chars == 1 || typed[1] == 'b'))
        return err_set(ERR_CONFIG, "%s: '%s' is neither %cB (1000s) nor %ciB (1024s); write which",
                       where, text, *typed, *typed);
    struct nearest nearest = { .typed = typed };
    for (const struct unit_row *u = kinds[kind].units; u->name; u++)
        nearest_offer(&nearest, u->name);
    const char *found = nearest_found(&nearest);
    return err_set(ERR_CONFIG, "%s: '%s' is no unit of %s%s%s%s; write it as %s", where, typed,
                   kinds[kind].what, found ? " (did you mean '" : "", found ? found : "",
                   found ? "'?)" : "", kinds[kind].example);
}

static int parse_number(const char *text, const char *where, double *out, const char **end)
{
    char *stop;
    double value = *text == ' ' ? NAN : strtod(text, &stop);
    if (*text == ' ' || stop == text || !isfinite(value) || value < 0 ||
        memchr(text, 'x', (size_t)(stop - text)))
        return err_set(ERR_CONFIG, "%s: '%s' does not begin with a number that is not negative",
                       where, text);
    *out = value;
    *end = skip_blanks(stop);
    return OK;
}

int quantity_parse(const char *text, enum quantity kind, const char *where, double *out,
                   const char **rest)
{
    const char *unit = text;
    double value = 0;
    TRY(parse_number(text, where, &value, &unit));
    if (kind == QUANTITY_COUNT) {
        if (value < 1 || value > 1e9 || value != floor(value))
            return err_set(ERR_CONFIG, "%s: '%s' is no whole number from 1 to 1e9", where, text);
        *out = value;
        *rest = unit;
        return OK;
    }
    i64 chars = word_chars(unit);
    for (const struct unit_row *u = kinds[kind].units; u->name; u++) {
        if (chars != (i64)strlen(u->name) || strncmp(unit, u->name, (size_t)chars) != 0)
            continue;
        *out = value * u->scale;
        if (!isfinite(*out))
            return err_set(ERR_CONFIG, "%s: '%s' is beyond any machine", where, text);
        return check_rest(text, unit + chars, kind, *out, where);
    }
    return refuse_unit(text, unit, chars, kind, where);
}

void quantity_text(double value, enum quantity kind, char *out, size_t size)
{
    const struct unit_row *best = kinds[kind].units;
    for (const struct unit_row *u = best; u->name; u++)
        if (u->scale <= value && u->scale >= best->scale && !strstr(u->name, "i") &&
            !strchr(u->name, 'b'))
            best = u;
    const char *word = kinds[kind].word;
    snprintf(out, size, "%.6g%s%s%s%s", value / best->scale, *best->name ? " " : "", best->name,
             word ? " " : "", word ? word : "");
}
