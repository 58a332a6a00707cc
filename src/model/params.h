/* model/params.h - which parameters a spec has: one rule table.
 *
 * The rules drive shapes, initialisation, weight-decay groups, optimizer groups, names in
 * foreign formats, parameter counts and memory. Nothing else in the tree knows how a
 * parameter is called or shaped. */
#ifndef HEADWAY_PARAMS_H
#define HEADWAY_PARAMS_H

#include "base/arena.h"
#include "model/spec.h"

enum param_init { INIT_NORMAL, INIT_RESIDUAL, INIT_ONES, INIT_ZEROS };

/* What a parameter is to the optimizer: matrices inside blocks may be Muon's; embeddings,
 * the head and routers are matrices to AdamW; vectors are not decayed. A balance is not learned:
 * its "gradient" is how many tokens each expert got in a step, and the update moves it
 * against that (ops.h, balance_bias). */
enum param_kind { PARAM_EMBEDDING, PARAM_MATRIX, PARAM_HEAD, PARAM_ROUTER, PARAM_GAIN, PARAM_BIAS,
                  PARAM_BALANCE };

/* How tensor parallelism cuts it (Shoeybi et al. 2019, section 3): along what a product
 * gives (rows), along what it sums over (columns), or not at all. Rows are cut within each fused
 * block, so that every rank has its own heads of q, k and v. */
enum param_split { SPLIT_NONE, SPLIT_ROWS, SPLIT_COLUMNS };

enum param_id {
    P_WTE, P_WPE,
    P_NORM1, P_NORM1_BIAS, P_QKV, P_QKV_BIAS, P_Q_NORM, P_K_NORM,
    P_Q_DOWN, P_Q_LATENT_NORM, P_Q_UP, P_KV_DOWN, P_KV_LATENT_NORM, P_KV_UP, P_OUT, P_OUT_BIAS,
    P_NORM2, P_NORM2_BIAS, P_UP, P_UP_BIAS, P_DOWN, P_DOWN_BIAS,
    P_ROUTER, P_ROUTER_BIAS, P_SHARED_UP, P_SHARED_DOWN, P_EXPERT_UP, P_EXPERT_DOWN,
    P_NORM_F, P_NORM_F_BIAS, P_HEAD,
    PARAM_IDS
};

/* A piece of a fused parameter under its foreign name: rows [row, row + rows). Pieces of
 * experts go expert by expert. */
struct foreign_piece {
    char name[96]; /* the first member: hf.c finds a piece by its name's address */
    i64 row, rows;
    bool transposed;  /* stored (columns, rows) there */
};

struct param_desc {
    enum param_id id;
    int layer;        /* -1 outside the blocks */
    char name[64];    /* "blocks.3.attn.qkv.weight" */
    int rank;
    i64 dim[2];       /* (rows, columns) or (n) */
    enum param_init init;
    enum param_kind kind;
    enum param_split split;
    i64 experts;      /* one matrix per expert, one below the other; else 1 */
    i64 blocks[3];    /* rows of its fused parts (q, k, v; gate, up), of one expert; 0 ends */
};

/* One of `parts` shares of a parameter. Heads and hidden units are cut evenly. The vocabulary
 * and the positions, which need not divide, are cut between SHARD_LEAVES leaves of equal size
 * (the last ones smaller or empty), so that shares of 1, 2, 4 and 8 parts nest. */
enum { SHARD_LEAVES = 8 };

struct shard_range {
    i64 begin, count;
};

struct param_shard {
    i64 dim[2];                 /* of the share */
    struct shard_range experts; /* which of the experts' matrices; 0, 1 for the others */
    int pieces;                 /* of rows, one per fused block, in each expert */
    struct shard_range rows[3]; /* which of the whole parameter's; of an expert's first */
    struct shard_range columns; /* 0, 0 for vectors */
};

struct param_shard param_share(const struct param_desc *p, i64 parts, i64 part);
/* That share of the part-th of `parts` shares of the experts. */
struct param_shard param_expert_share(const struct param_desc *p, i64 parts, i64 part,
                                      i64 expert_parts, i64 expert_part);

static inline i64 param_count(const struct param_desc *p)
{
    return p->rank == 2 ? p->dim[0] * p->dim[1] : p->dim[0];
}

/* Weight decay applies to matrices and embeddings, not to gains and biases. */
bool param_decays(const struct param_desc *p);
/* Whether products use a copy in the compute dtype. Routers work in fp32. */
bool param_is_copied(const struct param_desc *p);
/* Experts' matrices, which expert parallelism spreads. */
static inline bool param_is_expert(const struct param_desc *p)
{
    return p->id == P_EXPERT_UP || p->id == P_EXPERT_DOWN;
}

/* All parameters of the spec, in order; *n receives how many. */
struct param_desc *params_of(const struct model_spec *s, struct arena *a, i64 *n);
i64 params_total(const struct model_spec *s);
/* The same without the experts that a token is not sent to. */
i64 params_active(const struct model_spec *s);
/* Weights that multiply each token: matrices and the head, not embeddings (as in 6N); of the
 * experts as many as a token is sent to. */
i64 params_matmul(const struct model_spec *s);

/* How Hugging Face's folder of this family calls p: how many pieces, 0 when it has no place for
 * it; and the i-th. */
i64 params_foreign_count(const struct model_spec *s, const struct param_desc *p);
struct foreign_piece params_foreign(const struct model_spec *s, const struct param_desc *p, i64 i);

#endif
