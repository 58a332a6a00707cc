#include "diagnose/dag.h"

#include "base/sort.h"
#include "diagnose/dag_build.h"

#include <math.h>

struct use { /* of a tensor's place by a call that may still be under way */
    i32 call; /* in builder.calls */
    u8 lane;
    bool active, writes;
    u32 task;
};

/* One rank's walk through its program. */
struct walk {
    struct dag_builder *b;
    const struct record_rank *k;
    int rank;
    const struct record_span **calls; /* by action, task and begin */
    i64 n_calls;
    struct dag_item *items;
    i64 n_items;
    struct use *uses; /* by place */
    i64 n_active; /* of them */
    i64 action, task; /* the next one, and its place in the action's segment */
    i32 last;         /* node of the chain; -1: none yet */
    double now;       /* its end */
    i32 pending[64];  /* nodes that the next one needs */
    int n_pending;
    u8 begun;         /* lane of the call begun last, behind `last`; 0: none */
    i32 waited;       /* call that the last wait was for; -1: none */
    u32 waited_task;  /* its task */
    i32 lane_last[LANE_COUNT];
    i64 numbers[LANE_COUNT], *move_numbers, meetings;
};

/* --- the chain ---------------------------------------------------------------------- */

static double seconds_of(const struct dag_builder *b, i64 ns)
{
    return 1e-9 * (double)(ns - b->zero_ns);
}

/* The next node of a rank's chain; it needs what is pending. */
static i32 chain(struct walk *w, int kind, double begin, double end, const struct record_span *s)
{
    begin = dag_larger(begin, w->now);
    end = dag_larger(end, begin);
    struct dag_node n = { .kind = (u8)kind, .rank = w->rank, .before = w->last,
                          .begun = w->begun };
    w->begun = 0;
    if (s && span_has_task(s->kind)) {
        n.task = s->task;
        n.task_id = s->task_id;
        n.action = s->action;
        n.lane = (u8)s->task->lane;
    }
    i32 node = dag_add_node(w->b, &n, end, end - begin, begin - w->now);
    for (int i = 0; i < w->n_pending; i++)
        dag_add_edge(w->b, node, w->pending[i]);
    w->n_pending = 0;
    w->last = node;
    w->now = end;
    return node;
}

/* --- the program, walked as the executor walks it ----------------------------------- */

static const struct action *action_at(const struct walk *w)
{
    return &w->k->table->actions[w->action];
}

static struct use *use_of(const struct walk *w, i32 tensor)
{
    const struct record_tensor *t = &w->k->table->tensors[tensor];
    assert(t->place >= 0);
    return &w->uses[t->place + (t->slots == 1 ? 0 : action_at(w)->micro_batch % t->slots)];
}

static void pend(struct walk *w, i32 call)
{
    i32 end = w->b->calls[call].end;
    for (int i = 0; i < w->n_pending; i++)
        if (w->pending[i] == end)
            return;
    if (w->n_pending < (int)COUNT_OF(w->pending))
        w->pending[w->n_pending++] = end;
}

/* The use that t may not touch the tensor before, or NULL. */
static struct use *blocks(const struct walk *w, i32 tensor, int lane, bool writes)
{
    if (w->k->table->tensors[tensor].place < 0)
        return NULL;
    struct use *u = use_of(w, tensor);
    if (!u->active)
        return NULL;
    if (lane == LANE_COMPUTE ? !writes && !u->writes
                             : u->lane == lane && lane_in_order((enum lane)lane))
        return NULL;
    return u;
}

/* The tensor that t touches first, second and so on, and whether its call must have ended. */
static struct use *blocks_task(const struct walk *w, const struct record_task *t, int i)
{
    const bool writes = i >= t->n_reads, when = i == 0 && t->conditional;
    const i32 tensor = writes ? t->writes[i - t->n_reads] : t->reads[i];
    return blocks(w, tensor, when ? LANE_COMPUTE : t->lane, writes);
}

static bool may_block(const struct walk *w, const struct record_task *t)
{
    return w->n_active > 0 && (t->flags & RECORD_MEETS);
}

