/* diagnose/whatif_quiet.h - what tasks take when nothing disturbs them. */
#ifndef HEADWAY_DIAGNOSE_WHATIF_QUIET_H
#define HEADWAY_DIAGNOSE_WHATIF_QUIET_H

#include "base/arena.h"
#include "diagnose/dag.h"

enum quiet { USUALLY_QUIET, OFTEN_QUIET, SELDOM_QUIET, QUIETS }; /* as one expects, or more or less */

/* Steps of one program, and of each rank its stage (-1: it has no spans) and how much slower it is
 * than others when nothing disturbs it, 1 or more. */
struct quiet_steps {
    struct dag *const *graphs;
    int n;
    const int *stage;
    const double *pace;
};

/* Seconds of each node that computes, at the usual pace: of the same task of the same action, over
 * the ranks of a stage and all steps, the median, times what whole actions take in a share of the
 * cases over what they usually do. Whole actions, and less of that where the actions of a step make
 * up for each other: what a late task is caught up with by those behind it is no noise.
 * seconds[q][graph][node] is in the arena. */
void quiet_find(const struct quiet_steps *s, float **seconds[QUIETS], struct arena *a);

#endif
