/* diagnose/ladder.h - where the peak went: thirteen factors whose product is the MFU, exactly.
 *
 * W wall time, T the steps' time in it, T1 ... T7 what the steps would have taken with one loss
 * after another taken away (diagnose/rungs.h, each on top of those before), C mean computing time
 * of a rank then; M model FLOPs of the places that a counted token depends on, and of the pairs of
 * tokens that documents let attend to each other, H executed FLOPs, of such pairs too; of
 * each task its time t as it is from T5 on, FLOPs h, bytes b, the peak F_i of its dtype,
 * p = max(h / F_i, b / memory rate).
 *
 *     goodput   T / W          start, evaluation, checkpoints, restarts, steps taken twice
 *     data      T1 / T         waiting for the loader
 *     host      T2 / T1        gaps, logging
 *     clock     T3 / T2        a clock below that at the start
 *     cpu       T4 / T3        threads that were not on a processor
 *     balance   T5 / T4        slower than usual: some ranks, some steps, now and then
 *     transfer  T6 / T5        bytes on their way, and latency
 *     stage     T7 / T6        stages, shards and micro-batches that differ (may be above 1)
 *     bubble    C / T7         waiting that is left: dependencies
 *     useful    M / H          recompute, padding, masked work
 *     dtype     sum h/F / sum h/F_i  tasks in another number format than the run's
 *     memory    sum h/F_i / sum p
 *     attain    sum p / sum t        kernels, where nothing holds them up (diagnose/usual_time.h)
 *
 * The product telescopes to M / (W N F). F is the rank's measured peak in the precision of the run, as
 * in every share of peak that is told anywhere (loop.c's lines, the report, events and metrics): so a
 * run in fp32 is measured by fp32's peak, and that another precision has a higher one is a finding
 * (K8), no rung. The product is less than the rate that training itself shows where rows are padded or
 * hold several documents: that counts all places and pairs. Ceilings that kernels go beyond are as high
 * as what these attain (diagnose/attained.h).
 *
 * Rungs depend on their order. Losses that a healthy run has none of come first: they leave the
 * rungs below as they are in a healthy run, where behind transfer they would make less of its
 * share. What a fix gains is asked of the graph, not of a rung. */
#ifndef HEADWAY_DIAGNOSE_LADDER_H
#define HEADWAY_DIAGNOSE_LADDER_H

#include "diagnose/rungs.h"

enum ladder_factor {
    LADDER_GOODPUT, LADDER_DATA, LADDER_HOST, LADDER_CLOCK, LADDER_CPU, LADDER_BALANCE,
    LADDER_TRANSFER, LADDER_STAGE, LADDER_BUBBLE, LADDER_USEFUL, LADDER_DTYPE, LADDER_MEMORY,
    LADDER_ATTAIN, LADDER_FACTORS
};

/* Sums over the steps that were added; all zero is the begin, but for weight. */
struct ladder {
    double weight; /* the caller's: how many steps each added one stands for; 0: itself alone */
    i64 steps;
    double wall_s;          /* all seconds are weighted */
    double rung_s[RUNGS];   /* T, T1, ... T7, C */
    double start_s, restart_s, retaken_s, eval_s, checkpoint_s; /* the wall time that is no step */
    double model_flops, flops; /* of all ranks; of all places, and of pairs that attend */
    double tokens, tokens_idle; /* of sampled rows: places, and those that serve no counted token */
    double at_peak_s, at_dtype_s, at_roofline_s; /* sums of h/F, h/F_i, p */
    double compute_s;       /* sum of t */
    bool no_rate;           /* some rank's memory rate is not known */
    bool no_dtype;          /* the peak of some task's dtype is not known */
    bool has_cpu, has_clock; /* some rank and step has such a sample */
    bool lacks_ranks;       /* in some step: waiting for them is not told from bytes */
    bool no_peak;           /* some rank's is not known: no factor below bubble, nor MFU */
    double worst_fidelity;  /* the graph's length / measured, the farthest from 1 */
    i64 beyond_gate; /* steps with a fidelity beyond DAG_GATE */
    i64 incomplete;  /* steps with ranks or spans missing */
    int last_part;   /* of the step before */
};

/* What one step adds, apart from the order of steps. */
struct ladder_step {
    double rungs[RUNGS], eval, checkpoint, model_flops, tokens, tokens_idle, fidelity;
    bool incomplete, lacks_ranks;
    struct ladder kernels; /* of its tasks: weight 1, sums of FLOPs and times, and what is not known */
};
void ladder_measure(struct ladder_step *out, const struct record_step *s, const struct dag *g,
                    const struct usual *u);
/* Steps in ascending order. */
void ladder_take(struct ladder *l, const struct record *r, const struct record_step *s,
                 const struct ladder_step *x);
/* Both. */
void ladder_add(struct ladder *l, const struct record *r, const struct record_step *s,
                const struct dag *g, const struct usual *u);
/* Behind the last step, when all that are recorded were added: steps that were taken twice. */
void ladder_add_retaken(struct ladder *l, const struct record *r);

/* What was done between steps is seldom done: seconds a step, by more steps than were added. */
void ladder_set_between(struct ladder *l, double eval_s, double checkpoint_s);

/* The factors; 1 where there is nothing to divide, NaN where no peak is known. */
void ladder_factors(const struct ladder *l, double out[LADDER_FACTORS]);
/* Whether a factor was measured. One that was not stands as 1 in the product, and what it would
 * have told is in those beside it. */
bool ladder_known(const struct ladder *l, enum ladder_factor f);
double ladder_mfu(const struct ladder *l); /* M / (W N F), from the sums, not the product */
double ladder_hfu(const struct ladder *l);
double ladder_peak(const struct ladder *l); /* F, of one rank: FLOP/s */

const char *ladder_name(enum ladder_factor f);

#endif
