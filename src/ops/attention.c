/* Causal attention within each row of T tokens (Vaswani et al. 2017, eq. 1):
 *   s_tj = scale q_t . k_j,  p_tj = exp(s_tj - lse_t),  y_t = sum_j p_tj v_j
 * over the keys j that query t may see: max(begin[t], t - window + 1) <= j <= t.
 * Query head h reads key head h / (H/G). lse (the log of the softmax's denominator) is
 * saved, so that backward forms p again from the scores (Dao et al. 2022, section 3.1):
 *   delta_t = dy_t . y_t,  ds_tj = p_tj (dy_t . v_j - delta_t)
 *   dq_t = scale sum_j ds_tj k_j,  dk_j = scale sum_t ds_tj q_t,  dv_j = sum_t p_tj dy_t
 * where dk and dv also sum over the H/G query heads of a key head.
 *
 * qkv, dqkv (R, (H+G) D + G V), R = B T   begin (R)   y, dy (R, H V)   lse (B, H, T)
 * V, the size of a value head, is D but for latent attention.
 *
 * Costs count every pair (t, j) that causality and window allow, T (T+1) / 2 of them
 * without a window. Document borders are known at run time only, so for packed documents
 * the cost is an upper bound. */
#include "ops/example.h"
#include "ops/kit.h"

#include <math.h>

/* The attributes, and where a head of a token lies in qkv. */
struct heads {
    i64 B, T, H, G, D, V, window, columns;
    double scale;
};

static struct heads heads_of(const struct task *t)
{
    struct heads s = { .B = (i64)t->attr[ATTENTION_B], .T = (i64)t->attr[ATTENTION_T],
                       .H = (i64)t->attr[ATTENTION_H], .G = (i64)t->attr[ATTENTION_G],
                       .D = (i64)t->attr[ATTENTION_D],
                       .window = (i64)t->attr[ATTENTION_WINDOW],
                       .scale = t->attr[ATTENTION_SCALE] };
    s.V = t->attr[ATTENTION_VALUE] > 0 ? (i64)t->attr[ATTENTION_VALUE] : s.D;
    s.columns = (s.H + s.G) * s.D + s.G * s.V;
    return s;
}

static i64 q_at(const struct heads *s, i64 b, i64 t, i64 h)
{
    return (b * s->T + t) * s->columns + h * s->D;
}

static i64 k_at(const struct heads *s, i64 b, i64 t, i64 group)
{
    return (b * s->T + t) * s->columns + (s->H + group) * s->D;
}

static i64 v_at(const struct heads *s, i64 b, i64 t, i64 group)
{
    return (b * s->T + t) * s->columns + (s->H + s->G) * s->D + group * s->V;
}

static i64 y_at(const struct heads *s, i64 b, i64 t, i64 h)
{
    return ((b * s->T + t) * s->H + h) * s->V;
}

static i64 first_key(const struct heads *s, const struct tensor *begin, i64 b, i64 t)
{
    i64 document = (i64)((const i32 *)begin->data)[b * s->T + t];
    return s->window > 0 ? i64_max(document, t - s->window + 1) : document;
}

static double dot(const struct tensor *a, i64 i, const struct tensor *b, i64 j, i64 n)
{
    double sum = 0;
    for (i64 k = 0; k < n; k++)
        sum += tensor_get(a, i + k) * tensor_get(b, j + k);
    return sum;
}

static int check_attention(struct graph *g, struct task *t, const struct tensor *qkv,
                           const struct tensor *begin)
{
    struct heads s = heads_of(t);
    TRY(kit_heads(g, t, s.H, s.G, s.D));
    TRY(kit_heads(g, t, s.H, s.G, s.V));
    if (s.B < 1 || s.T < 1 || s.window < 0)
        return graph_fail(g, t, "B %lld, T %lld and window %lld make no sense",
                          (long long)s.B, (long long)s.T, (long long)s.window);
    TRY(kit_pairs(g, t, (i64)t->attr[ATTENTION_PAIRS], s.T));
    TRY(kit_matrix(g, t, "qkv", qkv, s.B * s.T, s.columns));
    TRY(kit_compute_dtype(g, t, "qkv", qkv));
    TRY(kit_vector(g, t, "begin", begin, s.B * s.T));
    return kit_dtype(g, t, "begin", begin, DTYPE_I32);
}

