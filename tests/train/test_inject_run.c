/* What is injected into a run does what it says: seen in its spans, since other programs on this
 * machine make every wall time longer, and none shorter. */
#define JOB_DIR "inject-test"
#include "train/job.h"

#include "ops/ops.h"

struct seen {
    u64 least_ns[2]; /* of tasks: of the op, of others */
    u64 gap_ns;      /* most between what the host does and the first task of step 5 */
    u64 load_wait_ns, least_load_ns;
    i64 tasks;
};

static const char *op_of(const struct session *s, const struct span *p)
{
    return s->steps[0].program->by_id[p->task]->op->name;
}

static void look_at_tasks(const struct session *s, const char *op, struct seen *seen)
{
    const struct trace_ring *r = &s->engine.trace.lanes[TRACE_COMPUTE];
    for (u64 i = 0; i < r->written; i++) {
        const struct span *p = &r->spans[i & (r->capacity - 1)];
        u64 *least = &seen->least_ns[!op || strcmp(op_of(s, p), op) != 0];
        if (p->kind != SPAN_TASK)
            continue;
        if (p->end_ns - p->begin_ns < *least)
            *least = p->end_ns - p->begin_ns;
        seen->tasks++;
    }
}

static void look_at_loads(const struct session *s, struct seen *seen)
{
    const struct trace_ring *r = &s->engine.trace.lanes[TRACE_LOADER];
    for (u64 i = 0; i < r->written; i++) {
        u64 took = r->spans[i].end_ns - r->spans[i].begin_ns;
        if (took < seen->least_load_ns)
            seen->least_load_ns = took;
    }
    r = &s->engine.trace.lanes[TRACE_HOST];
    for (u64 i = 0; i < r->written; i++)
        if (r->spans[i].kind == SPAN_LOAD_WAIT)
            seen->load_wait_ns += r->spans[i].end_ns - r->spans[i].begin_ns;
}

/* Between the end of waiting for data and the first task of a step. */
static u64 gap_before_tasks(const struct session *s, u32 step)
{
    const struct trace_ring *host = &s->engine.trace.lanes[TRACE_HOST];
    const struct trace_ring *compute = &s->engine.trace.lanes[TRACE_COMPUTE];
    u64 from = 0, to = 0;
    for (u64 i = 0; i < host->written; i++)
        if (host->spans[i].kind == SPAN_LOAD_WAIT && host->spans[i].step == step)
            from = host->spans[i].end_ns;
    for (u64 i = 0; i < compute->written && !to; i++)
        if (compute->spans[i].step == step)
            to = compute->spans[i].begin_ns;
    CHECK(from > 0 && to >= from);
    return to - from;
}

static struct seen run(const char *name, const char *inject, const char *op)
{
    char set[128];
    const char *sets[] = { set, "eval.every=0", "train.steps=5", "checkpoint.every=0",
                           "data.val_fraction=0",
                           "data.cache=" JOB_DIR "/all", "run.dir=" JOB_DIR "/runs", NULL };
    struct seen seen = { .least_ns = { UINT64_MAX, UINT64_MAX }, .least_load_ns = UINT64_MAX };
    struct session s;
    struct job j;
    snprintf(set, sizeof set, "run.inject=%s", inject);
    open_job(&j, name, sets);
    CHECK_OK(session_open(&s, &j.request));
    CHECK_OK(session_train(&s));
    look_at_tasks(&s, op, &seen);
    look_at_loads(&s, &seen);
    seen.gap_ns = gap_before_tasks(&s, 4); /* the fifth step */
    session_close(&s);
    arena_fini(&j.arena);
    return seen;
}

TEST(an_op_is_delayed_and_the_others_are_not)
{
    make_corpus();
    struct seen seen = run("op", "op=rmsnorm,delay=2ms", "rmsnorm");
    CHECK(seen.least_ns[0] >= 2000 * 1000);
    CHECK(seen.least_ns[1] < 2000 * 1000);
}

TEST(a_pause_is_before_the_tasks_of_its_steps)
{
    struct seen seen = run("pause", "pause=30ms/5", NULL);
    CHECK(seen.gap_ns >= 30 * 1000 * 1000);
}

TEST(a_slow_loader_makes_the_steps_wait)
{
    struct seen spin = run("spin", "loader_spin=15ms", NULL);
    CHECK(spin.least_load_ns >= 15 * 1000 * 1000);
    CHECK(spin.load_wait_ns >= 15 * 1000 * 1000); /* the first step has nothing ready */
    struct seen slow = run("slow", "loader_bw=0.02", NULL); /* 64 tokens of 4 bytes: 12.8 ms */
    CHECK(slow.least_load_ns >= 12 * 1000 * 1000);
}

TEST(tasks_take_so_many_times_as_long)
{
    /* The shortest span of all tasks, each of which is stretched, against nothing injected: a
     * factor of 20 is beyond what a busy machine does to the shortest of hundreds. */
    struct seen plain = run("plain", "", NULL), slow = run("times", "slow_compute=20", NULL);
    CHECK(slow.tasks == plain.tasks);
    CHECK(slow.least_ns[1] > 2 * plain.least_ns[1]);
}

/* One thread of two works: the mean is half of the longest. Tasks are looked at once they took
 * 100 us, which a factor of 20 sees to. */
TEST(an_op_made_serial_works_on_one_thread)
{
    static const char *const sets[] = { "run.inject=serial=linear,slow_compute=20", "eval.every=0",
                                        "checkpoint.every=0", "train.steps=3", "train.threads=2",
                                        "data.val_fraction=0", "data.cache=" JOB_DIR "/all", NULL };
    struct session s;
    struct job j;
    i64 looked = 0;
    open_job(&j, "serial", sets);
    CHECK_OK(session_open(&s, &j.request));
    CHECK_OK(session_train(&s));
    const struct trace_ring *r = &s.engine.trace.lanes[TRACE_COMPUTE];
    for (u64 i = 0; i < r->written; i++) {
        const struct span *p = &r->spans[i];
        if (p->kind != SPAN_TASK || p->detail == 0 || strcmp(op_of(&s, p), "linear") != 0)
            continue;
        CHECK_NEAR(span_balance(p->detail), 0.5, 1e-3);
        looked++;
    }
    CHECK(looked > 0);
    session_close(&s);
    arena_fini(&j.arena);
}

TEST(an_op_that_does_not_exist_is_refused)
{
    static const char *const sets[] = { "run.inject=op=rmsnrm,delay=1ms", NULL };
    struct job j;
    struct session s;
    open_job(&j, "none", sets);
    CHECK_FAILS(session_open(&s, &j.request), ERR_CONFIG, "did you mean rmsnorm?");
    arena_fini(&j.arena);
}

TEST_MAIN(ONE(an_op_is_delayed_and_the_others_are_not),
          ONE(a_pause_is_before_the_tasks_of_its_steps), ONE(a_slow_loader_makes_the_steps_wait),
          ONE(tasks_take_so_many_times_as_long), ONE(an_op_made_serial_works_on_one_thread),
          ONE(an_op_that_does_not_exist_is_refused))
