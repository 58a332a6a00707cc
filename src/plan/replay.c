#include "plan/replay.h"

#include "base/err.h"
#include "base/rng.h"

#include <math.h>
#include <string.h>

/* --- events ------------------------------------------------------------------------- */

/* What may end: a cell's computing, a move, a call. Who is rescheduled gets a new version. */
enum event_kind { END_ACTION, END_MOVE, END_CALL };

struct event {
    double time;
    u64 order; /* ties: who came first */
    i64 who;
    u32 version;
    enum event_kind kind;
};

struct queue { /* a binary heap */
    struct event *events;
    i64 n, capacity;
    u64 order;
    struct arena *arena;
};

static bool earlier(const struct event *a, const struct event *b)
{
    return a->time < b->time || (a->time == b->time && a->order < b->order);
}

static void queue_add(struct queue *q, struct event e)
{
    if (q->n == q->capacity) {
        struct event *more = ARENA_ARRAY(q->arena, struct event, 2 * q->capacity);
        memcpy(more, q->events, sizeof e * (size_t)q->n);
        q->events = more;
        q->capacity *= 2;
    }
    e.order = q->order++;
    i64 i = q->n++;
    for (; i > 0 && earlier(&e, &q->events[(i - 1) / 2]); i = (i - 1) / 2)
        q->events[i] = q->events[(i - 1) / 2];
    q->events[i] = e;
}

static struct event queue_take(struct queue *q)
{
    struct event first = q->events[0], last = q->events[--q->n];
    i64 i = 0;
    for (i64 child; (child = 2 * i + 1) < q->n; i = child) {
        if (child + 1 < q->n && earlier(&q->events[child + 1], &q->events[child]))
            child++;
        if (!earlier(&q->events[child], &last))
            break;
        q->events[i] = q->events[child];
    }
    q->events[i] = last;
    return first;
}

/* --- what there is ------------------------------------------------------------------ */

/* Something under way: seconds left at full rate, as of `since`. */
struct progress {
    double left, rate, since;
    u32 version;
    bool running;
};

enum { MOST_LOAD = 63 };

enum cell_wait { WAIT_MOVE, WAIT_GATHER, WAIT_REDUCE, WAIT_KINDS };

struct cell {
    i64 at;       /* in its rank's list */
    i64 posted;   /* calls */
    i64 gathered; /* with each: how far in the list gathers are posted */
    int out, in;  /* transfers on its link */
    double slow;  /* its slowest member's factor */
    double begin; /* of the action */
    double idle_since, busy, wait[WAIT_KINDS];
    struct progress work;
    bool done, woken, closed; /* closed: its last reduce is posted */
    bool here; /* what its action needs of other ranks */
};

/* Moves of one boundary, one way, one replica. */
struct channel {
    i64 sent, received, begun, ended; /* counts */
    struct progress move;
};

/* Gathers and reduces of one pipeline rank, in order. */
struct calls {
    i64 *arrived;    /* [most]: cells */
    double *seconds; /* [most] */
    i64 *need;       /* [actions of the list]: calls that must have ended before */
    i64 before;      /* the same of every action */
    i64 most, begun, ended;
    struct progress call;
    i64 load[MOST_LOAD + 1]; /* cells of this rank whose link has so many transfers */
    int *parts, n_parts;     /* its stages */
};

struct replay {
    const struct replay_step *s;
    struct queue queue;
    struct cell *cells;       /* [ranks][replicas] */
    struct channel *channels; /* [stages][2][replicas]: into the boundary behind a stage */
    struct calls *calls;      /* [ranks] */
    i64 *woken;               /* [n_cells]: to be advanced, first come first served */
    i64 woken_first, woken_n;
    i64 n_cells, n_done;
    double now;
    struct replay_time *out;
};

static i64 rank_of_cell(const struct replay *x, i64 cell)
{
    return cell / x->s->replicas;
}

