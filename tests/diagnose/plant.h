/* tests/diagnose/plant.h - faults, written into what a healthy run measures. */
#ifndef HEADWAY_TEST_PLANT_H
#define HEADWAY_TEST_PLANT_H

#include "diagnose/findings.h"
#include "diagnose/rule.h"
#include "diagnose/usual.h"
#include "graph/graph.h"

enum { STEPS = 40 };

static inline double *series(struct arena *a, double value)
{
    double *x = ARENA_ARRAY(a, double, STEPS);
    for (i64 i = 0; i < STEPS; i++)
        x[i] = value;
    return x;
}

static inline void slow_loader(struct measure *m, i64 rank, double cpu, double amplification,
                        struct arena *a)
{
    struct measure_rank *k = &m->ranks[rank];
    for (i64 i = 0; i < STEPS; i++)
        k->data[i] = 0.05;
    k->load = series(a, 0.148);
    k->n_loads = STEPS;
    k->queue_empty = 1;
    k->load_cpu = cpu;
    k->read_bytes = amplification * k->used_bytes;
    longer(m, 0.05);
}

static inline void d1_alone(struct measure *m, struct arena *a) { slow_loader(m, 0, 0.95, 1, a); }
static inline void d1(struct measure *m, struct arena *a) { slow_loader(m, 1, 0.95, 1, a); }
static inline void d2(struct measure *m, struct arena *a) { slow_loader(m, 0, 0.1, 1.1, a); }

static inline void d3(struct measure *m, struct arena *a)
{
    slow_loader(m, 0, 0.1, 4, a);
    m->ranks[0].major_faults = 300;
}

static inline void d4(struct measure *m, struct arena *a)
{
    double *load = series(a, 0.03);
    for (i64 i = 7; i < STEPS; i += 8)
        load[i] = 0.45;
    m->config.prefetch = 1;
    double waited = measure_queue_wait(load, STEPS, 0.1, 1, 1);
    m->ranks[0].load = load;
    m->ranks[0].n_loads = STEPS;
    m->ranks[0].queue_empty = 0.15;
    for (i64 i = 0; i < STEPS; i++)
        m->ranks[0].data[i] = waited;
    longer(m, waited);
}

static inline void d5(struct measure *m, struct arena *a)
{
    (void)a;
    m->padding = 0.2;
    m->config.packed = true;
}

static inline void vary(struct measure *m, struct arena *a, bool by_length)
{
    u64 seed = 11;
    for (i64 r = 0; r < m->n_ranks; r++) {
        m->ranks[r].work = ARENA_ARRAY(a, double, STEPS);
        for (i64 i = 0; i < STEPS; i++) {
            double x = usual_noise(&seed);
            m->ranks[r].work[i] = 1e9 * (1 + (by_length ? x : usual_noise(&seed)));
            m->ranks[r].compute[i] += 0.03 * x;
        }
    }
    longer(m, 0.012);
}

static inline void d6(struct measure *m, struct arena *a) { vary(m, a, true); }
static inline void b3(struct measure *m, struct arena *a) { vary(m, a, false); }

static inline void gap(struct measure *m, int kind, i64 rank, i64 every, double seconds)
{
    for (i64 i = 0; i < STEPS; i++)
        if (i % every == every - 1) {
            m->ranks[rank].gap[kind][i] = seconds;
            m->seconds[i] += seconds;
        }
    measure_settle(m);
}

static inline void h1(struct measure *m, struct arena *a)
{
    (void)a;
    m->config.log_every = 1;
    gap(m, HOST_LOG, 0, 1, 0.02);
}

static inline void h2(struct measure *m, struct arena *a)
{
    (void)a;
    m->config.eval_every = 5;
    for (i64 r = 0; r < m->n_ranks; r++)
        gap(m, HOST_EVAL, r, 5, r == 0 ? 0.2 : 0.19);
}

static inline void h3(struct measure *m, struct arena *a)
{
    (void)a;
    m->config.checkpoint_async = false;
    m->config.checkpoint_every = 10;
    gap(m, HOST_CHECKPOINT, 0, 10, 0.5);
}

