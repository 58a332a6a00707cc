/* tune/forecast.h - how long a changed recipe's step would take, before it is tried.
 *
 * The steps of all ranks are built as in training and walked on a computed clock (plan/simulate.h),
 * at this machine's measured ceilings. What the ceilings leave out is taken from the recipe as it
 * was measured: a forecast is measured x simulated / simulated as it was. Where the view has rates
 * of the recipe's own run (plan/rates.h), tasks take what they say instead: what a task costs
 * besides its FLOPs is in them, so that thin micro-batches are told from thick ones. They hold for
 * the threads, kernels, precision and exchanges of that run. A forecast serves to choose what is
 * worth a trial; a trial decides. */
#ifndef HEADWAY_TUNE_FORECAST_H
#define HEADWAY_TUNE_FORECAST_H

#include "machine/machine.h"
#include "tune/knob.h"

struct forecast {
    double seconds; /* of a step, simulated */
    i64 bytes;      /* of the hungriest rank: weights, state, activations */
};

/* r with the change (NULL: none) at these ceilings. Negative, and the sentence says why, when
 * the changed recipe is not legal. */
int forecast_step(struct forecast *out, const struct timing_base *base,
                  const struct tune_change *change, const struct machine *m,
                  const struct knob_view *v);

#endif
