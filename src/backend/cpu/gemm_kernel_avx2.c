/* backend/cpu/gemm_kernel_avx2.c - 4 x 24 tiles in twelve of the sixteen registers.
 *
 * Per step three loads of B, four broadcasts of A and twelve multiply-adds: 6 cycles of the
 * two multiply-add units, 3.5 of the two load units (Zen 2 and 3, Haswell and later). The
 * twelve chains hide a latency of up to 6 cycles. One register is left for the broadcast:
 * assembly keeps compilers from spilling a sum to get a second one.
 *
 * A panel of B (36 KiB at kc = 384) streams through L1, the panel of A (6 KiB) stays. */
#include "backend/cpu/gemm_pack.h"

#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))

enum { MR = 4, NR = 24, AHEAD = 8 };

struct row {
    __m256 x, y, z;
};

INLINE void store_row(struct row r, float *c, bool add)
{
    if (add) {
        r.x = _mm256_add_ps(_mm256_loadu_ps(c), r.x);
        r.y = _mm256_add_ps(_mm256_loadu_ps(c + 8), r.y);
        r.z = _mm256_add_ps(_mm256_loadu_ps(c + 16), r.z);
    }
    _mm256_storeu_ps(c, r.x);
    _mm256_storeu_ps(c + 8, r.y);
    _mm256_storeu_ps(c + 16, r.z);
}

/* Text of the loop. u: how many steps after the pointers; r: which row of the tile. ymm0 to
 * ymm2 hold B's three vectors, ymm3 one value of A. */
#define ROW(u, r)                                    \
    "vbroadcastss 16*" #u "+4*" #r "(%[a]), %%ymm3\n\t" \
    "vfmadd231ps %%ymm0, %%ymm3, %[x" #r "]\n\t"     \
    "vfmadd231ps %%ymm1, %%ymm3, %[y" #r "]\n\t"     \
    "vfmadd231ps %%ymm2, %%ymm3, %[z" #r "]\n\t"
#define STEP(u)                                \
    "vmovaps 96*" #u "(%[b]), %%ymm0\n\t"      \
    "vmovaps 96*" #u "+32(%[b]), %%ymm1\n\t"   \
    "vmovaps 96*" #u "+64(%[b]), %%ymm2\n\t"   \
    ROW(u, 0) ROW(u, 1) ROW(u, 2) ROW(u, 3)
#define STEPS_8 STEP(0) STEP(1) STEP(2) STEP(3) STEP(4) STEP(5) STEP(6) STEP(7)
#define ZERO(r)                                    \
    "vxorps %[x" #r "], %[x" #r "], %[x" #r "]\n\t" \
    "vxorps %[y" #r "], %[y" #r "], %[y" #r "]\n\t" \
    "vxorps %[z" #r "], %[z" #r "], %[z" #r "]\n\t"
#define ZEROS ZERO(0) ZERO(1) ZERO(2) ZERO(3)

/* Label 1 is the loop of eight steps (AHEAD), 3 that of the steps left over. */
static void micro(i64 steps, const u32 *a, const u32 *b, float *c, i64 ldc, bool add,
                  const u32 *ahead)
{
    struct row r0, r1, r2, r3;
    for (int r = 0; r < MR; r++) {
        __builtin_prefetch(c + r * ldc, 1);
        __builtin_prefetch(c + r * ldc + 16, 1);
        __builtin_prefetch(c + r * ldc + NR - 1, 1);
    }
    __asm__ volatile(ZEROS "sub $8, %[n]\n\t"
                     "jl 2f\n\t"
                     ".p2align 5\n"
                     "1:\tprefetcht0 (%[ahead])\n\t"
                     "add $64, %[ahead]\n\t" STEPS_8
                     "add $8*16, %[a]\n\t"
                     "add $8*96, %[b]\n\t"
                     "sub $8, %[n]\n\t"
                     "jge 1b\n"
                     "2:\tadd $8, %[n]\n\t"
                     "jz 4f\n"
                     "3:\t" STEP(0)
                     "add $16, %[a]\n\t"
                     "add $96, %[b]\n\t"
                     "dec %[n]\n\t"
                     "jnz 3b\n"
                     "4:"
                     : [x0] "=&x"(r0.x), [y0] "=&x"(r0.y), [z0] "=&x"(r0.z),
                       [x1] "=&x"(r1.x), [y1] "=&x"(r1.y), [z1] "=&x"(r1.z),
                       [x2] "=&x"(r2.x), [y2] "=&x"(r2.y), [z2] "=&x"(r2.z),
                       [x3] "=&x"(r3.x), [y3] "=&x"(r3.y), [z3] "=&x"(r3.z), [a] "+r"(a),
                       [b] "+r"(b), [n] "+r"(steps), [ahead] "+r"(ahead)
                     :
                     : "xmm0", "xmm1", "xmm2", "xmm3", "cc", "memory");
    store_row(r0, c, add);
    store_row(r1, c + ldc, add);
    store_row(r2, c + 2 * ldc, add);
    store_row(r3, c + 3 * ldc, add);
}

/* Twelve chains, as in micro. */
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
    .name = "avx2", .mr = MR, .nr = NR, .cut = NR, .kc = 384, .mc = 96, .nc = 264, .per_step = 1,
    .ahead_steps = AHEAD, .fetches_c = true,
    .pack_a = gemm_pack_words_avx2, .pack_b = gemm_pack_words_avx2, .micro = micro,
    .start = gemm_start_avx2, .finish = gemm_finish_avx2,
    .sum_rows = gemm_sum_rows_avx2, .peak = peak,
};
