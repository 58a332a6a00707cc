#include "parallel/exact.h"

#include "model/decoder.h"
#include "ops/ops.h"

/* --- leaves ------------------------------------------------------------------------- */

i64 exact_leaves(i64 n, i64 most)
{
    i64 leaves = most;
    while (n % leaves)
        leaves /= 2;
    return leaves;
}

i64 exact_leaf(const struct layout *l, i64 T)
{
    return !l->exact ? 0 : l->exact_context ? T / EXACT_PAIRS : T;
}

static i64 tp(const struct exact *x)
{
    return x->mesh->layout.tp;
}

static i64 cp(const struct exact *x)
{
    return x->mesh->layout.cp;
}

static i64 leaf_of(const struct exact *x)
{
    return exact_leaf(&x->mesh->layout, x->T);
}

/* Leaves of a rank's micro-batch. */
static i64 leaves_here(const struct exact *x)
{
    return x->B * x->T / cp(x) / leaf_of(x);
}

/* For vectors: of a sequence, here. */
static i64 token_leaves(const struct exact *x)
{
    bool context = x->mesh->layout.exact_context;
    return exact_leaves(x->T, context ? EXACT_CONTEXT_LEAVES : EXACT_TOKEN_LEAVES) / cp(x);
}

/* So many leaves of K, N or R, of one piece. */
static void set_leaves(struct task *t, i64 leaves, i64 terms, i64 share)
{
    t->attr[LINEAR_LEAVES] = (double)leaves;
    t->attr[LINEAR_PIECES] = (double)terms;
    t->attr[LINEAR_SHARES] = (double)share;
}

static const struct param *param_of(const struct model *m, const struct tensor *w)
{
    for (i64 i = 0; i < m->n_params; i++)
        if (m->params[i].compute == w)
            return &m->params[i];
    return NULL;
}

/* NULL where the last stage of a pipeline is elsewhere. */
static const struct param *head_of(const struct model *m)
{
    if (!model_has_layer(&m->spec, &m->part, m->spec.layers - 1))
        return NULL;
    return model_param(m, m->spec.tied ? P_WTE : P_HEAD, -1);
}

static bool is_table(const struct param *p)
{
    return p->desc.kind == PARAM_EMBEDDING || p->desc.kind == PARAM_HEAD;
}

/* Of all heads: they come in groups, of which each leaf has as many, or leaves have
 * copies of a key's. */
static i64 head_leaves(const struct model_spec *s)
{
    return exact_leaves(s->kv_heads * decoder_head_copies(s), exact_leaves(s->heads, EXACT_LEAVES));
}

/* Of the whole. */
static i64 leaves_of(const struct exact *x, const struct param *p)
{
    const struct model_spec *s = &x->m->spec;
    if (is_table(p))
        return SHARD_LEAVES;
    if (p->desc.id == P_QKV || p->desc.id == P_OUT || p->desc.id == P_Q_UP ||
        p->desc.id == P_KV_UP)
        return head_leaves(s);
    bool shared = p->desc.id == P_SHARED_UP || p->desc.id == P_SHARED_DOWN;
    if (param_is_expert(&p->desc))
        return exact_leaves(s->expert_hidden, EXACT_LEAVES);
    return exact_leaves(shared ? s->shared_hidden : s->hidden, EXACT_LEAVES);
}

/* --- products ----------------------------------------------------------------------- */

/* y: the sum over what a weight's columns are cut along. */
static void split_product(const struct exact *x, struct task *t)
{
    const struct param *p = param_of(x->m, t->in[1]);
    i64 K = t->in[0]->dim[1];
    if (!p || p->desc.split != SPLIT_COLUMNS)
        return;
    i64 here = leaves_of(x, p) / tp(x);
    set_leaves(t, here, K, K / here);
}

/* dx: the sum over what a weight's rows are cut along. */
static void split_dx(const struct exact *x, struct task *t)
{
    const struct param *p = param_of(x->m, t->in[1]);
    if (!p || p->desc.split != SPLIT_ROWS)
        return;
    i64 here = leaves_of(x, p) / tp(x);
    t->attr[LINEAR_LEAVES] = (double)here;
    for (int i = 0; i < p->shard.pieces; i++) {
        i64 count = p->shard.rows[i].count;
        i64 share = is_table(p) ? ceil_div(p->desc.dim[0], SHARD_LEAVES) : count / here;
        t->attr[LINEAR_PIECES + i] = (double)count;
        t->attr[LINEAR_SHARES + i] = (double)share;
    }
}

