/* What ends a product whose sum was taken over ranks, and a change of dtype.
 *
 *   finish_sum  y = (residual + bias) + x, x in f32, rounded once, to y's dtype
 *   cast        y = x
 *
 * x, residual, y (R,N)   bias (N)
 *   dx = dresidual = dy, passed on without a copy;  dbias = column sums of dy */
#include "ops/example.h"
#include "ops/kit.h"

static int finish_sum_infer(struct graph *g, struct task *t)
{
    struct tensor *x = t->in[0], *bias = t->in[1], *residual = t->in[2];
    TRY(kit_matrix(g, t, "x", x, KIT_ANY, KIT_ANY));
    TRY(kit_dtype(g, t, "x", x, kit_wide(x)));
    TRY(kit_same(g, t, "residual", residual, x));
    TRY(kit_compute_dtype(g, t, "residual", residual));
    if (bias)
        TRY(kit_wide_vector(g, t, "bias", bias, x->dim[1], x));
    if (!t->out[0])
        t->out[0] = graph_like(g, residual, residual->dtype, "finish_sum");
    TRY(kit_same(g, t, "y", t->out[0], residual));
    return kit_dtype(g, t, "y", t->out[0], residual->dtype);
}

static void finish_sum_cost(const struct task *t, struct cost *c)
{
    kit_elementwise(t, c, 1 + (t->in[1] != NULL));
}

static void finish_sum_ref(const struct task *t, struct run *run)
{
    const struct tensor *x = t->in[0], *bias = t->in[1], *residual = t->in[2];
    i64 N = x->dim[1];
    (void)run;
    for (i64 i = 0; i < tensor_count(x); i++)
        tensor_set(t->out[0], i,
                   tensor_get(residual, i) + (bias ? tensor_get(bias, i % N) : 0) +
                       tensor_get(x, i));
}

static void finish_sum_grad(struct graph *g, const struct task *t)
{
    struct tensor *dy = grad_of(g, t->out[0]), *bias = t->in[1];
    if (!dy)
        return;
    if (grad_needed(g, t->in[2]))
        grad_add(g, t->in[2], dy);
    if (grad_needed(g, t->in[0]))
        grad_add(g, t->in[0], dy);
    if (bias && bias->grad)
        graph_add(g, &(struct task){ .op = &op_column_sums, .phase = PHASE_WEIGHT_GRAD,
                                     .in = { dy }, .out = { bias->grad } });
}

static const i64 shapes[][2] = { { 3, 5 }, { 17, 131 }, { 129, 96 } };

static bool finish_sum_example(struct op_example *e, int n)
{
    if (n >= COUNT_OF(shapes))
        return false;
    i64 R = shapes[n][0], N = shapes[n][1];
    struct tensor *x = example_normal(e, ROLE_ACTIVATION, DTYPE_F32, R, N, 1);
    struct tensor *bias = n == 1 ? NULL : example_vector(e, ROLE_PARAM, N, 0, 1);
    finish_sum(e->g, x, bias, example_normal(e, ROLE_ACTIVATION, e->dtype, R, N, 1));
    return true;
}

const struct op_info op_finish_sum = {
    .name = "finish_sum", .n_in = 3, .n_out = 1, .in_place = 1u << 0 | 1u << 2,
    .infer = finish_sum_infer, .grad = finish_sum_grad, .cost = finish_sum_cost,
    .run_ref = finish_sum_ref, .example = finish_sum_example,
};

struct tensor *finish_sum(struct graph *g, struct tensor *x, struct tensor *bias,
                          struct tensor *residual)
{
    struct task *t = graph_add(g, &(struct task){ .op = &op_finish_sum,
                                                  .in = { x, bias, residual } });
    return t ? t->out[0] : NULL;
}

/* --- column sums -------------------------------------------------------------------- */

