/* Matrix products of every kernel set that this machine can run (the AVX-512 ones through
 * SIMDe where it is installed), against sums in double. */
#include "backend/backend.h"
#include "backend/cpu/cpu.h"
#include "backend/cpu/gemm.h"
#include "base/pool.h"
#include "base/rng.h"
#include "base/sys.h"
#include "ops/ops.h"
#include "test.h"

#include <math.h>

#if defined(HEADWAY_SIMDE)
extern const struct gemm_kernels gemm_kernels_avx512_simde, gemm_kernels_avx512bf16_simde;
extern const struct gemm_kernels gemm_kernels_amx_simde, gemm_kernels_split_simde;
#endif

enum { SETS = 10 };

static int kernel_sets(const struct gemm_kernels **out)
{
    int n = 0;
    out[n++] = &gemm_kernels_generic;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        out[n++] = &gemm_kernels_avx2;
    bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if (wide)
        out[n++] = &gemm_kernels_avx512;
    if (wide && __builtin_cpu_supports("avx512bf16"))
        out[n++] = &gemm_kernels_avx512bf16;
    if (backend_supported("amx")) {
        out[n++] = &gemm_kernels_amx;
        out[n++] = &gemm_kernels_split;
    }
#if defined(HEADWAY_SIMDE)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        out[n++] = &gemm_kernels_avx512_simde;
        out[n++] = &gemm_kernels_avx512bf16_simde;
        out[n++] = &gemm_kernels_amx_simde;
        out[n++] = &gemm_kernels_split_simde;
    }
#endif
#endif
    return n;
}

/* --- matrices --------------------------------------------------------------------- */

static u64 random_state;

/* Uniform in [-1, 1); not random enough for science, enough for sums. */
static double next_random(void)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (double)(i64)(random_state >> 11) / (double)(1ll << 52) - 1.0;
}

/* Rows or columns lie `gap` elements further apart than they must; gaps hold a canary. */
enum { GAP = 3 };
static const double CANARY = 42;

static struct gemm_matrix matrix_new(i64 rows, i64 cols, enum dtype type, bool by_columns)
{
    struct gemm_matrix m = { .type = type };
    i64 lines = by_columns ? cols : rows, length = (by_columns ? rows : cols) + GAP;
    m.row_stride = by_columns ? 1 : length;
    m.col_stride = by_columns ? length : 1;
    m.data = sys_alloc((lines * length + 1) * dtype_bytes(type), 64);
    for (i64 i = 0; i < lines * length; i++)
        dtype_set(type, m.data, i, i % length < length - GAP ? next_random() : CANARY);
    return m;
}

static i64 at(const struct gemm_matrix *m, i64 r, i64 c)
{
    return r * m->row_stride + c * m->col_stride;
}

static double get(const struct gemm_matrix *m, i64 r, i64 c)
{
    return dtype_get(m->type, m->data, at(m, r, c));
}

static void set(const struct gemm_matrix *m, i64 r, i64 c, double value)
{
    dtype_set(m->type, m->data, at(m, r, c), value);
}

static struct gemm_matrix copy_of(const struct gemm_matrix *m, i64 rows)
{
    struct gemm_matrix c = *m;
    i64 bytes = rows * m->row_stride * dtype_bytes(m->type);
    c.data = sys_alloc(bytes + 16, 64);
    memcpy(c.data, m->data, (size_t)bytes);
    return c;
}

static void run(const struct gemm *g, const struct gemm_kernels *k, int threads)
{
    struct pool *pool;
    CHECK_OK(pool_new(&pool, threads, false));
    i64 bytes = gemm_workspace_bytes(g, k, threads);
    void *space = sys_alloc(bytes + 64, 64);
    memset(space, 0xff, (size_t)bytes + 64); /* NaN: whatever is used unwritten shows */
    gemm_run(g, k, pool, space);
    for (int i = 0; i < 64; i++)
        CHECK_EQ(((u8 *)space)[bytes + i], 0xff);
    sys_free(space);
    pool_free(pool);
}

/* --- one case against the reference ------------------------------------------------ */

enum option { NONE = 0, ACCUMULATE = 1, RESIDUAL = 2, IN_PLACE = 4, BIAS = 8, ROW_SUM = 16 };

struct shape {
    i64 M, N, K;
};

