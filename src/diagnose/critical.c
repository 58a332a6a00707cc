#include "diagnose/critical.h"

#include <stdlib.h>
#include <string.h>

/* Of the shares last met, so many are looked at: a layer's tasks come back with each of its parts. */
enum { NEAR = 64 };

static struct critical_share *share_of(struct critical *c, const struct critical_share *key)
{
    for (i64 i = 0; i < c->n; i++) {
        struct critical_share *s = &c->shares[i];
        if (s->rank == key->rank && s->kind == key->kind && s->lane == key->lane &&
            s->phase == key->phase && s->layer == key->layer && strcmp(s->op, key->op) == 0)
            return s;
    }
    if (c->n == c->capacity) {
        i64 capacity = i64_max(64, 2 * c->capacity);
        struct critical_share *shares = ARENA_ARRAY(c->arena, struct critical_share, capacity);
        for (i64 i = 0; i < c->n; i++)
            shares[i] = c->shares[i];
        c->shares = shares;
        c->capacity = capacity;
    }
    struct critical_share *s = &c->shares[c->n++];
    *s = *key;
    s->seconds = 0;
    s->op = arena_strdup(c->arena, key->op);
    return s;
}

static bool same_share(const struct critical_share *x, const struct critical_share *y)
{
    return x->rank == y->rank && x->kind == y->kind && x->lane == y->lane &&
           x->phase == y->phase && x->layer == y->layer && x->op == y->op;
}

void critical_walk(struct critical_path *out, const struct record_step *s, const struct dag *g)
{
    struct dag_segment *path = ARENA_ARRAY(s->arena, struct dag_segment, 2 * g->n);
    i64 n = dag_critical(g, NULL, NULL, path);
    *out = (struct critical_path){ ARENA_ARRAY(s->arena, struct critical_share, n), 0 };
    for (i64 i = 0; i < n; i++) {
        const struct dag_node *node = &g->nodes[path[i].node];
        const bool lead = path[i].part == DAG_IN_LEAD;
        struct critical_share key = {
            .rank = node->rank, .kind = lead ? DAG_KINDS : node->kind,
            .lane = lead ? 0 : node->lane, .phase = -1, .layer = -1,
            .op = !lead && node->task ? node->task->op : "",
        };
        if (!lead && node->kind == DAG_COMPUTE) {
            key.phase = node->task->phase;
            key.layer = node->task->layer;
        }
        i64 k = i64_max(0, out->n - NEAR);
        while (k < out->n && !same_share(&out->shares[k], &key))
            k++;
        if (k == out->n)
            out->shares[out->n++] = key;
        out->shares[k].seconds += path[i].to - path[i].from;
    }
}

void critical_take(struct critical *c, const struct critical_path *p)
{
    for (i64 i = 0; i < p->n; i++) {
        share_of(c, &p->shares[i])->seconds += p->shares[i].seconds;
        c->seconds += p->shares[i].seconds;
    }
    c->steps++;
}

void critical_add(struct critical *c, const struct record_step *s, const struct dag *g)
{
    struct critical_path p;
    critical_walk(&p, s, g);
    critical_take(c, &p);
}

static int by_seconds(const void *a, const void *b)
{
    const struct critical_share *x = a, *y = b;
    return (x->seconds < y->seconds) - (x->seconds > y->seconds);
}

void critical_sort(struct critical *c)
{
    if (c->n > 0)
        qsort(c->shares, (size_t)c->n, sizeof *c->shares, by_seconds);
}

const char *critical_kind_name(int kind)
{
    static const char *const names[] = { "compute", "wake", "data", "log", "eval", "checkpoint",
                                         "outer step", "meeting", "begin of a call", "ready",
                                         "transfer", "rest", "host" };
    _Static_assert(COUNT_OF(names) == DAG_KINDS + 1, "a name for each");
    return kind >= 0 && kind <= DAG_KINDS ? names[kind] : "?";
}
