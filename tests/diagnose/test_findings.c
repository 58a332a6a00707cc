/* What becomes of findings: gains from a replay, fixes and commands of this run, text and JSON. */
#include "test.h"

#include "diagnose/plant.h"

/* A replay that finds a quarter of the closed form's gain, and one that does not fit the run. */
static double replayed = 0.155, replay_gain = 0.01;

static double replay_length(void *context, const struct finding_edit *e, double factor)
{
    (void)context;
    return e ? replayed - replay_gain * (1 - factor) : replayed;
}

TEST(gains_come_from_a_replay_only_if_it_fits_the_run)
{
    static struct findings f;
    const struct finding_replay replay = { NULL, replay_length };
    struct arena a;
    arena_init(&a);
    struct measure *m = usual_run(2, STEPS, &a);
    d1(m, &a);
    replayed = m->step.mean;
    findings_make(&f, m, &replay);
    CHECK(f.at[0].replayed);
    CHECK_NEAR(f.at[0].gain, 0.01, 1e-9);
    CHECK(f.at[0].gain_lo < 0.01 && f.at[0].gain_hi > 0.01);
    replay_gain = 0.08; /* more than the rule saw: what comes back was lost */
    findings_make(&f, m, &replay);
    CHECK_NEAR(f.at[0].gain, 0.08, 1e-9);
    CHECK(f.at[0].lost >= f.at[0].gain);
    CHECK_NEAR(f.at[0].share, f.at[0].lost / m->step.mean, 1e-12);
    replay_gain = 0.01;
    replayed = 1.03 * m->step.mean;
    findings_make(&f, m, &replay);
    CHECK(!f.at[0].replayed);
    CHECK_NEAR(f.at[0].gain, 0.05, 1e-6);
    arena_fini(&a);
}

/* However little the noise lets one see: what no product has, no faster product gives back. */
TEST(faster_arithmetic_gains_no_more_than_its_tasks_take)
{
    static struct findings f;
    const struct finding_replay replay = { NULL, replay_length };
    struct arena a;
    arena_init(&a);
    struct measure *m = usual_run(1, STEPS, &a);
    m->ceilings.bf16 = 4.6e12;
    m->step.se = 0.01;
    replayed = m->step.mean;
    replay_gain = 0.08;
    for (int k = 0; k < 2; k++) {
        findings_make(&f, m, k ? &replay : NULL);
        CHECK(f.n > 0);
        CHECK_STR(f.at[0].id, "K8");
        CHECK_EQ(f.at[0].replayed, k);
        CHECK(f.at[0].gain_hi > 1.2 * f.at[0].gain);
        CHECK(f.at[0].gain_hi < 0.082); /* of 100 ms, products and attention have so many */
    }
    replay_gain = 0.01;
    arena_fini(&a);
}

static void b2_alone(struct measure *m, struct arena *a)
{
    (void)a;
    for (i64 i = 12; i < 30; i++) {
        m->ranks[0].compute[i] += 0.045;
        m->seconds[i] += 0.045;
    }
    measure_settle(m);
}

static void b1_of_twelve_rows(struct measure *m, struct arena *a)
{
    b1(m, a);
    m->config.batch = 12;
}

static void b1_in_a_stage(struct measure *m, struct arena *a)
{
    b1(m, a);
    m->config.pp = 2;
}

static double gained(void *context, const struct finding_edit *e, double factor)
{
    (void)context;
    double left = e && e->less + e->less_per_byte > 0 ? 1 - factor : factor;
    return e ? 0.16 - 0.06 * (1 - left) : 0.16;
}

/* Four ranks on two cores: what one slow link leaves idle the others use, so that they tell
 * less of what it could do; and a bandwidth of a third is that of a crowd, not of a slow link. */
