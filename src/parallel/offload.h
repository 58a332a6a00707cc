/* parallel/offload.h - what is not needed for a while lies in slower memory.
 *
 * Rewrites of a finished list (Ren et al. 2021; Rajbhandari et al. 2021, section 5): copies on
 * LANE_AWAY, which run beside the computation. Bits cannot change: nothing is computed. */
#ifndef HEADWAY_OFFLOAD_H
#define HEADWAY_OFFLOAD_H

#include "graph/graph.h"

/* State of the optimizer that the model has away (model_part.state_folder): each bucket's is
 * fetched while the one before is updated, and written back behind its own update. After the
 * update was built. */
int offload_state(struct graph *g);

/* Activations of at least so many bytes that wait for the backward pass of their layer. After
 * recompute, before the update is built. Only for steps whose micro-batches follow each other. */
int offload_activations(struct graph *g, i64 least_bytes);

#endif
