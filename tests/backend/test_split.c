/* Products of fp32 in three pieces of bf16 (gemm_kernel_split_amx.c): as exact as
 * multiply-adds, for numbers of every kind. On the processor's tile registers, and emulated
 * where SIMDe is installed. */
#include "backend/backend.h"
#include "backend/cpu/gemm.h"
#include "base/pool.h"
#include "base/sys.h"
#include "ops/ops.h"
#include "test.h"

#include <float.h>
#include <math.h>

#if defined(__x86_64__)

#if defined(HEADWAY_SIMDE)
extern const struct gemm_kernels gemm_kernels_split_simde;
extern int amx_left_out; /* emulated_amx.h */
#endif

enum { SETS = 2, M = 37, N = 45 };

static int split_sets(const struct gemm_kernels **out)
{
    int n = 0;
    if (backend_supported("amx"))
        out[n++] = &gemm_kernels_split;
#if defined(HEADWAY_SIMDE)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        out[n++] = &gemm_kernels_split_simde;
#endif
    return n;
}

/* --- operands ------------------------------------------------------------------------ */

static u64 random_state;

/* Uniform in [0, 1). */
static double next_random(void)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return ldexp((double)(random_state >> 11), -53);
}

/* 2^from to 2^to, of either sign. */
static float next_spread(int from, int to)
{
    double x = ldexp(1 + next_random(), from + (int)(next_random() * (to - from)));
    return (float)(next_random() < 0.5 ? -x : x);
}

enum kind { EVEN, POSITIVE, SPREAD, CLOSE_TO_WHOLE, TINY, HUGE_ONES, KINDS };

static float next_number(enum kind kind, bool left)
{
    switch (kind) {
    case EVEN: return (float)(2 * next_random() - 1);
    case POSITIVE: return (float)(0.5 + next_random() / 2);
    case SPREAD: return next_spread(-40, 40);
    case CLOSE_TO_WHOLE: /* the largest residues */
        return next_spread(0, 1) / 256 * 1.99f + (next_random() < 0.5 ? 1.0f : -1.0f);
    case TINY: return left ? next_spread(-140, -90) : next_spread(-10, 10);
    default: return left ? next_spread(100, 127) : next_spread(-30, -20);
    }
}

struct product {
    i64 K;
    float *a, *b, *c; /* (M,K), (K,N), (M,N) */
};

static struct product product_new(enum kind kind, i64 K)
{
    struct product p = { K, sys_alloc(4 * M * K, 64), sys_alloc(4 * K * N, 64),
                         sys_alloc(4 * M * N, 64) };
    random_state = (u64)(kind * 1000 + K);
    for (i64 i = 0; i < M * K; i++)
        p.a[i] = next_number(kind, true);
    for (i64 i = 0; i < K * N; i++)
        p.b[i] = next_number(kind, false);
    if (kind == HUGE_ONES)
        p.a[0] = FLT_MAX, p.a[M * K - 1] = -FLT_MAX, p.a[K / 2] = 0x1.fefffep127f;
    return p;
}

static void product_free(struct product *p)
{
    sys_free(p->a);
    sys_free(p->b);
    sys_free(p->c);
}

static void multiply(const struct product *p, const struct gemm_kernels *k)
{
    struct pool *pool;
    const struct gemm g = {
        .M = M, .N = N, .K = p->K,
        .A = { p->a, DTYPE_F32, p->K, 1 }, .B = { p->b, DTYPE_F32, N, 1 },
        .C = { p->c, DTYPE_F32, N, 1 },
    };
    CHECK_OK(pool_new(&pool, 1, false));
    void *space = sys_alloc(gemm_workspace_bytes(&g, k, 1), 64);
    gemm_run(&g, k, pool, space);
    sys_free(space);
    pool_free(pool);
}

/* --- errors -------------------------------------------------------------------------- */

static const double u = 0x1p-24;

struct errors {
    double worst; /* of an element's bound */
    double mean;  /* the root of the mean square, in u times the sum of products' sizes */
};

/* What the three products that are left out come to, at most; and roundings: products of bf16
 * are exact; one passes 16 additions within its group's tile, six for each group behind it in
 * its block, one for each block. Where it or a piece is subnormal it may be lost. */
