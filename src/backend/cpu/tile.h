/* backend/cpu/tile.h - small matrix products and transposes on scratch memory, the bricks
 * of attention.
 *
 * Operands are *words*: an f32, or, with ISA_pairs, two bf16 that are neighbours along the sum
 * (the first in the low half), as in gemm.h; results are f32. tiles() keeps TILE_ROWS x
 * TILE_COLS sums in registers. Its left operand may lie in any order (two strides), so that a
 * block of keys or queries serves both as it lies and transposed without being copied, but for
 * pairs, of which each has its own; its right operand needs TILE_COLS neighbours. Each result
 * is one chain of multiply-adds over the steps, ascending; a pair is two of them.
 *
 * With ISA_amx the sums are in tile registers (gemm_kernel_amx.c), whose left operand's steps lie
 * side by side and come 16 at a time: sums along rows are filled up with zeros, and those across
 * tokens begin and end at whole groups of TOKEN_GRAIN tokens, absent ones being zeros. A chain
 * then goes on from the sums that are there. */
#ifndef HEADWAY_TILE_H
#define HEADWAY_TILE_H

#if defined(ISA_amx)
#include "backend/cpu/amx.h"
#endif
#include "backend/cpu/vec.h"

#if defined(ISA_amx)
enum { TILE_ROWS = 32 };
#elif defined(ISA_avx512) || defined(ISA_wide)
enum { TILE_ROWS = 8 };
#elif defined(ISA_avx2)
enum { TILE_ROWS = 6 };
#else
enum { TILE_ROWS = 4 };
#endif
enum { TILE_COLS = 2 * VL };

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

#if defined(ISA_amx)
enum { STEPS_AT_ONCE = 16, TOKEN_GRAIN = STEPS_AT_ONCE * PER_WORD };
#else
enum { STEPS_AT_ONCE = 1, TOKEN_GRAIN = 1 };
#endif

/* Words of n elements; the second half of an odd last one is zero. */
INLINE i64 words_of(i64 n)
{
    return ceil_div(n, PER_WORD);
}