static inline void h4(struct measure *m, struct arena *a)
{
    (void)a;
    m->ranks[0].minor_faults = 32768;
    m->ranks[0].system_s = 0.02;
    longer(m, 0.023);
}

static inline void h5(struct measure *m, struct arena *a)
{
    (void)a;
    m->n_ops = 1;
    m->ops[0] = (struct measure_op){ .name = "add", .calls = 9000, .seconds = 0.08,
                                     .median_s = 9e-6, .flops = 1e7, .bytes = 1e6 };
}

static inline void h7(struct measure *m, struct arena *a)
{
    (void)a;
    m->ranks[1].major_faults = 300;
    m->ranks[1].memory_stall = 0.2;
    m->ranks[1].rss_bytes = 7.8e9;
    longer(m, 0.03);
}

static inline void h8(struct measure *m, struct arena *a)
{
    (void)a;
    m->ranks[1].run_queue_s = 0.04;
    m->ranks[1].on_cpu = 0.68;
    m->ranks[1].last_share = 1;
    for (i64 i = 0; i < STEPS; i++)
        m->ranks[1].compute[i] += 0.04;
    longer(m, 0.04);
}

static inline void h9(struct measure *m, struct arena *a)
{
    (void)a;
    gap(m, HOST_GAP, 1, 13, 0.3);
}

static inline void k1(struct measure *m, struct arena *a)
{
    (void)a;
    m->threads_per_node = 2 * m->cores_per_node;
    m->config.threads = 2;
    for (i64 r = 0; r < m->n_ranks; r++) {
        m->ranks[r].on_cpu = 0.55;
        m->ranks[r].run_queue_s = 0.08;
    }
    longer(m, 0.08);
}

static inline void k2(struct measure *m, struct arena *a)
{
    (void)a;
    m->ops[1].skewed_s = 0.02;
}

static inline void k4_quota(struct measure *m, struct arena *a)
{
    (void)a;
    m->ranks[1].throttled_s = 0.05;
    m->ranks[1].throttles = 1;
    m->ranks[1].last_share = 1;
    for (i64 i = 0; i < STEPS; i++)
        m->ranks[1].compute[i] += 0.05;
    longer(m, 0.05);
}

static inline void k4_clock(struct measure *m, struct arena *a)
{
    (void)a;
    m->ranks[1].clock = 0.7;
    m->ranks[1].last_share = 1;
    for (i64 i = 0; i < STEPS; i++)
        m->ranks[1].compute[i] /= 0.7;
    longer(m, 0.039);
}

static inline void k5(struct measure *m, struct arena *a)
{
    (void)a;
    m->ops[2] = (struct measure_op){ .name = "rmsnorm", .calls = 10, .seconds = 0.06,
                                     .median_s = 0.006, .flops = 1e7, .bytes = 1e9,
                                     .roofline_s = 0.02 };
    m->ranks[1].far_share = 0.6;
    m->ranks[1].far_speed = 0.5;
    m->ranks[1].last_share = 1;
    for (i64 i = 0; i < STEPS; i++)
        m->ranks[1].compute[i] += 0.018;
    longer(m, 0.018);
}

/* Where times come from FLOPs and bytes. */
static inline void k6(struct measure *m, struct arena *a)
{
    (void)a;
    m->config.simulated = true;
    for (i64 i = 0; i < m->n_ops; i++)
        m->ops[i].roofline_s = m->ops[i].seconds;
    m->ops[2].seconds += 0.02;
    longer(m, 0.02);
}

static inline void k7(struct measure *m, struct arena *a)
{
    (void)a;
    m->ops[0].bytes = 1.2e9;
    m->ops[1].bytes = 1.6e9;
    m->config.batch = 1;
    m->config.seq = 16;
}

static inline void k8(struct measure *m, struct arena *a)
{
    (void)a;
    m->ceilings.bf16 = 9.2e11;
}

static inline void k8_isa(struct measure *m, struct arena *a)
{
    (void)a;
    m->ceilings.widest = 9.2e11;
    snprintf(m->config.widest, sizeof m->config.widest, "avx512");
}

