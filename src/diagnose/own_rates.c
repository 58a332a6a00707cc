#include "diagnose/own_rates.h"

#include "backend/cpu/linear.h"
#include "base/err.h"
#include "diagnose/record.h"
#include "ops/ops.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SKIPPED_STEPS = 2, MOST_STEPS = 64 };

struct timed {
    const struct record_task *task;
    const struct record_table *table;
    i64 step;
    u32 id;
    int rank, action, lane;
    double seconds;
};

struct reading {
    struct arena *arena;
    struct timed *timed;
    i64 n, capacity;
    struct { i64 step; double period, rest, wait; } steps[MOST_STEPS]; /* of rank 0: its length,
                                                   * what is no task nor wait, and waits for others */
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
    double busy = 0, meet = 0;
    if (!me->head || me->incomplete)
        return;
    for (i64 i = 0; i < me->n_spans; i++) {
        const struct record_span *span = &me->spans[i];
        bool compute = span->kind == SPAN_TASK && span->lane == TRACE_COMPUTE;
        if (span->kind == SPAN_WAIT || compute)
            busy += seconds_of(span);
        if (span->kind == SPAN_MEET && span->lane == TRACE_HOST)
            meet += seconds_of(span);
        if (!span->task || (!compute && span->kind != SPAN_CALL))
            continue;
        struct timed t = { span->task, me->table, s->step, span->task_id, rank, span->action,
                           compute ? 0 : span->task->lane, seconds_of(span) };
        if (t.seconds > 0)
            add_timed(r, &t);
    }
    if (rank == 0) {
        double period = (double)(me->window_end_ns - me->window_begin_ns) * 1e-9;
        r->steps[r->n_steps].step = s->step;
        r->steps[r->n_steps].period = period;
        r->steps[r->n_steps].rest = period - busy - meet;
        r->steps[r->n_steps++].wait = meet;
    }
}

/* --- the middle half ------------------------------------------------------------------ */

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Sorted lengths of its steps; [least, most]: the middle half. */
static double lengths_of(struct reading *r, double *least, double *most)
{
    double x[MOST_STEPS];
    i64 n = r->n_steps;
    *least = *most = 0;
    if (n == 0)
        return 0;
    for (i64 i = 0; i < n; i++)
        x[i] = r->steps[i].period;
    qsort(x, (size_t)n, sizeof *x, ascending);
    *least = x[n / 4];
    *most = x[n - 1 - n / 4];
    return x[n / 2];
}

static bool is_usual(const struct reading *r, i64 step, double least, double most)
{
    for (i64 i = 0; i < r->n_steps; i++)
        if (r->steps[i].step == step)
            return r->steps[i].period >= least && r->steps[i].period <= most;
    return false;
}

