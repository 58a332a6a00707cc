/* Rows of unequal length and noise, at once and alone. */
#include "test.h"

#include "diagnose/plant.h"
#include "diagnose/rows.h"
#include "diagnose/whatif_noise.h"

#include <math.h>
#include <string.h>

static struct findings found;

static bool has(const char *id)
{
    for (int i = 0; i < found.n; i++)
        if (strcmp(found.at[i].id, id) == 0)
            return true;
    return false;
}

/* Up to so many seconds from the mean, by what rows ask for and by chance. */
static struct measure *varying(double rows, double noise, struct arena *a)
{
    struct measure *m = usual_run(4, STEPS, a);
    u64 seed = 11;
    for (i64 r = 0; r < m->n_ranks; r++) {
        m->ranks[r].work = ARENA_ARRAY(a, double, STEPS);
        for (i64 i = 0; i < STEPS; i++) {
            const double x = usual_noise(&seed);
            m->ranks[r].work[i] = 1e9 * (1 + x);
            m->ranks[r].compute[i] += rows * x + noise * usual_noise(&seed);
        }
    }
    m->config.simulated = true;
    longer(m, 0.3 * (rows + noise));
    return m;
}

TEST(rows_and_noise_that_vary_alike_are_both_told)
{
    static const struct { double rows, noise; bool d6, b3; } cases[] = {
        { 0.03, 0, true, false }, { 0, 0.03, false, true },
        { 0.03, 0.03, true, true }, { 0.024, 0.03, true, true }, { 0.04, 0.025, true, true },
    };
    for (i64 i = 0; i < COUNT_OF(cases); i++) {
        struct arena a;
        arena_init(&a);
        struct measure *m = varying(cases[i].rows, cases[i].noise, &a);
        findings_make(&found, m, NULL);
        if (has("D6") != cases[i].d6 || has("B3") != cases[i].b3) {
            tell(&found, m);
            fail_msg("%g s by rows and %g by chance", cases[i].rows, cases[i].noise);
        }
        arena_fini(&a);
    }
}

TEST(neither_a_slow_rank_nor_a_slow_step_has_a_part_in_what_rows_explain)
{
    struct arena a;
    arena_init(&a);
    struct measure *m = varying(0.03, 0, &a);
    for (i64 i = 0; i < STEPS; i++) {
        m->ranks[2].compute[i] += 0.05;
        for (i64 r = 0; r < 4 && i == 20; r++)
            m->ranks[r].compute[i] += 0.1;
    }
    const struct rows_fit f = rows_fit(m);
    CHECK(f.correlation > 0.99);
    CHECK_NEAR(f.slope / 3e-11, 1, 0.02);
    const struct measure left = rows_left(m, &f, &a);
    for (i64 i = 0; i < STEPS; i++)
        CHECK_NEAR(left.ranks[2].compute[i] - left.ranks[1].compute[i], 0.05, 0.0015);
    arena_fini(&a);
}

/* --- graphs ----------------------------------------------------------------------- */

enum { RANKS = 4, ACTIONS = 2 };

struct run {
    struct record_step steps[STEPS];
    struct dag *graphs[STEPS];
};

/* Of each action a linear of 10 ms and an attention of 10 ms for usual rows; noise holds for all of an
 * action. slow: of rank 1. */
static void make_run(struct run *run, double noise, double slow, struct arena *a)
{
    static const struct record_task tasks[2] = { { .op = "linear" }, { .op = "attention" } };
    u64 seed = 3;
    for (int k = 0; k < STEPS; k++) {
        struct dag *g = run->graphs[k] = ARENA_NEW(a, struct dag);
        *g = (struct dag){ .n_ranks = RANKS,
                           .nodes = ARENA_ARRAY(a, struct dag_node, RANKS * ACTIONS * 2),
                           .seconds = ARENA_ARRAY(a, double, RANKS * ACTIONS * 2) };
        run->steps[k] = (struct record_step){ .n_ranks = RANKS,
                                              .ranks = ARENA_ARRAY(a, struct record_rank, RANKS) };
        for (int r = 0; r < RANKS; r++) {
            struct sample *x = ARENA_NEW(a, struct sample);
            *x = (struct sample){ .has = SAMPLE_ROWS, .attended = 1e6 * (1 + usual_noise(&seed)) };
            run->steps[k].ranks[r] = (struct record_rank){ .head = ARENA_NEW(a, struct record_head),
                                                           .sample = x };
            for (int i = 0; i < 2 * ACTIONS; i++) {
                const double late = i % 2 == 0 ? 1 + noise * (0.5 + usual_noise(&seed)) : 0;
                double *seconds = &g->seconds[g->n];
                *seconds = late > 0 ? 0.01 * late : seconds[-1] * x->attended / 1e6;
                *seconds *= r == 1 && late > 0 ? slow : 1;
                g->nodes[g->n++] = (struct dag_node){ .kind = DAG_COMPUTE, .rank = r,
                                                      .action = (u16)(i / 2), .task_id = (u32)i,
                                                      .task = &tasks[i % 2] };
            }
        }
    }
}