static void settle_task(struct walk *w, const struct record_task *t)
{
    for (int i = 0; i < t->n_reads + t->n_writes && may_block(w, t); i++) {
        struct use *u = blocks_task(w, t, i);
        if (!u)
            continue;
        pend(w, u->call);
        u->active = false;
        w->n_active--;
    }
}

/* --- calls -------------------------------------------------------------------------- */

static int by_task(const void *a, const void *b)
{
    const struct record_span *x = *(const struct record_span *const *)a;
    const struct record_span *y = *(const struct record_span *const *)b;
    if (x->action != y->action)
        return x->action < y->action ? -1 : 1;
    if (x->task_id != y->task_id)
        return x->task_id < y->task_id ? -1 : 1;
    return (x->begin_ns > y->begin_ns) - (x->begin_ns < y->begin_ns);
}

/* A task's calls: from the first one's begin to the last one's end, and which of w->calls. */
struct reach {
    i64 begin_ns, end_ns, first, n;
};

/* False: it was not carried out. */
static bool find_call(const struct walk *w, u32 id, struct reach *out)
{
    i64 low = 0, high = w->n_calls;
    while (low < high) {
        i64 middle = (low + high) / 2;
        const struct record_span *s = w->calls[middle];
        if (s->action < w->action || (s->action == w->action && s->task_id < id))
            low = middle + 1;
        else
            high = middle;
    }
    *out = (struct reach){ INT64_MAX, INT64_MIN, low, 0 };
    for (; low < w->n_calls && w->calls[low]->action == w->action && w->calls[low]->task_id == id;
         low++) {
        out->begin_ns = i64_min(out->begin_ns, w->calls[low]->begin_ns);
        out->end_ns = i64_max(out->end_ns, w->calls[low]->end_ns);
        out->n++;
    }
    return out->n > 0;
}

/* What was made of an item, or of a task's calls, for who repeats it (dag_again.h). */
static void note(const struct walk *w, struct dag_entry e)
{
    if (w->b->log)
        dag_log_entry(w->b->log, &e);
}

static i32 index_of(const struct walk *w, const struct dag_item *it)
{
    return (i32)(it - w->items);
}

/* What `it` waited for: the call, as far as it is found. */
struct sought {
    const struct dag_item *it;
    i32 ended; /* a call of the same task that had ended before; -1: there is none */
};

/* Whether it waited for this use's call. What nothing has settled yet may be of an earlier turn of
 * the task, and have ended long ago. */
static bool is_meant(const struct walk *w, const struct use *u, struct sought *s)
{
    if (u->task != s->it->span->task_id)
        return false;
    const struct dag_call *c = &w->b->calls[u->call];
    const bool meant = c->ended > seconds_of(w->b, s->it->begin_ns);
    note(w, (struct dag_entry){ .what = DAG_ENTRY_MEANT, .answer = meant,
                                .item = index_of(w, s->it), .end = c->end });
    if (!meant && s->ended < 0)
        s->ended = u->call;
    return meant;
}

/* What t touches that the call still moves, or NULL. */
static const struct use *needs(const struct walk *w, const struct record_task *t, struct sought *s)
{
    for (int i = 0; i < t->n_reads + t->n_writes && may_block(w, t); i++) {
        const struct use *u = blocks_task(w, t, i);
        if (u && is_meant(w, u, s))
            return u;
    }
    return NULL;
}

enum { KEY_BITS = 32 };

/* Who takes part, as a number that all members have; and which of this rank's it is. */
static void name_call(struct walk *w, const struct record_task *t, struct dag_call *c)
{
    const struct record_head *h = w->k->head;
    const struct record_group *group = &h->groups[t->lane];
    if (t->boundary >= 0) {
        i64 way = 2 * (i64)t->boundary + ((t->flags & RECORD_UP) != 0);
        const struct record_group *pair = t->boundary < h->n_boundaries
                                              ? &h->boundaries[t->boundary] : group;
        c->key = (LANE_COUNT + way) << KEY_BITS | (pair->n > 0 ? pair->ranks[0] : w->rank);
        c->number = t->boundary < h->n_boundaries ? w->move_numbers[way]++ : 0;
        return;
    }
    c->key = (i64)t->lane << KEY_BITS | (group->n > 0 ? group->ranks[0] : w->rank);
    c->number = w->numbers[t->lane]++;
}

