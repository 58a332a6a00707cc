/* parallel/data_parallel.h - gradients summed over ranks, and the optimizer's state split.
 *
 * Both are rewrites of a step's list. A gradient of one rank is a *partial* sum over the
 * rows that this rank saw. Once a bucket's last writer has run in the last micro-batch, the
 * bucket is summed over the data-parallel ranks, beside the rest of the backward pass. With
 * zero >= 1 each rank receives the sum of its own slice only, updates that, and the slices
 * of the new weights are gathered (Rajbhandari et al. 2020, P_os). */
#ifndef HEADWAY_DATA_PARALLEL_H
#define HEADWAY_DATA_PARALLEL_H

#include "model/model.h"
#include "parallel/mesh.h"

/* After graph_backward and the passes on it, before the update is built. */
int data_parallel_reduce(struct graph *g, const struct model *m, const struct mesh *mesh);

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

#endif
