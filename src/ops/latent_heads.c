/* Heads of multi-head latent attention (DeepSeek-V2, 2024, eq. 14 to 18) as attention reads them:
 *   q_h = [q_h's N | R_t of its P]   k_h = [kv_h's N | R_t k]   v_h = kv_h's V
 * R_t turns pairs by t's angles; k is what the keys of all heads have in common, so its gradient
 * is a sum over heads, ascending.
 * q (R, H (N+P))   kv (R, H (N+V))   k (R, P)   table (positions, P): cosines, then sines
 * qkv (R, 2 H (N+P) + H V)
 * Pairs are (2i, 2i+1) where they come from and (i, i + P/2) where they go: a score does not
 * depend on their order. */
#include "ops/example.h"
#include "ops/kit.h"

#include <math.h>

struct heads {
    i64 H, N, P, V, D, columns; /* D: of a query or key; columns of qkv */
};

static struct heads heads_of(const struct task *t)
{
    struct heads s = { .H = (i64)t->attr[LATENT_H], .N = (i64)t->attr[LATENT_N],
                       .P = (i64)t->attr[LATENT_P], .V = (i64)t->attr[LATENT_V] };
    s.D = s.N + s.P;
    s.columns = 2 * s.H * s.D + s.H * s.V;
    return s;
}

static int check_heads(struct graph *g, const struct task *t, const struct tensor *x,
                       const struct tensor *table, const struct tensor *positions)
{
    struct heads s = heads_of(t);
    TRY(kit_heads(g, t, s.H, s.H, s.D));
    TRY(kit_heads(g, t, s.H, s.H, s.V));
    if (s.N < 0 || s.P < 2 || s.P % 2 != 0)
        return graph_fail(g, t, "a head of %lld and %lld columns has no pairs to turn",
                          (long long)s.N, (long long)s.P);
    TRY(kit_compute_dtype(g, t, "heads", x));
    TRY(kit_matrix(g, t, "table", table, KIT_ANY, s.P));
    TRY(kit_dtype(g, t, "table", table, kit_wide(x)));
    TRY(kit_vector(g, t, "positions", positions, x->dim[0]));
    return kit_dtype(g, t, "positions", positions, DTYPE_I32);
}

static int check_one(struct graph *g, const struct task *t, const char *what,
                     const struct tensor *x, const struct tensor *like, i64 columns)
{
    TRY(kit_matrix(g, t, what, x, like->dim[0], columns));
    return kit_dtype(g, t, what, x, like->dtype);
}

static int latent_infer(struct graph *g, struct task *t)
{
    struct tensor *q = t->in[0];
    struct heads s = heads_of(t);
    TRY(kit_matrix(g, t, "q", q, KIT_ANY, s.H * s.D));
    TRY(check_heads(g, t, q, t->in[3], t->in[4]));
    TRY(check_one(g, t, "kv", t->in[1], q, s.H * (s.N + s.V)));
    TRY(check_one(g, t, "k", t->in[2], q, s.P));
    if (!t->out[0])
        t->out[0] = graph_matrix(g, q->dtype, q->dim[0], s.columns, "latent_heads");
    return check_one(g, t, "qkv", t->out[0], q, s.columns);
}

/* Of the table, at most one row per row of x. */
static void table_traffic(const struct task *t, const struct tensor *table, i64 rows,
                          struct cost *c)
{
    double read = (double)i64_min(rows, table->dim[0]) * t->attr[LATENT_P] * 4;
    c->read_bytes += read - (double)tensor_bytes(table);
}

/* Three operations for each element that is turned: of all queries, and of one key. */
static void latent_cost(const struct task *t, struct cost *c)
{
    i64 R = t->in[0]->dim[0];
    kit_traffic(t, c);
    table_traffic(t, t->in[3], R, c);
    c->flops = 3 * (double)R * t->attr[LATENT_P] * (t->attr[LATENT_H] + 1);
}

/* Element i of P, turned, of what begins at x. */
static double turned(const struct tensor *x, i64 at, const struct tensor *table, i64 angle, i64 P,
                     i64 i)
{
    i64 pair = i % (P / 2);
    double a = tensor_get(x, at + 2 * pair), b = tensor_get(x, at + 2 * pair + 1);
    double cosine = tensor_get(table, angle + pair), sine = tensor_get(table, angle + P / 2 + pair);
    return i < P / 2 ? a * cosine - b * sine : b * cosine + a * sine;
}

static void copy_run(const struct tensor *to, i64 at, const struct tensor *from, i64 first, i64 n)
{
    for (i64 i = 0; i < n; i++)
        tensor_set(to, at + i, tensor_get(from, first + i));
}

