#include "diagnose/computing.h"

#include <string.h>

static i64 count_actions(const u64 *task, i64 n)
{
    i64 actions = 0;
    for (i64 i = 0; i < n; i++)
        actions += i == 0 || task[i] >> 32 != task[i - 1] >> 32;
    return actions;
}

static u64 kind_of(const struct record_table *t, const u64 *task, i64 from, i64 to)
{
    u64 kind = (u64)(to - from);
    for (i64 i = from; i < to; i++)
        kind = ((kind << 7 | kind >> 57) ^ t->tasks[(u32)task[i]].kind_hash) *
               0x9e3779b97f4a7c15u; /* 2^64 over the golden ratio: mixes */
    return kind;
}

static void list_actions(struct computing_list *l, const struct record_table *t, struct arena *a)
{
    l->actions = ARENA_UNSET(a, struct computing_action, count_actions(l->task, l->n));
    for (i64 i = 0, to; i < l->n; i = to) {
        for (to = i; to < l->n && l->task[to] >> 32 == l->task[i] >> 32; to++)
            ;
        l->actions[l->n_actions++] = (struct computing_action){ to, kind_of(t, l->task, i, to) };
    }
}

struct computing_lists *computing_list(const struct record_step *s, const struct dag *g,
                                       struct arena *a)
{
    struct computing_lists *all = ARENA_NEW(a, struct computing_lists);
    all->ranks = ARENA_ARRAY(a, struct computing_list, g->n_ranks);
    for (i64 i = 0; i < g->n; i++)
        if (g->nodes[i].kind == DAG_COMPUTE) {
            all->ranks[g->nodes[i].rank].n++;
            all->n++;
        }
    all->order = ARENA_UNSET(a, i32, all->n);
    all->n = 0;
    for (int r = 0; r < g->n_ranks; r++) {
        struct computing_list *l = &all->ranks[r];
        l->node = ARENA_UNSET(a, i32, l->n);
        l->task = ARENA_UNSET(a, u64, l->n);
        l->n = 0;
    }
    for (i64 i = 0; i < g->n; i++) {
        const struct dag_node *n = &g->nodes[i];
        if (n->kind != DAG_COMPUTE)
            continue;
        struct computing_list *l = &all->ranks[n->rank];
        l->node[l->n] = (i32)i;
        l->task[l->n++] = (u64)n->action << 32 | n->task_id;
        all->order[all->n++] = n->rank;
    }
    for (int r = 0; r < g->n_ranks; r++)
        list_actions(&all->ranks[r], s->ranks[r].table, a);
    return all;
}

void computing_open(struct computing *p, const struct record_step *s, const struct dag *g)
{
    struct arena *a = s->arena;
    const struct computing_lists *lists = g->computes ? g->computes : computing_list(s, g, a);
    *p = (struct computing){ s, lists, g->n_ranks, ARENA_ARRAY(a, struct computed, g->n_ranks) };
    for (int r = 0; r < g->n_ranks; r++) {
        const struct computing_list *l = &lists->ranks[r];
        p->ranks[r] = (struct computed){ ARENA_UNSET(a, double, l->n), l->task, l->actions, l->n,
                                         l->n_actions };
        for (i64 i = 0; i < l->n; i++)
            p->ranks[r].seconds[i] = g->seconds[l->node[i]];
    }
}

void computing_copy(struct computing *out, const struct computing *c)
{
    struct arena *a = c->s->arena;
    *out = *c;
    out->ranks = ARENA_UNSET(a, struct computed, c->n_ranks);
    for (int r = 0; r < c->n_ranks; r++) {
        const struct computed *from = &c->ranks[r];
        struct computed *to = &out->ranks[r];
        *to = *from;
        to->seconds = ARENA_UNSET(a, double, from->n);
        if (from->n > 0)
            memcpy(to->seconds, from->seconds, (size_t)from->n * sizeof *to->seconds);
    }
}

double computing_seconds(const struct computed *c, i64 from, i64 to)
{
    double own = 0;
    for (i64 i = from; i < to; i++)
        own += c->seconds[i];
    return own;
}

void computing_scale(struct computed *c, i64 from, i64 to, double factor)
{
    for (i64 i = from; i < to && factor != 1; i++)
        c->seconds[i] *= factor;
}

