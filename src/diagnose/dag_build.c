/* The lists of a graph while it is built (dag_build.h). */
#include "diagnose/dag_build.h"

#include <string.h>

#define GROW(b, list, n, capacity)                                                       \
    do {                                                                                 \
        if ((n) == (capacity)) {                                                         \
            i64 grown_ = i64_max(256, 2 * (capacity));                                   \
            void *to_ = arena_alloc_unset((b)->a, grown_ * (i64)sizeof *(list));         \
            if ((n) > 0)                                                                 \
                memcpy(to_, (list), (size_t)(n) * sizeof *(list));                       \
            (list) = to_;                                                                \
            (capacity) = grown_;                                                         \
        }                                                                                \
    } while (0)

void dag_add_edge(struct dag_builder *b, i32 node, i32 need)
{
    if (need < 0)
        return;
    GROW(b, b->edges, b->n_edges, b->cap_edges);
    b->edges[b->n_edges++] = (struct dag_edge){ node, need };
}

void dag_more_nodes(struct dag_builder *b)
{
    struct dag *g = b->g;
    i64 cap = b->cap_nodes, again = cap, third = cap;
    GROW(b, g->nodes, g->n, b->cap_nodes);
    GROW(b, g->seconds, g->n, cap);
    GROW(b, g->lead, g->n, again);
    GROW(b, b->ends, g->n, third);
}

i32 dag_add_call(struct dag_builder *b, const struct dag_call *c)
{
    GROW(b, b->calls, b->n_calls, b->cap_calls);
    b->calls[b->n_calls] = *c;
    return (i32)b->n_calls++;
}

/* Room for about as many nodes and needs as there are spans, so that lists are seldom copied. */
void dag_make_room(struct dag_builder *b, const struct record_step *s)
{
    i64 spans = 0;
    for (int r = 0; r < s->n_ranks; r++)
        spans += s->ranks[r].n_spans;
    b->cap_nodes = 2 * spans + 256;
    b->g->nodes = ARENA_UNSET(b->a, struct dag_node, b->cap_nodes);
    b->g->seconds = ARENA_UNSET(b->a, double, b->cap_nodes);
    b->g->lead = ARENA_UNSET(b->a, double, b->cap_nodes);
    b->ends = ARENA_UNSET(b->a, double, b->cap_nodes);
    b->cap_edges = b->cap_nodes;
    b->edges = ARENA_UNSET(b->a, struct dag_edge, b->cap_edges);
}
