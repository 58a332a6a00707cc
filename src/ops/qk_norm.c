/* Query and key heads normalised as rmsnorm over the head (Qwen3; Henry et al. 2020 is the
 * idea), values copied:
 *   y = x rstd gain,  rstd = 1 / sqrt(mean over D of x^2 + eps), gain_q or gain_k
 *   dx = rstd (dy gain - xhat mean(dy gain xhat)),  dgain = sum over rows and heads dy xhat
 * qkv, y (R, (H+2G) D)   gain_q, gain_k (D)   rstd (R, H+G), saved for backward. */
#include "ops/example.h"
#include "ops/kit.h"

#include <math.h>

/* Checks qkv (in[at]) against the attributes, then the gains behind it. */
static int check_heads(struct graph *g, struct task *t, int at)
{
    i64 H = (i64)t->attr[HEADS_H], G = (i64)t->attr[HEADS_G], D = (i64)t->attr[HEADS_D];
    TRY(kit_heads(g, t, H, G, D));
    TRY(kit_matrix(g, t, "qkv", t->in[at], KIT_ANY, (H + 2 * G) * D));
    TRY(kit_compute_dtype(g, t, "qkv", t->in[at]));
    TRY(kit_wide_vector(g, t, "gain_q", t->in[at + 1], D, t->in[at]));
    return kit_wide_vector(g, t, "gain_k", t->in[at + 2], D, t->in[at]);
}

static int check_rstd(struct graph *g, const struct task *t, const struct tensor *rstd,
                      const struct tensor *qkv)
{
    i64 heads = (i64)t->attr[HEADS_H] + (i64)t->attr[HEADS_G];
    TRY(kit_matrix(g, t, "rstd", rstd, qkv->dim[0], heads));
    return kit_dtype(g, t, "rstd", rstd, kit_wide(qkv));
}

static int qk_norm_infer(struct graph *g, struct task *t)
{
    TRY(check_heads(g, t, 0));
    struct tensor *qkv = t->in[0];
    if (!t->out[0])
        t->out[0] = graph_like(g, qkv, qkv->dtype, "qk_norm");
    if (!t->out[1])
        t->out[1] = graph_matrix(g, kit_wide(qkv), qkv->dim[0],
                                 (i64)t->attr[HEADS_H] + (i64)t->attr[HEADS_G],
                                 "qk_norm.rstd");
    TRY(kit_same(g, t, "y", t->out[0], qkv));
    TRY(kit_dtype(g, t, "y", t->out[0], qkv->dtype));
    return check_rstd(g, t, t->out[1], qkv);
}

static void qk_norm_cost(const struct task *t, struct cost *c)
{
    double H = t->attr[HEADS_H], G = t->attr[HEADS_G];
    kit_elementwise(t, c, 4 * (H + G) / (H + 2 * G));
}

static void qk_norm_ref(const struct task *t, struct run *run)
{
    const struct tensor *x = t->in[0];
    i64 H = (i64)t->attr[HEADS_H], G = (i64)t->attr[HEADS_G], D = (i64)t->attr[HEADS_D];
    (void)run;
    for (i64 r = 0; r < x->dim[0]; r++) {
        i64 row = r * (H + 2 * G) * D;
        for (i64 h = 0; h < H + G; h++) {
            const struct tensor *gain = h < H ? t->in[1] : t->in[2];
            double sum = 0;
            for (i64 i = row + h * D; i < row + (h + 1) * D; i++)
                sum += tensor_get(x, i) * tensor_get(x, i);
            double rstd = 1 / sqrt(sum / (double)D + t->attr[HEADS_EPS]);
            for (i64 d = 0; d < D; d++)
                tensor_set(t->out[0], row + h * D + d,
                           tensor_get(x, row + h * D + d) * rstd * tensor_get(gain, d));
            tensor_set(t->out[1], r * (H + G) + h, rstd);
        }
        for (i64 i = row + (H + G) * D; i < row + (H + 2 * G) * D; i++)
            tensor_set(t->out[0], i, tensor_get(x, i));
    }
}

static void qk_norm_grad(struct graph *g, const struct task *t)
{
    struct tensor *qkv = t->in[0], *gain_q = t->in[1], *gain_k = t->in[2];
    struct tensor *dy = grad_of(g, t->out[0]);
    bool need = grad_needed(g, qkv);
    if (!dy || (!need && !gain_q->grad && !gain_k->grad))
        return;
    struct task proto = { .op = &op_qk_norm_grad, .phase = PHASE_INPUT_GRAD,
                          .in = { dy, qkv, gain_q, gain_k, t->out[1] },
                          .out = { need ? grad_target(g, qkv) : NULL, gain_q->grad,
                                   gain_k->grad } };
    for (int i = 0; i <= HEADS_EPS; i++)
        proto.attr[i] = t->attr[i];
    graph_add(g, &proto);
    if (need)
        grad_add(g, qkv, proto.out[0]);
}