static struct gemm product_new(struct shape s, enum dtype in, enum dtype in_b, enum dtype out,
                               bool a_t, bool b_t, int options)
{
    struct gemm g = { .M = s.M, .N = s.N, .K = s.K };
    g.A = matrix_new(s.M, s.K, in, a_t);
    g.B = matrix_new(s.K, s.N, in_b, b_t);
    g.C = matrix_new(s.M, s.N, out, false);
    g.accumulate = options & ACCUMULATE;
    if (options & RESIDUAL)
        g.residual = matrix_new(s.M, s.N, out, false);
    if (options & IN_PLACE)
        g.residual = g.C;
    if (options & BIAS)
        g.bias = matrix_new(1, s.N, DTYPE_F32, false).data;
    if (options & ROW_SUM)
        g.row_sum = matrix_new(1, s.M, DTYPE_F32, false).data;
    return g;
}

static void product_free(struct gemm *g)
{
    if (g->residual.data != g->C.data)
        sys_free(g->residual.data);
    sys_free(g->A.data);
    sys_free(g->B.data);
    sys_free(g->C.data);
    sys_free((void *)g->bias);
    sys_free(g->row_sum);
}

static double start_of(const struct gemm *g, const struct gemm_matrix *C, i64 r, i64 c)
{
    double start = g->accumulate ? get(C, r, c) : 0;
    if (g->residual.data)
        start += get(g->residual.data == g->C.data ? C : &g->residual, r, c);
    return start + (g->bias ? g->bias[c] : 0);
}

/* Rounding errors of a chain of kc multiply-adds (two roundings each where they are not
 * fused), of the sum of blocks, of the start; u = 2^-24. A bf16 result adds 2^-9 of itself. */
static double error_bound(const struct gemm_kernels *k, const struct gemm *g, double size,
                          double result)
{
    double roundings = 2.0 * (double)i64_min(g->K, k->kc) + (double)(g->K / k->kc) + 4;
    double bound = roundings * ldexp(size, -24);
    return g->C.type == DTYPE_BF16 ? bound + ldexp(fabs(result) + bound, -8) : bound;
}

/* Lines of K numbers: the rows of A, or the columns of B. */
static double *lines_new(const struct gemm_matrix *m, i64 lines, i64 K, bool columns)
{
    double *out = sys_alloc((lines * K + 1) * (i64)sizeof(double), 64);
    for (i64 i = 0; i < lines; i++)
        for (i64 k = 0; k < K; k++)
            out[i * K + k] = columns ? get(m, k, i) : get(m, i, k);
    return out;
}

static void check_product(const struct gemm *g, const struct gemm_kernels *k,
                          const struct gemm_matrix *C0)
{
    double *a = lines_new(&g->A, g->M, g->K, false), *b = lines_new(&g->B, g->N, g->K, true);
    for (i64 r = 0; r < g->M; r++) {
        for (i64 c = 0; c < g->N; c++) {
            double sum = start_of(g, C0, r, c), size = fabs(sum);
            for (i64 i = 0; i < g->K; i++) {
                double term = a[r * g->K + i] * b[c * g->K + i];
                sum += term;
                size += fabs(term);
            }
            double error = fabs(get(&g->C, r, c) - sum);
            if (!(error <= error_bound(k, g, size, sum)))
                fail_msg("%s: %lld x %lld x %lld, element (%lld, %lld) is %.9g, not %.9g",
                         k->name, (long long)g->M, (long long)g->N, (long long)g->K,
                         (long long)r, (long long)c, get(&g->C, r, c), sum);
        }
        for (i64 c = 0; r < g->M - 1 && c < GAP; c++)
            CHECK(get(&g->C, r, g->N + c) == CANARY);
    }
    sys_free(a);
    sys_free(b);
}

static void check_row_sums(const struct gemm *g, const struct gemm_kernels *k,
                           const float *sums0)
{
    for (i64 r = 0; r < g->M; r++) {
        double sum = g->accumulate ? sums0[r] : 0, size = fabs(sum);
        for (i64 i = 0; i < g->K; i++) {
            sum += get(&g->A, r, i);
            size += fabs(get(&g->A, r, i));
        }
        CHECK_NEAR(g->row_sum[r], sum, error_bound(k, g, size, 0) + ldexp(fabs(sum), -24));
    }
}