/* --- chance ------------------------------------------------------------------------- */

/* z with P(Z > z) = p for a standard normal Z, p <= 1/2: Abramowitz and Stegun 26.2.23 (error
 * 4.5e-4), then one step of Newton. */
static double normal_above(double p)
{
    double t = sqrt(-2 * log(p));
    double z = t - (2.515517 + t * (0.802853 + t * 0.010328)) /
                       (1 + t * (1.432788 + t * (0.189269 + t * 0.001308)));
    double density = exp(-z * z / 2) / sqrt(2 * M_PI);
    return z + (0.5 * erfc(z / M_SQRT2) - p) / density;
}

/* The largest of n standard normal numbers, from one uniform one. */
static double largest_normal(double uniform, double n)
{
    double p = -expm1(log(fmax(uniform, 1e-300)) / n); /* P(Z > z) */
    if (p <= 0)
        return 0;
    return p <= 0.5 ? normal_above(p) : -normal_above(fmax(1 - p, 1e-300));
}

static double action_factor(const struct replay *x, i64 cell, i64 at)
{
    const struct replay_step *s = x->s;
    if (s->jitter == 0)
        return x->cells[cell].slow;
    struct rng key = { s->seed, (u64)cell };
    double z = largest_normal(rng_uniform(&key, (u64)at), (double)s->members);
    return x->cells[cell].slow * exp(s->jitter * z - s->jitter * s->jitter / 2);
}

/* Whether one of the members is a straggler. */
static double draw_slow(const struct replay_step *s, i64 cell)
{
    struct rng key = { s->seed, rng_stream("stragglers") };
    double none = pow(1 - s->slow_share, (double)s->members);
    return rng_uniform(&key, (u64)cell) < none ? 1 : 1 + s->slow_by;
}

/* --- progress ----------------------------------------------------------------------- */

static void schedule_end(struct replay *x, struct progress *p, enum event_kind kind, i64 who)
{
    p->version++;
    queue_add(&x->queue, (struct event){ .time = x->now + p->left / p->rate, .who = who,
                                         .version = p->version, .kind = kind });
}

static void begin(struct replay *x, struct progress *p, double seconds, double rate,
                  enum event_kind kind, i64 who)
{
    p->running = true;
    p->left = seconds;
    p->rate = rate;
    p->since = x->now;
    schedule_end(x, p, kind, who);
}

static void set_rate(struct replay *x, struct progress *p, double rate, enum event_kind kind,
                     i64 who)
{
    if (!p->running || p->rate == rate)
        return;
    p->left = fmax(0, p->left - (x->now - p->since) * p->rate);
    p->since = x->now;
    p->rate = rate;
    schedule_end(x, p, kind, who);
}

/* --- links -------------------------------------------------------------------------- */

static i64 channel_at(const struct replay *x, int boundary, int way, i64 replica)
{
    return ((i64)boundary * 2 + way) * x->s->replicas + replica;
}

/* Who sends over a channel, and who receives. */
static void ends_of(const struct replay *x, i64 channel, i64 *from, i64 *to)
{
    const struct schedule *o = x->s->order;
    i64 replica = channel % x->s->replicas, way = channel / x->s->replicas % 2;
    i64 boundary = channel / (2 * x->s->replicas);
    i64 lower = o->rank_of[boundary] * x->s->replicas + replica;
    i64 upper = o->rank_of[boundary + 1] * x->s->replicas + replica;
    *from = way ? upper : lower;
    *to = way ? lower : upper;
}

static double move_rate(const struct replay *x, i64 channel)
{
    i64 from, to;
    ends_of(x, channel, &from, &to);
    return x->s->shared ? 1.0 / i64_max(1, i64_max(x->cells[from].out, x->cells[to].in)) : 1;
}

