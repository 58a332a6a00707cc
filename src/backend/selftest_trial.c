#include "backend/selftest_trial.h"

#include <stdarg.h>
#include <stdio.h>

int trial_fail(const struct trial *t, const char *fmt, ...)
{
    char text[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return err_set(ERR_NUMERIC, "self-test of %s, %s backend, example %d in %s: %s",
                   t->op->name, t->test->backend->name, t->n, dtype_name(t->example.dtype),
                   text);
}

int trial_init(struct trial *t, struct selftest *s, const struct op_info *op, int n,
               enum dtype dtype)
{
    *t = (struct trial){ .test = s, .op = op, .n = n };
    arena_init(&t->arena);
    graph_init(&t->graph, &t->arena);
    t->example = (struct op_example){ .g = &t->graph, .dtype = dtype,
                                      .seed = 1000 * (u64)(n + 1) };
    if (!op->example(&t->example, n)) {
        arena_fini(&t->arena);
        return 1;
    }
    if (t->graph.rc < 0) {
        arena_fini(&t->arena);
        return t->graph.rc;
    }
    assert(t->graph.n_tasks > 0);
    t->task = t->graph.tasks[t->graph.n_tasks - 1];
    return OK;
}

void trial_fini(struct trial *t)
{
    arena_fini(&t->arena);
}

void trial_allocate(struct trial *t)
{
    for (i64 i = 0; i < t->graph.n_tensors; i++) {
        struct tensor *x = t->graph.tensors[i];
        if (!x->data && !x->owner)
            x->data = arena_alloc(&t->arena, tensor_bytes(x));
    }
    for (i64 i = 0; i < t->graph.n_tensors; i++) {
        struct tensor *x = t->graph.tensors[i];
        if (x->owner)
            x->data = (char *)x->owner->data + x->owner_offset;
    }
}

void trial_run(struct trial *t, i64 first, i64 last, bool by_kernel)
{
    const struct backend *b = t->test->backend;
    struct run x = { .backend = b, .pool = t->test->pools[0] };
    for (i64 i = first; i < last; i++) {
        struct task *task = t->graph.tasks[i];
        i64 row = op_index(task->op);
        struct kernel k = { .run = task->op->run_ref, .workspace = task->op->ref_workspace };
        if (by_kernel && row >= 0)
            k = b->kernels[row];
        x.context = k.context;
        x.workspace_bytes = k.workspace ? k.workspace(task, 1, k.context) : 0;
        x.workspace = arena_alloc(&t->arena, i64_max(64, x.workspace_bytes));
        k.run(task, &x);
    }
}

bool trial_note(struct trial *t, double error, double bound)
{
    double share = error == 0 ? 0 : error / bound;
    t->test->checks++;
    if (!(share <= 1))
        return false;
    if (share >= t->test->worst) {
        t->test->worst = share;
        t->test->worst_op = t->op->name;
        t->test->worst_example = t->n;
        t->test->worst_dtype = t->example.dtype;
    }
    return true;
}
