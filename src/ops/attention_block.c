/* Causal attention of some queries of a row against some of its keys, so that ranks which have
 * a part of the row each can pass keys around (Liu et al. 2023). Queries are part BLOCK_QUERIES of
 * BLOCK_PARTS, keys are part BLOCK_KEYS (ops/zigzag.h); T tokens of each are here.
 *
 * Blocks of the same queries follow each other. One goes on from what the queries saw before,
 * normalised values y' and their lse' (Dao et al. 2022, section 3.1):
 *   lse_t = log(exp(lse'_t) + sum_j exp(s_tj))
 *   y_t = exp(lse'_t - lse_t) y'_t + sum_j exp(s_tj - lse_t) v_j
 * over the keys j here that query t may see, s and the mask as in ops/attention.c. y and lse of
 * the last block are those of the whole row; only then y is rounded to q's dtype. A query that
 * has seen nothing yet has y 0 and lse -inf.
 *
 * With the last block's lse and y, every block's gradient can be had by itself, in any order:
 *   p_tj = exp(s_tj - lse_t),  ds_tj = p_tj (dy_t . v_j - dy_t . y_t)
 *   dq_t += scale sum_j ds_tj k_j,  dk_j = scale sum_t ds_tj q_t,  dv_j = sum_t p_tj dy_t
 * So the last block's rule emits the gradients of all of them, from the last to the first. Where
 * keys came around by ring_shift, their gradients go back the same way: the sum that arrives is
 * added to the own block's, and sent on while the block before is at work.
 *
 * Where kv has whole rows (BLOCK_KEYS -1), one block sees all that its queries see; a query's sums
 * then have the order that ops/attention.c gives them, and those over queries that of its pairs.
 *
 * q (R, H D)   kv (R, G (D+V))   begin (R)   y, dy (R, H V)   lse (B, H, T)   R = B T
 *
 * Costs count the pairs of query and key that causality and window allow. */
#include "ops/example.h"
#include "ops/kit.h"
#include "ops/zigzag.h"

#include <float.h>
#include <math.h>

struct block {
    i64 B, T, H, G, D, V, window;
    double scale;
    i64 Tk; /* keys of a row here */
    struct zigzag queries, keys;
};

static struct block block_of(const struct task *t)
{
    struct block s = { .B = (i64)t->attr[ATTENTION_B], .T = (i64)t->attr[ATTENTION_T],
                       .H = (i64)t->attr[ATTENTION_H], .G = (i64)t->attr[ATTENTION_G],
                       .D = (i64)t->attr[ATTENTION_D],
                       .window = (i64)t->attr[ATTENTION_WINDOW],
                       .scale = t->attr[ATTENTION_SCALE] };
    i64 parts = (i64)t->attr[BLOCK_PARTS];
    s.V = t->attr[ATTENTION_VALUE] > 0 ? (i64)t->attr[ATTENTION_VALUE] : s.D;
    s.queries = zigzag_part(parts, (i64)t->attr[BLOCK_QUERIES], s.T);
    bool whole = t->attr[BLOCK_KEYS] < 0;
    s.Tk = whole ? parts * s.T : s.T;
    s.keys = whole ? zigzag_part(1, 0, s.Tk) : zigzag_part(parts, (i64)t->attr[BLOCK_KEYS], s.T);
    return s;
}

static i64 q_at(const struct block *s, i64 b, i64 t, i64 h)
{
    return ((b * s->T + t) * s->H + h) * s->D;
}

static i64 y_at(const struct block *s, i64 b, i64 t, i64 h)
{
    return ((b * s->T + t) * s->H + h) * s->V;
}

static i64 k_at(const struct block *s, i64 b, i64 t, i64 group)
{
    return (b * s->Tk + t) * s->G * (s->D + s->V) + group * s->D;
}

static i64 v_at(const struct block *s, i64 b, i64 t, i64 group)
{
    return k_at(s, b, t, 0) + s->G * s->D + group * s->V;
}

/* Keys [begin, end) of those here that a query at this place sees. */
struct seen {
    i64 begin, end;
};

static struct seen seen_from(const struct block *s, i64 place, i64 document)
{
    i64 first = s->window > 0 ? i64_max(document, place - s->window + 1) : document;
    return (struct seen){ zigzag_before(&s->keys, first), zigzag_before(&s->keys, place + 1) };
}

