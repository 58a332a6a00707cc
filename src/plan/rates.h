/* plan/rates.h - what ops take on this machine, from our own recorded runs.
 *
 * For each op, with so many threads and in so many processes at once: seconds per FLOP, per byte and
 * per task, so that a task's time is their sum. Fitted by non-negative least squares of relative
 * errors on the medians of the tasks that were recorded, so one run tells something of every shape
 * that its model has. Exchanges have seconds per byte and per call, each lane its own; what a step takes
 * besides tasks is a constant.
 *
 * A file of rates is YAML with one entry per (threads, ranks, precision); `headway plan calibrate RUN...`
 * writes it and `headway plan predict` reads it. */
#ifndef HEADWAY_PLAN_RATES_H
#define HEADWAY_PLAN_RATES_H

#include "graph/graph.h"

struct text;

struct plan_rate {
    const char *name;                /* of an op, or "lane.N" of exchanges on a lane */
    double flop_s, byte_s, task_s;   /* seconds per FLOP, per byte (sent, of exchanges), per task */
    double flops_lo, flops_hi;       /* FLOPs (bytes) of the tasks that it was fitted on */
    i64 samples;
};

enum { RATES_MOST = 96 };

struct plan_rates {
    const char *processor, *backend, *precision;
    i64 threads, ranks;              /* threads of a rank; ranks on the machine */
    double step_s;                   /* of a step, besides its tasks and their waits */
    double spread;                   /* median of |fitted / measured - 1| over all tasks, by time */
    struct plan_rate rates[RATES_MOST];
    i64 n;
};

/* One recorded task: medians. */
struct plan_sample {
    const char *name;
    double flops, bytes, seconds, weight; /* weight: its share of a step's time */
};

/* Fits each name's rate; the names are kept. ERR_LIMIT beyond RATES_MOST names. */
int plan_rates_fit(struct plan_rates *out, const struct plan_sample *samples, i64 n,
                   struct arena *a);

/* Seconds of a task by its op's rate, by the mean rate of all for an op that was not recorded;
 * *outside becomes true where its size lies outside of what was recorded by more than a factor of
 * four, or the op is new. outside may be NULL. */
double plan_rates_seconds(const struct plan_rates *r, const struct task *t, bool *outside);
/* Of an exchange; 0 rates: not recorded. */
const struct plan_rate *plan_rates_lane(const struct plan_rates *r, enum lane lane);

/* Several of them, as a file. */
void plan_rates_write(const struct plan_rates *const *sets, i64 n, struct text *out);
/* The one for this precision, threads and ranks; ERR_CONFIG names those that there are. */
int plan_rates_load(struct plan_rates *out, const char *path, const char *precision, i64 threads,
                    i64 ranks, struct arena *a);

#endif
