/* Which spans of different ranks are one exchange, and when the last of them had come. */
#include "base/sort.h"
#include "diagnose/measure_record.h"

#include <string.h>

enum { KEYS = 5, ALIKE = 4 }; /* the last one counts exchanges that are alike so far */

static int compare_keys(const struct measure_call *x, const struct measure_call *y)
{
    for (int k = 0; k < KEYS; k++)
        if (x->key[k] != y->key[k])
            return x->key[k] < y->key[k] ? -1 : 1;
    return 0;
}

/* Before occurrences are counted: by rank, key, begin. */
static int by_rank_and_key(const void *a, const void *b)
{
    const struct measure_call *x = a, *y = b;
    if (x->rank != y->rank)
        return x->rank < y->rank ? -1 : 1;
    int c = compare_keys(x, y);
    return c ? c : (x->begin > y->begin) - (x->begin < y->begin);
}

static int by_key(const void *a, const void *b)
{
    const struct measure_call *x = a, *y = b;
    int c = compare_keys(x, y);
    return c ? c : (x->rank > y->rank) - (x->rank < y->rank);
}

static int by_rank_and_begin(const void *a, const void *b)
{
    const struct measure_call *x = a, *y = b;
    if (x->rank != y->rank)
        return x->rank < y->rank ? -1 : 1;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    return (x->end > y->end) - (x->end < y->end);
}

static bool is_move(const struct record_task *t)
{
    return (t->flags & (RECORD_SENDS | RECORD_RECEIVES)) != 0;
}

static i64 moved_bytes(const struct record_rank *k, const struct record_task *t)
{
    bool known = t->moved >= 0 && t->moved < k->table->n_tensors;
    return known ? k->table->tensors[t->moved].bytes : 0;
}

/* Members of a group run the same program; both ends of a boundary know the micro-batch and how
 * much moves. */
static bool fill_key(const struct record_rank *k, const struct record_span *s, i64 key[KEYS],
                     int *members, int *peer)
{
    const struct record_task *t = s->task;
    const struct record_head *h = k->head;
    const struct record_group *g = &h->groups[t->lane];
    *peer = -1;
    if (is_move(t)) {
        if (t->boundary < 0 || t->boundary >= h->n_boundaries ||
            h->boundaries[t->boundary].n != 2 || s->action >= k->table->n_actions)
            return false;
        g = &h->boundaries[t->boundary];
        bool up = (t->flags & RECORD_UP) != 0;
        key[1] = (i64)g->ranks[0] << 32 | (u32)g->ranks[1];
        key[2] = 2 * k->table->actions[s->action].micro_batch + up;
        key[3] = moved_bytes(k, t);
        key[0] = (i64)t->lane << 32 | 1;
    } else {
        if (g->n < 2)
            return false;
        key[0] = (i64)t->lane << 32;
        key[1] = (i64)g->ranks[0] << 32 | (u32)g->ranks[g->n - 1];
        /* Stages have programs of their own: there the k-th call belongs to the others' k-th. */
        bool alike = t->lane != LANE_PP && t->lane != LANE_TIE;
        key[2] = alike ? (i64)s->action << 32 | s->task_id : -1;
    }
    *members = g->n;
    if (g->n == 2)
        *peer = g->ranks[0] == h->rank ? g->ranks[1] : g->ranks[0];
    return true;
}

/* A sum over n goes around a ring twice, what is gathered, scattered or exchanged once; in pieces,
 * each of them. */
static int rounds_of(const struct record_task *t, int members)
{
    if (is_move(t) || strcmp(t->op, "ring_shift") == 0)
        return 1;
    int once = (members - 1) * (t->calls > 1 ? t->calls : 1);
    return strcmp(t->op, "all_reduce") == 0 ? 2 * once : once;
}

static void count_occurrences(struct measure_call *c, i64 n, struct arena *a)
{
    sort_runs(c, n, (i64)sizeof *c, by_rank_and_key, a);
    for (i64 i = 1; i < n; i++) {
        if (c[i].rank == c[i - 1].rank &&
            memcmp(c[i].key, c[i - 1].key, ALIKE * sizeof(i64)) == 0)
            c[i].key[ALIKE] = c[i - 1].key[ALIKE] + 1;
    }
}

