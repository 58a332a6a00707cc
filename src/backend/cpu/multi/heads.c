/* What happens to query and key heads before attention: QK-norm and rotary embedding. A
 * row of qkv is H query heads, G key heads and G value heads of size D. */
#include "backend/cpu/norm_rows.h"

/* --- QK-norm ------------------------------------------------------------------------ */

INLINE void qk_norm_rows(bool half, const struct task *t, struct range rows)
{
    const i64 H = (i64)t->attr[HEADS_H], G = (i64)t->attr[HEADS_G], D = (i64)t->attr[HEADS_D];
    const i64 width = (H + 2 * G) * D;
    float *rstds = t->out[1]->data;
    for (i64 r = rows.begin; r < rows.end; r++) {
        const void *from = vec_at(half, t->in[0]->data, r * width);
        void *to = vec_at(half, t->out[0]->data, r * width);
        for (i64 h = 0; h < H + G; h++) {
            const void *x = vec_at(half, from, h * D);
            float rstd = row_rstd(half, false, x, 0, D, t->attr[HEADS_EPS]);
            norm_row(half, vec_at(half, to, h * D), x, 0, rstd, t->in[h < H ? 1 : 2]->data,
                     NULL, D);
            rstds[r * (H + G) + h] = rstd;
        }
        const i64 values = (H + G) * D;
        if (to != from)
            memcpy(vec_at(half, to, values), vec_at(half, from, values),
                   (size_t)(G * D * dtype_bytes(t->in[0]->dtype)));
    }
}

static void qk_norm_part(void *context, i64 part, int thread)
{
    const struct work *w = context;
    (void)thread;
    if (is_half(w->t->in[0]->dtype))
        qk_norm_rows(true, w->t, work_range(w, part));
    else
        qk_norm_rows(false, w->t, work_range(w, part));
}

void NAMED(qk_norm)(const struct task *t, struct run *x)
{
    work_run(t, x, tensor_rows(t->in[0]), rows_per_part(tensor_columns(t->in[0])), qk_norm_part);
}

/* Workspace: per block of rows dgain_q (D), dgain_k (D). */
INLINE void qk_norm_grad_rows(bool half, const struct work *w, i64 block)
{
    const struct task *t = w->t;
    const i64 H = (i64)t->attr[HEADS_H], G = (i64)t->attr[HEADS_G], D = (i64)t->attr[HEADS_D];
    const i64 width = (H + 2 * G) * D, values = (H + G) * D;
    const float *rstds = t->in[4]->data;
    float *partial = (float *)w->x->workspace + block * 2 * D;
    struct range rows = work_range(w, block);
    memset(partial, 0, (size_t)(2 * D) * sizeof(float));
    for (i64 r = rows.begin; r < rows.end; r++) {
        const void *dy = vec_at(half, t->in[0]->data, r * width);
        const void *x = vec_at(half, t->in[1]->data, r * width);
        void *dx = vec_at(half, t->out[0]->data, r * width);
        for (i64 h = 0; h < H + G; h++) {
            struct norm_row_grad a = {
                .dy = vec_at(half, dy, h * D), .x = vec_at(half, x, h * D),
                .dx = vec_at(half, dx, h * D), .gain = t->in[h < H ? 2 : 3]->data,
                .rstd = rstds[r * (H + G) + h], .dgain = partial + (h < H ? 0 : D),
            };
            norm_row_grad(half, false, &a, D);
        }
        if (dx != dy)
            memcpy(vec_at(half, dx, values), vec_at(half, dy, values),
                   (size_t)(G * D * dtype_bytes(t->in[0]->dtype)));
    }
}

static void qk_norm_block(void *context, i64 block, int thread)
{
    const struct work *w = context;
    (void)thread;
    if (is_half(w->t->in[0]->dtype))
        qk_norm_grad_rows(true, w, block);
    else
        qk_norm_grad_rows(false, w, block);
}

