#include "base/sort.h"

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

/* [a, b) and [b, c) of from, both ascending, into the same place of to. */
static void merge(const struct sorting *s, const char *from, char *to, i64 a, i64 b, i64 c)
{
    const i64 bytes = s->bytes;
    i64 x = a, y = b;
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
    while (n > 1 && run_end(&s, from, 0) < n) {
        to = to ? to : arena_alloc_unset(a, n * bytes);
        for (i64 begin = 0, end; begin < n; begin = end) {
            i64 middle = run_end(&s, from, begin);
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