/* [from, to) are the members' parts of one exchange. */
static void settle(struct measure_call *c, i64 from, i64 to)
{
    i64 come = c[from].begin;
    int last = c[from].rank;
    double moved = 0;
    for (i64 i = from; i < to; i++) {
        moved = c[i].bytes > moved ? c[i].bytes : moved;
        if (c[i].begin > come) {
            come = c[i].begin;
            last = c[i].rank;
        }
    }
    for (i64 i = from; i < to; i++) {
        c[i].come = come;
        c[i].moved = moved;
        c[i].last = to - from > 1 ? last : -1;
    }
}

/* Those that may be calls: they lie on lanes of their own. */
static i64 count_calls(const struct record_step *s)
{
    i64 n = 0;
    for (int r = 0; r < s->n_ranks; r++)
        n += s->ranks[r].n_spans - s->ranks[r].lane[TRACE_CALLS];
    return n;
}

/* An exchange stands behind those begun before it: on a lane in order behind all of them, a move
 * behind those over the same boundary in the same direction. c is by rank and begin. */
static void queue_up(struct measure_call *c, i64 n, struct arena *a)
{
    enum { WAYS = 4 }; /* to and from the stage before and the one behind */
    struct way { i64 key, ended; } *ways = ARENA_ARRAY(a, struct way, LANE_COUNT + WAYS);
    for (i64 i = 0; i < n; i++) {
        if (i == 0 || c[i].rank != c[i - 1].rank)
            for (int w = 0; w < LANE_COUNT + WAYS; w++)
                ways[w] = (struct way){ -1, INT64_MIN };
        struct way *w = &ways[c[i].lane];
        if (c[i].move) {
            const i64 key = c[i].key[1] * 2 + (c[i].key[2] & 1);
            for (w = &ways[LANE_COUNT]; w < &ways[LANE_COUNT + WAYS - 1]; w++)
                if (w->key == key || w->key < 0)
                    break;
            w->key = key;
        }
        c[i].free = i64_max(c[i].begin, c[i].come);
        if (c[i].move || lane_in_order((enum lane)c[i].lane))
            c[i].free = i64_max(c[i].free, w->ended);
        w->ended = i64_max(w->ended, c[i].end);
    }
}

/* A task that is carried out in pieces makes a call for each: together they are one exchange,
 * as they are in the graph of a step. */
static bool continues(const struct measure_call *before, const struct measure_call *c,
                      const struct record_task *t)
{
    return t->calls > 1 && before->rank == c->rank && before->task == c->task &&
           before->action == c->action;
}

static void add_piece(struct measure_call *whole, const struct measure_call *c)
{
    whole->begin = i64_min(whole->begin, c->begin);
    whole->end = i64_max(whole->end, c->end);
}

void measure_match_calls(const struct record_step *s, struct measure_calls *out, struct arena *a)
{
    struct measure_call *c = ARENA_UNSET(a, struct measure_call, count_calls(s));
    i64 n = 0;
    for (int r = 0; r < s->n_ranks; r++)
        for (i64 i = s->ranks[r].lane[TRACE_CALLS]; i < s->ranks[r].n_spans; i++) {
            const struct record_rank *k = &s->ranks[r];
            const struct record_span *span = &k->spans[i];
            if (span->kind != SPAN_CALL || !span->task)
                continue;
            struct measure_call call = { .rank = r, .begin = span->begin_ns,
                                         .end = span->end_ns, .task = span->task_id,
                                         .action = span->action };
            if (!fill_key(k, span, call.key, &call.members, &call.peer))
                continue;
            if (n > 0 && continues(&c[n - 1], &call, span->task)) {
                add_piece(&c[n - 1], &call);
                continue;
            }
            call.lane = span->task->lane;
            call.bytes = span->task->message_bytes;
            call.move = is_move(span->task);
            call.pieces = span->task->calls > 1 ? span->task->calls : 1;
            call.rounds = rounds_of(span->task, call.members);
            c[n++] = call;
        }
    count_occurrences(c, n, a);
    sort_runs(c, n, (i64)sizeof *c, by_key, a);
    for (i64 i = 0, to; i < n; i = to) {
        for (to = i + 1; to < n && compare_keys(&c[i], &c[to]) == 0;)
            to++;
        settle(c, i, to);
    }
    sort_runs(c, n, (i64)sizeof *c, by_rank_and_begin, a);
    *out = (struct measure_calls){ c, n, ARENA_ARRAY(a, i64, s->n_ranks + 1) };
    queue_up(c, n, a);
    for (i64 i = 0, r = 0; r <= s->n_ranks; r++) {
        while (i < n && c[i].rank < r)
            i++;
        out->first[r] = i;
    }
}
