/* backend/cpu/gemm_tree.c - counting leaves and slabs in. */
#include "backend/cpu/gemm_tree.h"

i64 gemm_odd_part(i64 n)
{
    while (n > 0 && n % 2 == 0)
        n /= 2;
    return n;
}

i64 gemm_tree_slots(i64 n)
{
    i64 slots = 1;
    for (n /= gemm_odd_part(n); n > 1; n /= 2)
        slots++;
    return slots;
}

i64 gemm_tree_levels(i64 n)
{
    i64 levels = gemm_odd_part(n) > 1 ? 2 : 1;
    for (n /= gemm_odd_part(n); n > 1; n /= 2)
        levels++;
    return levels;
}

i64 gemm_tree_height(i64 index, i64 n)
{
    const i64 odd = gemm_odd_part(n);
    return __builtin_popcountll((u64)(index / odd)) + (index % odd > 0);
}

i64 gemm_tree_joins(i64 index, i64 n)
{
    const i64 odd = gemm_odd_part(n), place = index % odd;
    i64 joins = place > 0;
    if (place == odd - 1)
        for (i64 group = index / odd; group & 1; group >>= 1)
            joins++;
    return joins;
}

void gemm_tree_join(const struct gemm_kernels *k, const struct gemm_slots *stack, i64 top,
                    i64 joins, i64 rows, i64 cols)
{
    for (; joins > 0; joins--, top--)
        k->finish(gemm_slot(stack, top - 1), DTYPE_F32, stack->stride, gemm_slot(stack, top),
                  stack->stride, rows, cols, true);
}

static void add_slot(const struct gemm_kernels *k, const struct gemm_sums *x,
                     const struct gemm_slots *s, i64 i)
{
    k->finish(x->at, DTYPE_F32, x->stride, gemm_slot(s, i), s->stride, x->rows, x->cols,
              true);
}

static void keep_in_slot(const struct gemm_kernels *k, const struct gemm_sums *x,
                         const struct gemm_slots *s, i64 i)
{
    k->finish(gemm_slot(s, i), DTYPE_F32, s->stride, x->at, x->stride, x->rows, x->cols,
              false);
}

bool gemm_tree_count_in(const struct gemm_kernels *k, const struct gemm_sums *x,
                        const struct gemm_slots *s, i64 index, i64 n)
{
    i64 odd = gemm_odd_part(n), place = index % odd, level = 1;
    if (place > 0)
        add_slot(k, x, s, 0);
    if (place < odd - 1) {
        keep_in_slot(k, x, s, 0);
        return false;
    }
    for (i64 group = index / odd; group & 1; group >>= 1)
        add_slot(k, x, s, level++);
    if (index == n - 1)
        return true;
    keep_in_slot(k, x, s, level);
    return false;
}
