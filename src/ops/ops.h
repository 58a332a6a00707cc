/* ops/ops.h - every op: its mathematics, shapes, and the function that appends it.
 *
 * R rows (B x T tokens flattened), B batch, T time, C channels, H query heads, G key-value
 * heads (H % G == 0), D head size, F hidden width, V vocabulary, P positions, S sources.
 * "compute dtype" is f32 or bf16; weights passed to matrix ops are in it, gains and biases
 * stay f32 masters. A builder returns its (first) output, or NULL after an error. [x] marks
 * an optional tensor: NULL. Outputs marked (sum) are accumulated over micro-batches.
 *
 * To add an op: one file here with its struct op_info, one row in op_table.c, one kernel
 * per backend; the tests find it through the table. */
#ifndef HEADWAY_OPS_H
#define HEADWAY_OPS_H

#include "graph/graph.h"

extern const struct op_info *const op_table[];
extern const i64 op_table_count;
/* Position in op_table. */
i64 op_index(const struct op_info *op);
const struct op_info *op_find(const char *name); /* NULL when unknown */

/* --- embedding: y[r] = wte[tokens[r]] (+ wpe[positions[r]]) ------------------------- */
/* in: tokens i32 (R), wte (V,C), [positions i32 (R)], [wpe (P,C)]; out: y (R,C). A table may
 * be a share that begins with row EMBED_FIRST of the whole (EMBED_FIRST_POSITION for wpe): an
 * index outside it counts as a row of zeros. */
enum { EMBED_FIRST, EMBED_FIRST_POSITION, EMBED_GRAIN };
extern const struct op_info op_embed;
struct tensor *embed(struct graph *g, struct tensor *tokens, struct tensor *wte,
                     struct tensor *positions, struct tensor *wpe);
/* dtable[index[r] - EMBED_FIRST] += dy[r] where that is a row of dtable; in: dy (R,C), index
 * i32 (R) (tokens, or positions: one task per table); out: dtable f32 (V,C) (sum). Rows are
 * added in ascending r; with EMBED_GRAIN, those of each run of so many rows, and the runs are
 * added in a tree (see "sums that ranks can share"). */
extern const struct op_info op_embed_grad;

/* --- linear: y = x w^T (+ bias) (+ residual) ---------------------------------------- */
/* in: x (R,K), w (N,K), [bias f32 (N)], [residual (R,N)]; out: y (R,N); attr: out dtype.
 * LINEAR_LEAVES, of all three products: the sum (over K; over N in dx; over R in dw) is taken in
 * so many leaves; leaf j is the j-th share of each of up to three pieces (struct gemm_leaves).
 * LINEAR_PIECES and LINEAR_SHARES: three each, in the terms of that sum. */
enum { LINEAR_OUT_F32, /* 1: y is f32 whatever x is (logits) */
       LINEAR_LEAVES, LINEAR_PIECES, LINEAR_SHARES = LINEAR_PIECES + 3 };
extern const struct op_info op_linear;
struct tensor *linear(struct graph *g, struct tensor *x, struct tensor *w,
                      struct tensor *bias, struct tensor *residual);
/* The same with f32 output and no bias: the LM head. */
struct tensor *linear_f32(struct graph *g, struct tensor *x, struct tensor *w);
/* dx = dy w (+ addend); in: dy (R,N), w (N,K), [addend (R,K)]; out: dx (R,K), of dy's dtype or
 * f32 */
extern const struct op_info op_linear_dx;
/* dw = dy^T x, dbias = column sums of dy; in: dy (R,N), x (R,K);
 * out: dw f32 (N,K) (sum), [dbias f32 (N)] (sum). Phase W. */
extern const struct op_info op_linear_dw;

/* --- norms, row by row; statistics are saved in f32 --------------------------------- */
enum { NORM_EPS };
/* y = x rstd gain, rstd = 1/sqrt(mean(x^2) + eps)
 * in: x (R,C), gain f32 (C); out: y (R,C), rstd f32 (R) */
extern const struct op_info op_rmsnorm;
struct tensor *rmsnorm(struct graph *g, struct tensor *x, struct tensor *gain, double eps);
/* in: dy, x, gain, rstd, [addend (R,C)]; out: dx (R,C) = addend + ..., dgain f32 (C) (sum).
 * Here and below, a sum over rows may be given as (n,C): the sums of n equal groups of
 * consecutive rows, for op_fold to add. */
extern const struct op_info op_rmsnorm_grad;
/* y = (x - mean) rstd gain + [bias]; in: x, gain, [bias]; out: y, mean f32 (R), rstd f32 (R) */
extern const struct op_info op_layernorm;
struct tensor *layernorm(struct graph *g, struct tensor *x, struct tensor *gain,
                         struct tensor *bias, double eps);
/* in: dy, x, gain, mean, rstd, [addend]; out: dx = addend + ..., dgain (C) (sum),
 * [dbias (C)] (sum) */
extern const struct op_info op_layernorm_grad;

/* --- attention inputs: qkv is (R, (H + 2G) D): H query heads, G key heads, G value --- */
/* Query and key heads normalised as rmsnorm over D (Qwen3). in: qkv, gain_q f32 (D),
 * gain_k f32 (D); out: y like qkv (values copied), rstd f32 (R, H+G) */
