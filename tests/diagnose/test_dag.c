/* Steps as graphs: they take what was measured, their critical paths sum to it, and edits of
 * durations do to graphs built by hand what arithmetic says. */
#define JOB_DIR "dag-test"
#include "diagnose/runs.h"

#include "diagnose/dag.h"

#include <math.h>

/* The same table where every tensor has places, and every task may meet a call. */
static struct record_table *without_shortcuts(const struct record_table *t, struct arena *a)
{
    struct record_table *x = ARENA_NEW(a, struct record_table);
    *x = *t;
    x->tensors = ARENA_ARRAY(a, struct record_tensor, t->n_tensors);
    x->n_places = 0;
    for (i64 i = 0; i < t->n_tensors; i++) {
        x->tensors[i] = t->tensors[i];
        x->tensors[i].place = x->n_places;
        x->n_places += t->tensors[i].slots;
    }
    for (i64 i = 0; i < t->n_tasks; i++) /* spans point to these */
        t->tasks[i].flags |= RECORD_MEETS;
    return x;
}

static void check_same(const struct dag *x, const struct dag *y)
{
    CHECK_EQ(x->n, y->n);
    CHECK_EQ(x->strays, y->strays);
    for (i64 i = 0; i < x->n; i++) {
        const struct dag_node *p = &x->nodes[i], *q = &y->nodes[i];
        CHECK(p->kind == q->kind && p->rank == q->rank && p->task_id == q->task_id &&
              p->action == q->action && p->begun == q->begun);
        CHECK_EQ(p->before, q->before);
        CHECK_EQ(p->n_needs, q->n_needs);
        for (i32 k = 0; k < p->n_needs; k++)
            CHECK_EQ(x->needs[p->needs + k], y->needs[q->needs + k]);
        CHECK_NEAR(x->seconds[i], y->seconds[i], 0);
        CHECK_NEAR(x->lead[i], y->lead[i], 0);
    }
    CHECK_NEAR(x->length, y->length, 0);
}

/* Which tasks can meet a call at all is known of their table; a graph for which each of them is
 * asked is the same. */
static void check_shortcuts(const struct record_step *s, const struct dag *g)
{
    struct record_step again = *s;
    struct dag *x;
    int *flags[64];
    again.ranks = ARENA_ARRAY(s->arena, struct record_rank, s->n_ranks);
    for (int r = 0; r < s->n_ranks; r++) {
        const struct record_table *t = s->ranks[r].table;
        flags[r] = ARENA_ARRAY(s->arena, int, t->n_tasks);
        for (i64 i = 0; i < t->n_tasks; i++)
            flags[r][i] = t->tasks[i].flags;
    }
    for (int r = 0; r < s->n_ranks; r++) {
        again.ranks[r] = s->ranks[r];
        again.ranks[r].table = without_shortcuts(s->ranks[r].table, s->arena);
    }
    CHECK_OK(dag_new(&x, &again));
    check_same(g, x);
    for (int r = 0; r < s->n_ranks; r++)
        for (i64 i = 0; i < s->ranks[r].table->n_tasks; i++)
            s->ranks[r].table->tasks[i].flags = flags[r][i];
}

/* Segments from the end to the begin, without a gap. */
static void check_path(const struct dag *g, struct arena *a)
{
    struct dag_segment *path = ARENA_ARRAY(a, struct dag_segment, 2 * g->n);
    double length = g->length, to = length, sum = 0;
    i64 n = dag_critical(g, NULL, NULL, path);
    CHECK(n > 0);
    for (i64 i = 0; i < n; i++) {
        CHECK(path[i].to == to && path[i].from < to);
        to = path[i].from;
        sum += path[i].to - path[i].from;
    }
    CHECK(to == 0);
    CHECK_NEAR(sum, length, 1e-12);
}

/* Steps are some milliseconds long here, and more ranks than processors: of eight, one may be
 * beyond the gate, where a member of a call ended before another one's thread had taken it up. */
