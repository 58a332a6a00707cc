#include "diagnose/measure_record.h"

#include "base/err.h"
#include "base/sort.h"
#include "diagnose/each.h"
#include "graph/program.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_OPS = 256, KEPT = 512, SIZES = 64, MOST_LINKS = 4096, MOST_LOADS = 1 << 16 };

/* The newest KEPT of values, for medians. */
struct kept {
    double *x; /* [KEPT], made on the first value */
    i64 n;     /* ever */
};

static void keep(struct kept *k, double value, struct arena *a)
{
    if (!k->x)
        k->x = ARENA_ARRAY(a, double, KEPT);
    k->x[k->n++ % KEPT] = value;
}

static double middle(const struct kept *k)
{
    return k->x ? measure_quantile(k->x, i64_min(k->n, KEPT), 0.5) : NAN;
}

struct op_sum {
    struct measure_op op; /* sums, until it is settled */
    struct kept seconds;
};

/* How long a task of the program takes with no exchange under way, and with one. */
struct task_time {
    double alone_s, beside_s;
    i64 alone, beside;
};

struct table_time {
    const struct record_table *table;
    struct task_time *tasks;
    i32 *class; /* [n_tasks] index in ops */
};

struct lane_sum {
    struct measure_lane lane;
    struct kept seconds[SIZES]; /* of exchanges of one kind */
    double bytes[SIZES];        /* that a rank sends in one */
    int rounds[SIZES];
    i64 n_sizes;
    double members;
    double tasks; /* calls of different tasks, for turns */
};

struct link_sum {
    int a, b, lane;
    struct kept rate_s, rate_bytes;
};

struct gather {
    struct measure *m;
    struct record *r;
    struct arena *a;
    struct op_sum ops[MOST_OPS];
    i64 n_ops;
    struct table_time *tables;
    i64 n_tables, cap_tables;
    struct lane_sum lanes[LANE_COUNT];
    struct link_sum *links;
    i64 n_links, cap_links;
    double *came_last, *met; /* [ranks] */
    i64 *sampled;            /* [ranks] steps with a sample */
    double *covered_s;       /* [ranks] which these samples are about: more than a step each */
    double *empty;           /* [ranks] steps that found no data */
    double *looked_s, *away_s; /* [ranks] tasks that were looked at; of that, threads at work were not
                                * on a processor */
    double rank_steps;       /* that spans were there for */
};

static double s_of(i64 ns)
{
    return 1e-9 * (double)ns;
}

/* --- one rank's time -------------------------------------------------------------- */

enum share { IN_COMPUTE, IN_WAIT, IN_DATA, IN_MEET, IN_LOG, IN_EVAL, IN_CHECKPOINT, IN_NOTHING };

static enum share share_of(const struct record_span *s, const struct record_rank *k)
{
    bool inside = s->begin_ns >= k->begin_ns && s->end_ns <= k->end_ns;
    if (s->lane == TRACE_COMPUTE)
        return !inside ? IN_NOTHING : s->kind == SPAN_TASK ? IN_COMPUTE
                                    : s->kind == SPAN_WAIT ? IN_WAIT : IN_NOTHING;
    if (s->lane != TRACE_HOST)
        return IN_NOTHING;
    switch (s->kind) {
    case SPAN_LOAD_WAIT: return IN_DATA;
    case SPAN_MEET: return IN_MEET;
    case SPAN_LOG: return IN_LOG;
    case SPAN_EVAL: return IN_EVAL;
    case SPAN_CHECKPOINT: return IN_CHECKPOINT;
    default: return IN_NOTHING;
    }
}

static int by_begin(const void *a, const void *b)
{
    const struct record_span *x = *(const struct record_span *const *)a;
    const struct record_span *y = *(const struct record_span *const *)b;
    if (x->begin_ns != y->begin_ns)
        return x->begin_ns < y->begin_ns ? -1 : 1;
    return (x->end_ns < y->end_ns) - (x->end_ns > y->end_ns); /* what holds others first */
}

/* What the rank's own thread did, in order of time. */
static const struct record_span **own_spans(const struct record_step *s, int rank, i64 *n)
{
    const struct record_rank *k = &s->ranks[rank];
    const struct record_span **own =
        ARENA_ARRAY(s->arena, const struct record_span *, k->n_spans);
    *n = 0;
    for (i64 i = 0; i < k->n_spans; i++)
        if (share_of(&k->spans[i], k) != IN_NOTHING)
            own[(*n)++] = &k->spans[i];
    sort_runs(own, *n, (i64)sizeof *own, by_begin, s->arena);
    return own;
}

/* The exchange that a wait was for: the newest of that task that had begun. */
static const struct measure_call *call_of(const struct measure_calls *calls, int rank,
                                          const struct record_span *wait)
{
    i64 low = calls->first[rank], high = calls->first[rank + 1];
    const i64 least = low;
    while (low < high) {
        i64 mid = (low + high) / 2;
        if (calls->at[mid].begin <= wait->end_ns)
            low = mid + 1;
        else
            high = mid;
    }
    for (i64 i = low - 1; i >= least; i--)
        if (calls->at[i].task == wait->task_id)
            return &calls->at[i];
    return NULL;
}

