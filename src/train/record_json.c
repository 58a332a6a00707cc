#include "train/record_json.h"

#include "ops/ops.h"
#include "trace/record.h"

#include <stdlib.h>

/* --- who takes part ----------------------------------------------------------------- */

static void put_ranks(struct json *j, const i64 *ranks, i64 n)
{
    json_begin_array(j);
    for (i64 i = 0; i < n; i++)
        json_int(j, ranks[i]);
    json_end(j);
}

static i64 rank_at(const struct mesh *m, int stage)
{
    return m->rank + (m->stages.rank_of[stage] - m->pp_rank) * mesh_stride(m, LANE_PP);
}

static bool has_stage(const struct mesh *m, int stage)
{
    return m->stages.rank_of[stage] == (int)m->pp_rank;
}

/* Members in order of their index, as parallel/mesh.c makes groups. */
static void put_group(struct json *j, const struct mesh *m, enum lane lane)
{
    i64 n = mesh_degree(m, lane), stride = mesh_stride(m, lane);
    i64 first = m->rank - mesh_coordinate(m, lane) * stride;
    int last = m->stages.n - 1;
    if (lane == LANE_TIE && last > 0 && m->stages.rank_of[0] != m->stages.rank_of[last] &&
        (has_stage(m, 0) || has_stage(m, last))) {
        put_ranks(j, (i64[]){ rank_at(m, 0), rank_at(m, last) }, 2);
        return;
    }
    json_begin_array(j);
    for (i64 i = 0; n > 1 && i < n; i++)
        json_int(j, first + i * stride);
    json_end(j);
}

static void put_boundaries(struct json *j, const struct mesh *m)
{
    json_key(j, "boundaries");
    json_begin_array(j);
    for (int b = 0; b + 1 < m->stages.n; b++) {
        bool mine = has_stage(m, b) || has_stage(m, b + 1);
        bool crossed = mine && m->stages.rank_of[b] != m->stages.rank_of[b + 1];
        put_ranks(j, (i64[]){ rank_at(m, b), rank_at(m, b + 1) }, crossed ? 2 : 0);
    }
    json_end(j);
}

static void put_mesh(struct json *j, const struct mesh *m)
{
    const struct layout *l = &m->layout;
    json_key(j, "mesh");
    json_begin_object(j);
    const struct {
        const char *axis;
        i64 at, of;
    } axes[] = { { "islands", m->island, l->islands }, { "pp", m->pp_rank, l->pp },
                 { "dp", m->dp_rank, l->dp },          { "cp", m->cp_rank, l->cp },
                 { "tp", m->tp_rank, l->tp },          { "ep", 0, l->ep } };
    for (i64 i = 0; i < COUNT_OF(axes); i++) {
        json_key(j, axes[i].axis);
        put_ranks(j, (i64[]){ axes[i].at, axes[i].of }, 2);
    }
    json_put_int(j, "zero", l->zero);
    json_end(j);
    json_key(j, "groups");
    json_begin_array(j);
    for (int lane = 0; lane < LANE_COUNT; lane++)
        put_group(j, m, (enum lane)lane);
    json_end(j);
    put_boundaries(j, m);
}

void record_put_head(struct json *j, const struct record_about *about)
{
    json_begin_object(j);
    json_put_int(j, "version", RECORD_VERSION);
    json_put_int(j, "rank", about->mesh->rank);
    json_put_int(j, "ranks", layout_ranks(&about->mesh->layout));
    json_put_int(j, "part", about->part);
    json_put_str(j, "layout", about->layout);
    json_put_str(j, "host", about->host);
    json_put_int(j, "pid", about->pid);
    json_put_str(j, "backend", about->backend);
    json_put_str(j, "processor", about->processor);
    json_put_str(j, "precision", about->precision);
    json_put_int(j, "threads", about->threads);
    json_put_int(j, "cores", about->cores);
    json_put_int(j, "sharers", about->sharers);
    json_put_double(j, "flops_f32", about->flops_f32);
    json_put_double(j, "flops_bf16", about->flops_bf16);
    if (about->widest) {
        json_put_str(j, "widest", about->widest);
        json_put_double(j, "widest_f32", about->widest_f32);
        json_put_double(j, "widest_bf16", about->widest_bf16);
    }
    json_put_double(j, "memory_bytes_per_s", about->memory_bytes_per_s);
    json_put_double(j, "launch_s", about->launch_s);
    json_put_int(j, "begin_ns", (i64)about->begin_ns);
    json_put_double(j, "wall_begin", about->wall_begin);
    put_mesh(j, about->mesh);
    json_end(j);
}