static void check_case(const struct gemm_kernels *k, struct shape s, enum dtype a,
                       enum dtype b, enum dtype c, bool a_t, bool b_t, int options)
{
    random_state = (u64)(s.M * 1000003 + s.N * 1009 + s.K + options);
    struct gemm g = product_new(s, a, b, c, a_t, b_t, options);
    struct gemm_matrix C0 = copy_of(&g.C, s.M);
    float *sums0 = NULL;
    if (g.row_sum) {
        sums0 = sys_alloc(4 * s.M, 64);
        memcpy(sums0, g.row_sum, (size_t)(4 * s.M));
    }
    run(&g, k, 2);
    check_product(&g, k, &C0);
    if (g.row_sum)
        check_row_sums(&g, k, sums0);
    sys_free(sums0);
    sys_free(C0.data);
    product_free(&g);
}

TEST(every_shape_and_transpose_is_within_the_rounding_bound)
{
    static const struct shape shapes[] = {
        { 1, 1, 1 },   { 3, 7, 1 },     { 1, 65, 129 },  { 7, 1, 65 },    { 6, 16, 256 },
        { 8, 48, 512 }, { 13, 17, 257 }, { 65, 129, 33 }, { 100, 50, 7 }, { 129, 65, 511 },
        { 97, 390, 9 },
    };
    static const enum dtype F = DTYPE_F32, H = DTYPE_BF16;
    const struct gemm_kernels *sets[SETS];
    for (int n = kernel_sets(sets), i = 0; i < n; i++)
        for (i64 j = 0; j < COUNT_OF(shapes); j++)
            for (int t = 0; t < 4; t++) {
                check_case(sets[i], shapes[j], F, F, F, t & 1, t & 2, NONE);
                check_case(sets[i], shapes[j], H, H, H, t & 1, t & 2, NONE);
                check_case(sets[i], shapes[j], H, H, F, t & 1, t & 2, NONE);
                check_case(sets[i], shapes[j], H, F, F, t & 1, t & 2, NONE);
            }
}

TEST(start_values_and_row_sums_are_added)
{
    static const int options[] = { ACCUMULATE, RESIDUAL, IN_PLACE, BIAS, BIAS | ACCUMULATE,
                                   BIAS | RESIDUAL, BIAS | IN_PLACE, ROW_SUM,
                                   ROW_SUM | ACCUMULATE };
    static const struct shape shapes[] = { { 13, 50, 600 }, { 12, 48, 20 }, { 101, 7, 1030 } };
    const struct gemm_kernels *sets[SETS];
    for (int n = kernel_sets(sets), i = 0; i < n; i++)
        for (i64 j = 0; j < COUNT_OF(shapes); j++)
            for (i64 o = 0; o < COUNT_OF(options); o++)
                for (int t = 0; t < 2; t++) {
                    enum dtype type = t ? DTYPE_BF16 : DTYPE_F32;
                    check_case(sets[i], shapes[j], type, type, DTYPE_F32, o & 1, true,
                               options[o]);
                    check_case(sets[i], shapes[j], type, type, type, !(o & 1), false,
                               options[o]);
                }
}

/* Longer or wider than the workspace's slabs of panels. */
TEST(products_that_take_several_slabs_are_right)
{
    static const enum dtype F = DTYPE_F32, H = DTYPE_BF16;
    static const struct shape shapes[] = { { 7, 18, 9001 }, { 1100, 3, 4097 }, { 3, 1100, 4100 } };
    const struct gemm_kernels *sets[SETS];
    for (int n = kernel_sets(sets), i = 0; i < n; i++)
        for (i64 j = 0; j < COUNT_OF(shapes); j++) {
            check_case(sets[i], shapes[j], F, F, F, true, false, ROW_SUM | ACCUMULATE);
            check_case(sets[i], shapes[j], H, H, H, false, true, BIAS | IN_PLACE);
        }
}

TEST(an_empty_sum_is_its_start)
{
    const struct gemm_kernels *sets[SETS];
    for (int n = kernel_sets(sets), i = 0; i < n; i++) {
        struct shape s = { 7, 20, 0 };
        check_case(sets[i], s, DTYPE_F32, DTYPE_F32, DTYPE_F32, false, false, NONE);
        check_case(sets[i], s, DTYPE_BF16, DTYPE_BF16, DTYPE_BF16, false, false, BIAS | RESIDUAL);
    }
}

