/* The guard by its numbers, and what whole runs do about spikes and steps that are not
 * finite. */
#define JOB_DIR "guard-test"
#include "train/trap.h"

#include <math.h>

/* --- statistics --------------------------------------------------------------------- */

/* Losses 1 to 21: median 11, median distance from it 5. */
static void fill(struct guard *g)
{
    guard_init(g, 6, 2, 10);
    for (i64 i = 1; i <= 21; i++)
        CHECK_EQ(guard_judge(g, i, (double)i, true), VERDICT_FINE);
}

TEST(a_deviation_is_counted_from_median_and_mad)
{
    struct guard g;
    guard_init(&g, 6, 2, 10);
    for (i64 i = 0; i < GUARD_LEAST - 1; i++)
        guard_judge(&g, i, 1, true);
    CHECK_NEAR(guard_deviation(&g, 100), 0, 0); /* too few to judge by */
    fill(&g);
    CHECK_NEAR(guard_deviation(&g, 30), 19 / (1.4826 * 5), 1e-12);
    CHECK_NEAR(guard_deviation(&g, 11), 0, 0);
    CHECK(guard_deviation(&g, 1) < 0);
}

TEST(a_flat_loss_makes_no_ripple_a_spike)
{
    struct guard g;
    guard_init(&g, 6, 2, 10);
    for (i64 i = 0; i < 40; i++)
        CHECK_EQ(guard_judge(&g, i, 2, true), VERDICT_FINE);
    CHECK_EQ(guard_judge(&g, 40, 2.01, true), VERDICT_FINE); /* 5 deviations of a thousandth */
    CHECK_EQ(guard_judge(&g, 41, 2.1, true), VERDICT_SPIKE);
}

TEST(neither_spikes_nor_what_is_not_finite_enter_the_statistics)
{
    struct guard g, before;
    fill(&g);
    before = g;
    CHECK_EQ(guard_judge(&g, 22, NAN, true), VERDICT_BAD);
    CHECK_EQ(guard_judge(&g, 23, 5, false), VERDICT_BAD);
    CHECK_EQ(guard_judge(&g, 24, 1e6, true), VERDICT_SPIKE);
    CHECK_EQ(g.seen, before.seen);
    CHECK(memcmp(g.loss, before.loss, sizeof g.loss) == 0);
}

TEST(bad_steps_are_counted_in_a_window_that_moves)
{
    struct guard g;
    guard_init(&g, 6, 2, 10);
    guard_judge(&g, 5, NAN, true);
    guard_judge(&g, 9, NAN, true);
    CHECK(!guard_exhausted(&g, 9));
    guard_judge(&g, 14, NAN, true);
    CHECK(guard_exhausted(&g, 14)); /* 5, 9, 14 in the ten steps 5 to 14 */
    CHECK(!guard_exhausted(&g, 15));
}

TEST(a_rise_that_lasts_becomes_the_normal_level)
{
    struct guard g;
    fill(&g);
    for (i64 i = 1; i < GUARD_LASTING; i++) {
        CHECK(guard_is_spike(&g, 500));
        CHECK_EQ(guard_judge(&g, 21 + i, 500 + (double)(i % 5), true), VERDICT_SPIKE);
    }
    CHECK(!guard_is_spike(&g, 500));
    CHECK_EQ(guard_judge(&g, 60, 500, true), VERDICT_RISEN);
    CHECK_EQ(guard_judge(&g, 61, 503, true), VERDICT_FINE);
    CHECK_EQ(guard_judge(&g, 62, 900, true), VERDICT_SPIKE);
}

TEST(a_rise_with_fine_steps_among_it_is_accepted_too)
{
    struct guard g;
    i64 risen = 0, step = 22;
    fill(&g);
    for (; !risen && step < 200; step++) /* three of four are up: 20 more after 40 */
        risen = guard_judge(&g, step, step % 4 ? 500 : 11, true) == VERDICT_RISEN ? step : 0;
    CHECK(risen >= 22 + 36 && risen <= 22 + 42);
}

TEST(spikes_now_and_then_stay_spikes)
{
    struct guard g;
    fill(&g);
    for (i64 step = 22; step < 1000; step++)
        CHECK_EQ(guard_judge(&g, step, step % 3 ? 11 + (double)(step % 5) : 500, true),
                 step % 3 ? VERDICT_FINE : VERDICT_SPIKE);
}

