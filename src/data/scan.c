#include "data/scan.h"

#include "data/unicode.h"

#include <string.h>

static inline enum char_class class_at(const u8 *text, i64 at, int *length)
{
    if (text[at] < 0x80)
        return *length = 1, (enum char_class)char_class_ascii[text[at]];
    return char_class_of(utf8_decode(text + at, length));
}

/* End of the run of this class that begins at `at`; may be empty. */
static inline i64 run_end(const u8 *text, i64 at, i64 end, enum char_class class)
{
    int length;
    while (at < end && class_at(text, at, &length) == class)
        at += length;
    return at;
}

/* White space from `at` on, of which the last character is left to the next piece when a
 * piece follows: \s+(?!\S)|\s+ */
static i64 space_piece(const u8 *text, i64 at, i64 end)
{
    i64 stop = run_end(text, at, end, CHAR_SPACE), last = stop;
    if (stop == end)
        return stop;
    do
        last--;
    while ((text[last] & 0xC0) == 0x80);
    return last > at ? last : stop;
}

static inline bool two(const u8 *p, char a, char b)
{
    return p[0] == (u8)a && p[1] == (u8)b;
}

/* 's|'t|'re|'ve|'m|'ll|'d after the apostrophe at `at`: its end, or 0. */
static i64 contraction(const u8 *text, i64 at, i64 end)
{
    if (at + 1 >= end)
        return 0;
    const u8 *p = text + at + 1;
    if (*p == 's' || *p == 't' || *p == 'm' || *p == 'd')
        return at + 2;
    if (at + 2 < end && (two(p, 'r', 'e') || two(p, 'v', 'e') || two(p, 'l', 'l')))
        return at + 3;
    return 0;
}

/* The same in either case; the long s, U+017F, folds to s. */
static i64 contraction_any_case(const u8 *text, i64 at, i64 end)
{
    u8 small[3] = { text[at], 0, 0 };
    if (at + 2 < end && text[at + 1] == 0xC5 && text[at + 2] == 0xBF)
        return at + 3;
    for (int i = 1; i < 3 && at + i < end; i++)
        small[i] = text[at + i] >= 'A' && text[at + i] <= 'Z' ? text[at + i] | 0x20
                                                              : text[at + i];
    i64 length = contraction(small, 0, i64_min(3, end - at));
    return length ? at + length : 0;
}

/* 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+ */
static i64 scan_gpt2(const u8 *text, i64 at, i64 end)
{
    int length;
    i64 stop, next = at;
    if (text[at] == '\'' && (stop = contraction(text, at, end)) > 0)
        return stop;
    if (text[at] == ' ' && at + 1 < end)
        next++;
    enum char_class class = class_at(text, next, &length);
    if (class == CHAR_SPACE)
        return space_piece(text, at, end);
    return run_end(text, next + length, end, class);
}

/* \s*[\r\n]+ : up to the last line end of the white space at `at`, or 0 without one. */
static i64 lines_piece(const u8 *text, i64 at, i64 end)
{
    i64 stop = run_end(text, at, end, CHAR_SPACE);
    while (stop > at && text[stop - 1] != '\n' && text[stop - 1] != '\r')
        stop--;
    return stop > at ? stop : 0;
}

/* A run of symbols and the line ends behind it: [^\s\p{L}\p{N}]+[\r\n]* */
static i64 symbols_piece(const u8 *text, i64 at, i64 end)
{
    at = run_end(text, at, end, CHAR_OTHER);
    while (at < end && (text[at] == '\r' || text[at] == '\n'))
        at++;
    return at;
}

static i64 digits_piece(const u8 *text, i64 at, i64 end, int most)
{
    int length;
    for (; most > 0 && at < end && class_at(text, at, &length) == CHAR_NUMBER; most--)
        at += length;
    return at;
}

/* (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,digits}
 * | ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+ */
static inline i64 scan_gpt4(const u8 *text, i64 at, i64 end, int digits)
{
    int length, next_length;
    i64 stop;
    enum char_class class = class_at(text, at, &length);
    if (class == CHAR_LETTER)
        return run_end(text, at + length, end, CHAR_LETTER);
    if (class == CHAR_NUMBER)
        return digits_piece(text, at, end, digits);
    if (text[at] == '\'' && (stop = contraction_any_case(text, at, end)) > 0)
        return stop;
    i64 next = at + length;
    enum char_class after = CHAR_SPACE;
    if (next < end)
        after = class_at(text, next, &next_length);
    if (after == CHAR_LETTER && text[at] != '\r' && text[at] != '\n')
        return run_end(text, next + next_length, end, CHAR_LETTER);
    if (class == CHAR_OTHER)
        return symbols_piece(text, at, end);
    if (text[at] == ' ' && after == CHAR_OTHER)
        return symbols_piece(text, next, end);
    stop = lines_piece(text, at, end);
    return stop > 0 ? stop : space_piece(text, at, end);
}

static i64 scan_cl100k(const u8 *text, i64 at, i64 end)
{
    return scan_gpt4(text, at, end, 3);
}

static i64 scan_qwen2(const u8 *text, i64 at, i64 end)
{
    return scan_gpt4(text, at, end, 1);
}

#define GPT4_REGEX(digits)                                                               \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}" digits           \
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

const struct scan_pattern scan_patterns[] = {
    { "gpt2",
      "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
      scan_gpt2 },
    { "cl100k", GPT4_REGEX("{1,3}"), scan_cl100k },
    { "llama3", GPT4_REGEX("{1,3}"), scan_cl100k },
    { "qwen2", GPT4_REGEX(""), scan_qwen2 },
};
const i64 scan_pattern_count = COUNT_OF(scan_patterns);

const struct scan_pattern *scan_by_name(const char *name)
{
    for (i64 i = 0; i < scan_pattern_count; i++)
        if (!strcmp(scan_patterns[i].name, name))
            return &scan_patterns[i];
    return NULL;
}

const struct scan_pattern *scan_by_regex(const char *regex)
{
    for (i64 i = 0; i < scan_pattern_count; i++)
        if (!strcmp(scan_patterns[i].regex, regex))
            return &scan_patterns[i];
    return NULL;
}
