/* Goodput: the formula beside runs that are walked event by event, and what was published. */
#include "test.h"

#include "base/err.h"
#include "plan/failures.h"

#include <math.h>

static struct arena arena;

static struct failure_job job(void)
{
    return (struct failure_job){
        .nodes = 256, .node_per_day = 0.01, .job_per_day = 2, .hardware_share = 0.8,
        .detect_s = 300, .restart_s = 600, .stall_s = 20, .write_s = 20, .every_s = 1200,
    };
}

/* Within one point, over enough runs that chance is a tenth of that. */
static void check_agrees(const struct failure_job *j)
{
    struct failure_walk w;
    struct failure_time t = failure_goodput(j);
    failure_simulate(j, 60, 100, 7, &w, &arena);
    CHECK_NEAR(w.mean.progress, t.progress, 0.01);
    CHECK_NEAR(w.mean.checkpoints, t.checkpoints, 0.01);
    CHECK_NEAR(w.mean.lost, t.lost, 0.01);
    CHECK_NEAR(w.mean.down, t.down, 0.01);
    CHECK_NEAR(w.mean.waiting, t.waiting, 0.01);
    CHECK_NEAR(t.progress + t.checkpoints + t.lost + t.down + t.waiting, 1, 1e-9);
    CHECK(w.progress.lo <= w.progress.mid && w.progress.mid <= w.progress.hi);
}

TEST(the_formula_is_what_walking_gives)
{
    static const double every[] = { 60, 600, 3600 }, scale[] = { 0.1, 1, 8 };
    for (i64 e = 0; e < COUNT_OF(every); e++)
        for (i64 s = 0; s < COUNT_OF(scale); s++) {
            struct failure_job j = job();
            j.every_s = every[e];
            j.node_per_day *= scale[s];
            check_agrees(&j);
            j.planned_per_day = 3;
            check_agrees(&j);
            j.write_s = 50; /* in the background */
            check_agrees(&j);
        }
}

TEST(a_checkpoint_that_is_being_written_is_of_no_use_yet)
{
    struct failure_job j = job();
    j.node_per_day = 0.08;
    j.stall_s = j.write_s = 1;
    double at_once = failure_goodput(&j).progress;
    j.write_s = 900;
    check_agrees(&j);
    CHECK(failure_goodput(&j).progress < at_once - 0.1);
}

TEST(nodes_in_repair_are_waited_for_or_done_without)
{
    static const i64 spares[] = { 0, 2, 6 };
    for (i64 s = 0; s < COUNT_OF(spares); s++) {
        struct failure_job j = job();
        j.repair_s = 6 * 3600;
        j.node_per_day = 0.02;
        j.spares = spares[s];
        j.replica_nodes = 32; /* whoever lacks one node lacks 32 */
        check_agrees(&j);
        /* Erlang's formula is of the time that a job runs; little of it must be lost otherwise. */
        j.replica_nodes = 0;
        j.detect_s = j.restart_s = 30;
        j.every_s = 300;
        j.stall_s = j.write_s = 1;
        check_agrees(&j);
    }
}

TEST(erlangs_formula)
{
    struct failure_job j = job();
    j.repair_s = 86400; /* a load of 256 x 0.01 x 0.8 */
    double a = 2.048;
    j.spares = 0;
    CHECK_NEAR(failure_short_of_nodes(&j), a / (1 + a), 1e-12);
    j.spares = 1;
    CHECK_NEAR(failure_short_of_nodes(&j), a * a / 2 / (1 + a + a * a / 2), 1e-12);
    i64 best = failure_best_spares(&j, 100);
    CHECK(best >= 3 && best <= 12);
}

TEST(the_best_interval_is_the_best)
{
    struct failure_job j = job();
    j.every_s = failure_best_interval(&j);
    double best = failure_goodput(&j).progress, at = j.every_s;
    CHECK_NEAR(at / failure_daly(&j), 1, 0.02); /* Daly's is a series for it */
    CHECK_NEAR(failure_young(&j), sqrt(2 * 20 * failure_mtbf(&j)), 1e-9);
    for (double off = 0.5; off < 2.1; off *= 1.1) {
        j.every_s = at * off;
        CHECK(failure_goodput(&j).progress <= best + 1e-12);
    }
    j.node_per_day = j.job_per_day = 0;
    CHECK(isinf(failure_mtbf(&j)));
    CHECK_NEAR(failure_goodput(&j).progress, j.every_s / (j.every_s + 20), 1e-12);
}

