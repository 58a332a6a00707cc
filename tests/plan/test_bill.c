/* Energy, money and FLOPs of runs, beside sums by hand and beside what was published. */
#include "test.h"

#include "base/err.h"
#include "model/params.h"
#include "plan/bill.h"
#include "plan/failures.h"
#include "plan/limits.h"
#include "plan/published.h"
#include "plan/run_size.h"

#include <math.h>

static struct arena arena;

static struct plan_machine load(const char *name)
{
    struct plan_machine m;
    CHECK_OK(plan_machine_load(&m, name, &arena));
    return m;
}

TEST(power_follows_utilisation)
{
    struct plan_machine m = load("h100-sxm");
    struct plan_band idle = plan_device_watts(&m.device, (struct plan_band){ 0, 0, 0 });
    struct plan_band full = plan_device_watts(&m.device, (struct plan_band){ 1, 1, 1 });
    CHECK_NEAR(idle.mid, 0.15 * 700, 1e-9); /* OLMo 2: 15 to 85 % */
    CHECK_NEAR(full.mid, 0.85 * 700, 1e-9);
    CHECK_NEAR(full.hi, 700, 1e-9);
    m.device.idle_w = 70;
    CHECK_NEAR(plan_device_watts(&m.device, (struct plan_band){ 0, 0, 0 }).mid, 70, 1e-9);
    CHECK_NEAR(plan_device_watts(&m.device, (struct plan_band){ 1, 1, 1 }).mid, 595, 1e-9);
}

TEST(a_bill_is_a_sum_by_hand)
{
    struct plan_machine m = load("h100-sxm node:8 price=3USD/h pue=1.1 at=FRA");
    struct plan_use use = { .devices = 1000, .seconds = 36000, .busy = { 0.5, 0.5, 0.5 } };
    struct plan_bill b;
    CHECK_OK(plan_bill_of(&m, &use, &b));
    double mwh = (0.5 + 0.59) * 700 * 1000 * 10 * 1e-6 * 1.1;
    CHECK_NEAR(b.device_hours, 10000, 1e-9);
    CHECK_NEAR(b.peak_mwh, 7, 1e-9);
    CHECK_NEAR(b.mwh.mid, mwh, 1e-9);
    CHECK_NEAR(b.tco2e.mid, mwh * 56.039e-3, 1e-9); /* France 2023 */
    CHECK_NEAR(b.money, 30000, 1e-9);
    CHECK_STR(b.currency, "USD");
    use.pue = 0.9;
    CHECK_FAILS(plan_bill_of(&m, &use, &b), ERR_CONFIG, "no less than its machines");
    use.pue = 0;
    use.location = "Atlantis";
    CHECK_FAILS(plan_bill_of(&m, &use, &b), ERR_CONFIG, "no carbon factor for 'Atlantis'");
    struct plan_machine tpu = load("tpu-v5p");
    use.location = NULL;
    CHECK_OK(plan_bill_of(&tpu, &use, &b));
    CHECK(!b.power_known && b.mwh.mid == 0);
}

/* MWh of a run of so many 6ND FLOPs at a published MFU. */
static struct plan_bill bill_at(const char *device, double flops, double mfu)
{
    struct plan_machine m = load(device);
    struct plan_bill b;
    int half = plan_half_dtype(&m.device);
    struct plan_use use = { .devices = 1, .seconds = flops / (m.device.peak[half] * mfu),
                            .busy = plan_busy_of_mfu(&m.device, half, mfu) };
    CHECK_OK(plan_bill_of(&m, &use, &b));
    return b;
}

TEST(published_energies_lie_in_the_bands)
{
    /* GPT-3: 3.14e23 FLOPs, 21.3 % of 10,000 V100 (PaLM's table 3); 1,287 MWh. */
    struct plan_bill gpt3 = bill_at("v100-sxm2-32gb", 3.14e23, 0.213);
    CHECK(gpt3.mwh.lo < 1287 && 1287 < gpt3.mwh.hi);
    /* BLOOM: 1,082,990 hours of A100 for 366e9 tokens; 433.2 + 256.6 MWh. */
    double flops = 6 * 176.2e9 * 366e9, mfu = flops / (1082990 * 3600.0 * 312e12);
    struct plan_bill bloom = bill_at("a100-sxm-80gb", flops, mfu);
    CHECK_NEAR(bloom.device_hours, 1082990, 1);
    CHECK_NEAR(bloom.peak_mwh, 433.2, 0.1); /* they took TDP for the GPUs */
    CHECK(bloom.mwh.lo < 689.8 && 689.8 < bloom.mwh.hi);
}

TEST(published_runs_are_within_the_bands)
{
    struct published_run *runs;
    i64 n, energies = 0;
    CHECK_OK(published_runs(&runs, &n, &arena));
    CHECK(n >= 7);
    for (i64 i = 0; i < n; i++) {
        const struct published_run *r = &runs[i];
        CHECK(r->mfu > 0.1 && r->mfu < 0.6);
        if (r->mwh > 0) {
            CHECK(r->bill.mwh.lo < r->mwh && r->mwh < r->bill.mwh.hi);
            energies++;
        }
        if (r->tco2e > 0)
            CHECK(r->bill.tco2e.lo < r->tco2e && r->tco2e < r->bill.tco2e.hi);
    }
    CHECK_EQ(energies, 2);
}

