/* backend/cpu/gemm_plan.h - how a product is cut, and where its parts lie in the workspace.
 *
 * k is cut into *blocks*, which panels hold together, and blocks into *slabs*. Where sums go in
 * leaves, a slab of k holds a whole subtree of leaves, or a part of one leaf that is longer than a
 * slab. Only cutting by kernels' kc and by leaves shows in a result, slabs do not. */
#ifndef HEADWAY_GEMM_PLAN_H
#define HEADWAY_GEMM_PLAN_H

#include "backend/cpu/gemm.h"

/* Values [k0, k0 + depth) of k. */
struct gemm_block {
    i64 k0, depth;
    i64 step; /* steps of its slab before it */
    i64 leaf;
    bool begins;      /* a chain: all of k, or a leaf's part of a piece */
    bool first, last; /* of its leaf */
    bool ends_slab;
};

/* How a product is cut, and where things lie in the workspace. */
struct gemm_plan {
    const struct gemm_kernels *k;
    i64 N;            /* columns of a full slab */
    i64 nc;           /* and of a tile: one panel's where no sums wait for another block */
    i64 blocks, slabs; /* of all k */
    i64 steps;        /* of the deepest slab */
    bool partials;    /* a bf16 C that takes more than one slab in k */
    i64 units;        /* subtrees of leaves that slabs make, 0 without leaves ... */
    i64 unit_leaves;  /* ... of so many leaves each */
    bool long_leaves; /* leaves of more than one slab */
    i64 slots, levels; /* between slabs; of a thread's stack */
    i64 panel_at, panel_bytes, partial_at, slot_bytes, row_at, thread_at;
    i64 thread_sum_at, tile_bytes, thread_row_at, thread_bytes, bytes;
};

/* The plan of a product on so many threads. */
struct gemm_plan gemm_plan_product(const struct gemm *g, const struct gemm_kernels *kernels,
                                   int threads);

/* The plan's blocks, into `out`. */
void gemm_plan_blocks(const struct gemm *g, const struct gemm_plan *p, struct gemm_block *out);

/* n cut into equal parts of at most `most`, each a multiple of grain: how long one is. */
static inline i64 gemm_even_part(i64 n, i64 most, i64 grain)
{
    i64 parts = ceil_div(i64_max(n, 1), i64_max(most / grain * grain, grain));
    return i64_max(1, i64_min(n, round_up(ceil_div(n, parts), grain)));
}

#endif
