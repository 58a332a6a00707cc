/* plan/simulate.h - how long a step would take on ranks that one does not have.
 *
 * The programs are those that ranks would run (train/rank_view.h). Every rank is walked as
 * the executor walks it: compute tasks one after another, tasks of other lanes begun where
 * they stand, and waited for by whoever touches what they move. What differs is the clock: a
 * task takes what its cost says at given rates.
 *
 *     compute task   the larger of FLOPs / flops_per_s and bytes / memory_bytes_per_s
 *     collective     begins when all members have come and their last one has ended; takes
 *                    steps x latency + bytes sent / link_bytes_per_s, with 2(n-1) steps for
 *                    an allreduce, n-1 for its halves and for all-to-all (rings)
 *     move           the same between two ranks, in one step
 *     copy           to slower memory: bytes / memory_bytes_per_s, one after another
 *
 * A step may be one of a run (struct plan_step): then ranks begin when each can, what is injected
 * makes tasks and calls take longer, and every span that a real rank would store is told.
 *
 * What it leaves out: that calls of several axes share a link; and that moving data takes time
 * from computing, unless rates say how much (rates.h, overlap_tax). Ranks of one stage are
 * taken to do what the first of them does: they differ by remainders only. */
#ifndef HEADWAY_PLAN_SIMULATE_H
#define HEADWAY_PLAN_SIMULATE_H

#include "base/inject.h"
#include "trace/trace.h"
#include "train/rank_view.h"

struct plan_rates;

struct plan_price {
    double flops_per_s, memory_bytes_per_s, link_bytes_per_s; /* INFINITY: costs no time */
    double latency_s;
    const struct plan_rates *rates; /* what ops take here (rates.h) instead; NULL: these rates */
};

/* compute + the waits + idle = the step's length. */
struct plan_rank_time {
    double compute;
    double wait[LANE_COUNT]; /* for calls of each lane, that nothing hid */
    double call[LANE_COUNT]; /* that the calls took on their links, hidden or not */
    double idle;             /* after its last task, until all have ended */
    double end;              /* when its last task and call have ended */
};

/* One step of a run. */
struct plan_step {
    u64 step;
    const struct inject *inject; /* [ranks] */
    const double *begin;         /* [ranks]: seconds, when each comes to its first task */
    const double *attended;      /* [ranks]: pairs that attention has to look at, over those of whole
                                  * rows */
    const char *off;             /* tasks whose condition has this name do not run; NULL: all do */
    void (*span)(void *context, i64 rank, const struct span *s); /* times: 1e9 x seconds */
    void *context;
};

struct plan_time {
    double length; /* seconds, from all ranks' begin to the last one's end */
    i64 n_ranks;
    struct plan_rank_time *ranks; /* [n_ranks] */
};

/* views[i]: a rank with coordinate i along pp. ERR_INTERNAL when ranks would wait for ever,
 * which the proof of schedules excludes. */
int plan_simulate(const struct rank_view *const *views, const struct plan_price *price,
                  struct plan_time *out, struct arena *a);

/* The same for a step of a run; out's length is when the last rank has ended. */
int plan_simulate_step(const struct rank_view *const *views, const struct plan_price *price,
                       const struct plan_step *step, struct plan_time *out, struct arena *a);

/* Seconds of one compute task. */
double plan_task_seconds(const struct task *t, const struct plan_price *price);

/* The means over all ranks: what a step's time consists of. */
struct plan_rank_time plan_mean(const struct plan_time *t);

#endif
