/* plan/layer_costs.h - what layers consist of, read off the program that a rank would run.
 *
 * A model with one layer of each kind is described for (tp, cp) and a micro-batch, its step is
 * built by the decoder and the passes as in training, and every task of the forward and
 * backward segments becomes an operator of its piece: a dense layer, a sparse layer, the
 * embedding, or the head with its loss. FLOPs, bytes and messages are those of the tasks'
 * costs, so nothing is counted twice and nothing here knows a formula. The chunks of the loss
 * head are one operator each kind, of all rows.
 *
 * What predicts one more token (DeepSeek-V3, 2024, section 2.2) is no part of that program: it is a
 * block and a head more, and two norms and a projection, made of the operators there.
 *
 * With tp larger than the key-value heads neighbours share one, as in training, and what they
 * exchange is counted apart: they are fewer than tp. ep is no property of the program: see
 * plan_ops_share. */
#ifndef HEADWAY_LAYER_COSTS_H
#define HEADWAY_LAYER_COSTS_H

#include "plan/cost.h"

enum plan_op_kind {
    PLAN_PRODUCT,   /* (M,K) (K,N), `batch` times */
    PLAN_ATTENTION, /* all kernels of the attention core */
    PLAN_TRAFFIC    /* what moves bytes */
};

struct plan_op {
    const char *name;    /* of the task's op */
    enum plan_op_kind kind;
    enum phase phase;
    int again;           /* bit i: enum recompute i of our own trainer runs it a second time */
    bool cut_rows;       /* works on rows that sequence parallel cuts */
    bool of_gathered;    /* the gradient of a product of rows that tp gathered for it */
    bool of_summed;      /* a product whose result tp sums and cuts by rows */
    i64 M, N, K, batch;  /* of products */
    double tasks;        /* of the program, in this operator */
    double model_flops, flops, bytes;
    double expert_bytes; /* of these, of matrices that ranks along ep share out */
};

enum { PLAN_PIECE_OPS = 96 };

struct plan_messages {
    double bytes, calls; /* sent by a rank, for one micro-batch */
    double half_bytes;   /* the same, were all values of two bytes */
};

struct plan_piece_ops {
    struct plan_op ops[PLAN_PIECE_OPS];
    int n;
    struct plan_messages tp[2], heads[2], cp[2]; /* forward; backward. heads: of those along tp who
                                                  * share a key-value head */
    struct plan_messages gathered, summed; /* of tp: rows for products, forward; and the sums of the
                                            * gradients of these rows, backward */
    double parameters, expert_parameters; /* elements on a rank */
    double matrices;    /* of parameters, those that products use a copy of */
    double kept_bytes;  /* what the forward tasks leave for the backward ones */
    double gathered_bytes; /* of what ranks along tp gathered for products, whole */
    double kept_as_rows[2]; /* of kept_bytes, what products multiply for gradients of weights and
                             * nothing else reads; and what something else reads, too */
    double kept_for_experts; /* of kept_bytes, rows in the order of experts */
    double kept_cut_bytes; /* of kept_bytes, by tasks on rows that sequence parallel cuts */
};

struct plan_shape { /* what the operators depend on */
    i64 tp, cp, ep, micro_batch, sequence;
    enum dtype dtype; /* of activations: DTYPE_F32 or DTYPE_BF16 */
};

struct plan_ops {
    struct plan_shape shape;
    i64 rows;         /* tokens of a micro-batch on a rank, before tp cuts them */
    i64 heads, kv_heads, width; /* on a rank; the whole width */
    i64 key_size, value_size;   /* of a head */
    i64 vocab;        /* rows of the head on a rank */
    bool shared;      /* every token passes a part of sparse layers, too */
    struct plan_piece_ops pieces[PLAN_PARTS];
};

/* ERR_MODEL where the shape cannot exist. The tasks live in an arena of their own. */
int plan_ops_new(struct plan_ops *out, const struct model_spec *spec,
                 const struct plan_shape *shape);

/* From ep = 1: each rank has 1 / ep of the experts, and their rows of ep ranks. Where it folds,
 * tp does not cut experts: ranks along it have experts of their own and their own part of the
 * rows, which nobody gathers for experts (Liu et al. 2025, MoE Parallel Folding); for ep > 1. */
void plan_ops_share(struct plan_ops *ops, i64 ep, bool folds);

#endif
