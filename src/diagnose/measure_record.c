#include "diagnose/measure_record.h"

#include "base/err.h"
#include "base/sort.h"
#include "diagnose/each.h"
#include "diagnose/measure_gather.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
        ARENA_UNSET(s->arena, const struct record_span *, k->n_spans);
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

/* The lane of a call that the rank began between `from` and `to`, which is when the task behind
 * where it began it had ended; 0: none. *at moves along with tasks in order of time. */
static int begun_between(const struct measure_calls *c, int rank, i64 from, i64 to, i64 *at)
{
    while (*at < c->first[rank + 1] && c->at[*at].begin < from)
        ++*at;
    return *at < c->first[rank + 1] && c->at[*at].begin < to ? c->at[*at].lane : 0;
}

/* What a rank's own thread did, and when it was through with its backward pass. */
struct own {
    const struct record_span **spans;
    i64 n, backward_end;
};

static void divide(struct gather *g, i64 step, const struct record_step *s, int rank,
                   const struct own *own, const struct measure_calls *calls,
                   const struct meetings *met)
{
    const struct record_rank *k = &s->ranks[rank];
    struct measure_rank *out = &g->m->ranks[rank];
    i64 cursor = k->window_begin_ns, meeting = 0;
    i64 at = calls->first[rank];
    for (i64 i = 0; i < own->n; i++) {
        const struct record_span *span = own->spans[i];
        enum share what = share_of(span, k);
        i64 begin = i64_max(span->begin_ns, cursor), end = span->end_ns;
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
            const struct measure_call *c = call_of(calls, rank, span);
            add_wait(out, step, begin, end, c ? c->come : begin);
            add_exposed(g, span, begin, c, own->backward_end);
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

static double roofline(const struct measure *m, const struct record_task *t)
{
    double by_flops = t->flops / m->ceilings.used;
    double by_bytes = (t->read_bytes + t->written_bytes) / m->ceilings.memory_bytes_per_s;
    return fmax(isfinite(by_flops) ? by_flops : 0, isfinite(by_bytes) ? by_bytes : 0);
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
    x->like = ARENA_ARRAY(g->a, i32, t->n_tasks);
    x->roofline_s = ARENA_ARRAY(g->a, double, t->n_tasks);
    for (i64 i = 0; i < t->n_tasks; i++) {
        x->class[i] = class_of(g, &t->tasks[i]);
        x->like[i] = gather_like(g, x->class[i], &t->tasks[i]);
        x->roofline_s[i] = roofline(g->m, &t->tasks[i]);
    }
    return x;
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
    sum->op.roofline_s += times->roofline_s[s->task_id];
    g->m->ranks[rank].roofline_s += times->roofline_s[s->task_id];
    sum->op.skewed_s += s_of(took) * skew_of(s);
    if (span_on_cpu(s->detail) > 0) {
        g->looked_s[rank] += s_of(took);
        g->away_s[rank] += s_of(took) * (1 - span_on_cpu(s->detail));
    }
    keep(&sum->seconds, s_of(took), g->a);
    if (g->m->config.pp > 1)
        gather_add_like(g, rank, times->like[s->task_id], s_of(took));
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
            if (out->n_loads == 0)
                out->load_step = span->step;
            if (out->n_loads < most_loads(g->m->n_steps))
                out->load[out->n_loads++] = s_of(span->end_ns - span->begin_ns);
        }
    }
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
    struct own *own; /* [ranks] */
};

static void *make_ready(void *context, const struct record_step *s)
{
    struct ready *x = ARENA_NEW(s->arena, struct ready);
    (void)context;
    x->met = find_meetings(s);
    measure_match_calls(s, &x->calls, s->arena);
    x->own = ARENA_ARRAY(s->arena, struct own, s->n_ranks);
    for (int r = 0; r < s->n_ranks; r++)
        if (s->ranks[r].head) {
            x->own[r].spans = own_spans(s, r, &x->own[r].n);
            x->own[r].backward_end = backward_end_of(&s->ranks[r]);
        }
    return x;
}

static void add_step(struct gather *g, i64 step, const struct record_step *s,
                     const struct ready *ready)
{
    struct measure *m = g->m;
    const struct measure_calls calls = ready->calls;
    const struct meetings met = ready->met;
    double sum = 0, n = 0;
    gather_add_calls(g, s, &calls);
    for (int r = 0; r < m->n_ranks; r++) {
        if (r >= s->n_ranks || !s->ranks[r].head) {
            blank_step(&m->ranks[r], step);
            continue;
        }
        divide(g, step, s, r, &ready->own[r], &calls, &met);
        add_tasks(g, s, r, &calls);
        gather_add_behind(g, s, r, &calls);
        gather_add_sample(g, step, r, &s->ranks[r]);
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
    gather_settle_samples(g);
    settle_ops(g);
    gather_settle_exchanges(g);
    gather_settle_paces(g);
    take_stages(m);
    for (i64 r = 0; r < m->n_ranks && m->n_steps > 0; r++)
        m->ranks[r].roofline_s /= (double)m->n_steps;
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
    g->blamed_s = ARENA_ARRAY(a, double, ranks);
    g->met = ARENA_ARRAY(a, double, ranks);
    g->empty = ARENA_ARRAY(a, double, ranks);
    g->looked_s = ARENA_ARRAY(a, double, ranks);
    g->away_s = ARENA_ARRAY(a, double, ranks);
    g->sampled = ARENA_ARRAY(a, i64, ranks);
    g->like_times = ARENA_ARRAY(a, struct like_time *, ranks);
    g->clock = ARENA_ARRAY(a, struct kept, ranks);
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
