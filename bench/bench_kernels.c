/* bench_kernels - kernels that memory bounds, at the shapes of GPT-2 124M with B 4, T 1024,
 * beside a parallel copy measured between the repetitions.
 *
 *     bench_kernels [--backend auto] [--threads N] [--reps 9] [--op NAME]
 *
 * GB/s count each operand once, read or written (the task's own cost); the copy counts
 * both its sides. Medians. A share above 100 % means that operands were still in cache. */
#include "kernel_bench.h"

enum { R = 4096, C = 768, F = 3072, V = 50304, CHUNK = 512, HEADS = 12, HEAD = 64 };

struct maker {
    struct graph *g;
    enum dtype dtype;
};

static struct tensor *matrix(struct maker *m, i64 rows, i64 columns)
{
    return graph_matrix(m->g, m->dtype, rows, columns, "matrix");
}

static struct tensor *wide(struct maker *m, i64 rows, i64 columns)
{
    return graph_matrix(m->g, DTYPE_F32, rows, columns, "wide");
}

static struct tensor *vector(struct maker *m, enum dtype dtype, i64 n)
{
    return graph_vector(m->g, dtype, n, "vector");
}

static void add_task(struct maker *m, const struct op_info *op, struct task proto)
{
    proto.op = op;
    graph_add(m->g, &proto);
}

static void make_embed(struct maker *m)
{
    embed(m->g, vector(m, DTYPE_I32, R), matrix(m, V, C), vector(m, DTYPE_I32, R),
          matrix(m, 1024, C));
}

static void make_layernorm(struct maker *m)
{
    layernorm(m->g, matrix(m, R, C), vector(m, DTYPE_F32, C), vector(m, DTYPE_F32, C), 1e-5);
}

static void make_layernorm_grad(struct maker *m)
{
    add_task(m, &op_layernorm_grad,
             (struct task){ .in = { matrix(m, R, C), matrix(m, R, C), vector(m, DTYPE_F32, C),
                                    vector(m, DTYPE_F32, R), vector(m, DTYPE_F32, R),
                                    matrix(m, R, C) },
                            .out = { NULL, vector(m, DTYPE_F32, C), vector(m, DTYPE_F32, C) } });
}

static void make_rmsnorm(struct maker *m)
{
    rmsnorm(m->g, matrix(m, R, C), vector(m, DTYPE_F32, C), 1e-5);
}

static void make_rmsnorm_grad(struct maker *m)
{
    add_task(m, &op_rmsnorm_grad,
             (struct task){ .in = { matrix(m, R, C), matrix(m, R, C), vector(m, DTYPE_F32, C),
                                    vector(m, DTYPE_F32, R), matrix(m, R, C) },
                            .out = { NULL, vector(m, DTYPE_F32, C) } });
}

static void make_rope(struct maker *m)
{
    rope(m->g, matrix(m, R, 3 * HEADS * HEAD), wide(m, 1024, HEAD), vector(m, DTYPE_I32, R),
         HEADS, HEADS, HEAD);
}

static void make_qk_norm(struct maker *m)
{
    qk_norm(m->g, matrix(m, R, 3 * HEADS * HEAD), vector(m, DTYPE_F32, HEAD),
            vector(m, DTYPE_F32, HEAD), HEADS, HEADS, HEAD, 1e-6);
}

static void make_gelu(struct maker *m)
{
    gelu(m->g, matrix(m, R, F), false);
}

static void make_gelu_exact(struct maker *m)
{
    gelu(m->g, matrix(m, R, F), true);
}

static void make_gelu_grad(struct maker *m)
{
    add_task(m, &op_gelu_grad, (struct task){ .in = { matrix(m, R, F), matrix(m, R, F) } });
}

static void make_swiglu(struct maker *m)
{
    swiglu(m->g, matrix(m, R, 2 * F));
}

static void make_swiglu_grad(struct maker *m)
{
    add_task(m, &op_swiglu_grad, (struct task){ .in = { matrix(m, R, F), matrix(m, R, 2 * F) } });
}

static void make_add(struct maker *m)
{
    add(m->g, matrix(m, R, C), matrix(m, R, C));
}

static void make_xent(struct maker *m)
{
    xent(m->g, wide(m, CHUNK, V), vector(m, DTYPE_I32, CHUNK), vector(m, DTYPE_F32, CHUNK),
         vector(m, DTYPE_F32, 1), vector(m, DTYPE_F32, CHUNK), (int)m->dtype, V, 0);
}

static void make_embed_grad(struct maker *m)
{
    add_task(m, &op_embed_grad,
             (struct task){ .in = { matrix(m, R, C), vector(m, DTYPE_I32, R) },
                            .out = { wide(m, V, C) } });
}

static void make_sum_squares(struct maker *m)
{
    sum_squares(m->g, wide(m, V, C));
}

