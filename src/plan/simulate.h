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
 * What it leaves out: that calls of several axes share a link, and that moving data takes
 * time from computing. Ranks of one stage are taken to do what the first of them does: they
 * differ by remainders only. */
#ifndef HEADWAY_PLAN_SIMULATE_H
#define HEADWAY_PLAN_SIMULATE_H

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

/* Seconds of one compute task. */
double plan_task_seconds(const struct task *t, const struct plan_price *price);

/* The means over all ranks: what a step's time consists of. */
struct plan_rank_time plan_mean(const struct plan_time *t);

#endif
