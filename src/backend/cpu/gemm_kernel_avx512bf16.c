/* backend/cpu/gemm_kernel_avx512bf16.c - 8 x 48 tiles, two values of k per step.
 *
 * A word is a pair of bf16 (k, k + 1); vdpbf16ps adds both products to an f32. Register
 * use is that of gemm_kernel_avx512.c; kc = 512 makes blocks of the same bytes. The
 * instruction's rounding is described in gemm.h. */
#include "backend/cpu/gemm_pack.h"

#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))

enum { MR = 8, NR = 48, AHEAD = 4 };

struct row {
    __m512 x, y, z;
};

INLINE __m512bh load_pairs(const u32 *b)
{
    return (__m512bh)_mm512_load_si512(b);
}

INLINE void step_row(struct row *r, const u32 *a, __m512bh x, __m512bh y, __m512bh z)
{
    __m512bh v = (__m512bh)_mm512_set1_epi32((int)*a);
    r->x = _mm512_dpbf16_ps(r->x, v, x);
    r->y = _mm512_dpbf16_ps(r->y, v, y);
    r->z = _mm512_dpbf16_ps(r->z, v, z);
}

INLINE void store_row(struct row r, float *c, bool add)
{
    if (add) {
        r.x = _mm512_add_ps(_mm512_loadu_ps(c), r.x);
        r.y = _mm512_add_ps(_mm512_loadu_ps(c + 16), r.y);
        r.z = _mm512_add_ps(_mm512_loadu_ps(c + 32), r.z);
    }
    _mm512_storeu_ps(c, r.x);
    _mm512_storeu_ps(c + 16, r.y);
    _mm512_storeu_ps(c + 32, r.z);
}

/* A's rows are row_stride words apart, its steps step_stride. */
INLINE void multiply(i64 steps, const u32 *a, i64 row_stride, i64 step_stride, const u32 *b,
                     float *c, i64 ldc, bool add, const u32 *ahead)
{
    const struct row zero = { _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps() };
    struct row r0 = zero, r1 = zero, r2 = zero, r3 = zero;
    struct row r4 = zero, r5 = zero, r6 = zero, r7 = zero;

    for (int r = 0; r < MR; r++)
        for (int i = 0; i < NR; i += 16)
            __builtin_prefetch(c + r * ldc + i, 1);
#pragma GCC unroll 8
    for (i64 i = 0; i < steps; i++, a += step_stride, b += NR) {
        if (i % AHEAD == AHEAD - 1)
            __builtin_prefetch(ahead + i / AHEAD * 16);
        __m512bh x = load_pairs(b), y = load_pairs(b + 16), z = load_pairs(b + 32);
        step_row(&r0, a, x, y, z);
        step_row(&r1, a + row_stride, x, y, z);
        step_row(&r2, a + 2 * row_stride, x, y, z);
        step_row(&r3, a + 3 * row_stride, x, y, z);
        step_row(&r4, a + 4 * row_stride, x, y, z);
        step_row(&r5, a + 5 * row_stride, x, y, z);
        step_row(&r6, a + 6 * row_stride, x, y, z);
        step_row(&r7, a + 7 * row_stride, x, y, z);
    }
    store_row(r0, c, add);
    store_row(r1, c + ldc, add);
    store_row(r2, c + 2 * ldc, add);
    store_row(r3, c + 3 * ldc, add);
    store_row(r4, c + 4 * ldc, add);
    store_row(r5, c + 5 * ldc, add);
    store_row(r6, c + 6 * ldc, add);
    store_row(r7, c + 7 * ldc, add);
}

static void micro(i64 steps, const u32 *a, const u32 *b, float *c, i64 ldc, bool add,
                  const u32 *ahead)
{
    multiply(steps, a, 1, MR, b, c, ldc, add, ahead);
}

static void micro_rows(i64 steps, const u32 *a, i64 row_stride, const u32 *b, float *c, i64 ldc,
                       bool add, const u32 *ahead)
{
    multiply(steps, a, row_stride, 1, b, c, ldc, add, ahead);
}

/* The latency of vdpbf16ps is 6 and two start per cycle: fourteen accumulators hide it. */
static i64 peak(i64 rounds, float *data)
{
    const __m512bh x = (__m512bh)_mm512_loadu_si512(data);
    const __m512bh y = (__m512bh)_mm512_loadu_si512(data + 16);
    __m512 sum[14];
    for (int i = 0; i < 14; i++)
        sum[i] = _mm512_loadu_ps(data + 32 + 16 * i);
    for (i64 r = 0; r < rounds; r++)
        for (int i = 0; i < 14; i++)
            sum[i] = _mm512_dpbf16_ps(sum[i], x, y);
    for (int i = 0; i < 14; i++)
        _mm512_storeu_ps(data + 32 + 16 * i, sum[i]);
    return rounds * 14 * 32 * 2;
}

const struct gemm_kernels gemm_kernels_avx512bf16 = {
    .name = "avx512bf16", .mr = MR, .nr = NR, .kc = 768, .mc = 128, .nc = 384, .per_step = 2,
    .ahead_steps = AHEAD, .fetches_c = true,
    .mixed = &gemm_kernels_avx512,
    .pack_a = gemm_pack_pairs_avx512, .pack_b = gemm_pack_pairs_avx512,
    .micro = micro, .micro_rows = micro_rows,
    .start = gemm_start_avx512, .finish = gemm_finish_avx512,
    .sum_rows = gemm_sum_rows_avx512, .peak = peak,
};