enum { HEADS_H, HEADS_G, HEADS_D, HEADS_EPS, HEADS_LEAVES };
extern const struct op_info op_qk_norm;
struct tensor *qk_norm(struct graph *g, struct tensor *qkv, struct tensor *gain_q,
                       struct tensor *gain_k, int H, int G, int D, double eps);
/* in: dy, qkv, gain_q, gain_k, rstd; out: dqkv, dgain_q (D) (sum), dgain_k (D) (sum). With
 * HEADS_LEAVES n the sums are (groups n, D): per group of rows, those of each n-th of the query
 * and the key heads. */
extern const struct op_info op_qk_norm_grad;
/* Rotary embedding of query and key heads, pairs (i, i + D/2):
 *   a' = a cos - b sin, b' = b cos + a sin, angle = positions[r] * frequency[i]
 * in: qkv, table f32 (P, D) = cos in [0,D/2), sin in [D/2,D); positions i32 (R);
 * out: y like qkv (values copied). ROPE_INVERSE 1 rotates back (that is its gradient). */
enum { ROPE_H, ROPE_G, ROPE_D, ROPE_INVERSE };
extern const struct op_info op_rope;
struct tensor *rope(struct graph *g, struct tensor *qkv, struct tensor *table,
                    struct tensor *positions, int H, int G, int D);

/* Heads of latent attention (DeepSeek-V2, 2024, eq. 14 to 18): of a query or key head of size
 * N + P the last P are rotary, and those of a key are the same for all heads.
 * in: q (R, H (N+P)), kv (R, H (N+V)): per head N of the key, then the value; k (R, P); table f32
 * (positions, P) as above; positions i32 (R); out: qkv (R, 2 H (N+P) + H V). Rotary pairs are
 * (2i, 2i+1) in q and k, as those who made it store weights, and (i, i + P/2) in qkv. */
enum { LATENT_H, LATENT_N, LATENT_P, LATENT_V };
extern const struct op_info op_latent_heads;
struct latent_shape {
    i64 H, N, P, V;
};
struct tensor *latent_heads(struct graph *g, struct tensor *q, struct tensor *kv, struct tensor *k,
                            struct tensor *table, struct tensor *positions,
                            const struct latent_shape *shape);
/* in: dqkv, table, positions; out: dq, dkv, dk (the sum over heads) */
extern const struct op_info op_latent_heads_grad;

/* --- causal attention, softmax(q k^T scale) v, within a row of T tokens ------------- */
/* Query t of a row sees keys max(begin[t], t - window + 1) .. t, where begin[t] is where
 * the token's document begins in its row (0 when documents may see each other) and
 * window 0 means no limit. begin never decreases within a document's row.
 * in: qkv (R, (H+2G)D), begin i32 (R); out: y (R, H D), lse f32 (B, H, T):
 * log-sum-exp of the scaled scores, natural logarithm, [top f32 (B, H, T)]: the largest of them,
 * made when attention_watch asks for it; -FLT_MAX for a query that sees no key. */
enum { ATTENTION_B, ATTENTION_T, ATTENTION_H, ATTENTION_G, ATTENTION_D, ATTENTION_SCALE,
       ATTENTION_WINDOW,
       ATTENTION_PAIRS,  /* n > 0: backward sums dk and dv over queries in a tree of n pairs of
                          * chunks of the T queries here (ops/zigzag.h), n a power of two */
       ATTENTION_VALUE }; /* V: size of a value head where it is not D: qkv (R, (H+G)D + G V), y
                           * (R, H V), cache_v (P, G V). 0: D */
extern const struct op_info op_attention;
struct attention_shape {
    int B, T, H, G, D, window, pairs;
    double scale; /* 0: 1/sqrt(D) */
    int V;        /* 0: D */
};
struct tensor *attention(struct graph *g, struct tensor *qkv, struct tensor *begin,
                         const struct attention_shape *shape);
/* Has a task of this op, or a block of the next, tell top; returns it, or NULL after an error. */
struct tensor *attention_watch(struct graph *g, struct task *t);
/* in: dy (R, H D), qkv, y, lse, begin; out: dqkv */
extern const struct op_info op_attention_grad;
/* The same of some of a row's queries against some of its keys: of BLOCK_PARTS parts of the row
 * (ops/zigzag.h), T tokens each, which are here. begin still counts from the row's first token.
 * Blocks of the same queries are chained: the first sees no `seen`, the last one (BLOCK_LAST)
 * rounds y. A query that saw nothing yet has y 0 and lse -inf. BLOCK_KEYS -1: kv has the tokens
 * of whole rows (BLOCK_PARTS R of them); then one block has all.
 * in: q (R, H D), kv (R, G (D+V)), begin i32 (R), [seen y f32 (R, H V)], [seen lse f32 (B, H, T)];
 * out: y (R, H V), f32 but for the last, lse f32 (B, H, T), [top f32 (B, H, T)] of these keys */