TEST(another_mixture_has_a_level_of_its_own)
{
    struct guard g;
    fill(&g);
    CHECK(!guard_set_mix(&g, 3)); /* not known before: the losses stay */
    CHECK(guard_is_spike(&g, 500));
    CHECK(!guard_set_mix(&g, 3));
    CHECK(guard_set_mix(&g, 2));
    for (i64 i = 0; i < GUARD_LEAST; i++)
        CHECK_EQ(guard_judge(&g, 22 + i, 500 + (double)(i % 5), true), VERDICT_FINE);
    CHECK_EQ(guard_judge(&g, 60, 900, true), VERDICT_SPIKE);
}

/* --- whole runs --------------------------------------------------------------------- */

static void open_trapped(struct job *j, struct session *s, const char *name,
                         const char *const *sets)
{
    open_job(j, name, sets);
    CHECK_OK(session_open(s, &j->request));
    set_trap(s);
}

static void close_trapped(struct job *j, struct session *s)
{
    session_close(s);
    arena_fini(&j->arena);
}

TEST(a_spike_is_kept_or_its_update_skipped)
{
    static const char *const log[] = { LONG_RUN, "guard.spike=log", NULL };
    static const char *const skip[] = { LONG_RUN, "guard.spike=skip", NULL };
    struct job j;
    struct session s;
    make_corpus();
    trap = (struct trap){ .hard_from = 60, .hard_until = 61, .hard_left = 1 };
    open_trapped(&j, &s, "kept", log);
    CHECK_OK(session_train(&s));
    CHECK_EQ(s.state.updates, 100);
    close_trapped(&j, &s);
    CHECK(log_has("kept", "step 61: loss ") && log_has("kept", "is a spike"));
    trap = (struct trap){ .hard_from = 60, .hard_until = 61, .hard_left = 1 };
    open_trapped(&j, &s, "skipped", skip);
    CHECK_OK(session_train(&s));
    CHECK_EQ(s.state.updates, 99);
    close_trapped(&j, &s);
    CHECK(log_has("skipped", "update skipped"));
}

/* Without acceptance, a run that skips spikes would not learn again until its end. */
TEST(a_run_that_skips_spikes_learns_again_after_a_lasting_rise)
{
    static const char *const sets[] = { LONG_RUN, "guard.spike=skip", NULL };
    struct job j;
    struct session s;
    trap = (struct trap){ .hard_from = 60, .hard_until = 61, .hard_left = INT64_MAX };
    open_trapped(&j, &s, "risen", sets);
    CHECK_OK(session_train(&s));
    CHECK_EQ(s.state.updates, 100 - (GUARD_LASTING - 1));
    close_trapped(&j, &s);
    CHECK(log_has("risen", "is no spike but the new level"));
    CHECK(last_metric("risen", "step", "loss") < 4); /* one token, over and over */
}

TEST(a_rewind_goes_back_past_the_data_and_forgets_what_it_undid)
{
    static const char *const sets[] = { LONG_RUN, "guard.spike=rewind", "train.accumulate=2",
                                        NULL };
    struct job j;
    struct session s;
    struct loader_cursor here;
    trap = (struct trap){ .hard_from = 65, .hard_until = 66, .hard_left = 1 };
    const u64 opened = sys_now_ns();
    open_trapped(&j, &s, "rewound", sets);
    u64 begin = sys_now_ns();
    CHECK_OK(session_train(&s));
    u64 end = sys_now_ns();
    CHECK_EQ(s.state.step, 100);
    CHECK_EQ(s.state.updates, 100);
    CHECK_EQ(s.state.rewinds, 1);
    CHECK_EQ(s.state.rewound_from, 66);
    CHECK_EQ(s.state.rewound_to, 50);
    /* 66 steps, two full ones passed over, then 50 more; each of 2 x 2 x 32 tokens. */
    loader_get_cursor(s.loader, &here);
    CHECK_EQ(here.position, (66 + 2 + 50) * 128);
    /* The clock of the run has not gone back, and no time was counted twice. */
    const double clock = s.state.elapsed + 1e-9 * (double)(sys_now_ns() - s.begin_ns);
    CHECK(clock >= 1e-9 * (double)(end - begin) - 1e-3);
    CHECK(clock <= 1e-9 * (double)(sys_now_ns() - opened) + 1e-3);
    close_trapped(&j, &s);
    expect_steps_once("rewound", 100);
    CHECK_NEAR(last_metric("rewound", "rewind", "from"), 66, 0);
    /* Of 4 samples each step takes. */
    CHECK(log_has("rewound", "back to step 50, past samples 200 to 271 of the run"));
    CHECK_NEAR(last_metric("rewound", "rewind", "first_sample"), 200, 0);
    CHECK_NEAR(last_metric("rewound", "rewind", "last_sample"), 271, 0);
}

