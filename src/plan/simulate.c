#include "plan/simulate.h"

#include "base/err.h"
#include "ops/ops.h"
#include "plan/rates.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- what of a program lanes touch -------------------------------------------------- */

/* Tensors are shared by all ranks of a stage, so what is pending of them is kept elsewhere:
 * at places, of which owners that some lane touches have one, or one per slot. */
struct resource {
    const struct tensor *owner;
    i64 first;
};

enum { TOUCHED = TASK_INS + TASK_OUTS + 1 };

struct stage_program {
    const struct program *program;
    struct resource *resources; /* by address */
    i64 n, n_places;
    i32 (*touched)[TOUCHED]; /* [tasks]: resources of in, out and when, by index; -1: none */
};

static const struct tensor *root(const struct tensor *t)
{
    return t && t->owner ? t->owner : t;
}

static const struct tensor *touched_by(const struct task *t, int k)
{
    if (k < TASK_INS)
        return root(t->in[k]);
    return root(k < TASK_INS + TASK_OUTS ? t->out[k - TASK_INS] : t->when);
}

static int by_address(const void *a, const void *b)
{
    uintptr_t x = (uintptr_t)((const struct resource *)a)->owner;
    uintptr_t y = (uintptr_t)((const struct resource *)b)->owner;
    return x < y ? -1 : x > y;
}

static void find_resources(struct stage_program *s, struct arena *a)
{
    const struct program *p = s->program;
    i64 n = 0, kept = 0;
    s->resources = ARENA_ARRAY(a, struct resource, p->n_tasks * TOUCHED);
    for (i64 id = 0; id < p->n_tasks; id++)
        for (int k = 0; p->by_id[id]->lane != LANE_COMPUTE && k < TOUCHED; k++)
            if (touched_by(p->by_id[id], k))
                s->resources[n++].owner = touched_by(p->by_id[id], k);
    qsort(s->resources, (size_t)n, sizeof *s->resources, by_address);
    for (i64 i = 0; i < n; i++) {
        const struct tensor *t = s->resources[i].owner;
        if (kept > 0 && s->resources[kept - 1].owner == t)
            continue;
        s->resources[kept++] = (struct resource){ t, s->n_places };
        s->n_places += t->slots ? t->slots->n : 1;
    }
    s->n = kept;
}

static void prepare(struct stage_program *s, const struct program *p, struct arena *a)
{
    *s = (struct stage_program){ .program = p };
    find_resources(s, a);
    s->touched = arena_alloc(a, p->n_tasks * (i64)sizeof *s->touched);
    for (i64 id = 0; id < p->n_tasks; id++)
        for (int k = 0; k < TOUCHED; k++) {
            struct resource key = { .owner = touched_by(p->by_id[id], k) };
            const struct resource *found = NULL;
            if (key.owner)
                found = bsearch(&key, s->resources, (size_t)s->n, sizeof key, by_address);
            s->touched[id][k] = found ? (i32)(found - s->resources) : -1;
        }
}

/* --- channels ----------------------------------------------------------------------- */

struct arrival { /* of a member at a call, for its span */
    double at;
    i64 rank;
    u32 task;
    u16 action;
};

struct call {
    int arrived;
    double begin, seconds; /* begin: so far, the last member's */
    double delay;          /* behind what occupies the link */
    double end;            /* once all have arrived */
    struct arrival *arrivals; /* [members], where spans are told; else NULL */
};

/* A group's calls on one lane, or the moves one way across a boundary. */
struct channel {
    int members;
    i64 *next; /* [members]: number of its next call */
    struct call *calls;
    i64 n, capacity;
    double free; /* when its last call ends */
};

struct use { /* of a place, by a call that may still be under way */
    const struct channel *channel;
    i64 call;
    enum lane lane;
    u32 task;
    bool active, writes;
};

struct rank {
    struct mesh mesh;
    const struct stage_program *stage;
    struct use *uses; /* [places] */
    i64 action, task; /* where it is */
    double now;
    struct use blocking; /* a call that is waited for where it begins, on purpose */
    bool came, met;      /* to the meeting before the update */
    bool done;
    double taxed;        /* until when calls have taken time from computing (tax) */
    struct plan_rank_time *time;
};