static inline void k10(struct measure *m, struct arena *a)
{
    (void)a;
    m->ops[0].recompute = true;
    m->recompute_bytes = 1e9;
}

static inline void k14(struct measure *m, struct arena *a)
{
    (void)a;
    m->ops[3].seconds = 0.03;
}

static inline struct measure_lane *lane(struct measure *m, double exposed)
{
    m->lanes[0].exposed_s = exposed;
    m->lanes[0].busy_s = fmax(m->lanes[0].busy_s, exposed);
    m->lanes[0].transfer_s = m->lanes[0].busy_s;
    longer(m, exposed);
    return &m->lanes[0];
}

static inline void c1(struct measure *m, struct arena *a) { (void)a; lane(m, 0.020); }

static inline void c3(struct measure *m, struct arena *a)
{
    (void)a;
    struct measure_lane *l = lane(m, 0.020);
    l->calls = 1;
    l->tail_s = 0.0195;
    l->backward_s = 0;
}

static inline void c2(struct measure *m, struct arena *a)
{
    (void)a;
    struct measure_lane *l = lane(m, 0.030);
    l->calls = 1000;
    l->bytes = 2e7;
    l->backward_s = 0.01;
}

/* What many pieces cost may be the time of those who begin them, not that of whoever waits. */
static inline void c2_begun(struct measure *m, struct arena *a)
{
    (void)a;
    struct measure_lane *l = lane(m, 0.001);
    l->calls = 1000;
    l->bytes = 2e7;
    l->begin_s = 0.03;
    l->backward_s = 0.01;
    for (i64 r = 0; r < m->n_ranks; r++)
        for (i64 i = 0; i < m->n_steps; i++)
            m->ranks[r].gap[HOST_GAP][i] += l->begin_s;
    longer(m, l->begin_s);
}

static inline void c4(struct measure *m, struct arena *a)
{
    (void)a;
    struct measure_lane *l = lane(m, 0.060);
    l->bytes_per_s = 4e8;
    l->transfer_s = l->busy_s = 0.1;
}

static inline void c5(struct measure *m, struct arena *a)
{
    (void)a;
    struct measure_lane *l = lane(m, 0.030);
    l->latency_s = 2e-3;
    l->transfer_s = l->busy_s = 0.044;
}

/* tp of two ranks that are two apart, dp of neighbours; ranks 0 and 1 lie on one host. */
static inline void c7(struct measure *m, struct arena *a)
{
    static const i32 of[] = { 0, 0, 1, 1 }, to[] = { 0, 2, 1, 3 };
    struct measure_domains *d = &m->domains;
    m->lanes = ARENA_ARRAY(a, struct measure_lane, 2);
    m->n_lanes = 2;
    m->lanes[0] = (struct measure_lane){ .lane = LANE_TP, .axis = "tp", .members = 2, .calls = 40,
        .bytes = 3e7, .transfer_s = 0.03, .exposed_s = 0.03, .wait_exposed_s = 0,
        .latency_s = 2e-5, .bytes_per_s = 1e9, .base_latency_s = 2e-5, .base_bytes_per_s = 4e9 };
    m->lanes[1] = (struct measure_lane){ .lane = LANE_DP, .axis = "dp", .members = 2, .calls = 12,
        .bytes = 2e7, .transfer_s = 0.005, .exposed_s = 0.0005, .wait_exposed_s = 0, .tail_s = 0,
        .backward_s = 0.06, .latency_s = 2e-5, .bytes_per_s = 4e9, .base_latency_s = 2e-5,
        .base_bytes_per_s = 4e9 };
    *d = (struct measure_domains){ .n = 2, .of = of, .near_probed = 4e9, .far_probed = 1e9,
                                   .near_bytes_per_s = 4e9, .far_bytes_per_s = 1e9, .n_orders = 1 };
    d->crosses[LANE_TP] = 1;
    d->orders[0] = (struct measure_order){ .name = "tp-dp-pp", .to = to };
    d->orders[0].crosses[LANE_DP] = 1;
    longer(m, 0.03);
}

