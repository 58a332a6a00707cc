/* Causal attention of whole rows, of a part of a row's queries against a part of its keys, and
 * of new tokens against a cache: what queries see which keys; the arithmetic is in attend.c. */
#include "backend/cpu/attend.h"

/* --- rows of T tokens: runs of queries of one head ---------------------------------- */

enum { KEPT_BYTES = 4 << 20 }; /* of keys that a thread keeps as loaded: about what L2 has */

/* Scratch per thread: first, last (ATTEND_QUERIES each), then attend's. */
static i64 thread_bytes(i64 D, i64 V)
{
    return 2 * ATTEND_QUERIES * (i64)sizeof(i32) + round_up(NAMED(attend_bytes)(D, V), 64);
}

static i64 value_size(const struct task *t)
{
    return (i64)t->attr[t->attr[ATTENTION_VALUE] > 0 ? ATTENTION_VALUE : ATTENTION_D];
}

/* What the ops of a forward pass differ in. */
struct attention_work {
    struct attention_view v;
    const struct tensor *y, *lse, *top, *seen_y, *seen_lse;
    i64 whole; /* key heads that are parts of their own */
    char *scratch;
};

/* Behind a thread's scratch: which blocks of keys are there, then blocks; 0 where they are too many
 * to be kept. */
static i64 kept_bytes(const struct attention_view *v)
{
    const i64 blocks = ceil_div(v->Tk, ATTEND_KEYS);
    const i64 bytes = round_up(blocks * (i64)sizeof(bool), 64) +
                      blocks * NAMED(attend_block_bytes)(v->D, v->V);
    return bytes <= KEPT_BYTES ? bytes : 0;
}

static char *scratch_of(const struct attention_work *w, int thread)
{
    return w->scratch + thread * (thread_bytes(w->v.D, w->v.V) + kept_bytes(&w->v));
}

static i64 runs_of(const struct attention_view *v)
{
    return ceil_div(v->T, ATTEND_QUERIES);
}

/* Run `run` of head h of row b, counted from the last. */
static void run_of_queries(const struct attention_work *w, i64 b, i64 h, i64 run,
                           struct attend_keys keys, char *scratch)
{
    const struct attention_view *v = &w->v;
    const i64 T = v->T, query = (runs_of(v) - 1 - run) * ATTEND_QUERIES, g = h / (v->H / v->G);
    const i64 y_at = (b * T + query) * v->H * v->V + h * v->V;
    const i64 lse_at = (b * v->H + h) * T + query;
    i32 *first = (i32 *)scratch, *last = first + ATTEND_QUERIES;
    struct fetch fetch = { .n = 0 };
    struct attend a = { .half = v->half, .y_half = is_half(w->y->dtype), .D = v->D,
                        .V = v->V, .n = i64_min(ATTEND_QUERIES, T - query), .q_row = v->q_row,
                        .k_row = v->k_row, .v_row = v->k_row, .y_row = v->H * v->V,
                        .first = first, .last = last, .scale = v->scale, .keys = keys,
                        .fetch = &fetch };
    for (i64 i = 0; i < a.n; i++)
        attention_range(v, b, query + i, &first[i], &last[i]);
    const void *rows = vec_at(a.half, v->keys, b * v->Tk * v->k_row);
    a.q = vec_at(a.half, v->q, (b * T + query) * v->q_row + h * v->D);
    a.k = vec_at(a.half, rows, v->k_at + g * v->D);
    a.v = vec_at(a.half, rows, v->v_at + g * v->V);
    a.y = vec_at(a.y_half, w->y->data, y_at);
    a.lse = (float *)w->lse->data + lse_at;
    a.top = w->top ? (float *)w->top->data + lse_at : NULL;
    a.seen_y = w->seen_y ? (const float *)w->seen_y->data + y_at : NULL;
    a.seen_lse = w->seen_lse ? (const float *)w->seen_lse->data + lse_at : NULL;
    fetch_add(&fetch, a.y_half, a.y, 0, a.y_row, a.n, a.V);
    if (keys.loaded && run + 1 < runs_of(v)) /* this thread's, too */
        fetch_add(&fetch, a.half, a.q, -ATTEND_QUERIES * a.q_row, a.q_row, ATTEND_QUERIES, a.D);
    NAMED(attend)(&a, scratch + 2 * ATTEND_QUERIES * (i64)sizeof(i32));
}

/* All queries that see one head's keys, which are loaded once. */
static void head_part(void *context, i64 part, int thread)
{
    const struct attention_work *w = context;
    const struct attention_view *v = &w->v;
    const i64 share = v->H / v->G, g = part % v->G, blocks = ceil_div(v->Tk, ATTEND_KEYS);
    char *scratch = scratch_of(w, thread), *kept = scratch + thread_bytes(v->D, v->V);
    struct attend_keys keys = { NULL, NULL };
    if (kept_bytes(v) > 0) {
        keys = (struct attend_keys){ (bool *)kept,
                                     kept + round_up(blocks * (i64)sizeof(bool), 64) };
        memset(keys.loaded, 0, (size_t)blocks * sizeof(bool));
    }
    for (i64 run = 0; run < runs_of(v); run++)
        for (i64 h = g * share; h < (g + 1) * share; h++)
            run_of_queries(w, part / v->G, h, run, keys, scratch);
}