struct simulation {
    const struct plan_price *price;
    struct arena *arena;
    struct rank *ranks;
    i64 n;
    struct channel *channels; /* [LANE_COUNT][n], by a group's first rank; then the moves' */
    const struct plan_step *step; /* NULL: one of its own */
    struct meeting *meetings;     /* [n / pp]: of the ranks of a column */
};

/* What stages tell each other before the update. */
struct meeting {
    i64 come;
    double at;
};

/* --- spans -------------------------------------------------------------------------- */

static u64 ns(double seconds)
{
    return (u64)(1e9 * seconds + 0.5);
}

static void tell(const struct simulation *x, i64 rank, struct span s, double begin, double end)
{
    s.begin_ns = ns(begin);
    s.end_ns = ns(end);
    s.step = (u32)x->step->step;
    x->step->span(x->step->context, rank, &s);
}

static bool tells(const struct simulation *x)
{
    return x->step && x->step->span;
}

static void tell_call(const struct simulation *x, const struct call *c, enum lane lane)
{
    for (int i = 0; i < c->arrived; i++) {
        const struct arrival *a = &c->arrivals[i];
        tell(x, a->rank, (struct span){ .task = a->task, .action = a->action, .kind = SPAN_CALL,
                                        .lane = (u8)trace_of_lane(lane) }, a->at, c->end);
    }
}

/* --- calls -------------------------------------------------------------------------- */

/* Moves have one for each direction of each boundary, per column of ranks. */
static struct channel *channel_of(struct simulation *x, const struct rank *r,
                                  const struct task *t, int *member, int *members)
{
    const struct mesh *m = &r->mesh;
    if (t->op->sends || t->op->receives) {
        i64 columns = x->n / m->layout.pp, way = t->attr[MOVE_UP] != 0;
        i64 at = (i64)t->attr[MOVE_BOUNDARY] * 2 + way;
        *member = t->op->receives;
        *members = 2;
        return &x->channels[LANE_COUNT * x->n + at * columns + mesh_column(m)];
    }
    i64 first = m->rank - mesh_coordinate(m, t->lane) * mesh_stride(m, t->lane);
    *member = (int)mesh_coordinate(m, t->lane);
    *members = (int)mesh_degree(m, t->lane);
    if (t->lane == LANE_TIE) { /* who has the first stage and who has the last */
        first = mesh_column(m);
        *member = m->stages.rank_of[0] != (int)m->pp_rank;
        *members = 2;
    }
    return &x->channels[t->lane * x->n + first];
}

static struct call *call_at(struct simulation *x, struct channel *c, i64 number)
{
    if (number >= c->capacity) {
        i64 capacity = i64_max(64, 2 * c->capacity);
        struct call *calls = ARENA_ARRAY(x->arena, struct call, capacity);
        for (i64 i = 0; i < c->n; i++)
            calls[i] = c->calls[i];
        c->calls = calls;
        c->capacity = capacity;
    }
    c->n = i64_max(c->n, number + 1);
    return &c->calls[number];
}

static double call_seconds(const struct task *t, int members, const struct plan_price *p)
{
    const struct tensor *moved = t->in[0] ? t->in[0] : t->out[0];
    double bytes = t->op->receives ? (double)tensor_bytes(moved) : t->cost.message_bytes;
    const struct plan_rate *rate = p->rates ? plan_rates_lane(p->rates, t->lane) : NULL;
    if (rate)
        return rate->task_s + rate->byte_s * bytes;
    if (collective_of_heads(t) || collective_of_twins(t)) /* a part of the axis, which meets as one */
        members = (int)t->attr[COLLECTIVE_SIZE];
    double steps = t->op == &op_all_reduce ? 2 * (members - 1) : members - 1;
    if (t->lane == LANE_AWAY)
        return (double)tensor_bytes(moved) / p->memory_bytes_per_s;
    if (t->op->sends || t->op->receives || t->op == &op_ring_shift)
        steps = 1;
    else
        steps *= t->attr[COLLECTIVE_OUTER];
    return steps * p->latency_s + bytes / p->link_bytes_per_s;
}

/* NULL: nothing disturbs this rank. */
static const struct inject *inject_of(const struct simulation *x, const struct rank *r)
{
    const struct inject *list = x->step ? x->step->inject : NULL;
    return list && list[r->mesh.rank].kinds ? &list[r->mesh.rank] : NULL;
}

enum { RING = 4096 }; /* members of which a slow link is looked for */

