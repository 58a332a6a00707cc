/* parallel/data_parallel.h - gradients summed over ranks; gradients and state of the optimizer
 * split (weights: zero.h).
 *
 * Rewrites of a step's list. A gradient of one rank is a *partial* sum over the rows that this rank
 * saw; whoever shares the batch has parts of it. Reductions run beside the rest of the backward
 * pass, behind a bucket's last writer. Rajbhandari et al. 2020:
 *
 * zero 0: in the last micro-batch buckets are summed everywhere.
 * zero 1 (P_os): each rank receives the sum of its own slice only, updates that, and the slices of
 * the new weights are gathered.
 * zero 2, 3 (P_os+g): a bucket's gradient is an activation. In every micro-batch it is
 * reduced and scattered, and the slice added to what the rank keeps once the next bucket
 * is ready: two buckets are alive at a time. Vectors are added as they are and summed at
 * the end. A table that two stages share is kept whole, as with zero 1: the other stage's
 * slices are others. In exact mode sums over these ranks come before those over
 * micro-batches everywhere (exact.h).
 *
 * With layout.zero_group slices are those of a group of neighbours, and groups are copies of each
 * other: what a slice's reduce-scatter over LANE_SHARD gave is summed over LANE_COPIES in the last
 * micro-batch, a bucket later (FSDP's hybrid sharding; Zhang et al. 2022, MiCS, section 3). */
#ifndef HEADWAY_DATA_PARALLEL_H
#define HEADWAY_DATA_PARALLEL_H

#include "model/model.h"
#include "parallel/mesh.h"

/* After graph_backward and the passes on it, before the update is built. micro_batches:
 * of a rank in a step. */
int data_parallel_reduce(struct graph *g, const struct model *m, const struct mesh *mesh,
                         int micro_batches);

/* At the beginning of the update (g->phase): the bucket whose gradient stages share, which
 * data_parallel_reduce left out. All of it is summed, whatever is split: the other stage's
 * slices are others. */
int data_parallel_reduce_shared(struct graph *g, const struct model *m, const struct mesh *mesh);

/* After the update of bucket b: every rank gets the others' slices of the weights. */
int data_parallel_gather(struct graph *g, const struct bucket *b, const struct mesh *mesh);

/* The same for all buckets between steps, after each rank changed the weights of its slices by
 * other means than the program. */
int data_parallel_share(const struct model *m, const struct mesh *mesh);

/* The sum over ranks of what each found in the slices that it owns; `total` itself, or NULL,
 * where nothing is split. */
struct tensor *data_parallel_total(struct graph *g, struct tensor *total,
                                   const struct mesh *mesh);

/* What each rank found in its own experts, summed over those with others: where nothing
 * is split, over ep; where data_parallel_total comes behind it, over those of ep that
 * this does not reach. */
struct tensor *data_parallel_experts_total(struct graph *g, struct tensor *total,
                                           const struct mesh *mesh);

#endif