static void make_adamw(struct maker *m)
{
    static const struct adamw_config config = { 0.9, 0.95, 1e-8, 0.1 };
    adamw(m->g, wide(m, V, C), vector(m, DTYPE_F32, 1), vector(m, DTYPE_F32, HYPERS),
          wide(m, V, C), wide(m, V, C), wide(m, V, C),
          m->dtype == DTYPE_BF16 ? matrix(m, V, C) : NULL, NULL, &config);
}

static void make_ema(struct maker *m)
{
    ema(m->g, wide(m, V, C), wide(m, V, C), NULL, 0.999);
}

static const struct {
    const char *name;
    void (*make)(struct maker *m);
} kernels[] = {
    { "embed", make_embed }, { "layernorm", make_layernorm },
    { "layernorm_grad", make_layernorm_grad }, { "rmsnorm", make_rmsnorm },
    { "rmsnorm_grad", make_rmsnorm_grad }, { "qk_norm", make_qk_norm }, { "rope", make_rope },
    { "gelu", make_gelu }, { "gelu_exact", make_gelu_exact }, { "gelu_grad", make_gelu_grad },
    { "swiglu", make_swiglu }, { "swiglu_grad", make_swiglu_grad }, { "add", make_add },
    { "xent", make_xent }, { "embed_grad", make_embed_grad },
    { "sum_squares", make_sum_squares }, { "adamw", make_adamw }, { "ema", make_ema },
};

/* --- the ceiling: every thread copies its share ------------------------------------- */

enum { COPY_BYTES = 1 << 28, COPY_PART = 1 << 20 };

struct copy {
    u8 *from, *to;
};

static void copy_part(void *context, i64 part, int thread)
{
    struct copy *c = context;
    (void)thread;
    memcpy(c->to + part * COPY_PART, c->from + part * COPY_PART, COPY_PART);
}

static double copy_bandwidth(struct kernel_bench *b, struct copy *c)
{
    u64 begin = sys_now_ns();
    pool_run(b->pool, COPY_BYTES / COPY_PART, copy_part, c);
    return 2.0 * COPY_BYTES / ((double)(sys_now_ns() - begin) * 1e-9);
}

static void bench_kernel(struct kernel_bench *b, struct copy *copy, i64 i, enum dtype dtype,
                         int reps)
{
    struct arena arena;
    struct graph g;
    arena_init(&arena);
    graph_init(&g, &arena);
    struct maker m = { &g, dtype };
    kernels[i].make(&m);
    bench_commit(b, &g);
    const struct task *t = g.tasks[g.n_tasks - 1];
    const double bytes = t->cost.read_bytes + t->cost.written_bytes;
    double times[BENCH_REPS_MAX], copies[BENCH_REPS_MAX];
    bench_seconds(b, t);
    for (int r = 0; r < reps; r++) {
        copies[r] = copy_bandwidth(b, copy);
        times[r] = bench_seconds(b, t);
    }
    const double median = bench_median(times, reps), ceiling = bench_median(copies, reps);
    printf("%-16s %5s %9.3f ms %8.1f GB/s %6.1f %% of copy %.1f\n", kernels[i].name,
           dtype_name(dtype), median * 1e3, bytes / median * 1e-9,
           100 * bytes / median / ceiling, ceiling * 1e-9);
    fflush(stdout);
    bench_release(b, &g);
    arena_fini(&arena);
}

int main(int argc, char **argv)
{
    const char *backend = "auto", *op = NULL;
    int threads = 0, reps = 9;
    for (int at = 1; at + 1 < argc; at += 2) {
        if (strcmp(argv[at], "--backend") == 0)
            backend = argv[at + 1];
        else if (strcmp(argv[at], "--threads") == 0)
            threads = atoi(argv[at + 1]);
        else if (strcmp(argv[at], "--reps") == 0)
            reps = (int)i64_max(1, i64_min(atoi(argv[at + 1]), BENCH_REPS_MAX));
        else if (strcmp(argv[at], "--op") == 0)
            op = argv[at + 1];
    }
    struct kernel_bench b;
    struct copy copy = { bench_map(COPY_BYTES), bench_map(COPY_BYTES) };
    bench_open(&b, backend, threads);
    memset(copy.from, 1, COPY_BYTES);
    memset(copy.to, 1, COPY_BYTES);
    printf("kernels, %s, %d threads, %d repetitions\n", b.backend.name, pool_threads(b.pool), reps);
    for (i64 i = 0; i < COUNT_OF(kernels); i++)
        for (int half = 0; half < 2; half++)
            if (!op || strcmp(op, kernels[i].name) == 0)
                bench_kernel(&b, &copy, i, half ? DTYPE_BF16 : DTYPE_F32, reps);
    pool_free(b.pool);
    return 0;
}
