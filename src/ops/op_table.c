/* Every op there is. A row here makes an op known to backends, self-tests and traces. */
#include "ops/ops.h"

#include <string.h>

const struct op_info *const op_table[] = {
    &op_load_batch,
    &op_embed, &op_embed_grad,
    &op_linear, &op_linear_dx, &op_linear_dw,
    &op_rmsnorm, &op_rmsnorm_grad,
    &op_layernorm, &op_layernorm_grad,
    &op_qk_norm, &op_qk_norm_grad,
    &op_rope, &op_latent_heads, &op_latent_heads_grad,
    &op_attention, &op_attention_grad, &op_attention_cached,
    &op_split_qkv, &op_join_qkv, &op_attention_block, &op_attention_block_grad,
    &op_spread_heads, &op_order_rows, &op_share_heads, &op_share_heads_grad,
    &op_gelu, &op_gelu_grad,
    &op_swiglu, &op_swiglu_grad,
    &op_router, &op_router_grad, &op_expert_load, &op_balance_bias,
    &op_expert_order, &op_expert_gather, &op_expert_combine, &op_expert_combine_grad,
    &op_expert_counts, &op_expert_arrival, &op_expert_exchange,
    &op_expert_linear, &op_expert_linear_dx, &op_expert_linear_dw,
    &op_add,
    &op_finish_sum, &op_column_sums, &op_cast,
    &op_fold, &op_carry, &op_exact_squares, &op_exact_total,
    &op_xent, &op_xent_peak, &op_xent_sum, &op_xent_finish, &op_loss_sums,
    &op_sum_squares, &op_add_norms, &op_clip, &op_sum_changes, &op_raise,
    &op_adamw, &op_muon_momentum, &op_muon_orthogonal, &op_muon_step, &op_ema,
    &op_outer_gradient, &op_outer_update,
    &op_reduce_scatter, &op_all_gather, &op_take_part, &op_all_reduce, &op_all_to_all,
    &op_ring_shift, &op_send, &op_recv, &op_copy, &op_release,
};
const i64 op_table_count = COUNT_OF(op_table);

i64 op_index(const struct op_info *op)
{
    for (i64 i = 0; i < op_table_count; i++)
        if (op_table[i] == op)
            return i;
    return -1;
}

const struct op_info *op_find(const char *name)
{
    for (i64 i = 0; i < op_table_count; i++)
        if (strcmp(op_table[i]->name, name) == 0)
            return op_table[i];
    return NULL;
}
