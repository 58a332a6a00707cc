/* parallel/zero.h - weights split over the data-parallel ranks.
 *
 * ZeRO 3 (Rajbhandari et al. 2020, P_os+g+p) as a rewrite of a finished list. The model
 * keeps slices of its matrices only (model_part.split_weights); what products read is an
 * activation, which the memory plan places and frees like any other.
 *
 * A bucket is gathered before each stretch of tasks that reads it (the layer's forward, its
 * backward), and dies behind it. Each gather begins where the stretch before it does, so that
 * the layer ahead is on its way while this one computes. In a pipeline each action, the forward or
 * backward pass of one stage for one micro-batch, gathers what it reads: twice per micro-batch and
 * bucket, as without a pipeline, and no action holds more than two buckets. The first gather of an
 * action is not hidden. */
#ifndef HEADWAY_ZERO_H
#define HEADWAY_ZERO_H

#include "model/model.h"
#include "parallel/mesh.h"

/* Behind all passes, before the update is built. Nothing without split_weights. */
int zero_gather(struct graph *g, const struct model *m, const struct mesh *mesh);

#endif
