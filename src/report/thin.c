#include "report/thin.h"

#include <stdlib.h>

static int by_begin(const void *a, const void *b)
{
    const struct thin_span *x = a, *y = b;
    if (x->begin_ns != y->begin_ns)
        return x->begin_ns < y->begin_ns ? -1 : 1;
    return (x->end_ns > y->end_ns) - (x->end_ns < y->end_ns);
}

static void join(struct thin_span *a, const struct thin_span *b)
{
    if (b->longest_ns > a->longest_ns) {
        a->longest_ns = b->longest_ns;
        a->name = b->name;
        a->kind = b->kind;
    }
    a->end_ns = i64_max(a->end_ns, b->end_ns);
    a->count += b->count;
    a->busy_ns += b->busy_ns;
}

/* Both lie within one stretch of `resolution`. */
static bool alike(const struct thin_span *a, const struct thin_span *b, i64 resolution)
{
    return i64_max(a->end_ns, b->end_ns) - a->begin_ns <= resolution;
}

static i64 pass(struct thin_span *spans, i64 n, i64 resolution)
{
    i64 kept = 0;
    for (i64 i = 1; i < n; i++) {
        if (alike(&spans[kept], &spans[i], resolution))
            join(&spans[kept], &spans[i]);
        else
            spans[++kept] = spans[i];
    }
    return kept + 1;
}

i64 thin_spans(struct thin_span *spans, i64 n, i64 most, i64 *resolution_ns)
{
    *resolution_ns = 0;
    if (n == 0)
        return 0;
    qsort(spans, (size_t)n, sizeof *spans, by_begin);
    i64 last = spans[0].end_ns;
    for (i64 i = 1; i < n; i++)
        last = i64_max(last, spans[i].end_ns);
    i64 whole = i64_max(1, last - spans[0].begin_ns);
    /* Fewer spans than `most` cannot be had much below a resolution of whole / most. */
    for (i64 step = i64_max(1, whole / (4 * most)); n > most; step *= 2) {
        *resolution_ns = step;
        n = pass(spans, n, step);
    }
    return n;
}
