#include "graph/plan.h"

#include <stdlib.h>
#include <string.h>

enum { SPAN = 64 };

/* One buffer: the tensors that share it (in-place chains) live [first, last]. */
struct buffer {
    struct tensor *tensor;
    i64 bytes, first, last, offset;
    i64 seen; /* the last search that found it */
};

/* Buffers that have a place, by time: each is listed in every stretch of SPAN tasks that it
 * lives through. Searching all of them would take quadratic time, and a long row's loss
 * head alone makes thousands. */
struct listed {
    struct buffer *buffer;
    struct listed *next;
};

struct planner {
    const struct program *p;
    i64 *buffer_of; /* by tensor index; -1: none */
    struct buffer *buffers;
    i64 n_buffers;
    i64 *last_use; /* by tensor index: id of the last task that touches it */
};

static const struct tensor *owner_of(const struct tensor *t)
{
    return t->owner ? t->owner : t;
}

static bool planned(const struct tensor *t)
{
    return t && t->role == ROLE_ACTIVATION && t->index >= 0;
}

static void find_last_uses(struct planner *s)
{
    for (i64 id = 0; id < s->p->n_tasks; id++) {
        const struct task *t = s->p->by_id[id];
        for (int k = 0; k < TASK_INS; k++)
            if (planned(t->in[k]))
                s->last_use[owner_of(t->in[k])->index] = id;
        for (int k = 0; k < TASK_OUTS; k++)
            if (planned(t->out[k]))
                s->last_use[owner_of(t->out[k])->index] = id;
        if (planned(t->when))
            s->last_use[owner_of(t->when)->index] = id;
    }
}

/* Tensors with slots keep their place for the whole step. */
static void extend_slots(struct planner *s)
{
    for (i64 i = 0; i < s->p->n_tensors; i++)
        if (s->p->tensors[i]->slots)
            s->last_use[i] = s->p->n_tasks - 1;
}

static bool touches(const struct task *t, const struct tensor *owner)
{
    for (int k = 0; k < TASK_INS + TASK_OUTS; k++) {
        const struct tensor *x = k < TASK_INS ? t->in[k] : t->out[k - TASK_INS];
        if (x && owner_of(x) == owner)
            return true;
    }
    return false;
}

/* A task of another lane may still run while later tasks do. It is certainly over when one
 * of these had to wait for what it writes; without such a task, at the end of the step. */
i64 plan_end_of(const struct program *p, const struct task *t)
{
    for (i64 id = (i64)t->id + 1; id < p->n_tasks; id++)
        for (int k = 0; p->by_id[id]->lane != t->lane && k < TASK_OUTS; k++)
            if (t->out[k] && touches(p->by_id[id], owner_of(t->out[k])))
                return id;
    return p->n_tasks - 1;
}

static void extend_other_lanes(struct planner *s)
{
    for (i64 id = 0; id < s->p->n_tasks; id++) {
        const struct task *t = s->p->by_id[id];
        if (t->lane == LANE_COMPUTE)
            continue;
        i64 end = plan_end_of(s->p, t);
        for (int k = 0; k < TASK_INS + TASK_OUTS; k++) {
            const struct tensor *x = k < TASK_INS ? t->in[k] : t->out[k - TASK_INS];
            if (planned(x))
                s->last_use[owner_of(x)->index] = i64_max(s->last_use[owner_of(x)->index], end);
        }
    }
}

static bool read_twice(const struct task *t, const struct tensor *x)
{
    int reads = 0;
    for (int k = 0; k < t->op->n_in; k++)
        reads += t->in[k] && owner_of(t->in[k]) == x;
    return reads > 1;
}

/* The input whose bytes the in-place output may take over: same size, an owned activation, dead
 * after this task, and read by it in one place only. */
static const struct tensor *in_place_source(const struct planner *s, const struct task *t)
{
    const struct tensor *out = t->out[t->op->in_place_out];
    if (!planned(out) || out->owner || out->slots)
        return NULL;
    for (int k = 0; k < t->op->n_in; k++) {
        const struct tensor *in = t->in[k];
        if ((t->op->in_place >> k & 1) && planned(in) && !in->owner && !in->slots &&
            tensor_bytes(in) == tensor_bytes(out) && s->last_use[in->index] == (i64)t->id &&
            s->buffer_of[in->index] >= 0 && !read_twice(t, in))
            return in;
    }
    return NULL;
}

static void define(struct planner *s, const struct task *t, int k)
{
    struct tensor *out = (struct tensor *)owner_of(t->out[k]);
    if (s->buffer_of[out->index] >= 0)
        return; /* a later part of it: written through another view, or summed into */
    const struct tensor *source = k == t->op->in_place_out ? in_place_source(s, t) : NULL;
    if (source) {
        i64 b = s->buffer_of[source->index];
        s->buffer_of[out->index] = b;
        s->buffers[b].last = i64_max(s->buffers[b].last, s->last_use[out->index]);
        return;
    }
    s->buffer_of[out->index] = s->n_buffers;
    s->buffers[s->n_buffers++] = (struct buffer){
        .tensor = out,
        .bytes = round_up(i64_max(tensor_place_bytes(out), 1), PLAN_ALIGN),
        .first = out->slots ? 0 : t->id,
        .last = s->last_use[out->index],
    };
}