/* --- bits --------------------------------------------------------------------------- */

static void check_same_bits(const struct gemm_matrix *x, const struct gemm_matrix *y, i64 rows,
                            i64 cols)
{
    i64 bytes = dtype_bytes(x->type);
    for (i64 r = 0; r < rows; r++)
        assert_memory_equal((u8 *)x->data + r * x->row_stride * bytes,
                            (u8 *)y->data + r * y->row_stride * bytes, (size_t)(cols * bytes));
}

TEST(the_number_of_threads_changes_no_bit)
{
    const struct gemm_kernels *sets[SETS];
    for (int n = kernel_sets(sets), i = 0; i < n; i++)
        for (int type = 0; type < 2; type++) {
            random_state = 7;
            enum dtype t = type ? DTYPE_BF16 : DTYPE_F32;
            struct gemm g = product_new((struct shape){ 203, 301, 700 }, t, t, t, true, false,
                                        ROW_SUM | BIAS);
            struct gemm one = g;
            one.C = copy_of(&g.C, g.M);
            float sums[203];
            run(&one, sets[i], 1);
            memcpy(sums, g.row_sum, sizeof sums);
            for (int threads = 2; threads <= 4; threads += 2) {
                run(&g, sets[i], threads);
                check_same_bits(&g.C, &one.C, g.M, g.N);
                assert_memory_equal(sums, g.row_sum, sizeof sums);
            }
            sys_free(one.C.data);
            product_free(&g);
        }
}

/* A product of some rows and columns is those rows and columns of the product. */
static void check_part(const struct gemm *whole, const struct gemm_kernels *k, i64 m0, i64 M,
                       i64 n0, i64 N)
{
    i64 bytes = dtype_bytes(whole->A.type);
    struct gemm part = *whole;
    part.M = M;
    part.N = N;
    part.A.data = (u8 *)whole->A.data + m0 * whole->A.row_stride * bytes;
    part.B.data = (u8 *)whole->B.data + n0 * whole->B.col_stride * bytes;
    part.C = matrix_new(M, N, whole->C.type, false);
    run(&part, k, 2);
    struct gemm_matrix there = whole->C;
    there.data = (u8 *)whole->C.data + (m0 * whole->C.row_stride + n0) * dtype_bytes(there.type);
    check_same_bits(&part.C, &there, M, N);
    sys_free(part.C.data);
}

TEST(an_element_depends_on_its_row_its_column_and_k_only)
{
    const struct gemm_kernels *sets[SETS];
    for (int n = kernel_sets(sets), i = 0; i < n; i++)
        for (int t = 0; t < 8; t++) {
            random_state = (u64)t;
            enum dtype type = t & 4 ? DTYPE_BF16 : DTYPE_F32;
            i64 K = t & 1 ? 5000 : 777;
            struct gemm g = product_new((struct shape){ 110, 290, K }, type, type, type, t & 1,
                                        t & 2, NONE);
            run(&g, sets[i], 2);
            check_part(&g, sets[i], 0, 1, 0, 1);
            check_part(&g, sets[i], 109, 1, 289, 1);
            check_part(&g, sets[i], 5, 98, 3, 17);
            check_part(&g, sets[i], 17, 7, 11, 270);
            product_free(&g);
        }
}

TEST(a_large_c_has_the_bits_of_its_parts)
{
    const struct gemm_kernels *sets[SETS];
    for (int n = kernel_sets(sets), i = 0; i < n; i++)
        for (int t = 0; t < 4; t++) {
            random_state = (u64)t;
            enum dtype in = t & 2 ? DTYPE_BF16 : DTYPE_F32, out = t & 1 ? DTYPE_F32 : DTYPE_BF16;
            if (!sets[i]->micro_tail) /* others store as they do elsewhere */
                continue;
            struct gemm g =
                product_new((struct shape){ 1061, 2080, t == 2 ? 800 : 70 }, in, in, out,
                                        false, true, NONE);
            run(&g, sets[i], 2);
            check_part(&g, sets[i], 0, 64, 0, 96);
            check_part(&g, sets[i], 1020, 41, 2000, 80);
            check_part(&g, sets[i], 500, 70, 1000, 70);
            product_free(&g);
        }
}

