/* Whole tunings on made-up machines: drifting, noisy, with a wild round; no process is started. */
#include "base/text.h"
#include "test.h"
#include "tune/choose.h"
#include "tune/tune_report.h"

#include <math.h>
#include <stdio.h>
#include <unistd.h>

static struct arena arena;
static struct train_recipe *recipe;

static int setup(void **state)
{
    (void)state;
    arena_init(&arena);
    FILE *f = fopen("trials.yaml", "w");
    if (!f)
        return -1;
    fprintf(f, "model: {spec: laptop-2m, override: {layers: 4, vocab: 512}}\n"
               "data: {sources: nowhere, threads: 4}\n"
               "train: {steps: 10, batch: 8, seq: 64, recompute: full, threads: 4}\n");
    fclose(f);
    recipe = ARENA_NEW(&arena, struct train_recipe);
    return train_recipe_read(recipe, "trials.yaml", NULL, 0, NULL, &arena);
}

static int teardown(void **state)
{
    (void)state;
    arena_fini(&arena);
    return unlink("trials.yaml");
}

/* --- a machine ----------------------------------------------------------------------- */

struct box {
    u64 state;
    double noise;        /* of one run, a standard deviation */
    double drift;        /* each run takes so much longer than the one before */
    int wild;            /* this run takes four times as long; -1: none */
    double none, selective, prefetch; /* cost of each, the recipe's is 1 */
    double none_later;   /* of the first from the 8th run on; 0: the same */
    int runs, stop_at;   /* -1: it is not stopped */
    char order[256];     /* r: the recipe, n, s, p, and t: together */
};

static double normal(u64 *state)
{
    double u[2];
    for (int i = 0; i < 2; i++) {
        *state = *state * 6364136223846793005ull + 1442695040888963407ull;
        u[i] = ((double)(*state >> 11) + 0.5) / 9007199254740992.;
    }
    return sqrt(-2 * log(u[0])) * cos(6.283185307179586 * u[1]);
}

static double cost_of(const struct box *b, const struct tune_change *c, char *letter)
{
    double cost = 1;
    *letter = 'r';
    for (int i = 0; c && i < c->n_sets; i++) {
        if (strcmp(c->sets[i], "train.recompute=none") == 0) {
            cost *= b->none_later > 0 && b->runs >= 7 ? b->none_later : b->none;
            *letter = 'n';
        } else if (strcmp(c->sets[i], "train.recompute=selective") == 0) {
            cost *= b->selective;
            *letter = 's';
        } else {
            cost *= b->prefetch;
            *letter = 'p';
        }
    }
    if (c && c->n_sets > 1)
        *letter = 't';
    return cost;
}

static int trial(void *context, struct timing_result *out, const struct tune_change *c, i64 steps,
                 struct arena *a)
{
    struct box *b = context;
    char letter;
    double step = 0.1 * cost_of(b, c, &letter) * exp(b->noise * normal(&b->state)) *
                  (1 + b->drift * b->runs);
    if (b->runs == b->wild)
        step *= 4;
    if (b->runs < (int)sizeof b->order - 1)
        b->order[b->runs] = letter;
    b->runs++;
    *out = (struct timing_result){ .steps = steps, .tokens = 512, .joules_per_token = step };
    out->step_s = ARENA_ARRAY(a, double, steps);
    out->loss = ARENA_ARRAY(a, double, steps);
    for (i64 i = 0; i < steps; i++) {
        out->step_s[i] = step * (1 + 0.01 * normal(&b->state));
        out->loss[i] = 5;
    }
    out->seconds = 1 + step * (double)steps;
    return OK;
}

static bool stop(void *context)
{
    const struct box *b = context;
    return b->runs == b->stop_at;
}

static struct box usual_box(u64 seed)
{
    return (struct box){ .state = seed, .noise = 0.01, .wild = -1, .none = 1, .selective = 1,
                         .prefetch = 1, .stop_at = -1 };
}

static const struct machine machine = {
    .cores = 4, .threads = 4, .f32_one = 5e10, .f32_all = 2e11, .bf16_one = 1e11, .bf16_all = 4e11,
    .launch_ns = 2000, .level = { [MACHINE_LEVELS - 1] = { .bytes = 1, .copy_all = 2e10 } },
};

