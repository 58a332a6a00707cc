#include "parallel/context_parallel.h"

#include "ops/ops.h"

struct rewrite {
    struct graph *g;
    const struct mesh *mesh;
    struct tensor *begin, *all_begin; /* of this rank's tokens; of whole rows, once gathered */
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
        .D = (int)t->attr[ATTENTION_D], .window = (int)t->attr[ATTENTION_WINDOW],
        .scale = t->attr[ATTENTION_SCALE] };
}

/* --- ulysses ------------------------------------------------------------------------------- */

/* Outside the layers: no recompute pass repeats it. */
static struct tensor *begin_of_rows(struct rewrite *r, struct tensor *begin, i64 B)
{
    int layer = r->g->layer;
    if (begin == r->begin)
        return r->all_begin;
    r->g->layer = -1;
    struct tensor *parts = exchange(r, &op_all_gather, begin, 0);
    r->begin = begin;
    r->all_begin = order_rows(r->g, parts, mesh_degree(r->mesh, LANE_CP), false, B);
    r->g->layer = layer;
    return r->all_begin;
}

static void spread_attention(struct rewrite *r, const struct task *t)
{
    struct graph *g = r->g;
    struct attention_shape s = shape_of(t);
    const i64 n = mesh_degree(r->mesh, LANE_CP), H = s.H;
    struct tensor *begin = begin_of_rows(r, t->in[1], s.B);
    struct tensor *x = spread_heads(g, t->in[0], n, false, H, s.G, s.D);
    x = order_rows(g, exchange(r, &op_all_to_all, x, 0), n, false, s.B);
    s.T *= (int)n;
    s.H /= (int)n;
    s.G /= (int)n;
    x = order_rows(g, attention(g, x, begin, &s), n, true, s.B);
    x = exchange(r, &op_all_to_all, x, 0);
    graph_add(g, &(struct task){ .op = &op_spread_heads, .in = { x }, .out = { t->out[0] },
                                 .attr = { [SPREAD_PARTS] = (double)n, [SPREAD_BACK] = 1,
                                           [SPREAD_H] = (double)H, [SPREAD_D] = s.D } });
}

/* --- ring ---------------------------------------------------------------------------------- */

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

/* --- the pass ------------------------------------------------------------------------------ */

i64 context_tokens(const struct mesh *mesh, i64 T)
{
    return T / mesh->layout.cp;
}

int context_parallel(struct graph *g, const struct mesh *mesh)
{
    TRY(g->rc);
    if (mesh->layout.cp == 1)
        return OK;
    struct rewrite r = { .g = g, .mesh = mesh };
    struct task **old = g->tasks;
    i64 n = g->n_tasks;
    g->tasks = NULL;
    g->n_tasks = g->cap_tasks = 0;
    for (i64 i = 0; i < n && g->rc >= 0; i++) {
        g->layer = old[i]->layer;
        g->part = old[i]->part;
        if (old[i]->op != &op_attention)
            graph_insert(g, g->n_tasks, old[i]);
        else if (mesh->layout.cp_kind == CP_ULYSSES)
            spread_attention(&r, old[i]);
        else
            ring_attention(&r, old[i]);
    }
    g->layer = -1;
    g->part = 0;
    return g->rc;
}
