/* Graphs of steps by the shape of earlier ones have the bits of those that are built. */
#define JOB_DIR "dag-again-test"
#include "diagnose/runs.h"

#include "base/rng.h"
#include "diagnose/dag_again.h"

static void check_same(const struct dag *x, const struct dag *y)
{
    i64 needs = 0;
    CHECK_EQ(x->n, y->n);
    CHECK_EQ(x->strays, y->strays);
    CHECK_EQ(x->missing, y->missing);
    for (i64 i = 0; i < x->n; i++) {
        const struct dag_node *a = &x->nodes[i], *b = &y->nodes[i];
        CHECK(a->kind == b->kind && a->lane == b->lane && a->begun == b->begun &&
              a->early == b->early && a->action == b->action && a->rank == b->rank &&
              a->task_id == b->task_id && a->task == b->task && a->before == b->before &&
              a->needs == b->needs && a->n_needs == b->n_needs);
        needs = i64_max(needs, a->needs + a->n_needs);
    }
    CHECK(memcmp(x->needs, y->needs, (size_t)needs * sizeof *x->needs) == 0);
    CHECK(memcmp(x->seconds, y->seconds, (size_t)x->n * sizeof *x->seconds) == 0);
    CHECK(memcmp(x->lead, y->lead, (size_t)x->n * sizeof *x->lead) == 0);
    CHECK(memcmp(x->own_ends, y->own_ends, (size_t)x->n * sizeof *x->own_ends) == 0);
    CHECK(memcmp(x->starts, y->starts, (size_t)x->n_ranks * sizeof *x->starts) == 0);
    CHECK(memcmp(x->last, y->last, (size_t)x->n_ranks * sizeof *x->last) == 0);
    CHECK_NEAR(x->measured, y->measured, 0);
    CHECK_NEAR(x->length, y->length, 0);
}

static void check_step(struct dag_shapes **shapes, const struct record_step *s)
{
    struct dag *built, *again;
    const int rc = dag_new(&built, s); /* times that cannot be make spans wait in a circle */
    CHECK_EQ(dag_new_again(&again, s, shapes), rc);
    if (rc == OK)
        check_same(again, built);
}

/* Up to so many nanoseconds, other ones each time. */
static i64 some_ns(i64 most)
{
    static const struct rng key = { 7, 0 };
    static u64 asked;
    return (i64)(rng_uniform(&key, asked++) * (double)most);
}

/* Moves each span's begin and end, but no end beyond those of its lane's neighbours: the same spans
 * in the same order, at times that decide otherwise here and there. */
static void jitter(struct record_step *s, i64 most_ns)
{
    for (int r = 0; r < s->n_ranks; r++) {
        struct record_rank *k = &s->ranks[r];
        struct record_span *spans = (struct record_span *)(uintptr_t)k->spans;
        for (i64 i = 0; i < k->n_spans; i++) {
            const bool first = i == 0 || spans[i - 1].lane != spans[i].lane;
            const bool last = i + 1 == k->n_spans || spans[i + 1].lane != spans[i].lane;
            const i64 least = first ? INT64_MIN : spans[i - 1].end_ns;
            const i64 most = last ? INT64_MAX : spans[i + 1].end_ns;
            const i64 end = spans[i].end_ns + some_ns(2 * most_ns) - most_ns;
            const i64 begin = spans[i].begin_ns + some_ns(most_ns) - most_ns / 2;
            spans[i].end_ns = i64_max(least, i64_min(most, end));
            spans[i].begin_ns = i64_min(begin, spans[i].end_ns);
        }
    }
}

/* A rank whose clock is off, or whose calls alone come later. */
static void shift(struct record_rank *k, i64 ns, bool calls_alone)
{
    struct record_span *spans = (struct record_span *)(uintptr_t)k->spans;
    for (i64 i = 0; i < k->n_spans; i++)
        if (!calls_alone || spans[i].kind == SPAN_CALL) {
            spans[i].begin_ns += ns;
            spans[i].end_ns += ns;
        }
    k->begin_ns += calls_alone ? 0 : ns;
    k->end_ns += calls_alone ? 0 : ns;
    k->window_begin_ns += calls_alone ? 0 : ns;
    k->window_end_ns += calls_alone ? 0 : ns;
}

