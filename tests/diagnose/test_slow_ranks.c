/* Several ranks that are slow: which, by how much, and beside whom. */
#include "test.h"

#include "diagnose/plant.h"

#include <math.h>
#include <string.h>

static struct findings found;

/* Ranks take factor[r] times as long as their work asks for. */
static void slow_by(struct measure *m, const double *factor, double longest)
{
    for (i64 r = 0; r < m->n_ranks; r++) {
        struct measure_rank *k = &m->ranks[r];
        k->last_share = k->blamed_share = factor[r] == longest ? 1 : 0;
        for (i64 i = 0; i < STEPS; i++)
            k->compute[i] *= factor[r];
    }
    longer(m, 0.09 * (longest - 1));
}

static const struct finding *first_slow(const struct measure *m)
{
    findings_make(&found, m, NULL);
    if (found.n == 0 || strcmp(found.at[0].id, "B1") != 0) {
        tell(&found, m);
        fail_msg("B1 is not the first");
    }
    return &found.at[0];
}

/* Where tasks take what the run was told, one rank is enough to show what the others should. */
TEST(all_but_one_may_be_slow_where_times_are_given)
{
    for (int told = 0; told < 2; told++) {
        struct arena a;
        arena_init(&a);
        struct measure *m = usual_run(3, STEPS, &a);
        m->config.simulated = told;
        for (int r = 0; r < 3; r++)
            m->ranks[r].roofline_s = 0.09;
        slow_by(m, (double[]){ 1, 1.6, 1.6 }, 1.6);
        if (told) {
            const struct finding *f = first_slow(m);
            CHECK_EQ(f->place.rank, 1);
            CHECK_EQ(f->place.last_rank, 2);
            CHECK_EQ(f->edit.kind, EDIT_COMPUTE); /* the median of their stage is slow, too */
            CHECK_NEAR(f->edit.factor, 1 / 1.6, 0.01);
            CHECK_NEAR(f->gain, 0.6 * 0.09, 0.002);
        } else {
            findings_make(&found, m, NULL);
            for (int i = 0; i < found.n; i++)
                CHECK(strcmp(found.at[i].id, "B1") != 0);
        }
        arena_fini(&a);
    }
}

/* More than half of all are named like few. */
TEST(most_ranks_are_listed)
{
    struct arena a;
    arena_init(&a);
    struct measure *m = usual_run(6, STEPS, &a);
    slow_by(m, (double[]){ 1.5, 1.5, 1.5, 1, 1.5, 1 }, 1.5);
    const struct finding *f = first_slow(m);
    CHECK_EQ(f->place.several.n, 4);
    CHECK_EQ(f->place.several.at[3], 4);
    CHECK(f->edit.kind != EDIT_NONE);
    arena_fini(&a);
}

/* One rank of each of two stages, for which others with their tasks tell. */
TEST(ranks_of_several_stages_are_one_place)
{
    for (int whole = 0; whole < 2; whole++) { /* one of each stage; all of one and one of the other */
        struct arena a;
        arena_init(&a);
        struct measure *m = usual_run(4, STEPS, &a);
        m->config.pp = 2;
        m->config.dp = 2;
        m->config.micro_batches = 16;
        for (int r = 0; r < 4; r++) {
            m->ranks[r].stage = r / 2;
            m->ranks[r].usual_s = 0.09;
        }
        slow_by(m, (double[]){ 1, 1.5, whole ? 1.5 : 1, 1.5 }, 1.5);
        const struct finding *f = first_slow(m);
        CHECK_EQ(f->edit.kind, whole ? EDIT_COMPUTE : EDIT_EVEN_RANK);
        CHECK_EQ(f->edit.stage, -1);
        for (int r = 0; r < 4; r++)
            CHECK_EQ(finding_edits_rank(&f->edit, r), r == 1 || r == 3 || (whole && r == 2));
        arena_fini(&a);
    }
}

