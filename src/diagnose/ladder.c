#include "diagnose/ladder.h"

#include "diagnose/pace.h"

#include <math.h>
#include <string.h>

/* --- taking losses away ------------------------------------------------------------- */

/* What each rank computed, in its chain's order: its tasks' seconds, which are then made even, and
 * which tasks they are: alike at two ranks where they run the same. */
struct computed {
    double *seconds;
    u64 *task; /* action, id */
    i64 n;
};

struct peel {
    const struct record_step *s;
    const struct dag *g;
    struct computed *ranks; /* [n_ranks] */
};

/* pace: NULL where ranks keep their own. */
static void open_peel(struct peel *p, const struct record_step *s, const struct dag *g,
                      const double *pace)
{
    struct arena *a = s->arena;
    *p = (struct peel){ s, g, ARENA_ARRAY(a, struct computed, g->n_ranks) };
    for (i64 i = 0; i < g->n; i++)
        if (g->nodes[i].kind == DAG_COMPUTE)
            p->ranks[g->nodes[i].rank].n++;
    for (int r = 0; r < g->n_ranks; r++) {
        struct computed *c = &p->ranks[r];
        c->seconds = ARENA_UNSET(a, double, c->n);
        c->task = ARENA_UNSET(a, u64, c->n);
        c->n = 0;
    }
    for (i64 i = 0; i < g->n; i++) {
        const struct dag_node *n = &g->nodes[i];
        if (n->kind != DAG_COMPUTE)
            continue;
        struct computed *c = &p->ranks[n->rank];
        c->seconds[c->n] = pace ? g->seconds[i] / pace[n->rank] : g->seconds[i];
        c->task[c->n++] = (u64)n->action << 32 | n->task_id;
    }
}

/* Among these ranks, which do the same on other rows: every task takes its mean; where they did not
 * run the same tasks, each rank's take the mean altogether. */
static void even_ranks(struct computed *ranks, const int *which, int n)
{
    const struct computed *first = &ranks[which[0]];
    bool alike = true;
    double total = 0;
    for (int k = 1; k < n && alike; k++) {
        const struct computed *c = &ranks[which[k]];
        alike = c->n == first->n &&
                (c->n == 0 || memcmp(c->task, first->task, (size_t)c->n * sizeof *c->task) == 0);
    }
    for (i64 i = 0; alike && i < first->n; i++) {
        double sum = 0;
        for (int k = 0; k < n; k++)
            sum += ranks[which[k]].seconds[i];
        for (int k = 0; k < n; k++)
            ranks[which[k]].seconds[i] = sum / n;
    }
    for (int k = 0; !alike && k < n; k++)
        for (i64 i = 0; i < ranks[which[k]].n; i++)
            total += ranks[which[k]].seconds[i];
    for (int k = 0; !alike && k < n; k++) {
        struct computed *c = &ranks[which[k]];
        double own = 0;
        for (i64 i = 0; i < c->n; i++)
            own += c->seconds[i];
        for (i64 i = 0; own > 0 && i < c->n; i++)
            c->seconds[i] *= total / n / own;
    }
}

/* Ranks of one stage: along dp and islands they have other rows, along cp and tp as much of the same. */
static void even_copies(struct peel *p)
{
    const int ranks = p->g->n_ranks;
    int *which = ARENA_ARRAY(p->s->arena, int, ranks);
    bool *done = ARENA_ARRAY(p->s->arena, bool, ranks);
    for (int r = 0; r < ranks; r++) {
        const struct record_head *h = p->s->ranks[r].head;
        int n = 0;
        for (int k = r; h && !done[r] && k < ranks; k++) {
            const struct record_head *o = p->s->ranks[k].head;
            if (o && o->pp == h->pp)
                which[n++] = k;
        }
        for (int k = 0; k < n; k++)
            done[which[k]] = true;
        if (n > 1)
            even_ranks(p->ranks, which, n);
    }
}

static int segment_of(const struct record_table *t, u64 action)
{
    return action < (u64)t->n_actions ? t->segments[t->actions[action].segment].kind
                                      : SEGMENT_UPDATE;
}

