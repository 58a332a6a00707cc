#include "diagnose/whatif_turns.h"

#include "ops/ops.h"

#include <string.h>

/* One cell for each task, or tensor, of each rank. */
struct cells {
    i64 per_rank;
    i32 *at;
};

struct turns {
    const struct dag *g;
    int lane;
    struct cells last;    /* of a task: the action of its last call; -1: it has none */
    struct cells several; /* of a task: 1 where it has calls of other actions, too */
    struct cells brought; /* of a tensor: the call of the last turn that writes it, or -1 */
    struct cells sums;    /* of a tensor: the same, of those that were added to it */
};

static struct cells cells_new(i64 ranks, i64 per_rank, int value, struct arena *a)
{
    struct cells c = { per_rank, ARENA_UNSET(a, i32, ranks * per_rank) };
    memset(c.at, value, (size_t)(ranks * per_rank) * sizeof *c.at); /* of bytes: 0 or -1 */
    return c;
}

static i32 *cell(const struct cells *c, int rank, i64 i)
{
    return &c->at[rank * c->per_rank + i];
}

static bool is_call(const struct turns *t, const struct dag_node *n)
{
    return (n->kind == DAG_CALL || n->kind == DAG_BEGIN) && n->lane == t->lane && n->task;
}

static bool is_earlier(const struct turns *t, const struct dag_node *n)
{
    return is_call(t, n) && n->action < *cell(&t->last, n->rank, n->task_id);
}

static bool has_turns(const struct turns *t, const struct dag_node *n)
{
    return n->kind == DAG_CALL && is_call(t, n) && *cell(&t->several, n->rank, n->task_id);
}

static void count_cells(const struct dag *g, i64 *tasks, i64 *tensors)
{
    *tasks = *tensors = 1;
    for (i64 i = 0; i < g->n; i++) {
        const struct dag_node *n = &g->nodes[i];
        *tasks = i64_max(*tasks, (i64)n->task_id + 1);
        for (int k = 0; n->task && k < n->task->n_reads; k++)
            *tensors = i64_max(*tensors, n->task->reads[k] + 1);
        for (int k = 0; n->task && k < n->task->n_writes; k++)
            *tensors = i64_max(*tensors, n->task->writes[k] + 1);
    }
}

static void see_call(const struct turns *t, const struct dag_node *n)
{
    i32 *last = cell(&t->last, n->rank, n->task_id);
    if (*last >= 0 && *last != n->action)
        *cell(&t->several, n->rank, n->task_id) = 1;
    *last = n->action > *last ? n->action : *last;
}

/* The last turn's call of what a fold adds; -1: it is none, or adds something else. */
static i32 folded(const struct turns *t, const struct dag_node *n)
{
    i32 call = -1;
    if (n->kind != DAG_COMPUTE || !n->task || strcmp(n->task->op, op_fold.name) != 0)
        return -1;
    for (int k = 0; k < n->task->n_reads && call < 0; k++)
        call = *cell(&t->brought, n->rank, n->task->reads[k]);
    return call;
}

static struct turns find_turns(const struct dag *g, int lane, struct arena *a)
{
    struct turns t = { .g = g, .lane = lane };
    i64 tasks, tensors;
    count_cells(g, &tasks, &tensors);
    t.last = cells_new(g->n_ranks, tasks, -1, a);
    t.several = cells_new(g->n_ranks, tasks, 0, a);
    t.brought = cells_new(g->n_ranks, tensors, -1, a);
    t.sums = cells_new(g->n_ranks, tensors, -1, a);
    for (i64 i = 0; i < g->n; i++)
        if (is_call(&t, &g->nodes[i]))
            see_call(&t, &g->nodes[i]);
    for (i64 i = 0; i < g->n; i++) {
        const struct dag_node *n = &g->nodes[i];
        for (int k = 0; has_turns(&t, n) && !is_earlier(&t, n) && k < n->task->n_writes; k++)
            *cell(&t.brought, n->rank, n->task->writes[k]) = (i32)i;
    }
    for (i64 i = 0; i < g->n; i++) {
        const struct dag_node *n = &g->nodes[i];
        const i32 call = folded(&t, n);
        for (int k = 0; call >= 0 && k < n->task->n_writes; k++) {
            i32 *sum = cell(&t.sums, n->rank, n->task->writes[k]);
            *sum = call > *sum ? call : *sum; /* a lane in order: the later one ends later */
        }
    }
    return t;
}

static void shorten(const struct turns *t, double *seconds, double *lead, struct arena *a)
{
    const struct dag *g = t->g;
    bool *begun_behind = ARENA_ARRAY(a, bool, g->n); /* a call that goes, behind this node */
    for (i64 i = 0; i < g->n; i++) {
        const struct dag_node *n = &g->nodes[i];
        if (is_earlier(t, n) || folded(t, n) >= 0)
            seconds[i] = 0;
        if (n->kind == DAG_BEGIN && n->before >= 0 && is_earlier(t, n))
            begun_behind[n->before] = true;
    }
    for (i64 i = 0; i < g->n; i++) {
        const struct dag_node *n = &g->nodes[i];
        if (n->begun == t->lane && n->before >= 0 && begun_behind[n->before])
            lead[i] = 0;
    }
}

/* The call of the last turn whose sum the node reads, where that stands before it; -1: none. */
static i32 sum_read(const struct turns *t, i64 i)
{
    const struct dag_node *n = &t->g->nodes[i];
    i32 latest = -1;
    if ((n->kind != DAG_COMPUTE && n->kind != DAG_BEGIN) || !n->task || folded(t, n) >= 0)
        return -1;
    for (int k = 0; k < n->task->n_reads; k++) {
        const i32 call = *cell(&t->sums, n->rank, n->task->reads[k]);
        latest = call < i && call > latest ? call : latest;
    }
    return latest;
}

struct dag whatif_one_turn(const struct dag *from, int lane, double *seconds, double *lead,
                           struct arena *a)
{
    struct dag g = *from;
    const struct turns t = find_turns(from, lane, a);
    struct dag_node *nodes = ARENA_UNSET(a, struct dag_node, g.n);
    i64 n_needs = g.n, at = 0;
    shorten(&t, seconds, lead, a);
    for (i64 i = 0; i < g.n; i++)
        n_needs += g.nodes[i].n_needs;
    i32 *needs = ARENA_UNSET(a, i32, n_needs);
    for (i64 i = 0; i < g.n; i++) {
        const struct dag_node *n = &from->nodes[i];
        const bool waits_no_more = n->kind == DAG_WAIT || folded(&t, n) >= 0;
        const i32 call = sum_read(&t, i);
        nodes[i] = *n;
        nodes[i].needs = (i32)at;
        for (i32 k = 0; k < n->n_needs; k++) {
            const i32 need = from->needs[n->needs + k];
            const struct dag_node *x = &from->nodes[need];
            if (!(waits_no_more && has_turns(&t, x) && x->rank == n->rank))
                needs[at++] = need;
        }
        if (call >= 0)
            needs[at++] = call;
        nodes[i].n_needs = (i32)at - nodes[i].needs;
    }
    g.nodes = nodes;
    g.needs = needs;
    return g;
}