static struct seen seen_by(const struct block *s, const struct tensor *begin, i64 b, i64 t)
{
    return seen_from(s, zigzag_place(&s->queries, t), ((const i32 *)begin->data)[b * s->T + t]);
}

static double dot(const struct tensor *a, i64 i, const struct tensor *b, i64 j, i64 n)
{
    double sum = 0;
    for (i64 k = 0; k < n; k++)
        sum += tensor_get(a, i + k) * tensor_get(b, j + k);
    return sum;
}

/* --- checks and cost ---------------------------------------------------------------- */

static int check_parts(struct graph *g, struct task *t, const struct block *s)
{
    i64 n = (i64)t->attr[BLOCK_PARTS];
    double q = t->attr[BLOCK_QUERIES], k = t->attr[BLOCK_KEYS];
    if (s->B < 1 || s->T < 1 || s->window < 0)
        return graph_fail(g, t, "B %lld, T %lld and window %lld make no sense",
                          (long long)s->B, (long long)s->T, (long long)s->window);
    if (n < 1 || q < 0 || k < -1 || q >= (double)n || k >= (double)n)
        return graph_fail(g, t, "queries of part %g and keys of part %g are not of %lld parts", q,
                          k, (long long)n);
    if (n > 1 && s->T % 2)
        return graph_fail(g, t, "%lld tokens are not two chunks of a row", (long long)s->T);
    return kit_pairs(g, t, (i64)t->attr[ATTENTION_PAIRS], s->T);
}

static int check_operands(struct graph *g, struct task *t, const struct tensor *q,
                          const struct tensor *kv, const struct tensor *begin)
{
    struct block s = block_of(t);
    i64 R = s.B * s.T;
    TRY(kit_heads(g, t, s.H, s.G, s.D));
    TRY(kit_heads(g, t, s.H, s.G, s.V));
    TRY(check_parts(g, t, &s));
    TRY(kit_matrix(g, t, "q", q, R, s.H * s.D));
    TRY(kit_compute_dtype(g, t, "q", q));
    TRY(kit_matrix(g, t, "kv", kv, s.B * s.Tk, s.G * (s.D + s.V)));
    TRY(kit_dtype(g, t, "kv", kv, q->dtype));
    TRY(kit_vector(g, t, "begin", begin, R));
    return kit_dtype(g, t, "begin", begin, DTYPE_I32);
}

static int check_lse(struct graph *g, struct task *t, const struct tensor *lse,
                     const struct tensor *q)
{
    struct block s = block_of(t);
    return kit_queries(g, t, "lse", lse, (i64[]){ s.B, s.H, s.T }, q);
}

static int block_infer(struct graph *g, struct task *t)
{
    struct tensor *q = t->in[0];
    TRY(check_operands(g, t, q, t->in[1], t->in[2]));
    struct block s = block_of(t);
    enum dtype dtype = t->attr[BLOCK_LAST] != 0 ? q->dtype : kit_wide(q);
    if (!t->out[0])
        t->out[0] = graph_matrix(g, dtype, s.B * s.T, s.H * s.V, "attention");
    if (!t->out[1])
        t->out[1] = graph_tensor(g, ROLE_ACTIVATION, kit_wide(q), 3,
                                 (const i64[]){ s.B, s.H, s.T }, "attention.lse");
    TRY(kit_matrix(g, t, "y", t->out[0], s.B * s.T, s.H * s.V));
    TRY(kit_dtype(g, t, "y", t->out[0], dtype));
    TRY(check_lse(g, t, t->out[1], q));
    TRY(kit_top(g, t, (i64[]){ s.B, s.H, s.T }, q));
    if (!t->in[3])
        return OK;
    TRY(kit_same(g, t, "seen y", t->in[3], t->out[0]));
    TRY(kit_dtype(g, t, "seen y", t->in[3], kit_wide(q)));
    return check_lse(g, t, t->in[4], q);
}

/* Pairs of query and key in all heads and rows. */
static double pairs(const struct block *s)
{
    i64 one = 0;
    for (i64 t = 0; t < s->T; t++) {
        struct seen keys = seen_from(s, zigzag_place(&s->queries, t), 0);
        one += keys.end - keys.begin;
    }
    return (double)one * (double)(s->B * s->H);
}

static void block_cost(const struct task *t, struct cost *c)
{
    struct block s = block_of(t);
    kit_traffic(t, c);
    c->model_flops = 2 * pairs(&s) * (double)(s.D + s.V);
    c->flops = c->model_flops + 4 * pairs(&s);
}

