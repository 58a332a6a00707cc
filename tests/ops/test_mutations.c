/* Does the self-test see faults? Each row plants one in a kernel of the reference backend;
 * the self-test must turn red, and without it be green.
 *
 * A fault alters the task before the true kernel runs, or spoils its outputs afterwards.
 * Faults in gradient kernels must also be seen by the finite differences of their forward
 * op: those do not know the reference's gradient. */
#include "backend/selftest.h"
#include "base/arena.h"
#include "ops/ops.h"
#include "test.h"

#include <stdio.h>

static struct arena spare; /* altered tensors; given back after each fault */

/* --- ways to alter a task: k says which tensor or attribute ------------------------- */

static struct tensor *copy_of(const struct tensor *t)
{
    struct tensor *copy = ARENA_NEW(&spare, struct tensor);
    *copy = *t;
    copy->data = arena_alloc(&spare, tensor_bytes(t));
    memcpy(copy->data, t->data, (size_t)tensor_bytes(t));
    return copy;
}

static void fill(struct tensor *t, i64 from, i64 to, double value)
{
    for (i64 i = from; i < to; i++)
        tensor_set(t, i, value);
}

static void drop_in(struct task *t, int k, double value)
{
    (void)value;
    t->in[k] = NULL;
}

static void fill_in(struct task *t, int k, double value)
{
    t->in[k] = copy_of(t->in[k]);
    fill(t->in[k], 0, tensor_count(t->in[k]), value);
}

/* The last element of a vector, the last row of a matrix. */
static void zero_last_in(struct task *t, int k, double value)
{
    t->in[k] = copy_of(t->in[k]);
    i64 n = tensor_count(t->in[k]);
    fill(t->in[k], n - (t->in[k]->rank == 1 ? 1 : tensor_columns(t->in[k])), n, value);
}

static void swap_in(struct task *t, int k, double other)
{
    struct tensor *in = t->in[k];
    t->in[k] = t->in[(int)other];
    t->in[(int)other] = in;
}

static void transpose_in(struct task *t, int k, double value)
{
    struct tensor *from = t->in[k], *to = copy_of(from);
    i64 R = from->dim[0], C = from->dim[1];
    (void)value;
    for (i64 r = 0; r < R; r++)
        for (i64 c = 0; c < C; c++)
            tensor_set(to, c * R + r, tensor_get(from, r * C + c));
    t->in[k] = to;
}

static void exchange_halves_in(struct task *t, int k, double value)
{
    struct tensor *from = t->in[k], *to = copy_of(from);
    i64 C = tensor_columns(from);
    (void)value;
    for (i64 i = 0; i < tensor_count(from); i++)
        tensor_set(to, i, tensor_get(from, i / C * C + (i % C + C / 2) % C));
    t->in[k] = to;
}

static void lose_in(struct task *t, int k, double value)
{
    (void)value;
    t->in[k] = copy_of(t->in[k]); /* what is written there is lost */
}

static void lose_out(struct task *t, int k, double value)
{
    (void)value;
    if (t->out[k])
        t->out[k] = copy_of(t->out[k]);
}

static void set_attr(struct task *t, int k, double value)
{
    t->attr[k] = value;
}

static void add_attr(struct task *t, int k, double value)
{
    t->attr[k] += value;
}

static void scale_attr(struct task *t, int k, double value)
{
    t->attr[k] *= value;
}

static void flip_attr(struct task *t, int k, double value)
{
    (void)value;
    t->attr[k] = t->attr[k] == 0;
}

static void set_accumulate(struct task *t, int k, double value)
{
    (void)k;
    t->accumulate = (enum accumulate)value;
}

/* --- ways to spoil an output -------------------------------------------------------- */

static void fill_out(struct task *t, int k, double value)
{
    if (t->out[k])
        fill(t->out[k], 0, tensor_count(t->out[k]), value);
}

static void scale_out(struct task *t, int k, double value)
{
    for (i64 i = 0; i < tensor_count(t->out[k]); i++)
        tensor_set(t->out[k], i, value * tensor_get(t->out[k], i));
}

static void zero_half_out(struct task *t, int k, double value)
{
    i64 C = tensor_columns(t->out[k]);
    for (i64 r = 0; r < tensor_rows(t->out[k]); r++)
        fill(t->out[k], r * C + C / 2, (r + 1) * C, value);
}

