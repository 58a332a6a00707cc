#include "diagnose/ladder.h"

#include <math.h>
#include <string.h>

/* --- taking losses away ------------------------------------------------------------- */

/* Durations of a step's nodes, of which more and more is taken away. */
struct peel {
    const struct record_step *s;
    struct dag g; /* starts may be set to 0 */
    double *seconds, *lead;
    i32 **nodes;  /* [n_ranks] computing, in the chain's order */
    i64 *n;
};

static void open_peel(struct peel *p, const struct record_step *s, const struct dag *g)
{
    struct arena *a = s->arena;
    *p = (struct peel){ .s = s, .g = *g };
    p->seconds = ARENA_UNSET(a, double, g->n);
    p->lead = ARENA_UNSET(a, double, g->n);
    memcpy(p->seconds, g->seconds, (size_t)g->n * sizeof *p->seconds);
    memcpy(p->lead, g->lead, (size_t)g->n * sizeof *p->lead);
    p->nodes = ARENA_ARRAY(a, i32 *, g->n_ranks);
    p->n = ARENA_ARRAY(a, i64, g->n_ranks);
    for (i64 i = 0; i < g->n; i++)
        if (g->nodes[i].kind == DAG_COMPUTE)
            p->n[g->nodes[i].rank]++;
    for (int r = 0; r < g->n_ranks; r++) {
        p->nodes[r] = ARENA_UNSET(a, i32, p->n[r]);
        p->n[r] = 0;
    }
    for (i64 i = 0; i < g->n; i++)
        if (g->nodes[i].kind == DAG_COMPUTE) {
            int r = g->nodes[i].rank;
            p->nodes[r][p->n[r]++] = (i32)i;
        }
}

static double length(const struct peel *p)
{
    return dag_length(&p->g, p->seconds, p->lead, NULL);
}

static void zero_kinds(struct peel *p, u32 kinds)
{
    for (i64 i = 0; i < p->g.n; i++)
        if (kinds & 1u << p->g.nodes[i].kind)
            p->seconds[i] = 0;
}

/* With the differences between the ranks' beginnings. */
static void zero_leads(struct peel *p)
{
    bool *all = ARENA_ARRAY(p->s->arena, bool, p->g.n_ranks);
    for (int r = 0; r < p->g.n_ranks; r++)
        all[r] = true;
    dag_scale_gaps(&p->g, all, 0, p->seconds, p->lead);
    p->g.starts = ARENA_ARRAY(p->s->arena, double, p->g.n_ranks);
}

/* Among these ranks, which do the same on other rows: every task takes its mean; where they did not
 * run the same tasks, each rank's take the mean altogether. */
static void even_ranks(struct peel *p, const int *ranks, int n)
{
    const struct dag_node *nodes = p->g.nodes;
    bool alike = true;
    double total = 0;
    for (int k = 0; k < n; k++)
        alike = alike && p->n[ranks[k]] == p->n[ranks[0]];
    for (i64 i = 0; alike && i < p->n[ranks[0]]; i++)
        for (int k = 1; k < n; k++) {
            const struct dag_node *x = &nodes[p->nodes[ranks[0]][i]];
            const struct dag_node *y = &nodes[p->nodes[ranks[k]][i]];
            alike = alike && x->task_id == y->task_id && x->action == y->action;
        }
    for (i64 i = 0; alike && i < p->n[ranks[0]]; i++) {
        double sum = 0;
        for (int k = 0; k < n; k++)
            sum += p->seconds[p->nodes[ranks[k]][i]];
        for (int k = 0; k < n; k++)
            p->seconds[p->nodes[ranks[k]][i]] = sum / n;
    }
    for (int k = 0; !alike && k < n; k++)
        for (i64 i = 0; i < p->n[ranks[k]]; i++)
            total += p->seconds[p->nodes[ranks[k]][i]];
    for (int k = 0; !alike && k < n; k++) {
        double own = 0;
        for (i64 i = 0; i < p->n[ranks[k]]; i++)
            own += p->seconds[p->nodes[ranks[k]][i]];
        for (i64 i = 0; own > 0 && i < p->n[ranks[k]]; i++)
            p->seconds[p->nodes[ranks[k]][i]] *= total / n / own;
    }
}

/* Ranks that differ along dp and islands only. */
static void even_copies(struct peel *p)
{
    int *ranks = ARENA_ARRAY(p->s->arena, int, p->g.n_ranks);
    bool *done = ARENA_ARRAY(p->s->arena, bool, p->g.n_ranks);
    for (int r = 0; r < p->g.n_ranks; r++) {
        const struct record_head *h = p->s->ranks[r].head;
        int n = 0;
        for (int k = r; h && !done[r] && k < p->g.n_ranks; k++) {
            const struct record_head *o = p->s->ranks[k].head;
            if (o && o->pp == h->pp && o->cp == h->cp && o->tp == h->tp)
                ranks[n++] = k;
        }
        for (int k = 0; k < n; k++)
            done[ranks[k]] = true;
        if (n > 1)
            even_ranks(p, ranks, n);
    }
}

