/* The executor: walks actions and tasks in order, one span per task. */
#include "backend/backend.h"
#include "base/sys.h"
#include "ops/ops.h"

int backend_check(const struct backend *b, const struct program *p, int threads,
                  i64 *workspace_bytes)
{
    i64 most = 0;
    for (i64 id = 0; id < p->n_tasks; id++) {
        const struct task *t = p->by_id[id];
        const struct kernel *k = backend_kernel(b, t->op);
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

static void run_task(const struct task *t, struct run *x)
{
    const struct kernel *k = backend_kernel(x->backend, t->op);
    x->context = k->context;
    k->run(t, x);
    if (x->after_task)
        x->after_task(x->after_context, t);
}

void exec_action(const struct program *p, i64 action, struct run *x)
{
    const struct action *a = &p->actions[action];
    const struct segment *s = &p->segments[a->segment];
    struct span span = { .step = (u32)x->step, .action = (u16)action, .lane = TRACE_COMPUTE,
                         .kind = SPAN_TASK };
    x->micro_batch = a->micro_batch;
    span.end_ns = sys_now_ns();
    for (i64 i = 0; i < s->n_tasks; i++) {
        const struct task *t = &s->tasks[i];
        if (!wanted(t))
            continue;
        span.begin_ns = span.end_ns; /* tasks follow each other: one clock read each */
        run_task(t, x);
        span.end_ns = sys_now_ns();
        span.task = t->id;
        if (x->trace)
            trace_add(x->trace, &span);
    }
}

void exec_program(const struct program *p, struct run *x)
{
    for (i64 a = 0; a < p->n_actions; a++)
        exec_action(p, a, x);
}