/* Words of n elements along a sum, filled up with zeros to what tiles() takes at once. */
INLINE i64 sum_words(i64 n)
{
    return round_up(words_of(n), STEPS_AT_ONCE);
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

#if defined(ISA_amx)
static inline void tiles_begin(void)
{
    amx_begin();
}

static inline void tiles_end(void)
{
    amx_end();
}

/* 16 rows of sums in registers 0 and 1, and, if `both`, 16 more in 2 and 3. */
INLINE void tile_square(bool both, const struct tile *t, const word *a, const word *b, float *c,
                        i64 c_row, bool add)
{
    enum { HALF = 16 };
    const i64 a_bytes = 4 * t->a_row, b_bytes = 4 * t->b_step, c_bytes = 4 * c_row;
    amx_order();
    if (add) {
        _tile_loadd(0, c, c_bytes);
        _tile_loadd(1, c + HALF, c_bytes);
        if (both) {
            _tile_loadd(2, c + HALF * c_row, c_bytes);
            _tile_loadd(3, c + HALF * c_row + HALF, c_bytes);
        }
    } else {
        _tile_zero(0);
        _tile_zero(1);
        if (both) {
            _tile_zero(2);
            _tile_zero(3);
        }
    }
    for (i64 k = 0; k < t->steps; k += STEPS_AT_ONCE, a += HALF, b += HALF * t->b_step) {
        _tile_loadd(6, b, b_bytes);
        _tile_loadd(4, a, a_bytes);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, b + HALF, b_bytes);
        _tile_dpbf16ps(1, 4, 7);
        if (both) {
            _tile_loadd(5, a + HALF * t->a_row, a_bytes);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
    }
    _tile_stored(0, c, c_bytes);
    _tile_stored(1, c + HALF, c_bytes);
    if (both) {
        _tile_stored(2, c + HALF * c_row, c_bytes);
        _tile_stored(3, c + HALF * c_row + HALF, c_bytes);
    }
}

/* Fewer rows than a tile has, of which 16 or 32 can be read of A. */
static inline void tile_rest(i64 rows, const struct tile *t, const word *a, const word *b, float *c)
{
    _Alignas(64) float sums[TILE_ROWS * TILE_COLS] = { 0 };
    for (i64 r = 0; t->add && r < rows; r++)
        memcpy(sums + r * TILE_COLS, c + r * t->c_row, TILE_COLS * sizeof *c);
    if (rows > TILE_ROWS / 2)
        tile_square(true, t, a, b, sums, TILE_COLS, t->add);
    else
        tile_square(false, t, a, b, sums, TILE_COLS, t->add);
    for (i64 r = 0; r < rows; r++)
        memcpy(c + r * t->c_row, sums + r * TILE_COLS, TILE_COLS * sizeof *c);
}

/* For any number of rows; A has 16 times as many as are begun. */
static inline void tiles(i64 rows, const struct tile *t, const word *a, const word *b, float *c)
{
    assert(t->a_step == 1 && t->steps % STEPS_AT_ONCE == 0);
    for (; rows >= TILE_ROWS; rows -= TILE_ROWS) {
        tile_square(true, t, a, b, c, t->c_row, t->add);
        a += TILE_ROWS * t->a_row;
        c += TILE_ROWS * t->c_row;
    }
    if (rows > 0)
        tile_rest(rows, t, a, b, c);
}
#else
static inline void tiles_begin(void)
{
}

static inline void tiles_end(void)
{
}

enum { TILE_ROWS_MAX = 8 }; /* of any set */

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
#endif

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
    const i64 per = per_word(half), wide = half ? sum_words(columns) : columns;
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

/* dst (rows x sum_words(columns), dst_row words apart) = src: the sum runs along rows. */
INLINE void words_from_rows(bool half, word *dst, i64 dst_row, const void *src, i64 src_row,
                            i64 rows, i64 columns)
{
    const i64 per = VL * PER_WORD;
    for (i64 r = 0; r < rows; r++, dst += dst_row) {
        const void *from = vec_at(half, src, r * src_row);
        for (i64 c = 0; c < columns; c += per)
            words_put_n(dst + c / PER_WORD, words_get_n(half, from, c, columns - c),
                        sum_words(columns - c));
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

/* Rows of tokens as the left operand of sums across them, for at most `most` tokens: token r of
 * column d is in word r / PER_WORD * down_step(columns) + d * down_row(most). */
INLINE i64 down_row(i64 most)
{
    return STEPS_AT_ONCE > 1 ? words_of(most) : 1;
}

INLINE i64 down_step(i64 columns)
{
    return STEPS_AT_ONCE > 1 ? 1 : columns;
}

INLINE i64 down_words(i64 columns, i64 most)
{
    const i64 rows = STEPS_AT_ONCE > 1 ? round_up(columns, TILE_ROWS) : columns;
    return round_up(words_of(most) * rows, 16);
}

/* dst, `down`, = src; with TOKEN_GRAIN, absent rows of the last group are zeros. */
INLINE void words_down_rows(bool half, word *dst, i64 most, const void *src, i64 src_row, i64 rows,
                            i64 columns)
{
#if defined(ISA_amx)
    assert(half);
    const i64 dst_row = down_row(most);
    for (i64 r = 0; r < rows; r += TOKEN_GRAIN)
        for (i64 c = 0; c < columns; c += VL) {
            word zipped[VL * VL];
            vec v[VL];
            const i64 n = i64_min(VL, columns - c);
            memset(zipped, 0, sizeof zipped);
            words_across_rows(true, zipped, VL, (const bf16 *)src + r * src_row + c, src_row,
                              i64_min(TOKEN_GRAIN, rows - r), n);
            for (i64 i = 0; i < VL; i++)
                v[i] = vec_load((const float *)zipped + i * VL);
            transpose(v);
            for (i64 i = 0; i < n; i++)
                vec_store((float *)dst + (c + i) * dst_row + r / PER_WORD, v[i]);
        }
#else
    (void)most;
    words_across_rows(half, dst, columns, src, src_row, rows, columns);
#endif
}

#endif
