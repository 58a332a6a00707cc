/* Rates of ops: what was planted is found again, written and read. */
#include "test.h"

#include "base/text.h"
#include "ops/ops.h"
#include "plan/rates.h"

#include <math.h>
#include <stdio.h>
#include <unistd.h>

static double planted(double flops, double bytes)
{
    return 2e-11 * flops + 1e-10 * bytes + 3e-6;
}

static i64 make(struct plan_sample *s)
{
    i64 n = 0;
    for (int i = 1; i <= 6; i++) {
        double flops = 1e6 * i * i, bytes = 4e4 * (7 - i) * (7 - i);
        s[n++] = (struct plan_sample){ "linear", flops, bytes, planted(flops, bytes), 1 };
        s[n++] = (struct plan_sample){ "add", 1e3 * i, 3e5 * i, 1e-10 * 3e5 * i, 1 };
        s[n++] = (struct plan_sample){ "lane.3", 0, 1e6 * i, 5e-5 + 1e-9 * 1e6 * i, 1 };
    }
    return n;
}

static double seconds(const struct plan_rates *r, const struct op_info *op, double flops,
                      double bytes, bool *outside)
{
    struct task t = { .op = op, .cost = { .flops = flops, .read_bytes = bytes } };
    return plan_rates_seconds(r, &t, outside);
}

TEST(planted_rates_are_found)
{
    struct arena a;
    struct plan_sample s[32];
    struct plan_rates r = { .precision = "fp32", .threads = 1, .ranks = 1 };
    bool outside = false;
    arena_init(&a);
    CHECK_OK(plan_rates_fit(&r, s, make(s), &a));
    CHECK_EQ(r.n, 3);
    CHECK_NEAR(r.spread, 0, 1e-9);
    CHECK_NEAR(seconds(&r, &op_linear, 5e6, 3e5, &outside) / planted(5e6, 3e5), 1, 1e-6);
    CHECK_NEAR(seconds(&r, &op_add, 2e3, 6e5, &outside) / 6e-5, 1, 1e-6);
    CHECK(!outside);
    CHECK_NEAR(plan_rates_lane(&r, LANE_DP)->task_s, 5e-5, 1e-10);
    CHECK(!plan_rates_lane(&r, LANE_TP));
    seconds(&r, &op_linear, 1e9, 3e5, &outside);
    CHECK(outside);
    arena_fini(&a);
}

TEST(no_rate_is_negative)
{
    struct arena a;
    struct plan_rates r = { 0 };
    /* Larger ones that take less: a line through these would have a negative slope. */
    struct plan_sample s[] = { { "add", 1e3, 1e5, 4e-5, 1 }, { "add", 2e3, 2e5, 3e-5, 1 },
                               { "add", 3e3, 3e5, 2e-5, 1 } };
    arena_init(&a);
    CHECK_OK(plan_rates_fit(&r, s, COUNT_OF(s), &a));
    CHECK(r.rates[0].flop_s >= 0 && r.rates[0].byte_s >= 0 && r.rates[0].task_s >= 0);
    CHECK(seconds(&r, &op_add, 2e3, 2e5, NULL) > 1e-5);
    arena_fini(&a);
}

TEST(what_is_written_is_read_and_another_kind_of_run_is_refused)
{
    struct arena a;
    struct plan_sample s[32];
    struct plan_rates r = { .processor = "some", .backend = "avx2", .precision = "fp32",
                            .threads = 2, .ranks = 1, .step_s = 0.25 };
    struct plan_rates back;
    const struct plan_rates *sets[] = { &r };
    struct plan_rates micro = { .processor = "some", .backend = "avx2", .precision = "fp32",
                                .threads = 1, .ranks = 2, .host = "here",
                                .date = "2026-01-02T03:04:05Z", .took_s = 20, .launch_s = 2e-6,
                                .overlap_tax = 0.25, .n_memory = 1,
                                .memory = { { 1e9, 2e10, 1e10 } }, .n_products = 1,
                                .products = { { "linear", 3, 4, 5, 7, 1e-3, 0.1 } } };
    const struct plan_rates *others[] = { &micro };
    struct text out = { 0 };
    arena_init(&a);
    CHECK_OK(plan_rates_fit(&r, s, make(s), &a));
    CHECK_OK(plan_rates_fit(&micro, s, make(s), &a));
    plan_rates_write(sets, 1, others, 1, &out);
    FILE *f = fopen("rates_test.yaml", "w");
    CHECK(f && fwrite(out.data, 1, strlen(out.data), f) == strlen(out.data) && !fclose(f));
    CHECK_OK(plan_rates_load(&back, "rates_test.yaml", "fp32", 2, 1, &a));
    CHECK_EQ(back.n, r.n);
    CHECK_NEAR(back.step_s, 0.25, 1e-9);
    CHECK_NEAR(seconds(&back, &op_linear, 5e6, 3e5, NULL) / planted(5e6, 3e5), 1, 1e-4);
    CHECK(!back.date);
    CHECK_FAILS(plan_rates_load(&back, "rates_test.yaml", "fp32", 7, 2, &a), ERR_CONFIG,
                "1 x 2 threads fp32, 2 x 1 threads fp32");
    CHECK_FAILS(plan_rates_load_measured(&back, "rates_test.yaml", "fp32", 2, 1, &a), ERR_CONFIG,
                "2 x 1 threads");
    CHECK_OK(plan_rates_load(&back, "rates_test.yaml", "fp32", 1, 2, &a)); /* no run: measured */
    CHECK_STR(back.date, "2026-01-02T03:04:05Z");
    CHECK_STR(back.host, "here");
    CHECK_NEAR(back.overlap_tax, 0.25, 1e-9);
    CHECK_NEAR(back.memory[0].copy_bytes_per_s, 1e10, 1);
    CHECK_EQ(back.products[0].N, 4);
    CHECK_EQ(back.products[0].n, 7);
    CHECK_EQ(back.n_products, 1);
    unlink("rates_test.yaml");
    text_fini(&out);
    arena_fini(&a);
}

