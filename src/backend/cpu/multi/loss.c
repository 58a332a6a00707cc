/* Cross-entropy with its own gradient, and the loss per source.
 *
 * A row of logits is read twice: once for its largest value and its sum of exponentials,
 * once for the probabilities. The first pass goes by blocks that stay in L1; when a block
 * raises the maximum the sum so far is scaled down (online softmax, Milakov & Gimelshein
 * 2018). */
#include "backend/cpu/kernels.h"

enum { XENT_BLOCK = 2048 };

INLINE float block_largest(const float *z, i64 n)
{
    vec a = vec_all(-INFINITY), b = a;
    i64 i = 0;
    for (; i + 2 * VL <= n; i += 2 * VL) {
        a = vec_max(vec_load(z + i), a);
        b = vec_max(vec_load(z + i + VL), b);
    }
    float largest = vec_largest(vec_max(a, b));
    for (; i < n; i++)
        largest = z[i] > largest ? z[i] : largest;
    return largest;
}

/* Sum of e^(z - largest); lanes beyond n count nothing. */
INLINE float block_sum(const float *z, float largest, i64 n)
{
    vec a = { 0 }, b = { 0 };
    i64 i = 0;
    for (; i + 2 * VL <= n; i += 2 * VL) {
        __builtin_prefetch(z + i + XENT_BLOCK);
        __builtin_prefetch(z + i + XENT_BLOCK + VL);
        a += vec_exp(vec_load(z + i) - largest);
        b += vec_exp(vec_load(z + i + VL) - largest);
    }
    for (; i < n; i += VL) {
        vec e = vec_exp(vec_get_n(false, z, i, n - i) - largest);
        a += vec_select(vec_lanes() < vec_all_i32((i32)i64_min(VL, n - i)), e, (vec){ 0 });
    }
    return vec_sum(a + b);
}

static float row_log_sum_exp(const float *z, i64 V)
{
    float largest = -INFINITY;
    double sum = 0;
    for (i64 v = 0; v < V; v += XENT_BLOCK) {
        const i64 n = i64_min(XENT_BLOCK, V - v);
        float top = block_largest(z + v, n);
        if (top > largest) {
            sum *= exp((double)(largest - top));
            largest = top;
        }
        sum += (double)block_sum(z + v, largest, n);
    }
    return (float)((double)largest + log(sum));
}

/* dz = scale e^(z - lse), 0 in the padding columns; the target's is put right after. */
INLINE void row_gradient(bool half, void *dz, const float *z, float lse, float scale, i64 V,
                         i64 padded)
{
    i64 v = 0;
    for (; v + VL <= V; v += VL)
        vec_put(half, dz, v, scale * vec_exp(vec_load(z + v) - lse));
    for (; v < padded; v += VL) {
        vec e = scale * vec_exp(vec_get_n(false, z, v, padded - v) - lse);
        e = vec_select(vec_lanes() < vec_all_i32((i32)i64_max(0, i64_min(VL, V - v))), e,
                       (vec){ 0 });
        vec_put_n(half, dz, v, e, padded - v);
    }
}

static void put_one(bool half, void *row, i64 i, float value)
{
    if (half)
        ((bf16 *)row)[i] = bf16_from_f32(value);
    else
        ((float *)row)[i] = value;
}

static void xent_row(const struct task *t, i64 r)
{
    const struct tensor *dz = t->out[2];
    const i64 padded = tensor_columns(t->in[0]), V = (i64)t->attr[XENT_VOCAB];
    const float *z = (const float *)t->in[0]->data + r * padded;
    const float weight = ((float *)t->in[2]->data)[r] * *(float *)t->in[3]->data;
    const double zcoef = t->attr[XENT_ZCOEF];
    const i64 at = ((i32 *)t->in[1]->data)[r];
    const double target = (double)z[at];
    const float lse = row_log_sum_exp(z, V);
    ((float *)t->out[0]->data)[r] = (float)((double)lse - target);
    ((float *)t->out[1]->data)[r] = lse;
    if (!dz)
        return;
    const bool half = is_half(dz->dtype);
    void *row = vec_at(half, dz->data, r * padded);
    const float scale = weight * (float)(1 + 2 * zcoef * (double)lse);
    if (half)
        row_gradient(true, row, z, lse, scale, V, padded);
    else
        row_gradient(false, row, z, lse, scale, V, padded);
    /* weight ((p - 1) + 2 zcoef lse p): no digits are lost where p is near 1 */
    const double log_p = target - (double)lse;
    put_one(half, row, at,
            weight * (float)(expm1(log_p) + 2 * zcoef * (double)lse * exp(log_p)));
}

static void xent_rows(void *context, i64 part, int thread)
{
    const struct work *w = context;
    const struct task *t = w->t;
    const struct tensor *dz = t->out[2];
    struct range rows = work_range(w, part);
    (void)thread;
    for (i64 r = rows.begin; r < rows.end; r++) {
        if (((float *)t->in[2]->data)[r] != 0) {
            xent_row(t, r);
            continue;
        }
        ((float *)t->out[0]->data)[r] = 0;
        ((float *)t->out[1]->data)[r] = 0;
        const i64 row_bytes = dz ? tensor_columns(dz) * dtype_bytes(dz->dtype) : 0;
        if (dz)
            memset((char *)dz->data + r * row_bytes, 0, (size_t)row_bytes);
    }
}

void NAMED(xent)(const struct task *t, struct run *x)
{
    work_run(t, x, t->in[0]->dim[0], 4, xent_rows);
}

/* --- in three steps, a share of the vocabulary -------------------------------------- */