enum { BLOCK_PARTS = ATTENTION_VALUE + 1, BLOCK_QUERIES, BLOCK_KEYS, BLOCK_LAST };
extern const struct op_info op_attention_block;
struct attention_part {
    i64 parts, queries, keys; /* whose queries, whose keys */
    bool last;
};
/* before: the block before, or NULL; y: where to write, or NULL. */
struct task *attention_block(struct graph *g, struct tensor *q, struct tensor *kv,
                             struct tensor *begin, const struct task *before,
                             const struct attention_shape *shape,
                             const struct attention_part *part, struct tensor *y);
/* in: dy (R, H V), q, kv, y and lse of the last block, begin, [dq so far f32];
 * out: dq f32 (R, H D), dkv f32 (R, G (D+V)) of this block's keys */
extern const struct op_info op_attention_block_grad;
/* in: qkv; out: q (R, H D), kv (R, 2 G D); or any other two runs of columns. Joined: in: [q],
 * [kv] of any real dtype, a missing one is zero; out: qkv, given. */
enum { SPLIT_QUERIES }; /* columns of q */
extern const struct op_info op_split_qkv, op_join_qkv;
struct task *split_qkv(struct graph *g, struct tensor *qkv, i64 query_columns);
/* Heads spread over SPREAD_PARTS ranks: row r of part j of y (n R, C / n) has the j-th share of
 * the query, key and value heads of x (R, C), C = (H + G) D + G V; SPREAD_V 0: V = D. G 0: x has
 * query heads alone. SPREAD_BACK 1: from y to x. Its gradient goes the other way, like that of
 * order_rows. */
enum { SPREAD_PARTS, SPREAD_BACK, SPREAD_H, SPREAD_G, SPREAD_D, SPREAD_V };
extern const struct op_info op_spread_heads;
struct tensor *spread_heads(struct graph *g, struct tensor *x, i64 parts, bool back,
                            const struct attention_shape *heads);
/* Key and value heads from the parts that SHARE_PARTS ranks have of them (share_heads.c),
 * each head of SHARE_SIZE columns SHARE_COPIES times: 1, 2, 4 or 8. in: q (R, Q),
 * kv (P R, w); out: qkv (R, Q + P w copies). Gradient, in: dqkv; out: dq, dkv, given, dkv
 * of any real dtype. */
enum { SHARE_PARTS, SHARE_COPIES, SHARE_SIZE, SHARE_COPIES_MOST = 8 };
extern const struct op_info op_share_heads, op_share_heads_grad;
struct tensor *share_heads(struct graph *g, struct tensor *q, struct tensor *kv, i64 parts,
                           i64 copies, i64 D);
/* Tokens put in the order of their rows: x is n parts of B rows each (ops/zigzag.h), of
 * ORDER_PAIRS pairs of chunks (0: of one), y has the B whole rows.
 * in: x (R,C) or (R) of any dtype; out: y like x. ORDER_BACK 1: from y to x. */
enum { ORDER_PARTS, ORDER_BACK, ORDER_B, ORDER_PAIRS };
extern const struct op_info op_order_rows;
/* y: where to write, or NULL. */
struct tensor *order_rows(struct graph *g, struct tensor *x, i64 parts, i64 pairs, bool back, i64 B,
                          struct tensor *y);
/* Generation: n new tokens (one sequence) at positions[0..n) attend to a cache of P slots,
 * after writing their keys and values there. in: qkv (n, (H+2G)D), positions i32 (n),
 * cache_k (P, G D), cache_v (P, G D) (ROLE_STATE, read and written); out: y (n, H D) */
extern const struct op_info op_attention_cached;
struct tensor *attention_cached(struct graph *g, struct tensor *qkv, struct tensor *positions,
                                struct tensor *cache_k, struct tensor *cache_v,
                                const struct attention_shape *shape);

/* --- activation functions ----------------------------------------------------------- */
/* GELU: tanh form (GPT-2) or exact erf form. in: x (R,F); out: y (R,F) */
enum { GELU_EXACT };
extern const struct op_info op_gelu;
struct tensor *gelu(struct graph *g, struct tensor *x, bool exact);
extern const struct op_info op_gelu_grad; /* in: dy, x; out: dx */
/* SwiGLU: y = silu(a) b, x = [a | b]. in: x (R,2F); out: y (R,F) */
extern const struct op_info op_swiglu;
struct tensor *swiglu(struct graph *g, struct tensor *x);
extern const struct op_info op_swiglu_grad; /* in: dy (R,F), x (R,2F); out: dx (R,2F) */

