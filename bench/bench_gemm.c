/* bench_gemm - matrix products at the shapes of GPT-2 124M, packing included, beside the
 * measured peak of the multiply-add units, OpenBLAS and oneDNN.
 *
 *     bench_gemm [--tokens 1024,4096] [--reps 7] [--threads N] [--kernels avx2]
 *                [--type f32|bf16] [--shape qkv|proj|up|down|head] [--kind fwd|dx|dw] [--no-peers]
 *                [--leaf TOKENS]
 *
 * --leaf: beside them, the sums that exact mode takes as trees (parallel/exact.h): dw in leaves of so
 * many tokens, and over what tp cuts (proj, down fwd; qkv, up, head dx) in 8 leaves.
 *
 * Where fp32 is multiplied in pieces of bf16 (backend/cpu/gemm_kernel_split_amx.c), the same products by
 * multiply-adds and these units' own peak stand beside them.
 *
 * Every repetition times each contender once, in turn; medians are printed, and the
 * quartiles' distance of ours. The peak is measured beside each product too. For numbers to
 * rely on: chrt -f 1, and nothing else running. */
#include "backend/backend.h"
#include "backend/cpu/gemm.h"
#include "base/pool.h"
#include "base/sys.h"

#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_REPS = 101, CONTENDERS = 7, CUTS = 8 };
enum contender { PEAK, OURS, UNSPLIT_PEAK, UNSPLIT, LEAVES, OPENBLAS, ONEDNN };

/* C[M,N] = A B, as BLAS says it: row-major, CblasRowMajor 101, NoTrans 111, Trans 112. */
typedef void (*cblas_sgemm_fn)(int, int, int, int, int, int, float, const float *, int,
                               const float *, int, float, float *, int);
typedef int (*dnnl_sgemm_fn)(char, char, i64, i64, i64, float, const float *, i64, const float *,
                             i64, float, float *, i64);

struct options {
    i64 tokens[8];
    int n_tokens, reps, threads;
    i64 leaf;
    const char *kernels, *type, *shape, *kind;
    bool peers;
};

struct peak {
    gemm_peak_fn run;
    i64 rounds, flops; /* of a thread; of all */
};

struct bench {
    struct options o;
    const struct gemm_kernels *k;
    struct peak peak, unsplit_peak; /* the fastest way to multiply what is measured; multiply-adds */
    struct pool *pool;
    cblas_sgemm_fn cblas_sgemm;
    dnnl_sgemm_fn dnnl_sgemm;
    void *space;
    i64 space_bytes;
    float peak_data[64][256];
    const struct peak *running;
    double log_sum[CONTENDERS], worst, worst_unsplit; /* worst_unsplit: of multiply-adds' peak */
    int n[CONTENDERS];
};

/* --- contenders --------------------------------------------------------------------- */

static void peak_part(void *context, i64 part, int thread)
{
    struct bench *b = context;
    (void)thread;
    b->running->run(b->running->rounds, b->peak_data[part]);
}

static void run_peak(struct bench *b, const struct peak *p)
{
    b->running = p;
    pool_run(b->pool, pool_threads(b->pool), peak_part, b);
}

/* FLOP/s, the best of some; leaves runs of about 4 ms. */
static double try_peak(struct bench *b, struct peak *p, gemm_peak_fn run)
{
    double best = 0;
    const i64 trial = 1024, flops = run(trial, b->peak_data[0]);
    *p = (struct peak){ .run = run, .rounds = i64_max(1, (i64)(4e8 / (double)flops * trial)) };
    p->flops = p->rounds * (flops / trial) * pool_threads(b->pool);
    for (int i = 0; i < 10; i++) {
        u64 begin = sys_now_ns();
        run_peak(b, p);
        best = fmax(best, (double)p->flops / (double)(sys_now_ns() - begin));
    }
    return best;
}

/* As `headway machine` has it: bf16 operands may also be widened and multiplied in f32, and f32 be
 * multiplied in pieces of bf16. */
static void choose_peak(struct bench *b, enum dtype type)
{
    const gemm_peak_fn ways[] = { gemm_kernels_unsplit(b->k)->peak,
                                  gemm_kernels_for(b->k, DTYPE_F32, DTYPE_F32)->peak,
                                  gemm_kernels_for(b->k, type, type)->peak };
    double best = 0;
    gemm_peak_fn fastest = ways[0];
    for (i64 i = 0; i < COUNT_OF(ways); i++) {
        double rate = try_peak(b, &b->peak, ways[i]);
        if (rate > best)
            fastest = ways[i];
        best = fmax(best, rate);
    }
    try_peak(b, &b->peak, fastest);
    try_peak(b, &b->unsplit_peak, ways[0]);
}

