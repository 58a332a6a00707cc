#include "train/model_boxes.h"

#include "parallel/pipeline.h"

#include <string.h>

/* Elements below which a parameter is not shared out among those who have it alike, but
 * written by one of them: boxes cost more than they save there. */
enum { SHARED_FROM = 1 << 14 };

struct lister {
    const struct model *m;
    struct arena *arena;
    struct model_boxes out;
    i64 room;
};

static void add_box(struct lister *l, const struct checkpoint_tensor *box)
{
    if (l->out.n == l->room) {
        struct checkpoint_tensor *old = l->out.list;
        l->room = i64_max(64, 2 * l->room);
        l->out.list = ARENA_ARRAY(l->arena, struct checkpoint_tensor, l->room);
        if (l->out.n > 0)
            memcpy(l->out.list, old, sizeof *old * (size_t)l->out.n);
    }
    l->out.list[l->out.n++] = *box;
}

/* --- from elements to boxes --------------------------------------------------------- */

/* Elements [first, last) of a share of a parameter, in its own order, at data. */
struct range {
    const struct param *p;
    const char *name;
    i64 first, last;
    float *data; /* of element `first` */
};

static i64 columns_here(const struct param *p)
{
    return p->desc.rank == 2 ? p->shard.columns.count : 1;
}

/* Elements [from, to) of the rectangle of rows that begins at element `base` of the share:
 * all in one row, or whole rows. */
static void add_rectangle(struct lister *l, const struct range *r, const struct shard_range *rows,
                          i64 base, i64 from, i64 to)
{
    const struct param *p = r->p;
    i64 columns = columns_here(p), column = (from - base) % columns;
    i64 whole_rows = (to - from) / columns;
    struct checkpoint_tensor t = { .name = r->name, .dtype = DTYPE_F32, .rank = p->desc.rank,
                                   .data = r->data + (from - r->first) };
    memcpy(t.whole, p->desc.dim, sizeof p->desc.dim);
    t.at[0] = rows->begin + (from - base) / columns;
    t.dim[0] = i64_max(1, whole_rows);
    if (p->desc.rank == 2) {
        t.at[1] = p->shard.columns.begin + column;
        t.dim[1] = whole_rows > 0 ? columns : to - from;
    }
    add_box(l, &t);
}

/* The rest of a row, whole rows, and the beginning of one. */
static void add_rows(struct lister *l, const struct range *r, const struct shard_range *rows,
                     i64 base, i64 from, i64 to)
{
    i64 columns = columns_here(r->p);
    i64 full = base + round_up(from - base, columns), end = base + (to - base) / columns * columns;
    if (full > end) { /* within one row */
        add_rectangle(l, r, rows, base, from, to);
        return;
    }
    if (from < full)
        add_rectangle(l, r, rows, base, from, full);
    if (full < end)
        add_rectangle(l, r, rows, base, full, end);
    if (end < to)
        add_rectangle(l, r, rows, base, end, to);
}

/* Rows of the whole parameter that lie side by side here, from its k-th piece on; *next is the
 * piece behind them. Pieces of a whole parameter are all one. */
static struct shard_range rows_from(const struct param *p, i64 k, i64 *next)
{
    const struct param_shard *s = &p->shard;
    i64 expert_rows = p->desc.dim[0] / p->desc.experts;
    struct shard_range rows = { 0 };
    for (*next = k; *next < s->experts.count * s->pieces; ++*next) {
        const struct shard_range *piece = &s->rows[*next % s->pieces];
        i64 begin = (s->experts.begin + *next / s->pieces) * expert_rows + piece->begin;
        if (*next > k && begin != rows.begin + rows.count)
            break;
        rows.begin = *next > k ? rows.begin : begin;
        rows.count += piece->count;
    }
    return rows;
}

static void add_range(struct lister *l, const struct range *r)
{
    const struct param_shard *s = &r->p->shard;
    i64 base = 0, columns = columns_here(r->p);
    for (i64 k = 0; k < s->experts.count * s->pieces;) {
        struct shard_range rows = rows_from(r->p, k, &k);
        i64 count = rows.count * columns;
        i64 from = i64_max(r->first, base), to = i64_min(r->last, base + count);
        if (from < to)
            add_rows(l, r, &rows, base, from, to);
        base += count;
    }
}

/* --- from parameters to elements ---------------------------------------------------- */

/* Ranks that have these elements alike, and which of them this is. */
struct copies {
    i64 n, index;
};

static struct copies copies_of(const struct model *m, const struct mesh *mesh,
                               const struct param *p)
{
    const struct layout *l = &mesh->layout;
    bool sliced = p->at >= p->bucket->copied && m->part.state_parts > 1;
    bool spread = p->bucket->experts && m->part.expert_parts > 1;
    i64 parts = sliced ? m->part.state_parts : spread ? m->part.expert_neighbours : 1;
    /* Along cp they are copies. */
    i64 apart = spread ? layout_expert_twins(l) : l->exact_context ? l->cp : 1;
    struct copies c = { mesh_degree(mesh, LANE_DP) / parts * apart,
                        mesh_coordinate(mesh, LANE_DP) / parts * apart +
                            mesh->cp_rank / (l->cp / apart) };
    if (p->desc.split == SPLIT_NONE) {
        c.n *= mesh->layout.tp;
        c.index = c.index * mesh->layout.tp + mesh->tp_rank;
    }
    return c;
}

