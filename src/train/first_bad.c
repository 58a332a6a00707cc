/* Which tensor was the first to hold a NaN or Inf (see session.h). */
#include "base/text.h"
#include "ops/ops.h"
#include "train/session.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

struct search {
    const struct tensor *tensor;
    const struct task *task;
    i64 element, action, order; /* order: of the op among those of its action */
    int micro_batch;
    i64 at; /* the task at hand, as order */
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
    s->at++;
    for (int k = 0; k < t->op->n_out && !s->tensor; k++) {
        i64 at = t->out[k] ? first_not_finite(t->out[k]) : -1;
        if (at < 0)
            continue;
        s->tensor = t->out[k];
        s->task = t;
        s->element = at;
        s->order = s->at;
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

/* Ranks need each other's sums, so where there are several all of them run to the end. */
static int run_again(struct session *s, const struct step_program *p, struct search *found)
{
    struct run x = engine_context(&s->engine, (u64)(s->state.step - 1));
    x.trace = NULL;
    x.after_task = look;
    x.after_context = found;
    found->run = &x;
    for (i64 a = 0; a < p->program->n_actions; a++) {
        if (program_updates(p->program, a) || (found->tensor && !s->mesh.world))
            continue;
        bool before = found->tensor != NULL;
        found->at = 0;
        TRY(exec_action(p->program, a, &x));
        found->action = before ? found->action : a;
    }
    return exec_drain(p->program, &x);
}

/* Of the weight that a task reads; NULL: it reads none. */
static const char *weight_name(const struct model *m, const struct task *t)
{
    for (int k = 0; k < t->op->n_in; k++)
        for (i64 i = 0; t->in[k] && i < m->n_params; i++)
            if (t->in[k] == m->params[i].master || t->in[k] == m->params[i].compute)
                return m->params[i].desc.name;
    return NULL;
}

/* "TENSOR of OP (WEIGHT) in layer N of rank R"; the tensor that an op gives is often named after
 * it, and there is an embedding and a head outside the layers. */
static void tell_place(const struct session *s, const struct search *found, struct text *out)
{
    const char *op = found->task->op->name, *weight = weight_name(s->model, found->task);
    if (strcmp(found->tensor->name, op) != 0)
        text_printf(out, "%s of ", found->tensor->name);
    text_add(out, op);
    if (weight)
        text_printf(out, " (%s)", weight);
    if (found->task->layer >= 0)
        text_printf(out, " in layer %d", found->task->layer);
    else
        text_add(out, " outside the layers");
    if (s->mesh.world)
        text_printf(out, " of rank %lld", (long long)s->mesh.rank);
}

static void describe(const struct session *s, const struct search *found,
                     const struct step_program *p, char *text, i64 size)
{
    struct text samples = { 0 }, place = { 0 };
    tell_place(s, found, &place);
    tell_samples(s, found, &p->shape, &samples);
    snprintf(text, (size_t)size, "%s is the first (element %lld, micro-batch %d%s)", place.data,
             (long long)found->element, found->micro_batch, samples.data);
    text_fini(&samples);
    text_fini(&place);
}

/* The lowest rank whose key is the smallest tells its text to all; -1: nobody has one. */
static int first_of_ranks(const struct session *s, bool has, double key, i64 *rank)
{
    double least = has ? -key : -INFINITY, who;
    TRY(mesh_max(&s->mesh, &least, 1));
    who = has && -key == least ? -(double)s->mesh.rank : -INFINITY;
    TRY(mesh_max(&s->mesh, &who, 1));
    *rank = isinf(who) ? -1 : (i64)-who;
    return OK;
}

/* A weight that is itself not finite. */
static int find_weight(struct session *s, char *text, i64 size, bool *found)
{
    i64 element, rank;
    const struct param *weight = model_first_not_finite(s->model, &element);
    TRY(first_of_ranks(s, weight != NULL, 0, &rank));
    *found = rank >= 0;
    if (weight)
        snprintf(text, (size_t)size, "the weight %s is itself not finite", weight->desc.name);
    return *found ? mesh_tell_from(&s->mesh, (int)rank, text, size) : OK;
}

int session_find_bad(struct session *s, const struct step_program *p, char *text, i64 size,
                     bool *hopeless)
{
    enum { ACTION = 1 << 24 }; /* tasks of an action are fewer */
    struct search found = { 0 };
    i64 rank;
    TRY(find_weight(s, text, size, hopeless));
    if (*hopeless)
        return OK;
    TRY(run_again(s, p, &found));
    double key = (double)found.action * ACTION + (double)found.order;
    TRY(first_of_ranks(s, found.tensor != NULL, key, &rank));
    if (rank < 0) {
        snprintf(text, (size_t)size, "no tensor is bad when the step is run again: suspect the "
                 "hardware");
        return OK;
    }
    if (found.tensor)
        describe(s, &found, p, text, size);
    return mesh_tell_from(&s->mesh, (int)rank, text, size);
}
