/* Loss per source of the mixture: sums[s] += (sum of weight nll, sum of weight) over the
 * rows of source s, in ascending order, in double.
 * nll, weights, sources (R)   sums f64 (S,2) */
#include "ops/example.h"
#include "ops/kit.h"

#include <math.h>

static int loss_sums_infer(struct graph *g, struct task *t)
{
    struct tensor *nll = t->in[0];
    TRY(kit_vector(g, t, "nll", nll, KIT_ANY));
    TRY(kit_dtype(g, t, "nll", nll, DTYPE_F32));
    TRY(kit_vector(g, t, "weights", t->in[1], nll->dim[0]));
    TRY(kit_dtype(g, t, "weights", t->in[1], DTYPE_F32));
    TRY(kit_vector(g, t, "sources", t->in[2], nll->dim[0]));
    TRY(kit_dtype(g, t, "sources", t->in[2], DTYPE_I32));
    TRY(kit_matrix(g, t, "sums", t->out[0], KIT_ANY, 2));
    return kit_dtype(g, t, "sums", t->out[0], DTYPE_F64);
}

static void loss_sums_cost(const struct task *t, struct cost *c)
{
    kit_elementwise(t, c, 3);
}

/* Multiples of 2^-24 below 2^29 need 53 bits: doubles add them without rounding. */
static double term(const struct task *t, double x)
{
    return t->attr[LOSS_GRAIN] != 0 ? ldexp(rint(ldexp(x, 24)), -24) : x;
}

static void loss_sums_ref(const struct task *t, struct run *run)
{
    const struct tensor *sums = t->out[0];
    const i32 *sources = t->in[2]->data;
    for (i64 i = 0; i < tensor_count(sums) && !run_accumulates(t, run); i++)
        tensor_set(sums, i, 0);
    for (i64 r = 0; r < t->in[0]->dim[0]; r++) {
        double weight = tensor_get(t->in[1], r);
        assert(sources[r] >= 0 && sources[r] < sums->dim[0]);
        kit_sum(sums, 2 * sources[r], term(t, weight * tensor_get(t->in[0], r)), true);
        kit_sum(sums, 2 * sources[r] + 1, term(t, weight), true);
    }
}

static bool loss_sums_example(struct op_example *e, int n)
{
    static const i64 shapes[][2] = { { 7, 1 }, { 1031, 3 } };
    if (n >= COUNT_OF(shapes))
        return false;
    i64 R = shapes[n][0], S = shapes[n][1];
    struct tensor *nll = example_vector(e, ROLE_INPUT, R, 3, 1);
    struct tensor *weights = example_vector(e, ROLE_INPUT, R, 1, 0.2);
    struct tensor *sources = example_integers(e, R, S);
    loss_sums(e->g, nll, weights, sources,
              example_normal(e, ROLE_RESULT, DTYPE_F64, S, 2, 1));
    return true;
}

const struct op_info op_loss_sums = {
    .name = "loss_sums", .n_in = 3, .n_out = 1, .accumulates = true,
    .infer = loss_sums_infer, .cost = loss_sums_cost, .run_ref = loss_sums_ref,
    .example = loss_sums_example,
};

void loss_sums(struct graph *g, struct tensor *nll, struct tensor *weights,
               struct tensor *sources, struct tensor *sums)
{
    graph_add(g, &(struct task){ .op = &op_loss_sums, .in = { nll, weights, sources },
                                 .out = { sums } });
}