static void check_run(const char *name)
{
    struct record r;
    struct record_step s = { 0 };
    struct dag *g;
    i64 beyond = 0;
    open_run(&r, name);
    CHECK(r.n_steps > 3);
    for (i64 i = 0; i < r.n_steps; i++) {
        CHECK_OK(record_step(&r, r.steps[i], &s));
        CHECK_OK(dag_new(&g, &s));
        CHECK_EQ(g->strays, 0);
        double fidelity = dag_length(g, NULL, NULL, NULL) / g->measured;
        CHECK_NEAR(fidelity, 1, 5 * DAG_GATE);
        beyond += fabs(fidelity - 1) > DAG_GATE;
        check_path(g, s.arena);
        check_shortcuts(&s, g);
    }
    CHECK(beyond <= 1);
    record_step_free(&s);
    record_close(&r);
}

TEST(one_rank_takes_what_was_measured)
{
    const char *sets[] = { "train.accumulate=3", NULL };
    make_corpus();
    CHECK_OK(train("one", sets, false, NULL));
    check_run("one");
}

TEST(ranks_of_every_kind_of_layout_take_what_was_measured)
{
    static const struct {
        const char *name, *layout;
        const char *sets[6];
    } runs[] = {
        { "dp", "dp=2", { "train.batch=4" } },
        { "zero", "dp=2,zero=3", { "train.batch=4" } },
        { "tp", "tp=2", { "train.batch=4" } },
        { "cp", "cp=2", { "train.batch=2", "train.seq=64" } },
        { "pp", "pp=2", { "train.accumulate=4" } },
        { "zb", "pp=2,schedule=zb-h1", { "train.accumulate=4" } },
        { "islands", "islands=2", { "train.batch=4", "outer.every=3", "train.ema=0" } },
        { "ep", "dp=2,ep=2", { "train.batch=4", JOB_EXPERTS } },
        { "hybrid", "pp=2,dp=2", { "train.batch=4", "train.accumulate=2" } },
        { "away", "dp=2,zero=1", { "train.batch=4", "offload.optimizer=yes", "offload.least=1" } },
    };
    for (i64 i = 0; i < COUNT_OF(runs); i++) {
        run_layout(runs[i].name, runs[i].layout, (const char **)(uintptr_t)runs[i].sets);
        check_run(runs[i].name);
    }
    sys_remove_tree(JOB_DIR);
}

static bool needs(const struct dag *g, i64 node, i64 need)
{
    for (i32 k = 0; k < g->nodes[node].n_needs; k++)
        if (g->needs[g->nodes[node].needs + k] == need)
            return true;
    return false;
}

/* Of one rank and lane, waits for calls that nothing needed yet, by one call each. */
static i64 early_waits(const struct dag *g, int rank, int lane)
{
    i64 n = 0;
    for (i64 i = 0; i < g->n; i++) {
        const struct dag_node *x = &g->nodes[i];
        if (x->kind != DAG_WAIT || x->rank != rank || x->lane != lane || !x->early)
            continue;
        i64 calls = 0;
        for (i64 k = 0; k < g->n; k++)
            calls += g->nodes[k].kind == DAG_CALL && g->nodes[k].rank == rank &&
                     g->nodes[k].task_id == x->task_id && needs(g, i, k);
        CHECK_EQ(calls, 1);
        n++;
    }
    return n;
}

/* The same spans, and behind each wait another look at its call, as the executor takes one where a
 * task needs what has just been waited for. */
static void look_twice(struct record_step *s)
{
    for (int r = 0; r < s->n_ranks; r++) {
        struct record_rank *k = &s->ranks[r];
        struct record_span *to = ARENA_ARRAY(s->arena, struct record_span, 2 * k->n_spans);
        i64 n = 0, from = 0;
        for (int lane = 0; lane < TRACE_LANES; lane++) {
            for (; from < k->lane[lane + 1]; from++) {
                to[n++] = k->spans[from];
                if (k->spans[from].kind != SPAN_WAIT)
                    continue;
                to[n] = to[n - 1];
                to[n].begin_ns = to[n].end_ns;
                n++;
            }
            k->lane[lane + 1] = n;
        }
        k->spans = to;
        k->n_spans = n;
    }
}

/* A rank that stands still where its calls begin waits for these, and for nothing that it begins
 * behind them. */
