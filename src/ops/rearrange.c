/* What ranks that share a row need put in another order before and after an exchange; nothing
 * is computed. See ops.h for shapes. */
#include "ops/example.h"
#include "ops/kit.h"
#include "ops/zigzag.h"

/* --- q apart from k and v ----------------------------------------------------------- */

static int split_infer(struct graph *g, struct task *t)
{
    const struct tensor *x = t->in[0];
    i64 R = x->dim[0], queries = (i64)t->attr[SPLIT_QUERIES], rest = tensor_columns(x) - queries;
    if (x->rank != 2 || queries < 1 || rest < 1)
        return graph_fail(g, t, "%lld of %lld columns cannot be queries", (long long)queries,
                          (long long)tensor_columns(x));
    if (!t->out[0])
        t->out[0] = graph_matrix(g, x->dtype, R, queries, "q");
    if (!t->out[1])
        t->out[1] = graph_matrix(g, x->dtype, R, rest, "kv");
    TRY(kit_matrix(g, t, "q", t->out[0], R, queries));
    TRY(kit_dtype(g, t, "q", t->out[0], x->dtype));
    TRY(kit_matrix(g, t, "kv", t->out[1], R, rest));
    return kit_dtype(g, t, "kv", t->out[1], x->dtype);
}

static void split_ref(const struct task *t, struct run *run)
{
    const struct tensor *x = t->in[0];
    i64 C = x->dim[1], Q = t->out[0]->dim[1];
    (void)run;
    for (i64 i = 0; i < tensor_count(x); i++)
        tensor_set(t->out[i % C >= Q], i % C < Q ? i / C * Q + i % C
                                                 : i / C * (C - Q) + i % C - Q,
                   tensor_get(x, i));
}

static void split_grad(struct graph *g, const struct task *t)
{
    struct tensor *dq = grad_of(g, t->out[0]), *dkv = grad_of(g, t->out[1]);
    if ((!dq && !dkv) || !grad_needed(g, t->in[0]))
        return;
    struct task proto = { .op = &op_join_qkv, .phase = PHASE_INPUT_GRAD, .in = { dq, dkv },
                          .out = { grad_target(g, t->in[0]) } };
    memcpy(proto.attr, t->attr, sizeof proto.attr);
    graph_add(g, &proto);
    grad_add(g, t->in[0], proto.out[0]);
}

static bool split_example(struct op_example *e, int n)
{
    static const struct { i64 R, q, kv; } shapes[] = { { 7, 12, 8 }, { 33, 40, 10 }, { 1, 3, 6 } };
    if (n >= COUNT_OF(shapes))
        return false;
    split_qkv(e->g, example_normal(e, ROLE_ACTIVATION, e->dtype, shapes[n].R,
                                   shapes[n].q + shapes[n].kv, 1), shapes[n].q);
    return true;
}

const struct op_info op_split_qkv = {
    .name = "split_qkv", .n_in = 1, .n_out = 2, .cheap = true, .infer = split_infer,
    .grad = split_grad, .cost = kit_traffic, .run_ref = split_ref, .example = split_example,
};

struct task *split_qkv(struct graph *g, struct tensor *qkv, i64 query_columns)
{
    return graph_add(g, &(struct task){ .op = &op_split_qkv, .in = { qkv },
                                        .attr = { [SPLIT_QUERIES] = (double)query_columns } });
}

/* A half without a gradient is zero. */
static int join_infer(struct graph *g, struct task *t)
{
    struct tensor *y = t->out[0];
    i64 queries = (i64)t->attr[SPLIT_QUERIES];
    if (!y || y->rank != 2)
        return graph_fail(g, t, "the joined tensor is missing");
    if (t->in[0])
        TRY(kit_matrix(g, t, "q", t->in[0], y->dim[0], queries));
    return t->in[1] ? kit_matrix(g, t, "kv", t->in[1], y->dim[0], y->dim[1] - queries) : OK;
}

static void join_ref(const struct task *t, struct run *run)
{
    const struct tensor *y = t->out[0];
    i64 C = y->dim[1], Q = (i64)t->attr[SPLIT_QUERIES];
    (void)run;
    for (i64 i = 0; i < tensor_count(y); i++) {
        i64 r = i / C, c = i % C;
        const struct tensor *from = t->in[c >= Q];
        tensor_set(y, i, !from ? 0 : tensor_get(from, c < Q ? r * Q + c : r * (C - Q) + c - Q));
    }
}

static bool join_example(struct op_example *e, int n)
{
    static const struct { i64 R, q, kv; } shapes[] = { { 7, 12, 8 }, { 33, 40, 10 }, { 3, 17, 4 } };
    if (n >= COUNT_OF(shapes))
        return false;
    i64 R = shapes[n].R, q = shapes[n].q, kv = shapes[n].kv;
    enum dtype wide = e->dtype == DTYPE_F64 ? DTYPE_F64 : DTYPE_F32;
    struct task proto = { .op = &op_join_qkv, .attr = { [SPLIT_QUERIES] = (double)q } };
    proto.in[0] = example_normal(e, ROLE_ACTIVATION, wide, R, q, 1);
    proto.in[1] = n < 2 ? example_normal(e, ROLE_ACTIVATION, wide, R, kv, 1) : NULL;
    proto.out[0] = graph_matrix(e->g, e->dtype, R, q + kv, "joined");
    graph_add(e->g, &proto);
    return true;
}