/* A call is as fast as its busiest member lets it be. */
static double call_rate(const struct replay *x, const struct calls *c)
{
    i64 most = MOST_LOAD;
    while (most > 1 && c->load[most] == 0)
        most--;
    return x->s->shared ? 1.0 / (double)most : 1;
}

static double compute_rate(const struct replay *x, const struct cell *c)
{
    return c->out + c->in > 0 ? 1 / (1 + x->s->tax) : 1;
}

/* After the transfers of a cell changed: its own computing, its moves. */
static void refresh_cell(struct replay *x, i64 cell)
{
    struct cell *c = &x->cells[cell];
    const struct schedule *o = x->s->order;
    i64 replica = cell % x->s->replicas, rank = rank_of_cell(x, cell);
    const struct calls *calls = &x->calls[rank];
    set_rate(x, &c->work, compute_rate(x, c), END_ACTION, cell);
    for (int i = 0; x->s->shared && i < 4 * calls->n_parts; i++) {
        int boundary = calls->parts[i / 4] - i / 2 % 2; /* behind the stage, before it */
        i64 k = channel_at(x, boundary, i % 2, replica);
        if (boundary >= 0 && boundary < o->stages - 1 && x->channels[k].move.running)
            set_rate(x, &x->channels[k].move, move_rate(x, k), END_MOVE, k);
    }
}

static int load_of(const struct cell *c)
{
    int most = c->out > c->in ? c->out : c->in;
    return most < MOST_LOAD ? most : MOST_LOAD;
}

static void add_load(struct replay *x, i64 cell, int out, int in)
{
    struct cell *c = &x->cells[cell];
    i64 rank = rank_of_cell(x, cell);
    struct calls *calls = &x->calls[rank];
    calls->load[load_of(c)]--;
    c->out += out;
    c->in += in;
    calls->load[load_of(c)]++;
}

static void refresh_call(struct replay *x, i64 rank)
{
    set_rate(x, &x->calls[rank].call, call_rate(x, &x->calls[rank]), END_CALL, rank);
}

/* A move begins (1) or ends (-1). */
static void load_move(struct replay *x, i64 channel, int change)
{
    i64 from, to;
    ends_of(x, channel, &from, &to);
    add_load(x, from, change, 0);
    add_load(x, to, 0, change);
    refresh_cell(x, from);
    refresh_cell(x, to);
    refresh_call(x, rank_of_cell(x, from));
    refresh_call(x, rank_of_cell(x, to));
}

static void load_call(struct replay *x, i64 rank, int change)
{
    for (i64 i = 0; i < x->s->replicas; i++)
        add_load(x, rank * x->s->replicas + i, change, change);
    for (i64 i = 0; i < x->s->replicas; i++)
        refresh_cell(x, rank * x->s->replicas + i);
}

/* --- moves -------------------------------------------------------------------------- */

static void wake(struct replay *x, i64 cell)
{
    if (x->cells[cell].woken)
        return;
    x->cells[cell].woken = true;
    x->woken[(x->woken_first + x->woken_n++) % x->n_cells] = cell;
}

static void try_move(struct replay *x, i64 channel)
{
    struct channel *c = &x->channels[channel];
    i64 from, to;
    ends_of(x, channel, &from, &to);
    while (!c->move.running && i64_min(c->sent, c->received) > c->begun) {
        c->begun++;
        if (x->s->move_s > 0) {
            load_move(x, channel, 1);
            begin(x, &c->move, x->s->move_s, move_rate(x, channel), END_MOVE, channel);
        } else {
            c->ended++;
            wake(x, to);
        }
    }
}

static void end_move(struct replay *x, i64 channel)
{
    struct channel *c = &x->channels[channel];
    i64 from, to;
    ends_of(x, channel, &from, &to);
    c->move.running = false;
    c->ended++;
    load_move(x, channel, -1);
    try_move(x, channel);
    wake(x, to);
}