/* The n-th meeting of every rank is the same one. */
struct meetings {
    i64 *come; /* when the last had come */
    int *last;
    i64 n;     /* 0: they cannot be told apart */
};

static struct meetings find_meetings(const struct record_step *s)
{
    struct meetings m = { NULL, NULL, -1 };
    for (int r = 0; r < s->n_ranks; r++) {
        const struct record_rank *k = &s->ranks[r];
        i64 n = 0;
        for (i64 i = 0; i < k->n_spans; i++)
            n += k->spans[i].kind == SPAN_MEET && k->spans[i].lane == TRACE_HOST;
        if (k->head)
            m.n = m.n < 0 || m.n == n ? n : 0;
    }
    m.n = i64_max(m.n, 0);
    m.come = ARENA_ARRAY(s->arena, i64, m.n);
    m.last = ARENA_ARRAY(s->arena, int, m.n);
    for (int r = 0; r < s->n_ranks; r++)
        for (i64 i = 0, at = 0; i < s->ranks[r].n_spans && at < m.n; i++) {
            const struct record_span *span = &s->ranks[r].spans[i];
            if (span->kind != SPAN_MEET || span->lane != TRACE_HOST)
                continue;
            if (m.come[at] == 0 || span->begin_ns > m.come[at]) {
                m.come[at] = span->begin_ns;
                m.last[at] = r;
            }
            at++;
        }
    return m;
}

/* Divides one span's time, from `begin` on, into waiting for ranks and for bytes. */
static void add_wait(struct measure_rank *out, i64 step, i64 begin, i64 end, i64 come)
{
    i64 until = i64_max(begin, i64_min(end, come));
    out->wait[step] += s_of(until - begin);
    out->transfer[step] += s_of(end - until);
}

static void add_exposed(struct gather *g, const struct record_span *s, i64 begin,
                        const struct measure_call *call, i64 backward_end)
{
    int lane = s->detail >= TRACE_CALLS ? (int)s->detail - TRACE_CALLS + 1 : 0;
    if (lane <= 0 || lane >= LANE_COUNT)
        return;
    struct measure_lane *l = &g->lanes[lane].lane;
    i64 come = call ? call->come : begin;
    l->exposed_s += s_of(s->end_ns - begin);
    l->wait_exposed_s += s_of(i64_max(0, i64_min(s->end_ns, come) - begin));
    if (begin >= backward_end)
        l->tail_s += s_of(s->end_ns - i64_max(begin, come < s->end_ns ? come : begin));
}

static i64 backward_end_of(const struct record_rank *k)
{
    i64 end = k->begin_ns;
    for (i64 i = 0; i < k->n_spans; i++) {
        const struct record_span *s = &k->spans[i];
        if (s->kind == SPAN_TASK && s->task && s->task->lane == LANE_COMPUTE &&
            (s->task->phase == PHASE_INPUT_GRAD || s->task->phase == PHASE_WEIGHT_GRAD))
            end = i64_max(end, s->end_ns);
    }
    return end;
}

/* The lane of a call that the rank began between `from` and `to`, which is when the task behind where
 * it began it had ended; 0: none. *at moves along with tasks in order of time. */
static int begun_between(const struct measure_calls *c, int rank, i64 from, i64 to, i64 *at)
{
    while (*at < c->first[rank + 1] && c->at[*at].begin < from)
        ++*at;
    return *at < c->first[rank + 1] && c->at[*at].begin < to ? c->at[*at].lane : 0;
}

static void divide(struct gather *g, i64 step, const struct record_step *s, int rank,
                   const struct measure_calls *calls, const struct meetings *met)
{
    const struct record_rank *k = &s->ranks[rank];
    struct measure_rank *out = &g->m->ranks[rank];
    i64 n, cursor = k->window_begin_ns, meeting = 0, backward_end = backward_end_of(k);
    i64 at = calls->first[rank];
    const struct record_span **own = own_spans(s, rank, &n);
    for (i64 i = 0; i < n; i++) {
        enum share what = share_of(own[i], k);
        i64 begin = i64_max(own[i]->begin_ns, cursor), end = own[i]->end_ns;
        i64 come = what == IN_MEET && meeting < met->n ? met->come[meeting] : end;
        meeting += what == IN_MEET;
        if (end <= begin)
            continue;
        out->gap[HOST_GAP][step] += s_of(i64_max(0, begin - cursor));
        g->lanes[begun_between(calls, rank, cursor, end, &at)].lane.begin_s +=
            s_of(i64_max(0, begin - cursor));
        cursor = end;
        if (what == IN_COMPUTE)
            out->compute[step] += s_of(end - begin);
        else if (what == IN_DATA)
            out->data[step] += s_of(end - begin);
        else if (what == IN_MEET)
            add_wait(out, step, begin, end, come);
        else if (what == IN_WAIT) {
            const struct measure_call *c = call_of(calls, rank, own[i]);
            add_wait(out, step, begin, end, c ? c->come : begin);
            add_exposed(g, own[i], begin, c, backward_end);
        } else
            out->gap[what == IN_LOG ? HOST_LOG : what == IN_EVAL ? HOST_EVAL : HOST_CHECKPOINT]
                    [step] += s_of(end - begin);
    }
    out->gap[HOST_GAP][step] += s_of(i64_max(0, k->window_end_ns - cursor));
    out->step[step] = s_of(k->window_end_ns - k->window_begin_ns);
}