/* Sums of groups of rows and leaves of heads: one part each. */
INLINE void qk_norm_grad_leaf(bool half, const struct work *w, i64 part)
{
    const struct task *t = w->t;
    const i64 H = (i64)t->attr[HEADS_H], G = (i64)t->attr[HEADS_G], D = (i64)t->attr[HEADS_D];
    const i64 width = (H + 2 * G) * D, values = (H + G) * D, leaves = (i64)t->attr[HEADS_LEAVES];
    const i64 leaf = part % leaves, rows = tensor_rows(t->in[0]) / (t->out[1]->dim[0] / leaves);
    const float *rstds = t->in[4]->data;
    float *sums[2] = { (float *)t->out[1]->data + part * D, (float *)t->out[2]->data + part * D };
    for (int k = 0; k < 2 && !run_accumulates(t, w->x); k++)
        memset(sums[k], 0, (size_t)D * sizeof(float));
    for (i64 r = part / leaves * rows; r < (part / leaves + 1) * rows; r++) {
        const void *dy = vec_at(half, t->in[0]->data, r * width);
        const void *x = vec_at(half, t->in[1]->data, r * width);
        void *dx = vec_at(half, t->out[0]->data, r * width);
        for (int k = 0; k < 2; k++) {
            const i64 n = (k ? G : H) / leaves, first = (k ? H : 0) + leaf * n;
            for (i64 h = first; h < first + n; h++) {
                struct norm_row_grad a = {
                    .dy = vec_at(half, dy, h * D), .x = vec_at(half, x, h * D),
                    .dx = vec_at(half, dx, h * D), .gain = t->in[2 + k]->data,
                    .rstd = rstds[r * (H + G) + h], .dgain = sums[k],
                };
                norm_row_grad(half, false, &a, D);
            }
        }
        if (leaf == 0 && dx != dy)
            memcpy(vec_at(half, dx, values), vec_at(half, dy, values),
                   (size_t)(G * D * dtype_bytes(t->in[0]->dtype)));
    }
}

static void qk_norm_leaf(void *context, i64 part, int thread)
{
    const struct work *w = context;
    (void)thread;
    if (is_half(w->t->in[0]->dtype))
        qk_norm_grad_leaf(true, w, part);
    else
        qk_norm_grad_leaf(false, w, part);
}

void NAMED(qk_norm_grad)(const struct task *t, struct run *x)
{
    if (t->out[1]->rank == 2) {
        work_run(t, x, t->out[1]->dim[0], 1, qk_norm_leaf);
        return;
    }
    const i64 R = tensor_rows(t->in[0]), D = (i64)t->attr[HEADS_D];
    const i64 blocks = ceil_div(R, rows_per_block(R));
    const bool keep = run_accumulates(t, x);
    float *partial = x->workspace;
    work_run(t, x, R, rows_per_block(R), qk_norm_block);
    norm_sum_blocks(t->out[1]->data, partial, blocks, 2 * D, 0, D, keep);
    norm_sum_blocks(t->out[2]->data, partial + D, blocks, 2 * D, 0, D, keep);
}

i64 NAMED(qk_norm_grad_workspace)(const struct task *t, int threads, const void *context)
{
    const i64 R = tensor_rows(t->in[0]), D = (i64)t->attr[HEADS_D];
    (void)threads;
    (void)context;
    return ceil_div(R, rows_per_block(R)) * 2 * D * (i64)sizeof(float);
}

/* --- rotary embedding --------------------------------------------------------------- */

/* a' = a cos - b sin, b' = b cos + a sin for the two halves of a head. */
INLINE void rotate_at(bool half, void *to, const void *from, const float *table, float sign,
                      i64 pairs, i64 i, i64 n)
{
    vec a = vec_get_n(half, from, i, n), b = vec_get_n(half, from, i + pairs, n);
    vec cosine = vec_get_n(false, table, i, n);
    vec sine = vec_get_n(false, table, i + pairs, n) * sign;
    vec_put_n(half, to, i, a * cosine - b * sine, n);
    vec_put_n(half, to, i + pairs, b * cosine + a * sine, n);
}