static struct tune_request request_of(struct box *b, const char *only)
{
    return (struct tune_request){
        .base = { .recipe = "trials.yaml" },
        .view = { .recipe = recipe, .ranks = 1, .node_ranks = 1, .cores = 4 },
        .machine = &machine, .objective = TUNE_SPEED, .budget_s = 400, .most_trials = 6,
        .only = only, .loss_tolerance = 0.005, .context = b, .stop = stop, .trial = trial,
    };
}

static struct tune_outcome out;

static int tune(struct box *b, const char *only, double budget)
{
    struct tune_request r = request_of(b, only);
    struct timing_result first;
    struct box fresh = usual_box(7);
    r.budget_s = budget;
    CHECK_OK(trial(&fresh, &first, NULL, 22, &arena));
    return tune_run(&out, &r, &first, &arena);
}

static const struct tune_row *row_of(const char *label)
{
    for (int i = 0; i < out.n; i++)
        if (strstr(out.rows[i].change.label, label))
            return &out.rows[i];
    fail_msg("no %s", label);
    return NULL;
}

/* --- rounds -------------------------------------------------------------------------- */

TEST(rounds_go_there_and_back_and_the_recipe_stands_between)
{
    struct box b = usual_box(1);
    CHECK_OK(tune(&b, "recompute,prefetch", 400));
    CHECK(strncmp(b.order, "rnsprpsnr", 9) == 0);
    CHECK_EQ(out.winner, -1);
    for (int i = 0; i < out.n; i++)
        CHECK(out.rows[i].rounds >= 2);
}

/* The first round has a change at four times its time: it is 20 % faster. */
TEST(a_change_is_not_dropped_for_one_round)
{
    struct box b = usual_box(2);
    b.none = 0.8;
    b.wild = 1;
    CHECK_OK(tune(&b, "recompute", 400));
    const struct tune_row *none = row_of("-> none");
    CHECK(out.winner >= 0 && &out.rows[out.winner] == none);
    CHECK(none->rounds >= 3);
    CHECK_NEAR(none->gain, 0.2, 0.03);
    CHECK_NEAR(out.proven, 0.2, 0.03);
}

TEST(a_machine_that_gets_slower_steadily_changes_no_gain)
{
    struct box b = usual_box(3);
    b.drift = 0.03;
    b.noise = 0.002;
    b.none = 0.9;
    CHECK_OK(tune(&b, "recompute,prefetch", 400));
    CHECK_NEAR(row_of("-> none")->gain, 0.1, 0.01);
    CHECK_NEAR(row_of("-> selective")->gain, 0, 0.01);
    CHECK_NEAR(row_of("prefetch")->gain, 0, 0.01);
    CHECK_NEAR(out.proven, 0.1, 0.01);
}

/* How often a tuning finds a winner at all, of 60. */
static int winners(double noise, double none, int *noisy)
{
    int n = 0;
    for (u64 seed = 1; seed <= 60; seed++) {
        struct box b = usual_box(seed * 977);
        b.noise = noise;
        b.none = none;
        CHECK_OK(tune(&b, "recompute,prefetch", 400));
        n += out.winner >= 0;
        *noisy += row_of("-> none")->verdict == VERDICT_NOISE;
    }
    return n;
}

TEST(noise_makes_no_winner_and_is_said_to_be_noise)
{
    int noisy = 0;
    const int n = winners(0.15, 0.97, &noisy);
    print_message("3 %% in noise of 15 %%: %d winners of 60, %d times too noisy to tell\n", n,
                  noisy);
    CHECK(n <= 3 && noisy >= 45);
    noisy = 0;
    CHECK_EQ(winners(0.02, 0.8, &noisy), 60); /* and what is above the noise is found */
    CHECK_EQ(noisy, 0);
}

TEST(what_cannot_be_told_is_no_figure)
{
    struct box b = usual_box(4);
    struct text t = { 0 };
    b.noise = 0.3;
    CHECK_OK(tune(&b, "recompute", 100));
    tune_text(&out, TUNE_SPEED, &t);
    if (!strstr(t.data, "too noisy to tell: ") || !strstr(t.data, "larger --budget"))
        fail_msg("%s", t.data);
    CHECK(row_of("-> none")->verdict == VERDICT_NOISE && row_of("-> none")->bar > 0.1);
    text_fini(&t);
}