static int column_sums_infer(struct graph *g, struct task *t)
{
    struct tensor *x = t->in[0];
    TRY(kit_matrix(g, t, "x", x, KIT_ANY, KIT_ANY));
    TRY(kit_compute_dtype(g, t, "x", x));
    if (!t->out[0])
        t->out[0] = graph_vector(g, kit_wide(x), x->dim[1], "column_sums");
    return kit_row_sums(g, t, "sums", t->out[0], x->dim[1], x);
}

static void column_sums_cost(const struct task *t, struct cost *c)
{
    kit_elementwise(t, c, 1);
}

static void column_sums_ref(const struct task *t, struct run *run)
{
    const struct tensor *x = t->in[0];
    i64 N = x->dim[1], groups = kit_groups(t->out[0]), each = x->dim[0] / groups;
    for (i64 i = 0; i < groups * N; i++) {
        double sum = 0;
        for (i64 r = i / N * each; r < (i / N + 1) * each; r++)
            sum += tensor_get(x, r * N + i % N);
        kit_sum(t->out[0], i, sum, run_accumulates(t, run));
    }
}

/* The last one in three groups. */
static bool column_sums_example(struct op_example *e, int n)
{
    if (n >= COUNT_OF(shapes))
        return false;
    i64 R = shapes[n][0], N = shapes[n][1];
    struct tensor *x = example_normal(e, ROLE_ACTIVATION, e->dtype, R, N, 1);
    struct tensor *sums = n == 2 ? example_normal(e, ROLE_GRAD, kit_wide(x), 3, N, 1)
                                 : example_vector(e, ROLE_GRAD, N, 0, 1);
    graph_add(e->g, &(struct task){ .op = &op_column_sums, .in = { x }, .out = { sums } });
    return true;
}

const struct op_info op_column_sums = {
    .name = "column_sums", .n_in = 1, .n_out = 1, .accumulates = true,
    .infer = column_sums_infer, .cost = column_sums_cost, .run_ref = column_sums_ref,
    .example = column_sums_example,
};

/* --- cast --------------------------------------------------------------------------- */

static int cast_infer(struct graph *g, struct task *t)
{
    struct tensor *x = t->in[0];
    enum dtype dtype = (enum dtype)t->attr[CAST_DTYPE];
    TRY(kit_compute_dtype(g, t, "x", x));
    if (!t->out[0])
        t->out[0] = graph_like(g, x, dtype, "cast");
    TRY(kit_same(g, t, "y", t->out[0], x));
    return kit_dtype(g, t, "y", t->out[0], dtype);
}

static void cast_cost(const struct task *t, struct cost *c)
{
    kit_elementwise(t, c, 0);
}

static void cast_ref(const struct task *t, struct run *run)
{
    (void)run;
    for (i64 i = 0; i < tensor_count(t->in[0]); i++)
        tensor_set(t->out[0], i, tensor_get(t->in[0], i));
}

static void cast_grad(struct graph *g, const struct task *t)
{
    struct tensor *dy = grad_of(g, t->out[0]);
    if (dy && grad_needed(g, t->in[0]))
        grad_add(g, t->in[0], cast(g, dy, t->in[0]->dtype));
}

static bool cast_example(struct op_example *e, int n)
{
    if (n >= COUNT_OF(shapes))
        return false;
    i64 R = shapes[n][0], N = shapes[n][1];
    bool up = n == 1 && e->dtype != DTYPE_F64;
    struct tensor *x = example_normal(e, ROLE_ACTIVATION, up ? e->dtype : DTYPE_F32, R, N, 1);
    cast(e->g, x, up ? DTYPE_F32 : e->dtype);
    return true;
}

const struct op_info op_cast = {
    .name = "cast", .n_in = 1, .n_out = 1, .cheap = true, .infer = cast_infer, .grad = cast_grad,
    .cost = cast_cost, .run_ref = cast_ref, .example = cast_example,
};

struct tensor *cast(struct graph *g, struct tensor *x, enum dtype dtype)
{
    struct task *t = graph_add(g, &(struct task){ .op = &op_cast, .in = { x },
                                                  .attr = { [CAST_DTYPE] = (double)dtype } });
    return t ? t->out[0] : NULL;
}