/* The same of experts' matrices. */
static void split_experts(const struct exact *x, struct task *t)
{
    const struct param *p = param_of(x->m, t->in[1]);
    bool sums = p && p->desc.split == (t->op == &op_expert_linear ? SPLIT_COLUMNS : SPLIT_ROWS);
    if (!sums)
        return;
    t->attr[EXPERT_SPLIT] = (double)(leaves_of(x, p) / tp(x));
    t->attr[EXPERT_PIECES] = t->op == &op_expert_linear ? 1 : (double)p->shard.pieces;
}

/* dw: the sum over rows, a leaf's or some of them. */
static void split_dw(const struct exact *x, struct task *t)
{
    i64 R = t->in[0]->dim[0], leaf = leaf_of(x);
    set_leaves(t, i64_max(1, R / leaf), R, i64_min(R, leaf));
    t->fresh = true;
}

/* --- vectors: sums of few tokens each, gathered and folded -------------------------- */

static struct tensor *gather(struct graph *g, const struct exact *x, i64 at, struct tensor *part,
                             i64 outer, int layer)
{
    struct task proto = { .op = &op_all_gather, .phase = PHASE_WEIGHT_GRAD, .lane = LANE_TP,
                          .in = { part },
                          .attr = { [COLLECTIVE_SIZE] = (double)tp(x),
                                    [COLLECTIVE_RANK] = (double)x->mesh->tp_rank,
                                    [COLLECTIVE_OUTER] = (double)outer } };
    struct task *t = graph_add_at(g, at, &proto);
    if (t)
        t->layer = layer;
    return t ? t->out[0] : NULL;
}

/* What a sequence's sums are of: so many runs of its tokens here, of each so many leaves of all
 * ranks along tp. */
struct folds {
    i64 runs, leaves;
};

/* Output k of task i becomes the sums of these parts of each sequence; behind it they are folded
 * into what it was. Returns the position of the last task. */
static i64 fold_output(struct graph *g, const struct exact *x, i64 i, i64 last, int k,
                       struct folds f)
{
    struct task *t = g->tasks[i];
    struct tensor *sum = t->out[k];
    if (!sum || sum->rank != 1)
        return last;
    i64 rows = x->B * f.runs * f.leaves / tp(x);
    struct tensor *part = graph_matrix(g, DTYPE_F32, rows, sum->dim[0], "leaf_sums");
    t->out[k] = part;
    t->fresh = true;
    if (tp(x) > 1)
        part = gather(g, x, ++last, part, x->B * f.runs, t->layer);
    struct task *fold = graph_add_at(
        g, ++last, &(struct task){ .op = &op_fold, .phase = PHASE_WEIGHT_GRAD, .fresh = true,
                                   .in = { part }, .out = { sum },
                                   .attr = { [FOLD_LEAVES] = (double)(f.runs * f.leaves) } });
    if (fold)
        fold->layer = t->layer;
    return last;
}

/* All sums of a task over tokens, or over heads. */
static i64 fold_outputs(struct graph *g, const struct exact *x, i64 i, int first, struct folds f)
{
    const struct task *t = g->tasks[i];
    i64 last = i;
    for (int k = first; k < t->op->n_out && g->rc >= 0; k++)
        last = fold_output(g, x, i, last, k, f);
    return last;
}

/* --- embeddings --------------------------------------------------------------------- */

static void split_embed(struct graph *g, struct exact *x, struct task *t)
{
    const struct param *wte = model_param(x->m, P_WTE, -1);
    t->attr[EMBED_GRAIN] = (double)leaf_of(x);
    t->fresh = true;
    if (!x->m->spec.tied || !head_of(x->m) || t->out[0] != wte->grad)
        return; /* else the head's part is summed apart, here or on the last stage */
    enum tensor_role role = x->micro_batches > 1 ? ROLE_RESULT : ROLE_ACTIVATION;
    i64 count = tensor_count(wte->grad);
    x->apart = graph_tensor(g, role, DTYPE_F32, 1, &count, "embedding_gradient");
    t->out[0] = graph_view(g, x->apart, 0, count); /* as a table */
    if (!t->out[0])
        return;
    t->out[0]->rank = 2;
    for (int k = 0; k < 2; k++)
        t->out[0]->dim[k] = wte->grad->dim[k];
}