/* --- forward ------------------------------------------------------------------------ */

static void attend(const struct task *t, const struct block *s, i64 b, i64 at, i64 h)
{
    const struct tensor *q = t->in[0], *kv = t->in[1];
    i64 group = h / (s->H / s->G), row = q_at(s, b, at, h), to = y_at(s, b, at, h);
    i64 lse = (b * s->H + h) * s->T + at;
    struct seen keys = seen_by(s, t->in[2], b, at);
    double before = t->in[3] ? tensor_get(t->in[4], lse) : -INFINITY, top = -FLT_MAX;
    double y[KIT_HEAD_SIZE] = { 0 };
    for (i64 j = keys.begin; j < keys.end; j++)
        top = fmax(top, s->scale * dot(q, row, kv, k_at(s, b, j, group), s->D));
    double most = keys.begin < keys.end ? fmax(before, top) : before;
    double sum = before > -INFINITY ? exp(before - most) : 0;
    for (i64 d = 0; d < s->V && sum > 0; d++)
        y[d] = sum * tensor_get(t->in[3], to + d);
    for (i64 j = keys.begin; j < keys.end; j++) {
        double p = exp(s->scale * dot(q, row, kv, k_at(s, b, j, group), s->D) - most);
        sum += p;
        for (i64 d = 0; d < s->V; d++)
            y[d] += p * tensor_get(kv, v_at(s, b, j, group) + d);
    }
    for (i64 d = 0; d < s->V; d++)
        tensor_set(t->out[0], to + d, sum > 0 ? y[d] / sum : 0);
    tensor_set(t->out[1], lse, sum > 0 ? most + log(sum) : -INFINITY);
    if (t->out[2])
        tensor_set(t->out[2], lse, top);
}

static void block_ref(const struct task *t, struct run *run)
{
    struct block s = block_of(t);
    (void)run;
    for (i64 b = 0; b < s.B; b++)
        for (i64 h = 0; h < s.H; h++)
            for (i64 at = 0; at < s.T; at++)
                attend(t, &s, b, at, h);
}

/* --- the gradients of all blocks ---------------------------------------------------- */

static const struct task *producer_of(const struct graph *g, const struct tensor *x)
{
    for (i64 i = g->n_tasks - 1; x && i >= 0; i--)
        for (int k = 0; k < g->tasks[i]->op->n_out; k++)
            if (g->tasks[i]->out[k] == x)
                return g->tasks[i];
    return NULL;
}

/* dkv of one block, with what came from the ranks that had these keys later. Returns what this
 * rank hands back to who had them before; NULL: they are its own. */
static struct tensor *return_keys(struct graph *g, struct tensor *kv, struct tensor *dkv,
                                  struct tensor *arrived)
{
    const struct task *by = producer_of(g, kv);
    struct tensor *sum = arrived ? add(g, dkv, arrived) : dkv;
    if (!by || by->op != &op_ring_shift) {
        grad_add(g, kv, sum);
        return NULL;
    }
    struct task proto = { .op = &op_ring_shift, .lane = by->lane, .phase = PHASE_INPUT_GRAD,
                          .in = { sum } };
    memcpy(proto.attr, by->attr, sizeof proto.attr);
    proto.attr[RING_STEP] = -by->attr[RING_STEP];
    struct task *shift = graph_add(g, &proto);
    return shift ? shift->out[0] : NULL;
}

static void block_grad(struct graph *g, const struct task *t)
{
    struct tensor *q = t->in[0], *dy = grad_of(g, t->out[0]), *dq = NULL, *arrived = NULL;
    if (!dy || !grad_needed(g, q))
        return;
    for (const struct task *b = t; b && g->rc >= 0; b = producer_of(g, b->in[3])) {
        struct task proto = { .op = &op_attention_block_grad, .phase = PHASE_INPUT_GRAD,
                              .in = { dy, q, b->in[1], t->out[0], t->out[1], t->in[2], dq } };
        memcpy(proto.attr, b->attr, sizeof proto.attr);
        struct task *made = graph_add(g, &proto);
        if (!made)
            return;
        dq = made->out[0];
        arrived = return_keys(g, b->in[1], made->out[1], arrived);
    }
    grad_add(g, q, dq);
}

/* --- examples ----------------------------------------------------------------------- */