static double hours(const struct failure_law *law, i64 gpus)
{
    struct failure_job j = failure_job_of(law, gpus / 8, FAILURE_MIDDLE);
    return failure_mtbf(&j) / 3600;
}

TEST(two_regimes_give_what_was_measured_and_projected)
{
    struct failure_law rsc, llama;
    CHECK_OK(failure_law_load(&rsc, "rsc-1", &arena));
    CHECK_NEAR(hours(&rsc, 1024), 7.9, 0.02); /* measured; the node rate alone says 28.8 */
    CHECK_NEAR(hours(&rsc, 16384), 1.8, 0.3); /* projected there without a floor */
    CHECK_NEAR(hours(&rsc, 131072), 0.23, 0.015);
    CHECK_OK(failure_law_load(&llama, "llama3", &arena));
    CHECK_NEAR(hours(&llama, 16384), 3.09, 0.01); /* 419 in 54 days */
    CHECK_NEAR(llama.node_per_day * 2048 * 54 + llama.job_per_day * 54, 419, 1);
}

TEST(what_was_published_of_llama_3_lies_in_the_interval)
{
    struct failure_law law;
    CHECK_OK(failure_law_load(&law, "llama3", &arena));
    double progress[3];
    for (int e = 0; e < 3; e++) {
        struct failure_job j = failure_job_of(&law, 2048, e);
        j.write_s = j.stall_s;
        j.every_s = failure_best_interval(&j);
        j.spares = failure_best_spares(&j, 100);
        progress[e] = failure_goodput(&j).progress;
    }
    CHECK(progress[FAILURE_QUICK] > progress[FAILURE_MIDDLE]);
    CHECK(progress[FAILURE_MIDDLE] > progress[FAILURE_SLOW]);
    CHECK(progress[FAILURE_SLOW] < 0.9 && progress[FAILURE_QUICK] > 0.9);
}

TEST(the_same_seed_gives_the_same_runs)
{
    struct failure_job j = job();
    struct failure_walk a, b, c;
    failure_simulate(&j, 30, 20, 1, &a, &arena);
    failure_simulate(&j, 30, 20, 1, &b, &arena);
    failure_simulate(&j, 30, 20, 2, &c, &arena);
    CHECK(a.mean.progress == b.mean.progress && a.mean.progress != c.mean.progress);
}

TEST(every_law_loads_and_nonsense_is_refused)
{
    static const char *const names[] = { "llama3", "rsc-1", "opt-175b", "h200-1600", "h100-100k" };
    struct failure_law law;
    for (i64 i = 0; i < COUNT_OF(names); i++) {
        CHECK_OK(failure_law_load(&law, names[i], &arena));
        CHECK(law.source && law.node_per_day + law.job_per_day > 0);
        struct failure_job j = failure_job_of(&law, law.nodes, FAILURE_MIDDLE);
        CHECK(failure_mtbf(&j) > 60);
    }
    CHECK_OK(failure_law_load(&law, "llama3", &arena)); /* far away, bands are wider */
    struct failure_job near = failure_job_of(&law, 2048, FAILURE_SLOW);
    struct failure_job far = failure_job_of(&law, 2048 * 64, FAILURE_SLOW);
    CHECK_NEAR(near.node_per_day, law.node_per_day, 1e-15);
    CHECK_NEAR(far.node_per_day / law.node_per_day, pow(64, 0.1), 1e-9);
    CHECK_FAILS(failure_law_load(&law, "llama4", &arena), ERR_CONFIG, "no 'llama4'");
}

int main(void)
{
    const struct CMUnitTest all[] = {
        ONE(the_formula_is_what_walking_gives),
        ONE(a_checkpoint_that_is_being_written_is_of_no_use_yet),
        ONE(nodes_in_repair_are_waited_for_or_done_without), ONE(erlangs_formula),
        ONE(the_best_interval_is_the_best), ONE(two_regimes_give_what_was_measured_and_projected),
        ONE(what_was_published_of_llama_3_lies_in_the_interval),
        ONE(the_same_seed_gives_the_same_runs), ONE(every_law_loads_and_nonsense_is_refused),
    };
    arena_init(&arena);
    int failed = cmocka_run_group_tests(all, NULL, NULL);
    arena_fini(&arena);
    return failed;
}
