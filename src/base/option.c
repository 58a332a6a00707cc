#include "base/option.h"

#include "base/err.h"
#include "base/json.h"
#include "base/text.h"
#include "base/yaml.h"

#include <ctype.h>
#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* How a type is called, and what a value looks like; used in messages and in help. */
static const struct {
    const char *name, *expects;
} types[OPTION_TYPES] = {
    [OPTION_BOOL] = { "true or false", "true or false" },
    [OPTION_INT] = { "whole number", "a whole number, such as 1000" },
    [OPTION_FLOAT] = { "number", "a number, such as 0.1 or 3e-4" },
    [OPTION_STRING] = { "text", "text" },
    [OPTION_PATH] = { "path", "a path" },
    [OPTION_CHOICE] = { "choice", "one of the choices" },
    [OPTION_SIZE] = { "size", "a number that may end in K, M, G or T (tokens: or B), as 10M" },
    [OPTION_DURATION] = { "duration",
                          "a time, such as 90s, 5m or 1h30m (a bare number is seconds)" },
    [OPTION_STRINGS] = { "list of texts", "a list, such as [a, b]" },
    [OPTION_INTS] = { "list of whole numbers",
                      "a list of whole numbers, such as [1, 2]" },
    [OPTION_FLOATS] = { "list of numbers", "a list of numbers, such as [0.1, 0.2]" },
    [OPTION_NODE] = { "YAML", "a list or a map" },
};

/* Message prefix: "recipe.yaml:1:2: " or nothing. */
#define WHERE_FMT "%s%s"
#define WHERE_ARGS(where) (where) ? (where) : "", (where) ? ": " : ""

const char *option_type_name(enum option_type type)
{
    return types[type].name;
}

const struct option *option_find(const struct option *table, const char *key)
{
    for (const struct option *o = table; o->key; o++)
        if (strcmp(o->key, key) == 0)
            return o;
    return NULL;
}

static bool is_whole(enum option_type type)
{
    return type == OPTION_INT || type == OPTION_INTS || type == OPTION_SIZE;
}

/* --- numbers --------------------------------------------------------------------- */

enum parse_result { PARSED, NOT_A_NUMBER, WRONG_UNIT, TOO_LARGE };

/* Digits with '_' between them are allowed, as in YAML; hexadecimal, inf and nan are not.
 * Returns what follows the number, or NULL; a number that no double holds is infinite. */
static const char *parse_number(const char *text, double *value)
{
    char digits[512]; /* the largest double has 309 */
    size_t n = 0;
    const char *p = text;
    for (; *p && n + 1 < sizeof digits; p++) {
        bool exponent = (*p == 'e' || *p == 'E') && n > 0 &&
                        (isdigit((unsigned char)p[1]) ||
                         ((p[1] == '-' || p[1] == '+') && isdigit((unsigned char)p[2])));
        bool sign =
            (*p == '-' || *p == '+') && (p == text || p[-1] == 'e' || p[-1] == 'E');
        bool blank = *p == '_' && p > text && isdigit((unsigned char)p[-1]) &&
                     isdigit((unsigned char)p[1]);
        if (blank)
            continue;
        if (!isdigit((unsigned char)*p) && *p != '.' && !exponent && !sign)
            break;
        digits[n++] = *p;
    }
    digits[n] = '\0';
    char *end;
    errno = 0;
    *value = strtod(digits, &end);
    return end == digits || *end ? NULL : p;
}

static const char *skip_blanks(const char *p)
{
    return p + strspn(p, " \t");
}

static enum parse_result after_number(const char *rest, const char *unit)
{
    rest = skip_blanks(rest);
    if (*rest == '\0' || (unit && strcmp(rest, unit) == 0))
        return PARSED;
    return WRONG_UNIT;
}

/* Whole numbers end here: an i64 holds no more, and this much reads well. */
static const double LARGEST_INT = 9e18;

static enum parse_result take_int(double number, i64 *value)
{
    if (number != floor(number))
        return NOT_A_NUMBER;
    if (fabs(number) > LARGEST_INT)
        return TOO_LARGE;
    *value = (i64)number;
    return PARSED;
}