/* --- tasks ------------------------------------------------------------------------ */

static i32 class_of(struct gather *g, const struct record_task *t)
{
    bool again = (t->flags & RECORD_RECOMPUTE) != 0, watching = (t->flags & RECORD_WATCHES) != 0;
    for (i64 i = 0; i < g->n_ops; i++) {
        const struct measure_op *o = &g->ops[i].op;
        if (o->phase == t->phase && o->recompute == again && o->watching == watching &&
            o->dtype == t->dtype &&
            strncmp(o->name, t->op, MEASURE_NAME - 1) == 0)
            return (i32)i;
    }
    if (g->n_ops == MOST_OPS)
        return MOST_OPS - 1;
    struct measure_op *o = &g->ops[g->n_ops].op;
    *o = (struct measure_op){ .phase = t->phase, .dtype = t->dtype, .recompute = again,
                               .watching = watching };
    snprintf(o->name, sizeof o->name, "%s", t->op);
    return (i32)g->n_ops++;
}

static struct table_time *times_of_table(struct gather *g, const struct record_table *t)
{
    for (i64 i = 0; i < g->n_tables; i++)
        if (g->tables[i].table == t)
            return &g->tables[i];
    if (g->n_tables == g->cap_tables) {
        g->cap_tables = i64_max(16, 2 * g->cap_tables);
        struct table_time *grown = ARENA_ARRAY(g->a, struct table_time, g->cap_tables);
        if (g->n_tables > 0)
            memcpy(grown, g->tables, (size_t)g->n_tables * sizeof *grown);
        g->tables = grown;
    }
    struct table_time *x = &g->tables[g->n_tables++];
    x->table = t;
    x->tasks = ARENA_ARRAY(g->a, struct task_time, t->n_tasks);
    x->class = ARENA_ARRAY(g->a, i32, t->n_tasks);
    for (i64 i = 0; i < t->n_tasks; i++)
        x->class[i] = class_of(g, &t->tasks[i]);
    return x;
}

static double roofline(const struct measure *m, const struct record_task *t)
{
    double by_flops = t->flops / m->ceilings.used;
    double by_bytes = (t->read_bytes + t->written_bytes) / m->ceilings.memory_bytes_per_s;
    return fmax(isfinite(by_flops) ? by_flops : 0, isfinite(by_bytes) ? by_bytes : 0);
}

/* Nanoseconds of [begin, end) in which any exchange of the rank is under way; *at moves along with
 * tasks in order of time. */
static i64 beside(const struct measure_calls *c, int rank, i64 begin, i64 end, i64 *at)
{
    i64 covered = 0, cursor = begin;
    while (*at < c->first[rank + 1] && c->at[*at].end <= begin)
        ++*at;
    for (i64 i = *at; i < c->first[rank + 1] && c->at[i].begin < end; i++) {
        i64 b = i64_max(c->at[i].begin, cursor), e = i64_min(c->at[i].end, end);
        if (e > b) {
            covered += e - b;
            cursor = e;
        }
    }
    return covered;
}

/* Share of a task's time that its threads did not work for, on average, when it was looked at and
 * they were not kept from their processors. */
static double skew_of(const struct record_span *s)
{
    double balance = span_balance(s->detail), on_cpu = span_on_cpu(s->detail);
    return balance > 0 && !(on_cpu > 0 && on_cpu < 0.9) ? 1 - balance : 0;
}

static void add_task(struct gather *g, int rank, struct table_time *times,
                     const struct record_span *s, i64 covered)
{
    const struct record_task *t = s->task;
    struct op_sum *sum = &g->ops[times->class[s->task_id]];
    i64 took = s->end_ns - s->begin_ns;
    sum->op.calls++;
    sum->op.seconds += s_of(took);
    sum->op.flops += t->flops;
    sum->op.model_flops += t->model_flops;
    sum->op.bytes += t->read_bytes + t->written_bytes;
    sum->op.roofline_s += roofline(g->m, t);
    sum->op.skewed_s += s_of(took) * skew_of(s);
    if (span_on_cpu(s->detail) > 0) {
        g->looked_s[rank] += s_of(took);
        g->away_s[rank] += s_of(took) * (1 - span_on_cpu(s->detail));
    }
    keep(&sum->seconds, s_of(took), g->a);
    struct task_time *own = &times->tasks[s->task_id];
    if (covered == 0) {
        own->alone++;
        own->alone_s += s_of(took);
    } else if (10 * covered > 9 * took) {
        own->beside++;
        own->beside_s += s_of(took);
    }
}

