/* Rows and heads put in another order: copies of whole pieces. */
#include "backend/cpu/kernels.h"
#include "ops/zigzag.h"

static void *byte_at(const struct tensor *t, i64 element)
{
    return (char *)t->data + element * dtype_bytes(t->dtype);
}

/* --- q apart from k and v ----------------------------------------------------------- */

static void split_part(void *context, i64 part, int thread)
{
    const struct work *w = context;
    const struct tensor *x = w->t->in[0];
    const i64 C = x->dim[1], Q = w->t->out[0]->dim[1], bytes = dtype_bytes(x->dtype);
    struct range rows = work_range(w, part);
    (void)thread;
    for (i64 r = rows.begin; r < rows.end; r++) {
        memcpy(byte_at(w->t->out[0], r * Q), byte_at(x, r * C), (size_t)(Q * bytes));
        memcpy(byte_at(w->t->out[1], r * (C - Q)), byte_at(x, r * C + Q),
               (size_t)((C - Q) * bytes));
    }
}

void NAMED(split_qkv)(const struct task *t, struct run *x)
{
    work_run(t, x, t->in[0]->dim[0], rows_per_part(t->in[0]->dim[1]), split_part);
}

/* n elements of `from`, or zeros, in the dtype of `to`. */
INLINE void put_elements(const struct tensor *to, i64 at, const struct tensor *from, i64 first,
                         i64 n)
{
    const bool half = is_half(to->dtype), from_half = from && is_half(from->dtype);
    void *y = vec_at(half, to->data, at);
    const void *x = from ? vec_at(from_half, from->data, first) : NULL;
    for (i64 i = 0; i < n; i += VL)
        vec_put_n(half, y, i, x ? vec_get_n(from_half, x, i, n - i) : (vec){ 0 }, n - i);
}

static void join_part(void *context, i64 part, int thread)
{
    const struct work *w = context;
    const struct tensor *y = w->t->out[0];
    const i64 C = y->dim[1], Q = (i64)w->t->attr[SPLIT_QUERIES];
    struct range rows = work_range(w, part);
    (void)thread;
    for (i64 r = rows.begin; r < rows.end; r++) {
        put_elements(y, r * C, w->t->in[0], r * Q, Q);
        put_elements(y, r * C + Q, w->t->in[1], r * (C - Q), C - Q);
    }
}

void NAMED(join_qkv)(const struct task *t, struct run *x)
{
    work_run(t, x, t->out[0]->dim[0], rows_per_part(t->out[0]->dim[1]), join_part);
}

/* --- heads over ranks --------------------------------------------------------------- */

static void spread_part(void *context, i64 part, int thread)
{
    const struct work *w = context;
    const struct task *t = w->t;
    const bool back = t->attr[SPREAD_BACK] != 0;
    const i64 n = (i64)t->attr[SPREAD_PARTS], D = (i64)t->attr[SPREAD_D];
    const i64 G = (i64)t->attr[SPREAD_G], V = (i64)t->attr[SPREAD_V];
    const i64 of[] = { (i64)t->attr[SPREAD_H] * D, G * D, G * (V > 0 ? V : D) };
    const struct tensor *x = back ? t->out[0] : t->in[0], *y = back ? t->in[0] : t->out[0];
    const i64 R = x->dim[0], C = x->dim[1], bytes = dtype_bytes(x->dtype);
    struct range rows = work_range(w, part);
    (void)thread;
    for (i64 r = rows.begin; r < rows.end; r++) {
        for (i64 j = 0; j < n; j++) {
            i64 from = r * C, to = (j * R + r) * (C / n);
            for (i64 kind = 0; kind < COUNT_OF(of); kind++) {
                const i64 columns = of[kind] / n;
                void *whole = byte_at(x, from + j * columns), *piece = byte_at(y, to);
                memcpy(back ? whole : piece, back ? piece : whole, (size_t)(columns * bytes));
                from += of[kind];
                to += columns;
            }
        }
    }
}

void NAMED(spread_heads)(const struct task *t, struct run *run)
{
    const struct tensor *x = t->attr[SPREAD_BACK] != 0 ? t->out[0] : t->in[0];
    work_run(t, run, x->dim[0], rows_per_part(x->dim[1]), spread_part);
}

/* --- heads that ranks share ---------------------------------------------------------- */

/* What share_heads.c calls so; `step` columns lie side by side in the parts and in a head. */
struct sharing {
    i64 R, Q, w, copies, D, heads, columns, step; /* heads: of keys, as of values */
};

INLINE struct sharing sharing_of(const struct task *t, const struct tensor *q,
                                 const struct tensor *kv)
{
    struct sharing s = { .R = q->dim[0], .Q = q->dim[1], .w = kv->dim[1],
                         .copies = (i64)t->attr[SHARE_COPIES], .D = (i64)t->attr[SHARE_SIZE] };
    s.heads = kv->dim[0] / s.R * s.w / 2 / s.D;
    s.columns = s.Q + 2 * s.heads * s.copies * s.D;
    s.step = i64_min(s.D, s.w / 2);
    return s;
}

/* Column c of the keys and values of row r: in the parts, and its first copy. */
INLINE i64 shared_in_parts(const struct sharing *s, i64 r, i64 c)
{
    const i64 half = s->w / 2, kind = c / (s->heads * s->D), of = c % (s->heads * s->D);
    return (of / half * s->R + r) * s->w + kind * half + of % half;
}

