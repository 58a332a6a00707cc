/* What of a lane's calls the compute lane had to wait for (see trace.h). */
#include "base/arena.h"
#include "trace/trace.h"

#include <stdlib.h>

static u64 oldest(const struct trace_ring *r)
{
    return r->written > r->capacity ? r->written - r->capacity : 0;
}

static int by_begin(const void *a, const void *b)
{
    const struct span *x = *(const struct span *const *)a, *y = *(const struct span *const *)b;
    return (x->begin_ns > y->begin_ns) - (x->begin_ns < y->begin_ns);
}

/* Time in which at least one call of the step was under way. They end in any order. */
static u64 busy(const struct trace_ring *r, u32 step)
{
    struct arena a;
    arena_init(&a);
    const struct span **calls = ARENA_ARRAY(&a, const struct span *, i64_max(1, (i64)r->capacity));
    i64 n = 0;
    u64 sum = 0, until = 0;
    for (u64 i = oldest(r); i < r->written; i++) {
        const struct span *s = &r->spans[i & (r->capacity - 1)];
        if (s->kind == SPAN_CALL && s->step == step)
            calls[n++] = s;
    }
    qsort(calls, (size_t)n, sizeof *calls, by_begin);
    for (i64 i = 0; i < n; i++) {
        u64 begin = calls[i]->begin_ns > until ? calls[i]->begin_ns : until;
        if (calls[i]->end_ns > begin) {
            sum += calls[i]->end_ns - begin;
            until = calls[i]->end_ns;
        }
    }
    arena_fini(&a);
    return sum;
}

struct trace_overlap trace_overlap(const struct trace *t, int lane, u32 step)
{
    struct trace_overlap sum = { .busy_ns = busy(&t->lanes[lane], step) };
    const struct trace_ring *r = &t->lanes[TRACE_COMPUTE];
    for (u64 i = oldest(r); i < r->written; i++) {
        const struct span *s = &r->spans[i & (r->capacity - 1)];
        if (s->kind == SPAN_WAIT && s->step == step && (int)s->detail == lane)
            sum.exposed_ns += s->end_ns - s->begin_ns;
    }
    return sum;
}
