/* backend/cpu/gemm_kernel_generic.c - 4 x 8 tiles for any processor.
 *
 * Vectors of four floats: eight accumulators, two of B and one of A fit the sixteen
 * registers of SSE2 and the thirty-two of NEON. Products are rounded before they are added
 * (no fused multiply-add is assumed), so the last bits differ from the other sets. */
#include "backend/cpu/gemm_pack.h"

#define INLINE static inline __attribute__((always_inline))

enum { MR = 4, NR = 8, AHEAD = 8 };

typedef float vec __attribute__((vector_size(16)));

struct row {
    vec lo, hi;
};

INLINE vec load(const float *p)
{
    vec v;
    memcpy(&v, p, sizeof v);
    return v;
}

INLINE void step_row(struct row *r, float a, vec b_lo, vec b_hi)
{
    vec x = { a, a, a, a };
    r->lo += x * b_lo;
    r->hi += x * b_hi;
}

INLINE void store_row(struct row r, float *c, bool add)
{
    if (add) {
        r.lo += load(c);
        r.hi += load(c + 4);
    }
    memcpy(c, &r.lo, sizeof r.lo);
    memcpy(c + 4, &r.hi, sizeof r.hi);
}

static void micro(i64 steps, const u32 *a_panel, const u32 *b_panel, float *c, i64 ldc, bool add,
                  const u32 *ahead)
{
    const float *a = (const float *)a_panel, *b = (const float *)b_panel;
    (void)ahead; /* hardware keeps up with this pace */
    struct row r0 = { 0 }, r1 = { 0 }, r2 = { 0 }, r3 = { 0 };

    for (i64 i = 0; i < steps; i++, a += MR, b += NR) {
        vec b_lo = load(b), b_hi = load(b + 4);
        step_row(&r0, a[0], b_lo, b_hi);
        step_row(&r1, a[1], b_lo, b_hi);
        step_row(&r2, a[2], b_lo, b_hi);
        step_row(&r3, a[3], b_lo, b_hi);
    }
    store_row(r0, c, add);
    store_row(r1, c + ldc, add);
    store_row(r2, c + 2 * ldc, add);
    store_row(r3, c + 3 * ldc, add);
}

/* x -> x * a + b with |a| < 1, so that no product can be taken out of the loop. */
static i64 peak(i64 rounds, float *data)
{
    const vec a = load(data), b = load(data + 4);
    vec x[12];
    for (int i = 0; i < 12; i++)
        x[i] = load(data + 8 + 4 * i);
    for (i64 r = 0; r < rounds; r++) {
#pragma GCC unroll 12
        for (int i = 0; i < 12; i++)
            x[i] = x[i] * a + b;
    }
    for (int i = 0; i < 12; i++)
        memcpy(data + 8 + 4 * i, &x[i], sizeof x[i]);
    return rounds * 12 * 4 * 2;
}

const struct gemm_kernels gemm_kernels_generic = {
    .name = "generic", .mr = MR, .nr = NR, .kc = 384, .mc = 96, .nc = 256, .per_step = 1,
    .ahead_steps = AHEAD, .fetches_c = true,
    .pack_a = gemm_pack_words_generic, .pack_b = gemm_pack_words_generic, .micro = micro,
    .start = gemm_start_generic, .finish = gemm_finish_generic,
    .sum_rows = gemm_sum_rows_generic, .peak = peak,
};
