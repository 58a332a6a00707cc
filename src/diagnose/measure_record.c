#include "diagnose/measure_record.h"

#include "base/err.h"
#include "base/sort.h"
#include "diagnose/each.h"
#include "diagnose/measure_ready.h"
#include "diagnose/split.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
    x->costs = ARENA_ARRAY(g->a, struct task_cost, t->n_tasks);
    for (i64 i = 0; i < t->n_tasks; i++) {
        const struct record_task *k = &t->tasks[i];
        const i32 class = class_of(g, k);
        x->costs[i] = (struct task_cost){
            .flops = k->flops, .model_flops = k->model_flops,
            .bytes = k->read_bytes + k->written_bytes, .roofline_s = roofline(g->m, k),
            .class = class, .like = gather_like(g, class, k) };
    }
    return x;
}

/* Share of a task's time that its threads did not work for, on average, when it was looked at and
 * they were not kept from their processors. */
static double skew_of(u32 detail)
{
    double balance = span_balance(detail), on_cpu = span_on_cpu(detail);
    return balance > 0 && !(on_cpu > 0 && on_cpu < 0.9) ? 1 - balance : 0;
}

/* Returns what it takes at the machine's ceilings. */
static inline double add_task(struct gather *g, int rank, const struct table_time *times,
                              const struct ready_task *t)
{
    const struct task_cost *cost = &times->costs[t->task];
    struct op_sum *sum = &g->ops[cost->class];
    sum->op.calls++;
    sum->op.seconds += t->seconds;
    sum->op.flops += cost->flops;
    sum->op.model_flops += cost->model_flops;
    sum->op.bytes += cost->bytes;
    sum->op.roofline_s += cost->roofline_s;
    if (t->detail != 0) { /* it was looked at */
        const double on_cpu = span_on_cpu(t->detail);
        sum->op.skewed_s += t->seconds * skew_of(t->detail);
        if (on_cpu > 0) {
            g->looked_s[rank] += t->seconds;
            g->away_s[rank] += t->seconds * (1 - on_cpu);
        }
    }
    keep(&sum->seconds, t->seconds, g->a);
    if (g->m->config.pp > 1)
        gather_add_like(g, rank, cost->like, t->seconds);
    struct task_time *own = &times->tasks[t->task];
    own->alone += t->alone;
    own->beside += t->beside;
    if (t->alone)
        own->alone_s += t->seconds;
    else if (t->beside)
        own->beside_s += t->seconds;
    return cost->roofline_s;
}

static void add_tasks(struct gather *g, int rank, const struct table_time *times,
                      const struct ready_rank *ready)
{
    double roofline_s = g->m->ranks[rank].roofline_s; /* a sum in memory waits for its last store */
    for (i64 i = 0; i < ready->n_tasks; i++)
        roofline_s += add_task(g, rank, times, &ready->tasks[i]);
    g->m->ranks[rank].roofline_s = roofline_s;
}

/* As many as a queue's waits need: the first of a very long run stand for the rest. */
static i64 most_loads(i64 steps)
{
    return i64_min(2 * steps, MOST_LOADS);
}

static void add_loads(struct gather *g, int rank, const struct record_rank *k)
{
    struct measure_rank *out = &g->m->ranks[rank];
    i64 n;
    const struct record_span *span = record_lane(k, TRACE_LOADER, &n);
    for (i64 i = 0; i < n; i++, span++) {
        if (span->kind != SPAN_LOAD)
            continue;
        if (out->n_loads == 0)
            out->load_step = span->step;
        if (out->n_loads < most_loads(g->m->n_steps))
            out->load[out->n_loads++] = s_of(span->end_ns - span->begin_ns);
    }
}

