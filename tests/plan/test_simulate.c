/* The step of ranks that are not there, beside sums over the same tasks and closed forms. */
#include "test.h"

#include "plan/rates.h"
#include "plan/simulate.h"
#include "train/tiny_spec.h"

#include <math.h>
#include <stdio.h>

enum { T = 32 };

struct plan {
    struct arena arena;
    struct layout layout;
    struct train_config config;
    struct model_spec spec;
    const struct rank_view *views[8];
    struct plan_time time;
};

static const struct plan_price free_links = { 1e9, INFINITY, INFINITY, 0, NULL };

static void open_plan(struct plan *p, const char *layout, i64 rows, i64 micro_batches)
{
    arena_init(&p->arena);
    option_set_defaults(train_options, &p->config, &p->arena);
    p->config.train.batch = rows;
    p->config.train.seq = T;
    p->config.train.accumulate = micro_batches;
    p->config.train.global_batch = 0;
    p->layout = layout_single();
    CHECK_OK(layout_parse(&p->layout, layout, "test", &p->arena));
    p->spec = tiny_spec_of(&(struct tiny_options){ .gpt2 = true });
    p->spec.layers = 4;
    for (i64 i = 0; i < p->layout.pp; i++) {
        struct rank_view *v = ARENA_NEW(&p->arena, struct rank_view);
        i64 first = i * layout_ranks(&p->layout) / p->layout.pp / p->layout.islands;
        CHECK_OK(rank_view_new(v, &p->layout, &p->spec, &p->config, first, &p->arena));
        p->views[i] = v;
    }
}

static double simulate(struct plan *p, const struct plan_price *price)
{
    CHECK_OK(plan_simulate(p->views, price, &p->time, &p->arena));
    for (i64 r = 0; r < p->time.n_ranks; r++) { /* nothing is lost */
        const struct plan_rank_time *t = &p->time.ranks[r];
        double sum = t->compute + t->idle;
        for (int lane = 0; lane < LANE_COUNT; lane++)
            sum += t->wait[lane];
        CHECK_NEAR(sum, p->time.length, 1e-12 * p->time.length);
    }
    return p->time.length;
}

static double length_of(const char *layout, i64 rows, i64 micro_batches,
                        const struct plan_price *price)
{
    struct plan p;
    open_plan(&p, layout, rows, micro_batches);
    double length = simulate(&p, price);
    arena_fini(&p.arena);
    return length;
}

/* Compute tasks of one rank's step, by the program's own expansion. */
static double sum_of_tasks(const struct plan *p, const struct plan_price *price, bool updates)
{
    const struct program *program = p->views[0]->step.program;
    double sum = 0;
    for (i64 a = 0; a < program->n_actions; a++) {
        const struct action *action = &program->actions[a];
        const struct segment *s = &program->segments[action->segment];
        for (i64 i = 0; i < s->n_tasks && (updates || s->kind != SEGMENT_UPDATE); i++)
            if (s->tasks[i].lane == LANE_COMPUTE && !s->tasks[i].op->waits &&
                (!s->tasks[i].last_turn || action->micro_batch == program->micro_batches - 1))
                sum += plan_task_seconds(&s->tasks[i], price);
    }
    return sum;
}

TEST(one_rank_takes_the_sum_of_its_tasks)
{
    static const struct plan_price prices[] = { { 1e9, INFINITY, INFINITY, 0, NULL },
                                                { 1e9, 1e9, 1e6, 1, NULL },
                                                { INFINITY, 1e9, 1e6, 1, NULL } };
    struct plan p;
    open_plan(&p, "dp=1", 2, 3);
    for (int i = 0; i < COUNT_OF(prices); i++) {
        double sum = sum_of_tasks(&p, &prices[i], true);
        CHECK(sum > 0);
        CHECK_NEAR(simulate(&p, &prices[i]), sum, 1e-12 * sum);
    }
    arena_fini(&p.arena);
}

TEST(free_links_cost_nothing)
{
    double one = length_of("dp=1", 2, 2, &free_links);
    CHECK_NEAR(length_of("dp=8", 16, 2, &free_links), one, 1e-12 * one);
    CHECK_NEAR(length_of("dp=4,cp=2,zero=0", 16, 2, &free_links), one, 0.1 * one);
    for (int zero = 1; zero <= 3; zero++) {
        char layout[40];
        snprintf(layout, sizeof layout, "dp=8,zero=%d", zero);
        double split = length_of(layout, 16, 2, &free_links); /* the update is shared out */
        CHECK(split < one && split > 0.9 * one);
    }
}

