#include "parallel/insert.h"

#include "ops/ops.h"

#include <stdlib.h>

struct insertions insertions_begin(struct graph *g, const struct mesh *mesh, i64 room)
{
    return (struct insertions){ .g = g, .mesh = mesh, .room = room,
                                .list = ARENA_ARRAY(g->arena, struct insertion, room + 1) };
}

struct task *insert_task(struct insertions *s, i64 at, int part, const struct task *proto)
{
    assert(s->n < s->room);
    int before = s->g->part;
    s->g->part = part;
    struct task *t = graph_add(s->g, proto);
    s->g->part = before;
    if (t) {
        s->g->n_tasks--;
        s->list[s->n] = (struct insertion){ at, s->n, t };
        s->n++;
    }
    return t;
}

struct task *insert_exchange(struct insertions *s, i64 at, int part, const struct op_info *op,
                             enum lane lane, enum phase phase, struct tensor *in,
                             struct tensor *out)
{
    return insert_task(s, at, part, &(struct task){
        .op = op, .lane = lane, .phase = phase, .in = { in }, .out = { out },
        .attr = { [COLLECTIVE_SIZE] = (double)mesh_degree(s->mesh, lane),
                  [COLLECTIVE_RANK] = (double)mesh_coordinate(s->mesh, lane),
                  [COLLECTIVE_OUTER] = 1 } });
}

static int by_place(const void *a, const void *b)
{
    const struct insertion *x = a, *y = b;
    if (x->at != y->at)
        return x->at < y->at ? -1 : 1;
    return x->order < y->order ? -1 : 1;
}

/* From the last to the first, so that positions stay what they were. */
int insertions_end(struct insertions *s)
{
    if (s->n > 0)
        qsort(s->list, (size_t)s->n, sizeof *s->list, by_place);
    for (i64 i = s->n - 1; i >= 0; i--)
        graph_insert(s->g, s->list[i].at, s->list[i].task);
    return s->g->rc;
}
