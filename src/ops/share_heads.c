/* Key and value heads that several ranks need, each rank having projected an equal part of the
 * columns of its own head: parts become heads again, beside the queries. In exact mode, where a sum
 * over query heads has leaves, each leaf gets a copy of its head (parallel/exact.h).
 *
 * kv (P R, w): of each of P ranks its rows, w/2 columns of keys, then w/2 of values; all parts of
 * a row's keys side by side are G D = P w/2 columns. With c copies of each head
 *   qkv (R, Q + 2 G c D):  q, keys, values;  head g c + i of either is a copy of head g
 *   dq: those columns;  dkv: the sum over the copies of a head, a tree of neighbours,
 *     rounded once */
#include "ops/example.h"
#include "ops/kit.h"

struct sharing {
    i64 P, copies, D, R, Q, w; /* w: columns of a part */
};

static struct sharing sharing_of(const struct task *t, const struct tensor *q,
                                 const struct tensor *kv)
{
    return (struct sharing){ .P = (i64)t->attr[SHARE_PARTS], .copies = (i64)t->attr[SHARE_COPIES],
                             .D = (i64)t->attr[SHARE_SIZE], .R = q->dim[0], .Q = q->dim[1],
                             .w = kv->dim[1] };
}

static i64 joined_columns(const struct sharing *s)
{
    return s->Q + s->P * s->w * s->copies;
}

static int check_sharing(struct graph *g, struct task *t, const struct tensor *q,
                         const struct tensor *kv)
{
    TRY(kit_matrix(g, t, "q", q, KIT_ANY, KIT_ANY));
    TRY(kit_matrix(g, t, "kv", kv, KIT_ANY, KIT_ANY));
    struct sharing s = sharing_of(t, q, kv);
    i64 part = s.w / 2;
    bool counts = s.copies > 0 && s.copies <= SHARE_COPIES_MOST && !(s.copies & (s.copies - 1));
    if (s.P < 1 || s.D < 1 || !counts)
        return graph_fail(g, t, "%lld parts and %lld copies of heads of %lld make no sense",
                          (long long)s.P, (long long)s.copies, (long long)s.D);
    if (kv->dim[0] != s.P * s.R || s.w % 2 || s.P * part % s.D || (part % s.D && s.D % part))
        return graph_fail(g, t, "%lld rows of %lld columns are not %lld parts of heads of %lld",
                          (long long)kv->dim[0], (long long)s.w, (long long)s.P, (long long)s.D);
    return OK;
}

static int share_infer(struct graph *g, struct task *t)
{
    struct tensor *q = t->in[0], *kv = t->in[1];
    TRY(check_sharing(g, t, q, kv));
    struct sharing s = sharing_of(t, q, kv);
    if (!t->out[0])
        t->out[0] = graph_matrix(g, q->dtype, s.R, joined_columns(&s), "share_heads");
    TRY(kit_dtype(g, t, "kv", kv, q->dtype));
    TRY(kit_matrix(g, t, "qkv", t->out[0], s.R, joined_columns(&s)));
    return kit_dtype(g, t, "qkv", t->out[0], q->dtype);
}

/* Where column c of the keys (values: kind 1) of a row is among the parts. */
static i64 place_in_parts(const struct sharing *s, i64 r, i64 kind, i64 c)
{
    i64 part = s->w / 2;
    return (c / part * s->R + r) * s->w + kind * part + c % part;
}

/* And where its first copy is in qkv; the next ones follow D columns apart. */
static i64 place_in_heads(const struct sharing *s, i64 r, i64 kind, i64 c)
{
    i64 head = kind * s->P * s->w / 2 / s->D + c / s->D;
    return r * joined_columns(s) + s->Q + head * s->copies * s->D + c % s->D;
}

static void share_ref(const struct task *t, struct run *run)
{
    const struct sharing s = sharing_of(t, t->in[0], t->in[1]);
    (void)run;
    for (i64 i = 0; i < s.R * s.Q; i++)
        tensor_set(t->out[0], i / s.Q * joined_columns(&s) + i % s.Q, tensor_get(t->in[0], i));
    for (i64 i = 0; i < s.R * s.P * s.w; i++) {
        i64 r = i / (s.P * s.w), kind = i / (s.P * s.w / 2) % 2, c = i % (s.P * s.w / 2);
        for (i64 copy = 0; copy < s.copies; copy++)
            tensor_set(t->out[0], place_in_heads(&s, r, kind, c) + copy * s.D,
                       tensor_get(t->in[1], place_in_parts(&s, r, kind, c)));
    }
}

static void share_grad(struct graph *g, const struct task *t)
{
    struct tensor *dy = grad_of(g, t->out[0]), *q = t->in[0], *kv = t->in[1];
    if (!dy || !grad_needed(g, q) || !grad_needed(g, kv))
        return;
    struct task proto = { .op = &op_share_heads_grad, .phase = PHASE_INPUT_GRAD, .in = { dy },
                          .out = { grad_target(g, q), grad_target(g, kv) } };
    memcpy(proto.attr, t->attr, sizeof proto.attr);
    graph_add(g, &proto);
    grad_add(g, q, proto.out[0]);
    grad_add(g, kv, proto.out[1]);
}