/* --- experts: each row goes to k of E, and what they give is summed ----------------- */
/* Rows are chosen for and counted per *pair* p = r k + slot, M rows of pairs sorted by expert:
 * those of expert e are [begin[e], begin[e + 1]), in ascending p, so in the order of tokens.
 * Rows from begin[E] on, where a buffer has room for more, are zero. Where sums over an expert's
 * rows are a tree with a *leaf* for so many tokens (parallel/exact.h), begin has L entries per
 * expert: its rows of leaf l begin at begin[e L + l].
 *
 * Scores of a row: s = softmax(z), or sigmoid(z). The k experts with the largest s + [bias] are
 * chosen, in descending order, the lower number first among equals;
 *   weight = scale s, or scale s / (sum of the k chosen s + 1e-20) when normalised.
 * in: z f32 (R,E), [bias f32 (E)]; out: weight f32 (R,k), choice i32 (R,k), [stats f32
 * (R/T, 2E + 1)]: per sequence of T rows and expert, how many chose it (n) and the sum of
 * q = s / sum of s (Q); then the sum of lse(z)^2.
 * Two losses of the router lead to its gradient without passing through `weight`:
 *   aux x sum over sequences of (E / T^2) sum_e n_e Q_e   (Fedus et al. 2021, eq. 4 to 6, over k
 *         choices; per sequence as in DeepSeek-V3, eq. 17: whatever else is in the batch)
 *   z   x sum over rows of lse(z)^2                       (Zoph et al. 2022, eq. 5) */
enum { ROUTER_K, ROUTER_T, ROUTER_SIGMOID, ROUTER_NORMALISE, ROUTER_SCALE, ROUTER_AUX, ROUTER_Z,
       ROUTER_LEAF }; /* sums over a sequence are a tree of leaves of so many rows; 0: one chain */
enum { ROUTER_CHOICES = 64, ROUTER_EXPERTS = 4096 }; /* k and E are at most that */
extern const struct op_info op_router;
struct router_config {
    i64 k, T;
    bool sigmoid, normalise, stats;
    double scale, aux, z;
};
struct route {
    struct tensor *weight, *choice, *stats;
};
struct route router(struct graph *g, struct tensor *z, struct tensor *bias,
                    const struct router_config *c);
/* in: [dweight f32 (R,k)], z, choice, [stats]; out: dz f32 (R,E) */
extern const struct op_info op_router_grad;
/* What a layer's router did in a step: load[e] += n_e over all sequences; load[E],
 * load[E + 1] += the two sums above without their factors; load[E + 2] += the pairs for
 * which an expert has no room: n_e beyond ROUTER_CAPACITY of a sequence (0: none). in:
 * stats; out: [load f64 (1, E + 3) (sum)], [counts f32 (E) (sum)] = n_e again, for the
 * bias (begun at the same task, or two tasks). ROUTER_GRAIN 1: what a sequence gives to
 * the two sums is rounded as by LOSS_GRAIN, so that they have no order. */
enum { ROUTER_GRAIN = ROUTER_T + 1, ROUTER_CAPACITY };
extern const struct op_info op_expert_load;
void expert_load(struct graph *g, struct tensor *stats, i64 T, i64 capacity, struct tensor *load,
                 struct tensor *counts);
/* bias[e] += rate sign(mean of counts - counts[e]) (DeepSeek-V3, section 2.1.2); in: counts f32
 * (E); out: bias f32 (E) (in place). PHASE_UPDATE. */
enum { BALANCE_RATE };
extern const struct op_info op_balance_bias;
void balance_bias(struct graph *g, struct tensor *counts, struct tensor *bias,
                  struct tensor *when, double rate);

/* Sorts the pairs. With a capacity, an expert takes that many rows of a sequence of T,
 * the first ones; others skip it. Where T are those of part ORDER_ROW_PART of
 * ORDER_ROW_PARTS of a row, in ORDER_ROW_PAIRS pairs of chunks (zigzag.h), that depends
 * on what all parts chose, one behind the other. in: choice i32 (R,k),
 * [all i32 (parts R,k)]; out: source i32 (M): the pair of a row; place i32 (R,k): the row
 * of a pair, -1 where skipped; begin i32 (E L + 1), L = 1 or R / leaf.
 * M = R k, or R/T min(T k, E capacity). */
enum { ORDER_EXPERTS, ORDER_T, ORDER_CAPACITY, ORDER_LEAF, ORDER_ROW_PARTS, ORDER_ROW_PART,
       ORDER_ROW_PAIRS };
extern const struct op_info op_expert_order;
struct expert_rows {
    struct tensor *source, *place, *begin;
};
struct expert_rows expert_order(struct graph *g, struct tensor *choice, i64 experts, i64 T,
                                i64 capacity, i64 leaf);
/* y[i] = x[source[i] / k]; in: x (R,C), source i32 (M), place i32 (R,k), begin i32 (E + 1);
 * out: y (M,C) */
extern const struct op_info op_expert_gather;
struct tensor *expert_gather(struct graph *g, struct tensor *x, const struct expert_rows *rows);
/* y[i] = x[i] w_e^T for the rows of each expert e; in: x (M,K), w (E N, K): the experts' (N,K) one
 * below the other, begin; out: y (M,N). EXPERT_ROWS of the M rows are expected to be in use,
 * which is what it costs; begin has EXPERT_LEAVES entries per expert.
 * With tensor parallelism w is a share of each matrix. EXPERT_PARTS 1 or more, EXPERT_PART: dx is
 * the sum over so many ranks along LANE_TP, of which this is that one. EXPERT_OUT_F32 1: y is f32
 * whatever x is, to be summed over ranks. EXPERT_SPLIT: so many leaves of the sum over K (over N in
 * dx), each of EXPERT_PIECES fused pieces; as LINEAR_LEAVES. */
