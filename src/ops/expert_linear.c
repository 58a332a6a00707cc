/* Products of each expert's rows with its matrix, and their gradients.
 *
 * x (M,K)   w (E N,K)   begin (E + 1)   y, dy (M,N); rows [begin[e], begin[e + 1]) meet rows
 * [e N, (e + 1) N) of w:
 *   y = x w_e^T,   dx = dy w_e,   dw_e = dy_e^T x_e
 * How many rows an expert has is known when the task runs. An element is a function of its row,
 * and in dw of the expert's rows in their order and leaves, so it does not depend on the others. */
#include "ops/example.h"
#include "ops/kit.h"

static i64 leaves_of(const struct task *t)
{
    return i64_max(1, (i64)t->attr[EXPERT_LEAVES]);
}

static i64 experts_of(const struct task *t)
{
    return (t->in[2]->dim[0] - 1) / leaves_of(t);
}

/* Where the rows of expert e begin. */
static i64 first_row(const struct task *t, i64 e)
{
    return ((const i32 *)t->in[2]->data)[e * leaves_of(t)];
}

static int check_begin(struct graph *g, const struct task *t, const struct tensor *begin)
{
    TRY(kit_vector(g, t, "begin", begin, KIT_ANY));
    TRY(kit_dtype(g, t, "begin", begin, DTYPE_I32));
    if (begin->dim[0] < 2 || (begin->dim[0] - 1) % leaves_of(t))
        return graph_fail(g, t, "%lld begins are not %lld for each expert",
                          (long long)begin->dim[0] - 1, (long long)leaves_of(t));
    return OK;
}

/* Costs of a product over the rows that are expected to be in use: factor columns each. */
static void product_cost(const struct task *t, struct cost *c, double N, double K)
{
    double M = (double)t->in[0]->dim[0];
    double rows = t->attr[EXPERT_ROWS] > 0 ? t->attr[EXPERT_ROWS] : M;
    kit_traffic(t, c);
    c->model_flops = c->flops = 2 * rows * N * K;
}

/* The example's rows: (M,columns) behind a router's choices; capacity leaves rows unused. */
static const struct { i64 R, k, E, T, capacity, leaf, K, N; } shapes[] = {
    { 9, 2, 3, 3, 0, 3, 7, 5 },
    { 40, 2, 9, 40, 0, 0, 65, 37 },
    { 70, 3, 4, 35, 20, 0, 33, 50 },
    { 1, 2, 6, 1, 0, 0, 40, 9 },
    { 60, 2, 4, 5, 0, 5, 34, 21 },
};

static i64 example_leaves(int n)
{
    return shapes[n].leaf > 0 ? shapes[n].R / shapes[n].leaf : 1;
}

static struct tensor *example_begin_of(struct op_example *e, int n, i64 *rows)
{
    struct tensor *z = example_normal(e, ROLE_INPUT, DTYPE_F32, shapes[n].R, shapes[n].E, 1);
    struct router_config c = { .k = shapes[n].k, .T = 1, .scale = 1, .normalise = true };
    struct tensor *choice = router(e->g, z, NULL, &c).choice;
    struct expert_rows order = expert_order(e->g, choice, shapes[n].E, shapes[n].T,
                                            shapes[n].capacity, shapes[n].leaf);
    *rows = order.source->dim[0];
    return order.begin;
}

/* --- y ------------------------------------------------------------------------------ */

static int expert_linear_infer(struct graph *g, struct task *t)
{
    struct tensor *x = t->in[0], *w = t->in[1];
    TRY(kit_matrix(g, t, "x", x, KIT_ANY, KIT_ANY));
    TRY(kit_compute_dtype(g, t, "x", x));
    TRY(kit_matrix(g, t, "w", w, KIT_ANY, x->dim[1]));
    TRY(kit_dtype(g, t, "w", w, x->dtype));
    TRY(check_begin(g, t, t->in[2]));
    i64 E = experts_of(t);
    if (w->dim[0] % E)
        return graph_fail(g, t, "w (%s) has %lld rows, which %lld experts cannot share evenly",
                          w->name, (long long)w->dim[0], (long long)E);
    enum dtype dtype = t->attr[EXPERT_OUT_F32] != 0 ? kit_wide(x) : x->dtype;
    if (!t->out[0])
        t->out[0] = graph_matrix(g, dtype, x->dim[0], w->dim[0] / E, "expert_linear");
    TRY(kit_matrix(g, t, "y", t->out[0], x->dim[0], w->dim[0] / E));
    return kit_dtype(g, t, "y", t->out[0], dtype);
}

static void expert_linear_cost(const struct task *t, struct cost *c)
{
    product_cost(t, c, (double)t->out[0]->dim[1], (double)t->in[0]->dim[1]);
}

static void zero_unused(const struct task *t)
{
    const struct tensor *y = t->out[0];
    for (i64 i = first_row(t, experts_of(t)) * y->dim[1]; i < tensor_count(y); i++)
        tensor_set(y, i, 0);
}

