/* The matrix products: y = x w^T + bias + residual, and its two gradients.
 *
 * x (R,K)   w (N,K)   bias (N)   residual, y, dy (R,N)
 *   dx = dy w            (R,K)   what earlier layers wait for: phase I
 *   dw = dy^T x          (N,K)   free to move behind: phase W
 *   dbias = sum_r dy[r]  (N)
 *   dresidual = dy, passed on without a copy.
 * The order of summation over K (over R in dw) must not depend on tiling or threads; with
 * leaves it is that of a tree which ranks may share. */
#include "ops/example.h"
#include "ops/kit.h"

/* The pieces of a sum of n terms make it up. */
static int check_leaves(struct graph *g, struct task *t, i64 n)
{
    i64 leaves = (i64)t->attr[LINEAR_LEAVES], terms = 0;
    for (int p = 0; p < 3; p++)
        terms += (i64)t->attr[LINEAR_PIECES + p];
    if (leaves > 0 && terms != n)
        return graph_fail(g, t, "its leaves cover %lld of %lld terms", (long long)terms,
                          (long long)n);
    for (int p = 0; p < 3; p++)
        if (leaves * t->attr[LINEAR_SHARES + p] < t->attr[LINEAR_PIECES + p] && leaves > 0)
            return graph_fail(g, t, "%lld leaves of %g terms do not cover %g", (long long)leaves,
                              t->attr[LINEAR_SHARES + p], t->attr[LINEAR_PIECES + p]);
    return OK;
}

/* --- y ------------------------------------------------------------------------------ */

static int linear_infer(struct graph *g, struct task *t)
{
    struct tensor *x = t->in[0], *w = t->in[1], *bias = t->in[2], *residual = t->in[3];
    TRY(kit_matrix(g, t, "x", x, KIT_ANY, KIT_ANY));
    TRY(kit_compute_dtype(g, t, "x", x));
    TRY(kit_matrix(g, t, "w", w, KIT_ANY, x->dim[1]));
    TRY(kit_dtype(g, t, "w", w, x->dtype));
    TRY(check_leaves(g, t, x->dim[1]));
    i64 R = x->dim[0], N = w->dim[0];
    enum dtype dtype = t->attr[LINEAR_OUT_F32] != 0 ? kit_wide(x) : x->dtype;
    if (bias)
        TRY(kit_wide_vector(g, t, "bias", bias, N, x));
    if (residual) {
        TRY(kit_matrix(g, t, "residual", residual, R, N));
        TRY(kit_dtype(g, t, "residual", residual, dtype));
    }
    if (!t->out[0])
        t->out[0] = graph_matrix(g, dtype, R, N, "linear");
    TRY(kit_matrix(g, t, "y", t->out[0], R, N));
    return kit_dtype(g, t, "y", t->out[0], dtype);
}

static void linear_cost(const struct task *t, struct cost *c)
{
    double R = (double)t->in[0]->dim[0], K = (double)t->in[0]->dim[1];
    double N = (double)t->in[1]->dim[0];
    kit_traffic(t, c);
    c->model_flops = 2 * R * N * K;
    c->flops = c->model_flops + R * N * ((t->in[2] != NULL) + (t->in[3] != NULL));
}

static void linear_ref(const struct task *t, struct run *run)
{
    const struct tensor *x = t->in[0], *w = t->in[1], *bias = t->in[2], *residual = t->in[3];
    i64 R = x->dim[0], K = x->dim[1], N = w->dim[0];
    (void)run;
    for (i64 r = 0; r < R; r++) {
        for (i64 n = 0; n < N; n++) {
            double sum = 0;
            for (i64 k = 0; k < K; k++)
                sum += tensor_get(x, r * K + k) * tensor_get(w, n * K + k);
            if (bias)
                sum += tensor_get(bias, n);
            if (residual)
                sum += tensor_get(residual, r * N + n);
            tensor_set(t->out[0], r * N + n, sum);
        }
    }
}

static void linear_grad(struct graph *g, const struct task *t)
{
    struct tensor *x = t->in[0], *w = t->in[1], *bias = t->in[2], *residual = t->in[3];
    struct tensor *dy = grad_of(g, t->out[0]);
    if (!dy)
        return;
    if (residual && grad_needed(g, residual))
        grad_add(g, residual, dy);
    if (grad_needed(g, x)) {
        struct task proto = { .op = &op_linear_dx, .phase = PHASE_INPUT_GRAD,
                              .in = { dy, w, grad_take(g, x) }, .out = { grad_target(g, x) } };
        graph_add(g, &proto);
        grad_add(g, x, proto.out[0]);
    }
    struct tensor *dbias = bias ? bias->grad : NULL;
    if (w->grad || dbias)
        graph_add(g, &(struct task){ .op = &op_linear_dw, .phase = PHASE_WEIGHT_GRAD,
                                     .in = { dy, x }, .out = { w->grad, dbias } });
}