/* --- counting micro-batches in ------------------------------------------------------ */

/* Micro-batches whose sums this pass counts in: none where ranks sum in between. */
static int counted(const struct exact *x)
{
    return layout_turn_takers(&x->mesh->layout) > 1 ? 1 : x->micro_batches;
}

static void stand_with(struct task *t, const struct task *before)
{
    t->layer = before->layer;
    t->head = before->head;
    t->chunk = before->chunk;
}

/* Behind task `at`, sum is part `index` of `count` in each micro-batch, of `total`. */
static void add_carry(struct graph *g, i64 at, struct tensor *sum, i64 index, i64 count, i64 total)
{
    const i64 dim[] = { carry_levels(total), sum ? tensor_count(sum) : 0 };
    enum tensor_role role = total > count ? ROLE_RESULT : ROLE_ACTIVATION;
    struct tensor *levels = NULL;
    for (i64 i = 0; i < g->n_tasks && !levels; i++) /* those of its other parts */
        if (g->tasks[i]->op == &op_carry && g->tasks[i]->out[0] == sum &&
            g->tasks[i]->attr[CARRY_TOTAL] == (double)total)
            levels = g->tasks[i]->out[1];
    if (!levels)
        levels = graph_tensor(g, role, DTYPE_F32, 2, dim, "carry_levels");
    struct task *carry = graph_add_at(
        g, at + 1, &(struct task){ .op = &op_carry, .phase = PHASE_WEIGHT_GRAD,
                                   .out = { sum, levels },
                                   .attr = { [CARRY_INDEX] = (double)index,
                                             [CARRY_COUNT] = (double)count,
                                             [CARRY_TOTAL] = (double)total } });
    if (!carry)
        return;
    stand_with(carry, g->tasks[at]);
}

/* Sums over what cp cut are completed before anything else; returns the place of that. */
static i64 sum_over_context(struct graph *g, const struct exact *x, i64 at, struct tensor *sum,
                            const struct bucket *b)
{
    const struct layout *l = &x->mesh->layout;
    const enum lane lane = mesh_row_lane(x->mesh, b);
    const bool few = lane == LANE_CP && b->experts && l->ep > 1;
    i64 n = mesh_degree(x->mesh, lane), rank = mesh_coordinate(x->mesh, lane);
    struct task proto = { .op = &op_all_reduce, .phase = PHASE_WEIGHT_GRAD, .lane = lane,
                          .in = { sum }, .out = { sum },
                          .attr = { [COLLECTIVE_SIZE] = (double)(few ? n / l->ep : n),
                                    [COLLECTIVE_RANK] = (double)(few ? rank / l->ep : rank),
                                    [COLLECTIVE_OUTER] = 1, [COLLECTIVE_FEW] = few } };
    if (at < 0 || n == 1)
        return at;
    struct task *t = graph_add_at(g, at + 1, &proto);
    if (t)
        stand_with(t, g->tasks[at]);
    return at + 1;
}

/* Rows of the head's parts: subtrees of leaves, which may take several chunks. */
static i64 head_part_rows(const struct exact *x)
{
    i64 n = leaves_here(x);
    while (n % 2 == 0)
        n /= 2;
    return i64_max(n * leaf_of(x), decoder_exact_chunk(leaves_here(x), leaf_of(x)));
}

/* The head's chunks add up within a part; parts are counted in, within a micro-batch where cp
 * completes what it has. Returns the last task's place. */
static i64 carry_head(struct graph *g, const struct exact *x, i64 i)
{
    struct task *t = g->tasks[i];
    const struct tensor *rows = t->in[1];
    i64 part = head_part_rows(x), first = 0, count = x->B * x->T / cp(x) / part;
    i64 total = cp(x) > 1 ? count : count * counted(x);
    if (rows->owner)
        first = rows->owner_offset / (tensor_bytes(rows) / rows->dim[0]);
    t->fresh = first % part == 0;
    if ((first + rows->dim[0]) % part)
        return i;
    if (total > 1)
        add_carry(g, i++, t->out[0], first / part, count, total);
    if (first / part < count - 1 || cp(x) == 1)
        return i;
    i = sum_over_context(g, x, i, t->out[0], head_of(x->m)->bucket);
    if (counted(x) > 1)
        add_carry(g, i++, t->out[0], 0, 1, counted(x));
    return i;
}