TEST(attention_tells_its_rows_work_in_whatever_noise)
{
    struct arena a;
    struct run run;
    arena_init(&a);
    make_run(&run, 1, 1, &a);
    const struct rows_work w = rows_find(run.steps, run.graphs, STEPS, &a);
    CHECK(w.unsure < 1e-6);
    for (int k = 0; k < STEPS; k++) {
        double mean = 0;
        for (int r = 0; r < RANKS; r++)
            mean += run.steps[k].ranks[r].sample->attended / RANKS;
        for (i64 i = 0; i < run.graphs[k]->n; i++) {
            const struct dag_node *n = &run.graphs[k]->nodes[i];
            const double own = run.steps[k].ranks[n->rank].sample->attended;
            CHECK_NEAR(rows_even(&w, k, n, 1), n->task_id % 2 ? mean / own : 1, 1e-6);
            CHECK_NEAR(rows_even(&w, k, n, 0), 1, 1e-12);
        }
    }
    arena_fini(&a);
}

TEST(rows_that_are_alike_or_not_followed_change_nothing)
{
    for (int alike = 0; alike < 2; alike++) {
        struct arena a;
        struct run run;
        arena_init(&a);
        make_run(&run, 0.5, 1, &a);
        u64 seed = 17;
        for (int k = 0; k < STEPS; k++)
            for (int r = 0; r < RANKS; r++)
                ((struct sample *)run.steps[k].ranks[r].sample)->attended =
                    alike ? 1e6 : 1e6 * (1 + usual_noise(&seed));
        const struct rows_work w = rows_find(run.steps, run.graphs, STEPS, &a);
        CHECK(rows_times(&w, 3, &run.graphs[3]->nodes[1]) == 1);
        CHECK(rows_even(&w, 3, &run.graphs[3]->nodes[1], 1) == 1);
        arena_fini(&a);
    }
}

/* What the rows ask for makes no rank slow, nor parts of a step unlike others; and the quickest of few
 * noisy steps is not quite quiet. */
TEST(a_rank_is_slow_when_quiet_only_by_more_than_its_rows_and_chance)
{
    for (int slow = 0; slow < 2; slow++) {
        struct arena a;
        struct run run;
        arena_init(&a);
        make_run(&run, 1, slow ? 1.3 : 1, &a);
        const struct rows_work w = rows_find(run.steps, run.graphs, STEPS, &a);
        const struct quiet_steps s = { .graphs = run.graphs, .n = STEPS, .rows = &w };
        const i64 actions[RANKS] = { ACTIONS, ACTIONS, ACTIONS, ACTIONS };
        struct measure *m = usual_run(RANKS, STEPS, &a);
        quiet_noise(&s, actions, m);
        for (int r = 0; r < RANKS; r++)
            if (slow && r == 1)
                CHECK_NEAR(m->ranks[r].quiet_pace, 1.3, 0.08);
            else
                CHECK(m->ranks[r].quiet_pace <= 1);
        CHECK_NEAR(m->rows_slope, 1e-6 * 0.03, 0.006 * 1e-6);
        arena_fini(&a);
    }
}

TEST_MAIN(ONE(rows_and_noise_that_vary_alike_are_both_told),
          ONE(neither_a_slow_rank_nor_a_slow_step_has_a_part_in_what_rows_explain),
          ONE(attention_tells_its_rows_work_in_whatever_noise),
          ONE(rows_that_are_alike_or_not_followed_change_nothing),
          ONE(a_rank_is_slow_when_quiet_only_by_more_than_its_rows_and_chance))
