/* diagnose/dag_order.h - the nodes of a graph behind what they need; only for dag.c.
 *
 * Ranks are walked one after another, so a node may need one of a later rank. Nodes keep the
 * order in which they were added wherever they can. */
#ifndef HEADWAY_DIAGNOSE_DAG_ORDER_H
#define HEADWAY_DIAGNOSE_DAG_ORDER_H

#include "diagnose/dag.h"

struct dag_edge {
    i32 node, need;
};

/* Orders g's nodes, seconds and leads, lists their needs, and puts g->last right. *place: of each
 * node as it was, where it is now. ERR_FORMAT: they wait for each other in a circle. */
int dag_order(struct dag *g, const struct dag_edge *edges, i64 n_edges, struct arena *a,
              const i32 **place);

#endif
