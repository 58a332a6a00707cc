#include "parallel/orthogonal.h"

#include <math.h>

/* --- units -------------------------------------------------------------------------- */

/* Experts' state may be whole where others' is split. */
static bool is_split(const struct bucket *b)
{
    return b->own_count < b->count - b->copied;
}

bool orthogonal_has(const struct model *m, const struct orthogonal_unit *unit,
                    const struct param *p)
{
    return model_uses_muon(m, &p->desc) &&
           (unit->matrix ? unit->matrix == p : unit->bucket == p->bucket);
}

i64 orthogonal_units(struct graph *g, const struct model *m, struct orthogonal_unit **out)
{
    struct orthogonal_unit *list =
        ARENA_ARRAY(g->arena, struct orthogonal_unit, m->n_buckets + m->n_params);
    i64 n = 0;
    for (i64 b = 0; b < m->n_buckets; b++) {
        i64 begin = n;
        for (i64 i = 0; i < m->n_params && !is_split(&m->buckets[b]); i++)
            if (m->params[i].bucket == &m->buckets[b] &&
                model_uses_muon(m, &m->params[i].desc))
                list[n++] = (struct orthogonal_unit){ .matrix = &m->params[i] };
        if (n == begin)
            list[n++] = (struct orthogonal_unit){ 0 };
        for (i64 i = begin; i < n; i++)
            list[i].bucket = &m->buckets[b];
        list[begin].opens = list[n - 1].closes = true;
    }
    *out = list;
    return n;
}

/* Ranks that split state. */
static i64 splitters(const struct mesh *mesh)
{
    return mesh->layout.zero >= ZERO_OPTIMIZER ? mesh_degree(mesh, LANE_SHARD) : 1;
}

i64 orthogonal_ranks(const struct mesh *mesh)
{
    return splitters(mesh) * mesh->layout.tp;
}

i64 orthogonal_ahead(const struct mesh *mesh)
{
    return orthogonal_ranks(mesh) > 1 ? 1 : 0;
}

/* Who may do a bucket's matrices: `n` of these ranks, of which this one has number `own`.
 * Of experts that are spread, as many ranks have the same number as have other experts:
 * so many neighbours do each its own. */
struct workers {
    i64 n, own, alike;
};

static struct workers workers_of(const struct mesh *mesh, const struct bucket *b)
{
    enum lane lane = is_split(b) ? mesh_sharers(mesh, b) : LANE_COMPUTE;
    i64 n = mesh_degree(mesh, lane);
    return (struct workers){ n * mesh->layout.tp,
                             mesh_coordinate(mesh, lane) * mesh->layout.tp + mesh->tp_rank,
                             splitters(mesh) / n };
}

static bool has_any(const struct model *m, const struct orthogonal_unit *unit)
{
    for (i64 i = 0; i < m->n_params; i++)
        if (orthogonal_has(m, unit, &m->params[i]))
            return true;
    return false;
}

void orthogonal_open(struct graph *g, const struct model *m, struct orthogonal_unit *unit)
{
    const struct bucket *b = unit->bucket;
    if (unit->matrix) {
        unit->first = unit->matrix->at;
        unit->u = graph_matrix(g, DTYPE_F32, unit->matrix->shard.dim[0],
                               unit->matrix->shard.dim[1], "momentum");
    } else if (has_any(m, unit)) {
        unit->first = b->own_begin;
        unit->u = graph_vector(g, DTYPE_F32, b->own_count, "momentum");
    }
}

/* --- exchanges ---------------------------------------------------------------------- */

static struct tensor *exchange(struct graph *g, const struct mesh *mesh, const struct op_info *op,
                               enum lane lane, struct tensor *x, struct tensor *y)
{
    struct task *t = graph_add(g, &(struct task){
        .op = op, .lane = lane, .phase = PHASE_UPDATE, .in = { x }, .out = { y },
        .attr = { [COLLECTIVE_SIZE] = (double)mesh_degree(mesh, lane),
                  [COLLECTIVE_RANK] = (double)mesh_coordinate(mesh, lane),
                  [COLLECTIVE_OUTER] = 1, [COLLECTIVE_KIND] = COLLECTIVE_BITS } });
    return t ? t->out[0] : NULL;
}

