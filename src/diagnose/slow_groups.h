/* diagnose/slow_groups.h - slow ranks that are always so and that the step waits for, and ranks that are
 * slow in some steps only. */
#ifndef HEADWAY_SLOW_GROUPS_H
#define HEADWAY_SLOW_GROUPS_H

#include "diagnose/slow_ranks.h"

/* By different amounts: most beside each other. */
enum { SLOW_GROUPS = 8 };

/* Ranks that are slow, in groups by how slow, the slowest first; n of them. */
struct slow_groups {
    struct slow_ranks at[SLOW_GROUPS];
    int n;
    double *take; /* [n_ranks] once mended, of what each rank takes, at the clock of the start */
};

/* limit: B1's row. */
struct slow_groups slow_groups_find(const struct measure *m, const struct rule_limit *limit,
                                    struct arena *a);
/* Whether slow ranks, or such with a low clock, leave nobody in this one's stage to show what it has
 * to do; all ranks alike hide nothing. */
bool slow_hides(const struct measure *m, const struct slow_groups *g, i64 rank);

/* What the group's slowest rank would compute, were it as the others; and as a share of what it does. */
double slow_usual(const struct measure *m, const struct slow_ranks *g);
double slow_mended(const struct measure *m, const struct slow_ranks *g);

/* f's place: these ranks, none when they are everywhere. They were told apart, so that most of all
 * are named, too. */
void slow_place(const struct measure *m, const bool *in, struct finding *f, struct arena *a);

/* What the rank computes above its peers, where that changes by `least` sigma. */
struct measure_change episode_of(const struct measure *m, i64 rank, double least);
/* Whether there are steps in which it stands on another level than in the rest. */
bool episode_is(const struct measure *m, struct measure_change c);

#endif