static int check_lse(struct graph *g, struct task *t, const struct tensor *lse,
                     const struct tensor *qkv)
{
    struct heads s = heads_of(t);
    return kit_queries(g, t, "lse", lse, (i64[]){ s.B, s.H, s.T }, qkv);
}

static int attention_infer(struct graph *g, struct task *t)
{
    struct tensor *qkv = t->in[0];
    struct heads s = heads_of(t);
    TRY(check_attention(g, t, qkv, t->in[1]));
    if (!t->out[0])
        t->out[0] = graph_matrix(g, qkv->dtype, s.B * s.T, s.H * s.V, "attention");
    if (!t->out[1])
        t->out[1] = graph_tensor(g, ROLE_ACTIVATION, kit_wide(qkv), 3,
                                 (const i64[]){ s.B, s.H, s.T }, "attention.lse");
    TRY(kit_matrix(g, t, "y", t->out[0], s.B * s.T, s.H * s.V));
    TRY(kit_dtype(g, t, "y", t->out[0], qkv->dtype));
    TRY(kit_top(g, t, (i64[]){ s.B, s.H, s.T }, qkv));
    return check_lse(g, t, t->out[1], qkv);
}

/* Pairs of query and key in all heads and rows. */
static double pairs(const struct heads *s)
{
    double T = (double)s->T, W = (double)s->window;
    double one = s->window > 0 && s->window < s->T ? W * (W + 1) / 2 + (T - W) * W
                                                   : T * (T + 1) / 2;
    return one * (double)(s->B * s->H);
}

static void attention_cost(const struct task *t, struct cost *c)
{
    struct heads s = heads_of(t);
    kit_traffic(t, c);
    c->model_flops = 2 * pairs(&s) * (double)(s.D + s.V); /* q k and p v */
    c->flops = c->model_flops + 4 * pairs(&s);        /* maximum, minus, exp, sum */
}

/* One query: two passes over its keys, the greatest score first. */
static void attend(const struct task *t, const struct heads *s, i64 b, i64 at, i64 h)
{
    const struct tensor *qkv = t->in[0];
    i64 group = h / (s->H / s->G), q = q_at(s, b, at, h);
    i64 first = first_key(s, t->in[1], b, at);
    double most = -INFINITY, sum = 0, y[KIT_HEAD_SIZE] = { 0 };
    for (i64 j = first; j <= at; j++)
        most = fmax(most, s->scale * dot(qkv, q, qkv, k_at(s, b, j, group), s->D));
    for (i64 j = first; j <= at; j++) {
        double p = exp(s->scale * dot(qkv, q, qkv, k_at(s, b, j, group), s->D) - most);
        sum += p;
        for (i64 d = 0; d < s->V; d++)
            y[d] += p * tensor_get(qkv, v_at(s, b, j, group) + d);
    }
    for (i64 d = 0; d < s->V; d++)
        tensor_set(t->out[0], y_at(s, b, at, h) + d, y[d] / sum);
    tensor_set(t->out[1], (b * s->H + h) * s->T + at, most + log(sum));
    if (t->out[2])
        tensor_set(t->out[2], (b * s->H + h) * s->T + at, most);
}

static void attention_ref(const struct task *t, struct run *run)
{
    struct heads s = heads_of(t);
    (void)run;
    for (i64 b = 0; b < s.B; b++)
        for (i64 h = 0; h < s.H; h++)
            for (i64 at = 0; at < s.T; at++)
                attend(t, &s, b, at, h);
}

