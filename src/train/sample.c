#include "train/sample.h"

#include "base/rng.h"
#include "base/sys.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- building ----------------------------------------------------------------------- */

static void make_caches(struct sampler *s, const struct model *m, struct arena *a)
{
    s->cache_k = ARENA_ARRAY(a, struct tensor *, m->spec.layers);
    s->cache_v = ARENA_ARRAY(a, struct tensor *, m->spec.layers);
    for (i64 i = 0; i < 2 * m->spec.layers; i++) {
        struct tensor *t = ARENA_NEW(a, struct tensor);
        i64 size = i % 2 ? spec_value_size(&m->spec) : spec_key_size(&m->spec);
        *t = (struct tensor){ .name = i % 2 ? "cache.v" : "cache.k", .dtype = m->compute,
                              .role = ROLE_STATE, .rank = 2,
                              .dim = { s->capacity, m->spec.kv_heads * size },
                              .offset = s->region_bytes, .index = -1 };
        s->region_bytes += round_up(tensor_bytes(t), 64);
        (i % 2 ? s->cache_v : s->cache_k)[i / 2] = t;
    }
}

static int place_caches(struct sampler *s, i64 layers)
{
    s->region = sys_map_pages(s->region_bytes);
    if (!s->region)
        return err_set(ERR_LIMIT, "no memory for %.2f GB of key-value cache; ask for fewer "
                       "tokens", (double)s->region_bytes / 1e9);
    for (i64 i = 0; i < layers; i++) {
        s->cache_k[i]->data = (char *)s->region + s->cache_k[i]->offset;
        s->cache_v[i]->data = (char *)s->region + s->cache_v[i]->offset;
    }
    return OK;
}

static int build(struct sampler *s, struct sample_program *p, const struct model *m, i64 n,
                 struct arena *a)
{
    struct graph *g = &p->graph;
    graph_init(g, a);
    p->tokens = graph_tensor(g, ROLE_INPUT, DTYPE_I32, 1, &n, "tokens");
    p->positions = graph_tensor(g, ROLE_INPUT, DTYPE_I32, 1, &n, "positions");
    struct tensor *h = decoder_cached(g, m, p->tokens, p->positions, s->cache_k, s->cache_v);
    p->logits = decoder_logits(g, m, h, n - 1, 1);
    if (p->logits)
        p->logits->role = ROLE_RESULT; /* read by the host after the program */
    TRY(program_new(&p->program, g, "sample", 1));
    return engine_add(s->engine, p->program);
}

int sampler_init(struct sampler *s, const struct model *m, struct engine *e, i64 capacity,
                 struct arena *a)
{
    *s = (struct sampler){ .engine = e, .vocab = m->spec.vocab, .capacity = capacity };
    if (capacity > m->spec.positions)
        return err_set(ERR_MODEL, "%lld tokens are more than the model's %lld positions",
                       (long long)capacity, (long long)m->spec.positions);
    make_caches(s, m, a);
    TRY(place_caches(s, m->spec.layers));
    s->order = ARENA_ARRAY(a, i32, s->vocab);
    s->weight = ARENA_ARRAY(a, float, s->vocab);
    TRY(build(s, &s->one, m, 1, a));
    return build(s, &s->chunk, m, SAMPLE_CHUNK, a);
}

void sampler_fini(struct sampler *s)
{
    sys_unmap(s->region, s->region_bytes);
    *s = (struct sampler){ 0 };
}

void sampler_reset(struct sampler *s)
{
    s->length = 0;
    s->picks = 0;
}

/* --- running ------------------------------------------------------------------------ */

static void feed(struct sampler *s, struct sample_program *p, const i32 *tokens, i64 n)
{
    i32 *positions = p->positions->data;
    memcpy(p->tokens->data, tokens, sizeof *tokens * (size_t)n);
    for (i64 i = 0; i < n; i++)
        positions[i] = (i32)(s->length + i);
    engine_run(s->engine, p->program, NULL, (u64)s->length);
    s->length += n;
    if (p == &s->chunk) /* both programs leave their logits in the same place */
        memcpy(s->one.logits->data, p->logits->data, sizeof(float) * (size_t)s->vocab);
}