/* Which of these elements this rank writes; turn: whose turn it is to write all of few. */
static struct shard_range share_of(struct shard_range all, i64 columns, struct copies alike,
                                   i64 turn)
{
    i64 n = alike.n, index = alike.index;
    if (n == 1)
        return all;
    if (all.count < SHARED_FROM)
        return index == turn % n ? all : (struct shard_range){ all.begin, 0 };
    i64 end = all.begin + all.count;
    i64 from = (all.begin + all.count * index / n) / columns * columns;
    i64 to = (all.begin + all.count * (index + 1) / n) / columns * columns;
    from = index == 0 ? all.begin : i64_max(all.begin, from);
    to = index == n - 1 ? end : i64_max(all.begin, to);
    return (struct shard_range){ from, i64_max(0, to - from) };
}

/* These elements of one tensor of the parameter; of: the bucket's tensor of that kind, where
 * element `at` is the share's first. */
static void add_tensor(struct lister *l, const struct param *p, const char *prefix,
                       struct shard_range which, const struct tensor *of, i64 at)
{
    if (which.count == 0)
        return;
    const struct range r = { p, arena_printf(l->arena, "%s/%s", prefix, p->desc.name),
                             which.begin, which.begin + which.count,
                             (float *)of->data + at + which.begin };
    add_range(l, &r);
}

/* The weights, under the name of whatever is to be loaded into them. */
static void add_weights(struct lister *l, const struct param *p, const char *prefix,
                        struct shard_range which)
{
    i64 at = bucket_weight_at(p->bucket, p->at + which.begin) - which.begin;
    add_tensor(l, p, prefix, which, p->bucket->master, at);
}

/* What lies as the optimizer's state does. */
static void add_state(struct lister *l, const struct param *p, const char *prefix,
                      struct shard_range which, const struct tensor *of)
{
    if (of && which.count > 0)
        add_tensor(l, p, prefix, which, of,
                   bucket_state_at(p->bucket, p->at + which.begin) - which.begin);
}

/* weights and state: of this island; common: of all, where outer steps keep any. */
static void add_param(struct lister *l, const struct param *p, struct shard_range weights,
                      struct shard_range state, struct shard_range common)
{
    const struct bucket *b = p->bucket;
    const char *own = "";
    if (b->anchor)
        own = arena_printf(l->arena, "island.%lld/", (long long)l->m->part.island);
    add_weights(l, p, arena_printf(l->arena, "%sparam", own), weights);
    add_state(l, p, arena_printf(l->arena, "%sm", own), state, b->m);
    if (!model_uses_muon(l->m, &p->desc))
        add_state(l, p, arena_printf(l->arena, "%sv", own), state, b->v);
    add_state(l, p, "ema", state, b->ema);
    add_state(l, p, "param", common, b->anchor);
    add_state(l, p, "outer", common, b->momentum);
}

/* More of the model than what was listed. */
static bool is_part(const struct model *m)
{
    struct arena a;
    i64 n;
    arena_init(&a);
    params_of(&m->spec, &a, &n);
    arena_fini(&a);
    return n > m->n_params || m->part.tensor_parts > 1 || m->part.state_parts > 1 ||
           m->part.expert_parts > 1 || m->part.islands > 1;
}

/* --- lists -------------------------------------------------------------------------- */

struct model_boxes model_boxes_held(const struct model *m, struct arena *a)
{
    struct lister l = { .m = m, .arena = a, .out.part = is_part(m) };
    for (i64 i = 0; i < m->n_params; i++) {
        const struct param *p = &m->params[i];
        add_param(&l, p, param_weights_here(p), param_state_here(p), param_state_here(p));
    }
    return l.out;
}

struct model_boxes model_boxes_written(const struct model *m, const struct mesh *mesh,
                                       struct arena *a)
{
    struct lister l = { .m = m, .arena = a, .out.part = is_part(m) };
    for (i64 i = 0; i < m->n_params; i++) {
        const struct param *p = &m->params[i];
        if (!pipeline_counts(m, p))
            continue; /* the first stage writes a table that the last one has too */
        const struct shard_range here = param_state_here(p);
        struct copies alike = copies_of(m, mesh, p);
        struct shard_range mine = share_of(here, columns_here(p), alike, i);
        alike.index = alike.index * mesh->layout.islands + mesh->island;
        alike.n *= mesh->layout.islands;
        add_param(&l, p, mine, mine, share_of(here, columns_here(p), alike, i));
    }
    return l.out;
}

struct model_boxes model_boxes_weights(const struct model *m, bool ema, struct arena *a)
{
    struct lister l = { .m = m, .arena = a, .out.part = is_part(m) };
    for (i64 i = 0; i < m->n_params; i++) {
        const struct param *p = &m->params[i];
        add_weights(&l, p, ema ? "ema" : "param", param_weights_here(p));
    }
    return l.out;
}
