#include "report/step_memory.h"

#include "base/arena.h"
#include "report/pack.h"

#include <stdlib.h>

enum { LARGEST = 8, MOST_POINTS = 2000 };

/* One place of a tensor: of a micro-batch, where it has several. */
struct life {
    i64 begin_ns, end_ns;
    i64 bytes;
    int tensor;
    int layer; /* of the task that touched it first; -1 outside the blocks */
    bool seen, kept;
};

struct change {
    i64 at_ns, bytes; /* bytes < 0: given back */
};

struct lives {
    struct life *at;
    i64 *first; /* [n_tensors + 1]: where a tensor's places begin */
    i64 n;
};

static bool lives_init(struct lives *l, const struct record_table *t, struct arena *a)
{
    enum { MOST_SLOTS = 1 << 20 };
    l->first = ARENA_ARRAY(a, i64, t->n_tensors + 1);
    for (i64 i = 0; i < t->n_tensors; i++)
        l->first[i + 1] = l->first[i] + i64_max(1, t->tensors[i].slots);
    l->n = l->first[t->n_tensors];
    if (l->n == 0 || l->n > MOST_SLOTS)
        return false;
    l->at = ARENA_ARRAY(a, struct life, l->n);
    for (i64 i = 0; i < t->n_tensors; i++) {
        const i64 slots = l->first[i + 1] - l->first[i];
        for (i64 k = l->first[i]; k < l->first[i + 1]; k++)
            l->at[k] = (struct life){ .tensor = (int)i, .bytes = t->tensors[i].bytes / slots };
    }
    return true;
}

static void touch(struct lives *l, i64 tensor, int micro_batch, const struct record_span *s,
                  bool reads)
{
    i64 slots = l->first[tensor + 1] - l->first[tensor];
    struct life *x = &l->at[l->first[tensor] + micro_batch % slots];
    if (!x->seen) {
        x->begin_ns = s->begin_ns;
        x->kept = reads;
        x->layer = s->task->layer;
    }
    x->seen = true;
    x->end_ns = i64_max(x->end_ns, s->end_ns);
}

static int by_begin(const void *a, const void *b)
{
    const struct record_span *x = *(const struct record_span *const *)a;
    const struct record_span *y = *(const struct record_span *const *)b;
    return (x->begin_ns > y->begin_ns) - (x->begin_ns < y->begin_ns);
}

static void walk(struct lives *l, const struct record_rank *rank, struct arena *a)
{
    const struct record_table *t = rank->table;
    const struct record_span **order = ARENA_ARRAY(a, const struct record_span *, rank->n_spans);
    i64 n = 0;
    for (i64 i = 0; i < rank->n_spans; i++)
        if (rank->spans[i].task && rank->spans[i].kind <= SPAN_CALL)
            order[n++] = &rank->spans[i];
    qsort(order, (size_t)n, sizeof *order, by_begin);
    for (i64 i = 0; i < n; i++) {
        const struct record_task *task = order[i]->task;
        int mb = order[i]->action < t->n_actions ? t->actions[order[i]->action].micro_batch : 0;
        for (int k = 0; k < task->n_reads; k++)
            if (task->reads[k] >= 0)
                touch(l, task->reads[k], mb, order[i], true);
        for (int k = 0; k < task->n_writes; k++)
            if (task->writes[k] >= 0)
                touch(l, task->writes[k], mb, order[i], false);
    }
}

static int by_time(const void *a, const void *b)
{
    const struct change *x = a, *y = b;
    if (x->at_ns != y->at_ns)
        return x->at_ns < y->at_ns ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes); /* what is given back first */
}

static int larger_first(const void *a, const void *b)
{
    i64 x = (*(const struct life *const *)a)->bytes, y = (*(const struct life *const *)b)->bytes;
    return (x < y) - (x > y);
}