static double bound_of(i64 K, double size, double sum_a, double sum_b)
{
    const double groups = ceil((double)i64_min(K, 768) / 32), blocks = ceil((double)K / 768);
    const double roundings = 16 + 6 * groups + blocks;
    return u * size * (1 + ldexp(1, -9) + roundings) * (1 + roundings * u) +
           ldexp(sum_a + sum_b + 6 * (double)K, -125);
}

static struct errors errors_of(const struct product *p)
{
    struct errors e = { 0, 0 };
    for (i64 r = 0; r < M; r++)
        for (i64 c = 0; c < N; c++) {
            double sum = 0, size = 0, sum_a = 0, sum_b = 0;
            for (i64 k = 0; k < p->K; k++) {
                const double a = p->a[r * p->K + k], b = p->b[k * N + c];
                sum += a * b;
                size += fabs(a * b);
                sum_a += fabs(a);
                sum_b += fabs(b);
            }
            const double error = fabs(p->c[r * N + c] - sum);
            e.worst = fmax(e.worst, error / bound_of(p->K, size, sum_a, sum_b));
            e.mean += error * error / (size * size * u * u) / (M * N);
            if (!(error <= INFINITY))
                e.worst = INFINITY;
        }
    e.mean = sqrt(e.mean);
    return e;
}

static const struct gemm_kernels *multiply_adds(void)
{
    return backend_supported("avx2") ? &gemm_kernels_avx2 : &gemm_kernels_generic;
}

/* False: beyond the bound; or on average further off than twice what a chain of multiply-adds
 * is. Where one product outweighs all others, it is rounded twice and cut once here, and
 * rounded once there. Tiny numbers have the bound only. */
static bool is_exact_enough(const struct gemm_kernels *k, enum kind kind, i64 K)
{
    struct product p = product_new(kind, K);
    multiply(&p, k);
    const struct errors ours = errors_of(&p);
    multiply(&p, multiply_adds());
    const struct errors theirs = errors_of(&p);
    product_free(&p);
    return ours.worst <= 1 && (kind == TINY || ours.mean <= 2 * theirs.mean);
}

static const i64 depths[] = { 1, 2, 7, 31, 64, 100, 777, 3000 };

TEST(products_in_pieces_are_as_exact_as_multiply_adds)
{
    const struct gemm_kernels *sets[SETS];
    for (int n = split_sets(sets), i = 0; i < n; i++)
        for (int kind = 0; kind < KINDS; kind++)
            for (i64 d = 0; d < COUNT_OF(depths); d++)
                CHECK(is_exact_enough(sets[i], (enum kind)kind, depths[d]));
}

/* --- planted faults: each must be seen -------------------------------------------------- */

static bool is_found(const struct gemm_kernels *k)
{
    for (int kind = 0; kind < KINDS; kind++)
        for (i64 d = 0; d < COUNT_OF(depths); d++)
            if (!is_exact_enough(k, (enum kind)kind, depths[d]))
                return true;
    return false;
}

enum { PIECE_WORDS = 32 * 16, GROUP_WORDS = 3 * PIECE_WORDS };

/* What is done to the residues of A's panels, or B's. */
static void swap_residues(u32 *panels, const struct gemm_slab *s)
{
    const i64 groups = ceil_div(s->rows, 32) * ceil_div(s->k, 32);
    u32 kept[PIECE_WORDS];
    for (i64 g = 0; g < groups; g++, panels += GROUP_WORDS) {
        memcpy(kept, panels + PIECE_WORDS, sizeof kept);
        memcpy(panels + PIECE_WORDS, panels + 2 * PIECE_WORDS, sizeof kept);
        memcpy(panels + 2 * PIECE_WORDS, kept, sizeof kept);
    }
}

static void clear_piece(u32 *panels, const struct gemm_slab *s, i64 piece)
{
    const i64 groups = ceil_div(s->rows, 32) * ceil_div(s->k, 32);
    for (i64 g = 0; g < groups; g++)
        memset(panels + g * GROUP_WORDS + piece * PIECE_WORDS, 0, 4 * PIECE_WORDS);
}

static const struct gemm_kernels *broken; /* the set that is made worse */