/* As many as a queue's waits need: the first of a very long run stand for the rest. */
static i64 most_loads(i64 steps)
{
    return i64_min(2 * steps, MOST_LOADS);
}

static void add_tasks(struct gather *g, const struct record_step *s, int rank,
                      const struct measure_calls *calls)
{
    const struct record_rank *k = &s->ranks[rank];
    struct table_time *times = times_of_table(g, k->table);
    i64 at = calls->first[rank];
    for (i64 i = 0; i < k->n_spans; i++) {
        const struct record_span *span = &k->spans[i];
        if (span->kind == SPAN_TASK && span->lane == TRACE_COMPUTE && span->task &&
            share_of(span, k) == IN_COMPUTE && !(span->task->flags & RECORD_WAITS))
            add_task(g, rank, times, span,
                     beside(calls, rank, span->begin_ns, span->end_ns, &at));
        else if (span->lane == TRACE_LOADER && span->kind == SPAN_LOAD) {
            struct measure_rank *out = &g->m->ranks[rank];
            if (out->n_loads < most_loads(g->m->n_steps))
                out->load[out->n_loads++] = s_of(span->end_ns - span->begin_ns);
        }
    }
}

/* --- exchanges -------------------------------------------------------------------- */

static void keep_size(struct lane_sum *l, const struct measure_call *c, double seconds,
                      struct arena *a)
{
    i64 i = 0;
    while (i < l->n_sizes && (l->bytes[i] != c->moved || l->rounds[i] != c->rounds))
        i++;
    if (i == SIZES)
        return;
    if (i == l->n_sizes) {
        l->bytes[i] = c->moved;
        l->rounds[i] = c->rounds;
        l->n_sizes++;
    }
    keep(&l->seconds[i], seconds, a);
}

static void keep_link(struct gather *g, const struct measure_call *c, double seconds)
{
    int a = c->rank < c->peer ? c->rank : c->peer, b = c->rank < c->peer ? c->peer : c->rank;
    i64 i = 0;
    while (i < g->n_links && (g->links[i].a != a || g->links[i].b != b ||
                              g->links[i].lane != c->lane))
        i++;
    if (i == g->cap_links)
        return;
    if (i == g->n_links)
        g->links[g->n_links++] = (struct link_sum){ .a = a, .b = b, .lane = c->lane };
    keep(&g->links[i].rate_s, seconds, g->a);
    keep(&g->links[i].rate_bytes, c->moved, g->a);
}

static void add_calls(struct gather *g, const struct record_step *s,
                      const struct measure_calls *calls)
{
    bool *seen = NULL; /* tasks of this rank that have made a call */
    for (i64 i = 0; i < calls->n; i++) {
        const struct measure_call *c = &calls->at[i];
        struct lane_sum *l = &g->lanes[c->lane];
        i64 from = i64_max(c->begin, i64_min(c->come, c->end));
        double transfer = s_of(c->end - from), own = s_of(c->end - i64_min(c->free, c->end));
        l->lane.calls++;
        l->lane.bytes += c->bytes;
        l->lane.busy_s += s_of(c->end - c->begin);
        l->lane.wait_s += s_of(from - c->begin);
        l->lane.transfer_s += own;
        l->lane.wait_s += transfer - own;
        l->members += c->members;
        l->lane.rounds += c->rounds;
        l->lane.pieces += c->pieces;
        if (c->last >= 0) {
            g->met[c->rank]++;
            g->came_last[c->rank] += c->last == c->rank;
        }
        if (c->moved > 0 && (!c->move || c->bytes == 0)) { /* a send may end before it is taken */
            if (c->free == i64_max(c->begin, c->come)) /* nothing stood before it on the lane */
                keep_size(l, c, own, g->a);
            if (c->peer >= 0)
                keep_link(g, c, own);
        }
        if (i == calls->first[c->rank])
            seen = ARENA_ARRAY(s->arena, bool, s->ranks[c->rank].table->n_tasks);
        l->tasks += !seen[c->task];
        seen[c->task] = true;
    }
}

/* Computing of the passes that stands behind the first exchange of a lane. */
static void add_behind(struct gather *g, const struct record_step *s, int rank,
                       const struct measure_calls *calls)
{
    i64 first[LANE_COUNT];
    int lanes[LANE_COUNT], n = 0; /* that have calls, and when the first of them began */
    for (i64 i = calls->first[rank]; i < calls->first[rank + 1]; i++) {
        int k = 0;
        while (k < n && lanes[k] != calls->at[i].lane)
            k++;
        if (k < n)
            continue;
        lanes[n] = calls->at[i].lane;
        first[n++] = calls->at[i].begin;
    }
    for (i64 i = 0; i < s->ranks[rank].n_spans && n > 0; i++) {
        const struct record_span *span = &s->ranks[rank].spans[i];
        if (span->kind != SPAN_TASK || !span->task || span->task->phase == PHASE_UPDATE)
            continue;
        for (int k = 0; k < n; k++)
            if (span->begin_ns >= first[k])
                g->lanes[lanes[k]].lane.backward_s += s_of(span->end_ns - span->begin_ns);
    }
}

