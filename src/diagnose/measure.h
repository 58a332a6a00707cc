/* diagnose/measure.h - what was measured of a run: all that the rules look at.
 *
 * Plain numbers, in seconds, bytes and shares, without any judgement. Rules (rule.h) read only
 * this, so that a test can write it by hand and need no run. What could not be measured is NaN
 * (numbers), 0 (counts) or NULL: no comparison with it holds, so no rule fires on it.
 *
 * Everything is of steady steps: the first MEASURE_WARM_UP of a process are left out, since
 * they map memory and fill queues. Means are for what is rare (a checkpoint in every tenth
 * step), medians for what is in every step. */
#ifndef HEADWAY_MEASURE_H
#define HEADWAY_MEASURE_H

#include "base/arena.h"
#include "base/inject.h"
#include "graph/graph.h"

enum { MEASURE_WARM_UP = 3, MEASURE_NAME = 48 };

/* --- robust statistics --------------------------------------------------------------- */

struct measure_stat {
    double mean, median;
    double sigma; /* 1.4826 x median absolute deviation: a standard deviation, were it normal */
    double se;    /* sigma / sqrt(n): how far the median may be off */
    double least, most;
    i64 n;        /* values that are numbers */
};

/* NaN among x is left out. All NaN but n when nothing is left. */
struct measure_stat measure_stat(const double *x, i64 n);
/* The q-th quantile (0..1) of what is a number in x; NaN when there is none. */
double measure_quantile(const double *x, i64 n, double q);
/* The mean without the tenths that are the lowest and the highest: a loop that lost its
 * processor midway says nothing of the clock. */
double measure_trimmed(const double *x, i64 n);
/* Pearson's, over pairs that are numbers; NaN for fewer than three or when one does not vary. */
double measure_correlation(const double *x, const double *y, i64 n);

/* y = a + b x by least squares. Seconds of a message of x bytes: a is its latency, 1 / b its
 * bandwidth. */
struct measure_line {
    double a, b;   /* NaN: x does not vary */
    i64 n;
};
struct measure_line measure_line(const double *x, const double *y, i64 n);

/* When y changes its level and stays there: the place k that best splits y into [0, k) and
 * [k, n), by the cumulated sum of deviations. `height` is how many sigma (of both parts) the
 * levels are apart; k = 0 when nothing changes by `least` sigma. */
struct measure_change {
    i64 at, until; /* the odd part is [at, until) */
    double before, inside, height;
};
struct measure_change measure_change(const double *y, i64 n, double least);
/* The same of what was measured there: on a computed clock nothing is off by chance, so that even a
 * single step is a part. */
struct measure;
struct measure_change measure_change_of(const struct measure *m, const double *y, i64 n, double least);

/* Values that stand out of y by `least` sigma, by `share` of the median, by a tenth of the largest
 * and by `floor`, and how far apart they are when that is regular: each place of the period has
 * one, and beside five that are regular there may be a stray. */
struct measure_spikes {
    i64 count, period; /* 0: no period */
    i64 first;         /* index of the first */
    double area;       /* sum over spikes of what they have above the median */
};
struct measure_spikes measure_spikes(const double *y, i64 n, double least, double share,
                                     double floor);

/* How long a consumer that wants one item each `consume` seconds waits per item, when `workers`
 * take service[i] for item i and read at most `depth` ahead (Lindley's recursion). */
double measure_queue_wait(const double *service, i64 n, double consume, i64 workers, i64 depth);
/* The same where each item is needed from every queue, service[q][i], before it is consumed;
 * full: as the first items of a run, whose queues were filled before it began. */
double measure_queues_wait(const double *const *service, i64 queues, i64 n, double consume,
                           i64 workers, i64 depth, bool full);
/* The same where each item takes its own time to consume: [n]. */
double measure_queues_wait_each(const double *const *service, i64 queues, i64 n,
                                const double *consume, i64 workers, i64 depth, bool full);

/* --- the run ------------------------------------------------------------------------- */

/* Where the host spends time between tasks. */
enum measure_host { HOST_LOG, HOST_EVAL, HOST_CHECKPOINT, HOST_GAP, HOST_KINDS };

