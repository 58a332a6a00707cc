#include "graph/program.h"

#include "graph/plan.h"

#include <stdlib.h>
#include <string.h>

enum { AWAY_ALIGN = 4096 };

static const char *const segment_names[SEGMENT_KINDS] = {
    "receive", "forward", "send", "receive back", "backward", "send back", "weights", "update"
};

/* Where tasks stand in a step: phases follow each other in a graph's list. */
static int stage_of_phase(enum phase phase)
{
    return phase == PHASE_FORWARD ? 0 : phase == PHASE_UPDATE ? 2 : 1;
}

/* The loss head forms its weights' gradient chunk by chunk, wherever others are put off. */
static enum segment_kind kind_of(const struct task *t, bool splits)
{
    bool forward = t->phase == PHASE_FORWARD;
    if (t->phase == PHASE_UPDATE)
        return SEGMENT_UPDATE;
    if (t->op->receives)
        return forward ? SEGMENT_RECV_F : SEGMENT_RECV_B;
    if (t->op->sends)
        return forward ? SEGMENT_SEND_F : SEGMENT_SEND_B;
    if (forward)
        return SEGMENT_FORWARD;
    return splits && t->phase == PHASE_WEIGHT_GRAD && !t->head ? SEGMENT_WEIGHT
                                                               : SEGMENT_BACKWARD;
}

/* Forward from the first part to the last, then backward from the last to the first. */
static int place_of(enum segment_kind kind, int part, int parts)
{
    enum { FORWARD_KINDS = SEGMENT_RECV_B, BACKWARD_KINDS = SEGMENT_UPDATE - SEGMENT_RECV_B };
    if (kind == SEGMENT_UPDATE)
        return parts * SEGMENT_UPDATE;
    if (kind < SEGMENT_RECV_B)
        return part * FORWARD_KINDS + (int)kind;
    return parts * FORWARD_KINDS + (parts - 1 - part) * BACKWARD_KINDS +
           (int)(kind - SEGMENT_RECV_B);
}

static int check_phases(const struct graph *g)
{
    for (i64 i = 1; i < g->n_tasks; i++)
        if (stage_of_phase(g->tasks[i]->phase) < stage_of_phase(g->tasks[i - 1]->phase))
            return err_set(ERR_INTERNAL, "%s (layer %d) stands behind a later segment",
                           g->tasks[i]->op->name, g->tasks[i]->layer);
    return OK;
}

static int count_parts(const struct graph *g)
{
    int parts = 1;
    for (i64 i = 0; i < g->n_tasks; i++)
        parts = g->tasks[i]->part >= parts ? g->tasks[i]->part + 1 : parts;
    return parts;
}

static void name_segments(struct program *p, int parts, struct arena *arena)
{
    p->n_segments = place_of(SEGMENT_UPDATE, 0, parts) + 1;
    p->segments = ARENA_ARRAY(arena, struct segment, p->n_segments);
    for (int part = 0; part < parts; part++)
        for (int kind = 0; kind < SEGMENT_KINDS; kind++) {
            struct segment *s = &p->segments[place_of((enum segment_kind)kind, part, parts)];
            s->name = segment_names[kind];
            s->kind = (enum segment_kind)kind;
            s->part = kind == SEGMENT_UPDATE ? 0 : part;
        }
}

/* Sorts tasks into segments, each in the order of the list. */
static int cut_segments(struct program *p, const struct graph *g, bool splits)
{
    struct task *flat = ARENA_ARRAY(g->arena, struct task, g->n_tasks);
    int parts = count_parts(g);
    TRY(check_phases(g));
    p->by_id = ARENA_ARRAY(g->arena, struct task *, g->n_tasks);
    p->took_us = ARENA_ARRAY(g->arena, u32, g->n_tasks);
    p->n_tasks = g->n_tasks;
    name_segments(p, parts, g->arena);
    for (i64 i = 0; i < g->n_tasks; i++) {
        const struct task *t = g->tasks[i];
        int part = t->phase == PHASE_UPDATE ? 0 : t->part;
        p->segments[place_of(kind_of(t, splits), part, parts)].n_tasks++;
    }
    for (int k = 0; k < p->n_segments; k++) {
        p->segments[k].tasks = k ? p->segments[k - 1].tasks + p->segments[k - 1].n_tasks : flat;
        if (k)
            p->segments[k - 1].n_tasks = 0;
    }
    p->segments[p->n_segments - 1].n_tasks = 0;
    for (i64 i = 0; i < g->n_tasks; i++) {
        const struct task *t = g->tasks[i];
        int part = t->phase == PHASE_UPDATE ? 0 : t->part;
        struct segment *s = &p->segments[place_of(kind_of(t, splits), part, parts)];
        s->tasks[s->n_tasks++] = *t;
    }
    for (i64 id = 0; id < p->n_tasks; id++) {
        flat[id].id = (u32)id;
        p->by_id[id] = &flat[id];
    }
    return OK;
}

