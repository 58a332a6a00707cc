#include "parallel/zero.h"

#include "ops/ops.h"

#include <stdlib.h>

/* --- insertions -------------------------------------------------------------------------- */

/* Tasks to be put before position `at`, in the order of the list. */
struct insertion {
    i64 at, order;
    struct task *task;
};

struct insertions {
    struct graph *g;
    const struct mesh *mesh;
    struct insertion *list;
    i64 n;
};

/* Makes a task that stands nowhere yet. */
static struct task *make(struct insertions *s, i64 at, const struct task *proto)
{
    struct task *t = graph_add(s->g, proto);
    if (t) {
        s->g->n_tasks--;
        s->list[s->n] = (struct insertion){ at, s->n, t };
        s->n++;
    }
    return t;
}

static struct task *exchange(struct insertions *s, i64 at, const struct op_info *op,
                             enum lane lane, enum phase phase, struct tensor *in,
                             struct tensor *out)
{
    return make(s, at, &(struct task){
        .op = op, .lane = lane, .phase = phase, .in = { in }, .out = { out },
        .attr = { [COLLECTIVE_SIZE] = (double)mesh_degree(s->mesh, lane),
                  [COLLECTIVE_RANK] = (double)mesh_coordinate(s->mesh, lane),
                  [COLLECTIVE_OUTER] = 1 } });
}

static int by_place(const void *a, const void *b)
{
    const struct insertion *x = a, *y = b;
    if (x->at != y->at)
        return x->at < y->at ? -1 : 1;
    return x->order < y->order ? -1 : 1;
}

/* From the last to the first, so that positions stay what they were. */
static void insert_all(struct insertions *s)
{
    if (s->n > 0)
        qsort(s->list, (size_t)s->n, sizeof *s->list, by_place);
    for (i64 i = s->n - 1; i >= 0; i--)
        graph_insert(s->g, s->list[i].at, s->list[i].task);
}

static const struct tensor *root(const struct tensor *t)
{
    return t && t->owner ? t->owner : t;
}

/* --- gradients ------------------------------------------------------------------------------ */

/* A bucket whose gradient is complete before position `at`. */
struct ready {
    i64 at;
    const struct bucket *bucket;
};

static int by_time(const void *a, const void *b)
{
    const struct ready *x = a, *y = b;
    return x->at < y->at ? -1 : x->at > y->at;
}

static i64 behind_last_writer(const struct graph *g, const struct tensor *owner)
{
    for (i64 i = g->n_tasks - 1; i >= 0; i--)
        for (int k = 0; k < TASK_OUTS; k++)
            if (root(g->tasks[i]->out[k]) == owner)
                return i + 1;
    return -1;
}

/* Elements of a flat tensor as one row of a matrix, which op_fold adds to what was there. */
static struct tensor *row_of(struct graph *g, struct tensor *flat, i64 first, i64 n)
{
    struct tensor *t = graph_view(g, flat, first, n);
    if (t) {
        t->rank = 2;
        t->dim[0] = 1;
        t->dim[1] = n;
    }
    return t;
}

static void keep_sum(struct insertions *s, i64 at, struct tensor *row, struct tensor *sum)
{
    make(s, at, &(struct task){ .op = &op_fold, .phase = PHASE_WEIGHT_GRAD, .in = { row },
                                .out = { sum }, .attr = { [FOLD_LEAVES] = 1 } });
}

/* What all ranks have alike: summed over micro-batches here, then over ranks. */
static void reduce_vectors(struct insertions *s, const struct bucket *b, i64 at, i64 end)
{
    enum lane lanes[] = { LANE_TP, LANE_DP };
    i64 counts[] = { s->mesh->layout.exact ? 0 : b->cut, b->copied }; /* exact: summed already */
    if (b->copied == 0)
        return;
    keep_sum(s, at, row_of(s->g, b->grad, 0, b->copied), graph_view(s->g, b->own_grad, 0, b->copied));
    for (i64 i = 0; i < COUNT_OF(lanes); i++) {
        if (mesh_degree(s->mesh, lanes[i]) == 1 || counts[i] == 0)
            continue;
        struct tensor *x = graph_view(s->g, b->own_grad, 0, counts[i]);
        struct task *t = exchange(s, end, &op_all_reduce, lanes[i], PHASE_WEIGHT_GRAD, x, x);
        if (t)
            t->last_turn = true;
    }
}

