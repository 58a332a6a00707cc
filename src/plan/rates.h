/* plan/rates.h - what ops take on this machine, from our own recorded runs and from a
 * microbenchmark.
 *
 * For each op, with so many threads and in so many processes at once: seconds per FLOP, per
 * byte and per task, so that a task's time is their sum. Fitted by non-negative least squares
 * of relative errors on the medians of the tasks that were recorded, so one run tells something
 * of every shape that its model has. Exchanges have seconds per byte and per call, each lane
 * its own; what a step takes besides tasks is a constant.
 *
 * The microbenchmark (microbench.h) meets each op at many sizes, a run at a few, but as
 * training has it: with both, how an op's time grows is the microbenchmark's, and how long it
 * takes the run's.
 *
 * A file of rates is YAML with one entry per (threads, ranks, precision), in the list `rates`
 * of those from runs and in `measured` of those without; `headway plan calibrate` writes it and
 * `headway plan predict` reads it. */
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

enum { RATES_MOST = 96, RATES_PRODUCTS = 128, RATES_LEVELS = 4 };
#define RATES_ANY_LANE "lane.any" /* exchanges on any lane that has no rate of its own */

struct plan_timed { /* a matrix product that was timed */
    const char *op;
    i64 M, N, K, n;                  /* n: times */
    double seconds, spread;          /* median; half the distance of the quartiles over it */
};

struct plan_level { /* of memory: what it holds, and what a rank's threads read and copy together */
    double bytes, read_bytes_per_s, copy_bytes_per_s;
};

struct plan_rates {
    const char *processor, *backend, *precision;
    i64 threads, ranks;              /* threads of a rank; ranks on the machine */
    i64 columns;                     /* of a tile of products (backend/cpu/gemm.h): FLOPs of products
                                      * count as those of whole tiles; 0, 1: as they are */
    i64 cut;                         /* columns that a tile costs more where they end within it */
    double step_s;                   /* of a step, besides its tasks and their waits */
    double spread;                   /* median of |fitted / measured - 1| over all tasks, by time */
    double waits;                    /* that ranks wait for the last one, as a share of a step */
    struct plan_rate rates[RATES_MOST];
    i64 n;
    /* Of a microbenchmark: */
    const char *host, *date;         /* where and when, UTC */
    double took_s;
    double launch_s;                 /* an empty task */
    double overlap_tax;              /* seconds that computing loses per second of an exchange beside it */
    struct plan_level memory[RATES_LEVELS];
    int n_memory;
    struct plan_timed products[RATES_PRODUCTS];
    i64 n_products;
};

/* One recorded task: medians. FLOPs of products are those of whole tiles. */
struct plan_sample {
    const char *name;
    double flops, bytes, seconds, weight; /* weight: its share of a step's time */
};

/* FLOPs of a product with N columns, with those that a tile of so many computes beyond them, and
 * those of `cut` more columns where N ends within a tile. */
double plan_tile_flops(double flops, i64 N, i64 columns, i64 cut);
/* The columns of a task's result if it is such a product, else 0. */
i64 plan_product_columns(const struct task *t);

/* Fits each name's rate; the names are kept. ERR_LIMIT beyond RATES_MOST names. */
int plan_rates_fit(struct plan_rates *out, const struct plan_sample *samples, i64 n,
                   struct arena *a);
/* Ops that both have take the growth of `like`. */
void plan_rates_grow(struct plan_rates *r, const struct plan_rates *like);
/* levels[r->n]: what all samples of an op took over what its rate says; 0: it has none. */
void plan_rates_levels(const struct plan_rates *r, const struct plan_sample *samples, i64 n,
                       double *levels);
/* Each rate times its level, where that is not 0; spread over these samples. */
void plan_rates_scale(struct plan_rates *r, const double *levels,
                      const struct plan_sample *samples, i64 n);

/* Seconds of a task by its op's rate, by the mean rate of all for an op that was not recorded;
 * *outside becomes true where its size lies outside of what was recorded by more than a factor of
 * four, or the op is new. outside may be NULL. */
double plan_rates_seconds(const struct plan_rates *r, const struct task *t, bool *outside);
/* Of an exchange; NULL: none was measured. */
const struct plan_rate *plan_rates_lane(const struct plan_rates *r, enum lane lane);

/* Those of runs, then those of microbenchmarks, as a file. */
void plan_rates_write(const struct plan_rates *const *runs, i64 n_runs,
                      const struct plan_rates *const *measured, i64 n_measured, struct text *out);
/* The one for this precision, threads and ranks: of a run, with what it lacks from the
 * microbenchmark; else the microbenchmark's. ERR_CONFIG names those that there are. */
int plan_rates_load(struct plan_rates *out, const char *path, const char *precision, i64 threads,
                    i64 ranks, struct arena *a);
/* The microbenchmark's alone. */
int plan_rates_load_measured(struct plan_rates *out, const char *path, const char *precision,
                             i64 threads, i64 ranks, struct arena *a);

#endif
