/* diagnose/dag_build.h - a graph while it is built: nodes, needs and calls as they come; only for
 * dag.c, which walks each rank's program, and dag_join.c, which joins the calls of its members. */
#ifndef HEADWAY_DIAGNOSE_DAG_BUILD_H
#define HEADWAY_DIAGNOSE_DAG_BUILD_H

#include "diagnose/dag_again.h"
#include "diagnose/dag_order.h"

/* All of it lives in the step's arena. */
struct dag_builder {
    struct arena *a;
    struct dag *g;
    i64 zero_ns;
    i64 cap_nodes;
    double *ends; /* of each node, as measured: seconds since the step's begin */
    struct dag_edge *edges;
    i64 n_edges, cap_edges;
    struct dag_call *calls;
    i64 n_calls, cap_calls;
    struct dag_log *log; /* of what times have decided; NULL: nobody asks */
};

/* Room for about as many nodes and needs as there are spans, so that lists are seldom copied. */
void dag_make_room(struct dag_builder *b, const struct record_step *s);
void dag_more_nodes(struct dag_builder *b);

/* need -1: nothing is added. */
void dag_add_edge(struct dag_builder *b, i32 node, i32 need);
/* Returns its place in builder.calls. */
i32 dag_add_call(struct dag_builder *b, const struct dag_call *c);

/* Returns the node; end: as measured. */
static inline i32 dag_add_node(struct dag_builder *b, const struct dag_node *n, double end,
                               double seconds, double lead)
{
    struct dag *g = b->g;
    if (g->n == b->cap_nodes)
        dag_more_nodes(b);
    g->nodes[g->n] = *n;
    g->seconds[g->n] = dag_larger(seconds, 0);
    g->lead[g->n] = dag_larger(lead, 0);
    b->ends[g->n] = end;
    return (i32)g->n++;
}

/* A call of a group ends behind its members' begins: sorts builder.calls by group, adds the needs
 * and the nodes between, and sets the seconds of each call's end. */
void dag_join_calls(struct dag_builder *b);

#endif