/* The size of x in the second example is such that eps matters. */
static const struct { i64 R; int H, G, D; double deviation, eps; int groups, leaves; } shapes[] = {
    { 3, 2, 2, 6, 1, 1e-5, 0, 0 },  { 19, 6, 2, 24, 0.01, 1e-4, 0, 0 },
    { 5, 3, 1, 64, 2, 1e-6, 0, 0 }, { 12, 8, 4, 17, 1, 1e-5, 3, 2 },
};

static bool qk_norm_example(struct op_example *e, int n)
{
    if (n >= COUNT_OF(shapes))
        return false;
    int H = shapes[n].H, G = shapes[n].G, D = shapes[n].D;
    struct tensor *qkv = example_normal(e, ROLE_ACTIVATION, e->dtype, shapes[n].R,
                                        (H + 2 * G) * D, shapes[n].deviation);
    struct tensor *gain_q = example_vector(e, ROLE_PARAM, D, 1, 0.3);
    struct tensor *gain_k = example_vector(e, ROLE_PARAM, D, 1, 0.3);
    qk_norm(e->g, qkv, gain_q, gain_k, H, G, D, shapes[n].eps);
    return true;
}

const struct op_info op_qk_norm = {
    .name = "qk_norm", .n_in = 3, .n_out = 2, .in_place = 1u << 0,
    .infer = qk_norm_infer, .grad = qk_norm_grad, .cost = qk_norm_cost,
    .run_ref = qk_norm_ref, .example = qk_norm_example,
};

struct tensor *qk_norm(struct graph *g, struct tensor *qkv, struct tensor *gain_q,
                       struct tensor *gain_k, int H, int G, int D, double eps)
{
    struct task *t = graph_add(
        g, &(struct task){ .op = &op_qk_norm, .in = { qkv, gain_q, gain_k },
                           .attr = { [HEADS_H] = H, [HEADS_G] = G, [HEADS_D] = D,
                                     [HEADS_EPS] = eps } });
    return t ? t->out[0] : NULL;
}

/* --- gradient ----------------------------------------------------------------------- */

/* (D), or (groups of rows x leaves of heads, D). */
static int check_gain_sums(struct graph *g, const struct task *t, const char *what,
                           const struct tensor *sums)
{
    i64 D = (i64)t->attr[HEADS_D], leaves = (i64)t->attr[HEADS_LEAVES];
    const struct tensor *qkv = t->in[1];
    if (leaves == 0 || sums->rank != 2)
        return kit_wide_vector(g, t, what, sums, D, qkv);
    TRY(kit_matrix(g, t, what, sums, KIT_ANY, D));
    i64 groups = sums->dim[0] / leaves;
    if (groups < 1 || groups * leaves != sums->dim[0] || qkv->dim[0] % groups ||
        (i64)t->attr[HEADS_H] % leaves || (i64)t->attr[HEADS_G] % leaves)
        return graph_fail(g, t, "%s: %lld rows and %g, %g heads do not make %lld equal parts",
                          what, (long long)qkv->dim[0], t->attr[HEADS_H], t->attr[HEADS_G],
                          (long long)sums->dim[0]);
    return kit_dtype(g, t, what, sums, kit_wide(qkv));
}

static int qk_norm_grad_infer(struct graph *g, struct task *t)
{
    struct tensor *dy = t->in[0], *qkv = t->in[1];
    i64 D = (i64)t->attr[HEADS_D];
    TRY(check_heads(g, t, 1));
    if (!dy)
        return graph_fail(g, t, "dy is missing");
    TRY(kit_same(g, t, "dy", dy, qkv));
    TRY(kit_dtype(g, t, "dy", dy, qkv->dtype));
    TRY(check_rstd(g, t, t->in[4], qkv));
    if (!t->out[0])
        t->out[0] = graph_like(g, qkv, qkv->dtype, "qk_norm_grad");
    for (int i = 1; i <= 2; i++) {
        if (!t->out[i]) /* a frozen gain */
            t->out[i] = graph_vector(g, kit_wide(qkv), D, "qk_norm_grad.dgain");
        TRY(check_gain_sums(g, t, i == 1 ? "dgain_q" : "dgain_k", t->out[i]));
    }
    TRY(kit_same(g, t, "dqkv", t->out[0], qkv));
    return kit_dtype(g, t, "dqkv", t->out[0], qkv->dtype);
}

static void qk_norm_grad_cost(const struct task *t, struct cost *c)
{
    double H = t->attr[HEADS_H], G = t->attr[HEADS_G];
    kit_elementwise(t, c, 9 * (H + G) / (H + 2 * G));
}

