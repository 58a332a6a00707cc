/* What is measured here without a run: there for every op, positive, and said where it is from. */
#include "test.h"

#include "base/sys.h"
#include "plan/microbench.h"

#include <math.h>
#include <string.h>

static double share;
static int told;

static void hear(void *context, double fraction, const char *what)
{
    (void)context;
    CHECK(fraction >= share && fraction < 1 && what);
    share = fraction;
    told++;
}

static const struct plan_rate *rate_of(const struct plan_rates *r, const char *name)
{
    for (i64 i = 0; i < r->n; i++)
        if (!strcmp(r->rates[i].name, name))
            return &r->rates[i];
    return NULL;
}

static void measure(struct plan_rates *r, int ranks, enum dtype dtype, struct arena *a)
{
    static const struct machine machine = { .launch_ns = 1500,
        .level[MACHINE_LEVELS - 1] = { .bytes = (i64)1 << 34, .read_all = 2e10, .copy_all = 1e10 } };
    struct microbench m = { .ranks = ranks, .threads = 1, .dtype = dtype, .backend = "auto",
                            .machine = &machine, .widest = 64, .progress = hear, .parts = 1 };
    share = 0;
    CHECK_OK(microbench_run(r, &m, a));
}

TEST(every_op_of_a_step_gets_a_rate_and_every_product_a_point)
{
    static const char *const ops[] = { "linear", "linear_dx", "linear_dw", "attention",
                                       "attention_grad", "rmsnorm", "swiglu", "xent", "adamw" };
    struct arena a;
    struct plan_rates r;
    arena_init(&a);
    measure(&r, 1, DTYPE_F32, &a);
    for (i64 i = 0; i < COUNT_OF(ops); i++) {
        const struct plan_rate *rate = rate_of(&r, ops[i]);
        CHECK(rate && rate->flop_s + rate->byte_s + rate->task_s > 0 && rate->samples > 0);
    }
    CHECK(r.n_products >= 9);
    for (i64 i = 0; i < r.n_products; i++)
        CHECK(r.products[i].seconds > 0 && r.products[i].n >= 3 && r.products[i].spread >= 0);
    CHECK(!rate_of(&r, RATES_ANY_LANE));
    CHECK_NEAR(r.launch_s, 1.5e-6, 1e-12);
    CHECK_NEAR(r.memory[0].copy_bytes_per_s, 1e10, 1);
    arena_fini(&a);
}

TEST(two_ranks_measure_what_they_say_to_each_other)
{
    struct arena a;
    struct plan_rates r;
    arena_init(&a);
    told = 0;
    measure(&r, 2, DTYPE_BF16, &a);
    CHECK_STR(r.precision, "bf16");
    const struct plan_rate *any = rate_of(&r, RATES_ANY_LANE);
    CHECK(any && any->byte_s > 0 && any->samples >= 20);
    CHECK(rate_of(&r, "exchange.allreduce") && rate_of(&r, "exchange.send"));
    CHECK(plan_rates_lane(&r, LANE_DP) == any);
    CHECK(r.overlap_tax >= 0 && r.overlap_tax <= 1);
    CHECK_NEAR(r.memory[0].copy_bytes_per_s, 0.5e10, 1);
    arena_fini(&a);
}

TEST_MAIN(ONE(every_op_of_a_step_gets_a_rate_and_every_product_a_point),
          ONE(two_ranks_measure_what_they_say_to_each_other))
