#include "parallel/spread_rules.h"

#include "base/err.h"
#include "ops/ops.h"

#include <string.h>

static const struct tensor *owner_of(const struct tensor *t)
{
    return t->owner ? t->owner : t;
}

/* --- the walk ----------------------------------------------------------------------- */

static enum spread weight_spread(const struct check *c, const struct param *p)
{
    if (c->experts && p->bucket->experts)
        return SPREAD_EXPERTS;
    if (c->axis != LANE_TP || p->desc.split == SPLIT_NONE)
        return SPREAD_SAME;
    return p->desc.split == SPLIT_ROWS ? SPREAD_ROWS : SPREAD_COLUMNS;
}

/* A parameter's part of a bucket that is gathered before each use; NULL: it is not. */
static const struct tensor *part_of_gathered(const struct param *p)
{
    const struct tensor *weights = p->compute ? p->compute : p->master;
    return weights && p->bucket->gathered && weights->owner == p->bucket->gathered ? weights : NULL;
}

/* A bucket's slices become its weights, each cut as it is. */
static bool gathers_weights(struct check *c, const struct task *t)
{
    bool found = false;
    for (i64 i = 0; t->op == &op_all_gather && i < c->m->n_params; i++) {
        const struct param *p = &c->m->params[i];
        const struct tensor *part = part_of_gathered(p), *from = owner_of(t->in[0]);
        if (!part || (from != p->bucket->compute && from != p->bucket->master))
            continue;
        struct tensor here = *part;
        here.owner = (struct tensor *)(uintptr_t)owner_of(t->out[0]);
        spread_set(c, &here, weight_spread(c, p));
        found = true;
    }
    return found;
}

/* What a slice of matrices says of all of them, and they of it: nothing, where tp cuts some. */
static enum spread of_slices(const struct check *c, const struct task *t, enum spread is)
{
    bool whole = false;
    for (i64 i = 0; i < c->m->n_buckets; i++)
        whole = whole || c->m->buckets[i].whole_count > 0;
    bool slices = t->op == &op_all_gather || t->op == &op_reduce_scatter;
    return whole && slices && c->axis == LANE_TP ? SPREAD_UNKNOWN : is;
}

/* Along other axes it changes nothing. Stages hand on rows, cut as they are everywhere. */
static void pass_on(struct check *c, const struct task *t)
{
    enum spread is = spread_of(c, t->in[0]);
    if (t->op == &op_recv)
        spread_set(c, t->out[0], SPREAD_ROWS);
    if (!t->in[0] || !t->out[0] || gathers_weights(c, t))
        return;
    bool apart = owner_of(t->in[0]) != owner_of(t->out[0]);
    if (apart)
        is = of_slices(c, t, is);
    if (apart && is != SPREAD_UNKNOWN)
        spread_set(c, t->out[0], is == SPREAD_MIXED ? SPREAD_UNKNOWN : is);
    if (!apart && c->axis == LANE_ISLAND && t->op == &op_all_gather)
        spread_set(c, t->out[0], is); /* slices of the same tensor */
}

/* What stages compute is their own business, until they make one step of it. */
static bool between_stages(const struct check *c)
{
    return c->axis == LANE_PP || c->axis == LANE_TIE;
}

/* What all of a lane do, those along a part of it do too. */
static bool acts_along(const struct check *c, const struct task *t)
{
    bool elsewhere = collective_of_twins(t) && c->axis != LANE_CP;
    return t->lane == LANE_COMPUTE || (c->acts >> t->lane & 1 && !elsewhere);
}