static bool is_sum(const struct op_info *op, int k)
{
    return op->accumulates && (op->sums == 0 || (op->sums >> k & 1));
}

static bool seen_before(struct tensor *const *seen, i64 n, const struct tensor *t)
{
    for (i64 i = 0; i < n; i++)
        if (seen[i] == t)
            return true;
    return false;
}

/* An activation does not outlive its micro-batch. */
static bool begins_anew(const struct tensor *t)
{
    const struct tensor *x = t->owner ? t->owner : t;
    return x->role == ROLE_ACTIVATION && x->index >= 0;
}

/* All sums of one task must agree. */
static int settle_task(struct task *t, struct tensor **seen, i64 *n)
{
    int first = -1;
    bool anew = t->fresh;
    for (int k = 0; k < t->op->n_out; k++) {
        if (!t->out[k] || !is_sum(t->op, k))
            continue;
        bool is_first = t->fresh || !seen_before(seen, *n, t->out[k]);
        if (first >= 0 && first != (int)is_first)
            return err_set(ERR_INTERNAL, "%s: sums begin at different tasks", t->op->name);
        first = is_first;
        anew = anew || (is_first && begins_anew(t->out[k]));
        if (is_first)
            seen[(*n)++] = t->out[k];
    }
    if (first >= 0)
        t->accumulate = anew ? ACCUMULATE_NONE
                        : first ? ACCUMULATE_STEP : ACCUMULATE_ALWAYS;
    return OK;
}

/* The first writer of each sum overwrites in micro-batch 0, or in each where the sum is an
 * activation; later ones add; fresh ones always overwrite. Which is first is known by the order in
 * which segments have their first turn. */
static int settle_sums(struct program *p, struct arena *arena)
{
    struct tensor **seen = ARENA_ARRAY(arena, struct tensor *, p->n_tasks * TASK_OUTS);
    bool *done = ARENA_ARRAY(arena, bool, p->n_segments);
    i64 n = 0;
    for (i64 a = 0; a < p->n_actions; a++) {
        const struct segment *s = &p->segments[p->actions[a].segment];
        if (done[p->actions[a].segment])
            continue;
        done[p->actions[a].segment] = true;
        for (i64 i = 0; i < s->n_tasks; i++)
            TRY(settle_task(&s->tasks[i], seen, &n));
    }
    return OK;
}

static void cost_add(struct cost *sum, const struct cost *c)
{
    sum->flops += c->flops;
    sum->model_flops += c->model_flops;
    sum->read_bytes += c->read_bytes;
    sum->written_bytes += c->written_bytes;
    sum->message_bytes += c->message_bytes;
}

static void count_cost(struct program *p)
{
    for (i64 a = 0; a < p->n_actions; a++) {
        const struct segment *s = &p->segments[p->actions[a].segment];
        for (i64 i = 0; i < s->n_tasks; i++)
            if (task_has_turn(&s->tasks[i], p->actions[a].micro_batch, p->micro_batches))
                cost_add(&p->cost, &s->tasks[i].cost);
    }
}

/* Side by side: slower memory is plentiful. At page borders, so that each can be forgotten. */
static void place_away(struct program *p)
{
    for (i64 i = 0; i < p->n_tensors; i++) {
        struct tensor *t = p->tensors[i];
        if (t->role != ROLE_AWAY || t->owner)
            continue;
        t->offset = p->away_bytes;
        p->away_bytes += round_up(tensor_bytes(t), AWAY_ALIGN);
    }
}

