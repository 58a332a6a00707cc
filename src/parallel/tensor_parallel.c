#include "parallel/tensor_parallel.h"

#include "ops/ops.h"

#include <string.h>

/* The list being rewritten. New tensors are known by the index of the old one. */
struct rewrite {
    struct graph *g;
    const struct model *m;
    const struct mesh *mesh;
    i64 B, known;           /* known: tensors before the pass */
    struct tensor **now;    /* what replaces an old tensor */
    struct tensor **all;    /* the same with all rows, once it was gathered */
    struct tensor **alike;  /* the same for what all ranks do alike */
    bool *cut;              /* now has a cut of the rows */
};

/* --- collectives -------------------------------------------------------------------- */

static struct tensor *collective(const struct rewrite *r, const struct op_info *op,
                                 struct tensor *x, i64 outer, enum collective_kind kind)
{
    if (r->mesh->layout.tp == 1)
        return x;
    struct task proto = { .op = op, .lane = LANE_TP, .in = { x },
                          .attr = { [COLLECTIVE_SIZE] = (double)r->mesh->layout.tp,
                                    [COLLECTIVE_RANK] = (double)r->mesh->tp_rank,
                                    [COLLECTIVE_OUTER] = (double)outer,
                                    [COLLECTIVE_KIND] = kind } };
    struct task *t = graph_add(r->g, &proto);
    return t ? t->out[0] : NULL;
}

static struct tensor *sum_and_cut(const struct rewrite *r, struct tensor *partial,
                                  enum collective_kind kind)
{
    return collective(r, &op_reduce_scatter, partial, r->B, kind);
}

/* --- old tensors to new ------------------------------------------------------------- */

/* Weights that are gathered for each layer are of the graph too, but stay what they are. */
static bool is_old(const struct rewrite *r, const struct tensor *t)
{
    return t && t->index >= 0 && t->index < r->known && t->role != ROLE_COMPUTE;
}

/* All rows of an old tensor. A gather belongs to no chunk of the loss head, which would
 * run its gradient before the other chunks had added theirs. */
static struct tensor *whole(struct rewrite *r, struct tensor *old)
{
    if (!is_old(r, old))
        return old;
    if (old->owner) {
        i64 row_bytes = tensor_bytes(old) / old->dim[0];
        return graph_view(r->g, whole(r, old->owner), old->owner_offset / row_bytes, old->dim[0]);
    }
    if (!r->cut[old->index])
        return r->now[old->index];
    if (!r->all[old->index]) {
        bool head = r->g->head;
        r->g->head = false;
        r->all[old->index] = collective(r, &op_all_gather, r->now[old->index], r->B,
                                        COLLECTIVE_SUM);
        r->g->head = head;
        if (r->all[old->index] && r->mesh->layout.exact && r->mesh->layout.tp > 1)
            r->all[old->index]->wide_grad = true;
    }
    return r->all[old->index];
}

/* All rows of a tensor with a cut, for what every rank does with all of them: its
 * gradient is complete on every rank, not a part of a sum. One rank in exact mode forms
 * it apart from others too. */
static struct tensor *alike(struct rewrite *r, struct tensor *old)
{
    if (!is_old(r, old) || old->owner || !r->cut[old->index])
        return whole(r, old);
    if (r->alike[old->index])
        return r->alike[old->index];
    struct tensor *now = r->now[old->index];
    if (r->mesh->layout.tp == 1) {
        r->alike[old->index] = cast(r->g, now, now->dtype);
        return r->alike[old->index];
    }
    struct task *t = graph_add(r->g, &(struct task){
        .op = &op_all_gather, .lane = LANE_TP, .in = { now },
        .attr = { [COLLECTIVE_SIZE] = (double)r->mesh->layout.tp,
                  [COLLECTIVE_RANK] = (double)r->mesh->tp_rank,
                  [COLLECTIVE_OUTER] = (double)r->B, [COLLECTIVE_ALIKE] = 1 } });
    r->alike[old->index] = t ? t->out[0] : NULL;
    return r->alike[old->index];
}

