#include "diagnose/dag_again.h"

#include "base/err.h"
#include "base/sys.h"
#include "diagnose/computing.h"

#include <math.h>
#include <string.h>

/* --- items --------------------------------------------------------------------------- */

int dag_item_kind(const struct record_span *s)
{
    static const signed char host[SPAN_KINDS] = {
        [SPAN_LOAD_WAIT] = DAG_DATA, [SPAN_EVAL] = DAG_EVAL, [SPAN_CHECKPOINT] = DAG_CHECKPOINT,
        [SPAN_LOG] = DAG_LOG, [SPAN_MEET] = DAG_MEET,
    };
    if (s->lane == TRACE_COMPUTE)
        return s->kind == SPAN_TASK ? DAG_COMPUTE : s->kind == SPAN_WAIT ? DAG_WAIT : -1;
    return s->lane == TRACE_HOST && host[s->kind] ? host[s->kind] : -1;
}

/* Of two times of items. */
static inline int compare_times(i64 x_begin, i64 x_end, i64 y_begin, i64 y_end)
{
    const bool empty = x_begin == x_end;
    if (x_begin != y_begin)
        return x_begin < y_begin ? -1 : 1;
    if (empty != (y_begin == y_end)) /* a meeting to which it came last */
        return empty ? -1 : 1;
    return (x_end < y_end) - (x_end > y_end); /* what contains stands before */
}

int dag_by_begin(const void *a, const void *b)
{
    const struct dag_item *x = a, *y = b;
    return compare_times(x->begin_ns, x->end_ns, y->begin_ns, y->end_ns);
}

void dag_window(const struct record_step *s, i64 *zero_ns, i64 *end_ns)
{
    *zero_ns = *end_ns = INT64_MIN;
    for (int r = 0; r < s->n_ranks; r++)
        if (s->ranks[r].head) {
            *zero_ns = i64_max(*zero_ns, s->ranks[r].window_begin_ns);
            *end_ns = i64_max(*end_ns, s->ranks[r].window_end_ns);
        }
}

/* --- logging ------------------------------------------------------------------------- */

void dag_log_rank(struct dag_log *log, const struct record_rank *k, int rank,
                  const struct dag_item *items, i64 n_items,
                  const struct record_span *const *calls, i64 n_calls)
{
    log->ranks[rank] = (struct dag_log_rank){ log->n, n_items, n_calls, items, calls };
    log->odd |= k->n_outer > 0;
}

void dag_log_entry(struct dag_log *log, const struct dag_entry *e)
{
    if (log->n == log->room) {
        log->room = i64_max(1024, 2 * log->room);
        struct dag_entry *grown = ARENA_UNSET(log->a, struct dag_entry, log->room);
        if (log->n > 0)
            memcpy(grown, log->entries, (size_t)log->n * sizeof *grown);
        log->entries = grown;
    }
    log->entries[log->n++] = *e;
}

void dag_log_end(struct dag_log *log, const struct dag_call *calls, i64 n_calls,
                 const i32 *place)
{
    log->calls = calls;
    log->n_calls = n_calls;
    log->place = place;
}

/* --- shapes -------------------------------------------------------------------------- */

struct shape_rank {
    const struct record_head *head; /* NULL: missing */
    const struct record_table *table;
    i64 n_spans, n_items, n_left;
    u64 *what;        /* [n_spans] what_of each */
    i32 *items, *calls; /* which spans they are */
    i32 *left;        /* [n_left] spans that would be items, had they not ended before the window */
    const struct dag_entry *entries; /* their nodes: places in the graph */
    i64 n_entries;
};

struct shape {
    struct arena arena;
    struct dag graph; /* nodes, needs, last */
    struct shape_rank *ranks;
    struct dag_call *calls; /* by group; nodes as above */
    i64 n_calls;
    i64 used; /* when */
};

/* Steps that log, that save or that evaluate have shapes of their own. Where fewer than one step
 * in WORTH has the shape of another, behind the first TRIED, looking for one is not worth it. */
enum { MOST_SHAPES = 8, TRIED = 256, WORTH = 4 };

struct dag_shapes {
    struct shape at[MOST_SHAPES];
    int n;
    i64 steps, used;
};

/* Its task, action, lane and kind in one number. */
static inline u64 what_of(const struct record_span *s)
{
    u64 what;
    _Static_assert(offsetof(struct record_span, kind) + 1 ==
                   offsetof(struct record_span, task_id) + sizeof what, "without holes");
    memcpy(&what, (const char *)s + offsetof(struct record_span, task_id), sizeof what);
    return what;
}

static void *copy(struct arena *a, const void *from, i64 bytes)
{
    void *to = arena_alloc_unset(a, bytes);
    if (bytes > 0)
        memcpy(to, from, (size_t)bytes);
    return to;
}

