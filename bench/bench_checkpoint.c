/* What a checkpoint costs a run: how long training waits in begin and guard, how long the
 * disk takes, how fast it is proven and loaded.
 *
 *     bench_checkpoint [DIR]      (a folder on the disk in question; default /var/tmp)
 *
 * State: AdamW in fp32 (parameters and two moments). "Training" keeps every core busy for
 * the time of one forward and backward pass between begin and guard, reading the tensors. */
#include "base/err.h"
#include "base/pool.h"
#include "base/sys.h"
#include "train/checkpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { REPEATS = 5, STEPS_BETWEEN = 50, KINDS = 3 };

static void must(int rc)
{
    if (rc < 0) {
        fprintf(stderr, "bench_checkpoint: %s\n", err_message());
        exit(1);
    }
}

struct state {
    struct checkpoint_tensor *tensor;
    i64 n, bytes;
    u8 *memory;
    char (*name)[48];
};

/* layers x 4 matrices and an embedding, three times. */
static void make_state(struct state *s, i64 params, i64 layers)
{
    static const char *const kinds[KINDS] = { "param", "adamw.m", "adamw.v" };
    i64 per_kind = 4 * layers + 1, at = 0;
    i64 matrix = params * 2 / 3 / (4 * layers), rest = params - 4 * layers * matrix;
    *s = (struct state){ .n = KINDS * per_kind, .bytes = KINDS * params * 4 };
    s->tensor = calloc((size_t)s->n, sizeof *s->tensor);
    s->name = calloc((size_t)s->n, sizeof *s->name);
    s->memory = sys_map_pages(s->bytes);
    for (i64 i = 0; i < s->n; i++) {
        i64 elements = i % per_kind == per_kind - 1 ? rest : matrix;
        snprintf(s->name[i], sizeof s->name[i], "%s/t%lld", kinds[i / per_kind],
                 (long long)(i % per_kind));
        s->tensor[i] = (struct checkpoint_tensor){ .name = s->name[i], .dtype = DTYPE_F32,
                                                   .rank = 1, .dim = { elements },
                                                   .data = s->memory + at };
        at += 4 * elements;
    }
    for (i64 i = 0; i < s->bytes / 4; i++) /* nothing that a file system could compress */
        ((u32 *)s->memory)[i] = (u32)i * 2654435761u ^ (u32)(i >> 7);
}

static void free_state(struct state *s)
{
    sys_unmap(s->memory, s->bytes);
    free(s->tensor);
    free(s->name);
}

struct work {
    const struct state *state;
    u64 until_ns;
    volatile u64 sink;
};

/* Keeps a core busy until the time is up, each number used 32 times once it is in cache,
 * as in a matrix product. */
static void work_part(void *context, i64 part, int thread)
{
    enum { BLOCK = 4096, REUSE = 32 };
    struct work *w = context;
    const float *x = (const float *)w->state->memory;
    i64 blocks = w->state->bytes / 4 / BLOCK, block = part * blocks / 7;
    float sum[8] = { 0 };
    (void)thread;
    for (; sys_now_ns() < w->until_ns; block = (block + 1) % blocks)
        for (int r = 0; r < REUSE; r++)
            for (int i = 0; i < BLOCK; i++)
                sum[i % 8] = sum[i % 8] * 0.5f + x[block * BLOCK + i];
    w->sink += sum[0] > 0;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v)
{
    qsort(v, REPEATS, sizeof *v, by_value);
    return v[REPEATS / 2];
}

