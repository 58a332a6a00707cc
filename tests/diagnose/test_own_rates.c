/* Rates from recorded runs: a run on a known clock predicts itself, and others. */
#include "test.h"

#include "base/sys.h"
#include "diagnose/own_rates.h"
#include "diagnose/record.h"
#include "plan/virtual_run.h"
#include "train/tiny_spec.h"

#include <math.h>

#define DIR "own-rates-test"

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

/* Twelve steps of a tiny model; fault may be NULL. */
static void make(struct made *m, const char *name, i64 batch, const char *rates, const char *fault)
{
    *m = (struct made){ 0 };
    arena_init(&m->arena);
    m->groups[0] = (struct option_group){ train_options, &m->config };
    m->groups[1] = (struct option_group){ layout_options, &m->layout };
    recipe_init(&m->recipe, &m->arena, m->groups, 2);
    m->config.train.batch = batch;
    m->config.train.seq = 32;
    m->config.train.steps = 12;
    m->config.log.every = 1;
    m->config.eval.every = 0;
    m->config.run.dir = DIR;
    m->config.run.name = name;
    if (fault)
        CHECK_OK(recipe_override(&m->recipe, fault));
    CHECK_OK(layout_parse(&m->layout, "dp=2", "test", &m->arena));
    m->spec = tiny_spec_of(&(struct tiny_options){ .gpt2 = true });
    m->request = (struct virtual_request){ .config = &m->config, .layout = &m->layout,
                                           .spec = &m->spec, .recipe = &m->recipe,
                                           .recipe_path = "test.yaml" };
    CHECK_OK(virtual_rates_parse(&m->request.rates, rates, "test", &m->arena));
    sys_mkdirs(DIR);
    CHECK_OK(virtual_run(&m->request, m->folder));
}

static const char usual[] = "flops=1e9,memory=4e9,link=1e8,latency=1e-5";

static double predicted(const struct made *m, const struct plan_rates *rates)
{
    struct arena a;
    struct rank_view view;
    struct plan_time t;
    const struct rank_view *views[] = { &view };
    struct plan_price price = { INFINITY, INFINITY, INFINITY, 0, rates };
    arena_init(&a);
    CHECK_OK(rank_view_new(&view, &m->layout, &m->spec, &m->config, 0, &a));
    CHECK_OK(plan_simulate(views, &price, &t, &a));
    double seconds = (t.length + rates->step_s) * (1 + rates->waits);
    arena_fini(&a);
    return seconds;
}

static void read_run(struct own_run *run, struct made *m)
{
    CHECK_OK(own_run_read(run, m->folder, &m->arena));
}

TEST(a_run_predicts_itself_and_another_batch)
{
    struct made one, other;
    struct own_run x, y;
    struct plan_rates r;
    const struct own_run *runs[] = { &x };
    make(&one, "one", 8, usual, NULL);
    make(&other, "other", 24, usual, NULL);
    read_run(&x, &one);
    read_run(&y, &other);
    CHECK_EQ(x.about.ranks, 2);
    CHECK_OK(own_rates_fit(&r, runs, 1, NULL, &one.arena));
    CHECK_NEAR(predicted(&one, &r) / x.seconds, 1, 0.02);
    CHECK_NEAR(predicted(&other, &r) / y.seconds, 1, 0.05);
    arena_fini(&one.arena);
    arena_fini(&other.arena);
}

/* Every sixth step stands still: the middle half of steps does not see it. */
TEST(steps_that_something_disturbed_do_not_count)
{
    struct made calm, disturbed;
    struct own_run x, y;
    make(&calm, "calm", 8, usual, NULL);
    make(&disturbed, "disturbed", 8, usual, "run.inject=[pause=50/6]");
    read_run(&x, &calm);
    read_run(&y, &disturbed);
    CHECK_NEAR(y.about.step_s, x.about.step_s, 0.1 * x.seconds);
    CHECK_NEAR(y.seconds, x.seconds, 0.01 * x.seconds);
    CHECK(x.seconds < 0.05);
    arena_fini(&calm.arena);
    arena_fini(&disturbed.arena);
}

