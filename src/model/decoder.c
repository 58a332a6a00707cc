#include "model/decoder.h"

#include <math.h>

/* What attention and routers need beside their input; caches in sampling only, the shape
 * elsewhere. */
struct where {
    i64 B, T;
    struct tensor *positions, *begin, **cache_k, **cache_v;
    const struct decoder_shape *shape;
};

static struct tensor *weight(const struct model *m, enum param_id id, int layer)
{
    struct param *p = model_param(m, id, layer);
    return p ? p->compute : NULL;
}

static struct tensor *norm(struct graph *g, const struct model *m, struct tensor *x,
                           enum param_id gain, enum param_id bias, int layer)
{
    if (m->spec.norm == NORM_RMS)
        return rmsnorm(g, x, weight(m, gain, layer), m->spec.norm_eps);
    return layernorm(g, x, weight(m, gain, layer), weight(m, bias, layer), m->spec.norm_eps);
}

i64 decoder_head_copies(const struct model_spec *s)
{
    i64 copies = SHARD_LEAVES % s->kv_heads ? 1 : SHARD_LEAVES / s->kv_heads;
    while (s->heads / s->kv_heads % copies || s->head_size % copies)
        copies /= 2;
    return copies;
}

/* With more ranks than key-value heads each has projected an equal part of one:
 * neighbours put theirs together. In exact mode a rank's leaves get a copy of it each. */
static struct tensor *share(struct graph *g, const struct model *m, struct tensor *qkv,
                            const struct where *w)
{
    const struct model_part *part = &m->part;
    i64 ranks = i64_max(1, part->tensor_parts / m->spec.kv_heads);
    i64 copies = w->shape && w->shape->leaf > 0 ? decoder_head_copies(&m->spec) / ranks : 1;
    if (ranks == 1 && copies == 1)
        return qkv;
    const struct task *split = split_qkv(g, qkv, m->local.heads * m->local.head_size);
    if (!split)
        return NULL;
    struct tensor *kv = split->out[1];
    if (ranks > 1) {
        struct task *gather = graph_add(
            g, &(struct task){ .op = &op_all_gather, .lane = LANE_TP, .in = { kv },
                               .attr = { [COLLECTIVE_SIZE] = (double)ranks,
                                         [COLLECTIVE_RANK] = (double)(part->tensor_part % ranks),
                                         [COLLECTIVE_OUTER] = 1, [COLLECTIVE_FEW] = 1 } });
        kv = gather ? gather->out[0] : NULL;
        if (kv && w->shape && w->shape->leaf > 0)
            kv->wide_grad = true;
    }
    return share_heads(g, split->out[0], kv, ranks, copies, m->local.head_size);
}

static struct tensor *attend_to(struct graph *g, struct tensor *qkv, const struct where *w,
                                const struct attention_shape *shape, int layer)
{
    if (w->cache_k)
        return attention_cached(g, qkv, w->positions, w->cache_k[layer], w->cache_v[layer],
                                shape);
    return attention(g, qkv, w->begin, shape);
}

static struct tensor *latent_norm(struct graph *g, const struct model *m, struct tensor *x,
                                  enum param_id gain, int layer)
{
    return rmsnorm(g, x, weight(m, gain, layer), m->spec.norm_eps);
}

/* Latent attention (DeepSeek-V2, 2024, section 2.1): heads are made of what a row was taken down
 * to. Keys are formed for every head, as in training elsewhere; in sampling too these are cached,
 * not the latents. */
static struct tensor *latent_attention(struct graph *g, const struct model *m, struct tensor *x,
                                       const struct where *w, int layer)
{
    const struct model_spec *s = &m->local;
    const struct latent_shape heads = { s->heads, s->head_size, s->latent_rope,
                                        spec_value_size(s) };
    const struct attention_shape shape = {
        .B = (int)w->B, .T = (int)w->T, .H = (int)s->heads, .G = (int)s->heads,
        .D = (int)spec_key_size(s), .V = (int)spec_value_size(s), .window = (int)s->window,
    };
    struct tensor *q = x;
    if (s->latent_q > 0) {
        q = linear(g, x, weight(m, P_Q_DOWN, layer), NULL, NULL);
        q = latent_norm(g, m, q, P_Q_LATENT_NORM, layer);
    }
    q = linear(g, q, weight(m, P_Q_UP, layer), NULL, NULL);
    struct tensor *kv = linear(g, x, weight(m, P_KV_DOWN, layer), NULL, NULL);
    const struct task *split = split_qkv(g, kv, s->latent_kv);
    if (!split)
        return NULL;
    struct tensor *rotary = split->out[1];
    kv = latent_norm(g, m, split->out[0], P_KV_LATENT_NORM, layer);
    kv = linear(g, kv, weight(m, P_KV_UP, layer), NULL, NULL);
    return attend_to(g, latent_heads(g, q, kv, rotary, m->rope_table, w->positions, &heads), w,
                     &shape, layer);
}