/* One rank. Series have one value per steady step. */
struct measure_rank {
    int rank, stage, row; /* stage: along pp; row: which of the data-parallel copies */
    char host[64];
    double *step;      /* from the step's begin to its end */
    double *compute;   /* the compute lane computes */
    double *data;      /* it waits for the loader */
    double *gap[HOST_KINDS]; /* it stands still for the host: no task, no wait */
    double *wait;      /* for a rank that has not come yet; where ranks are missing, bytes too */
    double *transfer;  /* for bytes on their way, that nothing hid; NaN where ranks are missing */
    double *work;      /* FLOPs that its rows need, from their lengths; NULL: not known */
    double noise;      /* actions of a step among each other, over what each usually takes: sigma;
                        * NaN: not known */
    double quiet_pace; /* what its actions take when nothing disturbs them, over what its stage's
                        * other ranks' do; NaN: not known */
    double roofline_s; /* what its tasks take a step at the machine's ceilings; 0: not known */
    double usual_s;    /* what it would compute a step at the pace of other stages, by tasks that
                        * they have too; 0: not known */
    double stretch;    /* how many times as long it could compute, in nearly all steps, before it
                        * computes as long as the one that does so longest; from 1 to 2 */
    double last_share; /* of the meetings with others, those at which it came last */
    double blamed_share; /* of what all ranks waited at exchanges, what was for this one */
    /* Of the loader, per step's batch. */
    double *load;      /* seconds it took to make, in order */
    i64 n_loads;
    i64 load_step;     /* of the first of these batches: which step it is for; the others follow */
    double load_cpu_s; /* of that on a processor, per step */
    double load_cpu;   /* share of that on a processor; low: it waited for storage */
    double queue_empty; /* share of steps that found nothing read ahead */
    double read_bytes, used_bytes; /* from storage; of tokens; per step */
    /* What the system counted, per step. */
    double on_cpu;     /* of computing threads, share of their wall time on a processor */
    double run_queue_s, throttled_s, steal_s;
    double pool_queue_s; /* of the threads beside the first, each; run_queue_s has it as far as they
                          * were at work then */
    double throttles;  /* periods in which a quota was used up */
    double clock;      /* speed of a loop on registers over that at the start */
    double *phi;       /* the same per step, as of its newest sample; NULL: not known */
    double minor_faults, major_faults, switches; /* the last: taken off its processor */
    double system_s;   /* processor time inside the kernel */
    double memory_stall, io_stall; /* pressure, share of time */
    double rss_bytes, limit_bytes;
    double far_share, far_speed; /* of its own memory, on other NUMA nodes; how fast that is beside
                                  * the rest. NaN: there is one node, or it was not looked at */
};

/* Tasks of the compute lane that are alike: same op, phase and kind. Means per step and rank. */
struct measure_op {
    char name[MEASURE_NAME]; /* "linear" */
    int phase;               /* enum phase */
    int dtype;               /* -1: not known */
    bool recompute, watching; /* watching: it measures how learning goes */
    double calls, seconds, median_s; /* per step; per step; of one call */
    double flops, model_flops, bytes; /* per step */
    double roofline_s;       /* per step, at the machine's ceilings */
    double skewed_s;         /* per step: a task's time less the mean of its threads' */
    double alone_s, beside_s; /* median of a call with no other lane busy; with one */
    double alone_calls, beside_calls;
};

/* One lane of exchanges, over all ranks. */
struct measure_lane {
    int lane;
    char axis[16];          /* "dp" */
    i64 members;
    double calls, bytes;    /* per step and rank; bytes sent */
    double pieces;          /* that an exchange is carried out in */
    double rounds;          /* messages that follow each other in an exchange (of a ring) */
    double busy_s;          /* calls under way, per step and rank */
    double wait_s, transfer_s; /* of calls, before and after the last member came */
    double exposed_s;       /* the compute lane stood still for it */
    double wait_exposed_s;  /* the part of that in which somebody had not come */
    double latency_s, bytes_per_s; /* as fitted: what a message costs, and a byte; NaN: sizes are
                                    * too alike to tell */
    double base_latency_s, base_bytes_per_s; /* as probed before the run, or priced */
    double begin_s;         /* between tasks, the rank's own thread began calls of it */
    double turns;           /* exchanges of the same tensor in one step */
    double backward_s;      /* compute that stood behind its first call */
    double tail_s;          /* exposed after the last backward task */
};

/* Between two ranks, or what a ring of more passes as fast as its slowest link: then a and b
 * are its first and last rank. */
struct measure_link {
    int a, b, members;
    const i32 *ranks; /* [members], ascending; NULL: not known */
    double bytes_per_s, latency_s, base_bytes_per_s;
    double calls;
};

/* What was found of single links before the run: the slowest, between two ranks, and what the slowest
 * of others pass (the median of ranks; the least: NaN of older records). a -1: nothing. */
struct measure_probed {
    int a, b;
    double bytes_per_s, others_bytes_per_s, next_bytes_per_s;
};

enum { PROBED_RINGS = 8 };

/* A ring of more than two in which a probed link lies. */
struct measure_probed_ring {
    int lane;
    double bytes_per_s; /* that it passes in the run */
};

