/* Runs that nobody computes: what their folder says is what was put in. */
#include "test.h"

#include "base/sys.h"
#include "diagnose/record.h"
#include "plan/virtual_run.h"
#include "train/tiny_spec.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { T = 32, STEPS = 6 };

#define DIR "virtual-test"

struct made {
    struct arena arena;
    struct train_config config;
    struct layout layout;
    struct option_group groups[2];
    struct recipe recipe;
    struct model_spec spec;
    struct virtual_request request;
    char folder[2048];
};

/* Rates at which computing, memory and links all take time. */
static const char rates[] = "flops=1e9,memory=4e9,link=1e8,latency=1e-5,disk=1e7";

static void make(struct made *m, const char *name, const char *layout, const char *const *sets)
{
    *m = (struct made){ 0 };
    arena_init(&m->arena);
    m->groups[0] = (struct option_group){ train_options, &m->config };
    m->groups[1] = (struct option_group){ layout_options, &m->layout };
    recipe_init(&m->recipe, &m->arena, m->groups, 2);
    m->config.train.batch = 8;
    m->config.train.seq = T;
    m->config.train.accumulate = 4;
    m->config.train.steps = STEPS;
    m->config.log.every = 1;
    m->config.eval.every = 0;
    m->config.run.dir = DIR;
    m->config.run.name = name;
    for (; sets && *sets; sets++)
        CHECK_OK(recipe_override(&m->recipe, *sets));
    CHECK_OK(layout_parse(&m->layout, layout, "test", &m->arena));
    m->spec = tiny_spec_of(&(struct tiny_options){ .gpt2 = true });
    m->spec.layers = 4;
    m->request = (struct virtual_request){ .config = &m->config, .layout = &m->layout,
                                           .spec = &m->spec, .recipe = &m->recipe,
                                           .recipe_path = "test.yaml" };
    CHECK_OK(virtual_rates_parse(&m->request.rates, rates, "test", &m->arena));
    sys_mkdirs(DIR);
    CHECK_OK(virtual_run(&m->request, m->folder));
}

/* One step of a run as its record has it; the middle one unless a test says otherwise. */
struct seen {
    struct record record;
    struct record_step step;
};

static void see(struct seen *s, const struct made *m, i64 step)
{
    *s = (struct seen){ 0 };
    CHECK_OK(record_open(&s->record, m->folder));
    CHECK_EQ(s->record.n_damage, 0);
    CHECK_EQ(s->record.n_steps, STEPS);
    CHECK_OK(record_step(&s->record, step, &s->step));
    CHECK_EQ(s->step.missing, 0);
}

static void end(struct seen *s, struct made *m)
{
    record_step_free(&s->step);
    record_close(&s->record);
    arena_fini(&m->arena);
}

/* Seconds of a rank's spans of this kind and lane. */
static double seconds_of(const struct record_rank *r, int kind, int lane)
{
    double sum = 0;
    for (i64 i = 0; i < r->n_spans; i++)
        if (r->spans[i].kind == kind && r->spans[i].lane == lane)
            sum += 1e-9 * (double)(r->spans[i].end_ns - r->spans[i].begin_ns);
    return sum;
}

static double computing(const struct seen *s, int rank)
{
    return seconds_of(&s->step.ranks[rank], SPAN_TASK, TRACE_COMPUTE);
}

static double length_of(const struct seen *s, int rank)
{
    return 1e-9 * (double)(s->step.ranks[rank].end_ns - s->step.ranks[rank].begin_ns);
}