static void replace(struct rewrite *r, const struct tensor *old, struct tensor *new, bool cut)
{
    if (is_old(r, old)) {
        r->now[old->index] = new;
        r->cut[old->index] = cut;
    }
}

/* --- tasks -------------------------------------------------------------------------- */

static struct task begin(const struct task *t)
{
    struct task proto = *t;
    memset(proto.out, 0, sizeof proto.out);
    return proto;
}

static void add_kept(struct rewrite *r, const struct task *t, const struct task *proto)
{
    struct task *made = graph_add(r->g, proto);
    for (int k = 0; made && k < t->op->n_out; k++) {
        if (t->out[k] && t->out[k]->wide_grad)
            made->out[k]->wide_grad = true;
        replace(r, t->out[k], made->out[k], false);
    }
}

/* What works on heads or hidden units that are all here: all rows. */
static void keep(struct rewrite *r, const struct task *t, bool same_outputs)
{
    struct task proto = begin(t);
    for (int k = 0; k < t->op->n_in; k++)
        proto.in[k] = whole(r, t->in[k]);
    if (same_outputs)
        memcpy(proto.out, t->out, sizeof proto.out);
    add_kept(r, t, &proto);
}

/* --- experts ------------------------------------------------------------------------ */
/* Every rank routes and sorts all rows, sends them on along ep as if it were alone, and
 * multiplies them with its share of each expert's matrices: sums over ranks come before
 * rows are combined. */

static void keep_alike(struct rewrite *r, const struct task *t)
{
    struct task proto = begin(t);
    for (int k = 0; k < t->op->n_in; k++)
        proto.in[k] = alike(r, t->in[k]);
    if (t->op == &op_router && t->out[2]) /* which it only fills if it is there */
        proto.out[2] = graph_like(r->g, t->out[2], t->out[2]->dtype, t->out[2]->name);
    add_kept(r, t, &proto);
}

/* The gradient of its rows is a sum over ranks. */
static void first_product(struct rewrite *r, const struct task *t)
{
    struct task proto = begin(t);
    for (int k = 0; k < t->op->n_in; k++)
        proto.in[k] = whole(r, t->in[k]);
    proto.attr[EXPERT_PARTS] = (double)r->mesh->layout.tp;
    proto.attr[EXPERT_PART] = (double)r->mesh->tp_rank;
    if (proto.in[0] && r->mesh->layout.exact && r->mesh->layout.tp > 1)
        proto.in[0]->wide_grad = true;
    add_kept(r, t, &proto);
}

/* What it gives is. */
static void second_product(struct rewrite *r, const struct task *t)
{
    struct task proto = begin(t);
    for (int k = 0; k < t->op->n_in; k++)
        proto.in[k] = whole(r, t->in[k]);
    proto.attr[EXPERT_OUT_F32] = 1;
    struct task *made = graph_add(r->g, &proto);
    struct tensor *sum =
        made ? collective(r, &op_all_reduce, made->out[0], 1, COLLECTIVE_SUM) : NULL;
    if (sum && sum->dtype != t->out[0]->dtype)
        sum = cast(r->g, sum, t->out[0]->dtype);
    replace(r, t->out[0], sum, false);
}

static const struct param *param_of(const struct model *m, const struct tensor *w);

static void expert_product(struct rewrite *r, const struct task *t)
{
    const struct param *p = param_of(r->m, t->in[1]);
    if (r->mesh->layout.tp > 1 && p && p->desc.split == SPLIT_COLUMNS)
        second_product(r, t);
    else
        first_product(r, t);
}

