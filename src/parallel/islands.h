/* parallel/islands.h - groups of ranks that take steps apart and meet now and then.
 *
 * Local SGD with an outer optimizer (DiLoCo: Douillard et al. 2023, algorithm 1). Each island of
 * layout.islands takes the recipe's steps with gradients of its own rows alone, on any layout
 * within. After every outer.every of them comes an outer step: how far an island's weights have
 * moved since the last one, averaged over islands, is the gradient of SGD with Nesterov's momentum
 * on the weights that they had in common (the *anchors*), and all go on from there. The inner
 * optimizer's state stays each island's own.
 *
 * The recipe's batch is that of all islands together, as with dp (so Charles et al. 2025, section
 * 2): as many tokens a step, whoever shares them. One island is Lookahead (Zhang et al. 2019).
 *
 * The outer step is a program: bucket by bucket a difference, a sum over LANE_ISLAND beside what
 * follows (in the order of islands, whatever carries it), an update. Anchors and momentum lie as
 * the inner optimizer's state does, split by zero; new weights are gathered as after any
 * update. Sent per rank: 2 (n - 1) / n x 4 bytes x elements here, once in outer.every steps. */
#ifndef HEADWAY_ISLANDS_H
#define HEADWAY_ISLANDS_H

#include "model/model.h"
#include "parallel/mesh.h"

struct islands {
    double lr, momentum;
    /* Written, f64 (1): the sum over islands of |anchor - p|^2, and |the sum of anchor - p|^2. */
    struct tensor *apart, *moved;
};

/* Appends the outer step of a model with MODEL_OUTER (g->phase: update). */
int islands_step(struct graph *g, const struct model *m, const struct mesh *mesh,
                 const struct islands *x);

/* From these two numbers: the norm of the outer gradient, and how far islands were from their
 * mean, as a root of the mean square over islands. */
double islands_norm(i64 islands, double moved);
double islands_divergence(i64 islands, double apart, double moved);

#endif