/* --- faults of one op --------------------------------------------------------------- */

/* Keys and values of a row come one token early: query t sees key t + 1. */
static void see_next_key(struct task *t, int k, double value)
{
    struct tensor *from = t->in[k], *to = copy_of(from);
    i64 T = (i64)t->attr[ATTENTION_T], C = from->dim[1];
    i64 keys = (i64)(t->attr[ATTENTION_H] * t->attr[ATTENTION_D]);
    (void)value;
    for (i64 r = 0; r < from->dim[0]; r++)
        for (i64 c = keys; c < C && (r + 1) % T != 0; c++)
            tensor_set(to, r * C + c, tensor_get(from, (r + 1) * C + c));
    t->in[k] = to;
}

/* dk and dv of the first query head of each group only. */
static void forget_group_sum(struct task *t, int k, double value)
{
    i64 D = (i64)t->attr[ATTENTION_D], share = (i64)(t->attr[ATTENTION_H] / t->attr[ATTENTION_G]);
    i64 keys = (i64)t->attr[ATTENTION_H] * D;
    struct task again = *t;
    (void)value;
    again.in[k] = copy_of(t->in[k]);
    again.out[0] = copy_of(t->out[0]);
    for (i64 i = 0; i < tensor_count(again.in[k]); i++)
        if (i % keys / D % share != 0)
            tensor_set(again.in[k], i, 0);
    t->op->run_ref(&again, &(struct run){ .micro_batch = 0 });
    for (i64 i = 0; i < tensor_count(t->out[0]); i++)
        if (i % t->out[0]->dim[1] >= keys)
            tensor_set(t->out[0], i, tensor_get(again.out[0], i));
}

/* A norm's dx without the part along x. */
static void forget_projection(struct task *t, int k, double value)
{
    struct task again = *t;
    fill_in(&again, k, value);
    for (int i = 1; i < t->op->n_out; i++)
        lose_out(&again, i, 0);
    t->op->run_ref(&again, &(struct run){ .micro_batch = 0 });
}

/* Of rows with the same index only the last is scattered. */
static void last_row_wins(struct task *t, int k, double value)
{
    const i32 *index = t->in[1]->data;
    i64 R = t->in[k]->dim[0], C = t->in[k]->dim[1];
    t->in[k] = copy_of(t->in[k]);
    for (i64 r = 0; r < R; r++)
        for (i64 later = r + 1; later < R; later++)
            if (index[later] == index[r])
                fill(t->in[k], r * C, (r + 1) * C, value);
}

static void count_padding(struct task *t, int k, double value)
{
    (void)value;
    t->attr[k] = (double)t->in[0]->dim[1];
}

static void drop_seen(struct task *t, int k, double value)
{
    (void)value;
    t->in[k] = t->in[k + 1] = NULL;
}

/* All heads are taken for queries. */
static void swap_head_kinds(struct task *t, int k, double value)
{
    (void)k;
    t->attr[SPREAD_H] += 2 * t->attr[SPREAD_G];
    t->attr[SPREAD_G] = value;
}

static void one_block(struct task *t, int k, double value)
{
    for (int i = 0; i < 3; i++)
        t->attr[k + i] = value;
}

/* The choices of the row before. */
static void shift_rows_in(struct task *t, int k, double value)
{
    struct tensor *from = t->in[k], *to = copy_of(from);
    i64 n = tensor_count(from), C = tensor_columns(from);
    (void)value;
    for (i64 i = 0; i < n; i++)
        tensor_set(to, i, tensor_get(from, (i + n - C) % n));
    t->in[k] = to;
}

/* The first expert's last row goes to the second, or the other way round. */
static void move_begin_in(struct task *t, int k, double value)
{
    t->in[k] = copy_of(t->in[k]);
    i32 *begin = t->in[k]->data;
    (void)value;
    begin[1] += begin[1] > 0 ? -1 : begin[2] > 0 ? 1 : 0;
}

/* --- the table ---------------------------------------------------------------------- */

typedef void (*alter_fn)(struct task *t, int k, double value);

