#include "graph/graph.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void graph_init(struct graph *g, struct arena *arena)
{
    *g = (struct graph){ .arena = arena, .layer = -1 };
}

/* Doubles a pointer array inside the arena; the old one is left to the arena. */
static void *grow(struct arena *arena, void *old, i64 n, i64 *capacity)
{
    if (n < *capacity)
        return old;
    *capacity = *capacity ? 2 * *capacity : 256;
    void **more = ARENA_ARRAY(arena, void *, *capacity);
    if (n)
        memcpy(more, old, sizeof(void *) * (size_t)n);
    return more;
}

/* --- tensors ----------------------------------------------------------------------- */

static struct tensor *new_tensor(struct graph *g)
{
    struct tensor *t = ARENA_NEW(g->arena, struct tensor);
    g->tensors = grow(g->arena, g->tensors, g->n_tensors, &g->cap_tensors);
    t->index = g->n_tensors;
    g->tensors[g->n_tensors++] = t;
    return t;
}

void graph_adopt(struct graph *g, struct tensor *t)
{
    assert(t->index < 0 && !t->data);
    g->tensors = grow(g->arena, g->tensors, g->n_tensors, &g->cap_tensors);
    t->role = ROLE_ACTIVATION;
    t->index = g->n_tensors;
    g->tensors[g->n_tensors++] = t;
}

struct tensor *graph_tensor(struct graph *g, enum tensor_role role, enum dtype dtype,
                            int rank, const i64 *dim, const char *fmt, ...)
{
    char name[256];
    va_list ap;
    if (g->rc < 0)
        return NULL;
    assert(rank >= 0 && rank <= TENSOR_DIMS);
    va_start(ap, fmt);
    vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    struct tensor *t = new_tensor(g);
    t->name = arena_strdup(g->arena, name);
    t->dtype = dtype;
    t->role = role;
    t->rank = rank;
    for (int i = 0; i < rank; i++)
        t->dim[i] = dim[i];
    return t;
}

struct tensor *graph_like(struct graph *g, const struct tensor *like, enum dtype dtype,
                          const char *name)
{
    if (!like)
        return NULL;
    return graph_tensor(g, ROLE_ACTIVATION, dtype, like->rank, like->dim, "%s", name);
}

struct tensor *graph_vector(struct graph *g, enum dtype dtype, i64 n, const char *name)
{
    return graph_tensor(g, ROLE_ACTIVATION, dtype, 1, &n, "%s", name);
}

struct tensor *graph_matrix(struct graph *g, enum dtype dtype, i64 rows, i64 columns,
                            const char *name)
{
    const i64 dim[] = { rows, columns };
    return graph_tensor(g, ROLE_ACTIVATION, dtype, 2, dim, "%s", name);
}

struct tensor *graph_view(struct graph *g, struct tensor *of, i64 row, i64 rows)
{
    if (g->rc < 0 || !of)
        return NULL;
    assert(of->rank >= 1 && row >= 0 && rows >= 0 && row + rows <= of->dim[0]);
    struct tensor *t = new_tensor(g);
    i64 index = t->index;
    *t = *of;
    t->index = index;
    t->name = arena_printf(g->arena, "%s[%lld:%lld]", of->name, (long long)row,
                           (long long)(row + rows));
    t->dim[0] = rows;
    t->owner = of->owner ? of->owner : of;
    i64 skip = row * (of->dim[0] ? tensor_bytes(of) / of->dim[0] : 0);
    t->owner_offset = of->owner_offset + skip;
    t->data = of->data ? (char *)of->data + skip : NULL;
    t->grad = NULL;
    return t;
}

/* --- tasks ------------------------------------------------------------------------- */

int graph_fail(struct graph *g, const struct task *t, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    if (g->rc < 0)
        return g->rc;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (t->layer >= 0)
        g->rc = err_set(ERR_MODEL, "%s in layer %d: %s", t->op->name, t->layer, text);
    else
        g->rc = err_set(ERR_MODEL, "%s: %s", t->op->name, text);
    return g->rc;
}

void graph_insert(struct graph *g, i64 at, struct task *t)
{
    g->tasks = grow(g->arena, g->tasks, g->n_tasks, &g->cap_tasks);
    memmove(g->tasks + at + 1, g->tasks + at, sizeof *g->tasks * (size_t)(g->n_tasks - at));
    g->tasks[at] = t;
    g->n_tasks++;
}

struct task *graph_add(struct graph *g, const struct task *proto)
{
    if (g->rc < 0)
        return NULL;
    struct task *t = ARENA_NEW(g->arena, struct task);
    *t = *proto;
    t->layer = g->layer;
    t->head = g->head;
    t->chunk = g->chunk;
    t->part = g->part;
    if (!t->phase)
        t->phase = g->phase;
    int rc = t->op->infer(g, t);
    if (rc < 0 || g->rc < 0) {
        g->rc = g->rc < 0 ? g->rc : rc;
        return NULL;
    }
    t->cost = (struct cost){ 0 }; /* of the task that a pass made it from */
    if (t->op->cost)
        t->op->cost(t, &t->cost);
    graph_insert(g, g->n_tasks, t);
    return t;
}

struct task *graph_add_at(struct graph *g, i64 at, const struct task *proto)
{
    struct task *t = graph_add(g, proto);
    if (t) {
        if (at > 0)
            t->part = g->tasks[at - 1]->part;
        g->n_tasks--;
        graph_insert(g, at, t);
    }
    return t;
}