static void expert_linear_ref(const struct task *t, struct run *run)
{
    const struct tensor *x = t->in[0], *w = t->in[1];
    i64 K = x->dim[1], N = t->out[0]->dim[1];
    (void)run;
    zero_unused(t);
    for (i64 e = 0; e < experts_of(t); e++)
        for (i64 r = first_row(t, e); r < first_row(t, e + 1); r++)
            for (i64 n = 0; n < N; n++) {
                double sum = 0;
                for (i64 k = 0; k < K; k++)
                    sum += tensor_get(x, r * K + k) * tensor_get(w, (e * N + n) * K + k);
                tensor_set(t->out[0], r * N + n, sum);
            }
}

/* Of a gradient to which each rank along tp gave what its share of the matrices makes. */
static struct tensor *sum_over_shares(struct graph *g, const struct task *t, struct tensor *dx)
{
    if (t->attr[EXPERT_PARTS] <= 1)
        return dx;
    struct task *sum = graph_add(g, &(struct task){
        .op = &op_all_reduce, .lane = LANE_TP, .phase = PHASE_INPUT_GRAD, .in = { dx },
        .attr = { [COLLECTIVE_SIZE] = t->attr[EXPERT_PARTS],
                  [COLLECTIVE_RANK] = t->attr[EXPERT_PART], [COLLECTIVE_OUTER] = 1 } });
    if (!sum || sum->out[0]->dtype == t->in[0]->dtype)
        return sum ? sum->out[0] : NULL;
    return cast(g, sum->out[0], t->in[0]->dtype);
}

static void expert_linear_grad(struct graph *g, const struct task *t)
{
    struct tensor *x = t->in[0], *w = t->in[1], *dy = grad_of(g, t->out[0]);
    if (!dy)
        return;
    if (dy->dtype != w->dtype) /* the sum of ranks was f32 */
        dy = cast(g, dy, w->dtype);
    if (grad_needed(g, x)) {
        struct task proto = { .op = &op_expert_linear_dx, .phase = PHASE_INPUT_GRAD,
                              .in = { dy, w, t->in[2] }, .out = { grad_target(g, x) },
                              .attr = { t->attr[EXPERT_ROWS], t->attr[EXPERT_LEAVES] } };
        graph_add(g, &proto);
        grad_add(g, x, sum_over_shares(g, t, proto.out[0]));
    }
    if (w->grad)
        graph_add(g, &(struct task){ .op = &op_expert_linear_dw, .phase = PHASE_WEIGHT_GRAD,
                                     .in = { dy, x, t->in[2] }, .out = { w->grad },
                                     .attr = { t->attr[EXPERT_ROWS], t->attr[EXPERT_LEAVES] } });
}

static bool expert_linear_example(struct op_example *e, int n)
{
    if (n >= COUNT_OF(shapes))
        return false;
    i64 M, K = shapes[n].K, N = shapes[n].N;
    struct tensor *begin = example_begin_of(e, n, &M);
    struct tensor *x = example_normal(e, ROLE_ACTIVATION, e->dtype, M, K, 1);
    expert_linear(e->g, x, example_weight(e, e->dtype, shapes[n].E * N, K, 0.5), begin, M,
                  example_leaves(n));
    return true;
}

const struct op_info op_expert_linear = {
    .name = "expert_linear", .n_in = 3, .n_out = 1,
    .infer = expert_linear_infer, .grad = expert_linear_grad, .cost = expert_linear_cost,
    .run_ref = expert_linear_ref, .example = expert_linear_example,
};

struct tensor *expert_linear(struct graph *g, struct tensor *x, struct tensor *w,
                             struct tensor *begin, i64 expected, i64 leaves)
{
    struct task *t = graph_add(g, &(struct task){
        .op = &op_expert_linear, .in = { x, w, begin },
        .attr = { [EXPERT_ROWS] = (double)expected, [EXPERT_LEAVES] = (double)leaves } });
    return t ? t->out[0] : NULL;
}

/* --- dx ----------------------------------------------------------------------------- */

static int expert_linear_dx_infer(struct graph *g, struct task *t)
{
    struct tensor *dy = t->in[0], *w = t->in[1];
    TRY(kit_matrix(g, t, "dy", dy, KIT_ANY, KIT_ANY));
    TRY(kit_compute_dtype(g, t, "dy", dy));
    TRY(check_begin(g, t, t->in[2]));
    TRY(kit_matrix(g, t, "w", w, experts_of(t) * dy->dim[1], KIT_ANY));
    TRY(kit_dtype(g, t, "w", w, dy->dtype));
    if (!t->out[0])
        t->out[0] = graph_matrix(g, dy->dtype, dy->dim[0], w->dim[1], "expert_linear_dx");
    TRY(kit_matrix(g, t, "dx", t->out[0], dy->dim[0], w->dim[1]));
    return t->out[0]->dtype == kit_wide(dy) ? OK : kit_dtype(g, t, "dx", t->out[0], dy->dtype);
}

