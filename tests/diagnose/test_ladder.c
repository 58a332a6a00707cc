/* The factors multiply to the MFU whatever the durations are; the path sums to the step; and each
 * family of losses moves its own rung. Steps of real runs, and the same with random durations. */
#define JOB_DIR "ladder-test"
#include "diagnose/runs.h"

#include "base/rng.h"
#include "diagnose/critical.h"
#include "diagnose/ladder.h"
#include "diagnose/measure_record.h"
#include "diagnose/pace.h"
#include "diagnose/stragglers.h"

#include <math.h>

static const struct {
    const char *name, *layout;
    const char *sets[4];
} runs[] = {
    { "one", "single", { "train.accumulate=2" } },
    { "dp", "dp=2,zero=1", { "train.batch=4" } },
    { "copies", "dp=2", { "train.batch=4" } },
    { "tp", "tp=2", { "train.batch=4" } },
    { "pp", "pp=2", { "train.accumulate=4" } },
};

static void make_runs(void)
{
    make_corpus();
    for (i64 i = 0; i < COUNT_OF(runs); i++)
        if (strcmp(runs[i].layout, "single") == 0)
            CHECK_OK(train(runs[i].name, (const char **)(uintptr_t)runs[i].sets, false, NULL));
        else
            run_layout(runs[i].name, runs[i].layout, (const char **)(uintptr_t)runs[i].sets);
}

/* Jobs of tests have no measured peak: one is planted. */
static void set_ceilings(struct record *r)
{
    for (int p = 0; p < r->n_parts; p++)
        for (int k = 0; k < r->parts[p].ranks; k++) {
            struct record_head *h = r->parts[p].heads[k];
            h->flops_f32 = 1e11;
            h->flops_bf16 = 2e11;
            h->memory_bytes_per_s = 2e10;
        }
}

static double product_of(const struct ladder *l)
{
    double f[LADDER_FACTORS], product = 1;
    ladder_factors(l, f);
    for (int i = 0; i < LADDER_FACTORS; i++)
        product *= f[i];
    return product;
}

static void check_product(const struct ladder *l)
{
    CHECK(ladder_mfu(l) > 0 && ladder_mfu(l) < 1);
    CHECK_NEAR(product_of(l) / ladder_mfu(l), 1, 1e-9);
}

TEST(the_factors_of_real_runs_multiply_to_the_mfu)
{
    make_runs();
    for (i64 i = 0; i < COUNT_OF(runs); i++) {
        struct record r;
        struct record_step s = { 0 };
        struct ladder l = { 0 };
        struct usual u;
        struct arena a;
        struct dag *g;
        int longer = 0;
        open_run(&r, runs[i].name);
        set_ceilings(&r);
        for (int k = 0; k < r.parts[0].ranks; k++) /* which no rank attains */
            r.parts[0].heads[k]->flops_f32 = 1e13;
        arena_init(&a);
        u = (struct usual){ .arena = &a };
        CHECK_OK(usual_of_steps(&u, &r, r.steps, r.n_steps));
        CHECK(u.n > 0);
        for (i64 k = 0; k < r.n_steps; k++) {
            struct rungs x;
            CHECK_OK(record_step(&r, r.steps[k], &s));
            CHECK_OK(dag_new(&g, &s));
            rungs_measure(&x, &s, g, &u);
            const double *rungs = x.seconds;
            /* Each takes something away; with the host's, all ranks begin at once, which a busy
             * machine turns into a longer step now and then. */
            CHECK(rungs[RUNG_DATA] <= rungs[RUNG_STEP] + 1e-12);
            longer += rungs[RUNG_HOST] > 1.1 * rungs[RUNG_DATA];
            CHECK(longer <= 2);
            CHECK(rungs[RUNG_TRANSFER] <= rungs[RUNG_BALANCE] + 1e-12);
            ladder_add(&l, &r, &s, g, &u);
        }
        ladder_add_retaken(&l, &r);
        CHECK_EQ(l.steps, 8);
        check_product(&l);
        CHECK_NEAR(ladder_peak(&l), 1e13, 1); /* that of the run's precision */
        /* The wall time is that of the run, as far as it is recorded. */
        double wall = 1e-9 * (double)(r.parts[0].end_ns - r.parts[0].begin_ns);
        CHECK_NEAR(l.wall_s / wall, 1, 0.02);
        arena_fini(&a);
        record_step_free(&s);
        record_close(&r);
    }
}

