/* Every kind that a rule knows is planted into what a healthy run measures: it must be named first,
 * with its place and what it costs; and its look-alikes must not be. */
#include "test.h"

#include "diagnose/findings.h"
#include "diagnose/rule.h"
#include "diagnose/times.h"
#include "diagnose/usual.h"
#include "diagnose/whatif.h"
#include "graph/graph.h"

enum { STEPS = 40 };

static double *series(struct arena *a, double value)
{
    double *x = ARENA_ARRAY(a, double, STEPS);
    for (i64 i = 0; i < STEPS; i++)
        x[i] = value;
    return x;
}

static void slow_loader(struct measure *m, i64 rank, double cpu, double amplification,
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

static void d1_alone(struct measure *m, struct arena *a) { slow_loader(m, 0, 0.95, 1, a); }
static void d1(struct measure *m, struct arena *a) { slow_loader(m, 1, 0.95, 1, a); }
static void d2(struct measure *m, struct arena *a) { slow_loader(m, 0, 0.1, 1.1, a); }

static void d3(struct measure *m, struct arena *a)
{
    slow_loader(m, 0, 0.1, 4, a);
    m->ranks[0].major_faults = 300;
}

static void d4(struct measure *m, struct arena *a)
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

static void d5(struct measure *m, struct arena *a)
{
    (void)a;
    m->padding = 0.2;
    m->config.packed = true;
}

static void vary(struct measure *m, struct arena *a, bool by_length)
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

static void d6(struct measure *m, struct arena *a) { vary(m, a, true); }
static void b3(struct measure *m, struct arena *a) { vary(m, a, false); }

static void gap(struct measure *m, int kind, i64 rank, i64 every, double seconds)
{
    for (i64 i = 0; i < STEPS; i++)
        if (i % every == every - 1) {
            m->ranks[rank].gap[kind][i] = seconds;
            m->seconds[i] += seconds;
        }
    measure_settle(m);
}

static void h1(struct measure *m, struct arena *a)
{
    (void)a;
    m->config.log_every = 1;
    gap(m, HOST_LOG, 0, 1, 0.02);
}

static void h2(struct measure *m, struct arena *a)
{
    (void)a;
    m->config.eval_every = 5;
    for (i64 r = 0; r < m->n_ranks; r++)
        gap(m, HOST_EVAL, r, 5, r == 0 ? 0.2 : 0.19);
}

static void h3(struct measure *m, struct arena *a)
{
    (void)a;
    m->config.checkpoint_async = false;
    m->config.checkpoint_every = 10;
    gap(m, HOST_CHECKPOINT, 0, 10, 0.5);
}

static void h4(struct measure *m, struct arena *a)
{
    (void)a;
    m->ranks[0].minor_faults = 32768;
    m->ranks[0].system_s = 0.02;
    longer(m, 0.023);
}

static void h5(struct measure *m, struct arena *a)
{
    (void)a;
    m->n_ops = 1;
    m->ops[0] = (struct measure_op){ .name = "add", .calls = 9000, .seconds = 0.08,
                                     .median_s = 9e-6, .flops = 1e7, .bytes = 1e6 };
}

static void h7(struct measure *m, struct arena *a)
{
    (void)a;
    m->ranks[1].major_faults = 300;
    m->ranks[1].memory_stall = 0.2;
    m->ranks[1].rss_bytes = 7.8e9;
    longer(m, 0.03);
}

static void h8(struct measure *m, struct arena *a)
{
    (void)a;
    m->ranks[1].run_queue_s = 0.04;
    m->ranks[1].on_cpu = 0.68;
    m->ranks[1].last_share = 1;
    for (i64 i = 0; i < STEPS; i++)
        m->ranks[1].compute[i] += 0.04;
    longer(m, 0.04);
}

static void h9(struct measure *m, struct arena *a)
{
    (void)a;
    gap(m, HOST_GAP, 1, 13, 0.3);
}

static void k1(struct measure *m, struct arena *a)
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

static void k2(struct measure *m, struct arena *a)
{
    (void)a;
    m->ops[1].skewed_s = 0.02;
}

static void k4_quota(struct measure *m, struct arena *a)
{
    (void)a;
    m->ranks[1].throttled_s = 0.05;
    m->ranks[1].throttles = 1;
    m->ranks[1].last_share = 1;
    for (i64 i = 0; i < STEPS; i++)
        m->ranks[1].compute[i] += 0.05;
    longer(m, 0.05);
}

static void k4_clock(struct measure *m, struct arena *a)
{
    (void)a;
    m->ranks[1].clock = 0.7;
    m->ranks[1].last_share = 1;
    for (i64 i = 0; i < STEPS; i++)
        m->ranks[1].compute[i] /= 0.7;
    longer(m, 0.039);
}

static void k7(struct measure *m, struct arena *a)
{
    (void)a;
    m->ops[0].bytes = 1.2e9;
    m->ops[1].bytes = 1.6e9;
    m->config.batch = 1;
    m->config.seq = 16;
}

static void k8(struct measure *m, struct arena *a)
{
    (void)a;
    m->ceilings.bf16 = 9.2e11;
}

static void k8_isa(struct measure *m, struct arena *a)
{
    (void)a;
    m->ceilings.widest = 9.2e11;
    snprintf(m->config.widest, sizeof m->config.widest, "avx512");
}

static void k10(struct measure *m, struct arena *a)
{
    (void)a;
    m->ops[0].recompute = true;
    m->recompute_bytes = 1e9;
}

static void k14(struct measure *m, struct arena *a)
{
    (void)a;
    m->ops[3].seconds = 0.03;
}

static struct measure_lane *lane(struct measure *m, double exposed)
{
    m->lanes[0].exposed_s = exposed;
    m->lanes[0].busy_s = fmax(m->lanes[0].busy_s, exposed);
    m->lanes[0].transfer_s = m->lanes[0].busy_s;
    longer(m, exposed);
    return &m->lanes[0];
}

static void c1(struct measure *m, struct arena *a) { (void)a; lane(m, 0.020); }

static void c3(struct measure *m, struct arena *a)
{
    (void)a;
    struct measure_lane *l = lane(m, 0.020);
    l->calls = 1;
    l->tail_s = 0.0195;
    l->backward_s = 0;
}

static void c2(struct measure *m, struct arena *a)
{
    (void)a;
    struct measure_lane *l = lane(m, 0.030);
    l->calls = 1000;
    l->bytes = 2e7;
    l->backward_s = 0.01;
}

/* What many pieces cost may be the time of those who begin them, not that of whoever waits. */
static void c2_begun(struct measure *m, struct arena *a)
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

static void c4(struct measure *m, struct arena *a)
{
    (void)a;
    struct measure_lane *l = lane(m, 0.060);
    l->bytes_per_s = 4e8;
    l->transfer_s = l->busy_s = 0.1;
}

static void c5(struct measure *m, struct arena *a)
{
    (void)a;
    struct measure_lane *l = lane(m, 0.030);
    l->latency_s = 2e-3;
    l->transfer_s = l->busy_s = 0.044;
}

static void c9(struct measure *m, struct arena *a)
{
    (void)a;
    m->ops[0].beside_s = 0.0012;
    m->ops[0].beside_calls = 20;
    longer(m, 0.009);
}

static void c10(struct measure *m, struct arena *a)
{
    (void)a;
    struct measure_lane *l = lane(m, 0.020);
    l->turns = 4;
    m->config.micro_batches = m->config.accumulate = 4;
    m->config.zero = 2;
}

static void c11(struct measure *m, struct arena *a)
{
    c4(m, a);
    m->n_links = 6;
    m->links = ARENA_ARRAY(a, struct measure_link, 6);
    i64 n = 0;
    for (int x = 0; x < 4; x++)
        for (int y = x + 1; y < 4; y++)
            m->links[n++] = (struct measure_link){ x, y, 2e9, 2e-5, 2e9, 100 };
    m->links[4].bytes_per_s = 3e8; /* 1-3 */
}

static void b1(struct measure *m, struct arena *a)
{
    (void)a;
    for (i64 i = 0; i < STEPS; i++)
        m->ranks[1].compute[i] += 0.045;
    m->ranks[1].last_share = 1;
    longer(m, 0.045);
}

static void b2(struct measure *m, struct arena *a)
{
    (void)a;
    for (i64 i = 12; i < 30; i++) {
        m->ranks[1].compute[i] += 0.045;
        m->seconds[i] += 0.045;
    }
    measure_settle(m);
}

static void pipeline(struct measure *m, i64 micro_batches)
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

static void b4(struct measure *m, struct arena *a)
{
    (void)a;
    pipeline(m, 64);
    m->stages[1] = 0.13;
    for (i64 i = 0; i < STEPS; i++)
        m->ranks[1].compute[i] += 0.04;
    longer(m, 0.04);
}

static void b5(struct measure *m, struct arena *a)
{
    (void)a;
    pipeline(m, 2);
    longer(m, 0.1);
}

static void b7(struct measure *m, struct arena *a)
{
    m->config.ep = m->n_ranks;
    snprintf(m->ops[0].name, MEASURE_NAME, "expert_linear");
    m->n_experts = 2;
    m->experts = ARENA_ARRAY(a, struct measure_expert_layer, 2);
    m->experts[0] = (struct measure_expert_layer){ 0, 1.2 };
    m->experts[1] = (struct measure_expert_layer){ 1, 2.4 };
}

static void h6(struct measure *m, struct arena *a)
{
    (void)a;
    m->ops[1].watching = true;
    m->ops[1].seconds = 0.02;
    m->config.health_every = 2;
}

/* Two rows of 32 tokens: weights are read for each of 32 micro-batches. */
static void b6(struct measure *m, struct arena *a)
{
    (void)a;
    pipeline(m, 32);
    m->config.batch = 2;
    m->ops[0].bytes = 1.2e9;
    m->ops[1].bytes = 1.6e9;
}

static void r1(struct measure *m, struct arena *a)
{
    (void)a;
    m->failures = 4;
    m->up_s = 400;
    m->retaken_s = 120;
    m->config.checkpoint_every = 800;
}

static void r5(struct measure *m, struct arena *a)
{
    (void)a;
    m->ended = false;
    m->silent_s = 300;
    m->behind_rank = 3;
    m->calls_behind = 1;
}

static void r2(struct measure *m, struct arena *a)
{
    (void)a;
    m->run_s = 1000;
    m->start_s = 400;
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
    { "K7", k7, 1, -1, -1, 0 }, { "K8", k8, 1, -1, -1, 0.035 },
    { "K10", k10, 1, -1, -1, 0.03 }, 
    { "K14", k14, 4, -1, -1, 0.0225 }, { "C1", c1, 4, -1, -1, 0.0195 },
    { "C3", c3, 4, -1, -1, 0.0195 }, { "C2", c2, 4, -1, -1, 0.0295 },
    { "C4", c4, 4, -1, -1, 0.0595 },
    { "C5", c5, 4, -1, -1, 0.0295 }, { "C9", c9, 4, -1, -1, 0.009 },
    { "C10", c10, 4, -1, -1, 0.0195 }, { "C11", c11, 4, 1, 3, 0.0595 },
    { "B1", b1, 4, 1, -1, 0.045 }, { "B1", b1, 2, 1, -1, 0.045 }, { "B2", b2, 2, 1, -1, 0.02 },
    { "B3", b3, 4, -1, -1, 0 }, { "B4", b4, 4, -1, -1, 0 }, { "B5", b5, 4, -1, -1, 0 },
    { "B7", b7, 4, -1, -1, 0.0133 },
    { "K2", k2, 1, -1, -1, 0.02 }, { "R5", r5, 4, 3, -1, 0 }, { "R2", r2, 1, -1, -1, 0.04 },
    { "H6", h6, 2, -1, -1, 0.02 }, { "B6", b6, 4, -1, -1, 0 }, { "R1", r1, 1, -1, -1, 0 },
    { "K8", k8_isa, 1, -1, -1, 0 }, { "C2", c2_begun, 4, -1, -1, 0.0305 },
};

static void tell(const struct findings *f, const struct measure *m)
{
    struct text out = { 0 };
    findings_text(f, m, &out);
    print_message("%s\n", out.data);
    text_fini(&out);
}

TEST(every_planted_fault_is_named_first_with_place_and_cost)
{
    static struct findings f;
    for (i64 i = 0; i < COUNT_OF(all); i++) {
        const struct planted *p = &all[i];
        struct arena a;
        arena_init(&a);
        struct measure *m = usual_run(p->ranks, STEPS, &a);
        p->plant(m, &a);
        findings_make(&f, m, NULL);
        const struct finding *top = &f.at[0];
        if (f.n == 0 || strcmp(top->id, p->id) != 0 || top->place.rank != p->rank ||
            top->place.peer != p->peer ||
            (p->lost > 0 && fabs(top->lost - p->lost) > 0.05 * p->lost + 2e-4)) {
            tell(&f, m);
            fail_msg("%s was planted at rank %d", p->id, p->rank);
        }
        CHECK(top->fix[0] && top->confirm[0] && top->n_evidence > 0);
        if (!top->urgent)
            CHECK(top->gain_lo <= top->gain && top->gain <= top->gain_hi && top->gain > 0);
        CHECK(f.n <= 2); /* what comes of it is not a finding of its own */
        arena_fini(&a);
    }
}

TEST(every_rule_is_planted_and_says_why_its_numbers_are_what_they_are)
{
    for (i64 k = 0; rule_families[k]; k++)
        for (const struct rule *r = rule_families[k]; r->look; r++) {
            bool planted = false;
            for (i64 i = 0; i < COUNT_OF(all); i++)
                planted |= strcmp(all[i].id, r->id) == 0 || rule_behind(r->id);
            if (!planted)
                fail_msg("nothing plants %s", r->id);
            CHECK(r->limit[0].what && r->limit[0].reason);
        }
}

TEST(memory_that_is_left_stands_behind_what_it_would_mend)
{
    static struct findings f;
    static const struct { double peak; i64 accumulate; int n; const char *fix; } cases[] = {
        { 1e9, 1, 2, "--train.batch 28 at least" }, /* of 8 GB, four rows */
        { 4.5e9, 1, 2, "--train.batch 6 at least" },
        { 5e9, 1, 1, NULL },
        { 1e9, 3, 2, "--train.batch 12, all rows of a step at once" },
        { 1e9, 16, 2, "--train.batch 28 at least" },
        { 1e7, 1, 2, "within noise then, and 720.0 times what is in use fits" },
    };
    for (i64 i = 0; i < COUNT_OF(cases); i++) {
        struct arena a;
        arena_init(&a);
        struct measure *m = usual_run(1, STEPS, &a);
        k7(m, &a);
        m->memory_peak_bytes = cases[i].peak;
        m->config.batch = 4;
        m->config.accumulate = cases[i].accumulate;
        m->ceilings.op_s = NAN; /* what was not measured is not told */
        findings_make(&f, m, NULL);
        CHECK_EQ(f.n, cases[i].n);
        CHECK_STR(f.at[0].id, "K7");
        for (int k = 0; k < f.at[0].n_rejected; k++)
            CHECK(!strstr(f.at[0].rejected[k].why, "nan"));
        if (f.n == 2) {
            CHECK_STR(f.at[1].id, "R3");
            CHECK(strstr(f.at[1].fix, cases[i].fix) && strstr(f.at[1].evidence[0], "K7"));
            CHECK_NEAR(f.at[1].gain, f.at[0].gain, 0);
            CHECK(strstr(f.at[1].fix, "--train.batch ") == f.at[1].fix);
            double rows = strtod(f.at[1].fix + strlen("--train.batch "), NULL);
            CHECK(rows <= 4 * ceil(f.at[0].lost / m->theta)); /* not what is of no use */
            CHECK(!strstr(f.at[1].confirm, "--dry-run"));     /* which takes no step */
        }
        arena_fini(&a);
    }
    struct arena a; /* and not where nothing would use it, or nothing may come of it */
    arena_init(&a);
    findings_make(&f, usual_run(1, STEPS, &a), NULL);
    CHECK_EQ(f.n, 0);
    struct measure *m = usual_run(1, STEPS, &a);
    k7(m, &a);
    m->config.batch = 4;
    m->step.se = 0.4 * m->step.mean;
    findings_make(&f, m, NULL);
    CHECK_STR(f.at[0].id, "K7");
    CHECK_NEAR(f.at[0].gain_lo, 0, 0);
    CHECK_EQ(f.n, 1);
    arena_fini(&a);
}

TEST(losses_of_more_than_a_step_are_said_to_overlap)
{
    static const struct { double lost; bool overlaps; } cases[] = { { 0.03, false }, { 0.06, true } };
    for (i64 i = 0; i < COUNT_OF(cases); i++) {
        static struct findings f = { .n = 2, .at = { { .id = "H8", .title = "one" },
                                                     { .id = "K8", .title = "another" } } };
        struct text out = { 0 };
        struct arena a;
        arena_init(&a);
        f.at[0].lost = f.at[1].lost = cases[i].lost;
        findings_text(&f, usual_run(1, STEPS, &a), &out);
        CHECK_EQ(strstr(out.data, "These overlap") != NULL, cases[i].overlaps);
        text_fini(&out);
        arena_fini(&a);
    }
}

/* Young: 0.02 s a checkpoint and a failure in 200 s ask for one every 2.8 s: every 200 s is far from
 * it, every 2 s near enough, and one failure says nothing. */
TEST(checkpoints_are_moved_only_where_failures_ask_for_it)
{
    static struct findings f;
    static const struct { i64 failures, every; double retaken; bool found; } cases[] = {
        { 2, 2000, 60, true }, { 1, 2000, 60, false }, { 2, 20, 1.5, false }, { 0, 2000, 0, false },
    };
    for (i64 i = 0; i < COUNT_OF(cases); i++) {
        struct arena a;
        arena_init(&a);
        struct measure *m = usual_run(1, STEPS, &a);
        m->failures = cases[i].failures;
        m->up_s = 400;
        m->retaken_s = cases[i].retaken;
        m->config.checkpoint_every = cases[i].every;
        for (i64 k = 0; k < STEPS; k++)
            m->ranks[0].gap[HOST_CHECKPOINT][k] = 0.02 / (double)cases[i].every;
        findings_make(&f, m, NULL);
        CHECK_EQ(f.n > 0 && strcmp(f.at[0].id, "R1") == 0, cases[i].found);
        arena_fini(&a);
    }
}

TEST(healthy_runs_of_any_size_have_no_finding)
{
    static struct findings f;
    const i64 ranks[] = { 1, 2, 4, 8 };
    for (i64 i = 0; i < COUNT_OF(ranks); i++) {
        struct arena a;
        arena_init(&a);
        struct measure *m = usual_run(ranks[i], STEPS, &a);
        findings_make(&f, m, NULL);
        if (f.n != 0) {
            tell(&f, m);
            fail();
        }
        struct text out = { 0 };
        findings_text(&f, m, &out);
        CHECK(strstr(out.data, "No finding above 2.00 ms a step"));
        text_fini(&out);
        arena_fini(&a);
    }
}

/* A loader that is late in no way that a rule knows; then one that is. */
TEST(a_loss_that_no_kind_matches_is_said_to_be_unexplained)
{
    static struct findings f;
    struct arena a;
    struct text out = { 0 };
    arena_init(&a);
    struct measure *m = usual_run(1, STEPS, &a);
    for (i64 i = 0; i < STEPS; i++)
        m->ranks[0].data[i] = 0.05;
    longer(m, 0.05);
    findings_make(&f, m, NULL);
    CHECK_EQ(f.n, 0);
    CHECK_NEAR(times_unexplained(m, &f, TIME_DATA), 0.05, 1e-9);
    findings_text(&f, m, &out);
    CHECK(strstr(out.data, "No kind that is known matches, yet 50.00 ms (33.3 %) of waiting for "
                           "data is unexplained."));
    CHECK(!strstr(out.data, "No finding above"));
    text_fini(&out);
    m = usual_run(1, STEPS, &a);
    d1_alone(m, &a);
    findings_make(&f, m, NULL);
    CHECK_STR(f.at[0].id, "D1");
    for (int k = 0; k < TIMES; k++)
        CHECK_NEAR(times_unexplained(m, &f, (enum times_class)k), 0, 0);
    arena_fini(&a);
}

TEST(without_all_ranks_no_rank_and_no_link_is_blamed)
{
    static struct findings f;
    static const char *const ids[] = { "B1", "C4", "K14" };
    for (i64 i = 0; i < COUNT_OF(all); i++)
        for (i64 k = 0; k < COUNT_OF(ids); k++) {
            struct arena a;
            if (strcmp(all[i].id, ids[k]) != 0)
                continue;
            arena_init(&a);
            struct measure *m = usual_run(all[i].ranks, STEPS, &a);
            all[i].plant(m, &a);
            m->missing = 1;
            findings_make(&f, m, NULL);
            CHECK_EQ(f.n, 0);
            m->missing = 0; /* nor where they are there and their clocks are apart */
            m->apart = true;
            findings_make(&f, m, NULL);
            CHECK_EQ(f.n, 0);
            arena_fini(&a);
        }
}

/* A rank that stands in line for its processor all the time, in tasks, exchanges and between them:
 * whatever its processor gives back, its tasks still take what they take on it. */
TEST(what_others_took_is_never_all_of_the_computing)
{
    static struct findings f;
    struct arena a;
    arena_init(&a);
    struct measure *m = usual_run(1, STEPS, &a);
    for (i64 i = 0; i < STEPS; i++)
        m->ranks[0].compute[i] = 0.05;
    m->ranks[0].run_queue_s = 0.136;
    m->ranks[0].on_cpu = 0.14;
    longer(m, 0.1);
    findings_make(&f, m, NULL);
    CHECK_STR(f.at[0].id, "H8");
    CHECK_NEAR(f.at[0].lost, 0.86 * 0.05, 1e-6);
    CHECK_NEAR(f.at[0].edit.factor, 0.14, 1e-6);
    arena_fini(&a);
}

TEST(a_run_of_which_nothing_was_measured_has_no_finding)
{
    static struct findings f;
    struct arena a;
    arena_init(&a);
    findings_make(&f, measure_new(0, 0, &a), NULL);
    CHECK_EQ(f.n, 0);
    struct measure *m = measure_new(3, 10, &a);
    measure_settle(m);
    findings_make(&f, m, NULL);
    CHECK_EQ(f.n, 0);
    arena_fini(&a);
}

TEST(a_rank_whose_experts_are_fuller_is_not_slow_besides)
{
    static struct findings f;
    struct arena a;
    arena_init(&a);
    struct measure *m = usual_run(4, STEPS, &a);
    b7(m, &a);
    for (i64 i = 0; i < m->n_steps; i++) {
        m->ranks[1].compute[i] += 0.02;
        m->ranks[1].step[i] += 0.02;
    }
    m->ranks[1].last_share = 1;
    findings_make(&f, m, NULL);
    CHECK_EQ(f.n, 1);
    CHECK(strcmp(f.at[0].id, "B7") == 0);
    arena_fini(&a);
}

/* Seconds in steps `first`, `first` + period, ... */
static void evaluate(struct measure *m, i64 first, i64 period, double seconds)
{
    for (i64 i = first; i < m->n_steps; i += period) {
        m->seconds[i] += seconds;
        for (i64 r = 0; r < m->n_ranks; r++) {
            m->ranks[r].gap[HOST_EVAL][i] += seconds;
            m->ranks[r].step[i] += seconds;
        }
    }
    measure_settle(m);
}

TEST(an_evaluation_in_every_other_step_is_no_noise_and_one_in_the_end_not_too_often)
{
    static struct findings f;
    struct arena a;
    arena_init(&a);
    struct measure *m = usual_run(2, STEPS, &a);
    m->config.eval_every = 2;
    evaluate(m, 0, 2, 0.5);
    findings_make(&f, m, NULL);
    CHECK_EQ(f.n, 1);
    CHECK(strcmp(f.at[0].id, "H2") == 0);
    CHECK_NEAR(f.at[0].lost, 0.25, 0.01);
    m = usual_run(2, STEPS, &a);
    m->config.eval_every = 0;
    evaluate(m, m->n_steps - 1, 1, 2);
    findings_make(&f, m, NULL);
    CHECK_EQ(f.n, 0);
    arena_fini(&a);
}

/* However often the recipe evaluates: what stands behind the run's last step is done once. */
TEST(what_is_done_behind_the_last_step_is_not_too_often_nor_unexplained)
{
    static const struct { i64 every, first, period; int n; double lost; } cases[] = {
        { 1250, STEPS - 1, 1, 0, 0 },
        { 25, 19, 20, 1, 2. / STEPS }, /* once in the midst, once in the end */
    };
    static struct findings f;
    for (i64 i = 0; i < COUNT_OF(cases); i++) {
        struct arena a;
        struct text out = { 0 };
        arena_init(&a);
        struct measure *m = usual_run(2, STEPS, &a);
        m->config.eval_every = cases[i].every;
        m->final_step = m->numbers[STEPS - 1];
        evaluate(m, cases[i].first, cases[i].period, 2);
        findings_make(&f, m, NULL);
        findings_text(&f, m, &out);
        CHECK_EQ(f.n, cases[i].n);
        CHECK(!strstr(out.data, "unexplained"));
        if (f.n > 0) {
            CHECK_STR(f.at[0].id, "H2");
            CHECK_NEAR(f.at[0].lost, cases[i].lost, 1e-6);
            CHECK(strstr(f.at[0].evidence[0], "1 times in 40 steps"));
        }
        text_fini(&out);
        arena_fini(&a);
    }
}

/* A pause in every fourth step does not come of what is done in every twentieth, whatever that costs. */
TEST(a_pause_comes_of_what_is_done_as_often)
{
    static const struct { i64 pause; bool named; } cases[] = { { 4, true }, { 20, false } };
    static struct findings f;
    for (i64 i = 0; i < COUNT_OF(cases); i++) {
        struct arena a;
        arena_init(&a);
        struct measure *m = usual_run(1, STEPS, &a);
        bool named = false;
        m->config.eval_every = 20;
        evaluate(m, 19, 20, 4);
        gap(m, HOST_GAP, 0, cases[i].pause, 0.3);
        findings_make(&f, m, NULL);
        for (int k = 0; k < f.n; k++)
            named |= strcmp(f.at[k].id, "H9") == 0;
        CHECK_STR(f.at[0].id, "H2");
        CHECK_EQ(named, cases[i].named);
        arena_fini(&a);
    }
}

/* Picking every fourth of 256 would show a pause in every fourth always or never. */
TEST(steps_that_are_replayed_show_what_comes_regularly_as_often_as_all)
{
    enum { TAKE = 64, ALL = 256 };
    for (i64 period = 2; period <= 8; period++) {
        i64 hits[8] = { 0 }, before = -1;
        for (i64 i = 0; i < TAKE; i++) {
            i64 at = whatif_pick(i, TAKE, ALL);
            CHECK(at > before && at < ALL);
            before = at;
            hits[at % period]++;
        }
        for (i64 k = 0; k < period; k++)
            CHECK_NEAR((double)hits[k] * (double)period / TAKE, 1, 0.5);
    }
    for (i64 i = 0; i < TAKE; i++)
        CHECK_EQ(whatif_pick(i, TAKE, TAKE), i);
    struct arena a;
    arena_init(&a);
    struct measure *m = usual_run(2, STEPS, &a);
    evaluate(m, STEPS - 1, 1, 2);
    CHECK(whatif_stands_for(m, STEPS, HOST_EVAL));
    CHECK(!whatif_stands_for(m, STEPS / 4, HOST_EVAL)); /* seen never, or four times too often */
    CHECK(whatif_stands_for(m, STEPS / 4, HOST_LOG));   /* there is none */
    arena_fini(&a);
}

TEST(one_disturbed_step_is_no_jitter)
{
    static struct findings f;
    struct arena a;
    arena_init(&a);
    struct measure *m = usual_run(4, STEPS, &a);
    m->ranks[1].compute[5] += 1;
    m->ranks[1].step[5] += 1;
    m->seconds[5] += 1;
    measure_settle(m);
    findings_make(&f, m, NULL);
    CHECK_EQ(f.n, 0);
    arena_fini(&a);
}

TEST(of_two_faults_both_are_found_the_larger_gain_first)
{
    static struct findings f;
    static const struct { int one, two; } pairs[] = {
        { 29, 24 }, /* B1, C4 */
        { 0, 15 },  /* D1, K4 */
        { 17, 6 },  /* K7, H1 */
    };
    for (i64 i = 0; i < COUNT_OF(pairs); i++) {
        const struct planted *x = &all[pairs[i].one], *y = &all[pairs[i].two];
        struct arena a;
        arena_init(&a);
        struct measure *m = usual_run(4, STEPS, &a);
        x->plant(m, &a);
        y->plant(m, &a);
        findings_make(&f, m, NULL);
        bool has_x = false, has_y = false;
        for (int k = 0; k < f.n && k < 3; k++) {
            has_x |= strcmp(f.at[k].id, x->id) == 0;
            has_y |= strcmp(f.at[k].id, y->id) == 0;
            CHECK(k == 0 || f.at[k].gain <= f.at[k - 1].gain);
        }
        if (!has_x || !has_y) {
            tell(&f, m);
            fail_msg("%s and %s were planted", x->id, y->id);
        }
        arena_fini(&a);
    }
}

/* A replay that finds a quarter of the closed form's gain, and one that does not fit the run. */
static double replayed = 0.155, replay_gain = 0.01;

static double replay_length(void *context, const struct finding_edit *e, double factor)
{
    (void)context;
    return e ? replayed - replay_gain * (1 - factor) : replayed;
}

TEST(gains_come_from_a_replay_only_if_it_fits_the_run)
{
    static struct findings f;
    const struct finding_replay replay = { NULL, replay_length };
    struct arena a;
    arena_init(&a);
    struct measure *m = usual_run(2, STEPS, &a);
    d1(m, &a);
    replayed = m->step.mean;
    findings_make(&f, m, &replay);
    CHECK(f.at[0].replayed);
    CHECK_NEAR(f.at[0].gain, 0.01, 1e-9);
    CHECK(f.at[0].gain_lo < 0.01 && f.at[0].gain_hi > 0.01);
    replay_gain = 0.08; /* more than the rule saw: what comes back was lost */
    findings_make(&f, m, &replay);
    CHECK_NEAR(f.at[0].gain, 0.08, 1e-9);
    CHECK(f.at[0].lost >= f.at[0].gain);
    CHECK_NEAR(f.at[0].share, f.at[0].lost / m->step.mean, 1e-12);
    replay_gain = 0.01;
    replayed = 1.03 * m->step.mean;
    findings_make(&f, m, &replay);
    CHECK(!f.at[0].replayed);
    CHECK_NEAR(f.at[0].gain, 0.05, 1e-6);
    arena_fini(&a);
}

static void b2_alone(struct measure *m, struct arena *a)
{
    (void)a;
    for (i64 i = 12; i < 30; i++) {
        m->ranks[0].compute[i] += 0.045;
        m->seconds[i] += 0.045;
    }
    measure_settle(m);
}

static void b1_of_twelve_rows(struct measure *m, struct arena *a)
{
    b1(m, a);
    m->config.batch = 12;
}

static void b1_in_a_stage(struct measure *m, struct arena *a)
{
    b1(m, a);
    m->config.pp = 2;
}

static double gained(void *context, const struct finding_edit *e, double factor)
{
    (void)context;
    double left = e && e->less + e->less_per_byte > 0 ? 1 - factor : factor;
    return e ? 0.16 - 0.06 * (1 - left) : 0.16;
}

/* Four ranks on two cores: what one slow link leaves idle the others use, so that they tell less of what
 * it could do; and a bandwidth of a third is that of a crowd, not of a slow link. */
TEST(ranks_that_share_cores_are_a_crowd_once_the_link_is_mended)
{
    static struct findings f;
    const struct finding_replay replay = { NULL, gained };
    double low[2], late[2];
    for (int crowded = 0; crowded < 2; crowded++) {
        struct arena a;
        arena_init(&a);
        struct measure *m = usual_run(4, STEPS, &a);
        c11(m, &a);
        m->cores_per_node = crowded ? 2 : 4;
        findings_make(&f, m, &replay);
        CHECK_EQ(f.n, 1);
        CHECK_STR(f.at[0].id, "C11");
        CHECK(f.at[0].replayed);
        low[crowded] = f.at[0].gain_lo;
        m = usual_run(4, STEPS, &a); /* what nothing hides has the crowd's bandwidth */
        c1(m, &a);
        m->lanes[0].bytes_per_s = 0.4 * m->lanes[0].base_bytes_per_s;
        m->cores_per_node = crowded ? 2 : 4;
        findings_make(&f, m, NULL);
        CHECK_EQ(f.n > 0 && strcmp(f.at[0].id, "C1") == 0, crowded);
        m = usual_run(4, STEPS, &a); /* and of a delay, which also keeps bytes apart */
        c5(m, &a);
        m->lanes[0].latency_s = 12 * m->lanes[0].base_latency_s;
        m->lanes[0].calls = 1400;
        longer(m, 0.03); /* as long as what is replayed */
        m->cores_per_node = crowded ? 2 : 4;
        findings_make(&f, m, &replay);
        CHECK_STR(f.at[0].id, "C5");
        late[crowded] = f.at[0].gain_lo;
        m = usual_run(4, STEPS, &a);
        c4(m, &a);
        m->lanes[0].bytes_per_s = 0.31 * m->lanes[0].base_bytes_per_s;
        m->cores_per_node = crowded ? 2 : 4;
        findings_make(&f, m, NULL);
        CHECK_EQ(f.n > 0 && strcmp(f.at[0].id, "C4") == 0, !crowded);
        arena_fini(&a);
    }
    CHECK(low[0] > 0 && low[1] < 0.9 * low[0]);
    CHECK(late[0] > 0 && late[1] < 0.95 * late[0]);
}

TEST(fixes_fit_the_run_they_are_given_to)
{
    static struct findings f;
    static const struct {
        void (*plant)(struct measure *m, struct arena *a);
        i64 ranks;
        const char *id, *says, *never;
    } cases[] = {
        { b1_of_twelve_rows, 4, "B1", "--layout.dp 3", "--layout.stages" },
        { b1, 4, "B1", "another host", "--layout.dp" }, /* three ranks cannot share four rows */
        { b1_in_a_stage, 4, "B1", "--layout.stages", "--layout.dp" },
        { b2_alone, 1, "B2", "the step became slow", "peers" },
        { b2, 2, "B2", "a rank became slow", "behind it" },
        { h8, 2, "H8", "top -H on node1", "PID" },
        { h9, 2, "H9", "perf trace", "PID" },
        { c1, 4, "C1", "--layout.sums ready", "without --inject" },
    };
    for (i64 i = 0; i < COUNT_OF(cases); i++) {
        struct arena a;
        struct text out = { 0 };
        arena_init(&a);
        struct measure *m = usual_run(cases[i].ranks, STEPS, &a);
        cases[i].plant(m, &a);
        findings_make(&f, m, NULL);
        findings_text(&f, m, &out);
        if (strcmp(f.at[0].id, cases[i].id) != 0 || !strstr(out.data, cases[i].says) ||
            strstr(out.data, cases[i].never))
            fail_msg("%s", out.data);
        text_fini(&out);
        arena_fini(&a);
    }
}

TEST(findings_are_json_that_reads_back)
{
    static struct findings f;
    struct arena a;
    struct json j;
    json_t *o;
    arena_init(&a);
    struct measure *m = usual_run(4, STEPS, &a);
    c11(m, &a);
    findings_make(&f, m, NULL);
    json_writer_init(&j);
    findings_json(&f, &j);
    CHECK_OK(json_parse(j.out.data, j.out.length, "findings", &o));
    json_t *top = json_array_get(o, 0), *place = json_object_get(top, "place");
    CHECK_STR(json_string_value(json_object_get(top, "id")), "C11");
    CHECK_EQ(json_integer_value(json_object_get(place, "peer")), 3);
    CHECK(json_is_null(json_object_get(place, "stage")));
    CHECK_EQ(json_array_size(json_object_get(top, "gain_s")), 3);
    json_decref(o);
    json_writer_fini(&j);
    arena_fini(&a);
}

TEST(commands_can_be_pasted_and_what_is_too_long_stays)
{
    static struct findings f = { .n = 2 };
    char folder[2 * FINDING_TEXT];
    struct arena a;
    arena_init(&a);
    const struct measure *m = usual_run(2, STEPS, &a);
    snprintf(f.at[0].confirm, FINDING_TEXT, "headway train RECIPE --layout.zero 1");
    snprintf(f.at[1].confirm, FINDING_TEXT, "headway diagnose RUN --steps 3-9");
    memset(folder, 'x', sizeof folder);
    folder[sizeof folder - 1] = '\0';
    findings_name_run(&f, folder, m);
    CHECK_STR(f.at[0].confirm, "headway train RECIPE --layout.zero 1");
    findings_name_run(&f, "runs/a", m);
    CHECK_STR(f.at[0].confirm, "headway train runs/a/recipe.yaml --ranks 2 --measure "
                               "--train.steps 40 --run.name confirm --layout.zero 1");
    CHECK_STR(f.at[1].confirm, "headway diagnose runs/a --steps 3-9");
    arena_fini(&a);
}

/* --measure evaluates and saves nothing: with it, that less of it helps cannot be seen. */
TEST(what_evaluates_or_saves_is_confirmed_by_a_run_that_does)
{
    static const struct {
        void (*plant)(struct measure *m, struct arena *a);
        const char *confirm;
    } cases[] = {
        { h1, "headway train runs/a/recipe.yaml --measure --train.steps 40 --run.name confirm "
              "--log.every 10" },
        { h2, "headway train runs/a/recipe.yaml --train.steps 40 --run.name confirm --eval.every 25" },
        { h3, "headway train runs/a/recipe.yaml --train.steps 40 --run.name confirm "
              "--checkpoint.async true" },
        { r1, "headway train runs/a/recipe.yaml --train.steps" },
    };
    static struct findings f;
    for (i64 i = 0; i < COUNT_OF(cases); i++) {
        struct arena a;
        arena_init(&a);
        struct measure *m = usual_run(1, STEPS, &a);
        cases[i].plant(m, &a);
        findings_make(&f, m, NULL);
        findings_name_run(&f, "runs/a", m);
        if (strncmp(f.at[0].confirm, cases[i].confirm, strlen(cases[i].confirm)) != 0)
            fail_msg("%s", f.at[0].confirm);
        arena_fini(&a);
    }
}

/* Nothing real is started, and no machine looked at, for what was only simulated. */
TEST(a_simulated_run_is_confirmed_by_simulating)
{
    static struct findings f = { .n = 2 };
    struct arena a;
    arena_init(&a);
    struct measure *m = usual_run(8, STEPS, &a);
    m->config.simulated = true;
    snprintf(m->config.rates, sizeof m->config.rates, " --rates link=1e9");
    snprintf(f.at[0].confirm, FINDING_TEXT, "headway train RECIPE --layout.zero 1");
    snprintf(f.at[1].confirm, FINDING_TEXT, "headway machine --again on virtual");
    findings_name_run(&f, "runs/a", m);
    CHECK_STR(f.at[0].confirm, "headway train runs/a/recipe.yaml --clock virtual --rates link=1e9 "
                               "--train.steps 40 --run.name confirm --layout.zero 1");
    CHECK_STR(f.at[1].confirm, "headway train runs/a/recipe.yaml --clock virtual --rates link=1e9 "
                               "--train.steps 40 --run.name confirm --run.inject ''");
    arena_fini(&a);
}

TEST_MAIN(ONE(what_evaluates_or_saves_is_confirmed_by_a_run_that_does),
          ONE(a_simulated_run_is_confirmed_by_simulating),
          ONE(commands_can_be_pasted_and_what_is_too_long_stays),
          ONE(every_planted_fault_is_named_first_with_place_and_cost),
          ONE(every_rule_is_planted_and_says_why_its_numbers_are_what_they_are),
          ONE(healthy_runs_of_any_size_have_no_finding),
          ONE(memory_that_is_left_stands_behind_what_it_would_mend),
          ONE(losses_of_more_than_a_step_are_said_to_overlap),
          ONE(checkpoints_are_moved_only_where_failures_ask_for_it),
          ONE(a_loss_that_no_kind_matches_is_said_to_be_unexplained),
          ONE(without_all_ranks_no_rank_and_no_link_is_blamed),
          ONE(what_others_took_is_never_all_of_the_computing),
          ONE(a_run_of_which_nothing_was_measured_has_no_finding),
          ONE(of_two_faults_both_are_found_the_larger_gain_first),
          ONE(one_disturbed_step_is_no_jitter),
          ONE(an_evaluation_in_every_other_step_is_no_noise_and_one_in_the_end_not_too_often),
          ONE(what_is_done_behind_the_last_step_is_not_too_often_nor_unexplained),
          ONE(a_pause_comes_of_what_is_done_as_often),
          ONE(steps_that_are_replayed_show_what_comes_regularly_as_often_as_all),
          ONE(a_rank_whose_experts_are_fuller_is_not_slow_besides),
          ONE(gains_come_from_a_replay_only_if_it_fits_the_run),
          ONE(ranks_that_share_cores_are_a_crowd_once_the_link_is_mended),
          ONE(fixes_fit_the_run_they_are_given_to),
          ONE(findings_are_json_that_reads_back))
