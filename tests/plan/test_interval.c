/* How far off a step may be: what was fitted, what was not, and pipelines that may stall. */
#include "test.h"

#include "plan/efficiency.h"
#include "plan/interval.h"
#include "plan/stack.h"

#include <math.h>

struct bed {
    struct plan_machine machine;
    struct plan_family family;
    struct plan_stack stack;
    struct plan_job job;
    struct model_spec spec;
    const char *seen[1];
};

static void bed_open(struct bed *b)
{
    *b = (struct bed){ .machine = { .n_tiers = 1, .node_ranks = 8 }, .seen = { "fitted" } };
    b->machine.device.family = "h100";
    b->machine.tiers[0] = (struct plan_tier){ .ranks = 1 << 20, .oversubscription = 1 };
    b->family = (struct plan_family){ .name = "h100", .seen_devices = 512, .seen_sequence = 4096,
                                      .seen_stacks = { b->seen, 1 }, .residual_lo = -0.1,
                                      .residual_hi = 0.2 };
    b->stack = (struct plan_stack){ .name = "fitted", .interval = 1, .stall_nodes = 1,
                                    .stall_from = 1e6 };
    b->job = (struct plan_job){ .machine = &b->machine, .family = &b->family, .stack = &b->stack,
                                .devices = 512, .sequence = 4096, .spec = &b->spec };
    b->spec.layers = 10;
}

TEST(what_is_like_the_fitted_rows_is_not_widened)
{
    struct bed b;
    bed_open(&b);
    CHECK_NEAR(plan_interval_widening(&b.job), 1, 1e-12);
    b.job.devices = 8;
    CHECK_NEAR(plan_interval_widening(&b.job), 1, 1e-12);
}

TEST(each_way_beyond_the_fitted_rows_widens)
{
    struct bed b;
    bed_open(&b);
    b.job.devices = 2048;
    CHECK_NEAR(plan_interval_widening(&b.job), 1.2, 1e-12);
    b.family.seen_devices = 0; /* nothing was fitted: its own interval says so */
    CHECK_NEAR(plan_interval_widening(&b.job), 1, 1e-12);
    b.family.seen_devices = 512;
    b.job.devices = 512;
    b.job.sequence = 8192;
    CHECK_NEAR(plan_interval_widening(&b.job), 1.1, 1e-12);
    b.job.sequence = 4096;
    b.machine.device.family = "other";
    CHECK(plan_interval_foreign(&b.job));
    CHECK_NEAR(plan_interval_widening(&b.job), 2, 1e-12);
    b.stack.name = "never seen";
    CHECK(plan_interval_strange(&b.job));
    CHECK_NEAR(plan_interval_widening(&b.job), sqrt(1 + 3 + 3), 1e-12); /* as squares */
    b.stack.interval = 3; /* the software says so itself */
    CHECK_NEAR(plan_interval_widening(&b.job), sqrt(1 + 3 + 8), 1e-12);
    b.stack.interval = 1;
    b.stack.like = "fitted";
    CHECK_NEAR(plan_interval_widening(&b.job), 2, 1e-12);
    b.stack.like = NULL;
    b.stack.seen = (struct option_strings){ b.seen, 1 };
    CHECK_NEAR(plan_interval_widening(&b.job), 2, 1e-12);
}

/* A stack says where it was fitted; the families say the same. */
TEST(stacks_and_families_agree_on_what_was_fitted)
{
    static const char *const stacks[] = { "llm-foundry", "nanotron", "megatron-deepspeed" };
    struct arena a;
    arena_init(&a);
    for (i64 i = 0; i < COUNT_OF(stacks); i++) {
        struct plan_stack s;
        CHECK_OK(plan_stack_load(&s, stacks[i], &a));
        CHECK(s.seen.count > 0);
        for (i64 k = 0; k < s.seen.count; k++) {
            struct plan_family f;
            CHECK_OK(plan_family_load(&f, s.seen.at[k], &a));
            CHECK(plan_family_saw(&f, s.name));
        }
    }
    arena_fini(&a);
}

/* Nothing was fitted on the B200: by its rule it is twice as uncertain as the H100, whatever
 * that is. */
TEST(a_device_without_rows_is_twice_as_uncertain_as_its_like)
{
    struct arena a;
    struct plan_family h100, b200;
    arena_init(&a);
    CHECK_OK(plan_family_load(&h100, "h100", &a));
    CHECK_OK(plan_family_load(&b200, "b200", &a));
    CHECK_NEAR(b200.residual_hi / h100.residual_hi, 2, 0.02);
    CHECK_NEAR(b200.residual_lo / h100.residual_lo, 2, 0.02);
    arena_fini(&a);
}