static inline void c9(struct measure *m, struct arena *a)
{
    (void)a;
    m->ops[0].beside_s = 0.0012;
    m->ops[0].beside_calls = 20;
    longer(m, 0.009);
}

static inline void c10(struct measure *m, struct arena *a)
{
    (void)a;
    struct measure_lane *l = lane(m, 0.020);
    l->turns = 4;
    m->config.micro_batches = m->config.accumulate = 4;
    m->config.zero = 2;
}

static inline void c11(struct measure *m, struct arena *a)
{
    c4(m, a);
    m->n_links = 6;
    m->links = ARENA_ARRAY(a, struct measure_link, 6);
    i64 n = 0;
    for (int x = 0; x < 4; x++)
        for (int y = x + 1; y < 4; y++)
            m->links[n++] = (struct measure_link){
                .a = x, .b = y, .members = 2, .bytes_per_s = 2e9, .latency_s = 2e-5,
                .base_bytes_per_s = 2e9, .calls = 100
            };
    m->links[4].bytes_per_s = 3e8; /* 1-3 */
}

static inline void b1(struct measure *m, struct arena *a)
{
    (void)a;
    for (i64 i = 0; i < STEPS; i++)
        m->ranks[1].compute[i] += 0.045;
    m->ranks[1].last_share = 1;
    longer(m, 0.045);
}

static inline void b2(struct measure *m, struct arena *a)
{
    (void)a;
    for (i64 i = 12; i < 30; i++) {
        m->ranks[1].compute[i] += 0.045;
        m->seconds[i] += 0.045;
    }
    measure_settle(m);
}

static inline void pipeline(struct measure *m, i64 micro_batches)
{
    m->config.pp = m->n_ranks;
    m->config.dp = 1;
    m->config.micro_batches = m->config.accumulate = micro_batches;
    for (i64 r = 0; r < m->n_ranks; r++) {
        m->ranks[r].stage = (int)r;
        m->stages[r] = 0.09;
    }
    m->n_lanes = 0;
}

static inline void b4(struct measure *m, struct arena *a)
{
    (void)a;
    pipeline(m, 64);
    m->stages[1] = 0.13;
    for (i64 i = 0; i < STEPS; i++)
        m->ranks[1].compute[i] += 0.04;
    longer(m, 0.04);
}

static inline void b5(struct measure *m, struct arena *a)
{
    (void)a;
    pipeline(m, 2);
    longer(m, 0.1);
}

static inline void b7(struct measure *m, struct arena *a)
{
    m->config.ep = m->n_ranks;
    snprintf(m->ops[0].name, MEASURE_NAME, "expert_linear");
    m->n_experts = 2;
    m->experts = ARENA_ARRAY(a, struct measure_expert_layer, 2);
    m->experts[0] = (struct measure_expert_layer){ 0, 1.2 };
    m->experts[1] = (struct measure_expert_layer){ 1, 2.4 };
}

static inline void h6(struct measure *m, struct arena *a)
{
    (void)a;
    m->ops[1].watching = true;
    m->ops[1].seconds = 0.02;
    m->config.health_every = 2;
}

/* Two rows of 32 tokens: weights are read for each of 32 micro-batches. */
static inline void b6(struct measure *m, struct arena *a)
{
    (void)a;
    pipeline(m, 32);
    m->config.batch = 2;
    m->ops[0].bytes = 1.2e9;
    m->ops[1].bytes = 1.6e9;
}

static inline void r1(struct measure *m, struct arena *a)
{
    (void)a;
    m->failures = 4;
    m->up_s = 400;
    m->retaken_s = 120;
    m->config.checkpoint_every = 800;
}

static inline void r5(struct measure *m, struct arena *a)
{
    (void)a;
    m->ended = false;
    m->silent_s = 300;
    m->behind_rank = 3;
    m->calls_behind = 1;
}

static inline void r2(struct measure *m, struct arena *a)
{
    (void)a;
    m->run_s = 1000;
    m->start_s = 400;
}

/* Ranks 1 to 3 are done a little sooner than rank 0, less than would be worth other stages. */
static inline void r4(struct measure *m, struct arena *a)
{
    (void)a;
    pipeline(m, 64);
    for (i64 r = 1; r < m->n_ranks; r++)
        for (i64 i = 0; i < STEPS; i++)
            m->ranks[r].compute[i] *= 0.9;
    measure_settle(m);
}