/* Every action takes the mean of its kind over all ranks and micro-batches. */
static void even_actions(struct peel *p)
{
    double sum[SEGMENT_KINDS] = { 0 }, count[SEGMENT_KINDS] = { 0 };
    for (int pass = 0; pass < 2; pass++)
        for (int r = 0; r < p->g->n_ranks; r++) {
            struct computed *c = &p->ranks[r];
            for (i64 i = 0, j; i < c->n; i = j) {
                const u64 action = c->task[i] >> 32;
                double own = 0;
                for (j = i; j < c->n && c->task[j] >> 32 == action; j++)
                    own += c->seconds[j];
                const int kind = segment_of(p->s->ranks[r].table, action);
                if (pass == 0 && own > 0) {
                    sum[kind] += own;
                    count[kind]++;
                }
                const double factor = pass == 1 && own > 0 ? sum[kind] / count[kind] / own : 1;
                for (i64 k = i; pass == 1 && k < j; k++)
                    c->seconds[k] *= factor;
            }
        }
}

void ladder_even(const struct record_step *s, const struct dag *g, double *seconds)
{
    struct peel p;
    i64 *at = ARENA_ARRAY(s->arena, i64, g->n_ranks);
    open_peel(&p, s, g, NULL);
    even_actions(&p);
    for (i64 i = 0; i < g->n; i++) {
        const struct dag_node *n = &g->nodes[i];
        seconds[i] = n->kind == DAG_COMPUTE ? p.ranks[n->rank].seconds[at[n->rank]++]
                                            : g->seconds[i];
    }
}

/* --- rungs -------------------------------------------------------------------------- */

/* The rungs' lengths in one walk over the graph, side by side, each with less in it. Of RUNG_STEP
 * and RUNG_DATA the nodes take what they took but for some kinds; from RUNG_HOST on no time passes
 * between nodes, ranks begin together, and a call that is begun in a gap is taken up that much
 * earlier (dag_scale_gaps with 0); from RUNG_TRANSFER on only computing is left. */
enum { SIDE = 6 }; /* RUNG_STEP ... RUNG_STAGE: all but RUNG_COMPUTE */

#define KIND(k) (1u << (k))

/* Kinds that take no time from a rung on. */
static const u32 gone_from[SIDE] = {
    [RUNG_STEP] = KIND(DAG_EVAL) | KIND(DAG_CHECKPOINT),
    [RUNG_DATA] = KIND(DAG_DATA),
    [RUNG_HOST] = KIND(DAG_LOG) | KIND(DAG_REST),
    [RUNG_TRANSFER] = KIND(DAG_WAIT) | KIND(DAG_OUTER) | KIND(DAG_MEET) | KIND(DAG_BEGIN) |
                      KIND(DAG_CALL),
};

struct side {
    double x[SIDE];
};

/* 1 where a node of the kind takes its time. */
static void keep_kinds(struct side keep[DAG_KINDS])
{
    u32 gone = 0;
    for (int rung = 0; rung < SIDE; rung++) {
        gone |= gone_from[rung];
        for (int kind = 0; kind < DAG_KINDS; kind++)
            keep[kind].x[rung] = !(gone & KIND(kind));
    }
}

/* Of each node the gap behind it, until the next one of its chain; where that is a rank's first,
 * gaps[g->n + rank]. */
static double *find_gaps(const struct record_step *s, const struct dag *g)
{
    double *gaps = ARENA_ARRAY(s->arena, double, g->n + g->n_ranks);
    for (i64 i = 0; i < g->n; i++) {
        const struct dag_node *n = &g->nodes[i];
        if (n->kind != DAG_BEGIN && n->kind != DAG_CALL && n->kind != DAG_READY)
            gaps[n->before >= 0 ? n->before : g->n + n->rank] = g->lead[i];
    }
    return gaps;
}