static void latent_ref(const struct task *t, struct run *run)
{
    const struct tensor *q = t->in[0], *kv = t->in[1], *k = t->in[2], *table = t->in[3];
    const struct heads s = heads_of(t);
    const i32 *positions = t->in[4]->data;
    (void)run;
    for (i64 i = 0; i < q->dim[0] * s.H; i++) {
        i64 r = i / s.H, h = i % s.H, angle = positions[r] * s.P;
        i64 query = r * s.columns + h * s.D, key = query + s.H * s.D;
        i64 value = r * s.columns + 2 * s.H * s.D + h * s.V;
        assert(positions[r] >= 0 && positions[r] < table->dim[0]);
        copy_run(t->out[0], query, q, i * s.D, s.N);
        copy_run(t->out[0], key, kv, i * (s.N + s.V), s.N);
        copy_run(t->out[0], value, kv, i * (s.N + s.V) + s.N, s.V);
        for (i64 p = 0; p < s.P; p++) {
            tensor_set(t->out[0], query + s.N + p,
                       turned(q, i * s.D + s.N, table, angle, s.P, p));
            tensor_set(t->out[0], key + s.N + p, turned(k, r * s.P, table, angle, s.P, p));
        }
    }
}

static void latent_grad(struct graph *g, const struct task *t)
{
    struct tensor *dy = grad_of(g, t->out[0]);
    struct task proto = { .op = &op_latent_heads_grad, .phase = PHASE_INPUT_GRAD,
                          .in = { dy, t->in[3], t->in[4] } };
    bool any = false;
    for (int k = 0; k < 3; k++)
        any = any || grad_needed(g, t->in[k]);
    if (!dy || !any)
        return;
    memcpy(proto.attr, t->attr, sizeof proto.attr);
    for (int k = 0; k < 3; k++)
        proto.out[k] = grad_needed(g, t->in[k]) ? grad_target(g, t->in[k]) : NULL;
    struct task *made = graph_add(g, &proto);
    for (int k = 0; made && k < 3; k++)
        if (grad_needed(g, t->in[k]))
            grad_add(g, t->in[k], made->out[k]);
}

/* Few and many heads, heads without a part that is not turned, values larger than keys. */
static const struct { i64 R, H, N, P, V, positions; } shapes[] = {
    { 5, 2, 6, 4, 6, 7 }, { 19, 5, 24, 16, 17, 40 }, { 3, 1, 0, 8, 12, 5 },
    { 7, 3, 128, 64, 128, 9 },
};

static struct tensor *example_table(struct op_example *e, int n)
{
    i64 P = shapes[n].P;
    struct tensor *table = example_normal(e, ROLE_CONST, DTYPE_F32, shapes[n].positions, P, 1);
    for (i64 i = 0; table && i < shapes[n].positions * P / 2; i++) {
        i64 position = i / (P / 2), pair = i % (P / 2);
        double angle = (double)position * pow(100, -2.0 * (double)pair / (double)P);
        tensor_set(table, position * P + pair, cos(angle));
        tensor_set(table, position * P + P / 2 + pair, sin(angle));
    }
    return table;
}

static struct latent_shape example_shape(int n)
{
    return (struct latent_shape){ shapes[n].H, shapes[n].N, shapes[n].P, shapes[n].V };
}

static bool latent_example(struct op_example *e, int n)
{
    if (n >= COUNT_OF(shapes))
        return false;
    const struct latent_shape s = example_shape(n);
    i64 R = shapes[n].R;
    struct tensor *q = example_normal(e, ROLE_ACTIVATION, e->dtype, R, s.H * (s.N + s.P), 1);
    struct tensor *kv = example_normal(e, ROLE_ACTIVATION, e->dtype, R, s.H * (s.N + s.V), 1);
    struct tensor *k = example_normal(e, ROLE_ACTIVATION, e->dtype, R, s.P, 1);
    struct tensor *table = example_table(e, n);
    latent_heads(e->g, q, kv, k, table, example_integers(e, R, shapes[n].positions), &s);
    return true;
}

const struct op_info op_latent_heads = {
    .name = "latent_heads", .n_in = 5, .n_out = 1,
    .infer = latent_infer, .grad = latent_grad, .cost = latent_cost, .run_ref = latent_ref,
    .example = latent_example,
};

static struct task latent_proto(const struct op_info *op, const struct latent_shape *s)
{
    return (struct task){ .op = op,
                          .attr = { [LATENT_H] = (double)s->H, [LATENT_N] = (double)s->N,
                                    [LATENT_P] = (double)s->P, [LATENT_V] = (double)s->V } };
}