struct planted {
    const char *id;
    void (*plant)(struct measure *m, struct arena *a);
    i64 ranks;
    int rank, peer;   /* where; -1: everywhere */
    double lost;      /* seconds a step; 0: not checked */
};

static const struct planted all[] = {
    { "D1", d1, 2, 1, -1, 0.05 }, { "D2", d2, 1, -1, -1, 0.05 }, { "D3", d3, 1, -1, -1, 0.05 },
    { "D4", d4, 1, -1, -1, 0 }, { "D5", d5, 1, -1, -1, 0.018 }, { "D6", d6, 4, -1, -1, 0 },
    { "H1", h1, 2, 0, -1, 0.02 }, { "H2", h2, 2, -1, -1, 0.04 }, { "H3", h3, 2, 0, -1, 0.05 },
    { "H4", h4, 2, 0, -1, 0.0229 }, { "H5", h5, 1, -1, -1, 0.018 }, { "H7", h7, 2, 1, -1, 0.03 },
    { "H8", h8, 2, 1, -1, 0.04 }, { "H9", h9, 2, 1, -1, 0.0225 }, { "K1", k1, 2, -1, -1, 0.081 },
    { "K4", k4_quota, 2, 1, -1, 0.05 }, { "K4", k4_clock, 2, 1, -1, 0.0386 },
    { "K7", k7, 1, -1, -1, 0 }, { "K8", k8, 1, -1, -1, 0.041 },
    { "K10", k10, 1, -1, -1, 0.03 }, 
    { "K14", k14, 4, -1, -1, 0.0225 }, { "C1", c1, 4, -1, -1, 0.0195 },
    { "C3", c3, 4, -1, -1, 0.0195 }, { "C2", c2, 4, -1, -1, 0.0295 },
    { "C4", c4, 4, -1, -1, 0.0595 },
    { "C5", c5, 4, -1, -1, 0.0295 }, { "C9", c9, 4, -1, -1, 0.009 },
    { "C7", c7, 4, -1, -1, 0.03 },
    { "C10", c10, 4, -1, -1, 0.0195 }, { "C11", c11, 4, 1, 3, 0.0595 },
    { "B1", b1, 4, 1, -1, 0.045 }, { "B1", b1, 2, 1, -1, 0.045 }, { "B2", b2, 2, 1, -1, 0.02 },
    { "B3", b3, 4, -1, -1, 0 }, { "B4", b4, 4, -1, -1, 0 }, { "B5", b5, 4, -1, -1, 0 },
    { "B7", b7, 4, -1, -1, 0.0133 },
    { "K2", k2, 1, -1, -1, 0.02 }, { "R5", r5, 4, 3, -1, 0 }, { "R2", r2, 1, -1, -1, 0.04 },
    { "H6", h6, 2, -1, -1, 0.02 }, { "B6", b6, 4, -1, -1, 0 }, { "R1", r1, 1, -1, -1, 0 },
    { "K8", k8_isa, 1, -1, -1, 0 }, { "C2", c2_begun, 4, -1, -1, 0.0305 },
    { "K6", k6, 2, -1, -1, 0.02 }, { "K5", k5, 2, 1, -1, 0.0186 },
    { "R4", r4, 4, 1, -1, 0 },
};

static inline double length_as_before(void *context, const struct finding_edit *e, double factor)
{
    const struct measure *m = context;
    (void)e;
    (void)factor;
    return m->step.mean;
}

/* R4 is no finding until a replay says that steps stay as long. */
static inline void make_findings(struct findings *f, struct measure *m, const struct planted *p)
{
    const struct finding_replay same = { m, length_as_before };
    findings_make(f, m, p->plant == r4 ? &same : NULL);
}

static inline void tell(const struct findings *f, const struct measure *m)
{
    struct text out = { 0 };
    findings_text(f, m, &out);
    print_message("%s\n", out.data);
    text_fini(&out);
}

#endif