TEST(ranks_that_share_cores_are_a_crowd_once_the_link_is_mended)
{
    static struct findings f;
    const struct finding_replay replay = { NULL, gained };
    double low[2], late[2];
    for (int crowded = 0; crowded < 2; crowded++) {
        struct arena a;
        arena_init(&a);
        struct measure *m = usual_run(4, STEPS, &a);
        c11(m, &a);
        m->cores_per_node = crowded ? 2 : 4;
        findings_make(&f, m, &replay);
        CHECK_EQ(f.n, 1);
        CHECK_STR(f.at[0].id, "C11");
        CHECK(f.at[0].replayed);
        low[crowded] = f.at[0].gain_lo;
        m = usual_run(4, STEPS, &a); /* what nothing hides has the crowd's bandwidth */
        c1(m, &a);
        m->lanes[0].bytes_per_s = 0.4 * m->lanes[0].base_bytes_per_s;
        m->cores_per_node = crowded ? 2 : 4;
        findings_make(&f, m, NULL);
        CHECK_EQ(f.n > 0 && strcmp(f.at[0].id, "C1") == 0, crowded);
        m = usual_run(4, STEPS, &a); /* and of a delay, which also keeps bytes apart */
        c5(m, &a);
        m->lanes[0].latency_s = 12 * m->lanes[0].base_latency_s;
        m->lanes[0].calls = 1400;
        longer(m, 0.03); /* as long as what is replayed */
        m->cores_per_node = crowded ? 2 : 4;
        findings_make(&f, m, &replay);
        CHECK_STR(f.at[0].id, "C5");
        late[crowded] = f.at[0].gain_lo;
        m = usual_run(4, STEPS, &a);
        c4(m, &a);
        m->lanes[0].bytes_per_s = 0.31 * m->lanes[0].base_bytes_per_s;
        m->cores_per_node = crowded ? 2 : 4;
        findings_make(&f, m, NULL);
        CHECK_EQ(f.n > 0 && strcmp(f.at[0].id, "C4") == 0, !crowded);
        arena_fini(&a);
    }
    CHECK(low[0] > 0 && low[1] < 0.9 * low[0]);
    CHECK(late[0] > 0 && late[1] < 0.95 * late[0]);
}

TEST(fixes_fit_the_run_they_are_given_to)
{
    static struct findings f;
    static const struct {
        void (*plant)(struct measure *m, struct arena *a);
        i64 ranks;
        const char *id, *says, *never;
    } cases[] = {
        { b1_of_twelve_rows, 4, "B1", "--layout.dp 3", "--layout.stages" },
        { b1, 4, "B1", "another host", "--layout.dp" }, /* three ranks cannot share four rows */
        { b1_in_a_stage, 4, "B1", "--layout.stages", "--layout.dp" },
        { b2_alone, 1, "B2", "the step became slow", "peers" },
        { b2, 2, "B2", "a rank became slow", "behind it" },
        { h8, 2, "H8", "ssh node1 top -b -H -n 1", "PID" },
        { h9, 2, "H9", "ssh node1 perf trace -a sleep", "that host for" },
        { c1, 4, "C1", "--layout.sums ready", "without --inject" },
    };
    for (i64 i = 0; i < COUNT_OF(cases); i++) {
        struct arena a;
        struct text out = { 0 };
        arena_init(&a);
        struct measure *m = usual_run(cases[i].ranks, STEPS, &a);
        cases[i].plant(m, &a);
        findings_make(&f, m, NULL);
        findings_text(&f, m, &out);
        if (strcmp(f.at[0].id, cases[i].id) != 0 || !strstr(out.data, cases[i].says) ||
            strstr(out.data, cases[i].never))
            fail_msg("%s", out.data);
        text_fini(&out);
        arena_fini(&a);
    }
}

TEST(findings_are_json_that_reads_back)
{
    static struct findings f;
    struct arena a;
    struct json j;
    json_t *o;
    arena_init(&a);
    struct measure *m = usual_run(4, STEPS, &a);
    c11(m, &a);
    findings_make(&f, m, NULL);
    json_writer_init(&j);
    findings_json(&f, &j);
    CHECK_OK(json_parse(j.out.data, j.out.length, "findings", &o));
    json_t *top = json_array_get(o, 0), *place = json_object_get(top, "place");
    CHECK_STR(json_string_value(json_object_get(top, "id")), "C11");
    CHECK_EQ(json_integer_value(json_object_get(place, "peer")), 3);
    CHECK(json_is_null(json_object_get(place, "stage")));
    CHECK_EQ(json_array_size(json_object_get(top, "gain_s")), 3);
    json_decref(o);
    json_writer_fini(&j);
    arena_fini(&a);
}

TEST(commands_can_be_pasted_and_what_is_too_long_stays)
{
    static struct findings f = { .n = 2 };
    char folder[2 * FINDING_COMMAND];
    struct arena a;
    arena_init(&a);
    const struct measure *m = usual_run(2, STEPS, &a);
    snprintf(f.at[0].confirm, FINDING_COMMAND, "headway train RECIPE --layout.zero 1");
    snprintf(f.at[1].confirm, FINDING_COMMAND, "headway diagnose RUN --steps 3-9");
    memset(folder, 'x', sizeof folder);
    folder[sizeof folder - 1] = '\0';
    findings_name_run(&f, folder, m);
    CHECK_STR(f.at[0].confirm, "headway train RECIPE --layout.zero 1");
    findings_name_run(&f, "runs/a", m);
    CHECK_STR(f.at[0].confirm, "headway train runs/a/recipe.yaml --ranks 2 --measure "
                               "--train.steps 40 --run.name '' --layout.zero 1");
    CHECK_STR(f.at[1].confirm, "headway diagnose runs/a --steps 3-9");
    snprintf(f.at[1].confirm, FINDING_COMMAND, "headway diagnose RUN --steps 3-9");
    findings_name_run(&f, "-my run's; a", m); /* one word, and no option */
    CHECK_STR(f.at[1].confirm, "headway diagnose ./'-my run'\\''s; a' --steps 3-9");
    arena_fini(&a);
}

