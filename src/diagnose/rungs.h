/* diagnose/rungs.h - how long a step would have been with one loss after another taken away. */
#ifndef HEADWAY_DIAGNOSE_RUNGS_H
#define HEADWAY_DIAGNOSE_RUNGS_H

#include "diagnose/measure.h"
#include "diagnose/usual_time.h"

enum ladder_rung {
    RUNG_STEP,     /* as in the graph, without evaluations and checkpoints */
    RUNG_DATA,     /* without waits for the loader */
    RUNG_HOST,     /* without gaps and logging; ranks begin together */
    RUNG_CLOCK,    /* computing at the clock of the start */
    RUNG_CPU,      /* its threads on processors all the time */
    RUNG_BALANCE,  /* every action as usual (diagnose/usual_time.h), copies alike */
    RUNG_TRANSFER, /* calls take no time */
    RUNG_STAGE,    /* every action takes the mean of its kind: stages, shards, micro-batches */
    RUNG_COMPUTE,  /* a rank's computing alone */
    RUNGS
};

struct rungs {
    double seconds[RUNGS];
    struct computing usual; /* computing from RUNG_BALANCE on */
};

/* In the step's arena. */
void rungs_measure(struct rungs *out, const struct record_step *s, const struct dag *g,
                   const struct usual *u);

/* Seconds lost to each, one after another, in the order in which rules ask: to transfer while slow
 * ranks are slow, which hides transfers; to balance beside the usual rank of the same step,
 * so what all ranks have alike is no loss. */
void rungs_lost(const struct record_step *s, const struct dag *g, double lost[LOSSES]);

#endif