/* Integers beyond 2^53 would lose digits in a double, so plain ones are read as such. */
static bool parse_exact_int(const char *text, i64 *value)
{
    char *end;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    if (end == text || *end || errno)
        return false;
    *value = v;
    return true;
}

static enum parse_result parse_int(const char *text, const char *unit, i64 *value)
{
    double number;
    if (parse_exact_int(text, value))
        return PARSED;
    const char *rest = parse_number(text, &number);
    if (!rest)
        return NOT_A_NUMBER;
    const enum parse_result unit_fits = after_number(rest, unit);
    return unit_fits == PARSED ? take_int(number, value) : unit_fits;
}

static enum parse_result parse_float(const char *text, const char *unit, double *value)
{
    const char *rest = parse_number(text, value);
    const enum parse_result unit_fits = rest ? after_number(rest, unit) : NOT_A_NUMBER;
    return unit_fits == PARSED && !isfinite(*value) ? TOO_LARGE : unit_fits;
}

/* K, M, G, T and, for 1024, KiB, MiB ...; returns what follows. */
static const char *parse_multiplier(const char *p, double *factor)
{
    static const char letters[] = "KMGT";
    const char *at = *p ? strchr(letters, toupper((unsigned char)*p)) : NULL;
    *factor = 1;
    if (!at)
        return p;
    bool binary = p[1] == 'i';
    *factor = pow(binary ? 1024 : 1000, (double)(at - letters + 1));
    return p + (binary ? 2 : 1);
}

static enum parse_result parse_size(const char *text, const char *unit, i64 *value)
{
    double number, factor;
    if (parse_exact_int(text, value))
        return PARSED;
    const char *rest = parse_number(text, &number);
    if (!rest)
        return NOT_A_NUMBER;
    rest = skip_blanks(rest);
    if (unit && strcmp(unit, "tokens") == 0 && strcmp(rest, "B") == 0) /* billions, as people say */
        return take_int(number * 1e9, value);
    rest = parse_multiplier(rest, &factor);
    if (after_number(rest, unit) != PARSED &&
        !(unit && strcmp(unit, "bytes") == 0 && after_number(rest, "B") == PARSED))
        return WRONG_UNIT;
    return take_int(number * factor, value);
}

static const struct {
    const char *name;
    double seconds;
} time_units[] = { { "d", 86400 }, { "h", 3600 }, { "min", 60 }, { "ms", 1e-3 },
                   { "m", 60 },    { "s", 1 },    { "us", 1e-6 } };

static enum parse_result parse_duration(const char *text, double *value)
{
    double number;
    const char *p = text;
    *value = 0;
    do {
        p = parse_number(p, &number);
        if (!p)
            return NOT_A_NUMBER;
        p = skip_blanks(p);
        if (*p == '\0' && *value == 0) {
            *value = number; /* a bare number: seconds */
            return isfinite(number) ? PARSED : TOO_LARGE;
        }
        i64 i = 0;
        while (i < COUNT_OF(time_units) &&
               strncmp(p, time_units[i].name, strlen(time_units[i].name)) != 0)
            i++;
        if (i == COUNT_OF(time_units))
            return WRONG_UNIT;
        *value += number * time_units[i].seconds;
        p = skip_blanks(p + strlen(time_units[i].name));
    } while (isdigit((unsigned char)*p) || *p == '.');
    return *p ? WRONG_UNIT : isfinite(*value) ? PARSED : TOO_LARGE;
}

/* --- writing --------------------------------------------------------------------- */

/* With the largest letter of this step that leaves no remainder; "" where none does. */
static void scaled(i64 value, i64 step, const char *suffix, char *out, size_t size)
{
    static const char *const letters[] = { "T", "G", "M", "K" };
    i64 factor = step * step * step * step;
    int i = 0;
    for (; i < 4 && value % factor; i++)
        factor /= step;
    *out = '\0';
    if (i < 4)
        snprintf(out, size, "%lld%s%s", (long long)(value / factor), letters[i], suffix);
}