/* Of three runs one is three times slower; the middle of what they say is that of the others. */
TEST(of_several_runs_the_middle_counts)
{
    struct made m[3];
    struct own_run run[3];
    struct plan_rates r;
    const struct own_run *runs[] = { &run[0], &run[1], &run[2] };
    static const char *const names[] = { "first", "slow", "third" };
    for (int i = 0; i < 3; i++) {
        make(&m[i], names[i], 8,
             i == 1 ? "flops=0.33e9,memory=1.3e9,link=3e7,latency=3e-5" : usual, NULL);
        read_run(&run[i], &m[i]);
        CHECK(own_runs_alike(&run[0], &run[i]));
    }
    CHECK(run[1].seconds > 2 * run[0].seconds);
    CHECK_OK(own_rates_fit(&r, runs, 3, NULL, &m[0].arena));
    CHECK_NEAR(predicted(&m[0], &r) / run[0].seconds, 1, 0.02);
    for (int i = 0; i < 3; i++)
        arena_fini(&m[i].arena);
}

/* The run's tasks have few sizes; how an op grows comes from elsewhere, its level from the run. */
TEST(growth_comes_from_the_microbenchmark_and_the_level_from_the_run)
{
    struct made m;
    struct own_run x;
    struct plan_rates r, shape = { .n = 1, .rates = { { "linear", 0, 0, 1e-3, 1, 1e12, 1 } } };
    const struct own_run *runs[] = { &x };
    double recorded = 0, tasks = 0;
    make(&m, "grown", 8, usual, NULL);
    read_run(&x, &m);
    CHECK_OK(own_rates_fit(&r, runs, 1, &shape, &m.arena));
    for (i64 i = 0; i < x.n; i++)
        if (!strcmp(x.samples[i].name, "linear")) {
            recorded += x.samples[i].weight;
            tasks += x.samples[i].weight / x.samples[i].seconds;
        }
    for (i64 i = 0; i < r.n; i++)
        if (!strcmp(r.rates[i].name, "linear")) {
            CHECK_NEAR(r.rates[i].flop_s, 0, 0);
            CHECK_NEAR(r.rates[i].task_s, recorded / tasks, 1e-9 * recorded);
        }
    CHECK(tasks > 0);
    arena_fini(&m.arena);
    sys_remove_tree(DIR);
}

/* What a record says of its products is what the program has. */
TEST(columns_of_products_are_read_off_the_record)
{
    struct made m;
    struct record record;
    struct record_step s = { 0 };
    struct rank_view view;
    i64 products = 0, all = 0;
    make(&m, "columns", 8, usual, NULL);
    CHECK_OK(rank_view_new(&view, &m.layout, &m.spec, &m.config, 0, &m.arena));
    CHECK_OK(record_open(&record, m.folder));
    CHECK_OK(record_step(&record, record.steps[5], &s));
    const struct record_table *table = s.ranks[0].table;
    CHECK_EQ(table->n_tasks, view.step.program->n_tasks);
    for (i64 id = 0; id < table->n_tasks; id++) {
        const struct task *t = view.step.program->by_id[id];
        i64 known = own_product_columns(table, &table->tasks[id]);
        CHECK(known == 0 || known == plan_product_columns(t));
        products += known > 0 && t->layer >= 0;
        all += plan_product_columns(t) > 0 && t->layer >= 0;
    }
    CHECK(all > 0);
    CHECK_EQ(products, all);
    record_step_free(&s);
    record_close(&record);
    arena_fini(&m.arena);
}

TEST_MAIN(ONE(columns_of_products_are_read_off_the_record),
          ONE(a_run_predicts_itself_and_another_batch),
          ONE(steps_that_something_disturbed_do_not_count),
          ONE(of_several_runs_the_middle_counts),
          ONE(growth_comes_from_the_microbenchmark_and_the_level_from_the_run))