/* next: where the bucket behind it is complete. */
static void reduce_bucket(struct insertions *s, const struct bucket *b, i64 at, i64 next)
{
    struct graph *g = s->g;
    i64 slice[] = { 1, b->own_count };
    reduce_vectors(s, b, at, next);
    if (b->own_count == 0)
        return;
    struct tensor *sum = graph_tensor(g, ROLE_ACTIVATION, DTYPE_F32, 2, slice, "%s.slice", b->name);
    exchange(s, at, &op_reduce_scatter, LANE_DP, PHASE_WEIGHT_GRAD,
             graph_view(g, b->grad, b->copied, b->count - b->copied), sum);
    keep_sum(s, next, sum, graph_view(g, b->own_grad, b->copied, b->own_count));
}

int zero_reduce(struct graph *g, const struct model *m, const struct mesh *mesh)
{
    enum { MOST_TASKS = 5 }; /* of a bucket */
    struct insertions s = { .g = g, .mesh = mesh,
                            .list = ARENA_ARRAY(g->arena, struct insertion,
                                                MOST_TASKS * m->n_buckets) };
    struct ready *ready = ARENA_ARRAY(g->arena, struct ready, m->n_buckets);
    i64 n = 0;
    for (i64 i = 0; i < m->n_buckets; i++) {
        i64 at = m->buckets[i].grad ? behind_last_writer(g, m->buckets[i].grad) : -1;
        if (at >= 0)
            ready[n++] = (struct ready){ at, &m->buckets[i] };
    }
    qsort(ready, (size_t)n, sizeof *ready, by_time);
    for (i64 i = 0; i < n && g->rc >= 0; i++)
        reduce_bucket(&s, ready[i].bucket, ready[i].at, i + 1 < n ? ready[i + 1].at : g->n_tasks);
    insert_all(&s);
    return g->rc;
}

/* --- weights --------------------------------------------------------------------------------- */

/* Tasks [first, last] of the list that read a bucket's matrices, with no task between them that
 * reads another's. */
struct stretch {
    const struct bucket *bucket;
    i64 first, last;
};

static const struct bucket *read_by(const struct model *m, const struct task *t)
{
    for (int k = 0; k < t->op->n_in; k++)
        for (i64 i = 0; t->in[k] && i < m->n_buckets; i++)
            if (m->buckets[i].gathered && root(t->in[k]) == m->buckets[i].gathered)
                return &m->buckets[i];
    return NULL;
}

static i64 find_stretches(const struct graph *g, const struct model *m, struct stretch *list)
{
    i64 n = 0;
    for (i64 i = 0; i < g->n_tasks; i++) {
        const struct bucket *b = read_by(m, g->tasks[i]);
        if (b && (n == 0 || list[n - 1].bucket != b))
            list[n++] = (struct stretch){ b, i, i };
        else if (b)
            list[n - 1].last = i;
    }
    return n;
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
    i64 n = find_stretches(g, m, list);
    struct insertions s = { .g = g, .mesh = mesh,
                            .list = ARENA_ARRAY(g->arena, struct insertion, n + 1) };
    for (i64 i = 0; i < n && g->rc >= 0; i++) {
        const struct bucket *b = list[i].bucket;
        i64 at = list[i64_max(0, i - 1)].first;
        struct tensor *slice = b->compute ? graph_view(g, b->compute, 0, b->own_count)
                                          : graph_view(g, b->master, b->copied, b->own_count);
        struct tensor *whole = weights_of(g, list, i);
        exchange(&s, at, &op_all_gather, LANE_DP, g->tasks[at]->phase, slice, whole);
    }
    insert_all(&s);
    return g->rc;
}