/* Bytes in the shorter of both ways: 64KiB, but 10G rather than 9765625KiB. */
static void format_size(i64 value, const char *unit, struct text *out)
{
    char binary[32] = "", decimal[32] = "";
    if (value > 0)
        scaled(value, 1000, "", decimal, sizeof decimal);
    if (value > 0 && unit && strcmp(unit, "bytes") == 0)
        scaled(value, 1024, "iB", binary, sizeof binary);
    if (*binary && (!*decimal || strlen(binary) <= strlen(decimal) + 2)) /* "iB" is no detour */
        text_add(out, binary);
    else if (*decimal)
        text_add(out, decimal);
    else
        text_printf(out, "%lld", (long long)value);
}

static void format_duration(double seconds, struct text *out)
{
    static const struct {
        double seconds;
        const char *name;
    } units[] = { { 86400, "d" }, { 3600, "h" }, { 60, "m" } };
    for (i64 i = 0; i < COUNT_OF(units); i++) {
        double n = seconds / units[i].seconds;
        if (n >= 1 && n == floor(n)) {
            text_printf(out, "%.0f%s", n, units[i].name);
            return;
        }
    }
    text_add_double(out, seconds);
    text_add(out, "s");
}

static void format_choice(const struct option *o, int index, struct text *out)
{
    const char *p = o->choices;
    for (int i = 0; i < index && p; i++) {
        p = strchr(p, '|');
        p = p ? p + 1 : NULL;
    }
    if (p)
        text_add_bytes(out, p, (i64)strcspn(p, "|"));
}

/* A limit of the row, in the form of its values. */
static void format_limit(const struct option *o, double limit, struct text *out)
{
    if (o->type == OPTION_DURATION)
        format_duration(limit, out);
    else if (o->type == OPTION_SIZE)
        format_size((i64)limit, o->unit, out);
    else if (limit == floor(limit) && fabs(limit) < 1e15)
        text_printf(out, "%.0f", limit);
    else
        text_add_double(out, limit);
}

void option_range(const struct option *o, struct text *out)
{
    bool upper = o->max > o->min && isfinite(o->max);
    if (o->min == 0 && o->max == 0)
        return;
    if (isfinite(o->min)) {
        text_add(out, upper ? "between " : "at least ");
        format_limit(o, o->min, out);
        if (upper)
            text_add(out, " and ");
    } else if (upper) {
        text_add(out, "at most ");
    }
    if (upper)
        format_limit(o, o->max, out);
}

/* A list item that needs no quotes in flow YAML, whatever comes next. */
static bool is_plain(const char *s)
{
    return *s && s[strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                             "0123456789_./")] == '\0';
}

static void format_strings(const struct option_strings *list, struct text *out)
{
    text_add(out, "[");
    for (i64 i = 0; i < list->count; i++) {
        text_add(out, i ? ", " : "");
        if (is_plain(list->at[i])) {
            text_add(out, list->at[i]);
            continue;
        }
        struct json j;
        json_writer_init(&j);
        json_str(&j, list->at[i]);
        text_add(out, j.out.data);
        json_writer_fini(&j);
    }
    text_add(out, "]");
}

static void format_numbers(const struct option *o, const void *target, struct text *out)
{
    bool ints = o->type == OPTION_INTS;
    const struct option_ints *a = OPTION_AT_CONST(struct option_ints, o, target);
    const struct option_floats *b = OPTION_AT_CONST(struct option_floats, o, target);
    i64 count = ints ? a->count : b->count;
    text_add(out, "[");
    for (i64 i = 0; i < count; i++) {
        text_add(out, i ? ", " : "");
        if (ints)
            text_printf(out, "%lld", (long long)a->at[i]);
        else
            text_add_double(out, b->at[i]);
    }
    text_add(out, "]");
}

static void format_node(const struct yaml_node *node, struct text *out)
{
    struct json j;
    if (!node)
        return;
    json_writer_init(&j);
    yaml_write_json(node, &j);
    text_add(out, j.out.data);
    json_writer_fini(&j);
}