/* Chains of blocks against the parts in keys[], each the last of which is the example. Own
 * keys, keys of which none, some or all are seen; more than a tile; documents, windows. */
static const struct {
    struct attention_shape shape; /* T of a part */
    int parts, queries, keys[3], blocks;
    bool documents, partial;
} shapes[] = {
    { { .B = 2, .T = 8, .H = 3, .G = 3, .D = 5 }, 2, 0, { 0, 1 }, 2, false, false },
    { { .B = 2, .T = 10, .H = 4, .G = 2, .D = 16 }, 3, 1, { 1, 0, 2 }, 3, true, false },
    { { .B = 1, .T = 38, .H = 2, .G = 1, .D = 8, .window = 30 }, 2, 1, { 1, 0 }, 2, true, false },
    { { .B = 1, .T = 10, .H = 2, .G = 2, .D = 4 }, 2, 0, { 1 }, 1, false, true },
    { { .B = 1, .T = 12, .H = 2, .G = 1, .D = 8, .window = 3 }, 3, 2, { 2, 1 }, 2, false, true },
    { { .B = 2, .T = 16, .H = 4, .G = 2, .D = 8, .pairs = 4 }, 2, 1, { -1 }, 1, true, false },
    { { .B = 1, .T = 10, .H = 2, .G = 2, .D = 12, .V = 7 }, 2, 1, { 1, 0 }, 2, true, false },
    { { .B = 1, .T = 8, .H = 2, .G = 1, .D = 5, .V = 9, .pairs = 2 }, 2, 1, { -1 }, 1, true,
      false },
    { { .B = 1, .T = 230, .H = 2, .G = 1, .D = 8 }, 2, 1, { 1, 0 }, 2, true, false },
    { { .B = 1, .T = 208, .H = 2, .G = 1, .D = 16, .pairs = 1 }, 2, 0, { -1 }, 1, true, false },
    { { .B = 1, .T = 400, .H = 1, .G = 1, .D = 64, .window = 150 }, 2, 0, { 0, 1 }, 2, false,
      false },
};
enum { SLOW = 8 }; /* from here on too many evaluations for finite differences */

static i64 value_size(const struct attention_shape *s)
{
    return s->V > 0 ? s->V : s->D;
}

static bool no_example(const struct op_example *e, int n)
{
    return n >= COUNT_OF(shapes) || (e->dtype == DTYPE_F64 && n >= SLOW);
}

static struct tensor *part_begin(struct op_example *e, int n)
{
    const struct attention_shape *s = &shapes[n].shape;
    struct zigzag part = zigzag_part(shapes[n].parts, shapes[n].queries, s->T);
    i64 whole = (i64)s->T * shapes[n].parts;
    struct tensor *row = example_begin(e, s->B, whole);
    struct tensor *here = example_integers(e, s->B * s->T, 1);
    for (i64 i = 0; here && shapes[n].documents && i < s->B * s->T; i++)
        tensor_set(here, i, tensor_get(row, i / s->T * whole + zigzag_place(&part, i % s->T)));
    return here;
}

/* Tasks of an example: the chain's last block, and one of its sets of keys. */
struct chain {
    struct task *last;
    struct tensor *q, *begin, *kv[3];
};

static struct chain example_chain(struct op_example *e, int n, bool whole)
{
    const struct attention_shape *s = &shapes[n].shape;
    struct chain c = { .begin = part_begin(e, n) };
    c.q = example_normal(e, ROLE_ACTIVATION, e->dtype, s->B * s->T, s->H * s->D, 1);
    i64 rows = s->B * s->T * (shapes[n].keys[0] < 0 ? shapes[n].parts : 1);
    for (int i = 0; i < shapes[n].blocks; i++)
        c.kv[i] = example_normal(e, ROLE_ACTIVATION, e->dtype, rows,
                                 s->G * (s->D + value_size(s)), 1);
    for (int i = 0; i < shapes[n].blocks; i++) {
        bool last = i + 1 == shapes[n].blocks && (whole || !shapes[n].partial);
        struct attention_part part = { shapes[n].parts, shapes[n].queries, shapes[n].keys[i],
                                       last };
        c.last = attention_block(e->g, c.q, c.kv[i], c.begin, c.last, s, &part, NULL);
    }
    return c;
}

/* Some kernels round p, and below ds, to bf16 (see ops/attention.c for the bounds): y is then no
 * nearer where it stays f32. lse, whose sums are of p as it was, is judged as ever. */
