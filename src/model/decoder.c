#include "model/decoder.h"

/* What attention needs beside qkv; the caches are NULL outside sampling. */
struct where {
    i64 B, T;
    struct tensor *positions, *begin, **cache_k, **cache_v;
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

static struct tensor *attend(struct graph *g, const struct model *m, struct tensor *qkv,
                             const struct where *w, int layer)
{
    const struct model_spec *s = &m->local;
    struct attention_shape shape = {
        .B = (int)w->B, .T = (int)w->T, .H = (int)s->heads, .G = (int)s->kv_heads,
        .D = (int)s->head_size, .window = (int)s->window,
    };
    if (s->qk_norm)
        qkv = qk_norm(g, qkv, weight(m, P_Q_NORM, layer), weight(m, P_K_NORM, layer), shape.H,
                      shape.G, shape.D, s->norm_eps);
    if (s->position == POSITION_ROPE)
        qkv = rope(g, qkv, m->rope_table, w->positions, shape.H, shape.G, shape.D);
    if (w->cache_k)
        return attention_cached(g, qkv, w->positions, w->cache_k[layer], w->cache_v[layer],
                                &shape);
    return attention(g, qkv, w->begin, &shape);
}

static struct tensor *activate(struct graph *g, const struct model_spec *s, struct tensor *x)
{
    return s->act == ACT_SWIGLU ? swiglu(g, x) : gelu(g, x, s->act == ACT_GELU_EXACT);
}

static struct tensor *block(struct graph *g, const struct model *m, struct tensor *x,
                            const struct where *w, int layer)
{
    g->layer = layer;
    struct tensor *h = norm(g, m, x, P_NORM1, P_NORM1_BIAS, layer);
    h = linear(g, h, weight(m, P_QKV, layer), weight(m, P_QKV_BIAS, layer), NULL);
    h = attend(g, m, h, w, layer);
    x = linear(g, h, weight(m, P_OUT, layer), weight(m, P_OUT_BIAS, layer), x);
    h = norm(g, m, x, P_NORM2, P_NORM2_BIAS, layer);
    h = linear(g, h, weight(m, P_UP, layer), weight(m, P_UP_BIAS, layer), NULL);
    h = activate(g, &m->spec, h);
    x = linear(g, h, weight(m, P_DOWN, layer), weight(m, P_DOWN_BIAS, layer), x);
    g->layer = -1;
    return x;
}

static struct tensor *hidden(struct graph *g, const struct model *m, struct tensor *tokens,
                             const struct where *w)
{
    struct tensor *wpe = weight(m, P_WPE, -1);
    struct tensor *x = embed(g, tokens, weight(m, P_WTE, -1), wpe ? w->positions : NULL, wpe);
    for (int layer = 0; layer < m->spec.layers; layer++)
        x = block(g, m, x, w, layer);
    return norm(g, m, x, P_NORM_F, P_NORM_F_BIAS, -1);
}

struct tensor *decoder_hidden(struct graph *g, const struct model *m,
                              const struct batch *batch, i64 B, i64 T)
{
    struct where w = { B, T, batch->positions, batch->begin, NULL, NULL };
    return hidden(g, m, batch->tokens, &w);
}

struct tensor *decoder_cached(struct graph *g, const struct model *m, struct tensor *tokens,
                              struct tensor *positions, struct tensor **cache_k,
                              struct tensor **cache_v)
{
    struct where w = { 1, tokens ? tokens->dim[0] : 0, positions, NULL, cache_k, cache_v };
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

i64 decoder_exact_chunk(i64 B, i64 T)
{
    i64 n = B;
    while (n % 2 == 0)
        n /= 2;
    if (n * T > HEAD_ROWS)
        return i64_min(T, HEAD_ROWS);
    while (B % (2 * n) == 0 && 2 * n * T <= HEAD_ROWS)
        n *= 2;
    return n * T;
}

/* Rows of the chunk that begins at `row`; in exact mode none reaches into the next sequence. */
static i64 chunk_rows(const struct decoder_shape *s, i64 row)
{
    i64 R = s->B * s->T, chunk = s->exact ? decoder_exact_chunk(s->B, s->T) : HEAD_ROWS;
    i64 end = s->exact && chunk < s->T ? (row / s->T + 1) * s->T : R;
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
