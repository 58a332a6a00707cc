/* diagnose/measure_ready.h - what of one step's measures needs no other step.
 *
 * Any thread makes it (diagnose/each.h); what all steps add up to is then added from it in their
 * order, one step at a time, so it is as short a list of numbers as can be. */
#ifndef HEADWAY_DIAGNOSE_MEASURE_READY_H
#define HEADWAY_DIAGNOSE_MEASURE_READY_H

#include "diagnose/measure_gather.h"

/* The compute lane stood still for a lane's call, or has begun one behind begin_s of nothing. */
struct ready_stand {
    int lane; /* enum lane */
    double begin_s, exposed_s, wait_s, tail_s;
};

/* A task that was computed within the step. */
struct ready_task {
    double seconds;
    u32 task, detail;
    bool alone, beside; /* no exchange was under way, or one nearly all the time */
};

/* Computing of the passes that stands behind the first exchange of a lane. */
struct ready_behind {
    int lane;
    i64 n;
    double *seconds; /* [n] */
};

/* How one rank's time was spent, from the step before to the end of what it did behind it. */
struct ready_rank {
    double step, compute, data, wait, transfer, gap[HOST_KINDS];
    struct ready_stand *stands;
    struct ready_task *tasks;
    struct ready_behind behind[LANE_COUNT];
    i64 n_stands, n_tasks;
    int n_behind;
};

/* The n-th meeting of every rank is the same one. */
struct ready_meetings {
    i64 *come; /* when the last had come */
    int *last;
    i64 n;     /* 0: they cannot be told apart */
};

struct ready {
    struct measure_calls calls;
    struct ready_meetings met;
    struct ready_rank *ranks; /* [s->n_ranks], all zero where one is missing */
};

/* As struct each asks for: in s->arena. */
void *measure_ready(void *context, const struct record_step *s, void **kept);

#endif