static bool block_example(struct op_example *e, int n)
{
    if (no_example(e, n))
        return false;
    if (e->dtype == DTYPE_BF16)
        e->within_first = 0x1p-6;
    example_chain(e, n, false);
    if (e->g->rc >= 0 && n % 3 != 1)
        attention_watch(e->g, e->g->tasks[e->g->n_tasks - 1]);
    return true;
}

const struct op_info op_attention_block = {
    .name = "attention_block", .n_in = 5, .n_out = 3, .in_place = 1 << 3,
    .infer = block_infer, .grad = block_grad, .cost = block_cost, .run_ref = block_ref,
    .example = block_example,
};

static void set_shape(struct task *t, const struct attention_shape *s,
                      const struct attention_part *part)
{
    t->attr[ATTENTION_B] = s->B;
    t->attr[ATTENTION_T] = s->T;
    t->attr[ATTENTION_H] = s->H;
    t->attr[ATTENTION_G] = s->G;
    t->attr[ATTENTION_D] = s->D;
    t->attr[ATTENTION_SCALE] = s->scale != 0 ? s->scale : 1 / sqrt((double)s->D);
    t->attr[ATTENTION_WINDOW] = s->window;
    t->attr[ATTENTION_PAIRS] = s->pairs;
    t->attr[ATTENTION_VALUE] = s->V;
    t->attr[BLOCK_PARTS] = (double)part->parts;
    t->attr[BLOCK_QUERIES] = (double)part->queries;
    t->attr[BLOCK_KEYS] = (double)part->keys;
    t->attr[BLOCK_LAST] = part->last;
}

struct task *attention_block(struct graph *g, struct tensor *q, struct tensor *kv,
                             struct tensor *begin, const struct task *before,
                             const struct attention_shape *shape,
                             const struct attention_part *part, struct tensor *y)
{
    struct task proto = { .op = &op_attention_block, .in = { q, kv, begin }, .out = { y } };
    set_shape(&proto, shape, part);
    if (before) {
        proto.in[3] = before->out[0];
        proto.in[4] = before->out[1];
    }
    return graph_add(g, &proto);
}

/* --- gradient of one block ---------------------------------------------------------- */

static int grad_infer(struct graph *g, struct task *t)
{
    struct tensor *dy = t->in[0], *q = t->in[1], *kv = t->in[2], *y = t->in[3];
    TRY(check_operands(g, t, q, kv, t->in[5]));
    const struct block s = block_of(t);
    TRY(kit_matrix(g, t, "dy", dy, s.B * s.T, s.H * s.V));
    TRY(kit_dtype(g, t, "dy", dy, q->dtype));
    TRY(kit_same(g, t, "y", y, dy));
    TRY(kit_dtype(g, t, "y", y, q->dtype));
    TRY(check_lse(g, t, t->in[4], q));
    if (!t->out[0])
        t->out[0] = graph_like(g, q, kit_wide(q), "block.dq");
    if (!t->out[1])
        t->out[1] = graph_like(g, kv, kit_wide(q), "block.dkv");
    TRY(kit_same(g, t, "dq", t->out[0], q));
    TRY(kit_dtype(g, t, "dq", t->out[0], kit_wide(q)));
    TRY(kit_same(g, t, "dkv", t->out[1], kv));
    TRY(kit_dtype(g, t, "dkv", t->out[1], kit_wide(q)));
    if (!t->in[6])
        return OK;
    TRY(kit_same(g, t, "dq before", t->in[6], q));
    return kit_dtype(g, t, "dq before", t->in[6], kit_wide(q));
}

/* As attention_grad's. */
static void grad_cost(const struct task *t, struct cost *c)
{
    struct block s = block_of(t);
    kit_traffic(t, c);
    c->model_flops = 2 * 2 * pairs(&s) * (double)(s.D + s.V);
    c->flops = c->model_flops + 2 * pairs(&s) * (double)s.D + 4 * pairs(&s);
}

/* p and ds of one pair. */
static void pair_grad(const struct task *t, const struct block *s, i64 b, i64 h, i64 at, i64 j,
                      double *p, double *ds)
{
    const struct tensor *dy = t->in[0], *q = t->in[1], *kv = t->in[2], *y = t->in[3];
    i64 group = h / (s->H / s->G), row = q_at(s, b, at, h), of = y_at(s, b, at, h);
    double score = dot(q, row, kv, k_at(s, b, j, group), s->D);
    double dp = dot(dy, of, kv, v_at(s, b, j, group), s->V);
    *p = exp(s->scale * score - tensor_get(t->in[4], (b * s->H + h) * s->T + at));
    *ds = *p * (dp - dot(dy, of, y, of, s->V));
}