static void add_rank(struct gather *g, i64 step, int rank, const struct record_rank *k,
                     const struct ready_rank *ready)
{
    struct measure_rank *out = &g->m->ranks[rank];
    const struct table_time *times = times_of_table(g, k->table);
    out->step[step] = ready->step;
    out->compute[step] = ready->compute;
    out->data[step] = ready->data;
    out->wait[step] = ready->wait;
    out->transfer[step] = ready->transfer;
    for (int i = 0; i < HOST_KINDS; i++)
        out->gap[i][step] = ready->gap[i];
    for (i64 i = 0; i < ready->n_stands; i++) {
        const struct ready_stand *x = &ready->stands[i];
        struct measure_lane *l = &g->lanes[x->lane].lane;
        l->begin_s += x->begin_s;
        l->exposed_s += x->exposed_s;
        l->wait_exposed_s += x->wait_s;
        l->tail_s += x->tail_s;
    }
    add_tasks(g, rank, times, ready);
    add_loads(g, rank, k);
    for (int b = 0; b < ready->n_behind; b++) {
        const struct ready_behind *x = &ready->behind[b];
        double sum = g->lanes[x->lane].lane.backward_s;
        for (i64 i = 0; i < x->n; i++)
            sum += x->seconds[i];
        g->lanes[x->lane].lane.backward_s = sum;
    }
}

/* --- all of it -------------------------------------------------------------------- */

static void blank_step(struct measure_rank *k, i64 step)
{
    k->step[step] = k->compute[step] = k->data[step] = k->wait[step] = k->transfer[step] = NAN;
    for (int i = 0; i < HOST_KINDS; i++)
        k->gap[i][step] = NAN;
}

static void add_step(struct gather *g, i64 step, const struct record_step *s,
                     const struct ready *ready)
{
    struct measure *m = g->m;
    const struct ready_meetings met = ready->met;
    double sum = 0, n = 0;
    gather_add_calls(g, s, &ready->calls);
    for (int r = 0; r < m->n_ranks; r++) {
        if (r >= s->n_ranks || !s->ranks[r].head) {
            blank_step(&m->ranks[r], step);
            continue;
        }
        add_rank(g, step, r, &s->ranks[r], &ready->ranks[r]);
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

/* Ops below this share of computing are no witness of the peak, and so far beyond it is noise. */
static const double least_witness = 0.02, as_measured = 1.02;

/* What attention does depends on documents: its FLOPs are those of whole rows. */
static bool is_witness(const struct measure_op *o, double all)
{
    return o->seconds > least_witness * all && strncmp(o->name, "attention", strlen("attention")) != 0;
}

/* A peak that an op goes beyond was probed while something else had the processor: it is as high as
 * what the op attains (as diagnose/attained.h has it for the ladder). One that was given was not
 * probed. */
static void raise_peak(struct measure *m)
{
    struct measure_ceilings *c = &m->ceilings;
    double all = 0, beyond = 1;
    for (i64 i = 0; i < m->n_ops; i++)
        all += m->ops[i].seconds;
    for (i64 i = 0; i < m->n_ops; i++)
        if (is_witness(&m->ops[i], all))
            beyond = fmax(beyond, m->ops[i].flops / c->used / m->ops[i].seconds);
    if (strcmp(m->config.backend, "none") == 0 || !(beyond > as_measured)) /* NaN: not known */
        return;
    m->peak_probed = c->used;
    c->f32 *= beyond;
    c->bf16 *= beyond;
    c->used *= beyond;
    if (c->widest < c->used)
        c->widest = c->used;
    for (i64 i = 0; i < m->n_ops; i++)
        m->ops[i].roofline_s = fmax(m->ops[i].roofline_s / beyond,
                                    m->ops[i].bytes / c->memory_bytes_per_s);
    for (i64 r = 0; r < m->n_ranks; r++)
        m->ranks[r].roofline_s /= beyond;
}

static void settle_ops(struct gather *g)
{
    struct measure *m = g->m;
    for (i64 t = 0; t < g->n_tables; t++)
        for (i64 i = 0; i < g->tables[t].table->n_tasks; i++) {
            const struct task_time *x = &g->tables[t].tasks[i];
            struct measure_op *o = &g->ops[g->tables[t].costs[i].class].op;
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
    gather_settle_domains(g, part);
    gather_settle_paces(g);
    take_stages(m);
    for (i64 r = 0; r < m->n_ranks && m->n_steps > 0; r++)
        m->ranks[r].roofline_s /= (double)m->n_steps;
    raise_peak(m);
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
    split_read(g->m, part);
    measure_config(g->m, folder, a);
    measure_energy(g->m, folder, a);
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
    const struct each e = { &x, measure_ready, take_one, NULL };
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
    measure_keep_means(g->m, a);
    *out = g->m;
    return OK;
}
