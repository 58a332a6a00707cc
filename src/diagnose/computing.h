/* diagnose/computing.h - what each rank of a step computed, in its order, and what that would take
 * if some of it were alike. */
#ifndef HEADWAY_DIAGNOSE_COMPUTING_H
#define HEADWAY_DIAGNOSE_COMPUTING_H

#include "diagnose/dag.h"

/* Tasks of one action behind each other; the first such begins with the rank's first task, the
 * others where the one before them ends. */
struct computing_action {
    i64 to;
    u64 kind; /* of its tasks: op, dtype, FLOPs and bytes of each, in their order */
};

/* Which of a rank's tasks the graph's DAG_COMPUTE nodes are, in their order. */
struct computing_list {
    i64 n, n_actions;
    i32 *node;
    u64 *task; /* action << 32 | id: alike at two ranks where they run the same */
    struct computing_action *actions;
};

/* What the ladder knows of tasks whatever they take, with the ceilings of `of`. */
struct computing_known {
    const void *of; /* NULL: nothing yet */
    double flops, at_peak_s, at_dtype_s, at_roofline_s;
    bool no_dtype;
};

struct computing_lists {
    struct computing_list *ranks; /* [n_ranks] */
    i32 *order; /* [n] whose each of the graph's DAG_COMPUTE nodes is */
    i64 n;
    struct computing_known *known; /* where the lists are those of many steps; else NULL */
};

struct computing_lists *computing_list(const struct record_step *s, const struct dag *g,
                                       struct arena *a);

/* The same of one rank with the time that each takes. */
struct computed {
    double *seconds; /* as measured, then what they are changed to */
    const u64 *task;
    const struct computing_action *actions;
    i64 n, n_actions;
};

struct computing {
    const struct record_step *s;
    const struct computing_lists *lists;
    int n_ranks;
    struct computed *ranks; /* [n_ranks] */
};

/* As measured; in the step's arena. */
void computing_open(struct computing *c, const struct record_step *s, const struct dag *g);
/* The same with seconds of its own. */
void computing_copy(struct computing *out, const struct computing *c);

/* What tasks from up to to take. */
double computing_seconds(const struct computed *c, i64 from, i64 to);
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