static struct tensor *attend(struct graph *g, const struct model *m, struct tensor *x,
                             const struct where *w, int layer)
{
    const struct model_spec *s = &m->local;
    struct attention_shape shape = { .B = (int)w->B, .T = (int)w->T, .H = (int)s->heads,
                                     .D = (int)s->head_size, .window = (int)s->window };
    if (spec_is_latent(s))
        return latent_attention(g, m, x, w, layer);
    struct tensor *qkv = linear(g, x, weight(m, P_QKV, layer), weight(m, P_QKV_BIAS, layer), NULL);
    qkv = share(g, m, qkv, w);
    shape.G = qkv ? (int)((qkv->dim[1] / s->head_size - s->heads) / 2) : 1;
    if (s->qk_norm)
        qkv = qk_norm(g, qkv, weight(m, P_Q_NORM, layer), weight(m, P_K_NORM, layer), shape.H,
                      shape.G, shape.D, s->norm_eps);
    if (s->position == POSITION_ROPE)
        qkv = rope(g, qkv, m->rope_table, w->positions, shape.H, shape.G, shape.D);
    return attend_to(g, qkv, w, &shape, layer);
}

static struct tensor *activate(struct graph *g, const struct model_spec *s, struct tensor *x)
{
    return s->act == ACT_SWIGLU ? swiglu(g, x) : gelu(g, x, s->act == ACT_GELU_EXACT);
}

static struct tensor *dense_part(struct graph *g, const struct model *m, struct tensor *h,
                                 struct tensor *x, int layer)
{
    h = linear(g, h, weight(m, P_UP, layer), weight(m, P_UP_BIAS, layer), NULL);
    h = activate(g, &m->spec, h);
    return linear(g, h, weight(m, P_DOWN, layer), weight(m, P_DOWN_BIAS, layer), x);
}

/* In training, a router's losses count as means over the tokens, and over the sparse layers. */
/* Ranks that have parts of each row. */
static i64 row_parts(const struct where *w)
{
    return w->shape ? i64_max(1, w->shape->parts) : 1;
}

static struct router_config router_config_of(const struct model *m, const struct where *w)
{
    const struct model_spec *s = &m->spec;
    struct router_config c = {
        .k = s->experts_per_token, .T = w->T, .sigmoid = s->score == SCORE_SIGMOID,
        .normalise = s->score_normalise, .scale = s->score_scale,
    };
    if (!w->shape || w->shape->sequences == 0)
        return c;
    double parts = (double)w->shape->sequences * (double)spec_sparse_layers(s);
    double sharers = (double)row_parts(w);
    c.stats = true;
    c.aux = s->aux_loss / parts / (sharers * sharers); /* of whole rows, seen from w->T tokens */
    c.z = s->router_z_loss / parts / (sharers * (double)w->T);
    return c;
}

/* Scores are formed in fp32, whatever h is. */
static struct route route_rows(struct graph *g, const struct model *m, struct tensor *h,
                               const struct where *w, i64 capacity, int layer)
{
    struct router_config c = router_config_of(m, w);
    const i64 T = w->T * row_parts(w);
    struct param *bias = model_param(m, P_ROUTER_BIAS, layer);
    struct tensor *wide = h && h->dtype != DTYPE_F32 ? cast(g, h, DTYPE_F32) : h;
    struct tensor *z = linear(g, wide, weight(m, P_ROUTER, layer), NULL, NULL);
    struct route route = router(g, z, bias ? bias->master : NULL, &c);
    struct tensor *load = w->shape ? w->shape->load : NULL;
    if (load && route.stats)
        expert_load(g, route.stats, T, capacity,
                    graph_view(g, load, layer - m->spec.dense_layers, 1), NULL);
    if (bias && bias->grad && route.stats) /* with split gradients, of this micro-batch alone */
        expert_load(g, route.stats, T, capacity, NULL, bias->grad);
    return route;
}