static double uniform(u64 *counter)
{
    struct rng r = { 11, 12 };
    return 1e-16 * (double)(rng_u64(&r, (*counter)++) >> 11);
}

/* Lengths with these computing times, a loss taken away in arrays: the rungs up to RUNG_TRANSFER. */
static void rungs_one_by_one(const struct record_step *s, const struct dag *g,
                             const struct computing *usual, double out[RUNGS])
{
    static const u32 gone[RUNGS] = {
        [RUNG_STEP] = 1u << DAG_EVAL | 1u << DAG_CHECKPOINT, [RUNG_DATA] = 1u << DAG_DATA,
        [RUNG_HOST] = 1u << DAG_LOG | 1u << DAG_REST,
        [RUNG_TRANSFER] = 1u << DAG_WAIT | 1u << DAG_OUTER | 1u << DAG_MEET | 1u << DAG_BEGIN |
                          1u << DAG_CALL };
    double *seconds = ARENA_ARRAY(s->arena, double, g->n);
    double *lead = ARENA_ARRAY(s->arena, double, g->n);
    bool *all = ARENA_ARRAY(s->arena, bool, g->n_ranks);
    struct dag apart = *g;
    memcpy(seconds, g->seconds, (size_t)g->n * sizeof *seconds);
    memcpy(lead, g->lead, (size_t)g->n * sizeof *lead);
    memset(all, 1, (size_t)g->n_ranks * sizeof *all);
    for (int rung = RUNG_STEP; rung <= RUNG_TRANSFER; rung++) {
        i64 at[8] = { 0 };
        for (i64 i = 0; i < g->n; i++) {
            const struct dag_node *n = &g->nodes[i];
            const double f = n->rank < 0 ? 1 : usual_speed_of(&s->ranks[n->rank]).clock;
            const double u = n->rank < 0 ? 1 : usual_speed_of(&s->ranks[n->rank]).on_cpu;
            seconds[i] = gone[rung] & 1u << n->kind ? 0 : seconds[i];
            if (n->kind != DAG_COMPUTE)
                continue;
            const double t = g->seconds[i] * f;
            seconds[i] = rung == RUNG_CLOCK ? t : rung == RUNG_CPU ? t * u : seconds[i];
            if (rung >= RUNG_BALANCE)
                seconds[i] = usual->ranks[n->rank].seconds[at[n->rank]++];
        }
        if (rung == RUNG_HOST) {
            dag_scale_gaps(g, all, 0, seconds, lead);
            apart.starts = ARENA_ARRAY(s->arena, double, g->n_ranks);
        }
        out[rung] = dag_length(&apart, seconds, lead, NULL);
    }
}

/* Half of the ranks' clocks, and processors, are worse than the others'. */
static void plant_speeds(struct record_step *s)
{
    for (int k = 0; k < s->n_ranks; k++) {
        struct sample *x = ARENA_NEW(s->arena, struct sample);
        *x = (struct sample){ .has = SAMPLE_CLOCK | SAMPLE_SCHED, .phi = k % 2 ? 0.7 : 1,
                              .run_ns = 80, .queue_ns = k % 2 ? 20 : 0 };
        s->ranks[k].sample = x;
    }
}

TEST(rungs_side_by_side_are_those_one_after_another)
{
    for (i64 i = 0; i < COUNT_OF(runs); i++) {
        struct record r;
        struct record_step s = { 0 };
        struct arena a;
        struct dag *g;
        open_run(&r, runs[i].name);
        arena_init(&a);
        struct usual u = { .arena = &a };
        CHECK_OK(usual_of_steps(&u, &r, r.steps, r.n_steps));
        for (i64 k = 0; k < r.n_steps; k++) {
            struct rungs at_once;
            double one_by_one[RUNGS];
            CHECK_OK(record_step(&r, r.steps[k], &s));
            CHECK_OK(dag_new(&g, &s));
            if (k % 2)
                plant_speeds(&s);
            rungs_measure(&at_once, &s, g, &u);
            rungs_one_by_one(&s, g, &at_once.usual, one_by_one);
            for (int rung = RUNG_STEP; rung <= RUNG_TRANSFER; rung++)
                CHECK_NEAR(at_once.seconds[rung], one_by_one[rung], 0);
        }
        record_step_free(&s);
        arena_fini(&a);
        record_close(&r);
    }
}

