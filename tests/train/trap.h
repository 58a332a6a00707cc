/* tests/train/trap.h - runs whose data turn bad. */
#ifndef HEADWAY_TEST_TRAP_H
#define HEADWAY_TEST_TRAP_H

#include "train/job.h"

#include "ops/ops.h"

#include <math.h>

/* Batches of the loader, some of them made hard (every target one rare token) or poisonous
 * (a weight of NaN). */
static struct trap {
    struct kernel real;
    i64 hard_from, hard_until; /* steps, 0-based */
    i64 hard_left;             /* steps that are still to be made hard */
    i64 nan_from, nan_until;
    i64 last_step;
    bool hard;
} trap;

static bool make_hard(struct run *x)
{
    if ((i64)x->step != trap.last_step) {
        trap.last_step = (i64)x->step;
        bool begins = (i64)x->step >= trap.hard_from && (i64)x->step < trap.hard_until;
        trap.hard = trap.hard_left > 0 && (begins || trap.hard);
        trap.hard_left -= trap.hard;
    }
    return trap.hard;
}

static void trapped_batch(const struct task *t, struct run *x)
{
    void *mine = x->context;
    x->context = trap.real.context;
    trap.real.run(t, x);
    x->context = mine;
    i32 *targets = t->out[BATCH_TARGETS]->data;
    bool hard = make_hard(x);
    for (i64 i = 0; hard && i < tensor_count(t->out[BATCH_TARGETS]); i++)
        targets[i] = 7;
    if ((i64)x->step >= trap.nan_from && (i64)x->step < trap.nan_until)
        ((float *)t->out[BATCH_WEIGHTS]->data)[40] = NAN;
}

/* After session_open. */
static inline void set_trap(struct session *s)
{
    trap.real = loader_kernel(s->loader);
    trap.last_step = -1;
    backend_set(&s->engine.backend, &op_load_batch, (struct kernel){ .run = trapped_batch });
}

#define LONG_RUN "train.steps=100", "eval.every=0", "checkpoint.every=10", "checkpoint.keep=50", \
                 "lr.schedule=constant", "train.ema=0", "guard.rewind=10", "guard.skip=2"

#endif