/* A step of a run without disturbance is plan_simulate's, and its spans are all of its time. */
static void step_is_simulated(const char *layout)
{
    struct made m;
    struct seen s;
    struct plan_time t;
    const struct rank_view *views[4];
    make(&m, "plain", layout, NULL);
    i64 n = layout_ranks(&m.layout);
    for (i64 i = 0; i < m.layout.pp; i++) {
        struct rank_view *v = ARENA_NEW(&m.arena, struct rank_view);
        CHECK_OK(rank_view_new(v, &m.layout, &m.spec, &m.config, i * n / m.layout.pp, &m.arena));
        views[i] = v;
    }
    CHECK_OK(plan_simulate(views, &m.request.rates.price, &t, &m.arena));
    see(&s, &m, 3);
    double longest = 0;
    for (int r = 0; r < n; r++) {
        const struct record_rank *k = &s.step.ranks[r];
        double waits = seconds_of(k, SPAN_WAIT, TRACE_COMPUTE);
        for (int lane = 0; lane < LANE_COUNT; lane++)
            waits -= t.ranks[r].wait[lane];
        CHECK_NEAR(computing(&s, r), t.ranks[r].compute, 1e-7); /* spans are whole ns */
        if (m.layout.pp == 1) {
            CHECK_NEAR(waits, 0, 1e-7);
            CHECK_NEAR(length_of(&s, r), t.ranks[r].end, 1e-8);
        }
        longest = fmax(longest, length_of(&s, r));
    }
    CHECK(longest > t.length - 1e-8);
    end(&s, &m);
    sys_remove_tree(DIR "/plain");
}

TEST(an_undisturbed_step_is_the_simulated_one)
{
    step_is_simulated("dp=4");
    step_is_simulated("dp=2,tp=2,zero=1");
    step_is_simulated("pp=4,dp=2");
}

TEST(a_slow_rank_computes_longer_and_the_others_wait)
{
    static const char *const sets[] = { "run.inject=slow_compute=2@2:4-", NULL };
    struct made m;
    struct seen s;
    make(&m, "slow", "dp=4", sets);
    see(&s, &m, 2);
    CHECK_NEAR(computing(&s, 2), computing(&s, 0), 1e-7); /* not yet */
    record_step_free(&s.step);
    s.step = (struct record_step){ 0 };
    CHECK_OK(record_step(&s.record, 3, &s.step));
    CHECK_NEAR(computing(&s, 2), 2 * computing(&s, 0), 1e-7);
    double waited = seconds_of(&s.step.ranks[0], SPAN_WAIT, TRACE_COMPUTE);
    CHECK(waited > 0.9 * computing(&s, 0));
    CHECK(seconds_of(&s.step.ranks[2], SPAN_WAIT, TRACE_COMPUTE) < waited / 2);
    end(&s, &m);
}

/* n bytes take n / rate longer on the link; the calls of one group follow each other. */
TEST(a_slow_link_holds_what_passes_it)
{
    static const char *const sets[] = { "run.inject=pair_bw=0-1:1MB/s", NULL };
    struct made m, plain;
    struct seen s, p;
    make(&m, "link", "dp=2,pp=2", sets);
    make(&plain, "nolink", "dp=2,pp=2", NULL);
    see(&s, &m, 3);
    see(&p, &plain, 3);
    double more = seconds_of(&s.step.ranks[0], SPAN_CALL, trace_of_lane(LANE_DP)) -
                  seconds_of(&p.step.ranks[0], SPAN_CALL, trace_of_lane(LANE_DP));
    const struct record_table *t = s.step.ranks[0].table;
    double least = 0;
    for (i64 i = 0; i < t->n_tasks; i++)
        if (t->tasks[i].lane == LANE_DP)
            least += t->tasks[i].message_bytes / 1e6;
    CHECK(least > 0 && more > 0.99 * least);
    /* the other pair of the same stage pair does not pass it */
    CHECK(length_of(&s, 0) > length_of(&p, 0));
    CHECK_NEAR(seconds_of(&s.step.ranks[2], SPAN_CALL, trace_of_lane(LANE_DP)),
               seconds_of(&p.step.ranks[2], SPAN_CALL, trace_of_lane(LANE_DP)), 1e-3 * least);
    end(&s, &m);
    end(&p, &plain);
}