enum { EXPERT_ROWS, EXPERT_LEAVES, EXPERT_PARTS, EXPERT_PART, EXPERT_OUT_F32, EXPERT_SPLIT,
       EXPERT_PIECES };
extern const struct op_info op_expert_linear;
struct tensor *expert_linear(struct graph *g, struct tensor *x, struct tensor *w,
                             struct tensor *begin, i64 expected, i64 leaves);
extern const struct op_info op_expert_linear_dx; /* in: dy (M,N), w, begin; out: dx (M,K) */
/* dw_e = dy_e^T x_e over the rows of e; in: dy (M,N), x (M,K), begin; out: dw f32 (E N, K) (sum).
 * With several leaves the sum is a tree: tree(n) = tree(first half) + tree(second half), n even;
 * one chain over the rows of all of them, n odd. Phase W. */
extern const struct op_info op_expert_linear_dw;
/* y[r] = [residual[r]] + sum over slots, ascending, of [weight[r,slot]] x[place[r,slot]];
 * in: x (M,C), place, [weight f32 (R,k)], [residual (R,C)], source, begin; out: y (R,C).
 * COMBINE_PARTS n, COMBINE_PART, COMBINE_OUTER: of the R rows only that part of n of each of
 * `outer` groups, which residual and y have; its gradient is gathered along LANE_TP. */
enum { COMBINE_PARTS, COMBINE_PART, COMBINE_OUTER };
extern const struct op_info op_expert_combine;
struct tensor *expert_combine(struct graph *g, struct tensor *x, const struct expert_rows *rows,
                              struct tensor *weight, struct tensor *residual);
/* dx[i] = weight[p] dy[r], dweight[p] = dy[r] . x[i] with p = source[i], r = p / k; 0 for a skipped
 * pair. in: dy (R,C), x (M,C), weight, source, begin; out: dx (M,C), dweight f32 (R,k) */
extern const struct op_info op_expert_combine_grad;

/* Experts on other ranks. n ranks have E/n consecutive experts each; a rank's rows, sorted by
 * expert, are n stretches, one for each. They arrive rank by rank and in each by expert, and are
 * sorted by expert again: an expert's rows are in the order of ranks, then of tokens. `most` rows
 * have room; how many there are, a task knows when it runs.
 * in: begin i32 (E L + 1); out: counts i32 (E L), rows of each */
extern const struct op_info op_expert_counts;
/* in: counts; arrived i32 (n, E/n L): rows from each rank to each expert here; out: source i32
 * (most), place i32 (most,1), begin i32 (E/n + 1) of what arrives, as one choice per row;
 * traffic i32 (2 n): rows to each rank, then from each. ARRIVAL_LEAVES: the L of each rank are
 * kept apart, begin is (E/n n L + 1); 0: L is 1, and begin has one entry per expert */
enum { ARRIVAL_RANKS, ARRIVAL_MOST, ARRIVAL_LEAVES };
extern const struct op_info op_expert_arrival;
struct expert_arrival {
    struct expert_rows rows;
    struct tensor *traffic;
};
struct expert_arrival expert_arrival(struct graph *g, struct tensor *counts,
                                     struct tensor *arrived, i64 ranks, i64 most, i64 leaves);
/* On LANE_EP. in: x (M,C), traffic; out: y (EXCHANGE_ROWS, C), of which rows that do not arrive
 * are not written. EXCHANGE_BACK: what came goes back. Costs are those of even loads. */
enum { EXCHANGE_BACK = 4, EXCHANGE_ROWS }; /* behind what all collectives have */
extern const struct op_info op_expert_exchange;
/* One layer's way to the experts and back; ranks, rank, most and leaves (of a rank; 0: they are
 * not kept apart) are the caller's. */
struct expert_trip {
    i64 ranks, rank, most, leaves;
    i64 left; /* rows of the buffer that left */
    struct expert_arrival arrival;
};
/* x (M,C), sorted by begin; returns (most,C), sorted by the experts that are here. */
struct tensor *expert_leave(struct graph *g, struct tensor *x, struct tensor *begin,
                            struct expert_trip *trip);
/* y (most,C) in that order; returns (M,C) in the order in which x left. */
struct tensor *expert_return(struct graph *g, struct tensor *y, const struct expert_trip *trip);

/* --- sums --------------------------------------------------------------------------- */
extern const struct op_info op_add; /* y = a + b; in: a, b (same shape and dtype); graph.h */

/* y = (residual + bias) + x, rounded to y's dtype: what ends a product whose sum was taken over
 * ranks. in: x f32 (R,N), [bias f32 (N)], residual (R,N); out: y like residual */
extern const struct op_info op_finish_sum;
struct tensor *finish_sum(struct graph *g, struct tensor *x, struct tensor *bias,
                          struct tensor *residual);
/* sums[n] += sum over r of x[r][n]; in: x (R,N); out: sums f32 (N) or, of groups, (n,N) (sum):
 * gradient of bias */
