/* The replay beside the closed form, over the same table. */
#include "test.h"

#include "parallel/layout.h"
#include "plan/ops_scale.h"
#include "plan/replay_layout.h"
#include "plan/search.h"
#include "plan_job.h"

#include <math.h>

static const struct plan_chance healthy = { 0 };

static double replayed(struct planned *p, const struct plan_layout *l, const struct plan_table *t,
                       const struct plan_chance *chance)
{
    struct schedule order;
    struct replay_time time;
    CHECK_OK(plan_replay_layout(&p->job, l, t, chance, &order, &time, &p->arena));
    CHECK_OK(schedule_check(&order));
    return time.length;
}

static double closed(struct planned *p, const struct plan_layout *l, const struct plan_table **t)
{
    struct plan_step step;
    CHECK(plan_layout_refused(&p->job, l) == NULL);
    CHECK_OK(plan_shelf_table(plan_shelf_new(&p->job, &p->arena), l, t));
    plan_step_of(&p->job, l, *t, &step);
    return step.seconds;
}

static struct plan_layout layout_of(i64 tp, i64 cp, i64 pp, i64 dp, i64 chunks, int schedule)
{
    return (struct plan_layout){ .tp = tp, .cp = cp, .pp = pp, .dp = dp, .ep = 1,
                                 .micro_batch = 1, .micro_batches = 256 / dp,
                                 .virtual_stages = chunks, .schedule = schedule, .zero = 1,
                                 .recompute = RECOMPUTE_NONE, .sequence_parallel = tp > 1 };
}

static const char cluster[] = "h100-sxm node:8 fabric:4096x50GB/s~8us";

TEST(without_chance_the_replay_takes_what_the_closed_form_says)
{
    const struct plan_layout layouts[] = {
        layout_of(1, 1, 1, 64, 1, SCHEDULE_1F1B), layout_of(4, 1, 1, 16, 1, SCHEDULE_1F1B),
        layout_of(4, 1, 4, 4, 1, SCHEDULE_1F1B), layout_of(2, 2, 4, 4, 1, SCHEDULE_GPIPE),
        layout_of(4, 1, 4, 4, 4, SCHEDULE_INTERLEAVED),
        layout_of(8, 1, 8, 1, 2, SCHEDULE_INTERLEAVED),
        layout_of(2, 1, 8, 4, 1, SCHEDULE_ZB_H1), layout_of(2, 1, 8, 4, 2, SCHEDULE_ZB_V),
    };
    for (int i = 0; i < COUNT_OF(layouts); i++) {
        struct planned p;
        const struct plan_table *t;
        open_planned(&p, "llama3-8b", cluster, 64, 256, 2048);
        p.stack.pp_overlap = p.stack.dp_overlap = 0;
        double sum = closed(&p, &layouts[i], &t), walked = replayed(&p, &layouts[i], t, &healthy);
        /* The same sums, except with weight gradients put off: those closed forms are fits. */
        double within = layouts[i].schedule == SCHEDULE_ZB_V    ? 0.1
                        : layouts[i].schedule == SCHEDULE_ZB_H1 ? 0.02
                                                                : 1e-9;
        CHECK_NEAR(walked, sum, within * sum);
        arena_fini(&p.arena);
    }
}

/* Buckets of layers go beside the last backward and the first forward pass of their own stage. */
TEST(what_is_hidden_is_hidden_when_walked_too)
{
    struct plan_layout layouts[] = {
        layout_of(1, 1, 1, 64, 1, SCHEDULE_1F1B), layout_of(4, 1, 1, 16, 1, SCHEDULE_1F1B),
        layout_of(4, 1, 2, 8, 1, SCHEDULE_1F1B), layout_of(4, 1, 4, 4, 4, SCHEDULE_INTERLEAVED),
        layout_of(4, 1, 1, 16, 1, SCHEDULE_1F1B),
    };
    struct plan_layout *split = &layouts[COUNT_OF(layouts) - 1];
    split->zero = ZERO_WEIGHTS;
    split->micro_batch = 8;
    split->micro_batches = 2;
    for (int late = 0; late < 2; late++)
        for (int i = 0; i < COUNT_OF(layouts); i++) {
            struct planned p;
            const struct plan_table *t;
            open_planned(&p, "llama3-8b", cluster, 64, 256, 2048);
            if (layouts[i].zero == ZERO_WEIGHTS) /* an action computes longer than it exchanges */
                p.machine.tiers[1].bytes_per_s.mid *= 8;
            p.stack.dp_overlap = 0.9;
            p.stack.waits_for_weights = late;
            double sum = closed(&p, &layouts[i], &t), walked = replayed(&p, &layouts[i], t, &healthy);
            double within = layouts[i].zero == ZERO_WEIGHTS ? 0.05 : 0.02; /* of two micro-batches */
            CHECK_NEAR(walked, sum, within * sum);
            arena_fini(&p.arena);
        }
}

