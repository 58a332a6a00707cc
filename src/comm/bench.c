#include "comm/bench.h"

#include "base/err.h"
#include "base/sys.h"
#include "comm/lane.h"

#include <stdlib.h>
#include <string.h>

enum { LEAST = 7, MOST = 500, WARM = 2 };
/* Bytes to move per measurement, so that large sizes end in time. */
static const i64 budget_bytes = (i64)96 << 20;

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Share of the buffer that a ring sends per rank. */
static double ring_share(enum comm_op op, int n)
{
    double rho = (double)(n - 1) / n;
    switch (op) {
    case COMM_ALLREDUCE:
        return 2 * rho;
    case COMM_REDUCE_SCATTER:
    case COMM_ALL_GATHER:
    case COMM_ALL_TO_ALL:
        return rho;
    case COMM_BARRIER:
        return 0;
    default:
        return 1;
    }
}

struct bench {
    struct comm_group *group;
    struct comm_call call[2];
    int calls;
    struct arena arena;
    i64 bytes;
    float *in, *out;
};

static int bench_init(struct bench *b, struct comm_group *g, enum comm_op op, i64 bytes,
                      bool exact)
{
    i64 count = round_up(i64_max(bytes / 4, 1), op == COMM_ALLREDUCE ? 1 : g->n);
    *b = (struct bench){ .group = g, .calls = op == COMM_SEND ? 2 : 1, .bytes = 4 * count };
    arena_init(&b->arena);
    i64 *counts = ARENA_ARRAY(&b->arena, i64, g->n);
    for (int m = 0; m < g->n; m++)
        counts[m] = count / g->n;
    b->in = sys_map_pages(b->bytes);
    b->out = sys_map_pages(b->bytes);
    if (!b->in || !b->out)
        return err_set(ERR_LIMIT, "no memory for two buffers of %lld bytes", (long long)bytes);
    for (i64 i = 0; i < count; i++)
        b->in[i] = b->out[i] = 1.0f / (float)(1 + i % 1000);
    struct comm_call call = { .op = op, .group = g, .in = b->in, .out = b->out, .count = count,
                              .counts = counts, .recv_counts = counts, .exact = exact };
    b->call[0] = b->call[1] = call;
    if (op == COMM_SEND) {
        b->call[0].peer = (g->index + 1) % g->n;
        b->call[1].peer = (g->index + g->n - 1) % g->n;
        b->call[1].op = COMM_RECV;
    }
    return OK;
}

static void bench_fini(struct bench *b)
{
    sys_unmap(b->in, b->bytes);
    sys_unmap(b->out, b->bytes);
    arena_fini(&b->arena);
}

static int once(struct bench *b, double *us)
{
    struct comm_call barrier = { .op = COMM_BARRIER, .group = b->group };
    TRY(comm_run(&barrier));
    u64 begin = sys_now_ns();
    for (int k = 0; k < b->calls; k++)
        TRY(comm_start(&b->call[k]));
    for (int k = 0; k < b->calls; k++)
        TRY(comm_wait(&b->call[k]));
    *us = 1e-3 * (double)(sys_now_ns() - begin);
    return OK;
}

int comm_bench(struct comm_group *g, enum comm_op op, i64 bytes, bool exact,
               struct comm_timing *out)
{
    struct bench b;
    double us[MOST];
    int n = (int)i64_max(LEAST, i64_min(MOST, budget_bytes / i64_max(bytes, 1)));
    int rc;
    TRY_TO(done, bench_init(&b, g, op, bytes, exact));
    for (int i = 0; i < WARM; i++)
        TRY_TO(done, once(&b, &us[0]));
    for (int i = 0; i < n; i++)
        TRY_TO(done, once(&b, &us[i]));
    qsort(us, (size_t)n, sizeof *us, by_value);
    *out = (struct comm_timing){ .op = op, .bytes = op == COMM_BARRIER ? 0 : b.bytes,
                                 .repetitions = n, .median_us = us[n / 2],
                                 .worst_us = us[n - 1] };
    out->bus_gb_per_s = 1e-3 * ring_share(op, g->n) * (double)b.bytes / out->median_us;
done:
    bench_fini(&b);
    return rc;
}

/* --- overlap ---------------------------------------------------------------------- */

/* Arithmetic on registers: what it takes does not depend on memory. */
static float compute(i64 rounds)
{
    float x[16] = { 1 };
    for (i64 i = 0; i < rounds; i++)
        for (int k = 0; k < 16; k++)
            x[k] = x[k] * 0.999f + 0.001f;
    float sum = 0;
    for (int k = 0; k < 16; k++)
        sum += x[k];
    return sum;
}

static double time_compute(i64 rounds)
{
    u64 begin = sys_now_ns();
    volatile float keep = compute(rounds);
    (void)keep;
    return 1e-3 * (double)(sys_now_ns() - begin);
}

static int time_together(struct bench *b, struct comm_lane *lane, i64 rounds, double *us)
{
    struct comm_call barrier = { .op = COMM_BARRIER, .group = b->group };
    comm_lane_submit(lane, &barrier);
    TRY(comm_lane_wait(lane, &barrier));
    u64 begin = sys_now_ns();
    comm_lane_submit(lane, &b->call[0]);
    time_compute(rounds);
    TRY(comm_lane_wait(lane, &b->call[0]));
    *us = 1e-3 * (double)(sys_now_ns() - begin);
    return OK;
}

static int bench_together(struct bench *b, i64 rounds, double *median)
{
    struct comm_lane *lane;
    double us[LEAST];
    int rc = OK;
    TRY(comm_lane_new(&lane, b->group->comm, -1));
    for (int i = 0; i < LEAST && rc >= 0; i++)
        rc = time_together(b, lane, rounds, &us[i]);
    comm_lane_free(lane);
    TRY(rc);
    qsort(us, LEAST, sizeof *us, by_value);
    *median = us[LEAST / 2];
    return OK;
}

int comm_bench_overlap(struct comm_group *g, i64 bytes, struct comm_overlap *out)
{
    struct bench b;
    struct comm_timing alone;
    int rc;
    TRY_TO(done, comm_bench(g, COMM_ALLREDUCE, bytes, false, &alone));
    TRY_TO(done, bench_init(&b, g, COMM_ALLREDUCE, bytes, false));
    i64 probe = 100000;
    time_compute(probe);
    i64 rounds = (i64)((double)probe * alone.median_us / time_compute(probe)) + 1;
    *out = (struct comm_overlap){ .call_us = alone.median_us };
    out->compute_us = time_compute(rounds);
    rc = bench_together(&b, rounds, &out->together_us);
    double shorter = out->call_us < out->compute_us ? out->call_us : out->compute_us;
    out->hidden = (out->call_us + out->compute_us - out->together_us) / shorter;
    bench_fini(&b);
done:
    return rc;
}
