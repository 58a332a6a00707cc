/* backend/cpu/tile.h - small matrix products and transposes on scratch memory, the bricks
 * of attention.
 *
 * Operands are *words*: an f32, or, with ISA_pairs, two bf16 that are neighbours along the sum
 * (the first in the low half), as in gemm.h; results are f32. tiles() keeps TILE_ROWS x
 * TILE_COLS sums in registers. Its left operand may lie in any order (two strides), so that a
 * block of keys or queries serves both as it lies and transposed without being copied, but for
 * pairs, of which each has its own; its right operand needs TILE_COLS neighbours. Each result
 * is one chain of multiply-adds over the steps, ascending; a pair is two of them. */
#ifndef HEADWAY_TILE_H
#define HEADWAY_TILE_H

#include "backend/cpu/vec.h"

#if defined(ISA_avx512) || defined(ISA_wide)
enum { TILE_ROWS = 8 };
#elif defined(ISA_avx2)
enum { TILE_ROWS = 6 };
#else
enum { TILE_ROWS = 4 };
#endif
enum { TILE_COLS = 2 * VL, TILE_ROWS_MAX = 8 };

/* --- words -------------------------------------------------------------------------- */

#if defined(ISA_pairs)
enum { PER_WORD = 2 };
typedef u32 word;
typedef vec_u32 words;
#else
enum { PER_WORD = 1 };
typedef float word;
typedef vec words;
#endif

/* Words of n elements along the sum; the second half of an odd last one is zero. */
INLINE i64 words_of(i64 n)
{
    return ceil_div(n, PER_WORD);
}

/* Elements of rows of bf16 or f32 that become one word: f32 are words by themselves. */
INLINE i64 per_word(bool half)
{
    return half ? PER_WORD : 1;
}

INLINE words words_load(const word *p)
{
    words w;
    memcpy(&w, p, sizeof w);
    return w;
}

INLINE void words_store(word *p, words w)
{
    memcpy(p, &w, sizeof w);
}

INLINE words words_all(word x)
{
#if defined(ISA_pairs)
    return x + (words){ 0 };
#else
    return vec_all(x);
#endif
}

