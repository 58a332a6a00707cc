#include "diagnose/pace.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_KINDS = 512, PLACES = 2048 }; /* of a hash table, a quarter full at most */

static const double least_shared = 0.5; /* of a rank's time: less says too little of the rest */

struct kind_time {
    double seconds, calls;
};

struct paces {
    const struct computing *c;
    u64 key[PLACES]; /* 0: free */
    int kind[PLACES], n_kinds;
    struct kind_time *at; /* [n_ranks][MOST_KINDS] */
    double *seconds;      /* [n_ranks] of all tasks */
};

/* A number for each kind of task; -1 when there is no room. */
static int find_kind(struct paces *p, u64 key)
{
    u64 place = key % PLACES;
    key += key == 0;
    while (p->key[place] && p->key[place] != key)
        place = (place + 1) % PLACES;
    if (!p->key[place]) {
        if (p->n_kinds == MOST_KINDS)
            return -1;
        p->key[place] = key;
        p->kind[place] = p->n_kinds++;
    }
    return p->kind[place];
}

/* First by task, which is a place in an array, then by kind. */
static void add_rank(struct paces *p, int r)
{
    const struct computed *c = &p->c->ranks[r];
    const struct record_table *t = p->c->s->ranks[r].table;
    const i64 n_tasks = c->n > 0 ? t->n_tasks : 0;
    struct kind_time *of_task = ARENA_ARRAY(p->c->s->arena, struct kind_time, n_tasks);
    for (i64 i = 0; i < c->n; i++) {
        struct kind_time *x = &of_task[(u32)c->task[i]];
        x->seconds += c->seconds[i];
        x->calls++;
    }
    for (i64 i = 0; i < n_tasks; i++) {
        const struct kind_time *x = &of_task[i];
        const int kind = x->calls > 0 ? find_kind(p, t->tasks[i].kind_hash) : -1;
        p->seconds[r] += x->seconds;
        if (kind < 0)
            continue;
        p->at[(i64)r * MOST_KINDS + kind].seconds += x->seconds;
        p->at[(i64)r * MOST_KINDS + kind].calls += x->calls;
    }
}

static int by_size(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

/* Seconds of a call at the middle rank, of two the faster one: nothing makes a task faster than it
 * is. 0 where only one rank has such tasks. */
static double usual_time(const struct paces *p, int kind, double *room)
{
    int n = 0;
    for (int r = 0; r < p->c->n_ranks; r++) {
        const struct kind_time *x = &p->at[(i64)r * MOST_KINDS + kind];
        if (x->calls > 0)
            room[n++] = x->seconds / x->calls;
    }
    qsort(room, (size_t)n, sizeof *room, by_size);
    return n > 1 ? room[(n - 1) / 2] : 0;
}

struct ratio {
    double slower, seconds;
};

static int by_ratio(const void *a, const void *b)
{
    return by_size(&((const struct ratio *)a)->slower, &((const struct ratio *)b)->slower);
}

static double pace_of(const struct paces *p, int rank, const double *usual, struct ratio *room)
{
    int n = 0, middle = 0;
    double shared = 0, passed;
    for (int k = 0; k < p->n_kinds; k++) {
        const struct kind_time *x = &p->at[(i64)rank * MOST_KINDS + k];
        if (!(x->seconds > 0 && usual[k] > 0))
            continue;
        room[n++] = (struct ratio){ x->seconds / x->calls / usual[k], x->seconds };
        shared += x->seconds;
    }
    if (n == 0 || shared < least_shared * p->seconds[rank])
        return 1;
    qsort(room, (size_t)n, sizeof *room, by_ratio);
    passed = room[0].seconds;
    while (middle + 1 < n && passed < 0.5 * shared)
        passed += room[++middle].seconds;
    return dag_larger(1, room[middle].slower);
}

void pace_of_ranks(const struct computing *c, double *pace)
{
    struct arena *a = c->s->arena;
    for (int r = 0; r < c->n_ranks; r++)
        pace[r] = 1;
    if (c->n_ranks < 2)
        return;
    struct paces *p = ARENA_NEW(a, struct paces);
    p->c = c;
    p->at = ARENA_ARRAY(a, struct kind_time, (i64)c->n_ranks * MOST_KINDS);
    p->seconds = ARENA_ARRAY(a, double, c->n_ranks);
    for (int r = 0; r < c->n_ranks; r++)
        add_rank(p, r);
    double *usual = ARENA_ARRAY(a, double, p->n_kinds + 1);
    double *room = ARENA_ARRAY(a, double, c->n_ranks);
    struct ratio *ratios = ARENA_ARRAY(a, struct ratio, p->n_kinds + 1);
    for (int k = 0; k < p->n_kinds; k++)
        usual[k] = usual_time(p, k, room);
    for (int r = 0; r < c->n_ranks; r++)
        pace[r] = pace_of(p, r, usual, ratios);
}