static struct plan_run_size size_of(const char *model, i64 sequence)
{
    struct model_spec s;
    struct plan_run_size size;
    CHECK_OK(spec_load(&s, model, &arena));
    CHECK_OK(plan_run_size_of(&size, &s, sequence));
    return size;
}

TEST(the_program_counts_what_the_formula_counts)
{
    /* Llama: 6 x the matrices that meet each token, and half of 12 L s h for causal attention. */
    struct plan_run_size s = size_of("llama3-405b", 8192);
    double matrices = 6 * s.in_products, attention = 6.0 * 126 * 8192 * 16384;
    CHECK_NEAR(s.flops_per_token / (matrices + attention), 1, 0.002);
    CHECK_NEAR(s.square_per_token / (matrices + 2 * attention), 1, 0.002);
    CHECK_NEAR(1e-9 * s.parameters, 405, 1.5);
    /* GPT-3, published: 3.14e23 for 300e9 tokens. */
    struct plan_run_size g = size_of("gpt3-175b", 2048);
    CHECK_NEAR(300e9 * g.six_n_per_token / 3.14e23, 1, 0.01);
    CHECK(size_of("llama3-8b", 8192).attention_share > size_of("llama3-8b", 1024).attention_share);
}

TEST(published_device_hours_follow_from_published_utilisation)
{
    /* Llama 3.1 405B: 15.6e12 tokens, MFU 38 to 43 %, 30.84e6 hours of H100; 54 days of
     * failures. */
    struct failure_law law;
    CHECK_OK(failure_law_load(&law, "llama3", &arena));
    struct plan_run_size s = size_of("llama3-405b", 8192);
    double hours = s.flops_per_token * 15.6e12 / 989e12 / 3600, up[3];
    for (int e = 0; e < 3; e++) {
        struct failure_job j = failure_job_of(&law, 2048, e);
        j.write_s = j.stall_s;
        j.every_s = failure_best_interval(&j);
        j.spares = 14;
        up[e] = failure_goodput(&j).progress;
    }
    CHECK(hours / 0.43 / up[FAILURE_QUICK] < 30.84e6 && 30.84e6 < hours / 0.38 / up[FAILURE_SLOW]);
    CHECK_NEAR(hours / 0.405 / up[FAILURE_MIDDLE] / 30.84e6, 1, 0.05);
    /* MegaScale, 1,024 A100: 8.9 s for 768 rows of 2,048 at an MFU of 59.0 % with whole squares. */
    struct plan_run_size g = size_of("gpt3-175b", 2048);
    CHECK_NEAR(g.square_per_token * 768 * 2048 / 8.9 / 1024 / 312e12, 0.590, 0.015);
}

TEST(limits_are_those_of_the_ridge)
{
    struct plan_machine m = load("h100-sxm node:8x300GB/s net:*x40GB/s/2");
    struct model_spec s;
    struct plan_limits l;
    CHECK_OK(spec_load(&s, "llama3-70b", &arena));
    CHECK_OK(plan_limits_of(&l, &s, &m, 1024, 8192, 4e6, 2e6, PLAN_BF16));
    double net = 794.5e12 / 20e9; /* oversubscribed 2 to 1 */
    CHECK_NEAR(l.net_ridge, net, 1e-6 * net);
    CHECK_NEAR(l.tensor_node, 8, 1e-9); /* 28672 / 2648 is more than a node */
    CHECK_NEAR(l.tensor_net, 28672 / net, 1e-9);
    CHECK_NEAR(l.context_net, 8192 * 8.0 / net, 1e-9);
    CHECK_NEAR(l.data_ranks, 4e6 / net, 1e-6);
    CHECK_NEAR(l.critical_ranks, 2e6 / net, 1e-6);
    /* 100 data ranks have 4 rows each; 6 ranks of 13 stages idle 5 / 57, 7 of 11 would 6 / 50. */
    CHECK_NEAR(l.stages, 6, 0);
    CHECK_NEAR(l.devices, 100 * 8 * 6, 0);
    CHECK_NEAR(l.memory_split, 18 * (double)params_total(&s) / m.device.memory_bytes, 1e-9);
    CHECK_FAILS(plan_limits_of(&l, &s, &m, 8, 0, 1e6, 0, PLAN_FP4), ERR_CONFIG, "no peak in fp4");
}

int main(void)
{
    const struct CMUnitTest all[] = {
        ONE(power_follows_utilisation), ONE(a_bill_is_a_sum_by_hand),
        ONE(published_energies_lie_in_the_bands), ONE(published_runs_are_within_the_bands), ONE(the_program_counts_what_the_formula_counts),
        ONE(published_device_hours_follow_from_published_utilisation),
        ONE(limits_are_those_of_the_ridge),
    };
    arena_init(&arena);
    int failed = cmocka_run_group_tests(all, NULL, NULL);
    arena_fini(&arena);
    return failed;
}