/* sum + a b, of a pair the one product and then the other. */
INLINE vec words_multiply(vec sum, words a, words b)
{
#if defined(ISA_avx512bf16)
    return (vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
#elif defined(ISA_pairs)
    const vec_u32 high = { 0 };
    sum += (vec)(a & (high + 0xffff0000)) * (vec)(b & (high + 0xffff0000));
    return sum + (vec)(a << 16) * (vec)(b << 16);
#else
    return sum + a * b;
#endif
}

/* VL words of a row of which n elements are left: absent ones are zero. */
INLINE words words_get_n(bool half, const void *row, i64 at, i64 n)
{
#if defined(ISA_pairs)
    if (!half)
        return (words)vec_get_n(false, row, at, n);
    if (n >= 2 * VL)
        return words_load((const word *)((const bf16 *)row + at));
    bf16 some[2 * VL] = { 0 };
    memcpy(some, (const bf16 *)row + at, (size_t)n * sizeof *some);
    return words_load((const word *)some);
#else
    return vec_get_n(half, row, at, n);
#endif
}

INLINE void words_put_n(word *p, words w, i64 n)
{
    if (n >= VL)
        words_store(p, w);
    else
        memcpy(p, &w, (size_t)n * sizeof *p);
}

#if defined(ISA_pairs)
typedef u16 halves __attribute__((vector_size(VL * 4)));

/* Lanes of a, then those of b, rounded to nearest even. */
INLINE words words_beside(vec a, vec b)
{
#if defined(ISA_avx512bf16)
    return (words)_mm512_cvtne2ps_pbh((__m512)b, (__m512)a);
#else
    vec_u16 both[2] = { vec_narrow(a), vec_narrow(b) };
    return words_load((const word *)both);
#endif
}

/* The k-th bf16 of a beside the k-th of b, of the first VL, and of the others. */
INLINE words words_zip_low(words a, words b)
{
    return (words)__builtin_shufflevector((halves)a, (halves)b, 0, 32, 1, 33, 2, 34, 3, 35, 4, 36,
                                          5, 37, 6, 38, 7, 39, 8, 40, 9, 41, 10, 42, 11, 43, 12,
                                          44, 13, 45, 14, 46, 15, 47);
}

INLINE words words_zip_high(words a, words b)
{
    return (words)__builtin_shufflevector((halves)a, (halves)b, 16, 48, 17, 49, 18, 50, 19, 51,
                                          20, 52, 21, 53, 22, 54, 23, 55, 24, 56, 25, 57, 26, 58,
                                          27, 59, 28, 60, 29, 61, 30, 62, 31, 63);
}

/* The first VL of a beside the others. */
INLINE words words_zip_halves(words a)
{
    return (words)__builtin_shufflevector((halves)a, (halves)a, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20,
                                          5, 21, 6, 22, 7, 23, 8, 24, 9, 25, 10, 26, 11, 27, 12,
                                          28, 13, 29, 14, 30, 15, 31);
}
#endif

/* --- products ----------------------------------------------------------------------- */

/* C (rows x TILE_COLS) = (add ? C : 0) + A (rows x steps) B (steps x TILE_COLS), with words
 * A(i,k) at a[i a_row + k a_step], B(k,.) at b + k b_step, and C(i,.) at c + i c_row. */
struct tile {
    i64 steps, a_row, a_step, b_step, c_row;
    bool add;
};

INLINE void tile_rows(const int rows, const struct tile *t, const word *a, const word *b,
                      float *c)
{
    const i64 a_row = t->a_row, a_step = t->a_step, b_step = t->b_step, c_row = t->c_row;
    vec lo[TILE_ROWS_MAX], hi[TILE_ROWS_MAX];
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
        lo[i] = hi[i] = (vec){ 0 };
#pragma GCC unroll 8
    for (i64 k = t->steps; k > 0; k--) {
        words b_lo = words_load(b), b_hi = words_load(b + VL);
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) {
            words x = words_all(a[i * a_row]);
            lo[i] = words_multiply(lo[i], x, b_lo);
            hi[i] = words_multiply(hi[i], x, b_hi);
        }
        a += a_step;
        b += b_step;
    }
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++) {
        float *to = c + i * c_row;
        if (t->add) {
            lo[i] += vec_load(to);
            hi[i] += vec_load(to + VL);
        }
        vec_store(to, lo[i]);
        vec_store(to + VL, hi[i]);
    }
}

/* The same for any number of rows. */
static inline void tiles(i64 rows, const struct tile *t, const word *a, const word *b, float *c)
{
    for (; rows >= TILE_ROWS; rows -= TILE_ROWS) {
        tile_rows(TILE_ROWS, t, a, b, c);
        a += TILE_ROWS * t->a_row;
        c += TILE_ROWS * t->c_row;
    }
    switch (rows) {
    case 7: tile_rows(7, t, a, b, c); break;
    case 6: tile_rows(6, t, a, b, c); break;
    case 5: tile_rows(5, t, a, b, c); break;
    case 4: tile_rows(4, t, a, b, c); break;
    case 3: tile_rows(3, t, a, b, c); break;
    case 2: tile_rows(2, t, a, b, c); break;
    case 1: tile_rows(1, t, a, b, c); break;
    default: break;
    }
}

/* --- transposes --------------------------------------------------------------------- */

/* a0 b0 a1 b1 ... of the lower, and of the upper, halves. */
INLINE vec zip_low(vec a, vec b)
{
#if defined(ISA_avx512) || defined(ISA_wide)
    return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
#elif defined(ISA_avx2)
    return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
#else
    return __builtin_shufflevector(a, b, 0, 4, 1, 5);
#endif
}

INLINE vec zip_high(vec a, vec b)
{
#if defined(ISA_avx512) || defined(ISA_wide)
    return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30,
                                   15, 31);
#elif defined(ISA_avx2)
    return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
#else
    return __builtin_shufflevector(a, b, 2, 6, 3, 7);
#endif
}

