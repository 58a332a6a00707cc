/* model/model.h - a model's persistent tensors: weights, gradients, optimizer state.
 *
 * All of them lie in one region that is mapped once, zeroed. Which ones exist depends on
 * what the model is for: sampling needs weights only. The optimizer's choice of Muon
 * decides which moments a parameter has. */
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
    MODEL_EMA = 8    /* running average of the weights */
};

struct param {
    struct param_desc desc;
    struct tensor *master;  /* f32 */
    struct tensor *compute; /* copy in the compute dtype; the master itself for f32 and for
                             * gains and biases */
    struct tensor *grad, *m, *v, *ema; /* f32, or NULL */
};

struct model {
    struct model_spec spec;
    enum dtype compute; /* DTYPE_F32 or DTYPE_BF16 */
    unsigned needs;     /* enum model_needs */
    struct param *params;
    i64 n_params;
    struct tensor *rope_table; /* f32 (P, D): cosines, then sines; NULL without rope */
    i64 positions;             /* P of the table: the longest sequence to be run */
    void *region;
    i64 region_bytes;
};

/* Bytes of the region for such a model, before anything is allocated. */
i64 model_bytes(const struct model_spec *s, enum dtype compute, unsigned needs,
                i64 positions);

/* positions <= spec.positions limits the rotary table. The tensors' descriptions live in
 * the arena, which must outlive the model. ERR_LIMIT when the region cannot be had. */
int model_new(struct model **out, const struct model_spec *s, enum dtype compute,
              unsigned needs, i64 positions, struct arena *a);
void model_free(struct model *m); /* NULL is fine */

/* The parameter, or NULL when the spec has none such; layer -1 outside the blocks. */
struct param *model_param(const struct model *m, enum param_id id, int layer);
struct param *model_param_named(const struct model *m, const char *name);

/* True when Muon, not AdamW, updates p. */
bool model_uses_muon(const struct model *m, const struct param_desc *p);

/* Initial weights: a function of (seed, name, index), whatever the thread count. */
void model_init(struct model *m, u64 seed, struct pool *pool);

/* Rounds every master into its compute copy; needed after masters were loaded. */
void model_refresh_compute(struct model *m, struct pool *pool);

#endif