/* What of each rung's time stands before the node. */
static struct side time_before(const struct dag *g, i64 i, const struct side *ends)
{
    const struct dag_node *n = &g->nodes[i];
    struct side t;
    if (n->before >= 0) {
        t = ends[n->before];
    } else {
        const double start = n->rank >= 0 ? g->starts[n->rank] : -INFINITY;
        for (int k = 0; k < SIDE; k++)
            t.x[k] = k < RUNG_HOST || n->rank < 0 ? start : 0;
    }
    t.x[RUNG_STEP] += g->lead[i];
    t.x[RUNG_DATA] += g->lead[i];
    for (i64 k = 0; k < n->n_needs; k++) {
        const struct side *need = &ends[g->needs[n->needs + k]];
        for (int r = 0; r < SIDE; r++)
            t.x[r] = dag_larger(t.x[r], need->x[r]);
    }
    return t;
}

void ladder_rungs(const struct record_step *s, const struct dag *g, const double *pace,
                  double out[RUNGS])
{
    struct peel even;
    struct side keep[DAG_KINDS], longest = { { 0 } };
    struct side *ends = ARENA_UNSET(s->arena, struct side, g->n);
    const double *gaps = find_gaps(s, g);
    i64 *at = ARENA_ARRAY(s->arena, i64, g->n_ranks);
    double compute = 0;
    keep_kinds(keep);
    open_peel(&even, s, g, pace);
    even_copies(&even);
    double **balanced = ARENA_ARRAY(s->arena, double *, g->n_ranks);
    for (int r = 0; r < g->n_ranks; r++) {
        balanced[r] = ARENA_UNSET(s->arena, double, even.ranks[r].n);
        if (even.ranks[r].n > 0)
            memcpy(balanced[r], even.ranks[r].seconds,
                   (size_t)even.ranks[r].n * sizeof *balanced[r]);
    }
    even_actions(&even);
    for (i64 i = 0; i < g->n; i++) {
        const struct dag_node *n = &g->nodes[i];
        struct side t = time_before(g, i, ends), seconds;
        for (int k = 0; k < SIDE; k++)
            seconds.x[k] = g->seconds[i] * keep[n->kind].x[k];
        if (n->kind == DAG_BEGIN) {
            const double gap = n->before >= 0 ? gaps[n->before] : gaps[g->n + n->rank];
            seconds.x[RUNG_HOST] = dag_larger(0, g->seconds[i] - gap);
        } else if (n->kind == DAG_COMPUTE) {
            const i64 k = at[n->rank]++;
            seconds.x[RUNG_BALANCE] = balanced[n->rank][k];
            seconds.x[RUNG_STAGE] = even.ranks[n->rank].seconds[k];
            compute += g->seconds[i] / pace[n->rank];
        }
        for (int k = 0; k < SIDE; k++)
            ends[i].x[k] = t.x[k] + seconds.x[k];
        for (int k = 0; n->kind == DAG_REST && k < SIDE; k++)
            longest.x[k] = dag_larger(longest.x[k], ends[i].x[k]);
    }
    for (int k = 0; k < SIDE; k++)
        out[k] = longest.x[k];
    out[RUNG_COMPUTE] = compute / (g->n_ranks - g->missing);
}

/* --- kernels ------------------------------------------------------------------------ */

static double ratio(double a, double b)
{
    return b != 0 ? a / b : 1;
}

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

/* Of each rank [n_ranks]: how much slower it is than usual, its clock, and its share of processors; of
 * a slow one the latter as they would be at the usual pace. */
struct speeds {
    double *pace, *clock, *on_cpu;
};

static struct speeds find_speeds(const struct record_step *s, const struct dag *g)
{
    struct speeds v = { ARENA_ARRAY(s->arena, double, s->n_ranks),
                        ARENA_ARRAY(s->arena, double, s->n_ranks),
                        ARENA_ARRAY(s->arena, double, s->n_ranks) };
    double best_clock = 0, best_on_cpu = 0;
    pace_of_ranks(s, g, v.pace);
    for (int r = 0; r < s->n_ranks; r++) {
        if (!s->ranks[r].head)
            continue;
        v.clock[r] = clock_of(s->ranks[r].sample);
        v.on_cpu[r] = on_cpu(&s->ranks[r]);
        best_clock = fmax(best_clock, v.clock[r]);
        best_on_cpu = fmax(best_on_cpu, v.on_cpu[r]);
    }
    for (int r = 0; r < s->n_ranks; r++) {
        if (!s->ranks[r].head)
            continue;
        const double on_cpu_at = fmin(best_on_cpu, v.on_cpu[r] * v.pace[r]);
        const double left = v.pace[r] * ratio(v.on_cpu[r], on_cpu_at);
        v.on_cpu[r] = on_cpu_at;
        v.clock[r] = fmin(best_clock, v.clock[r] * fmax(1, left));
    }
    return v;
}

