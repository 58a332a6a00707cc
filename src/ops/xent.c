/* Cross-entropy of one chunk of rows, which forms its own gradient while the logits are at
 * hand (see ops.h for the formula). With p = softmax(z):
 *   loss = sum_r weight_r inv_weight (nll_r + zcoef lse_r^2)
 *   dloss/dz = weight inv_weight (p - onehot(target) + 2 zcoef lse p)
 * The z-loss term keeps log-sum-exp near 0 (PaLM, Chowdhery et al. 2022, section 5).
 * z (r,V)   targets, weights, nll, lse (r)   inv_weight (1)   dz (r,V) */
#include "ops/example.h"
#include "ops/kit.h"

#include <math.h>

static int xent_infer(struct graph *g, struct task *t)
{
    struct tensor *z = t->in[0], *dz = t->out[2];
    i64 vocab = (i64)t->attr[XENT_VOCAB];
    TRY(kit_matrix(g, t, "z", z, KIT_ANY, KIT_ANY));
    TRY(kit_dtype(g, t, "z", z, kit_wide(z)));
    i64 r = z->dim[0];
    if (vocab < 1 || vocab > z->dim[1])
        return graph_fail(g, t, "vocab %lld is outside 1..%lld, the columns of z (%s)",
                          (long long)vocab, (long long)z->dim[1], z->name);
    TRY(kit_vector(g, t, "targets", t->in[1], r));
    TRY(kit_dtype(g, t, "targets", t->in[1], DTYPE_I32));
    TRY(kit_wide_vector(g, t, "weights", t->in[2], r, z));
    TRY(kit_wide_vector(g, t, "inv_weight", t->in[3], 1, z));
    if (!t->out[0])
        t->out[0] = graph_vector(g, z->dtype, r, "xent.nll");
    if (!t->out[1])
        t->out[1] = graph_vector(g, z->dtype, r, "xent.lse");
    TRY(kit_wide_vector(g, t, "nll", t->out[0], r, z));
    TRY(kit_wide_vector(g, t, "lse", t->out[1], r, z));
    if (!dz)
        return OK;
    TRY(kit_matrix(g, t, "dz", dz, r, z->dim[1]));
    return kit_compute_dtype(g, t, "dz", dz);
}

static void xent_cost(const struct task *t, struct cost *c)
{
    /* maximum, minus, exp, sum; and two for dz */
    kit_elementwise(t, c, t->out[2] ? 6 : 4);
}

static double row_lse(const struct tensor *z, i64 at, i64 vocab)
{
    double most = -INFINITY, sum = 0;
    for (i64 v = 0; v < vocab; v++)
        most = fmax(most, tensor_get(z, at + v));
    for (i64 v = 0; v < vocab; v++)
        sum += exp(tensor_get(z, at + v) - most);
    return most + log(sum);
}

static void row_gradient(const struct task *t, i64 r, double factor, double lse)
{
    const struct tensor *z = t->in[0];
    i64 V = z->dim[1], vocab = (i64)t->attr[XENT_VOCAB];
    i64 target = ((const i32 *)t->in[1]->data)[r];
    double slope = 1 + 2 * t->attr[XENT_ZCOEF] * lse;
    for (i64 v = 0; v < V; v++) {
        double d = 0;
        if (factor != 0 && v < vocab)
            d = factor * (slope * exp(tensor_get(z, r * V + v) - lse) - (v == target));
        tensor_set(t->out[2], r * V + v, d);
    }
}

static void xent_ref(const struct task *t, struct run *run)
{
    const struct tensor *z = t->in[0];
    i64 V = z->dim[1], vocab = (i64)t->attr[XENT_VOCAB];
    (void)run;
    for (i64 r = 0; r < z->dim[0]; r++) {
        double weight = tensor_get(t->in[2], r), lse = 0, nll = 0;
        if (weight != 0) {
            i64 target = ((const i32 *)t->in[1]->data)[r];
            assert(target >= 0 && target < vocab);
            lse = row_lse(z, r * V, vocab);
            nll = lse - tensor_get(z, r * V + target);
        }
        tensor_set(t->out[0], r, nll);
        tensor_set(t->out[1], r, lse);
        if (t->out[2])
            row_gradient(t, r, weight * tensor_get(t->in[3], 0), lse);
    }
}

static void xent_grad(struct graph *g, const struct task *t)
{
    if (t->out[2])
        grad_add(g, t->in[0], t->out[2]);
}

/* The scalar whose gradient dz is: what finite differences are taken of. */
static double xent_loss(const struct task *t)
{
    double loss = 0;
    for (i64 r = 0; r < t->in[0]->dim[0]; r++) {
        double lse = tensor_get(t->out[1], r);
        loss += tensor_get(t->in[2], r) * tensor_get(t->in[3], 0) *
                (tensor_get(t->out[0], r) + t->attr[XENT_ZCOEF] * lse * lse);
    }
    return loss;
}

/* Padded columns, rows of weight 0 whose target is nonsense, z-loss, logits whose
 * exponentials overflow a single, no gradient. */
static bool xent_example(struct op_example *e, int n)
{
    static const struct { i64 r, V, vocab; double zcoef, deviation; bool grad; } shapes[] = {
        { 5, 7, 7, 0, 1, true },          { 33, 128, 101, 1e-2, 3, true },
        { 3, 1031, 1030, 0, 3, true },    { 5, 37, 33, 0, 60, true },
        { 9, 50, 47, 0, 3, false },
    };
    if (n >= COUNT_OF(shapes))
        return false;
    i64 r = shapes[n].r;
    if (e->dtype == DTYPE_F64 && !shapes[n].grad)
        return false; /* nothing to differentiate */
    struct tensor *z = example_normal(e, ROLE_ACTIVATION, DTYPE_F32, r, shapes[n].V,
                                      shapes[n].deviation);
    struct tensor *targets = example_integers(e, r, shapes[n].vocab);
    struct tensor *weights = example_vector(e, ROLE_INPUT, r, 1, 0.3);
    for (i64 i = 1; i < r; i += 3) {
        tensor_set(weights, i, 0);
        tensor_set(targets, i, -100);
    }
    struct tensor *nll = example_vector(e, ROLE_RESULT, r, 0, 1);
    xent(e->g, z, targets, weights, example_vector(e, ROLE_INPUT, 1, 0.7, 0), nll,
         shapes[n].grad ? (int)e->dtype : -1, shapes[n].vocab, shapes[n].zcoef);
    e->loss = xent_loss;
    return true;
}

const struct op_info op_xent = {
    .name = "xent", .in_place = 1u << 0, .in_place_out = 2, .n_in = 4, .n_out = 3,
    .infer = xent_infer, .grad = xent_grad, .cost = xent_cost, .run_ref = xent_ref,
    .example = xent_example,
};

void xent(struct graph *g, struct tensor *z, struct tensor *targets, struct tensor *weights,
          struct tensor *inv_weight, struct tensor *nll, int grad_dtype, i64 vocab,
          double zcoef)
{
    struct tensor *dz = NULL;
    if (g->rc < 0)
        return;
    if (grad_dtype >= 0)
        dz = graph_like(g, z, (enum dtype)grad_dtype, "xent.dz");
    graph_add(g, &(struct task){ .op = &op_xent, .in = { z, targets, weights, inv_weight },
                                 .out = { nll, NULL, dz },
                                 .attr = { [XENT_ZCOEF] = zcoef,
                                           [XENT_VOCAB] = (double)vocab } });
}