static void even_ranks(struct computed *ranks, const int *which, int n)
{
    const struct computed *first = &ranks[which[0]];
    bool alike = true;
    double total = 0;
    for (int k = 1; k < n && alike; k++) {
        const struct computed *c = &ranks[which[k]];
        alike = c->n == first->n &&
                (c->n == 0 || memcmp(c->task, first->task, (size_t)c->n * sizeof *c->task) == 0);
    }
    for (i64 i = 0; alike && i < first->n; i++) {
        double sum = 0;
        for (int k = 0; k < n; k++)
            sum += ranks[which[k]].seconds[i];
        for (int k = 0; k < n; k++)
            ranks[which[k]].seconds[i] = sum / n;
    }
    for (int k = 0; !alike && k < n; k++)
        total += computing_seconds(&ranks[which[k]], 0, ranks[which[k]].n);
    for (int k = 0; !alike && k < n; k++) {
        struct computed *c = &ranks[which[k]];
        const double own = computing_seconds(c, 0, c->n);
        if (own > 0)
            computing_scale(c, 0, c->n, total / n / own);
    }
}

/* Along dp and islands they have other rows, along cp and tp as much of the same. */
void computing_even_copies(struct computing *p)
{
    const int ranks = p->n_ranks;
    int *which = ARENA_ARRAY(p->s->arena, int, ranks);
    bool *done = ARENA_ARRAY(p->s->arena, bool, ranks);
    for (int r = 0; r < ranks; r++) {
        const struct record_head *h = p->s->ranks[r].head;
        int n = 0;
        for (int k = r; h && !done[r] && k < ranks; k++) {
            const struct record_head *o = p->s->ranks[k].head;
            if (o && o->pp == h->pp)
                which[n++] = k;
        }
        for (int k = 0; k < n; k++)
            done[which[k]] = true;
        if (n > 1)
            even_ranks(p->ranks, which, n);
    }
}

static int segment_of(const struct record_table *t, u64 action)
{
    return action < (u64)t->n_actions ? t->segments[t->actions[action].segment].kind
                                      : SEGMENT_UPDATE;
}

void computing_even_actions(struct computing *p)
{
    double sum[SEGMENT_KINDS] = { 0 }, count[SEGMENT_KINDS] = { 0 };
    double **own = ARENA_UNSET(p->s->arena, double *, p->n_ranks);
    for (int r = 0; r < p->n_ranks; r++) {
        const struct computed *c = &p->ranks[r];
        own[r] = ARENA_UNSET(p->s->arena, double, c->n_actions);
        for (i64 k = 0, i = 0; k < c->n_actions; i = c->actions[k++].to) {
            const int kind = segment_of(p->s->ranks[r].table, c->task[i] >> 32);
            own[r][k] = computing_seconds(c, i, c->actions[k].to);
            if (own[r][k] > 0) {
                sum[kind] += own[r][k];
                count[kind]++;
            }
        }
    }
    for (int r = 0; r < p->n_ranks; r++) {
        struct computed *c = &p->ranks[r];
        for (i64 k = 0, i = 0; k < c->n_actions; i = c->actions[k++].to) {
            const int kind = segment_of(p->s->ranks[r].table, c->task[i] >> 32);
            if (own[r][k] > 0)
                computing_scale(c, i, c->actions[k].to, sum[kind] / count[kind] / own[r][k]);
        }
    }
}

void computing_even_graph(const struct record_step *s, const struct dag *g, double *seconds)
{
    struct computing p;
    i64 *at = ARENA_ARRAY(s->arena, i64, g->n_ranks);
    computing_open(&p, s, g);
    computing_even_actions(&p);
    for (i64 i = 0; i < g->n; i++) {
        const struct dag_node *n = &g->nodes[i];
        seconds[i] = n->kind == DAG_COMPUTE ? p.ranks[n->rank].seconds[at[n->rank]++]
                                            : g->seconds[i];
    }
}

double computing_mean(const struct computing *c, int missing)
{
    double sum = 0;
    for (int r = 0; r < c->n_ranks; r++)
        sum += computing_seconds(&c->ranks[r], 0, c->ranks[r].n);
    return sum / (c->n_ranks - missing);
}