/* --- a program ---------------------------------------------------------------------- */

static const struct tensor *root(const struct tensor *t)
{
    return t && t->owner ? t->owner : t;
}

/* Tensors that own what tasks touch, numbered as tasks come to them: ranks that run the same
 * program write the same table, wherever their memory lies. */
struct owner {
    const struct tensor *tensor;
    i64 number;
};

struct owners {
    struct owner *list; /* by address */
    const struct tensor **numbered;
    i64 n;
};

static int by_address(const void *a, const void *b)
{
    const struct owner *x = a, *y = b;
    if (x->tensor != y->tensor)
        return (uintptr_t)x->tensor < (uintptr_t)y->tensor ? -1 : 1;
    return (x->number > y->number) - (x->number < y->number);
}

static int by_number(const void *a, const void *b)
{
    const struct owner *x = a, *y = b;
    return (x->number > y->number) - (x->number < y->number);
}

static void add_owner(struct owners *o, const struct tensor *t)
{
    if (t) {
        o->list[o->n] = (struct owner){ root(t), o->n };
        o->n++;
    }
}

/* Each once, where it comes first. */
static void number_owners(struct owners *o)
{
    i64 n = 0;
    qsort(o->list, (size_t)o->n, sizeof *o->list, by_address);
    for (i64 i = 0; i < o->n; i++)
        if (n == 0 || o->list[n - 1].tensor != o->list[i].tensor)
            o->list[n++] = o->list[i];
    o->n = n;
    qsort(o->list, (size_t)n, sizeof *o->list, by_number);
    for (i64 i = 0; i < n; i++) {
        o->list[i].number = i;
        o->numbered[i] = o->list[i].tensor;
    }
    qsort(o->list, (size_t)n, sizeof *o->list, by_address);
}

static void find_owners(struct owners *o, const struct program *p, struct arena *a)
{
    const i64 most = p->n_tasks * (TASK_INS + TASK_OUTS + 1);
    *o = (struct owners){ ARENA_ARRAY(a, struct owner, most),
                          ARENA_ARRAY(a, const struct tensor *, most), 0 };
    for (i64 id = 0; id < p->n_tasks; id++) {
        const struct task *t = p->by_id[id];
        add_owner(o, t->when);
        for (int k = 0; k < TASK_INS; k++)
            add_owner(o, t->in[k]);
        for (int k = 0; k < TASK_OUTS; k++)
            add_owner(o, t->out[k]);
    }
    number_owners(o);
}

static int by_tensor(const void *key, const void *at)
{
    const uintptr_t x = (uintptr_t)key, y = (uintptr_t)((const struct owner *)at)->tensor;
    return (x > y) - (x < y);
}

static void put_index(struct json *j, const struct owners *o, const struct tensor *t)
{
    const struct tensor *owner = root(t);
    const struct owner *found = NULL;
    if (owner)
        found = bsearch(owner, o->list, (size_t)o->n, sizeof *o->list, by_tensor);
    if (found)
        json_int(j, found->number);
}

static void put_tensors(struct json *j, const struct owners *o)
{
    json_key(j, "tensors");
    json_begin_array(j);
    for (i64 i = 0; i < o->n; i++) {
        const struct tensor *t = o->numbered[i];
        json_begin_array(j);
        json_str(j, t->name);
        json_int(j, tensor_bytes(t));
        json_int(j, t->slots ? t->slots->n : 1);
        json_end(j);
    }
    json_end(j);
}