static double latest_pending(const struct walk *w)
{
    double latest = -INFINITY;
    for (int i = 0; i < w->n_pending; i++)
        latest = dag_larger(latest, w->b->ends[w->pending[i]]);
    return latest;
}

static void begin_call(struct walk *w, const struct record_task *t, u32 id)
{
    struct dag_builder *b = w->b;
    struct reach at;
    if (!find_call(w, id, &at)) {
        b->g->strays += !t->conditional;
        return;
    }
    w->begun = (u8)t->lane;
    struct dag_call c = { .ready = -1, .began = seconds_of(b, at.begin_ns),
                      .ended = seconds_of(b, at.end_ns),
                      .in_order = lane_in_order((enum lane)t->lane) };
    struct dag_node n = { .kind = DAG_BEGIN, .lane = (u8)t->lane, .action = (u16)w->action,
                          .rank = w->rank, .task = t, .task_id = id, .before = w->last };
    const double up = dag_larger(w->now, c.began); /* when it is taken up */
    name_call(w, t, &c);
    c.begin = dag_add_node(b, &n, up, c.began - dag_larger(w->now, latest_pending(w)), 0);
    for (int i = 0; i < w->n_pending; i++)
        dag_add_edge(b, c.begin, w->pending[i]);
    n.kind = DAG_CALL;
    n.before = c.in_order ? w->lane_last[t->lane] : -1;
    /* Its seconds are known with the other members. */
    c.end = dag_add_node(b, &n, dag_larger(c.ended, up), 0, 0);
    dag_add_edge(b, c.end, c.begin);
    note(w, (struct dag_entry){ .what = DAG_ENTRY_CALL, .item = (i32)at.first, .n = (i32)at.n,
                                .node = c.begin, .end = c.end });
    w->lane_last[t->lane] = c.end;
    i32 call = dag_add_call(b, &c);
    for (int i = 0; i < t->n_reads + t->n_writes; i++) {
        bool writes = i >= t->n_reads;
        if (i == 0 && t->conditional)
            continue;
        struct use *u = use_of(w, writes ? t->writes[i - t->n_reads] : t->reads[i]);
        w->n_active += !u->active;
        *u = (struct use){ call, (u8)t->lane, true, writes || (u->active && u->writes), id };
    }
}

/* --- the walk ----------------------------------------------------------------------- */

static bool has_turn(const struct walk *w, const struct record_task *t)
{
    int mb = action_at(w)->micro_batch;
    return (!(t->flags & RECORD_FIRST_TURN) || mb == 0) &&
           (!(t->flags & RECORD_LAST_TURN) || mb == w->k->table->micro_batches - 1);
}

/* Where in the walk a span's task is; false: it has none, or one that is behind. */
static bool place_of(const struct walk *w, const struct record_span *s, i64 *task)
{
    const struct record_table *t = w->k->table;
    if (s->action >= t->n_actions)
        return false;
    const struct record_segment *g = &t->segments[t->actions[s->action].segment];
    *task = (i64)s->task_id - g->first;
    if (*task < 0 || *task >= g->n)
        return false;
    return s->action > w->action || (s->action == w->action && *task >= w->task);
}

/* Where a walk ends: before the task with this place, or before the action (-1). */
struct target {
    i64 action, task;
};

static bool is_there(const struct walk *w, const struct target *to)
{
    return w->action > to->action || (w->action == to->action && w->task >= to->task);
}

/* The next task before the target, if any: actions that are through are left behind. */
static const struct record_task *next_task(struct walk *w, const struct target *to, u32 *id)
{
    const struct record_table *p = w->k->table;
    for (; w->action < p->n_actions && !is_there(w, to); w->action++, w->task = 0) {
        const struct record_segment *g = &p->segments[action_at(w)->segment];
        for (; w->task < g->n && !is_there(w, to); w->task++) {
            *id = (u32)(g->first + w->task);
            if (has_turn(w, &p->tasks[*id]))
                return &p->tasks[*id];
        }
        if (w->action == to->action)
            break;
    }
    return NULL;
}