/* So many even leaves of one piece; 0: none. */
static void example_leaves(struct task *t, i64 terms, i64 leaves)
{
    t->attr[LINEAR_LEAVES] = (double)leaves;
    t->attr[LINEAR_PIECES] = leaves ? (double)terms : 0;
    t->attr[LINEAR_SHARES] = leaves ? (double)ceil_div(terms, leaves) : 0;
}

/* Sizes that leave remainders in every blocking, and one larger than any block of K. */
static bool linear_example(struct op_example *e, int n)
{
    static const struct { i64 R, K, N; bool bias, residual, wide; i64 leaves; } shapes[] = {
        { 5, 7, 3, true, true, false, 0 },
        { 33, 65, 50, false, true, false, 0 },
        { 67, 600, 37, true, false, false, 0 },
        { 1, 130, 129, false, false, true, 0 },
        { 33, 96, 50, true, true, false, 4 },
    };
    if (n >= COUNT_OF(shapes))
        return false;
    i64 R = shapes[n].R, K = shapes[n].K, N = shapes[n].N;
    struct tensor *x = example_normal(e, ROLE_ACTIVATION, e->dtype, R, K, 1);
    struct tensor *w = example_weight(e, e->dtype, N, K, 0.5);
    if (shapes[n].wide) {
        linear_f32(e->g, x, w);
        return true;
    }
    struct tensor *bias = shapes[n].bias ? example_vector(e, ROLE_PARAM, N, 0, 1) : NULL;
    struct tensor *residual = shapes[n].residual
        ? example_normal(e, ROLE_ACTIVATION, e->dtype, R, N, 1) : NULL;
    struct task proto = { .op = &op_linear, .in = { x, w, bias, residual } };
    example_leaves(&proto, K, shapes[n].leaves);
    graph_add(e->g, &proto);
    return true;
}

const struct op_info op_linear = {
    .name = "linear", .n_in = 4, .n_out = 1,
    .infer = linear_infer, .grad = linear_grad, .cost = linear_cost, .run_ref = linear_ref,
    .example = linear_example,
};

struct tensor *linear(struct graph *g, struct tensor *x, struct tensor *w,
                      struct tensor *bias, struct tensor *residual)
{
    struct task *t = graph_add(g, &(struct task){ .op = &op_linear,
                                                  .in = { x, w, bias, residual } });
    return t ? t->out[0] : NULL;
}

struct tensor *linear_f32(struct graph *g, struct tensor *x, struct tensor *w)
{
    struct task *t = graph_add(g, &(struct task){ .op = &op_linear, .in = { x, w },
                                                  .attr = { [LINEAR_OUT_F32] = 1 } });
    return t ? t->out[0] : NULL;
}

/* --- dx ----------------------------------------------------------------------------- */

static int linear_dx_infer(struct graph *g, struct task *t)
{
    struct tensor *dy = t->in[0], *w = t->in[1], *addend = t->in[2];
    TRY(kit_matrix(g, t, "dy", dy, KIT_ANY, KIT_ANY));
    TRY(kit_compute_dtype(g, t, "dy", dy));
    TRY(kit_matrix(g, t, "w", w, dy->dim[1], KIT_ANY));
    TRY(kit_dtype(g, t, "w", w, dy->dtype));
    TRY(check_leaves(g, t, dy->dim[1]));
    i64 R = dy->dim[0], K = w->dim[1];
    if (!t->out[0])
        t->out[0] = graph_matrix(g, dy->dtype, R, K, "linear_dx");
    TRY(kit_matrix(g, t, "dx", t->out[0], R, K));
    if (t->out[0]->dtype != DTYPE_F32)
        TRY(kit_dtype(g, t, "dx", t->out[0], dy->dtype));
    if (!addend)
        return OK;
    TRY(kit_matrix(g, t, "addend", addend, R, K));
    return kit_dtype(g, t, "addend", addend, t->out[0]->dtype);
}

static void linear_dx_cost(const struct task *t, struct cost *c)
{
    double R = (double)t->in[0]->dim[0], N = (double)t->in[0]->dim[1];
    double K = (double)t->in[1]->dim[1];
    kit_traffic(t, c);
    c->model_flops = 2 * R * N * K;
    c->flops = c->model_flops + (t->in[2] ? R * K : 0);
}

static void linear_dx_ref(const struct task *t, struct run *run)
{
    const struct tensor *dy = t->in[0], *w = t->in[1], *addend = t->in[2];
    i64 R = dy->dim[0], N = dy->dim[1], K = w->dim[1];
    (void)run;
    for (i64 r = 0; r < R; r++) {
        for (i64 k = 0; k < K; k++) {
            double sum = 0;
            for (i64 n = 0; n < N; n++)
                sum += tensor_get(dy, r * N + n) * tensor_get(w, n * K + k);
            if (addend)
                sum += tensor_get(addend, r * K + k);
            tensor_set(t->out[0], r * K + k, sum);
        }
    }
}

