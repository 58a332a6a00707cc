/* AdamW: Adam (Kingma & Ba 2015, algorithm 1) with decoupled decay (Loshchilov & Hutter
 * 2019, algorithm 2, with the schedule inside lr):
 *   g = scale grad;  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2
 *   p -= lr (m / c1 / (sqrt(v / c2) + eps) + decay p),  c1 = 1 - b1^t,  c2 = 1 - b2^t
 * The p of the decay term is that of before the step, as in PyTorch. c1, c2 and lr come
 * from the host each step in hyper. All tensors have the shape of p; copy is p rounded to
 * the compute dtype. */
#include "ops/example.h"
#include "ops/kit.h"

#include <math.h>

static int adamw_infer(struct graph *g, struct task *t)
{
    static const char *const names[] = { "p", "m", "v", "copy" };
    struct tensor *grad = t->in[0];
    if (!grad)
        return graph_fail(g, t, "grad is missing");
    TRY(kit_dtype(g, t, "grad", grad, DTYPE_F32));
    TRY(kit_vector(g, t, "scale", t->in[1], 1));
    TRY(kit_dtype(g, t, "scale", t->in[1], DTYPE_F32));
    TRY(kit_vector(g, t, "hyper", t->in[2], HYPERS));
    TRY(kit_dtype(g, t, "hyper", t->in[2], DTYPE_F32));
    for (int i = 0; i < 4; i++) {
        if (i == 3 && !t->out[i])
            continue;
        TRY(kit_same(g, t, names[i], t->out[i], grad));
        TRY(kit_dtype(g, t, names[i], t->out[i], i == 3 ? DTYPE_BF16 : DTYPE_F32));
    }
    return OK;
}

static void adamw_cost(const struct task *t, struct cost *c)
{
    kit_elementwise(t, c, 15);
    c->read_bytes += 3 * (double)tensor_bytes(t->out[0]); /* p, m, v */
}

static void adamw_ref(const struct task *t, struct run *run)
{
    const struct tensor *grad = t->in[0], *p = t->out[0], *m = t->out[1], *v = t->out[2];
    double scale = tensor_get(t->in[1], 0), lr = tensor_get(t->in[2], HYPER_LR);
    double correct1 = tensor_get(t->in[2], HYPER_CORRECT1);
    double correct2 = tensor_get(t->in[2], HYPER_CORRECT2);
    double beta1 = t->attr[ADAMW_B1], beta2 = t->attr[ADAMW_B2];
    (void)run;
    for (i64 i = 0; i < tensor_count(p); i++) {
        double d = scale * tensor_get(grad, i), old = tensor_get(p, i);
        double first = beta1 * tensor_get(m, i) + (1 - beta1) * d;
        double second = beta2 * tensor_get(v, i) + (1 - beta2) * d * d;
        double step = first / correct1 / (sqrt(second / correct2) + t->attr[ADAMW_EPS]);
        tensor_set(m, i, first);
        tensor_set(v, i, second);
        tensor_set(p, i, old - lr * (step + t->attr[ADAMW_DECAY] * old));
        if (t->out[3]) /* of p as stored */
            tensor_set(t->out[3], i, tensor_get(p, i));
    }
}

/* Learning rate and eps so large that each term shows. */
static bool adamw_example(struct op_example *e, int n)
{
    static const struct { i64 N, K; bool copy; struct adamw_config config; } shapes[] = {
        { 3, 5, false, { 0.9, 0.95, 1e-8, 0.1 } },
        { 37, 131, true, { 0.8, 0.99, 0.1, 0 } },
        { 9, 1024, true, { 0.9, 0.999, 1e-2, 0.3 } },
    };
    if (n >= COUNT_OF(shapes))
        return false;
    i64 N = shapes[n].N, K = shapes[n].K;
    struct tensor *grad = example_normal(e, ROLE_GRAD, DTYPE_F32, N, K, 1);
    struct tensor *p = example_normal(e, ROLE_PARAM, DTYPE_F32, N, K, 1);
    struct tensor *m = example_normal(e, ROLE_STATE, DTYPE_F32, N, K, 0.3);
    struct tensor *v = example_normal(e, ROLE_STATE, DTYPE_F32, N, K, 0.3);
    struct tensor *copy = shapes[n].copy
        ? example_normal(e, ROLE_COMPUTE, DTYPE_BF16, N, K, 1) : NULL;
    for (i64 i = 0; i < N * K; i++)
        tensor_set(v, i, fabs(tensor_get(v, i)));
    adamw(e->g, grad, example_scalar(e, ROLE_INPUT, DTYPE_F32, 0.7), example_hyper(e), p, m, v,
          copy, NULL, &shapes[n].config);
    return true;
}

const struct op_info op_adamw = {
    .name = "adamw", .n_in = 3, .n_out = 4,
    .infer = adamw_infer, .cost = adamw_cost, .run_ref = adamw_ref, .example = adamw_example,
};

void adamw(struct graph *g, struct tensor *grad, struct tensor *scale, struct tensor *hyper,
           struct tensor *p, struct tensor *m, struct tensor *v, struct tensor *copy,
           struct tensor *when, const struct adamw_config *config)
{
    graph_add(g, &(struct task){ .op = &op_adamw, .phase = PHASE_UPDATE, .when = when,
                                 .in = { grad, scale, hyper }, .out = { p, m, v, copy },
                                 .attr = { [ADAMW_B1] = config->beta1,
                                           [ADAMW_B2] = config->beta2,
                                           [ADAMW_EPS] = config->eps,
                                           [ADAMW_DECAY] = config->decay } });
}