void option_format(const struct option *o, const void *target, struct text *out)
{
    const char *string;
    switch (o->type) {
    case OPTION_BOOL:
        text_add(out, *OPTION_AT_CONST(bool, o, target) ? "true" : "false");
        break;
    case OPTION_INT:
        text_printf(out, "%lld", (long long)*OPTION_AT_CONST(i64, o, target));
        break;
    case OPTION_FLOAT:
        text_add_double(out, *OPTION_AT_CONST(double, o, target));
        break;
    case OPTION_STRING:
    case OPTION_PATH:
        string = *OPTION_AT_CONST(char *, o, target);
        text_add(out, string ? string : "");
        break;
    case OPTION_CHOICE:
        format_choice(o, *OPTION_AT_CONST(int, o, target), out);
        break;
    case OPTION_SIZE:
        format_size(*OPTION_AT_CONST(i64, o, target), o->unit, out);
        break;
    case OPTION_DURATION:
        format_duration(*OPTION_AT_CONST(double, o, target), out);
        break;
    case OPTION_STRINGS:
        format_strings(OPTION_AT_CONST(struct option_strings, o, target), out);
        break;
    case OPTION_INTS:
    case OPTION_FLOATS:
        format_numbers(o, target, out);
        break;
    case OPTION_NODE:
        format_node(*OPTION_AT_CONST(struct yaml_node *, o, target), out);
        break;
    case OPTION_TYPES:
        break;
    }
}

/* --- reading --------------------------------------------------------------------- */

static int fail_value(const struct option *o, enum parse_result why, const char *text,
                      const char *where)
{
    const char *unit = o->type == OPTION_DURATION ? "seconds" : o->unit;
    if (why == WRONG_UNIT && unit)
        return err_set(ERR_CONFIG, WHERE_FMT "'%.60s' where %s are expected: %s takes %s",
                       WHERE_ARGS(where), text, unit, o->key, types[o->type].expects);
    return err_set(ERR_CONFIG, WHERE_FMT "'%.60s' is not a %s: %s takes %s",
                   WHERE_ARGS(where), text, types[o->type].name, o->key,
                   types[o->type].expects);
}

/* too_large: no variable holds it; then what the type holds is a limit where the row sets none. */
static int fail_range(const struct option *o, bool too_large, const char *text, const char *where)
{
    const double most = is_whole(o->type) ? LARGEST_INT : DBL_MAX;
    struct text range = { 0 };
    option_range(o, &range);
    if (!range.length)
        text_printf(&range, "between %g and %g", -most, most);
    else if (too_large && (o->max <= o->min || !isfinite(o->max)))
        text_printf(&range, " and at most %g", most);
    int rc = err_set(ERR_CONFIG, WHERE_FMT "value %.60s is out of range: %s must be %s",
                     WHERE_ARGS(where), text, o->key, range.data);
    text_fini(&range);
    return rc;
}

static bool in_range(const struct option *o, double value)
{
    bool upper = o->max > o->min;
    return (o->min == 0 && o->max == 0) || (value >= o->min && (!upper || value <= o->max));
}

static int set_bool(const struct option *o, void *target, const char *text,
                    const char *where)
{
    static const char *const words[] = { "false", "true", "no", "yes", "off", "on" };
    for (int i = 0; i < COUNT_OF(words); i++) {
        if (strcasecmp(text, words[i]) == 0) {
            *OPTION_AT(bool, o, target) = i & 1;
            return OK;
        }
    }
    return err_set(ERR_CONFIG,
                   WHERE_FMT "'%.60s' is neither true nor false, as %s must be",
                   WHERE_ARGS(where), text, o->key);
}

static int set_choice(const struct option *o, void *target, const char *text,
                      const char *where)
{
    struct nearest nearest = { .typed = text };
    char names[16][32];
    const char *p = o->choices;
    for (int i = 0; p; i++) {
        int n = (int)strcspn(p, "|");
        assert(i < 16 && n < 32);
        snprintf(names[i], sizeof names[i], "%.*s", n, p);
        if (strcmp(names[i], text) == 0) {
            *OPTION_AT(int, o, target) = i;
            return OK;
        }
        nearest_offer(&nearest, names[i]);
        p = p[n] ? p + n + 1 : NULL;
    }
    const char *found = nearest_found(&nearest);
    return err_set(
        ERR_CONFIG, WHERE_FMT "'%.60s' is not a choice of %s, which are %s%s%s%s",
        WHERE_ARGS(where), text, o->key, o->choices, found ? "; did you mean '" : "",
        found ? found : "", found ? "'?" : "");
}

