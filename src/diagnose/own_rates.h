/* diagnose/own_rates.h - what ops took in a recorded run, as rates that a planner can use.
 *
 * Of the newest steps, the first two of the run left out: for every task the median of its spans, then
 * plan/rates.h's fit. Of an exchange, the shortest span of its members counts: that member came last
 * and waited for nobody. */
#ifndef HEADWAY_OWN_RATES_H
#define HEADWAY_OWN_RATES_H

#include "plan/rates.h"

/* folder: a run's. *step_seconds: the median of its steps, from one's end to the next one's; may
 * be NULL. ERR_CONFIG when nothing was recorded. Texts live in the arena. */
int own_rates_read(struct plan_rates *out, const char *folder, double *step_seconds,
                   struct arena *a);

#endif
