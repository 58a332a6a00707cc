/* Runs under failures, event by event: what the closed form of failures.h is checked against. */
#include "base/rng.h"
#include "plan/failures.h"

#include <math.h>
#include <stdlib.h>

enum { MOST_AWAY = 4096 };

struct walk {
    const struct failure_job *job;
    struct rng rng;
    u64 drawn;
    double now, end;        /* seconds of the run's wall clock */
    double to_failure;      /* running seconds until the next interruption */
    double next_stop;       /* that is planned: by the wall clock */
    double rate, node_share;
    double unsafe;          /* progress of the last segment, until its checkpoint is written */
    double unsafe_until;
    double back[MOST_AWAY]; /* when nodes in repair return */
    i64 away;
    struct failure_time t;  /* seconds, not shares */
    i64 interruptions;
};

static double exponential(struct walk *w, double mean)
{
    return isinf(mean) ? INFINITY : -mean * log1p(-rng_uniform(&w->rng, w->drawn++));
}

static void nodes_return(struct walk *w)
{
    for (i64 i = 0; i < w->away;)
        if (w->back[i] <= w->now)
            w->back[i] = w->back[--w->away];
        else
            i++;
}

/* A node failed: perhaps it goes away. A job that is not elastic waits until it has all again. */
static void replace_node(struct walk *w)
{
    const struct failure_job *j = w->job;
    if (j->repair_s > 0 && w->away < MOST_AWAY &&
        rng_uniform(&w->rng, w->drawn++) < w->node_share * j->hardware_share)
        w->back[w->away++] = w->now + exponential(w, j->repair_s);
    nodes_return(w);
    while (j->replica_nodes == 0 && w->away > j->spares) {
        double first = INFINITY;
        for (i64 i = 0; i < w->away; i++)
            first = fmin(first, w->back[i]);
        w->t.waiting += first - w->now;
        w->now = first;
        nodes_return(w);
    }
}

/* From an interruption to running again; a restart may be interrupted too. */
static void recover(struct walk *w)
{
    const struct failure_job *j = w->job;
    for (bool again = true; again;) {
        w->interruptions++;
        w->now += j->detect_s;
        w->t.down += j->detect_s;
        replace_node(w);
        w->to_failure = exponential(w, 1 / w->rate);
        double spent = fmin(j->restart_s, w->to_failure);
        again = w->to_failure < j->restart_s;
        w->now += spent;
        w->t.down += spent;
        w->to_failure -= spent;
    }
}

/* Of a second that passes, how much an elastic job with nodes missing does. */
static double strength(const struct walk *w)
{
    const struct failure_job *j = w->job;
    i64 missing = w->away - j->spares;
    if (j->replica_nodes == 0 || missing <= 0)
        return 1;
    return 1 - (double)i64_min(j->nodes, round_up(missing, j->replica_nodes)) / (double)j->nodes;
}

static void planned_stop(struct walk *w)
{
    w->now += w->job->restart_s;
    w->t.down += w->job->restart_s;
    w->next_stop += exponential(w, 86400 / w->job->planned_per_day);
}

/* One segment of progress and the stall behind it, again and again until it is through. */
static void walk_segment(struct walk *w)
{
    const struct failure_job *j = w->job;
    double length = j->every_s + j->stall_s;
    while (w->to_failure < length) {
        double spent = w->to_failure;
        if (w->now + spent < w->unsafe_until) { /* what was being written is of no use */
            w->t.progress -= w->unsafe;
            w->t.lost += w->unsafe;
            w->unsafe = 0;
        }
        w->now += spent;
        w->t.lost += spent;
        recover(w);
    }
    nodes_return(w);
    double share = strength(w);
    w->to_failure -= length;
    w->now += length;
    w->t.progress += share * j->every_s;
    w->t.waiting += (1 - share) * j->every_s;
    w->t.checkpoints += j->stall_s;
    w->unsafe = share * j->every_s;
    w->unsafe_until = w->now + fmax(0, j->write_s - j->stall_s);
    while (w->now >= w->next_stop)
        planned_stop(w);
}

static struct failure_time walk_run(const struct failure_job *j, double days, u64 seed, i64 run,
                                    i64 *interruptions)
{
    double nodes = (double)j->nodes * j->node_per_day, rate = (nodes + j->job_per_day) / 86400;
    struct walk w = {
        .job = j, .end = days * 86400, .rate = rate,
        .node_share = rate > 0 ? nodes / 86400 / rate : 0,
        .rng = { seed, rng_stream("failures") + (u64)run },
    };
    w.to_failure = rate > 0 ? exponential(&w, 1 / rate) : INFINITY;
    w.next_stop = j->planned_per_day > 0 ? exponential(&w, 86400 / j->planned_per_day) : INFINITY;
    while (w.now < w.end)
        walk_segment(&w);
    *interruptions = w.interruptions;
    return (struct failure_time){ w.t.progress / w.now, w.t.checkpoints / w.now,
                                  w.t.lost / w.now, w.t.down / w.now, w.t.waiting / w.now };
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void failure_simulate(const struct failure_job *j, double days, i64 runs, u64 seed,
                      struct failure_walk *out, struct arena *a)
{
    double *progress = ARENA_ARRAY(a, double, runs);
    *out = (struct failure_walk){ 0 };
    for (i64 r = 0; r < runs; r++) {
        i64 interruptions;
        struct failure_time t = walk_run(j, days, seed, r, &interruptions);
        progress[r] = t.progress;
        out->mean.progress += t.progress / (double)runs;
        out->mean.checkpoints += t.checkpoints / (double)runs;
        out->mean.lost += t.lost / (double)runs;
        out->mean.down += t.down / (double)runs;
        out->mean.waiting += t.waiting / (double)runs;
        out->interruptions += (double)interruptions / (double)runs;
    }
    qsort(progress, (size_t)runs, sizeof *progress, by_value);
    out->progress = (struct plan_band){ progress[(runs - 1) / 10], progress[(runs - 1) / 2],
                                        progress[(runs - 1) * 9 / 10] };
}
