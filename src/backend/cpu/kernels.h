/* backend/cpu/kernels.h - what the files in multi/ share: their entry points, per
 * instruction set, and how they cut their work into parts.
 *
 * A part's arithmetic never depends on the number of threads (base/pool.h). Sums over rows
 * are taken per block of rows and the blocks added in a tree, both fixed by the shape. */
#ifndef HEADWAY_KERNELS_H
#define HEADWAY_KERNELS_H

#include "backend/backend.h"
#include "backend/cpu/vec.h"
#include "ops/ops.h"

/* The matrix products of this set. */
#if defined(ISA_wide)
#define GEMM_KERNELS gemm_kernels_generic
#else
#define GEMM_KERNELS NAMED(gemm_kernels)
#endif

#define KERNEL_DECLARE(name) void NAMED(name)(const struct task *t, struct run *x)
#define WORKSPACE_DECLARE(name) \
    i64 NAMED(name##_workspace)(const struct task *t, int threads, const void *context)

void NAMED(cpu_register)(struct backend *b); /* fills the rows below */

KERNEL_DECLARE(embed);
KERNEL_DECLARE(embed_grad);
WORKSPACE_DECLARE(embed_grad);
KERNEL_DECLARE(rmsnorm);
KERNEL_DECLARE(rmsnorm_grad);
WORKSPACE_DECLARE(rmsnorm_grad);
KERNEL_DECLARE(layernorm);
KERNEL_DECLARE(layernorm_grad);
WORKSPACE_DECLARE(layernorm_grad);
KERNEL_DECLARE(qk_norm);
KERNEL_DECLARE(qk_norm_grad);
WORKSPACE_DECLARE(qk_norm_grad);
KERNEL_DECLARE(rope);
KERNEL_DECLARE(latent_heads);
KERNEL_DECLARE(latent_heads_grad);
KERNEL_DECLARE(attention);
WORKSPACE_DECLARE(attention);
KERNEL_DECLARE(attention_grad);
WORKSPACE_DECLARE(attention_grad);
KERNEL_DECLARE(attention_block);
WORKSPACE_DECLARE(attention_block);
KERNEL_DECLARE(attention_block_grad);
WORKSPACE_DECLARE(attention_block_grad);
KERNEL_DECLARE(split_qkv);
KERNEL_DECLARE(join_qkv);
KERNEL_DECLARE(spread_heads);
KERNEL_DECLARE(order_rows);
KERNEL_DECLARE(share_heads);
KERNEL_DECLARE(share_heads_grad);
KERNEL_DECLARE(take_part);
KERNEL_DECLARE(attention_cached);
WORKSPACE_DECLARE(attention_cached);
KERNEL_DECLARE(gelu);
KERNEL_DECLARE(gelu_grad);
KERNEL_DECLARE(swiglu);
KERNEL_DECLARE(swiglu_grad);
KERNEL_DECLARE(router);
KERNEL_DECLARE(router_grad);
KERNEL_DECLARE(expert_load);
KERNEL_DECLARE(balance_bias);
KERNEL_DECLARE(expert_order);
KERNEL_DECLARE(expert_counts);
KERNEL_DECLARE(expert_arrival);
KERNEL_DECLARE(expert_gather);
KERNEL_DECLARE(expert_combine);
KERNEL_DECLARE(expert_combine_grad);
KERNEL_DECLARE(add);
KERNEL_DECLARE(finish_sum);
KERNEL_DECLARE(column_sums);
KERNEL_DECLARE(cast);
KERNEL_DECLARE(fold);
KERNEL_DECLARE(carry);
KERNEL_DECLARE(exact_squares);
WORKSPACE_DECLARE(exact_squares);
KERNEL_DECLARE(exact_total);
KERNEL_DECLARE(xent);
KERNEL_DECLARE(xent_peak);
KERNEL_DECLARE(xent_sum);
KERNEL_DECLARE(xent_finish);
KERNEL_DECLARE(loss_sums);
KERNEL_DECLARE(sum_squares);
WORKSPACE_DECLARE(sum_squares);
KERNEL_DECLARE(sum_changes);
WORKSPACE_DECLARE(sum_changes);
KERNEL_DECLARE(raise);
KERNEL_DECLARE(add_norms);
KERNEL_DECLARE(clip);
KERNEL_DECLARE(adamw);
KERNEL_DECLARE(muon_momentum);
KERNEL_DECLARE(muon_orthogonal);
WORKSPACE_DECLARE(muon_orthogonal);
KERNEL_DECLARE(muon_step);
KERNEL_DECLARE(ema);
KERNEL_DECLARE(outer_gradient);
KERNEL_DECLARE(outer_update);

/* --- parts -------------------------------------------------------------------------- */

/* What a pool function needs: the task, the run, and how many items a part takes. */
struct work {
    const struct task *t;
    struct run *x;
    i64 items, per_part;
};

struct range {
    i64 begin, end;
};

static inline struct range work_range(const struct work *w, i64 part)
{
    i64 begin = part * w->per_part;
    return (struct range){ begin, i64_min(begin + w->per_part, w->items) };
}

/* Runs fn over items in parts of per_part. */
static inline void work_run(const struct task *t, struct run *x, i64 items, i64 per_part,
                            pool_fn fn)
{
    struct work w = { t, x, items, per_part };
    pool_run(x->pool, ceil_div(items, per_part), fn, &w);
}

/* Elements of 4 bytes per part of an elementwise kernel: 64 KiB, some 5 us of memory. */
enum { ELEMENTS_PER_PART = 16384 };
/* Rows per part so that a part has about as many elements. */
static inline i64 rows_per_part(i64 columns)
{
    return i64_max(1, ELEMENTS_PER_PART / i64_max(1, columns));
}

/* Asks for what a loop reads some iterations on. Each has so many instructions that few fit beside
 * those that wait for memory; without this a pass over 24 MiB takes twice as long. */
INLINE void fetch_ahead(bool half, const void *x, i64 i)
{
    enum { ELEMENTS = 1024 };
    __builtin_prefetch(vec_at(half, x, i + ELEMENTS));
}

/* Rows per block of a sum over R rows: at most 128 blocks of at least 32 rows. */
static inline i64 rows_per_block(i64 R)
{
    return i64_max(32, ceil_div(R, 128));
}

#endif