#if defined(HEADWAY_SIMDE)
TEST(avx2_and_avx512_give_the_same_bits)
{
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma"))
        skip();
    random_state = 3;
    struct gemm g = product_new((struct shape){ 61, 100, 1500 }, DTYPE_F32, DTYPE_F32, DTYPE_F32,
                                false, true, BIAS);
    struct gemm wide = g;
    wide.C = copy_of(&g.C, g.M);
    run(&g, &gemm_kernels_avx2, 2);
    run(&wide, &gemm_kernels_avx512_simde, 2);
    check_same_bits(&g.C, &wide.C, g.M, g.N);
    sys_free(wide.C.data);
    product_free(&g);
}
#endif

/* --- sums in leaves ----------------------------------------------------------------- */

/* Rows (or columns) [k0, k0 + n) of the sum, of both operands. */
static struct gemm part_of_k(const struct gemm *g, i64 k0, i64 n, struct gemm_matrix C)
{
    struct gemm part = { .M = g->M, .N = g->N, .K = n, .A = g->A, .B = g->B, .C = C };
    i64 a = dtype_bytes(g->A.type), b = dtype_bytes(g->B.type);
    part.A.data = (u8 *)g->A.data + k0 * g->A.col_stride * a;
    part.B.data = (u8 *)g->B.data + k0 * g->B.row_stride * b;
    return part;
}

/* A leaf by itself: its pieces are a chain. Columns 0 to N - 1, and the row's sum in column N. */
static void run_leaf(const struct gemm *g, const struct gemm_kernels *k, i64 leaf, float *out)
{
    struct gemm_matrix C = { out, DTYPE_F32, g->N + 1, 1 };
    float *sums = sys_alloc(4 * g->M, 64);
    i64 begin = 0;
    bool any = false;
    memset(out, 0, (size_t)(4 * g->M * (g->N + 1)));
    memset(sums, 0, (size_t)(4 * g->M));
    for (int p = 0; p < GEMM_PIECES; begin += g->leaves.pieces[p++].k) {
        i64 share = g->leaves.pieces[p].share, first = leaf * share;
        i64 end = i64_min(g->leaves.pieces[p].k, first + share);
        if (first >= end)
            continue;
        struct gemm part = part_of_k(g, begin + first, end - first, C);
        part.row_sum = sums;
        part.accumulate = any;
        run(&part, k, 1);
        any = true;
    }
    for (i64 r = 0; r < g->M; r++)
        out[r * (g->N + 1) + g->N] = sums[r];
    sys_free(sums);
}

/* tree(n) of gemm.h over leaves [first, first + n). */
static void run_tree(const struct gemm *g, const struct gemm_kernels *k, i64 first, i64 n,
                     float *out)
{
    i64 count = g->M * (g->N + 1), parts = n % 2 ? n : 2;
    if (n == 1) {
        run_leaf(g, k, first, out);
        return;
    }
    float *more = sys_alloc(4 * count, 64);
    run_tree(g, k, first, n / parts, out);
    for (i64 i = 1; i < parts; i++) {
        run_tree(g, k, first + i * (n / parts), n / parts, more);
        for (i64 e = 0; e < count; e++)
            out[e] += more[e];
    }
    sys_free(more);
}

static void check_tree(const struct gemm_kernels *k, struct gemm *g)
{
    float *tree = sys_alloc(4 * g->M * (g->N + 1), 64), *sums = sys_alloc(4 * g->M, 64);
    struct gemm_matrix start = copy_of(&g->C, g->M);
    run_tree(g, k, 0, g->leaves.count, tree);
    for (i64 r = 0; r < g->M && g->row_sum; r++)
        sums[r] = (g->accumulate ? g->row_sum[r] : 0) + tree[r * (g->N + 1) + g->N];
    run(g, k, 2);
    for (i64 r = 0; r < g->M; r++) {
        for (i64 c = 0; c < g->N; c++) {
            float want = tree[r * (g->N + 1) + c];
            if (g->accumulate || g->residual.data || g->bias)
                want += (float)start_of(g, &start, r, c);
            if (g->C.type == DTYPE_BF16)
                want = bf16_to_f32(bf16_from_f32(want));
            if ((float)get(&g->C, r, c) != want)
                fail_msg("%s: %lld x %lld x %lld in %lld leaves, element (%lld, %lld) is %.9g, "
                         "the tree gives %.9g", k->name, (long long)g->M, (long long)g->N,
                         (long long)g->K, (long long)g->leaves.count, (long long)r, (long long)c,
                         get(&g->C, r, c), (double)want);
        }
        if (g->row_sum)
            CHECK(g->row_sum[r] == sums[r]);
    }
    sys_free(start.data);
    sys_free(sums);
    sys_free(tree);
}