const struct op_info op_join_qkv = {
    .name = "join_qkv", .n_in = 2, .n_out = 1, .infer = join_infer, .cost = kit_traffic,
    .run_ref = join_ref, .example = join_example,
};

/* --- heads over ranks --------------------------------------------------------------- */

struct spread {
    i64 n, H, G, D, V, columns; /* of x */
};

static struct spread spread_of(const struct task *t)
{
    struct spread s = { (i64)t->attr[SPREAD_PARTS], (i64)t->attr[SPREAD_H],
                        (i64)t->attr[SPREAD_G], (i64)t->attr[SPREAD_D],
                        (i64)t->attr[SPREAD_V], 0 };
    s.V = s.V > 0 ? s.V : s.D;
    s.columns = (s.H + s.G) * s.D + s.G * s.V;
    return s;
}

static int spread_infer(struct graph *g, struct task *t)
{
    struct spread s = spread_of(t);
    const struct tensor *in = t->in[0];
    bool back = t->attr[SPREAD_BACK] != 0;
    if (s.n < 1 || s.H < 1 || s.G < 0 || s.D < 1 || s.H % s.n || s.G % s.n)
        return graph_fail(g, t, "%lld and %lld heads do not divide among %lld ranks",
                          (long long)s.H, (long long)s.G, (long long)s.n);
    TRY(kit_matrix(g, t, "x", in, KIT_ANY, back ? s.columns / s.n : s.columns));
    if (back && in->dim[0] % s.n)
        return graph_fail(g, t, "%lld rows are not %lld parts", (long long)in->dim[0],
                          (long long)s.n);
    i64 rows = back ? in->dim[0] / s.n : in->dim[0] * s.n;
    i64 columns = back ? s.columns : s.columns / s.n;
    if (!t->out[0])
        t->out[0] = graph_matrix(g, in->dtype, rows, columns, "spread_heads");
    TRY(kit_matrix(g, t, "y", t->out[0], rows, columns));
    return kit_dtype(g, t, "y", t->out[0], in->dtype);
}

/* Where element c of row r of x is in the parts. */
static i64 place_in_parts(const struct spread *s, i64 rows, i64 r, i64 c)
{
    const i64 of[] = { s->H, s->G, s->G }, size[] = { s->D, s->D, s->V }; /* q, k, v */
    i64 before = 0, kind = 0;
    while (kind < 2 && c >= of[kind] * size[kind]) {
        c -= of[kind] * size[kind];
        before += of[kind] * size[kind] / s->n;
        kind++;
    }
    i64 share = of[kind] / s->n * size[kind];
    return (c / share * rows + r) * (s->columns / s->n) + before + c % share;
}

static void spread_ref(const struct task *t, struct run *run)
{
    struct spread s = spread_of(t);
    bool back = t->attr[SPREAD_BACK] != 0;
    const struct tensor *x = back ? t->out[0] : t->in[0];
    (void)run;
    for (i64 i = 0; i < tensor_count(x); i++) {
        i64 place = place_in_parts(&s, x->dim[0], i / s.columns, i % s.columns);
        tensor_set(t->out[0], back ? i : place, tensor_get(t->in[0], back ? place : i));
    }
}

/* The gradient of a rearrangement is the same one back; attr[back] says which way it goes. */
static void rearrange_back(struct graph *g, const struct task *t, int back)
{
    struct tensor *dy = grad_of(g, t->out[0]);
    if (!dy || !grad_needed(g, t->in[0]))
        return;
    struct task proto = { .op = t->op, .phase = PHASE_INPUT_GRAD, .in = { dy },
                          .out = { grad_target(g, t->in[0]) } };
    memcpy(proto.attr, t->attr, sizeof proto.attr);
    proto.attr[back] = t->attr[back] == 0;
    graph_add(g, &proto);
    grad_add(g, t->in[0], proto.out[0]);
}

static void spread_grad(struct graph *g, const struct task *t)
{
    rearrange_back(g, t, SPREAD_BACK);
}

static bool spread_example(struct op_example *e, int n)
{
    static const struct { i64 R; struct attention_shape s; i64 n; bool back; } shapes[] = {
        { 5, { .H = 4, .G = 2, .D = 3 }, 2, false },
        { 9, { .H = 8, .G = 4, .D = 16 }, 4, true },
        { 6, { .H = 6, .G = 0, .D = 5 }, 3, false },
        { 3, { .H = 6, .G = 6, .D = 4 }, 2, true },
        { 64, { .H = 4, .G = 0, .D = 8 }, 2, false },
        { 1, { .H = 2, .G = 1, .D = 7 }, 1, false },
        { 7, { .H = 4, .G = 4, .D = 3, .V = 5 }, 2, false },
        { 5, { .H = 4, .G = 2, .D = 8, .V = 9 }, 2, true },
    };
    if (n >= COUNT_OF(shapes))
        return false;
    bool back = shapes[n].back;
    const struct attention_shape *s = &shapes[n].s;
    i64 parts = shapes[n].n, rows = back ? shapes[n].R * parts : shapes[n].R;
    i64 columns = (s->H + s->G) * s->D + s->G * (s->V > 0 ? s->V : s->D);
    struct tensor *x = example_normal(e, ROLE_ACTIVATION, e->dtype, rows,
                                      back ? columns / parts : columns, 1);
    spread_heads(e->g, x, parts, back, s);
    return true;
}