/* One number of any numeric type; out gets an i64 or a double. */
static int read_number(const struct option *o, const char *text, const char *where,
                       void *out)
{
    enum parse_result result;
    const bool whole = is_whole(o->type);
    i64 integer = 0;
    double number = 0;
    if (o->type == OPTION_SIZE)
        result = parse_size(text, o->unit, &integer);
    else if (whole)
        result = parse_int(text, o->unit, &integer);
    else if (o->type == OPTION_DURATION)
        result = parse_duration(text, &number);
    else
        result = parse_float(text, o->unit, &number);
    if (result == NOT_A_NUMBER || result == WRONG_UNIT)
        return fail_value(o, result, text, where);
    const bool too_large = result == TOO_LARGE;
    if (too_large || !in_range(o, whole ? (double)integer : number))
        return fail_range(o, too_large, text, where);
    if (whole)
        *(i64 *)out = integer;
    else
        *(double *)out = number;
    return OK;
}

/* Appends one item to the row's list, whose array has room for it. */
static int add_item(const struct option *o, void *target, const char *text,
                    const char *where, struct arena *a)
{
    if (o->type == OPTION_STRINGS) {
        struct option_strings *list = OPTION_AT(struct option_strings, o, target);
        list->at[list->count++] = arena_strdup(a, text);
        return OK;
    }
    if (o->type == OPTION_INTS) {
        struct option_ints *list = OPTION_AT(struct option_ints, o, target);
        TRY(read_number(o, text, where, &list->at[list->count]));
        list->count++;
        return OK;
    }
    struct option_floats *list = OPTION_AT(struct option_floats, o, target);
    TRY(read_number(o, text, where, &list->at[list->count]));
    list->count++;
    return OK;
}

static void start_list(const struct option *o, void *target, i64 capacity,
                       struct arena *a)
{
    if (o->type == OPTION_STRINGS)
        *OPTION_AT(struct option_strings, o, target) =
            (struct option_strings){ ARENA_ARRAY(a, const char *, capacity), 0 };
    else if (o->type == OPTION_INTS)
        *OPTION_AT(struct option_ints, o, target) =
            (struct option_ints){ ARENA_ARRAY(a, i64, capacity), 0 };
    else
        *OPTION_AT(struct option_floats, o, target) =
            (struct option_floats){ ARENA_ARRAY(a, double, capacity), 0 };
}

/* "a, b,c"; an empty text is an empty list. */
static int set_list(const struct option *o, void *target, const char *text,
                    const char *where, struct arena *a)
{
    i64 capacity = 1;
    for (const char *p = text; *p; p++)
        capacity += *p == ',';
    start_list(o, target, capacity, a);
    const char *p = skip_blanks(text);
    if (!*p)
        return OK;
    for (;;) {
        i64 n = (i64)strcspn(p, ","), used = n;
        while (used > 0 && (p[used - 1] == ' ' || p[used - 1] == '\t'))
            used--;
        TRY(add_item(o, target, arena_strndup(a, p, used), where, a));
        if (!p[n])
            return OK;
        p = skip_blanks(p + n + 1);
    }
}

static bool is_list(enum option_type type)
{
    return type == OPTION_STRINGS || type == OPTION_INTS || type == OPTION_FLOATS;
}

/* As if it had not been given. */
static void unset_text(const struct option *o, void *target, struct arena *a)
{
    *OPTION_AT(char *, o, target) = o->default_text ? arena_strdup(a, o->default_text) : NULL;
}

int option_set(const struct option *o, void *target, const char *text, const char *where,
               struct arena *a)
{
    const bool optional = o->type == OPTION_STRING && !o->default_text;
    if (!*text && (o->type == OPTION_PATH || optional)) {
        unset_text(o, target, a);
        return OK;
    }
    if (o->type == OPTION_NODE || (is_list(o->type) && *skip_blanks(text) == '[')) {
        const struct yaml_node *node;
        if (strcmp(text, "-") == 0) /* standard input, and no list with nothing in it */
            text = "'-'";
        TRY(yaml_parse(text, (i64)strlen(text), where ? where : o->key, a, &node));
        return option_set_node(o, target, node, a);
    }
    if (is_list(o->type))
        return set_list(o, target, text, where, a);
    switch (o->type) {
    case OPTION_BOOL:
        return set_bool(o, target, text, where);
    case OPTION_CHOICE:
        return set_choice(o, target, text, where);
    case OPTION_STRING:
    case OPTION_PATH:
        *OPTION_AT(char *, o, target) = arena_strdup(a, text);
        return OK;
    default:
        return read_number(o, text, where, OPTION_AT(void, o, target));
    }
}