/* Even shares; three pieces; shares that end early or are empty; odd counts, of leaves that are
 * several blocks too; many small leaves in a slab; leaves of several slabs; subtrees of leaves
 * that take a slab each. */
TEST(leaves_are_summed_in_the_tree_of_their_numbers)
{
    static const struct gemm_leaves cases[] = {
        { 8, { { 64, 8 } } },             { 4, { { 40, 10 }, { 20, 5 }, { 20, 5 } } },
        { 8, { { 61, 8 } } },             { 8, { { 9, 2 } } },
        { 1, { { 77, 77 } } },            { 12, { { 12 * 31, 31 } } },
        { 64, { { 64 * 33, 33 } } },      { 3, { { 3 * 700, 700 } } },
        { 6, { { 6 * 1100, 1100 } } },    { 4, { { 4 * 4001, 4001 } } },
        { 8, { { 8 * 769, 769 } } },      { 2, { { 800, 400 }, { 1700, 850 } } },
        { 3, { { 3 * 400, 400 } } },      { 3, { { 3 * 800, 800 } } },
    };
    static const int options[] = { NONE, BIAS | RESIDUAL, ROW_SUM | ACCUMULATE, ROW_SUM };
    const struct gemm_kernels *sets[SETS];
    for (int n = kernel_sets(sets), i = 0; i < n; i++)
        for (i64 j = 0; j < COUNT_OF(cases); j++)
            for (i64 o = 0; o < COUNT_OF(options); o++) {
                struct shape s = { 13 + 20 * (j % 2), 55, 0 };
                enum dtype type = (j + o) % 2 ? DTYPE_BF16 : DTYPE_F32;
                for (int p = 0; p < GEMM_PIECES; p++)
                    s.K += cases[j].pieces[p].k;
                random_state = (u64)(j * 64 + o);
                struct gemm g = product_new(s, type, type, o == 1 ? type : DTYPE_F32, o & 1,
                                            j & 1, options[o]);
                g.leaves = cases[j];
                check_tree(sets[i], &g);
                product_free(&g);
            }
}

/* Tiles, strips and threads: of a product with several of each. */
TEST(with_leaves_too_an_element_depends_on_its_row_its_column_and_k_only)
{
    const struct gemm_kernels *sets[SETS];
    for (int n = kernel_sets(sets), i = 0; i < n; i++)
        for (int t = 0; t < 4; t++) {
            enum dtype type = t & 1 ? DTYPE_BF16 : DTYPE_F32;
            i64 share = t & 2 ? 900 : 96;
            random_state = (u64)t;
            struct gemm g = product_new((struct shape){ 210, 790, 8 * share }, type, type, type,
                                        t & 1, t & 2, NONE);
            g.leaves = (struct gemm_leaves){ 8, { { 8 * share, share } } };
            run(&g, sets[i], 3);
            check_part(&g, sets[i], 0, 1, 0, 1);
            check_part(&g, sets[i], 209, 1, 789, 1);
            check_part(&g, sets[i], 5, 98, 3, 517);
            product_free(&g);
        }
}

/* --- what is not a number ----------------------------------------------------------- */

TEST(nan_and_infinity_reach_their_row_and_column_and_nothing_else)
{
    const struct gemm_kernels *sets[SETS];
    for (int n = kernel_sets(sets), i = 0; i < n; i++)
        for (int t = 0; t < 8; t++) {
            random_state = 11;
            enum dtype type = t & 4 ? DTYPE_BF16 : DTYPE_F32;
            struct gemm g = product_new((struct shape){ 19, 53, 77 }, type, type, type, t & 1,
                                        t & 2, NONE);
            set(&g.A, 18, 76, NAN);
            set(&g.B, 76, 52, INFINITY);
            set(&g.A, 3, 76, 0); /* 0 * Inf is NaN */
            run(&g, sets[i], 2);
            for (i64 r = 0; r < g.M; r++)
                for (i64 c = 0; c < g.N; c++) {
                    double v = get(&g.C, r, c);
                    bool nan = r == 18 || (r == 3 && c == 52), inf = !nan && c == 52;
                    CHECK(nan ? isnan(v) : inf ? isinf(v) : isfinite(v));
                }
            product_free(&g);
        }
}