TEST(random_durations_keep_the_product_and_the_path)
{
    u64 counter = 0;
    for (i64 i = 0; i < COUNT_OF(runs); i++) {
        struct record r;
        struct record_step s = { 0 };
        struct ladder l = { 0 };
        struct arena a;
        struct dag *g;
        arena_init(&a);
        struct critical c = { .arena = &a };
        struct usual u = { .arena = &a };
        open_run(&r, runs[i].name);
        set_ceilings(&r);
        CHECK_OK(usual_of_steps(&u, &r, r.steps, r.n_steps / 2)); /* of other durations */
        double sum = 0;
        for (int draw = 0; draw < 80; draw++) {
            CHECK_OK(record_step(&r, r.steps[draw % r.n_steps], &s));
            CHECK_OK(dag_new(&g, &s));
            for (i64 k = 0; k < g->n; k++) {
                bool never = g->nodes[k].kind == DAG_READY;
                g->seconds[k] = never ? 0 : uniform(&counter) * (draw % 3 ? 1e-3 : 1);
                g->lead[k] = never ? 0 : 1e-3 * uniform(&counter);
            }
            dag_settle(g);
            g->measured = g->length;
            sum += g->measured;
            ladder_add(&l, &r, &s, g, &u);
            critical_add(&c, &s, g);
        }
        check_product(&l);
        CHECK_NEAR(c.seconds / sum, 1, 1e-12);
        record_step_free(&s);
        arena_fini(&a);
        record_close(&r);
    }
}

TEST(what_was_not_measured_is_not_known_and_is_1_in_the_product)
{
    struct record r;
    struct record_step s = { 0 };
    struct ladder l = { 0 };
    struct dag *g;
    double f[LADDER_FACTORS];
    open_run(&r, "dp");
    set_ceilings(&r);
    for (int k = 0; k < 2; k++)
        r.parts[0].heads[k]->memory_bytes_per_s = 0;
    for (i64 k = 0; k < r.n_steps; k++) {
        CHECK_OK(record_step(&r, r.steps[k], &s));
        s.ranks[0].sample = s.ranks[1].sample = NULL;
        CHECK_OK(dag_new(&g, &s));
        ladder_add(&l, &r, &s, g, &(struct usual){ 0 }); /* nor what is usual */
    }
    ladder_factors(&l, f);
    check_product(&l);
    CHECK(!ladder_known(&l, LADDER_CPU) && !ladder_known(&l, LADDER_CLOCK));
    CHECK(!ladder_known(&l, LADDER_MEMORY));
    CHECK(f[LADDER_CPU] == 1 && f[LADDER_CLOCK] == 1 && f[LADDER_MEMORY] == 1);
    CHECK(ladder_known(&l, LADDER_DATA) && ladder_known(&l, LADDER_ATTAIN));
    CHECK(ladder_known(&l, LADDER_DTYPE) && ladder_known(&l, LADDER_BALANCE));
    record_step_free(&s);
    record_close(&r);
}

/* The whole run's ladder at such ceilings. */
static struct ladder climb(const char *name, double flops, double memory, struct arena *a)
{
    struct record r;
    struct record_step s = { 0 };
    struct ladder l = { 0 };
    struct usual u = { .arena = a };
    struct measure *m;
    struct dag *g;
    open_run(&r, name);
    set_ceilings(&r);
    for (int k = 0; k < r.parts[0].ranks; k++) {
        r.parts[0].heads[k]->flops_f32 = flops;
        r.parts[0].heads[k]->memory_bytes_per_s = memory;
    }
    CHECK_OK(usual_of_steps(&u, &r, r.steps, r.n_steps));
    for (i64 k = 0; k < r.n_steps; k++) {
        CHECK_OK(record_step(&r, r.steps[k], &s));
        CHECK_OK(dag_new(&g, &s));
        ladder_add(&l, &r, &s, g, &u);
    }
    CHECK_OK(measure_record(&m, &r, JOB_DIR, &(struct measure_range){ .last = -1 }, a));
    for (i64 i = 0; i < m->n_ops; i++)
        if (m->ops[i].seconds > 0.02 * m->compute && strncmp(m->ops[i].name, "attention", 9) != 0)
            CHECK(m->ops[i].flops / m->ceilings.used < 1.03 * m->ops[i].seconds);
    CHECK((m->peak_probed > 0) == (m->ceilings.used > flops));
    record_step_free(&s);
    record_close(&r);
    return l;
}