/* Of ranks that are slow by different amounts none shows what the others should take. */
TEST(slow_ranks_are_held_to_those_that_are_not)
{
    struct arena a;
    arena_init(&a);
    struct measure *m = usual_run(5, STEPS, &a);
    m->config.simulated = true;
    for (int r = 0; r < 5; r++)
        m->ranks[r].roofline_s = 0.09;
    slow_by(m, (double[]){ 1.2, 1.8, 1, 1.5, 1.5 }, 1.8);
    const struct finding *f = first_slow(m);
    CHECK_EQ(f->place.rank, 1);
    CHECK_NEAR(f->edit.takes, 1 / 1.8, 0.01);
    arena_fini(&a);
}

/* On a computed clock the last digits of a rank and of its peer differ from step to step. */
TEST(an_episode_of_nothing_hides_no_slow_ranks)
{
    struct arena a;
    arena_init(&a);
    struct measure *m = usual_run(4, STEPS, &a);
    m->config.simulated = true;
    m->config.pp = m->config.dp = 2;
    m->config.micro_batches = 16;
    for (int r = 0; r < 4; r++) {
        m->ranks[r].stage = r / 2;
        m->ranks[r].roofline_s = 0.09;
        for (i64 i = 0; i < STEPS; i++)
            m->ranks[r].compute[i] = 0.09;
    }
    slow_by(m, (double[]){ 1.4, 1, 1.4, 1.4 }, 1.4);
    for (i64 i = 7; i < STEPS; i++)
        m->ranks[2].compute[i] += 1e-9;
    CHECK_EQ(first_slow(m)->place.several.n, 3);
    arena_fini(&a);
}

/* A clock that is low is K4's: beside it a rank is slow by what that leaves, or not at all. */
TEST(a_low_clock_is_told_apart_from_what_else_is_slow)
{
    for (int which = 0; which < 3; which++) { /* another rank is slow; the same is, too; none is */
        struct arena a;
        arena_init(&a);
        struct measure *m = usual_run(4, STEPS, &a);
        const double slow = which == 2 ? 1 : 1.5, low = which == 1 ? 1.5 / 0.7 : 1 / 0.7;
        slow_by(m, (double[]){ 1, which == 1 ? 1 : slow, low, 1 }, fmax(slow, low));
        m->ranks[2].clock = 0.7;
        for (int r = 0; r < 4; r++)
            m->ranks[r].blamed_share = r == 1 || r == 2;
        findings_make(&found, m, NULL);
        i64 slow_rank = -1, low_rank = -1;
        for (int i = 0; i < found.n; i++) {
            if (strcmp(found.at[i].id, "B1") == 0) {
                slow_rank = found.at[i].place.rank;
                CHECK_EQ(found.at[i].place.last_rank > slow_rank, false);
                CHECK_NEAR(found.at[i].edit.takes, 1 / 1.5, 0.01);
                CHECK_EQ(found.at[i].edit.kind, which == 1 ? EDIT_COMPUTE : EDIT_EVEN_RANK);
            }
            if (strcmp(found.at[i].id, "K4") == 0)
                low_rank = found.at[i].place.rank;
        }
        CHECK_EQ(low_rank, 2);
        CHECK_EQ(slow_rank, which == 2 ? -1 : which == 1 ? 2 : 1);
        arena_fini(&a);
    }
}