static void pack_a_swapped(u32 *panels, const struct gemm_slab *s, i64 width)
{
    broken->pack_a(panels, s, width);
    swap_residues(panels, s);
}

static void pack_b_swapped(u32 *panels, const struct gemm_slab *s, i64 width)
{
    broken->pack_b(panels, s, width);
    swap_residues(panels, s);
}

static void pack_a_without_last(u32 *panels, const struct gemm_slab *s, i64 width)
{
    broken->pack_a(panels, s, width);
    clear_piece(panels, s, 2);
}

static void pack_b_without_second(u32 *panels, const struct gemm_slab *s, i64 width)
{
    broken->pack_b(panels, s, width);
    clear_piece(panels, s, 1);
}

TEST(residues_that_are_missing_or_swapped_are_seen)
{
    static const gemm_pack_fn in_a[] = { pack_a_swapped, pack_a_without_last };
    static const gemm_pack_fn in_b[] = { pack_b_swapped, pack_b_without_second };
    const struct gemm_kernels *sets[SETS];
    for (int n = split_sets(sets), i = 0; i < n; i++)
        for (int fault = 0; fault < 2; fault++) {
            struct gemm_kernels worse = *sets[i];
            broken = sets[i];
            worse.pack_a = in_a[fault];
            CHECK(is_found(&worse));
            worse = *sets[i];
            worse.pack_b = in_b[fault];
            CHECK(is_found(&worse));
        }
}

#if defined(HEADWAY_SIMDE)
TEST(each_of_the_six_products_is_needed)
{
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma"))
        skip();
    for (int i = 0; i < 6; i++) {
        amx_left_out = i;
        CHECK(is_found(&gemm_kernels_split_simde));
    }
    amx_left_out = -1;
}
#endif

/* --- what is not a number, or no longer one -------------------------------------------- */

static void check_like(float ours, float theirs, double bound)
{
    if (isnan(theirs))
        CHECK(isnan(ours));
    else if (isinf(theirs))
        CHECK(ours == theirs);
    else
        CHECK(fabs((double)ours - theirs) <= bound);
}

/* Every two of these meet once, among ordinary numbers. */
TEST(infinity_and_nan_come_out_as_of_multiply_adds)
{
    float special[] = { 1,       -1,       0,         -0.0f, INFINITY, -INFINITY, NAN,
                        FLT_MAX, -FLT_MAX, 0x1p-130f, 3.7f };
    const u32 nan_in_the_last_piece = 0x7f800001u;
    const struct gemm_kernels *sets[SETS];
    memcpy(&special[10], &nan_in_the_last_piece, 4);
    for (int n = split_sets(sets), i = 0; i < n; i++)
        for (int ordinary = 0; ordinary < 2; ordinary++) {
            struct product p = product_new(EVEN, 70), q = product_new(EVEN, 70);
            for (i64 j = 0; j < M * p.K && !ordinary; j++)
                p.a[j] = q.a[j] = 0;
            for (i64 r = 0; r < COUNT_OF(special); r++)
                p.a[r * p.K + 41] = q.a[r * p.K + 41] = special[r];
            for (i64 c = 0; c < COUNT_OF(special); c++)
                p.b[41 * N + c] = q.b[41 * N + c] = special[c];
            multiply(&p, sets[i]);
            multiply(&q, multiply_adds());
            for (i64 r = 0; r < M; r++)
                for (i64 c = 0; c < N; c++) {
                    const double a = fabs((double)p.a[r * p.K + 41]);
                    const double b = fabs((double)p.b[41 * N + c]);
                    const double k = (double)p.K; /* ordinary numbers are below 1 */
                    check_like(p.c[r * N + c], q.c[r * N + c],
                               2 * bound_of(p.K, k + a * b, k + a, k + b));
                }
            product_free(&p);
            product_free(&q);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ONE(products_in_pieces_are_as_exact_as_multiply_adds),
        ONE(residues_that_are_missing_or_swapped_are_seen),
#if defined(HEADWAY_SIMDE)
        ONE(each_of_the_six_products_is_needed),
#endif
        ONE(infinity_and_nan_come_out_as_of_multiply_adds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#else

int main(void)
{
    return 0;
}

#endif