static bool transposed(const struct gemm_matrix *m)
{
    return m->col_stride != 1;
}

static int leading(const struct gemm_matrix *m)
{
    return (int)(transposed(m) ? m->col_stride : m->row_stride);
}

static void run_one(struct bench *b, enum contender c, const struct gemm *g)
{
    const struct gemm_matrix *A = &g->A, *B = &g->B, *C = &g->C;
    float beta = g->accumulate;
    struct gemm whole = *g;
    whole.leaves = (struct gemm_leaves){ 0 };
    if (c == PEAK || c == UNSPLIT_PEAK)
        run_peak(b, c == PEAK ? &b->peak : &b->unsplit_peak);
    if (c == UNSPLIT)
        gemm_run(&whole, gemm_kernels_unsplit(b->k), b->pool, b->space);
    if (c == LEAVES)
        gemm_run(g, b->k, b->pool, b->space);
    if (c == OURS)
        gemm_run(&whole, b->k, b->pool, b->space);
    if (c == OPENBLAS)
        b->cblas_sgemm(101, transposed(A) ? 112 : 111, transposed(B) ? 112 : 111, (int)g->M,
                       (int)g->N, (int)g->K, 1, A->data, leading(A), B->data, leading(B), beta,
                       C->data, leading(C));
    if (c == ONEDNN)
        b->dnnl_sgemm(transposed(A) ? 'T' : 'N', transposed(B) ? 'T' : 'N', g->M, g->N, g->K, 1,
                      A->data, leading(A), B->data, leading(B), beta, C->data, leading(C));
}

static void load_peers(struct bench *b)
{
    unsetenv("OPENBLAS_CORETYPE"); /* may hide half of the machine */
#if defined(__x86_64__)
    if (backend_supported("avx512")) /* releases take newer processors for one of 2004 */
        setenv("OPENBLAS_CORETYPE", "SkylakeX", 1);
#endif
    unsetenv("OPENBLAS_L2_SIZE");
    setenv("OMP_WAIT_POLICY", "passive", 0); /* their threads must not spin while ours work */
    char threads[16];
    snprintf(threads, sizeof threads, "%d", pool_threads(b->pool));
    setenv("OPENBLAS_NUM_THREADS", threads, 1);
    setenv("OMP_NUM_THREADS", threads, 1);
    void *blas = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
    void *dnnl = dlopen("libdnnl.so", RTLD_NOW | RTLD_LOCAL);
    for (int i = 3; !dnnl && i > 1; i--)
        dnnl = dlopen(i == 3 ? "libdnnl.so.3" : "libdnnl.so.2", RTLD_NOW | RTLD_LOCAL);
    if (blas)
        b->cblas_sgemm = (cblas_sgemm_fn)dlsym(blas, "cblas_sgemm");
    if (dnnl)
        b->dnnl_sgemm = (dnnl_sgemm_fn)dlsym(dnnl, "dnnl_sgemm");
    char *(*config)(void) = blas ? (char *(*)(void))dlsym(blas, "openblas_get_config") : NULL;
    printf(b->cblas_sgemm ? "OpenBLAS: %s\n" : "SKIP OpenBLAS: libopenblas.so.0 not found%s\n",
           config ? config() : "");
    printf(b->dnnl_sgemm ? "oneDNN: dnnl_sgemm\n" : "SKIP oneDNN: libdnnl.so not found\n");
}

/* --- data --------------------------------------------------------------------------- */

static void *random_data(enum dtype type, i64 n)
{
    u8 *data = sys_map_pages(n * dtype_bytes(type));
    if (!data) {
        fprintf(stderr, "bench_gemm: no memory for %lld numbers\n", (long long)n);
        exit(EXIT_FAILURE);
    }
    u64 state = 1;
    for (i64 i = 0; i < n; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        float x = (float)(state >> 40) / (float)(1 << 24) - 0.5f;
        if (type == DTYPE_F32)
            memcpy(data + 4 * i, &x, 4);
        else
            ((bf16 *)data)[i] = bf16_from_f32(x);
    }
    return data;
}

/* A (rows, cols) matrix stored by rows, or its transpose. */
static struct gemm_matrix matrix(void *data, enum dtype type, i64 row_length, bool transpose)
{
    return (struct gemm_matrix){ data, type, transpose ? 1 : row_length,
                                 transpose ? row_length : 1 };
}

