/* backend/cpu/gemm_kernel_avx512.c - 8 x 48 tiles in 24 of the 32 registers, f32.
 *
 * Per step three loads of B, eight values of A and 24 multiply-adds: 12 cycles of two
 * 512-bit units. A core that shares its front end with another thread issues about three per
 * cycle, so that these 35 operations would fill the 12 cycles by themselves: there every other
 * value of A is not broadcast into a register first but inside its three multiply-adds, which
 * makes 31 operations, and 19 loads instead of 11. AMD's Zen 5 issues eight per cycle, and the
 * loads delay the lines of B that come from L2 (3 % of the products).
 *
 * 8 and 48 divide every width of the GPT-2 family (48 x 1048 = 50304). kc is that of avx2,
 * and so are the bits of the result. A panel of B (72 KiB) comes from L3 while the one before
 * it is in use: a line per four steps fetches all of it in 12 calls of the 16 in a strip. */
#include "backend/cpu/gemm_pack.h"

#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))

enum { MR = 8, NR = 48, AHEAD = 4 };

/* What a core has too little of. */
enum core { CORE_ISSUES_FEW, CORE_LOADS_FEW };

struct row {
    __m512 x, y, z;
};

/* The eight rows of a tile. */
struct sums {
    struct row r0, r1, r2, r3, r4, r5, r6, r7;
};

INLINE void step_row(struct row *r, const float *a, __m512 x, __m512 y, __m512 z)
{
    __m512 v = _mm512_set1_ps(*a);
    r->x = _mm512_fmadd_ps(v, x, r->x);
    r->y = _mm512_fmadd_ps(v, y, r->y);
    r->z = _mm512_fmadd_ps(v, z, r->z);
}

/* sum + a x. Compilers would share one broadcast among the three of a row. */
INLINE __m512 add_product(__m512 sum, const float *a, __m512 x)
{
#if defined(__AVX512F__)
    __asm__("vfmadd231ps %1%{1to16%}, %2, %0" : "+v"(sum) : "m"(*a), "v"(x));
    return sum;
#else /* the tests' imitation of these instructions */
    return _mm512_fmadd_ps(_mm512_set1_ps(*a), x, sum);
#endif
}

INLINE void step_row_in_place(struct row *r, const float *a, __m512 x, __m512 y, __m512 z)
{
    r->x = add_product(r->x, a, x);
    r->y = add_product(r->y, a, y);
    r->z = add_product(r->z, a, z);
}

/* Every second row of A, broadcast as `core` likes it. */
INLINE void step_odd_row(enum core core, struct row *r, const float *a, __m512 x, __m512 y,
                         __m512 z)
{
    if (core == CORE_ISSUES_FEW)
        step_row_in_place(r, a, x, y, z);
    else
        step_row(r, a, x, y, z);
}

/* Row r's value of A is at a + r row_stride. */
INLINE void step(enum core core, struct sums *s, const float *a, i64 row_stride, const float *b)
{
    __m512 x = _mm512_load_ps(b), y = _mm512_load_ps(b + 16), z = _mm512_load_ps(b + 32);
    step_row(&s->r0, a, x, y, z);
    step_odd_row(core, &s->r1, a + row_stride, x, y, z);
    step_row(&s->r2, a + 2 * row_stride, x, y, z);
    step_odd_row(core, &s->r3, a + 3 * row_stride, x, y, z);
    step_row(&s->r4, a + 4 * row_stride, x, y, z);
    step_odd_row(core, &s->r5, a + 5 * row_stride, x, y, z);
    step_row(&s->r6, a + 6 * row_stride, x, y, z);
    step_odd_row(core, &s->r7, a + 7 * row_stride, x, y, z);
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

/* A's rows are row_stride apart, its steps step_stride. */
INLINE void multiply_on(enum core core, i64 steps, const float *a, i64 row_stride,
                        i64 step_stride, const float *b, float *c, i64 ldc, bool add,
                        const u32 *ahead)
{
    const struct row zero = { _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps() };
    struct sums s = { zero, zero, zero, zero, zero, zero, zero, zero };
    i64 i = 0;

    for (int r = 0; r < MR; r++)
        for (int n = 0; n < NR; n += 16)
            __builtin_prefetch(c + r * ldc + n, 1);
    for (; i + AHEAD <= steps; i += AHEAD, a += AHEAD * step_stride, b += AHEAD * NR, ahead += 16) {
        __builtin_prefetch(ahead);
#pragma GCC unroll 4
        for (int u = 0; u < AHEAD; u++)
            step(core, &s, a + u * step_stride, row_stride, b + u * NR);
    }
    for (; i < steps; i++, a += step_stride, b += NR)
        step(core, &s, a, row_stride, b);
    store_row(s.r0, c, add);
    store_row(s.r1, c + ldc, add);
    store_row(s.r2, c + 2 * ldc, add);
    store_row(s.r3, c + 3 * ldc, add);
    store_row(s.r4, c + 4 * ldc, add);
    store_row(s.r5, c + 5 * ldc, add);
    store_row(s.r6, c + 6 * ldc, add);
    store_row(s.r7, c + 7 * ldc, add);
}

INLINE void multiply(i64 steps, const float *a, i64 row_stride, i64 step_stride, const float *b,
                     float *c, i64 ldc, bool add, const u32 *ahead)
{
    if (__builtin_cpu_is("amd"))
        multiply_on(CORE_LOADS_FEW, steps, a, row_stride, step_stride, b, c, ldc, add, ahead);
    else
        multiply_on(CORE_ISSUES_FEW, steps, a, row_stride, step_stride, b, c, ldc, add, ahead);
}

static void micro(i64 steps, const u32 *a, const u32 *b, float *c, i64 ldc, bool add,
                  const u32 *ahead)
{
    multiply(steps, (const float *)a, 1, MR, (const float *)b, c, ldc, add, ahead);
}

static void micro_rows(i64 steps, const u32 *a, i64 row_stride, const u32 *b, float *c, i64 ldc,
                       bool add, const u32 *ahead)
{
    multiply(steps, (const float *)a, row_stride, 1, (const float *)b, c, ldc, add, ahead);
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
    .name = "avx512", .mr = MR, .nr = NR, .kc = 384, .mc = 128, .nc = 384, .per_step = 1,
    .ahead_steps = AHEAD, .fetches_c = true,
    .pack_a = gemm_pack_words_avx512, .pack_b = gemm_pack_words_avx512,
    .micro = micro, .micro_rows = micro_rows,
    .start = gemm_start_avx512, .finish = gemm_finish_avx512,
    .sum_rows = gemm_sum_rows_avx512, .peak = peak,
};