/* With time that is FLOPs, and up to the update, which schedule_time does not know. */
TEST(a_pipeline_takes_what_its_schedule_takes)
{
    static const char *const layouts[] = { "pp=4,schedule=gpipe", "pp=4,schedule=1f1b",
                                           "pp=2,schedule=interleaved", "pp=4,schedule=zb-h1",
                                           "pp=2,schedule=zb-v" };
    for (int i = 0; i < COUNT_OF(layouts); i++) {
        struct plan p;
        struct schedule s;
        struct schedule_time t;
        open_plan(&p, layouts[i], 1, 8);
        CHECK_OK(rank_view_schedule(p.views, 8, &s, &t, &p.arena));
        double length = simulate(&p, &free_links), update = 0;
        for (i64 k = 0; k < p.layout.pp; k++) {
            const struct program *program = p.views[k]->step.program;
            double sum = 0;
            for (i64 id = 0; id < program->n_tasks; id++)
                if (program->by_id[id]->phase == PHASE_UPDATE || program->by_id[id]->last_turn)
                    sum += plan_task_seconds(program->by_id[id], &free_links);
            update = fmax(update, sum);
        }
        CHECK(length > 1e-9 * t.length * (1 - 1e-12));
        CHECK(length < 1e-9 * t.length + 2 * update);
        arena_fini(&p.arena);
    }
}

/* Calls of a slow network follow each other from before the backward pass ends. */
TEST(slow_links_hide_the_computation_instead)
{
    struct plan p;
    struct plan_price slow = { 1e12, INFINITY, 1e6, 0, NULL };
    open_plan(&p, "dp=4", 8, 1);
    double length = simulate(&p, &slow), bytes = p.views[0]->message_bytes[LANE_DP];
    CHECK(bytes > 0);
    CHECK_NEAR(p.time.ranks[0].call[LANE_DP], bytes / 1e6, 1e-9 * length);
    CHECK(length >= bytes / 1e6 && length < bytes / 1e6 + p.time.ranks[0].compute);
    arena_fini(&p.arena);
}

/* 2(n-1) steps of an allreduce: one call per bucket and two for losses and the like. */
TEST(latency_counts_the_steps_of_a_ring)
{
    struct plan_price p = { INFINITY, INFINITY, INFINITY, 1, NULL };
    double two = length_of("dp=2", 8, 1, &p), eight = length_of("dp=8", 8, 1, &p);
    CHECK(two > 0);
    CHECK_NEAR(eight / two, 2 * 7.0 / (2 * 1), 1e-12);
}

TEST(every_axis_ends)
{
    static const char *const layouts[] = {
        "tp=4", "cp=4", "dp=2,tp=2,pp=2", "dp=2,cp=2,tp=2", "dp=2,pp=2,schedule=zb-v,zero=1",
        "dp=4,zero=3,zero_group=2", "dp=2,tp=2,zero=2",
    };
    struct plan_price price = { 1e9, 1e10, 1e8, 1e-6, NULL };
    double one = length_of("dp=1", 8, 4, &price);
    for (int i = 0; i < COUNT_OF(layouts); i++)
        CHECK(length_of(layouts[i], 8, 4, &price) < one);
}

/* Islands have pipelines of their own, which are alike. */
TEST(an_island_takes_what_it_takes_alone)
{
    static const char *const layouts[] = { "pp=2", "pp=4,schedule=zb-h1", "pp=2,dp=2,tp=2",
                                           "pp=2,schedule=zb-v,cp=2" };
    struct plan_price price = { 1e9, 1e10, 1e8, 1e-6, NULL };
    for (int i = 0; i < COUNT_OF(layouts); i++) {
        char several[64];
        snprintf(several, sizeof several, "islands=2,%s", layouts[i]);
        double alone = length_of(layouts[i], 8, 4, &price);
        CHECK_NEAR(length_of(several, 8, 8, &price), alone, 1e-9 * alone);
    }
}

/* A tax on what is computed beside an exchange makes the step longer by as much at most, and costs
 * nothing where there is nothing to exchange. */
TEST(an_exchange_takes_its_tax_from_computing)
{
    struct plan_rates free = { .n = 2, .rates = { { "lane.any", 0, 1e-8, 1e-6, 0, 1e12, 1 },
                                                  { "linear", 1e-9, 0, 0, 0, 1e12, 1 } } };
    struct plan_rates taxed = free;
    struct plan_price price = { INFINITY, INFINITY, INFINITY, 0, &free }, more = price;
    struct plan p;
    more.rates = &taxed;
    taxed.overlap_tax = 0.5;
    open_plan(&p, "dp=2", 8, 4);
    double before = simulate(&p, &price), calls = p.time.ranks[0].call[LANE_DP];
    double after = simulate(&p, &more);
    CHECK(calls > 0);
    CHECK(after > before && after <= before + 0.5 * calls + 1e-12);
    arena_fini(&p.arena);
    CHECK_NEAR(length_of("dp=1", 8, 4, &more), length_of("dp=1", 8, 4, &price), 0);
}

TEST_MAIN(ONE(an_island_takes_what_it_takes_alone), ONE(one_rank_takes_the_sum_of_its_tasks), ONE(free_links_cost_nothing),
          ONE(a_pipeline_takes_what_its_schedule_takes),
          ONE(slow_links_hide_the_computation_instead),
          ONE(latency_counts_the_steps_of_a_ring),
          ONE(an_exchange_takes_its_tax_from_computing), ONE(every_axis_ends))