/* --- measuring ---------------------------------------------------------------------- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Contender's Gflop/s, `calls` calls after a rest in which the others' threads fall asleep. */
static double rate(struct bench *b, enum contender c, const struct gemm *g, i64 calls)
{
    usleep(500);
    run_peak(b, &b->unsplit_peak); /* wakes ours, and the clock */
    u64 start = sys_now_ns();
    for (i64 i = 0; i < calls; i++)
        run_one(b, c, g);
    double ns = (double)(sys_now_ns() - start);
    double flops = c == PEAK ? (double)b->peak.flops
                 : c == UNSPLIT_PEAK ? (double)b->unsplit_peak.flops
                 : 2.0 * (double)(g->M * g->N * g->K);
    return (double)calls * flops / ns;
}

static void print_row(struct bench *b, const char *name, enum dtype type, const struct gemm *g,
                      double r[CONTENDERS][MAX_REPS], const bool *takes_part)
{
    int reps = b->o.reps;
    double median[CONTENDERS] = { 0 };
    for (int c = 0; c < CONTENDERS; c++) {
        qsort(r[c], (size_t)reps, sizeof(double), by_value);
        median[c] = r[c][reps / 2];
        if (takes_part[c] && c != PEAK) {
            b->log_sum[c] += log(median[c] / median[PEAK]);
            b->n[c]++;
        }
    }
    if (takes_part[UNSPLIT]) {
        double share = 100 * median[OURS] / median[UNSPLIT_PEAK];
        b->worst_unsplit = b->n[UNSPLIT] == 1 ? share : fmin(b->worst_unsplit, share);
    }
    double percent = 100 * median[OURS] / median[PEAK];
    b->worst = b->n[OURS] == 1 || percent < b->worst ? percent : b->worst;
    printf("%-9s %-4s %6lld %6lld %6lld  %7.1f %7.1f %6.1f %5.1f", name, dtype_name(type),
           (long long)g->M, (long long)g->N, (long long)g->K, median[PEAK], median[OURS], percent,
           100 * (r[OURS][reps * 3 / 4] - r[OURS][reps / 4]) / median[OURS]);
    if (takes_part[UNSPLIT])
        printf("  %7.1f %6.1f %7.1f %5.1f", median[UNSPLIT_PEAK],
               100 * median[OURS] / median[UNSPLIT_PEAK], median[UNSPLIT],
               100 * median[UNSPLIT] / median[UNSPLIT_PEAK]);
    for (int c = LEAVES; c <= ONEDNN; c++)
        if (c == LEAVES && b->o.leaf == 0)
            continue;
        else if (takes_part[c])
            printf("  %7.1f %5.1f", median[c], 100 * median[c] / median[PEAK]);
        else
            printf("  %7s %5s", "-", "-");
    printf("\n");
    fflush(stdout);
}

static void measure(struct bench *b, const char *name, enum dtype type, const struct gemm *g)
{
    static double r[CONTENDERS][MAX_REPS];
    const bool splits = type == DTYPE_F32 && gemm_kernels_for(b->k, type, type)->unsplit;
    bool takes_part[CONTENDERS] = { true, true, splits, splits, g->leaves.count > 0,
                                    b->cblas_sgemm && type == DTYPE_F32,
                                    b->dnnl_sgemm && type == DTYPE_F32 };
    struct gemm whole = *g;
    whole.leaves = (struct gemm_leaves){ 0 };
    const int threads = pool_threads(b->pool);
    i64 need = i64_max(gemm_workspace_bytes(&whole, gemm_kernels_unsplit(b->k), threads),
                       i64_max(gemm_workspace_bytes(g, b->k, threads),
                               gemm_workspace_bytes(&whole, b->k, threads)));
    if (need > b->space_bytes) {
        if (b->space)
            sys_unmap(b->space, b->space_bytes);
        b->space = sys_map_pages(need);
        b->space_bytes = need;
    }
    for (int c = 0; c < CONTENDERS; c++)
        if (takes_part[c])
            run_one(b, c, g);
    double once = rate(b, OURS, g, 1), flops = 2.0 * (double)(g->M * g->N * g->K);
    i64 calls = i64_max(1, (i64)(15e6 / (flops / once))); /* 15 ms at least */
    for (int rep = 0; rep < b->o.reps; rep++)
        for (int c = 0; c < CONTENDERS; c++)
            if (takes_part[c])
                r[c][rep] = rate(b, c, g, calls);
    print_row(b, name, type, g, r, takes_part);
}