extern const struct op_info op_column_sums;
/* y = x in another dtype, CAST_DTYPE; its gradient is cast back. */
enum { CAST_DTYPE };
extern const struct op_info op_cast;
struct tensor *cast(struct graph *g, struct tensor *x, enum dtype dtype);

/* --- sums that ranks can share ------------------------------------------------------ */
/* The bits of these sums are a function of what is summed and of its place in the whole step,
 * not of who sums which part (parallel/exact.h). */
/* sum[c] += tree over the B sequences of (tree over the n leaves of each), tree(n) as in
 * backend/cpu/gemm.h. in: x f32 (B n, C); out: sum f32 (C) (sum) */
enum { FOLD_LEAVES };
extern const struct op_info op_fold;
/* Counts x in as part CARRY_INDEX of the CARRY_COUNT of this micro-batch, of CARRY_TOTAL
 * (a power of two; in the step, or in each micro-batch): a binary counter of sums. After the last
 * one x is the tree of all parts; before, it is put by in levels, and x is free.
 * out: x f32 (any shape, read too), levels f32 (carry_levels(total), elements of x) */
enum { CARRY_INDEX, CARRY_COUNT, CARRY_TOTAL };
extern const struct op_info op_carry;
i64 carry_levels(i64 total);
/* The number of the part that the task counts in. */
i64 carry_number(const struct task *t, int micro_batch);
/* The sum of squares as a whole number of 2^-298, in digits of 16 bits, the last one not 0 when a
 * value is not finite; added to `before`. Ranks may add digits (all_reduce).
 * in: grad f32, [before i32 (SQUARES_DIGITS)]; out: digits i32 (SQUARES_DIGITS) */
enum { SQUARES_DIGITS = 41, SQUARES_LEAST = -298 };
extern const struct op_info op_exact_squares;
struct tensor *exact_squares(struct graph *g, struct tensor *grad, struct tensor *before);
/* in: digits, whose carries may be due; out: f64 (1), NaN when something was not finite */
extern const struct op_info op_exact_total;
struct tensor *exact_total(struct graph *g, struct tensor *digits);

/* --- loss --------------------------------------------------------------------------- */
/* Cross-entropy of one chunk of rows, with its own gradient:
 *   lse = log sum exp z, nll = lse - z[target],
 *   dz = weight inv_weight ((1 + 2 zcoef lse) softmax(z) - onehot(target))
 * and the z-loss term zcoef lse^2 is kept apart from nll. Rows of weight 0 give nll 0, lse 0,
 * dz 0 (their target is not read).
 * in: z f32 (r,V), targets i32 (r), weights f32 (r), inv_weight f32 (1);
 * out: nll f32 (r), lse f32 (r), [dz compute dtype (r,V)], absent in evaluation.
 * Only the first `vocab` columns exist: padding columns beyond get probability 0, dz 0. */
enum { XENT_ZCOEF, XENT_VOCAB, XENT_FIRST, XENT_LEAVES, XENT_SHARE };
extern const struct op_info op_xent;
/* Writes nll into the given view (r rows of the whole step's nll). grad_dtype < 0: no
 * gradient is formed. */
void xent(struct graph *g, struct tensor *z, struct tensor *targets, struct tensor *weights,
          struct tensor *inv_weight, struct tensor *nll, int grad_dtype, i64 vocab,
          double zcoef);
/* The same in three steps, for a share of the vocabulary that begins at column `first` of the
 * whole (xent_parts.c says what ranks exchange between them). xent_sum with XENT_LEAVES: the
 * exponentials are summed in so many leaves of XENT_SHARE columns, and these in a tree. */
extern const struct op_info op_xent_peak;   /* in: z; out: peak f32 (r) */
extern const struct op_info op_xent_sum;    /* in: z, peak, targets; out: sums f32 (r,2) */
extern const struct op_info op_xent_finish; /* in: z, targets, weights, inv_weight, peak,
                                             * sums; out: nll, [dz] */
struct xent_labels {
    struct tensor *targets, *weights, *inv_weight;
};
struct tensor *xent_peak(struct graph *g, struct tensor *z, i64 vocab);
struct tensor *xent_sum(struct graph *g, struct tensor *z, struct tensor *peak,
                        struct tensor *targets, i64 first, i64 vocab);
void xent_finish(struct graph *g, struct tensor *z, const struct xent_labels *labels,
                 struct tensor *peak, struct tensor *sums, struct tensor *nll, int grad_dtype,
                 i64 first, i64 vocab, double zcoef);
/* Per source: sums[s] += (sum of weight * nll, sum of weight), rows in ascending order.
 * in: nll f32 (R), weights f32 (R), sources i32 (R); out: sums f64 (S,2) (sum).
 * With LOSS_GRAIN 1 each term is first rounded to a multiple of 2^-24 (an error of 2^-25 at
 * most): up to a sum of 2^29 no addition rounds, so that order does not matter. */
enum { LOSS_GRAIN };
extern const struct op_info op_loss_sums;
void loss_sums(struct graph *g, struct tensor *nll, struct tensor *weights,
               struct tensor *sources, struct tensor *sums);