i64 decoder_capacity(const struct model_spec *s, i64 T)
{
    double even = (double)(T * s->experts_per_token) / (double)s->experts;
    return (i64)ceil(s->capacity * even);
}

/* Only training drops tokens. */
static i64 capacity_of(const struct model_spec *s, const struct where *w)
{
    return w->shape && w->shape->sequences > 0 ? decoder_capacity(s, w->T * row_parts(w)) : 0;
}

/* What the experts that are here make of rows in their order; begin has so many leaves of each. */
static struct tensor *expert_products(struct graph *g, const struct model *m, struct tensor *y,
                                      struct tensor *begin, i64 expected, i64 leaves, int layer)
{
    y = expert_linear(g, y, weight(m, P_EXPERT_UP, layer), begin, expected, leaves);
    y = swiglu(g, y);
    return expert_linear(g, y, weight(m, P_EXPERT_DOWN, layer), begin, expected, leaves);
}

/* Most rows that can come from all ranks together: a row chooses no expert twice. */
static i64 most_arriving(const struct model *m, const struct where *w, i64 capacity)
{
    i64 here = m->local.experts, sequence = w->T * i64_min(m->spec.experts_per_token, here);
    if (capacity > 0)
        sequence = i64_min(sequence, here * capacity);
    return m->part.expert_parts * w->B * sequence;
}

static struct tensor *sparse_part(struct graph *g, const struct model *m, struct tensor *h,
                                  struct tensor *x, const struct where *w, int layer)
{
    const struct model_spec *s = &m->spec;
    i64 capacity = capacity_of(s, w), leaf = w->shape ? w->shape->leaf : 0;
    struct route route = route_rows(g, m, h, w, capacity, layer);
    struct expert_rows rows = expert_order(g, route.choice, s->experts, w->T, capacity, leaf);
    struct expert_trip trip = { .ranks = m->part.expert_parts, .rank = m->part.expert_part,
                                .most = most_arriving(m, w, capacity),
                                .leaves = leaf > 0 ? w->B * w->T / leaf : 0 };
    i64 leaves = i64_max(1, trip.ranks * trip.leaves);
    i64 expected = rows.source ? rows.source->dim[0] : 0;
    struct tensor *y = expert_gather(g, h, &rows);
    if (trip.ranks > 1)
        y = expert_leave(g, y, rows.begin, &trip);
    y = expert_products(g, m, y, trip.ranks > 1 ? trip.arrival.rows.begin : rows.begin, expected,
                        leaves, layer);
    if (trip.ranks > 1)
        y = expert_return(g, y, &trip);
    if (s->shared_hidden > 0) {
        h = swiglu(g, linear(g, h, weight(m, P_SHARED_UP, layer), NULL, NULL));
        x = linear(g, h, weight(m, P_SHARED_DOWN, layer), NULL, x);
    }
    return expert_combine(g, y, &rows, route.weight, x);
}

static struct tensor *block(struct graph *g, const struct model *m, struct tensor *x,
                            const struct where *w, int layer)
{
    g->layer = layer;
    struct tensor *h = norm(g, m, x, P_NORM1, P_NORM1_BIAS, layer);
    h = attend(g, m, h, w, layer);
    x = linear(g, h, weight(m, P_OUT, layer), weight(m, P_OUT_BIAS, layer), x);
    h = norm(g, m, x, P_NORM2, P_NORM2_BIAS, layer);
    x = spec_is_sparse(&m->spec, layer) ? sparse_part(g, m, h, x, w, layer)
                                        : dense_part(g, m, h, x, layer);
    g->layer = -1;
    return x;
}

static struct tensor *embedded(struct graph *g, const struct model *m, struct tensor *tokens,
                               const struct where *w)
{
    struct tensor *wpe = weight(m, P_WPE, -1);
    return embed(g, tokens, weight(m, P_WTE, -1), wpe ? w->positions : NULL, wpe);
}

