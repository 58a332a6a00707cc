#include "report/series.h"

#include "base/err.h"
#include "base/sys.h"

#include <math.h>
#include <string.h>

void series_init(struct series *s, const char *name, i64 limit)
{
    size_t bytes = strlen(name) + 1;
    *s = (struct series){ .name = sys_alloc((i64)bytes, 16), .limit = limit, .per_point = 1 };
    if (!s->name)
        err_panic("out of memory for the name of a curve");
    memcpy(s->name, name, bytes);
}

void series_fini(struct series *s)
{
    sys_free(s->name);
    sys_free(s->points);
    *s = (struct series){ 0 };
}

static void forget_from(struct series *s, double x)
{
    while (s->n > 0 && s->points[s->n - 1].x_last >= x)
        s->n--;
}

static void merge_pairs(struct series *s)
{
    for (i64 i = 0; i < s->n / 2; i++) {
        const struct series_point *a = &s->points[2 * i], *b = a + 1;
        s->points[i] = (struct series_point){
            .x_first = a->x_first, .x_last = b->x_last, .sum = a->sum + b->sum,
            .least = fmin(a->least, b->least), .most = fmax(a->most, b->most),
            .count = a->count + b->count,
        };
    }
    if (s->n % 2)
        s->points[s->n / 2] = s->points[s->n - 1];
    s->n = ceil_div(s->n, 2);
    s->per_point *= 2;
}

static void make_room(struct series *s)
{
    if (s->n < s->capacity)
        return;
    s->capacity = i64_min(s->limit, i64_max(16, 2 * s->capacity));
    s->points = sys_realloc(s->points, s->capacity * (i64)sizeof *s->points);
    if (!s->points)
        err_panic("out of memory for %lld points of a curve", (long long)s->capacity);
}

void series_add(struct series *s, double x, double value)
{
    if (!isfinite(x) || !isfinite(value))
        return;
    forget_from(s, x);
    s->newest = value;
    struct series_point *last = s->n > 0 ? &s->points[s->n - 1] : NULL;
    if (last && last->count < s->per_point) {
        last->x_last = x;
        last->sum += value;
        last->least = fmin(last->least, value);
        last->most = fmax(last->most, value);
        last->count++;
        return;
    }
    if (s->n == s->limit) {
        merge_pairs(s);
        series_add(s, x, value);
        return;
    }
    make_room(s);
    s->points[s->n++] = (struct series_point){ x, x, value, value, value, 1 };
}
