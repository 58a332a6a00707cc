#include "parallel/data_parallel.h"

#include "ops/ops.h"
#include "parallel/zero.h"

static const struct tensor *root(const struct tensor *t)
{
    return t->owner ? t->owner : t;
}

/* Position behind the last task that writes into the tensor, or -1. */
static i64 behind_last_writer(const struct graph *g, const struct tensor *owner)
{
    for (i64 i = g->n_tasks - 1; i >= 0; i--)
        for (int k = 0; k < TASK_OUTS; k++)
            if (g->tasks[i]->out[k] && root(g->tasks[i]->out[k]) == owner)
                return i + 1;
    return -1;
}

static bool splits(const struct mesh *mesh)
{
    return mesh_degree(mesh, LANE_DP) > 1 && mesh->layout.zero >= ZERO_OPTIMIZER;
}

static void cut_attributes(struct task *t, enum lane lane, const struct mesh *mesh)
{
    t->lane = lane;
    t->attr[COLLECTIVE_SIZE] = (double)mesh_degree(mesh, lane);
    t->attr[COLLECTIVE_RANK] = (double)mesh_coordinate(mesh, lane);
    t->attr[COLLECTIVE_OUTER] = 1;
}

/* Inserts it at position `at`, in front of what was inserted there before, among the tasks of
 * the stage that writes there last. */
static void add_reduction(struct graph *g, const struct op_info *op, enum lane lane, i64 at,
                          struct tensor *in, struct tensor *out, const struct mesh *mesh)
{
    enum phase phase = g->phase == PHASE_UPDATE ? PHASE_UPDATE : PHASE_WEIGHT_GRAD;
    struct task proto = { .op = op, .phase = phase, .last_turn = true,
                          .in = { in }, .out = { out } };
    cut_attributes(&proto, lane, mesh);
    g->part = g->tasks[at - 1]->part;
    struct task *t = graph_add(g, &proto);
    g->part = 0;
    if (t) {
        g->n_tasks--;
        graph_insert(g, at, t);
    }
}

static void reduce_in_place(struct graph *g, enum lane lane, i64 at, struct tensor *x,
                            const struct mesh *mesh)
{
    add_reduction(g, &op_all_reduce, lane, at, x, x, mesh);
}

static void reduce_over_data(struct graph *g, const struct bucket *b, i64 at,
                             const struct mesh *mesh)
{
    i64 matrices = b->count - b->copied;
    if (!splits(mesh)) {
        reduce_in_place(g, LANE_DP, at, b->grad, mesh);
        return;
    }
    if (b->copied > 0)
        reduce_in_place(g, LANE_DP, at, graph_view(g, b->grad, 0, b->copied), mesh);
    if (matrices > 0)
        add_reduction(g, &op_reduce_scatter, LANE_DP, at,
                      graph_view(g, b->grad, b->copied, matrices),
                      graph_view(g, b->grad, b->own_begin, b->own_count), mesh);
}

/* Over tp first: what is not cut saw only some of the rows. */
static void reduce_bucket(struct graph *g, const struct bucket *b, const struct mesh *mesh)
{
    i64 at = behind_last_writer(g, b->grad);
    if (at >= 0 && mesh_degree(mesh, LANE_DP) > 1)
        reduce_over_data(g, b, at, mesh);
    bool partial = mesh->layout.tp > 1 && !mesh->layout.exact; /* exact: summed already */
    if (at >= 0 && partial && b->cut > 0)
        reduce_in_place(g, LANE_TP, at, graph_view(g, b->grad, 0, b->cut), mesh);
}

/* The embeddings, where another stage has a part in their gradient: summed in the update. */
static const struct bucket *shared_bucket(const struct model *m)
{
    return model_shares_table(m) ? model_param(m, P_WTE, -1)->bucket : NULL;
}

int data_parallel_reduce(struct graph *g, const struct model *m, const struct mesh *mesh)
{
    if (m->part.split_grads)
        return zero_reduce(g, m, mesh);
    for (i64 i = 0; i < m->n_buckets; i++)
        if (&m->buckets[i] != shared_bucket(m))
            reduce_bucket(g, &m->buckets[i], mesh);
    return g->rc;
}

int data_parallel_reduce_shared(struct graph *g, const struct model *m, const struct mesh *mesh)
{
    const struct bucket *b = shared_bucket(m);
    if (b && mesh_degree(mesh, LANE_DP) > 1)
        reduce_in_place(g, LANE_DP, g->n_tasks, b->grad, mesh);
    return g->rc;
}

struct tensor *data_parallel_total(struct graph *g, struct tensor *total,
                                   const struct mesh *mesh)
{
    struct task proto = { .op = &op_all_reduce, .phase = PHASE_UPDATE, .in = { total } };
    if (!splits(mesh) || !total)
        return total;
    cut_attributes(&proto, LANE_DP, mesh);
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
    cut_attributes(&proto, LANE_DP, mesh);
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