static int segment_of(const struct peel *p, const struct dag_node *n)
{
    const struct record_table *t = p->s->ranks[n->rank].table;
    return n->action < t->n_actions ? t->segments[t->actions[n->action].segment].kind
                                    : SEGMENT_UPDATE;
}

/* Every action takes the mean of its kind over all ranks and micro-batches. */
static void even_actions(struct peel *p)
{
    double sum[SEGMENT_KINDS] = { 0 }, count[SEGMENT_KINDS] = { 0 };
    const struct dag_node *nodes = p->g.nodes;
    for (int pass = 0; pass < 2; pass++)
        for (int r = 0; r < p->g.n_ranks; r++)
            for (i64 i = 0, j; i < p->n[r]; i = j) {
                const i32 *list = p->nodes[r];
                double own = 0;
                for (j = i; j < p->n[r] && nodes[list[j]].action == nodes[list[i]].action; j++)
                    own += p->seconds[list[j]];
                int kind = segment_of(p, &nodes[list[i]]);
                if (pass == 0 && own > 0) {
                    sum[kind] += own;
                    count[kind]++;
                }
                for (i64 k = i; pass == 1 && own > 0 && k < j; k++)
                    p->seconds[list[k]] *= sum[kind] / count[kind] / own;
            }
}

void ladder_even(const struct record_step *s, const struct dag *g, double *seconds)
{
    struct peel p;
    open_peel(&p, s, g);
    even_actions(&p);
    memcpy(seconds, p.seconds, (size_t)g->n * sizeof *seconds);
}

#define KIND(k) (1u << (k))

void ladder_rungs(const struct record_step *s, const struct dag *g, double out[RUNGS])
{
    struct peel p;
    double compute = 0;
    open_peel(&p, s, g);
    zero_kinds(&p, KIND(DAG_EVAL) | KIND(DAG_CHECKPOINT));
    out[RUNG_STEP] = length(&p);
    zero_kinds(&p, KIND(DAG_DATA));
    out[RUNG_DATA] = length(&p);
    zero_kinds(&p, KIND(DAG_LOG) | KIND(DAG_REST));
    zero_leads(&p);
    out[RUNG_HOST] = length(&p);
    zero_kinds(&p, KIND(DAG_WAIT) | KIND(DAG_OUTER) | KIND(DAG_MEET) | KIND(DAG_BEGIN) |
                       KIND(DAG_CALL));
    out[RUNG_TRANSFER] = length(&p);
    even_copies(&p);
    out[RUNG_BALANCE] = length(&p);
    even_actions(&p);
    out[RUNG_STAGE] = length(&p);
    for (i64 i = 0; i < g->n; i++)
        compute += g->nodes[i].kind == DAG_COMPUTE ? g->seconds[i] : 0;
    out[RUNG_COMPUTE] = compute / (g->n_ranks - g->missing);
}

/* --- kernels ------------------------------------------------------------------------ */

static double best_peak(const struct record_head *h)
{
    return fmax(h->flops_f32, h->flops_bf16);
}

static double peak_of(const struct record_head *h, int dtype)
{
    double peak = dtype == DTYPE_BF16 ? h->flops_bf16 : h->flops_f32;
    return peak > 0 ? peak : best_peak(h);
}

/* Of computing threads, the share of their time that they were on a processor and not waiting for
 * one; 1 where nothing says so. */
static double on_cpu(const struct record_rank *k)
{
    const struct sample *s = k->sample;
    if (!s || !(s->has & SAMPLE_SCHED) || record_sleeps(k->head))
        return 1;
    double ran = (double)s->run_ns + (double)s->pool_run_ns;
    double waited = (double)s->queue_ns + (double)s->pool_queue_ns;
    return ran > 0 ? ran / (ran + waited) : 1;
}

static double clock_of(const struct sample *s)
{
    return s && s->has & SAMPLE_CLOCK && s->phi > 0 && isfinite(s->phi) ? s->phi : 1;
}

static double weight_of(const struct ladder *l)
{
    return l->weight > 0 ? l->weight : 1;
}

/* What is the same for all tasks of a rank in a step. */
struct rates {
    double best, rate, clock, on_cpu;
};

