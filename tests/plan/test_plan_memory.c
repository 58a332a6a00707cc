/* Memory of ranks beside published memory (facts/measured/memory_validation.csv: Korthikanti et al.
 * 2022, figure 1, A100 with 80 GB): weights, gradients and optimizer state, and the first
 * stage's activations. */
#include "test.h"

#include "parallel/layout.h"
#include "plan/ops_scale.h"
#include "plan_job.h"


struct published {
    const char *model;
    i64 pp, chunks, micro_batch, rows;
    double state, plain, lean; /* GiB: parameters; activations without and with sequence parallel
                                * and selective recompute */
};

static const struct published published[] = {
    { "megatron-22b", 1, 1, 4, 4, 45.5625, 59.25, 9.5625 },
    { "gpt3-175b", 8, 3, 1, 64, 45.5625, 66.84375, 12.3515625 },
    { "mt-nlg-530b", 35, 3, 1, 280, 31.640625, 114.0234375, 23.076171875 },
    { "megatron-1t", 64, 1, 1, 512, 32.958984375, 131.25, 26.5625 },
};

static struct plan_step memory_of(struct planned *p, const struct published *x, bool lean)
{
    const struct plan_table *t;
    struct plan_step step;
    struct plan_layout l = { .tp = 8, .cp = 1, .pp = x->pp, .dp = 1, .ep = 1,
                             .micro_batch = x->micro_batch,
                             .micro_batches = x->rows / x->micro_batch,
                             .virtual_stages = x->chunks, .sequence_parallel = lean,
                             .schedule = x->chunks > 1 ? SCHEDULE_INTERLEAVED : SCHEDULE_1F1B,
                             .recompute = lean ? RECOMPUTE_SELECTIVE : RECOMPUTE_NONE };
    CHECK_OK(plan_shelf_table(plan_shelf_new(&p->job, &p->arena), &l, &t));
    plan_memory_of(&p->job, &l, t, &step);
    return step;
}

static double off(double is, double published_gib)
{
    return is / (1 << 30) / published_gib - 1;
}

TEST(state_and_activations_are_those_that_were_published)
{
    for (int i = 0; i < COUNT_OF(published); i++) {
        struct planned p;
        const struct published *x = &published[i];
        open_planned(&p, x->model, "a100-sxm-80gb node:8 fabric:*x25GB/s", 8 * x->pp, x->rows,
                     2048);
        CHECK_OK(plan_stack_load(&p.stack, "megatron-lm", &p.arena));
        struct plan_step plain = memory_of(&p, x, false), lean = memory_of(&p, x, true);
        const double *m = plain.memory;
        double held = m[PLAN_WEIGHTS] + m[PLAN_GRADIENTS] + m[PLAN_OPTIMIZER_STATE];
        /* What was published counts layers only: 18 bytes for each parameter of the table, too. */
        double table = 18.0 / 8 * (double)(p.spec.vocab * p.spec.width);
        CHECK_NEAR(off(held - table, x->state), 0, 0.01);
        CHECK_NEAR(off(plain.memory[PLAN_ACTIVATIONS], x->plain), 0, 0.005);
        CHECK_NEAR(off(lean.memory[PLAN_ACTIVATIONS], x->lean), 0, 0.005);
        arena_fini(&p.arena);
    }
}

TEST_MAIN(ONE(state_and_activations_are_those_that_were_published))