static const struct tensor *root(const struct tensor *t)
{
    return t->owner ? t->owner : t;
}

/* The last task that writes into the bucket, except into `not`; -1: none. */
static i64 last_writer(const struct graph *g, const struct tensor *bucket,
                       const struct tensor *not)
{
    for (i64 i = g->n_tasks - 1; i >= 0; i--)
        for (int k = 0; k < TASK_OUTS; k++) {
            const struct tensor *out = g->tasks[i]->out[k];
            if (out && out != not && root(out) == bucket)
                return i;
        }
    return -1;
}

/* Elements [first, end) of what is a bucket's gradients. */
static void carry_range(struct graph *g, const struct exact *x, i64 at, const struct bucket *b,
                        struct tensor *flat, i64 first, i64 end)
{
    struct tensor *sum = first < end ? graph_view(g, flat, first, end - first) : NULL;
    if (!sum)
        return;
    at = sum_over_context(g, x, at, sum, b);
    if (counted(x) > 1)
        add_carry(g, at, sum, 0, 1, counted(x));
}

/* The first parameter of the bucket from element `at` on that counts its own: the head,
 * and how many tokens experts got, which are whole numbers and simply added up. NULL:
 * none. */
static const struct param *next_apart(const struct exact *x, const struct bucket *b, i64 at)
{
    const struct param *next = NULL, *head = head_of(x->m);
    for (i64 i = 0; i < x->m->n_params; i++) {
        const struct param *p = &x->m->params[i];
        bool apart = p == head || p->desc.kind == PARAM_BALANCE;
        if (p->bucket == b && apart && p->at >= at && (!next || p->at < next->at))
            next = p;
    }
    return next;
}

/* A flat tensor, whose element 0 is the bucket's `from`, but for what is apart; NULL: it is not
 * there. */
static void carry_flat(struct graph *g, const struct exact *x, const struct bucket *b,
                       struct tensor *flat, i64 from)
{
    const struct param *head = head_of(x->m), *apart;
    i64 at = flat ? last_writer(g, flat, head ? head->grad : NULL) : -1, first = 0;
    if (at < 0)
        return;
    for (; (apart = next_apart(x, b, from + first)) && apart->at - from < flat->dim[0];
         first = apart->at - from + tensor_count(apart->grad))
        carry_range(g, x, at, b, flat, first, apart->at - from);
    carry_range(g, x, at, b, flat, first, flat->dim[0]);
}

/* With split gradients vectors are apart. */
static void carry_bucket(struct graph *g, const struct exact *x, const struct bucket *b)
{
    carry_flat(g, x, b, b->grad, b->split_grads ? b->copied : 0);
    if (b->split_grads)
        carry_flat(g, x, b, b->vector_grad, 0);
}

/* Behind task `at`; returns the place of the last task. */
static i64 sum_apart(struct graph *g, const struct exact *x, i64 at, enum lane lane, bool last_turn)
{
    if (mesh_degree(x->mesh, lane) == 1)
        return at;
    struct task proto = { .op = &op_all_reduce, .phase = PHASE_WEIGHT_GRAD, .lane = lane,
                          .last_turn = last_turn, .in = { x->apart }, .out = { x->apart },
                          .attr = { [COLLECTIVE_SIZE] = (double)mesh_degree(x->mesh, lane),
                                    [COLLECTIVE_RANK] = (double)mesh_coordinate(x->mesh, lane),
                                    [COLLECTIVE_OUTER] = 1 } };
    graph_add_at(g, at + 1, &proto);
    return at + 1;
}

