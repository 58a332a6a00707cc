/* The rows of the kernel table that this instruction set fills. */
#include "backend/cpu/cpu.h"
#include "backend/cpu/expert_linear.h"
#include "backend/cpu/gemm.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/linear.h"

#define ROW(op) { &op_##op, { NAMED(op), NULL, NULL } }
#define ROW_SCRATCH(op) { &op_##op, { NAMED(op), NAMED(op##_workspace), NULL } }

void NAMED(cpu_register)(struct backend *b)
{
    void *g = (void *)&GEMM_KERNELS; /* a kernel's context; never written */
    const struct {
        const struct op_info *op;
        struct kernel kernel;
    } rows[] = {
        ROW(embed), ROW_SCRATCH(embed_grad),
        { &op_linear, { linear_run, linear_workspace, g } },
        { &op_linear_dx, { linear_dx_run, linear_dx_workspace, g } },
        { &op_linear_dw, { linear_dw_run, linear_dw_workspace, g } },
        { &op_expert_linear, { expert_linear_run, expert_linear_workspace, g } },
        { &op_expert_linear_dx, { expert_linear_dx_run, expert_linear_dx_workspace, g } },
        { &op_expert_linear_dw, { expert_linear_dw_run, expert_linear_dw_workspace, g } },
        ROW(router), ROW(router_grad), ROW(expert_load), ROW(balance_bias), ROW(expert_order),
        ROW(expert_counts), ROW(expert_arrival),
        ROW(expert_gather), ROW(expert_combine), ROW(expert_combine_grad),
        ROW(rmsnorm), ROW_SCRATCH(rmsnorm_grad), ROW(layernorm), ROW_SCRATCH(layernorm_grad),
        ROW(qk_norm), ROW_SCRATCH(qk_norm_grad), ROW(rope), ROW(latent_heads),
        ROW(latent_heads_grad),
        ROW_SCRATCH(attention), ROW_SCRATCH(attention_grad), ROW_SCRATCH(attention_cached),
        ROW_SCRATCH(attention_block), ROW_SCRATCH(attention_block_grad),
        ROW(split_qkv), ROW(join_qkv), ROW(spread_heads), ROW(order_rows),
        ROW(share_heads), ROW(share_heads_grad), ROW(take_part),
        ROW(gelu), ROW(gelu_grad), ROW(swiglu), ROW(swiglu_grad), ROW(add),
        ROW(finish_sum), ROW(column_sums), ROW(cast),
        ROW(fold), ROW(carry), ROW_SCRATCH(exact_squares), ROW(exact_total),
        ROW(xent), ROW(xent_peak), ROW(xent_sum), ROW(xent_finish), ROW(loss_sums),
        ROW_SCRATCH(sum_squares), ROW_SCRATCH(sum_changes), ROW(raise), ROW(add_norms),
        ROW(clip), ROW(adamw), ROW(ema),
        ROW(outer_gradient), ROW(outer_update),
        ROW(muon_momentum), ROW(muon_step),
        { &op_muon_orthogonal, { NAMED(muon_orthogonal), NAMED(muon_orthogonal_workspace), g } },
    };
    for (i64 i = 0; i < COUNT_OF(rows); i++)
        backend_set(b, rows[i].op, rows[i].kernel);
}
