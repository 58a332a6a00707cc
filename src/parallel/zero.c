#include "parallel/zero.h"

#include "ops/ops.h"
#include "parallel/insert.h"

static const struct tensor *root(const struct tensor *t)
{
    return t && t->owner ? t->owner : t;
}

/* Tasks [first, last] of the list that read a bucket's matrices, with no task between them that
 * reads another's. */
struct stretch {
    const struct bucket *bucket;
    i64 first, last;
    i64 begin; /* of what runs together with it */
};

/* In a pipeline each pass of each stage runs by itself. */
static bool run_together(const struct mesh *mesh, const struct task *a, const struct task *b)
{
    bool same_pass = (a->phase == PHASE_FORWARD) == (b->phase == PHASE_FORWARD);
    return mesh->layout.pp == 1 || (a->part == b->part && same_pass);
}

static const struct bucket *read_by(const struct model *m, const struct task *t)
{
    for (int k = 0; k < t->op->n_in; k++)
        for (i64 i = 0; t->in[k] && i < m->n_buckets; i++)
            if (m->buckets[i].gathered && root(t->in[k]) == m->buckets[i].gathered)
                return &m->buckets[i];
    return NULL;
}

static i64 find_stretches(const struct graph *g, const struct model *m, const struct mesh *mesh,
                          struct stretch *list)
{
    i64 n = 0, begin = 0;
    for (i64 i = 0; i < g->n_tasks; i++) {
        const struct bucket *b = read_by(m, g->tasks[i]);
        if (!run_together(mesh, g->tasks[begin], g->tasks[i]))
            begin = i;
        if (b && (n == 0 || list[n - 1].bucket != b || list[n - 1].begin != begin))
            list[n++] = (struct stretch){ b, i, i, begin };
        else if (b)
            list[n - 1].last = i;
    }
    return n;
}

/* Where the stretch before it begins, or whatever runs together with it. */
static i64 gather_position(const struct stretch *list, i64 i)
{
    bool follows = i > 0 && list[i - 1].begin == list[i].begin;
    return follows ? list[i - 1].first : list[i].begin;
}

/* The stretch reads a tensor of its own, so that the plan can free the bucket in between. Up to
 * here these views were weights, whose gradient is wanted; now they are activations. */
static void point_readers(struct graph *g, const struct stretch *s, struct tensor *whole)
{
    for (i64 i = s->first; i <= s->last; i++) {
        struct task *t = g->tasks[i];
        for (int k = 0; k < t->op->n_in; k++) {
            if (root(t->in[k]) != s->bucket->gathered)
                continue;
            struct tensor *copy = ARENA_NEW(g->arena, struct tensor);
            *copy = *t->in[k];
            copy->owner = whole;
            copy->index = -1;
            copy->data = NULL;
            graph_adopt(g, copy);
            t->in[k] = copy;
        }
    }
}

/* The weights of a stretch: those of the bucket where nobody else had them before. */
static struct tensor *weights_of(struct graph *g, const struct stretch *list, i64 index)
{
    const struct bucket *b = list[index].bucket;
    bool taken = false;
    for (i64 i = 0; i < index; i++)
        taken = taken || list[i].bucket == b;
    struct tensor *whole = taken ? graph_like(g, b->gathered, b->gathered->dtype, b->name)
                                 : b->gathered;
    if (whole)
        point_readers(g, &list[index], whole);
    return whole;
}

int zero_gather(struct graph *g, const struct model *m, const struct mesh *mesh)
{
    TRY(g->rc);
    if (!m->part.split_weights)
        return OK;
    struct stretch *list = ARENA_ARRAY(g->arena, struct stretch, g->n_tasks);
    i64 n = find_stretches(g, m, mesh, list);
    struct insertions s = insertions_begin(g, mesh, n);
    for (i64 i = 0; i < n && g->rc >= 0; i++) {
        const struct bucket *b = list[i].bucket;
        i64 at = gather_position(list, i);
        bool forward = g->tasks[at]->phase == PHASE_FORWARD;
        struct tensor *slice = b->compute ? graph_view(g, b->compute, 0, b->own_count)
                                          : graph_view(g, b->master, b->copied, b->own_count);
        struct tensor *whole = weights_of(g, list, i);
        insert_exchange(&s, at, g->tasks[at]->part, &op_all_gather, mesh_sharers(mesh, b),
                        forward ? PHASE_FORWARD : PHASE_INPUT_GRAD, slice, whole);
    }
    return insertions_end(&s);
}
