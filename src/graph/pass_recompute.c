/* Activation recompute as a rewrite (see program.h).
 *
 * An output of a block's forward task that only this block's backward reads may be
 * dropped: the planner then frees it after its last forward reader, because the backward
 * readers are pointed at the output of a clone that runs shortly before them. Kernels are
 * deterministic, so results stay the same to the last bit. */
#include "graph/program.h"

#include <string.h>

struct remake {
    struct graph *g;
    enum recompute policy;
    i64 forward_end;       /* tasks [0, forward_end) are forward */
    i64 known;             /* tensors that existed before the pass */
    i64 *producer;         /* by tensor index: forward task, or -1 */
    bool *kept;            /* by tensor index: read by another layer, so never dropped */
    struct tensor **clone; /* by tensor index: its remade copy */
};

static bool may_drop(const struct remake *s, const struct tensor *t)
{
    if (!t || t->role != ROLE_ACTIVATION || t->owner || t->index < 0 || t->index >= s->known)
        return false;
    i64 i = s->producer[t->index];
    if (i < 0 || s->kept[t->index])
        return false;
    const struct task *by = s->g->tasks[i];
    return by->layer >= 0 && (s->policy == RECOMPUTE_FULL || by->op->cheap);
}

static void survey(struct remake *s)
{
    struct graph *g = s->g;
    for (i64 i = 0; i < s->known; i++)
        s->producer[i] = -1;
    for (i64 i = 0; i < s->forward_end; i++) {
        const struct task *t = g->tasks[i];
        for (int k = 0; k < t->op->n_out; k++)
            if (t->out[k] && t->out[k]->index >= 0)
                s->producer[t->out[k]->index] = i;
        for (int k = 0; k < t->op->n_in; k++) {
            const struct tensor *in = t->in[k];
            const struct tensor *root = in && in->owner ? in->owner : in;
            if (!root || root->index < 0)
                continue;
            i64 by = s->producer[root->index];
            if (by >= 0 && g->tasks[by]->layer != t->layer)
                s->kept[root->index] = true;
        }
    }
}

/* Appends to list the forward tasks that must run again to remake t, producers first. */
static void collect(struct remake *s, const struct tensor *t, struct task **list, i64 *n)
{
    if (!may_drop(s, t) || s->clone[t->index])
        return;
    struct task *by = s->g->tasks[s->producer[t->index]];
    for (int k = 0; k < by->op->n_out; k++)
        if (by->out[k])
            s->clone[by->out[k]->index] =
                graph_tensor(s->g, ROLE_ACTIVATION, by->out[k]->dtype, by->out[k]->rank,
                             by->out[k]->dim, "again.%s", by->out[k]->name);
    for (int k = 0; k < by->op->n_in; k++)
        collect(s, by->in[k], list, n);
    list[(*n)++] = by;
}

static struct tensor *substitute(const struct remake *s, struct tensor *t)
{
    bool known = t && t->index >= 0 && t->index < s->known;
    return known && s->clone[t->index] ? s->clone[t->index] : t;
}

static struct task *clone_task(const struct remake *s, const struct task *t)
{
    struct task *c = ARENA_NEW(s->g->arena, struct task);
    *c = *t;
    c->phase = PHASE_INPUT_GRAD;
    c->recompute = true;
    c->cost.model_flops = 0;
    for (int k = 0; k < t->op->n_in; k++)
        c->in[k] = substitute(s, t->in[k]);
    for (int k = 0; k < t->op->n_out; k++)
        c->out[k] = substitute(s, t->out[k]);
    return c;
}

/* Remakes what backward task i reads and points it there; returns how many were added. */
static i64 remake_for(struct remake *s, i64 i, struct task **list)
{
    struct graph *g = s->g;
    struct task *t = g->tasks[i];
    i64 n = 0;
    for (int k = 0; k < t->op->n_in; k++)
        collect(s, t->in[k], list, &n);
    for (i64 j = 0; j < n; j++)
        graph_insert(g, i + j, clone_task(s, list[j]));
    for (int k = 0; k < t->op->n_in; k++)
        t->in[k] = substitute(s, t->in[k]);
    return n;
}

int pass_recompute(struct graph *g, enum recompute policy)
{
    TRY(g->rc);
    if (policy == RECOMPUTE_NONE)
        return OK;
    struct remake s = { .g = g, .policy = policy, .known = g->n_tensors };
    s.producer = ARENA_ARRAY(g->arena, i64, s.known);
    s.kept = ARENA_ARRAY(g->arena, bool, s.known);
    s.clone = ARENA_ARRAY(g->arena, struct tensor *, s.known);
    while (s.forward_end < g->n_tasks && g->tasks[s.forward_end]->phase == PHASE_FORWARD)
        s.forward_end++;
    survey(&s);
    struct task **list = ARENA_ARRAY(g->arena, struct task *, s.forward_end);
    for (i64 i = s.forward_end; i < g->n_tasks && g->rc >= 0; i++)
        if (!g->tasks[i]->recompute && g->tasks[i]->phase != PHASE_UPDATE)
            i += remake_for(&s, i, list);
    return g->rc;
}