static struct tensor *layers_of(struct graph *g, const struct model *m, struct tensor *x,
                                const struct where *w, const struct layer_range *layers)
{
    i64 end = layers->first + layers->count;
    for (i64 layer = layers->first; layer < end; layer++)
        x = block(g, m, x, w, (int)layer);
    return end < m->spec.layers ? x : norm(g, m, x, P_NORM_F, P_NORM_F_BIAS, -1);
}

static struct tensor *hidden(struct graph *g, const struct model *m, struct tensor *tokens,
                             const struct where *w)
{
    const struct layer_range all = { 0, m->spec.layers };
    return layers_of(g, m, embedded(g, m, tokens, w), w, &all);
}

struct tensor *decoder_stage(struct graph *g, const struct model *m, const struct batch *batch,
                             const struct decoder_shape *shape, struct tensor *x,
                             const struct layer_range *layers)
{
    struct where w = { shape->B, shape->T, batch->positions, batch->begin, NULL, NULL, shape };
    return layers_of(g, m, x ? x : embedded(g, m, batch->tokens, &w), &w, layers);
}

struct tensor *decoder_hidden(struct graph *g, const struct model *m,
                              const struct batch *batch, const struct decoder_shape *shape)
{
    struct where w = { shape->B, shape->T, batch->positions, batch->begin, NULL, NULL, shape };
    return hidden(g, m, batch->tokens, &w);
}

struct tensor *decoder_cached(struct graph *g, const struct model *m, struct tensor *tokens,
                              struct tensor *positions, struct tensor **cache_k,
                              struct tensor **cache_v)
{
    struct where w = { 1, tokens ? tokens->dim[0] : 0, positions, NULL, cache_k, cache_v, NULL };
    return hidden(g, m, tokens, &w);
}

static struct tensor *head_weight(const struct model *m)
{
    return weight(m, m->spec.tied ? P_WTE : P_HEAD, -1);
}

struct tensor *decoder_logits(struct graph *g, const struct model *m, struct tensor *h,
                              i64 row, i64 rows)
{
    return linear_f32(g, graph_view(g, h, row, rows), head_weight(m));
}

i64 decoder_exact_chunk(i64 n, i64 T)
{
    i64 of = n;
    while (n % 2 == 0)
        n /= 2;
    if (n * T > HEAD_ROWS)
        return i64_min(T, HEAD_ROWS);
    while (of % (2 * n) == 0 && 2 * n * T <= HEAD_ROWS)
        n *= 2;
    return n * T;
}

/* Rows of the chunk that begins at `row`; in exact mode none reaches from one leaf into
 * the next. */
static i64 chunk_rows(const struct decoder_shape *s, i64 row)
{
    i64 R = s->B * s->T, leaf = s->leaf;
    i64 chunk = leaf ? decoder_exact_chunk(R / leaf, leaf) : HEAD_ROWS;
    i64 end = leaf && chunk < leaf ? (row / leaf + 1) * leaf : R;
    return i64_min(chunk, end - row);
}

struct tensor *decoder_loss(struct graph *g, const struct model *m, struct tensor *h,
                            const struct batch *batch, const struct decoder_shape *shape,
                            struct tensor *sums)
{
    /* Of a share of the vocabulary, what is here: tensor_parallel makes it whole. */
    i64 vocab = i64_min(m->spec.vocab, head_weight(m)->dim[0]);
    i64 R = shape->B * shape->T;
    int grad_dtype = shape->gradient ? (int)m->compute : -1;
    struct tensor *nll = graph_tensor(g, ROLE_RESULT, DTYPE_F32, 1, &R, "nll");
    g->head = true;
    for (i64 row = 0, rows; row < R && g->rc >= 0; row += rows, g->chunk++) {
        rows = chunk_rows(shape, row);
        struct tensor *z = decoder_logits(g, m, h, row, rows);
        xent(g, z, graph_view(g, batch->targets, row, rows),
             graph_view(g, batch->weights, row, rows), batch->inv_weight,
             graph_view(g, nll, row, rows), grad_dtype, vocab, shape->z_loss);
    }
    if (sums)
        loss_sums(g, nll, batch->weights, batch->sources, sums);
    g->head = false;
    g->chunk = 0;
    return nll;
}