/* Probed while others had the processor; and bytes that come from a cache. */
TEST(no_kernel_goes_beyond_its_ceilings)
{
    static const double flops[] = { 1e6, 1e15, 1e6 }, memory[] = { 1e15, 1e3, 1e3 };
    for (int i = 0; i < 3; i++)
        for (i64 k = 0; k < COUNT_OF(runs); k++) {
            struct arena a;
            arena_init(&a);
            const struct ladder l = climb(runs[k].name, flops[i], memory[i], &a);
            double f[LADDER_FACTORS];
            ladder_factors(&l, f);
            check_product(&l);
            CHECK(f[LADDER_ATTAIN] <= 1 && f[LADDER_MEMORY] <= 1);
            if (memory[i] < 1e4) /* every kernel is at what it attained in its best steps */
                CHECK(f[LADDER_ATTAIN] > 0.1);
            CHECK((ladder_peak(&l) > 2e6) == (flops[i] < 1e7 || flops[i] > 1e14));
            arena_fini(&a);
        }
}

/* One format, of which some tasks, attention's say, took less than their FLOPs at its peak. */
TEST(kernels_beyond_their_ceilings_lend_no_format_a_higher_peak)
{
    const struct ladder l = { .at_peak_s = 6, .at_dtype_s = 6, .at_roofline_s = 5, .compute_s = 10 };
    const struct ladder most = { .at_peak_s = 6, .at_dtype_s = 8, .at_roofline_s = 9, .compute_s = 7 };
    double f[LADDER_FACTORS];
    ladder_factors(&l, f);
    CHECK_NEAR(f[LADDER_DTYPE], 1, 1e-12);
    CHECK_NEAR(f[LADDER_MEMORY], 1, 1e-12);
    CHECK_NEAR(f[LADDER_ATTAIN], 0.6, 1e-12);
    ladder_factors(&most, f);
    CHECK_NEAR(f[LADDER_ATTAIN], 1, 1e-12);
    CHECK_NEAR(f[LADDER_DTYPE] * f[LADDER_MEMORY], 6. / 7, 1e-12);
}

/* All were probed in one sitting: what hid the peak of the products' dtype hid those of the others. */
TEST(a_peak_in_use_that_was_probed_too_low_raises_those_beside_it)
{
    struct attained_peak peaks[] = { { .rank = 1, .dtype = DTYPE_BF16, .ratio = 3 },
                                     { .rank = 2, .dtype = DTYPE_F32, .ratio = 2 } };
    const struct attained a = { .peaks = peaks, .n_peaks = COUNT_OF(peaks) };
    struct record_head h = { .rank = 1, .precision = "bf16", .flops_f32 = 10, .flops_bf16 = 40 };
    CHECK_NEAR(attained_peak(&a, &h, DTYPE_BF16), 120, 1e-9);
    CHECK_NEAR(attained_peak(&a, &h, DTYPE_F32), 30, 1e-9);
    h.rank = 2; /* whose products have not shown that theirs is too low */
    CHECK_NEAR(attained_peak(&a, &h, DTYPE_BF16), 40, 1e-9);
    CHECK_NEAR(attained_peak(&a, &h, DTYPE_F32), 20, 1e-9);
    h.rank = 0;
    CHECK_NEAR(attained_peak(&a, &h, DTYPE_F32), 10, 1e-9);
}

/* --- what each loss moves ----------------------------------------------------------- */

struct planted {
    double data, host, transfer; /* seconds more: of loads; before the first task; of each call */
    double kernels;              /* factor of all tasks; 0: 1 */
    double slow;                 /* factor of the tasks of rank 1, likewise */
    double slow_steps;           /* of all tasks in every third step, likewise */
    double jitter;               /* of an action up to so much, as a share; another one each time */
    bool at_one;                 /* of rank 1 alone */
    double clock, on_cpu;        /* tasks take that much longer and samples say why, likewise */
    bool false_alarm;            /* in every third step samples say so of tasks that take no longer */
    bool half;                   /* tasks do half of the FLOPs that a rank can, and wait for no byte */
    bool sleeps;                 /* with half: as long as its FLOPs ask for, less in some steps */
    bool documents;              /* of other lengths in each step and rank */
    u64 idle;                    /* of 100 places, how many serve no token that counts */
};

