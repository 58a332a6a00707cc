/* Causal attention of whole rows, of a part of a row's queries against a part of its keys, and
 * of new tokens against a cache: what queries see which keys; the arithmetic is in attend.c. */
#include "backend/cpu/attend.h"

/* --- rows of T tokens: a part is a run of queries of one head, longest first -------- */

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
    i64 together; /* heads at a time */
    char *scratch;
};

static void attention_part(void *context, i64 part, int thread)
{
    const struct attention_work *w = context;
    const struct attention_view *v = &w->v;
    const i64 T = v->T, runs = ceil_div(T, ATTEND_QUERIES);
    const struct part_place at = part_place(part, v->B * v->H, runs, w->together);
    const i64 query = (runs - 1 - at.run) * ATTEND_QUERIES;
    const i64 b = at.head / v->H, h = at.head % v->H, g = h / (v->H / v->G);
    const i64 y_at = (b * T + query) * v->H * v->V + h * v->V;
    const i64 lse_at = (b * v->H + h) * T + query;
    char *scratch = w->scratch + thread * thread_bytes(v->D, v->V);
    i32 *first = (i32 *)scratch, *last = first + ATTEND_QUERIES;
    struct attend a = { .half = v->half, .y_half = is_half(w->y->dtype), .D = v->D,
                        .V = v->V, .n = i64_min(ATTEND_QUERIES, T - query), .q_row = v->q_row,
                        .k_row = v->k_row, .v_row = v->k_row, .y_row = v->H * v->V,
                        .first = first, .last = last, .scale = v->scale };
    for (i64 i = 0; i < a.n; i++)
        attention_range(v, b, query + i, &first[i], &last[i]);
    const void *keys = vec_at(a.half, v->keys, b * v->Tk * v->k_row);
    a.q = vec_at(a.half, v->q, (b * T + query) * v->q_row + h * v->D);
    a.k = vec_at(a.half, keys, v->k_at + g * v->D);
    a.v = vec_at(a.half, keys, v->v_at + g * v->V);
    a.y = vec_at(a.y_half, w->y->data, y_at);
    a.lse = (float *)w->lse->data + lse_at;
    a.top = w->top ? (float *)w->top->data + lse_at : NULL;
    a.seen_y = w->seen_y ? (const float *)w->seen_y->data + y_at : NULL;
    a.seen_lse = w->seen_lse ? (const float *)w->seen_lse->data + lse_at : NULL;
    NAMED(attend)(&a, scratch + 2 * ATTEND_QUERIES * (i64)sizeof(i32));
}

static void attention_parts(struct attention_work *w, struct run *x)
{
    w->scratch = x->workspace;
    w->together = pool_threads(x->pool);
    pool_run(x->pool, ceil_div(w->v.T, ATTEND_QUERIES) * w->v.B * w->v.H, attention_part, w);
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

i64 NAMED(attention_workspace)(const struct task *t, int threads, const void *context)
{
    (void)context;
    return threads * thread_bytes((i64)t->attr[ATTENTION_D], value_size(t));
}

i64 NAMED(attention_block_workspace)(const struct task *t, int threads, const void *context)
{
    return NAMED(attention_workspace)(t, threads, context);
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
    i32 *first = (i32 *)scratch, *last = first + ATTEND_QUERIES;
    struct attend a = { .half = is_half(t->in[0]->dtype), .y_half = is_half(t->in[0]->dtype),
                        .D = D, .V = V, .n = i64_min(ATTEND_QUERIES, t->in[0]->dim[0] - query),
                        .q_row = columns, .k_row = G * D, .v_row = G * V, .y_row = H * V,
                        .first = first, .last = last,
                        .scale = (float)t->attr[ATTENTION_SCALE] };
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
