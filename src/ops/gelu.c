/* GELU (Hendrycks & Gimpel 2016), exact and in the tanh form of GPT-2:
 *   exact  y = x Phi(x),  dy/dx = Phi(x) + x phi(x)   (Phi, phi: normal distribution)
 *   tanh   y = x (1 + tanh u) / 2,  u = sqrt(2/pi) (x + 0.044715 x^3),
 *          dy/dx = (1 + tanh u) / 2 + x (1 - tanh^2 u) u' / 2
 * x, y (R,F) */
#include "ops/example.h"
#include "ops/kit.h"

#include <math.h>

static const double root_2_over_pi = 0.79788456080286535588;
static const double root_half = 0.70710678118654752440;
static const double one_over_root_2pi = 0.39894228040143267794;
static const double cubic = 0.044715;

static double gelu_value(double x, bool exact)
{
    if (exact)
        return 0.5 * x * (1 + erf(x * root_half));
    return 0.5 * x * (1 + tanh(root_2_over_pi * (x + cubic * x * x * x)));
}

static double gelu_slope(double x, bool exact)
{
    if (exact)
        return 0.5 * (1 + erf(x * root_half)) + x * one_over_root_2pi * exp(-0.5 * x * x);
    double h = tanh(root_2_over_pi * (x + cubic * x * x * x));
    return 0.5 * (1 + h) + 0.5 * x * (1 - h * h) * root_2_over_pi * (1 + 3 * cubic * x * x);
}

static int gelu_infer(struct graph *g, struct task *t)
{
    struct tensor *x = t->in[0];
    TRY(kit_matrix(g, t, "x", x, KIT_ANY, KIT_ANY));
    TRY(kit_compute_dtype(g, t, "x", x));
    if (!t->out[0])
        t->out[0] = graph_like(g, x, x->dtype, "gelu");
    TRY(kit_same(g, t, "y", t->out[0], x));
    return kit_dtype(g, t, "y", t->out[0], x->dtype);
}

static void gelu_cost(const struct task *t, struct cost *c)
{
    kit_elementwise(t, c, 9); /* a tanh or erf counts as one operation */
}

static void gelu_ref(const struct task *t, struct run *run)
{
    (void)run;
    for (i64 i = 0; i < tensor_count(t->in[0]); i++)
        tensor_set(t->out[0], i, gelu_value(tensor_get(t->in[0], i), t->attr[GELU_EXACT] != 0));
}

static void gelu_grad(struct graph *g, const struct task *t)
{
    struct tensor *x = t->in[0], *dy = grad_of(g, t->out[0]);
    if (!dy || !grad_needed(g, x))
        return;
    struct task proto = { .op = &op_gelu_grad, .phase = PHASE_INPUT_GRAD, .in = { dy, x },
                          .out = { grad_target(g, x) },
                          .attr = { [GELU_EXACT] = t->attr[GELU_EXACT] } };
    graph_add(g, &proto);
    grad_add(g, x, proto.out[0]);
}

/* Wide enough to reach both tails, where the slope is 0 and 1. */
static const struct { i64 R, F; double deviation; bool exact; } shapes[] = {
    { 3, 5, 1, false }, { 17, 131, 3, false }, { 9, 67, 3, true },
};

static bool gelu_example(struct op_example *e, int n)
{
    if (n >= COUNT_OF(shapes))
        return false;
    gelu(e->g, example_normal(e, ROLE_ACTIVATION, e->dtype, shapes[n].R, shapes[n].F,
                              shapes[n].deviation), shapes[n].exact);
    return true;
}

const struct op_info op_gelu = {
    .name = "gelu", .n_in = 1, .n_out = 1, .in_place = 1u << 0, .cheap = true,
    .infer = gelu_infer, .grad = gelu_grad, .cost = gelu_cost, .run_ref = gelu_ref,
    .example = gelu_example,
};

struct tensor *gelu(struct graph *g, struct tensor *x, bool exact)
{
    struct task *t = graph_add(g, &(struct task){ .op = &op_gelu, .in = { x },
                                                  .attr = { [GELU_EXACT] = exact } });
    return t ? t->out[0] : NULL;
}

/* --- gradient ----------------------------------------------------------------------- */

static int gelu_grad_infer(struct graph *g, struct task *t)
{
    struct tensor *dy = t->in[0];
    TRY(kit_matrix(g, t, "dy", dy, KIT_ANY, KIT_ANY));
    TRY(kit_compute_dtype(g, t, "dy", dy));
    TRY(kit_same(g, t, "x", t->in[1], dy));
    TRY(kit_dtype(g, t, "x", t->in[1], dy->dtype));
    if (!t->out[0])
        t->out[0] = graph_like(g, dy, dy->dtype, "gelu_grad");
    TRY(kit_same(g, t, "dx", t->out[0], dy));
    return kit_dtype(g, t, "dx", t->out[0], dy->dtype);
}

static void gelu_grad_cost(const struct task *t, struct cost *c)
{
    kit_elementwise(t, c, 18);
}

static void gelu_grad_ref(const struct task *t, struct run *run)
{
    (void)run;
    for (i64 i = 0; i < tensor_count(t->in[0]); i++)
        tensor_set(t->out[0], i,
                   tensor_get(t->in[0], i) *
                       gelu_slope(tensor_get(t->in[1], i), t->attr[GELU_EXACT] != 0));
}

static bool gelu_grad_example(struct op_example *e, int n)
{
    if (n >= COUNT_OF(shapes))
        return false;
    i64 R = shapes[n].R, F = shapes[n].F;
    struct tensor *dy = example_normal(e, ROLE_ACTIVATION, e->dtype, R, F, 1);
    struct tensor *x = example_normal(e, ROLE_ACTIVATION, e->dtype, R, F, shapes[n].deviation);
    graph_add(e->g, &(struct task){ .op = &op_gelu_grad, .in = { dy, x },
                                    .attr = { [GELU_EXACT] = shapes[n].exact } });
    return true;
}

const struct op_info op_gelu_grad = {
    .name = "gelu_grad", .n_in = 2, .n_out = 1, .in_place = 1u << 0 | 1u << 1,
    .infer = gelu_grad_infer, .cost = gelu_grad_cost, .run_ref = gelu_grad_ref,
    .example = gelu_grad_example,
};
