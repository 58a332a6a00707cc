#include "graph/program.h"

#include "graph/plan.h"

#include <stdlib.h>
#include <string.h>

static enum segment_kind segment_of(const struct task *t)
{
    switch (t->phase) {
    case PHASE_FORWARD: return SEGMENT_FORWARD;
    case PHASE_INPUT_GRAD:
    case PHASE_WEIGHT_GRAD: return SEGMENT_BACKWARD;
    default: return SEGMENT_UPDATE;
    }
}

static int cut_segments(struct program *p, const struct graph *g)
{
    static const char *const names[] = { "forward", "backward", "update" };
    struct task *flat = ARENA_ARRAY(g->arena, struct task, g->n_tasks);
    enum segment_kind kind = SEGMENT_FORWARD;
    p->by_id = ARENA_ARRAY(g->arena, struct task *, g->n_tasks);
    p->n_tasks = g->n_tasks;
    for (int s = 0; s < SEGMENTS; s++)
        p->segments[s] = (struct segment){ .name = names[s], .tasks = flat };
    for (i64 i = 0; i < g->n_tasks; i++) {
        enum segment_kind now = segment_of(g->tasks[i]);
        if (now < kind)
            return err_set(ERR_INTERNAL, "%s (layer %d) stands behind a later segment",
                           g->tasks[i]->op->name, g->tasks[i]->layer);
        for (int s = (int)kind + 1; s <= (int)now; s++)
            p->segments[s].tasks = flat + i;
        kind = now;
        flat[i] = *g->tasks[i];
        flat[i].id = (u32)i;
        p->by_id[i] = &flat[i];
        p->segments[kind].n_tasks++;
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

/* The first writer of each sum overwrites in micro-batch 0, later ones add; fresh ones always
 * overwrite. All sums of one task must agree. */
static int settle_sums(struct program *p, struct arena *arena)
{
    struct tensor **seen = ARENA_ARRAY(arena, struct tensor *, p->n_tasks * TASK_OUTS);
    i64 n = 0;
    for (i64 id = 0; id < p->n_tasks; id++) {
        struct task *t = p->by_id[id];
        int first = -1;
        for (int k = 0; k < t->op->n_out; k++) {
            if (!t->out[k] || !is_sum(t->op, k))
                continue;
            bool is_first = t->fresh || !seen_before(seen, n, t->out[k]);
            if (first >= 0 && first != (int)is_first)
                return err_set(ERR_INTERNAL, "%s: sums begin at different tasks", t->op->name);
            first = is_first;
            if (is_first)
                seen[n++] = t->out[k];
        }
        if (first >= 0)
            t->accumulate = t->fresh ? ACCUMULATE_NONE
                            : first ? ACCUMULATE_STEP : ACCUMULATE_ALWAYS;
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

static void expand_actions(struct program *p, struct arena *arena, int micro_batches)
{
    p->micro_batches = micro_batches;
    p->actions = ARENA_ARRAY(arena, struct action, SEGMENTS * micro_batches);
    for (int mb = 0; mb < micro_batches; mb++)
        for (int s = 0; s < SEGMENTS; s++)
            if (p->segments[s].n_tasks > 0 &&
                (s != SEGMENT_UPDATE || mb == micro_batches - 1))
                p->actions[p->n_actions++] = (struct action){ (u16)s, (u16)mb };
    for (i64 a = 0; a < p->n_actions; a++) {
        const struct segment *s = &p->segments[p->actions[a].segment];
        for (i64 i = 0; i < s->n_tasks; i++)
            if (!s->tasks[i].last_turn || p->actions[a].micro_batch == micro_batches - 1)
                cost_add(&p->cost, &s->tasks[i].cost);
    }
}

int program_new(struct program **out, struct graph *g, const char *name, int micro_batches)
{
    assert(micro_batches >= 1);
    TRY(g->rc);
    struct program *p = ARENA_NEW(g->arena, struct program);
    p->name = arena_strdup(g->arena, name);
    p->tensors = g->tensors;
    p->n_tensors = g->n_tensors;
    TRY(cut_segments(p, g));
    TRY(settle_sums(p, g->arena));
    TRY(plan_memory(p));
    expand_actions(p, g->arena, micro_batches);
    *out = p;
    return OK;
}

void program_bind(struct program *p, void *region, struct arena *arena)
{
    for (i64 i = 0; i < p->n_tensors; i++) {
        struct tensor *t = p->tensors[i];
        if (t->owner)
            continue;
        if (t->role == ROLE_ACTIVATION)
            t->data = (char *)region + t->offset;
        else if (!t->data)
            t->data = arena_alloc(arena, tensor_bytes(t));
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
        if (!t->owner && t->role != ROLE_ACTIVATION && !t->data)
            bytes += tensor_bytes(t);
    }
    return bytes;
}

static int by_bytes(const void *a, const void *b)
{
    i64 x = tensor_bytes(*(struct tensor *const *)a);
    i64 y = tensor_bytes(*(struct tensor *const *)b);
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
        if (t->index >= 0 && before[t->index] && after[t->index])
            live[count++] = t;
    }
    qsort(live, (size_t)count, sizeof *live, by_bytes);
    n = i64_min(n, count);
    memcpy(out, live, sizeof *live * (size_t)n);
    arena_fini(&scratch);
    return n;
}
