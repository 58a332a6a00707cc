/* bench/kernel_bench.h - tasks with random data, timed one by one on the best backend,
 * beside the ceilings of the same moment. */
#ifndef HEADWAY_KERNEL_BENCH_H
#define HEADWAY_KERNEL_BENCH_H

#include "backend/backend.h"
#include "backend/cpu/gemm.h"
#include "base/sys.h"
#include "ops/ops.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BENCH_REPS_MAX = 101 };

struct kernel_bench {
    struct backend backend;
    struct pool *pool;
    void *workspace;
    i64 workspace_bytes;
};

static inline void bench_must(int rc)
{
    if (rc < 0) {
        fprintf(stderr, "%s\n", err_message());
        exit(EXIT_FAILURE);
    }
}

static inline void *bench_map(i64 bytes)
{
    void *p = sys_map_pages(bytes);
    if (!p)
        bench_must(err_set(ERR_LIMIT, "no memory for %lld bytes", (long long)bytes));
    return p;
}

/* Numbers in [-1, 1), integers in [0, 1000); all else is left zero. */
static inline void bench_fill(struct tensor *t)
{
    u64 state = 1;
    for (i64 i = 0; i < tensor_count(t); i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        float x = (float)(state >> 40) / (float)(1 << 23) - 1;
        if (t->dtype == DTYPE_F32)
            ((float *)t->data)[i] = x;
        else if (t->dtype == DTYPE_BF16)
            ((bf16 *)t->data)[i] = bf16_from_f32(x);
        else if (t->dtype == DTYPE_I32)
            ((i32 *)t->data)[i] = (i32)((state >> 33) % 1000);
    }
}

/* Gives data to every tensor of the graph, and a workspace for all its tasks. */
static inline void bench_commit(struct kernel_bench *b, struct graph *g)
{
    bench_must(g->rc);
    for (i64 i = 0; i < g->n_tensors; i++) {
        struct tensor *t = g->tensors[i];
        if (t->owner)
            continue;
        t->data = bench_map(i64_max(64, tensor_bytes(t)));
        bench_fill(t);
    }
    i64 most = 64;
    for (i64 i = 0; i < g->n_tasks; i++) {
        const struct kernel *k = backend_kernel(&b->backend, g->tasks[i]->op);
        if (k->workspace)
            most = i64_max(most, k->workspace(g->tasks[i], pool_threads(b->pool), k->context));
    }
    b->workspace = bench_map(most);
    b->workspace_bytes = most;
}

static inline void bench_release(struct kernel_bench *b, struct graph *g)
{
    for (i64 i = 0; i < g->n_tensors; i++)
        if (!g->tensors[i]->owner)
            sys_unmap(g->tensors[i]->data, i64_max(64, tensor_bytes(g->tensors[i])));
    sys_unmap(b->workspace, b->workspace_bytes);
}

static inline double bench_seconds(struct kernel_bench *b, const struct task *t)
{
    const struct kernel *k = backend_kernel(&b->backend, t->op);
    struct run x = { .backend = &b->backend, .pool = b->pool, .workspace = b->workspace,
                     .workspace_bytes = b->workspace_bytes, .context = k->context };
    u64 begin = sys_now_ns();
    k->run(t, &x);
    return (double)(sys_now_ns() - begin) * 1e-9;
}

static inline int bench_compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Sorts; the median. times[0] is then the best. */
static inline double bench_median(double *times, int n)
{
    qsort(times, (size_t)n, sizeof *times, bench_compare);
    return times[n / 2];
}

/* --- the ceiling of arithmetic: multiply-adds on registers, on all threads ---------- */

struct bench_peak {
    gemm_peak_fn peak;
    i64 rounds, flops; /* of one thread */
};

static inline void bench_peak_part(void *context, i64 part, int thread)
{
    struct bench_peak *p = context;
    float data[256];
    (void)thread;
    for (int i = 0; i < 256; i++)
        data[i] = (float)i / 256;
    i64 flops = p->peak(p->rounds, data);
    if (part == 0)
        p->flops = flops;
}

/* FLOP/s of the units that multiply this type, f32's where they do so after widening; about
 * 10 ms. */
static inline double bench_peak_flops(struct kernel_bench *b, enum dtype type)
{
    const struct gemm_kernels *k = backend_kernel(&b->backend, &op_linear)->context;
    struct bench_peak p = { gemm_kernels_for(k, type, type)->peak, 100000, 0 };
    u64 begin = sys_now_ns();
    pool_run(b->pool, pool_threads(b->pool), bench_peak_part, &p);
    return (double)p.flops * pool_threads(b->pool) / ((double)(sys_now_ns() - begin) * 1e-9);
}

static inline void bench_open(struct kernel_bench *b, const char *backend, int threads)
{
    bench_must(backend_init(&b->backend, backend));
    bench_must(pool_new(&b->pool, threads > 0 ? threads : sys_cpu_count(), true));
}

#endif