/* A loader with one thread that takes longer than a step sets the pace; with two it does not. */
TEST(a_slow_loader_sets_the_pace_until_it_has_another_thread)
{
    static const char *const one[] = { "run.inject=loader_spin=500ms", NULL };
    static const char *const two[] = { "run.inject=loader_spin=500ms", "data.threads=8", NULL };
    struct made m, n;
    struct seen s, t;
    make(&m, "loader", "dp=2", one);
    make(&n, "loaders", "dp=2", two);
    see(&s, &m, 4);
    see(&t, &n, 4);
    CHECK_NEAR(1e-9 * (double)(s.step.ranks[0].window_end_ns - s.step.ranks[0].window_begin_ns),
               0.5, 1e-6);
    CHECK(length_of(&s, 0) < 0.5 + 1e-6);
    double waits = seconds_of(&s.step.ranks[0], SPAN_LOAD_WAIT, TRACE_HOST);
    CHECK(waits > 0.3);
    CHECK(seconds_of(&t.step.ranks[0], SPAN_LOAD_WAIT, TRACE_HOST) < waits / 2);
    CHECK(s.step.ranks[0].sample && s.step.ranks[0].sample->loader_ready == 0);
    CHECK_EQ(s.step.ranks[0].sample->loader_busy_ns, 500 * 1000 * 1000);
    end(&s, &m);
    end(&t, &n);
}

TEST(a_checkpoint_and_a_pause_take_the_time_they_say)
{
    static const char *const sets[] = { "run.inject=pause=50ms/3", "checkpoint.every=2",
                                        "checkpoint.async=no", NULL };
    struct made m;
    struct seen s;
    make(&m, "pause", "dp=2", sets);
    see(&s, &m, 2);
    double paused = length_of(&s, 0);
    record_step_free(&s.step);
    s.step = (struct record_step){ 0 };
    CHECK_OK(record_step(&s.record, 3, &s.step));
    CHECK_NEAR(paused - length_of(&s, 0), 0.05, 1e-7);
    double bytes = 0;
    struct rank_view v;
    CHECK_OK(rank_view_new(&v, &m.layout, &m.spec, &m.config, 0, &m.arena));
    bytes = (double)v.model_bytes;
    CHECK_NEAR(seconds_of(&s.step.ranks[0], SPAN_CHECKPOINT, TRACE_HOST), bytes / 1e7, 1e-8);
    end(&s, &m);
}

static void same_files(const char *a, const char *b, bool same)
{
    char path[2][128];
    i64 bytes[2];
    snprintf(path[0], sizeof path[0], DIR "/%s/trace/rank-1.spans", a);
    snprintf(path[1], sizeof path[1], DIR "/%s/trace/rank-1.spans", b);
    void *x = sys_map_file(path[0], &bytes[0]), *y = sys_map_file(path[1], &bytes[1]);
    CHECK(x && y && bytes[0] > 1000);
    CHECK_EQ(bytes[0] == bytes[1] && memcmp(x, y, (size_t)bytes[0]) == 0, same);
    sys_unmap(x, bytes[0]);
    sys_unmap(y, bytes[1]);
}

TEST(a_run_repeats_to_the_bit_and_another_seed_does_not)
{
    static const char *const sets[] = { "run.inject=jitter=5", NULL };
    static const char *const other[] = { "run.inject=jitter=5", "train.seed=9", NULL };
    struct made m;
    make(&m, "once", "dp=4", sets);
    arena_fini(&m.arena);
    make(&m, "twice", "dp=4", sets);
    arena_fini(&m.arena);
    make(&m, "other", "dp=4", other);
    arena_fini(&m.arena);
    same_files("once", "twice", true);
    same_files("once", "other", false);
}

static int clean(void **state)
{
    (void)state;
    return sys_exists(DIR) ? sys_remove_tree(DIR) : 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ONE(an_undisturbed_step_is_the_simulated_one),
        ONE(a_slow_rank_computes_longer_and_the_others_wait), ONE(a_slow_link_holds_what_passes_it),
        ONE(a_slow_loader_sets_the_pace_until_it_has_another_thread),
        ONE(a_checkpoint_and_a_pause_take_the_time_they_say),
        ONE(a_run_repeats_to_the_bit_and_another_seed_does_not),
    };
    return cmocka_run_group_tests(tests, clean, clean);
}
