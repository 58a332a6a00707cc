#include "parallel/data_parallel.h"

#include "ops/ops.h"
#include "parallel/insert.h"

#include <stdlib.h>

static const struct tensor *root(const struct tensor *t)
{
    return t->owner ? t->owner : t;
}

static bool splits(const struct mesh *mesh)
{
    return mesh_degree(mesh, mesh_split_lane(mesh)) > 1 && mesh->layout.zero >= ZERO_OPTIMIZER;
}

static bool has_copies(const struct mesh *mesh)
{
    return splits(mesh) && mesh_degree(mesh, LANE_COPIES) > 1;
}

static void cut_attributes(struct task *t, enum lane lane, const struct mesh *mesh)
{
    t->lane = lane;
    t->attr[COLLECTIVE_SIZE] = (double)mesh_degree(mesh, lane);
    t->attr[COLLECTIVE_RANK] = (double)mesh_coordinate(mesh, lane);
    t->attr[COLLECTIVE_OUTER] = 1;
}

/* --- when a bucket is ready ----------------------------------------------------------------- */

/* A gradient that is complete before position `at`. */
struct ready {
    const struct bucket *bucket;
    const struct tensor *grad;
    i64 at, next; /* next: where the one behind it is, or the end of its stage's tasks */
    int part;
    bool head; /* the loss head wrote it last, whose gradients are never put off */
};

static void find_last_writer(const struct graph *g, struct ready *r)
{
    r->at = -1;
    for (i64 i = g->n_tasks - 1; i >= 0 && r->at < 0; i--)
        for (int k = 0; k < TASK_OUTS; k++)
            if (g->tasks[i]->out[k] && root(g->tasks[i]->out[k]) == r->grad) {
                r->at = i + 1;
                r->part = g->tasks[i]->part;
                r->head = g->tasks[i]->head;
            }
}

static int by_time(const void *a, const void *b)
{
    const struct ready *x = a, *y = b;
    return x->at < y->at ? -1 : x->at > y->at;
}

static void find_next(const struct graph *g, struct ready *list, i64 n)
{
    for (i64 i = 0; i < n; i++) {
        i64 end = i + 1 < n && list[i + 1].part == list[i].part ? list[i + 1].at : g->n_tasks;
        list[i].next = list[i].at;
        while (list[i].next < end && g->tasks[list[i].next]->part == list[i].part)
            list[i].next++;
    }
}

/* The embeddings, where another stage has a part in their gradient: summed in the update. */
static const struct bucket *shared_bucket(const struct model *m)
{
    return model_shares_table(m) ? model_param(m, P_WTE, -1)->bucket : NULL;
}

static i64 list_ready(const struct graph *g, const struct model *m, struct ready *list)
{
    i64 n = 0;
    for (i64 i = 0; i < m->n_buckets; i++) {
        const struct bucket *b = &m->buckets[i];
        const struct tensor *grads[] = { b->grad, b->vector_grad };
        for (i64 k = 0; k < COUNT_OF(grads) && b != shared_bucket(m); k++) {
            list[n] = (struct ready){ .bucket = b, .grad = grads[k] };
            if (grads[k])
                find_last_writer(g, &list[n]);
            n += grads[k] && list[n].at >= 0;
        }
    }
    qsort(list, (size_t)n, sizeof *list, by_time);
    find_next(g, list, n);
    return n;
}

/* --- reductions ------------------------------------------------------------------------------ */

static struct task *exchange(struct insertions *s, const struct ready *r, i64 at,
                             const struct op_info *op, enum lane lane, struct tensor *in,
                             struct tensor *out)
{
    struct task *t = insert_exchange(s, at, r->part, op, lane, PHASE_WEIGHT_GRAD, in, out);
    if (t)
        t->head = r->head;
    return t;
}

static void exchange_at_end(struct insertions *s, const struct ready *r, i64 at,
                            const struct op_info *op, enum lane lane, struct tensor *in,
                            struct tensor *out)
{
    struct task *t = exchange(s, r, at, op, lane, in, out);
    if (t)
        t->last_turn = true;
}

static void sum_in_place(struct insertions *s, const struct ready *r, i64 at, enum lane lane,
                         struct tensor *flat, i64 count)
{
    if (mesh_degree(s->mesh, lane) == 1 || count == 0)
        return;
    struct tensor *x = graph_view(s->g, flat, 0, count);
    exchange_at_end(s, r, at, &op_all_reduce, lane, x, x);
}

/* What is not cut saw only some of the rows of ranks along tp; exact: summed already. */
static i64 partial_over_tensor(const struct insertions *s, const struct bucket *b)
{
    return s->mesh->layout.exact ? 0 : b->cut;
}

static void reduce_whole(struct insertions *s, const struct ready *r)
{
    const struct bucket *b = r->bucket;
    struct graph *g = s->g;
    sum_in_place(s, r, r->at, LANE_TP, b->grad, partial_over_tensor(s, b));
    if (!splits(s->mesh)) {
        sum_in_place(s, r, r->at, LANE_DP, b->grad, b->count);
        return;
    }
    if (b->own_count > 0) {
        struct tensor *slice = graph_view(g, b->grad, b->own_begin, b->own_count);
        exchange_at_end(s, r, r->at, &op_reduce_scatter, mesh_split_lane(s->mesh),
                        graph_view(g, b->grad, b->copied, b->count - b->copied), slice);
        if (has_copies(s->mesh))
            sum_in_place(s, r, r->next, LANE_COPIES, slice, b->own_count);
    }
    sum_in_place(s, r, r->at, LANE_DP, b->grad, b->copied);
}

