/* Calls of all members of a group: whom each has waited for, and how long it took from then on. */
#include "base/sort.h"
#include "diagnose/dag_build.h"

#include <math.h>
#include <stdlib.h>

static int by_key(const void *a, const void *b)
{
    const struct dag_call *x = a, *y = b;
    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    if (x->number != y->number)
        return x->number < y->number ? -1 : 1;
    return (x->begin > y->begin) - (x->begin < y->begin);
}

static int by_begin_of_call(const void *a, const void *b)
{
    const struct dag_call *x = *(const struct dag_call *const *)a;
    const struct dag_call *y = *(const struct dag_call *const *)b;
    return (x->began > y->began) - (x->began < y->began);
}

/* Who ended before the last had begun needs those that had begun by then: some meetings are of
 * a few ranks at a time. A node of its own gathers the first k of them, and the one before it. */
struct prefix {
    const struct dag_call **by_begin; /* [n]; NULL: nobody is early */
    i32 *ready;                       /* [n] node of the first k + 1; -1: not made */
};

static i32 prefix_ready(struct dag_builder *b, struct prefix *p, i64 k)
{
    i64 from = k;
    while (from > 0 && p->ready[from] < 0)
        from--;
    for (i64 i = p->ready[from] < 0 ? from : from + 1; i <= k; i++) {
        const struct dag_call *c = p->by_begin[i];
        struct dag_node node = { .kind = DAG_READY, .rank = -1, .before = -1,
                                 .lane = b->g->nodes[c->end].lane };
        p->ready[i] = dag_add_node(b, &node, c->began, 0, 0);
        dag_add_edge(b, p->ready[i], c->begin);
        if (i > 0)
            dag_add_edge(b, p->ready[i], p->ready[i - 1]);
    }
    return p->ready[k];
}

/* How many had begun by then, but for the clocks. */
static i64 begun_by(const struct prefix *p, i64 n, double then)
{
    i64 k = 0;
    while (k < n && p->by_begin[k]->began <= then)
        k++;
    return k;
}

static void open_prefix(struct dag_builder *b, struct prefix *p, const struct dag_call *c, i64 n)
{
    p->by_begin = ARENA_UNSET(b->a, const struct dag_call *, n);
    p->ready = ARENA_UNSET(b->a, i32, n);
    for (i64 i = 0; i < n; i++) {
        p->by_begin[i] = &c[i];
        p->ready[i] = -1;
    }
    qsort(p->by_begin, (size_t)n, sizeof *p->by_begin, by_begin_of_call);
}

static void join_call(struct dag_builder *b, struct dag_call *c, i64 n)
{
    double all = -INFINITY;
    struct prefix p = { NULL, NULL };
    i32 ready = -1;
    for (i64 i = 0; i < n; i++)
        all = dag_larger(all, c[i].began);
    for (i64 i = 0; i < n; i++) {
        double since = c[i].began;
        if (dag_is_early(&c[i], n, all)) {
            if (b->log)
                b->log->odd = true;
            if (!p.by_begin)
                open_prefix(b, &p, c, n);
            i64 k = begun_by(&p, n, dag_larger(c[i].ended + dag_early_s, since));
            dag_add_edge(b, c[i].end, prefix_ready(b, &p, k - 1));
            since = dag_larger(since, p.by_begin[k - 1]->began);
        } else if (n > 1) {
            if (ready < 0) {
                struct dag_node node = { .kind = DAG_READY, .rank = -1, .before = -1,
                                         .lane = b->g->nodes[c->end].lane };
                ready = dag_add_node(b, &node, all, 0, 0);
                for (i64 k = 0; k < n; k++)
                    dag_add_edge(b, ready, c[k].begin);
                c[0].ready = ready;
            }
            dag_add_edge(b, c[i].end, ready);
            since = dag_larger(since, all);
        }
        const i32 before = b->g->nodes[c[i].end].before;
        if (before >= 0)
            since = dag_larger(since, b->ends[before]);
        b->ends[c[i].end] = c[i].ended;
        b->g->seconds[c[i].end] = dag_larger(0, c[i].ended - since);
    }
}

void dag_join_calls(struct dag_builder *b)
{
    sort_runs(b->calls, b->n_calls, (i64)sizeof *b->calls, by_key, b->a);
    for (i64 i = 0, j; i < b->n_calls; i = j) {
        j = dag_call_end(b->calls, b->n_calls, i);
        join_call(b, &b->calls[i], j - i);
    }
}
