/* Attention of generation: n new tokens of one sequence write their keys and values into
 * the cache at their positions, then each attends to slots
 *   max(0, position - window + 1) .. position
 * all of which earlier or present tokens must have filled. Mathematics as in attention.c.
 * qkv (n, (H+G) D + G V)   positions (n)   cache_k (P, G D), cache_v (P, G V), read and
 * written   y (n, H V) */
#include "ops/example.h"
#include "ops/kit.h"

#include <math.h>

struct shape {
    i64 n, H, G, D, V, P, window, columns;
};

static struct shape shape_of(const struct task *t)
{
    struct shape s = { .n = t->in[0]->dim[0], .H = (i64)t->attr[ATTENTION_H],
                       .G = (i64)t->attr[ATTENTION_G], .D = (i64)t->attr[ATTENTION_D],
                       .V = (i64)t->attr[ATTENTION_VALUE], .P = t->in[2]->dim[0],
                       .window = (i64)t->attr[ATTENTION_WINDOW] };
    s.V = s.V > 0 ? s.V : s.D;
    s.columns = (s.H + s.G) * s.D + s.G * s.V;
    return s;
}

static int attention_cached_infer(struct graph *g, struct task *t)
{
    struct tensor *qkv = t->in[0], *positions = t->in[1];
    if (!qkv || !t->in[2])
        return graph_fail(g, t, "qkv or the cache is missing");
    struct shape s = shape_of(t);
    TRY(kit_heads(g, t, s.H, s.G, s.D));
    TRY(kit_heads(g, t, s.H, s.G, s.V));
    TRY(kit_matrix(g, t, "qkv", qkv, KIT_ANY, s.columns));
    TRY(kit_compute_dtype(g, t, "qkv", qkv));
    TRY(kit_vector(g, t, "positions", positions, qkv->dim[0]));
    TRY(kit_dtype(g, t, "positions", positions, DTYPE_I32));
    TRY(kit_matrix(g, t, "cache_k", t->in[2], KIT_ANY, s.G * s.D));
    TRY(kit_dtype(g, t, "cache_k", t->in[2], qkv->dtype));
    TRY(kit_matrix(g, t, "cache_v", t->in[3], t->in[2]->dim[0], s.G * s.V));
    TRY(kit_dtype(g, t, "cache_v", t->in[3], qkv->dtype));
    if (!t->out[0])
        t->out[0] = graph_matrix(g, qkv->dtype, s.n, s.H * s.V, "attention_cached");
    TRY(kit_matrix(g, t, "y", t->out[0], s.n, s.H * s.V));
    return kit_dtype(g, t, "y", t->out[0], qkv->dtype);
}

/* Positions are known at run time only: counted as if the cache were full. */
static void attention_cached_cost(const struct task *t, struct cost *c)
{
    struct shape s = shape_of(t);
    double keys = (double)(s.window > 0 ? i64_min(s.window, s.P) : s.P);
    kit_traffic(t, c);
    c->written_bytes += (double)(s.n * s.G * (s.D + s.V) * dtype_bytes(t->in[2]->dtype));
    c->model_flops = 2 * (double)(s.n * s.H * (s.D + s.V)) * keys;
    c->flops = c->model_flops + 4 * (double)(s.n * s.H) * keys;
}

static void store(const struct task *t, const struct shape *s)
{
    const i32 *positions = t->in[1]->data;
    i64 keys = s->G * s->D, values = s->G * s->V;
    for (i64 i = 0; i < s->n; i++) {
        i64 key = i * s->columns + s->H * s->D;
        assert(positions[i] >= 0 && positions[i] < s->P);
        for (i64 c = 0; c < keys; c++)
            tensor_set(t->in[2], positions[i] * keys + c, tensor_get(t->in[0], key + c));
        for (i64 c = 0; c < values; c++)
            tensor_set(t->in[3], positions[i] * values + c,
                       tensor_get(t->in[0], key + keys + c));
    }
}

static double score(const struct task *t, const struct shape *s, i64 q, i64 k)
{
    double sum = 0;
    for (i64 d = 0; d < s->D; d++)
        sum += tensor_get(t->in[0], q + d) * tensor_get(t->in[2], k + d);
    return sum * t->attr[ATTENTION_SCALE];
}