/* Weights may be finite and still overflow on the way. */
static int check_logits(const struct sampler *s)
{
    const float *logits = sampler_logits(s);
    for (i64 i = 0; i < s->vocab; i++)
        if (!isfinite(logits[i]))
            return err_set(ERR_MODEL, "the model's logit of token %lld after %lld tokens is %f",
                           (long long)i, (long long)s->length, (double)logits[i]);
    return OK;
}

int sampler_feed(struct sampler *s, const i32 *tokens, i64 n)
{
    if (s->length + n > s->capacity)
        return err_set(ERR_LIMIT, "the sequence is full: %lld tokens", (long long)s->capacity);
    for (i64 i = 0; i < n; i++)
        if (tokens[i] < 0 || tokens[i] >= s->vocab)
            return err_set(ERR_MODEL, "token %d is outside the model's vocabulary of %lld",
                           tokens[i], (long long)s->vocab);
    while (n >= SAMPLE_CHUNK) {
        feed(s, &s->chunk, tokens, SAMPLE_CHUNK);
        tokens += SAMPLE_CHUNK;
        n -= SAMPLE_CHUNK;
    }
    for (; n > 0; n--)
        feed(s, &s->one, tokens++, 1);
    return check_logits(s);
}

const float *sampler_logits(const struct sampler *s)
{
    return s->one.logits->data;
}

/* --- drawing ------------------------------------------------------------------------ */

static i32 likeliest(const float *logits, i64 n)
{
    i64 best = 0;
    for (i64 i = 1; i < n; i++)
        if (logits[i] > logits[best])
            best = i;
    return (i32)best;
}

static int by_weight(const void *a, const void *b, void *context)
{
    const float *weight = context;
    i32 x = *(const i32 *)a, y = *(const i32 *)b;
    if (weight[x] != weight[y])
        return weight[x] > weight[y] ? -1 : 1;
    return x - y;
}

/* How many of the sorted tokens stay: the top k, and of those the least number whose
 * share reaches p. */
static i64 nucleus(const struct sampler *s, const struct sample_config *c, i64 ids)
{
    i64 n = c->top_k > 0 ? i64_min(c->top_k, ids) : ids;
    double total = 0, sum = 0;
    for (i64 i = 0; i < n; i++)
        total += (double)s->weight[s->order[i]];
    for (i64 i = 0; i < n; i++) {
        sum += (double)s->weight[s->order[i]];
        if (sum >= c->top_p * total)
            return i + 1;
    }
    return n;
}

i32 sampler_pick(struct sampler *s, const struct sample_config *c)
{
    const float *logits = sampler_logits(s);
    const i64 ids = c->ids > 0 ? i64_min(c->ids, s->vocab) : s->vocab;
    i32 best = likeliest(logits, ids);
    if (c->temperature <= 0)
        return best;
    for (i64 i = 0; i < ids; i++) {
        s->weight[i] = expf((logits[i] - logits[best]) / (float)c->temperature);
        s->order[i] = (i32)i;
    }
    i64 n = ids;
    if (c->top_k > 0 || c->top_p < 1) {
        qsort_r(s->order, (size_t)ids, sizeof *s->order, by_weight, s->weight);
        n = nucleus(s, c, ids);
    }
    struct rng key = { c->seed, rng_stream("sample") };
    double total = 0;
    for (i64 i = 0; i < n; i++)
        total += (double)s->weight[s->order[i]];
    double left = rng_uniform(&key, s->picks++) * total;
    for (i64 i = 0; i < n; i++) {
        left -= (double)s->weight[s->order[i]];
        if (left < 0)
            return s->order[i];
    }
    return s->order[n - 1];
}