static void keep_spans(struct shape_rank *x, const struct record_rank *k,
                       const struct dag_log_rank *log, struct arena *a)
{
    i64 items = 0; /* of them passed in the order of spans */
    x->n_spans = k->n_spans;
    x->n_items = log->n_items;
    x->what = ARENA_UNSET(a, u64, k->n_spans);
    x->items = ARENA_UNSET(a, i32, log->n_items);
    x->calls = ARENA_UNSET(a, i32, log->n_calls);
    x->left = ARENA_UNSET(a, i32, k->n_spans);
    for (i64 i = 0; i < log->n_items; i++)
        x->items[i] = (i32)(log->items[i].span - k->spans);
    for (i64 i = 0; i < log->n_calls; i++)
        x->calls[i] = (i32)(log->calls[i] - k->spans);
    for (i64 i = 0; i < k->n_spans; i++) {
        const struct record_span *s = &k->spans[i];
        const bool item = s->kind != SPAN_CALL && dag_item_kind(s) >= 0;
        x->what[i] = what_of(s);
        if (item && s->end_ns <= k->window_begin_ns)
            x->left[x->n_left++] = (i32)i;
        items += item;
    }
    assert(items == x->n_items + x->n_left);
}

static void keep_shape(struct shape *h, const struct record_step *s, const struct dag *g,
                       const struct dag_log *log)
{
    struct arena *a = &h->arena;
    struct dag_entry *entries = copy(a, log->entries, log->n * (i64)sizeof *entries);
    i64 needs = 0;
    for (i64 i = 0; i < log->n; i++) {
        const bool item = entries[i].what == DAG_ENTRY_TAKEN_UP;
        entries[i].node = item ? entries[i].node : log->place[entries[i].node];
        entries[i].end = log->place[entries[i].end];
    }
    h->n_calls = log->n_calls;
    h->calls = copy(a, log->calls, log->n_calls * (i64)sizeof *h->calls);
    for (i64 i = 0; i < log->n_calls; i++) {
        struct dag_call *c = &h->calls[i];
        c->begin = log->place[c->begin];
        c->end = log->place[c->end];
        c->ready = c->ready >= 0 ? log->place[c->ready] : -1;
    }
    for (i64 i = 0; i < g->n; i++)
        needs = i64_max(needs, g->nodes[i].needs + g->nodes[i].n_needs);
    h->graph = (struct dag){ .n = g->n, .n_ranks = g->n_ranks, .missing = g->missing,
                             .strays = g->strays };
    h->graph.nodes = copy(a, g->nodes, g->n * (i64)sizeof *g->nodes);
    h->graph.needs = copy(a, g->needs, needs * (i64)sizeof *g->needs);
    h->graph.last = copy(a, g->last, g->n_ranks * (i64)sizeof *g->last);
    struct computing_lists *computes = computing_list(s, g, a);
    computes->known = ARENA_NEW(a, struct computing_known);
    h->graph.computes = computes;
    h->ranks = ARENA_ARRAY(a, struct shape_rank, g->n_ranks);
    i64 end = log->n;
    for (int r = g->n_ranks - 1; r >= 0; r--) {
        const struct record_rank *k = &s->ranks[r];
        if (!k->head)
            continue;
        struct shape_rank *x = &h->ranks[r];
        *x = (struct shape_rank){ .head = k->head, .table = k->table,
                                  .entries = entries + log->ranks[r].entry,
                                  .n_entries = end - log->ranks[r].entry };
        end = log->ranks[r].entry;
        keep_spans(x, k, &log->ranks[r], a);
    }
}

/* --- the same again ------------------------------------------------------------------ */

static bool same_spans(const struct shape_rank *x, const struct record_rank *k)
{
    if (x->head != k->head)
        return false;
    if (!k->head)
        return true;
    if (x->table != k->table || x->n_spans != k->n_spans || k->n_outer > 0)
        return false;
    u64 apart = 0;
    for (i64 i = 0; i < x->n_spans && apart == 0;) { /* some at a time, without looking between */
        const i64 to = i64_min(i + 16, x->n_spans);
        for (; i < to; i++)
            apart |= x->what[i] ^ what_of(&k->spans[i]);
    }
    for (i64 i = 0; i < x->n_left; i++)
        apart |= k->spans[x->left[i]].end_ns > k->window_begin_ns;
    return apart == 0;
}

/* One rank's chain, as it goes on. */
struct chain {
    const struct shape_rank *x;
    const struct record_rank *k;
    struct dag *g;    /* ends: of nodes as measured; own_ends: when calls began and ended */
    i64 zero_ns;
    double now;
    i64 begin_ns, end_ns; /* of the item before */
    i32 span;             /* of it; -1: there is none */
};

static inline double seconds_of(const struct chain *c, i64 ns)
{
    return 1e-9 * (double)(ns - c->zero_ns);
}

