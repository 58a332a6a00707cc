/* backend/cpu/amx_tail.h - bringing 32 x 32 sums to their place, some rows at a time, while tile
 * registers multiply the next ones: vectors and tiles are units of their own, and a line of C that
 * is not in a cache takes as long as three multiplications of tiles. */
#ifndef HEADWAY_AMX_TAIL_H
#define HEADWAY_AMX_TAIL_H

#include "backend/cpu/amx_panel.h"
#include "backend/cpu/gemm.h"

#include <immintrin.h>

enum { TAIL_SIDE = 2 * HALF };

/* before NULL: nothing to do. */
struct tail_work {
    const float *sums;
    const struct gemm_tail *t;
    int row, at_once; /* rows are done up to this; rows a turn */
};

typedef float tail_vec __attribute__((vector_size(64)));
typedef u16 tail_line __attribute__((vector_size(64))); /* 32 bf16 */

/* Nearest, ties to even; NaN stays NaN: bf16_from_f32. */
INLINE narrow_vec tail_narrow(tail_vec x)
{
    const vec bits = (vec)x, high = bits >> 16, nan = (vec)(x != x);
    const vec rounded = (bits + 0x7fff + (high & 1)) >> 16;
    return __builtin_convertvector((rounded & ~nan) | ((high | 0x40) & nan), narrow_vec);
}

INLINE tail_vec tail_load(const float *p)
{
    tail_vec v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* 16 of the numbers that sums are added to. */
INLINE tail_vec tail_start(const struct gemm_start *s, i64 row, int column)
{
    const i64 at = row * s->from_stride + column;
    tail_vec v = { 0 };
    narrow_vec half;
    if (s->from && s->from_type == DTYPE_F32) {
        v = tail_load((const float *)s->from + at);
    } else if (s->from) {
        memcpy(&half, (const bf16 *)s->from + at, sizeof half);
        v = (tail_vec)(__builtin_convertvector(half, vec) << 16);
    }
    return s->bias ? v + tail_load(s->bias + column) : v;
}

/* A line of 64 bytes. */
INLINE void tail_put(void *line, __m512i v, bool past_caches)
{
    if (past_caches)
        _mm512_stream_si512(line, v);
    else
        memcpy(line, &v, sizeof v);
}

INLINE void tail_row(const float *sums, const struct gemm_tail *t, i64 row)
{
    const float *own = sums + row * TAIL_SIDE;
    tail_vec low = tail_load(own), high = tail_load(own + HALF);
    if (t->start.from || t->start.bias) {
        low = tail_start(&t->start, row, 0) + low;
        high = tail_start(&t->start, row, HALF) + high;
    }
    if (t->type == DTYPE_F32) {
        float *dst = (float *)t->dst + row * t->dst_stride;
        tail_put(dst, (__m512i)low, t->past_caches);
        tail_put(dst + HALF, (__m512i)high, t->past_caches);
    } else {
        const narrow_vec l = tail_narrow(low), h = tail_narrow(high);
        const tail_line both = __builtin_shufflevector(
            l, h, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22,
            23, 24, 25, 26, 27, 28, 29, 30, 31);
        tail_put((bf16 *)t->dst + row * t->dst_stride, (__m512i)both, t->past_caches);
    }
}

INLINE struct tail_work tail_begin(const float *sums, const struct gemm_tail *t, i64 turns)
{
    return (struct tail_work){ sums, t, t ? 0 : TAIL_SIDE,
                               (int)ceil_div(TAIL_SIDE, i64_max(1, turns)) };
}

INLINE void tail_go_on(struct tail_work *w)
{
    for (int i = 0; i < w->at_once && w->row < TAIL_SIDE; i++)
        tail_row(w->sums, w->t, w->row++);
}

INLINE void tail_end(struct tail_work *w)
{
    while (w->row < TAIL_SIDE)
        tail_row(w->sums, w->t, w->row++);
}

#endif
