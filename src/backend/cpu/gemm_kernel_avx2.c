/* backend/cpu/gemm_kernel_avx2.c - 6 x 16 tiles in twelve of the sixteen registers.
 *
 * Per step two loads of B, six broadcasts of A and twelve multiply-adds: 6 cycles of the
 * two multiply-add units, 4 of the two load units (Zen 3, Zen 2, Haswell and later). The
 * twelve chains hide a latency of up to 6 cycles. kc = 256 keeps a panel of B (16 KiB) and
 * a panel of A (6 KiB) in 32 KiB of L1. */
#include "backend/cpu/gemm_pack.h"

#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))

enum { MR = 6, NR = 16 };

struct row {
    __m256 lo, hi;
};

INLINE void step_row(struct row *r, const float *a, __m256 b_lo, __m256 b_hi)
{
    __m256 x = _mm256_broadcast_ss(a);
    r->lo = _mm256_fmadd_ps(x, b_lo, r->lo);
    r->hi = _mm256_fmadd_ps(x, b_hi, r->hi);
}

INLINE void store_row(struct row r, float *c, bool add)
{
    if (add) {
        r.lo = _mm256_add_ps(_mm256_loadu_ps(c), r.lo);
        r.hi = _mm256_add_ps(_mm256_loadu_ps(c + 8), r.hi);
    }
    _mm256_storeu_ps(c, r.lo);
    _mm256_storeu_ps(c + 8, r.hi);
}

static void micro(i64 steps, const u32 *a_panel, const u32 *b_panel, float *c, i64 ldc, bool add)
{
    const float *a = (const float *)a_panel, *b = (const float *)b_panel;
    const struct row zero = { _mm256_setzero_ps(), _mm256_setzero_ps() };
    struct row r0 = zero, r1 = zero, r2 = zero, r3 = zero, r4 = zero, r5 = zero;

    for (int r = 0; r < MR; r++) {
        __builtin_prefetch(c + r * ldc, 1);
        __builtin_prefetch(c + r * ldc + NR - 1, 1);
    }
#pragma GCC unroll 8
    for (i64 i = 0; i < steps; i++, a += MR, b += NR) {
        __m256 b_lo = _mm256_load_ps(b), b_hi = _mm256_load_ps(b + 8);
        step_row(&r0, a, b_lo, b_hi);
        step_row(&r1, a + 1, b_lo, b_hi);
        step_row(&r2, a + 2, b_lo, b_hi);
        step_row(&r3, a + 3, b_lo, b_hi);
        step_row(&r4, a + 4, b_lo, b_hi);
        step_row(&r5, a + 5, b_lo, b_hi);
    }
    store_row(r0, c, add);
    store_row(r1, c + ldc, add);
    store_row(r2, c + 2 * ldc, add);
    store_row(r3, c + 3 * ldc, add);
    store_row(r4, c + 4 * ldc, add);
    store_row(r5, c + 5 * ldc, add);
}

const struct gemm_kernels gemm_kernels_avx2 = {
    .name = "avx2", .mr = MR, .nr = NR, .kc = 256, .mc = 96, .nc = 256, .per_step = 1,
    .pack = gemm_pack_words_avx2, .micro = micro,
    .start = gemm_start_avx2, .finish = gemm_finish_avx2,
    .sum_rows = gemm_sum_rows_avx2,
};