static void pass_task(struct walk *w, const struct record_task *t, u32 id)
{
    settle_task(w, t);
    w->task++;
    if (t->flags & RECORD_WAITS)
        return;
    if (t->lane != LANE_COMPUTE)
        begin_call(w, t, id);
    else
        w->b->g->strays += !t->conditional; /* its span is missing */
}

static void advance(struct walk *w, const struct target *to)
{
    const struct record_task *t;
    u32 id;
    while ((t = next_task(w, to, &id)) != NULL)
        pass_task(w, t, id);
}

static void see_task(struct walk *w, const struct dag_item *it)
{
    const struct record_table *p = w->k->table;
    const struct record_segment *g = w->action < p->n_actions
                                         ? &p->segments[action_at(w)->segment] : NULL;
    i64 task;
    if (g && it->span->action == w->action && it->span->task_id == g->first + w->task &&
        w->task < g->n) { /* the very next one */
        settle_task(w, &p->tasks[it->span->task_id]);
        w->task++;
    } else if (place_of(w, it->span, &task)) {
        advance(w, &(struct target){ it->span->action, task });
        settle_task(w, &p->tasks[it->span->task_id]);
        w->task = task + 1;
    } else {
        w->b->g->strays++;
    }
    const i32 node = chain(w, DAG_COMPUTE, seconds_of(w->b, it->begin_ns),
                           seconds_of(w->b, it->end_ns), it->span);
    note(w, (struct dag_entry){ .what = DAG_ENTRY_CHAIN, .item = index_of(w, it), .node = node });
}

/* In the end the executor waits for all that is under way. */
static void drain(struct walk *w)
{
    for (i64 i = 0; w->n_active > 0 && i < w->k->table->n_places; i++)
        if (w->uses[i].active) {
            pend(w, w->uses[i].call);
            w->uses[i].active = false;
            w->n_active--;
        }
}

/* Up to the next task that has a span behind this item, or to the end. */
static struct target up_to_next(const struct walk *w, i64 index)
{
    struct target t = { w->k->table->n_actions, 0 };
    for (i64 i = index + 1; i < w->n_items; i++)
        if (w->items[i].kind == DAG_COMPUTE && place_of(w, w->items[i].span, &t.task)) {
            t.action = w->items[i].span->action;
            break;
        }
    return t;
}

/* What the call moves and the target needs: behind the last, all that is under way. */
static const struct use *needed_there(const struct walk *w, const struct target *to,
                                      struct sought *s)
{
    const struct record_table *p = w->k->table;
    struct walk at = *w;
    if (to->action < p->n_actions) {
        at.action = to->action;
        const struct record_segment *g = &p->segments[action_at(&at)->segment];
        return needs(&at, &p->tasks[g->first + to->task], s);
    }
    for (i64 i = 0; w->n_active > 0 && i < p->n_places; i++)
        if (w->uses[i].active && is_meant(w, &w->uses[i], s))
            return &w->uses[i];
    return NULL;
}

static bool is_taken_up_behind(const struct walk *w, const struct record_task *t, u32 id,
                               const struct dag_item *it)
{
    struct reach at;
    if (t->lane == LANE_COMPUTE || !find_call(w, id, &at))
        return false;
    const bool behind = at.begin_ns >= it->end_ns;
    note(w, (struct dag_entry){ .what = DAG_ENTRY_TAKEN_UP, .answer = behind,
                                .item = (i32)at.first, .n = (i32)at.n, .node = index_of(w, it) });
    return behind;
}

/* The last call of a task that nothing has settled yet; -1: none. */
static i32 last_under_way(const struct walk *w, u32 task)
{
    i32 last = -1;
    for (i64 i = 0; w->n_active > 0 && i < w->k->table->n_places; i++)
        if (w->uses[i].active && w->uses[i].task == task && w->uses[i].call > last)
            last = w->uses[i].call;
    return last;
}

/* Walks on to what needs what `it` waited for, or to what was begun behind it only: then it
 * stood still where the call begins, and *early says whether nothing needed that yet. Returns
 * the call; where there is none, one that had just ended, that an earlier wait's walk has begun,
 * or that was waited for last and is looked at again, for another tensor; -1: none. */