static void attention_grad(struct graph *g, const struct task *t)
{
    struct tensor *qkv = t->in[0], *begin = t->in[1], *dy = grad_of(g, t->out[0]);
    if (!dy || !grad_needed(g, qkv))
        return;
    struct task proto = { .op = &op_attention_grad, .phase = PHASE_INPUT_GRAD,
                          .in = { dy, qkv, t->out[0], t->out[1], begin },
                          .out = { grad_target(g, qkv) } };
    for (int i = 0; i <= ATTENTION_VALUE; i++)
        proto.attr[i] = t->attr[i];
    graph_add(g, &proto);
    grad_add(g, qkv, proto.out[0]);
}

/* Odd T, T beyond one block of keys, grouped heads, windows, documents, a given scale, and
 * scores whose exponentials overflow a single unless the greatest is taken off first. Their
 * rounding, some 1e-5, is the relative error of p: hence that bound. */
static const struct {
    struct attention_shape shape;
    bool documents;
    double deviation, bound;
} shapes[] = {
    { { .B = 2, .T = 7, .H = 3, .G = 3, .D = 5 }, false, 1, 0 },
    { { .B = 2, .T = 37, .H = 4, .G = 2, .D = 16 }, true, 1, 0 },
    { { .B = 1, .T = 83, .H = 6, .G = 2, .D = 8, .window = 9 }, false, 1, 0 },
    { { .B = 1, .T = 150, .H = 2, .G = 1, .D = 64, .window = 70, .scale = 0.2 }, true, 1, 0 },
    { { .B = 3, .T = 1, .H = 2, .G = 2, .D = 4 }, false, 1, 0 },
    { { .B = 1, .T = 29, .H = 2, .G = 2, .D = 8 }, false, 6, 2e-4 },
    { { .B = 2, .T = 32, .H = 2, .G = 1, .D = 8, .pairs = 8 }, false, 1, 0 },
    { { .B = 1, .T = 464, .H = 2, .G = 1, .D = 16, .pairs = 2 }, true, 1, 0 },
    { { .B = 1, .T = 69, .H = 2, .G = 1, .D = 128 }, true, 1, 0 },
    { { .B = 1, .T = 41, .H = 2, .G = 2, .D = 12, .V = 8 }, true, 1, 0 },
    { { .B = 1, .T = 33, .H = 4, .G = 2, .D = 5, .V = 17, .window = 20 }, false, 1, 0 },
    { { .B = 1, .T = 230, .H = 2, .G = 2, .D = 192, .V = 128 }, true, 1, 0 },
};

/* Some backends round p and ds to bf16 for their products with bf16, as flash attention does. An
 * element of a result is then off by at most u r1, r1 = sum |x_i| over its terms x_i, u = 2^-8 half
 * a unit of bf16; or, each off by 0.41 u of itself in the root mean square and by itself, by
 * 0.41 u r2, r2 the root of sum x_i^2. r2 is what an element usually is, but larger than the root
 * mean square over all where a softmax is sharp: up to 12 times on these examples, so that 5 u
 * are the standard deviation there, and with its own rounding the result is within 8 u of that
 * mean square. A sum over keys is that of one softmax only: half of that. What holds for every
 * element, u r1, is tests/backend/test_attention.c's to ask. */

/* Slow: too many evaluations for finite differences. */
static bool no_example(const struct op_example *e, int n)
{
    if (n >= COUNT_OF(shapes))
        return true;
    return e->dtype == DTYPE_F64 && (shapes[n].shape.D > 64 || shapes[n].shape.T > 200);
}

static i64 value_size(const struct attention_shape *s)
{
    return s->V > 0 ? s->V : s->D;
}

static struct tensor *example_qkv(struct op_example *e, int n)
{
    const struct attention_shape *s = &shapes[n].shape;
    e->bound = shapes[n].bound;
    return example_normal(e, ROLE_ACTIVATION, e->dtype, s->B * s->T,
                          (s->H + s->G) * s->D + s->G * value_size(s), shapes[n].deviation);
}

static struct tensor *example_documents(struct op_example *e, int n)
{
    const struct attention_shape *s = &shapes[n].shape;
    struct tensor *begin = example_begin(e, s->B, s->T);
    for (i64 i = 0; begin && !shapes[n].documents && i < s->B * s->T; i++)
        tensor_set(begin, i, 0);
    return begin;
}

