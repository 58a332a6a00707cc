/* The executor: walks actions and tasks in order. One span per compute task, and one where it
 * stands still until a lane has done what a task needs. */
#include "backend/backend.h"
#include "base/sys.h"
#include "base/sys_share.h"
#include "ops/ops.h"

#include <string.h>

int backend_check(const struct backend *b, const struct program *p, int threads,
                  i64 *workspace_bytes)
{
    i64 most = 0;
    for (i64 id = 0; id < p->n_tasks; id++) {
        const struct task *t = p->by_id[id];
        const struct kernel *k = backend_kernel(b, t->op);
        if (t->lane != LANE_COMPUTE || t->op->waits)
            continue; /* carried out by x->lanes; or not at all */
        if (!k->run)
            return err_set(ERR_INTERNAL, "the %s backend has no kernel for %s", b->name,
                           t->op->name);
        if (k->workspace)
            most = i64_max(most, k->workspace(t, threads, k->context));
    }
    *workspace_bytes = i64_max(*workspace_bytes, most);
    return OK;
}

static bool wanted(const struct task *t)
{
    return !t->when || *(const i32 *)t->when->data != 0;
}

/* --- lanes -------------------------------------------------------------------------- */

static struct tensor *root(struct tensor *t)
{
    return t && t->owner ? t->owner : t;
}

/* Shorter ones are only a look. */
static const u64 least_wait_ns = 1000;

static int wait_for(const struct tensor_use *use, struct run *x)
{
    u64 begin = sys_now_ns();
    int rc = x->lanes->wait(x->lanes->context, (enum lane)use->lane, use->ticket, !x->yields);
    struct span span = { .begin_ns = begin, .end_ns = sys_now_ns(), .step = (u32)x->step,
                         .action = (u16)x->action, .task = use->task, .lane = TRACE_COMPUTE,
                         .kind = SPAN_WAIT, .detail = (u32)trace_of_lane(use->lane) };
    if (x->trace && span.end_ns - begin >= least_wait_ns)
        trace_add(x->trace, &span);
    return rc;
}

/* Waits until t may be read (or written) by a task of this lane. Readers on the compute
 * lane do not mind other readers; a lane in order waits for nothing of its own. 1: it may; 0: not
 * yet; negative: a lane failed. */
static int settle(struct tensor *t, enum lane lane, bool writes, struct run *x)
{
    struct tensor *r = root(t);
    if (!r || r->pending.ticket == 0)
        return 1;
    if (lane == LANE_COMPUTE ? !writes && !r->pending.writes
                             : r->pending.lane == (u8)lane && lane_in_order(lane))
        return 1;
    int rc = wait_for(&r->pending, x);
    if (rc == 1)
        r->pending.ticket = 0;
    return rc;
}

static int settle_task(const struct task *t, struct run *x)
{
    int rc = settle(t->when, LANE_COMPUTE, false, x);
    for (int k = 0; rc == 1 && k < t->op->n_in; k++)
        rc = settle(t->in[k], t->lane, false, x);
    for (int k = 0; rc == 1 && k < t->op->n_out; k++)
        rc = settle(t->out[k], t->lane, true, x);
    return rc;
}

static void mark_in_use(struct tensor *t, struct tensor_use use)
{
    struct tensor *r = root(t);
    if (!r)
        return;
    use.writes = use.writes || (r->pending.ticket && r->pending.writes);
    r->pending = use;
}

_Static_assert(TRACE_LANES - TRACE_CALLS == LANE_COUNT - 1, "a lane of the trace for each");

static int start_on_lane(const struct task *t, struct run *x)
{
    struct tensor_use use = { .lane = (u8)t->lane, .task = t->id };
    TRY(x->lanes->start(x->lanes->context, t, x, &use.ticket));
    for (int k = 0; k < t->op->n_in; k++)
        mark_in_use(t->in[k], use);
    use.writes = true;
    for (int k = 0; k < t->op->n_out; k++)
        mark_in_use(t->out[k], use);
    /* A pipeline's receive cannot be waited for before what is sent. */
    bool waits = inject_at(x->inject, INJECT_OVERLAP, x->step) && t->lane != LANE_PP;
    return waits && !x->yields ? wait_for(&use, x) : OK;
}

/* --- tasks -------------------------------------------------------------------------- */

static bool is_serial(const struct task *t, const struct run *x)
{
    const struct inject_fault *f = inject_at(x->inject, INJECT_SERIAL, x->step);
    return f && strcmp(f->word, t->op->name) == 0;
}

/* What took since `begin` takes as long as it is asked to. */
static void disturb(const struct task *t, u64 begin, const struct run *x)
{
    double took = 1e-9 * (double)(sys_now_ns() - begin);
    double asked = inject_compute(x->inject, t->op->name, x->step, (u64)x->action, took);
    u64 until = begin + (u64)(1e9 * asked);
    while (asked > took && sys_now_ns() < until)
        sys_pause();
}

