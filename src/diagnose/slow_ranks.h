/* diagnose/slow_ranks.h - which ranks compute longer than others that do as much.
 *
 * Whether that is always so, and whether anybody waits for them, is for rules to say. */
#ifndef HEADWAY_SLOW_RANKS_H
#define HEADWAY_SLOW_RANKS_H

#include "diagnose/rule.h"

/* Where it is known what each rank has to do (times are given, or stages have tasks in common): any but
 * one, wherever they are. Else ranks of one stage that compute longer than its others: one, some, or
 * all but two; or all ranks of a stage, or of some, by what the machine's ceilings give their tasks.
 * Of those, such as are as slow as the slowest. */
struct slow_ranks {
    bool *in;    /* [n_ranks] */
    double *takes; /* [n_ranks] of its time, what a slow one would take as the others; 1: is not */
    i64 n, rank; /* rank: which of them is the slowest; -1: no rank has peers */
    bool across; /* their own stages' ranks do not show what they should take: others' work does */
    double last_share; /* of exchanges at which one of them came last; NaN: not known */
    double blamed_share; /* of all waiting for ranks, what was for them; NaN: not known */
    struct rule_excess excess; /* of their mean above the median of the others; share: of steps in
                                * which all others are faster */
};

/* Of the stage in which that is most, or of stages beside each other. */
struct slow_ranks slow_ranks_find(const struct measure *m, struct arena *a);
/* The same at the clocks of the start and without the ranks that are left out: [n_ranks]. usual: those that are known not to be slow;
 * NULL: not one is. */
struct slow_ranks slow_ranks_among(const struct measure *m, const bool *left_out, const bool *usual,
                                   struct arena *a);

/* How a stage computes beside the others, for what it has to do. */
enum slow_pace_by {
    SLOW_PACE_TOLD,    /* times were given, and tasks take just that */
    SLOW_PACE_TASKS,   /* tasks that other stages have, too: as many FLOPs and bytes of the same op */
    SLOW_PACE_CEILINGS /* no tasks in common: the machine's ceilings, which ops reach unequally */
};
struct slow_pace {
    enum slow_pace_by by;
    double pace; /* of its quickest rank, over that of the middle stage (of two the faster one): a stage
                  * that has more to do has 1, one that is slow has more. NaN: not known */
    double work; /* what it has to do, over what the mean stage has; NaN */
};
/* take: of each rank's time, what counts; NULL: all. */
struct slow_pace slow_stage_pace(const struct measure *m, int stage, const double *take);

#endif