/* Each span that computes begins before the one before it, one after another. */
static void check_swapped(struct dag_shapes **shapes, struct record_step *s)
{
    struct record_span *spans = (struct record_span *)(uintptr_t)s->ranks[0].spans;
    for (i64 i = 1; i < s->ranks[0].lane[TRACE_COMPUTE + 1]; i++) {
        const i64 begin = spans[i].begin_ns;
        spans[i].begin_ns = spans[i - 1].begin_ns - 1;
        check_step(shapes, s);
        spans[i].begin_ns = begin;
        check_step(shapes, s);
    }
}

/* So that calls end before others begin them, or are taken up behind a wait. */
static void check_shifted(struct dag_shapes **shapes, struct record_step *s)
{
    for (int k = 0; k < 2 * s->n_ranks; k++)
        for (i64 ns = 1000; ns < 100000000; ns *= 10) {
            shift(&s->ranks[k / 2], ns, k % 2);
            check_step(shapes, s);
            shift(&s->ranks[k / 2], -ns, k % 2);
            check_step(shapes, s);
        }
}

/* Every step as it was, and moved about by nanoseconds to milliseconds; then the same once more,
 * which has its own shape unless it cannot be repeated. Returns how many had that of another. */
static i64 check_run(const char *name, i64 *same_again)
{
    struct record r;
    struct record_step s = { 0 };
    struct dag_shapes *shapes = NULL;
    i64 used = 0, all;
    open_run(&r, name);
    CHECK(r.n_steps >= 6);
    for (int turn = 0; turn < 7; turn++)
        for (i64 i = 0; i < r.n_steps; i++) {
            CHECK_OK(record_step(&r, r.steps[i], &s));
            if (turn > 0)
                jitter(&s, turn < 5 ? 20 << 4 * (turn - 1) : 1000000);
            all = dag_shapes_used(shapes);
            check_step(&shapes, &s);
            used += dag_shapes_used(shapes) - all;
            all = dag_shapes_used(shapes);
            check_step(&shapes, &s);
            *same_again += dag_shapes_used(shapes) - all;
            if (turn > 0 || i < r.n_steps - 2)
                continue;
            check_shifted(&shapes, &s);
            check_swapped(&shapes, &s);
        }
    dag_shapes_free(shapes);
    record_step_free(&s);
    record_close(&r);
    return used;
}

TEST(a_step_with_the_shape_of_another_has_the_graph_that_is_built)
{
    const char *sets[] = { "train.steps=12", "train.batch=4", NULL };
    i64 used = 0, same_again = 0;
    make_corpus();
    run_layout("single", "dp=1", sets);
    run_layout("zero", "dp=2,zero=1", sets);
    run_layout("tensor", "tp=2", sets);
    run_layout("pipeline", "pp=2", sets);
    used += check_run("single", &same_again);
    used += check_run("zero", &same_again);
    used += check_run("tensor", &same_again);
    /* A send may end before it is taken: that is built. */
    used += check_run("pipeline", &same_again);
    CHECK(used > 6);
    CHECK(same_again > 36);
}

TEST(missing_ranks_and_other_programs_have_shapes_of_their_own)
{
    struct record r, other;
    struct record_step s = { 0 }, t = { 0 };
    struct dag_shapes *shapes = NULL;
    open_run(&r, "zero");
    open_run(&other, "tensor");
    for (i64 i = 3; i < r.n_steps; i++)
        for (int turn = 0; turn < 3; turn++) {
            CHECK_OK(record_step(&r, r.steps[i], &s));
            check_step(&shapes, &s);
            s.ranks[turn % 2].head = NULL;
            s.missing = 1;
            check_step(&shapes, &s);
            CHECK_OK(record_step(&other, other.steps[i], &t));
            check_step(&shapes, &t);
        }
    CHECK(dag_shapes_used(shapes) >= r.n_steps);
    dag_shapes_free(shapes);
    record_step_free(&s);
    record_step_free(&t);
    record_close(&r);
    record_close(&other);
    sys_remove_tree(JOB_DIR);
}

TEST_MAIN(ONE(a_step_with_the_shape_of_another_has_the_graph_that_is_built),
          ONE(missing_ranks_and_other_programs_have_shapes_of_their_own))