/* v[i] lane j <-> v[j] lane i. Each round zips row i with row i + VL/2. */
INLINE void transpose(vec v[VL])
{
#pragma GCC unroll 4
    for (int round = 1; round < VL; round *= 2) {
        vec z[VL];
#pragma GCC unroll 16
        for (int i = 0; i < VL / 2; i++) {
            z[2 * i] = zip_low(v[i], v[i + VL / 2]);
            z[2 * i + 1] = zip_high(v[i], v[i + VL / 2]);
        }
#pragma GCC unroll 16
        for (int i = 0; i < VL; i++)
            v[i] = z[i];
    }
}

/* panel (words x TILE_COLS) = src' for rows <= TILE_COLS rows of src, src_row elements apart;
 * absent rows become zero columns. */
INLINE void panel_from_rows(bool half, word *panel, const void *src, i64 src_row, i64 rows,
                            i64 columns)
{
    const i64 per = per_word(half), wide = ceil_div(columns, per);
    for (i64 side = 0; side < TILE_COLS; side += VL) {
        for (i64 w = 0; w < wide; w += VL) {
            const i64 c = w * per;
            vec v[VL];
            for (i64 i = 0; i < VL; i++) {
                const void *row = vec_at(half, src, (side + i) * src_row);
                v[i] = side + i < rows ? (vec)words_get_n(half, row, c, columns - c) : (vec){ 0 };
            }
            transpose(v);
            for (i64 i = 0; i < i64_min(VL, wide - w); i++)
                vec_store((float *)panel + (w + i) * TILE_COLS + side, v[i]);
        }
    }
}

/* dst rows = scale * panel', the reverse; scale per row of dst. */
INLINE void rows_from_panel(bool half, void *dst, i64 dst_row, const float *panel,
                            const float *scale, i64 rows, i64 columns)
{
    for (i64 side = 0; side < rows; side += VL) {
        vec factor = vec_load(scale + side);
        for (i64 c = 0; c < columns; c += VL) {
            vec v[VL];
            for (i64 i = 0; i < VL; i++)
                v[i] = c + i < columns ? factor * vec_load(panel + (c + i) * TILE_COLS + side)
                                       : (vec){ 0 };
            transpose(v);
            for (i64 i = 0; i < i64_min(VL, rows - side); i++)
                vec_put_n(half, vec_at(half, dst, (side + i) * dst_row), c, v[i], columns - c);
        }
    }
}

/* Brings rows into L2 before they are needed: heads lie too far apart for the hardware to
 * see the pattern. */
INLINE void prefetch_rows(bool half, const void *src, i64 src_row, i64 rows, i64 columns)
{
    for (i64 r = 0; r < rows; r++)
        for (i64 c = 0; c < columns; c += half ? 32 : 16) /* a line of 64 bytes */
            __builtin_prefetch(vec_at(half, src, r * src_row + c), 0, 2);
}

/* dst (rows x words_of(columns), dst_row words apart) = src: the sum runs along rows. */
INLINE void words_from_rows(bool half, word *dst, i64 dst_row, const void *src, i64 src_row,
                            i64 rows, i64 columns)
{
    const i64 per = VL * PER_WORD;
    for (i64 r = 0; r < rows; r++, dst += dst_row) {
        const void *from = vec_at(half, src, r * src_row);
        for (i64 c = 0; c < columns; c += per)
            words_put_n(dst + c / PER_WORD, words_get_n(half, from, c, columns - c),
                        words_of(columns - c));
    }
}

/* dst (words_of(rows) x columns, dst_row words apart) = src: the sum runs across rows. */
INLINE void words_across_rows(bool half, word *dst, i64 dst_row, const void *src, i64 src_row,
                              i64 rows, i64 columns)
{
#if defined(ISA_pairs)
    assert(half);
    for (i64 r = 0; r < rows; r += 2, dst += dst_row) {
        const bf16 *a = (const bf16 *)src + r * src_row, *b = a + src_row;
        for (i64 c = 0; c < columns; c += VL) {
            const i64 n = i64_min(VL, columns - c);
            words low = (words)vec_get_n(true, a, c, n) >> 16;
            words high = r + 1 < rows ? (words)vec_get_n(true, b, c, n) : (words){ 0 };
            words_put_n(dst + c, low | high, n);
        }
    }
#else
    words_from_rows(half, dst, dst_row, src, src_row, rows, columns);
#endif
}

#endif
