#include "train/rank_links.h"

#include "ops/ops.h"

#include <stdlib.h>
#include <string.h>

struct counting {
    const struct rank_view *view;
    struct rank_links *out;
    i64 capacity;
    struct arena *arena;
};

static struct rank_link *link_to(struct counting *c, i64 to, enum lane lane)
{
    struct rank_links *l = c->out;
    for (i64 i = l->n - 1; i >= 0; i--) /* most often one of the last */
        if (l->list[i].to == to && l->list[i].lane == lane)
            return &l->list[i];
    if (l->n == c->capacity) {
        struct rank_link *more = ARENA_ARRAY(c->arena, struct rank_link, c->capacity * 2 + 16);
        if (l->n > 0)
            memcpy(more, l->list, sizeof *more * (size_t)l->n);
        l->list = more;
        c->capacity = c->capacity * 2 + 16;
    }
    l->list[l->n] = (struct rank_link){ .to = to, .lane = lane };
    return &l->list[l->n++];
}

static void count(struct counting *c, i64 to, const struct task *t, double bytes)
{
    link_to(c, to, t->lane)->bytes += bytes;
}

/* How far members of the task's group lie apart. */
static i64 apart(const struct mesh *m, const struct task *t)
{
    const struct stages *s = &m->stages;
    if (t->lane == LANE_TIE) /* the first stage and the last */
        return (s->rank_of[s->n - 1] - s->rank_of[0]) * mesh_stride(m, LANE_PP);
    return collective_of_twins(t) ? m->layout.ep * mesh_stride(m, LANE_CP)
                                  : mesh_stride(m, t->lane);
}

static i64 part_of(i64 count, i64 n, i64 index)
{
    return count / n + (index < count % n);
}

/* Of what it sends in all, to member j. */
static double bytes_to(const struct task *t, i64 n, i64 own, i64 j)
{
    if (t->op == &op_ring_shift)
        return j == (own + (i64)t->attr[RING_STEP] + n) % n ? t->cost.message_bytes : 0;
    if (t->op != &op_all_reduce)
        return t->cost.message_bytes / (double)(n - 1); /* equal parts */
    const i64 messages = (i64)t->attr[COLLECTIVE_OUTER], count = tensor_count(t->in[0]) / messages;
    return (double)(messages * (part_of(count, n, own) + part_of(count, n, j)) *
                    dtype_bytes(t->in[0]->dtype));
}

static void add_move(struct counting *c, const struct task *t, double times)
{
    const struct mesh *m = &c->view->mesh;
    const i64 to = (i64)t->attr[MOVE_BOUNDARY] + (t->attr[MOVE_UP] != 0);
    const i64 steps = m->stages.rank_of[to] - m->pp_rank;
    count(c, m->rank + steps * mesh_stride(m, LANE_PP), t, times * t->cost.message_bytes);
}

static void add_task(struct counting *c, const struct task *t, double times)
{
    if (t->lane == LANE_COMPUTE || t->lane == LANE_AWAY || t->cost.message_bytes == 0 || times == 0)
        return;
    if (t->op->sends) {
        add_move(c, t, times);
        return;
    }
    const i64 n = (i64)t->attr[COLLECTIVE_SIZE], own = (i64)t->attr[COLLECTIVE_RANK];
    const i64 distance = apart(&c->view->mesh, t);
    for (i64 j = 0; j < n; j++) {
        const double bytes = j == own ? 0 : times * bytes_to(t, n, own, j);
        if (bytes > 0)
            count(c, c->view->mesh.rank + (j - own) * distance, t, bytes);
    }
}

/* How often it has its turn in a step. */
static double turns_of(const struct program *p, i64 segment, const struct task *t)
{
    double turns = 0;
    for (i64 a = 0; a < p->n_actions; a++)
        turns += p->actions[a].segment == segment &&
                 task_has_turn(t, p->actions[a].micro_batch, p->micro_batches);
    return turns;
}

static int by_lane(const void *a, const void *b)
{
    const struct rank_link *x = a, *y = b;
    return x->lane != y->lane ? (int)x->lane - (int)y->lane : (x->to > y->to) - (x->to < y->to);
}

void rank_links_of(struct rank_links *out, const struct rank_view *v, struct arena *a)
{
    struct counting c = { .view = v, .out = out, .arena = a };
    const struct program *p = v->step.program;
    *out = (struct rank_links){ .n = 0 };
    for (i64 s = 0; s < p->n_segments; s++)
        for (i64 i = 0; i < p->segments[s].n_tasks; i++) {
            const struct task *t = &p->segments[s].tasks[i];
            if (t->cost.message_bytes > 0)
                add_task(&c, t, turns_of(p, s, t));
        }
    if (out->n > 0)
        qsort(out->list, (size_t)out->n, sizeof *out->list, by_lane);
}
