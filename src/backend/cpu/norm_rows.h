/* backend/cpu/norm_rows.h - one row of a norm, forward and backward, for multi/norm.c and
 * multi/heads.c.
 *
 * With xhat = (x - mean) rstd (mean 0 unless centred) and g = dy gain,
 *   y  = xhat gain + bias
 *   dx = rstd (g - [mean(g)] - xhat mean(g xhat)) + addend,  the bracket if centred
 *   dgain += dy xhat,  dbias += dy. */
#ifndef HEADWAY_NORM_ROWS_H
#define HEADWAY_NORM_ROWS_H

#include "backend/cpu/kernels.h"

enum { NORM_AHEAD = 2 }; /* rows from what is read to what is asked for */

INLINE float row_mean(bool half, const void *x, i64 C)
{
    vec sum = { 0 }, more = { 0 };
    i64 c = 0;
    for (; c + 2 * VL <= C; c += 2 * VL) {
        if (half) /* rows of f32 come as fast without */
            __builtin_prefetch(vec_at(half, x, c + NORM_AHEAD * C));
        sum += vec_get(half, x, c);
        more += vec_get(half, x, c + VL);
    }
    for (; c < C; c += VL)
        sum += vec_get_n(half, x, c, C - c);
    return vec_sum(sum + more) / (float)C;
}

/* 1 / sqrt(mean((x - mean)^2) + eps) */
INLINE float row_rstd(bool half, bool centred, const void *x, float mean, i64 C, double eps)
{
    vec sum = { 0 }, more = { 0 };
    i64 c = 0;
    for (; c + 2 * VL <= C; c += 2 * VL) {
        vec a = vec_get(half, x, c), b = vec_get(half, x, c + VL);
        if (half && !centred) /* else row_mean has */
            __builtin_prefetch(vec_at(half, x, c + NORM_AHEAD * C));
        if (centred) {
            a -= mean;
            b -= mean;
        }
        sum += a * a;
        more += b * b;
    }
    float rest = 0;
    for (; c < C; c++) {
        float a = half ? bf16_to_f32(((const bf16 *)x)[c]) : ((const float *)x)[c];
        a -= centred ? mean : 0;
        rest += a * a;
    }
    return (float)(1.0 / sqrt((double)(vec_sum(sum + more) + rest) / (double)C + eps));
}

INLINE void norm_at(bool half, void *y, const void *x, float mean, float rstd,
                    const float *gain, const float *bias, i64 c, i64 n)
{
    vec v = (vec_get_n(half, x, c, n) - mean) * rstd * vec_get_n(false, gain, c, n);
    if (bias)
        v += vec_get_n(false, bias, c, n);
    vec_put_n(half, y, c, v, n);
}

INLINE void norm_row(bool half, void *y, const void *x, float mean, float rstd,
                     const float *gain, const float *bias, i64 C)
{
    i64 c = 0;
    for (; c + VL <= C; c += VL)
        norm_at(half, y, x, mean, rstd, gain, bias, c, VL);
    if (c < C)
        norm_at(half, y, x, mean, rstd, gain, bias, c, C - c);
}

struct norm_row_grad {
    const void *dy, *x, *addend; /* addend may be NULL */
    void *dx;
    const float *gain;
    float mean, rstd;
    float *dgain, *dbias; /* dbias may be NULL */
};

struct norm_sums {
    vec g, gx; /* of g, and of g xhat */
};

INLINE void norm_sums_at(bool half, const struct norm_row_grad *a, struct norm_sums *s, i64 c,
                         i64 n)
{
    vec dy = vec_get_n(half, a->dy, c, n), g = dy * vec_get_n(false, a->gain, c, n);
    vec xhat = (vec_get_n(half, a->x, c, n) - a->mean) * a->rstd;
    s->g += g;
    s->gx += g * xhat;
    vec_put_n(false, a->dgain, c, vec_get_n(false, a->dgain, c, n) + dy * xhat, n);
    if (a->dbias)
        vec_put_n(false, a->dbias, c, vec_get_n(false, a->dbias, c, n) + dy, n);
}

INLINE void norm_dx_at(bool half, const struct norm_row_grad *a, float mean_g, float mean_gx,
                       i64 c, i64 n)
{
    vec g = vec_get_n(half, a->dy, c, n) * vec_get_n(false, a->gain, c, n);
    vec xhat = (vec_get_n(half, a->x, c, n) - a->mean) * a->rstd;
    vec dx = a->rstd * (g - mean_g - xhat * mean_gx);
    if (a->addend)
        dx += vec_get_n(half, a->addend, c, n);
    vec_put_n(half, a->dx, c, dx, n);
}

INLINE void norm_row_grad(bool half, bool centred, const struct norm_row_grad *row, i64 C)
{
    const struct norm_row_grad a = *row;
    struct norm_sums s = { { 0 }, { 0 } };
    i64 c = 0;
    for (; c + VL <= C; c += VL) {
        if (half) {
            __builtin_prefetch(vec_at(half, a.dy, c + NORM_AHEAD * C));
            __builtin_prefetch(vec_at(half, a.x, c + NORM_AHEAD * C));
        }
        if (half && a.addend)
            __builtin_prefetch(vec_at(half, a.addend, c + NORM_AHEAD * C));
        norm_sums_at(half, &a, &s, c, VL);
    }
    if (c < C)
        norm_sums_at(half, &a, &s, c, C - c);
    const float mean_g = centred ? vec_sum(s.g) / (float)C : 0;
    const float mean_gx = vec_sum(s.gx) / (float)C;
    for (c = 0; c + VL <= C; c += VL)
        norm_dx_at(half, &a, mean_g, mean_gx, c, VL);
    if (c < C)
        norm_dx_at(half, &a, mean_g, mean_gx, c, C - c);
}

/* sum[c] (+)= the blocks' partial sums [blocks][C], added in a tree over blocks. */
static inline void norm_sum_blocks(float *sum, float *partial, i64 blocks, i64 stride, i64 begin,
                                   i64 end, bool keep)
{
    for (i64 step = 1; step < blocks; step *= 2)
        for (i64 b = 0; b + step < blocks; b += 2 * step)
            for (i64 c = begin; c < end; c++)
                partial[b * stride + c] += partial[(b + step) * stride + c];
    for (i64 c = begin; c < end; c++)
        sum[c] = partial[c] + (keep ? sum[c] : 0);
}

#endif
