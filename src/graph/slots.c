/* How many micro-batches' worth of a tensor exist at once (see plan.h).
 *
 * A tensor that one segment alone touches is gone when that segment's action ends. What one
 * segment leaves for another lives from action to action, and in a pipeline other
 * micro-batches pass in between: then each of those in flight has a slot of its own. Which
 * slot is micro-batch modulo the number of slots, for segments go through the micro-batches in
 * ascending order. */
#include "graph/plan.h"

struct window {
    i64 first, last; /* actions */
};

struct survey {
    struct program *p;
    struct arena *scratch;
    i64 *action_of; /* [segments * micro_batches]: where it runs, or -1 */
    u16 **segments; /* [tensors]: which segments touch it, in their order */
    int *n_segments;
};

static const struct tensor *owner_of(const struct tensor *t)
{
    return t->owner ? t->owner : t;
}

/* Results that several micro-batches share are sums; those are not written again for each. */
static bool surveyed(const struct tensor *t)
{
    return t && t->index >= 0 && (t->role == ROLE_ACTIVATION || t->role == ROLE_INPUT);
}

static void note(struct survey *s, const struct tensor *t, int segment)
{
    if (!surveyed(t))
        return;
    i64 i = owner_of(t)->index;
    int n = s->n_segments[i];
    for (int k = 0; k < n; k++)
        if (s->segments[i][k] == segment)
            return;
    if (!s->segments[i])
        s->segments[i] = ARENA_ARRAY(s->scratch, u16, s->p->n_segments);
    s->segments[i][n] = (u16)segment;
    s->n_segments[i]++;
}

static int segment_of_task(const struct program *p, i64 id)
{
    int k = 0;
    while (id >= p->segments[k].tasks - p->segments[0].tasks + p->segments[k].n_tasks)
        k++;
    return k;
}

static bool is_move(const struct segment *s)
{
    return s->kind == SEGMENT_RECV_F || s->kind == SEGMENT_SEND_F ||
           s->kind == SEGMENT_RECV_B || s->kind == SEGMENT_SEND_B;
}

static void note_tasks(struct survey *s)
{
    const struct program *p = s->p;
    for (int segment = 0; segment < p->n_segments; segment++)
        for (i64 i = 0; i < p->segments[segment].n_tasks; i++) {
            const struct task *t = &p->segments[segment].tasks[i];
            bool lingers = t->lane != LANE_COMPUTE && !is_move(&p->segments[segment]);
            int end = lingers ? segment_of_task(p, plan_end_of(p, t)) : segment;
            for (int k = 0; k < TASK_INS + TASK_OUTS; k++) {
                const struct tensor *x = k < TASK_INS ? t->in[k] : t->out[k - TASK_INS];
                note(s, x, segment);
                note(s, x, end);
            }
            note(s, t->when, segment);
        }
}

static struct window window_of(const struct survey *s, i64 tensor, int micro_batch)
{
    struct window w = { INT64_MAX, -1 };
    for (int k = 0; k < s->n_segments[tensor]; k++) {
        i64 at = s->action_of[s->segments[tensor][k] * s->p->micro_batches + micro_batch];
        if (at < 0)
            continue; /* the update, before the last micro-batch */
        w.first = i64_min(w.first, at);
        w.last = i64_max(w.last, at);
    }
    return w;
}

static bool touched_by(const struct survey *s, i64 tensor, bool (*kind)(const struct segment *))
{
    for (int k = 0; k < s->n_segments[tensor]; k++)
        if (kind(&s->p->segments[s->segments[tensor][k]]))
            return true;
    return false;
}

static bool is_update(const struct segment *s)
{
    return s->kind == SEGMENT_UPDATE;
}

static bool is_send(const struct segment *s)
{
    return s->kind == SEGMENT_SEND_F || s->kind == SEGMENT_SEND_B;
}

/* The fewest for which no micro-batch meets another in its slot. */
static int slots_needed(const struct survey *s, i64 tensor)
{
    int m = s->p->micro_batches, n = 1;
    for (int i = 0; i + n < m; i++)
        while (i + n < m &&
               window_of(s, tensor, i + n).first <= window_of(s, tensor, i).last)
            n++;
    return n;
}

/* Whether between its first and its last action nothing runs that stands elsewhere in the list
 * of tasks: then its life is known by positions in that list, like that of any other. Moves
 * do not matter: what they touch keeps its place for the whole step. */
static bool in_list_order(const struct survey *s, i64 tensor, int micro_batch)
{
    const struct program *p = s->p;
    struct window w = window_of(s, tensor, micro_batch);
    int low = p->n_segments, high = -1;
    for (int k = 0; k < s->n_segments[tensor]; k++) {
        low = (int)i64_min(low, s->segments[tensor][k]);
        high = (int)i64_max(high, s->segments[tensor][k]);
    }
    for (i64 a = w.first; a <= w.last; a++) {
        int segment = p->actions[a].segment;
        if (!is_move(&p->segments[segment]) && (segment < low || segment > high))
            return false;
    }
    return true;
}

static bool always_in_list_order(const struct survey *s, i64 tensor)
{
    for (int i = 0; i < s->p->micro_batches; i++)
        if (window_of(s, tensor, i).last >= 0 && !in_list_order(s, tensor, i))
            return false;
    return true;
}

/* 0: it shares its place with others. */
static int count_slots(const struct survey *s, i64 tensor)
{
    if (s->n_segments[tensor] < 2)
        return 0;
    if (touched_by(s, tensor, is_update))
        return always_in_list_order(s, tensor) ? 0 : 1;
    int n = slots_needed(s, tensor);
    if (touched_by(s, tensor, is_send)) /* one more: a send may outlast its action */
        return (int)i64_min(n + 1, s->p->micro_batches);
    if (n == 1 && !touched_by(s, tensor, is_move) && always_in_list_order(s, tensor))
        return 0;
    return n;
}

void plan_slots(struct program *p, struct arena *arena)
{
    struct arena scratch;
    arena_init(&scratch);
    struct survey s = { .p = p, .scratch = &scratch };
    i64 cells = (i64)p->n_segments * p->micro_batches;
    s.segments = ARENA_ARRAY(&scratch, u16 *, p->n_tensors);
    s.n_segments = ARENA_ARRAY(&scratch, int, p->n_tensors);
    s.action_of = ARENA_ARRAY(&scratch, i64, cells);
    for (i64 i = 0; i < cells; i++)
        s.action_of[i] = -1;
    for (i64 a = 0; a < p->n_actions; a++)
        s.action_of[p->actions[a].segment * p->micro_batches + p->actions[a].micro_batch] = a;
    note_tasks(&s);
    for (i64 i = 0; i < p->n_tensors; i++) {
        int n = count_slots(&s, i);
        if (n == 0)
            continue;
        struct tensor_slots *slots = ARENA_NEW(arena, struct tensor_slots);
        slots->n = n;
        slots->stride = round_up(i64_max(tensor_bytes(p->tensors[i]), 1), PLAN_ALIGN);
        slots->uses = ARENA_ARRAY(arena, struct tensor_use, n);
        p->tensors[i]->slots = slots;
    }
    arena_fini(&scratch);
}