/* --- samples ---------------------------------------------------------------------- */

/* NaN is where nothing was added yet. */
static void add_number(double *sum, double value)
{
    *sum = isfinite(*sum) ? *sum + value : value;
}

static void add_clock(struct measure_rank *k, const struct sample *x)
{
    if (x->has & SAMPLE_CLOCK)
        add_number(&k->clock, x->phi);
}

static void add_processor(struct measure_rank *k, const struct sample *x)
{
    double others = x->threads > 1 ? (double)(x->threads - 1) : 1;
    double run = (double)(x->run_ns + x->pool_run_ns);
    double queue = (double)(x->queue_ns + x->pool_queue_ns);
    if (x->has & SAMPLE_SCHED) {
        add_number(&k->run_queue_s, 1e-9 * (double)x->queue_ns);
        add_number(&k->pool_queue_s, 1e-9 * (double)x->pool_queue_ns / others);
        add_number(&k->on_cpu, run + queue > 0 ? run / (run + queue) : 1);
    }
    if (x->has & SAMPLE_THROTTLE) {
        add_number(&k->throttles, (double)x->throttled);
        add_number(&k->throttled_s, 1e-9 * (double)x->throttled_ns);
    }
    if (x->has & SAMPLE_STEAL)
        add_number(&k->steal_s, 1e-9 * (double)x->steal_ns / fmax(1, (double)x->processors));
}

static void add_memory(struct measure_rank *k, const struct sample *x)
{
    if (x->has & SAMPLE_USAGE) {
        add_number(&k->minor_faults, (double)x->minor_faults);
        add_number(&k->major_faults, (double)x->major_faults);
        add_number(&k->system_s, 1e-9 * (double)x->system_ns);
        add_number(&k->switches, (double)x->involuntary);
    }
    if ((x->has & SAMPLE_PRESSURE) && x->covers_ns > 0) {
        add_number(&k->memory_stall, (double)x->memory_pressure_ns / (double)x->covers_ns);
        add_number(&k->io_stall, (double)x->io_pressure_ns / (double)x->covers_ns);
    }
    if (x->has & SAMPLE_MEMORY) {
        add_number(&k->rss_bytes, (double)x->rss_bytes);
        add_number(&k->limit_bytes, (double)x->limit_bytes);
    }
}

static void add_sample(struct gather *g, i64 step, int rank, const struct record_rank *from)
{
    const struct sample *x = from->sample;
    struct measure_rank *k = &g->m->ranks[rank];
    double waited = k->data[step];
    g->empty[rank] += waited > 0.01 * k->step[step];
    if (!x)
        return;
    g->sampled[rank]++;
    g->covered_s[rank] += 1e-9 * (double)x->covers_ns;
    add_clock(k, x);
    if (!record_sleeps(from->head))
        add_processor(k, x);
    add_memory(k, x);
    if (x->has & SAMPLE_LOADER) {
        add_number(&k->read_bytes, (double)x->loader_read_bytes);
        add_number(&k->used_bytes, (double)x->loader_used_bytes);
        add_number(&k->load_cpu_s, 1e-9 * (double)x->loader_cpu_ns);
        add_number(&k->load_cpu, x->loader_busy_ns > 0
                              ? (double)x->loader_cpu_ns / (double)x->loader_busy_ns : 1);
        g->m->config.loader_threads = i64_max(g->m->config.loader_threads, x->loader_threads);
    }
    if (x->has & SAMPLE_ROWS) {
        if (!k->work)
            k->work = ARENA_ARRAY(g->a, double, g->m->n_steps);
        k->work[step] = x->attended;
        if (x->tokens > 0)
            add_number(&g->m->padding, (double)x->tokens_idle / (double)x->tokens);
    }
}

static void divide_all(double **sums, i64 n, double by)
{
    for (i64 i = 0; i < n && by > 0; i++)
        *sums[i] /= by;
}

/* A sample is rarer than a step where steps are short: what it counted is of all since the last. */
static void settle_samples(struct gather *g)
{
    double all = 0, step_s = measure_stat(g->m->seconds, g->m->n_steps).mean;
    for (i64 r = 0; r < g->m->n_ranks; r++) {
        struct measure_rank *k = &g->m->ranks[r];
        double *counts[] = { &k->run_queue_s, &k->pool_queue_s, &k->throttles, &k->throttled_s, &k->steal_s,
            &k->minor_faults, &k->major_faults, &k->system_s, &k->switches, &k->read_bytes,
            &k->used_bytes, &k->load_cpu_s };
        double *shares[] = { &k->on_cpu, &k->clock, &k->memory_stall, &k->io_stall, &k->rss_bytes,
                             &k->limit_bytes, &k->load_cpu };
        double samples = (double)g->sampled[r], steps = g->covered_s[r] / step_s;
        divide_all(counts, COUNT_OF(counts), steps > samples ? steps : samples);
        divide_all(shares, COUNT_OF(shares), samples);
        double away = g->looked_s[r] > 0 ? g->away_s[r] / g->looked_s[r] : NAN;
        k->run_queue_s = fmax(k->run_queue_s, /* fmin: NaN does not limit */
                              fmin(k->pool_queue_s, away * measure_mean(g->m, k->compute)));
        all += (double)g->sampled[r];
        k->queue_empty = g->m->n_steps > 0 ? g->empty[r] / (double)g->m->n_steps : NAN;
        k->last_share = g->met[r] > 0 ? g->came_last[r] / g->met[r] : NAN;
    }
    g->m->padding /= all;
}

