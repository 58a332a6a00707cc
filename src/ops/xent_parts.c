/* Cross-entropy in three steps, for a vocabulary that is spread over ranks: what op_xent does,
 * cut where ranks must agree (Shoeybi et al. 2019, section 3: logits are never gathered).
 *
 *   xent_peak    peak[r] = largest logit here                 then: maximum over ranks
 *   xent_sum     sums[r] = (sum of exp(z - peak), z[target])  then: sum over ranks
 *   xent_finish  lse = peak + log(sum), nll = lse - z[target], and dz as in xent.c
 *
 * z (r,V) is a share of the columns, XENT_FIRST the first column's place in the whole
 * vocabulary, XENT_VOCAB how many of the columns here exist. z[target] is 0 where the target
 * is another rank's. XENT_LEAVES says in which parts the exponentials are summed, so that
 * ranks with some of the leaves each come to the sum of one rank with all. */
#include "ops/example.h"
#include "ops/kit.h"

#include <math.h>

static i64 vocab_here(const struct task *t)
{
    return (i64)t->attr[XENT_VOCAB];
}

static int check_logits(struct graph *g, struct task *t)
{
    struct tensor *z = t->in[0];
    TRY(kit_matrix(g, t, "z", z, KIT_ANY, KIT_ANY));
    TRY(kit_dtype(g, t, "z", z, kit_wide(z)));
    if (vocab_here(t) < 0 || vocab_here(t) > z->dim[1])
        return graph_fail(g, t, "vocab %lld is outside 0..%lld, the columns of z (%s)",
                          (long long)vocab_here(t), (long long)z->dim[1], z->name);
    return OK;
}

/* --- peak --------------------------------------------------------------------------- */

static int peak_infer(struct graph *g, struct task *t)
{
    TRY(check_logits(g, t));
    if (!t->out[0])
        t->out[0] = graph_vector(g, t->in[0]->dtype, t->in[0]->dim[0], "xent.peak");
    return kit_wide_vector(g, t, "peak", t->out[0], t->in[0]->dim[0], t->in[0]);
}

static void peak_cost(const struct task *t, struct cost *c)
{
    kit_elementwise(t, c, 1);
}

static void peak_ref(const struct task *t, struct run *run)
{
    const struct tensor *z = t->in[0];
    (void)run;
    for (i64 r = 0; r < z->dim[0]; r++) {
        double most = -INFINITY;
        for (i64 v = 0; v < vocab_here(t); v++)
            most = fmax(most, tensor_get(z, r * z->dim[1] + v));
        tensor_set(t->out[0], r, most);
    }
}

/* Shapes that all three steps are tried with; the share begins at column `first`. */
static const struct { i64 r, V, vocab, first; } shapes[] = {
    { 5, 7, 7, 0 }, { 33, 128, 101, 64 }, { 3, 1031, 1030, 0 },
};

static struct tensor *example_logits(struct op_example *e, int n)
{
    return example_normal(e, ROLE_ACTIVATION, DTYPE_F32, shapes[n].r, shapes[n].V, 3);
}

static bool peak_example(struct op_example *e, int n)
{
    if (n >= COUNT_OF(shapes))
        return false;
    xent_peak(e->g, example_logits(e, n), shapes[n].vocab);
    return true;
}

const struct op_info op_xent_peak = {
    .name = "xent_peak", .n_in = 1, .n_out = 1, .infer = peak_infer, .cost = peak_cost,
    .run_ref = peak_ref, .example = peak_example,
};

struct tensor *xent_peak(struct graph *g, struct tensor *z, i64 vocab)
{
    struct task *t = graph_add(g, &(struct task){ .op = &op_xent_peak, .in = { z },
                                                  .attr = { [XENT_VOCAB] = (double)vocab } });
    return t ? t->out[0] : NULL;
}

/* --- sum ---------------------------------------------------------------------------- */

static int sum_infer(struct graph *g, struct task *t)
{
    struct tensor *z = t->in[0];
    TRY(check_logits(g, t));
    TRY(kit_wide_vector(g, t, "peak", t->in[1], z->dim[0], z));
    TRY(kit_vector(g, t, "targets", t->in[2], z->dim[0]));
    TRY(kit_dtype(g, t, "targets", t->in[2], DTYPE_I32));
    if (t->attr[XENT_LEAVES] > 0 &&
        t->attr[XENT_LEAVES] * t->attr[XENT_SHARE] < (double)vocab_here(t))
        return graph_fail(g, t, "%g leaves of %g columns do not cover %lld", t->attr[XENT_LEAVES],
                          t->attr[XENT_SHARE], (long long)vocab_here(t));
    if (!t->out[0])
        t->out[0] = graph_matrix(g, z->dtype, z->dim[0], 2, "xent.sums");
    return kit_matrix(g, t, "sums", t->out[0], z->dim[0], 2);
}

