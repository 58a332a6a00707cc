/* SwiGLU (Shazeer 2020, eq. 6): y = silu(a) b, with x = [a | b] from one fused product.
 *   silu(a) = a s,  s = 1 / (1 + exp(-a))
 *   da = dy b s (1 + a (1 - s)),  db = dy a s
 * x, dx (R,2F)   y, dy (R,F) */
#include "ops/example.h"
#include "ops/kit.h"

#include <math.h>

static double sigmoid(double a)
{
    return 1 / (1 + exp(-a));
}

static int swiglu_infer(struct graph *g, struct task *t)
{
    struct tensor *x = t->in[0];
    TRY(kit_matrix(g, t, "x", x, KIT_ANY, KIT_ANY));
    TRY(kit_compute_dtype(g, t, "x", x));
    if (x->dim[1] % 2 != 0)
        return graph_fail(g, t, "x (%s) has %lld columns, expected an even number: a and b",
                          x->name, (long long)x->dim[1]);
    if (!t->out[0])
        t->out[0] = graph_matrix(g, x->dtype, x->dim[0], x->dim[1] / 2, "swiglu");
    TRY(kit_matrix(g, t, "y", t->out[0], x->dim[0], x->dim[1] / 2));
    return kit_dtype(g, t, "y", t->out[0], x->dtype);
}

static void swiglu_cost(const struct task *t, struct cost *c)
{
    kit_elementwise(t, c, 2.5); /* 5 per output: negate, exp, add, divide, multiply */
}

static void swiglu_ref(const struct task *t, struct run *run)
{
    const struct tensor *x = t->in[0];
    i64 R = x->dim[0], F = x->dim[1] / 2;
    (void)run;
    for (i64 r = 0; r < R; r++) {
        for (i64 f = 0; f < F; f++) {
            double a = tensor_get(x, r * 2 * F + f), b = tensor_get(x, r * 2 * F + F + f);
            tensor_set(t->out[0], r * F + f, a * sigmoid(a) * b);
        }
    }
}

static void swiglu_grad(struct graph *g, const struct task *t)
{
    struct tensor *x = t->in[0], *dy = grad_of(g, t->out[0]);
    if (!dy || !grad_needed(g, x))
        return;
    struct task proto = { .op = &op_swiglu_grad, .phase = PHASE_INPUT_GRAD,
                          .in = { dy, x }, .out = { grad_target(g, x) } };
    graph_add(g, &proto);
    grad_add(g, x, proto.out[0]);
}

static const struct { i64 R, F; double deviation; } shapes[] = {
    { 3, 5, 1 }, { 17, 131, 3 }, { 65, 32, 1 },
};

static bool swiglu_example(struct op_example *e, int n)
{
    if (n >= COUNT_OF(shapes))
        return false;
    swiglu(e->g, example_normal(e, ROLE_ACTIVATION, e->dtype, shapes[n].R, 2 * shapes[n].F,
                                shapes[n].deviation));
    return true;
}

const struct op_info op_swiglu = {
    .name = "swiglu", .n_in = 1, .n_out = 1, .cheap = true,
    .infer = swiglu_infer, .grad = swiglu_grad, .cost = swiglu_cost, .run_ref = swiglu_ref,
    .example = swiglu_example,
};

struct tensor *swiglu(struct graph *g, struct tensor *x)
{
    struct task *t = graph_add(g, &(struct task){ .op = &op_swiglu, .in = { x } });
    return t ? t->out[0] : NULL;
}

/* --- gradient ----------------------------------------------------------------------- */

static int swiglu_grad_infer(struct graph *g, struct task *t)
{
    struct tensor *dy = t->in[0], *x = t->in[1];
    TRY(kit_matrix(g, t, "dy", dy, KIT_ANY, KIT_ANY));
    TRY(kit_compute_dtype(g, t, "dy", dy));
    TRY(kit_matrix(g, t, "x", x, dy->dim[0], 2 * dy->dim[1]));
    TRY(kit_dtype(g, t, "x", x, dy->dtype));
    if (!t->out[0])
        t->out[0] = graph_like(g, x, x->dtype, "swiglu_grad");
    TRY(kit_same(g, t, "dx", t->out[0], x));
    return kit_dtype(g, t, "dx", t->out[0], x->dtype);
}

static void swiglu_grad_cost(const struct task *t, struct cost *c)
{
    kit_elementwise(t, c, 11);
}

static void swiglu_grad_ref(const struct task *t, struct run *run)
{
    const struct tensor *dy = t->in[0], *x = t->in[1];
    i64 R = dy->dim[0], F = dy->dim[1];
    (void)run;
    for (i64 r = 0; r < R; r++) {
        for (i64 f = 0; f < F; f++) {
            i64 at = r * 2 * F + f;
            double a = tensor_get(x, at), b = tensor_get(x, at + F), s = sigmoid(a);
            double d = tensor_get(dy, r * F + f);
            tensor_set(t->out[0], at, d * b * s * (1 + a * (1 - s)));
            tensor_set(t->out[0], at + F, d * a * s);
        }
    }
}

static bool swiglu_grad_example(struct op_example *e, int n)
{
    if (n >= COUNT_OF(shapes))
        return false;
    i64 R = shapes[n].R, F = shapes[n].F;
    struct tensor *dy = example_normal(e, ROLE_ACTIVATION, e->dtype, R, F, 1);
    struct tensor *x = example_normal(e, ROLE_ACTIVATION, e->dtype, R, 2 * F,
                                      shapes[n].deviation);
    graph_add(e->g, &(struct task){ .op = &op_swiglu_grad, .in = { dy, x } });
    return true;
}

/* dx may take the place of x: a and b are read before da and db are written. */
const struct op_info op_swiglu_grad = {
    .name = "swiglu_grad", .n_in = 2, .n_out = 1, .in_place = 1u << 1,
    .infer = swiglu_grad_infer, .cost = swiglu_grad_cost, .run_ref = swiglu_grad_ref,
    .example = swiglu_grad_example,
};