static const struct fault {
    const char *name;
    const struct op_info *op;
    alter_fn before, after;
    int k;
    double value;
    const struct op_info *forward; /* its finite differences must see it too */
} faults[] = {
    { "w is read transposed", &op_linear, transpose_in, NULL, 1, 0, &op_linear },
    { "the residual is dropped", &op_linear, drop_in, NULL, 3, 0, &op_linear },
    { "the bias is dropped", &op_linear, drop_in, NULL, 2, 0, &op_linear },
    { "the last output is left out", &op_linear, zero_last_in, NULL, 1, 0, &op_linear },
    { "w is read transposed", &op_linear_dx, transpose_in, NULL, 1, 0, &op_linear },
    { "dx is zero", &op_linear_dx, NULL, fill_out, 0, 0, &op_linear },
    { "the addend is dropped", &op_linear_dx, drop_in, NULL, 2, 0, NULL },
    { "micro-batches overwrite", &op_linear_dw, set_accumulate, NULL, 0, ACCUMULATE_NONE, NULL },
    { "old sums are kept", &op_linear_dw, set_accumulate, NULL, 0, ACCUMULATE_ALWAYS, NULL },
    { "dbias is missing", &op_linear_dw, lose_out, NULL, 1, 0, &op_linear },
    { "the last token is left out", &op_linear_dw, zero_last_in, NULL, 0, 0, &op_linear },
    { "dw is zero", &op_linear_dw, NULL, fill_out, 0, 0, &op_linear },
    { "positions are ignored", &op_embed, drop_in, NULL, 3, 0, &op_embed },
    { "the last of equal tokens wins", &op_embed_grad, last_row_wins, NULL, 0, 0, &op_embed },
    { "micro-batches overwrite", &op_embed_grad, set_accumulate, NULL, 0, ACCUMULATE_NONE, NULL },
    { "eps is left out", &op_rmsnorm, set_attr, NULL, NORM_EPS, 0, NULL },
    { "rstd is stale", &op_rmsnorm, lose_out, NULL, 1, 0, &op_rmsnorm },
    { "the projection is dropped", &op_rmsnorm_grad, NULL, forget_projection, 1, 0, &op_rmsnorm },
    { "the addend is dropped", &op_rmsnorm_grad, drop_in, NULL, 4, 0, NULL },
    { "dgain is zero", &op_rmsnorm_grad, NULL, fill_out, 1, 0, &op_rmsnorm },
    { "the bias is dropped", &op_layernorm, drop_in, NULL, 2, 0, &op_layernorm },
    { "eps is left out", &op_layernorm, set_attr, NULL, NORM_EPS, 0, NULL },
    { "the mean is stale", &op_layernorm, lose_out, NULL, 1, 0, &op_layernorm },
    { "dbias is missing", &op_layernorm_grad, lose_out, NULL, 2, 0, &op_layernorm },
    { "the mean is taken as zero", &op_layernorm_grad, fill_in, NULL, 3, 0, &op_layernorm },
    { "the addend is dropped", &op_layernorm_grad, drop_in, NULL, 5, 0, NULL },
    { "gains are exchanged", &op_qk_norm, swap_in, NULL, 1, 2, &op_qk_norm },
    { "gains are exchanged", &op_qk_norm_grad, swap_in, NULL, 2, 3, &op_qk_norm },
    { "dgain_k is zero", &op_qk_norm_grad, NULL, fill_out, 2, 0, &op_qk_norm },
    { "it turns the other way", &op_rope, flip_attr, NULL, ROPE_INVERSE, 0, NULL },
    { "cos and sin are exchanged", &op_rope, exchange_halves_in, NULL, 1, 0, NULL },
    { "positions are ignored", &op_rope, fill_in, NULL, 2, 0, NULL },
    { "cos and sin are exchanged", &op_latent_heads, exchange_halves_in, NULL, 3, 0,
      &op_latent_heads },
    { "positions are ignored", &op_latent_heads, fill_in, NULL, 4, 0, NULL },
    { "keys are exchanged with values", &op_latent_heads, exchange_halves_in, NULL, 1, 0,
      &op_latent_heads },
    { "cos and sin are exchanged", &op_latent_heads_grad, exchange_halves_in, NULL, 1, 0,
      &op_latent_heads },
    { "the key's common part has no gradient", &op_latent_heads_grad, NULL, fill_out, 2, 0,
      &op_latent_heads },
    { "a value is as large as a key", &op_attention, set_attr, NULL, ATTENTION_VALUE, 4, NULL },
    { "a query sees the next key", &op_attention, see_next_key, NULL, 0, 0, &op_attention },
    { "the scale is forgotten", &op_attention, set_attr, NULL, ATTENTION_SCALE, 1,
      &op_attention },
    { "documents see each other", &op_attention, fill_in, NULL, 1, 0, &op_attention },
    { "the window is one too wide", &op_attention, add_attr, NULL, ATTENTION_WINDOW, 1,
      &op_attention },
    { "lse is stale", &op_attention, lose_out, NULL, 1, 0, &op_attention },
    { "the largest score is stale", &op_attention, lose_out, NULL, 2, 0, NULL },
    { "dk, dv lack the sum over a group", &op_attention_grad, NULL, forget_group_sum, 0, 0,
      &op_attention },
    { "delta is dropped", &op_attention_grad, fill_in, NULL, 2, 0, &op_attention },
    { "documents see each other", &op_attention_grad, fill_in, NULL, 4, 0, &op_attention },
    { "the window is ignored", &op_attention_grad, set_attr, NULL, ATTENTION_WINDOW, 0,
      &op_attention },
    { "what was seen before is forgotten", &op_attention_block, drop_seen, NULL, 3, 0,
      &op_attention_block },
    { "keys are of the part before", &op_attention_block, add_attr, NULL, BLOCK_KEYS, -1,
      &op_attention_block },
    { "documents see each other", &op_attention_block, fill_in, NULL, 2, 0, &op_attention_block },
    { "the window is one too wide", &op_attention_block, add_attr, NULL, ATTENTION_WINDOW, 1,
      &op_attention_block },
    { "lse is stale", &op_attention_block, lose_out, NULL, 1, 0, &op_attention_block },
    { "the largest score is stale", &op_attention_block, lose_out, NULL, 2, 0, NULL },
    { "the sum so far is dropped", &op_attention_block_grad, drop_in, NULL, 6, 0,
      &op_attention_block },
    { "delta is dropped", &op_attention_block_grad, fill_in, NULL, 3, 0, &op_attention_block },
    { "the window is ignored", &op_attention_block_grad, set_attr, NULL, ATTENTION_WINDOW, 0,
      &op_attention_block },
    { "the first columns of keys are queries", &op_split_qkv, exchange_halves_in, NULL, 0, 0,
      &op_split_qkv },
    { "dkv is dropped", &op_join_qkv, drop_in, NULL, 1, 0, NULL },
    { "dq is dropped", &op_join_qkv, drop_in, NULL, 0, 0, &op_split_qkv },
    { "all heads are taken for queries", &op_spread_heads, swap_head_kinds, NULL, 0, 0, NULL },
    { "another head's size", &op_share_heads, scale_attr, NULL, SHARE_SIZE, 0.5, NULL },
    { "keys are exchanged with values", &op_share_heads, exchange_halves_in, NULL, 1, 0, NULL },
    { "the last rows' copies are not summed", &op_share_heads_grad, zero_last_in, NULL, 0,
      0, NULL },
    { "parts are taken for rows", &op_order_rows, set_attr, NULL, ORDER_PARTS, 1, NULL },
    { "new keys are not stored", &op_attention_cached, lose_in, NULL, 2, 0, NULL },
    { "the window is one too wide", &op_attention_cached, add_attr, NULL, ATTENTION_WINDOW, 1,
      NULL },
    { "the other form is used", &op_gelu, flip_attr, NULL, GELU_EXACT, 0, &op_gelu },
    { "the other form is used", &op_gelu_grad, flip_attr, NULL, GELU_EXACT, 0, &op_gelu },
    { "gate and value are exchanged", &op_swiglu, exchange_halves_in, NULL, 0, 0, &op_swiglu },
    { "db is zero", &op_swiglu_grad, NULL, zero_half_out, 0, 0, &op_swiglu },
    { "scores are not divided by their sum", &op_router, flip_attr, NULL, ROUTER_NORMALISE, 0,
      &op_router },
    { "the scale is forgotten", &op_router, set_attr, NULL, ROUTER_SCALE, 1, &op_router },
    { "the bias of choice is ignored", &op_router, drop_in, NULL, 1, 0, NULL },
    { "sigmoid and softmax are exchanged", &op_router, flip_attr, NULL, ROUTER_SIGMOID, 0,
      &op_router },
    { "sequences are counted as one", &op_router, set_attr, NULL, ROUTER_T, 1000, NULL },
    { "the balance loss has no gradient", &op_router_grad, set_attr, NULL, ROUTER_AUX, 0,
      &op_router },
    { "the z-loss has no gradient", &op_router_grad, set_attr, NULL, ROUTER_Z, 0, &op_router },
    { "the sum of the chosen is taken as constant", &op_router_grad, flip_attr, NULL,
      ROUTER_NORMALISE, 0, &op_router },
    { "another row's choice is used", &op_router_grad, shift_rows_in, NULL, 2, 0, &op_router },
    { "the last sequence is left out", &op_expert_load, zero_last_in, NULL, 0, 0, NULL },
    { "micro-batches overwrite", &op_expert_load, set_accumulate, NULL, 0, ACCUMULATE_NONE, NULL },
    { "another's part is taken", &op_take_part, set_attr, NULL, COLLECTIVE_RANK, 0, NULL },
    { "room is one more than it is", &op_expert_load, add_attr, NULL, ROUTER_CAPACITY, 1, NULL },
    { "the bias goes the wrong way", &op_balance_bias, scale_attr, NULL, BALANCE_RATE, -1, NULL },
    { "the capacity is one too small", &op_expert_order, add_attr, NULL, ORDER_CAPACITY, -1, NULL },
    { "the last row goes elsewhere", &op_expert_order, zero_last_in, NULL, 0, 0, NULL },
    { "the last pair is forgotten", &op_expert_gather, zero_last_in, NULL, 1, 0,
      &op_expert_gather },
    { "weights are left out", &op_expert_combine, drop_in, NULL, 2, 0, &op_expert_combine },
    { "the residual is dropped", &op_expert_combine, drop_in, NULL, 3, 0, &op_expert_combine },
    { "a row's parts go to another", &op_expert_combine, shift_rows_in, NULL, 1, 0,
      &op_expert_combine },
    { "the last expert gets nothing", &op_expert_counts, zero_last_in, NULL, 0, 0, NULL },
    { "the last rank sends its last expert nothing", &op_expert_arrival, zero_last_in, NULL, 1, 0,
      NULL },
    { "weights are taken as one", &op_expert_combine_grad, fill_in, NULL, 2, 1,
      &op_expert_combine },
    { "the router learns nothing", &op_expert_combine_grad, NULL, fill_out, 1, 0,
      &op_expert_combine },
    { "a row meets another expert", &op_expert_linear, move_begin_in, NULL, 2, 0,
      &op_expert_linear },
    { "a row meets another expert", &op_expert_linear_dx, move_begin_in, NULL, 2, 0,
      &op_expert_linear },
    { "a row counts for another expert", &op_expert_linear_dw, move_begin_in, NULL, 2, 0,
      &op_expert_linear },
    { "micro-batches overwrite", &op_expert_linear_dw, set_accumulate, NULL, 0, ACCUMULATE_NONE,
      NULL },
    { "b is dropped", &op_add, fill_in, NULL, 1, 0, &op_add },
    { "the z-loss is left out", &op_xent, set_attr, NULL, XENT_ZCOEF, 0, &op_xent },
    { "padding columns count", &op_xent, count_padding, NULL, XENT_VOCAB, 0, NULL },
    { "inv_weight is forgotten", &op_xent, fill_in, NULL, 3, 1, &op_xent },
    { "dz has the wrong sign", &op_xent, NULL, scale_out, 2, -1, &op_xent },
    { "the bias is dropped", &op_finish_sum, drop_in, NULL, 1, 0, &op_finish_sum },
    { "the residual is dropped", &op_finish_sum, fill_in, NULL, 2, 0, &op_finish_sum },
    { "the last row is left out", &op_column_sums, zero_last_in, NULL, 0, 0, &op_finish_sum },
    { "micro-batches overwrite", &op_column_sums, set_accumulate, NULL, 0, ACCUMULATE_NONE, NULL },
    { "the last row is left out", &op_cast, zero_last_in, NULL, 0, 0, NULL },
    { "the share of the table is taken as the first", &op_embed, set_attr, NULL, EMBED_FIRST, 0,
      NULL },
    { "the share of the table is taken as the first", &op_embed_grad, set_attr, NULL, EMBED_FIRST,
      0, NULL },
    { "padding columns count", &op_xent_peak, count_padding, NULL, XENT_VOCAB, 0, NULL },
    { "the peak is not taken off", &op_xent_sum, fill_in, NULL, 1, 0, NULL },
    { "targets are taken as this rank's", &op_xent_sum, set_attr, NULL, XENT_FIRST, 0, NULL },
    { "the z-loss is left out", &op_xent_finish, set_attr, NULL, XENT_ZCOEF, 0, NULL },
    { "targets are taken as this rank's", &op_xent_finish, set_attr, NULL, XENT_FIRST, 0, NULL },
    { "dz has the wrong sign", &op_xent_finish, NULL, scale_out, 1, -1, NULL },
    { "all goes to one source", &op_loss_sums, fill_in, NULL, 2, 0, NULL },
    { "micro-batches overwrite", &op_loss_sums, set_accumulate, NULL, 0, ACCUMULATE_NONE, NULL },
    { "the last element is left out", &op_sum_squares, zero_last_in, NULL, 0, 0, NULL },
    { "the last element is left out", &op_sum_changes, zero_last_in, NULL, 0, 0, NULL },
    { "what was before is left out", &op_sum_changes, drop_in, NULL, 1, 0, NULL },
    { "the last element is left out", &op_raise, zero_last_in, NULL, 0, 0, NULL },
    { "what was before is forgotten", &op_raise, lose_out, NULL, 0, 0, NULL },
    { "a part is left out", &op_add_norms, drop_in, NULL, 2, 0, NULL },
    { "the limit is ignored", &op_clip, set_attr, NULL, CLIP_LIMIT, 0, NULL },
    { "an infinite norm is applied", &op_clip, NULL, fill_out, 2, 1, NULL },
    { "decay has the wrong sign", &op_adamw, scale_attr, NULL, ADAMW_DECAY, -1, NULL },
    { "the clip's scale is ignored", &op_adamw, fill_in, NULL, 1, 1, NULL },
    { "eps is left out", &op_adamw, set_attr, NULL, ADAMW_EPS, 0, NULL },
    { "bias correction is left out", &op_adamw, fill_in, NULL, 2, 1, NULL },
    { "v is stale", &op_adamw, lose_out, NULL, 2, 0, NULL },
    { "the compute copy is stale", &op_adamw, lose_out, NULL, 3, 0, NULL },
    { "Nesterov's term is exchanged", &op_muon_momentum, flip_attr, NULL, MUON_NESTEROV, 0, NULL },
    { "the clip's scale is ignored", &op_muon_momentum, fill_in, NULL, 1, 1, NULL },
    { "the momentum is stale", &op_muon_momentum, lose_out, NULL, 0, 0, NULL },
    { "a step is left out", &op_muon_orthogonal, add_attr, NULL, MUON_STEPS, -1, NULL },
    { "blocks are taken as one", &op_muon_orthogonal, one_block, NULL, MUON_ROWS0, 0, NULL },
    { "shares are taken as rows", &op_muon_orthogonal, set_attr, NULL, MUON_SHARES, 1, NULL },
    { "what another rank does is done", &op_muon_orthogonal, set_attr, NULL, MUON_ELSEWHERE, 0,
      NULL },
    { "decay is left out", &op_muon_step, set_attr, NULL, MUON_DECAY, 0, NULL },
    { "the compute copy is stale", &op_muon_step, lose_out, NULL, 1, 0, NULL },
    { "decay is taken as its rest", &op_ema, set_attr, NULL, EMA_DECAY, 0.1, NULL },
    { "an island is left out", &op_outer_gradient, fill_in, NULL, 1, 0, NULL },
    { "the sum is taken as the mean", &op_outer_update, set_attr, NULL, OUTER_SHARE, 1, NULL },
    { "momentum is plain", &op_outer_update, set_attr, NULL, OUTER_MU, 0, NULL },
    { "the anchor is stale", &op_outer_update, lose_out, NULL, 1, 0, NULL },
    { "weights are stale", &op_outer_update, lose_out, NULL, 0, 0, NULL },
    { "the compute copy is stale", &op_outer_update, lose_out, NULL, 3, 0, NULL },
    { "the last row is left out", &op_fold, zero_last_in, NULL, 0, 0, NULL },
    { "a sum is begun anew", &op_fold, set_accumulate, NULL, 0, ACCUMULATE_NONE, NULL },
    { "another part's number", &op_carry, add_attr, NULL, CARRY_INDEX, 1, NULL },
    { "what waits is stale", &op_carry, lose_out, NULL, 1, 0, NULL },
    { "the last value is left out", &op_exact_squares, zero_last_in, NULL, 0, 0, NULL },
    { "what was before is left out", &op_exact_squares, drop_in, NULL, 1, 0, NULL },
    { "something was not finite", &op_exact_total, fill_in, NULL, 0, 1, NULL },
};

