#include "diagnose/critical.h"

#include <stdlib.h>
#include <string.h>

/* Shares are found by a hash of what they are shares of, as chains through lists of their own. */
static u64 mix(u64 h, u64 x)
{
    h = (h ^ x) * 0x9e3779b97f4a7c15u; /* 2^64 over the golden ratio: Fibonacci hashing */
    return h ^ h >> 32;
}

static u64 hash_of(const struct critical_share *s, const struct record_task *named)
{
    const u64 where = (u64)(u32)s->rank << 32 | (u32)s->layer;
    const u64 what = (u64)s->kind << 16 | (u64)s->lane << 8 | (u8)s->phase;
    return mix(mix(named ? named->op_hash : 0, where), what);
}

static bool same_share(const struct critical_share *x, const struct critical_share *y)
{
    return x->rank == y->rank && x->kind == y->kind && x->lane == y->lane &&
           x->phase == y->phase && x->layer == y->layer &&
           (x->op == y->op || x->same == y->op || strcmp(x->op, y->op) == 0);
}

static struct critical_share *share_of(struct critical *c, const struct critical_share *key)
{
    i32 *first = &c->first[key->hash % CRITICAL_LISTS];
    for (i32 i = *first; i > 0; i = c->shares[i - 1].next)
        if (c->shares[i - 1].hash == key->hash && same_share(&c->shares[i - 1], key)) {
            c->shares[i - 1].same = key->op;
            return &c->shares[i - 1];
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
    s->next = *first;
    *first = (i32)c->n;
    return s;
}

void critical_walk(struct critical_path *out, const struct record_step *s, const struct dag *g)
{
    struct dag_segment *path = ARENA_UNSET(s->arena, struct dag_segment, 2 * g->n);
    i32 first[CRITICAL_LISTS] = { 0 };
    i64 n = dag_critical(g, NULL, NULL, path);
    *out = (struct critical_path){ ARENA_UNSET(s->arena, struct critical_share, n), 0 };
    for (i64 i = 0; i < n; i++) {
        const struct dag_node *node = &g->nodes[path[i].node];
        const bool lead = path[i].part == DAG_IN_LEAD;
        const struct record_task *named = lead ? NULL : node->task;
        struct critical_share key = {
            .rank = node->rank, .kind = lead ? DAG_KINDS : node->kind,
            .lane = lead ? 0 : node->lane, .phase = -1, .layer = -1,
            .op = named ? named->op : "",
        };
        if (!lead && node->kind == DAG_COMPUTE) {
            key.phase = node->task->phase;
            key.layer = node->task->layer;
        }
        key.hash = hash_of(&key, named);
        i32 *list = &first[key.hash % CRITICAL_LISTS], k = *list;
        while (k > 0 && !(out->shares[k - 1].hash == key.hash &&
                          same_share(&out->shares[k - 1], &key)))
            k = out->shares[k - 1].next;
        if (k == 0) {
            key.next = *list;
            out->shares[out->n++] = key;
            k = *list = (i32)out->n;
        }
        out->shares[k - 1].seconds += path[i].to - path[i].from;
    }
}

void critical_take(struct critical *c, const struct critical_path *p)
{
    const double w = c->weight > 0 ? c->weight : 1;
    for (i64 i = 0; i < p->n; i++) {
        share_of(c, &p->shares[i])->seconds += w * p->shares[i].seconds;
        c->seconds += w * p->shares[i].seconds;
    }
    c->steps += w;
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
