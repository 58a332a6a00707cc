/* What of one step's measures needs no other step is the same however spans are gone through. */
#define JOB_DIR "ready-test"
#include "diagnose/runs.h"

#include "diagnose/measure_ready.h"

static void check_same(const struct ready_rank *x, const struct ready_rank *y)
{
    CHECK(x->step > 0 && x->compute > 0 && x->n_tasks > 0);
    CHECK_NEAR(x->step, y->step, 0);
    CHECK_NEAR(x->compute, y->compute, 0);
    CHECK_NEAR(x->data, y->data, 0);
    CHECK_NEAR(x->wait, y->wait, 0);
    CHECK_NEAR(x->transfer, y->transfer, 0);
    for (int k = 0; k < HOST_KINDS; k++)
        CHECK_NEAR(x->gap[k], y->gap[k], 0);
    CHECK_EQ(x->n_stands, y->n_stands);
    for (i64 i = 0; i < x->n_stands; i++) {
        const struct ready_stand *a = &x->stands[i], *b = &y->stands[i];
        CHECK(a->lane == b->lane && a->begin_s == b->begin_s && a->exposed_s == b->exposed_s &&
              a->wait_s == b->wait_s && a->tail_s == b->tail_s);
    }
    CHECK_EQ(x->n_tasks, y->n_tasks);
    CHECK_EQ(x->n_behind, y->n_behind);
    for (int b = 0; b < x->n_behind; b++) {
        CHECK_EQ(x->behind[b].lane, y->behind[b].lane);
        CHECK_EQ(x->behind[b].n, y->behind[b].n);
        CHECK(x->behind[b].n == 0 ||
              memcmp(x->behind[b].seconds, y->behind[b].seconds,
                     (size_t)x->behind[b].n * sizeof(double)) == 0);
    }
}

/* Spans that rise are merged as they lie; where that is not known they are sorted, and each lane
 * has a list of its own. */
static void check_run(const char *name, bool exchanges)
{
    struct record r;
    struct record_step s = { 0 };
    void *kept = NULL;
    i64 rising = 0, behind = 0;
    open_run(&r, name);
    for (i64 i = 0; i < r.n_steps; i++) {
        CHECK_OK(record_step(&r, r.steps[i], &s));
        const struct ready *x = measure_ready(NULL, &s, &kept);
        for (int k = 0; k < s.n_ranks; k++) {
            rising += s.ranks[k].rising;
            s.ranks[k].rising = false;
        }
        const struct ready *y = measure_ready(NULL, &s, &kept);
        for (int k = 0; k < s.n_ranks; k++) {
            check_same(&x->ranks[k], &y->ranks[k]);
            for (int b = 0; b < x->ranks[k].n_behind; b++)
                behind += x->ranks[k].behind[b].n;
        }
    }
    CHECK(rising > r.n_steps / 2);
    CHECK_EQ(behind > 0, exchanges);
    record_step_free(&s);
    record_close(&r);
}

TEST(spans_in_order_are_measured_as_sorted_ones_are)
{
    const char *sets[] = { "train.steps=8", "train.batch=4", NULL };
    make_corpus();
    run_layout("single", "dp=1", sets);
    run_layout("zero", "dp=2,zero=1", sets);
    run_layout("tensor", "tp=2", sets);
    run_layout("pipeline", "pp=2", sets);
    check_run("single", false);
    check_run("zero", true);
    check_run("tensor", true);
    check_run("pipeline", true);
    sys_remove_tree(JOB_DIR);
}

TEST_MAIN(ONE(spans_in_order_are_measured_as_sorted_ones_are))
