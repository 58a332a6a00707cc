/* Copies to slower memory and back (see offload.h).
 *
 * A copy out stands right behind the last task that touches the tensor before the gap, its
 * release one layer (or bucket) later, when the memory may be used again; the copy back
 * stands one layer ahead of the first task that wants it. */
#include "parallel/offload.h"

#include "ops/ops.h"

#include <string.h>

/* Tasks to be inserted ahead of position `at` of the list, in this order. */
struct insertion {
    i64 at;
    struct task task;
    struct insertion *next;
};

struct offload {
    struct graph *g;
    i64 known; /* tensors before the pass */
    struct insertion *first, **end;
};

static void put(struct offload *o, i64 at, enum phase phase, int layer, struct task task)
{
    struct insertion *i = ARENA_NEW(o->g->arena, struct insertion);
    task.phase = phase;
    task.layer = layer;
    *i = (struct insertion){ .at = at, .task = task };
    *o->end = i;
    o->end = &i->next;
}

static void put_copy(struct offload *o, i64 at, enum phase phase, int layer, struct tensor *x,
                     struct tensor *y)
{
    put(o, at, phase, layer, (struct task){ .op = &op_copy, .lane = LANE_AWAY, .in = { x },
                                            .out = { y } });
}

static void put_release(struct offload *o, i64 at, enum phase phase, int layer, struct tensor *x)
{
    put(o, at, phase, layer, (struct task){ .op = &op_release, .in = { x } });
}

/* The list with everything in its place. */
static int insert_all(struct offload *o)
{
    struct graph *g = o->g;
    struct task **old = g->tasks;
    i64 n = g->n_tasks;
    int layer = g->layer;
    g->tasks = NULL;
    g->n_tasks = g->cap_tasks = 0;
    for (i64 at = 0; at <= n && g->rc >= 0; at++) {
        for (struct insertion *i = o->first; i; i = i->next) {
            g->layer = i->task.layer;
            if (i->at == at)
                graph_add(g, &i->task);
        }
        if (at < n)
            graph_insert(g, g->n_tasks, old[at]);
    }
    g->layer = layer;
    return g->rc;
}

static struct tensor *root_of(struct tensor *t)
{
    return t && t->owner ? t->owner : t;
}

/* --- the optimizer's state ---------------------------------------------------------- */

/* A tensor that is away, and the stretch of the update that touches it. */
struct visit {
    struct tensor *away, *here;
    i64 first, last;
};

static struct visit *visit_of(struct visit *visits, i64 *n, struct tensor *away)
{
    for (i64 i = 0; i < *n; i++)
        if (visits[i].away == away)
            return &visits[i];
    visits[*n] = (struct visit){ .away = away, .first = -1 };
    return &visits[(*n)++];
}

/* The same window of what was fetched. */
static struct tensor *window_here(struct graph *g, const struct visit *v, const struct tensor *t)
{
    if (t == v->away)
        return v->here;
    struct tensor *window = ARENA_NEW(g->arena, struct tensor);
    *window = *t;
    window->owner = v->here;
    window->role = v->here->role;
    window->data = NULL;
    window->index = -1;
    graph_adopt(g, window);
    return window;
}

static void visit(struct offload *o, struct visit *visits, i64 *n, i64 i, struct tensor **at)
{
    struct tensor *root = root_of(*at);
    if (!root || root->role != ROLE_AWAY)
        return;
    struct visit *v = visit_of(visits, n, root);
    if (v->first < 0) {
        v->first = i;
        v->here = graph_like(o->g, root, root->dtype, root->name);
    }
    v->last = i;
    if (v->here)
        *at = window_here(o->g, v, *at);
}

/* The first task of the update that belongs to the group before, so that its updates run while
 * this one is fetched; the first group is fetched while the gradient's norm is formed. */
static i64 fetch_position(const struct visit *visits, i64 k, i64 update)
{
    i64 before = update;
    for (i64 i = 0; i < k; i++)
        if (visits[i].last < visits[k].first && visits[i].first > before)
            before = visits[i].first;
    return before;
}

/* Behind the group that follows, when its copy out has had time. */
static i64 release_position(const struct visit *visits, i64 n, i64 k, i64 end)
{
    for (i64 i = k + 1; i < n; i++)
        if (visits[i].first > visits[k].last)
            return visits[i].last + 1;
    return end;
}

int offload_state(struct graph *g)
{
    TRY(g->rc);
    struct offload o = { .g = g, .known = g->n_tensors };
    i64 update = 0, n = 0;
    o.end = &o.first;
    while (update < g->n_tasks && g->tasks[update]->phase != PHASE_UPDATE)
        update++;
    struct visit *visits =
        ARENA_ARRAY(g->arena, struct visit, (g->n_tasks - update) * (TASK_INS + TASK_OUTS) + 1);
    for (i64 i = update; i < g->n_tasks; i++)
        for (int k = 0; k < TASK_INS + TASK_OUTS; k++)
            visit(&o, visits, &n, i,
                  k < TASK_INS ? &g->tasks[i]->in[k] : &g->tasks[i]->out[k - TASK_INS]);
    for (i64 k = 0; k < n; k++) {
        const struct visit *v = &visits[k];
        int layer = g->tasks[v->first]->layer;
        put_copy(&o, fetch_position(visits, k, update), PHASE_UPDATE, layer, v->away, v->here);
        put_copy(&o, v->last + 1, PHASE_UPDATE, layer, v->here, v->away);
        put_release(&o, release_position(visits, n, k, g->n_tasks), PHASE_UPDATE, layer, v->away);
    }
    return n ? insert_all(&o) : OK;
}