/* Half-way cases go to the even neighbour; the sum itself is exact here. */
TEST(a_bf16_result_is_rounded_once_to_nearest_even)
{
    const struct gemm_kernels *sets[SETS];
    for (int n = kernel_sets(sets), i = 0; i < n; i++) {
        struct gemm g = product_new((struct shape){ 9, 50, 2 }, DTYPE_BF16, DTYPE_BF16,
                                    DTYPE_BF16, false, false, NONE);
        for (i64 r = 0; r < g.M; r++)
            set(&g.A, r, 0, 1), set(&g.A, r, 1, ldexp(1, -8));
        for (i64 c = 0; c < g.N; c++) /* 1 + odd or even last bit, plus half of it */
            set(&g.B, 0, c, 1 + (double)(c % 2) / 128), set(&g.B, 1, c, 1);
        run(&g, sets[i], 1);
        for (i64 r = 0; r < g.M; r++)
            for (i64 c = 0; c < g.N; c++)
                CHECK(get(&g.C, r, c) == (c % 2 ? 1 + 2.0 / 128 : 1));
        product_free(&g);
    }
}

/* --- the level below ---------------------------------------------------------------- */

TEST(pack_and_micro_multiply_one_tile_on_their_own)
{
    const struct gemm_kernels *sets[SETS];
    for (int n = kernel_sets(sets), i = 0; i < n; i++) {
        enum { K = 37 };
        const struct gemm_kernels *k = sets[i];
        enum dtype type = k->per_step == 2 && !k->pieces ? DTYPE_BF16 : DTYPE_F32;
        struct gemm g = product_new((struct shape){ k->mr, k->nr, K }, type, type, DTYPE_F32,
                                    false, true, NONE);
        struct gemm_slab a = { g.A.data, type, g.A.row_stride, 1, k->mr, K };
        struct gemm_slab b = { g.B.data, type, g.B.col_stride, 1, k->nr, K };
        u32 *panels = sys_alloc(4 * (k->mr + k->nr) * gemm_steps(k, k->per_step * K), 64);
        u32 *a_panel = panels + k->nr * gemm_steps(k, k->per_step * K);
        k->pack_b(panels, &b, k->nr);
        k->pack_a(a_panel, &a, k->mr);
        struct gemm_matrix C0 = copy_of(&g.C, g.M);
        if (k->begin)
            k->begin();
        k->micro(gemm_steps(k, K), a_panel, panels, g.C.data, g.C.row_stride, true, panels);
        if (k->end)
            k->end();
        g.accumulate = true;
        check_product(&g, k, &C0);
        if (k->micro_rows) { /* what A is packed for changes no bit */
            enum { MOST_ROWS = 16 };
            _Alignas(64) float packed[GEMM_MICRO_MAX], lying[GEMM_MICRO_MAX];
            const i64 words = K / k->per_step;
            u32 rows[MOST_ROWS * K];
            CHECK(k->mr <= MOST_ROWS);
            for (i64 r = 0; r < k->mr; r++)
                memcpy(rows + r * words,
                       (u8 *)g.A.data + r * g.A.row_stride * dtype_bytes(type),
                       (size_t)(4 * words));
            k->micro(words, a_panel, panels, packed, k->nr, false, panels);
            k->micro_rows(words, rows, words, panels, lying, k->nr, false, panels);
            CHECK(memcmp(packed, lying, (size_t)(4 * k->mr * k->nr)) == 0);
        }
        sys_free(C0.data);
        sys_free(panels);
        product_free(&g);
    }
}

