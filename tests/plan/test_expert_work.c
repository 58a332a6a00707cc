/* What layers of experts take besides their operators, and what predicts a second token. */
#include "test.h"

#include "parallel/layout.h"
#include "plan/run_size.h"
#include "plan/table.h"
#include "plan_job.h"

#include <math.h>

static const struct plan_layout one = { .tp = 1, .cp = 1, .pp = 1, .dp = 8, .ep = 8, .micro_batch = 1,
                                        .micro_batches = 8, .virtual_stages = 1 };

static void open_experts(struct planned *p)
{
    open_planned(p, "qwen3-30b-a3b", "b200-ib", 8, 64, 4096);
    CHECK_OK(plan_family_load(&p->family, "b200", &p->arena));
    CHECK_OK(plan_stack_load(&p->stack, "megatron-bridge", &p->arena));
    p->stack.experts = (struct plan_expert_work){ 0 };
    p->stack.cast_bytes = 0;
}

static struct plan_step step_at(struct planned *p, const struct plan_layout *l)
{
    struct plan_table t;
    struct plan_step step;
    CHECK_OK(plan_table_new(&t, &p->job, l, &p->arena));
    plan_step_of(&p->job, l, &t, &step);
    return step;
}

/* 16 experts of a rank, or two, with six kernels each: the host falls behind with the former. */
TEST(a_kernel_for_each_expert_keeps_the_host_busy)
{
    struct planned p;
    struct plan_layout few = one;
    open_experts(&p);
    double quick = step_at(&p, &one).terms[PLAN_LAUNCH];
    p.stack.experts.each_forward = 2;
    p.stack.experts.each_backward = 4;
    double slow = step_at(&p, &one).terms[PLAN_LAUNCH];
    few.ep = 64; /* on 64 devices */
    few.dp = 64;
    p.job.devices = 64;
    p.job.global_batch = 512;
    double shared = step_at(&p, &few).terms[PLAN_LAUNCH];
    CHECK(slow > 10 * quick);
    CHECK(slow > 3 * shared);
    arena_fini(&p.arena);
}

/* Casts of each expert's rows are kernels, too, where there are any. */
TEST(casts_are_kernels_and_traffic_of_fewer_bits_alone)
{
    struct planned p;
    open_experts(&p);
    for (int dtype = PLAN_BF16; dtype <= PLAN_FP8; dtype++) {
        p.job.dtype = dtype;
        p.stack.cast_bytes = 0;
        p.stack.experts = (struct plan_expert_work){ .each_forward = 2, .each_backward = 4, .casts = 2 };
        struct plan_step none = step_at(&p, &one);
        p.stack.cast_bytes = 4;
        struct plan_step cast = step_at(&p, &one);
        if (dtype == PLAN_BF16)
            CHECK_NEAR(cast.seconds, none.seconds, 0);
        else {
            CHECK(cast.terms[PLAN_MEMORY_BOUND] > 1.2 * none.terms[PLAN_MEMORY_BOUND]);
            CHECK(cast.terms[PLAN_LAUNCH] > 1.2 * none.terms[PLAN_LAUNCH]);
        }
    }
    arena_fini(&p.arena);
}

/* Where the host learns counts first, it is not ahead when experts begin. */
TEST(a_host_that_waits_for_counts_adds_its_time)
{
    struct planned p;
    open_experts(&p);
    p.stack.experts = (struct plan_expert_work){ .forward = 30, .each_forward = 2 };
    double ahead = step_at(&p, &one).seconds;
    p.stack.experts.waits = true;
    CHECK(step_at(&p, &one).seconds > 1.02 * ahead);
    arena_fini(&p.arena);
}

TEST(rows_of_others_are_sorted_where_there_are_others)
{
    struct planned p;
    struct plan_layout alone = one;
    open_experts(&p);
    alone.ep = 1;
    double before = step_at(&p, &one).terms[PLAN_MEMORY_BOUND];
    double own = step_at(&p, &alone).terms[PLAN_MEMORY_BOUND];
    p.stack.experts.sorts = 2;
    double bytes = 2 * 4 * (4096.0 * 8 * 2048) * 2; /* two sorts, read and written, each way */
    double seconds = 8 * 48 * bytes / (p.machine.device.memory_bytes_per_s * p.family.memory);
    CHECK_NEAR((step_at(&p, &one).terms[PLAN_MEMORY_BOUND] - before) / seconds, 1, 0.1);
    CHECK_NEAR(step_at(&p, &alone).terms[PLAN_MEMORY_BOUND], own, 0);
    arena_fini(&p.arena);
}

/* Per token of Llama's layer of width C and F hidden units: norms' results and SwiGLU's are kept in
 * a byte, attention's result in two and one. */