static void see_rank(struct ladder *l, const struct record_rank *k, struct rates *out)
{
    const u32 has = k->sample ? (u32)k->sample->has : 0;
    *out = (struct rates){ best_peak(k->head), k->head->memory_bytes_per_s, clock_of(k->sample),
                           on_cpu(k) };
    l->no_rate |= !(out->rate > 0);
    l->no_peak |= !(out->best > 0);
    l->has_cpu |= (has & SAMPLE_SCHED) != 0 && !record_sleeps(k->head);
    l->has_clock |= (has & SAMPLE_CLOCK) != 0;
}

static void add_kernels(struct ladder *l, const struct record_step *s, const struct dag *g)
{
    const double w = weight_of(l);
    struct rates *rates = ARENA_ARRAY(s->arena, struct rates, s->n_ranks);
    bool *seen = ARENA_ARRAY(s->arena, bool, s->n_ranks);
    for (i64 i = 0; i < g->n; i++) {
        const struct dag_node *n = &g->nodes[i];
        if (n->kind != DAG_COMPUTE)
            continue;
        const struct record_head *h = s->ranks[n->rank].head;
        const struct record_task *t = n->task;
        struct rates *k = &rates[n->rank];
        if (!seen[n->rank])
            see_rank(l, &s->ranks[n->rank], k);
        seen[n->rank] = true;
        const double seconds = g->seconds[i], at_dtype = t->flops / peak_of(h, t->dtype);
        const double bytes_s = k->rate > 0 ? (t->read_bytes + t->written_bytes) / k->rate : 0;
        l->no_dtype |= t->flops > 0 && !((t->dtype == DTYPE_BF16 ? h->flops_bf16 : h->flops_f32) > 0);
        l->flops += w * t->flops;
        l->at_peak_s += w * t->flops / k->best;
        l->at_dtype_s += w * at_dtype;
        l->at_roofline_s += w * fmax(at_dtype, bytes_s);
        l->on_cpu_s += w * seconds * k->clock * k->on_cpu;
        l->at_clock_s += w * seconds * k->clock;
        l->compute_s += w * seconds;
    }
}

/* --- the run ------------------------------------------------------------------------ */

static bool has_kind(const struct dag *g, enum dag_kind kind)
{
    for (i64 i = 0; i < g->n; i++)
        if (g->nodes[i].kind == kind)
            return true;
    return false;
}

static double without(const struct dag *g, const struct record_step *s, u32 kinds)
{
    struct peel p;
    open_peel(&p, s, g);
    zero_kinds(&p, kinds);
    return length(&p);
}

/* What belongs to no step: the start of a part, unless its first steps were not kept or not asked
 * for, and the way from the part before. */
static void add_outside(struct ladder *l, const struct record *r, const struct record_step *s)
{
    const struct record_part *p = &r->parts[s->part];
    const bool enters = l->steps == 0 || s->part != l->last_part;
    i64 follows = s->part > 0 ? r->parts[s->part - 1].last_step + 1 : 0;
    if (enters && p->first_step <= follows && (double)(s->step - p->first_step) < weight_of(l))
        l->start_s += fmax(0, 1e-9 * (double)(p->steps_ns - p->begin_ns));
    if (enters && l->steps > 0)
        l->restart_s += fmax(0, 1e-9 * (double)(p->begin_ns - r->parts[l->last_part].end_ns));
    l->last_part = s->part;
}

void ladder_measure(struct ladder_step *out, const struct record_step *s, const struct dag *g)
{
    double all = dag_length(g, NULL, NULL, NULL);
    double no_eval = has_kind(g, DAG_EVAL) ? without(g, s, KIND(DAG_EVAL)) : all;
    *out = (struct ladder_step){ .lacks_ranks = s->missing > 0, .incomplete = s->missing > 0 };
    ladder_rungs(s, g, out->rungs);
    out->eval = all - no_eval;
    out->checkpoint = no_eval - out->rungs[RUNG_STEP];
    double step = g->measured - out->eval - out->checkpoint;
    out->rungs[RUNG_DATA] += step - out->rungs[RUNG_STEP]; /* what the graph does not tell: host */
    out->rungs[RUNG_STEP] = step;
    out->fidelity = g->measured > 0 ? all / g->measured : 1;
    for (int k = 0; k < s->n_ranks; k++) {
        out->incomplete |= s->ranks[k].incomplete;
        if (s->ranks[k].head)
            out->model_flops += s->ranks[k].table->model_flops;
    }
    add_kernels(&out->kernels, s, g);
}

static void take_kernels(struct ladder *l, const struct ladder *k)
{
    const double w = weight_of(l);
    l->no_rate |= k->no_rate;
    l->no_dtype |= k->no_dtype;
    l->has_cpu |= k->has_cpu;
    l->has_clock |= k->has_clock;
    l->no_peak |= k->no_peak;
    l->flops += w * k->flops;
    l->at_peak_s += w * k->at_peak_s;
    l->at_dtype_s += w * k->at_dtype_s;
    l->at_roofline_s += w * k->at_roofline_s;
    l->on_cpu_s += w * k->on_cpu_s;
    l->at_clock_s += w * k->at_clock_s;
    l->compute_s += w * k->compute_s;
}