/* Domains of ranks, such as hosts: links within are faster than links between, as was found before
 * the run. Which lanes' exchanges go between them, as ranks lie and as they would in other orders of
 * the axes (layout.order). */
enum { MEASURE_ORDERS = 8 };

struct measure_order {
    const char *name;         /* as the setting has it */
    const i32 *to;            /* [n_ranks] where each rank's part lies then */
    double crosses[LANE_COUNT]; /* share of a lane's bytes that pass between domains */
};

struct measure_domains {
    i64 n;          /* 0: none were found */
    const i32 *of;  /* [n_ranks] */
    double near_probed, far_probed; /* bytes/s before the run */
    double near_bytes_per_s, far_bytes_per_s; /* in the run, of exchanges within; of those between */
    double crosses[LANE_COUNT];     /* as ranks lie */
    struct measure_order orders[MEASURE_ORDERS];
    int n_orders;
};

/* Groups whose exchanges are slow beside others of the same lanes: the ranks that are in all of
 * them, what each exchange takes longer there, and what each of its bytes. */
struct measure_slow_end {
    i64 groups, lanes; /* that are slow, and of how many lanes they are; 0: none */
    i64 common;        /* ranks that they have in common: the first and the last one */
    int first, last;
    double times;      /* how slow: the least of them */
    double delay_s, s_per_byte;
};

/* What the run took a second, by its ledger (machine/energy_ledger.h). */
struct measure_energy {
    double watts;      /* of processors, of all ranks; NaN: not known */
    double lo, hi;     /* the interval, as shares of that */
    double busy_share; /* what is not drawn when they idle */
    double busy_cores; /* that threads of the run were on, in the mean */
    char method[80];
};

struct measure_expert_layer {
    int layer;
    double worst; /* tokens of the fullest expert over the mean */
};

/* What the recipe says, as far as a fix would change it. */
struct measure_config {
    i64 steps; /* planned; 0: no such limit */
    i64 batch, seq, accumulate, prefetch, threads, loader_threads;
    i64 log_every, eval_every, checkpoint_every, health_every;
    double checkpoint_interval_s; /* 0: by steps only */
    bool checkpoint_async, packed;
    i64 islands, pp, dp, cp, tp, ep, zero, micro_batches; /* the last: of a rank */
    bool zero_bubble; /* the schedule of stages is one */
    bool sums_at_end; /* of gradients, over ranks: when all of them are there */
    char backend[24], widest[24]; /* kernels in use; the best that this processor has */
    bool simulated;       /* --clock virtual */
    char rates[96];       /* " --rates ..." that it was simulated with; empty: the usual ones */
    double link_latency_s, link_bytes_per_s; /* of one message, before the run */
    struct measure_probed probed; /* the slowest link then */
};

struct measure_ceilings {
    double f32, bf16;      /* FLOP/s of a rank, in use: probed */
    double used;           /* of the precision in use */
    double widest;         /* of that precision with the widest backend */
    double memory_bytes_per_s;
    double op_s;           /* an empty task */
    double minor_fault_s, major_fault_s;
};

/* What steps lose, one loss after another taken away (rungs_lost in diagnose/rungs.h). */
enum measure_loss {
    LOSS_DATA, LOSS_HOST, LOSS_TRANSFER, LOSS_BALANCE, LOSS_STAGE, LOSS_BUBBLE, LOSSES
};

/* A stage of a pipeline. */
struct measure_split {
    int pp, first, layers;    /* coordinate of the rank that has it; its layers */
    double layers_s, fixed_s; /* by the tasks' costs, of a micro-batch: layers, and what is in none */
};

enum { MEASURE_SPLITS = 64 };

enum { MEASURE_FILES = 3 }; /* recipe, manifest, metrics */

/* Means of series that change no more, each found once: rules ask for the same ones often. */
struct measure_means {
    const double **series; /* [places] by a hash of where they lie; NULL: free */
    double *mean;
    i64 places, n;         /* a power of two */
};

