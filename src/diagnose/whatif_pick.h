/* diagnose/whatif_pick.h - which steps are replayed, and how far they stand for all. */
#ifndef HEADWAY_WHATIF_PICK_H
#define HEADWAY_WHATIF_PICK_H

#include "diagnose/measure.h"

/* The i-th of `take` steps, out of so many in order: one of each equal part, and not the same place
 * in each, so that what comes every so many steps is there as often as in all. */
i64 whatif_pick(i64 i, i64 take, i64 steps);
/* Whether those that are picked have as much of such a gap as all: rare ones they may lack.
 * Where not, edits of it cannot be replayed. */
bool whatif_stands_for(const struct measure *m, i64 take, enum measure_host kind);
/* How much rarer what the host does is in all steps than in those that are replayed. */
double whatif_rarer(const struct measure *m, i64 take, enum measure_host kind);
/* How much less is waited for data in all steps than in those that are replayed, at the rank that
 * waits most in each: the wait for a few long loads is a matter of which steps these are. */
double whatif_less_data(const struct measure *m, i64 take);

#endif