static bool attention_example(struct op_example *e, int n)
{
    if (no_example(e, n))
        return false;
    struct tensor *qkv = example_qkv(e, n);
    if (e->dtype == DTYPE_BF16)
        e->within_first = 0x1p-6;
    attention(e->g, qkv, example_documents(e, n), &shapes[n].shape);
    if (e->g->n_tasks > 0 && n % 2)
        attention_watch(e->g, e->g->tasks[e->g->n_tasks - 1]);
    return true;
}

const struct op_info op_attention = {
    .name = "attention", .n_in = 2, .n_out = 3,
    .infer = attention_infer, .grad = attention_grad, .cost = attention_cost,
    .run_ref = attention_ref, .example = attention_example,
};

static struct task attention_proto(const struct op_info *op,
                                   const struct attention_shape *s)
{
    double scale = s->scale != 0 ? s->scale : 1 / sqrt((double)s->D);
    return (struct task){ .op = op,
                          .attr = { [ATTENTION_B] = s->B, [ATTENTION_T] = s->T,
                                    [ATTENTION_H] = s->H, [ATTENTION_G] = s->G,
                                    [ATTENTION_D] = s->D, [ATTENTION_SCALE] = scale,
                                    [ATTENTION_WINDOW] = s->window,
                                    [ATTENTION_PAIRS] = s->pairs,
                                    [ATTENTION_VALUE] = s->V } };
}

struct tensor *attention(struct graph *g, struct tensor *qkv, struct tensor *begin,
                         const struct attention_shape *shape)
{
    struct task proto = attention_proto(&op_attention, shape);
    proto.in[0] = qkv;
    proto.in[1] = begin;
    struct task *t = graph_add(g, &proto);
    return t ? t->out[0] : NULL;
}

struct tensor *attention_watch(struct graph *g, struct task *t)
{
    if (g->rc < 0)
        return NULL;
    t->out[2] = graph_tensor(g, ROLE_ACTIVATION, t->out[1]->dtype, 3, t->out[1]->dim,
                             "attention.top");
    t->cost = (struct cost){ 0 };
    t->op->cost(t, &t->cost);
    return t->out[2];
}

/* --- gradient ----------------------------------------------------------------------- */

static int attention_grad_infer(struct graph *g, struct task *t)
{
    struct tensor *dy = t->in[0], *qkv = t->in[1], *y = t->in[2];
    struct heads s = heads_of(t);
    TRY(check_attention(g, t, qkv, t->in[4]));
    TRY(kit_matrix(g, t, "dy", dy, s.B * s.T, s.H * s.V));
    TRY(kit_dtype(g, t, "dy", dy, qkv->dtype));
    TRY(kit_same(g, t, "y", y, dy));
    TRY(kit_dtype(g, t, "y", y, qkv->dtype));
    TRY(check_lse(g, t, t->in[3], qkv));
    if (!t->out[0])
        t->out[0] = graph_like(g, qkv, qkv->dtype, "attention_grad");
    TRY(kit_same(g, t, "dqkv", t->out[0], qkv));
    return kit_dtype(g, t, "dqkv", t->out[0], qkv->dtype);
}

/* Five products are executed: the scores once more, dy v, and dq, dk, dv. The model's
 * mathematics needs four. */
static void attention_grad_cost(const struct task *t, struct cost *c)
{
    struct heads s = heads_of(t);
    kit_traffic(t, c);
    c->model_flops = 2 * 2 * pairs(&s) * (double)(s.D + s.V);
    c->flops = c->model_flops + 2 * pairs(&s) * (double)s.D + 4 * pairs(&s);
}

/* p and ds of one pair. */
static void pair_grad(const struct task *t, const struct heads *s, i64 b, i64 h, i64 at,
                      i64 j, double *p, double *ds)
{
    const struct tensor *dy = t->in[0], *qkv = t->in[1], *y = t->in[2], *lse = t->in[3];
    i64 group = h / (s->H / s->G), row = y_at(s, b, at, h);
    double score = dot(qkv, q_at(s, b, at, h), qkv, k_at(s, b, j, group), s->D);
    double dp = dot(dy, row, qkv, v_at(s, b, j, group), s->V);
    *p = exp(s->scale * score - tensor_get(lse, (b * s->H + h) * s->T + at));
    *ds = *p * (dp - dot(dy, row, y, row, s->V));
}