INLINE i64 shared_in_heads(const struct sharing *s, i64 r, i64 c)
{
    return r * s->columns + s->Q + c / s->D * s->copies * s->D + c % s->D;
}

static void share_part(void *context, i64 part, int thread)
{
    const struct work *w = context;
    const struct tensor *q = w->t->in[0], *kv = w->t->in[1], *y = w->t->out[0];
    const struct sharing s = sharing_of(w->t, q, kv);
    const i64 bytes = dtype_bytes(q->dtype);
    struct range rows = work_range(w, part);
    (void)thread;
    for (i64 r = rows.begin; r < rows.end; r++) {
        memcpy(byte_at(y, r * s.columns), byte_at(q, r * s.Q), (size_t)(s.Q * bytes));
        for (i64 c = 0; c < 2 * s.heads * s.D; c += s.step)
            for (i64 copy = 0; copy < s.copies; copy++)
                memcpy(byte_at(y, shared_in_heads(&s, r, c) + copy * s.D),
                       byte_at(kv, shared_in_parts(&s, r, c)), (size_t)(s.step * bytes));
    }
}

void NAMED(share_heads)(const struct task *t, struct run *x)
{
    work_run(t, x, t->in[0]->dim[0], rows_per_part(t->out[0]->dim[1]), share_part);
}

/* The sum over a head's copies of n <= VL elements: tree(copies). */
INLINE vec sum_copies(const struct tensor *dy, i64 at, const struct sharing *s, i64 n)
{
    const bool half = is_half(dy->dtype);
    vec v[SHARE_COPIES_MOST];
    for (i64 i = 0; i < s->copies; i++)
        v[i] = vec_get_n(half, vec_at(half, dy->data, at + i * s->D), 0, n);
    for (i64 left = s->copies / 2; left > 0; left /= 2)
        for (i64 i = 0; i < left; i++)
            v[i] = v[2 * i] + v[2 * i + 1];
    return v[0];
}

static void share_grad_part(void *context, i64 part, int thread)
{
    const struct work *w = context;
    const struct tensor *dy = w->t->in[0], *dq = w->t->out[0], *dkv = w->t->out[1];
    const struct sharing s = sharing_of(w->t, dq, dkv);
    const bool half = is_half(dkv->dtype);
    struct range rows = work_range(w, part);
    (void)thread;
    for (i64 r = rows.begin; r < rows.end; r++) {
        memcpy(byte_at(dq, r * s.Q), byte_at(dy, r * s.columns),
               (size_t)(s.Q * dtype_bytes(dq->dtype)));
        for (i64 c = 0; c < 2 * s.heads * s.D; c += s.step) {
            void *to = vec_at(half, dkv->data, shared_in_parts(&s, r, c));
            for (i64 i = 0; i < s.step; i += VL)
                vec_put_n(half, to, i,
                          sum_copies(dy, shared_in_heads(&s, r, c) + i, &s, s.step - i),
                          s.step - i);
        }
    }
}

void NAMED(share_heads_grad)(const struct task *t, struct run *x)
{
    work_run(t, x, t->out[0]->dim[0], rows_per_part(t->in[0]->dim[1]), share_grad_part);
}

/* --- parts of rows to rows ---------------------------------------------------------- */

/* A part of the work is a chunk of a row: chunks lie in the order (part, row, pair, low or
 * high). */
static void order_part(void *context, i64 index, int thread)
{
    const struct work *w = context;
    const struct task *t = w->t;
    const bool back = t->attr[ORDER_BACK] != 0;
    const i64 parts = (i64)t->attr[ORDER_PARTS], B = (i64)t->attr[ORDER_B], R = t->in[0]->dim[0];
    const i64 pairs = i64_max(1, (i64)t->attr[ORDER_PAIRS]), row = index / (2 * pairs);
    const i64 C = tensor_count(t->in[0]) / R, T = R / B, here = T / parts;
    const i64 chunk = here / (2 * pairs), first = index % (2 * pairs) * chunk;
    const i64 place = zigzag_pair_place(parts, row / B, pairs, here, first);
    const i64 in_parts = index * chunk * C, in_rows = (row % B * T + place) * C;
    (void)thread;
    memcpy(byte_at(t->out[0], back ? in_parts : in_rows),
           byte_at(t->in[0], back ? in_rows : in_parts),
           (size_t)(chunk * C * dtype_bytes(t->in[0]->dtype)));
}

void NAMED(order_rows)(const struct task *t, struct run *x)
{
    const i64 pairs = i64_max(1, (i64)t->attr[ORDER_PAIRS]);
    work_run(t, x, 2 * pairs * (i64)(t->attr[ORDER_PARTS] * t->attr[ORDER_B]), 1, order_part);
}

/* --- the own part of each group of rows --------------------------------------------- */

static void take_group(void *context, i64 group, int thread)
{
    const struct work *w = context;
    const struct task *t = w->t;
    const i64 n = (i64)t->attr[COLLECTIVE_SIZE], rank = (i64)t->attr[COLLECTIVE_RANK];
    const i64 each = tensor_count(t->out[0]) / (i64)t->attr[COLLECTIVE_OUTER];
    (void)thread;
    memcpy(byte_at(t->out[0], group * each), byte_at(t->in[0], (group * n + rank) * each),
           (size_t)(each * dtype_bytes(t->in[0]->dtype)));
}

void NAMED(take_part)(const struct task *t, struct run *x)
{
    work_run(t, x, (i64)t->attr[COLLECTIVE_OUTER], 1, take_group);
}
