/* diagnose/computing.h - what each rank of a step computed, in its order, and what that would take
 * if some of it were alike. */
#ifndef HEADWAY_DIAGNOSE_COMPUTING_H
#define HEADWAY_DIAGNOSE_COMPUTING_H

#include "diagnose/dag.h"

/* Of one rank: the graph's DAG_COMPUTE nodes of its chain, in their order. */
struct computed {
    double *seconds; /* as measured, then what they are changed to */
    u64 *task;       /* action << 32 | id: alike at two ranks where they run the same */
    i64 n;
};

struct computing {
    const struct record_step *s;
    int n_ranks;
    struct computed *ranks; /* [n_ranks] */
};

/* As measured; in the step's arena. */
void computing_open(struct computing *c, const struct record_step *s, const struct dag *g);
/* The same with seconds of its own. */
void computing_copy(struct computing *out, const struct computing *c);

/* The action that begins at task i: returns where the next one begins. *seconds: what it takes. */
i64 computing_action(const struct computed *c, i64 i, double *seconds);
/* Tasks from up to to multiplied by factor. */
void computing_scale(struct computed *c, i64 from, i64 to, double factor);

/* Ranks of one stage, which do the same on other rows or shares: every task takes their mean. Where
 * they did not run the same tasks, each rank's take the mean altogether. */
void computing_even_copies(struct computing *c);
/* Every action takes the mean of its kind (forward, backward ...) over all ranks and
 * micro-batches. */
void computing_even_actions(struct computing *c);

/* seconds[g->n]: those of the graph, with actions even. */
void computing_even_graph(const struct record_step *s, const struct dag *g, double *seconds);

/* Mean over the ranks that are there. */
double computing_mean(const struct computing *c, int missing);

#endif
