/* RMSNorm (Zhang & Sennrich 2019, eq. 4), row by row:
 *   y = x rstd gain,  rstd = 1 / sqrt(mean(x^2) + eps)
 *   dx = rstd (dy gain - xhat mean(dy gain xhat)) + addend,  xhat = x rstd
 *   dgain = sum_r dy xhat
 * x, y (R,C)   gain (C)   rstd (R), saved for backward. */
#include "ops/example.h"
#include "ops/kit.h"

#include <math.h>

static int rmsnorm_infer(struct graph *g, struct task *t)
{
    struct tensor *x = t->in[0];
    TRY(kit_matrix(g, t, "x", x, KIT_ANY, KIT_ANY));
    TRY(kit_compute_dtype(g, t, "x", x));
    TRY(kit_wide_vector(g, t, "gain", t->in[1], x->dim[1], x));
    if (!t->out[0])
        t->out[0] = graph_like(g, x, x->dtype, "rmsnorm");
    if (!t->out[1])
        t->out[1] = graph_vector(g, kit_wide(x), x->dim[0], "rmsnorm.rstd");
    TRY(kit_same(g, t, "y", t->out[0], x));
    TRY(kit_dtype(g, t, "y", t->out[0], x->dtype));
    return kit_wide_vector(g, t, "rstd", t->out[1], x->dim[0], x);
}

static void rmsnorm_cost(const struct task *t, struct cost *c)
{
    kit_elementwise(t, c, 4); /* square, sum, times rstd, times gain */
}

static void rmsnorm_ref(const struct task *t, struct run *run)
{
    const struct tensor *x = t->in[0], *gain = t->in[1];
    i64 R = x->dim[0], C = x->dim[1];
    (void)run;
    for (i64 r = 0; r < R; r++) {
        double sum = 0;
        for (i64 c = 0; c < C; c++)
            sum += tensor_get(x, r * C + c) * tensor_get(x, r * C + c);
        double rstd = 1 / sqrt(sum / (double)C + t->attr[NORM_EPS]);
        for (i64 c = 0; c < C; c++)
            tensor_set(t->out[0], r * C + c,
                       tensor_get(x, r * C + c) * rstd * tensor_get(gain, c));
        tensor_set(t->out[1], r, rstd);
    }
}

static void rmsnorm_grad(struct graph *g, const struct task *t)
{
    struct tensor *x = t->in[0], *gain = t->in[1];
    struct tensor *dy = grad_of(g, t->out[0]);
    bool need = grad_needed(g, x);
    if (!dy || (!need && !gain->grad))
        return;
    struct task proto = { .op = &op_rmsnorm_grad, .phase = PHASE_INPUT_GRAD,
                          .in = { dy, x, gain, t->out[1], need ? grad_take(g, x) : NULL },
                          .out = { need ? grad_target(g, x) : NULL, gain->grad } };
    graph_add(g, &proto);
    if (need)
        grad_add(g, x, proto.out[0]);
}

/* The size of x in the second example is such that eps matters. */
static const struct { i64 R, C; double deviation, eps; i64 groups; } shapes[] = {
    { 5, 7, 1, 1e-5, 0 }, { 37, 129, 0.01, 1e-4, 0 }, { 3, 768, 3, 1e-6, 0 },
    { 12, 65, 1, 1e-5, 4 },
};

static bool rmsnorm_example(struct op_example *e, int n)
{
    if (n >= COUNT_OF(shapes))
        return false;
    i64 R = shapes[n].R, C = shapes[n].C;
    struct tensor *x = example_normal(e, ROLE_ACTIVATION, e->dtype, R, C, shapes[n].deviation);
    rmsnorm(e->g, x, example_vector(e, ROLE_PARAM, C, 1, 0.3), shapes[n].eps);
    return true;
}

const struct op_info op_rmsnorm = {
    .name = "rmsnorm", .n_in = 2, .n_out = 2, .cheap = true,
    .infer = rmsnorm_infer, .grad = rmsnorm_grad, .cost = rmsnorm_cost,
    .run_ref = rmsnorm_ref, .example = rmsnorm_example,
};

