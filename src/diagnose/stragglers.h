/* diagnose/stragglers.h - how much of the steps' time is somebody slower than others, and who.
 *
 * What-if analysis after Lin et al. 2025 ("Understanding Stragglers in Large Model Training Using
 * What-if Analysis"), on the graph of each step, without the host's gaps: T as it was, T* with
 * every action taking the mean of its kind over all ranks and micro-batches, and every call the
 * median of its kind.
 *
 *     S      T / T*, equation 1
 *     S_w    T with rank w as it was and all else even, over T*, equation 4
 *     M_W    share of T - T* that is gone when the ranks with the largest S_w, 3 % of them, are
 * even
 *     M_S    the same of the ranks with the last stage */
#ifndef HEADWAY_DIAGNOSE_STRAGGLERS_H
#define HEADWAY_DIAGNOSE_STRAGGLERS_H

#include "diagnose/dag.h"

struct stragglers {
    struct arena *arena; /* the caller's */
    double weight;       /* the caller's: how many steps each added one stands for; 0: itself alone */
    int n_ranks;
    double seconds, even_s; /* sums of T and T* over the steps */
    double *rank_s;         /* [n_ranks] of T with this rank alone as it was */
    double last_stage_s;    /* of T with the last stage even */
    double worst_s;         /* of T with the worst ranks even: the second pass */
    int *worst;             /* ranks by S_w, the largest first; set by stragglers_rank */
    int n_worst;            /* 3 %, at least one */
    i64 steps;
    double stands_for; /* so many, by their weights; all seconds are weighted */
    double *compute_s; /* [n_ranks] of all steps, those that lack ranks too: what each computed */
    double *computed;  /* [n_ranks] in how many steps */
};

/* First pass, *x zero but for the arena; then stragglers_rank; then the second pass over the same
 * steps. Steps with another number of ranks are left out. */
void stragglers_add(struct stragglers *x, const struct record_step *s, const struct dag *g);
void stragglers_rank(struct stragglers *x);
void stragglers_add_worst(struct stragglers *x, const struct record_step *s, const struct dag *g);

#endif