static void post_move(struct replay *x, i64 cell, const struct schedule_action *a)
{
    bool sends = a->op == SCHEDULE_SEND_F || a->op == SCHEDULE_SEND_B;
    bool up = a->op == SCHEDULE_SEND_B || a->op == SCHEDULE_RECV_B; /* towards the first stage */
    bool behind = a->op == SCHEDULE_SEND_F || a->op == SCHEDULE_RECV_B;
    i64 k = channel_at(x, a->stage - !behind, up, cell % x->s->replicas);
    *(sends ? &x->channels[k].sent : &x->channels[k].received) += 1;
    try_move(x, k);
}

/* What the action needs of other ranks has come. A channel's k-th move is micro-batch k. */
static bool moved_here(const struct replay *x, i64 cell, const struct schedule_action *a)
{
    const struct schedule *o = x->s->order;
    i64 replica = cell % x->s->replicas;
    int t = a->stage;
    if (a->op == SCHEDULE_F && t > 0 && o->rank_of[t - 1] != o->rank_of[t])
        return x->channels[channel_at(x, t - 1, 0, replica)].ended > a->micro_batch;
    if ((a->op == SCHEDULE_I || a->op == SCHEDULE_B) && t < o->stages - 1 &&
        o->rank_of[t + 1] != o->rank_of[t])
        return x->channels[channel_at(x, t, 1, replica)].ended > a->micro_batch;
    return true;
}

/* --- gathers and reduces ------------------------------------------------------------ */

static void try_call(struct replay *x, i64 rank)
{
    struct calls *c = &x->calls[rank];
    if (c->call.running || c->begun >= c->most || c->arrived[c->begun] < x->s->replicas)
        return;
    double seconds = c->seconds[c->begun++];
    load_call(x, rank, 1);
    begin(x, &c->call, seconds, call_rate(x, c), END_CALL, rank);
}

static void end_call(struct replay *x, i64 rank)
{
    struct calls *c = &x->calls[rank];
    c->call.running = false;
    c->ended++;
    load_call(x, rank, -1);
    try_call(x, rank);
    for (i64 i = 0; i < x->s->replicas; i++)
        wake(x, rank * x->s->replicas + i);
}

/* Calls that must have ended for this one to have: 0 for none at all. All cells of a rank post the
 * same ones in the same order. */
static i64 post_call(struct replay *x, i64 cell, double seconds)
{
    i64 rank = rank_of_cell(x, cell);
    struct calls *c = &x->calls[rank];
    if (seconds <= 0)
        return 0;
    i64 k = x->cells[cell].posted++;
    assert(k < c->most);
    c->seconds[k] = seconds;
    c->arrived[k]++;
    try_call(x, rank);
    return k + 1;
}

static bool is_compute(const struct schedule_action *a)
{
    return a->op < SCHEDULE_SEND_F;
}

/* Gathers of the action at hand and of the next one. */
static void post_next_gathers(struct replay *x, i64 cell)
{
    struct cell *c = &x->cells[cell];
    i64 rank = rank_of_cell(x, cell);
    const struct schedule_list *l = &x->s->order->lists[rank];
    i64 ahead = 0;
    for (i64 i = c->at; i < l->n && ahead < 2; i++) {
        const struct schedule_action *a = &l->actions[i];
        ahead += is_compute(a);
        if (i < c->gathered)
            continue;
        c->gathered = i + 1;
        if (is_compute(a) && a->op != SCHEDULE_W) /* W needs what I has read */
            x->calls[rank].need[i] = post_call(x, cell, x->s->stages[a->stage].gather_s);
    }
}

/* What all of the cell waits for, then gathers of its stages, in their order; each stage's first F
 * waits for its own. */
