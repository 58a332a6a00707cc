#include "ops/example.h"

#include "base/rng.h"
#include "ops/kit.h"

/* --- leaf: x = w, dw += dx ---------------------------------------------------------- */

static int leaf_infer(struct graph *g, struct task *t)
{
    if (!t->out[0])
        t->out[0] = graph_like(g, t->in[0], t->in[0]->dtype, "example");
    return OK;
}

static void leaf_ref(const struct task *t, struct run *run)
{
    bool keep = t->op->accumulates && run_accumulates(t, run);
    for (i64 i = 0; i < tensor_count(t->in[0]); i++)
        kit_sum(t->out[0], i, tensor_get(t->in[0], i), keep);
}

static void leaf_grad(struct graph *g, const struct task *t)
{
    struct tensor *dx = grad_of(g, t->out[0]);
    if (dx)
        graph_add(g, &(struct task){ .op = &op_leaf_grad, .in = { dx },
                                     .out = { t->in[0]->grad } });
}

const struct op_info op_leaf = {
    .name = "leaf", .n_in = 1, .n_out = 1, .infer = leaf_infer, .grad = leaf_grad,
    .run_ref = leaf_ref,
};

const struct op_info op_leaf_grad = {
    .name = "leaf_grad", .n_in = 1, .n_out = 1, .accumulates = true,
    .infer = leaf_infer, .run_ref = leaf_ref,
};

/* --- tensors ------------------------------------------------------------------------ */

/* In f64 examples every real number is f64. */
static enum dtype widen(const struct op_example *e, enum dtype dtype)
{
    bool real = dtype == DTYPE_F32 || dtype == DTYPE_BF16 || dtype == DTYPE_F16;
    return e->dtype == DTYPE_F64 && real ? DTYPE_F64 : dtype;
}

static struct tensor *new_tensor(struct op_example *e, enum tensor_role role,
                                 enum dtype dtype, int rank, const i64 *dim)
{
    struct tensor *t = graph_tensor(e->g, role, widen(e, dtype), rank, dim, "example%llu",
                                    (unsigned long long)e->seed++);
    t->data = arena_alloc(e->g->arena, tensor_bytes(t));
    return t;
}

static void add_grad_tensor(struct op_example *e, struct tensor *t)
{
    t->grad = new_tensor(e, ROLE_GRAD, DTYPE_F32, t->rank, t->dim);
}

static struct tensor *filled(struct op_example *e, enum tensor_role role, enum dtype dtype,
                             int rank, const i64 *dim, double mean, double deviation)
{
    bool activation = role == ROLE_ACTIVATION;
    struct tensor *t = new_tensor(e, activation ? ROLE_PARAM : role, dtype, rank, dim);
    struct rng key = { e->seed, rng_stream("example") };
    for (i64 i = 0; i < tensor_count(t); i++)
        tensor_set(t, i, mean + deviation * rng_normal(&key, (u64)i));
    if (activation || role == ROLE_PARAM)
        add_grad_tensor(e, t);
    if (!activation)
        return t;
    struct task *leaf = graph_add(e->g, &(struct task){ .op = &op_leaf, .in = { t } });
    leaf->out[0]->data = arena_alloc(e->g->arena, tensor_bytes(t));
    return leaf->out[0];
}

struct tensor *example_normal(struct op_example *e, enum tensor_role role, enum dtype dtype,
                              i64 rows, i64 columns, double deviation)
{
    return filled(e, role, dtype, 2, (const i64[]){ rows, columns }, 0, deviation);
}

struct tensor *example_vector(struct op_example *e, enum tensor_role role, i64 n,
                              double mean, double deviation)
{
    return filled(e, role, DTYPE_F32, 1, &n, mean, deviation);
}

struct tensor *example_weight(struct op_example *e, enum dtype dtype, i64 rows, i64 columns,
                              double deviation)
{
    struct tensor *t = example_normal(e, ROLE_COMPUTE, dtype, rows, columns, deviation);
    add_grad_tensor(e, t);
    return t;
}

struct tensor *example_integers(struct op_example *e, i64 n, i64 limit)
{
    struct tensor *t = new_tensor(e, ROLE_INPUT, DTYPE_I32, 1, &n);
    struct rng key = { e->seed, rng_stream("example") };
    for (i64 i = 0; i < n; i++)
        tensor_set(t, i, (double)(rng_u64(&key, (u64)i) % (u64)limit));
    return t;
}

struct tensor *example_scalar(struct op_example *e, enum tensor_role role, enum dtype dtype,
                              double value)
{
    const i64 one = 1;
    struct tensor *t = new_tensor(e, role, dtype, 1, &one);
    tensor_set(t, 0, value);
    return t;
}

struct tensor *example_hyper(struct op_example *e)
{
    const i64 n = HYPERS;
    struct tensor *t = new_tensor(e, ROLE_INPUT, DTYPE_F32, 1, &n);
    tensor_set(t, HYPER_LR, 0.3);
    tensor_set(t, HYPER_CORRECT1, 0.4);
    tensor_set(t, HYPER_CORRECT2, 0.2);
    tensor_set(t, HYPER_MUON_LR, 0.5);
    return t;
}

struct tensor *example_begin(struct op_example *e, i64 B, i64 T)
{
    i64 n = B * T, begin = 0;
    struct tensor *t = new_tensor(e, ROLE_INPUT, DTYPE_I32, 1, &n);
    struct rng key = { e->seed, rng_stream("documents") };
    for (i64 i = 0; i < n; i++) {
        if (i % T == 0)
            begin = 0;
        else if (rng_uniform(&key, (u64)i) < 4.0 / (double)T) /* about four borders */
            begin = i % T;
        tensor_set(t, i, (double)begin);
    }
    return t;
}
