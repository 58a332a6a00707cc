/* bench_attention - attention forward and backward, beside the peak of the multiply-add
 * units measured between the repetitions.
 *
 *     bench_attention [--backend auto] [--threads N] [--reps 9] [B T H G D [f32|bf16]]
 *
 * GFLOP/s count causal pairs: 4 D per pair forward, 10 D backward (the scores are formed
 * again). Medians, and the best in brackets. The peak of bf16 is vdpbf16ps's where the backend
 * uses that. For numbers to rely on: chrt -f 1. */
#include "kernel_bench.h"

struct shape {
    int B, T, H, G, D;
    enum dtype dtype;
};

static const struct shape shapes[] = {
    { 4, 64, 12, 12, 64, DTYPE_F32 },    { 4, 1024, 12, 12, 64, DTYPE_F32 },
    { 4, 1024, 12, 12, 64, DTYPE_BF16 }, { 1, 4096, 12, 12, 64, DTYPE_F32 },
    { 2, 2048, 12, 4, 64, DTYPE_BF16 },  { 1, 2048, 16, 8, 128, DTYPE_F32 },
    { 1, 2048, 16, 8, 128, DTYPE_BF16 }, { 1, 1024, 8, 8, 80, DTYPE_F32 },
};

static void bench_shape(struct kernel_bench *b, const struct shape *s, int reps)
{
    struct arena arena;
    struct graph g;
    arena_init(&arena);
    graph_init(&g, &arena);
    const i64 R = (i64)s->B * s->T;
    struct attention_shape shape = { .B = s->B, .T = s->T, .H = s->H, .G = s->G, .D = s->D };
    struct tensor *qkv = graph_matrix(&g, s->dtype, R, (i64)(s->H + 2 * s->G) * s->D, "qkv");
    struct tensor *begin = graph_vector(&g, DTYPE_I32, R, "begin");
    struct tensor *dy = graph_matrix(&g, s->dtype, R, (i64)s->H * s->D, "dy");
    struct tensor *y = attention(&g, qkv, begin, &shape);
    bench_must(g.rc);
    struct task proto = { .op = &op_attention_grad,
                          .in = { dy, qkv, y, g.tasks[0]->out[1], begin } };
    memcpy(proto.attr, g.tasks[0]->attr, sizeof proto.attr);
    graph_add(&g, &proto);
    bench_commit(b, &g);
    memset(begin->data, 0, (size_t)tensor_bytes(begin)); /* one document */

    double times[2][BENCH_REPS_MAX], peaks[BENCH_REPS_MAX];
    for (int r = -1; r < reps; r++) { /* once to warm up */
        for (int i = 0; i < 2; i++)
            times[i][i64_max(r, 0)] = bench_seconds(b, g.tasks[i]);
        peaks[i64_max(r, 0)] = bench_peak_flops(b, s->dtype);
    }
    const double peak = bench_median(peaks, reps);
    const double pairs = (double)s->B * s->H * s->T * (s->T + 1) / 2;
    printf("%2d %5d %3d %3d %4d %5s", s->B, s->T, s->H, s->G, s->D, dtype_name(s->dtype));
    for (int i = 0; i < 2; i++) {
        const double flops = pairs * s->D * (i == 0 ? 4 : 10);
        const double median = bench_median(times[i], reps);
        printf(" | %8.2f ms %7.1f GFLOP/s %5.1f %% (%.1f)", median * 1e3, flops / median * 1e-9,
               100 * flops / median / peak, 100 * flops / times[i][0] / peak);
    }
    printf(" | peak %.0f\n", peak * 1e-9);
    fflush(stdout);
    bench_release(b, &g);
    arena_fini(&arena);
}

int main(int argc, char **argv)
{
    const char *backend = "auto";
    int threads = 0, reps = 9, at = 1;
    for (; at + 1 < argc && strncmp(argv[at], "--", 2) == 0; at += 2) {
        if (strcmp(argv[at], "--backend") == 0)
            backend = argv[at + 1];
        else if (strcmp(argv[at], "--threads") == 0)
            threads = atoi(argv[at + 1]);
        else if (strcmp(argv[at], "--reps") == 0)
            reps = (int)i64_max(1, i64_min(atoi(argv[at + 1]), BENCH_REPS_MAX));
    }
    struct kernel_bench b;
    bench_open(&b, backend, threads);
    printf("attention, %s, %d threads, %d repetitions\n", b.backend.name, pool_threads(b.pool),
           reps);
    printf(" B     T   H   G    D dtype | forward%48s| backward\n", "");
    if (argc - at >= 5) {
        struct shape s = { atoi(argv[at]), atoi(argv[at + 1]), atoi(argv[at + 2]),
                           atoi(argv[at + 3]), atoi(argv[at + 4]), DTYPE_F32 };
        if (argc - at > 5 && strcmp(argv[at + 5], "bf16") == 0)
            s.dtype = DTYPE_BF16;
        bench_shape(&b, &s, reps);
    } else {
        for (i64 i = 0; i < COUNT_OF(shapes); i++)
            bench_shape(&b, &shapes[i], reps);
    }
    pool_free(b.pool);
    return 0;
}
