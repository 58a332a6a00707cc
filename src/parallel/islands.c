#include "parallel/islands.h"

#include "ops/ops.h"
#include "parallel/data_parallel.h"
#include "parallel/pipeline.h"
#include "parallel/tensor_parallel.h"

#include <math.h>

/* How far a bucket's weights moved: flat, as its state. */
struct moved {
    const struct bucket *bucket;
    struct tensor *d;
};

/* Views of a bucket's weights and its outer state, of elements that lie together everywhere:
 * vectors, or the own slice of the matrices. */
struct stretch {
    i64 state, weight, count; /* where in the state, and in master */
};

static struct stretch vectors_of(const struct bucket *b)
{
    return (struct stretch){ 0, 0, b->copied };
}

static struct stretch matrices_of(const struct bucket *b)
{
    return (struct stretch){ b->copied, bucket_weight_at(b, b->own_begin), b->own_count };
}

/* --- differences -------------------------------------------------------------------- */

static void subtract(struct graph *g, const struct bucket *b, const struct stretch *s,
                     struct tensor *d)
{
    if (s->count > 0)
        outer_gradient(g, graph_view(g, b->anchor, s->state, s->count),
                       graph_view(g, b->master, s->weight, s->count),
                       graph_view(g, d, s->state, s->count));
}

static struct tensor *difference_of(struct graph *g, const struct bucket *b)
{
    const i64 n = b->copied + b->own_count;
    const struct stretch vectors = vectors_of(b), matrices = matrices_of(b);
    struct tensor *d = graph_tensor(g, ROLE_ACTIVATION, DTYPE_F32, 1, &n, "%s.moved", b->name);
    if (!d)
        return NULL;
    subtract(g, b, &vectors, d);
    subtract(g, b, &matrices, d);
    return d;
}

static struct tensor *sum_over_islands(struct graph *g, const struct mesh *mesh, struct tensor *x)
{
    struct task proto = {
        .op = &op_all_reduce, .lane = LANE_ISLAND, .phase = PHASE_UPDATE, .in = { x }, .out = { x },
        .attr = { [COLLECTIVE_SIZE] = (double)mesh_degree(mesh, LANE_ISLAND),
                  [COLLECTIVE_RANK] = (double)mesh_coordinate(mesh, LANE_ISLAND),
                  [COLLECTIVE_OUTER] = 1 } };
    if (mesh->layout.islands > 1)
        graph_add(g, &proto);
    return x;
}

/* --- squares ------------------------------------------------------------------------ */

enum shares { SHARE_SLICES, SHARE_WHOLE_SLICES, SHARE_CUT, SHARE_SAME, SHARES };

/* Squares of d by who else has the same elements: nobody, or only others' shares; all along tp, and
 * along zero others' shares; all along zero, and along tp others' shares; everybody. A table that
 * two stages have is the first one's. */
struct squares {
    struct tensor **parts[SHARES];
    i64 n[SHARES];
};

static struct squares squares_new(struct graph *g, const struct model *m)
{
    struct squares s = { 0 };
    for (int k = 0; k < SHARES; k++) /* and what was summed before */
        s.parts[k] = ARENA_ARRAY(g->arena, struct tensor *, 2 * m->n_buckets + 2);
    return s;
}

static void add_part(struct graph *g, struct squares *s, enum shares which, struct tensor *d,
                     i64 first, i64 end)
{
    if (first < end || which <= SHARE_WHOLE_SLICES)
        s->parts[which][s->n[which]++] = sum_squares(g, graph_view(g, d, first, end - first));
}

/* The slice of the matrices: of those that tp does not cut apart. */
static void add_slices(struct graph *g, struct squares *s, const struct bucket *b,
                       struct tensor *d)
{
    const i64 shift = b->copied - b->own_begin, end = b->copied + b->own_count;
    const i64 from = i64_min(end, i64_max(b->copied, b->whole + shift));
    const i64 to = i64_max(from, i64_min(end, b->whole + b->whole_count + shift));
    add_part(g, s, SHARE_SLICES, d, b->copied, from);
    if (b->whole_count > 0)
        add_part(g, s, SHARE_WHOLE_SLICES, d, from, to);
    if (to < end)
        add_part(g, s, SHARE_SLICES, d, to, end);
}