/* Leaves of the sum over K as exact mode has them; none where it is a chain there, too. */
static struct gemm_leaves leaves_of(const struct bench *b, const char *layer, const char *kind, i64 K)
{
    static const char *const cut[] = { "proj fwd", "down fwd", "qkv dx", "up dx", "head dx" };
    struct gemm_leaves l = { .count = 0 };
    char name[32];
    snprintf(name, sizeof name, "%s %s", layer, kind);
    if (b->o.leaf > 0 && strcmp(kind, "dw") == 0 && K % b->o.leaf == 0)
        l = (struct gemm_leaves){ .count = K / b->o.leaf, .pieces = { { K, b->o.leaf } } };
    for (i64 i = 0; i < COUNT_OF(cut) && b->o.leaf > 0; i++)
        if (strcmp(name, cut[i]) == 0) {
            i64 pieces = strcmp(layer, "qkv") == 0 ? 3 : 1;
            l.count = CUTS;
            for (i64 p = 0; p < pieces; p++)
                l.pieces[p].k = K / pieces, l.pieces[p].share = ceil_div(K / pieces, CUTS);
        }
    return l;
}

/* y (R,N) = x (R,K) w' (N,K);  dx = dy w;  dw += dy' x */
static void measure_layer(struct bench *b, const char *layer, enum dtype type, i64 R, i64 K, i64 N)
{
    static const char *const kinds[] = { "fwd", "dx", "dw" };
    void *x = random_data(type, R * K), *w = random_data(type, N * K);
    void *y = random_data(type, R * N);
    float *dw = random_data(DTYPE_F32, N * K);
    struct gemm_matrix X = matrix(x, type, K, false), W = matrix(w, type, K, false);
    struct gemm_matrix Y = matrix(y, type, N, false), dW = matrix(dw, DTYPE_F32, K, false);
    struct gemm products[] = {
        { .M = R, .N = N, .K = K, .A = X, .B = matrix(w, type, K, true), .C = Y },
        { .M = R, .N = K, .K = N, .A = Y, .B = W, .C = X },
        { .M = N, .N = K, .K = R, .A = matrix(y, type, N, true), .B = X, .C = dW,
          .accumulate = true },
    };
    for (int i = 0; i < 3; i++) {
        char name[32];
        snprintf(name, sizeof name, "%s %s", layer, kinds[i]);
        products[i].leaves = leaves_of(b, layer, kinds[i], products[i].K);
        if (!b->o.kind || strcmp(b->o.kind, kinds[i]) == 0)
            measure(b, name, type, &products[i]);
    }
    sys_unmap(x, R * K * dtype_bytes(type));
    sys_unmap(w, N * K * dtype_bytes(type));
    sys_unmap(y, R * N * dtype_bytes(type));
    sys_unmap(dw, N * K * 4);
}

static void measure_type(struct bench *b, enum dtype type)
{
    static const struct { const char *name; i64 K, N; } layers[] = {
        { "qkv", 768, 2304 }, { "proj", 768, 768 }, { "up", 768, 3072 }, { "down", 3072, 768 },
        { "head", 768, 50304 },
    };
    choose_peak(b, type);
    memset(b->log_sum, 0, sizeof b->log_sum);
    memset(b->n, 0, sizeof b->n);
    for (int t = 0; t < b->o.n_tokens; t++)
        for (i64 i = 0; i < COUNT_OF(layers); i++)
            if (!b->o.shape || strcmp(b->o.shape, layers[i].name) == 0)
                measure_layer(b, layers[i].name, type, b->o.tokens[t], layers[i].K, layers[i].N);
    printf("geometric mean %s, %% of peak: headway %.1f (least %.1f)", dtype_name(type),
           100 * exp(b->log_sum[OURS] / b->n[OURS]), b->worst);
    if (b->n[UNSPLIT])
        printf("; %% of multiply-adds' peak: %.1f (least %.1f), by multiply-adds %.1f; faster by %.2f",
               100 * exp((b->log_sum[OURS] - b->log_sum[UNSPLIT_PEAK]) / b->n[OURS]),
               b->worst_unsplit,
               100 * exp((b->log_sum[UNSPLIT] - b->log_sum[UNSPLIT_PEAK]) / b->n[OURS]),
               exp((b->log_sum[OURS] - b->log_sum[UNSPLIT]) / b->n[OURS]));
    if (b->n[LEAVES])
        printf(", in leaves %.1f", 100 * exp(b->log_sum[LEAVES] / b->n[LEAVES]));
    if (b->n[OPENBLAS])
        printf(", OpenBLAS %.1f", 100 * exp(b->log_sum[OPENBLAS] / b->n[OPENBLAS]));
    if (b->n[ONEDNN])
        printf(", oneDNN %.1f", 100 * exp(b->log_sum[ONEDNN] / b->n[ONEDNN]));
    printf("\n");
}