static void write_file(const char *path, const struct text *t)
{
    FILE *f = fopen(path, "w");
    CHECK(f && fwrite(t->data, 1, (size_t)t->length, f) == (size_t)t->length && !fclose(f));
}

/* A run without exchanges, and a microbenchmark that has them and knows the memory. */
TEST(what_a_run_lacks_comes_from_the_microbenchmark)
{
    struct arena a;
    struct plan_sample add = { "add", 1e3, 1e6, 1e-3, 1 };
    struct plan_sample others[] = { { "add", 1e3, 1e6, 9e-3, 1 }, { RATES_ANY_LANE, 0, 1e6, 2e-3, 1 } };
    struct plan_rates run = { .processor = "some", .backend = "avx2", .precision = "fp32",
                              .threads = 1, .ranks = 2 }, micro = run, back;
    const struct plan_rates *runs[] = { &run }, *measured[] = { &micro };
    struct text out = { 0 };
    arena_init(&a);
    micro.host = "here";
    micro.date = "2026-01-02T03:04:05Z";
    micro.launch_s = 1e-5;
    micro.overlap_tax = 0.5;
    micro.memory[micro.n_memory++] = (struct plan_level){ 1e6, 8e10, 4e10 };
    micro.memory[micro.n_memory++] = (struct plan_level){ 1e12, 2e10, 1e10 };
    CHECK_OK(plan_rates_fit(&run, &add, 1, &a));
    CHECK_OK(plan_rates_fit(&micro, others, 2, &a));
    plan_rates_write(runs, 1, measured, 1, &out);
    write_file("rates_test.yaml", &out);
    CHECK_OK(plan_rates_load(&back, "rates_test.yaml", "fp32", 1, 2, &a));
    CHECK_NEAR(seconds(&back, &op_add, 1e3, 1e6, NULL), 1e-3, 1e-9);
    CHECK(plan_rates_lane(&back, LANE_DP) && plan_rates_lane(&back, LANE_TP));
    CHECK_NEAR(back.overlap_tax, 0, 0); /* the run's tasks have it already */
    bool outside = false; /* an op that neither has: by the level of memory that holds it */
    CHECK_NEAR(seconds(&back, &op_gelu, 1, 4e5, &outside), 1e-5 + 1e-5, 1e-9);
    CHECK_NEAR(seconds(&back, &op_gelu, 1, 4e8, &outside), 1e-5 + 4e-2, 1e-9);
    CHECK(outside);
    unlink("rates_test.yaml");
    text_fini(&out);
    arena_fini(&a);
}

/* 256 columns are six tiles of 48, 192 are four. */
TEST(products_are_computed_in_whole_tiles)
{
    struct tensor out = { .dim = { 8, 256 } };
    struct task t = { .op = &op_linear, .out = { &out }, .cost = { .flops = 1e6 } };
    struct plan_rates r = { .n = 1, .columns = 48, .rates = { { "linear", 1e-9, 0, 0, 1, 1e12, 1 } } };
    CHECK_NEAR(plan_tile_flops(1, 192, 48, 48), 1, 0);
    CHECK_NEAR(plan_tile_flops(1, 0, 48, 0), 1, 0);
    CHECK_NEAR(plan_tile_flops(1, 256, 1, 0), 1, 0);
    CHECK_NEAR(plan_rates_seconds(&r, &t, NULL), 1e-3 * 288 / 256, 1e-12);
    r.cut = 24; /* 256 columns end within the sixth tile */
    CHECK_NEAR(plan_rates_seconds(&r, &t, NULL), 1e-3 * 312 / 256, 1e-12);
    r.columns = 0;
    CHECK_NEAR(plan_rates_seconds(&r, &t, NULL), 1e-3, 1e-12);
}

TEST_MAIN(ONE(products_are_computed_in_whole_tiles),
          ONE(planted_rates_are_found), ONE(no_rate_is_negative),
          ONE(what_is_written_is_read_and_another_kind_of_run_is_refused),
          ONE(what_a_run_lacks_comes_from_the_microbenchmark))