static void query_grad(const struct task *t, const struct block *s, i64 b, i64 h, i64 at)
{
    i64 group = h / (s->H / s->G), row = q_at(s, b, at, h);
    struct seen keys = seen_by(s, t->in[5], b, at);
    double dq[KIT_HEAD_SIZE] = { 0 }, p, ds;
    for (i64 j = keys.begin; j < keys.end; j++) {
        pair_grad(t, s, b, h, at, j, &p, &ds);
        for (i64 d = 0; d < s->D; d++)
            dq[d] += s->scale * ds * tensor_get(t->in[2], k_at(s, b, j, group) + d);
    }
    for (i64 d = 0; d < s->D; d++)
        tensor_set(t->out[0], row + d, dq[d] + (t->in[6] ? tensor_get(t->in[6], row + d) : 0));
}

static void key_value_grad(const struct task *t, const struct block *s, i64 b, i64 group, i64 j)
{
    double dk[KIT_HEAD_SIZE] = { 0 }, dv[KIT_HEAD_SIZE] = { 0 }, p, ds;
    i64 share = s->H / s->G;
    for (i64 h = group * share; h < (group + 1) * share; h++) {
        for (i64 at = 0; at < s->T; at++) {
            struct seen keys = seen_by(s, t->in[5], b, at);
            if (j < keys.begin || j >= keys.end)
                continue;
            pair_grad(t, s, b, h, at, j, &p, &ds);
            for (i64 d = 0; d < s->D; d++)
                dk[d] += s->scale * ds * tensor_get(t->in[1], q_at(s, b, at, h) + d);
            for (i64 d = 0; d < s->V; d++)
                dv[d] += p * tensor_get(t->in[0], y_at(s, b, at, h) + d);
        }
    }
    for (i64 d = 0; d < s->D; d++)
        tensor_set(t->out[1], k_at(s, b, j, group) + d, dk[d]);
    for (i64 d = 0; d < s->V; d++)
        tensor_set(t->out[1], v_at(s, b, j, group) + d, dv[d]);
}

static void grad_ref(const struct task *t, struct run *run)
{
    struct block s = block_of(t);
    (void)run;
    for (i64 b = 0; b < s.B; b++) {
        for (i64 at = 0; at < s.T; at++)
            for (i64 h = 0; h < s.H; h++)
                query_grad(t, &s, b, h, at);
        for (i64 j = 0; j < s.Tk; j++)
            for (i64 group = 0; group < s.G; group++)
                key_value_grad(t, &s, b, group, j);
    }
}

/* Of the first block of an odd example's chain, with a sum to add to; of the last one's else. */
static bool grad_example(struct op_example *e, int n)
{
    if (no_example(e, n))
        return false;
    const struct attention_shape *s = &shapes[n].shape;
    struct chain c = example_chain(e, n, true);
    int at = n % 2 ? 0 : shapes[n].blocks - 1;
    enum dtype wide = e->dtype == DTYPE_F64 ? DTYPE_F64 : DTYPE_F32;
    if (e->dtype == DTYPE_BF16)
        e->within_bound = 0x1p-5;
    struct tensor *y = c.last->out[0];
    struct tensor *dy = example_normal(e, ROLE_ACTIVATION, y->dtype, s->B * s->T,
                                       s->H * value_size(s), 1);
    struct task proto = { .op = &op_attention_block_grad,
                          .in = { dy, c.q, c.kv[at], y, c.last->out[1], c.begin } };
    struct attention_part part = { .parts = shapes[n].parts, .queries = shapes[n].queries,
                                   .keys = shapes[n].keys[at] };
    set_shape(&proto, s, &part);
    if (n % 2)
        proto.in[6] = example_normal(e, ROLE_ACTIVATION, wide, s->B * s->T, s->H * s->D, 1);
    graph_add(e->g, &proto);
    return true;
}

const struct op_info op_attention_block_grad = {
    .name = "attention_block_grad", .n_in = 7, .n_out = 2, .in_place = 1 << 6,
    .infer = grad_infer, .cost = grad_cost, .run_ref = grad_ref, .example = grad_example,
};
