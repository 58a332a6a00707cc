/* Islands of the planner beside the program that islands would run, and numbers by hand. */
#include "test.h"

#include "plan/island_plan.h"
#include "plan_job.h"
#include "train/rank_view.h"
#include "train/tiny_spec.h"

#include <math.h>

/* What the ranks of an island send in an outer step, at one byte per second and without
 * latency, are its seconds. */
TEST(an_outer_step_sends_what_the_program_sends)
{
    static const char *const layouts[] = { "islands=2", "islands=4", "islands=2,dp=2,zero=1",
                                           "islands=2,tp=2" };
    for (int i = 0; i < COUNT_OF(layouts); i++) {
        struct arena a;
        struct train_config config;
        struct layout l = layout_single();
        double sent = 0, elements = 0;
        arena_init(&a);
        option_set_defaults(train_options, &config, &a);
        config.train.batch = 8;
        config.train.seq = 32;
        config.outer.every = 10;
        CHECK_OK(layout_parse(&l, layouts[i], "test", &a));
        struct model_spec spec = tiny_spec_of(&(struct tiny_options){ 0 });
        i64 ranks = layout_ranks(&l) / l.islands;
        for (i64 r = 0; r < ranks; r++) {
            struct rank_view *v = ARENA_NEW(&a, struct rank_view);
            CHECK_OK(rank_view_new(v, &l, &spec, &config, r, &a));
            sent += v->outer_bytes[LANE_ISLAND];
            elements += (double)v->parameters / (l.tp > 1 ? 1 : (double)ranks);
        }
        struct island_link link = { .islands = l.islands, .bytes_per_s = 1, .element_bytes = 4 };
        double seconds = plan_outer_seconds(&link, elements);
        /* Of a model of 27,000 parameters, padding and norms are some percent more, and so are the
         * vectors that zero does not split. */
        CHECK_NEAR(seconds, sent, 0.06 * sent);
        arena_fini(&a);
    }
}

TEST(slow_links_are_paid_once_in_many_steps)
{
    struct planned p;
    struct island_plan few, many, none;
    const struct plan_terms terms = { 0 };
    struct plan_pick pick = plan_pick_open();
    open_planned(&p, "llama3-8b", "h100-sxm-roce", 256, 1024, 8192);
    p.job.tokens = 1e12;
    struct island_link l = { .islands = 4, .every = 10, .bytes_per_s = 1.25e9, .latency_s = 0.05,
                             .element_bytes = 4 };
    CHECK_OK(plan_islands_of(&few, &p.job, &pick, &l, &terms, &p.arena));
    CHECK_NEAR(few.outer_s, 2 * 0.75 * few.parameters * 4 / 1.25e9 + 6 * 0.05, 1e-6);
    l.every = 500;
    CHECK_OK(plan_islands_of(&many, &p.job, &pick, &l, &terms, &p.arena));
    CHECK(many.outer_share < few.outer_share && many.days.mid < few.days.mid);
    l.every = (i64)few.every_for_5;
    CHECK_OK(plan_islands_of(&many, &p.job, &pick, &l, &terms, &p.arena));
    CHECK_NEAR(many.outer_share, 0.05, 0.001);
    l.islands = 1;
    CHECK_OK(plan_islands_of(&none, &p.job, &pick, &l, &terms, &p.arena));
    CHECK(none.outer_s == 0 && none.outer_share == 0);
    l.islands = 3;
    CHECK_FAILS(plan_islands_of(&none, &p.job, &pick, &l, &terms, &p.arena), ERR_CONFIG,
                "3 islands");
    arena_fini(&p.arena);
}

TEST_MAIN(ONE(an_outer_step_sends_what_the_program_sends),
          ONE(slow_links_are_paid_once_in_many_steps))