/* Of this rank's column, the one that has the stage. */
static i64 rank_with(const struct mesh *m, int stage)
{
    return m->rank + (m->stages.rank_of[stage] - m->pp_rank) * mesh_stride(m, LANE_PP);
}

/* What is injected: the ring's members are ranks in steps of the axis's stride. */
static struct inject_call disturbance(const struct simulation *x, const struct rank *r,
                                      const struct task *t, int member, int members)
{
    const struct inject *inject = inject_of(x, r);
    const bool move = t->op->sends || t->op->receives;
    const int n = inject_has(inject, INJECT_PAIR_BW) && members <= RING ? members : 0;
    int ring[RING];
    if (!inject || t->lane == LANE_AWAY)
        return (struct inject_call){ 0 };
    for (int i = 0; i < n && !move && t->lane != LANE_TIE; i++)
        ring[i] = (int)(r->mesh.rank + (i - member) * mesh_stride(&r->mesh, t->lane));
    if (n == 2 && (move || t->lane == LANE_TIE)) {
        const int boundary = (int)t->attr[MOVE_BOUNDARY];
        const bool up = t->attr[MOVE_UP] != 0;
        const int other_end = member ? 0 : r->mesh.stages.n - 1;
        const int stage = move ? boundary + (up == t->op->sends) : other_end;
        ring[member] = (int)r->mesh.rank;
        ring[1 - member] = (int)rank_with(&r->mesh, stage);
    }
    double bytes = move ? (double)tensor_bytes(t->in[0] ? t->in[0] : t->out[0])
                        : t->cost.message_bytes;
    return inject_call(inject, x->step->step, ring, n, member, move ? 1 - member : -1, bytes);
}

static struct use begin_call(struct simulation *x, struct rank *r, const struct task *t)
{
    int member, members;
    struct channel *c = channel_of(x, r, t, &member, &members);
    if (!c->next) {
        c->members = members;
        c->next = ARENA_ARRAY(x->arena, i64, members);
    }
    struct use use = { .channel = c, .call = c->next[member]++, .lane = t->lane,
                       .task = t->id, .active = true };
    struct call *call = call_at(x, c, use.call);
    struct inject_call more = disturbance(x, r, t, member, members);
    if (tells(x) && !call->arrivals)
        call->arrivals = ARENA_ARRAY(x->arena, struct arrival, members);
    if (tells(x))
        call->arrivals[call->arrived] = (struct arrival){ r->now, r->mesh.rank, t->id,
                                                          (u16)r->action };
    call->arrived++;
    call->begin = fmax(call->begin, r->now);
    call->seconds = fmax(call->seconds, call_seconds(t, members, x->price) + more.link);
    call->delay = fmax(call->delay, more.delay);
    if (call->arrived < members)
        return use;
    call->begin = fmax(call->begin, c->free);
    c->free = call->begin + call->seconds;
    call->end = c->free + call->delay;
    if (tells(x))
        tell_call(x, call, t->lane);
    return use;
}

/* --- ranks -------------------------------------------------------------------------- */

/* Driving a call takes time from what is computed beside it; of several calls at once, once. */
static void tax(const struct simulation *x, struct rank *r, const struct call *call)
{
    double share = x->price->rates ? x->price->rates->overlap_tax : 0;
    double from = fmax(call->begin, r->taxed), beside = fmin(call->end, r->now) - from;
    if (share <= 0 || beside <= 0)
        return;
    r->time->compute += share * beside;
    r->now += share * beside;
    r->taxed = call->end;
}

/* False: what it waits for has not begun everywhere. As the executor's settle. */
static bool settle(const struct simulation *x, struct rank *r, struct use *u, enum lane lane,
                   bool writes)
{
    if (!u->active)
        return true;
    if (lane == LANE_COMPUTE ? !writes && !u->writes : u->lane == lane && lane_in_order(lane))
        return true;
    const struct call *call = &u->channel->calls[u->call];
    if (call->arrived < u->channel->members)
        return false;
    tax(x, r, call);
    r->time->wait[u->lane] += fmax(0, call->end - r->now);
    if (tells(x) && call->end > r->now)
        tell(x, r->mesh.rank, (struct span){ .task = u->task, .action = (u16)r->action,
                                             .kind = SPAN_WAIT, .lane = TRACE_COMPUTE,
                                             .detail = (u32)trace_of_lane(u->lane) },
             r->now, call->end);
    r->now = fmax(r->now, call->end);
    u->active = false;
    return true;
}

