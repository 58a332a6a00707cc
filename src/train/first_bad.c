/* Which tensor was the first to hold a NaN or Inf (see session.h). */
#include "base/text.h"
#include "ops/ops.h"
#include "train/session.h"

#include <math.h>
#include <stdio.h>

struct search {
    const struct tensor *tensor;
    const struct task *task;
    i64 element;
    int micro_batch;
    const struct run *run;
};

static i64 first_not_finite(const struct tensor *t)
{
    if (t->dtype != DTYPE_F32 && t->dtype != DTYPE_BF16 && t->dtype != DTYPE_F64)
        return -1;
    i64 n = tensor_count(t);
    for (i64 i = 0; i < n; i++)
        if (!isfinite(tensor_get(t, i)))
            return i;
    return -1;
}

static void look(void *context, const struct task *t)
{
    struct search *s = context;
    for (int k = 0; k < t->op->n_out && !s->tensor; k++) {
        i64 at = t->out[k] ? first_not_finite(t->out[k]) : -1;
        if (at < 0)
            continue;
        s->tensor = t->out[k];
        s->task = t;
        s->element = at;
        s->micro_batch = s->run->micro_batch;
    }
}

/* The row of the micro-batch that the element belongs to; -1 when it is of all rows. */
static i64 row_of(const struct search *s, const struct step_shape *shape)
{
    const struct tensor *t = s->tensor;
    i64 columns = t->dim[0] == shape->B * shape->T ? tensor_count(t) / t->dim[0] : 0;
    return columns ? s->element / columns / shape->T : -1;
}

/* Which text it came from, so that somebody can look at it. */
static void tell_samples(const struct session *s, const struct search *found,
                         const struct step_shape *shape, struct text *out)
{
    i64 row = row_of(found, shape), first = found->micro_batch * shape->B;
    struct loader_origin o;
    if (row >= 0) {
        loader_origin(s->loader, first + row, &o);
        text_printf(out, ", sample %lld of the run: window %lld of %s", (long long)o.sample,
                    (long long)o.window, o.source);
        return;
    }
    loader_origin(s->loader, first, &o);
    text_printf(out, ", samples from %lld of the run on: window %lld of %s",
                (long long)o.sample, (long long)o.window, o.source);
}

static int start_nothing(void *context, const struct task *t, struct run *x, u64 *ticket)
{
    (void)context;
    (void)t;
    (void)x;
    *ticket = 1;
    return OK;
}

static int wait_for_nothing(void *context, enum lane lane, u64 ticket, bool block)
{
    (void)context;
    (void)lane;
    (void)ticket;
    (void)block;
    return 1;
}

static const struct lane_driver at_rest = { NULL, start_nothing, wait_for_nothing };

bool session_find_bad(struct session *s, const struct step_program *p, char *text, i64 size)
{
    struct search search = { 0 };
    struct text samples = { 0 };
    struct run x = engine_context(&s->engine, (u64)(s->state.step - 1));
    i64 element;
    const struct param *weight = model_first_not_finite(s->model, &element);
    if (weight) {
        snprintf(text, (size_t)size, "the weight %s is itself not finite", weight->desc.name);
        return false;
    }
    x.trace = NULL;
    x.lanes = &at_rest; /* each rank looks at what it computes itself */
    x.after_task = look;
    x.after_context = &search;
    search.run = &x;
    for (i64 a = 0; a < p->program->n_actions && !search.tensor; a++)
        if (p->program->actions[a].segment != SEGMENT_UPDATE)
            exec_action(p->program, a, &x); /* cannot fail with lanes at rest */
    if (!search.tensor) {
        snprintf(text, (size_t)size, "no tensor is bad when the step is run again: suspect the "
                 "hardware");
        return true;
    }
    tell_samples(s, &search, &p->shape, &samples);
    snprintf(text, (size_t)size, "%s of %s in layer %d is the first (element %lld, micro-batch "
             "%d%s)", search.tensor->name, search.task->op->name, search.task->layer,
             (long long)search.element, search.micro_batch, samples.data);
    text_fini(&samples);
    return true;
}