/* --- update: these run in PHASE_UPDATE ---------------------------------------------- */
/* out: sum of squares f64 (1), blocks of 65,536 elements summed in a fixed tree. */
extern const struct op_info op_sum_squares;
struct tensor *sum_squares(struct graph *g, struct tensor *grad);
/* norm = sqrt(sum of parts in order); scale = min(1, limit/norm) (limit 0: 1);
 * apply = norm is finite, else scale is 0 too. total_squares chains add_norms over any
 * number of parts. out: norm f64 (1), scale f32 (1), apply i32 (1), all ROLE_RESULT */
enum { CLIP_LIMIT };
extern const struct op_info op_add_norms; /* in: up to 8 f64 (1); out: their sum f64 (1) */
extern const struct op_info op_clip;      /* in: total f64 (1); out: norm, scale, apply */
struct tensor *total_squares(struct graph *g, struct tensor **parts, i64 n);
void clip(struct graph *g, struct tensor *total, double limit, struct tensor *norm,
          struct tensor *scale, struct tensor *apply);
/* sum = sum of (x - before)^2, of x^2 without before, in the tree of sum_squares.
 * in: x f32, [before f32, like x]; out: sum f64 (1), made when NULL */
extern const struct op_info op_sum_changes;
struct tensor *sum_changes(struct graph *g, struct tensor *x, struct tensor *before,
                           struct tensor *sum, struct tensor *when);
/* largest = max(largest, x[0], x[1], ...); in: x f32; out: largest f64 (1), read too. In
 * any phase. */
extern const struct op_info op_raise;
struct task *raise_to(struct graph *g, struct tensor *x, struct tensor *largest,
                      struct tensor *when);
/* AdamW (Loshchilov & Hutter, algorithm 2, decoupled decay), gradient times scale first:
 *   m = b1 m + (1-b1) g; v = b2 v + (1-b2) g^2;
 *   p -= lr (m / c1 / (sqrt(v / c2) + eps) + decay p),  c1 = 1-b1^t, c2 = 1-b2^t
 * in: grad f32, scale f32 (1), hyper f32 (HYPERS); out: p f32, m f32, v f32 (in place),
 * [copy bf16: p rounded, for compute]. hyper is written by the host each step. */
enum { ADAMW_B1, ADAMW_B2, ADAMW_EPS, ADAMW_DECAY };
enum { HYPER_LR, HYPER_CORRECT1, HYPER_CORRECT2, HYPER_MUON_LR, HYPERS };
extern const struct op_info op_adamw;
struct adamw_config {
    double beta1, beta2, eps, decay;
};
void adamw(struct graph *g, struct tensor *grad, struct tensor *scale, struct tensor *hyper,
           struct tensor *p, struct tensor *m, struct tensor *v, struct tensor *copy,
           struct tensor *when, const struct adamw_config *config);
/* Muon (Jordan et al. 2024; ops/muon.c has the mathematics) in three ops, of which ranks
 * that share a matrix do the first and the last on their shares.
 *   muon_momentum: m = mu m + g; u = nesterov ? g + mu m : m, with g = scale grad.
 *     in: grad f32, scale f32 (1); out: m (in place), u f32
 *   muon_orthogonal: u / (|u| + 1e-7) after some Newton-Schulz steps, times 0.2
 *     sqrt(max(N,K)) so that AdamW's learning rates fit. in: u f32 (N,K); out: y f32. The
 *     rows are up to three blocks that are orthogonalised apart (q, k, v or gate, up of a
 *     fused weight), once or, for experts, several times; N and K of the factor are those
 *     of the block. With `shares` u and y are so many shares of a matrix, one below the
 *     other, each of some rows of every block or, with `columns`, of some columns. With
 *     `elsewhere` y is 0: another rank has it, and the sum is y.
 *   muon_step: p -= lr (y + decay p). in: y f32, hyper; out: p f32 (in place), [copy bf16]. */
enum { MUON_MU, MUON_NESTEROV };
enum { MUON_STEPS, MUON_ROWS0, MUON_ROWS1, MUON_ROWS2, MUON_SHARES, MUON_COLUMNS, MUON_ELSEWHERE };
enum { MUON_DECAY };
extern const struct op_info op_muon_momentum, op_muon_orthogonal, op_muon_step;
struct muon_config {
    double momentum, decay;
    int steps;
    bool nesterov;
    i64 block_rows[3]; /* of the whole matrix; 0 ends the list; all 0: one block */
    i64 shares;        /* 0: one */
    bool columns, elsewhere;
};
/* u NULL: made; so is y. */
struct tensor *muon_momentum(struct graph *g, struct tensor *grad, struct tensor *scale,
                             struct tensor *m, struct tensor *u, struct tensor *when,
                             const struct muon_config *config);
struct tensor *muon_orthogonal(struct graph *g, struct tensor *u, struct tensor *y,
                               struct tensor *when, const struct muon_config *config);
void muon_step(struct graph *g, struct tensor *y, struct tensor *hyper, struct tensor *p,
               struct tensor *copy, struct tensor *when, const struct muon_config *config);
/* Of a muon_orthogonal task: rows of the i-th block, 0 where there is none; columns of the whole
 * matrix; where element (r,c) of the block of so many rows that begins at row `first` of the whole
 * lies in u and y. */