/* Turns become actions; each segment with tasks takes all micro-batches in ascending order. */
static int take_turns(struct program *p, struct arena *arena, const struct turn *turns, i64 n)
{
    int parts = (p->n_segments - 1) / SEGMENT_UPDATE;
    int *next = ARENA_ARRAY(arena, int, p->n_segments);
    p->actions = ARENA_ARRAY(arena, struct action, n);
    for (i64 i = 0; i < n; i++) {
        bool known = turns[i].part >= 0 && turns[i].part < parts;
        int k = known ? place_of(turns[i].kind, turns[i].part, parts) : 0;
        int expected = turns[i].kind == SEGMENT_UPDATE ? p->micro_batches - 1 : next[k];
        if (!known || p->segments[k].n_tasks == 0 || turns[i].micro_batch != expected)
            return err_set(ERR_INTERNAL, "%s: %s of part %d, micro-batch %d, is not its turn",
                           p->name, segment_names[turns[i].kind], turns[i].part,
                           turns[i].micro_batch);
        next[k] = turns[i].micro_batch + 1;
        p->actions[p->n_actions++] = (struct action){ (u16)k, (u16)turns[i].micro_batch };
    }
    for (int k = 0; k < p->n_segments; k++)
        if (p->segments[k].n_tasks > 0 && next[k] != p->micro_batches)
            return err_set(ERR_INTERNAL, "%s: %s of part %d lacks its last turns", p->name,
                           p->segments[k].name, p->segments[k].part);
    return OK;
}

static bool has_slots(const struct tensor *t)
{
    return t && (t->owner ? t->owner : t)->slots;
}

static void add_moving(struct segment *s, struct tensor *t)
{
    for (i64 i = 0; i < s->n_moving; i++)
        if (s->moving[i] == t)
            return;
    s->moving[s->n_moving++] = t;
}

static void list_moving(struct program *p, struct arena *arena)
{
    for (int k = 0; k < p->n_segments; k++) {
        struct segment *s = &p->segments[k];
        i64 most = 0;
        for (i64 i = 0; i < s->n_tasks; i++)
            for (int x = 0; x < TASK_INS + TASK_OUTS; x++)
                most += 2 * has_slots(x < TASK_INS ? s->tasks[i].in[x]
                                                   : s->tasks[i].out[x - TASK_INS]);
        s->moving = ARENA_ARRAY(arena, struct tensor *, most);
        for (i64 i = 0; i < s->n_tasks; i++)
            for (int x = 0; x < TASK_INS + TASK_OUTS; x++) {
                struct tensor *t = x < TASK_INS ? s->tasks[i].in[x]
                                                : s->tasks[i].out[x - TASK_INS];
                if (!has_slots(t))
                    continue;
                add_moving(s, t->owner ? t->owner : t);
                add_moving(s, t);
            }
    }
}

int program_new_scheduled(struct program **out, struct graph *g, const char *name,
                          int micro_batches, const struct turn *turns, i64 n)
{
    assert(micro_batches >= 1);
    TRY(g->rc);
    struct program *p = ARENA_NEW(g->arena, struct program);
    bool splits = false;
    for (i64 i = 0; i < n; i++)
        splits = splits || turns[i].kind == SEGMENT_WEIGHT;
    p->name = arena_strdup(g->arena, name);
    p->tensors = g->tensors;
    p->n_tensors = g->n_tensors;
    p->micro_batches = micro_batches;
    TRY(cut_segments(p, g, splits));
    TRY(take_turns(p, g->arena, turns, n));
    TRY(settle_sums(p, g->arena));
    plan_slots(p, g->arena);
    TRY(plan_memory(p));
    place_away(p);
    list_moving(p, g->arena);
    count_cost(p);
    *out = p;
    return OK;
}

int program_new(struct program **out, struct graph *g, const char *name, int micro_batches)
{
    struct turn *turns = ARENA_ARRAY(g->arena, struct turn, 2 * micro_batches + 1);
    bool has[3] = { false };
    i64 n = 0;
    for (i64 i = 0; i < g->n_tasks; i++)
        has[stage_of_phase(g->tasks[i]->phase)] = true;
    for (int i = 0; i < micro_batches; i++) {
        if (has[0])
            turns[n++] = (struct turn){ SEGMENT_FORWARD, 0, i };
        if (has[1])
            turns[n++] = (struct turn){ SEGMENT_BACKWARD, 0, i };
    }
    if (has[2])
        turns[n++] = (struct turn){ SEGMENT_UPDATE, 0, micro_batches - 1 };
    return program_new_scheduled(out, g, name, micro_batches, turns, n);
}

