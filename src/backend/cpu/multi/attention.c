/* Causal attention of whole rows, and of new tokens against a cache: what queries see
 * which keys; the arithmetic is in attend.c. */
#include "backend/cpu/attend.h"

/* --- rows of T tokens: a part is a run of queries of one head, longest first ------------- */

/* Scratch per thread: first, last (ATTEND_QUERIES each), then attend's. */
static i64 thread_bytes(i64 D)
{
    return 2 * ATTEND_QUERIES * (i64)sizeof(i32) + round_up(NAMED(attend_bytes)(D), 64);
}

static void attention_part(void *context, i64 part, int thread)
{
    const struct work *w = context;
    const struct task *t = w->t;
    const i64 T = (i64)t->attr[ATTENTION_T], H = (i64)t->attr[ATTENTION_H];
    const i64 G = (i64)t->attr[ATTENTION_G], D = (i64)t->attr[ATTENTION_D];
    const i64 window = (i64)t->attr[ATTENTION_WINDOW], columns = (H + 2 * G) * D;
    const i64 heads = (i64)t->attr[ATTENTION_B] * H;
    const i64 query = (ceil_div(T, ATTEND_QUERIES) - 1 - part / heads) * ATTEND_QUERIES;
    const i64 b = part % heads / H, h = part % H, g = h / (H / G);
    const i32 *begin = (const i32 *)t->in[1]->data + b * T;
    char *scratch = (char *)w->x->workspace + thread * thread_bytes(D);
    i32 *first = (i32 *)scratch, *last = first + ATTEND_QUERIES;
    struct attend a = { .half = is_half(t->in[0]->dtype), .D = D,
                        .n = i64_min(ATTEND_QUERIES, T - query), .q_row = columns,
                        .k_row = columns, .y_row = H * D, .first = first, .last = last,
                        .scale = (float)t->attr[ATTENTION_SCALE] };
    for (i64 i = 0; i < a.n; i++) {
        last[i] = (i32)(query + i);
        first[i] = (i32)i64_max(begin[query + i], window > 0 ? last[i] - window + 1 : 0);
    }
    const void *row = vec_at(a.half, t->in[0]->data, b * T * columns);
    a.q = vec_at(a.half, row, query * columns + h * D);
    a.k = vec_at(a.half, row, (H + g) * D);
    a.v = vec_at(a.half, row, (H + G + g) * D);
    a.y = vec_at(a.half, t->out[0]->data, (b * T + query) * H * D + h * D);
    a.lse = (float *)t->out[1]->data + (b * H + h) * T + query;
    NAMED(attend)(&a, scratch + 2 * ATTEND_QUERIES * (i64)sizeof(i32));
}

void NAMED(attention)(const struct task *t, struct run *x)
{
    const i64 heads = (i64)(t->attr[ATTENTION_B] * t->attr[ATTENTION_H]);
    work_run(t, x, ceil_div((i64)t->attr[ATTENTION_T], ATTEND_QUERIES) * heads, 1,
             attention_part);
}

i64 NAMED(attention_workspace)(const struct task *t, int threads, const void *context)
{
    (void)context;
    return threads * thread_bytes((i64)t->attr[ATTENTION_D]);
}

/* --- generation: keys and values go to the cache first ------------------------------------ */

static void store_keys(const struct task *t)
{
    const i64 H = (i64)t->attr[ATTENTION_H], G = (i64)t->attr[ATTENTION_G];
    const i64 D = (i64)t->attr[ATTENTION_D], n = t->in[0]->dim[0];
    const i64 bytes = dtype_bytes(t->in[0]->dtype), row_bytes = G * D * bytes;
    const i32 *positions = t->in[1]->data;
    for (i64 i = 0; i < n; i++) {
        const char *keys = (const char *)t->in[0]->data + (i * (H + 2 * G) + H) * D * bytes;
        memcpy((char *)t->in[2]->data + positions[i] * row_bytes, keys, (size_t)row_bytes);
        memcpy((char *)t->in[3]->data + positions[i] * row_bytes, keys + row_bytes,
               (size_t)row_bytes);
    }
}

static void cached_part(void *context, i64 part, int thread)
{
    const struct work *w = context;
    const struct task *t = w->t;
    const i64 H = (i64)t->attr[ATTENTION_H], G = (i64)t->attr[ATTENTION_G];
    const i64 D = (i64)t->attr[ATTENTION_D], window = (i64)t->attr[ATTENTION_WINDOW];
    const i64 columns = (H + 2 * G) * D, h = part % H, g = h / (H / G);
    const i64 query = part / H * ATTEND_QUERIES;
    const i32 *positions = t->in[1]->data;
    char *scratch = (char *)w->x->workspace + thread * thread_bytes(D);
    i32 *first = (i32 *)scratch, *last = first + ATTEND_QUERIES;
    struct attend a = { .half = is_half(t->in[0]->dtype), .D = D,
                        .n = i64_min(ATTEND_QUERIES, t->in[0]->dim[0] - query),
                        .q_row = columns, .k_row = G * D, .y_row = H * D, .first = first,
                        .last = last, .scale = (float)t->attr[ATTENTION_SCALE] };
    for (i64 i = 0; i < a.n; i++) {
        last[i] = positions[query + i];
        first[i] = window > 0 ? (i32)i64_max(0, last[i] - window + 1) : 0;
    }
    a.q = vec_at(a.half, t->in[0]->data, query * columns + h * D);
    a.k = vec_at(a.half, t->in[2]->data, g * D);
    a.v = vec_at(a.half, t->in[3]->data, g * D);
    a.y = vec_at(a.half, t->out[0]->data, query * H * D + h * D);
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
    return threads * thread_bytes((i64)t->attr[ATTENTION_D]);
}