static double weight_of(const struct ladder *l)
{
    return l->weight > 0 ? l->weight : 1;
}

/* What is the same for all tasks of a rank in a step. */
struct rates {
    double best, rate;
};

static void see_rank(struct ladder *l, const struct record_rank *k, struct rates *out)
{
    const u32 has = k->sample ? (u32)k->sample->has : 0;
    *out = (struct rates){ best_peak(k->head), k->head->memory_bytes_per_s };
    l->no_rate |= !(out->rate > 0);
    l->no_peak |= !(out->best > 0);
    l->has_cpu |= (has & SAMPLE_SCHED) != 0 && !record_sleeps(k->head);
    l->has_clock |= (has & SAMPLE_CLOCK) != 0;
}

static void add_kernels(struct ladder *l, const struct record_step *s, const struct dag *g,
                        const struct speeds *v)
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
        const double seconds = g->seconds[i] / v->pace[n->rank];
        const double at_dtype = t->flops / peak_of(h, t->dtype);
        const double bytes_s = k->rate > 0 ? (t->read_bytes + t->written_bytes) / k->rate : 0;
        l->no_dtype |= t->flops > 0 && !((t->dtype == DTYPE_BF16 ? h->flops_bf16 : h->flops_f32) > 0);
        l->flops += w * t->flops;
        l->at_peak_s += w * t->flops / k->best;
        l->at_dtype_s += w * at_dtype;
        l->at_roofline_s += w * fmax(at_dtype, bytes_s);
        l->on_cpu_s += w * seconds * v->clock[n->rank] * v->on_cpu[n->rank];
        l->at_clock_s += w * seconds * v->clock[n->rank];
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

/* The step's length if evaluating took no time. */
static double without_eval(const struct dag *g, const struct record_step *s)
{
    double *seconds = ARENA_UNSET(s->arena, double, g->n);
    for (i64 i = 0; i < g->n; i++)
        seconds[i] = g->nodes[i].kind == DAG_EVAL ? 0 : g->seconds[i];
    return dag_length(g, seconds, NULL, NULL);
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
    const double all = g->length;
    const double no_eval = has_kind(g, DAG_EVAL) ? without_eval(g, s) : all;
    const struct speeds v = find_speeds(s, g);
    *out = (struct ladder_step){ .lacks_ranks = s->missing > 0, .incomplete = s->missing > 0 };
    ladder_rungs(s, g, v.pace, out->rungs);
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
        if (s->ranks[k].sample && s->ranks[k].sample->has & SAMPLE_ROWS) {
            out->tokens += (double)s->ranks[k].sample->tokens;
            out->tokens_idle += (double)s->ranks[k].sample->tokens_idle;
        }
    }
    add_kernels(&out->kernels, s, g, &v);
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
    l->tokens += w * x->tokens;
    l->tokens_idle += w * x->tokens_idle;
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

/* Mean ranks per step times the time that they computed is the sum over ranks and steps. */
static double mean_ranks(const struct ladder *l)
{
    return ratio(l->compute_s, l->rung_s[RUNG_COMPUTE]);
}

/* M: of the model's FLOPs those at places that serve a token that counts, as far as samples tell. */
static double useful_flops(const struct ladder *l)
{
    return l->model_flops * (l->tokens > 0 ? 1 - l->tokens_idle / l->tokens : 1);
}

void ladder_factors(const struct ladder *l, double out[LADDER_FACTORS])
{
    const double *t = l->rung_s;
    out[LADDER_GOODPUT] = ratio(t[RUNG_STEP], l->wall_s);
    for (int i = 0; i < RUNG_COMPUTE; i++)
        out[LADDER_DATA + i] = ratio(t[i + 1], t[i]);
    out[LADDER_USEFUL] = ratio(useful_flops(l), l->flops);
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
    return useful_flops(l) / (l->wall_s * mean_ranks(l) * ladder_peak(l));
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
