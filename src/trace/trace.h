/* trace/trace.h - always-on spans in a ring.
 *
 * One span per task, 32 bytes, keyed by (step, action, task). Recording is two clock
 * reads and one store; the ring forgets the oldest. One writer per lane, so no locks;
 * readers look between steps. */
#ifndef HEADWAY_TRACE_H
#define HEADWAY_TRACE_H

#include "base/base.h"

enum trace_lane { TRACE_COMPUTE, TRACE_HOST, TRACE_LOADER, TRACE_CHECKPOINT, TRACE_LANES };

/* What a span timed. SPAN_TASK spans name a task of the program; the others are the
 * host's own doings around it. */
enum span_kind {
    SPAN_TASK, SPAN_STEP, SPAN_LOAD_WAIT, SPAN_LOAD, SPAN_EVAL, SPAN_CHECKPOINT, SPAN_LOG,
    SPAN_KINDS
};

struct span {
    u64 begin_ns, end_ns; /* sys_now_ns */
    u32 step;
    u32 task;   /* id in the program; 0 for other kinds */
    u16 action; /* index in the program's actions */
    u8 lane, kind;
    u32 detail; /* per kind: bytes in KiB for loads and checkpoints, else 0 */
};

struct trace_ring {
    struct span *spans;
    u64 capacity; /* a power of two */
    u64 written;  /* ever; the last `capacity` of them are there */
};

struct trace {
    struct trace_ring lanes[TRACE_LANES];
};

/* capacity spans per lane, rounded up to a power of two. */
int trace_init(struct trace *t, i64 capacity);
void trace_fini(struct trace *t);
const char *trace_lane_name(int lane);
const char *trace_kind_name(int kind);

static inline void trace_add(struct trace *t, const struct span *s)
{
    struct trace_ring *r = &t->lanes[s->lane];
    r->spans[r->written & (r->capacity - 1)] = *s;
    r->written++;
}

#endif
