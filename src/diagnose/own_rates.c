#include "diagnose/own_rates.h"

#include "base/err.h"
#include "diagnose/record.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SKIPPED_STEPS = 2, MOST_STEPS = 64 };

struct timed {
    const struct record_task *task;
    i64 step;
    u32 id;
    int rank, action, lane;
    double seconds;
};

struct reading {
    struct arena *arena;
    struct timed *timed;
    i64 n, capacity;
    double periods[MOST_STEPS], rests[MOST_STEPS]; /* of rank 0's steps; besides tasks and waits */
    i64 n_steps;
};

static void add_timed(struct reading *r, const struct timed *t)
{
    if (r->n == r->capacity) {
        i64 more = r->capacity ? 2 * r->capacity : 4096;
        struct timed *all = ARENA_ARRAY(r->arena, struct timed, more);
        if (r->n)
            memcpy(all, r->timed, (size_t)r->n * sizeof *all);
        r->timed = all;
        r->capacity = more;
    }
    r->timed[r->n++] = *t;
}

static double seconds_of(const struct record_span *s)
{
    return (double)(s->end_ns - s->begin_ns) * 1e-9;
}

static void read_rank(struct reading *r, const struct record_step *s, int rank)
{
    const struct record_rank *me = &s->ranks[rank];
    double busy = 0;
    if (!me->head || me->incomplete)
        return;
    for (i64 i = 0; i < me->n_spans; i++) {
        const struct record_span *span = &me->spans[i];
        bool compute = span->kind == SPAN_TASK && span->lane == TRACE_COMPUTE;
        if (span->kind == SPAN_WAIT || compute)
            busy += seconds_of(span);
        if (!span->task || (!compute && span->kind != SPAN_CALL))
            continue;
        struct timed t = { span->task, s->step, span->task_id, rank, span->action,
                           compute ? 0 : span->task->lane, seconds_of(span) };
        if (t.seconds > 0)
            add_timed(r, &t);
    }
    if (rank == 0) {
        r->periods[r->n_steps] = (double)(me->window_end_ns - me->window_begin_ns) * 1e-9;
        r->rests[r->n_steps] = r->periods[r->n_steps] - busy;
        r->n_steps++;
    }
}

/* --- medians -------------------------------------------------------------------------- */

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *x, i64 n)
{
    qsort(x, (size_t)n, sizeof *x, ascending);
    return n > 0 ? x[n / 2] : 0;
}

/* Exchanges of one step and action beside each other, the shortest first; then tasks. */
static int by_call(const void *a, const void *b)
{
    const struct timed *x = a, *y = b;
    if (x->lane != y->lane)
        return x->lane < y->lane ? -1 : 1;
    if (x->id != y->id)
        return x->id < y->id ? -1 : 1;
    if (x->lane == 0 && x->rank != y->rank)
        return x->rank < y->rank ? -1 : 1;
    if (x->lane != 0 && x->step != y->step)
        return x->step < y->step ? -1 : 1;
    if (x->lane != 0 && x->action != y->action)
        return x->action < y->action ? -1 : 1;
    return x->seconds < y->seconds ? -1 : x->seconds > y->seconds;
}

static bool same_call(const struct timed *x, const struct timed *y)
{
    return x->lane != 0 && x->lane == y->lane && x->id == y->id && x->step == y->step &&
           x->action == y->action;
}

static bool same_task(const struct timed *x, const struct timed *y)
{
    return x->lane == y->lane && x->id == y->id && (x->lane != 0 || x->rank == y->rank);
}

static i64 shortest_calls(struct reading *r)
{
    i64 kept = 0;
    qsort(r->timed, (size_t)r->n, sizeof *r->timed, by_call);
    for (i64 i = 0; i < r->n; i++)
        if (kept == 0 || !same_call(&r->timed[kept - 1], &r->timed[i]))
            r->timed[kept++] = r->timed[i];
    return kept;
}

/* One sample for each task of each rank, or of each exchange. */
static i64 make_samples(struct reading *r, struct plan_sample *out)
{
    double *x = ARENA_ARRAY(r->arena, double, r->n + 1);
    i64 n = 0;
    for (i64 i = 0, end; i < r->n; i = end) {
        const struct timed *t = &r->timed[i];
        for (end = i; end < r->n && same_task(t, &r->timed[end]); end++)
            x[end - i] = r->timed[end].seconds;
        double middle = median(x, end - i);
        out[n++] = (struct plan_sample){
            .name = t->lane ? arena_printf(r->arena, "lane.%d", t->lane) : t->task->op,
            .flops = t->lane ? 0 : t->task->flops,
            .bytes = t->lane ? t->task->message_bytes
                             : t->task->read_bytes + t->task->written_bytes,
            .seconds = middle, .weight = middle * (double)(end - i),
        };
    }
    return n;
}

/* --- a run ---------------------------------------------------------------------------- */

static void describe(struct plan_rates *out, const struct record *record, struct arena *a)
{
    const struct record_part *part = &record->parts[record->n_parts - 1];
    for (int i = 0; i < part->ranks; i++) {
        const struct record_head *h = part->heads[i];
        if (!h)
            continue;
        *out = (struct plan_rates){
            .processor = arena_strdup(a, h->processor ? h->processor : "unknown"),
            .backend = arena_strdup(a, h->backend ? h->backend : "unknown"),
            .precision = arena_strdup(a, h->precision ? h->precision : "fp32"),
            .threads = h->threads, .ranks = part->ranks,
        };
        return;
    }
}

static int read_steps(struct reading *r, struct record *record)
{
    struct record_step s = { 0 };
    i64 first = i64_max(SKIPPED_STEPS, record->n_steps - MOST_STEPS);
    int rc = OK;
    for (i64 i = first; i < record->n_steps && rc >= 0; i++) {
        rc = record_step(record, record->steps[i], &s);
        for (int k = 0; rc >= 0 && k < s.n_ranks; k++)
            read_rank(r, &s, k);
    }
    /* Tasks that samples name belong to the record, which is still open. */
    record_step_free(&s);
    return rc;
}

static int read_run(struct plan_rates *out, struct record *record, const char *folder,
                    double *step_seconds, struct arena *a)
{
    struct reading *r = ARENA_NEW(a, struct reading);
    r->arena = a;
    if (record->n_parts == 0 || record->n_steps <= SKIPPED_STEPS)
        return err_set(ERR_CONFIG, "%s has %lld recorded steps; at least %d are needed", folder,
                       (long long)record->n_steps, SKIPPED_STEPS + 1);
    describe(out, record, a);
    TRY(read_steps(r, record));
    r->n = shortest_calls(r);
    struct plan_sample *samples = ARENA_ARRAY(a, struct plan_sample, r->n + 1);
    i64 n = make_samples(r, samples);
    for (i64 i = 0; i < n; i++)
        samples[i].name = arena_strdup(a, samples[i].name);
    TRY(plan_rates_fit(out, samples, n, a));
    out->step_s = median(r->rests, r->n_steps);
    if (step_seconds)
        *step_seconds = median(r->periods, r->n_steps);
    return OK;
}

int own_rates_read(struct plan_rates *out, const char *folder, double *step_seconds,
                   struct arena *a)
{
    struct record record;
    TRY(record_open(&record, folder));
    int rc = read_run(out, &record, folder, step_seconds, a);
    record_close(&record);
    return rc;
}