static void peak_rows(void *context, i64 part, int thread)
{
    const struct work *w = context;
    const struct tensor *z = w->t->in[0];
    struct range rows = work_range(w, part);
    (void)thread;
    for (i64 r = rows.begin; r < rows.end; r++)
        ((float *)w->t->out[0]->data)[r] = block_largest(
            (const float *)z->data + r * z->dim[1], (i64)w->t->attr[XENT_VOCAB]);
}

void NAMED(xent_peak)(const struct task *t, struct run *x)
{
    work_run(t, x, t->in[0]->dim[0], 4, peak_rows);
}

/* The target's column in this share, or -1. */
static i64 target_here(const struct task *t, i64 target)
{
    const i64 at = target - (i64)t->attr[XENT_FIRST];
    return at >= 0 && at < (i64)t->attr[XENT_VOCAB] ? at : -1;
}

static float sum_of(const float *z, float peak, i64 V)
{
    double sum = 0;
    for (i64 v = 0; v < V; v += XENT_BLOCK)
        sum += (double)block_sum(z + v, peak, i64_min(XENT_BLOCK, V - v));
    return (float)sum;
}

/* A tree over n leaves, a power of two; those behind the vocabulary are 0. */
static float sum_of_leaves(const struct task *t, const float *z, float peak, i64 first, i64 n)
{
    const i64 share = (i64)t->attr[XENT_SHARE], V = (i64)t->attr[XENT_VOCAB];
    if (n > 1)
        return sum_of_leaves(t, z, peak, first, n / 2) +
               sum_of_leaves(t, z, peak, first + n / 2, n / 2);
    const i64 begin = i64_min(V, first * share);
    return sum_of(z + begin, peak, i64_min(V, (first + 1) * share) - begin);
}

static void sum_rows(void *context, i64 part, int thread)
{
    const struct work *w = context;
    const struct task *t = w->t;
    const i64 columns = t->in[0]->dim[1], V = (i64)t->attr[XENT_VOCAB];
    const i64 leaves = (i64)t->attr[XENT_LEAVES];
    struct range rows = work_range(w, part);
    (void)thread;
    for (i64 r = rows.begin; r < rows.end; r++) {
        const float *z = (const float *)t->in[0]->data + r * columns;
        const float peak = ((const float *)t->in[1]->data)[r];
        const i64 target = target_here(t, ((const i32 *)t->in[2]->data)[r]);
        float *out = (float *)t->out[0]->data + 2 * r;
        out[0] = leaves > 0 ? sum_of_leaves(t, z, peak, 0, leaves) : sum_of(z, peak, V);
        out[1] = target < 0 ? 0 : z[target];
    }
}

void NAMED(xent_sum)(const struct task *t, struct run *x)
{
    work_run(t, x, t->in[0]->dim[0], 4, sum_rows);
}

static void finish_row(const struct task *t, i64 r)
{
    const struct tensor *dz = t->out[1];
    const i64 padded = tensor_columns(t->in[0]), V = (i64)t->attr[XENT_VOCAB];
    const float *z = (const float *)t->in[0]->data + r * padded;
    const float *sums = (const float *)t->in[5]->data + 2 * r;
    const float weight = ((float *)t->in[2]->data)[r] * *(float *)t->in[3]->data;
    const double zcoef = t->attr[XENT_ZCOEF];
    const float lse =
        (float)((double)((const float *)t->in[4]->data)[r] + log((double)sums[0]));
    const i64 target = target_here(t, ((const i32 *)t->in[1]->data)[r]);
    ((float *)t->out[0]->data)[r] = (float)((double)lse - (double)sums[1]);
    if (!dz)
        return;
    const bool half = is_half(dz->dtype);
    void *row = vec_at(half, dz->data, r * padded);
    const float scale = weight * (float)(1 + 2 * zcoef * (double)lse);
    const double log_p = (double)sums[1] - (double)lse;
    if (half)
        row_gradient(true, row, z, lse, scale, V, padded);
    else
        row_gradient(false, row, z, lse, scale, V, padded);
    if (target >= 0)
        put_one(half, row, target,
                weight * (float)(expm1(log_p) + 2 * zcoef * (double)lse * exp(log_p)));
}

static void finish_rows(void *context, i64 part, int thread)
{
    const struct work *w = context;
    const struct task *t = w->t;
    const struct tensor *dz = t->out[1];
    struct range rows = work_range(w, part);
    (void)thread;
    for (i64 r = rows.begin; r < rows.end; r++) {
        if (((float *)t->in[2]->data)[r] != 0) {
            finish_row(t, r);
            continue;
        }
        ((float *)t->out[0]->data)[r] = 0;
        const i64 row_bytes = dz ? tensor_columns(dz) * dtype_bytes(dz->dtype) : 0;
        if (dz)
            memset((char *)dz->data + r * row_bytes, 0, (size_t)row_bytes);
    }
}

void NAMED(xent_finish)(const struct task *t, struct run *x)
{
    work_run(t, x, t->in[0]->dim[0], 4, finish_rows);
}

static double loss_term(const struct task *t, double x)
{
    return t->attr[LOSS_GRAIN] != 0 ? rint(x * 0x1p24) * 0x1p-24 : x;
}

void NAMED(loss_sums)(const struct task *t, struct run *x)
{
    const float *nll = t->in[0]->data, *weights = t->in[1]->data;
    const i32 *sources = t->in[2]->data;
    double *sums = t->out[0]->data;
    if (!run_accumulates(t, x))
        memset(sums, 0, (size_t)tensor_bytes(t->out[0]));
    for (i64 r = 0; r < tensor_count(t->in[0]); r++) {
        sums[2 * sources[r]] += loss_term(t, (double)weights[r] * (double)nll[r]);
        sums[2 * sources[r] + 1] += loss_term(t, (double)weights[r]);
    }
}
