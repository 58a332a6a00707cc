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

INLINE void store_row(struct row r, float *c, bool add)
{
    if (add) {
        r.lo = _mm256_add_ps(_mm256_loadu_ps(c), r.lo);
        r.hi = _mm256_add_ps(_mm256_loadu_ps(c + 8), r.hi);
    }
    _mm256_storeu_ps(c, r.lo);
    _mm256_storeu_ps(c + 8, r.hi);
}

/* One step in assembly: what compilers make of twelve sums and four temporaries spills, or
 * computes addresses, and instructions are what runs short when the core's other thread
 * is busy. 20 instructions per 12 multiply-adds, constant distances from two pointers. */
#define ROW(u, r, x)                                                                     \
    "vbroadcastss 24*" #u "+4*" #r "(%[a]), %%ymm" #x "\n\t"                             \
    "vfmadd231ps %%ymm0, %%ymm" #x ", %[lo" #r "]\n\t"                                   \
    "vfmadd231ps %%ymm1, %%ymm" #x ", %[hi" #r "]\n\t"
#define STEP(u)                                                                          \
    "vmovaps 64*" #u "(%[b]), %%ymm0\n\t"                                                \
    "vmovaps 64*" #u "+32(%[b]), %%ymm1\n\t"                                             \
    ROW(u, 0, 2) ROW(u, 1, 3) ROW(u, 2, 2) ROW(u, 3, 3) ROW(u, 4, 2) ROW(u, 5, 3)
#define ZERO(r)                                                                          \
    "vxorps %[lo" #r "], %[lo" #r "], %[lo" #r "]\n\t"                                    \
    "vxorps %[hi" #r "], %[hi" #r "], %[hi" #r "]\n\t"
#define ZEROS ZERO(0) ZERO(1) ZERO(2) ZERO(3) ZERO(4) ZERO(5)
#define STEPS_8 STEP(0) STEP(1) STEP(2) STEP(3) STEP(4) STEP(5) STEP(6) STEP(7)

static void micro(i64 steps, const u32 *a, const u32 *b, float *c, i64 ldc, bool add,
                  const u32 *ahead)
{
    struct row r0, r1, r2, r3, r4, r5;

    for (int r = 0; r < MR; r++) {
        __builtin_prefetch(c + r * ldc, 1);
        __builtin_prefetch(c + r * ldc + NR - 1, 1);
    }
    __asm__ volatile(ZEROS "sub $8, %[n]\n\t"
                     "jl 2f\n\t"
                     ".p2align 5\n"
                     "1:\tprefetcht0 (%[ahead])\n\t"
                     "add $64, %[ahead]\n\t" STEPS_8
                     "add $8*24, %[a]\n\t"
                     "add $8*64, %[b]\n\t"
                     "sub $8, %[n]\n\t"
                     "jge 1b\n"
                     "2:\tadd $8, %[n]\n\t"
                     "jz 4f\n"
                     "3:\t" STEP(0)
                     "add $24, %[a]\n\t"
                     "add $64, %[b]\n\t"
                     "dec %[n]\n\t"
                     "jnz 3b\n"
                     "4:"
                     : [lo0] "=&x"(r0.lo), [hi0] "=&x"(r0.hi), [lo1] "=&x"(r1.lo),
                       [hi1] "=&x"(r1.hi), [lo2] "=&x"(r2.lo), [hi2] "=&x"(r2.hi),
                       [lo3] "=&x"(r3.lo), [hi3] "=&x"(r3.hi), [lo4] "=&x"(r4.lo),
                       [hi4] "=&x"(r4.hi), [lo5] "=&x"(r5.lo), [hi5] "=&x"(r5.hi), [a] "+r"(a),
                       [b] "+r"(b), [n] "+r"(steps),
                       [ahead] "+r"(ahead)
                     :
                     : "xmm0", "xmm1", "xmm2", "xmm3", "cc", "memory");
    store_row(r0, c, add);
    store_row(r1, c + ldc, add);
    store_row(r2, c + 2 * ldc, add);
    store_row(r3, c + 3 * ldc, add);
    store_row(r4, c + 4 * ldc, add);
    store_row(r5, c + 5 * ldc, add);
}

static i64 peak(i64 rounds, float *data)
{
    const __m256 x = _mm256_loadu_ps(data), y = _mm256_loadu_ps(data + 8);
    __m256 sum[12];
    for (int i = 0; i < 12; i++)
        sum[i] = _mm256_loadu_ps(data + 16 + 8 * i);
    for (i64 r = 0; r < rounds; r++)
        for (int i = 0; i < 12; i++)
            sum[i] = _mm256_fmadd_ps(x, y, sum[i]);
    for (int i = 0; i < 12; i++)
        _mm256_storeu_ps(data + 16 + 8 * i, sum[i]);
    return rounds * 12 * 8 * 2;
}

const struct gemm_kernels gemm_kernels_avx2 = {
    .name = "avx2", .mr = MR, .nr = NR, .kc = 384, .mc = 96, .nc = 256, .per_step = 1,
    .pack = gemm_pack_words_avx2, .micro = micro,
    .start = gemm_start_avx2, .finish = gemm_finish_avx2,
    .sum_rows = gemm_sum_rows_avx2, .peak = peak,
};