struct tensor *latent_heads(struct graph *g, struct tensor *q, struct tensor *kv, struct tensor *k,
                            struct tensor *table, struct tensor *positions,
                            const struct latent_shape *shape)
{
    struct task proto = latent_proto(&op_latent_heads, shape);
    proto.in[0] = q;
    proto.in[1] = kv;
    proto.in[2] = k;
    proto.in[3] = table;
    proto.in[4] = positions;
    struct task *t = graph_add(g, &proto);
    return t ? t->out[0] : NULL;
}

/* --- gradient ----------------------------------------------------------------------- */

static int latent_grad_infer(struct graph *g, struct task *t)
{
    struct tensor *dy = t->in[0];
    struct heads s = heads_of(t);
    TRY(kit_matrix(g, t, "dqkv", dy, KIT_ANY, s.columns));
    TRY(check_heads(g, t, dy, t->in[1], t->in[2]));
    const i64 columns[] = { s.H * s.D, s.H * (s.N + s.V), s.P };
    static const char *const names[] = { "dq", "dkv", "dk" };
    for (int k = 0; k < 3; k++) {
        if (!t->out[k])
            t->out[k] = graph_matrix(g, dy->dtype, dy->dim[0], columns[k], names[k]);
        TRY(check_one(g, t, names[k], t->out[k], dy, columns[k]));
    }
    return OK;
}

static void latent_grad_cost(const struct task *t, struct cost *c)
{
    i64 R = t->in[0]->dim[0];
    kit_traffic(t, c);
    table_traffic(t, t->in[1], R, c);
    c->flops = (double)R * t->attr[LATENT_P] * (4 * t->attr[LATENT_H] + 3);
}

/* a, b of pair i, turned back. */
static void turn_back(const struct tensor *to, i64 at, double a, double b,
                      const struct tensor *table, i64 angle, i64 P, i64 i)
{
    double cosine = tensor_get(table, angle + i), sine = tensor_get(table, angle + P / 2 + i);
    tensor_set(to, at + 2 * i, a * cosine + b * sine);
    tensor_set(to, at + 2 * i + 1, b * cosine - a * sine);
}

static void row_grad(const struct task *t, const struct heads *s, i64 r)
{
    const struct tensor *dy = t->in[0], *table = t->in[1];
    i64 angle = ((const i32 *)t->in[2]->data)[r] * s->P, row = r * s->columns;
    for (i64 h = 0; h < s->H; h++) {
        i64 i = r * s->H + h, query = row + h * s->D, key = query + s->H * s->D;
        copy_run(t->out[0], i * s->D, dy, query, s->N);
        copy_run(t->out[1], i * (s->N + s->V), dy, key, s->N);
        copy_run(t->out[1], i * (s->N + s->V) + s->N, dy, row + 2 * s->H * s->D + h * s->V, s->V);
        for (i64 p = 0; p < s->P / 2; p++)
            turn_back(t->out[0], i * s->D + s->N, tensor_get(dy, query + s->N + p),
                      tensor_get(dy, query + s->N + s->P / 2 + p), table, angle, s->P, p);
    }
    for (i64 p = 0; p < s->P / 2; p++) {
        double a = 0, b = 0;
        for (i64 h = 0; h < s->H; h++) {
            i64 key = row + (s->H + h) * s->D + s->N;
            a += tensor_get(dy, key + p);
            b += tensor_get(dy, key + s->P / 2 + p);
        }
        turn_back(t->out[2], r * s->P, a, b, table, angle, s->P, p);
    }
}

static void latent_grad_ref(const struct task *t, struct run *run)
{
    const struct heads s = heads_of(t);
    (void)run;
    for (i64 r = 0; r < t->in[0]->dim[0]; r++)
        row_grad(t, &s, r);
}

static bool latent_grad_example(struct op_example *e, int n)
{
    if (n >= COUNT_OF(shapes))
        return false;
    const struct latent_shape s = example_shape(n);
    i64 R = shapes[n].R, columns = 2 * s.H * (s.N + s.P) + s.H * s.V;
    struct task proto = latent_proto(&op_latent_heads_grad, &s);
    proto.in[0] = example_normal(e, ROLE_ACTIVATION, e->dtype, R, columns, 1);
    proto.in[1] = example_table(e, n);
    proto.in[2] = example_integers(e, R, shapes[n].positions);
    graph_add(e->g, &proto);
    return true;
}

const struct op_info op_latent_heads_grad = {
    .name = "latent_heads_grad", .n_in = 3, .n_out = 3,
    .infer = latent_grad_infer, .cost = latent_grad_cost, .run_ref = latent_grad_ref,
    .example = latent_grad_example,
};
