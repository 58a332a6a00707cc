/* backend/cpu/gemm_tree.h - sums of leaves in a tree, whichever thread or slab made them.
 *
 * n leaves make a balanced tree where n is a power of two; else each run of odd(n) neighbours is
 * summed from the left first, odd(n) what is left of n when it is halved as often as it can be,
 * and those make the balanced tree. A thread's unfinished subtrees lie on a *stack*, the largest
 * below; between slabs, subtrees wait in *slots*, which are the digits of a binary counter. */
#ifndef HEADWAY_GEMM_TREE_H
#define HEADWAY_GEMM_TREE_H

#include "backend/cpu/gemm.h"

/* Where subtrees wait, in slots or on a stack: the i-th begins i x apart floats behind the
 * first. */
struct gemm_slots {
    float *first;
    i64 apart, stride;
};

/* rows x cols of them, rows stride floats apart. */
struct gemm_sums {
    float *at;
    i64 stride, rows, cols;
};

static inline float *gemm_slot(const struct gemm_slots *s, i64 i)
{
    return s->first + i * s->apart;
}

/* n halved as often as it can be. */
i64 gemm_odd_part(i64 n);

/* Slots that n subtrees need between slabs: one for the odd part's running sum, one per
 * doubling. */
i64 gemm_tree_slots(i64 n);

/* Levels of a stack on which n leaves become one tree. */
i64 gemm_tree_levels(i64 n);

/* Subtrees on the stack when leaf `index` of n comes. */
i64 gemm_tree_height(i64 index, i64 n);

/* So many times the two uppermost become one when leaf `index` of n is on top. */
i64 gemm_tree_joins(i64 index, i64 n);

/* Does so, of rows x cols sums: the last of them leaves its sum at level top - joins. */
void gemm_tree_join(const struct gemm_kernels *k, const struct gemm_slots *stack, i64 top,
                    i64 joins, i64 rows, i64 cols);

/* Counts one more slab in among the n whose subtrees make the sum: number `index`, which is in x.
 * True: x is the sum of all. Otherwise x waits in a slot: slot 0 has the running sum of the odd
 * part, slot 1 + l a subtree of 2^l of those. */
bool gemm_tree_count_in(const struct gemm_kernels *k, const struct gemm_sums *x,
                        const struct gemm_slots *s, i64 index, i64 n);

#endif
