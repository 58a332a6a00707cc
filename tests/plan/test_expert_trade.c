/* Rows on their way to experts: beside what all-to-alls took, and who sends how much. */
#include "test.h"

#include "plan/expert_trade.h"
#include "plan_job.h"

static double trade(const struct planned *p, i64 ranks, double choices, bool once)
{
    struct plan_trade t = { .ranks = ranks, .stride = 1, .rows = 4096, .row_bytes = 2 * 7168,
                            .choices = choices, .once = once };
    return plan_trade_seconds(&p->job, &t);
}

/* Bus bandwidth of large all-to-alls: 81 GB/s among 16 devices, 45 to 58 among 24 to 128. */
TEST(an_all_to_all_leaves_a_node_by_each_ranks_port)
{
    static const struct { i64 ranks; double lo, hi; } facts[] = {
        { 16, 81e9 * 0.75, 81e9 * 1.25 }, { 24, 45e9 * 0.75, 58e9 * 1.25 },
        { 128, 45e9 * 0.75, 58e9 * 1.25 },
    };
    struct planned p;
    open_planned(&p, "llama3-8b", "p5-efa", 128, 128, 4096);
    for (i64 i = 0; i < COUNT_OF(facts); i++) {
        struct plan_trade t = { .ranks = facts[i].ranks, .stride = 1, .rows = 1, .row_bytes = 8e9,
                                .choices = 1 };
        double n = (double)t.ranks, bus = 8e9 * (n - 1) / n / plan_trade_seconds(&p.job, &t);
        CHECK(bus > facts[i].lo && bus < facts[i].hi);
    }
    arena_fini(&p.arena);
}

/* What goes once to a node is less than what goes to each expert, and never more than a copy for
 * each place. */
TEST(rows_that_go_once_are_fewer)
{
    struct planned p;
    open_planned(&p, "llama3-8b", "h100-sxm-roce", 64, 64, 4096);
    for (i64 ranks = 8; ranks <= 64; ranks *= 2) {
        double each = trade(&p, ranks, 8, false), once = trade(&p, ranks, 8, true);
        CHECK(once < each);
        CHECK(once > each / 8);
        CHECK(trade(&p, ranks, 64, true) < 2.5 * once); /* one to each place at most */
    }
    arena_fini(&p.arena);
}

/* Four of eight groups, a node each: a row goes to at most four of eight nodes. */
TEST(groups_keep_rows_on_few_nodes)
{
    struct planned p;
    open_planned(&p, "llama3-8b", "h100-sxm-roce", 64, 64, 4096);
    struct plan_trade t = { .ranks = 64, .stride = 1, .rows = 1, .row_bytes = 8e9, .choices = 64,
                            .once = true };
    double any = plan_trade_seconds(&p.job, &t);
    t.groups = 8;
    t.group_limit = 4;
    CHECK_NEAR(plan_trade_seconds(&p.job, &t) / any, 0.5, 0.01);
    t.group_limit = 8;
    CHECK_NEAR(plan_trade_seconds(&p.job, &t), any, 0);
    arena_fini(&p.arena);
}

TEST(nodes_that_trade_take_longer_than_ranks_of_one)
{
    struct planned p;
    open_planned(&p, "llama3-8b", "h100-sxm-roce", 64, 64, 4096);
    for (int once = 0; once < 2; once++) {
        double before = 0;
        for (i64 ranks = 2; ranks <= 64; ranks *= 2) {
            double seconds = trade(&p, ranks, 8, once);
            CHECK(seconds > before);
            before = seconds;
        }
        CHECK(trade(&p, 16, 8, once) > (once ? 1.5 : 2) * trade(&p, 8, 8, once));
    }
    arena_fini(&p.arena);
}

TEST_MAIN(ONE(an_all_to_all_leaves_a_node_by_each_ranks_port), ONE(rows_that_go_once_are_fewer),
          ONE(groups_keep_rows_on_few_nodes),
          ONE(nodes_that_trade_take_longer_than_ranks_of_one))
