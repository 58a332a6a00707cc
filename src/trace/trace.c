#include "trace/trace.h"

#include "base/err.h"
#include "base/sys.h"

#include <string.h>

int trace_init(struct trace *t, i64 capacity)
{
    _Static_assert(sizeof(struct span) == 32, "a span is 32 bytes");
    *t = (struct trace){ 0 };
    u64 size = 1;
    while ((i64)size < capacity)
        size *= 2;
    for (int lane = 0; lane < TRACE_LANES; lane++) {
        struct trace_ring *r = &t->lanes[lane];
        i64 bytes = (i64)(size * sizeof(struct span));
        r->spans = sys_alloc(bytes, 64);
        if (!r->spans) {
            trace_fini(t);
            return err_set(ERR_LIMIT, "no memory for a trace of %lld spans; lower trace.ring",
                           (long long)capacity);
        }
        memset(r->spans, 0, (size_t)bytes); /* touched now: no page faults during a step */
        r->capacity = size;
    }
    return OK;
}

void trace_fini(struct trace *t)
{
    for (int lane = 0; lane < TRACE_LANES; lane++)
        sys_free(t->lanes[lane].spans);
    *t = (struct trace){ 0 };
}

const char *trace_lane_name(int lane)
{
    static const char *const names[] = { "compute", "host", "loader", "checkpoint" };
    return lane >= 0 && lane < TRACE_LANES ? names[lane] : "?";
}

const char *trace_kind_name(int kind)
{
    static const char *const names[] = { "task", "step", "load wait", "load", "eval",
                                         "checkpoint", "log" };
    return kind >= 0 && kind < SPAN_KINDS ? names[kind] : "?";
}
