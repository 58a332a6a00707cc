/* model/decoder.h - a spec becomes tasks: the one decoder builder.
 *
 *     x = wte[tokens] (+ wpe[positions])
 *     each block: x += out(attention(norm1(x))); x += down(act(up(norm2(x))))
 *       or, sparse: x += [shared part] + sum over a token's experts of weight down_e(act(up_e(..)))
 *     logits = norm_f(x) head^T
 *
 * Training, evaluation and sampling are separate programs over these same tasks. */
#ifndef HEADWAY_DECODER_H
#define HEADWAY_DECODER_H

#include "model/model.h"
#include "ops/ops.h"

/* Rows of logits that exist at a time; larger chunks cost memory, smaller ones re-read
 * the head's weights and its gradient more often. */
enum { HEAD_ROWS = 1024 };

struct decoder_shape {
    i64 B, T;
    i64 parts; /* T are the tokens of one of so many parts of a row (parallel/context_parallel.h) */
    double z_loss;
    bool gradient; /* the loss also forms its gradient */
    i64 leaf; /* exact: tokens of a leaf; chunks are as decoder_exact_chunk says; 0: any chunks */
    /* Training only: sequences of the whole step, over all ranks and micro-batches, which the
     * routers' losses are means over; where their load is summed, f64 (sparse layers, E + 3) as
     * op_expert_load says, or NULL. */
    i64 sequences;
    struct tensor *load;
};

/* Chunks whose sums the layout cannot change (parallel/exact.h): whole subtrees of leaves, or parts
 * of one leaf. n leaves of T tokens; returns rows. */
i64 decoder_exact_chunk(i64 n, i64 T);

/* What an exact sum over query heads is a tree of: so many leaves of each key-value
 * head's, 1, 2, 4 or 8; 1 where it has no more ranks to share it (parallel/exact.h). */
i64 decoder_head_copies(const struct model_spec *s);

/* Most rows of a sequence of T for one expert, while a model that has any is trained; 0: all. */
i64 decoder_capacity(const struct model_spec *s, i64 T);

/* Final normalised activations (R,C) of a batch. */
struct tensor *decoder_hidden(struct graph *g, const struct model *m,
                              const struct batch *batch, const struct decoder_shape *shape);

/* Of those layers alone (R,C): what comes in is x, or the tokens when x is NULL; behind the last
 * layer the final norm is included. */
struct tensor *decoder_stage(struct graph *g, const struct model *m, const struct batch *batch,
                             const struct decoder_shape *shape, struct tensor *x,
                             const struct layer_range *layers);

/* The chunked head and loss: sets nll f32 (R), and adds per-source sums into sums (may be
 * NULL) f64 (S,2). */
struct tensor *decoder_loss(struct graph *g, const struct model *m, struct tensor *hidden,
                            const struct batch *batch, const struct decoder_shape *shape,
                            struct tensor *sums);

/* Logits f32 (r,V) of rows [row, row + rows) of hidden. */
struct tensor *decoder_logits(struct graph *g, const struct model *m, struct tensor *hidden,
                              i64 row, i64 rows);

/* n new tokens of one sequence against per-layer caches, keys (P, G D) and values (P, G V):
 * hidden (n,C). */
struct tensor *decoder_cached(struct graph *g, const struct model *m, struct tensor *tokens,
                              struct tensor *positions, struct tensor **cache_k,
                              struct tensor **cache_v);

#endif