/* Elements of a flat tensor as one row of a matrix, which op_fold adds to what was there. */
static struct tensor *row_of(struct graph *g, struct tensor *flat, i64 n)
{
    struct tensor *t = graph_view(g, flat, 0, n);
    if (t) {
        t->rank = 2;
        t->dim[0] = 1;
        t->dim[1] = n;
    }
    return t;
}

static void keep_sum(struct insertions *s, const struct ready *r, struct tensor *row,
                     struct tensor *sum)
{
    struct task *t = insert_task(s, r->next, r->part,
                                 &(struct task){ .op = &op_fold, .phase = PHASE_WEIGHT_GRAD,
                                                 .in = { row }, .out = { sum },
                                                 .attr = { [FOLD_LEAVES] = 1 } });
    if (t)
        t->head = r->head;
}

/* What all ranks have alike: summed over micro-batches here, then over ranks. */
static void reduce_vectors(struct insertions *s, const struct ready *r)
{
    const struct bucket *b = r->bucket;
    struct tensor *sum = graph_view(s->g, b->own_grad, 0, b->copied);
    keep_sum(s, r, row_of(s->g, b->vector_grad, b->copied), sum);
    sum_in_place(s, r, r->next, LANE_TP, sum, partial_over_tensor(s, b));
    sum_in_place(s, r, r->next, LANE_DP, sum, b->copied);
}

static void reduce_slice(struct insertions *s, const struct ready *r)
{
    const struct bucket *b = r->bucket;
    i64 slice[] = { 1, b->own_count };
    struct tensor *sum = graph_view(s->g, b->own_grad, b->copied, b->own_count);
    struct tensor *now = graph_tensor(s->g, ROLE_ACTIVATION, DTYPE_F32, 2, slice, "%s.slice",
                                      b->name);
    exchange(s, r, r->at, &op_reduce_scatter, mesh_split_lane(s->mesh), b->grad, now);
    keep_sum(s, r, now, sum);
    if (has_copies(s->mesh))
        sum_in_place(s, r, r->next, LANE_COPIES, sum, b->own_count);
}

int data_parallel_reduce(struct graph *g, const struct model *m, const struct mesh *mesh)
{
    enum { MOST_TASKS = 4 }; /* of a bucket's gradient */
    struct ready *list = ARENA_ARRAY(g->arena, struct ready, 2 * m->n_buckets + 1);
    i64 n = list_ready(g, m, list);
    struct insertions s = insertions_begin(g, mesh, MOST_TASKS * n);
    for (i64 i = 0; i < n && g->rc >= 0; i++) {
        if (!list[i].bucket->split_grads)
            reduce_whole(&s, &list[i]);
        else if (list[i].grad == list[i].bucket->vector_grad)
            reduce_vectors(&s, &list[i]);
        else
            reduce_slice(&s, &list[i]);
    }
    return insertions_end(&s);
}

int data_parallel_reduce_shared(struct graph *g, const struct model *m, const struct mesh *mesh)
{
    const struct bucket *b = shared_bucket(m);
    if (!b || mesh_degree(mesh, LANE_DP) == 1)
        return g->rc;
    struct task proto = { .op = &op_all_reduce, .phase = PHASE_UPDATE, .in = { b->grad },
                          .out = { b->grad } };
    cut_attributes(&proto, LANE_DP, mesh);
    graph_add(g, &proto);
    return g->rc;
}

/* --- slices ---------------------------------------------------------------------------------- */

struct tensor *data_parallel_total(struct graph *g, struct tensor *total,
                                   const struct mesh *mesh)
{
    struct task proto = { .op = &op_all_reduce, .phase = PHASE_UPDATE, .in = { total } };
    if (!splits(mesh) || !total)
        return total;
    cut_attributes(&proto, mesh_split_lane(mesh), mesh);
    struct task *t = graph_add(g, &proto);
    return t ? t->out[0] : NULL;
}

int data_parallel_gather(struct graph *g, const struct bucket *b, const struct mesh *mesh)
{
    if (!splits(mesh) || b->split_weights || b->own_count == 0)
        return g->rc;
    struct tensor *weights = b->compute ? b->compute : b->master;
    i64 first = b->compute ? 0 : b->copied;
    struct task proto = {
        .op = &op_all_gather, .phase = PHASE_UPDATE,
        .in = { graph_view(g, weights, first + b->own_begin - b->copied, b->own_count) },
        .out = { graph_view(g, weights, first, b->count - b->copied) },
    };
    cut_attributes(&proto, mesh_split_lane(mesh), mesh);
    graph_add(g, &proto);
    return g->rc;
}

int data_parallel_share(const struct model *m, const struct mesh *mesh)
{
    for (i64 i = 0; i < m->n_buckets && splits(mesh); i++) {
        const struct bucket *b = &m->buckets[i];
        const struct tensor *weights = b->compute ? b->compute : b->master;
        i64 first = b->compute ? 0 : b->copied;
        if (b->own_count > 0 && !b->split_weights)
            TRY(mesh_join(mesh, (u8 *)weights->data + first * dtype_bytes(weights->dtype),
                          b->own_count, weights->dtype));
    }
    return OK;
}
