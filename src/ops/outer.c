/* The outer step of local SGD (ops.h has the equations). Shapes are any, all the same. */
#include "ops/example.h"
#include "ops/kit.h"

/* --- outer_gradient ----------------------------------------------------------------- */

static int outer_gradient_infer(struct graph *g, struct task *t)
{
    if (!t->in[0] || !t->in[1])
        return graph_fail(g, t, "the weights before or after are missing");
    TRY(kit_dtype(g, t, "anchor", t->in[0], DTYPE_F32));
    TRY(kit_same(g, t, "p", t->in[1], t->in[0]));
    TRY(kit_dtype(g, t, "p", t->in[1], DTYPE_F32));
    if (!t->out[0])
        t->out[0] = graph_like(g, t->in[0], DTYPE_F32, "outer_gradient");
    TRY(kit_same(g, t, "d", t->out[0], t->in[0]));
    return kit_dtype(g, t, "d", t->out[0], DTYPE_F32);
}

static void outer_gradient_cost(const struct task *t, struct cost *c)
{
    kit_elementwise(t, c, 1);
}

static void outer_gradient_ref(const struct task *t, struct run *run)
{
    (void)run;
    for (i64 i = 0; i < tensor_count(t->in[0]); i++)
        tensor_set(t->out[0], i, tensor_get(t->in[0], i) - tensor_get(t->in[1], i));
}

static const i64 shapes[][2] = { { 3, 5 }, { 37, 131 } };

static bool outer_gradient_example(struct op_example *e, int n)
{
    if (n >= COUNT_OF(shapes))
        return false;
    i64 N = shapes[n][0], K = shapes[n][1];
    struct tensor *anchor = example_normal(e, ROLE_STATE, DTYPE_F32, N, K, 1);
    outer_gradient(e->g, anchor, example_normal(e, ROLE_STATE, DTYPE_F32, N, K, 1), NULL);
    return true;
}

const struct op_info op_outer_gradient = {
    .name = "outer_gradient", .n_in = 2, .n_out = 1, .infer = outer_gradient_infer,
    .cost = outer_gradient_cost, .run_ref = outer_gradient_ref,
    .example = outer_gradient_example,
};

struct tensor *outer_gradient(struct graph *g, struct tensor *anchor, struct tensor *p,
                              struct tensor *d)
{
    struct task *t = graph_add(g, &(struct task){ .op = &op_outer_gradient,
                                                  .phase = PHASE_UPDATE, .in = { anchor, p },
                                                  .out = { d } });
    return t ? t->out[0] : NULL;
}

/* --- outer_update ------------------------------------------------------------------- */

static int outer_update_infer(struct graph *g, struct task *t)
{
    static const char *const names[] = { "p", "anchor", "momentum", "copy" };
    if (!t->in[0])
        return graph_fail(g, t, "the outer gradient is missing");
    TRY(kit_dtype(g, t, "d", t->in[0], DTYPE_F32));
    for (int k = 0; k < 4; k++) {
        if (k == 3 && !t->out[k])
            continue;
        TRY(kit_same(g, t, names[k], t->out[k], t->in[0]));
        TRY(kit_dtype(g, t, names[k], t->out[k], k == 3 ? DTYPE_BF16 : DTYPE_F32));
    }
    return OK;
}

static void outer_update_cost(const struct task *t, struct cost *c)
{
    kit_elementwise(t, c, 7);
    c->read_bytes += 2 * (double)tensor_bytes(t->out[0]); /* anchor, momentum */
}

static void outer_update_ref(const struct task *t, struct run *run)
{
    const struct tensor *p = t->out[0], *anchor = t->out[1], *momentum = t->out[2];
    double lr = t->attr[OUTER_LR], mu = t->attr[OUTER_MU], share = t->attr[OUTER_SHARE];
    (void)run;
    for (i64 i = 0; i < tensor_count(p); i++) {
        double mean = share * tensor_get(t->in[0], i);
        double v = mu * tensor_get(momentum, i) + mean;
        tensor_set(momentum, i, v);
        tensor_set(anchor, i, tensor_get(anchor, i) - lr * (mean + mu * v));
        tensor_set(p, i, tensor_get(anchor, i));
        if (t->out[3]) /* of p as stored */
            tensor_set(t->out[3], i, tensor_get(p, i));
    }
}

static bool outer_update_example(struct op_example *e, int n)
{
    if (n >= COUNT_OF(shapes))
        return false;
    i64 N = shapes[n][0], K = shapes[n][1];
    struct tensor *d = example_normal(e, ROLE_STATE, DTYPE_F32, N, K, 1);
    struct tensor *p = example_normal(e, ROLE_PARAM, DTYPE_F32, N, K, 1);
    struct tensor *anchor = example_normal(e, ROLE_STATE, DTYPE_F32, N, K, 1);
    struct tensor *momentum = example_normal(e, ROLE_STATE, DTYPE_F32, N, K, 1);
    struct tensor *copy = n ? example_normal(e, ROLE_COMPUTE, DTYPE_BF16, N, K, 1) : NULL;
    outer_update(e->g, d, p, anchor, momentum, copy,
                 &(struct outer_config){ .lr = 0.7, .momentum = 0.9, .share = 0.25 });
    return true;
}

const struct op_info op_outer_update = {
    .name = "outer_update", .n_in = 1, .n_out = 4, .infer = outer_update_infer,
    .cost = outer_update_cost, .run_ref = outer_update_ref, .example = outer_update_example,
};

void outer_update(struct graph *g, struct tensor *d, struct tensor *p, struct tensor *anchor,
                  struct tensor *momentum, struct tensor *copy, const struct outer_config *config)
{
    graph_add(g, &(struct task){ .op = &op_outer_update, .phase = PHASE_UPDATE, .in = { d },
                                 .out = { p, anchor, momentum, copy },
                                 .attr = { [OUTER_LR] = config->lr,
                                           [OUTER_MU] = config->momentum,
                                           [OUTER_SHARE] = config->share } });
}