static void run_task(const struct task *t, struct run *x)
{
    const struct kernel *k = backend_kernel(x->backend, t->op);
    struct pool *pool = x->pool;
    const bool disturbed = x->inject && !x->backend->sleeps;
    u64 begin = disturbed ? sys_now_ns() : 0;
    x->context = k->context;
    if (disturbed && is_serial(t, x))
        x->pool = x->one_thread;
    k->run(t, x);
    x->pool = pool;
    if (disturbed)
        disturb(t, begin, x);
    if (x->after_task)
        x->after_task(x->after_context, t);
}

/* A task that took so long last time is looked at: how evenly its threads work, 0.1 us for
 * each, and how long they are on a processor, 1 us. Either is less than a hundredth of it. */
enum { LOOK_US = 100, LOOK_AT_CPU_US = 500 };

static bool looks(u32 took_us, const struct run *x)
{
    if (!x->trace || took_us < LOOK_US)
        return false;
    pool_measure(x->pool, took_us >= LOOK_AT_CPU_US);
    return true;
}

/* What no thread shared out is work of the first. */
static u32 work_of(double took_ns, const struct run *x)
{
    struct pool_work w = pool_measured(x->pool);
    double alone = took_ns > w.rounds ? took_ns - w.rounds : 0;
    double all = w.busy + alone, longest = w.longest + alone;
    double balance = longest > 0 ? all / (longest * pool_threads(x->pool)) : 1;
    double on_cpu = w.busy > 0 ? w.on_cpu / w.busy : 0;
    return span_work(balance < 1 ? balance : 1, on_cpu < 1 ? on_cpu : 1);
}

static void time_task(const struct program *p, const struct task *t, u64 begin_ns, u64 *now,
                      struct run *x)
{
    u32 *took_us = &p->took_us[t->id];
    bool looked = looks(*took_us, x);
    run_task(t, x);
    *now = sys_now_ns();
    u64 took_ns = *now - begin_ns;
    struct span span = { .begin_ns = begin_ns, .end_ns = *now, .step = (u32)x->step,
                         .action = (u16)x->action, .task = t->id, .lane = TRACE_COMPUTE,
                         .kind = SPAN_TASK,
                         .detail = looked ? work_of((double)took_ns, x) : 0 };
    *took_us = took_ns < 1000ull * UINT32_MAX ? (u32)(took_ns / 1000) : UINT32_MAX;
    if (x->trace)
        trace_add(x->trace, &span);
}

/* The rest of the action at the cursor; at its end the cursor is at the next one. */
static int resume_action(const struct program *p, struct exec_cursor *at, struct run *x)
{
    const struct action *a = &p->actions[at->action];
    const struct segment *s = &p->segments[a->segment];
    x->action = at->action;
    x->micro_batch = a->micro_batch;
    program_enter(p, a);
    u64 now = sys_now_ns();
    for (; at->task < s->n_tasks; at->task++) {
        const struct task *t = &s->tasks[at->task];
        if (!task_has_turn(t, x->micro_batch, p->micro_batches))
            continue; /* and does not even look at its tensors */
        int rc = settle_task(t, x);
        if (rc != 1)
            return rc < 0 ? rc : EXEC_BLOCKED;
        if (x->lanes) /* waiting is nobody's work */
            now = sys_now_ns();
        if (!wanted(t) || t->op->waits)
            continue;
        if (t->lane != LANE_COMPUTE) {
            TRY(start_on_lane(t, x)); /* 1 where it has ended already */
            continue;
        }
        time_task(p, t, now, &now, x); /* tasks follow each other: one clock read each */
    }
    *at = (struct exec_cursor){ at->action + 1, 0 };
    return OK;
}

int exec_action(const struct program *p, i64 action, struct run *x)
{
    struct exec_cursor at = { action, 0 };
    return resume_action(p, &at, x);
}

/* In whichever slot it is busy. */
static int settle_slots(struct tensor *t, struct run *x)
{
    struct tensor *r = root(t);
    int slots = r && r->slots ? r->slots->n : 1, rc = 1;
    for (int k = 0; k < slots && rc == 1; k++) {
        if (slots > 1)
            tensor_enter_slot(r, k);
        rc = settle(t, LANE_COMPUTE, true, x);
    }
    return rc;
}

int exec_drain(const struct program *p, struct run *x)
{
    for (i64 id = 0; id < p->n_tasks && x->lanes; id++) {
        const struct task *t = p->by_id[id];
        for (int k = 0; t->lane != LANE_COMPUTE && k < TASK_INS + TASK_OUTS; k++) {
            struct tensor *u = k < TASK_INS ? t->in[k] : t->out[k - TASK_INS];
            int rc = settle_slots(u, x);
            if (rc != 1)
                return rc < 0 ? rc : EXEC_BLOCKED;
        }
    }
    return OK;
}

int exec_resume(const struct program *p, struct exec_cursor *at, struct run *x)
{
    while (at->action < p->n_actions) {
        int rc = resume_action(p, at, x);
        if (rc != OK)
            return rc;
    }
    return exec_drain(p, x);
}

int exec_program(const struct program *p, struct run *x)
{
    struct exec_cursor at = { 0, 0 };
    return exec_resume(p, &at, x);
}