/* --- activations -------------------------------------------------------------------- */

/* Where a tensor is touched on both sides of the gap between forward and backward. */
struct gap {
    i64 last_forward;  /* position, -1: none */
    int forward_layer, backward_layer; /* the greatest */
    bool written_in_forward, kept;
};

static void see(struct gap *gaps, i64 known, const struct task *t, i64 i, bool forward,
                const struct tensor *x, bool writes)
{
    if (!x || x->index < 0 || x->index >= known)
        return;
    struct gap *p = &gaps[x->owner ? x->owner->index : x->index];
    if (x->owner || x->role != ROLE_ACTIVATION || t->layer < 0)
        p->kept = true; /* views, inputs, and what the head or the embedding uses */
    if (forward) {
        p->last_forward = i;
        p->written_in_forward = p->written_in_forward || writes;
        p->forward_layer = t->layer > p->forward_layer ? t->layer : p->forward_layer;
    } else {
        p->kept = p->kept || writes;
        p->backward_layer = t->layer > p->backward_layer ? t->layer : p->backward_layer;
    }
}

static struct gap *find_gaps(const struct offload *o, i64 forward_end)
{
    const struct graph *g = o->g;
    struct gap *gaps = ARENA_ARRAY(g->arena, struct gap, o->known);
    for (i64 i = 0; i < o->known; i++)
        gaps[i] = (struct gap){ -1, -1, -1, false, false };
    for (i64 i = 0; i < g->n_tasks; i++)
        for (int k = 0; k < TASK_INS + TASK_OUTS; k++)
            see(gaps, o->known, g->tasks[i], i, i < forward_end,
                k < TASK_INS ? g->tasks[i]->in[k] : g->tasks[i]->out[k - TASK_INS], k >= TASK_INS);
    return gaps;
}

/* The first task at or behind `from` with this layer, or -1. */
static i64 first_of_layer(const struct graph *g, i64 from, i64 to, int layer)
{
    for (i64 i = from; i < to; i++)
        if (g->tasks[i]->layer == layer)
            return i;
    return -1;
}

static void point_backward_to(const struct graph *g, i64 forward_end, const struct tensor *x,
                              struct tensor *back)
{
    for (i64 i = forward_end; i < g->n_tasks; i++)
        for (int k = 0; k < TASK_INS; k++)
            if (g->tasks[i]->in[k] == x)
                g->tasks[i]->in[k] = back;
}

static void offload_one(struct offload *o, struct tensor *x, const struct gap *p, i64 forward_end)
{
    struct graph *g = o->g;
    i64 free_at = first_of_layer(g, p->last_forward, forward_end, p->forward_layer + 2);
    i64 wanted = first_of_layer(g, forward_end, g->n_tasks, p->backward_layer + 1);
    if (free_at < 0 || wanted < 0)
        return; /* the last layers come back before they would be gone */
    struct tensor *away = graph_tensor(g, ROLE_AWAY, x->dtype, x->rank, x->dim, "away.%s", x->name);
    struct tensor *back =
        graph_tensor(g, ROLE_ACTIVATION, x->dtype, x->rank, x->dim, "back.%s", x->name);
    if (!away || !back)
        return;
    put_copy(o, p->last_forward + 1, PHASE_FORWARD, p->forward_layer, x, away);
    put_release(o, free_at, PHASE_FORWARD, p->forward_layer, away);
    put_copy(o, wanted, PHASE_INPUT_GRAD, p->backward_layer, away, back);
    point_backward_to(g, forward_end, x, back);
}

int offload_activations(struct graph *g, i64 least_bytes)
{
    TRY(g->rc);
    struct offload o = { .g = g, .known = g->n_tensors };
    i64 forward_end = 0;
    o.end = &o.first;
    while (forward_end < g->n_tasks && g->tasks[forward_end]->phase == PHASE_FORWARD)
        forward_end++;
    const struct gap *gaps = find_gaps(&o, forward_end);
    for (i64 i = 0; i < o.known && g->rc >= 0; i++) {
        const struct gap *p = &gaps[i];
        if (p->written_in_forward && !p->kept && p->backward_layer >= 0 &&
            tensor_bytes(g->tensors[i]) >= least_bytes)
            offload_one(&o, g->tensors[i], p, forward_end);
    }
    TRY(g->rc);
    return o.first ? insert_all(&o) : OK;
}