TEST(ends_are_those_of_the_software_or_of_the_family)
{
    struct bed b;
    struct plan_layout l = { .tp = 1, .cp = 1, .pp = 1, .dp = 512, .ep = 1, .micro_batches = 4 };
    struct plan_step s = { .seconds = 10 };
    bed_open(&b);
    plan_interval_of(&b.job, &l, &s);
    CHECK_NEAR(s.band.lo, 10 * exp(-0.1), 1e-9);
    CHECK_NEAR(s.band.mid, 10, 0);
    CHECK_NEAR(s.band.hi, 10 * exp(0.2), 1e-9);
    b.stack.residual_lo = -0.3;
    b.stack.residual_hi = 0.4;
    plan_interval_of(&b.job, &l, &s);
    CHECK_NEAR(s.band.lo, 10 * exp(-0.3), 1e-9);
    CHECK_NEAR(s.band.hi, 10 * exp(0.4), 1e-9);
}

/* By their share of the step, messages are six times as far off as what is computed. */
TEST(messages_are_less_certain_than_what_is_computed)
{
    struct bed b;
    struct plan_layout l = { .tp = 8, .cp = 1, .pp = 1, .dp = 64, .ep = 1, .micro_batches = 4 };
    struct plan_step s = { .seconds = 10 };
    bed_open(&b);
    s.terms[PLAN_IDEAL] = 10;
    CHECK_NEAR(plan_interval_spread(&s), 1, 1e-12);
    s.terms[PLAN_IDEAL] = 6;
    s.terms[PLAN_TP] = 3;
    s.terms[PLAN_DP] = 1;
    double spread = 0.6 + 6 * 0.4;
    CHECK_NEAR(plan_interval_spread(&s), spread, 1e-12);
    plan_interval_of(&b.job, &l, &s);
    CHECK_NEAR(s.band.lo, 10 * exp(-0.1 * spread), 1e-9);
    CHECK_NEAR(s.band.hi, 10 * exp(0.2 * spread), 1e-9);
    s.terms[PLAN_STRAGGLER] = s.terms[PLAN_BUBBLE] = 100; /* no messages */
    CHECK_NEAR(plan_interval_spread(&s), spread, 1e-12);
}

TEST(an_interval_holds_both_where_pipelines_may_stall)
{
    struct bed b;
    struct plan_layout l = { .tp = 1, .cp = 1, .pp = 4, .dp = 128, .ep = 1, .micro_batches = 4 };
    struct plan_step s = { .seconds = 10 };
    bed_open(&b); /* 64 nodes */
    b.stack.stall_s = 1;
    b.stack.stall_nodes = 128;
    b.stack.stall_from = 65;
    plan_interval_of(&b.job, &l, &s);
    CHECK_NEAR(s.band.hi, 10 * exp(0.2), 1e-9);
    b.stack.stall_from = 64;
    plan_interval_of(&b.job, &l, &s);
    CHECK_NEAR(s.band.hi, (10 + 9.5) * exp(0.2), 1e-9); /* 4 x 2 neighbours, and 3 / 2 on the way */
    CHECK_NEAR(s.band.lo, 10 * exp(-0.1), 1e-9);
    b.stack.stall_nodes = 64; /* it does, and the prediction says so */
    plan_interval_of(&b.job, &l, &s);
    CHECK_NEAR(s.band.hi, 10 * exp(0.2), 1e-9);
    b.stack.stall_nodes = 128;
    l.pp = 1;
    plan_interval_of(&b.job, &l, &s);
    CHECK_NEAR(s.band.hi, 10 * exp(0.2), 1e-9);
}

TEST(an_interval_holds_both_where_hosts_may_lag)
{
    struct bed b;
    struct plan_layout l = { .tp = 8, .cp = 1, .pp = 1, .dp = 64, .ep = 1, .micro_batches = 4 };
    struct plan_step s = { .seconds = 10 };
    bed_open(&b); /* 64 nodes */
    b.family.launch_s = 1e-4;
    b.stack.kernels_pipeline = 50;
    b.stack.stall_nodes = 65;
    plan_interval_of(&b.job, &l, &s);
    CHECK_NEAR(s.band.hi, 10 * exp(0.2), 1e-9);
    b.stack.stall_nodes = 64;
    plan_interval_of(&b.job, &l, &s);
    CHECK_NEAR(s.band.hi, (10 + 1.6) * exp(0.2), 1e-9); /* 10 layers x 4 x 8 ranks x 50 kernels */
    CHECK_NEAR(s.band.lo, 10 * exp(-0.1), 1e-9);
    l.pp = 2; /* priced so */
    plan_interval_of(&b.job, &l, &s);
    CHECK_NEAR(s.band.hi, 10 * exp(0.2), 1e-9);
}

TEST_MAIN(ONE(what_is_like_the_fitted_rows_is_not_widened), ONE(each_way_beyond_the_fitted_rows_widens),
          ONE(stacks_and_families_agree_on_what_was_fitted),
          ONE(a_device_without_rows_is_twice_as_uncertain_as_its_like),
          ONE(ends_are_those_of_the_software_or_of_the_family),
          ONE(messages_are_less_certain_than_what_is_computed),
          ONE(an_interval_holds_both_where_pipelines_may_stall),
          ONE(an_interval_holds_both_where_hosts_may_lag))
