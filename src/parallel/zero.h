/* parallel/zero.h - gradients and weights split over the data-parallel ranks.
 *
 * ZeRO 2 and 3 (Rajbhandari et al. 2020, P_os+g and P_os+g+p) as rewrites of a finished list. The
 * model keeps slices of its matrices only (model_part.split_grads, .split_weights); what products
 * read and write are activations, which the memory plan places and frees like any other.
 *
 * Gradients: behind its last writer a bucket is reduced and scattered beside the rest of the
 * backward pass, in every micro-batch, and the slice added to what the rank keeps once the next
 * bucket is ready: two buckets are alive at a time. Vectors are added as they are and reduced at
 * the end.
 *
 * Weights: a bucket is gathered before each stretch of tasks that reads it (the layer's forward,
 * its backward), and dies behind it. Each gather begins where the stretch before it does, so that
 * the layer ahead is on its way while this one computes. */
#ifndef HEADWAY_ZERO_H
#define HEADWAY_ZERO_H

#include "model/model.h"
#include "parallel/mesh.h"

/* In place of data_parallel_reduce, for a model with split_grads. */
int zero_reduce(struct graph *g, const struct model *m, const struct mesh *mesh);

/* Behind all passes, before the update is built. Nothing without split_weights. */
int zero_gather(struct graph *g, const struct model *m, const struct mesh *mesh);

#endif