static struct use *use_of(const struct rank *r, const struct task *t, int k, int micro_batch)
{
    i32 at = r->stage->touched[t->id][k];
    if (at < 0)
        return NULL;
    const struct resource *e = &r->stage->resources[at];
    return &r->uses[e->first + (e->owner->slots ? micro_batch % e->owner->slots->n : 0)];
}

static bool settle_task(const struct simulation *x, struct rank *r, const struct task *t,
                        int micro_batch)
{
    for (int i = 0; i < TOUCHED; i++) {
        int k = (i + TOUCHED - 1) % TOUCHED; /* the condition first */
        bool when = k == TOUCHED - 1, writes = !when && k >= TASK_INS;
        struct use *u = use_of(r, t, k, micro_batch);
        if (u && !settle(x, r, u, when ? LANE_COMPUTE : t->lane, writes))
            return false;
    }
    return true;
}

static void start_on_lane(struct simulation *x, struct rank *r, const struct task *t,
                          int micro_batch)
{
    struct use use = begin_call(x, r, t);
    for (int k = 0; k < TASK_INS + TASK_OUTS; k++) {
        struct use *u = use_of(r, t, k, micro_batch);
        if (!u)
            continue;
        use.writes = k >= TASK_INS || (u->active && u->writes);
        *u = use;
    }
    r->time->call[t->lane] += call_seconds(t, use.channel->members, x->price);
    const struct inject *inject = inject_of(x, r);
    if (t->lane != LANE_PP && inject && inject_at(inject, INJECT_OVERLAP, x->step->step))
        r->blocking = use;
}

double plan_task_seconds(const struct task *t, const struct plan_price *price)
{
    double bytes = t->cost.read_bytes + t->cost.written_bytes;
    if (price->rates)
        return plan_rates_seconds(price->rates, t, NULL);
    return fmax(t->cost.flops / price->flops_per_s, bytes / price->memory_bytes_per_s);
}

/* With what is injected, and with attention that has fewer pairs to look at. */
static double task_seconds(const struct simulation *x, const struct rank *r, const struct task *t)
{
    const struct plan_step *step = x->step;
    double seconds = plan_task_seconds(t, x->price);
    if (!step)
        return seconds;
    if (step->attended && strncmp(t->op->name, "attention", 9) == 0)
        seconds *= step->attended[r->mesh.rank];
    const struct inject *inject = inject_of(x, r);
    return inject ? inject_compute(inject, t->op->name, step->step, (u64)r->action, seconds)
                  : seconds;
}

static void compute(const struct simulation *x, struct rank *r, const struct task *t)
{
    double seconds = task_seconds(x, r, t);
    if (tells(x))
        tell(x, r->mesh.rank, (struct span){ .task = t->id, .action = (u16)r->action,
                                             .kind = SPAN_TASK, .lane = TRACE_COMPUTE },
             r->now, r->now + seconds);
    r->now += seconds;
    r->time->compute += seconds;
}

/* True: the task is behind it. */
static bool run_task(struct simulation *x, struct rank *r, const struct task *t,
                     int micro_batch)
{
    const char *off = x->step ? x->step->off : NULL;
    if (!task_has_turn(t, micro_batch, r->stage->program->micro_batches) ||
        (off && t->when && strcmp(t->when->name, off) == 0))
        return true;
    if (!settle_task(x, r, t, micro_batch))
        return false;
    if (t->op->waits)
        return true;
    if (t->lane != LANE_COMPUTE) {
        start_on_lane(x, r, t, micro_batch);
        return true;
    }
    compute(x, r, t);
    return true;
}

/* Before the update, the stages of a column tell each other how the passes went. False: some have
 * not come. */
static bool meet_stages(struct simulation *x, struct rank *r)
{
    const i64 pp = r->mesh.layout.pp;
    struct meeting *m = &x->meetings[mesh_column(&r->mesh)];
    if (!x->step || pp == 1 || r->met)
        return true;
    if (!r->came) {
        m->come++;
        m->at = fmax(m->at, r->now);
        r->came = true;
    }
    if (m->come < pp)
        return false;
    const struct span meet = { .kind = SPAN_MEET, .lane = TRACE_HOST };
    if (tells(x)) /* the last one too: all have equally many */
        tell(x, r->mesh.rank, meet, r->now, m->at);
    r->now = m->at;
    r->met = true;
    return true;
}