static double or_1(double x)
{
    return x > 0 ? x : 1;
}

/* Of the pairs of tokens in whole rows, those that attend to each other. */
static double attended(const struct planted *p, i64 step, int rank)
{
    return p->documents ? 0.2 + 0.1 * (double)((step + 3 * rank) % 5) : 1;
}

static double seconds_of_task(const struct planted *p, const struct dag_node *n, i64 step)
{
    const u64 use = (u64)step << 32 | (u64)n->rank << 16 | n->action;
    const double drawn = p->at_one && n->rank != 1
                             ? 0 : 1e-16 * (double)(rng_u64(&(struct rng){ 3, 4 }, use) >> 11);
    return 1e-4 * or_1(p->kernels) * (n->rank == 1 ? or_1(p->slow) : 1) *
           (step % 3 == 0 ? or_1(p->slow_steps) : 1) * (1 + p->jitter * drawn) /
           or_1(p->clock) / or_1(p->on_cpu);
}

/* Tasks alike everywhere, on a quiet machine, but for what is planted. */
static void plant(const struct planted *p, struct record_step *s, struct dag *g)
{
    bool first[2] = { true, true };
    for (int r = 0; r < s->n_ranks; r++) {
        struct sample *x = ARENA_NEW(s->arena, struct sample);
        *x = (struct sample){ .has = SAMPLE_ROWS | SAMPLE_CLOCK | SAMPLE_SCHED, .tokens = 100,
                              .tokens_idle = p->idle, .phi = or_1(p->clock), .run_ns = 1000 };
        x->queue_ns = (u64)lround(1000 / or_1(p->on_cpu) - 1000);
        x->queue_ns = p->false_alarm && s->step % 3 == 0 ? 1000 : x->queue_ns;
        x->attended = 50 * (double)(s->ranks[r].table->T + 1) * attended(p, s->step, r);
        s->ranks[r].sample = x;
    }
    for (i64 i = 0; i < g->n; i++) {
        const struct dag_node *n = &g->nodes[i];
        g->seconds[i] = 0;
        g->lead[i] = n->kind == DAG_READY ? 0 : 1e-6;
        if (n->kind == DAG_DATA)
            g->seconds[i] = p->data;
        if (n->kind == DAG_CALL) /* a tenth of the step and more */
            g->seconds[i] = 4e-4 + p->transfer;
        if (n->kind == DAG_COMPUTE) {
            g->lead[i] += first[n->rank] ? p->host : 0;
            first[n->rank] = false;
            g->seconds[i] = seconds_of_task(p, n, s->step);
            if (p->half)
                g->seconds[i] = 2 * n->task->flops / s->ranks[n->rank].head->flops_f32;
            if (p->half && strncmp(n->task->op, "attention", 9) == 0)
                g->seconds[i] *= attended(p, s->step, n->rank);
            if (p->sleeps)
                g->seconds[i] *= s->step % 3 == 0 ? 0.05 : 0.5;
        }
    }
    dag_settle(g);
    g->measured = g->length;
}

/* Factors of a run's steps with something planted in all of them. */
static void planted_factors(const char *name, const struct planted *p, double f[LADDER_FACTORS])
{
    struct record r;
    struct record_step s = { 0 };
    struct ladder l = { 0 };
    struct arena a;
    struct dag *g;
    arena_init(&a);
    struct usual u = { .arena = &a };
    open_run(&r, name);
    set_ceilings(&r);
    for (int k = 0; k < r.parts[0].ranks && p->half; k++)
        r.parts[0].heads[k]->memory_bytes_per_s = 1e18;
    for (int k = 0; k < r.parts[0].ranks && p->sleeps; k++)
        r.parts[0].heads[k]->backend = "none";
    for (int pass = 0; pass < 2; pass++) {
        for (i64 k = 1; k < r.n_steps; k++) {
            CHECK_OK(record_step(&r, r.steps[k], &s));
            CHECK_OK(dag_new(&g, &s));
            plant(p, &s, g);
            if (pass == 0)
                usual_add(&u, &s, g);
            else
                ladder_add(&l, &r, &s, g, &u);
        }
        if (pass == 0)
            usual_settle(&u);
    }
    check_product(&l);
    ladder_factors(&l, f);
    arena_fini(&a);
    record_step_free(&s);
    record_close(&r);
}