/* Counted in and summed over dp like a bucket. */
static void finish_apart(struct graph *g, const struct exact *x)
{
    bool first = layout_turn_takers(&x->mesh->layout) > 1; /* over ranks, then micro-batches */
    i64 at = x->apart ? last_writer(g, x->apart, NULL) : -1;
    if (at < 0)
        return;
    const struct bucket *b = head_of(x->m)->bucket;
    at = sum_over_context(g, x, at, x->apart, b);
    if (first)
        at = sum_apart(g, x, at, mesh_turn_lane(x->mesh, b), false);
    if (x->micro_batches > 1)
        add_carry(g, at++, x->apart, 0, 1, x->micro_batches);
    at = sum_apart(g, x, at, first ? mesh_copies_lane(x->mesh) : LANE_DP, true);
    if (first && mesh_copies_lane(x->mesh) == LANE_EDP) /* within groups, then across */
        sum_apart(g, x, at, LANE_COPIES, true);
}

/* --- the pass ----------------------------------------------------------------------- */

/* Sets the orders of task i's sums; returns the place of the last task that belongs to it. */
static i64 order_sums(struct graph *g, struct exact *x, i64 i)
{
    struct task *t = g->tasks[i];
    const struct param *head = head_of(x->m);
    i64 heads = head_leaves(&x->m->spec);
    const struct folds tokens = { 1, token_leaves(x) };
    if (t->op == &op_linear) {
        split_product(x, t);
    } else if (t->op == &op_linear_dx) {
        split_dx(x, t);
    } else if (t->op == &op_linear_dw) {
        split_dw(x, t);
        return head && t->out[0] == head->grad ? carry_head(g, x, i) : i;
    } else if (t->op == &op_rmsnorm_grad || t->op == &op_layernorm_grad) {
        return fold_outputs(g, x, i, 1, tokens);
    } else if (t->op == &op_column_sums) {
        return fold_outputs(g, x, i, 0, tokens);
    } else if (t->op == &op_qk_norm_grad) {
        t->attr[HEADS_LEAVES] = (double)(heads / tp(x));
        return fold_outputs(g, x, i, 1, (struct folds){ layout_pairs(&x->mesh->layout), heads });
    } else if (t->op == &op_embed_grad) {
        split_embed(g, x, t);
    } else if (t->op == &op_xent_sum) {
        t->attr[XENT_LEAVES] = (double)(SHARD_LEAVES / tp(x));
        t->attr[XENT_SHARE] = (double)ceil_div(head->desc.dim[0], SHARD_LEAVES);
    } else if (t->op == &op_loss_sums) {
        t->attr[LOSS_GRAIN] = 1;
    } else if (t->op == &op_expert_linear || t->op == &op_expert_linear_dx) {
        split_experts(x, t);
    } else if (t->op == &op_expert_linear_dw) {
        t->fresh = true; /* its leaves are those of begin */
    } else if (t->op == &op_router && x->mesh->layout.exact_context) {
        t->attr[ROUTER_LEAF] = (double)leaf_of(x);
    } else if (t->op == &op_expert_load) {
        t->attr[ROUTER_GRAIN] = 1;
    } else if (t->op->accumulates) {
        graph_fail(g, t, "its sums have no order that layouts can share; leave layout.exact off");
    }
    return i;
}

int exact_sums(struct graph *g, struct exact *x)
{
    TRY(g->rc);
    if (!x->mesh->layout.exact)
        return OK;
    for (i64 i = 0; i < g->n_tasks && g->rc >= 0; i++)
        i = order_sums(g, x, i);
    for (i64 b = 0; b < x->m->n_buckets; b++)
        carry_bucket(g, x, &x->m->buckets[b]);
    finish_apart(g, x);
    return g->rc;
}

int exact_join(struct graph *g, const struct exact *x)
{
    TRY(g->rc);
    const struct param *p = head_of(x->m);
    if (!x->apart)
        return OK;
    const struct bucket *b = p->bucket;
    i64 end = i64_min(p->at + param_here(p), b->own_begin + b->own_count);
    i64 first = i64_max(p->at, b->own_begin);
    if (first >= end)
        return OK;
    i64 at = b->split_grads ? bucket_state_at(b, first) : first;
    struct tensor *grad = graph_view(g, b->own_grad, at, end - first);
    struct tensor *apart = graph_view(g, x->apart, first - p->at, end - first);
    graph_add(g, &(struct task){ .op = &op_add, .phase = PHASE_UPDATE, .in = { grad, apart },
                                 .out = { grad } });
    return g->rc;
}
