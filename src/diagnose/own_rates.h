/* diagnose/own_rates.h - what ops took in recorded runs, as rates that a planner can use.
 *
 * Of the newest steps, the first two of a run left out, those count whose length is in the middle
 * half: for every task the mean of its spans there, so that tasks sum to such a step. (Medians of
 * tasks do not: what disturbs a machine makes one task long in this step and another one in that,
 * and each median leaves it out.) Of an exchange, the shortest span of its members counts: that
 * member came last and waited for nobody. */
#ifndef HEADWAY_OWN_RATES_H
#define HEADWAY_OWN_RATES_H

#include "plan/rates.h"

struct own_run {
    struct plan_rates about;      /* what it says of itself; step_s and waits; no rates yet */
    struct plan_sample *samples;
    i64 n;
    double seconds;               /* the median of its steps, from one's end to the next one's */
};

/* folder: a run's. ERR_CONFIG when nothing was recorded. Texts live in the arena. */
int own_run_read(struct own_run *out, const char *folder, struct arena *a);
/* Columns of a product (M,K) (K,N): N, from its 2 M N K model FLOPs and the M K elements that
 * it reads first. 0: no product, or one that is computed again or reads part of a larger
 * tensor, so nothing is known. */
struct record_table;
struct record_task;
i64 own_product_columns(const struct record_table *table, const struct record_task *task);
/* Both had as many ranks, threads and the same kernels in the same precision. */
bool own_runs_alike(const struct own_run *x, const struct own_run *y);
/* Runs that are alike, together. shape: ops take its growth (NULL: the runs'). */
int own_rates_fit(struct plan_rates *out, const struct own_run *const *runs, i64 n,
                  const struct plan_rates *shape, struct arena *a);

#endif
