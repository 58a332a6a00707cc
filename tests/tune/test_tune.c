/* What is proposed, chosen, and made of times; no process is started. */
#include "test.h"
#include "tune/tune.h"

#include <math.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static struct arena arena;
static struct train_recipe *recipe;

static int setup(void **state)
{
    (void)state;
    arena_init(&arena);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    arena_fini(&arena);
    return 0;
}

/* A recipe with the model's vocabulary given, so that no file but itself is read. */
static void read_recipe(const char *extra, const char *layout)
{
    FILE *f = fopen("tune-test.yaml", "w");
    CHECK(f != NULL);
    fprintf(f, "model: {spec: laptop-2m, override: {layers: 4, vocab: 512}}\n"
               "data: {sources: nowhere}\ntrain: {steps: 10, batch: 8, accumulate: 2, seq: 64}\n%s",
            extra);
    fclose(f);
    recipe = ARENA_NEW(&arena, struct train_recipe);
    CHECK_OK(train_recipe_read(recipe, "tune-test.yaml", NULL, 0, layout, &arena));
    unlink("tune-test.yaml");
}

static struct change_list propose(const char *knob, i64 ranks)
{
    struct change_list out = { .arena = &arena };
    const struct knob_view view = { .recipe = recipe, .ranks = ranks, .node_ranks = ranks,
                                    .cores = 4 };
    for (const struct knob *k = knobs; k->name; k++)
        if (strcmp(k->name, knob) == 0)
            k->propose(&view, &out);
    return out;
}

static bool proposes(const struct change_list *l, const char *set)
{
    for (int i = 0; i < l->n; i++)
        for (int k = 0; k < l->at[i].n_sets; k++)
            if (strcmp(l->at[i].sets[k], set) == 0)
                return true;
    return false;
}

TEST(micro_batches_are_cut_anew_and_the_rows_of_a_step_stay)
{
    read_recipe("", NULL);
    struct change_list l = propose("micro-batch", 1);
    CHECK(l.n > 0);
    for (int i = 0; i < l.n; i++) {
        int batch = 0, accumulate = 0;
        CHECK_EQ(l.at[i].n_sets, 2);
        CHECK_EQ(sscanf(l.at[i].sets[0], "train.batch=%d", &batch), 1);
        CHECK_EQ(sscanf(l.at[i].sets[1], "train.accumulate=%d", &accumulate), 1);
        CHECK_EQ(batch * accumulate, 16);
        CHECK(batch != 8);
    }
    CHECK(proposes(&l, "train.batch=16") && proposes(&l, "train.batch=4"));
}

TEST(threads_are_those_of_the_cores_that_a_rank_has)
{
    read_recipe("", NULL);
    struct change_list one = propose("threads", 1), two = propose("threads", 2);
    CHECK(proposes(&one, "train.threads=2") && proposes(&one, "train.threads=3"));
    CHECK(!proposes(&one, "train.threads=4")); /* as it is */
    CHECK_EQ(two.n, 1);
    CHECK(proposes(&two, "train.threads=1"));
}

TEST(precision_is_marked_since_other_numbers_come_out)
{
    read_recipe("", NULL);
    struct change_list l = propose("precision", 1), r = propose("recompute", 1);
    CHECK_EQ(l.n, 1);
    CHECK(l.at[0].numbers && proposes(&l, "train.precision=bf16"));
    CHECK_EQ(r.n, 2);
    CHECK(!r.at[0].numbers && !r.at[1].numbers);
}

TEST(layouts_are_legal_and_use_all_ranks)
{
    read_recipe("", "dp=4");
    struct change_list l = propose("layout", 4);
    CHECK(l.n > 3);
    for (int i = 0; i < l.n; i++) {
        int pp = 0, dp = 0, tp = 0;
        CHECK_EQ(sscanf(l.at[i].sets[0], "layout.pp=%d", &pp), 1);
        CHECK_EQ(sscanf(l.at[i].sets[1], "layout.dp=%d", &dp), 1);
        CHECK_EQ(sscanf(l.at[i].sets[2], "layout.tp=%d", &tp), 1);
        CHECK_EQ(pp * dp * tp, 4);
    }
}

