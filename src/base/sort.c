#include "base/sort.h"

#include <stdlib.h>
#include <string.h>

struct sorting {
    i64 n, bytes;
    int (*compare)(const void *, const void *);
};

/* Where the ascending run that begins at `from` ends. */
static i64 run_end(const struct sorting *s, const char *data, i64 from)
{
    i64 i = from + 1;
    while (i < s->n && s->compare(data + (i - 1) * s->bytes, data + i * s->bytes) <= 0)
        i++;
    return i64_min(i, s->n);
}

/* How many of [a, b), ascending, are not behind the one at y. */
static i64 count_until(const struct sorting *s, const char *data, i64 a, i64 b, i64 y)
{
    i64 low = a, high = b;
    while (low < high) {
        i64 middle = (low + high) / 2;
        if (s->compare(data + middle * s->bytes, data + y * s->bytes) <= 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low - a;
}

static void copy(const struct sorting *s, const char *from, char *to, i64 a, i64 n)
{
    memcpy(to, from + a * s->bytes, (size_t)(n * s->bytes));
}

/* A few into many: what stands between two of the few is found, and moved as a whole. */
static void merge_few(const struct sorting *s, const char *from, char *to, i64 a, i64 b, i64 c)
{
    char *at = to + a * s->bytes;
    i64 x = a;
    for (i64 y = b; y < c; y++) {
        const i64 n = count_until(s, from, x, b, y);
        copy(s, from, at, x, n);
        copy(s, from, at + n * s->bytes, y, 1);
        at += (n + 1) * s->bytes;
        x += n;
    }
    copy(s, from, at, x, b - x);
}

/* [a, b) and [b, c) of from, both ascending, into the same place of to. */
static void merge(const struct sorting *s, const char *from, char *to, i64 a, i64 b, i64 c)
{
    enum { FEW = 16 }; /* times as many: looking for the place takes fewer comparisons */
    const i64 bytes = s->bytes;
    i64 x = a, y = b;
    if (FEW * (c - b) <= b - a) {
        merge_few(s, from, to, a, b, c);
        return;
    }
    for (i64 at = a; at < c; at++) {
        bool first = y == c || (x < b && s->compare(from + x * bytes, from + y * bytes) <= 0);
        memcpy(to + at * bytes, from + (first ? x++ : y++) * bytes, (size_t)bytes);
    }
}

void sort_runs(void *data, i64 n, i64 bytes, int (*compare)(const void *, const void *),
               struct arena *a)
{
    const struct sorting s = { n, bytes, compare };
    char *from = data, *to = NULL;
    for (i64 runs = n > 1 ? 2 : 1; runs > 1;) {
        i64 middle = run_end(&s, from, 0), end;
        runs = 0;
        if (middle == n)
            break;
        to = to ? to : arena_alloc_unset(a, n * bytes);
        for (i64 begin = 0; begin < n; begin = end, runs++) {
            middle = begin > 0 ? run_end(&s, from, begin) : middle;
            end = middle < n ? run_end(&s, from, middle) : n;
            merge(&s, from, to, begin, middle, end);
        }
        char *sorted = to;
        to = from;
        from = sorted;
    }
    if (from != (char *)data)
        memcpy(data, from, (size_t)(n * bytes));
}

/* --- numbers ------------------------------------------------------------------------ */

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* 6 x 11 bits hold 64, and the counts of a digit fit the first cache; fewer numbers than so many
 * are not worth it. */
enum { DIGIT = 11, DIGITS = 6, FEW_NUMBERS = 1024 };

/* Whole numbers in the order of the numbers: those below zero the other way round. */
static u64 bits_of(double x)
{
    u64 bits;
    memcpy(&bits, &x, sizeof bits);
    return bits >> 63 ? ~bits : bits | (u64)1 << 63;
}

static double number_of(u64 bits)
{
    double x;
    bits = bits >> 63 ? bits & ~((u64)1 << 63) : ~bits;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static u64 digit_of(u64 bits, int digit)
{
    return bits >> digit * DIGIT & ((1u << DIGIT) - 1);
}

/* Where the numbers with each digit begin, once they are sorted by it. */
static void begin_digits(u32 *count)
{
    u32 at = 0;
    for (i64 k = 0; k < 1 << DIGIT; k++) {
        const u32 n = count[k];
        count[k] = at;
        at += n;
    }
}

void sort_numbers(double *x, i64 n, struct arena *a)
{
    u32 begin[DIGITS][1 << DIGIT] = { 0 };
    if (n < FEW_NUMBERS || n > UINT32_MAX) {
        if (n > 1)
            qsort(x, (size_t)n, sizeof *x, ascending);
        return;
    }
    u64 *from = ARENA_UNSET(a, u64, n), *to = ARENA_UNSET(a, u64, n);
    for (i64 i = 0; i < n; i++) {
        from[i] = bits_of(x[i]);
        for (int digit = 0; digit < DIGITS; digit++)
            begin[digit][digit_of(from[i], digit)]++;
    }
    for (int digit = 0; digit < DIGITS; digit++) {
        if (begin[digit][digit_of(from[0], digit)] == n)
            continue; /* they all have this one */
        begin_digits(begin[digit]);
        for (i64 i = 0; i < n; i++)
            to[begin[digit][digit_of(from[i], digit)]++] = from[i];
        u64 *sorted = to;
        to = from;
        from = sorted;
    }
    for (i64 i = 0; i < n; i++)
        x[i] = number_of(from[i]);
}

/* Digit by digit from the highest on, those that have what the k-th has. */
double sort_select(const double *x, i64 n, i64 k, struct arena *a)
{
    i64 count[1 << DIGIT];
    u64 *bits = ARENA_UNSET(a, u64, n);
    assert(k >= 0 && k < n);
    for (i64 i = 0; i < n; i++)
        bits[i] = bits_of(x[i]);
    for (int digit = DIGITS - 1; digit >= 0 && n > 1; digit--) {
        i64 its = 0, left = 0;
        memset(count, 0, sizeof count);
        for (i64 i = 0; i < n; i++)
            count[digit_of(bits[i], digit)]++;
        while (k >= count[its])
            k -= count[its++];
        for (i64 i = 0; i < n; i++) {
            bits[left] = bits[i];
            left += digit_of(bits[i], digit) == (u64)its;
        }
        n = left;
    }
    return number_of(bits[0]);
}