static void post_first_gathers(struct replay *x, i64 cell)
{
    i64 rank = rank_of_cell(x, cell);
    const struct schedule_list *l = &x->s->order->lists[rank];
    struct calls *c = &x->calls[rank];
    c->before = x->s->first_s ? post_call(x, cell, x->s->first_s[rank]) : 0;
    for (int k = 0; !x->s->each && k < c->n_parts; k++) {
        i64 need = post_call(x, cell, x->s->stages[c->parts[k]].gather_s);
        for (i64 i = 0; i < l->n; i++)
            if (l->actions[i].op == SCHEDULE_F && l->actions[i].stage == c->parts[k] &&
                l->actions[i].micro_batch == 0)
                c->need[i] = need;
    }
}

/* --- cells -------------------------------------------------------------------------- */

static void stand(struct replay *x, struct cell *c, enum cell_wait why)
{
    c->wait[why] += x->now - c->idle_since;
    c->idle_since = x->now;
}

static double action_seconds(const struct stage_time *t, enum schedule_op op)
{
    return op == SCHEDULE_F ? t->F : op == SCHEDULE_I ? t->I : op == SCHEDULE_W ? t->W
                                                                               : t->I + t->W;
}

/* As far as the cell can go: it posts what moves, and begins an action once all is there. */
static void advance(struct replay *x, i64 cell)
{
    struct cell *c = &x->cells[cell];
    i64 rank = rank_of_cell(x, cell);
    const struct schedule_list *l = &x->s->order->lists[rank];
    const struct calls *calls = &x->calls[rank];
    if (c->work.running || c->done)
        return;
    if (x->s->each)
        post_next_gathers(x, cell);
    for (; c->at < l->n && !is_compute(&l->actions[c->at]); c->at++)
        post_move(x, cell, &l->actions[c->at]);
    if (c->at == l->n) {
        if (!c->closed && x->s->last_s)
            post_call(x, cell, x->s->last_s[rank]);
        c->closed = true;
        c->done = calls->ended >= c->posted;
        x->n_done += c->done;
        if (c->done)
            stand(x, c, WAIT_REDUCE);
        return;
    }
    const struct schedule_action *a = &l->actions[c->at];
    if (!c->here && !moved_here(x, cell, a))
        return;
    if (!c->here)
        stand(x, c, WAIT_MOVE);
    c->here = true;
    if (calls->ended < i64_max(calls->before, calls->need[c->at]))
        return;
    stand(x, c, WAIT_GATHER);
    c->begin = x->now;
    double seconds = action_seconds(&x->s->stages[a->stage].seconds, a->op);
    begin(x, &c->work, seconds * action_factor(x, cell, c->at), compute_rate(x, c), END_ACTION,
          cell);
}

static void note_span(struct replay *x, i64 rank, const struct cell *c)
{
    const struct schedule_action *a = &x->s->order->lists[rank].actions[c->at];
    x->out->spans[x->out->n_spans++] = (struct replay_span){ (i32)rank, *a, c->begin, x->now };
}

static void end_action(struct replay *x, i64 cell)
{
    struct cell *c = &x->cells[cell];
    i64 rank = rank_of_cell(x, cell);
    const struct schedule *o = x->s->order;
    const struct schedule_action *a = &o->lists[rank].actions[c->at];
    bool last = x->s->each || a->micro_batch == o->micro_batches - 1;
    if (cell % x->s->replicas == 0)
        note_span(x, rank, c);
    c->busy += x->now - c->begin;
    c->idle_since = x->now;
    c->work.running = c->here = false;
    c->at++;
    if (last && (a->op == SCHEDULE_W || a->op == SCHEDULE_B))
        post_call(x, cell, x->s->stages[a->stage].reduce_s);
    wake(x, cell);
}

/* --- the whole ---------------------------------------------------------------------- */

static void open_rank(struct replay *x, int rank, struct arena *a)
{
    const struct schedule *o = x->s->order;
    struct calls *c = &x->calls[rank];
    i64 n = o->lists[rank].n;
    c->parts = ARENA_ARRAY(a, int, o->stages);
    for (int t = 0; t < o->stages; t++)
        if (o->rank_of[t] == rank)
            c->parts[c->n_parts++] = t;
    c->most = 2 * n + 2 * c->n_parts + 2;
    c->arrived = ARENA_ARRAY(a, i64, c->most);
    c->seconds = ARENA_ARRAY(a, double, c->most);
    c->need = ARENA_ARRAY(a, i64, n);
    c->load[0] = x->s->replicas;
}