struct tensor *rmsnorm(struct graph *g, struct tensor *x, struct tensor *gain, double eps)
{
    struct task *t = graph_add(g, &(struct task){ .op = &op_rmsnorm, .in = { x, gain },
                                                  .attr = { [NORM_EPS] = eps } });
    return t ? t->out[0] : NULL;
}

/* --- gradient ----------------------------------------------------------------------- */

static int rmsnorm_grad_infer(struct graph *g, struct task *t)
{
    TRY(kit_norm_grad(g, t, 4));
    return kit_wide_vector(g, t, "rstd", t->in[3], t->in[0]->dim[0], t->in[0]);
}

static void rmsnorm_grad_cost(const struct task *t, struct cost *c)
{
    /* xhat, dy gain, their product and its sum, dgain 2, xhat mean, difference, rstd */
    kit_elementwise(t, c, t->in[4] ? 10 : 9);
}

static void rmsnorm_grad_ref(const struct task *t, struct run *run)
{
    const struct tensor *dy = t->in[0], *x = t->in[1], *gain = t->in[2], *addend = t->in[4];
    i64 R = dy->dim[0], C = dy->dim[1];
    i64 groups = kit_groups(t->out[1]), each = R / groups;
    for (i64 i = 0; i < groups * C; i++) {
        double dgain = 0;
        for (i64 r = i / C * each; r < (i / C + 1) * each; r++)
            dgain += tensor_get(dy, r * C + i % C) * tensor_get(x, r * C + i % C) *
                     tensor_get(t->in[3], r);
        kit_sum(t->out[1], i, dgain, run_accumulates(t, run));
    }
    for (i64 r = 0; r < R; r++) {
        double rstd = tensor_get(t->in[3], r), mean = 0;
        for (i64 c = 0; c < C; c++)
            mean += tensor_get(dy, r * C + c) * tensor_get(gain, c) *
                    tensor_get(x, r * C + c) * rstd / (double)C;
        for (i64 c = 0; c < C; c++) {
            double scaled = tensor_get(dy, r * C + c) * tensor_get(gain, c);
            double dx = rstd * (scaled - tensor_get(x, r * C + c) * rstd * mean);
            tensor_set(t->out[0], r * C + c,
                       dx + (addend ? tensor_get(addend, r * C + c) : 0));
        }
    }
}

static bool rmsnorm_grad_example(struct op_example *e, int n)
{
    if (n >= COUNT_OF(shapes))
        return false;
    i64 R = shapes[n].R, C = shapes[n].C;
    struct tensor *dy = example_normal(e, ROLE_ACTIVATION, e->dtype, R, C, 1);
    struct tensor *x = example_normal(e, ROLE_ACTIVATION, e->dtype, R, C, 1);
    struct tensor *gain = example_vector(e, ROLE_PARAM, C, 1, 0.3);
    struct tensor *rstd = example_vector(e, ROLE_ACTIVATION, R, 1, 0.1);
    struct tensor *addend = n % 2 == 0
        ? example_normal(e, ROLE_ACTIVATION, e->dtype, R, C, 1) : NULL;
    i64 groups = shapes[n].groups;
    struct tensor *dgain = groups
        ? example_normal(e, ROLE_GRAD, kit_wide(dy), groups, C, 1) : NULL;
    graph_add(e->g, &(struct task){ .op = &op_rmsnorm_grad,
                                    .in = { dy, x, gain, rstd, addend },
                                    .out = { NULL, dgain } });
    return true;
}

const struct op_info op_rmsnorm_grad = {
    .name = "rmsnorm_grad", .n_in = 5, .n_out = 2,
    .accumulates = true, .sums = 1u << 1, .in_place = 1u << 4,
    .infer = rmsnorm_grad_infer, .cost = rmsnorm_grad_cost, .run_ref = rmsnorm_grad_ref,
    .example = rmsnorm_grad_example,
};