static i32 find_waited(struct walk *w, const struct dag_item *it, const struct target *to,
                       bool *early)
{
    struct sought s = { it, -1 };
    const struct record_task *t;
    const struct use *u = NULL;
    i32 begun = -1;
    u32 id;
    while ((t = next_task(w, to, &id)) != NULL) {
        const i64 before = w->b->n_calls;
        u = needs(w, t, &s);
        if (u || (begun >= 0 && is_taken_up_behind(w, t, id, it)))
            break;
        pass_task(w, t, id);
        if (id == it->span->task_id && w->b->n_calls > before)
            begun = (i32)before;
    }
    u = u ? u : needed_there(w, to, &s);
    i32 call = u ? u->call : begun >= 0 ? begun : s.ended;
    if (call < 0)
        call = begun = last_under_way(w, it->span->task_id);
    *early = !u && begun >= 0;
    return call < 0 && w->waited_task == it->span->task_id ? w->waited : call;
}

/* The call stays under way: what needs it does so with or without this wait. */
static void see_wait(struct walk *w, i64 index)
{
    const struct dag_item *it = &w->items[index];
    const struct dag_builder *b = w->b;
    const struct target to = up_to_next(w, index);
    bool early;
    const i32 call = find_waited(w, it, &to, &early);
    if (call >= 0)
        pend(w, call);
    w->waited = call;
    w->waited_task = it->span->task_id;
    double latest = latest_pending(w), end = seconds_of(b, it->end_ns);
    b->g->strays += w->n_pending == 0;
    const double begin = dag_larger(seconds_of(b, it->begin_ns), w->now);
    i32 node = chain(w, DAG_WAIT, begin, end, it->span);
    note(w, (struct dag_entry){ .what = DAG_ENTRY_WAIT, .item = (i32)index, .node = node });
    b->g->nodes[node].early = early;
    /* Until the call had ended it was the call's time. */
    b->g->seconds[node] = dag_larger(0, end - dag_larger(begin, latest));
}

static void see_meeting(struct walk *w, const struct dag_item *it)
{
    double begin = seconds_of(w->b, it->begin_ns), end = seconds_of(w->b, it->end_ns);
    struct dag_call c = { .ready = -1, .key = (i64)(LANE_COUNT * 64) << KEY_BITS,
                          .number = w->meetings++, .in_order = true };
    c.begin = chain(w, DAG_BEGIN, begin, begin, NULL);
    c.began = w->now;
    c.end = chain(w, DAG_MEET, begin, end, NULL);
    c.ended = w->now;
    w->b->g->seconds[c.end] = 0; /* known with the other members */
    note(w, (struct dag_entry){ .what = DAG_ENTRY_MEET, .item = index_of(w, it), .node = c.begin,
                                .end = c.end });
    dag_add_call(w->b, &c);
}

/* The host's own doings stand before the first action or between two: what earlier actions have
 * started stands before them. */
static void see_host(struct walk *w, i64 index)
{
    const struct dag_item *it = &w->items[index];
    struct target to = up_to_next(w, index);
    to.task = -1;
    if (w->action > 0 || w->task > 0)
        advance(w, &to);
    if (it->kind == DAG_MEET) {
        see_meeting(w, it);
        return;
    }
    const i32 node = chain(w, it->kind, seconds_of(w->b, it->begin_ns),
                           seconds_of(w->b, it->end_ns), NULL);
    note(w, (struct dag_entry){ .what = DAG_ENTRY_CHAIN, .item = (i32)index, .node = node });
}

static void walk_rank(struct walk *w)
{
    for (i64 i = 0; i < w->n_items; i++) {
        const struct dag_item *it = &w->items[i];
        if (seconds_of(w->b, it->end_ns) <= w->now && it->end_ns > it->begin_ns)
            note(w, (struct dag_entry){ .what = DAG_ENTRY_PASSED, .item = (i32)i });
        else if (it->kind == DAG_COMPUTE)
            see_task(w, it);
        else if (it->kind == DAG_WAIT)
            see_wait(w, i);
        else
            see_host(w, i);
    }
    advance(w, &(struct target){ w->k->table->n_actions, 0 });
    drain(w);
    double end = dag_larger(w->now, seconds_of(w->b, w->k->window_end_ns));
    const i32 node = chain(w, DAG_REST, end, end, NULL);
    note(w, (struct dag_entry){ .what = DAG_ENTRY_REST, .node = node });
}