/* Behind it a rank goes on with its rows. */
static void combine_own(struct rewrite *r, const struct task *t)
{
    struct task proto = begin(t);
    const struct tensor *residual = t->in[3];
    if (!residual || r->mesh->layout.tp == 1) {
        keep(r, t, false);
        if (residual)
            r->cut[t->out[0]->index] = true;
        return;
    }
    for (int k = 0; k < t->op->n_in; k++)
        proto.in[k] = t->in[k] == residual ? r->now[residual->index] : whole(r, t->in[k]);
    proto.attr[COMBINE_PARTS] = (double)r->mesh->layout.tp;
    proto.attr[COMBINE_PART] = (double)r->mesh->tp_rank;
    proto.attr[COMBINE_OUTER] = (double)r->B;
    struct task *made = graph_add(r->g, &proto);
    if (made)
        replace(r, t->out[0], made->out[0], true);
}

/* --- tasks, continued --------------------------------------------------------------- */

/* What works row by row keeps the cut of its input. */
static void keep_rows(struct rewrite *r, const struct task *t)
{
    struct task proto = begin(t);
    const struct tensor *x = t->in[0];
    proto.in[0] = r->now[x->index];
    struct task *made = graph_add(r->g, &proto);
    for (int k = 0; made && k < t->op->n_out; k++)
        replace(r, t->out[k], made->out[k], r->cut[x->index]);
}

static void embed_shares(struct rewrite *r, const struct task *t)
{
    const struct param *wte = model_param(r->m, P_WTE, -1);
    const struct param *wpe = model_param(r->m, P_WPE, -1);
    struct task proto = begin(t);
    proto.attr[EMBED_FIRST] = (double)wte->shard.rows[0].begin;
    proto.attr[EMBED_FIRST_POSITION] = wpe ? (double)wpe->shard.rows[0].begin : 0;
    struct task *made = graph_add(r->g, &proto);
    if (made)
        replace(r, t->out[0],
                sum_and_cut(r, made->out[0], wpe ? COLLECTIVE_SUM : COLLECTIVE_BITS), true);
}

static const struct param *param_of(const struct model *m, const struct tensor *w)
{
    for (i64 i = 0; i < m->n_params; i++)
        if (m->params[i].compute == w)
            return &m->params[i];
    return NULL;
}

/* y = x w' + bias + residual where every rank has some columns of x and w. */
static void sum_product(struct rewrite *r, const struct task *t)
{
    struct tensor *partial = linear_f32(r->g, whole(r, t->in[0]), t->in[1]);
    struct tensor *residual = r->now[t->in[3]->index];
    struct tensor *y = finish_sum(r->g, sum_and_cut(r, partial, COLLECTIVE_SUM), t->in[2],
                                  residual);
    replace(r, t->out[0], y, true);
}

static void product(struct rewrite *r, const struct task *t)
{
    const struct param *p = param_of(r->m, t->in[1]);
    if (p && p->desc.split == SPLIT_COLUMNS)
        sum_product(r, t);
    else if (p && p->desc.split == SPLIT_ROWS)
        keep(r, t, false);
    else if (p && p->desc.kind == PARAM_ROUTER)
        keep_alike(r, t);
    else if (p && p->desc.split == SPLIT_NONE) /* a latent's, of the rank's rows */
        keep_rows(r, t);
    else
        graph_fail(r->g, t, "%s has no rule for tensor parallelism", t->in[1]->name);
}

/* Columns of the logits that exist: none of a padded vocabulary's last ones. */
static i64 vocab_here(const struct param *head, i64 vocab)
{
    const struct shard_range *rows = &head->shard.rows[0];
    return i64_max(0, i64_min(rows->count, vocab - rows->begin));
}

