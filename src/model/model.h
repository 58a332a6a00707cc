/* model/model.h - a model's persistent tensors: weights, gradients, optimizer state.
 *
 * All of them lie in one region that is mapped once, zeroed. Which ones exist depends on
 * what the model is for: sampling needs weights only. The optimizer's choice of Muon
 * decides which moments a parameter has.
 *
 * Parameters that are reduced, updated and gathered together share a *bucket*: the embeddings,
 * each layer, its experts, what follows the layers. A bucket has one flat tensor of each kind, and
 * the parameters' own tensors are views of it, side by side. So a message between ranks or an
 * owned slice (ZeRO) is a range of a bucket, whatever the shapes within.
 *
 * A rank may hold a part of the model only (struct model_part). */
#ifndef HEADWAY_MODEL_H
#define HEADWAY_MODEL_H

#include "base/pool.h"
#include "graph/tensor.h"
#include "model/params.h"

enum model_needs {
    MODEL_WEIGHTS = 0,
    MODEL_GRADS = 1, /* fp32 gradients */
    MODEL_ADAM = 2,  /* first and second moments */
    MODEL_MUON = 4,  /* matrices of blocks have a momentum instead */
    MODEL_EMA = 8,   /* running average of the weights */
    /* With MODEL_GRADS: gradients are not here but in the activations of the one program that
     * makes and uses them up within a micro-batch; it takes them by model_bind. */
    MODEL_GRADS_LENT = 16,
    MODEL_OUTER = 32 /* weights before an outer step, and its momentum (parallel/islands.h) */
};

/* Layers [first, first + count) that follow each other here: one stage of a pipeline. */
struct layer_range {
    i64 first, count;
};

enum { MODEL_CHUNKS = 8 };

/* What of the model this rank holds. Whoever has the first layer has the embeddings; whoever has
 * the last one the final norm and the head, so a tied table is in both places. */
struct model_part {
    int n_chunks; /* 0: all layers */
    struct layer_range chunks[MODEL_CHUNKS]; /* ascending */

    i64 tensor_parts, tensor_part; /* every cut parameter, into so many; which is here (tp) */
    i64 state_parts, state_part; /* optimizer state is cut into so many; which is here (ZeRO) */
    bool split_grads, split_weights; /* and so are gradients, weights (ZeRO 2, 3) */
    i64 expert_parts, expert_part; /* experts are spread over so many; which share is here (ep) */
    i64 expert_neighbours; /* so many consecutive state parts then have different experts */
    /* Models that go their own way between outer steps, 0: one; which is here. */
    i64 islands, island;
    const char *state_folder; /* optimizer state is a file there (ROLE_AWAY); NULL: in memory */
};

static inline struct model_part model_whole(void)
{
    return (struct model_part){ .tensor_parts = 1, .state_parts = 1, .expert_parts = 1,
                                 .expert_neighbours = 1 };
}

/* In a bucket, first parameters without a copy in the compute dtype (gains, biases, routers: few
 * values), those that are never cut before those that are; then matrices that AdamW updates,
 * then those that Muon does, of both those that are never cut first. Only the matrices' state is
 * ever split. Offsets and counts are in elements; each parameter begins at a multiple of
 * BUCKET_ALIGN. */
enum { BUCKET_ALIGN = 64 };

/* A bucket of which nothing is here has count 0 and no tensors. */
struct bucket {
    const char *name; /* "embedding", "blocks.3", "blocks.3.experts", "final" */
    int layer;        /* -1, the layer's number, L */
    bool experts;     /* of the matrices that expert parallelism spreads: other ranks share it
                       * than share the rest */
    i64 count;        /* of all */
    i64 alike;        /* where parameters begin whose gradient all tensor_parts have alike: routers,
                       * which see all rows */
    i64 cut;          /* where parameters begin that tensor_parts cuts */
    i64 copied;       /* where matrices begin: compute[i] is master[copied + i] */
    i64 adam;         /* where Muon's matrices begin */
    i64 whole, whole_count; /* where matrices lie that tensor_parts does not cut: of latents */
    i64 own_begin, own_count; /* slice of the matrices whose state this rank has */
    bool split_grads, split_weights; /* of the model's part, but for a table that is tied over the
                                      * stages of a pipeline */
    struct tensor *master, *compute, *grad; /* flat, or NULL */
    /* Flat too: [0, copied) of the bucket, then the slice; v ends where Muon's begin. */
    struct tensor *m, *v, *ema, *anchor, *momentum;
    /* What the optimizer reads: grad itself; with split_grads it lies as the state does, and grad,
     * of the matrices alone, and vector_grad are activations of each program. */
    struct tensor *own_grad, *vector_grad;
    /* With split_weights master lies as the state does, compute is the slice, and what products
     * read is an activation of each program: all matrices, in the compute dtype. */
    struct tensor *gathered;
};