static void put_largest(const struct lives *l, const struct record_table *t, i64 at_ns,
                        struct arena *a, struct json *j)
{
    const struct life **there = ARENA_ARRAY(a, const struct life *, l->n);
    i64 n = 0;
    for (i64 i = 0; i < l->n; i++)
        if (l->at[i].seen && !l->at[i].kept && l->at[i].begin_ns <= at_ns &&
            l->at[i].end_ns > at_ns)
            there[n++] = &l->at[i];
    qsort(there, (size_t)n, sizeof *there, larger_first);
    json_key(j, "largest");
    json_begin_array(j);
    for (i64 i = 0; i < i64_min(n, LARGEST); i++) {
        json_begin_object(j);
        json_put_str(j, "name", t->tensors[there[i]->tensor].name);
        json_put_int(j, "layer", there[i]->layer);
        json_put_int(j, "bytes", there[i]->bytes);
        json_end(j);
    }
    json_end(j);
}

/* Points where the use changes; of those within a pixel's time the largest use stays. */
static void put_curve(const struct change *c, i64 n, i64 begin_ns, i64 end_ns, struct json *j,
                      i64 *peak, i64 *peak_ns, struct arena *a)
{
    i64 *times = ARENA_ARRAY(a, i64, MOST_POINTS + 2), *live = ARENA_ARRAY(a, i64, MOST_POINTS + 2);
    i64 now = 0, points = 0, least = i64_max(1, (end_ns - begin_ns) / (MOST_POINTS / 2));
    for (i64 i = 0; i < n; i++) {
        now += c[i].bytes;
        if (now > *peak) {
            *peak = now;
            *peak_ns = c[i].at_ns;
        }
        bool near = points > 0 && c[i].at_ns - begin_ns - times[points - 1] < least;
        if (near && (now > live[points - 1] || i + 1 == n))
            live[points - 1] = now;
        else if (!near && points <= MOST_POINTS)
            times[points] = c[i].at_ns - begin_ns, live[points++] = now;
    }
    json_key(j, "t");
    pack_deltas(j, times, points);
    json_key(j, "live");
    pack_deltas(j, live, points);
}

static void put_lives(const struct lives *l, const struct record_rank *rank, struct arena *a,
                      struct json *j)
{
    struct change *changes = ARENA_ARRAY(a, struct change, 2 * l->n);
    i64 n = 0, kept = 0, peak = 0, peak_ns = rank->begin_ns;
    for (i64 i = 0; i < l->n; i++) {
        const struct life *x = &l->at[i];
        if (x->seen && x->kept)
            kept += x->bytes;
        if (!x->seen || x->kept)
            continue;
        changes[n++] = (struct change){ x->begin_ns, x->bytes };
        changes[n++] = (struct change){ x->end_ns, -x->bytes };
    }
    qsort(changes, (size_t)n, sizeof *changes, by_time);
    json_begin_object(j);
    json_put_int(j, "rank", rank->head->rank);
    json_put_int(j, "kept", kept);
    put_curve(changes, n, rank->begin_ns, rank->end_ns, j, &peak, &peak_ns, a);
    json_put_int(j, "peak", peak);
    json_put_int(j, "peak_ns", peak_ns - rank->begin_ns);
    json_put_int(j, "length_ns", rank->end_ns - rank->begin_ns);
    put_largest(l, rank->table, peak_ns, a, j);
    if (rank->sample && rank->sample->has & SAMPLE_MEMORY)
        json_put_int(j, "resident", (i64)rank->sample->rss_bytes);
    json_end(j);
}

void step_memory_put(const struct record_rank *rank, struct json *j)
{
    struct arena a;
    struct lives l = { 0 };
    arena_init(&a);
    if (rank->head && rank->table && rank->n_spans > 0 && lives_init(&l, rank->table, &a)) {
        walk(&l, rank, &a);
        put_lives(&l, rank, &a, j);
    } else {
        json_nothing(j);
    }
    arena_fini(&a);
}