/* Only this factor may have moved by more than two points. */
static void expect_moved(const char *name, const struct planted *p, enum ladder_factor moved)
{
    double before[LADDER_FACTORS], after[LADDER_FACTORS];
    planted_factors(name, &(struct planted){ 0 }, before);
    planted_factors(name, p, after);
    CHECK(after[moved] < 0.9 * before[moved]);
    for (int i = 0; i < LADDER_FACTORS; i++)
        if (i != (int)moved)
            CHECK_NEAR(after[i], before[i], 0.02);
}

TEST(each_loss_moves_its_own_rung_and_no_other)
{
    const char *const layouts[] = { "dp", "copies", "tp", "pp" };
    for (i64 i = 0; i < COUNT_OF(layouts); i++) {
        const char *name = layouts[i];
        expect_moved(name, &(struct planted){ .data = 0.05 }, LADDER_DATA);
        expect_moved(name, &(struct planted){ .host = 0.05 }, LADDER_HOST);
        expect_moved(name, &(struct planted){ .clock = 0.6 }, LADDER_CLOCK);
        expect_moved(name, &(struct planted){ .on_cpu = 0.5 }, LADDER_CPU);
        expect_moved(name, &(struct planted){ .slow = 2 }, LADDER_BALANCE);
        expect_moved(name, &(struct planted){ .slow_steps = 2 }, LADDER_BALANCE);
        expect_moved(name, &(struct planted){ .jitter = 0.6 }, LADDER_BALANCE);
        if (strcmp(name, "pp") != 0) /* there none does the same */
            expect_moved(name, &(struct planted){ .jitter = 0.6, .at_one = true }, LADDER_BALANCE);
        expect_moved(name, &(struct planted){ .transfer = 0.05 }, LADDER_TRANSFER);
        expect_moved(name, &(struct planted){ .idle = 50 }, LADDER_USEFUL);
    }
    expect_moved("one", &(struct planted){ .kernels = 3 }, LADDER_ATTAIN);
}

TEST(kernels_are_not_better_than_where_nothing_had_to_be_put_right)
{
    double before[LADDER_FACTORS], after[LADDER_FACTORS];
    planted_factors("copies", &(struct planted){ 0 }, before);
    planted_factors("copies", &(struct planted){ .false_alarm = true }, after);
    CHECK(after[LADDER_CPU] < 0.9);
    CHECK_NEAR(after[LADDER_CPU] * after[LADDER_BALANCE], 1, 0.02);
    CHECK_NEAR(after[LADDER_ATTAIN], before[LADDER_ATTAIN], 1e-6);
}

/* Attention that looks at fewer pairs is no better a kernel, nor are those of other steps worse than in
 * the step with the shortest documents. */
TEST(documents_of_any_length_leave_kernels_as_they_are)
{
    double whole[LADDER_FACTORS], cut[LADDER_FACTORS];
    planted_factors("copies", &(struct planted){ .half = true }, whole);
    planted_factors("copies", &(struct planted){ .half = true, .documents = true }, cut);
    CHECK_NEAR(whole[LADDER_ATTAIN], 0.5, 1e-6);
    CHECK_NEAR(cut[LADDER_ATTAIN], 0.5, 1e-6);
    CHECK_NEAR(cut[LADDER_USEFUL], whole[LADDER_USEFUL], 0.02);
    CHECK(cut[LADDER_BALANCE] < whole[LADDER_BALANCE] - 1e-4); /* ranks wait for longer ones */
}

TEST(sleep_that_is_cut_short_to_catch_up_is_not_what_tasks_take)
{
    static const char *const layouts[] = { "copies", "tp", "pp" };
    for (i64 i = 0; i < COUNT_OF(layouts); i++) {
        double f[LADDER_FACTORS];
        planted_factors(layouts[i], &(struct planted){ .half = true, .sleeps = true }, f);
        CHECK_NEAR(f[LADDER_ATTAIN], 1, 1e-6);
        CHECK_NEAR(f[LADDER_DTYPE], 1, 1e-6);
    }
}