static void run_faulty(const struct task *t, struct run *x)
{
    const struct fault *f = x->context;
    struct task altered = *t;
    if (f->before)
        f->before(&altered, f->k, f->value);
    t->op->run_ref(&altered, x);
    altered = *t;
    if (f->after)
        f->after(&altered, f->k, f->value);
}

/* Muon with fused blocks, or with shares of columns, needs the scratch of the whole. */
static i64 faulty_workspace(const struct task *t, int threads,
                            const void *context)
{
    struct task whole = *t;
    (void)threads;
    (void)context;
    if (!t->op->ref_workspace)
        return 0;
    one_block(&whole, MUON_ROWS0, 0);
    return t->op->ref_workspace(&whole, 1, NULL);
}

/* The self-test must say so itself: any other failure is an accident of this file. */
static void must_be_red(int rc, const struct fault *f, const char *check)
{
    if (rc != ERR_NUMERIC || !strstr(err_message(), "self-test of"))
        fail_msg("%s: %s: the %s do not see it (%d %s)", f->op->name, f->name, check, rc,
                 rc < 0 ? err_message() : "");
}

TEST(every_planted_fault_turns_the_self_test_red)
{
    struct backend b;
    struct selftest s;
    CHECK_OK(backend_init(&b, "reference"));
    CHECK_OK(selftest_init(&s, &b));
    CHECK(COUNT_OF(faults) >= 20);
    for (i64 i = 0; i < COUNT_OF(faults); i++) {
        const struct fault *f = &faults[i];
        struct kernel truth = *backend_kernel(&b, f->op);
        backend_set(&b, f->op, (struct kernel){ run_faulty, faulty_workspace, (void *)f });
        must_be_red(selftest_kernels(&s, f->op), f, "kernel checks");
        if (f->forward)
            must_be_red(selftest_gradients(&s, f->forward), f, "finite differences");
        backend_set(&b, f->op, truth);
        arena_fini(&spare);
    }
    selftest_fini(&s);
}