static void expert_linear_dx_cost(const struct task *t, struct cost *c)
{
    product_cost(t, c, (double)t->in[0]->dim[1], (double)t->in[1]->dim[1]);
}

static void expert_linear_dx_ref(const struct task *t, struct run *run)
{
    const struct tensor *dy = t->in[0], *w = t->in[1];
    i64 N = dy->dim[1], K = w->dim[1];
    (void)run;
    zero_unused(t);
    for (i64 e = 0; e < experts_of(t); e++)
        for (i64 r = first_row(t, e); r < first_row(t, e + 1); r++)
            for (i64 k = 0; k < K; k++) {
                double sum = 0;
                for (i64 n = 0; n < N; n++)
                    sum += tensor_get(dy, r * N + n) * tensor_get(w, (e * N + n) * K + k);
                tensor_set(t->out[0], r * K + k, sum);
            }
}

static bool expert_linear_dx_example(struct op_example *e, int n)
{
    if (n >= COUNT_OF(shapes))
        return false;
    i64 M, K = shapes[n].K, N = shapes[n].N;
    struct tensor *begin = example_begin_of(e, n, &M);
    struct tensor *dy = example_normal(e, ROLE_ACTIVATION, e->dtype, M, N, 1);
    struct tensor *w = example_weight(e, e->dtype, shapes[n].E * N, K, 0.5);
    graph_add(e->g, &(struct task){ .op = &op_expert_linear_dx, .in = { dy, w, begin },
                                    .attr = { [EXPERT_LEAVES] = (double)example_leaves(n) } });
    return true;
}

const struct op_info op_expert_linear_dx = {
    .name = "expert_linear_dx", .n_in = 3, .n_out = 1,
    .infer = expert_linear_dx_infer, .cost = expert_linear_dx_cost,
    .run_ref = expert_linear_dx_ref, .example = expert_linear_dx_example,
};

/* --- dw ----------------------------------------------------------------------------- */

static int expert_linear_dw_infer(struct graph *g, struct task *t)
{
    struct tensor *dy = t->in[0], *x = t->in[1];
    TRY(kit_matrix(g, t, "dy", dy, KIT_ANY, KIT_ANY));
    TRY(kit_compute_dtype(g, t, "dy", dy));
    TRY(kit_matrix(g, t, "x", x, dy->dim[0], KIT_ANY));
    TRY(kit_dtype(g, t, "x", x, dy->dtype));
    TRY(check_begin(g, t, t->in[2]));
    i64 rows = experts_of(t) * dy->dim[1];
    if (!t->out[0])
        t->out[0] = graph_matrix(g, kit_wide(dy), rows, x->dim[1], "expert_linear_dw");
    TRY(kit_matrix(g, t, "dw", t->out[0], rows, x->dim[1]));
    return kit_dtype(g, t, "dw", t->out[0], kit_wide(dy));
}

static void expert_linear_dw_cost(const struct task *t, struct cost *c)
{
    product_cost(t, c, (double)t->in[0]->dim[1], (double)t->in[1]->dim[1]);
}

static void expert_linear_dw_ref(const struct task *t, struct run *run)
{
    const struct tensor *dy = t->in[0], *x = t->in[1];
    i64 N = dy->dim[1], K = x->dim[1];
    bool keep = run_accumulates(t, run);
    for (i64 e = 0; e < experts_of(t); e++)
        for (i64 n = 0; n < N; n++)
            for (i64 k = 0; k < K; k++) {
                double sum = 0;
                for (i64 r = first_row(t, e); r < first_row(t, e + 1); r++)
                    sum += tensor_get(dy, r * N + n) * tensor_get(x, r * K + k);
                kit_sum(t->out[0], (e * N + n) * K + k, sum, keep);
            }
}

static bool expert_linear_dw_example(struct op_example *e, int n)
{
    if (n >= COUNT_OF(shapes))
        return false;
    i64 M;
    struct tensor *begin = example_begin_of(e, n, &M);
    struct tensor *dy = example_normal(e, ROLE_ACTIVATION, e->dtype, M, shapes[n].N, 1);
    struct tensor *x = example_normal(e, ROLE_ACTIVATION, e->dtype, M, shapes[n].K, 1);
    graph_add(e->g, &(struct task){ .op = &op_expert_linear_dw, .in = { dy, x, begin },
                                    .attr = { [EXPERT_LEAVES] = (double)example_leaves(n) } });
    return true;
}

const struct op_info op_expert_linear_dw = {
    .name = "expert_linear_dw", .n_in = 3, .n_out = 1, .accumulates = true,
    .infer = expert_linear_dw_infer, .cost = expert_linear_dw_cost,
    .run_ref = expert_linear_dw_ref, .example = expert_linear_dw_example,
};