void ladder_take(struct ladder *l, const struct record *r, const struct record_step *s,
                 const struct ladder_step *x)
{
    const double w = weight_of(l);
    add_outside(l, r, s);
    for (int i = 0; i < RUNGS; i++)
        l->rung_s[i] += w * x->rungs[i];
    l->eval_s += w * x->eval;
    l->checkpoint_s += w * x->checkpoint;
    l->model_flops += w * x->model_flops;
    take_kernels(l, &x->kernels);
    l->steps++;
    l->wall_s = l->rung_s[RUNG_STEP] + l->eval_s + l->checkpoint_s + l->start_s + l->restart_s +
                l->retaken_s;
    if (l->steps == 1 || fabs(x->fidelity - 1) > fabs(l->worst_fidelity - 1))
        l->worst_fidelity = x->fidelity;
    l->beyond_gate += fabs(x->fidelity - 1) > DAG_GATE;
    l->incomplete += x->incomplete;
    l->lacks_ranks |= x->lacks_ranks;
}

void ladder_add(struct ladder *l, const struct record *r, const struct record_step *s,
                const struct dag *g)
{
    struct ladder_step x;
    ladder_measure(&x, s, g);
    ladder_take(l, r, s, &x);
}

void ladder_add_retaken(struct ladder *l, const struct record *r)
{
    for (int i = 0; i < r->n_parts; i++)
        l->retaken_s += 1e-9 * (double)r->parts[i].lost_ns;
    l->wall_s = l->rung_s[RUNG_STEP] + l->eval_s + l->checkpoint_s + l->start_s + l->restart_s +
                l->retaken_s;
}

static double ratio(double a, double b)
{
    return b != 0 ? a / b : 1;
}

/* Mean ranks per step times the time that they computed is the sum over ranks and steps. */
static double mean_ranks(const struct ladder *l)
{
    return ratio(l->compute_s, l->rung_s[RUNG_COMPUTE]);
}

void ladder_factors(const struct ladder *l, double out[LADDER_FACTORS])
{
    const double *t = l->rung_s;
    out[LADDER_GOODPUT] = ratio(t[RUNG_STEP], l->wall_s);
    for (int i = 0; i < RUNG_COMPUTE; i++)
        out[LADDER_DATA + i] = ratio(t[i + 1], t[i]);
    out[LADDER_USEFUL] = ratio(l->model_flops, l->flops);
    out[LADDER_DTYPE] = ratio(l->at_peak_s, l->at_dtype_s);
    out[LADDER_MEMORY] = ratio(l->at_dtype_s, l->at_roofline_s);
    out[LADDER_ATTAIN] = ratio(l->at_roofline_s, l->on_cpu_s);
    out[LADDER_CPU] = ratio(l->on_cpu_s, l->at_clock_s);
    out[LADDER_CLOCK] = ratio(l->at_clock_s, l->compute_s);
    if (l->no_peak)
        out[LADDER_DTYPE] = out[LADDER_MEMORY] = out[LADDER_ATTAIN] = NAN;
}

bool ladder_known(const struct ladder *l, enum ladder_factor f)
{
    switch (f) {
    case LADDER_TRANSFER:
    case LADDER_BALANCE:
    case LADDER_STAGE: return !l->lacks_ranks;
    case LADDER_DTYPE: return !l->no_peak && !l->no_dtype;
    case LADDER_MEMORY: return !l->no_peak && !l->no_rate;
    case LADDER_ATTAIN: return !l->no_peak;
    case LADDER_CPU: return l->has_cpu;
    case LADDER_CLOCK: return l->has_clock;
    default: return true;
    }
}

double ladder_peak(const struct ladder *l)
{
    return l->no_peak ? NAN : ratio(l->flops, l->at_peak_s);
}

double ladder_mfu(const struct ladder *l)
{
    return l->model_flops / (l->wall_s * mean_ranks(l) * ladder_peak(l));
}

double ladder_hfu(const struct ladder *l)
{
    return l->flops / (l->wall_s * mean_ranks(l) * ladder_peak(l));
}

const char *ladder_name(enum ladder_factor f)
{
    static const char *const names[] = { "goodput", "data", "host", "transfer", "balance", "stage",
                                         "bubble", "useful", "dtype", "memory", "attain", "cpu",
                                         "clock" };
    _Static_assert(COUNT_OF(names) == LADDER_FACTORS, "a name for each");
    return names[f];
}