/* Parts of a head, whole heads, copies, and both. */
static const struct { i64 R, Q, P, w, copies, D; } shapes[] = {
    { 7, 12, 2, 8, 1, 8 }, { 33, 40, 4, 18, 1, 36 },
    { 5, 24, 1, 24, 4, 6 }, { 19, 16, 2, 16, 2, 16 },
};

static bool share_example(struct op_example *e, int n)
{
    if (n >= COUNT_OF(shapes))
        return false;
    struct tensor *q = example_normal(e, ROLE_ACTIVATION, e->dtype, shapes[n].R, shapes[n].Q, 1);
    struct tensor *kv = example_normal(e, ROLE_ACTIVATION, e->dtype, shapes[n].P * shapes[n].R,
                                       shapes[n].w, 1);
    share_heads(e->g, q, kv, shapes[n].P, shapes[n].copies, shapes[n].D);
    return true;
}

const struct op_info op_share_heads = {
    .name = "share_heads", .n_in = 2, .n_out = 1, .infer = share_infer, .grad = share_grad,
    .cost = kit_traffic, .run_ref = share_ref, .example = share_example,
};

struct tensor *share_heads(struct graph *g, struct tensor *q, struct tensor *kv, i64 parts,
                           i64 copies, i64 D)
{
    struct task *t = graph_add(
        g, &(struct task){ .op = &op_share_heads, .in = { q, kv },
                           .attr = { [SHARE_PARTS] = (double)parts,
                                     [SHARE_COPIES] = (double)copies,
                                     [SHARE_SIZE] = (double)D } });
    return t ? t->out[0] : NULL;
}

/* --- gradient ----------------------------------------------------------------------- */

static int share_grad_infer(struct graph *g, struct task *t)
{
    const struct tensor *dy = t->in[0], *dq = t->out[0], *dkv = t->out[1];
    if (!dq || !dkv)
        return graph_fail(g, t, "dq or dkv is missing");
    TRY(check_sharing(g, t, dq, dkv));
    struct sharing s = sharing_of(t, dq, dkv);
    TRY(kit_matrix(g, t, "dqkv", dy, s.R, joined_columns(&s)));
    return kit_dtype(g, t, "dq", dq, dy->dtype);
}

static void share_grad_cost(const struct task *t, struct cost *c)
{
    kit_traffic(t, c);
    c->flops = (t->attr[SHARE_COPIES] - 1) * (double)tensor_count(t->out[1]);
}

static void share_grad_ref(const struct task *t, struct run *run)
{
    const struct sharing s = sharing_of(t, t->out[0], t->out[1]);
    (void)run;
    for (i64 i = 0; i < s.R * s.Q; i++)
        tensor_set(t->out[0], i, tensor_get(t->in[0], i / s.Q * joined_columns(&s) + i % s.Q));
    for (i64 i = 0; i < s.R * s.P * s.w; i++) {
        i64 r = i / (s.P * s.w), kind = i / (s.P * s.w / 2) % 2, c = i % (s.P * s.w / 2);
        double sum = 0;
        for (i64 copy = 0; copy < s.copies; copy++)
            sum += tensor_get(t->in[0], place_in_heads(&s, r, kind, c) + copy * s.D);
        tensor_set(t->out[1], place_in_parts(&s, r, kind, c), sum);
    }
}

static bool share_grad_example(struct op_example *e, int n)
{
    if (n >= COUNT_OF(shapes))
        return false;
    i64 P = shapes[n].P, columns = shapes[n].Q + P * shapes[n].w * shapes[n].copies;
    enum dtype sums = e->dtype == DTYPE_BF16 && n % 2 == 0 ? DTYPE_F32 : e->dtype; /* wide_grad */
    struct task proto = {
        .op = &op_share_heads_grad,
        .in = { example_normal(e, ROLE_ACTIVATION, e->dtype, shapes[n].R, columns, 1) },
        .attr = { [SHARE_PARTS] = (double)P, [SHARE_COPIES] = (double)shapes[n].copies,
                  [SHARE_SIZE] = (double)shapes[n].D },
    };
    proto.out[0] = graph_matrix(e->g, e->dtype, shapes[n].R, shapes[n].Q, "dq");
    proto.out[1] = graph_matrix(e->g, sums, P * shapes[n].R, shapes[n].w, "dkv");
    graph_add(e->g, &proto);
    return true;
}

const struct op_info op_share_heads_grad = {
    .name = "share_heads_grad", .n_in = 1, .n_out = 2, .infer = share_grad_infer,
    .cost = share_grad_cost, .run_ref = share_grad_ref, .example = share_grad_example,
};