INLINE void rotate(bool half, void *to, const void *from, const float *table, float sign, i64 D)
{
    const i64 pairs = D / 2;
    i64 i = 0;
    for (; i + VL <= pairs; i += VL)
        rotate_at(half, to, from, table, sign, pairs, i, VL);
    if (i < pairs)
        rotate_at(half, to, from, table, sign, pairs, i, pairs - i);
}

INLINE void rope_rows(bool half, const struct task *t, struct range rows)
{
    const i64 H = (i64)t->attr[ROPE_H], G = (i64)t->attr[ROPE_G], D = (i64)t->attr[ROPE_D];
    const i64 width = (H + 2 * G) * D, values = (H + G) * D;
    const float sign = t->attr[ROPE_INVERSE] != 0 ? -1.0f : 1.0f;
    const i32 *positions = t->in[2]->data;
    for (i64 r = rows.begin; r < rows.end; r++) {
        const float *table = (const float *)t->in[1]->data + positions[r] * D;
        const void *from = vec_at(half, t->in[0]->data, r * width);
        void *to = vec_at(half, t->out[0]->data, r * width);
        for (i64 h = 0; h < H + G; h++)
            rotate(half, vec_at(half, to, h * D), vec_at(half, from, h * D), table, sign, D);
        if (to != from)
            memcpy(vec_at(half, to, values), vec_at(half, from, values),
                   (size_t)(G * D * dtype_bytes(t->in[0]->dtype)));
    }
}

static void rope_part(void *context, i64 part, int thread)
{
    const struct work *w = context;
    (void)thread;
    if (is_half(w->t->in[0]->dtype))
        rope_rows(true, w->t, work_range(w, part));
    else
        rope_rows(false, w->t, work_range(w, part));
}

void NAMED(rope)(const struct task *t, struct run *x)
{
    work_run(t, x, tensor_rows(t->in[0]), rows_per_part(tensor_columns(t->in[0])), rope_part);
}

/* --- latent attention's heads ------------------------------------------------------- */

enum { PAIR_COLUMNS = 512 }; /* most of a head that is rotary: ops/kit.h's largest head */

struct latent {
    i64 H, N, P, V, D, columns;
};

static struct latent latent_of(const struct task *t)
{
    struct latent s = { .H = (i64)t->attr[LATENT_H], .N = (i64)t->attr[LATENT_N],
                        .P = (i64)t->attr[LATENT_P], .V = (i64)t->attr[LATENT_V] };
    s.D = s.N + s.P;
    s.columns = 2 * s.H * s.D + s.H * s.V;
    return s;
}

INLINE void copy_run(bool half, void *to, i64 at, const void *from, i64 first, i64 n)
{
    memcpy(vec_at(half, to, at), vec_at(half, from, first), (size_t)n * (half ? 2 : 4));
}

INLINE void put_run(bool half, void *to, i64 at, const float *x, i64 n)
{
    for (i64 i = 0; i < n; i += VL)
        vec_put_n(half, vec_at(half, to, at), i, vec_get_n(false, x, i, n - i), n - i);
}

INLINE void get_run(bool half, float *x, const void *from, i64 first, i64 n)
{
    for (i64 i = 0; i < n; i += VL)
        vec_put_n(false, x, i, vec_get_n(half, vec_at(half, from, first), i, n - i), n - i);
}

/* Pairs (2i, 2i+1) of x, turned, become (i, i + P/2) of y. */
static void turn_pairs(float *y, const float *x, const float *table, i64 P)
{
    const float *cosine = table, *sine = table + P / 2;
    for (i64 i = 0; i < P / 2; i++) {
        const float a = x[2 * i], b = x[2 * i + 1];
        y[i] = a * cosine[i] - b * sine[i];
        y[i + P / 2] = b * cosine[i] + a * sine[i];
    }
}

/* And back. */
static void turn_back(float *y, const float *x, const float *table, i64 P)
{
    const float *cosine = table, *sine = table + P / 2;
    for (i64 i = 0; i < P / 2; i++) {
        const float a = x[i], b = x[i + P / 2];
        y[2 * i] = a * cosine[i] + b * sine[i];
        y[2 * i + 1] = b * cosine[i] - a * sine[i];
    }
}

