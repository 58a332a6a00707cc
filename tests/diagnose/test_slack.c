/* R4: what ranks that have time would save at a lower clock; joules, and no seconds. */
#define JOB_DIR "slack-test"
#include "diagnose/runs.h"

#include "diagnose/measure_record.h"
#include "diagnose/plant.h"
#include "diagnose/rule.h"
#include "diagnose/whatif.h"

static struct findings found;

/* Steps get longer by this share when all the time that ranks have is taken;
 * whatever else is mended gives back a fifth. */
static double length_of(void *context, const struct finding_edit *e, double factor)
{
    const double longer = *(const double *)context;
    return 0.1 * (1 + (!e ? 0 : e->kind == EDIT_CLOCK ? longer * factor : -0.2));
}

static const struct finding *slack_of(const struct measure *m, double longer)
{
    const struct finding_replay replay = { &longer, length_of };
    findings_make(&found, m, &replay);
    for (int i = 0; i < found.n; i++)
        if (strcmp(found.at[i].id, "R4") == 0)
            return &found.at[i];
    return NULL;
}

/* Rank 1 computes so many times as long as the others; a step takes 10 J. */
static struct measure *uneven(i64 ranks, double times, struct arena *a)
{
    struct measure *m = usual_run(ranks, STEPS, a);
    for (i64 r = 0; r < ranks; r++)
        for (i64 i = 0; i < STEPS; i++)
            m->ranks[r].compute[i] = r == 1 ? 0.09 : 0.09 / times;
    m->energy = (struct measure_energy){ .watts = 100, .lo = 0.5, .hi = 2.5, .busy_share = 0.6,
        .busy_cores = 0.9 };
    measure_settle(m);
    return m;
}

TEST(what_is_saved_is_the_clock_of_those_that_have_time)
{
    struct arena a;
    arena_init(&a);
    struct measure *m = uneven(2, 1.5, &a);
    const struct finding *f = slack_of(m, 0);
    CHECK(f);
    CHECK_NEAR(m->ranks[0].stretch, 1.5, 1e-9);
    CHECK_NEAR(m->ranks[1].stretch, 1, 1e-9);
    /* Rank 0 computes two fifths. Half the time taken leaves it 1 / 1.25 of its energy; all, 1 /
     * 1.5 of it, or the square of that. */
    CHECK_NEAR(f->saves_j, 10 * 0.6 * 0.4 * (1 - 1 / 1.25), 1e-3);
    CHECK_NEAR(f->saves_hi_j, 2.5 * 10 * 0.6 * 0.4 * (1 - 1 / 2.25), 5e-3);
    CHECK_NEAR(f->saves_lo_j, 0, 1e-12);
    CHECK(f->gain == 0 && f->lost == 0 && f->replayed);
    CHECK_EQ(f->place.rank, 0);
    CHECK(f == &found.at[found.n - 1]);
    CHECK_EQ(f->about, ABOUT_SETTINGS); /* nothing is broken */
    m->energy.busy_cores = 3; /* of which half do something else */
    f = slack_of(m, 0);
    CHECK_NEAR(f->saves_j, 10 * 0.6 * 0.4 * (1 - 1 / 1.25) / 2, 1e-3);
    arena_fini(&a);
}

/* As even as stages are that B4 does not name, though it would save a hundredth. */
TEST(ranks_that_are_about_even_are_not_told_to_save)
{
    for (int even = 0; even < 2; even++) {
        struct arena a;
        arena_init(&a);
        const struct measure *m = uneven(2, even ? 1.08 : 1.15, &a);
        const struct finding *f = slack_of(m, 0);
        CHECK_EQ(f != NULL, !even);
        arena_fini(&a);
    }
}

TEST(no_more_is_saved_than_leaves_steps_as_long)
{
    struct arena a;
    arena_init(&a);
    const struct measure *m = uneven(2, 1.5, &a);
    const double most = slack_of(m, 0)->saves_j;
    const struct finding *f = slack_of(m, 0.015); /* of which 0.005 may be */
    CHECK_NEAR(f->edit.factor, 1. / 3, 0.01);
    CHECK(f->saves_j < 0.8 * most && f->saves_j > 0.6 * most);
    CHECK(!slack_of(m, 0.5)); /* too little is left */
    arena_fini(&a);
}

TEST(energy_is_no_finding_where_it_is_unknown_or_nobody_has_time)
{
    struct arena a;
    arena_init(&a);
    struct measure *m = uneven(4, 1.5, &a);
    CHECK(slack_of(m, 0));
    m->energy.watts = NAN;
    CHECK(!slack_of(m, 0));
    CHECK(!slack_of(uneven(4, 1.02, &a), 0));
    CHECK(!slack_of(uneven(1, 1, &a), 0));
    findings_make(&found, uneven(4, 1.5, &a), NULL); /* nor without a replay */
    for (int i = 0; i < found.n; i++)
        CHECK(strcmp(found.at[i].id, "R4") != 0);
    m = uneven(4, 1, &a); /* every rank is the slowest now and then: none has time */
    for (i64 i = 0; i < STEPS; i++)
        m->ranks[i % 4].compute[i] *= 1.5;
    measure_settle(m);
    CHECK(!slack_of(m, 0));
    arena_fini(&a);
}

TEST(energy_stands_behind_what_gives_time_back_and_is_told_as_joules)
{
    struct arena a;
    struct text out = { 0 };
    struct json j;
    arena_init(&a);
    struct measure *m = uneven(2, 1.5, &a);
    m->ranks[1].last_share = 1; /* B1 */
    const struct finding *f = slack_of(m, 0);
    CHECK(found.n > 1 && f == &found.at[found.n - 1] && found.at[0].gain > 0);
    findings_text(&found, m, &out);
    CHECK(strstr(out.data, "loses no time; mending it saves 0.48 J a step [0, 3.3], by a model"));
    CHECK(strstr(out.data, "modelled, not measured"));
    json_writer_init(&j);
    findings_json(&found, &j);
    CHECK(strstr(j.out.data, "\"saves_j\":[0,"));
    json_writer_fini(&j);
    text_fini(&out);
    arena_fini(&a);
}

/* Of a real run whose second rank is slow. */
TEST(a_run_tells_what_its_ledger_knows)
{
    static const char *sets[] = { "train.batch=4", "train.steps=12",
                                  "run.inject=slow_compute=6@1", NULL };
    const struct measure_range range = { 0, -1, 0 };
    struct record r;
    struct measure *m;
    struct arena a;
    arena_init(&a);
    make_corpus();
    run_layout("slow", "dp=2", sets);
    open_run(&r, "slow");
    CHECK_OK(measure_record(&m, &r, JOB_DIR "/runs/slow", &range, &a));
    CHECK(m->energy.watts > 0.1 && m->energy.watts < 1e4);
    CHECK(m->energy.busy_share > 0 && m->energy.busy_share < 0.78);
    CHECK(m->energy.lo < 1 && m->energy.hi > 1);
    CHECK(m->ranks[0].stretch > 1.1);
    CHECK_NEAR(m->ranks[1].stretch, 1, 0.01);
    record_close(&r);
    sys_remove_tree(JOB_DIR);
    arena_fini(&a);
}

TEST_MAIN(ONE(what_is_saved_is_the_clock_of_those_that_have_time),
          ONE(ranks_that_are_about_even_are_not_told_to_save),
          ONE(no_more_is_saved_than_leaves_steps_as_long),
          ONE(energy_is_no_finding_where_it_is_unknown_or_nobody_has_time),
          ONE(energy_stands_behind_what_gives_time_back_and_is_told_as_joules),
          ONE(a_run_tells_what_its_ledger_knows))
