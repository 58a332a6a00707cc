/* What a healthy run measures, for tests that then break one thing. */
#ifndef HEADWAY_TEST_USUAL_H
#define HEADWAY_TEST_USUAL_H

#include "diagnose/measure.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static inline double usual_noise(u64 *state)
{
    *state = *state * 6364136223846793005ull + 1442695040888963407ull;
    return (double)(*state >> 11) / 9007199254740992. - 0.5; /* [-0.5, 0.5) */
}

static inline void usual_rank(struct measure *m, i64 r, u64 *seed)
{
    struct measure_rank *k = &m->ranks[r];
    snprintf(k->host, sizeof k->host, "node%lld", (long long)r);
    for (i64 i = 0; i < m->n_steps; i++) {
        k->compute[i] = 0.090 * (1 + 0.01 * usual_noise(seed));
        k->transfer[i] = 0.0015;
        k->step[i] = 0.1;
    }
    k->last_share = 1 / (double)m->n_ranks;
    k->load_cpu = 0.9;
    k->queue_empty = 0.02;
    k->read_bytes = k->used_bytes = 1e6;
    k->on_cpu = 0.99;
    k->run_queue_s = 0.0005;
    k->throttled_s = k->steal_s = k->throttles = 0;
    k->clock = 0.99;
    k->minor_faults = 20;
    k->major_faults = 0;
    k->system_s = 0.001;
    k->memory_stall = k->io_stall = 0;
    k->rss_bytes = 1e9;
    k->limit_bytes = 8e9;
}

static inline void usual_ops(struct measure *m, struct arena *a)
{
    static const struct measure_op ops[] = {
        { .name = "linear", .phase = 0, .calls = 40, .seconds = 0.030, .median_s = 0.00075,
          .flops = 6e9, .model_flops = 6e9, .bytes = 1.5e8, .roofline_s = 0.025,
          .alone_s = 0.00075, .beside_s = 0.00075, .alone_calls = 30, .beside_calls = 10 },
        { .name = "linear_dw", .phase = 2, .calls = 40, .seconds = 0.040, .median_s = 0.001,
          .flops = 8e9, .model_flops = 8e9, .bytes = 2e8, .roofline_s = 0.035 },
        { .name = "attention", .phase = 0, .calls = 10, .seconds = 0.012, .median_s = 0.0012,
          .flops = 1e9, .model_flops = 1e9, .bytes = 4e7, .roofline_s = 0.004 },
        { .name = "adamw", .phase = 3, .calls = 12, .seconds = 0.002, .median_s = 0.00017,
          .flops = 1e7, .model_flops = 1e7, .bytes = 8e7, .roofline_s = 0.002 },
    };
    m->n_ops = COUNT_OF(ops);
    m->ops = ARENA_ARRAY(a, struct measure_op, m->n_ops);
    memcpy(m->ops, ops, sizeof ops);
}

static inline void usual_lane(struct measure *m, struct arena *a)
{
    m->n_lanes = 1;
    m->lanes = ARENA_NEW(a, struct measure_lane);
    m->lanes[0] = (struct measure_lane){ .lane = 3, .axis = "dp", .members = m->n_ranks,
        .calls = 12, .bytes = 4e7, .busy_s = 0.021, .wait_s = 0.001, .transfer_s = 0.020,
        .exposed_s = 0.0015, .wait_exposed_s = 0.0005, .latency_s = 2e-5, .bytes_per_s = 2e9,
        .base_latency_s = 2e-5, .base_bytes_per_s = 2e9, .rounds = 6,
        .turns = 1, .backward_s = 0.06 };
}

/* Steps of 100 ms on so many ranks, of which 90 compute. */
static inline struct measure *usual_run(i64 ranks, i64 steps, struct arena *a)
{
    u64 seed = 7;
    struct measure *m = measure_new(ranks, steps, a);
    for (i64 i = 0; i < steps; i++) {
        m->numbers[i] = i + MEASURE_WARM_UP;
        m->seconds[i] = 0.1 * (1 + 0.01 * usual_noise(&seed));
    }
    m->first_step = MEASURE_WARM_UP;
    for (i64 r = 0; r < ranks; r++)
        usual_rank(m, r, &seed);
    usual_ops(m, a);
    if (ranks > 1)
        usual_lane(m, a);
    m->ceilings = (struct measure_ceilings){ .f32 = 4.6e11, .bf16 = 4.6e11, .used = 4.6e11,
        .memory_bytes_per_s = 4e10, .op_s = 2e-6, .minor_fault_s = 0.7e-6,
        .major_fault_s = 1e-4 };
    m->compute = 0.09;
    m->threads_per_node = (double)ranks;
    m->cores_per_node = (double)ranks;
    m->memory_peak_bytes = 1e9;
    m->memory_limit_bytes = 8e9;
    m->recompute_bytes = 0;
    m->padding = 0;
    m->energy = (struct measure_energy){ .watts = 100, .lo = 0.5, .hi = 2.5, .busy_share = 0.7,
        .busy_cores = 0.9 * (double)ranks, .method = "tdp-model" };
    m->run_s = 60;
    m->start_s = 1;
    m->config.batch = 4;
    m->config.seq = 256;
    m->config.prefetch = 4;
    m->config.threads = m->config.loader_threads = 1;
    m->config.dp = ranks;
    m->config.log_every = 10;
    m->config.checkpoint_async = true;
    measure_settle(m);
    return m;
}

/* Every step takes so much longer. */
static inline void longer(struct measure *m, double seconds)
{
    for (i64 i = 0; i < m->n_steps; i++)
        m->seconds[i] += seconds;
    measure_settle(m);
}

#endif