struct measure {
    char name[128];
    i64 n_ranks, n_steps; /* steady */
    i64 first_step;       /* of the run: number of the first steady one */
    i64 *numbers;         /* [n_steps] steps that are there may have gaps */
    double *seconds;      /* [n_steps] from the first rank's begin to the last one's end, and what
                           * the host did until the next step */
    struct measure_stat step;
    const struct inject *inject; /* what was put in on purpose; NULL: nothing is known of it */
    i64 looked_first, looked_last; /* steps between which steady ones were looked for */
    double theta;         /* what a finding must at least lose, seconds per step */
    struct measure_rank *ranks;   /* [n_ranks] */
    struct measure_op *ops;       /* most seconds first */
    i64 n_ops;
    struct measure_lane *lanes;
    i64 n_lanes;
    struct measure_link *links; /* of one kind, in the lane in which they are the least alike */
    i64 n_links;
    int link_lane;
    struct measure_probed_ring probed_rings[PROBED_RINGS];
    int n_probed_rings;
    struct measure_slow_end slow_end;
    struct measure_domains domains;
    struct measure_energy energy;
    struct measure *slow_links; /* the steps in which exchanges take longer than in the rest, if they
                                 * are one part; NULL: they are not */
    struct measure_expert_layer *experts;
    i64 n_experts;
    struct measure_config config;
    const char *unread[MEASURE_FILES]; /* sentences: files beside the record that cannot be read */
    int n_unread;
    bool metrics_unread;  /* the metrics are one of them: what a preflight said, too */
    i64 samples_lost;     /* that are damaged, of the steps that were measured */
    struct measure_ceilings ceilings;
    struct measure_split split[MEASURE_SPLITS]; /* in the order of layers */
    int n_split;          /* 0: not known */
    double peak_probed; /* of the precision in use, where ops go beyond it and it was raised; else 0 */
    double loss[LOSSES];  /* seconds a step; NaN: no replay */
    double compute;       /* mean over ranks and steps, below the ladder's rungs */
    double stages[64];    /* compute of a stage, mean over its ranks and steps */
    double rows_slope, rows_unsure; /* seconds that a rank's attention takes for each unit of work, and
                           * the standard error as a share of it; NaN: nothing follows rows for
                           * certain, or no replay */
    double padding;       /* share of places that no counted target depends on */
    double threads_per_node, cores_per_node; /* that compute; that there are for them */
    double memory_peak_bytes, memory_limit_bytes, recompute_bytes; /* the last: that keeping
                           * instead of remaking would take */
    double run_s, start_s; /* of the whole run; of it before the first step */
    i64 failures;         /* ends before which work was not saved */
    double up_s, retaken_s; /* of all processes that trained here, one after another; of that, in
                             * steps that were taken again after a failure */
    bool ended;           /* the run says so itself */
    i64 final_step;       /* after which it ended: what stands behind it is done once; -1: not known */
    i64 end_exit;         /* code that it ended with for lack of a rank; 0: none is known */
    i64 end_absent, end_step; /* which rank, -1: not known; steps that were done */
    const char *end_why;
    double silent_s;      /* since anything was written; NaN: it ended */
    i64 missing;          /* ranks without spans in the steps that were measured */
    bool apart;           /* ranks' clocks are, in some of them */
    i64 left_out;         /* steps in which ranks are missing or clocks apart, and which others stand for */
    i64 behind_rank;      /* which rank has made the fewest calls, when they differ; -1 */
    i64 calls_behind;
    struct measure_means *means; /* NULL: series may still change */
};

/* The probe that is held to the run at this step, which may be slowed by it or stand beside one
 * that is; NULL: none. */
const struct inject_fault *measure_probe(const struct measure *m, i64 step);

/* Whether it is known who waited for whom: no rank is missing, no clock jumped. */
bool measure_whole(const struct measure *m);

/* theta and step from seconds; call it once they are filled in. */
void measure_settle(struct measure *m);
/* theta and the step's standard error are no more than those of left[n]: steps without what the
 * record itself explains. */
void measure_settle_left(struct measure *m, const double *left, i64 n);
/* A measure in which nothing was measured: every number NaN, room for ranks and steps. */
struct measure *measure_new(i64 n_ranks, i64 n_steps, struct arena *a);

/* Means over steps of the largest and of the median over ranks, and of their difference. */
struct measure_spread {
    double most, median, excess;
    i64 rank;        /* which is the largest most often */
    double share;    /* in how many of the steps it is */
};
typedef const double *(*measure_series_fn)(const struct measure_rank *r);
struct measure_spread measure_spread(const struct measure *m, measure_series_fn series);
/* From here on series do not change. */
void measure_keep_means(struct measure *m, struct arena *a);
/* Whether these ranks are of several domains; to: where they lie then, NULL: as they do. */
bool measure_crosses(const struct measure *m, const i32 *ranks, int n, const i32 *to);
/* Mean of a series of a rank; NaN when there is none. */
double measure_mean(const struct measure *m, const double *series);
/* Mean of what a rank's host does between steps, without what it does once in the end. */
double measure_recurring(const struct measure *m, i64 rank, enum measure_host kind);
/* Gaps of a rank that no span covers and that come every so many steps, each so many sigma and
 * the floor above the usual ones; count 0: none such. */
struct measure_spikes measure_regular_pauses(const struct measure *m, i64 rank, double sigma,
                                             double floor);
/* Whether the step with this index is the run's last. */
bool measure_is_final(const struct measure *m, i64 index);

#endif
