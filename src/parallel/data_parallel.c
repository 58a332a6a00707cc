#include "parallel/data_parallel.h"

#include "ops/ops.h"
#include "parallel/insert.h"

#include <stdlib.h>

static const struct tensor *root(const struct tensor *t)
{
    return t->owner ? t->owner : t;
}

/* Whether ranks along the axis split state. */
static bool splits(const struct mesh *mesh, enum lane sharers)
{
    return mesh_degree(mesh, sharers) > 1 && mesh->layout.zero >= ZERO_OPTIMIZER;
}

/* Sums over those who split come before those over micro-batches. */
static bool takes_turns(const struct mesh *mesh)
{
    return layout_turn_takers(&mesh->layout) > 1;
}

static bool has_copies(const struct mesh *mesh)
{
    return splits(mesh, mesh_split_lane(mesh)) && mesh_degree(mesh, LANE_COPIES) > 1;
}

static void cut_attributes(struct task *t, enum lane lane, const struct mesh *mesh)
{
    t->lane = lane;
    t->attr[COLLECTIVE_SIZE] = (double)mesh_degree(mesh, lane);
    t->attr[COLLECTIVE_RANK] = (double)mesh_coordinate(mesh, lane);
    t->attr[COLLECTIVE_OUTER] = 1;
}

/* --- when a bucket is ready --------------------------------------------------------- */

/* A gradient that is complete before position `at`. */
struct ready {
    const struct bucket *bucket;
    struct tensor *grad; /* the bucket's, or one parameter's */
    i64 at, next; /* next: where the one behind it is, or the end of its stage's tasks */
    int part;
    bool head; /* the loss head wrote it last, whose gradients are never put off */
    bool whole_numbers; /* how many tokens experts got */
};

/* Whether they have bytes in common, as views of one tensor. */
static bool overlap(const struct tensor *a, const struct tensor *b)
{
    i64 from_a = a->owner ? a->owner_offset : 0, from_b = b->owner ? b->owner_offset : 0;
    return root(a) == root(b) && from_a < from_b + tensor_bytes(b) &&
           from_b < from_a + tensor_bytes(a);
}

