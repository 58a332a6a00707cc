/* The global gradient norm and its clip (Pascanu et al. 2013), in three small ops:
 *   sum_squares  one gradient's sum of squares, in a fixed tree over blocks of 65,536
 *                elements, so that the bits do not depend on the number of threads
 *   add_norms    the sum of up to eight of those, in order
 *   clip         norm = sqrt(total); scale = min(1, limit / norm); apply = norm is finite
 * A norm that is not finite gives apply 0 and scale 0: the update is skipped. */
#include "ops/example.h"
#include "ops/kit.h"

#include <math.h>

enum { BLOCK = 65536, LANES = 16 };

static int sum_squares_infer(struct graph *g, struct task *t)
{
    if (!t->in[0])
        return graph_fail(g, t, "grad is missing");
    TRY(kit_dtype(g, t, "grad", t->in[0], DTYPE_F32));
    if (!t->out[0])
        t->out[0] = graph_vector(g, DTYPE_F64, 1, "sum_squares");
    TRY(kit_vector(g, t, "sum", t->out[0], 1));
    return kit_dtype(g, t, "sum", t->out[0], DTYPE_F64);
}

static void sum_squares_cost(const struct task *t, struct cost *c)
{
    kit_elementwise(t, c, 2);
}

/* Blocks [first, last), halved until one is left. Within a block element i goes to lane
 * i % 16, and the lanes are added in order: every backend can sum like that quickly. */
static double tree(const struct tensor *x, i64 first, i64 last)
{
    if (last - first > 1) {
        i64 middle = first + (last - first) / 2;
        return tree(x, first, middle) + tree(x, middle, last);
    }
    double lane[LANES] = { 0 }, sum = 0;
    for (i64 i = first * BLOCK; i < i64_min(last * BLOCK, tensor_count(x)); i++)
        lane[i % LANES] += tensor_get(x, i) * tensor_get(x, i);
    for (int k = 0; k < LANES; k++)
        sum += lane[k];
    return sum;
}

static void sum_squares_ref(const struct task *t, struct run *run)
{
    (void)run;
    tensor_set(t->out[0], 0, tree(t->in[0], 0, ceil_div(tensor_count(t->in[0]), BLOCK)));
}

static bool sum_squares_example(struct op_example *e, int n)
{
    static const i64 counts[] = { 5, BLOCK + 4465, 3 * BLOCK + 1031, 0 };
    if (n >= COUNT_OF(counts))
        return false;
    sum_squares(e->g, example_vector(e, ROLE_GRAD, counts[n], 0, 1));
    return true;
}

const struct op_info op_sum_squares = {
    .name = "sum_squares", .n_in = 1, .n_out = 1,
    .infer = sum_squares_infer, .cost = sum_squares_cost, .run_ref = sum_squares_ref,
    .example = sum_squares_example,
};

struct tensor *sum_squares(struct graph *g, struct tensor *grad)
{
    struct task *t = graph_add(g, &(struct task){ .op = &op_sum_squares, .in = { grad },
                                                  .phase = PHASE_UPDATE });
    return t ? t->out[0] : NULL;
}

/* --- add_norms ---------------------------------------------------------------------- */

static int add_norms_infer(struct graph *g, struct task *t)
{
    for (int i = 0; i < TASK_INS; i++) {
        if (i > 0 && !t->in[i])
            continue;
        TRY(kit_vector(g, t, "part", t->in[i], 1));
        TRY(kit_dtype(g, t, "part", t->in[i], DTYPE_F64));
    }
    if (!t->out[0])
        t->out[0] = graph_vector(g, DTYPE_F64, 1, "add_norms");
    TRY(kit_vector(g, t, "sum", t->out[0], 1));
    return kit_dtype(g, t, "sum", t->out[0], DTYPE_F64);
}

static void add_norms_cost(const struct task *t, struct cost *c)
{
    kit_elementwise(t, c, TASK_INS - 1);
}

static void add_norms_ref(const struct task *t, struct run *run)
{
    double sum = 0;
    (void)run;
    for (int i = 0; i < TASK_INS; i++)
        if (t->in[i])
            sum += tensor_get(t->in[i], 0);
    tensor_set(t->out[0], 0, sum);
}

