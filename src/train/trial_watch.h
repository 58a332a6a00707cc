/* train/trial_watch.h - activations and their gradients of a trial, beside those of one rank.
 *
 * Activations share their memory, so they are looked at when the task that has them runs:
 * a product that makes a weight's gradient reads what went into the forward product
 * (an activation) and the gradient of what came out of it, and both are complete there,
 * on however many ranks. Of a long step only every so many tokens are kept, the same on
 * all ranks. An expert's rows have an order that depends on the layout, so of its
 * matrices each column's sum and sum of squares over all of its rows are kept. */
#ifndef HEADWAY_TRIAL_WATCH_H
#define HEADWAY_TRIAL_WATCH_H

#include "train/trial.h"

/* Of the elements of a tensor that a rank has; `all`: what rounding does to the whole of it. */
struct trial_sums {
    double norm, difference, rounding, all;
    i64 n, n_all;
};

/* x on the layout, y on one rank, z on the disturbed one. */
void trial_sums_add(struct trial_sums *s, double x, double y, double z);
/* Into the tensor's line, if it is the worst rank so far. */
void trial_see(const struct trial_sums *s, int rank, struct trial_line *line);

enum { TRIAL_WATCHED = 2 }; /* of a parameter: its product's input, its output's gradient */

/* Behind every task of a rank; context: struct trial_look. */
struct trial_look {
    struct trial *trial;
    int rank;
    const struct run *run;
};
void trial_watch_task(void *context, const struct task *t);

/* A line for each of them, in no order; room for TRIAL_WATCHED of each parameter. */
i64 trial_watch_lines(const struct trial *t, struct trial_line *out);

#endif