i64 muon_block_rows(const struct task *t, int i);
i64 muon_columns(const struct task *t);
i64 muon_place(const struct task *t, i64 first, i64 rows, i64 r, i64 c);
/* avg += (1 - decay) (p - avg); in: p f32; out: avg f32 (in place) */
enum { EMA_DECAY };
extern const struct op_info op_ema;
void ema(struct graph *g, struct tensor *p, struct tensor *avg, struct tensor *when,
         double decay);

/* The outer step of local SGD (DiLoCo: Douillard et al. 2023, algorithm 1): islands that took
 * steps apart go on from one place. outer_gradient: how far one island's weights p have moved,
 * d = anchor - p. in: anchor, p f32; out: d f32. outer_update: with d the sum over islands and
 * `share` one over their number,
 *   g = share d;  v = mu v + g;  anchor -= lr (g + mu v) (Nesterov);  p = anchor
 * in: d; out: p, anchor, v f32 (in place), [copy bf16: p rounded]. */
enum { OUTER_LR, OUTER_MU, OUTER_SHARE };
extern const struct op_info op_outer_gradient, op_outer_update;
struct outer_config {
    double lr, momentum, share;
};
struct tensor *outer_gradient(struct graph *g, struct tensor *anchor, struct tensor *p,
                              struct tensor *d); /* d may be NULL: a new tensor */
void outer_update(struct graph *g, struct tensor *d, struct tensor *p, struct tensor *anchor,
                  struct tensor *momentum, struct tensor *copy,
                  const struct outer_config *config);

/* --- between ranks: ops/collective.c ------------------------------------------------ */
/* Tasks of a communication lane; carried out by parallel/. COLLECTIVE_SIZE ranks take part,
 * this is number COLLECTIVE_RANK; a whole is cut as (COLLECTIVE_OUTER, size, part) rows.
 * COLLECTIVE_KIND says how partial values are combined. COLLECTIVE_ALIKE 1, of
 * all_gather: all ranks do the same with the whole, so that its gradient is the same
 * everywhere. COLLECTIVE_FEW 1: among some of the axis, on LANE_TP the neighbours that
 * share a key-value head, on LANE_CP those that have the same experts. */
enum { COLLECTIVE_SIZE, COLLECTIVE_RANK, COLLECTIVE_OUTER, COLLECTIVE_KIND, RING_STEP,
       COLLECTIVE_ALIKE, COLLECTIVE_FEW };
static inline bool collective_of_heads(const struct task *t)
{
    return t->lane == LANE_TP && t->attr[COLLECTIVE_FEW] != 0;
}
static inline bool collective_of_twins(const struct task *t)
{
    return t->lane == LANE_CP && t->attr[COLLECTIVE_FEW] != 0;
}
enum collective_kind {
    COLLECTIVE_SUM,
    COLLECTIVE_MAX,
    COLLECTIVE_BITS /* at most one rank's value is not +0: it arrives with its very bits */
};
extern const struct op_info op_reduce_scatter; /* in: whole; out: part */
extern const struct op_info op_all_gather;     /* in: part; out: whole */
extern const struct op_info op_take_part;      /* in: whole; out: part. LANE_COMPUTE: it is here */
extern const struct op_info op_all_reduce;     /* in, out: whole */
extern const struct op_info op_all_to_all; /* in: a part for each rank; out: one from each */
/* in: x; out: like x, what the rank RING_STEP (1 or -1) before this one has. No gradient rule:
 * attention_block's sends gradients back. */
extern const struct op_info op_ring_shift;

/* Between stages of a pipeline (move.c). boundary b lies between stages b and b + 1 and is
 * crossed upwards (to the later stage) or downwards. */
enum { MOVE_BOUNDARY, MOVE_UP };
extern const struct op_info op_send, op_recv;
void send_rows(struct graph *g, struct tensor *x, i64 boundary);
struct tensor *recv_rows(struct graph *g, enum dtype dtype, i64 rows, i64 columns,
                         i64 boundary);

/* --- slower memory: ops/copy.c ------------------------------------------------------ */
extern const struct op_info op_copy;    /* in: x; out: y = x, made elsewhere; on LANE_AWAY */
extern const struct op_info op_release; /* in: x; behind it, copies to x have ended */

/* --- data --------------------------------------------------------------------------- */
/* Waits for the next prefetched micro-batch and copies it. Its kernel is registered by the
 * data loader. out: tokens, targets i32 (R), weights f32 (R), positions, begin, sources
 * i32 (R), inv_weight f32 (1) = 1 / sum of weights over the whole step. */
enum { BATCH_TOKENS, BATCH_TARGETS, BATCH_WEIGHTS, BATCH_POSITIONS, BATCH_BEGIN,
       BATCH_SOURCES, BATCH_INV_WEIGHT };
struct batch {
    struct tensor *tokens, *targets, *weights, *positions, *begin, *sources, *inv_weight;
};
extern const struct op_info op_load_batch;
/* Makes the input tensors and the task. sources and inv_weight included. */
void load_batch(struct graph *g, i64 B, i64 T, struct batch *out);

#endif
