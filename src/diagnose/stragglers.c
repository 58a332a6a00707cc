#include "diagnose/stragglers.h"

#include "diagnose/computing.h"

#include <stdlib.h>
#include <string.h>

static const double worst_share = 0.03; /* Lin et al. 2025, equation 5 */

/* --- even durations ----------------------------------------------------------------- */

struct call_place {
    const char *op;
    int kind, lane;
    i64 node;
    double seconds;
};

static int by_call(const void *a, const void *b)
{
    const struct call_place *x = a, *y = b;
    if (x->kind != y->kind)
        return x->kind < y->kind ? -1 : 1;
    if (x->lane != y->lane)
        return x->lane < y->lane ? -1 : 1;
    int c = strcmp(x->op, y->op);
    return c ? c : (x->seconds > y->seconds) - (x->seconds < y->seconds);
}

static bool is_exchange(int kind)
{
    return kind == DAG_CALL || kind == DAG_MEET || kind == DAG_BEGIN || kind == DAG_WAIT;
}

static bool alike(const struct call_place *x, const struct call_place *y)
{
    return x->kind == y->kind && x->lane == y->lane && strcmp(x->op, y->op) == 0;
}

/* Every exchange takes the median of its kind: of lane, op and what it is. */
static void even_calls(const struct record_step *s, const struct dag *g, double *seconds)
{
    struct call_place *list = ARENA_ARRAY(s->arena, struct call_place, g->n + 1);
    i64 n = 0;
    for (i64 i = 0; i < g->n; i++) {
        const struct dag_node *d = &g->nodes[i];
        if (is_exchange(d->kind))
            list[n++] = (struct call_place){ d->task ? d->task->op : "", d->kind, d->lane, i,
                                             g->seconds[i] };
    }
    qsort(list, (size_t)n, sizeof *list, by_call);
    for (i64 i = 0, j; i < n; i = j) {
        for (j = i + 1; j < n && alike(&list[i], &list[j]); j++)
            ;
        double median = 0.5 * (list[i + (j - i - 1) / 2].seconds + list[i + (j - i) / 2].seconds);
        for (i64 k = i; k < j; k++)
            seconds[list[k].node] = median;
    }
}

/* --- what if ------------------------------------------------------------------------ */

struct what_if {
    struct dag g; /* with all ranks beginning at once */
    double *even, *mixed, *no_lead;
};

static void open_what_if(struct what_if *w, const struct record_step *s, const struct dag *g)
{
    struct arena *a = s->arena;
    *w = (struct what_if){ .g = *g };
    w->g.starts = ARENA_ARRAY(a, double, g->n_ranks);
    w->even = ARENA_ARRAY(a, double, g->n);
    w->mixed = ARENA_ARRAY(a, double, g->n);
    w->no_lead = ARENA_ARRAY(a, double, g->n);
    computing_even_graph(s, g, w->even);
    even_calls(s, g, w->even);
}

/* Of ranks for which `own` holds the durations as they were, of the others even ones. */
static double mixed_length(struct what_if *w, const bool *own)
{
    for (i64 i = 0; i < w->g.n; i++) {
        int r = w->g.nodes[i].rank;
        w->mixed[i] = r >= 0 && own[r] ? w->g.seconds[i] : w->even[i];
    }
    return dag_length(&w->g, w->mixed, w->no_lead, NULL);
}

static bool fits(struct stragglers *x, const struct record_step *s)
{
    if (!x->rank_s) {
        x->n_ranks = s->n_ranks;
        x->compute_s = ARENA_ARRAY(x->arena, double, s->n_ranks);
        x->computed = ARENA_ARRAY(x->arena, double, s->n_ranks);
        x->rank_s = ARENA_ARRAY(x->arena, double, s->n_ranks);
        x->worst = ARENA_ARRAY(x->arena, int, s->n_ranks);
    }
    return s->n_ranks == x->n_ranks && s->missing == 0;
}

static double weight_of(const struct stragglers *x)
{
    return x->weight > 0 ? x->weight : 1;
}

static void add_computing(struct stragglers *x, const struct record_step *s)
{
    for (int r = 0; r < x->n_ranks && s->n_ranks == x->n_ranks; r++) {
        i64 n;
        const struct record_span *span = record_lane(&s->ranks[r], TRACE_COMPUTE, &n);
        x->computed[r] += s->ranks[r].head ? weight_of(x) : 0;
        for (i64 i = 0; i < n; i++, span++)
            if (span->kind == SPAN_TASK)
                x->compute_s[r] += 1e-9 * weight_of(x) * (double)(span->end_ns - span->begin_ns);
    }
}

void stragglers_add(struct stragglers *x, const struct record_step *s, const struct dag *g)
{
    struct what_if w;
    const bool whole = fits(x, s);
    const double weight = weight_of(x);
    add_computing(x, s);
    if (!whole)
        return;
    bool *own = ARENA_ARRAY(s->arena, bool, x->n_ranks);
    open_what_if(&w, s, g);
    x->even_s += weight * mixed_length(&w, own);
    for (int r = 0; r < x->n_ranks; r++) {
        own[r] = true;
        x->rank_s[r] += weight * mixed_length(&w, own);
        own[r] = false;
    }
    for (int r = 0; r < x->n_ranks; r++)
        own[r] = s->ranks[r].head->pp != s->ranks[r].head->of_pp - 1;
    x->last_stage_s += weight * mixed_length(&w, own);
    memset(own, true, (size_t)x->n_ranks * sizeof *own);
    x->seconds += weight * mixed_length(&w, own);
    x->stands_for += weight;
    x->steps++;
}

void stragglers_rank(struct stragglers *x)
{
    for (int i = 0; i < x->n_ranks; i++) { /* insertion: there are few */
        int k = i;
        for (; k > 0 && x->rank_s[x->worst[k - 1]] < x->rank_s[i]; k--)
            x->worst[k] = x->worst[k - 1];
        x->worst[k] = i;
    }
    x->n_worst = (int)(worst_share * x->n_ranks) + 1;
    x->worst_s = 0;
}

void stragglers_add_worst(struct stragglers *x, const struct record_step *s, const struct dag *g)
{
    struct what_if w;
    if (!fits(x, s))
        return;
    bool *own = ARENA_ARRAY(s->arena, bool, x->n_ranks);
    open_what_if(&w, s, g);
    memset(own, true, (size_t)x->n_ranks * sizeof *own);
    for (int i = 0; i < x->n_worst; i++)
        own[x->worst[i]] = false;
    x->worst_s += weight_of(x) * mixed_length(&w, own);
}
