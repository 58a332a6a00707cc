#include "parallel/spread_rules.h"

#include "base/err.h"
#include "ops/ops.h"

static const struct tensor *owner_of(const struct tensor *t)
{
    return t->owner ? t->owner : t;
}

/* --- the walk ----------------------------------------------------------------------- */

/* Along other axes it changes nothing. Stages hand on rows, cut as they are everywhere. */
static void pass_on(struct check *c, const struct task *t)
{
    enum spread is = spread_of(c, t->in[0]);
    if (t->op == &op_recv)
        spread_set(c, t->out[0], SPREAD_ROWS);
    if (!t->in[0] || !t->out[0])
        return;
    bool apart = owner_of(t->in[0]) != owner_of(t->out[0]);
    if (apart && is != SPREAD_UNKNOWN)
        spread_set(c, t->out[0], is == SPREAD_MIXED ? SPREAD_UNKNOWN : is);
    if (!apart && c->axis == LANE_ISLAND && t->op == &op_all_gather)
        spread_set(c, t->out[0], is); /* slices of the same tensor */
}

/* What all of a lane do, those along a part of it do too. */
static bool acts_along(const struct check *c, const struct task *t)
{
    bool elsewhere = collective_of_twins(t) && c->axis != LANE_CP;
    return t->lane == LANE_COMPUTE || (c->acts >> t->lane & 1 && !elsewhere);
}

static void check_task(struct check *c, const struct task *t)
{
    if (!acts_along(c, t)) {
        pass_on(c, t);
        return;
    }
    spread_apply(c, t);
}

static enum spread weight_spread(const struct check *c, const struct param *p)
{
    if (c->experts && p->bucket->experts)
        return SPREAD_EXPERTS;
    if (c->axis != LANE_TP || p->desc.split == SPLIT_NONE)
        return SPREAD_SAME;
    return p->desc.split == SPLIT_ROWS ? SPREAD_ROWS : SPREAD_COLUMNS;
}

/* Before an outer step islands have weights of their own, and the outer state in common. */
static void begin_islands(struct check *c)
{
    for (i64 i = 0; i < c->m->n_buckets; i++) {
        const struct bucket *b = &c->m->buckets[i];
        spread_set(c, b->master, SPREAD_OWN);
        spread_set(c, b->compute, SPREAD_OWN);
        spread_set(c, b->anchor, SPREAD_SAME);
        spread_set(c, b->momentum, SPREAD_SAME);
    }
}

/* Before a step every rank has its weights, and constants. */
static void begin(struct check *c)
{
    if (c->axis == LANE_ISLAND) {
        begin_islands(c);
        return;
    }
    for (i64 i = 0; i < c->m->n_params; i++) {
        const struct param *p = &c->m->params[i];
        spread_set(c, p->master, weight_spread(c, p));
        spread_set(c, p->compute, weight_spread(c, p));
    }
    spread_set(c, c->m->rope_table, SPREAD_SAME);
    for (i64 i = 0; i < c->g->n_tasks; i++) /* what the host writes */
        for (int k = 0; k < c->g->tasks[i]->op->n_in; k++) {
            const struct tensor *x = c->g->tasks[i]->in[k];
            if (x && owner_of(x)->role == ROLE_RESULT && owner_of(x)->index < 0 &&
                spread_of(c, x) == SPREAD_UNKNOWN)
                spread_set(c, x, SPREAD_SAME);
        }
}

/* And so it must be after it. */
static void end(struct check *c)
{
    for (i64 i = 0; i < c->m->n_params && c->rc >= 0; i++) {
        const struct param *p = &c->m->params[i];
        enum spread is = spread_of(c, p->compute), wanted = weight_spread(c, p);
        if (is != SPREAD_UNKNOWN && is != wanted)
            c->rc = err_set(ERR_INTERNAL, "along %s, %s is %s at the end of the step and %s at "
                            "its beginning", spread_axis_name(c), p->desc.name,
                            spread_word(is), spread_word(wanted));
    }
}