TEST(copies_that_were_cast_are_kept_for_rows)
{
    struct planned p;
    struct plan_table t[2];
    struct plan_layout l = { .tp = 1, .cp = 1, .pp = 1, .dp = 8, .ep = 1, .micro_batch = 1,
                             .micro_batches = 8, .virtual_stages = 1 };
    open_planned(&p, "llama3-8b", "b200-ib", 8, 64, 4096);
    CHECK_OK(plan_stack_load(&p.stack, "megatron-core", &p.arena));
    const double C = 4096, F = 14336, saved = 2 * C + F - C;
    for (int dtype = PLAN_BF16; dtype <= PLAN_FP8; dtype++) {
        p.job.dtype = dtype;
        for (int keeps = 0; keeps < 2; keeps++) {
            p.stack.keeps_casts = keeps;
            CHECK_OK(plan_table_new(&t[keeps], &p.job, &l, &p.arena));
        }
        double less = t[0].pieces[PLAN_DENSE].kept_bytes[RECOMPUTE_NONE] -
                      t[1].pieces[PLAN_DENSE].kept_bytes[RECOMPUTE_NONE];
        CHECK_NEAR(less, dtype == PLAN_FP8 ? 4096 * saved : 0, 1);
    }
    arena_fini(&p.arena);
}

/* --- a second token -------------------------------------------------------------------- */

/* A block, a head and a product of twice the width to the width, three times each. */
TEST(a_second_token_takes_a_block_a_head_and_a_projection)
{
    struct arena a;
    struct model_spec s;
    struct plan_run_size with, without, taller, wordy;
    arena_init(&a);
    CHECK_OK(spec_load(&s, "deepseek-v3", &a));
    CHECK_EQ(s.mtp_depth, 1);
    CHECK_OK(plan_run_size_of(&with, &s, 4096));
    s.mtp_depth = 0;
    CHECK_OK(plan_run_size_of(&without, &s, 4096));
    s.layers++;
    CHECK_OK(plan_run_size_of(&taller, &s, 4096));
    s.layers--;
    s.vocab *= 2;
    CHECK_OK(plan_run_size_of(&wordy, &s, 4096));
    double base = without.flops_per_token, w = 7168;
    double sum = (taller.flops_per_token - base) + (wordy.flops_per_token - base) + 12 * w * w;
    CHECK_NEAR(with.flops_per_token - base, sum, 1e-3 * sum);
    arena_fini(&a);
}

TEST(a_second_token_takes_time_and_memory_on_the_last_stage)
{
    for (i64 pp = 1; pp <= 4; pp *= 2)
        for (i64 depth = 1; depth <= 2; depth++) {
            struct planned p;
            struct plan_layout l = one;
            open_experts(&p);
            p.job.any = true;
            l.pp = pp;
            l.dp = 8;
            p.job.devices = 8 * pp;
            struct plan_step without = step_at(&p, &l);
            p.spec.mtp_depth = depth;
            struct plan_step with = step_at(&p, &l);
            double terms = 0;
            for (int i = 0; i < PLAN_TERMS; i++) {
                CHECK(with.terms[i] >= 0);
                terms += with.terms[i];
            }
            CHECK_NEAR(terms, with.seconds, 1e-9 * terms);
            CHECK(with.seconds > without.seconds);
            CHECK(with.flops > without.flops);
            CHECK(with.memory_bytes > without.memory_bytes || pp > 1);
            arena_fini(&p.arena);
        }
}

/* 61 layers on 16 stages: who places the module takes layers from its stage for it. */
TEST(layers_make_room_for_the_module)
{
    struct planned p;
    open_planned(&p, "deepseek-v3", "b200-ib", 256, 4096, 4096);
    CHECK_OK(plan_family_load(&p.family, "b200", &p.arena));
    CHECK_OK(plan_stack_load(&p.stack, "megatron-bridge", &p.arena));
    p.stack.experts.once = true;
    struct plan_layout l = { .tp = 1, .cp = 1, .pp = 16, .dp = 16, .ep = 8, .micro_batch = 1,
                             .micro_batches = 256, .virtual_stages = 1, .schedule = SCHEDULE_1F1B };
    struct plan_step with = step_at(&p, &l);
    CHECK(with.terms[PLAN_IMBALANCE] < 0.1 * with.seconds);
    arena_fini(&p.arena);
}

TEST_MAIN(ONE(a_kernel_for_each_expert_keeps_the_host_busy),
          ONE(casts_are_kernels_and_traffic_of_fewer_bits_alone),
          ONE(a_host_that_waits_for_counts_adds_its_time),
          ONE(rows_of_others_are_sorted_where_there_are_others),
          ONE(copies_that_were_cast_are_kept_for_rows),
          ONE(a_second_token_takes_a_block_a_head_and_a_projection),
          ONE(a_second_token_takes_time_and_memory_on_the_last_stage),
          ONE(layers_make_room_for_the_module))