static inline void put(struct chain *c, i32 node, double begin, double end)
{
    begin = dag_larger(begin, c->now);
    end = dag_larger(end, begin);
    c->g->seconds[node] = dag_larger(end - begin, 0);
    c->g->lead[node] = dag_larger(begin - c->now, 0);
    c->g->ends[node] = c->now = end;
}

static double latest_needed(const struct dag *g, i32 node)
{
    const struct dag_node *n = &g->nodes[node];
    double latest = -INFINITY;
    for (i32 k = 0; k < n->n_needs; k++)
        latest = dag_larger(latest, g->ends[g->needs[n->needs + k]]);
    return latest;
}

/* Whether the item counts, stands behind the one before it, and is passed over or not, as then. */
static inline bool item_stands(struct chain *c, const struct dag_entry *e)
{
    const i32 span = c->x->items[e->item];
    const struct record_span *s = &c->k->spans[span];
    const int order = c->span < 0 ? -1 : compare_times(c->begin_ns, c->end_ns, s->begin_ns,
                                                       s->end_ns);
    const bool within = seconds_of(c, s->end_ns) <= c->now && s->end_ns > s->begin_ns;
    const bool stands = s->end_ns > c->k->window_begin_ns &&
                        (order < 0 || (order == 0 && c->span < span)) &&
                        within == (e->what == DAG_ENTRY_PASSED);
    c->span = span;
    c->begin_ns = s->begin_ns;
    c->end_ns = s->end_ns;
    return stands;
}

static void put_wait(struct chain *c, const struct dag_entry *e)
{
    const double latest = latest_needed(c->g, e->node), end = seconds_of(c, c->end_ns);
    const double begin = dag_larger(seconds_of(c, c->begin_ns), c->now);
    put(c, e->node, begin, end);
    c->g->seconds[e->node] = dag_larger(0, end - dag_larger(begin, latest));
}

static void put_meeting(struct chain *c, const struct dag_entry *e)
{
    const double begin = seconds_of(c, c->begin_ns), end = seconds_of(c, c->end_ns);
    put(c, e->node, begin, begin);
    c->g->own_ends[e->node] = c->now;
    put(c, e->end, begin, end);
    c->g->own_ends[e->end] = c->now;
}

static i64 call_begin(const struct chain *c, const struct dag_entry *e)
{
    i64 begin = INT64_MAX;
    for (i32 i = 0; i < e->n; i++)
        begin = i64_min(begin, c->k->spans[c->x->calls[e->item + i]].begin_ns);
    return begin;
}

static void put_call(struct chain *c, const struct dag_entry *e)
{
    struct dag *g = c->g;
    i64 end_ns = INT64_MIN;
    for (i32 i = 0; i < e->n; i++)
        end_ns = i64_max(end_ns, c->k->spans[c->x->calls[e->item + i]].end_ns);
    const double began = seconds_of(c, call_begin(c, e)), ended = seconds_of(c, end_ns);
    const double up = dag_larger(c->now, began);
    const double since = dag_larger(c->now, latest_needed(g, e->node));
    g->seconds[e->node] = dag_larger(began - since, 0);
    g->lead[e->node] = g->lead[e->end] = 0;
    g->ends[e->node] = up;
    g->ends[e->end] = dag_larger(ended, up);
    g->own_ends[e->node] = began;
    g->own_ends[e->end] = ended;
}

static bool repeat_rank(struct chain *c)
{
    for (i64 i = 0; i < c->x->n_entries; i++) {
        const struct dag_entry *e = &c->x->entries[i];
        const double end = e->what == DAG_ENTRY_REST ? seconds_of(c, c->k->window_end_ns) : 0;
        if (e->what <= DAG_ENTRY_PASSED && !item_stands(c, e))
            return false;
        switch (e->what) {
        case DAG_ENTRY_CHAIN:
            put(c, e->node, seconds_of(c, c->begin_ns), seconds_of(c, c->end_ns));
            break;
        case DAG_ENTRY_WAIT: put_wait(c, e); break;
        case DAG_ENTRY_MEET: put_meeting(c, e); break;
        case DAG_ENTRY_CALL: put_call(c, e); break;
        case DAG_ENTRY_TAKEN_UP:
            if ((call_begin(c, e) >= c->k->spans[c->x->items[e->node]].end_ns) != e->answer)
                return false;
            break;
        case DAG_ENTRY_MEANT:
            if ((c->g->own_ends[e->end] >
                 seconds_of(c, c->k->spans[c->x->items[e->item]].begin_ns)) != e->answer)
                return false;
            break;
        case DAG_ENTRY_REST:
            put(c, e->node, dag_larger(c->now, end), dag_larger(c->now, end));
            break;
        default: break; /* passed */
        }
    }
    return true;
}