static void add_squares(struct graph *g, const struct model *m, const struct moved *x,
                        struct squares *s)
{
    const struct bucket *b = x->bucket;
    bool again = b->layer < 0 && model_shares_table(m) && !model_has_layer(&m->spec, &m->part, 0);
    if (again) {
        add_part(g, s, SHARE_SLICES, x->d, 0, 0);
        return; /* a table's bucket: no matrix of it is whole */
    }
    add_part(g, s, SHARE_SAME, x->d, 0, b->cut);
    add_part(g, s, SHARE_CUT, x->d, b->cut, b->copied);
    add_slices(g, s, b, x->d);
}

/* Over all ranks of an island. */
static struct tensor *total(struct graph *g, const struct mesh *mesh, struct squares *s)
{
    struct tensor *sum = total_squares(g, s->parts[SHARE_SLICES], s->n[SHARE_SLICES]);
    sum = data_parallel_total(g, sum, mesh);
    s->parts[SHARE_CUT][s->n[SHARE_CUT]++] = sum;
    sum = total_squares(g, s->parts[SHARE_CUT], s->n[SHARE_CUT]);
    sum = tensor_parallel_total(g, sum, mesh);
    if (s->n[SHARE_WHOLE_SLICES] > 0) {
        struct tensor *whole = total_squares(g, s->parts[SHARE_WHOLE_SLICES],
                                             s->n[SHARE_WHOLE_SLICES]);
        s->parts[SHARE_SAME][s->n[SHARE_SAME]++] = data_parallel_total(g, whole, mesh);
    }
    s->parts[SHARE_SAME][s->n[SHARE_SAME]++] = sum;
    sum = total_squares(g, s->parts[SHARE_SAME], s->n[SHARE_SAME]);
    return pipeline_total(g, sum, mesh);
}

static void tell(struct graph *g, struct tensor *sum, struct tensor *result)
{
    graph_add(g, &(struct task){ .op = &op_add_norms, .phase = PHASE_UPDATE, .in = { sum },
                                 .out = { result } });
}

/* --- the step ----------------------------------------------------------------------- */

static void update(struct graph *g, const struct moved *x, const struct stretch *s,
                   const struct outer_config *config)
{
    const struct bucket *b = x->bucket;
    struct tensor *copy = NULL;
    if (s->count == 0)
        return;
    if (b->compute && s->state >= b->copied)
        copy = graph_view(g, b->compute, s->weight - b->copied, s->count);
    outer_update(g, graph_view(g, x->d, s->state, s->count),
                 graph_view(g, b->master, s->weight, s->count),
                 graph_view(g, b->anchor, s->state, s->count),
                 graph_view(g, b->momentum, s->state, s->count), copy, config);
}

static void update_bucket(struct graph *g, const struct mesh *mesh, const struct moved *x,
                          const struct outer_config *config)
{
    const struct stretch vectors = vectors_of(x->bucket), matrices = matrices_of(x->bucket);
    update(g, x, &vectors, config);
    update(g, x, &matrices, config);
    data_parallel_gather(g, x->bucket, mesh);
}

int islands_step(struct graph *g, const struct model *m, const struct mesh *mesh,
                 const struct islands *x)
{
    const struct outer_config config = { x->lr, x->momentum, 1.0 / (double)mesh->layout.islands };
    struct moved *list = ARENA_ARRAY(g->arena, struct moved, m->n_buckets);
    struct squares apart = squares_new(g, m), moved = squares_new(g, m);
    i64 n = 0;
    for (i64 i = 0; i < m->n_buckets; i++)
        if (m->buckets[i].master)
            list[n++].bucket = &m->buckets[i];
    for (i64 i = 0; i <= n && g->rc >= 0; i++) {
        if (i < n) {
            g->layer = list[i].bucket->layer;
            list[i].d = difference_of(g, list[i].bucket);
            add_squares(g, m, &list[i], &apart);
            sum_over_islands(g, mesh, list[i].d);
        }
        if (i == 0)
            continue;
        g->layer = list[i - 1].bucket->layer; /* while the next one is summed */
        add_squares(g, m, &list[i - 1], &moved);
        update_bucket(g, mesh, &list[i - 1], &config);
    }
    g->layer = -1;
    tell(g, sum_over_islands(g, mesh, total(g, mesh, &apart)), x->apart);
    tell(g, total(g, mesh, &moved), x->moved);
    return g->rc;
}

double islands_norm(i64 islands, double moved)
{
    return sqrt(moved) / (double)islands;
}

double islands_divergence(i64 islands, double apart, double moved)
{
    double n = (double)islands, squares = apart / n - moved / (n * n);
    return squares > 0 ? sqrt(squares) : 0;
}