static void query_grad(const struct task *t, const struct heads *s, i64 b, i64 h, i64 at)
{
    i64 group = h / (s->H / s->G);
    double dq[KIT_HEAD_SIZE] = { 0 }, p, ds;
    for (i64 j = first_key(s, t->in[4], b, at); j <= at; j++) {
        pair_grad(t, s, b, h, at, j, &p, &ds);
        for (i64 d = 0; d < s->D; d++)
            dq[d] += s->scale * ds * tensor_get(t->in[1], k_at(s, b, j, group) + d);
    }
    for (i64 d = 0; d < s->D; d++)
        tensor_set(t->out[0], q_at(s, b, at, h) + d, dq[d]);
}

static void key_value_grad(const struct task *t, const struct heads *s, i64 b, i64 group,
                           i64 j)
{
    double dk[KIT_HEAD_SIZE] = { 0 }, dv[KIT_HEAD_SIZE] = { 0 }, p, ds;
    i64 share = s->H / s->G;
    for (i64 h = group * share; h < (group + 1) * share; h++) {
        for (i64 at = j; at < s->T; at++) {
            if (first_key(s, t->in[4], b, at) > j)
                continue;
            pair_grad(t, s, b, h, at, j, &p, &ds);
            for (i64 d = 0; d < s->D; d++)
                dk[d] += s->scale * ds * tensor_get(t->in[1], q_at(s, b, at, h) + d);
            for (i64 d = 0; d < s->V; d++)
                dv[d] += p * tensor_get(t->in[0], y_at(s, b, at, h) + d);
        }
    }
    for (i64 d = 0; d < s->D; d++)
        tensor_set(t->out[0], k_at(s, b, j, group) + d, dk[d]);
    for (i64 d = 0; d < s->V; d++)
        tensor_set(t->out[0], v_at(s, b, j, group) + d, dv[d]);
}

static void attention_grad_ref(const struct task *t, struct run *run)
{
    struct heads s = heads_of(t);
    (void)run;
    for (i64 b = 0; b < s.B; b++) {
        for (i64 at = 0; at < s.T; at++) {
            for (i64 h = 0; h < s.H; h++)
                query_grad(t, &s, b, h, at);
            for (i64 group = 0; group < s.G; group++)
                key_value_grad(t, &s, b, group, at);
        }
    }
}

/* y and lse must be the forward's own, so the example runs that first. */
static bool attention_grad_example(struct op_example *e, int n)
{
    if (no_example(e, n))
        return false;
    const struct attention_shape *s = &shapes[n].shape;
    struct tensor *qkv = example_qkv(e, n);
    if (e->dtype == DTYPE_BF16)
        e->within_bound = 0x1p-5;
    struct tensor *begin = example_documents(e, n);
    struct tensor *y = attention(e->g, qkv, begin, s);
    struct tensor *dy = example_normal(e, ROLE_ACTIVATION, e->dtype, s->B * s->T,
                                       s->H * value_size(s), 1);
    struct task proto = attention_proto(&op_attention_grad, s);
    struct tensor *lse = NULL;
    for (i64 i = 0; i < e->g->n_tasks; i++)
        if (e->g->tasks[i]->out[0] == y)
            lse = e->g->tasks[i]->out[1];
    proto.in[0] = dy;
    proto.in[1] = qkv;
    proto.in[2] = y;
    proto.in[3] = lse;
    proto.in[4] = begin;
    graph_add(e->g, &proto);
    return true;
}

const struct op_info op_attention_grad = {
    .name = "attention_grad", .n_in = 5, .n_out = 1,
    .infer = attention_grad_infer, .cost = attention_grad_cost,
    .run_ref = attention_grad_ref, .example = attention_grad_example,
};