TEST(a_finding_speaks_for_knobs_by_its_whole_id)
{
    const struct knob k = { "x", "", "K10 C1", NULL, NULL };
    CHECK(knob_heeds(&k, "K10") && knob_heeds(&k, "C1"));
    CHECK(!knob_heeds(&k, "K1") && !knob_heeds(&k, "C10") && !knob_heeds(&k, "1"));
}

/* --- ratios -------------------------------------------------------------------------- */

static struct timing_result result_of(double step_s, double tokens, double decay)
{
    enum { N = 16 };
    struct timing_result r = { .steps = N, .tokens = tokens };
    r.step_s = ARENA_ARRAY(&arena, double, N);
    r.loss = ARENA_ARRAY(&arena, double, N);
    for (int i = 0; i < N; i++) {
        r.step_s[i] = step_s;
        r.loss[i] = 8 - decay * i;
    }
    return r;
}

static double ratio_of(enum tune_objective o, double tolerance, const struct timing_result *now,
                       const struct timing_result *was)
{
    const struct tune_measure m = { o, tolerance, false };
    return tune_ratio(&m, now, was);
}

/* A loader that is late in every eighth step, and a machine that once stands still. */
TEST(waits_in_some_steps_count_where_means_are_asked_for)
{
    struct timing_result was = result_of(1, 100, 0), now = result_of(1, 100, 0);
    const struct tune_measure median = { TUNE_SPEED, 0, false }, mean = { TUNE_SPEED, 0, true };
    was.step_s[3] = was.step_s[11] = 2;
    CHECK_NEAR(tune_ratio(&median, &now, &was), 1, 1e-12);
    CHECK_NEAR(tune_ratio(&mean, &now, &was), 16 / 18., 1e-12);
    was.step_s[3] = 100;
    CHECK_NEAR(tune_ratio(&mean, &now, &was), 16 / 19., 1e-12);
}

TEST(speed_counts_tokens_and_not_steps)
{
    struct timing_result was = result_of(1, 100, 0), now = result_of(1.5, 200, 0);
    CHECK_NEAR(ratio_of(TUNE_SPEED, 0, &now, &was), 0.75, 1e-12);
    now.step_s[3] = 100; /* a pause of the machine */
    CHECK_NEAR(ratio_of(TUNE_SPEED, 0, &now, &was), 0.75, 1e-12);
}

TEST(time_to_loss_counts_both_the_steps_and_their_length)
{
    struct timing_result was = result_of(1, 100, 0.1), slow = result_of(2, 100, 0.1);
    struct timing_result steep = result_of(1, 100, 0.2), worse = result_of(0.5, 100, 0.05);
    CHECK_NEAR(ratio_of(TUNE_LOSS, 0, &slow, &was), 2, 1e-12);
    CHECK(ratio_of(TUNE_LOSS, 0, &steep, &was) < 0.7);
    CHECK(isnan(ratio_of(TUNE_LOSS, 0, &worse, &was))); /* never gets there */
    CHECK(isfinite(ratio_of(TUNE_LOSS, 1, &worse, &was))); /* near enough for whom it is */
}

TEST(energy_that_is_not_known_is_no_gain)
{
    struct timing_result was = result_of(1, 100, 0), now = result_of(1, 100, 0);
    was.joules_per_token = 2;
    CHECK(isnan(ratio_of(TUNE_ENERGY, 0, &now, &was)));
    now.joules_per_token = 1.5;
    CHECK_NEAR(ratio_of(TUNE_ENERGY, 0, &now, &was), 0.75, 1e-12);
}