const struct op_info op_spread_heads = {
    .name = "spread_heads", .n_in = 1, .n_out = 1, .infer = spread_infer,
    .grad = spread_grad, .cost = kit_traffic, .run_ref = spread_ref, .example = spread_example,
};

struct tensor *spread_heads(struct graph *g, struct tensor *x, i64 parts, bool back,
                            const struct attention_shape *heads)
{
    struct task *t = graph_add(
        g, &(struct task){ .op = &op_spread_heads, .in = { x },
                           .attr = { [SPREAD_PARTS] = (double)parts, [SPREAD_BACK] = back,
                                     [SPREAD_H] = heads->H, [SPREAD_G] = heads->G,
                                     [SPREAD_D] = heads->D, [SPREAD_V] = heads->V } });
    return t ? t->out[0] : NULL;
}

/* --- parts of rows to rows ---------------------------------------------------------- */

static i64 pairs_of(const struct task *t)
{
    return i64_max(1, (i64)t->attr[ORDER_PAIRS]);
}

static int order_infer(struct graph *g, struct task *t)
{
    const struct tensor *x = t->in[0];
    i64 parts = (i64)t->attr[ORDER_PARTS], B = (i64)t->attr[ORDER_B], pairs = pairs_of(t);
    if (parts < 1 || B < 1 || x->dim[0] % (2 * parts * pairs * B))
        return graph_fail(g, t, "%lld tokens are not %lld rows of 2 x %lld chunks",
                          (long long)x->dim[0], (long long)B, (long long)(parts * pairs));
    if (!t->out[0])
        t->out[0] = x->rank == 1 ? graph_vector(g, x->dtype, x->dim[0], "order_rows")
                                 : graph_like(g, x, x->dtype, "order_rows");
    TRY(kit_same(g, t, "y", t->out[0], x));
    return kit_dtype(g, t, "y", t->out[0], x->dtype);
}

static void order_ref(const struct task *t, struct run *run)
{
    i64 parts = (i64)t->attr[ORDER_PARTS], B = (i64)t->attr[ORDER_B], R = t->in[0]->dim[0];
    i64 C = tensor_count(t->in[0]) / R, T = R / B, here = T / parts;
    bool back = t->attr[ORDER_BACK] != 0;
    (void)run;
    for (i64 r = 0; r < R; r++) { /* row r of the parts */
        i64 place = r / here % B * T +
                    zigzag_pair_place(parts, r / (B * here), pairs_of(t), here, r % here);
        for (i64 c = 0; c < C; c++)
            tensor_set(t->out[0], (back ? r : place) * C + c,
                       tensor_get(t->in[0], (back ? place : r) * C + c));
    }
}

static void order_grad(struct graph *g, const struct task *t)
{
    rearrange_back(g, t, ORDER_BACK);
}

static bool order_example(struct op_example *e, int n)
{
    static const struct { i64 parts, pairs, B, chunk, C; bool back; } shapes[] = {
        { 2, 0, 2, 3, 5, false },  { 3, 1, 1, 4, 8, true },  { 4, 1, 3, 1, 16, false },
        { 1, 0, 2, 5, 3, true },   { 1, 8, 2, 3, 5, false }, { 2, 4, 3, 2, 7, true },
    };
    if (n >= COUNT_OF(shapes))
        return false;
    i64 R = 2 * shapes[n].parts * i64_max(1, shapes[n].pairs) * shapes[n].B * shapes[n].chunk;
    struct tensor *x = example_normal(e, ROLE_ACTIVATION, e->dtype, R, shapes[n].C, 1);
    order_rows(e->g, x, shapes[n].parts, shapes[n].pairs, shapes[n].back, shapes[n].B, NULL);
    return true;
}

const struct op_info op_order_rows = {
    .name = "order_rows", .n_in = 1, .n_out = 1, .infer = order_infer, .grad = order_grad,
    .cost = kit_traffic, .run_ref = order_ref, .example = order_example,
};

struct tensor *order_rows(struct graph *g, struct tensor *x, i64 parts, i64 pairs, bool back, i64 B,
                          struct tensor *y)
{
    struct task *t = graph_add(
        g, &(struct task){ .op = &op_order_rows, .in = { x }, .out = { y },
                           .attr = { [ORDER_PARTS] = (double)parts, [ORDER_BACK] = back,
                                     [ORDER_B] = (double)B, [ORDER_PAIRS] = (double)pairs } });
    return t ? t->out[0] : NULL;
}