TEST(several_that_are_faster_are_tried_together)
{
    struct box b = usual_box(5);
    b.none = 0.8;
    b.prefetch = 0.85;
    CHECK_OK(tune(&b, "recompute,prefetch", 400));
    CHECK(strchr(b.order, 't') != NULL);
    CHECK(out.winner >= 0 && strcmp(out.rows[out.winner].change.knob, "together") == 0);
    CHECK_NEAR(out.rows[out.winner].predicted, 1 - 0.8 * 0.85, 0.03);
    CHECK_NEAR(out.proven, 1 - 0.8 * 0.85, 0.03);
}

TEST(who_does_not_win_again_makes_room_for_the_next)
{
    struct box b = usual_box(6);
    b.noise = 0.003;
    b.none = 0.7;
    b.none_later = 1.3;
    b.selective = 0.85;
    CHECK_OK(tune(&b, "recompute", 400));
    CHECK_EQ(row_of("-> none")->fate, FATE_UNPROVEN);
    CHECK(out.winner >= 0 && &out.rows[out.winner] == row_of("-> selective"));
    CHECK_NEAR(out.proven, 0.15, 0.02);
    CHECK_EQ(out.proofs, 2);
}

TEST(a_signal_leaves_what_was_measured)
{
    struct box b = usual_box(8);
    struct text t = { 0 };
    b.none = 0.8;
    b.stop_at = 8; /* in the middle of the second round */
    CHECK_FAILS(tune(&b, "recompute,prefetch", 400), ERR_STOPPED, "stopped by a signal");
    CHECK(out.stopped && out.winner < 0 && b.runs == 8);
    CHECK_EQ(row_of("-> none")->rounds, 1);
    tune_text(&out, TUNE_SPEED, &t);
    CHECK(strstr(t.data, "ended early") && strstr(t.data, "one round, which says nothing"));
    text_fini(&t);
}

TEST(where_time_is_short_fewer_changes_get_two_rounds)
{
    struct box b = usual_box(9);
    CHECK_OK(tune(&b, "recompute,prefetch", 20));
    int late = 0;
    for (int i = 0; i < out.n; i++) {
        late += out.rows[i].fate == FATE_LATE;
        CHECK(out.rows[i].fate == FATE_LATE || out.rows[i].rounds >= 2);
    }
    CHECK(late >= 1 && late < out.n);
}

/* Whatever the time, and however trials become longer: but for what one takes longer than the one
 * before, since nothing ends it here. */
TEST(no_trial_is_begun_that_would_not_end_in_time)
{
    for (double budget = 2; budget < 200; budget *= 1.3)
        for (int seed = 0; seed < 4; seed++) {
            struct box b = usual_box((u64)seed);
            b.drift = 0.02 * seed;
            b.none = seed % 2 ? 0.6 : 1;
            b.prefetch = 0.8;
            CHECK_OK(tune(&b, "recompute,prefetch", budget));
            if (out.seconds > budget + 0.5)
                fail_msg("%g s of %g: %s", out.seconds, budget, b.order);
            if (out.winner >= 0)
                CHECK(out.proven_rounds >= 3);
        }
}

/* --- choosing ------------------------------------------------------------------------ */

static struct tune_hint hint(const char *id, double gain, const char *confirm)
{
    struct tune_hint h = { .gain = gain };
    snprintf(h.id, sizeof h.id, "%s", id);
    tune_hint_read(&h, confirm);
    return h;
}

static void choose(const struct tune_hint *hints, int n, i64 most)
{
    struct box b = usual_box(1);
    struct tune_request r = request_of(&b, NULL);
    r.hints = hints;
    r.n_hints = n;
    r.diagnosed = true;
    r.most_trials = most;
    out = (struct tune_outcome){ .winner = -1 };
    choose_changes(&out, &r, &arena);
}

/* K10's fix stays, though two other kinds of finding fill as many knobs. */
TEST(knobs_are_chosen_by_what_they_promise)
{
    const struct tune_hint hints[] = {
        hint("D4", 0.9, "headway train r.yaml --measure --train.steps 40 --run.name '' "
                        "--data.prefetch 64"),
        hint("K1", 0.7, "headway train r.yaml --train.threads 3"),
        hint("K10", 0.8, "headway train r.yaml --train.recompute none"),
        hint("D1", 0.75, "headway train r.yaml --data.threads 6"),
        hint("H7", 0.005, "headway train r.yaml --train.recompute selective"),
    };
    choose(hints, COUNT_OF(hints), 6);
    CHECK_EQ(row_of("data.prefetch 4 -> 64")->fate, FATE_TRIED); /* what the finding says */
    CHECK_EQ(row_of("train.threads 4 -> 3")->fate, FATE_TRIED);
    CHECK_EQ(row_of("-> none")->fate, FATE_TRIED);
    CHECK_STR(row_of("-> none")->by, "K10");
    CHECK_NEAR(row_of("-> none")->predicted, 0.8, 1e-12);
    CHECK_EQ(row_of("data.threads 4 -> 6")->fate, FATE_TRIED);
    CHECK_STR(row_of("data.prefetch 4 -> 16")->by, "");
}