static void measure_saves(const char *dir, const struct state *s, struct pool *pool,
                          enum checkpoint_snapshot mode, double pass_s)
{
    double begin_ms[REPEATS], guard_ms[REPEATS], durable_s[REPEATS];
    struct checkpoint_writer *w;
    struct checkpoint_result result;
    json_t *empty = json_object();
    i64 rss = sys_rss_bytes();
    must(checkpoint_writer_new(&w, dir, s->tensor, s->n,
                               &(struct checkpoint_options){ .resumed_step = -1, .async = true,
                                                             .pool = pool, .snapshot = mode }));
    for (int i = 0; i < REPEATS; i++) {
        u64 t0 = sys_now_ns();
        must(checkpoint_begin(w, i, empty));
        u64 t1 = sys_now_ns();
        struct work work = { .state = s, .until_ns = t1 + (u64)(1e9 * pass_s) };
        pool_run(pool, pool_threads(pool), work_part, &work);
        u64 t2 = sys_now_ns();
        checkpoint_guard(w);
        begin_ms[i] = 1e-6 * (double)(t1 - t0);
        guard_ms[i] = 1e-6 * (double)(sys_now_ns() - t2);
        must(checkpoint_wait(w, 0, &result));
        durable_s[i] = result.write_seconds;
    }
    double begin = median(begin_ms), guard = median(guard_ms), durable = median(durable_s);
    printf("%8.0f %5s %8.2f %9.1f %9.1f %10.2f %8.0f %9.3f %9.0f\n", 1e-6 * (double)s->bytes,
           mode == CHECKPOINT_LIVE ? "live" : "copy", pass_s, begin, guard, durable,
           1e-6 * (double)s->bytes / durable,
           100 * 1e-3 * (begin + guard) / (STEPS_BETWEEN * pass_s),
           1e-6 * (double)(sys_rss_bytes() - rss));
    checkpoint_writer_free(w);
    must(checkpoint_discard_after(dir, REPEATS - 2));
    json_decref(empty);
}

static void measure_load(const char *dir, const struct state *s)
{
    i64 step = CHECKPOINT_NEWEST;
    u64 t0 = sys_now_ns();
    if (checkpoint_verify(dir, -1, NULL, NULL) != 0)
        exit(1);
    u64 t1 = sys_now_ns();
    must(checkpoint_load(dir, &step, s->tensor, s->n, NULL));
    double verify = 1e-9 * (double)(t1 - t0), load = 1e-9 * (double)(sys_now_ns() - t1);
    printf("%8.0f MB: verify %.2f s (%.0f MB/s), verify and load %.2f s (%.0f MB/s)\n\n",
           1e-6 * (double)s->bytes, verify, 1e-6 * (double)s->bytes / verify, load,
           1e-6 * (double)s->bytes / load);
    must(checkpoint_discard_after(dir, -1));
}

int main(int argc, char **argv)
{
    /* params, layers, seconds of a forward and backward pass on two cores */
    static const struct {
        i64 params, layers;
        double pass_s;
    } models[] = { { 124439808, 12, 4 }, { 10000000, 6, 0.4 }, { 1000000, 4, 0.05 } };
    struct pool *pool;
    char dir[256];
    snprintf(dir, sizeof dir, "%s/headway-bench-XXXXXX", argc > 1 ? argv[1] : "/var/tmp");
    if (!mkdtemp(dir)) {
        perror(dir);
        return 1;
    }
    must(pool_new(&pool, sys_cpu_count(), true));
    printf("%d threads; median of %d saves; stall as share of %d steps\n", pool_threads(pool),
           REPEATS, STEPS_BETWEEN);
    printf("%8s %5s %8s %9s %9s %10s %8s %9s %9s\n", "state MB", "mode", "pass s", "begin ms",
           "guard ms", "durable s", "MB/s", "stall %", "extra MB");
    for (i64 i = 0; i < COUNT_OF(models); i++) {
        struct state s;
        make_state(&s, models[i].params, models[i].layers);
        measure_saves(dir, &s, pool, CHECKPOINT_LIVE, models[i].pass_s);
        if (s.bytes < 256 << 20)
            must(checkpoint_discard_after(dir, -1)),
                measure_saves(dir, &s, pool, CHECKPOINT_COPY, models[i].pass_s);
        measure_load(dir, &s);
        free_state(&s);
    }
    pool_free(pool);
    sys_remove_tree(dir);
    return 0;
}
