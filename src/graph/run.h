/* graph/run.h - what a kernel may use besides its task. */
#ifndef HEADWAY_RUN_H
#define HEADWAY_RUN_H

#include "base/pool.h"
#include "graph/graph.h"
#include "trace/trace.h"

struct backend;

/* Nothing in it is allocated during a step. */
struct run {
    const struct backend *backend;
    struct pool *pool;
    void *workspace; /* workspace_bytes, shared by all threads, 64-byte aligned */
    i64 workspace_bytes;
    u64 step;
    int micro_batch;
    void *context;       /* of this kernel's row */
    struct trace *trace; /* may be NULL */
    /* Called after each task, for tests and the search for the first bad tensor. */
    void (*after_task)(void *context, const struct task *t);
    void *after_context;
};

/* True when a task that sums into its outputs must keep what is there. */
static inline bool run_accumulates(const struct task *t, const struct run *x)
{
    return t->accumulate == ACCUMULATE_ALWAYS ||
           (t->accumulate == ACCUMULATE_STEP && x->micro_batch > 0);
}

#endif