/* As join_call in dag.c does; false: some call had ended early. */
static bool repeat_call(const struct dag_call *c, i64 n, struct dag *g)
{
    double all = -INFINITY;
    for (i64 i = 0; i < n; i++)
        all = dag_larger(all, g->own_ends[c[i].begin]);
    if (c->ready >= 0) {
        g->seconds[c->ready] = g->lead[c->ready] = 0;
        g->ends[c->ready] = all;
    }
    for (i64 i = 0; i < n; i++) {
        const i32 before = g->nodes[c[i].end].before;
        const struct dag_call own = { .ended = g->own_ends[c[i].end] };
        double since = g->own_ends[c[i].begin];
        if (dag_is_early(&own, n, all))
            return false;
        since = n > 1 ? dag_larger(since, all) : since;
        if (before >= 0)
            since = dag_larger(since, g->ends[before]);
        g->ends[c[i].end] = own.ended;
        g->seconds[c[i].end] = dag_larger(0, own.ended - since);
    }
    return true;
}

static bool same_shape(const struct shape *h, const struct record_step *s)
{
    bool same = h->graph.n_ranks == s->n_ranks && h->graph.missing == s->missing;
    for (int r = 0; r < s->n_ranks && same; r++)
        same = same_spans(&h->ranks[r], &s->ranks[r]);
    return same;
}

/* False: times have decided otherwise. */
static bool repeat(const struct shape *h, const struct record_step *s, struct dag *g)
{
    i64 zero_ns, end_ns;
    dag_window(s, &zero_ns, &end_ns);
    for (int r = 0; r < s->n_ranks; r++) {
        const struct record_rank *k = &s->ranks[r];
        if (!k->head)
            continue;
        struct chain c = { .x = &h->ranks[r], .k = k, .g = g, .zero_ns = zero_ns, .span = -1 };
        c.now = g->starts[r] = seconds_of(&c, k->window_begin_ns);
        if (!repeat_rank(&c))
            return false;
    }
    for (i64 i = 0, to; i < h->n_calls; i = to) {
        to = dag_call_end(h->calls, h->n_calls, i);
        if (!repeat_call(&h->calls[i], to - i, g))
            return false;
    }
    g->measured = 1e-9 * (double)(end_ns - zero_ns);
    dag_settle(g);
    return true;
}

/* --- all of it ----------------------------------------------------------------------- */

static struct dag *repeated(struct dag_shapes *x, const struct record_step *s)
{
    struct arena *a = s->arena;
    struct dag *g = NULL;
    for (int i = 0; i < x->n; i++) {
        struct shape *h = &x->at[i];
        if (!same_shape(h, s))
            continue;
        const i64 n = h->graph.n;
        g = ARENA_NEW(a, struct dag);
        *g = h->graph;
        g->starts = ARENA_ARRAY(a, double, s->n_ranks);
        g->seconds = ARENA_UNSET(a, double, n);
        g->lead = ARENA_UNSET(a, double, n);
        g->ends = ARENA_UNSET(a, double, n);
        g->own_ends = ARENA_UNSET(a, double, n);
        if (!repeat(h, s, g))
            continue;
        h->used = x->steps;
        x->used++;
        return g;
    }
    return NULL;
}

/* Where the next shape goes: in place of the one that was not used for the longest time. */
static struct shape *room_for(struct dag_shapes *x)
{
    struct shape *h = &x->at[0];
    if (x->n < MOST_SHAPES) {
        h = &x->at[x->n++];
        arena_init(&h->arena);
        return h;
    }
    for (int i = 1; i < x->n; i++)
        h = x->at[i].used < h->used ? &x->at[i] : h;
    arena_clear(&h->arena);
    return h;
}

int dag_new_again(struct dag **out, const struct record_step *s, struct dag_shapes **shapes)
{
    if (!*shapes && (*shapes = sys_alloc((i64)sizeof **shapes, 64)))
        memset(*shapes, 0, sizeof **shapes);
    struct dag_shapes *x = *shapes;
    if (!x || s->apart || (x->steps >= TRIED && WORTH * x->used < x->steps))
        return dag_build(out, s, NULL);
    x->steps++;
    if ((*out = repeated(x, s)) != NULL)
        return OK;
    struct dag_log log = { .a = s->arena };
    log.ranks = ARENA_ARRAY(s->arena, struct dag_log_rank, s->n_ranks);
    TRY(dag_build(out, s, &log));
    if (!log.odd) {
        struct shape *h = room_for(x);
        keep_shape(h, s, *out, &log);
        h->used = x->steps;
    }
    return OK;
}

i64 dag_shapes_used(const struct dag_shapes *shapes)
{
    return shapes ? shapes->used : 0;
}

void dag_shapes_free(struct dag_shapes *shapes)
{
    for (int i = 0; shapes && i < shapes->n; i++)
        arena_fini(&shapes->at[i].arena);
    sys_free(shapes);
}