static bool linear_dx_example(struct op_example *e, int n)
{
    static const struct { i64 R, N, K; bool addend; i64 leaves; } shapes[] = {
        { 5, 3, 7, true, 0 },        { 33, 50, 65, false, 0 },
        { 67, 600, 37, true, 0 },    { 1, 129, 130, false, 0 },
        { 33, 61, 50, true, 8 },
    };
    if (n >= COUNT_OF(shapes))
        return false;
    i64 R = shapes[n].R, N = shapes[n].N, K = shapes[n].K;
    struct tensor *dy = example_normal(e, ROLE_ACTIVATION, e->dtype, R, N, 1);
    struct tensor *w = example_weight(e, e->dtype, N, K, 0.5);
    struct tensor *addend = shapes[n].addend
        ? example_normal(e, ROLE_ACTIVATION, e->dtype, R, K, 1) : NULL;
    struct task proto = { .op = &op_linear_dx, .in = { dy, w, addend } };
    example_leaves(&proto, N, shapes[n].leaves);
    graph_add(e->g, &proto);
    return true;
}

const struct op_info op_linear_dx = {
    .name = "linear_dx", .n_in = 3, .n_out = 1,
    .infer = linear_dx_infer, .cost = linear_dx_cost, .run_ref = linear_dx_ref,
    .example = linear_dx_example,
};

/* --- dw, dbias ---------------------------------------------------------------------- */

static int linear_dw_infer(struct graph *g, struct task *t)
{
    struct tensor *dy = t->in[0], *x = t->in[1];
    TRY(kit_matrix(g, t, "dy", dy, KIT_ANY, KIT_ANY));
    TRY(kit_compute_dtype(g, t, "dy", dy));
    TRY(kit_matrix(g, t, "x", x, dy->dim[0], KIT_ANY));
    TRY(kit_dtype(g, t, "x", x, dy->dtype));
    TRY(check_leaves(g, t, dy->dim[0]));
    i64 N = dy->dim[1], K = x->dim[1];
    if (!t->out[0]) /* a frozen weight beside a bias that learns */
        t->out[0] = graph_matrix(g, kit_wide(dy), N, K, "linear_dw");
    TRY(kit_matrix(g, t, "dw", t->out[0], N, K));
    TRY(kit_dtype(g, t, "dw", t->out[0], kit_wide(dy)));
    return t->out[1] ? kit_wide_vector(g, t, "dbias", t->out[1], N, dy) : OK;
}

static void linear_dw_cost(const struct task *t, struct cost *c)
{
    double R = (double)t->in[0]->dim[0], N = (double)t->in[0]->dim[1];
    double K = (double)t->in[1]->dim[1];
    kit_traffic(t, c);
    c->model_flops = 2 * R * N * K;
    c->flops = c->model_flops + (t->out[1] ? R * N : 0);
}

static void linear_dw_ref(const struct task *t, struct run *run)
{
    const struct tensor *dy = t->in[0], *x = t->in[1];
    i64 R = dy->dim[0], N = dy->dim[1], K = x->dim[1];
    bool keep = run_accumulates(t, run);
    for (i64 n = 0; n < N; n++) {
        for (i64 k = 0; k < K; k++) {
            double sum = 0;
            for (i64 r = 0; r < R; r++)
                sum += tensor_get(dy, r * N + n) * tensor_get(x, r * K + k);
            kit_sum(t->out[0], n * K + k, sum, keep);
        }
        double column = 0;
        for (i64 r = 0; r < R && t->out[1]; r++)
            column += tensor_get(dy, r * N + n);
        if (t->out[1])
            kit_sum(t->out[1], n, column, keep);
    }
}

static bool linear_dw_example(struct op_example *e, int n)
{
    static const struct { i64 R, N, K; bool bias; i64 leaves; } shapes[] = {
        { 5, 3, 7, true, 0 },     { 33, 50, 65, false, 0 },  { 600, 67, 37, true, 0 },
        { 1, 129, 130, true, 0 }, { 6 * 31, 67, 37, true, 6 },
    };
    if (n >= COUNT_OF(shapes))
        return false;
    i64 R = shapes[n].R, N = shapes[n].N, K = shapes[n].K;
    struct tensor *dy = example_normal(e, ROLE_ACTIVATION, e->dtype, R, N, 1);
    struct tensor *x = example_normal(e, ROLE_ACTIVATION, e->dtype, R, K, 1);
    struct tensor *dbias = shapes[n].bias ? example_vector(e, ROLE_GRAD, N, 0, 1) : NULL;
    struct task proto = { .op = &op_linear_dw, .in = { dy, x }, .out = { NULL, dbias } };
    example_leaves(&proto, R, shapes[n].leaves);
    graph_add(e->g, &proto);
    return true;
}

const struct op_info op_linear_dw = {
    .name = "linear_dw", .n_in = 2, .n_out = 2, .accumulates = true,
    .infer = linear_dw_infer, .cost = linear_dw_cost, .run_ref = linear_dw_ref,
    .example = linear_dw_example,
};
