/* train/health.h - how learning goes, parameter by parameter, on the steps that are asked for.
 *
 * With log.health N the list of a step has tasks that measure, with a condition that the host sets
 * in every N-th step. In the others none of them runs; without log.health there are none.
 *
 *   of each parameter      the norms of its gradient (before clipping), of its weight after the
 *                          update, and of the update itself: after minus before, as stored
 *   of each layer          attention's largest logit: of q k scale over all queries and the keys
 *                          that they see, as the kernel that trains computed it. Logits that grow
 *                          are how attention diverges (Dehghani et al. 2023, section 3.1). Kernels
 *                          have each query's largest at hand, and leave it in every step; it is
 *                          looked at in those that are measured
 *   gradient noise scale   tr(S) / |G|^2 (McCandlish et al. 2018, section 2.2 and appendix A.1),
 *                          from the norm of one micro-batch's gradient (the first of each rank,
 *                          mean over ranks) and that of the whole step, over the layers' matrices
 *                          that tensor parallelism can cut, but for experts: of these a rank's part
 *                          is known before anything is summed over ranks, on any layout
 *
 * Each element is measured on one of the ranks that have it; ranks add up what they measured once,
 * behind the step. */
#ifndef HEADWAY_HEALTH_H
#define HEADWAY_HEALTH_H

#include "model/model.h"
#include "parallel/mesh.h"
#include "train/run_folder.h"

/* Columns: sums of squares of what is said above. */
#define HEALTH_DUE "health_due" /* the condition's name, which records tell */
enum { HEALTH_GRAD, HEALTH_WEIGHT, HEALTH_UPDATE, HEALTH_SMALL, HEALTH_COLUMNS };

struct health {
    const struct param_desc *params; /* all of the model's, whatever is here */
    i64 n_params, layers;
    struct tensor *due;    /* i32 (1): what all the tasks wait for */
    struct tensor *norms;  /* f64 (n_params HEALTH_COLUMNS) */
    struct tensor *logits; /* f64 (layers): attention's largest */
};

/* --- tasks: health_tasks.c ---------------------------------------------------------- */

/* Behind the forward list, before its gradients are made. */
void health_watch_logits(struct graph *g, const struct health *h);
/* Behind the passes on gradients, before the update is built. */
int health_watch_gradients(struct graph *g, const struct health *h, const struct model *m,
                           const struct mesh *mesh);

/* Around the update of (the part that is here of) a parameter; p NULL or h NULL: nothing. */
void health_watch_gradient(struct graph *g, const struct health *h, const struct param *p,
                           struct tensor *grad);
struct tensor *health_keep(struct graph *g, const struct health *h, const struct param *p,
                           struct tensor *weight);
void health_watch_update(struct graph *g, const struct health *h, const struct param *p,
                         struct tensor *weight, struct tensor *before);
/* Whether this rank is the one that measures its part of p in the update. */
bool health_measures(const struct model *m, const struct mesh *mesh, const struct param *p);

/* Whether the noise scale is taken from it, among others: the layers' matrices that are
 * cut along tp. A rank's gradients of these are whole but for other rows; those of
 * experts may be of the rows of several ranks, and of few. */
bool health_in_noise(const struct param_desc *p);

/* --- numbers: health.c -------------------------------------------------------------- */

/* What the noise scale is made of; all per token. */
struct health_noise {
    const char *missing; /* why there is none, or NULL */
    double small, big;   /* tokens of a micro-batch, of a step */
    double trace;        /* tr(S): unbiased, of this step alone; may be negative by chance */
    double signal;       /* |G|^2, the same: may be negative when noise prevails */
};

/* tr(S) / |G|^2, tokens; NaN where either is not above 0, or missing: what averages of them over
 * steps tell, this step alone does not. */
double health_noise_scale(const struct health_noise *x);

/* Before a step. */
void health_begin(const struct health *h, bool due);
/* Behind one that was due: all ranks together. */
int health_share(const struct health *h, const struct mesh *mesh);
/* From shared numbers. micro_batches and tokens (of one of them) are those of a rank. */
struct health_noise health_noise(const struct health *h, const struct mesh *mesh,
                                 int micro_batches, double tokens);

/* A line of event `health` in the metrics, and TensorBoard's scalars health/... */
void health_put(const struct health *h, const struct health_noise *noise, i64 step,
                struct run_folder *f);

/* The square root of a column's entry, and of the column's sum. */
double health_norm(const struct health *h, i64 param, int column);
double health_total(const struct health *h, int column);

#endif