TEST(a_wait_where_a_call_begins_is_for_that_call)
{
    static const char *const names[] = { "usual", "early" };
    static const char *const faults[] = { "run.inject=", "run.inject=overlap=off" };
    make_corpus();
    for (i64 i = 0; i < COUNT_OF(faults); i++) {
        const char *sets[] = { "train.batch=4", faults[i], NULL };
        struct record r;
        struct record_step s = { 0 };
        struct dag *g;
        i64 early = 0, looked = 0;
        run_layout(names[i], "dp=2,tp=2", sets);
        open_run(&r, names[i]);
        for (i64 k = 0; k < r.n_steps; k++) {
            CHECK_OK(record_step(&r, r.steps[k], &s));
            CHECK_OK(dag_new(&g, &s));
            CHECK_EQ(g->strays, 0);
            early += early_waits(g, 0, LANE_DP);
            look_twice(&s);
            CHECK_OK(dag_new(&g, &s));
            CHECK_EQ(g->strays, 0);
            looked += early_waits(g, 0, LANE_DP);
        }
        CHECK(looked >= early);
        CHECK(i == 0 ? early == 0 : early >= r.n_steps);
        record_step_free(&s);
        record_close(&r);
    }
    sys_remove_tree(JOB_DIR);
}

/* Seconds that nodes of this kind take at a rank. */
static double seconds_in(const struct dag *g, int kind, int rank)
{
    double sum = 0;
    for (i64 i = 0; i < g->n; i++)
        sum += g->nodes[i].kind == kind && g->nodes[i].rank == rank ? g->seconds[i] : 0;
    return sum;
}

static void shift(struct record_rank *k, i64 ns)
{
    struct record_span *spans = (struct record_span *)(uintptr_t)k->spans;
    for (i64 i = 0; i < k->n_spans; i++) {
        spans[i].begin_ns += ns;
        spans[i].end_ns += ns;
    }
    k->begin_ns += ns;
    k->end_ns += ns;
    k->window_begin_ns += ns;
    k->window_end_ns += ns;
}

/* Ranks 0 and 2 meet, and 1 and 3 five milliseconds later, as it seems: rank 0 has waited for
 * rank 2. */
TEST(a_meeting_of_some_ranks_does_not_wait_for_the_others)
{
    const char *sets[] = { "train.batch=4", "run.inject=slow_compute=6@2-3", NULL };
    struct record r;
    struct record_step s = { 0 };
    struct dag *g;
    make_corpus();
    run_layout("pairs", "dp=2,tp=2", sets);
    open_run(&r, "pairs");
    i64 waited = 0, wrong = 0; /* a busy machine may disturb some */
    for (i64 i = 1; i < r.n_steps; i++) {
        CHECK_OK(record_step(&r, r.steps[i], &s));
        CHECK_OK(dag_new(&g, &s));
        double meets = seconds_in(g, DAG_MEET, 0);
        i64 begun = 0;
        for (i64 k = 0; k < g->n; k++)
            begun += g->nodes[k].rank == 1 && g->nodes[k].begun == LANE_TP;
        CHECK(begun > 0); /* what followed a call's begin is known */
        double busy = seconds_in(g, DAG_COMPUTE, 2) - seconds_in(g, DAG_COMPUTE, 0);
        shift(&s.ranks[1], 5000000);
        shift(&s.ranks[3], 5000000);
        CHECK_OK(dag_new(&g, &s));
        if (busy < 1e-3)
            continue;
        waited++;
        wrong += seconds_in(g, DAG_MEET, 0) > meets + 0.2 * busy + 1e-3;
    }
    CHECK(waited > 0);
    CHECK(2 * wrong <= waited);
    record_step_free(&s);
    record_close(&r);
    sys_remove_tree(JOB_DIR);
}

TEST_MAIN(ONE(one_rank_takes_what_was_measured),
          ONE(ranks_of_every_kind_of_layout_take_what_was_measured),
          ONE(a_wait_where_a_call_begins_is_for_that_call),
          ONE(a_meeting_of_some_ranks_does_not_wait_for_the_others))
