#include "diagnose/dag_order.h"

#include "base/err.h"

static void list_needs(struct dag *g, const struct dag_edge *edges, i64 n_edges, struct arena *a)
{
    g->needs = ARENA_UNSET(a, i32, n_edges);
    for (i64 i = 0; i < n_edges; i++)
        g->nodes[edges[i].node].n_needs++;
    i32 at = 0;
    for (i64 i = 0; i < g->n; i++) {
        g->nodes[i].needs = at;
        at += g->nodes[i].n_needs;
        g->nodes[i].n_needs = 0;
    }
    for (i64 i = 0; i < n_edges; i++) {
        struct dag_node *n = &g->nodes[edges[i].node];
        g->needs[n->needs + n->n_needs++] = edges[i].need;
    }
}

/* Nodes as they get their places: each behind what it needs. */
struct order {
    const struct dag *from;
    struct dag_node *nodes;
    double *seconds, *lead;
    i32 *place; /* of each of from's nodes; NEW, OPEN: it has none */
    i32 n;
};

enum { NEW = -1, OPEN = -2 };

static void put(struct order *o, i64 i)
{
    const i32 at = o->n++;
    const struct dag_node *n = &o->from->nodes[i];
    o->nodes[at] = *n;
    o->nodes[at].before = n->before >= 0 ? o->place[n->before] : -1;
    o->seconds[at] = o->from->seconds[i];
    o->lead[at] = o->from->lead[i];
    o->place[i] = at;
}

/* Whether all that the node needs has its place, as is the rule. */
static bool needs_stand(const struct order *o, i64 node)
{
    const struct dag_node *n = &o->from->nodes[node];
    bool all = n->before < 0 || o->place[n->before] >= 0;
    for (i32 k = 0; k < n->n_needs && all; k++)
        all = o->place[o->from->needs[n->needs + k]] >= 0;
    return all;
}

/* False: a circle. */
static bool sort_nodes(struct order *o, i32 *stack, i64 *at)
{
    const struct dag *g = o->from;
    for (i64 i = 0; i < g->n; i++)
        o->place[i] = NEW;
    for (i64 root = 0; root < g->n; root++) {
        i64 depth = 0;
        if (o->place[root] != NEW)
            continue;
        if (needs_stand(o, root)) {
            put(o, root);
            continue;
        }
        stack[0] = (i32)root;
        at[0] = -1;
        o->place[root] = OPEN;
        while (depth >= 0) {
            const struct dag_node *node = &g->nodes[stack[depth]];
            if (at[depth] == node->n_needs) {
                put(o, stack[depth--]);
                continue;
            }
            i32 next = at[depth] < 0 ? node->before : g->needs[node->needs + at[depth]];
            at[depth]++;
            if (next < 0 || o->place[next] >= 0)
                continue;
            if (o->place[next] == OPEN)
                return false;
            o->place[next] = OPEN;
            stack[++depth] = next;
            at[depth] = -1;
        }
    }
    return true;
}

int dag_order(struct dag *g, const struct dag_edge *edges, i64 n_edges, struct arena *a,
              const i32 **place)
{
    list_needs(g, edges, n_edges, a);
    struct order o = { .from = g, .nodes = ARENA_UNSET(a, struct dag_node, g->n),
                       .seconds = ARENA_UNSET(a, double, g->n),
                       .lead = ARENA_UNSET(a, double, g->n),
                       .place = ARENA_UNSET(a, i32, g->n) };
    i32 *stack = ARENA_UNSET(a, i32, g->n + 1);
    i64 *at = ARENA_UNSET(a, i64, g->n + 1);
    if (!sort_nodes(&o, stack, at))
        return err_set(ERR_FORMAT, "the spans of a step wait for each other in a circle");
    for (i64 i = 0; i < n_edges; i++)
        g->needs[i] = o.place[g->needs[i]];
    for (int r = 0; r < g->n_ranks; r++)
        g->last[r] = g->last[r] >= 0 ? o.place[g->last[r]] : -1;
    g->nodes = o.nodes;
    g->seconds = o.seconds;
    g->lead = o.lead;
    *place = o.place;
    return OK;
}