/* A rise that stays makes one rewind, not a cascade that eats the run. */
TEST(a_lasting_rise_costs_one_rewind)
{
    static const char *const sets[] = { LONG_RUN, "guard.spike=rewind", NULL };
    struct job j;
    struct session s;
    struct checkpoint_entry *entries;
    trap = (struct trap){ .hard_from = 65, .hard_until = 66, .hard_left = INT64_MAX };
    open_trapped(&j, &s, "once", sets);
    CHECK_OK(session_train(&s));
    CHECK_EQ(s.state.rewinds, 1);
    CHECK_EQ(s.state.rewound_to, 50);
    CHECK_EQ(s.state.updates, 100 - (GUARD_LASTING - 1));
    close_trapped(&j, &s);
    CHECK_EQ(checkpoint_list(JOB_DIR "/runs/once/checkpoints", &entries), 10);
    sys_free(entries);
    CHECK(log_has("once", "began not long before here"));
}

TEST(rewinds_have_a_limit)
{
    static const char *const sets[] = { LONG_RUN, "guard.spike=rewind", "guard.max_rewinds=0",
                                        NULL };
    struct job j;
    struct session s;
    trap = (struct trap){ .hard_from = 65, .hard_until = 66, .hard_left = 1 };
    open_trapped(&j, &s, "limit", sets);
    CHECK_OK(session_train(&s));
    CHECK_EQ(s.state.rewinds, 0);
    CHECK_EQ(s.state.updates, 99);
    close_trapped(&j, &s);
    CHECK(log_has("limit", "guard.max_rewinds is reached"));
}

/* What remains when the easy source has reached its cap is hard, and no spike. */
TEST(a_source_that_leaves_at_its_cap_makes_no_spike)
{
    static const char *const sets[] = {
        LONG_RUN, "guard.spike=skip", "data.cache=" JOB_DIR "/capped",
        "data.sources=[{path: " JOB_DIR "/easy, weight: 1, max_epochs: 1, name: easy}, "
        "{path: " JOB_DIR "/text, weight: 0.0001, name: hard}]", NULL
    };
    struct job j;
    struct session s;
    char text[4001];
    CHECK_EQ(sys_mkdirs(JOB_DIR "/easy"), 0);
    for (int i = 0; i < 4000; i++)
        text[i] = i % 2 ? 'z' : ' ';
    text[4000] = '\0';
    write_file(JOB_DIR "/easy/a.txt", text);
    open_job(&j, "capped", sets);
    CHECK_OK(session_open(&s, &j.request));
    CHECK_OK(session_train(&s));
    CHECK(loader_epochs(s.loader, 0) == 1 && s.state.step == 100);
    CHECK_EQ(s.state.updates, 100);
    close_trapped(&j, &s);
    CHECK(log_has("capped", "another mixture of sources begins"));
    CHECK(!log_has("capped", "is a spike"));
    CHECK(!log_has("capped", "the loss stays up"));
}

/* Element 40 of 2 x 32 is in row 1 of its batch; step 5 (0-based) has samples 10 and 11. */
TEST(the_first_bad_tensor_is_named_with_its_sample)
{
    static const char *const sets[] = { "eval.every=0", NULL };
    struct job j;
    struct session s;
    trap = (struct trap){ .nan_from = 5, .nan_until = 6 };
    open_trapped(&j, &s, "nan", sets);
    CHECK_OK(session_train(&s));
    CHECK_EQ(s.state.updates, 7);
    i64 element;
    CHECK(model_first_not_finite(s.model, &element) == NULL);
    close_trapped(&j, &s);
    CHECK(log_has("nan", "step 6 is not finite: "));
    CHECK(log_has("nan", " of load_batch outside the layers is the first (element 40, "
                         "micro-batch 0, sample 11 of the run: window "));
}