static void cross_entropy(struct rewrite *r, const struct task *t)
{
    const struct param *head = model_param(r->m, r->m->spec.tied ? P_WTE : P_HEAD, -1);
    i64 first = head->shard.rows[0].begin, V = vocab_here(head, r->m->spec.vocab);
    struct tensor *z = r->now[t->in[0]->index], *dz = t->out[2];
    struct xent_labels labels = { whole(r, t->in[1]), whole(r, t->in[2]), whole(r, t->in[3]) };
    struct tensor *peak = collective(r, &op_all_reduce, xent_peak(r->g, z, V), 1,
                                     COLLECTIVE_MAX);
    struct tensor *sums = collective(r, &op_all_reduce,
                                     xent_sum(r->g, z, peak, labels.targets, first, V), 1,
                                     COLLECTIVE_SUM);
    xent_finish(r->g, z, &labels, peak, sums, whole(r, t->out[0]), dz ? (int)dz->dtype : -1,
                first, V, t->attr[XENT_ZCOEF]);
}

/* Each rank sends its cut of the rows to its counterpart on the other stage. */
static void move_rows(struct rewrite *r, const struct task *t)
{
    struct task proto = begin(t);
    const struct tensor *x = t->op->receives ? t->out[0] : NULL;
    if (x)
        proto.out[0] = graph_matrix(r->g, x->dtype, x->dim[0] / r->mesh->layout.tp, x->dim[1],
                                    x->name);
    else
        proto.in[0] = r->now[t->in[0]->index];
    if (graph_add(r->g, &proto) && x)
        replace(r, x, proto.out[0], true);
}

static void rewrite_task(struct rewrite *r, const struct task *t)
{
    r->g->layer = t->layer;
    r->g->phase = t->phase;
    r->g->head = t->head;
    r->g->chunk = t->chunk;
    r->g->part = t->part;
    if (t->op == &op_embed)
        embed_shares(r, t);
    else if (t->op == &op_rmsnorm || t->op == &op_layernorm ||
             (t->op == &op_split_qkv && r->cut[t->in[0]->index]))
        keep_rows(r, t);
    else if (t->op == &op_linear)
        product(r, t);
    else if (t->op == &op_cast || t->op == &op_router || t->op == &op_expert_gather)
        keep_alike(r, t);
    else if (t->op == &op_expert_linear)
        expert_product(r, t);
    else if (t->op == &op_expert_combine)
        combine_own(r, t);
    else if (t->op == &op_xent)
        cross_entropy(r, t);
    else if (t->op == &op_send || t->op == &op_recv)
        move_rows(r, t);
    else
        keep(r, t, t->op == &op_load_batch || t->op == &op_loss_sums || t->op == &op_expert_load);
}

int tensor_parallel(struct graph *g, const struct model *m, const struct mesh *mesh, i64 B)
{
    TRY(g->rc);
    if (mesh->layout.tp == 1 && !mesh->layout.exact)
        return OK;
    struct rewrite r = { .g = g, .m = m, .mesh = mesh, .B = B, .known = g->n_tensors };
    struct task **old = g->tasks;
    i64 n = g->n_tasks;
    r.now = ARENA_ARRAY(g->arena, struct tensor *, r.known);
    r.all = ARENA_ARRAY(g->arena, struct tensor *, r.known);
    r.alike = ARENA_ARRAY(g->arena, struct tensor *, r.known);
    r.cut = ARENA_ARRAY(g->arena, bool, r.known);
    memcpy(r.now, g->tensors, sizeof *r.now * (size_t)r.known);
    g->tasks = NULL;
    g->n_tasks = g->cap_tasks = 0;
    for (i64 i = 0; i < n && g->rc >= 0; i++)
        rewrite_task(&r, old[i]);
    g->layer = -1;
    g->head = false;
    g->chunk = g->part = 0;
    g->phase = PHASE_FORWARD;
    return g->rc;
}

struct tensor *tensor_parallel_total(struct graph *g, struct tensor *total,
                                     const struct mesh *mesh)
{
    const struct rewrite r = { .g = g, .mesh = mesh };
    return collective(&r, &op_all_reduce, total, 1, COLLECTIVE_SUM);
}
