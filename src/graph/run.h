/* graph/run.h - what a kernel may use besides its task. */
#ifndef HEADWAY_RUN_H
#define HEADWAY_RUN_H

#include "base/inject.h"
#include "base/pool.h"
#include "graph/graph.h"
#include "trace/trace.h"

struct backend;
struct run;

/* Carries out the tasks of the communication lanes. A lane finishes its tasks in the order
 * in which they were started. */
struct lane_driver {
    void *context;
    /* Begins the task; *ticket (positive) names it in wait. */
    int (*start)(void *context, const struct task *t, struct run *x, u64 *ticket);
    /* 1: that task and all before it on the lane are done. 0: not yet, which only happens
     * when block is false. Negative: the lane failed. */
    int (*wait)(void *context, enum lane lane, u64 ticket, bool block);
};

/* Nothing in it is allocated during a step. */
struct run {
    const struct backend *backend;
    struct pool *pool;
    void *workspace; /* workspace_bytes, shared by all threads, 64-byte aligned */
    i64 workspace_bytes;
    u64 step;
    i64 action; /* of the program, and its micro-batch */
    int micro_batch;
    void *context;       /* of this kernel's row */
    struct trace *trace; /* may be NULL */
    const struct lane_driver *lanes; /* NULL: programs have compute tasks only */
    const struct inject *inject;     /* what is disturbed on purpose; NULL: nothing */
    struct pool *one_thread;         /* for ops that are made serial */
    bool yields; /* return EXEC_BLOCKED instead of waiting for a lane */
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