static void find_last_writer(const struct graph *g, struct ready *r)
{
    r->at = -1;
    for (i64 i = g->n_tasks - 1; i >= 0 && r->at < 0; i--)
        for (int k = 0; k < TASK_OUTS; k++)
            if (g->tasks[i]->out[k] && overlap(g->tasks[i]->out[k], r->grad)) {
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

/* All behind the last task of their stage. */
static void put_off(const struct graph *g, struct ready *list, i64 n)
{
    for (i64 i = 0; i < n; i++)
        for (i64 t = list[i].at; t < g->n_tasks; t++)
            if (g->tasks[t]->part == list[i].part)
                list[i].at = t + 1;
}

static void add_ready(const struct graph *g, const struct bucket *b, struct tensor *grad,
                      struct ready *list, i64 *n)
{
    list[*n] = (struct ready){ .bucket = b, .grad = grad };
    if (grad)
        find_last_writer(g, &list[*n]);
    *n += grad && list[*n].at >= 0;
}

/* Counts of tokens come with the forward pass; they are ready with what the router learns. */
static void add_param(const struct graph *g, const struct model *m, const struct param *p,
                      struct ready *list, i64 *n)
{
    bool counts = p->desc.kind == PARAM_BALANCE;
    i64 before = *n;
    add_ready(g, p->bucket, counts ? model_param(m, P_ROUTER, p->desc.layer)->grad : p->grad, list,
              n);
    if (counts && *n > before) {
        list[before].grad = p->grad;
        list[before].whole_numbers = true;
    }
}

/* In a bucket that is whole, parameters are ready one by one where each micro-batch's are summed:
 * its head may be done before its embedding is begun. */
static i64 list_ready(const struct graph *g, const struct model *m, const struct mesh *mesh,
                      struct ready *list)
{
    i64 n = 0;
    for (i64 i = 0; i < m->n_buckets; i++) {
        const struct bucket *b = &m->buckets[i];
        if (!b->split_grads && takes_turns(mesh)) {
            for (i64 k = 0; k < m->n_params; k++)
                if (m->params[k].bucket == b)
                    add_param(g, m, &m->params[k], list, &n);
        } else if (b != shared_bucket(m)) {
            add_ready(g, b, b->grad, list, &n);
            add_ready(g, b, b->vector_grad, list, &n);
        }
    }
    qsort(list, (size_t)n, sizeof *list, by_time);
    if (mesh->layout.sums == SUMS_END)
        put_off(g, list, n);
    find_next(g, list, n);
    return n;
}

/* --- reductions --------------------------------------------------------------------- */

struct reduction {
    struct insertions into;
    int micro_batches;
};

static struct task *exchange(struct reduction *s, const struct ready *r, i64 at,
                             const struct op_info *op, enum lane lane, struct tensor *in,
                             struct tensor *out)
{
    struct task *t =
        insert_exchange(&s->into, at, r->part, op, lane, PHASE_WEIGHT_GRAD, in, out);
    if (t)
        t->head = r->head;
    return t;
}

/* Into the fewest equal messages that are no larger than asked for. */
static void cut_messages(struct task *t, const struct mesh *mesh)
{
    i64 count = tensor_count(t->in[0]), bytes = tensor_bytes(t->in[0]);
    i64 n = mesh->layout.bucket > 0 ? ceil_div(bytes, mesh->layout.bucket) : 1;
    while (n > 1 && n < count && count % n)
        n++;
    t->attr[COLLECTIVE_OUTER] = (double)i64_max(1, i64_min(n, count));
    t->op->cost(t, &t->cost); /* parts are of a message */
}

static void exchange_at_end(struct reduction *s, const struct ready *r, i64 at,
                            const struct op_info *op, enum lane lane, struct tensor *in,
                            struct tensor *out)
{
    struct task *t = exchange(s, r, at, op, lane, in, out);
    if (!t)
        return;
    t->last_turn = true;
    if (op == &op_all_reduce && (lane == LANE_DP || lane == LANE_EDP))
        cut_messages(t, s->into.mesh);
}

/* In every micro-batch, or in the last one. */
static void sum_in_place(struct reduction *s, const struct ready *r, i64 at, enum lane lane,
                         struct tensor *x, bool every)
{
    if (mesh_degree(s->into.mesh, lane) == 1 || !x || tensor_count(x) == 0)
        return;
    if (every)
        exchange(s, r, at, &op_all_reduce, lane, x, x);
    else
        exchange_at_end(s, r, at, &op_all_reduce, lane, x, x);
}

/* The parameters that are not cut: ranks along tp saw only some of the rows, but for a router, and
 * except in exact mode, which has summed them already. */
static struct tensor *partial_over_tensor(struct reduction *s, const struct bucket *b,
                                          struct tensor *flat)
{
    return s->into.mesh->layout.exact ? NULL : graph_view(s->into.g, flat, 0, b->alike);
}

/* The same of matrices among the bucket's elements `own`, which lie in flat from `at` on. */
static struct tensor *partial_matrices(struct reduction *s, const struct bucket *b,
                                       struct tensor *flat, struct shard_range own, i64 at)
{
    i64 first = i64_max(b->whole, own.begin);
    i64 end = i64_min(b->whole + b->whole_count, own.begin + own.count);
    if (s->into.mesh->layout.exact || first >= end)
        return NULL;
    return graph_view(s->into.g, flat, at + first - own.begin, end - first);
}

static void reduce_whole(struct reduction *s, const struct ready *r)
{
    const struct bucket *b = r->bucket;
    const struct mesh *mesh = s->into.mesh;
    struct graph *g = s->into.g;
    const enum lane sharers = mesh_sharers(mesh, b);
    const struct shard_range all = { 0, b->count };
    sum_in_place(s, r, r->at, LANE_TP, partial_over_tensor(s, b, b->grad), false);
    sum_in_place(s, r, r->at, LANE_TP, partial_matrices(s, b, b->grad, all, 0), false);
    if (!splits(mesh, sharers)) {
        sum_in_place(s, r, r->at, sharers == LANE_EDP ? sharers : LANE_DP, b->grad, false);
        if (sharers == LANE_EDP) /* a group has each expert once */
            sum_in_place(s, r, r->next, LANE_COPIES, b->grad, false);
        return;
    }
    if (b->own_count > 0) {
        struct tensor *slice = graph_view(g, b->grad, b->own_begin, b->own_count);
        exchange_at_end(s, r, r->at, &op_reduce_scatter, sharers,
                        graph_view(g, b->grad, b->copied, b->count - b->copied), slice);
        sum_in_place(s, r, r->next, LANE_COPIES, has_copies(mesh) ? slice : NULL, false);
    }
    sum_in_place(s, r, r->at, LANE_DP, graph_view(g, b->grad, 0, b->copied), false);
}

static void keep(struct reduction *s, const struct ready *r, const struct task *proto)
{
    struct task *t = insert_task(&s->into, r->next, r->part, proto);
    if (t)
        t->head = r->head;
}

/* As one row of a matrix, which op_fold adds to what was there. */
static struct tensor *row_of(struct graph *g, struct tensor *x)
{
    i64 n = tensor_count(x);
    struct tensor *t = x->rank == 2 ? x : graph_view(g, x, 0, n);
    if (t) {
        t->rank = 2;
        t->dim[0] = 1;
        t->dim[1] = n;
    }
    return t;
}

/* Micro-batches one after the other; where ranks take turns they are counted in. x: flat, of
 * this one, and what sum becomes; sum itself where it was summed in place. */
static void keep_sum(struct reduction *s, const struct ready *r, struct tensor *x,
                     struct tensor *sum)
{
    struct graph *g = s->into.g;
    bool turns = takes_turns(s->into.mesh);
    if (g->rc < 0)
        return;
    if (x != sum)
        keep(s, r, &(struct task){ .op = &op_fold, .phase = PHASE_WEIGHT_GRAD, .fresh = turns,
                                   .in = { row_of(g, x) }, .out = { sum },
                                   .attr = { [FOLD_LEAVES] = 1 } });
    if (!turns || s->micro_batches == 1)
        return;
    i64 total = s->micro_batches, dim[] = { carry_levels(total), tensor_count(sum) };
    struct tensor *levels = graph_tensor(g, ROLE_RESULT, DTYPE_F32, 2, dim, "carry_levels");
    keep(s, r, &(struct task){ .op = &op_carry, .phase = PHASE_WEIGHT_GRAD,
                               .out = { sum, levels },
                               .attr = { [CARRY_COUNT] = 1, [CARRY_TOTAL] = (double)total } });
}

/* A parameter that is kept whole where ranks take turns. Whole numbers need not: they have added up
 * over micro-batches. */
static void reduce_param(struct reduction *s, const struct ready *r)
{
    const struct mesh *mesh = s->into.mesh;
    enum lane turns = mesh_turn_lane(mesh, r->bucket);
    if (r->whole_numbers && mesh_joins_rows(mesh))
        turns = LANE_EP;
    sum_in_place(s, r, r->at, turns, r->grad, !r->whole_numbers);
    if (!r->whole_numbers)
        keep_sum(s, r, r->grad, r->grad);
    sum_in_place(s, r, r->next, mesh_copies_lane(mesh), r->grad, false);
    if (mesh_copies_lane(mesh) == LANE_EDP) /* within groups, then across */
        sum_in_place(s, r, r->next, LANE_COPIES, r->grad, false);
}

/* What all ranks have alike: summed over micro-batches here, then over ranks, or after some of
 * them. */
static void reduce_vectors(struct reduction *s, const struct ready *r)
{
    const struct bucket *b = r->bucket;
    struct tensor *sum = graph_view(s->into.g, b->own_grad, 0, b->copied);
    bool turns = takes_turns(s->into.mesh);
    if (turns)
        sum_in_place(s, r, r->at, mesh_turn_lane(s->into.mesh, b), b->vector_grad, true);
    keep_sum(s, r, b->vector_grad, sum);
    sum_in_place(s, r, r->next, LANE_TP, partial_over_tensor(s, b, sum), false);
    sum_in_place(s, r, r->next, turns ? LANE_COPIES : LANE_DP, sum, false);
}

static void reduce_slice(struct reduction *s, const struct ready *r)
{
    const struct bucket *b = r->bucket;
    struct graph *g = s->into.g;
    struct tensor *sum = graph_view(g, b->own_grad, b->copied, b->own_count);
    i64 row[] = { 1, b->own_count };
    struct tensor *now = graph_tensor(g, ROLE_ACTIVATION, DTYPE_F32, 2, row, "%s.slice", b->name);
    exchange(s, r, r->at, &op_reduce_scatter, mesh_sharers(s->into.mesh, b), b->grad, now);
    keep_sum(s, r, now, sum);
    const struct shard_range own = { b->own_begin, b->own_count };
    sum_in_place(s, r, r->next, LANE_TP, partial_matrices(s, b, b->own_grad, own, b->copied),
                 false);
    sum_in_place(s, r, r->next, LANE_COPIES, sum, false);
}

int data_parallel_reduce(struct graph *g, const struct model *m, const struct mesh *mesh,
                         int micro_batches)
{
    enum { MOST_TASKS = 7 }; /* of a gradient */
    struct ready *list =
        ARENA_ARRAY(g->arena, struct ready, 2 * m->n_buckets + m->n_params + 1);
    i64 n = list_ready(g, m, mesh, list);
    struct reduction s = { insertions_begin(g, mesh, MOST_TASKS * n), micro_batches };
    for (i64 i = 0; i < n && g->rc >= 0; i++) {
        const struct bucket *b = list[i].bucket;
        if (!b->split_grads && takes_turns(mesh))
            reduce_param(&s, &list[i]);
        else if (!b->split_grads)
            reduce_whole(&s, &list[i]);
        else if (list[i].grad == b->vector_grad)
            reduce_vectors(&s, &list[i]);
        else
            reduce_slice(&s, &list[i]);
    }
    return insertions_end(&s.into);
}

int data_parallel_reduce_shared(struct graph *g, const struct model *m, const struct mesh *mesh)
{
    const struct bucket *b = shared_bucket(m);
    if (!b || mesh_degree(mesh, LANE_DP) == 1 || takes_turns(mesh))
        return g->rc;
    struct task proto = { .op = &op_all_reduce, .phase = PHASE_UPDATE, .in = { b->grad },
                          .out = { b->grad } };
    cut_attributes(&proto, LANE_DP, mesh);
    graph_add(g, &proto);
    return g->rc;
}

/* --- slices ------------------------------------------------------------------------- */

struct tensor *data_parallel_total(struct graph *g, struct tensor *total,
                                   const struct mesh *mesh)
{
    struct task proto = { .op = &op_all_reduce, .phase = PHASE_UPDATE, .in = { total } };
    if (!splits(mesh, mesh_split_lane(mesh)) || !total)
        return total;
    cut_attributes(&proto, mesh_split_lane(mesh), mesh);
    struct task *t = graph_add(g, &proto);
    return t ? t->out[0] : NULL;
}

struct tensor *data_parallel_experts_total(struct graph *g, struct tensor *total,
                                           const struct mesh *mesh)
{
    struct task proto = { .op = &op_all_reduce, .phase = PHASE_UPDATE, .in = { total } };
    const struct layout *l = &mesh->layout;
    enum lane lane = LANE_EP;
    if (splits(mesh, mesh_split_lane(mesh))) /* data_parallel_total adds those of other rows */
        lane = !l->exact_context ? LANE_COMPUTE : l->ep > l->cp ? LANE_CP : LANE_EP;
    if (mesh_degree(mesh, lane) == 1 || l->ep == 1 || !total)
        return total;
    cut_attributes(&proto, lane, mesh);
    struct task *t = graph_add(g, &proto);
    return t ? t->out[0] : NULL;
}

int data_parallel_gather(struct graph *g, const struct bucket *b, const struct mesh *mesh)
{
    enum lane sharers = mesh_sharers(mesh, b);
    if (!splits(mesh, sharers) || b->split_weights || b->own_count == 0)
        return g->rc;
    struct tensor *weights = b->compute ? b->compute : b->master;
    i64 first = b->compute ? 0 : b->copied;
    struct task proto = {
        .op = &op_all_gather, .phase = PHASE_UPDATE,
        .in = { graph_view(g, weights, first + b->own_begin - b->copied, b->own_count) },
        .out = { graph_view(g, weights, first, b->count - b->copied) },
    };
    cut_attributes(&proto, sharers, mesh);
    graph_add(g, &proto);
    return g->rc;
}

int data_parallel_share(const struct model *m, const struct mesh *mesh)
{
    for (i64 i = 0; i < m->n_buckets; i++) {
        const struct bucket *b = &m->buckets[i];
        enum lane sharers = mesh_sharers(mesh, b);
        const struct tensor *weights = b->compute ? b->compute : b->master;
        i64 first = b->compute ? 0 : b->copied;
        if (splits(mesh, sharers) && b->own_count > 0 && !b->split_weights)
            TRY(mesh_join(mesh, sharers, (u8 *)weights->data + first * dtype_bytes(weights->dtype),
                          b->own_count, weights->dtype));
    }
    return OK;
}