/* A stage's only rank with a low clock: what stages have to do is seen, and replayed, without that. */
TEST(a_low_clock_makes_no_stage_longer)
{
    struct arena a;
    arena_init(&a);
    struct measure *m = usual_run(4, STEPS, &a);
    m->config.pp = 4;
    m->config.dp = 1;
    m->config.micro_batches = 16;
    for (int r = 0; r < 4; r++) {
        m->ranks[r].stage = r;
        m->ranks[r].roofline_s = 0.09 * (r == 2 ? 1.3 : 1);
    }
    slow_by(m, (double[]){ 1, 1 / 0.7, 1.3, 1 }, 1 / 0.7);
    m->ranks[1].clock = 0.7;
    findings_make(&found, m, NULL);
    bool told = false;
    for (int i = 0; i < found.n; i++) {
        const struct finding *f = &found.at[i];
        CHECK(strcmp(f->id, "B1") != 0);
        if (strcmp(f->id, "B4") == 0) {
            told = true;
            CHECK_EQ(f->place.stage, 2);
            CHECK_EQ(f->edit.n_mended, 1);
            CHECK_NEAR(f->edit.mended[0].takes, 0.7, 1e-9);
            CHECK_EQ(f->edit.mended[0].ranks.n, 1);
            CHECK_EQ(f->edit.mended[0].ranks.at[0], 1);
        }
    }
    CHECK(told);
    arena_fini(&a);
}

static bool has(const char text[][FINDING_TEXT], int n, const char *words)
{
    for (int i = 0; i < n; i++)
        if (strstr(text[i], words))
            return true;
    return false;
}

static const char *rejected(const struct finding *f, const char *id)
{
    for (int i = 0; i < f->n_rejected; i++)
        if (strcmp(f->rejected[i].id, id) == 0)
            return f->rejected[i].why;
    return "";
}

/* All ranks of a stage compute half as long again: for its work, or for having more of it. By tasks
 * that another stage has, too, that is told; by ceilings of two stages, or by nothing, it is said that
 * it is not. */
TEST(a_stage_of_slow_ranks_and_one_with_more_work_are_told_apart_or_said_not_to_be)
{
    static const struct {
        double usual[2], roofline;
        const char *id, *other, *why, *evidence;
    } cases[] = {
        { { 0.09, 0.135 }, 0, "B4", "B1", "take 1.00 times as long as on other stages", NULL },
        { { 0.09, 0.09 }, 0, "B1", "B4", "take 1.50 times as long as on other stages", NULL },
        { { 0, 0 }, 0.09, "B4", NULL, NULL, "it takes 1.50 times as long as the middle stage" },
        { { 0, 0 }, 0.09, "B4", NULL, NULL, "(B1) is not ruled out" },
        { { 0, 0 }, 0, "B4", NULL, NULL, "(B1) is not ruled out" },
    };
    for (i64 i = 0; i < COUNT_OF(cases); i++) {
        struct arena a;
        arena_init(&a);
        struct measure *m = usual_run(4, STEPS, &a);
        m->config.pp = m->config.dp = 2;
        m->config.micro_batches = 16;
        for (int r = 0; r < 4; r++) {
            m->ranks[r].stage = r / 2;
            m->ranks[r].usual_s = cases[i].usual[r / 2];
            m->ranks[r].roofline_s = cases[i].roofline;
        }
        slow_by(m, (double[]){ 1, 1, 1.5, 1.5 }, 1.5);
        findings_make(&found, m, NULL);
        const struct finding *f = NULL;
        for (int k = 0; k < found.n && !f; k++)
            if (strcmp(found.at[k].id, cases[i].id) == 0)
                f = &found.at[k];
        if (!f) {
            tell(&found, m);
            fail_msg("case %lld: no %s", (long long)i, cases[i].id);
        }
        if (cases[i].why)
            CHECK(strstr(rejected(f, cases[i].other), cases[i].why));
        else
            CHECK(has(f->evidence, f->n_evidence, cases[i].evidence) && !*rejected(f, "B1"));
        arena_fini(&a);
    }
}

TEST_MAIN(ONE(a_stage_of_slow_ranks_and_one_with_more_work_are_told_apart_or_said_not_to_be),
          ONE(a_low_clock_makes_no_stage_longer),
          ONE(a_low_clock_is_told_apart_from_what_else_is_slow),
          ONE(all_but_one_may_be_slow_where_times_are_given), ONE(most_ranks_are_listed),
          ONE(ranks_of_several_stages_are_one_place),
          ONE(slow_ranks_are_held_to_those_that_are_not),
          ONE(an_episode_of_nothing_hides_no_slow_ranks))
