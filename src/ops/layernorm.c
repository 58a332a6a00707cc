/* LayerNorm (Ba, Kiros & Hinton 2016), row by row:
 *   y = xhat gain + bias,  xhat = (x - mean) rstd,  rstd = 1 / sqrt(variance(x) + eps)
 *   dx = rstd (s - mean(s) - xhat mean(s xhat)) + addend,  s = dy gain
 *   dgain = sum_r dy xhat,  dbias = sum_r dy
 * x, y (R,C)   gain, bias (C)   mean, rstd (R), saved for backward. */
#include "ops/example.h"
#include "ops/kit.h"

#include <math.h>

static int layernorm_infer(struct graph *g, struct task *t)
{
    struct tensor *x = t->in[0];
    TRY(kit_matrix(g, t, "x", x, KIT_ANY, KIT_ANY));
    TRY(kit_compute_dtype(g, t, "x", x));
    i64 R = x->dim[0], C = x->dim[1];
    TRY(kit_wide_vector(g, t, "gain", t->in[1], C, x));
    if (t->in[2])
        TRY(kit_wide_vector(g, t, "bias", t->in[2], C, x));
    if (!t->out[0])
        t->out[0] = graph_like(g, x, x->dtype, "layernorm");
    if (!t->out[1])
        t->out[1] = graph_vector(g, kit_wide(x), R, "layernorm.mean");
    if (!t->out[2])
        t->out[2] = graph_vector(g, kit_wide(x), R, "layernorm.rstd");
    TRY(kit_same(g, t, "y", t->out[0], x));
    TRY(kit_dtype(g, t, "y", t->out[0], x->dtype));
    TRY(kit_wide_vector(g, t, "mean", t->out[1], R, x));
    return kit_wide_vector(g, t, "rstd", t->out[2], R, x);
}

static void layernorm_cost(const struct task *t, struct cost *c)
{
    /* sum, difference, square, sum, times rstd, times gain, plus bias */
    kit_elementwise(t, c, t->in[2] ? 7 : 6);
}

static void layernorm_ref(const struct task *t, struct run *run)
{
    const struct tensor *x = t->in[0], *gain = t->in[1], *bias = t->in[2];
    i64 R = x->dim[0], C = x->dim[1];
    (void)run;
    for (i64 r = 0; r < R; r++) {
        double mean = 0, variance = 0;
        for (i64 c = 0; c < C; c++)
            mean += tensor_get(x, r * C + c) / (double)C;
        for (i64 c = 0; c < C; c++) {
            double d = tensor_get(x, r * C + c) - mean;
            variance += d * d / (double)C;
        }
        double rstd = 1 / sqrt(variance + t->attr[NORM_EPS]);
        for (i64 c = 0; c < C; c++) {
            double xhat = (tensor_get(x, r * C + c) - mean) * rstd;
            tensor_set(t->out[0], r * C + c,
                       xhat * tensor_get(gain, c) + (bias ? tensor_get(bias, c) : 0));
        }
        tensor_set(t->out[1], r, mean);
        tensor_set(t->out[2], r, rstd);
    }
}

static void layernorm_grad(struct graph *g, const struct task *t)
{
    struct tensor *x = t->in[0], *gain = t->in[1], *bias = t->in[2];
    struct tensor *dy = grad_of(g, t->out[0]), *dbias = bias ? bias->grad : NULL;
    bool need = grad_needed(g, x);
    if (!dy || (!need && !gain->grad && !dbias))
        return;
    struct task proto = {
        .op = &op_layernorm_grad, .phase = PHASE_INPUT_GRAD,
        .in = { dy, x, gain, t->out[1], t->out[2], need ? grad_take(g, x) : NULL },
        .out = { need ? grad_target(g, x) : NULL, gain->grad, dbias },
    };
    graph_add(g, &proto);
    if (need)
        grad_add(g, x, proto.out[0]);
}

/* The size of x in the second example is such that eps matters. */
static const struct { i64 R, C; double deviation, eps; bool bias; i64 groups; } shapes[] = {
    { 5, 7, 1, 1e-5, true, 0 }, { 37, 129, 0.01, 1e-4, false, 0 }, { 3, 768, 3, 1e-6, true, 0 },
    { 12, 65, 1, 1e-5, true, 4 },
};

static bool layernorm_example(struct op_example *e, int n)
{
    if (n >= COUNT_OF(shapes))
        return false;
    i64 R = shapes[n].R, C = shapes[n].C;
    struct tensor *x = example_normal(e, ROLE_ACTIVATION, e->dtype, R, C, shapes[n].deviation);
    struct tensor *gain = example_vector(e, ROLE_PARAM, C, 1, 0.3);
    struct tensor *bias = shapes[n].bias ? example_vector(e, ROLE_PARAM, C, 0, 1) : NULL;
    layernorm(e->g, x, gain, bias, shapes[n].eps);
    return true;
}

const struct op_info op_layernorm = {
    .name = "layernorm", .n_in = 3, .n_out = 3, .cheap = true,
    .infer = layernorm_infer, .grad = layernorm_grad, .cost = layernorm_cost,
    .run_ref = layernorm_ref, .example = layernorm_example,
};