/* Starting takes 100 J, and each step 1 J for 64 tokens. */
TEST(a_trials_energy_is_that_of_its_steps)
{
    struct timing_result r;
    CHECK(mkdir("tune-run", 0755) == 0);
    FILE *f = fopen("tune-run/metrics.jsonl", "w");
    CHECK(f != NULL);
    for (int step = 1; step <= 10; step++)
        fprintf(f, "{\"event\":\"step\",\"step\":%d,\"tokens\":%d,\"step_s\":0.1,\"loss\":3,"
                "\"energy\":{\"J\":%d}}\n", step, 64 * step, 100 + step);
    fclose(f);
    CHECK_OK(timing_read(&r, "tune-run", &arena));
    CHECK_EQ(r.steps, 10 - TIMING_WARM_UP);
    CHECK_NEAR(r.joules_per_token, 1 / 64., 1e-12);
    CHECK(unlink("tune-run/metrics.jsonl") == 0 && rmdir("tune-run") == 0);
}

/* --- forecasts ----------------------------------------------------------------------- */

static const struct machine box = {
    .cores = 4, .threads = 4, .f32_one = 5e10, .f32_all = 2e11, .bf16_one = 1e11, .bf16_all = 4e11,
    .launch_ns = 2000, .level = { [MACHINE_LEVELS - 1] = { .bytes = 1, .copy_all = 2e10 } },
};

static double forecast_of(const char *set)
{
    struct tune_change c = { .sets = { set }, .n_sets = 1 };
    const struct timing_base base = { .recipe = "tune-forecast.yaml" };
    const struct knob_view view = { .recipe = recipe, .ranks = 1, .node_ranks = 1, .cores = 4 };
    struct forecast f;
    CHECK_OK(forecast_step(&f, &base, set ? &c : NULL, &box, &view));
    CHECK(f.bytes > 0);
    return f.seconds;
}

TEST(forecasts_know_what_is_computed_and_with_what)
{
    FILE *f = fopen("tune-forecast.yaml", "w");
    CHECK(f != NULL);
    fprintf(f, "model: {spec: laptop-2m, override: {vocab: 512}}\ndata: {sources: nowhere}\n"
               "train: {steps: 10, batch: 8, seq: 256}\n");
    fclose(f);
    read_recipe("", NULL);
    const double was = forecast_of(NULL);
    CHECK(forecast_of("train.threads=1") > 2.5 * was);
    CHECK(forecast_of("train.recompute=full") > 1.15 * was);
    CHECK(forecast_of("train.precision=bf16") < 0.8 * was);
    CHECK(forecast_of("train.accumulate=2") > 1.8 * was);
    unlink("tune-forecast.yaml");
}

TEST(what_is_not_legal_is_said_by_the_forecast)
{
    FILE *f = fopen("tune-forecast.yaml", "w");
    CHECK(f != NULL);
    fprintf(f, "model: {spec: laptop-2m, override: {vocab: 512}}\ndata: {sources: nowhere}\n"
               "train: {steps: 10, batch: 8, seq: 256}\n");
    fclose(f);
    read_recipe("", NULL);
    struct tune_change c = { .sets = { "layout.tp=3" }, .n_sets = 1 };
    const struct timing_base base = { .recipe = "tune-forecast.yaml" };
    const struct knob_view view = { .recipe = recipe, .ranks = 1, .node_ranks = 1, .cores = 4 };
    struct forecast x;
    CHECK_FAILS(forecast_step(&x, &base, &c, &box, &view), ERR_CONFIG, "tp=3");
    unlink("tune-forecast.yaml");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ONE(micro_batches_are_cut_anew_and_the_rows_of_a_step_stay),
        ONE(threads_are_those_of_the_cores_that_a_rank_has),
        ONE(precision_is_marked_since_other_numbers_come_out),
        ONE(layouts_are_legal_and_use_all_ranks),
        ONE(a_finding_speaks_for_knobs_by_its_whole_id),
        ONE(speed_counts_tokens_and_not_steps),
        ONE(waits_in_some_steps_count_where_means_are_asked_for),
        ONE(time_to_loss_counts_both_the_steps_and_their_length),
        ONE(energy_that_is_not_known_is_no_gain),
        ONE(a_trials_energy_is_that_of_its_steps),
        ONE(forecasts_know_what_is_computed_and_with_what),
        ONE(what_is_not_legal_is_said_by_the_forecast),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
