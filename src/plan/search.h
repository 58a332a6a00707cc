/* plan/search.h - the best layouts of a job, of all that there are.
 *
 * All of TP x PP x CP x EP x DP x micro-batch x stages per rank x recompute x ZeRO (and its group:
 * all, or those of a node) x schedule whose product is the devices and that plan_layout_refused
 * lets pass and that the job's stack runs (stack_runs.h; or any), each priced by plan_step_of. A
 * rank has at least PLAN_LEAST_ROWS tokens of a row (cp), and at most MODEL_CHUNKS stages, as in
 * training.
 *
 * What is left out is proved to be no better. For degrees and a micro-batch a step takes
 * at least
 *
 *     micro-batches x (computing and messages of all layers, head and embedding for one) / pp
 *
 * since the slowest stage takes at least the mean and every other term of plan_step_of is at least
 * 0; recompute only adds to it. Groups of layouts are looked at in the order of this bound, and one
 * whose bound is above the worst layout kept cannot be among the kept ones. The same for
 * objectives that grow with seconds and with busy seconds.
 *
 * Deterministic: equal objectives are ordered by memory, then by the degrees. */
#ifndef HEADWAY_PLAN_SEARCH_H
#define HEADWAY_PLAN_SEARCH_H

#include "plan/pick.h"

/* Fewer tokens of a row per rank than this are all exchange and no work. */
enum { PLAN_LEAST_ROWS = 512 };

enum plan_objective { PLAN_TIME, PLAN_MONEY, PLAN_ENERGY, PLAN_CARBON, PLAN_OBJECTIVES };
extern const char *const plan_objective_names[PLAN_OBJECTIVES];

struct plan_found {
    struct plan_layout layout;
    struct plan_step step;
    double objective; /* of one step: seconds, or joules */
};

struct plan_search {
    const struct plan_job *job;
    struct plan_pick pick;
    int objective; /* enum plan_objective */
    i64 keep;      /* at least 1 */
    bool prune;    /* false: price every layout */
    bool all;      /* keep those that do not fit into memory, too */
};

struct plan_search_result {
    struct plan_found *best; /* [n], best first */
    i64 n;
    i64 layouts;  /* that exist, priced or not */
    i64 priced;
    i64 unfit;    /* of the priced ones, those without enough memory */
    i64 left_out; /* groups of degrees and micro-batch that no program can be built for yet */
    const char *why_left_out; /* of the first of them */
    i64 tables;   /* degrees and micro-batches whose operators were priced */
    struct plan_found least; /* of all priced ones, what needs the least memory */
};

/* ERR_CONFIG when no layout exists, or none fits: says what would. result->least is set then,
 * where any exists. */
int plan_search(const struct plan_search *s, struct plan_search_result *out, struct arena *a);

/* Seconds that devices compute in a step, of its length: what power depends on. */
double plan_busy_seconds(const struct plan_step *s);

#endif