static void sum_cost(const struct task *t, struct cost *c)
{
    kit_elementwise(t, c, 3); /* minus, exp, sum */
}

/* The target's column here, or -1. */
static i64 target_here(const struct task *t, const struct tensor *targets, i64 r)
{
    i64 at = ((const i32 *)targets->data)[r] - (i64)t->attr[XENT_FIRST];
    return at >= 0 && at < vocab_here(t) ? at : -1;
}

static void sum_ref(const struct task *t, struct run *run)
{
    const struct tensor *z = t->in[0];
    i64 V = z->dim[1];
    (void)run;
    for (i64 r = 0; r < z->dim[0]; r++) {
        double sum = 0, peak = tensor_get(t->in[1], r);
        i64 target = target_here(t, t->in[2], r);
        for (i64 v = 0; v < vocab_here(t); v++)
            sum += exp(tensor_get(z, r * V + v) - peak);
        tensor_set(t->out[0], 2 * r, sum);
        tensor_set(t->out[0], 2 * r + 1, target < 0 ? 0 : tensor_get(z, r * V + target));
    }
}

static struct tensor *example_targets(struct op_example *e, int n)
{
    struct tensor *targets = example_integers(e, shapes[n].r, shapes[n].first + shapes[n].vocab);
    tensor_set(targets, 0, -100); /* of a row that does not count */
    return targets;
}

static bool sum_example(struct op_example *e, int n)
{
    if (n >= COUNT_OF(shapes))
        return false;
    struct task proto = {
        .op = &op_xent_sum,
        .in = { example_logits(e, n), example_vector(e, ROLE_INPUT, shapes[n].r, 9, 1),
                example_targets(e, n) },
        .attr = { [XENT_VOCAB] = (double)shapes[n].vocab, [XENT_FIRST] = (double)shapes[n].first },
    };
    if (n == 1) { /* of which the last one is empty */
        proto.attr[XENT_LEAVES] = 4;
        proto.attr[XENT_SHARE] = 34;
    }
    graph_add(e->g, &proto);
    return true;
}

const struct op_info op_xent_sum = {
    .name = "xent_sum", .n_in = 3, .n_out = 1, .infer = sum_infer, .cost = sum_cost,
    .run_ref = sum_ref, .example = sum_example,
};

struct tensor *xent_sum(struct graph *g, struct tensor *z, struct tensor *peak,
                        struct tensor *targets, i64 first, i64 vocab)
{
    struct task *t = graph_add(g, &(struct task){ .op = &op_xent_sum,
                                                  .in = { z, peak, targets },
                                                  .attr = { [XENT_VOCAB] = (double)vocab,
                                                            [XENT_FIRST] = (double)first } });
    return t ? t->out[0] : NULL;
}

/* --- finish ------------------------------------------------------------------------- */

static int finish_infer(struct graph *g, struct task *t)
{
    struct tensor *z = t->in[0];
    TRY(check_logits(g, t));
    i64 r = z->dim[0];
    TRY(kit_vector(g, t, "targets", t->in[1], r));
    TRY(kit_dtype(g, t, "targets", t->in[1], DTYPE_I32));
    TRY(kit_wide_vector(g, t, "weights", t->in[2], r, z));
    TRY(kit_wide_vector(g, t, "inv_weight", t->in[3], 1, z));
    TRY(kit_wide_vector(g, t, "peak", t->in[4], r, z));
    TRY(kit_matrix(g, t, "sums", t->in[5], r, 2));
    if (!t->out[0])
        t->out[0] = graph_vector(g, z->dtype, r, "xent.nll");
    TRY(kit_wide_vector(g, t, "nll", t->out[0], r, z));
    if (!t->out[1])
        return OK;
    TRY(kit_matrix(g, t, "dz", t->out[1], r, z->dim[1]));
    return kit_compute_dtype(g, t, "dz", t->out[1]);
}