/* The parameter's share in a flat tensor of all the bucket's matrices. */
static struct tensor *share_of(struct graph *g, const struct param *p, struct tensor *flat)
{
    struct tensor *t = graph_view(g, flat, p->at - p->bucket->copied, param_here(p));
    if (t) {
        t->rank = 2;
        t->dim[0] = p->shard.dim[0];
        t->dim[1] = p->shard.dim[1];
    }
    return t;
}

static double work_of(const struct param_desc *d)
{
    double work = 0, rows = (double)d->dim[0] / (double)d->experts;
    for (int i = 0; i < 3; i++) {
        double N = i == 0 && d->blocks[0] == 0 ? rows : (double)d->blocks[i];
        double least = fmin(N, (double)d->dim[1]), most = fmax(N, (double)d->dim[1]);
        work += least * least * (2 * most + least);
    }
    return work * (double)d->experts;
}

/* The load of the j-th neighbour with a worker's number. */
static double *load_of(double *load, const struct mesh *mesh, const struct workers *w, i64 number,
                       i64 j)
{
    i64 tp = mesh->layout.tp;
    return &load[(number / tp * w->alike + j) * tp + number % tp];
}

/* Gives `work` to the one with the least to do, whose neighbours have the same to do. */
static i64 least_loaded(double *load, const struct mesh *mesh, const struct workers *w, double work)
{
    i64 best = 0;
    double least = INFINITY;
    for (i64 i = 0; i < w->n; i++) {
        double most = 0;
        for (i64 j = 0; j < w->alike; j++)
            most = fmax(most, *load_of(load, mesh, w, i, j));
        best = most < least ? i : best;
        least = fmin(least, most);
    }
    for (i64 j = 0; j < w->alike; j++)
        *load_of(load, mesh, w, best, j) += work;
    return best;
}

/* Done by that one of the ranks, or by all along tp where they have it alike; other ranks along dp
 * have nothing to exchange over tp. u, y: this rank's share; y NULL: made. */
static struct tensor *orthogonalise(struct graph *g, const struct mesh *mesh,
                                    const struct param *p, struct tensor *u, struct tensor *y,
                                    i64 rank, struct muon_config config)
{
    i64 tp = mesh->layout.tp, own = workers_of(mesh, p->bucket).own;
    bool cut = p->desc.split != SPLIT_NONE, near = rank / tp == own / tp;
    bool several = tp > 1 && cut && near;
    g->layer = p->desc.layer;
    config.elsewhere = !near || (cut && rank != own);
    for (int i = 0; i < 3 && near; i++)
        config.block_rows[i] = p->desc.blocks[i];
    if (several) {
        config.shares = tp;
        config.columns = p->desc.split == SPLIT_COLUMNS;
        u = exchange(g, mesh, &op_all_gather, LANE_TP, u, NULL);
    }
    struct tensor *whole = muon_orthogonal(g, u, several ? NULL : y, NULL, &config);
    if (several)
        whole = exchange(g, mesh, &op_reduce_scatter, LANE_TP, whole, y);
    g->layer = -1;
    return whole;
}

void orthogonal_run(struct graph *g, const struct model *m, const struct mesh *mesh,
                    struct orthogonal_unit *unit, double *load, const struct muon_config *config)
{
    const struct bucket *b = unit->bucket;
    const struct workers workers = workers_of(mesh, b);
    struct tensor *u = unit->u, *y = NULL;
    if (!u || g->rc < 0)
        return;
    g->layer = b->layer;
    if (!unit->matrix) {
        u = exchange(g, mesh, &op_all_gather, mesh_sharers(mesh, b), u,
                     graph_vector(g, DTYPE_F32, b->count - b->copied, "momentum"));
        y = graph_vector(g, DTYPE_F32, b->count - b->copied, "orthogonal");
    }
    for (i64 i = 0; i < m->n_params && g->rc >= 0; i++) {
        const struct param *p = &m->params[i];
        if (!orthogonal_has(m, unit, p))
            continue;
        i64 rank = least_loaded(load, mesh, &workers, work_of(&p->desc));
        unit->y = orthogonalise(g, mesh, p, y ? share_of(g, p, u) : u,
                                y ? share_of(g, p, y) : NULL, rank, *config);
    }
    g->layer = b->layer;
    if (y)
        unit->y = exchange(g, mesh, &op_reduce_scatter, mesh_sharers(mesh, b), y, NULL);
    g->layer = -1;
}
