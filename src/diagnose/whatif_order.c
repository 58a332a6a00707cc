/* Edits of what waits for what in a step's graph. */
#include "diagnose/whatif_order.h"

#include "diagnose/findings.h"

#include <math.h>
#include <string.h>

/* The node of its rank's chain behind which a call can begin, where that is before the one behind
 * which it did: all that it reads and writes is computed. writer: of each tensor the rank's last
 * node so far; place: where a node stands in its chain. */
static i32 ready_behind(const struct dag_node *n, const i32 *writer, const i32 *place)
{
    i32 latest = -1;
    for (int i = 0; i < n->task->n_reads + n->task->n_writes; i++) {
        const i32 by = writer[i < n->task->n_reads ? n->task->reads[i]
                                                   : n->task->writes[i - n->task->n_reads]];
        if (by >= 0 && (latest < 0 || place[by] > place[latest]))
            latest = by;
    }
    return latest >= 0 && n->before >= 0 && place[latest] < place[n->before] ? latest : n->before;
}

struct dag whatif_begun_when_ready(const struct dag *from, const struct record_step *s,
                                   struct arena *a)
{
    struct dag g = *from;
    struct dag_node *nodes = ARENA_UNSET(a, struct dag_node, g.n);
    i32 *place = ARENA_ARRAY(a, i32, g.n), **writers = ARENA_ARRAY(a, i32 *, g.n_ranks);
    memcpy(nodes, g.nodes, (size_t)g.n * sizeof *nodes);
    for (i64 i = 0; i < g.n; i++) {
        struct dag_node *n = &nodes[i];
        const struct record_table *t = n->rank >= 0 ? s->ranks[n->rank].table : NULL;
        if (n->kind != DAG_CALL && n->before >= 0)
            place[i] = place[n->before] + 1;
        if (!t || !n->task)
            continue;
        if (!writers[n->rank]) {
            writers[n->rank] = ARENA_UNSET(a, i32, t->n_tensors);
            memset(writers[n->rank], -1, (size_t)t->n_tensors * sizeof(i32));
        }
        for (int k = 0; n->kind == DAG_COMPUTE && k < n->task->n_writes; k++)
            writers[n->rank][n->task->writes[k]] = (i32)i;
        if (n->kind == DAG_BEGIN && finding_can_hide(n->lane))
            n->before = ready_behind(n, writers[n->rank], place);
    }
    g.nodes = nodes;
    return g;
}

/* A pipeline's receive cannot be waited for before what is sent. */
static bool stands_early(const struct dag_node *n)
{
    return n->kind == DAG_WAIT && n->early && n->lane != LANE_PP;
}

struct dag whatif_waiting_when_needed(const struct dag *from, struct arena *a)
{
    struct dag g = *from;
    struct dag_node *nodes = ARENA_UNSET(a, struct dag_node, g.n);
    memcpy(nodes, from->nodes, (size_t)g.n * sizeof *nodes);
    for (i64 i = 0; i < g.n; i++)
        if (stands_early(&nodes[i]))
            nodes[i].n_needs = 0;
    g.nodes = nodes;
    return g;
}

void whatif_add_early(const struct dag *g, double *ends, double *seconds)
{
    dag_length(g, NULL, NULL, ends);
    for (i64 i = 0; i < g->n; i++) {
        const struct dag_node *n = &g->nodes[i];
        if (!stands_early(n))
            continue;
        const double from = n->before >= 0 ? ends[n->before] : g->starts[n->rank];
        seconds[n->rank] += dag_larger(0, ends[i] - from - g->lead[i]);
    }
}

double whatif_delayed_length(const struct measure *m, const struct dag *g, const double *seconds,
                             const double *lead, double *ends)
{
    double latency[LANE_COUNT] = { 0 };
    struct arena a;
    arena_init(&a);
    double *held = ARENA_ARRAY(&a, double, g->n);
    for (i64 i = 0; i < m->n_lanes; i++)
        latency[m->lanes[i].lane] = m->lanes[i].latency_s;
    dag_length(g, NULL, NULL, ends);
    for (i64 i = 0; i < g->n; i++) {
        const struct dag_node *n = &g->nodes[i];
        double came = -INFINITY;
        for (i64 k = 0; k < n->n_needs; k++)
            came = dag_larger(came, ends[g->needs[n->needs + k]]);
        if (n->kind == DAG_CALL && latency[n->lane] > 0)
            held[i] = fmin(latency[n->lane], ends[i] - came);
    }
    const double length = dag_length_held(g, seconds, lead, held, ends);
    arena_fini(&a);
    return length;
}
