/* backend/cpu/tile.h - small matrix products and transposes on scratch memory, the bricks
 * of attention.
 *
 * tiles() keeps TILE_ROWS x TILE_COLS sums in registers. Its left operand may lie in any
 * order (two strides), so that a block of keys or queries serves both as it lies and
 * transposed without being copied; its right operand needs TILE_COLS neighbours. Each
 * result is one chain of multiply-adds over the steps, ascending. */
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

/* C (rows x TILE_COLS) = (add ? C : 0) + A (rows x steps) B (steps x TILE_COLS), with
 * A(i,k) at a[i a_row + k a_step], B(k,.) at b + k b_step, C(i,.) at c + i c_row. */
struct tile {
    i64 steps, a_row, a_step, b_step, c_row;
    bool add;
};

INLINE void tile_rows(const int rows, const struct tile *t, const float *a, const float *b,
                      float *c)
{
    const i64 a_row = t->a_row, a_step = t->a_step, b_step = t->b_step, c_row = t->c_row;
    vec lo[TILE_ROWS_MAX], hi[TILE_ROWS_MAX];
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
        lo[i] = hi[i] = (vec){ 0 };
#pragma GCC unroll 8
    for (i64 k = t->steps; k > 0; k--) {
        vec b_lo = vec_load(b), b_hi = vec_load(b + VL);
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) {
            vec x = vec_all(a[i * a_row]);
            lo[i] += x * b_lo;
            hi[i] += x * b_hi;
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
static inline void tiles(i64 rows, const struct tile *t, const float *a, const float *b, float *c)
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

/* panel (columns x TILE_COLS) = src' for rows <= TILE_COLS rows of src, src_row elements
 * apart; absent rows become zero columns. */
INLINE void panel_from_rows(bool half, float *panel, const void *src, i64 src_row, i64 rows,
                            i64 columns)
{
    for (i64 side = 0; side < TILE_COLS; side += VL) {
        for (i64 c = 0; c < columns; c += VL) {
            vec v[VL];
            for (i64 i = 0; i < VL; i++)
                v[i] = side + i < rows
                           ? vec_get_n(half, vec_at(half, src, (side + i) * src_row), c, columns - c)
                           : (vec){ 0 };
            transpose(v);
            for (i64 i = 0; i < i64_min(VL, columns - c); i++)
                vec_store(panel + (c + i) * TILE_COLS + side, v[i]);
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

/* dst (rows x columns, dst_row floats apart) = src as f32. */
INLINE void widen_rows(bool half, float *dst, i64 dst_row, const void *src, i64 src_row,
                       i64 rows, i64 columns)
{
    for (i64 r = 0; r < rows; r++)
        for (i64 c = 0; c < columns; c += VL)
            vec_put_n(false, dst + r * dst_row, c,
                      vec_get_n(half, vec_at(half, src, r * src_row), c, columns - c),
                      columns - c);
}

#endif
