/* Steps that threads make ready come in order, each once, and add up to the same bits. */
#define JOB_DIR "each-test"
#include "diagnose/runs.h"

#include "diagnose/climb.h"
#include "diagnose/each.h"

enum { MANY = 1000 }; /* so many that threads are worth it */

struct seen {
    const i64 *steps;
    i64 n, made;
};

static _Atomic int n_kept; /* by threads, and not given back */

static void *make(void *context, const struct record_step *s, void **kept)
{
    (void)context;
    i64 *step = ARENA_NEW(s->arena, i64);
    *step = s->step;
    if (!*kept) {
        *kept = &n_kept;
        n_kept++;
    }
    return step;
}

static void drop(void *kept)
{
    CHECK(kept == &n_kept);
    n_kept--;
}

static int take(void *context, const struct record_step *s, void *made, int rc)
{
    struct seen *x = context;
    CHECK_EQ(s->step, x->steps[x->n++]);
    CHECK(rc == OK ? *(i64 *)made == s->step && s->ranks[0].n_spans > 0 : !made);
    x->made += rc == OK;
    return OK;
}

static int stop(void *context, const struct record_step *s, void *made, int rc)
{
    struct seen *x = context;
    (void)s, (void)made, (void)rc;
    return ++x->n == 3 ? ERR_LIMIT : OK;
}

TEST(steps_come_in_order_from_one_thread_and_from_several)
{
    const char *sets[] = { "train.steps=12", NULL };
    struct record r;
    i64 steps[MANY + 100], n = 0;
    struct seen few = { steps, 0, 0 }, many = { steps, 0, 0 }, stopped = { steps, 0, 0 };
    make_corpus();
    run_layout("each", "dp=2,zero=1", sets);
    open_run(&r, "each");
    CHECK(r.n_steps >= 6);
    for (i64 k = 0; n + r.n_steps + 1 < COUNT_OF(steps) && n < MANY; k++) {
        for (i64 i = 0; i < r.n_steps; i++)
            steps[n++] = r.steps[i];
        steps[n++] = 1000000 + k; /* there is none: it is taken too, and said to be an error */
    }
    CHECK_OK(each_step(&r, steps, r.n_steps, &(struct each){ &few, make, take, drop }));
    CHECK_EQ(few.n, r.n_steps);
    CHECK_OK(each_step(&r, steps, n, &(struct each){ &many, make, take, drop }));
    CHECK_EQ(many.n, n);
    CHECK_EQ(many.made, n - n / (r.n_steps + 1));
    CHECK_EQ(each_step(&r, steps, n, &(struct each){ &stopped, make, stop, drop }), ERR_LIMIT);
    CHECK_EQ(stopped.n, 3);
    CHECK_EQ(n_kept, 0);
    record_close(&r);
}

/* Threads are used for many steps only: the same ones over and over, all at once or one by one. */
TEST(a_ladder_of_threads_has_the_bits_of_one_thread)
{
    struct record r;
    struct arena a;
    i64 steps[700];
    open_run(&r, "each");
    arena_init(&a);
    struct ladder at_once = { .weight = 1 }, one_by_one = { .weight = 1 };
    struct critical x = { .arena = &a }, y = { .arena = &a };
    struct usual u = { .arena = &a };
    for (i64 i = 0; i < COUNT_OF(steps); i++)
        steps[i] = r.steps[i % r.n_steps];
    CHECK_OK(usual_of_steps(&u, &r, steps, COUNT_OF(steps)));
    CHECK_OK(climb_steps(&r, &u, steps, COUNT_OF(steps), &at_once, &x));
    for (i64 i = 0; i < COUNT_OF(steps); i++)
        CHECK_OK(climb_steps(&r, &u, &steps[i], 1, &one_by_one, &y));
    CHECK_EQ(at_once.steps, COUNT_OF(steps));
    for (int k = 0; k < RUNGS; k++)
        CHECK_NEAR(at_once.rung_s[k], one_by_one.rung_s[k], 0);
    CHECK_NEAR(at_once.compute_s, one_by_one.compute_s, 0);
    CHECK_EQ(x.n, y.n);
    CHECK_NEAR(x.seconds, y.seconds, 0);
    for (i64 i = 0; i < x.n; i++)
        CHECK_NEAR(x.shares[i].seconds, y.shares[i].seconds, 0);
    arena_fini(&a);
    record_close(&r);
    sys_remove_tree(JOB_DIR);
}

TEST_MAIN(ONE(steps_come_in_order_from_one_thread_and_from_several),
          ONE(a_ladder_of_threads_has_the_bits_of_one_thread))