/* Of a layer's products, too, it is said which: by the weight, in bf16 by what it is a copy of. */
TEST(the_weight_that_made_the_first_bad_tensor_is_named)
{
    static const char *const precisions[] = { "train.precision=fp32", "train.precision=bf16" };
    static const enum param_id ids[] = { P_QKV, P_UP, P_NORM_F };
    static const char *const says[] = { "finite: linear (blocks.1.attn.qkv.weight) in layer 1 is",
                                        "finite: linear (blocks.1.mlp.up.weight) in layer 1 is",
                                        "finite: rmsnorm (norm_f.gain) outside the layers is" };
    for (int i = 0; i < 6; i++) {
        const char *sets[] = { "eval.every=0", "train.steps=1", precisions[i / 3], NULL };
        struct job j;
        struct session s;
        trap = (struct trap){ 0 };
        open_trapped(&j, &s, "huge", sets);
        struct param *p = model_param(s.model, ids[i % 3], ids[i % 3] == P_NORM_F ? -1 : 1);
        for (i64 k = 0; k < param_here(p); k++)
            tensor_set(p->master, k, 3e38);
        for (i64 k = 0; p->compute != p->master && k < param_here(p); k++)
            tensor_set(p->compute, k, 3e38);
        CHECK_OK(session_train(&s));
        close_trapped(&j, &s);
        CHECK(log_has("huge", says[i % 3]));
        sys_remove_tree(JOB_DIR "/runs/huge");
    }
}

TEST(too_many_bad_steps_end_the_run_with_its_state_saved)
{
    static const char *const sets[] = { "eval.every=0", "guard.max_bad=2", NULL };
    struct job j;
    struct session s;
    trap = (struct trap){ .nan_from = 4, .nan_until = 100 };
    open_trapped(&j, &s, "bad", sets);
    CHECK_FAILS(session_train(&s), ERR_NUMERIC, "stopped after step 7, whose state is saved");
    close_trapped(&j, &s);
    CHECK(sys_exists(JOB_DIR "/runs/bad/checkpoints/step-7/manifest.json"));
}

/* What is broken for good is not waited for, and not saved over what is sound. */
TEST(weights_that_are_not_finite_are_named_and_not_saved)
{
    static const char *const sets[] = { "eval.every=0", NULL };
    struct job j;
    struct session s;
    trap = (struct trap){ 0 };
    open_trapped(&j, &s, "broken", sets);
    ((float *)s.model->params[1].master->data)[3] = NAN;
    CHECK_FAILS(session_train(&s), ERR_NUMERIC, "is itself not finite");
    CHECK(strstr(err_message(), s.model->params[1].desc.name) != NULL);
    close_trapped(&j, &s);
    CHECK(!sys_exists(JOB_DIR "/runs/broken/checkpoints/step-1/manifest.json"));
    sys_remove_tree(JOB_DIR);
}

TEST_MAIN(ONE(a_deviation_is_counted_from_median_and_mad),
          ONE(a_flat_loss_makes_no_ripple_a_spike),
          ONE(neither_spikes_nor_what_is_not_finite_enter_the_statistics),
          ONE(bad_steps_are_counted_in_a_window_that_moves),
          ONE(a_rise_that_lasts_becomes_the_normal_level),
          ONE(a_rise_with_fine_steps_among_it_is_accepted_too),
          ONE(spikes_now_and_then_stay_spikes),
          ONE(another_mixture_has_a_level_of_its_own),
          ONE(a_spike_is_kept_or_its_update_skipped),
          ONE(a_source_that_leaves_at_its_cap_makes_no_spike),
          ONE(a_run_that_skips_spikes_learns_again_after_a_lasting_rise),
          ONE(a_rewind_goes_back_past_the_data_and_forgets_what_it_undid),
          ONE(a_lasting_rise_costs_one_rewind), ONE(rewinds_have_a_limit),
          ONE(the_first_bad_tensor_is_named_with_its_sample),
          ONE(the_weight_that_made_the_first_bad_tensor_is_named),
          ONE(too_many_bad_steps_end_the_run_with_its_state_saved),
          ONE(weights_that_are_not_finite_are_named_and_not_saved))