/* As far as it can; true: it got further. */
static bool advance(struct simulation *x, struct rank *r)
{
    const struct program *p = r->stage->program;
    bool moved = false;
    for (; r->action < p->n_actions; r->action++, r->task = 0) {
        const struct action *action = &p->actions[r->action];
        const struct segment *s = &p->segments[action->segment];
        if (program_updates(p, r->action) && !meet_stages(x, r))
            return moved;
        for (; r->task < s->n_tasks; r->task++, moved = true)
            if (!settle(x, r, &r->blocking, LANE_COMPUTE, true) ||
                !run_task(x, r, &s->tasks[r->task], action->micro_batch))
                return moved;
        moved = true;
    }
    for (i64 i = 0; i < r->stage->n_places; i++)
        if (!settle(x, r, &r->uses[i], LANE_COMPUTE, true))
            return moved;
    r->time->end = r->now;
    r->done = true;
    return true;
}

static void open_simulation(struct simulation *x, const struct rank_view *const *views,
                            struct plan_time *out)
{
    const struct layout *l = &views[0]->mesh.layout;
    i64 columns = x->n / l->pp, boundaries = views[0]->mesh.stages.n;
    struct stage_program *stages = ARENA_ARRAY(x->arena, struct stage_program, l->pp);
    for (i64 i = 0; i < l->pp; i++)
        prepare(&stages[i], views[i]->step.program, x->arena);
    x->ranks = ARENA_ARRAY(x->arena, struct rank, x->n);
    x->meetings = ARENA_ARRAY(x->arena, struct meeting, columns);
    x->channels = ARENA_ARRAY(x->arena, struct channel,
                              LANE_COUNT * x->n + 2 * boundaries * columns);
    for (i64 i = 0; i < x->n; i++) {
        struct rank *r = &x->ranks[i];
        r->mesh = mesh_at(l, i);
        r->mesh.stages = views[0]->mesh.stages;
        r->stage = &stages[r->mesh.pp_rank];
        r->uses = ARENA_ARRAY(x->arena, struct use, r->stage->n_places);
        r->time = &out->ranks[i];
        r->now = x->step && x->step->begin ? x->step->begin[i] : 0;
    }
}

int plan_simulate(const struct rank_view *const *views, const struct plan_price *price,
                  struct plan_time *out, struct arena *a)
{
    return plan_simulate_step(views, price, NULL, out, a);
}

int plan_simulate_step(const struct rank_view *const *views, const struct plan_price *price,
                       const struct plan_step *step, struct plan_time *out, struct arena *a)
{
    struct simulation x = { .price = price, .arena = a, .step = step,
                            .n = layout_ranks(&views[0]->mesh.layout) };
    *out = (struct plan_time){ .n_ranks = x.n,
                               .ranks = ARENA_ARRAY(a, struct plan_rank_time, x.n) };
    open_simulation(&x, views, out);
    i64 done = 0;
    for (bool moved = true; moved && done < x.n;) {
        moved = false;
        for (i64 i = 0; i < x.n; i++) {
            if (x.ranks[i].done)
                continue;
            moved |= advance(&x, &x.ranks[i]);
            done += x.ranks[i].done;
        }
    }
    if (done < x.n)
        return err_set(ERR_INTERNAL, "the simulated ranks of %s wait for each other",
                       layout_text(&views[0]->mesh.layout, a));
    for (i64 i = 0; i < x.n; i++)
        out->length = fmax(out->length, x.ranks[i].now);
    for (i64 i = 0; i < x.n; i++)
        out->ranks[i].idle = out->length - x.ranks[i].now;
    return OK;
}

struct plan_rank_time plan_mean(const struct plan_time *t)
{
    struct plan_rank_time mean = { 0 };
    double n = (double)t->n_ranks;
    for (i64 i = 0; i < t->n_ranks; i++) {
        mean.compute += t->ranks[i].compute / n;
        mean.idle += t->ranks[i].idle / n;
        for (int lane = 0; lane < LANE_COUNT; lane++) {
            mean.wait[lane] += t->ranks[i].wait[lane] / n;
            mean.call[lane] += t->ranks[i].call[lane] / n;
        }
    }
    return mean;
}
