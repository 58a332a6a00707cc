/* diagnose/whatif_quiet.h - what tasks take when nothing disturbs them. */
#ifndef HEADWAY_DIAGNOSE_WHATIF_QUIET_H
#define HEADWAY_DIAGNOSE_WHATIF_QUIET_H

#include "base/arena.h"
#include "diagnose/dag.h"
#include "diagnose/whatif_rows.h"

enum quiet { USUALLY_QUIET, OFTEN_QUIET, SELDOM_QUIET, QUIETS }; /* as one expects, or more or less */

/* Steps of one program, and of each rank its stage (-1: it has no spans) and how much slower it is
 * than others when nothing disturbs it, 1 or more. rows: what its rows ask for; NULL: all alike. */
struct quiet_steps {
    struct dag *const *graphs;
    int n;
    const int *stage;
    const double *pace;
    const struct rows_work *rows;
};

/* What whole actions take, at the usual pace and with usual rows, and how tasks usually share it. */
struct quiet_times {
    i64 actions;
    double *seconds[QUIETS]; /* [graph][rank][action] flat: of an action; 0: it computes nothing */
    float **share;           /* [graph][node]: of what its action takes */
};

/* Of an action what it takes over the ranks of a stage and all steps, in a share of the cases over
 * what it usually does. Whole actions, since a late task may be caught up with by those behind it,
 * and less of that where the actions of a step make up for each other: that is no noise. */
struct quiet_times quiet_find(const struct quiet_steps *s, struct arena *a);
static inline double *quiet_action(const struct quiet_times *t, enum quiet q, i64 graph, int ranks,
                                   int rank, i64 action)
{
    return &t->seconds[q][(graph * ranks + rank) * t->actions + action];
}

#endif
