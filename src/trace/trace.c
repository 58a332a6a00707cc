#include "trace/trace.h"

#include "base/err.h"
#include "base/sys.h"

#include <string.h>

static int ring_init(struct trace_ring *r, u64 size)
{
    i64 bytes = (i64)(size * sizeof(struct span));
    r->spans = sys_alloc(bytes, 64);
    if (!r->spans)
        return err_set(ERR_LIMIT, "no memory for a trace of %llu spans; lower trace.ring",
                       (unsigned long long)size);
    memset(r->spans, 0, (size_t)bytes); /* touched now: no page faults during a step */
    r->capacity = size;
    return OK;
}

int trace_init(struct trace *t, i64 capacity)
{
    _Static_assert(sizeof(struct span) == 32, "a span is 32 bytes");
    *t = (struct trace){ 0 };
    u64 size = 1;
    while ((i64)size < capacity)
        size *= 2;
    for (int lane = 0; lane < TRACE_CALLS; lane++) {
        int rc = ring_init(&t->lanes[lane], size);
        if (rc < 0) {
            trace_fini(t);
            return rc;
        }
    }
    return OK;
}

int trace_open(struct trace *t, int lane)
{
    return ring_init(&t->lanes[lane], t->lanes[TRACE_COMPUTE].capacity);
}

void trace_fini(struct trace *t)
{
    for (int lane = 0; lane < TRACE_LANES; lane++)
        sys_free(t->lanes[lane].spans);
    *t = (struct trace){ 0 };
}

void trace_forget(struct trace *t)
{
    t->lanes[TRACE_COMPUTE].written = 0;
    for (int lane = TRACE_CALLS; lane < TRACE_LANES; lane++)
        t->lanes[lane].written = 0;
}

const char *trace_lane_name(int lane)
{
    static const char *const names[] = { "compute", "host", "loader", "checkpoint", "tp", "cp",
                                         "dp", "shard", "copies", "pp", "table", "ep", "edp",
                                         "islands",
                                         "away" };
    _Static_assert(COUNT_OF(names) == TRACE_LANES, "a name for each");
    return lane >= 0 && lane < TRACE_LANES ? names[lane] : "?";
}

const char *trace_kind_name(int kind)
{
    static const char *const names[] = { "task", "call", "wait", "step", "load wait", "load",
                                         "eval", "checkpoint", "log", "meet other ranks" };
    return kind >= 0 && kind < SPAN_KINDS ? names[kind] : "?";
}