/* --- all of it -------------------------------------------------------------------- */

static void blank_step(struct measure_rank *k, i64 step)
{
    k->step[step] = k->compute[step] = k->data[step] = k->wait[step] = k->transfer[step] = NAN;
    for (int i = 0; i < HOST_KINDS; i++)
        k->gap[i][step] = NAN;
}

/* What of a step needs no other: made on any thread. */
struct ready {
    struct measure_calls calls;
    struct meetings met;
};

static void *make_ready(void *context, const struct record_step *s)
{
    struct ready *x = ARENA_NEW(s->arena, struct ready);
    (void)context;
    x->met = find_meetings(s);
    measure_match_calls(s, &x->calls, s->arena);
    return x;
}

static void add_step(struct gather *g, i64 step, const struct record_step *s,
                     const struct ready *ready)
{
    struct measure *m = g->m;
    const struct measure_calls calls = ready->calls;
    const struct meetings met = ready->met;
    double sum = 0, n = 0;
    add_calls(g, s, &calls);
    for (int r = 0; r < m->n_ranks; r++) {
        if (r >= s->n_ranks || !s->ranks[r].head) {
            blank_step(&m->ranks[r], step);
            continue;
        }
        divide(g, step, s, r, &calls, &met);
        add_tasks(g, s, r, &calls);
        add_behind(g, s, r, &calls);
        add_sample(g, step, r, &s->ranks[r]);
        for (i64 i = 0; i < met.n; i++) {
            g->met[r]++;
            g->came_last[r] += met.last[i] == r;
        }
        sum += m->ranks[r].step[step];
        n++;
    }
    m->numbers[step] = s->step;
    m->seconds[step] = sum / n;
    g->rank_steps += n;
}

static void settle_ops(struct gather *g)
{
    struct measure *m = g->m;
    for (i64 t = 0; t < g->n_tables; t++)
        for (i64 i = 0; i < g->tables[t].table->n_tasks; i++) {
            const struct task_time *x = &g->tables[t].tasks[i];
            struct measure_op *o = &g->ops[g->tables[t].class[i]].op;
            if (x->alone < 3 || x->beside < 3)
                continue;
            o->alone_calls += (double)x->alone;
            o->beside_calls += (double)x->beside;
            o->alone_s += (double)x->beside * x->alone_s / (double)x->alone;
            o->beside_s += x->beside_s;
        }
    m->n_ops = 0;
    m->ops = ARENA_ARRAY(g->a, struct measure_op, g->n_ops);
    for (i64 i = 0; i < g->n_ops; i++) {
        struct measure_op o = g->ops[i].op;
        double *sums[] = { &o.calls, &o.seconds, &o.flops, &o.model_flops, &o.bytes, &o.roofline_s,
                           &o.alone_calls, &o.skewed_s };
        if (o.calls == 0)
            continue;
        if (o.beside_calls > 0) {
            o.alone_s /= o.beside_calls;
            o.beside_s /= o.beside_calls;
            o.beside_calls /= g->rank_steps;
        }
        for (i64 k = 0; k < COUNT_OF(sums); k++)
            *sums[k] /= g->rank_steps;
        o.median_s = middle(&g->ops[i].seconds);
        m->ops[m->n_ops++] = o;
    }
}

/* Sizes that differ by less tell nothing of what a byte costs. */
static const double least_range = 1.5;
/* What is so many times the other, before the run, is what an exchange consists of. */
static const double dominates = 10;

/* Where sizes are too alike for a line: what came on top is latency where messages are small, bytes
 * where they are large, and neither is claimed between. */
static struct measure_line guess_line(const double *x, const double *y, i64 n, double latency,
                                      double slowness)
{
    struct measure_line line = { NAN, NAN, n };
    double size = measure_quantile(x, n, 0.5), extra = measure_quantile(y, n, 0.5);
    if (slowness * size <= latency) {
        line.a = extra;
    } else if (slowness * size >= dominates * latency) {
        line.b = extra / size;
    }
    return line;
}

/* What an exchange takes beyond what its messages took before the run, as a delay and a slowness
 * of bytes: latency = rounds x link's + delay, 1 / bandwidth = 1 / link's + slowness. Without a
 * probe, all that it takes. */