/* --- what each rank did ------------------------------------------------------------- */

static void list_items(struct walk *w)
{
    const struct record_rank *k = w->k;
    struct arena *a = w->b->a;
    w->items = ARENA_UNSET(a, struct dag_item, k->n_spans + 1);
    w->calls = ARENA_UNSET(a, const struct record_span *, k->n_spans);
    for (i64 i = 0; i < k->n_spans; i++) {
        const struct record_span *s = &k->spans[i];
        int kind = dag_item_kind(s);
        if (s->kind == SPAN_CALL)
            w->calls[w->n_calls++] = s;
        else if (kind >= 0 && s->end_ns > k->window_begin_ns)
            w->items[w->n_items++] = (struct dag_item){ s->begin_ns, s->end_ns, kind, s };
    }
    if (k->n_outer > 0) {
        struct dag_item outer = { INT64_MAX, INT64_MIN, DAG_OUTER, NULL };
        for (i64 i = 0; i < k->n_outer; i++) {
            outer.begin_ns = i64_min(outer.begin_ns, k->outer[i].begin_ns);
            outer.end_ns = i64_max(outer.end_ns, k->outer[i].end_ns);
        }
        w->items[w->n_items++] = outer;
    }
    sort_runs(w->items, w->n_items, (i64)sizeof *w->items, dag_by_begin, a);
    sort_runs(w->calls, w->n_calls, (i64)sizeof *w->calls, by_task, a);
}

static void add_rank(struct dag_builder *b, const struct record_rank *k, int rank)
{
    const struct record_table *t = k->table;
    struct walk w = { .b = b, .k = k, .rank = rank, .last = -1, .waited = -1 };
    for (int lane = 0; lane < LANE_COUNT; lane++)
        w.lane_last[lane] = -1;
    w.uses = ARENA_ARRAY(b->a, struct use, t->n_places);
    w.move_numbers = ARENA_ARRAY(b->a, i64, 2 * (k->head->n_boundaries + 1));
    list_items(&w);
    w.now = b->g->starts[rank] = seconds_of(b, k->window_begin_ns);
    if (b->log)
        dag_log_rank(b->log, k, rank, w.items, w.n_items, w.calls, w.n_calls);
    walk_rank(&w);
    b->g->last[rank] = w.last;
}

/* --- all of it ---------------------------------------------------------------------- */

int dag_build(struct dag **out, const struct record_step *s, struct dag_log *log)
{
    struct dag_builder b = { .a = s->arena, .g = ARENA_NEW(s->arena, struct dag), .log = log };
    struct dag *g = b.g;
    const i32 *place;
    i64 end_ns;
    g->n_ranks = s->n_ranks;
    g->missing = s->missing;
    g->starts = ARENA_ARRAY(b.a, double, s->n_ranks);
    g->last = ARENA_ARRAY(b.a, i64, s->n_ranks);
    if (s->apart)
        return err_set(ERR_FORMAT, "the ranks' clocks are apart in step %lld",
                       (long long)s->step + 1);
    if (s->missing == s->n_ranks)
        return err_set(ERR_FORMAT, "no rank's spans of step %lld are there",
                       (long long)s->step + 1);
    dag_window(s, &b.zero_ns, &end_ns);
    dag_make_room(&b, s);
    for (int r = 0; r < s->n_ranks; r++) {
        g->last[r] = -1;
        if (s->ranks[r].head)
            add_rank(&b, &s->ranks[r], r);
    }
    dag_join_calls(&b);
    TRY(dag_order(g, b.edges, b.n_edges, b.a, &place));
    if (log)
        dag_log_end(log, b.calls, b.n_calls, place);
    g->measured = seconds_of(&b, end_ns);
    g->ends = ARENA_UNSET(b.a, double, g->n);
    g->own_ends = ARENA_UNSET(b.a, double, g->n);
    dag_settle(g);
    *out = g;
    return OK;
}

int dag_new(struct dag **out, const struct record_step *s)
{
    return dag_build(out, s, NULL);
}
