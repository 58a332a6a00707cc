/* How long a step takes along its graph (dag.h), as it was or with other durations. */
#include "diagnose/dag.h"

#include <math.h>
#include <string.h>

static void *copy(struct arena *a, const void *from, i64 bytes)
{
    void *to = arena_alloc(a, bytes);
    if (bytes > 0)
        memcpy(to, from, (size_t)bytes);
    return to;
}

struct dag *dag_keep(const struct dag *g, struct arena *a)
{
    struct dag *k = ARENA_NEW(a, struct dag);
    i64 needs = 0;
    for (i64 i = 0; i < g->n; i++)
        needs = i64_max(needs, g->nodes[i].needs + g->nodes[i].n_needs);
    *k = *g;
    k->nodes = copy(a, g->nodes, g->n * (i64)sizeof *g->nodes);
    k->needs = copy(a, g->needs, needs * (i64)sizeof *g->needs);
    k->seconds = copy(a, g->seconds, g->n * (i64)sizeof *g->seconds);
    k->lead = copy(a, g->lead, g->n * (i64)sizeof *g->lead);
    k->starts = copy(a, g->starts, g->n_ranks * (i64)sizeof *g->starts);
    k->last = copy(a, g->last, g->n_ranks * (i64)sizeof *g->last);
    k->ends = k->own_ends = NULL;
    k->computes = NULL; /* a shape's, which does not stay */
    return k;
}

/* --- length ------------------------------------------------------------------------- */

double dag_length(const struct dag *g, const double *seconds, const double *lead, double *ends)
{
    return dag_length_held(g, seconds, lead, NULL, ends);
}

double dag_length_held(const struct dag *g, const double *seconds, const double *lead,
                       const double *held, double *ends)
{
    double longest = 0;
    seconds = seconds ? seconds : g->seconds;
    lead = lead ? lead : g->lead;
    ends = ends ? ends : g->ends;
    for (i64 i = 0; i < g->n; i++) {
        const struct dag_node *n = &g->nodes[i];
        double t = n->before >= 0 ? ends[n->before] : n->rank >= 0 ? g->starts[n->rank] : -INFINITY;
        double came = -INFINITY;
        for (i64 k = 0; k < n->n_needs; k++)
            came = dag_larger(came, ends[g->needs[n->needs + k]]);
        ends[i] = dag_larger(t + lead[i], came) + seconds[i];
        if (held)
            ends[i] = dag_larger(ends[i], came + held[i]);
        longest = n->kind == DAG_REST ? dag_larger(longest, ends[i]) : longest;
    }
    return longest;
}

void dag_settle(struct dag *g)
{
    g->length = dag_length(g, NULL, NULL, g->own_ends);
}

/* --- gaps --------------------------------------------------------------------------- */

static bool in_chain(const struct dag_node *n)
{
    return n->kind != DAG_BEGIN && n->kind != DAG_CALL && n->kind != DAG_READY;
}

void dag_scale_gaps(const struct dag *g, const bool *ranks, double factor, double *seconds,
                    double *lead)
{
    struct arena a;
    arena_init(&a);
    double *gone = ARENA_ARRAY(&a, double, g->n); /* behind the node, until the next of its chain */
    double *first = ARENA_ARRAY(&a, double, g->n_ranks); /* the same behind a rank's begin */
    for (i64 i = 0; i < g->n; i++) {
        const struct dag_node *n = &g->nodes[i];
        if (n->rank < 0 || !ranks[n->rank])
            continue;
        if (in_chain(n))
            *(n->before >= 0 ? &gone[n->before] : &first[n->rank]) = lead[i] * (1 - factor);
        lead[i] *= factor;
    }
    for (i64 i = 0; i < g->n; i++) {
        const struct dag_node *n = &g->nodes[i];
        if (n->kind == DAG_BEGIN && n->rank >= 0 && ranks[n->rank])
            seconds[i] = fmax(0, seconds[i] - (n->before >= 0 ? gone[n->before] : first[n->rank]));
    }
    arena_fini(&a);
}

/* --- the critical path -------------------------------------------------------------- */

static void push(struct dag_segment *out, i64 *n, i64 node, int part, double from, double to)
{
    if (to > fmax(from, 0))
        out[(*n)++] = (struct dag_segment){ node, part, fmax(from, 0), to };
}

i64 dag_critical(const struct dag *g, const double *seconds, const double *lead,
                 struct dag_segment *out)
{
    const bool own = !seconds && !lead;
    const double length = own ? g->length : dag_length(g, seconds, lead, g->ends);
    const double *ends = own ? g->own_ends : g->ends;
    i64 at = -1, n = 0;
    lead = lead ? lead : g->lead;
    for (int r = 0; r < g->n_ranks && at < 0; r++)
        if (g->last[r] >= 0 && ends[g->last[r]] == length)
            at = g->last[r];
    for (double to = length; at >= 0 && to > 0;) {
        const struct dag_node *node = &g->nodes[at];
        double latest = -INFINITY;
        i32 by = -1;
        for (i64 k = 0; k < node->n_needs; k++) {
            i32 need = g->needs[node->needs + k];
            if (ends[need] > latest) {
                latest = ends[need];
                by = need;
            }
        }
        double before = node->before >= 0 ? ends[node->before]
                        : node->rank >= 0 ? g->starts[node->rank] : -INFINITY;
        bool chained = before + lead[at] >= latest;
        double from = chained ? before + lead[at] : latest;
        push(out, &n, at, DAG_IN_NODE, from, to);
        if (chained && before < from) {
            push(out, &n, at, DAG_IN_LEAD, before, from);
            from = before;
        }
        to = fmin(to, from);
        at = chained ? node->before : by;
    }
    return n;
}
