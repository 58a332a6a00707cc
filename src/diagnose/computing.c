#include "diagnose/computing.h"

#include <string.h>

void computing_open(struct computing *p, const struct record_step *s, const struct dag *g)
{
    struct arena *a = s->arena;
    *p = (struct computing){ s, g->n_ranks, ARENA_ARRAY(a, struct computed, g->n_ranks) };
    for (i64 i = 0; i < g->n; i++)
        if (g->nodes[i].kind == DAG_COMPUTE)
            p->ranks[g->nodes[i].rank].n++;
    for (int r = 0; r < g->n_ranks; r++) {
        struct computed *c = &p->ranks[r];
        c->seconds = ARENA_UNSET(a, double, c->n);
        c->task = ARENA_UNSET(a, u64, c->n);
        c->n = 0;
    }
    for (i64 i = 0; i < g->n; i++) {
        const struct dag_node *n = &g->nodes[i];
        if (n->kind != DAG_COMPUTE)
            continue;
        struct computed *c = &p->ranks[n->rank];
        c->seconds[c->n] = g->seconds[i];
        c->task[c->n++] = (u64)n->action << 32 | n->task_id;
    }
}

void computing_copy(struct computing *out, const struct computing *c)
{
    struct arena *a = c->s->arena;
    *out = (struct computing){ c->s, c->n_ranks, ARENA_ARRAY(a, struct computed, c->n_ranks) };
    for (int r = 0; r < c->n_ranks; r++) {
        const struct computed *from = &c->ranks[r];
        struct computed *to = &out->ranks[r];
        *to = (struct computed){ ARENA_UNSET(a, double, from->n), from->task, from->n };
        if (from->n > 0)
            memcpy(to->seconds, from->seconds, (size_t)from->n * sizeof *to->seconds);
    }
}

i64 computing_action(const struct computed *c, i64 i, double *seconds)
{
    const u64 action = c->task[i] >> 32;
    double own = 0;
    for (; i < c->n && c->task[i] >> 32 == action; i++)
        own += c->seconds[i];
    *seconds = own;
    return i;
}

void computing_scale(struct computed *c, i64 from, i64 to, double factor)
{
    for (i64 i = from; i < to; i++)
        c->seconds[i] *= factor;
}

static double seconds_of(const struct computed *c)
{
    double sum = 0;
    for (i64 i = 0; i < c->n; i++)
        sum += c->seconds[i];
    return sum;
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
        total += seconds_of(&ranks[which[k]]);
    for (int k = 0; !alike && k < n; k++) {
        struct computed *c = &ranks[which[k]];
        const double own = seconds_of(c);
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
    for (int pass = 0; pass < 2; pass++)
        for (int r = 0; r < p->n_ranks; r++) {
            struct computed *c = &p->ranks[r];
            for (i64 i = 0, j; i < c->n; i = j) {
                double own;
                j = computing_action(c, i, &own);
                const int kind = segment_of(p->s->ranks[r].table, c->task[i] >> 32);
                if (pass == 0 && own > 0) {
                    sum[kind] += own;
                    count[kind]++;
                }
                if (pass == 1 && own > 0)
                    computing_scale(c, i, j, sum[kind] / count[kind] / own);
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
        sum += seconds_of(&c->ranks[r]);
    return sum / (c->n_ranks - missing);
}