/* Where something promises a gain; else everything is worth a look. */
TEST(what_promises_nothing_takes_no_time_from_what_does)
{
    const struct tune_hint hints[] = { hint("K10", 0.8, "headway train r --train.recompute none") };
    choose(hints, 1, 6);
    CHECK_EQ(row_of("-> none")->fate, FATE_TRIED);
    CHECK_EQ(row_of("data.prefetch 4 -> 16")->fate, FATE_PRUNED);
    struct box b = usual_box(1);
    struct tune_request r = request_of(&b, "prefetch");
    r.diagnosed = true;
    out = (struct tune_outcome){ .winner = -1 };
    choose_changes(&out, &r, &arena);
    CHECK_EQ(row_of("data.prefetch 4 -> 16")->fate, FATE_TRIED);
}

TEST(nothing_left_out_promised_more_than_what_is_kept)
{
    u64 seed = 11;
    for (int time = 0; time < 20; time++) {
        struct tune_hint hints[] = {
            hint("D4", 0.3 * fabs(normal(&seed)), "headway train r --data.prefetch 64"),
            hint("K1", 0.3 * fabs(normal(&seed)), "headway train r --train.threads 3"),
            hint("K10", 0.3 * fabs(normal(&seed)), "headway train r --train.recompute none"),
            hint("K8", 0.3 * fabs(normal(&seed)), "headway train r --train.precision bf16"),
        };
        choose(hints, COUNT_OF(hints), 2 + time % 5);
        double kept = INFINITY, left = -INFINITY;
        int n = 0;
        for (int i = 0; i < out.n; i++) {
            const struct tune_row *row = &out.rows[i];
            const double promise = isnan(row->predicted) ? 0 : row->predicted;
            if (row->fate == FATE_TRIED)
                kept = fmin(kept, promise);
            else if (row->fate == FATE_PRUNED)
                left = fmax(left, promise);
            n += row->fate == FATE_TRIED;
        }
        CHECK(n >= 1 && n <= 2 + time % 5);
        CHECK(left <= kept);
    }
}

TEST(a_command_that_confirms_is_read_for_its_settings)
{
    struct tune_hint h = hint("C1", 0.1, "headway train 'my run/recipe.yaml' --ranks 2 --measure "
                              "--train.steps 40 --run.name '' --layout.sums ready --layout.zero 1");
    CHECK_EQ(h.n_sets, 2);
    CHECK_STR(h.sets[0], "layout.sums=ready");
    CHECK_STR(h.sets[1], "layout.zero=1");
    h = hint("K8", 0.1, "headway train r.yaml --train.steps 40 --run.name '' --backend avx2");
    CHECK_EQ(h.n_sets, 1);
    CHECK_STR(h.sets[0], "backend=avx2");
    h = hint("H9", 0.1, "ssh node1 perf trace -a sleep 12");
    CHECK_EQ(h.n_sets, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ONE(rounds_go_there_and_back_and_the_recipe_stands_between),
        ONE(a_change_is_not_dropped_for_one_round),
        ONE(a_machine_that_gets_slower_steadily_changes_no_gain),
        ONE(noise_makes_no_winner_and_is_said_to_be_noise),
        ONE(what_cannot_be_told_is_no_figure),
        ONE(several_that_are_faster_are_tried_together),
        ONE(who_does_not_win_again_makes_room_for_the_next),
        ONE(a_signal_leaves_what_was_measured),
        ONE(where_time_is_short_fewer_changes_get_two_rounds),
          ONE(no_trial_is_begun_that_would_not_end_in_time),
        ONE(knobs_are_chosen_by_what_they_promise),
        ONE(what_promises_nothing_takes_no_time_from_what_does),
        ONE(nothing_left_out_promised_more_than_what_is_kept),
        ONE(a_command_that_confirms_is_read_for_its_settings),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