INLINE void latent_rows(bool half, const struct task *t, struct range rows)
{
    const struct latent s = latent_of(t);
    const void *q = t->in[0]->data, *kv = t->in[1]->data;
    const i32 *positions = t->in[4]->data;
    float x[PAIR_COLUMNS], y[PAIR_COLUMNS], key[PAIR_COLUMNS];
    for (i64 r = rows.begin; r < rows.end; r++) {
        const float *table = (const float *)t->in[3]->data + positions[r] * s.P;
        void *to = vec_at(half, t->out[0]->data, r * s.columns);
        get_run(half, x, t->in[2]->data, r * s.P, s.P);
        turn_pairs(key, x, table, s.P);
        for (i64 h = 0; h < s.H; h++) {
            const i64 i = r * s.H + h, at = h * s.D;
            copy_run(half, to, at, q, i * s.D, s.N);
            get_run(half, x, q, i * s.D + s.N, s.P);
            turn_pairs(y, x, table, s.P);
            put_run(half, to, at + s.N, y, s.P);
            copy_run(half, to, s.H * s.D + at, kv, i * (s.N + s.V), s.N);
            put_run(half, to, s.H * s.D + at + s.N, key, s.P);
            copy_run(half, to, 2 * s.H * s.D + h * s.V, kv, i * (s.N + s.V) + s.N, s.V);
        }
    }
}

static void latent_part(void *context, i64 part, int thread)
{
    const struct work *w = context;
    (void)thread;
    if (is_half(w->t->in[0]->dtype))
        latent_rows(true, w->t, work_range(w, part));
    else
        latent_rows(false, w->t, work_range(w, part));
}

void NAMED(latent_heads)(const struct task *t, struct run *x)
{
    work_run(t, x, tensor_rows(t->in[0]), rows_per_part(tensor_columns(t->out[0])), latent_part);
}

INLINE void latent_grad_rows(bool half, const struct task *t, struct range rows)
{
    const struct latent s = latent_of(t);
    void *dq = t->out[0]->data, *dkv = t->out[1]->data;
    const i32 *positions = t->in[2]->data;
    float x[PAIR_COLUMNS], y[PAIR_COLUMNS], sum[PAIR_COLUMNS];
    for (i64 r = rows.begin; r < rows.end; r++) {
        const float *table = (const float *)t->in[1]->data + positions[r] * s.P;
        const void *from = vec_at(half, t->in[0]->data, r * s.columns);
        memset(sum, 0, (size_t)s.P * sizeof *sum);
        for (i64 h = 0; h < s.H; h++) {
            const i64 i = r * s.H + h, at = h * s.D;
            copy_run(half, dq, i * s.D, from, at, s.N);
            get_run(half, x, from, at + s.N, s.P);
            turn_back(y, x, table, s.P);
            put_run(half, dq, i * s.D + s.N, y, s.P);
            copy_run(half, dkv, i * (s.N + s.V), from, s.H * s.D + at, s.N);
            copy_run(half, dkv, i * (s.N + s.V) + s.N, from, 2 * s.H * s.D + h * s.V, s.V);
            get_run(half, x, from, s.H * s.D + at + s.N, s.P);
            for (i64 k = 0; k < s.P; k++)
                sum[k] += x[k];
        }
        turn_back(y, sum, table, s.P);
        put_run(half, t->out[2]->data, r * s.P, y, s.P);
    }
}

static void latent_grad_part(void *context, i64 part, int thread)
{
    const struct work *w = context;
    (void)thread;
    if (is_half(w->t->in[0]->dtype))
        latent_grad_rows(true, w->t, work_range(w, part));
    else
        latent_grad_rows(false, w->t, work_range(w, part));
}

void NAMED(latent_heads_grad)(const struct task *t, struct run *x)
{
    work_run(t, x, tensor_rows(t->in[0]), rows_per_part(tensor_columns(t->in[0])),
             latent_grad_part);
}
