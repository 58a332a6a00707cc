#include "parallel/context_parallel.h"

#include "ops/ops.h"

struct rewrite {
    struct graph *g;
    const struct mesh *mesh;
    struct tensor *begin, *all_begin; /* of this rank's tokens; as attention needs it */
    struct tensor *stats, *all_stats; /* the last router's, of these tokens; of whole rows */
};

static struct tensor *exchange(const struct rewrite *r, const struct op_info *op, struct tensor *x,
                               double step)
{
    struct task proto = { .op = op, .lane = LANE_CP, .in = { x },
                          .attr = { [COLLECTIVE_SIZE] = (double)mesh_degree(r->mesh, LANE_CP),
                                    [COLLECTIVE_RANK] = (double)mesh_coordinate(r->mesh, LANE_CP),
                                    [COLLECTIVE_OUTER] = 1,
                                    [RING_STEP] = step } };
    struct task *t = graph_add(r->g, &proto);
    return t ? t->out[0] : NULL;
}

static struct attention_shape shape_of(const struct task *t)
{
    return (struct attention_shape){
        .B = (int)t->attr[ATTENTION_B], .T = (int)t->attr[ATTENTION_T],
        .H = (int)t->attr[ATTENTION_H], .G = (int)t->attr[ATTENTION_G],
        .D = (int)t->attr[ATTENTION_D], .V = (int)t->attr[ATTENTION_VALUE],
        .window = (int)t->attr[ATTENTION_WINDOW], .scale = t->attr[ATTENTION_SCALE] };
}

/* --- order of tokens ---------------------------------------------------------------- */

/* A part in one pair is in order. */
static struct tensor *in_order(const struct rewrite *r, struct tensor *x, i64 parts, i64 pairs,
                               bool back, i64 B)
{
    return parts * pairs == 1 ? x : order_rows(r->g, x, parts, pairs, back, B, NULL);
}

/* begin of tokens in order: of whole rows, gathered from all parts, or of those here. Outside
 * the layers: no recompute pass repeats it. */
static struct tensor *begin_in_order(struct rewrite *r, struct tensor *begin, i64 parts, i64 B)
{
    int layer = r->g->layer;
    if (begin == r->begin)
        return r->all_begin;
    r->g->layer = -1;
    r->begin = begin;
    r->all_begin = in_order(r, parts > 1 ? exchange(r, &op_all_gather, begin, 0) : begin, parts,
                            layout_pairs(&r->mesh->layout), false, B);
    r->g->layer = layer;
    return r->all_begin;
}

/* --- ulysses ------------------------------------------------------------------------ */

static void spread_attention(struct rewrite *r, const struct task *t)
{
    struct graph *g = r->g;
    struct attention_shape s = shape_of(t);
    const struct attention_shape all = s;
    const i64 n = mesh_degree(r->mesh, LANE_CP), pairs = layout_pairs(&r->mesh->layout);
    struct tensor *begin = begin_in_order(r, t->in[1], n, s.B);
    struct tensor *x = spread_heads(g, t->in[0], n, false, &all);
    x = in_order(r, exchange(r, &op_all_to_all, x, 0), n, pairs, false, s.B);
    s.T *= (int)n;
    s.H /= (int)n;
    s.G /= (int)n;
    s.pairs = r->mesh->layout.exact_context ? EXACT_PAIRS : 0;
    x = in_order(r, attention(g, x, begin, &s), n, pairs, true, s.B);
    x = exchange(r, &op_all_to_all, x, 0);
    graph_add(g, &(struct task){ .op = &op_spread_heads, .in = { x }, .out = { t->out[0] },
                                 .attr = { [SPREAD_PARTS] = (double)n, [SPREAD_BACK] = 1,
                                           [SPREAD_H] = all.H,
                                           [SPREAD_D] = all.V > 0 ? all.V : all.D } });
}

/* --- ring --------------------------------------------------------------------------- */

/* The own part first: every query sees at least itself there. */
static void ring_attention(struct rewrite *r, const struct task *t)
{
    struct graph *g = r->g;
    const struct attention_shape s = shape_of(t);
    const i64 n = mesh_degree(r->mesh, LANE_CP), own = mesh_coordinate(r->mesh, LANE_CP);
    const struct task *split = split_qkv(g, t->in[0], (i64)s.H * s.D), *block = NULL;
    struct tensor *kv = split ? split->out[1] : NULL;
    for (i64 i = 0; i < n && g->rc >= 0; i++) {
        const struct attention_part part = { n, own, (own - i + n) % n, i == n - 1 };
        struct tensor *next = part.last ? NULL : exchange(r, &op_ring_shift, kv, 1);
        block = attention_block(g, split->out[0], kv, t->in[1], block, &s, &part,
                                part.last ? t->out[0] : NULL);
        kv = next;
    }
}

/* --- exact -------------------------------------------------------------------------- */

/* One rank: tokens lie in pairs of chunks, which many could share. */
static void row_attention(struct rewrite *r, const struct task *t)
{
    struct attention_shape s = shape_of(t);
    struct tensor *begin = begin_in_order(r, t->in[1], 1, s.B);
    struct tensor *x = in_order(r, t->in[0], 1, EXACT_PAIRS, false, s.B);
    s.pairs = EXACT_PAIRS;
    order_rows(r->g, attention(r->g, x, begin, &s), 1, EXACT_PAIRS, true, s.B, t->out[0]);
}