static void attend(const struct task *t, const struct shape *s, i64 i, i64 h)
{
    i64 position = ((const i32 *)t->in[1]->data)[i], keys = s->G * s->D, values = s->G * s->V;
    i64 first = s->window > 0 ? i64_max(0, position - s->window + 1) : 0;
    i64 q = i * s->columns + h * s->D, group = h / (s->H / s->G);
    double most = -INFINITY, sum = 0, y[KIT_HEAD_SIZE] = { 0 };
    for (i64 j = first; j <= position; j++)
        most = fmax(most, score(t, s, q, j * keys + group * s->D));
    for (i64 j = first; j <= position; j++) {
        double p = exp(score(t, s, q, j * keys + group * s->D) - most);
        sum += p;
        for (i64 d = 0; d < s->V; d++)
            y[d] += p * tensor_get(t->in[3], j * values + group * s->V + d);
    }
    for (i64 d = 0; d < s->V; d++)
        tensor_set(t->out[0], (i * s->H + h) * s->V + d, y[d] / sum);
}

static void attention_cached_ref(const struct task *t, struct run *run)
{
    struct shape s = shape_of(t);
    (void)run;
    store(t, &s);
    for (i64 i = 0; i < s.n; i++)
        for (i64 h = 0; h < s.H; h++)
            attend(t, &s, i, h);
}

/* A prompt of several tokens, then single tokens, with and without a window. */
static bool attention_cached_example(struct op_example *e, int n)
{
    static const struct { i64 n, P, first; struct attention_shape shape; } shapes[] = {
        { 5, 9, 0, { .H = 2, .G = 2, .D = 6 } },
        { 1, 70, 66, { .H = 6, .G = 2, .D = 16 } },
        { 1, 40, 33, { .H = 4, .G = 1, .D = 8, .window = 7 } },
        { 17, 150, 120, { .H = 4, .G = 2, .D = 64, .scale = 0.2 } },
        { 3, 50, 40, { .H = 4, .G = 4, .D = 12, .V = 20 } },
        { 1, 120, 100, { .H = 2, .G = 2, .D = 24, .V = 16 } },
    };
    if (n >= COUNT_OF(shapes))
        return false;
    const struct attention_shape *s = &shapes[n].shape;
    i64 N = shapes[n].n, P = shapes[n].P, V = s->V > 0 ? s->V : s->D;
    i64 columns = (s->H + s->G) * s->D + s->G * V;
    struct tensor *qkv = example_normal(e, ROLE_ACTIVATION, e->dtype, N, columns, 1);
    struct tensor *positions = example_integers(e, N, P);
    for (i64 i = 0; i < N; i++)
        tensor_set(positions, i, (double)(shapes[n].first + i));
    struct tensor *cache_k = example_normal(e, ROLE_STATE, e->dtype, P, s->G * s->D, 1);
    struct tensor *cache_v = example_normal(e, ROLE_STATE, e->dtype, P, s->G * V, 1);
    attention_cached(e->g, qkv, positions, cache_k, cache_v, s);
    return true;
}

const struct op_info op_attention_cached = {
    .name = "attention_cached", .n_in = 4, .n_out = 1,
    .infer = attention_cached_infer, .cost = attention_cached_cost,
    .run_ref = attention_cached_ref, .example = attention_cached_example,
};

struct tensor *attention_cached(struct graph *g, struct tensor *qkv, struct tensor *positions,
                                struct tensor *cache_k, struct tensor *cache_v,
                                const struct attention_shape *shape)
{
    double scale = shape->scale != 0 ? shape->scale : 1 / sqrt((double)shape->D);
    struct task *t = graph_add(
        g, &(struct task){ .op = &op_attention_cached,
                           .in = { qkv, positions, cache_k, cache_v },
                           .attr = { [ATTENTION_B] = 1, [ATTENTION_T] = shape->T,
                                     [ATTENTION_H] = shape->H, [ATTENTION_G] = shape->G,
                                     [ATTENTION_D] = shape->D, [ATTENTION_SCALE] = scale,
                                     [ATTENTION_WINDOW] = shape->window,
                                     [ATTENTION_VALUE] = shape->V } });
    return t ? t->out[0] : NULL;
}