static void check_task(struct check *c, const struct task *t)
{
    if (between_stages(c) && t->phase != PHASE_UPDATE)
        return;
    if (!acts_along(c, t)) {
        pass_on(c, t);
        return;
    }
    spread_apply(c, t);
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

/* A list of a step reads a batch; one of an outer step does not. */
static bool trains(const struct graph *g)
{
    for (i64 i = 0; i < g->n_tasks; i++)
        if (g->tasks[i]->op == &op_load_batch)
            return true;
    return false;
}

/* Before the update a stage has gradients of its own parameters, and where it shares a
 * table its part of that one's. Along pp the table is the first one's, and what the last
 * one has is a copy. */
static void begin_stages(struct check *c)
{
    const bool ties = model_shares_table(c->m);
    const bool first = model_has_layer(&c->m->spec, &c->m->part, 0);
    for (i64 i = 0; i < c->m->n_params; i++) {
        const struct param *p = &c->m->params[i];
        const bool table = ties && p->desc.id == P_WTE;
        if (c->axis == LANE_TIE && table)
            spread_set(c, p->grad, SPREAD_PARTIAL);
        if (c->axis == LANE_PP)
            spread_set(c, p->grad, table && !first ? SPREAD_SAME : SPREAD_STAGES);
    }
    /* Slices; no table is among them. */
    for (i64 i = 0; i < c->m->n_buckets && c->axis == LANE_PP; i++)
        if (c->m->buckets[i].split_grads)
            spread_set(c, c->m->buckets[i].own_grad, SPREAD_STAGES);
}

/* Before a step every rank has its weights, and constants. */
static void begin(struct check *c)
{
    if (c->axis == LANE_ISLAND) {
        begin_islands(c);
        return;
    }
    if (between_stages(c)) {
        begin_stages(c);
        return;
    }
    const bool gathers = trains(c->g);
    for (i64 i = 0; i < c->m->n_params; i++) {
        const struct param *p = &c->m->params[i];
        spread_set(c, p->master, weight_spread(c, p));
        spread_set(c, p->compute, weight_spread(c, p));
        if (gathers && c->split && part_of_gathered(p) && weight_spread(c, p) == SPREAD_SAME)
            spread_set(c, part_of_gathered(p), SPREAD_ROWS);
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

/* Ranks along each axis that is checked differ in one coordinate. A group of ep lies
 * along cp and dp: LANE_EP is the part of it that is not LANE_CP, or where it is a part
 * of cp, LANE_CP what is left of that. In fast mode cp is a part of dp (and dp's sums are
 * sums along it), so LANE_DP, and LANE_EP where it has whole rows, are both, and LANE_CP
 * looks again at what the tokens of a row have to do with each other. */
static struct check axis_of(const struct mesh *mesh, enum lane axis)
{
    const struct layout *l = &mesh->layout;
    const bool fast = !l->exact_context, context = l->cp > 1 && !fast;
    const bool part = l->cp > 1 && l->ep <= l->cp, in_row = context && part;
    const bool along = l->cp > 1 && axis == LANE_CP;
    const u32 dp = 1u << LANE_DP, group = dp | 1u << LANE_SHARD;
    const u32 cp = 1u << LANE_CP, ep = 1u << LANE_EP;
    struct check c = { .axis = axis, .acts = 1u << axis };
    c.batch = axis != LANE_TP && axis != LANE_ISLAND && axis != LANE_PP && axis != LANE_TIE;
    c.tokens = along || (axis == LANE_EP && part);
    c.split = (along && fast) || axis == LANE_DP || axis == LANE_SHARD || axis == LANE_EDP ||
              (axis == LANE_EP && !in_row);
    c.experts = axis == LANE_EP || (along && l->ep > 1 && !part);
    if (axis == LANE_SHARD || axis == LANE_COPIES)
        c.acts |= dp;
    if (axis == LANE_EDP || (axis == LANE_EP && !in_row))
        c.acts |= group;
    if (axis == LANE_EP && part)
        c.acts |= cp;
    if (along && fast)
        c.acts |= group | (l->ep > 1 && part ? 1u << LANE_EDP : 0);
    if (axis == LANE_CP && c.experts)
        c.acts |= ep;
    return c;
}

static void begin_table(struct check *c, const struct graph *g, const struct model *m)
{
    c->g = g;
    c->m = m;
    c->slots = 1024;
    while (c->slots < (u64)(2 * g->n_tensors + 16 * m->n_params))
        c->slots *= 2;
    arena_init(&c->arena);
    c->table = ARENA_ARRAY(&c->arena, struct entry, (i64)c->slots);
}

static int check_axis(const struct graph *g, const struct model *m, const struct mesh *mesh,
                      enum lane axis)
{
    struct check c = axis_of(mesh, axis);
    begin_table(&c, g, m);
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
    case LANE_CP: /* a row that several groups of what zero splits share is of more axes than one */
        return l->cp > (l->ep <= l->cp ? l->ep : 1) && (l->exact_context || !groups ||
                                                        layout_split_ranks(l) % l->cp == 0);
    case LANE_EP:
        return l->exact_context && l->ep > l->cp ? layout_expert_rows(l) > 1 : l->ep > 1;
    case LANE_DP: return l->ep == 1 && !groups && mesh_degree(mesh, axis) > 1;
    case LANE_SHARD: return l->ep == 1 && groups;
    case LANE_COPIES: return groups;
    case LANE_EDP: return l->ep > 1 && mesh_degree(mesh, axis) > 1;
    default: return mesh_degree(mesh, axis) > 1;
    }
}

static i64 moves(const struct graph *g, const struct op_info *op, int boundary, bool up)
{
    i64 n = 0;
    for (i64 i = 0; i < g->n_tasks; i++) {
        const struct task *t = g->tasks[i];
        n += t->op == op && (int)t->attr[MOVE_BOUNDARY] == boundary &&
             (t->attr[MOVE_UP] != 0) == up;
    }
    return n;
}

/* Along which axis the bucket is gathered that this is; else unknown. */
static const char *axis_of_bucket(const struct model *m, const struct mesh *mesh,
                                  const struct tensor *x)
{
    for (i64 i = 0; i < m->n_buckets; i++) {
        const struct bucket *b = &m->buckets[i];
        const struct check c = { .axis = mesh_sharers(mesh, b) };
        if (b->gathered && strcmp(b->name, x->name) == 0)
            return spread_axis_name(&c);
    }
    return "some axis";
}

/* What is written nowhere before it is read is what an exchange should have brought. */
static int check_written(const struct graph *g, const struct model *m, const struct mesh *mesh)
{
    struct check c = { .g = g };
    begin_table(&c, g, m);
    for (i64 i = 0; i < g->n_tasks && c.rc >= 0; i++) {
        const struct task *t = g->tasks[i];
        for (int k = 0; k < t->op->n_in; k++) {
            const struct tensor *read = t->in[k], *owner = read ? owner_of(read) : NULL;
            if (owner && owner->role == ROLE_ACTIVATION && tensor_count(read) > 0 &&
                spread_of(&c, owner) == SPREAD_UNKNOWN)
                c.rc = err_set(ERR_INTERNAL, "%s: along %s, %s is read before anything "
                               "has written it",
                               t->op->name, axis_of_bucket(m, mesh, owner), read->name);
        }
        for (int k = 0; k < t->op->n_out; k++)
            if (t->out[k])
                spread_set(&c, owner_of(t->out[k]), SPREAD_SAME);
    }
    arena_fini(&c.arena);
    return c.rc;
}

/* Across every boundary of this rank's stages rows go up and their gradients come down, once. */
static int check_moves(const struct graph *g, const struct mesh *mesh)
{
    const struct stages *s = &mesh->stages;
    for (int b = 0; b < s->n - 1 && trains(g); b++)
        for (int up = 0; up < 2; up++) {
            const bool below = s->rank_of[b] == (int)mesh->pp_rank;
            const bool above = s->rank_of[b + 1] == (int)mesh->pp_rank;
            const struct op_info *op = below == (up != 0) ? &op_send : &op_recv;
            if (below != above && moves(g, op, b, up) != 1)
                return err_set(ERR_INTERNAL, "%s: along pp, %s between stages %d and %d "
                               "must go %s once, and do so %lld times", op->name,
                               up ? "activations" : "gradients of activations", b, b + 1,
                               up ? "up" : "down", (long long)moves(g, op, b, up));
        }
    return OK;
}

int spread_check(const struct graph *g, const struct model *m, const struct mesh *mesh)
{
    static const enum lane axes[] = { LANE_TP, LANE_CP, LANE_DP, LANE_SHARD, LANE_COPIES, LANE_EP,
                                      LANE_EDP };
    TRY(g->rc);
    TRY(check_moves(g, mesh));
    if (mesh->layout.pp > 1)
        TRY(check_axis(g, m, mesh, LANE_PP));
    if (model_shares_table(m) && trains(g))
        TRY(check_axis(g, m, mesh, LANE_TIE));
    if (mesh->layout.cp > 1)
        TRY(spread_check_ring(g, (int)mesh->layout.cp));
    for (i64 i = 0; i < COUNT_OF(axes); i++)
        if (has_axis(mesh, axes[i]))
            TRY(check_axis(g, m, mesh, axes[i]));
    return check_written(g, m, mesh);
}

int spread_check_islands(const struct graph *g, const struct model *m, const struct mesh *mesh)
{
    TRY(spread_check(g, m, mesh));
    return mesh->layout.islands > 1 ? check_axis(g, m, mesh, LANE_ISLAND) : OK;
}