struct param {
    struct param_desc desc; /* of the whole parameter */
    struct param_shard shard; /* what of it is here, and the shape of all tensors below */
    struct bucket *bucket;
    i64 at; /* its first element there */
    struct tensor *master;  /* f32; NULL for matrices with split_weights */
    struct tensor *compute; /* copy in the compute dtype; the master itself for f32 and for
                             * gains and biases; with split_weights that of the last program */
    struct tensor *grad, *m, *v, *ema; /* f32, or NULL; the last three also where a split
                                        * leaves this rank less than all of it */
};

struct model {
    struct model_spec spec;
    struct model_spec local; /* with the heads and hidden units that are here */
    enum dtype compute; /* DTYPE_F32 or DTYPE_BF16 */
    unsigned needs;     /* enum model_needs */
    struct model_part part;
    struct param *params;
    i64 n_params;
    struct bucket *buckets;
    i64 n_buckets;
    struct tensor *rope_table; /* f32 (P, D): cosines, then sines; NULL without rope */
    i64 positions;             /* P of the table: the longest sequence to be run */
    void *region;
    i64 region_bytes;
    void *away; /* the optimizer's state, when it is not in the region */
    i64 away_bytes;
};

/* Bytes of the region for such a model, before anything is allocated. */
i64 model_bytes(const struct model_spec *s, enum dtype compute, unsigned needs,
                i64 positions);

i64 model_part_bytes(const struct model_spec *s, enum dtype compute, unsigned needs,
                     i64 positions, const struct model_part *part);

/* positions <= spec.positions limits the rotary table. The tensors' descriptions live in
 * the arena, which must outlive the model. ERR_LIMIT when the region cannot be had. */
int model_new(struct model **out, const struct model_spec *s, enum dtype compute,
              unsigned needs, i64 positions, struct arena *a);
int model_new_part(struct model **out, const struct model_spec *s, enum dtype compute,
                   unsigned needs, i64 positions, const struct model_part *part,
                   struct arena *a);
/* The same without memory: no tensor has data. For those who plan. */
void model_outline(struct model **out, const struct model_spec *s, enum dtype compute,
                   unsigned needs, i64 positions, const struct model_part *part,
                   struct arena *a);
void model_free(struct model *m); /* NULL is fine */
/* What of the state that is away has come into memory (loading, saving) leaves it. */
void model_forget_away(const struct model *m);

/* Where element `at` of the bucket lies in its m, v and ema; -1: on another rank. */
i64 bucket_state_at(const struct bucket *b, i64 at);
/* Where it lies in master, and in own_grad. */
i64 bucket_weight_at(const struct bucket *b, i64 at);
i64 bucket_grad_at(const struct bucket *b, i64 at);

/* Elements of the share that is here. */
static inline i64 param_here(const struct param *p)
{
    return p->shard.dim[0] * (p->desc.rank == 2 ? p->shard.dim[1] : 1);
}

/* Which of these have their state here, and which their weight. */
struct shard_range param_state_here(const struct param *p);
struct shard_range param_weights_here(const struct param *p);
/* The weight of an element that is here. */
float *param_weight(const struct param *p, i64 element);

/* Before a list is built: what is an activation of each program becomes one of this graph, from
 * its first writer to its last reader. That is the gradients of a model with MODEL_GRADS_LENT (for
 * one graph only), and what split_grads and split_weights leave to programs. gradients: the
 * program has a backward pass. */
struct graph;
void model_bind(const struct model *m, struct graph *g, bool gradients);

/* What this rank runs, at least one range; its first has layer 0, its last the last layer, on
 * ranks that have these. */
i64 model_chunks(const struct model *m, struct layer_range out[MODEL_CHUNKS]);
bool model_has_layer(const struct model_spec *s, const struct model_part *part, i64 layer);
/* The table is both the embedding and the head, and those are on different ranks. */
bool model_shares_table(const struct model *m);

/* The parameter, or NULL when the spec has none such or it is not here; layer -1 outside the
 * blocks. */
struct param *model_param(const struct model *m, enum param_id id, int layer);

/* True when Muon, not AdamW, updates p. */
bool model_uses_muon(const struct model *m, const struct param_desc *p);

/* Initial weights: a function of (seed, name, index), whatever the thread count. */
void model_init(struct model *m, u64 seed, struct pool *pool);

/* The averages and anchors that are here begin as the weights are; model_init does so too. */
void model_start_averages(struct model *m);
/* Weights and averages change places, where the averages are here; compute copies stay. */
void model_swap_averages(const struct model *m);
/* The same with the anchors. */
void model_swap_anchors(const struct model *m);

/* The first parameter with a weight that is NaN or Inf, and where in it; NULL when all
 * are finite. */
const struct param *model_first_not_finite(const struct model *m, i64 *element);

/* Rounds every master into its compute copy; needed after masters were loaded. */
void model_refresh_compute(struct model *m, struct pool *pool);

#endif
