/* What a step that is looked at more closely measures (train/health.h), in two small ops:
 *   sum_changes  sum (x - before)^2, or sum x^2, in the fixed tree of sum_squares
 *   raise        largest = max(largest, every x) */
#include "ops/example.h"
#include "ops/kit.h"

#include <math.h>

enum { BLOCK = 65536, LANES = 16 };

static int sum_changes_infer(struct graph *g, struct task *t)
{
    if (!t->in[0])
        return graph_fail(g, t, "x is missing");
    TRY(kit_dtype(g, t, "x", t->in[0], DTYPE_F32));
    if (t->in[1]) {
        TRY(kit_same(g, t, "before", t->in[1], t->in[0]));
        TRY(kit_dtype(g, t, "before", t->in[1], DTYPE_F32));
    }
    if (!t->out[0])
        t->out[0] = graph_vector(g, DTYPE_F64, 1, "sum_changes");
    TRY(kit_vector(g, t, "sum", t->out[0], 1));
    return kit_dtype(g, t, "sum", t->out[0], DTYPE_F64);
}

static void sum_changes_cost(const struct task *t, struct cost *c)
{
    kit_elementwise(t, c, t->in[1] ? 3 : 2);
}

/* Blocks [first, last), halved until one is left; lanes as in sum_squares. */
static double tree(const struct task *t, i64 first, i64 last)
{
    const struct tensor *x = t->in[0], *before = t->in[1];
    if (last - first > 1) {
        i64 middle = first + (last - first) / 2;
        return tree(t, first, middle) + tree(t, middle, last);
    }
    double lane[LANES] = { 0 }, sum = 0;
    for (i64 i = first * BLOCK; i < i64_min(last * BLOCK, tensor_count(x)); i++) {
        double change = tensor_get(x, i) - (before ? tensor_get(before, i) : 0);
        lane[i % LANES] += change * change;
    }
    for (int k = 0; k < LANES; k++)
        sum += lane[k];
    return sum;
}

static void sum_changes_ref(const struct task *t, struct run *run)
{
    (void)run;
    tensor_set(t->out[0], 0, tree(t, 0, ceil_div(tensor_count(t->in[0]), BLOCK)));
}

static bool sum_changes_example(struct op_example *e, int n)
{
    static const i64 counts[] = { 5, BLOCK + 4465, 3 * BLOCK + 1031, 0 };
    if (n >= COUNT_OF(counts))
        return false;
    struct tensor *x = example_vector(e, ROLE_PARAM, counts[n], 0, 1);
    sum_changes(e->g, x, n == 2 ? NULL : example_vector(e, ROLE_INPUT, counts[n], 0, 1), NULL,
                NULL);
    return true;
}

const struct op_info op_sum_changes = {
    .name = "sum_changes", .n_in = 2, .n_out = 1,
    .infer = sum_changes_infer, .cost = sum_changes_cost, .run_ref = sum_changes_ref,
    .example = sum_changes_example,
};

struct tensor *sum_changes(struct graph *g, struct tensor *x, struct tensor *before,
                           struct tensor *sum, struct tensor *when)
{
    struct task *t = graph_add(g, &(struct task){ .op = &op_sum_changes, .in = { x, before },
                                                  .out = { sum }, .when = when,
                                                  .phase = PHASE_UPDATE });
    return t ? t->out[0] : NULL;
}

/* --- raise -------------------------------------------------------------------------- */

static int raise_infer(struct graph *g, struct task *t)
{
    if (!t->in[0])
        return graph_fail(g, t, "x is missing");
    TRY(kit_dtype(g, t, "x", t->in[0], DTYPE_F32));
    TRY(kit_vector(g, t, "largest", t->out[0], 1));
    return kit_dtype(g, t, "largest", t->out[0], DTYPE_F64);
}

static void raise_cost(const struct task *t, struct cost *c)
{
    kit_elementwise(t, c, 1);
}

static void raise_ref(const struct task *t, struct run *run)
{
    double largest = tensor_get(t->out[0], 0);
    (void)run;
    for (i64 i = 0; i < tensor_count(t->in[0]); i++)
        largest = fmax(largest, tensor_get(t->in[0], i));
    tensor_set(t->out[0], 0, largest);
}

/* Raised; left as it is; the last one decides. */
static bool raise_example(struct op_example *e, int n)
{
    static const struct { i64 count; double before; } examples[] = {
        { 3001, -INFINITY }, { 77, 9 }, { 1, -10 },
    };
    if (n >= COUNT_OF(examples))
        return false;
    raise_to(e->g, example_vector(e, ROLE_INPUT, examples[n].count, 0, 1),
             example_scalar(e, ROLE_STATE, DTYPE_F64, examples[n].before), NULL);
    return true;
}

const struct op_info op_raise = {
    .name = "raise", .n_in = 1, .n_out = 1,
    .infer = raise_infer, .cost = raise_cost, .run_ref = raise_ref, .example = raise_example,
};

struct task *raise_to(struct graph *g, struct tensor *x, struct tensor *largest,
                      struct tensor *when)
{
    return graph_add(g, &(struct task){ .op = &op_raise, .in = { x }, .out = { largest },
                                        .when = when });
}