static bool add_norms_example(struct op_example *e, int n)
{
    static const int counts[] = { 1, 3, TASK_INS };
    if (n >= COUNT_OF(counts))
        return false;
    struct task proto = { .op = &op_add_norms, .phase = PHASE_UPDATE };
    for (int i = 0; i < counts[n]; i++)
        proto.in[i] = example_scalar(e, ROLE_INPUT, DTYPE_F64, 1.0 / (3 + i));
    graph_add(e->g, &proto);
    return true;
}

const struct op_info op_add_norms = {
    .name = "add_norms", .n_in = TASK_INS, .n_out = 1,
    .infer = add_norms_infer, .cost = add_norms_cost, .run_ref = add_norms_ref,
    .example = add_norms_example,
};

struct tensor *total_squares(struct graph *g, struct tensor **parts, i64 n)
{
    struct tensor *total = NULL;
    for (i64 i = 0; i < n;) {
        struct task proto = { .op = &op_add_norms, .phase = PHASE_UPDATE, .in = { total } };
        for (int k = total ? 1 : 0; k < TASK_INS && i < n; k++)
            proto.in[k] = parts[i++];
        struct task *t = graph_add(g, &proto);
        total = t ? t->out[0] : NULL;
    }
    return total;
}

/* --- clip --------------------------------------------------------------------------- */

static int clip_infer(struct graph *g, struct task *t)
{
    static const struct { const char *name; enum dtype dtype; } outs[] = {
        { "norm", DTYPE_F64 }, { "scale", DTYPE_F32 }, { "apply", DTYPE_I32 },
    };
    if (t->attr[CLIP_LIMIT] < 0)
        return graph_fail(g, t, "limit %g is negative, 0 means no limit",
                          t->attr[CLIP_LIMIT]);
    TRY(kit_vector(g, t, "total", t->in[0], 1));
    TRY(kit_dtype(g, t, "total", t->in[0], DTYPE_F64));
    for (int i = 0; i < 3; i++) {
        TRY(kit_vector(g, t, outs[i].name, t->out[i], 1));
        TRY(kit_dtype(g, t, outs[i].name, t->out[i], outs[i].dtype));
    }
    return OK;
}

static void clip_cost(const struct task *t, struct cost *c)
{
    kit_elementwise(t, c, 3);
}

static void clip_ref(const struct task *t, struct run *run)
{
    double norm = sqrt(tensor_get(t->in[0], 0)), limit = t->attr[CLIP_LIMIT];
    bool apply = isfinite(norm);
    double scale = limit > 0 && norm > limit ? limit / norm : 1;
    (void)run;
    tensor_set(t->out[0], 0, norm);
    tensor_set(t->out[1], 0, apply ? scale : 0);
    tensor_set(t->out[2], 0, apply);
}

static bool clip_example(struct op_example *e, int n)
{
    static const double totals[] = { 9, 0.25, 9, INFINITY }, limits[] = { 1, 1, 0, 1 };
    if (n >= COUNT_OF(totals))
        return false;
    clip(e->g, example_scalar(e, ROLE_INPUT, DTYPE_F64, totals[n]), limits[n],
         example_scalar(e, ROLE_RESULT, DTYPE_F64, 0),
         example_scalar(e, ROLE_RESULT, DTYPE_F32, 0),
         example_scalar(e, ROLE_RESULT, DTYPE_I32, 0));
    return true;
}

const struct op_info op_clip = {
    .name = "clip", .n_in = 1, .n_out = 3,
    .infer = clip_infer, .cost = clip_cost, .run_ref = clip_ref, .example = clip_example,
};

void clip(struct graph *g, struct tensor *total, double limit, struct tensor *norm,
          struct tensor *scale, struct tensor *apply)
{
    graph_add(g, &(struct task){ .op = &op_clip, .in = { total },
                                 .out = { norm, scale, apply }, .phase = PHASE_UPDATE,
                                 .attr = { [CLIP_LIMIT] = limit } });
}