static int flags_of(const struct task *t)
{
    const bool move = t->op->sends || t->op->receives;
    const struct {
        bool is;
        int flag;
    } flags[] = { { t->recompute, 1 },   { t->head, 2 },       { t->first_turn, 4 },
                  { t->last_turn, 8 },   { t->op->waits, 16 }, { t->op->sends, 32 },
                  { t->op->receives, 64 }, { move && t->attr[MOVE_UP] != 0, 128 } };
    int sum = 0;
    for (i64 i = 0; i < COUNT_OF(flags); i++)
        sum |= flags[i].is ? flags[i].flag : 0;
    return sum;
}

static void put_touched(struct json *j, const struct owners *o, const struct task *t)
{
    json_begin_array(j);
    put_index(j, o, t->when);
    for (int k = 0; k < TASK_INS; k++)
        put_index(j, o, t->in[k]);
    json_end(j);
    json_begin_array(j);
    for (int k = 0; k < TASK_OUTS; k++)
        put_index(j, o, t->out[k]);
    json_end(j);
}

/* One row: op, layer, phase, part, lane, dtype, flags, boundary, calls, conditional, flops, model
 * flops, bytes read, written, sent, [reads], [writes], [moved]. */
static void put_task(struct json *j, const struct owners *o, const struct task *t)
{
    const bool move = t->op->sends || t->op->receives, away = t->lane == LANE_AWAY;
    const struct tensor *moved = t->in[0] ? t->in[0] : t->out[0];
    const bool calls = t->lane != LANE_COMPUTE && !move && !away;
    json_begin_array(j);
    json_str(j, t->op->name);
    json_int(j, t->layer);
    json_int(j, t->phase);
    json_int(j, t->part);
    json_int(j, t->lane);
    json_int(j, moved ? (i64)moved->dtype : 0);
    json_int(j, flags_of(t));
    json_int(j, move ? (i64)t->attr[MOVE_BOUNDARY] : -1);
    json_int(j, calls ? (i64)t->attr[COLLECTIVE_OUTER] : 1);
    json_bool(j, t->when != NULL);
    json_double(j, t->cost.flops);
    json_double(j, t->cost.model_flops);
    json_double(j, t->cost.read_bytes);
    json_double(j, t->cost.written_bytes);
    json_double(j, t->cost.message_bytes);
    put_touched(j, o, t);
    json_begin_array(j);
    put_index(j, o, moved);
    json_end(j);
    json_end(j);
}

static void put_order(struct json *j, const struct program *p)
{
    i64 first = 0;
    json_key(j, "segments");
    json_begin_array(j);
    for (int i = 0; i < p->n_segments; i++) {
        const struct segment *s = &p->segments[i];
        put_ranks(j, (i64[]){ s->kind, s->part, first, s->n_tasks }, 4);
        first += s->n_tasks;
    }
    json_end(j);
    json_key(j, "actions");
    json_begin_array(j);
    for (i64 i = 0; i < p->n_actions; i++)
        put_ranks(j, (i64[]){ p->actions[i].segment, p->actions[i].micro_batch }, 2);
    json_end(j);
}

void record_put_table(struct json *j, const char *name, const struct program *p, i64 B, i64 T)
{
    struct arena a;
    struct owners owners = { 0 };
    arena_init(&a);
    find_owners(&owners, p, &a);
    json_begin_object(j);
    json_put_str(j, "name", name);
    json_put_int(j, "B", B);
    json_put_int(j, "T", T);
    json_put_int(j, "micro_batches", p->micro_batches);
    json_put_double(j, "flops", p->cost.flops);
    json_put_double(j, "model_flops", p->cost.model_flops);
    put_tensors(j, &owners);
    json_key(j, "tasks");
    json_begin_array(j);
    for (i64 id = 0; id < p->n_tasks; id++)
        put_task(j, &owners, p->by_id[id]);
    json_end(j);
    put_order(j, p);
    json_end(j);
    arena_fini(&a);
}