/* Paces of a step where a task takes 1e-4 s, and more at rank 1: if it is of that op, or of any. */
static void planted_paces(const char *name, const char *op, double slower, double pace[2])
{
    struct record r;
    struct record_step s = { 0 };
    struct dag *g;
    open_run(&r, name);
    CHECK_OK(record_step(&r, r.steps[4], &s));
    CHECK_OK(dag_new(&g, &s));
    for (i64 i = 0; i < g->n; i++) {
        const struct dag_node *n = &g->nodes[i];
        if (n->kind == DAG_COMPUTE)
            g->seconds[i] = 1e-4 * (n->rank == 1 && (!op || strcmp(n->task->op, op) == 0) ? slower : 1);
    }
    struct computing c;
    computing_open(&c, &s, g);
    pace_of_ranks(&c, pace);
    record_step_free(&s);
    record_close(&r);
}

TEST(a_slow_rank_is_told_from_one_with_more_to_do)
{
    double pace[2];
    const char *const shared[] = { "dp", "copies", "tp", "pp" };
    for (i64 i = 0; i < COUNT_OF(shared); i++) {
        planted_paces(shared[i], NULL, 1.5, pace);
        CHECK_NEAR(pace[0], 1, 1e-12);
        CHECK_NEAR(pace[1], 1.5, 1e-9);
        planted_paces(shared[i], "attention", 1.5, pace); /* longer documents, say */
        CHECK_NEAR(pace[0], 1, 1e-12);
        CHECK_NEAR(pace[1], 1, 1e-12);
    }
}

TEST(a_slow_rank_is_blamed_for_what_it_costs)
{
    struct record r;
    struct record_step s = { 0 };
    struct arena a;
    struct dag *g;
    arena_init(&a);
    struct stragglers x = { .arena = &a };
    open_run(&r, "dp");
    for (int pass = 0; pass < 2; pass++) {
        for (i64 k = 0; k < r.n_steps; k++) {
            CHECK_OK(record_step(&r, r.steps[k], &s));
            CHECK_OK(dag_new(&g, &s));
            for (i64 i = 0; i < g->n; i++) {
                bool task = g->nodes[i].kind == DAG_COMPUTE;
                g->seconds[i] = task ? g->nodes[i].rank == 1 ? 3e-4 : 1e-4 : 0;
            }
            (pass == 0 ? stragglers_add : stragglers_add_worst)(&x, &s, g);
        }
        if (pass == 0)
            stragglers_rank(&x);
    }
    CHECK_EQ(x.steps, 8);
    CHECK_EQ(x.worst[0], 1);
    CHECK_NEAR(x.seconds / x.even_s, 1.5, 0.06); /* 3 over the mean of 1 and 3 */
    CHECK_NEAR(x.rank_s[1] / x.even_s, 1.5, 0.06);
    CHECK_NEAR(x.rank_s[0] / x.even_s, 1, 0.06);
    CHECK_NEAR((x.seconds - x.worst_s) / (x.seconds - x.even_s), 1, 0.1);
    record_step_free(&s);
    arena_fini(&a);
    record_close(&r);
    sys_remove_tree(JOB_DIR);
}

TEST_MAIN(ONE(the_factors_of_real_runs_multiply_to_the_mfu),
          ONE(rungs_side_by_side_are_those_one_after_another),
          ONE(random_durations_keep_the_product_and_the_path), ONE(each_loss_moves_its_own_rung_and_no_other),
          ONE(no_kernel_goes_beyond_its_ceilings),
          ONE(kernels_beyond_their_ceilings_lend_no_format_a_higher_peak),
          ONE(a_peak_in_use_that_was_probed_too_low_raises_those_beside_it),
          ONE(kernels_are_not_better_than_where_nothing_had_to_be_put_right),
          ONE(documents_of_any_length_leave_kernels_as_they_are),
          ONE(sleep_that_is_cut_short_to_catch_up_is_not_what_tasks_take),
          ONE(what_was_not_measured_is_not_known_and_is_1_in_the_product),
          ONE(a_slow_rank_is_told_from_one_with_more_to_do),
          ONE(a_slow_rank_is_blamed_for_what_it_costs))