static void finish_cost(const struct task *t, struct cost *c)
{
    kit_elementwise(t, c, t->out[1] ? 3 : 0);
}

static void finish_row(const struct task *t, i64 r, double factor, double lse)
{
    const struct tensor *z = t->in[0];
    i64 V = z->dim[1], target = target_here(t, t->in[1], r);
    double slope = 1 + 2 * t->attr[XENT_ZCOEF] * lse;
    for (i64 v = 0; v < V; v++) {
        double d = 0;
        if (factor != 0 && v < vocab_here(t))
            d = factor * (slope * exp(tensor_get(z, r * V + v) - lse) - (v == target));
        tensor_set(t->out[1], r * V + v, d);
    }
}

static void finish_ref(const struct task *t, struct run *run)
{
    const struct tensor *sums = t->in[5];
    (void)run;
    for (i64 r = 0; r < t->in[0]->dim[0]; r++) {
        double weight = tensor_get(t->in[2], r);
        double lse = tensor_get(t->in[4], r) + log(tensor_get(sums, 2 * r));
        tensor_set(t->out[0], r, weight != 0 ? lse - tensor_get(sums, 2 * r + 1) : 0);
        if (t->out[1])
            finish_row(t, r, weight * tensor_get(t->in[3], 0), lse);
    }
}

static void finish_grad(struct graph *g, const struct task *t)
{
    if (t->out[1])
        grad_add(g, t->in[0], t->out[1]);
}

/* sums as xent_sum would give them, up to a factor. */
static struct tensor *example_sums(struct op_example *e, int n, const struct tensor *z,
                                   const struct tensor *targets)
{
    struct tensor *sums = example_normal(e, ROLE_INPUT, DTYPE_F32, shapes[n].r, 2, 1);
    for (i64 r = 0; r < shapes[n].r; r++) {
        i64 at = ((const i32 *)targets->data)[r] - shapes[n].first;
        bool here = at >= 0 && at < shapes[n].vocab;
        tensor_set(sums, 2 * r, 1 + fabs(tensor_get(sums, 2 * r)));
        tensor_set(sums, 2 * r + 1, here ? tensor_get(z, r * shapes[n].V + at) : 1);
    }
    return sums;
}

static bool finish_example(struct op_example *e, int n)
{
    if (n >= COUNT_OF(shapes) || e->dtype == DTYPE_F64)
        return false; /* its gradient is checked through op_xent, which it must equal */
    i64 r = shapes[n].r;
    struct tensor *z = example_normal(e, ROLE_INPUT, DTYPE_F32, r, shapes[n].V, 3);
    struct tensor *targets = example_targets(e, n);
    struct tensor *weights = example_vector(e, ROLE_INPUT, r, 1, 0.3);
    tensor_set(weights, 0, 0);
    struct xent_labels labels = { targets, weights, example_vector(e, ROLE_INPUT, 1, 0.7, 0) };
    xent_finish(e->g, z, &labels, example_vector(e, ROLE_INPUT, r, 9, 1),
                example_sums(e, n, z, targets), example_vector(e, ROLE_RESULT, r, 0, 1),
                (int)e->dtype, shapes[n].first, shapes[n].vocab, n == 1 ? 1e-2 : 0);
    return true;
}

const struct op_info op_xent_finish = {
    .name = "xent_finish", .n_in = 6, .n_out = 2, .in_place = 1u << 0, .in_place_out = 1,
    .infer = finish_infer, .grad = finish_grad, .cost = finish_cost, .run_ref = finish_ref,
    .example = finish_example,
};

void xent_finish(struct graph *g, struct tensor *z, const struct xent_labels *labels,
                 struct tensor *peak, struct tensor *sums, struct tensor *nll, int grad_dtype,
                 i64 first, i64 vocab, double zcoef)
{
    struct tensor *dz = NULL;
    if (g->rc < 0)
        return;
    if (grad_dtype >= 0)
        dz = graph_like(g, z, (enum dtype)grad_dtype, "xent.dz");
    graph_add(g, &(struct task){ .op = &op_xent_finish,
                                 .in = { z, labels->targets, labels->weights,
                                         labels->inv_weight, peak, sums },
                                 .out = { nll, dz },
                                 .attr = { [XENT_ZCOEF] = zcoef,
                                           [XENT_VOCAB] = (double)vocab,
                                           [XENT_FIRST] = (double)first } });
}