/* --- command line ------------------------------------------------------------------- */

/* NULL: the set that a run would choose. */
static const struct gemm_kernels *choose_kernels(const char *name)
{
    static const struct gemm_kernels *const sets[] = {
        &gemm_kernels_generic,
#if defined(__x86_64__)
        &gemm_kernels_avx2, &gemm_kernels_avx512, &gemm_kernels_avx512bf16, &gemm_kernels_amx,
#endif
    };
    name = name ? name : backend_best();
    for (i64 i = 0; i < COUNT_OF(sets); i++)
        if (backend_supported(name) && strcmp(name, sets[i]->name) == 0)
            return sets[i];
    return NULL;
}

static bool parse(struct options *o, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *key = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(key, "--no-peers") == 0) {
            o->peers = false;
            continue;
        }
        if (!value)
            return false;
        i++;
        if (strcmp(key, "--tokens") == 0) {
            o->n_tokens = 0;
            for (char *end = (char *)value; *end && o->n_tokens < 8; end += *end == ',')
                o->tokens[o->n_tokens++] = strtoll(end, &end, 10);
        } else if (strcmp(key, "--reps") == 0) {
            o->reps = (int)i64_max(1, i64_min(MAX_REPS, atoi(value)));
        } else if (strcmp(key, "--threads") == 0) {
            o->threads = (int)i64_max(1, i64_min(64, atoi(value)));
        } else if (strcmp(key, "--leaf") == 0) {
            o->leaf = i64_max(1, strtoll(value, NULL, 10));
        } else if (strcmp(key, "--kernels") == 0) {
            o->kernels = value;
        } else if (strcmp(key, "--type") == 0) {
            o->type = value;
        } else if (strcmp(key, "--shape") == 0) {
            o->shape = value;
        } else if (strcmp(key, "--kind") == 0) {
            o->kind = value;
        } else {
            return false;
        }
    }
    return true;
}

int main(int argc, char **argv)
{
    static struct bench b = { .o = { .tokens = { 1024, 4096 }, .n_tokens = 2, .reps = 7,
                                     .peers = true } };
    b.o.threads = sys_cpu_count();
    if (!parse(&b.o, argc, argv) || !(b.k = choose_kernels(b.o.kernels))) {
        fprintf(stderr, "usage: bench_gemm [--tokens 1024,4096] [--reps 7] [--threads N] "
                        "[--kernels NAME] [--type f32|bf16] [--shape NAME] [--kind fwd|dx|dw] "
                        "[--no-peers] [--leaf TOKENS]\n");
        return 2;
    }
    if (pool_new(&b.pool, b.o.threads, false) < 0)
        return 1;
    for (i64 i = 0; i < COUNT_OF(b.peak_data); i++)
        for (i64 j = 0; j < COUNT_OF(b.peak_data[0]); j++)
            b.peak_data[i][j] = (float)rand() / (float)RAND_MAX;
    if (b.o.peers)
        load_peers(&b);
    printf("kernels %s, %d threads, %d repetitions; Gflop/s, %% of peak, spread %%\n", b.k->name,
           b.o.threads, b.o.reps);
    printf("%-9s %-4s %6s %6s %6s  %7s %7s %6s %5s", "product", "type", "M", "N", "K", "peak",
           "headway", "%", "+-");
    if (gemm_kernels_for(b.k, DTYPE_F32, DTYPE_F32)->unsplit)
        printf("  %7s %6s %7s %5s", "peak-ma", "%", "by-ma", "%");
    if (b.o.leaf > 0)
        printf("  %7s %5s", "leaves", "%");
    printf("  %7s %5s  %7s %5s\n", "OpenBLAS", "%", "oneDNN", "%");
    if (!b.o.type || strcmp(b.o.type, "f32") == 0)
        measure_type(&b, DTYPE_F32);
    if (!b.o.type || strcmp(b.o.type, "bf16") == 0)
        measure_type(&b, DTYPE_BF16);
    pool_free(b.pool);
    return 0;
}