static void fit_lane(const struct measure_config *c, const struct lane_sum *sum,
                     struct measure_lane *l)
{
    double x[SIZES], y[SIZES], rounds = l->rounds;
    bool based = isfinite(c->link_latency_s) && c->link_bytes_per_s > 0;
    double latency = based ? c->link_latency_s : 0, slowness = based ? 1 / c->link_bytes_per_s : 0;
    for (i64 i = 0; i < sum->n_sizes; i++) {
        x[i] = sum->bytes[i];
        y[i] = middle(&sum->seconds[i]) - sum->rounds[i] * latency - slowness * x[i];
    }
    struct measure_line line = { NAN, NAN, 0 };
    if (measure_quantile(x, sum->n_sizes, 1) >= least_range * measure_quantile(x, sum->n_sizes, 0))
        line = measure_line(x, y, sum->n_sizes);
    else if (based)
        line = guess_line(x, y, sum->n_sizes, rounds * latency, slowness);
    /* Of one size each, pieces are the more the more bytes there are: where beginning one takes longer
     * than its bytes, before the run, what comes on top with the bytes is of the pieces. */
    double each = l->bytes / l->calls / l->pieces;
    if (based && l->pieces >= 2 && line.b > 0 && slowness * each < rounds / l->pieces * latency) {
        line.a = (isfinite(line.a) ? line.a : 0) + line.b * l->bytes / l->calls;
        line.b = 0;
    }
    l->latency_s = isfinite(line.a) ? fmax(0, rounds * latency + line.a) : NAN;
    l->bytes_per_s = isfinite(line.b) ? 1 / fmax(slowness + line.b, 0.1 * slowness + 1e-15) : NAN;
    l->base_latency_s = based ? rounds * latency : NAN;
    l->base_bytes_per_s = based ? c->link_bytes_per_s : NAN;
}

static void settle_lanes(struct gather *g)
{
    static const char *const names[LANE_COUNT] = { "compute", "tp", "cp", "dp", "shard", "copies",
        "pp", "tie", "ep", "edp", "islands", "away" };
    struct measure *m = g->m;
    m->lanes = ARENA_ARRAY(g->a, struct measure_lane, LANE_COUNT);
    for (int lane = 0; lane < LANE_COUNT; lane++) {
        struct lane_sum *sum = &g->lanes[lane];
        struct measure_lane l = sum->lane;
        if (l.calls == 0)
            continue;
        l.lane = lane;
        snprintf(l.axis, sizeof l.axis, "%s", names[lane]);
        l.members = (i64)(sum->members / l.calls + 0.5);
        l.rounds /= l.calls;
        l.pieces /= l.calls;
        l.turns = sum->tasks > 0 ? l.calls / sum->tasks : NAN;
        fit_lane(&m->config, sum, &l);
        double *sums[] = { &l.calls, &l.bytes, &l.busy_s, &l.wait_s, &l.transfer_s, &l.exposed_s,
                           &l.wait_exposed_s, &l.backward_s, &l.tail_s, &l.begin_s };
        for (i64 k = 0; k < COUNT_OF(sums); k++)
            *sums[k] /= g->rank_steps;
        m->lanes[m->n_lanes++] = l;
    }
}

/* The links of the lane that has most of them. */
static void settle_links(struct gather *g)
{
    struct measure *m = g->m;
    i64 count[LANE_COUNT] = { 0 };
    int lane = 0;
    for (i64 i = 0; i < g->n_links; i++)
        count[g->links[i].lane]++;
    for (int k = 0; k < LANE_COUNT; k++)
        if (count[k] > count[lane])
            lane = k;
    m->links = ARENA_ARRAY(g->a, struct measure_link, g->n_links);
    for (i64 i = 0; i < g->n_links; i++)
        if (g->links[i].lane == lane)
            m->links[m->n_links++] = (struct measure_link){
                .a = g->links[i].a, .b = g->links[i].b, .latency_s = NAN, .base_bytes_per_s = NAN,
                .bytes_per_s = middle(&g->links[i].rate_bytes) / middle(&g->links[i].rate_s),
                .calls = (double)g->links[i].rate_s.n / (double)m->n_steps };
}

/* --- who and what ----------------------------------------------------------------- */

static void take_stages(struct measure *m)
{
    double n[COUNT_OF(m->stages)] = { 0 }, all = 0;
    for (i64 r = 0; r < m->n_ranks; r++) {
        int stage = m->ranks[r].stage;
        double mean = measure_mean(m, m->ranks[r].compute);
        if (!isfinite(mean) || stage >= COUNT_OF(m->stages))
            continue;
        m->stages[stage] += mean;
        n[stage]++;
        m->compute = isfinite(m->compute) ? m->compute + mean : mean;
        all++;
    }
    m->compute /= all;
    for (i64 p = 0; p < COUNT_OF(n); p++)
        if (n[p] > 0)
            m->stages[p] /= n[p];
}

static int by_seconds(const void *a, const void *b)
{
    const struct measure_op *x = a, *y = b;
    return (x->seconds < y->seconds) - (x->seconds > y->seconds);
}

static void settle_all(struct gather *g, const struct record_part *part)
{
    struct measure *m = g->m;
    settle_samples(g);
    settle_ops(g);
    settle_lanes(g);
    settle_links(g);
    take_stages(m);
    measure_memory(m, part);
    qsort(m->ops, (size_t)m->n_ops, sizeof *m->ops, by_seconds);
    measure_settle(m);
}