struct tensor *layernorm(struct graph *g, struct tensor *x, struct tensor *gain,
                         struct tensor *bias, double eps)
{
    struct task *t = graph_add(g, &(struct task){ .op = &op_layernorm,
                                                  .in = { x, gain, bias },
                                                  .attr = { [NORM_EPS] = eps } });
    return t ? t->out[0] : NULL;
}

/* --- gradient ----------------------------------------------------------------------- */

static int layernorm_grad_infer(struct graph *g, struct task *t)
{
    const struct tensor *dy = t->in[0];
    TRY(kit_norm_grad(g, t, 5));
    TRY(kit_wide_vector(g, t, "mean", t->in[3], dy->dim[0], dy));
    TRY(kit_wide_vector(g, t, "rstd", t->in[4], dy->dim[0], dy));
    if (!t->out[2])
        return OK;
    TRY(kit_same(g, t, "dbias", t->out[2], t->out[1]));
    return kit_dtype(g, t, "dbias", t->out[2], kit_wide(dy));
}

static void layernorm_grad_cost(const struct task *t, struct cost *c)
{
    /* as rmsnorm_grad, with x - mean, mean(s), and its subtraction */
    kit_elementwise(t, c, 12 + (t->in[5] != NULL) + (t->out[2] != NULL));
}

static void layernorm_sums(const struct task *t, bool keep)
{
    const struct tensor *dy = t->in[0], *x = t->in[1];
    i64 R = dy->dim[0], C = dy->dim[1];
    i64 groups = kit_groups(t->out[1]), each = R / groups;
    for (i64 i = 0; i < groups * C; i++) {
        double dgain = 0, dbias = 0;
        for (i64 r = i / C * each; r < (i / C + 1) * each; r++) {
            double d = tensor_get(dy, r * C + i % C);
            dgain += d * (tensor_get(x, r * C + i % C) - tensor_get(t->in[3], r)) *
                     tensor_get(t->in[4], r);
            dbias += d;
        }
        kit_sum(t->out[1], i, dgain, keep);
        if (t->out[2])
            kit_sum(t->out[2], i, dbias, keep);
    }
}

static void layernorm_grad_ref(const struct task *t, struct run *run)
{
    const struct tensor *dy = t->in[0], *x = t->in[1], *gain = t->in[2], *addend = t->in[5];
    i64 R = dy->dim[0], C = dy->dim[1];
    layernorm_sums(t, run_accumulates(t, run));
    for (i64 r = 0; r < R; r++) {
        double mean = tensor_get(t->in[3], r), rstd = tensor_get(t->in[4], r);
        double mean_s = 0, mean_sx = 0;
        for (i64 c = 0; c < C; c++) {
            double s = tensor_get(dy, r * C + c) * tensor_get(gain, c);
            mean_s += s / (double)C;
            mean_sx += s * (tensor_get(x, r * C + c) - mean) * rstd / (double)C;
        }
        for (i64 c = 0; c < C; c++) {
            double s = tensor_get(dy, r * C + c) * tensor_get(gain, c);
            double xhat = (tensor_get(x, r * C + c) - mean) * rstd;
            double dx = rstd * (s - mean_s - xhat * mean_sx);
            tensor_set(t->out[0], r * C + c,
                       dx + (addend ? tensor_get(addend, r * C + c) : 0));
        }
    }
}

static bool layernorm_grad_example(struct op_example *e, int n)
{
    if (n >= COUNT_OF(shapes))
        return false;
    i64 R = shapes[n].R, C = shapes[n].C;
    struct tensor *dy = example_normal(e, ROLE_ACTIVATION, e->dtype, R, C, 1);
    struct tensor *x = example_normal(e, ROLE_ACTIVATION, e->dtype, R, C, 1);
    struct tensor *gain = example_vector(e, ROLE_PARAM, C, 1, 0.3);
    struct tensor *mean = example_vector(e, ROLE_ACTIVATION, R, 0.2, 0.1);
    struct tensor *rstd = example_vector(e, ROLE_ACTIVATION, R, 1, 0.1);
    struct tensor *addend = n % 2 == 0
        ? example_normal(e, ROLE_ACTIVATION, e->dtype, R, C, 1) : NULL;
    struct tensor *dgain = NULL, *dbias = NULL;
    i64 groups = shapes[n].groups;
    if (groups) {
        dgain = example_normal(e, ROLE_GRAD, kit_wide(dy), groups, C, 1);
        dbias = example_normal(e, ROLE_GRAD, kit_wide(dy), groups, C, 1);
    } else if (shapes[n].bias) {
        dbias = example_vector(e, ROLE_GRAD, C, 0, 1);
    }
    graph_add(e->g, &(struct task){ .op = &op_layernorm_grad,
                                    .in = { dy, x, gain, mean, rstd, addend },
                                    .out = { NULL, dgain, dbias } });
    return true;
}

const struct op_info op_layernorm_grad = {
    .name = "layernorm_grad", .n_in = 6, .n_out = 3,
    .accumulates = true, .sums = 1u << 1 | 1u << 2, .in_place = 1u << 5,
    .infer = layernorm_grad_infer, .cost = layernorm_grad_cost,
    .run_ref = layernorm_grad_ref, .example = layernorm_grad_example,
};