/* A scalar that was written as "null", or not at all. */
static int set_null(const struct option *o, void *target, const struct yaml_node *node,
                    struct arena *a)
{
    if (o->type == OPTION_STRING || o->type == OPTION_PATH) {
        unset_text(o, target, a);
        return OK;
    }
    if (o->type == OPTION_NODE) {
        *OPTION_AT(void *, o, target) = NULL;
        return OK;
    }
    return err_set(ERR_CONFIG, "%s: %s has no value: it takes %s", yaml_where(node, a),
                   o->key, types[o->type].expects);
}

int option_set_node(const struct option *o, void *target, const struct yaml_node *node,
                    struct arena *a)
{
    if (yaml_is_null(node))
        return set_null(o, target, node, a);
    if (o->type == OPTION_NODE) {
        *OPTION_AT(const struct yaml_node *, o, target) = node;
        return OK;
    }
    if (node->kind == YAML_SCALAR)
        return option_set(o, target, node->text, yaml_where(node, a), a);
    if (node->kind == YAML_MAP || !is_list(o->type))
        return err_set(ERR_CONFIG, "%s: %s takes %s, not a %s", yaml_where(node, a),
                       o->key, types[o->type].expects,
                       node->kind == YAML_MAP ? "map" : "list");
    start_list(o, target, node->count, a);
    for (const struct yaml_node *item = node->first; item; item = item->next) {
        if (item->kind != YAML_SCALAR)
            return err_set(ERR_CONFIG, "%s: %s takes %s, without lists or maps inside",
                           yaml_where(item, a), o->key, types[o->type].expects);
        TRY(add_item(o, target, item->text, yaml_where(item, a), a));
    }
    return OK;
}

int option_parse_one(const struct option *table, void *target, const char *key,
                     const char *text, const char *where, struct arena *a)
{
    const struct option *o = option_find(table, key);
    if (o)
        return option_set(o, target, text, where, a);
    struct nearest nearest = { .typed = key };
    for (o = table; o->key; o++)
        nearest_offer(&nearest, o->key);
    return option_unknown_key(key, nearest_found(&nearest), where);
}

int option_unknown_key(const char *key, const char *suggestion, const char *where)
{
    return err_set(ERR_CONFIG, WHERE_FMT "unknown key '%.80s'%s%s%s", WHERE_ARGS(where),
                   key, suggestion ? "; did you mean '" : "",
                   suggestion ? suggestion : "", suggestion ? "'?" : "");
}

void option_set_defaults(const struct option *table, void *target, struct arena *a)
{
    static const size_t bytes[OPTION_TYPES] = {
        [OPTION_BOOL] = sizeof(option_c_BOOL),
        [OPTION_INT] = sizeof(option_c_INT),
        [OPTION_FLOAT] = sizeof(option_c_FLOAT),
        [OPTION_STRING] = sizeof(option_c_STRING),
        [OPTION_PATH] = sizeof(option_c_PATH),
        [OPTION_CHOICE] = sizeof(option_c_CHOICE),
        [OPTION_SIZE] = sizeof(option_c_SIZE),
        [OPTION_DURATION] = sizeof(option_c_DURATION),
        [OPTION_STRINGS] = sizeof(option_c_STRINGS),
        [OPTION_INTS] = sizeof(option_c_INTS),
        [OPTION_FLOATS] = sizeof(option_c_FLOATS),
        [OPTION_NODE] = sizeof(option_c_NODE *),
    };
    for (const struct option *o = table; o->key; o++) {
        memset((char *)target + o->offset, 0, bytes[o->type]);
        if (o->default_text && option_set(o, target, o->default_text, o->key, a) < 0)
            err_panic("default of option %s: %s", o->key, err_message());
    }
}
