#include "base/text.h"

#include "base/err.h"
#include "base/sys.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void text_fini(struct text *t)
{
    sys_free(t->data);
    *t = (struct text){ 0 };
}

void text_clear(struct text *t)
{
    t->length = 0;
    if (t->data)
        t->data[0] = '\0';
}

/* Room for n more bytes and the final '\0'. */
static char *reserve(struct text *t, i64 n)
{
    if (t->length + n + 1 > t->capacity) {
        i64 capacity = i64_max(256, i64_max(2 * t->capacity, t->length + n + 1));
        char *data = sys_realloc(t->data, capacity);
        if (!data)
            err_panic("out of memory for %lld bytes of text", (long long)capacity);
        t->data = data;
        t->capacity = capacity;
    }
    return t->data + t->length;
}

void text_add_bytes(struct text *t, const char *bytes, i64 n)
{
    char *at = reserve(t, n);
    if (n > 0) /* bytes may be NULL then */
        memcpy(at, bytes, (size_t)n);
    at[n] = '\0';
    t->length += n;
}

void text_add(struct text *t, const char *string)
{
    text_add_bytes(t, string, (i64)strlen(string));
}

void text_printf(struct text *t, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    assert(n >= 0);
    vsnprintf(reserve(t, n), (size_t)n + 1, fmt, again);
    va_end(again);
    t->length += n;
}

void text_repeat(struct text *t, char c, i64 n)
{
    if (n <= 0)
        return;
    char *at = reserve(t, n);
    memset(at, c, (size_t)n);
    at[n] = '\0';
    t->length += n;
}

void text_add_varint(struct text *t, u64 value)
{
    do {
        char byte = (char)((value & 127) | (value > 127 ? 128 : 0));
        text_add_bytes(t, &byte, 1);
        value >>= 7;
    } while (value);
}

void text_wrap(struct text *t, const char *string, int column, int indent, int width)
{
    bool first = true;
    for (;;) {
        string += strspn(string, " \n");
        int n = (int)strcspn(string, " \n");
        if (n == 0)
            return;
        if (!first && column + 1 + n > width) {
            text_add(t, "\n");
            text_repeat(t, ' ', indent);
            column = indent;
        } else if (!first) {
            text_add(t, " ");
            column++;
        }
        text_add_bytes(t, string, n);
        column += n;
        string += n;
        first = false;
    }
}

i64 text_mark(const void *text, i64 bytes)
{
    return bytes >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0;
}

void text_add_double(struct text *t, double value)
{
    char digits[40];
    if (isnan(value)) {
        text_add(t, "nan");
        return;
    }
    for (int precision = 6; precision <= 17; precision++) {
        snprintf(digits, sizeof digits, "%.*g", precision, value);
        if (strtod(digits, NULL) == value)
            break;
    }
    text_add(t, digits);
}

/* --- did you mean ---------------------------------------------------------------- */

enum { MAX_NAME = 64 };

/* Optimal string alignment: insert, delete, replace, swap neighbours; each costs 1. */
static i64 edit_distance(const char *a, const char *b)
{
    i64 row[3][MAX_NAME + 1], n = (i64)strlen(a), m = (i64)strlen(b);
    if (n > MAX_NAME || m > MAX_NAME)
        return MAX_NAME;
    for (i64 j = 0; j <= m; j++)
        row[0][j] = j;
    for (i64 i = 1; i <= n; i++) {
        i64 *now = row[i % 3], *last = row[(i + 2) % 3], *before = row[(i + 1) % 3];
        now[0] = i;
        for (i64 j = 1; j <= m; j++) {
            i64 cost = a[i - 1] != b[j - 1];
            now[j] = i64_min(i64_min(last[j], now[j - 1]) + 1, last[j - 1] + cost);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                now[j] = i64_min(now[j], before[j - 2] + 1);
        }
    }
    return row[n % 3][m];
}

void nearest_offer(struct nearest *n, const char *name)
{
    i64 distance = edit_distance(n->typed, name);
    const char *tail = strrchr(name, '.');
    if (tail && !strchr(n->typed, '.')) /* "steps" for "train.steps" */
        distance = i64_min(distance, edit_distance(n->typed, tail + 1) + 1);
    if (!n->best || distance < n->distance) {
        n->best = name;
        n->distance = distance;
    }
}

const char *nearest_found(const struct nearest *n)
{
    i64 most = i64_max(2, (i64)strlen(n->typed) / 3);
    return n->best && n->distance <= most ? n->best : NULL;
}