#if defined(HEADWAY_SIMDE)
/* What is proved of the emulation is then proved of the processor. */
TEST(emulated_tile_registers_give_the_processors_bits)
{
    static const struct shape shapes[] = { { 33, 70, 100 }, { 64, 32, 1000 }, { 5, 3, 31 } };
    if (!backend_supported("amx"))
        skip();
    for (i64 i = 0; i < COUNT_OF(shapes); i++) {
        const struct shape s = shapes[i];
        struct gemm g = product_new(s, DTYPE_BF16, DTYPE_BF16, DTYPE_F32, i & 1, i & 2, NONE);
        struct gemm h = g;
        h.C = copy_of(&g.C, s.M);
        set(&g.A, 0, 0, 0x1p-130); /* subnormal, which counts as zero */
        set(&g.A, s.M - 1, s.K - 1, 0x1p100);
        run(&g, &gemm_kernels_amx, 2);
        run(&h, &gemm_kernels_amx_simde, 2);
        check_same_bits(&g.C, &h.C, s.M, s.N);
        sys_free(h.C.data);
        product_free(&g);
    }
}
#endif

/* --- which set multiplies bf16 ------------------------------------------------------ */

static const struct gemm_kernels *products_of(const char *backend)
{
    struct backend b;
    CHECK_OK(backend_init(&b, backend));
    return backend_kernel(&b, &op_linear)->context;
}

/* Bits depend on the choice. */
TEST(the_backend_is_the_same_at_every_start)
{
    const char *first = backend_best();
    for (int i = 0; i < 20; i++)
        CHECK_STR(backend_best(), first);
}

TEST(a_backend_that_is_named_is_the_one_that_multiplies)
{
    static const char *const names[] = { "generic", "avx2", "avx512", "avx512bf16", "amx" };
    for (i64 i = 0; i < COUNT_OF(names); i++)
        if (backend_supported(names[i]))
            CHECK_STR(products_of(names[i])->name, names[i]);
    CHECK_STR(products_of("auto")->name, backend_best());
}

#if defined(__x86_64__)
/* Long runs, against which the short ones that choose are judged: twice or half as fast is
 * what processors do, so a fault in either shows. */
static double best_rate(const struct gemm_kernels *k)
{
    _Alignas(64) float data[256];
    double best = 0;
    for (int i = 0; i < 256; i++)
        data[i] = 1 + (float)i / 256;
    for (int i = 0; i < 20; i++) {
        u64 begin = sys_now_ns();
        i64 flops = k->peak(20000, data);
        best = fmax(best, (double)flops / (double)(sys_now_ns() - begin));
    }
    return best;
}

TEST(bf16_instructions_are_chosen_where_they_are_faster_than_f32)
{
    if (!backend_supported("avx512bf16"))
        skip();
    const double f32 = best_rate(&gemm_kernels_avx512);
    bool faster = best_rate(&gemm_kernels_avx512bf16) > 1.5 * f32;
    CHECK_EQ(cpu_avx512bf16_pays(), faster);
    if (backend_supported("amx")) {
        CHECK(best_rate(&gemm_kernels_amx) > 1.5 * f32);
        CHECK_STR(backend_best(), "amx");
        return;
    }
    CHECK_STR(backend_best(), faster ? "avx512bf16" : "avx512");
}
#endif

TEST_MAIN(ONE(every_shape_and_transpose_is_within_the_rounding_bound),
          ONE(start_values_and_row_sums_are_added),
          ONE(products_that_take_several_slabs_are_right), ONE(an_empty_sum_is_its_start),
          ONE(the_number_of_threads_changes_no_bit),
          ONE(an_element_depends_on_its_row_its_column_and_k_only),
          ONE(a_large_c_has_the_bits_of_its_parts),
          ONE(leaves_are_summed_in_the_tree_of_their_numbers),
          ONE(with_leaves_too_an_element_depends_on_its_row_its_column_and_k_only),
#if defined(HEADWAY_SIMDE)
          ONE(emulated_tile_registers_give_the_processors_bits),
          ONE(avx2_and_avx512_give_the_same_bits),
#endif
          ONE(nan_and_infinity_reach_their_row_and_column_and_nothing_else),
          ONE(a_bf16_result_is_rounded_once_to_nearest_even),
#if defined(__x86_64__)
          ONE(bf16_instructions_are_chosen_where_they_are_faster_than_f32),
#endif
          ONE(the_backend_is_the_same_at_every_start),
          ONE(a_backend_that_is_named_is_the_one_that_multiplies),
          ONE(pack_and_micro_multiply_one_tile_on_their_own))
