/* tests/support/byte_formulas.h - how many bytes a rank sends in a step along each axis, by
 * formulas.
 *
 * They know the layout, the shapes of what a rank holds and the rank's coordinates: no task, no
 * call. What each parallelism exchanges is put together by hand from what its header promises
 * (parallel/data_parallel.h, zero.h, tensor_parallel.h, context_parallel.h, pipeline.h,
 * orthogonal.h, exact.h, islands.h), after Korthikanti et al. 2022, section 4.2 (tensor and
 * sequence parallel), Rajbhandari et al. 2020, section 7 (what dp splits), Liu et al. 2023 and
 * Jacobs et al. 2023 (context).
 *
 * All sums are of whole numbers, so they can be compared by ==. */
#ifndef HEADWAY_TEST_BYTE_FORMULAS_H
#define HEADWAY_TEST_BYTE_FORMULAS_H

#include "graph/program.h"
#include "model/model.h"
#include "parallel/mesh.h"

struct byte_case {
    const struct model *m; /* its shapes */
    const struct mesh *mesh;
    i64 B, T; /* rows of this rank's micro-batch, tokens of a whole row */
    int micro_batches;
    enum recompute recompute;
    /* Rows that routers send to other ranks' experts and get from other ranks, of all layers and
     * micro-batches; routed false: every token chooses every expert. */
    bool routed;
    i64 leave, come;
};

/* By lane. */
struct lane_bytes {
    i64 sent[LANE_COUNT];
};

struct lane_bytes bytes_of_step(const struct byte_case *x);
struct lane_bytes bytes_of_outer_step(const struct byte_case *x);

/* Of LANE_CP and one micro-batch: attention's exchanges in the forward pass, in the backward pass,
 * those of the forward pass that recompute repeats, and where rows begin. */
struct context_bytes {
    i64 forward, backward, again, begin;
};

struct context_bytes bytes_of_attention(const struct byte_case *x);

#endif