/* Software that is known to stall stalls when walked, too. */
TEST(declared_stalls_are_walked)
{
    struct planned p;
    const struct plan_table *t;
    const struct plan_layout l = layout_of(4, 1, 4, 4, 1, SCHEDULE_1F1B);
    open_planned(&p, "llama3-8b", cluster, 64, 256, 2048);
    p.stack.pp_overlap = p.stack.dp_overlap = 0;
    double calm = closed(&p, &l, &t);
    p.stack.stall_s = 0.01;
    p.stack.stall_nodes = 8;
    double sum = closed(&p, &l, &t), walked = replayed(&p, &l, t, &healthy);
    CHECK(sum > 1.01 * calm);
    CHECK_NEAR(walked, sum, 1e-9 * sum);
    arena_fini(&p.arena);
}

/* With fewer micro-batches than ranks a stage has too few weight gradients to fill its gaps. */
TEST(few_micro_batches_leave_gaps_with_zb_h1)
{
    for (i64 n = 1; n <= 16; n *= 2) {
        struct planned p;
        const struct plan_table *t;
        struct plan_layout l = layout_of(2, 1, 8, 4, 1, SCHEDULE_ZB_H1);
        l.micro_batches = n;
        open_planned(&p, "llama3-8b", cluster, 64, 4 * n, 2048);
        p.stack.pp_overlap = p.stack.dp_overlap = 0;
        double sum = closed(&p, &l, &t), walked = replayed(&p, &l, t, &healthy);
        CHECK_NEAR(walked, sum, 0.05 * sum);
        arena_fini(&p.arena);
    }
}

TEST(stragglers_and_jitter_only_add)
{
    struct planned p;
    const struct plan_table *t;
    struct plan_layout l = layout_of(4, 1, 4, 4, 2, SCHEDULE_INTERLEAVED);
    open_planned(&p, "llama3-8b", cluster, 64, 256, 2048);
    closed(&p, &l, &t);
    double calm = replayed(&p, &l, t, &healthy);
    struct plan_chance slow = { 1, 0, 0.5, 0.2 }, shaky = { 1, 0.05, 0, 0 };
    double slowed = replayed(&p, &l, t, &slow), shaken = replayed(&p, &l, t, &shaky);
    CHECK(slowed > 1.05 * calm && slowed < 1.2001 * calm);
    CHECK(shaken > calm && shaken < 1.3 * calm);
    arena_fini(&p.arena);
}

TEST(experts_keep_their_groups_in_lockstep)
{
    struct planned p;
    const struct plan_table *t;
    struct plan_layout l = { .tp = 1, .cp = 1, .pp = 2, .dp = 16, .ep = 8, .micro_batch = 1,
                             .micro_batches = 4, .virtual_stages = 1, .schedule = SCHEDULE_1F1B,
                             .zero = 1, .recompute = RECOMPUTE_FULL };
    open_planned(&p, "mixtral-8x7b", cluster, 32, 64, 1024);
    double sum = closed(&p, &l, &t);
    CHECK_NEAR(replayed(&p, &l, t, &healthy), sum, 0.05 * sum);
    arena_fini(&p.arena);
}

TEST_MAIN(ONE(without_chance_the_replay_takes_what_the_closed_form_says),
          ONE(what_is_hidden_is_hidden_when_walked_too), ONE(declared_stalls_are_walked),
          ONE(few_micro_batches_leave_gaps_with_zb_h1), ONE(stragglers_and_jitter_only_add),
          ONE(experts_keep_their_groups_in_lockstep))