/* One head of one row, elements [at, at + D). */
static void head_dx(const struct task *t, i64 at, i64 D, const struct tensor *gain,
                    double rstd)
{
    const struct tensor *dy = t->in[0], *x = t->in[1];
    double mean = 0;
    for (i64 d = 0; d < D; d++)
        mean += tensor_get(dy, at + d) * tensor_get(gain, d) * tensor_get(x, at + d) * rstd /
                (double)D;
    for (i64 d = 0; d < D; d++) {
        double scaled = tensor_get(dy, at + d) * tensor_get(gain, d);
        tensor_set(t->out[0], at + d,
                   rstd * (scaled - tensor_get(x, at + d) * rstd * mean));
    }
}

/* dgain of `count` heads from `first` on, a row of dgain per group of rows and leaf of heads. */
static void heads_dgain(const struct task *t, const struct tensor *dgain, i64 first, i64 count,
                        bool keep)
{
    const struct tensor *dy = t->in[0], *x = t->in[1], *rstd = t->in[4];
    i64 D = (i64)t->attr[HEADS_D], heads = rstd->dim[1], columns = x->dim[1];
    i64 leaves = i64_max(1, (i64)t->attr[HEADS_LEAVES]);
    i64 groups = dgain->rank == 2 ? dgain->dim[0] / leaves : 1, each = x->dim[0] / groups;
    if (dgain->rank == 1)
        leaves = 1;
    for (i64 i = 0; i < groups * leaves * D; i++) {
        i64 group = i / D / leaves, leaf = i / D % leaves, d = i % D;
        double sum = 0;
        for (i64 r = group * each; r < (group + 1) * each; r++)
            for (i64 h = first + leaf * count / leaves; h < first + (leaf + 1) * count / leaves;
                 h++)
                sum += tensor_get(dy, r * columns + h * D + d) *
                       tensor_get(x, r * columns + h * D + d) *
                       tensor_get(rstd, r * heads + h);
        kit_sum(dgain, i, sum, keep);
    }
}

static void qk_norm_grad_ref(const struct task *t, struct run *run)
{
    i64 H = (i64)t->attr[HEADS_H], G = (i64)t->attr[HEADS_G], D = (i64)t->attr[HEADS_D];
    bool keep = run_accumulates(t, run);
    heads_dgain(t, t->out[1], 0, H, keep);
    heads_dgain(t, t->out[2], H, G, keep);
    for (i64 r = 0; r < t->in[1]->dim[0]; r++) {
        i64 row = r * (H + 2 * G) * D;
        for (i64 h = 0; h < H + G; h++)
            head_dx(t, row + h * D, D, h < H ? t->in[2] : t->in[3],
                    tensor_get(t->in[4], r * (H + G) + h));
        for (i64 i = row + (H + G) * D; i < row + (H + 2 * G) * D; i++)
            tensor_set(t->out[0], i, tensor_get(t->in[0], i));
    }
}

static bool qk_norm_grad_example(struct op_example *e, int n)
{
    if (n >= COUNT_OF(shapes))
        return false;
    int H = shapes[n].H, G = shapes[n].G, D = shapes[n].D;
    i64 R = shapes[n].R, C = (H + 2 * G) * D;
    struct task proto = {
        .op = &op_qk_norm_grad,
        .in = { example_normal(e, ROLE_ACTIVATION, e->dtype, R, C, 1),
                example_normal(e, ROLE_ACTIVATION, e->dtype, R, C, 1),
                example_vector(e, ROLE_PARAM, D, 1, 0.3),
                example_vector(e, ROLE_PARAM, D, 1, 0.3),
                example_normal(e, ROLE_ACTIVATION, DTYPE_F32, R, H + G, 1) },
        .attr = { [HEADS_H] = H, [HEADS_G] = G, [HEADS_D] = D, [HEADS_EPS] = 1e-5,
                  [HEADS_LEAVES] = shapes[n].leaves },
    };
    for (int i = 1; i <= 2 && shapes[n].groups; i++)
        proto.out[i] = example_normal(e, ROLE_GRAD, DTYPE_F32,
                                      shapes[n].groups * shapes[n].leaves, D, 1);
    graph_add(e->g, &proto);
    return true;
}

const struct op_info op_qk_norm_grad = {
    .name = "qk_norm_grad", .n_in = 5, .n_out = 3,
    .accumulates = true, .sums = 1u << 1 | 1u << 2, .in_place = 1u << 0,
    .infer = qk_norm_grad_infer, .cost = qk_norm_grad_cost,
    .run_ref = qk_norm_grad_ref, .example = qk_norm_grad_example,
};