/* Ranks along each axis that is checked differ in one coordinate. In exact mode cp is no part of dp, and a
 * group of ep lies along both: LANE_EP is the part of it that is not LANE_CP, or where it is a part of
 * cp, LANE_CP what is left of that. */
static struct check axis_of(const struct mesh *mesh, enum lane axis)
{
    const struct layout *l = &mesh->layout;
    const bool context = l->exact_context && l->cp > 1, in_row = context && l->ep <= l->cp;
    const u32 dp = 1u << LANE_DP, group = dp | 1u << LANE_SHARD, cp = 1u << LANE_CP, ep = 1u << LANE_EP;
    struct check c = { .axis = axis, .batch = axis != LANE_TP && axis != LANE_ISLAND,
                       .acts = 1u << axis };
    c.tokens = context && (axis == LANE_CP || (axis == LANE_EP && in_row));
    c.split = axis == LANE_DP || axis == LANE_SHARD || axis == LANE_EDP ||
              (axis == LANE_EP && !in_row);
    c.experts = axis == LANE_EP || (axis == LANE_CP && l->ep > 1 && !in_row);
    if (axis == LANE_SHARD || axis == LANE_COPIES)
        c.acts |= dp;
    if (axis == LANE_EDP || (axis == LANE_EP && !in_row))
        c.acts |= group;
    if (axis == LANE_EP && in_row)
        c.acts |= cp;
    if (axis == LANE_CP && c.experts)
        c.acts |= ep;
    return c;
}

static int check_axis(const struct graph *g, const struct model *m, const struct mesh *mesh,
                      enum lane axis)
{
    struct check c = axis_of(mesh, axis);
    c.g = g;
    c.m = m;
    c.slots = 1024;
    while (c.slots < (u64)(2 * g->n_tensors + 16 * m->n_params))
        c.slots *= 2;
    arena_init(&c.arena);
    c.table = ARENA_ARRAY(&c.arena, struct entry, (i64)c.slots);
    begin(&c);
    for (i64 i = 0; i < g->n_tasks && c.rc >= 0; i++)
        check_task(&c, g->tasks[i]);
    if (c.rc >= 0)
        end(&c);
    arena_fini(&c.arena);
    return c.rc;
}

/* Whether several ranks are along what axis_of makes of it. */
static bool has_axis(const struct mesh *mesh, enum lane axis)
{
    const struct layout *l = &mesh->layout;
    const bool groups = mesh_split_lane(mesh) == LANE_SHARD;
    switch (axis) {
    case LANE_CP: /* else a part of dp */
        return l->exact_context && l->cp > (l->ep <= l->cp ? l->ep : 1);
    case LANE_EP:
        return l->exact_context && l->ep > l->cp ? layout_expert_rows(l) > 1 : l->ep > 1;
    case LANE_DP: return l->ep == 1 && !groups && mesh_degree(mesh, axis) > 1;
    case LANE_SHARD: return l->ep == 1 && groups;
    case LANE_COPIES: return groups;
    case LANE_EDP: return l->ep > 1 && mesh_degree(mesh, axis) > 1;
    default: return mesh_degree(mesh, axis) > 1;
    }
}

int spread_check(const struct graph *g, const struct model *m, const struct mesh *mesh)
{
    static const enum lane axes[] = { LANE_TP, LANE_CP, LANE_COPIES, LANE_DP, LANE_SHARD, LANE_EP,
                                      LANE_EDP };
    TRY(g->rc);
    for (i64 i = 0; i < COUNT_OF(axes); i++)
        if (has_axis(mesh, axes[i]))
            TRY(check_axis(g, m, mesh, axes[i]));
    return OK;
}

int spread_check_islands(const struct graph *g, const struct model *m, const struct mesh *mesh)
{
    TRY(spread_check(g, m, mesh));
    return mesh->layout.islands > 1 ? check_axis(g, m, mesh, LANE_ISLAND) : OK;
}
