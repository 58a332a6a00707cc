/* trace/trace.h - always-on spans in a ring.
 *
 * One span per task, 32 bytes, keyed by (step, action, task). Recording is two clock
 * reads and one store; the ring forgets the oldest. One writer per lane, so no locks;
 * readers look between steps. What ranks exchange has lanes of its own, whose rings exist
 * only where something is exchanged. */
#ifndef HEADWAY_TRACE_H
#define HEADWAY_TRACE_H

#include "base/base.h"

enum trace_lane {
    TRACE_COMPUTE, TRACE_HOST, TRACE_LOADER, TRACE_CHECKPOINT,
    TRACE_CALLS, /* the first of one for each of a program's other lanes: trace_of_lane */
    TRACE_LANES = TRACE_CALLS + 11
};

/* Of a program's lane; 0 is the one that computes. */
static inline int trace_of_lane(int lane)
{
    return lane > 0 ? TRACE_CALLS + lane - 1 : TRACE_COMPUTE;
}

/* What a span timed. The first three name a task of the program; the others are the
 * host's own doings around it. */
enum span_kind {
    SPAN_TASK, /* computing it */
    SPAN_CALL, /* carrying it out on another lane, from the start until its end was seen */
    SPAN_WAIT, /* the compute lane stands still until that task of another lane has ended */
    SPAN_STEP, SPAN_LOAD_WAIT, SPAN_LOAD, SPAN_EVAL, SPAN_CHECKPOINT, SPAN_LOG,
    SPAN_MEET, /* until all ranks have come */
    SPAN_KINDS
};

static inline bool span_has_task(int kind)
{
    return kind <= SPAN_WAIT;
}

struct span {
    u64 begin_ns, end_ns; /* sys_now_ns */
    u32 step;
    u32 task;   /* id in the program; 0 for other kinds */
    u16 action; /* index in the program's actions */
    u8 lane, kind;
    u32 detail; /* per kind: bytes in KiB for loads and checkpoints; the trace's lane that is
                 * waited for; how a task's threads worked (below); else 0 */
};

/* --- how the threads of a task worked ------------------------------------------------ */

/* The mean of their time on its parts over the longest, and the share of that time on a processor,
 * each in (0, 1]; 0: not looked at, as in tasks too short for it. */
static inline u32 span_work(double balance, double on_cpu)
{
    return (u32)(balance * 65535) << 16 | (u32)(on_cpu * 65535);
}

static inline double span_balance(u32 detail)
{
    return (double)(detail >> 16) / 65535;
}

static inline double span_on_cpu(u32 detail)
{
    return (double)(detail & 65535) / 65535;
}

struct trace_ring {
    struct span *spans;
    u64 capacity; /* a power of two */
    u64 written;  /* ever; the last `capacity` of them are there */
};

struct trace {
    struct trace_ring lanes[TRACE_LANES];
};

/* capacity spans per lane, rounded up to a power of two. trace_open adds a lane of calls. */
int trace_init(struct trace *t, i64 capacity);
int trace_open(struct trace *t, int lane);
void trace_fini(struct trace *t);
/* Forgets what was computed and exchanged: a run that goes back takes the same steps again. */
void trace_forget(struct trace *t);
const char *trace_lane_name(int lane);
const char *trace_kind_name(int kind);

/* Forgets spans of lanes that are not open. */
static inline void trace_add(struct trace *t, const struct span *s)
{
    struct trace_ring *r = &t->lanes[s->lane];
    if (r->capacity == 0)
        return;
    r->spans[r->written & (r->capacity - 1)] = *s;
    __atomic_store_n(&r->written, r->written + 1, __ATOMIC_RELEASE);
}

/* How many were ever written, for who reads while a loader goes on: those before are whole. */
static inline u64 trace_written(const struct trace_ring *r)
{
    return __atomic_load_n(&r->written, __ATOMIC_ACQUIRE);
}

/* --- how much of what a lane does is hidden ----------------------------------------- */

struct trace_overlap {
    u64 busy_ns;    /* at least one call of the lane was under way */
    u64 exposed_ns; /* the compute lane stood still for it */
};

/* Of one step, as far as the rings still have it. */
struct trace_overlap trace_overlap(const struct trace *t, int lane, u32 step);

#endif