static int larger_first(const void *a, const void *b)
{
    const struct buffer *x = *(struct buffer *const *)a, *y = *(struct buffer *const *)b;
    if (x->bytes != y->bytes)
        return x->bytes > y->bytes ? -1 : 1;
    return x->first < y->first ? -1 : x->first > y->first;
}

static int lower_first(const void *a, const void *b)
{
    const struct buffer *x = *(struct buffer *const *)a, *y = *(struct buffer *const *)b;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* The smallest hole that fits between those already placed and alive at the same time. */
static i64 best_offset(const struct buffer *b, struct buffer **rivals, i64 n)
{
    i64 best = -1, best_hole = INT64_MAX, end = 0;
    for (i64 i = 0; i < n; i++) {
        i64 hole = rivals[i]->offset - end;
        if (hole >= b->bytes && hole < best_hole) {
            best = end;
            best_hole = hole;
        }
        end = i64_max(end, rivals[i]->offset + rivals[i]->bytes);
    }
    return best >= 0 ? best : end;
}

/* Those in place that live at the same time as b; search numbers begin at 1. */
static i64 find_rivals(struct listed *const *stretch, const struct buffer *b, i64 search,
                       struct buffer **rivals)
{
    i64 n = 0;
    for (i64 k = b->first / SPAN; k <= b->last / SPAN; k++) {
        for (const struct listed *l = stretch[k]; l; l = l->next) {
            struct buffer *r = l->buffer;
            if (r->seen != search && r->first <= b->last && b->first <= r->last)
                rivals[n++] = r;
            r->seen = search;
        }
    }
    return n;
}

static void list_buffer(struct listed **stretch, struct buffer *b, struct arena *scratch)
{
    for (i64 k = b->first / SPAN; k <= b->last / SPAN; k++) {
        struct listed *l = ARENA_NEW(scratch, struct listed);
        *l = (struct listed){ b, stretch[k] };
        stretch[k] = l;
    }
}

static void place(struct planner *s, struct arena *scratch, struct memory_plan *plan)
{
    struct buffer **order = ARENA_ARRAY(scratch, struct buffer *, s->n_buffers);
    struct buffer **rivals = ARENA_ARRAY(scratch, struct buffer *, s->n_buffers);
    struct listed **stretch = ARENA_ARRAY(scratch, struct listed *, s->p->n_tasks / SPAN + 1);
    for (i64 i = 0; i < s->n_buffers; i++)
        order[i] = &s->buffers[i];
    qsort(order, (size_t)s->n_buffers, sizeof *order, larger_first);
    for (i64 i = 0; i < s->n_buffers; i++) {
        struct buffer *b = order[i];
        i64 n = find_rivals(stretch, b, i + 1, rivals);
        qsort(rivals, (size_t)n, sizeof *rivals, lower_first);
        b->offset = best_offset(b, rivals, n);
        plan->bytes = i64_max(plan->bytes, b->offset + b->bytes);
        list_buffer(stretch, b, scratch);
    }
}

/* The largest sum of live buffers over all tasks. */
static void lower_bound(const struct planner *s, i64 *change, struct memory_plan *plan)
{
    for (i64 i = 0; i < s->n_buffers; i++) {
        change[s->buffers[i].first] += s->buffers[i].bytes;
        change[s->buffers[i].last + 1] -= s->buffers[i].bytes;
    }
    i64 live = 0;
    for (i64 id = 0; id < s->p->n_tasks; id++) {
        live += change[id];
        if (live > plan->least_bytes) {
            plan->least_bytes = live;
            plan->peak_task = id;
        }
    }
}

static int check_defined(const struct planner *s, const struct task *t)
{
    for (int k = 0; k < TASK_INS; k++)
        if (planned(t->in[k]) && s->buffer_of[owner_of(t->in[k])->index] < 0)
            return err_set(ERR_INTERNAL, "%s (layer %d) reads %s before anything wrote it",
                           t->op->name, t->layer, t->in[k]->name);
    return OK;
}

int plan_memory(struct program *p)
{
    struct arena scratch;
    int rc = OK;
    arena_init(&scratch);
    struct planner s = {
        .p = p,
        .buffer_of = ARENA_ARRAY(&scratch, i64, p->n_tensors),
        .last_use = ARENA_ARRAY(&scratch, i64, p->n_tensors),
        .buffers = ARENA_ARRAY(&scratch, struct buffer, p->n_tensors),
    };
    for (i64 i = 0; i < p->n_tensors; i++)
        s.buffer_of[i] = -1;
    find_last_uses(&s);
    extend_other_lanes(&s);
    extend_slots(&s);
    for (i64 id = 0; id < p->n_tasks && rc >= 0; id++) {
        const struct task *t = p->by_id[id];
        rc = check_defined(&s, t);
        for (int k = 0; k < TASK_OUTS; k++)
            if (planned(t->out[k]))
                define(&s, t, k);
    }
    if (rc >= 0) {
        p->memory = (struct memory_plan){ 0 };
        place(&s, &scratch, &p->memory);
        lower_bound(&s, ARENA_ARRAY(&scratch, i64, p->n_tasks + 2), &p->memory);
        for (i64 i = 0; i < p->n_tensors; i++)
            if (s.buffer_of[i] >= 0)
                p->tensors[i]->offset = s.buffers[s.buffer_of[i]].offset;
    }
    arena_fini(&scratch);
    return rc;
}
