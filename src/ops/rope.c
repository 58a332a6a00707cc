/* Rotary position embedding (Su et al. 2021, eq. 34) of query and key heads, values copied.
 * Pairs are (i, i + D/2), as in Llama and GPT-NeoX:
 *   a' = a cos - b sin,  b' = b cos + a sin,  angle = positions[r] frequency[i]
 * A rotation's gradient is the rotation back, so this op is its own gradient op.
 * qkv, y (R, (H+2G) D)   table (P, D): cos in [0, D/2), sin in [D/2, D)   positions (R) */
#include "ops/example.h"
#include "ops/kit.h"

#include <math.h>

static int rope_infer(struct graph *g, struct task *t)
{
    struct tensor *qkv = t->in[0], *table = t->in[1], *positions = t->in[2];
    i64 H = (i64)t->attr[ROPE_H], G = (i64)t->attr[ROPE_G], D = (i64)t->attr[ROPE_D];
    TRY(kit_heads(g, t, H, G, D));
    if (D % 2 != 0)
        return graph_fail(g, t, "head size %lld is odd, rotation needs pairs", (long long)D);
    TRY(kit_matrix(g, t, "qkv", qkv, KIT_ANY, (H + 2 * G) * D));
    TRY(kit_compute_dtype(g, t, "qkv", qkv));
    TRY(kit_matrix(g, t, "table", table, KIT_ANY, D));
    TRY(kit_dtype(g, t, "table", table, kit_wide(qkv)));
    TRY(kit_vector(g, t, "positions", positions, qkv->dim[0]));
    TRY(kit_dtype(g, t, "positions", positions, DTYPE_I32));
    if (!t->out[0])
        t->out[0] = graph_like(g, qkv, qkv->dtype, "rope");
    TRY(kit_same(g, t, "y", t->out[0], qkv));
    return kit_dtype(g, t, "y", t->out[0], qkv->dtype);
}

static void rope_cost(const struct task *t, struct cost *c)
{
    double H = t->attr[ROPE_H], G = t->attr[ROPE_G];
    kit_elementwise(t, c, 3 * (H + G) / (H + 2 * G));
    /* Of the table, at most one row per row of qkv. */
    double rows = (double)i64_min(t->in[0]->dim[0], t->in[1]->dim[0]);
    c->read_bytes += rows * t->attr[ROPE_D] * 4 - (double)tensor_bytes(t->in[1]);
}

static void rope_ref(const struct task *t, struct run *run)
{
    const struct tensor *x = t->in[0], *table = t->in[1], *y = t->out[0];
    const i32 *positions = t->in[2]->data;
    i64 H = (i64)t->attr[ROPE_H], G = (i64)t->attr[ROPE_G], D = (i64)t->attr[ROPE_D];
    double sign = t->attr[ROPE_INVERSE] != 0 ? -1 : 1;
    (void)run;
    for (i64 r = 0; r < x->dim[0]; r++) {
        i64 row = r * (H + 2 * G) * D, angle = positions[r] * D;
        assert(positions[r] >= 0 && positions[r] < table->dim[0]);
        for (i64 h = 0; h < H + G; h++) {
            for (i64 i = 0; i < D / 2; i++) {
                double cosine = tensor_get(table, angle + i);
                double sine = sign * tensor_get(table, angle + D / 2 + i);
                i64 at = row + h * D + i;
                double a = tensor_get(x, at), b = tensor_get(x, at + D / 2);
                tensor_set(y, at, a * cosine - b * sine);
                tensor_set(y, at + D / 2, b * cosine + a * sine);
            }
        }
        for (i64 i = row + (H + G) * D; i < row + (H + 2 * G) * D; i++)
            tensor_set(y, i, tensor_get(x, i));
    }
}

static void rope_grad(struct graph *g, const struct task *t)
{
    struct tensor *qkv = t->in[0], *dy = grad_of(g, t->out[0]);
    if (!dy || !grad_needed(g, qkv))
        return;
    struct task proto = { .op = &op_rope, .phase = PHASE_INPUT_GRAD,
                          .in = { dy, t->in[1], t->in[2] }, .out = { grad_target(g, qkv) },
                          .attr = { [ROPE_H] = t->attr[ROPE_H], [ROPE_G] = t->attr[ROPE_G],
                                    [ROPE_D] = t->attr[ROPE_D],
                                    [ROPE_INVERSE] = t->attr[ROPE_INVERSE] == 0 } };
    graph_add(g, &proto);
    grad_add(g, qkv, proto.out[0]);
}

static bool rope_example(struct op_example *e, int n)
{
    static const struct { i64 R; int H, G, D; i64 P; bool inverse; } shapes[] = {
        { 5, 2, 2, 6, 7, false }, { 19, 6, 2, 24, 40, false }, { 7, 3, 1, 64, 9, true },
    };
    if (n >= COUNT_OF(shapes))
        return false;
    int H = shapes[n].H, G = shapes[n].G, D = shapes[n].D;
    struct tensor *qkv = example_normal(e, ROLE_ACTIVATION, e->dtype, shapes[n].R,
                                        (H + 2 * G) * D, 1);
    struct tensor *table = example_normal(e, ROLE_CONST, DTYPE_F32, shapes[n].P, D, 1);
    for (i64 p = 0; p < shapes[n].P; p++)
        for (i64 i = 0; i < D / 2; i++) {
            double angle = (double)p * pow(100, -2.0 * (double)i / D);
            tensor_set(table, p * D + i, cos(angle));
            tensor_set(table, p * D + D / 2 + i, sin(angle));
        }
    struct tensor *positions = example_integers(e, shapes[n].R, shapes[n].P);
    graph_add(e->g, &(struct task){ .op = &op_rope, .in = { qkv, table, positions },
                                    .attr = { [ROPE_H] = H, [ROPE_G] = G, [ROPE_D] = D,
                                              [ROPE_INVERSE] = shapes[n].inverse } });
    return true;
}

const struct op_info op_rope = {
    .name = "rope", .n_in = 3, .n_out = 1, .in_place = 1u << 0,
    .infer = rope_infer, .grad = rope_grad, .cost = rope_cost, .run_ref = rope_ref,
    .example = rope_example,
};

struct tensor *rope(struct graph *g, struct tensor *qkv, struct tensor *table,
                    struct tensor *positions, int H, int G, int D)
{
    struct task *t = graph_add(
        g, &(struct task){ .op = &op_rope, .in = { qkv, table, positions },
                           .attr = { [ROPE_H] = H, [ROPE_G] = G, [ROPE_D] = D } });
    return t ? t->out[0] : NULL;
}
