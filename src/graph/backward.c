/* Reverse-mode differentiation of a task list (see graph.h, "backward"). */
#include "graph/graph.h"

#include <stdio.h>
#include <string.h>

struct backward {
    i64 capacity;           /* tensors known when it began or since: arrays grow with g */
    bool *needed;           /* leads back to a weight with a gradient */
    struct tensor **part;   /* sum of the gradient's parts so far */
    struct tensor **target; /* whole gradient of a tensor that has views */
};

static void *grow_array(struct arena *arena, void *old, i64 size, i64 n, i64 more)
{
    void *p = arena_alloc(arena, size * more);
    if (n)
        memcpy(p, old, (size_t)(size * n));
    return p;
}

static struct backward *state(struct graph *g)
{
    struct backward *b = g->backward;
    if (g->n_tensors > b->capacity) {
        i64 more = 2 * g->n_tensors;
        b->needed = grow_array(g->arena, b->needed, sizeof *b->needed, b->capacity, more);
        b->part = grow_array(g->arena, b->part, sizeof *b->part, b->capacity, more);
        b->target = grow_array(g->arena, b->target, sizeof *b->target, b->capacity, more);
        b->capacity = more;
    }
    return b;
}

static const struct tensor *root(const struct tensor *t)
{
    return t->owner ? t->owner : t;
}

bool grad_needed(struct graph *g, const struct tensor *t)
{
    if (!t)
        return false;
    if (t->role == ROLE_PARAM || t->role == ROLE_COMPUTE)
        return t->grad != NULL;
    return t->index >= 0 && state(g)->needed[root(t)->index];
}

/* Marks every activation that depends on a weight with a gradient. */
static void mark_needed(struct graph *g, i64 first, i64 last)
{
    for (i64 i = first; i < last; i++) {
        const struct task *t = g->tasks[i];
        bool any = t->op->receives;
        for (int k = 0; k < t->op->n_in && t->op->grad; k++)
            any = any || grad_needed(g, t->in[k]);
        for (int k = 0; any && k < t->op->n_out; k++)
            if (t->out[k] && t->out[k]->index >= 0)
                state(g)->needed[root(t->out[k])->index] = true;
    }
}

struct tensor *grad_of(struct graph *g, struct tensor *t)
{
    if (g->rc < 0 || !t || t->index < 0)
        return NULL;
    struct tensor *whole = t->owner ? NULL : state(g)->target[t->index];
    state(g)->target[t->index] = NULL;
    grad_add(g, t, whole); /* its views wrote that, part by part */
    return state(g)->part[t->index];
}

static struct tensor *gradient_like(struct graph *g, struct tensor *t)
{
    char name[200];
    snprintf(name, sizeof name, "d.%.190s", t->name);
    return graph_like(g, t, t->wide_grad ? DTYPE_F32 : t->dtype, name);
}

struct tensor *grad_target(struct graph *g, struct tensor *t)
{
    if (g->rc < 0 || !t)
        return NULL;
    if (!t->owner)
        return gradient_like(g, t);
    i64 owner = t->owner->index;
    if (!state(g)->target[owner]) {
        struct tensor *whole = gradient_like(g, t->owner);
        state(g)->target[owner] = whole;
    }
    i64 row_bytes = tensor_bytes(t) / t->dim[0];
    return graph_view(g, state(g)->target[owner], t->owner_offset / row_bytes, t->dim[0]);
}

void grad_add(struct graph *g, struct tensor *t, struct tensor *dt)
{
    if (g->rc < 0 || !t || !dt || t->index < 0)
        return;
    struct tensor *before = state(g)->part[t->index];
    struct tensor *sum = before ? add(g, before, dt) : dt;
    state(g)->part[t->index] = sum;
}

struct tensor *grad_take(struct graph *g, struct tensor *t)
{
    if (g->rc < 0 || !t || t->index < 0)
        return NULL;
    struct tensor *part = state(g)->part[t->index];
    state(g)->part[t->index] = NULL;
    return part;
}

int graph_backward(struct graph *g, i64 first, i64 last)
{
    struct backward b = { 0 };
    enum phase phase = g->phase;
    int layer = g->layer;
    g->backward = &b;
    mark_needed(g, first, last);
    g->phase = PHASE_INPUT_GRAD;
    for (i64 i = last - 1; i >= first && g->rc >= 0; i--) {
        const struct task *t = g->tasks[i];
        if (!t->op->grad)
            continue;
        g->layer = t->layer;
        g->head = t->head;
        g->chunk = t->chunk;
        g->part = t->part;
        t->op->grad(g, t);
    }
    g->head = false;
    g->chunk = g->part = 0;
    g->layer = layer;
    g->phase = phase;
    g->backward = NULL;
    return g->rc;
}