/* --- places ------------------------------------------------------------------------- */

void tensor_enter_slot(struct tensor *owner, int slot)
{
    struct tensor_slots *s = owner->slots;
    if (slot == s->current)
        return;
    s->uses[s->current] = owner->pending;
    owner->pending = s->uses[slot];
    s->current = slot;
    owner->data = s->base + slot * s->stride;
}

void program_enter(const struct program *p, const struct action *a)
{
    const struct segment *s = &p->segments[a->segment];
    for (i64 i = 0; i < s->n_moving; i++) {
        struct tensor *t = s->moving[i];
        if (t->owner)
            t->data = (char *)t->owner->data + t->owner_offset;
        else
            tensor_enter_slot(t, a->micro_batch % t->slots->n);
    }
}

static void place(struct tensor *t, void *region, struct arena *arena)
{
    if (t->role == ROLE_ACTIVATION)
        t->data = (char *)region + t->offset;
    else if (!t->data)
        t->data = arena_alloc(arena, tensor_place_bytes(t));
    else
        return;
    if (t->slots) {
        t->slots->base = t->data;
        t->slots->current = 0;
    }
}

void program_bind(struct program *p, void *region, struct arena *arena)
{
    for (i64 i = 0; i < p->n_tensors; i++) {
        struct tensor *t = p->tensors[i];
        if (!t->owner)
            place(t, region, arena);
    }
    for (i64 i = 0; i < p->n_tensors; i++) {
        struct tensor *t = p->tensors[i];
        if (t->owner && t->owner->data)
            t->data = (char *)t->owner->data + t->owner_offset;
    }
}

i64 program_kept_bytes(const struct program *p)
{
    i64 bytes = 0;
    for (i64 i = 0; i < p->n_tensors; i++) {
        const struct tensor *t = p->tensors[i];
        bool kept = t->role != ROLE_ACTIVATION && t->role != ROLE_AWAY;
        if (!t->owner && kept && !t->data)
            bytes += tensor_place_bytes(t);
    }
    return bytes;
}

static int by_bytes(const void *a, const void *b)
{
    i64 x = tensor_place_bytes(*(struct tensor *const *)a);
    i64 y = tensor_place_bytes(*(struct tensor *const *)b);
    return x > y ? -1 : x < y;
}

static void note_use(const struct program *p, const struct tensor *t, bool *before,
                     bool *after, i64 id)
{
    const struct tensor *x = t && t->owner ? t->owner : t;
    if (!x || x->index < 0 || x->role != ROLE_ACTIVATION)
        return;
    before[x->index] = before[x->index] || id <= p->memory.peak_task;
    after[x->index] = after[x->index] || id >= p->memory.peak_task;
}

void program_bind_away(struct program *p, void *region)
{
    for (i64 i = 0; i < p->n_tensors; i++)
        if (p->tensors[i]->role == ROLE_AWAY && !p->tensors[i]->owner)
            p->tensors[i]->data = (char *)region + p->tensors[i]->offset;
}

i64 program_largest(const struct program *p, const struct tensor **out, i64 n)
{
    struct arena scratch;
    i64 count = 0;
    arena_init(&scratch);
    const struct tensor **live = ARENA_ARRAY(&scratch, const struct tensor *, p->n_tensors);
    bool *before = ARENA_ARRAY(&scratch, bool, p->n_tensors); /* touched up to the peak */
    bool *after = ARENA_ARRAY(&scratch, bool, p->n_tensors);  /* and from it on */
    for (i64 id = 0; id < p->n_tasks; id++) {
        const struct task *task = p->by_id[id];
        for (int k = 0; k < TASK_INS; k++)
            note_use(p, task->in[k], before, after, id);
        for (int k = 0; k < TASK_OUTS; k++)
            note_use(p, task->out[k], before, after, id);
    }
    for (i64 i = 0; i < p->n_tensors; i++) {
        const struct tensor *t = p->tensors[i];
        bool slots = t->role == ROLE_ACTIVATION && t->slots;
        if (slots || (t->index >= 0 && before[t->index] && after[t->index]))
            live[count++] = t;
    }
    qsort(live, (size_t)count, sizeof *live, by_bytes);
    n = i64_min(n, count);
    memcpy(out, live, sizeof *live * (size_t)n);
    arena_fini(&scratch);
    return n;
}