/* --measure evaluates and saves nothing: with it, that less of it helps cannot be seen. */
TEST(what_evaluates_or_saves_is_confirmed_by_a_run_that_does)
{
    static const struct {
        void (*plant)(struct measure *m, struct arena *a);
        const char *confirm;
    } cases[] = {
        { h1, "headway train runs/a/recipe.yaml --measure --train.steps 40 --run.name '' "
              "--log.every 10" },
        { h2, "headway train runs/a/recipe.yaml --train.steps 40 --run.name '' --eval.every 25" },
        { h3, "headway train runs/a/recipe.yaml --train.steps 40 --run.name '' "
              "--checkpoint.async true" },
        { r1, "headway train runs/a/recipe.yaml --train.steps" },
    };
    static struct findings f;
    for (i64 i = 0; i < COUNT_OF(cases); i++) {
        struct arena a;
        arena_init(&a);
        struct measure *m = usual_run(1, STEPS, &a);
        cases[i].plant(m, &a);
        findings_make(&f, m, NULL);
        findings_name_run(&f, "runs/a", m);
        if (strncmp(f.at[0].confirm, cases[i].confirm, strlen(cases[i].confirm)) != 0)
            fail_msg("%s", f.at[0].confirm);
        arena_fini(&a);
    }
}

/* Nothing real is started, and no machine looked at, for what was only simulated. */
TEST(ranks_of_a_place_are_listed_with_their_ranges)
{
    static const struct {
        struct finding_ranks ranks;
        const char *text;
    } cases[] = {
        { { 2, { 1, 4 } }, "ranks 1 and 4" },
        { { 3, { 0, 2, 4 } }, "ranks 0, 2 and 4" },
        { { 3, { 0, 4, 5 } }, "ranks 0, 4 and 5" },
        { { 4, { 2, 3, 4, 8 } }, "ranks 2-4 and 8" },
        { { 6, { 0, 2, 3, 4, 5, 8 } }, "ranks 0, 2-5 and 8" },
        { { 4, { 0, 3, 4, 5 } }, "ranks 0 and 3-5" },
    };
    for (i64 i = 0; i < COUNT_OF(cases); i++) {
        const struct finding_place p = { .rank = -1, .peer = -1, .stage = -1, .layer = -1,
                                         .first_step = -1, .last_rank = -1,
                                         .several = cases[i].ranks };
        struct text t = { 0 };
        finding_place_text(&p, &t);
        CHECK_STR(t.data, cases[i].text);
        text_fini(&t);
    }
}

TEST(a_simulated_run_is_confirmed_by_simulating)
{
    static struct findings f = { .n = 2 };
    struct arena a;
    arena_init(&a);
    struct measure *m = usual_run(8, STEPS, &a);
    m->config.simulated = true;
    snprintf(m->config.rates, sizeof m->config.rates, " --rates link=1e9");
    snprintf(f.at[0].confirm, FINDING_COMMAND, "headway train RECIPE --layout.zero 1");
    snprintf(f.at[1].confirm, FINDING_COMMAND, "headway machine --again");
    findings_name_run(&f, "runs/a", m);
    CHECK_STR(f.at[0].confirm, "headway train runs/a/recipe.yaml --clock virtual --rates link=1e9 "
                               "--train.steps 40 --run.name '' --layout.zero 1");
    CHECK_STR(f.at[1].confirm, "headway train runs/a/recipe.yaml --clock virtual --rates link=1e9 "
                               "--train.steps 40 --run.name '' --run.inject ''");
    arena_fini(&a);
}

TEST_MAIN(ONE(what_evaluates_or_saves_is_confirmed_by_a_run_that_does),
          ONE(ranks_of_a_place_are_listed_with_their_ranges),
          ONE(a_simulated_run_is_confirmed_by_simulating),
          ONE(commands_can_be_pasted_and_what_is_too_long_stays),
          ONE(gains_come_from_a_replay_only_if_it_fits_the_run),
          ONE(faster_arithmetic_gains_no_more_than_its_tasks_take),
          ONE(ranks_that_share_cores_are_a_crowd_once_the_link_is_mended),
          ONE(fixes_fit_the_run_they_are_given_to),
          ONE(findings_are_json_that_reads_back))
