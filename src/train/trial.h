/* train/trial.h - the first steps of a layout on simulated ranks, beside one rank.
 *
 * All ranks live in this thread and take turns. They read the rows that training would
 * read, or made-up ones, a function of the row's number, for which nothing but a model
 * and a batch is needed. A fast layout takes its sums in another order than one rank
 * does: trial_compare says whether what differs is rounding.
 *
 * How large rounding may be is not guessed. A sum of n terms, in whatever order, is the
 * exact sum of terms that are off by a factor of 1 + d each, |d| <= gamma_n = n u /
 * (1 - n u) at worst and lambda sqrt(n) u with probability 1 - 2 exp(-lambda^2 / 2)
 * (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1; Higham & Mary
 * 2019, theorem 2.4): every product is one of weights that are off by so little. So one
 * rank runs twice, the second time with each weight off by that much at random
 * (trial_rounding), and how far each tensor moves is its condition, measured: what
 * rounding can do to it, through all layers (TTrace, arXiv 2506.09280, estimates its
 * thresholds by such a perturbation too). A tensor of the layout that is TRIAL_MARGIN
 * times further from one rank's has something else wrong with it.
 *
 * Of a single number one sample says little, so two are bounded otherwise. The norm of
 * the gradient moves by no more than the gradient does (the triangle inequality), which
 * was measured, and the loss by no less than the share by which sums of numbers of one
 * sign, as both are, can be off by themselves. */
#ifndef HEADWAY_TRIAL_H
#define HEADWAY_TRIAL_H

#include "backend/away_lane.h"
#include "backend/engine.h"
#include "comm/sim.h"
#include "data/loader.h"
#include "parallel/driver.h"
#include "train/step.h"

/* One random perturbation is one sample of what rounding does, of small tensors a noisy one. */
enum { TRIAL_MARGIN = 4 };

struct trial_rank {
    struct arena arena;
    struct engine engine;
    struct model *model;
    struct mesh mesh;
    struct step_io io;
    struct step_program step;
    struct driver *driver;
    struct away_lane *away; /* NULL: nothing is in slower memory */
    struct lane_driver lanes; /* both, for one thread */
    struct layout_rows rows;
    const struct trial_rows *step_rows;
    i64 T, vocab, all_rows; /* tokens in a row; rows of a step, of all ranks */
    struct exec_cursor at;
};

/* Must not move once it is open. */
struct trial {
    struct arena arena;
    const struct train_config *config;
    struct layout layout;
    struct comm_sim *sim;
    struct trial_rows *rows; /* of the step on all ranks */
    struct loader *loader;   /* that reads them; NULL: they are made up */
    struct trial_rank *rank;
    int n, opened;
    struct trial_watch *watch; /* NULL: nobody looks at activations */
};

/* The layout was checked. Weights are those of train.seed. backend as in engine_init. */
int trial_open(struct trial *t, const struct train_config *c, const struct model_spec *s,
               const struct layout *l, const char *backend);
void trial_close(struct trial *t);
/* Rows are those of a run's steps, in its order. The loader is of the training split, with
 * train.seq as its window, and stays open. Without this, rows are made up. */
void trial_read(struct trial *t, struct loader *loader);
/* From the next step on, looks at what goes into products and at the gradients of what comes out of
 * them (trial_watch.h): keeps those of a trial of one rank (one NULL), or compares with what two
 * such trials kept, which stay open. Call it before the last step. */
void trial_watch(struct trial *t, const struct trial *one, const struct trial *disturbed);
/* Step number `step` (from 0) of all ranks. */
int trial_step(struct trial *t, i64 step);

/* By which share rounding moves weights, at most but for a probability of 2 exp(-9/2). */
double trial_rounding(const struct train_config *c, const struct model_spec *s);
/* Every weight of a trial of one rank times 1 + share x (a random number in [-1, 1]). */
void trial_disturb(struct trial *t, double share);

struct trial_line {
    const char *kind, *name; /* "gradient" or "input", and a parameter; "loss" of the step */
    int rank;                /* where it is worst */
    double difference;       /* from one rank, over the norm of what it has there */
    double ratio;            /* over what rounding can do, margin included: more than 1 is wrong */
    i64 order;               /* of its last writer in one rank's program */
};

enum { TRIAL_NUMBERS = 2 }; /* lines that are of no tensor: loss and norm */

/* Compares every gradient, moment and weight, the gradient's norm, and what was watched,
 * a line each, in the order of one rank's program; then the loss. */
i64 trial_compare(const struct trial *t, const struct trial *one, const struct trial *disturbed,
                  struct trial_line **out, struct arena *a);
/* The first of them that rounding does not explain; NULL: none. */
const struct trial_line *trial_first(const struct trial_line *lines, i64 n);

#endif
