/* graph/tensor.h - dtype, shape, and a place in memory. No operations.
 *
 * A tensor either owns its bytes or is a view of some leading-dimension rows of its
 * owner. Persistent roles are placed once at start; activations get their place from the
 * memory plan. All tensors are dense and row-major. */
#ifndef HEADWAY_TENSOR_H
#define HEADWAY_TENSOR_H

#include "base/dtype.h"

enum { TENSOR_DIMS = 4 };

enum tensor_role {
    ROLE_PARAM,      /* fp32 master weight */
    ROLE_COMPUTE,    /* copy of a master weight in the compute dtype */
    ROLE_GRAD,       /* gradient of a weight, fp32, summed over micro-batches */
    ROLE_STATE,      /* optimizer moments, averages */
    ROLE_AWAY,       /* the same, or an activation, in slower memory: only copies touch it */
    ROLE_CONST,      /* filled once at start, e.g. RoPE tables */
    ROLE_INPUT,      /* filled by load_batch */
    ROLE_RESULT,     /* losses and norms that the host reads; kept over the whole step */
    ROLE_ACTIVATION, /* from its producer to its last reader: placed by the memory plan */
    ROLES
};

struct tensor_use { /* by a task on another lane that may still be running; run time */
    u64 ticket;     /* 0: none */
    u32 task;       /* its id */
    u8 lane;
    bool writes;
};

/* Where several micro-batches' worth of a tensor lie (owners only). Tasks see the one of the
 * micro-batch whose action runs: program_enter points them there. */
struct tensor_slots {
    int n, current; /* micro-batch i has slot i % n */
    i64 stride;     /* bytes */
    char *base;     /* of slot 0; set when the region is allocated */
    struct tensor_use *uses; /* [n]; that of the current one is in the tensor */
};

struct tensor {
    const char *name;
    enum dtype dtype;
    enum tensor_role role;
    int rank;
    i64 dim[TENSOR_DIMS];
    struct tensor *owner; /* NULL, or the tensor this is a view of (never itself a view) */
    i64 owner_offset;     /* bytes from the owner's start */
    struct tensor *grad;  /* of a weight (ROLE_PARAM, ROLE_COMPUTE): where its gradient is
                           * summed; NULL when frozen */
    bool wide_grad;       /* of an activation: its gradient is formed in f32 */
    i64 offset;           /* bytes into the activation region, set by the plan */
    void *data;           /* set when the region is allocated */
    i64 index;            /* position in its graph, -1 for persistent tensors */
    struct tensor_use pending;  /* of the owner, not of views */
    struct tensor_slots *slots; /* NULL: one place */
};

static inline i64 tensor_count(const struct tensor *t)
{
    i64 n = 1;
    for (int i = 0; i < t->rank; i++)
        n *= t->dim[i];
    return n;
}

static inline i64 tensor_bytes(const struct tensor *t)
{
    return tensor_count(t) * dtype_bytes(t->dtype);
}

/* All of its slots, or itself. */
static inline i64 tensor_place_bytes(const struct tensor *t)
{
    return t->slots ? t->slots->n * t->slots->stride : tensor_bytes(t);
}

static inline i64 tensor_columns(const struct tensor *t)
{
    return t->rank == 0 ? 1 : t->dim[t->rank - 1];
}

/* Rows when all but the last dimension are flattened; a vector is one row. */
static inline i64 tensor_rows(const struct tensor *t)
{
    return tensor_count(t) / i64_max(1, tensor_columns(t));
}

static inline double tensor_get(const struct tensor *t, i64 i)
{
    return dtype_get(t->dtype, t->data, i);
}

static inline void tensor_set(const struct tensor *t, i64 i, double value)
{
    dtype_set(t->dtype, t->data, i, value);
}

#endif