static void do_nothing(struct task *t, int k, double value)
{
    (void)t;
    (void)k;
    (void)value;
}

TEST(without_a_fault_the_same_machinery_is_green)
{
    struct backend b;
    struct selftest s;
    CHECK_OK(backend_init(&b, "reference"));
    CHECK_OK(selftest_init(&s, &b));
    for (i64 i = 0; i < op_table_count; i++) {
        struct fault none = { "none", op_table[i], do_nothing, do_nothing, 0, 0, NULL };
        if (op_table[i]->run_ref)
            backend_set(&b, op_table[i], (struct kernel){ run_faulty, faulty_workspace, &none });
        CHECK_OK(selftest_kernels(&s, op_table[i]));
        CHECK_OK(selftest_gradients(&s, op_table[i]));
    }
    selftest_fini(&s);
}

TEST(every_op_with_a_reference_has_a_planted_fault)
{
    for (i64 i = 0; i < op_table_count; i++) {
        bool found = !op_table[i]->run_ref;
        for (i64 f = 0; f < COUNT_OF(faults); f++)
            found = found || faults[f].op == op_table[i];
        if (!found)
            fail_msg("plant a fault in %s", op_table[i]->name);
    }
}

TEST_MAIN(ONE(every_planted_fault_turns_the_self_test_red),
          ONE(without_a_fault_the_same_machinery_is_green),
          ONE(every_op_with_a_reference_has_a_planted_fault))