static struct gather *gather_new(struct record *r, const struct record_part *part,
                                 struct measure_chosen c, const char *folder, struct arena *a)
{
    const i64 ranks = part->ranks, steps = c.n;
    struct gather *g = ARENA_NEW(a, struct gather);
    g->m = measure_new(ranks, steps, a);
    g->r = r;
    g->a = a;
    g->cap_links = i64_min(MOST_LINKS, 4 * ranks);
    g->links = ARENA_ARRAY(a, struct link_sum, g->cap_links);
    g->came_last = ARENA_ARRAY(a, double, ranks);
    g->met = ARENA_ARRAY(a, double, ranks);
    g->empty = ARENA_ARRAY(a, double, ranks);
    g->looked_s = ARENA_ARRAY(a, double, ranks);
    g->away_s = ARENA_ARRAY(a, double, ranks);
    g->sampled = ARENA_ARRAY(a, i64, ranks);
    g->covered_s = ARENA_ARRAY(a, double, ranks);
    for (i64 k = 0; k < ranks; k++)
        g->m->ranks[k].load = ARENA_ARRAY(a, double, most_loads(steps));
    measure_heads(g->m, part);
    measure_config(g->m, folder, a);
    g->m->looked_first = steps > 0 ? r->steps[c.from] : 0;
    g->m->looked_last = steps > 0 ? r->steps[c.from + steps - 1] : -1;
    return g;
}

/* Whole steps suffice when there are so many; with fewer, those that lack ranks count too. */
enum { ENOUGH_WHOLE = 5 };

struct adding {
    struct gather *g;
    const struct record_part *part;
    bool any; /* those without all ranks too */
    i64 taken;
};

static int take_one(void *context, const struct record_step *s, void *made, int rc)
{
    struct adding *x = context;
    struct gather *g = x->g;
    if (rc == ERR_LIMIT)
        return rc;
    if (rc < 0 || s->n_ranks != x->part->ranks)
        return OK; /* a damaged step: the record says so */
    if ((s->missing > 0 || s->apart) && !x->any) {
        g->m->left_out++;
        return OK;
    }
    if (x->taken == 0) {
        g->m->first_step = s->step;
        measure_start(g->m, x->part, s);
    }
    g->m->missing = i64_max(g->m->missing, s->missing);
    g->m->apart |= s->apart;
    add_step(g, x->taken++, s, made);
    return OK;
}

static i64 whole_steps(const struct record *r, struct measure_chosen c,
                       const struct record_part *part)
{
    i64 n = 0;
    for (i64 i = c.from; i < c.from + c.n; i++)
        n += record_step_ranks(r, i) == part->ranks && !record_step_apart(r, i);
    return n;
}

/* Adds the chosen steps, but for those that were slowed on purpose. */
static int add_steps(struct gather *g, struct measure_chosen c, const struct record_part *part,
                     bool any)
{
    struct adding x = { g, part, any, 0 };
    const struct each e = { &x, make_ready, take_one };
    i64 *steps = ARENA_ARRAY(g->a, i64, c.n), n = 0;
    for (i64 i = 0; i < c.n; i++) {
        const i64 step = g->r->steps[c.from + i];
        if (!measure_probe(g->m, step) || !inject_probed(g->m->inject, (u64)step))
            steps[n++] = step;
    }
    TRY(each_step(g->r, steps, n, &e));
    g->m->n_steps = x.taken;
    return OK;
}

/* Whom a rank waited for cannot be said when some of them are not there. */
static void merge_waits(struct measure *m)
{
    m->n_lanes = m->n_links = 0;
    for (i64 r = 0; r < m->n_ranks; r++)
        for (i64 i = 0; i < m->n_steps; i++) {
            m->ranks[r].wait[i] += m->ranks[r].transfer[i];
            m->ranks[r].transfer[i] = NAN;
        }
}

int measure_record(struct measure **out, struct record *r, const char *folder,
                   const struct measure_range *range, struct arena *a)
{
    TRY(measure_check_range(r, range));
    struct measure_chosen c = measure_choose(r, range);
    const struct record_part *part = &r->parts[r->n_parts - 1];
    for (int i = 0; c.n > 0 && i < r->n_parts; i++)
        if (r->parts[i].last_step >= r->steps[c.from + c.n - 1])
            part = &r->parts[i];
    const bool any = whole_steps(r, c, part) < ENOUGH_WHOLE;
    struct gather *g = gather_new(r, part, c, folder, a);
    TRY(add_steps(g, c, part, any));
    if (g->m->n_steps < ENOUGH_WHOLE && g->m->left_out > 0) { /* damage that the index does not show */
        g = gather_new(r, part, c, folder, a);
        TRY(add_steps(g, c, part, true));
    }
    measure_failures(g->m, r);
    settle_all(g, part);
    if (!measure_whole(g->m))
        merge_waits(g->m);
    *out = g->m;
    return OK;
}