/* All keys and values of the row, in order, so that a query meets them as on one rank. Their
 * gradients, sums over the own queries in f32, are summed by the gather's own gradient. */
static struct tensor *gather_keys(struct rewrite *r, struct tensor *kv, i64 n, i64 B)
{
    struct tensor *parts = exchange(r, &op_all_gather, kv, 0);
    if (parts)
        parts->wide_grad = true;
    return in_order(r, parts, n, 1, false, B);
}

/* The tokens here are put in order as those of a row: first the low chunk, then the high one. */
static void gathered_attention(struct rewrite *r, const struct task *t)
{
    struct graph *g = r->g;
    struct attention_shape s = shape_of(t);
    const i64 n = mesh_degree(r->mesh, LANE_CP), own = mesh_coordinate(r->mesh, LANE_CP);
    const i64 pairs = layout_pairs(&r->mesh->layout);
    const struct attention_part part = { n, own, -1, true };
    struct tensor *begin = begin_in_order(r, t->in[1], 1, s.B);
    struct tensor *x = in_order(r, t->in[0], 1, pairs, false, s.B);
    const struct task *split = split_qkv(g, x, (i64)s.H * s.D);
    struct tensor *kv = split ? gather_keys(r, split->out[1], n, s.B) : NULL;
    s.pairs = (int)pairs;
    const struct task *block = kv ? attention_block(g, split->out[0], kv, begin, NULL, &s, &part,
                                                    pairs == 1 ? t->out[0] : NULL) : NULL;
    if (block && pairs > 1)
        order_rows(g, block->out[0], 1, pairs, true, s.B, t->out[0]);
}

/* --- experts ------------------------------------------------------------------------ */
/* Routing is token by token, but for what is said of whole rows: how many of their tokens chose an
 * expert, which the balance loss multiplies, and which ones find room there. */

/* Outside the layers, as above. */
static void sum_stats(struct rewrite *r, struct task *router)
{
    int layer = r->g->layer;
    graph_insert(r->g, r->g->n_tasks, router);
    r->stats = r->all_stats = router->out[2];
    if (r->mesh->layout.cp == 1 || !r->stats)
        return;
    r->g->layer = -1;
    r->all_stats = exchange(r, &op_all_reduce, r->stats, 0);
    r->g->layer = layer;
}

/* What routers did is told once; a bias goes by the counts that gradients are summed with, over dp
 * alone in exact mode, but where sums over rows are those over their tokens too. */
static void count_load(struct rewrite *r, struct task *load)
{
    const bool tells = load->out[0] && r->mesh->cp_rank == 0;
    const bool counts = load->out[1] != NULL;
    if (!tells && !counts)
        return;
    if (tells || (r->mesh->layout.exact_context && !mesh_joins_rows(r->mesh)))
        load->in[0] = r->all_stats;
    graph_insert(r->g, r->g->n_tasks, load);
}

/* Which of a row's tokens come first, whoever has them. */
static void order_row(struct rewrite *r, struct task *order)
{
    const i64 n = mesh_degree(r->mesh, LANE_CP);
    if (order->attr[ORDER_CAPACITY] > 0) {
        order->in[1] = n > 1 ? exchange(r, &op_all_gather, order->in[0], 0) : NULL;
        order->attr[ORDER_ROW_PARTS] = (double)n;
        order->attr[ORDER_ROW_PART] = (double)mesh_coordinate(r->mesh, LANE_CP);
        order->attr[ORDER_ROW_PAIRS] = (double)layout_pairs(&r->mesh->layout);
    }
    graph_insert(r->g, r->g->n_tasks, order);
}

/* --- the pass ----------------------------------------------------------------------- */

i64 context_tokens(const struct mesh *mesh, i64 T)
{
    return T / mesh->layout.cp;
}

static void (*attention_of(const struct layout *l))(struct rewrite *r, const struct task *t)
{
    if (l->cp == 1)
        return row_attention;
    if (l->cp_kind == CP_ULYSSES)
        return spread_attention;
    return l->exact_context ? gathered_attention : ring_attention;
}

static void rewrite_task(struct rewrite *r, struct task *t)
{
    if (t->op == &op_attention)
        attention_of(&r->mesh->layout)(r, t);
    else if (t->op == &op_router)
        sum_stats(r, t);
    else if (t->op == &op_expert_load)
        count_load(r, t);
    else if (t->op == &op_expert_order)
        order_row(r, t);
    else
        graph_insert(r->g, r->g->n_tasks, t);
}

int context_parallel(struct graph *g, const struct mesh *mesh)
{
    TRY(g->rc);
    if (mesh->layout.cp == 1 && !mesh->layout.exact_context)
        return OK;
    struct rewrite r = { .g = g, .mesh = mesh };
    struct task **old = g->tasks;
    i64 n = g->n_tasks;
    g->tasks = NULL;
    g->n_tasks = g->cap_tasks = 0;
    for (i64 i = 0; i < n && g->rc >= 0; i++) {
        g->layer = old[i]->layer;
        g->part = old[i]->part;
        rewrite_task(&r, old[i]);
    }
    g->layer = -1;
    g->part = 0;
    return g->rc;
}