static void keep_usual(struct reading *r, struct own_run *out)
{
    double least, most, rest = 0, wait = 0, sum = 0;
    i64 kept = 0;
    out->seconds = lengths_of(r, &least, &most);
    for (i64 i = 0; i < r->n; i++)
        if (is_usual(r, r->timed[i].step, least, most))
            r->timed[kept++] = r->timed[i];
    r->n = kept;
    kept = 0;
    for (i64 i = 0; i < r->n_steps; i++) {
        if (r->steps[i].period < least || r->steps[i].period > most)
            continue;
        rest += r->steps[i].rest;
        wait += r->steps[i].wait;
        sum += r->steps[i].period;
        kept++;
    }
    out->about.step_s = kept ? rest / (double)kept : 0;
    out->about.waits = sum > wait ? wait / (sum - wait) : 0;
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

i64 own_product_columns(const struct record_table *table, const struct record_task *task)
{
    int first = task->conditional;
    bool product = !strcmp(task->op, op_linear.name) || !strcmp(task->op, op_linear_dx.name) ||
                   !strcmp(task->op, op_linear_dw.name);
    if (!product || task->n_reads <= first)
        return 0;
    double size = (double)dtype_bytes((enum dtype)task->dtype);
    double left = (double)table->tensors[task->reads[first]].bytes / size; /* M K of its elements */
    double N = left > 0 ? task->model_flops / 2 / left : 0;
    return N >= 1 && N == floor(N) ? (i64)N : 0;
}

static double flops_of(const struct timed *t, const struct plan_rates *r)
{
    i64 N = t->lane ? 0 : own_product_columns(t->table, t->task);
    return t->lane ? 0 : plan_tile_flops(t->task->flops, N, r->columns, r->cut);
}

/* One sample for each task of each rank, or of each exchange. */
static i64 make_samples(struct reading *r, struct plan_sample *out,
                        const struct plan_rates *about)
{
    i64 n = 0;
    for (i64 i = 0, end; i < r->n; i = end) {
        const struct timed *t = &r->timed[i];
        double sum = 0;
        for (end = i; end < r->n && same_task(t, &r->timed[end]); end++)
            sum += r->timed[end].seconds;
        out[n++] = (struct plan_sample){
            .name = t->lane ? arena_printf(r->arena, "lane.%d", t->lane) : t->task->op,
            .flops = flops_of(t, about),
            .bytes = t->lane ? t->task->message_bytes
                             : t->task->read_bytes + t->task->written_bytes,
            .seconds = sum / (double)(end - i), .weight = sum,
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
            .columns = linear_tile_columns(h->backend), .cut = linear_cut_columns(h->backend),
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

static int read_run(struct own_run *out, struct record *record, const char *folder,
                    struct arena *a)
{
    struct reading *r = ARENA_NEW(a, struct reading);
    *r = (struct reading){ .arena = a };
    if (record->n_parts == 0 || record->n_steps <= SKIPPED_STEPS)
        return err_set(ERR_CONFIG, "%s has %lld recorded steps; at least %d are needed", folder,
                       (long long)record->n_steps, SKIPPED_STEPS + 1);
    describe(&out->about, record, a);
    TRY(read_steps(r, record));
    keep_usual(r, out);
    if (r->n > 0)
        r->n = shortest_calls(r);
    out->samples = ARENA_ARRAY(a, struct plan_sample, r->n + 1);
    out->n = make_samples(r, out->samples, &out->about);
    for (i64 i = 0; i < out->n; i++)
        out->samples[i].name = arena_strdup(a, out->samples[i].name);
    return OK;
}

int own_run_read(struct own_run *out, const char *folder, struct arena *a)
{
    struct record record;
    *out = (struct own_run){ .n = 0 };
    TRY(record_open(&record, folder));
    int rc = read_run(out, &record, folder, a);
    record_close(&record);
    return rc;
}

bool own_runs_alike(const struct own_run *x, const struct own_run *y)
{
    return x->about.threads == y->about.threads && x->about.ranks == y->about.ranks &&
           !strcmp(x->about.precision, y->about.precision) &&
           !strcmp(x->about.backend, y->about.backend);
}

/* The middle one of those above 0, or the mean of two. */
static double middle_of(double *x, i64 n)
{
    i64 kept = 0;
    for (i64 i = 0; i < n; i++)
        if (x[i] > 0)
            x[kept++] = x[i];
    if (kept == 0)
        return 0;
    qsort(x, (size_t)kept, sizeof *x, ascending);
    return 0.5 * (x[(kept - 1) / 2] + x[kept / 2]);
}

/* Of each op the middle of what the runs say: one that was disturbed moves it little. */
static void take_levels(struct plan_rates *out, const struct own_run *const *runs, i64 n,
                        double *levels, struct arena *a)
{
    double *all = ARENA_ARRAY(a, double, n * RATES_MOST), *x = ARENA_ARRAY(a, double, n);
    for (i64 i = 0; i < n; i++)
        plan_rates_levels(out, runs[i]->samples, runs[i]->n, all + i * RATES_MOST);
    for (i64 k = 0; k < out->n; k++) {
        for (i64 i = 0; i < n; i++)
            x[i] = all[i * RATES_MOST + k];
        levels[k] = middle_of(x, n);
    }
    for (i64 i = 0; i < n; i++)
        x[i] = runs[i]->about.step_s;
    out->step_s = middle_of(x, n);
    for (i64 i = 0; i < n; i++)
        x[i] = runs[i]->about.waits;
    out->waits = middle_of(x, n);
}

int own_rates_fit(struct plan_rates *out, const struct own_run *const *runs, i64 n,
                  const struct plan_rates *shape, struct arena *a)
{
    double levels[RATES_MOST];
    i64 all = 0;
    for (i64 i = 0; i < n; i++)
        all += runs[i]->n;
    struct plan_sample *samples = ARENA_ARRAY(a, struct plan_sample, all + 1);
    all = 0;
    for (i64 i = 0; i < n; i++)
        for (i64 k = 0; k < runs[i]->n; k++)
            samples[all++] = runs[i]->samples[k];
    *out = runs[0]->about;
    TRY(plan_rates_fit(out, samples, all, a));
    if (shape)
        plan_rates_grow(out, shape);
    take_levels(out, runs, n, levels, a);
    plan_rates_scale(out, levels, samples, all);
    return OK;
}