static void open_replay(struct replay *x, struct arena *a)
{
    const struct schedule *o = x->s->order;
    i64 actions = 0;
    x->n_cells = x->out->cells = o->ranks * x->s->replicas;
    x->cells = ARENA_ARRAY(a, struct cell, x->n_cells);
    x->woken = ARENA_ARRAY(a, i64, x->n_cells);
    x->channels = ARENA_ARRAY(a, struct channel, 2 * o->stages * x->s->replicas);
    x->calls = ARENA_ARRAY(a, struct calls, o->ranks);
    x->queue = (struct queue){ .capacity = 1024, .arena = a };
    x->queue.events = ARENA_ARRAY(a, struct event, x->queue.capacity);
    x->out->ranks = ARENA_ARRAY(a, struct replay_rank, o->ranks);
    for (int r = 0; r < o->ranks; r++) {
        open_rank(x, r, a);
        actions += o->lists[r].n;
    }
    x->out->spans = ARENA_ARRAY(a, struct replay_span, actions);
    for (i64 i = 0; i < x->n_cells; i++)
        x->cells[i].slow = draw_slow(x->s, i);
}

static void take_event(struct replay *x)
{
    struct event e = queue_take(&x->queue);
    const struct progress *p = e.kind == END_ACTION ? &x->cells[e.who].work
                             : e.kind == END_MOVE ? &x->channels[e.who].move
                                                  : &x->calls[e.who].call;
    if (!p->running || p->version != e.version)
        return;
    x->now = e.time;
    x->out->events++;
    if (e.kind == END_ACTION)
        end_action(x, e.who);
    else if (e.kind == END_MOVE)
        end_move(x, e.who);
    else
        end_call(x, e.who);
}

static void run(struct replay *x)
{
    for (i64 i = 0; i < x->n_cells; i++) {
        post_first_gathers(x, i);
        wake(x, i);
    }
    while (x->woken_n > 0 || x->queue.n > 0) {
        while (x->woken_n > 0) {
            i64 cell = x->woken[x->woken_first];
            x->woken_first = (x->woken_first + 1) % x->n_cells;
            x->woken_n--;
            x->cells[cell].woken = false;
            advance(x, cell);
        }
        if (x->queue.n > 0)
            take_event(x);
    }
}

static void sum_up(struct replay *x)
{
    const struct replay_step *s = x->s;
    double update = 0, n = (double)s->replicas;
    for (int r = 0; r < s->order->ranks; r++)
        update = fmax(update, s->update_s[r]);
    x->out->length = x->now + update;
    for (i64 i = 0; i < x->n_cells; i++) {
        const struct cell *c = &x->cells[i];
        struct replay_rank *r = &x->out->ranks[rank_of_cell(x, i)];
        r->busy += c->busy / n;
        r->moves += c->wait[WAIT_MOVE] / n;
        r->gather += c->wait[WAIT_GATHER] / n;
        r->reduce += c->wait[WAIT_REDUCE] / n;
        r->update = s->update_s[rank_of_cell(x, i)];
        r->others += (x->now - c->idle_since + update - r->update) / n;
    }
}

int plan_replay(const struct replay_step *step, struct replay_time *out, struct arena *a)
{
    struct replay x = { .s = step, .out = out };
    *out = (struct replay_time){ 0 };
    open_replay(&x, a);
    run(&x);
    if (x.n_done < x.n_cells)
        return err_set(ERR_INTERNAL, "the replayed cells of %d stages wait for each other",
                       step->order->stages);
    sum_up(&x);
    return OK;
}
