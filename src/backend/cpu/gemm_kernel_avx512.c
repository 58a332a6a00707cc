/* backend/cpu/gemm_kernel_avx512.c - 8 x 48 tiles in 24 of the 32 registers, f32.
 *
 * Per step three loads of B, eight broadcasts of A and 24 multiply-adds: 12 cycles of two
 * 512-bit units, 5.5 of two load units. 8 and 48 divide every width of the GPT-2 family
 * (48 x 1048 = 50304). kc is that of avx2, and so are the bits of the result. */
#include "backend/cpu/gemm_pack.h"

#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))

enum { MR = 8, NR = 48 };

struct row {
    __m512 x, y, z;
};

INLINE void step_row(struct row *r, const float *a, __m512 x, __m512 y, __m512 z)
{
    __m512 v = _mm512_set1_ps(*a);
    r->x = _mm512_fmadd_ps(v, x, r->x);
    r->y = _mm512_fmadd_ps(v, y, r->y);
    r->z = _mm512_fmadd_ps(v, z, r->z);
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

static void micro(i64 steps, const u32 *a_panel, const u32 *b_panel, float *c, i64 ldc, bool add,
                  const u32 *ahead)
{
    const float *a = (const float *)a_panel, *b = (const float *)b_panel;
    const struct row zero = { _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps() };
    struct row r0 = zero, r1 = zero, r2 = zero, r3 = zero;
    struct row r4 = zero, r5 = zero, r6 = zero, r7 = zero;

    for (int r = 0; r < MR; r++)
        for (int i = 0; i < NR; i += 16)
            __builtin_prefetch(c + r * ldc + i, 1);
#pragma GCC unroll 8
    for (i64 i = 0; i < steps; i++, a += MR, b += NR) {
        if (i % 8 == 7)
            __builtin_prefetch(ahead + i / 8 * 16);
        __m512 x = _mm512_load_ps(b), y = _mm512_load_ps(b + 16), z = _mm512_load_ps(b + 32);
        step_row(&r0, a, x, y, z);
        step_row(&r1, a + 1, x, y, z);
        step_row(&r2, a + 2, x, y, z);
        step_row(&r3, a + 3, x, y, z);
        step_row(&r4, a + 4, x, y, z);
        step_row(&r5, a + 5, x, y, z);
        step_row(&r6, a + 6, x, y, z);
        step_row(&r7, a + 7, x, y, z);
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

/* Twelve accumulators: one per step of latency 4 in two units would be 8. */
static i64 peak(i64 rounds, float *data)
{
    const __m512 x = _mm512_loadu_ps(data), y = _mm512_loadu_ps(data + 16);
    __m512 sum[12];
    for (int i = 0; i < 12; i++)
        sum[i] = _mm512_loadu_ps(data + 32 + 16 * i);
    for (i64 r = 0; r < rounds; r++)
        for (int i = 0; i < 12; i++)
            sum[i] = _mm512_fmadd_ps(x, y, sum[i]);
    for (int i = 0; i < 12; i++)
        _mm512_storeu_ps(data + 32 + 16 * i, sum[i]);
    return rounds * 12 * 16 * 2;
}

const struct gemm_kernels gemm_kernels_avx512 = {
    .name = "avx512", .mr = MR, .nr = NR, .kc = 384, .mc = 96, .nc = 384, .per_step = 1,
    .pack = gemm_pack_words_avx512, .micro = micro,
    .start = gemm_start_avx512, .finish = gemm_finish_avx512,
    .sum_rows = gemm_sum_rows_avx512, .peak = peak,
};