/* Of the other heads, longest first. */
static void run_part(void *context, i64 part, int thread)
{
    const struct attention_work *w = context;
    const struct attention_view *v = &w->v;
    const i64 share = v->H / v->G, heads = (v->B * v->G - w->whole) * share;
    const i64 head = w->whole * share + part % heads;
    run_of_queries(w, head / v->H, head % v->H, part / heads, (struct attend_keys){ NULL, NULL },
                   scratch_of(w, thread));
}

static void attention_parts(struct attention_work *w, struct run *x)
{
    const i64 heads = w->v.B * w->v.G, threads = pool_threads(x->pool), share = w->v.H / w->v.G;
    w->scratch = x->workspace;
    w->whole = heads / threads * threads;
    if (w->whole > 0)
        pool_run(x->pool, w->whole, head_part, w);
    if (w->whole < heads)
        pool_run(x->pool, runs_of(&w->v) * (heads - w->whole) * share, run_part, w);
}

void NAMED(attention)(const struct task *t, struct run *x)
{
    struct attention_work w = { .v = attention_view(t, t->in[0], NULL, t->in[1]),
                                .y = t->out[0], .lse = t->out[1], .top = t->out[2] };
    attention_parts(&w, x);
}

void NAMED(attention_block)(const struct task *t, struct run *x)
{
    struct attention_work w = { .v = attention_view(t, t->in[0], t->in[1], t->in[2]),
                                .y = t->out[0], .lse = t->out[1], .top = t->out[2],
                                .seen_y = t->in[3], .seen_lse = t->in[4] };
    attention_parts(&w, x);
}

static i64 workspace(const struct attention_view *v, int threads)
{
    return threads * (thread_bytes(v->D, v->V) + kept_bytes(v));
}

i64 NAMED(attention_workspace)(const struct task *t, int threads, const void *context)
{
    const struct attention_view v = attention_view(t, t->in[0], NULL, t->in[1]);
    (void)context;
    return workspace(&v, threads);
}

i64 NAMED(attention_block_workspace)(const struct task *t, int threads, const void *context)
{
    const struct attention_view v = attention_view(t, t->in[0], t->in[1], t->in[2]);
    (void)context;
    return workspace(&v, threads);
}

/* --- generation: keys and values go to the cache first ------------------------------ */

static void store_keys(const struct task *t)
{
    const i64 H = (i64)t->attr[ATTENTION_H], G = (i64)t->attr[ATTENTION_G];
    const i64 D = (i64)t->attr[ATTENTION_D], V = value_size(t), n = t->in[0]->dim[0];
    const i64 bytes = dtype_bytes(t->in[0]->dtype), k_bytes = G * D * bytes;
    const i64 v_bytes = G * V * bytes;
    const i32 *positions = t->in[1]->data;
    for (i64 i = 0; i < n; i++) {
        const char *keys = (const char *)t->in[0]->data +
                           (i * ((H + G) * D + G * V) + H * D) * bytes;
        memcpy((char *)t->in[2]->data + positions[i] * k_bytes, keys, (size_t)k_bytes);
        memcpy((char *)t->in[3]->data + positions[i] * v_bytes, keys + k_bytes, (size_t)v_bytes);
    }
}

static void cached_part(void *context, i64 part, int thread)
{
    const struct work *w = context;
    const struct task *t = w->t;
    const i64 H = (i64)t->attr[ATTENTION_H], G = (i64)t->attr[ATTENTION_G];
    const i64 D = (i64)t->attr[ATTENTION_D], window = (i64)t->attr[ATTENTION_WINDOW];
    const i64 V = value_size(t), columns = (H + G) * D + G * V, h = part % H, g = h / (H / G);
    const i64 query = part / H * ATTEND_QUERIES;
    const i32 *positions = t->in[1]->data;
    char *scratch = (char *)w->x->workspace + thread * thread_bytes(D, V);
    struct fetch fetch = { .n = 0 };
    i32 *first = (i32 *)scratch, *last = first + ATTEND_QUERIES;
    struct attend a = { .half = is_half(t->in[0]->dtype), .y_half = is_half(t->in[0]->dtype),
                        .D = D, .V = V, .n = i64_min(ATTEND_QUERIES, t->in[0]->dim[0] - query),
                        .q_row = columns, .k_row = G * D, .v_row = G * V, .y_row = H * V,
                        .first = first, .last = last,
                        .scale = (float)t->attr[ATTENTION_SCALE], .fetch = &fetch };
    for (i64 i = 0; i < a.n; i++) {
        last[i] = positions[query + i];
        first[i] = window > 0 ? (i32)i64_max(0, last[i] - window + 1) : 0;
    }
    a.q = vec_at(a.half, t->in[0]->data, query * columns + h * D);
    a.k = vec_at(a.half, t->in[2]->data, g * D);
    a.v = vec_at(a.half, t->in[3]->data, g * V);
    a.y = vec_at(a.half, t->out[0]->data, query * H * V + h * V);
    NAMED(attend)(&a, scratch + 2 * ATTEND_QUERIES * (i64)sizeof(i32));
}

void NAMED(attention_cached)(const struct task *t, struct run *x)
{
    store_keys(t);
    work_run(t, x, ceil_div(t->in[0]->dim[0], ATTEND_QUERIES) * (i64)t->attr[ATTENTION_H], 1,
             cached_part);
}

i64 NAMED(attention_cached_workspace)(const struct task *t, int threads, const void *context)
{
    (void)context;
    return threads * thread_bytes((i64)t->attr[ATTENTION_D], value_size(t));
}
