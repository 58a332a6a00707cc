#include "diagnose/ladder.h"

#include <math.h>
#include <string.h>

/* --- kernels ------------------------------------------------------------------------ */

static double ratio(double a, double b)
{
    return b != 0 ? a / b : 1;
}

static double weight_of(const struct ladder *l)
{
    return l->weight > 0 ? l->weight : 1;
}

/* What is the same for all tasks of a rank in a step. */
struct rates {
    double used, of_dtype[DTYPES], rate, attended;
};

static void see_rank(struct ladder *l, const struct record_rank *k, const struct attained *a,
                     struct rates *out)
{
    const struct usual_speed v = usual_speed_of(k);
    *out = (struct rates){ .rate = k->head->memory_bytes_per_s, .attended = v.attended };
    for (int d = 0; d < DTYPES; d++)
        out->of_dtype[d] = attained_peak(a, k->head, d);
    out->used = out->of_dtype[attained_dtype_in_use(k->head)];
    l->no_rate |= !(out->rate > 0);
    l->no_peak |= !(out->used > 0);
    l->has_cpu |= v.has_cpu;
    l->has_clock |= v.has_clock;
}

static double peak_of(const struct rates *k, int dtype)
{
    return dtype < DTYPES ? k->of_dtype[dtype] : k->used;
}

/* What one task has to do; of attention that looks at a share of all pairs that share. */
static void add_kernel(struct computing_known *sums, const struct record_task *t,
                       const struct record_head *h, const struct rates *k, double looked_at,
                       const struct attained *a)
{
    const double flops = t->flops * looked_at, at_dtype = flops / peak_of(k, t->dtype);
    const double bytes_s = k->rate > 0 ? (t->read_bytes + t->written_bytes) / k->rate : 0;
    sums->no_dtype |= flops > 0 && !((t->dtype == DTYPE_BF16 ? h->flops_bf16 : h->flops_f32) > 0);
    sums->flops += flops;
    sums->at_peak_s += flops / k->used;
    sums->at_dtype_s += at_dtype;
    sums->at_roofline_s += fmax(at_dtype, bytes_s) / attained_beyond(a, t);
}

/* Returns the model's FLOPs of pairs that attention does not look at. */
static double sum_kernels(struct computing_known *sums, const struct computing *c,
                          const struct rates *rates, const struct attained *a)
{
    double unattended = 0;
    i64 *at = ARENA_ARRAY(c->s->arena, i64, c->n_ranks);
    *sums = (struct computing_known){ .of = a };
    for (i64 i = 0; i < c->lists->n; i++) {
        const i32 r = c->lists->order[i];
        const struct rates *k = &rates[r];
        const struct record_task *t =
            &c->s->ranks[r].table->tasks[(u32)c->ranks[r].task[at[r]++]];
        const double looked_at = k->attended < 1 && usual_attends(t) ? k->attended : 1;
        unattended += t->model_flops * (1 - looked_at);
        add_kernel(sums, t, c->s->ranks[r].head, k, looked_at, a);
    }
    return unattended;
}

static double sum_seconds(const struct computing *c)
{
    double sum = 0;
    i64 *at = ARENA_ARRAY(c->s->arena, i64, c->n_ranks);
    for (i64 i = 0; i < c->lists->n; i++) {
        const i32 r = c->lists->order[i];
        sum += c->ranks[r].seconds[at[r]++];
    }
    return sum;
}

/* l: all zero. What tasks have to do is the same in all steps with one shape, as long as attention
 * looks at all pairs. Returns as sum_kernels. */
static double add_kernels(struct ladder *l, const struct computing *usual, const struct attained *a)
{
    const struct record_step *s = usual->s;
    struct computing_known own, *known = usual->lists->known;
    struct rates *rates = ARENA_ARRAY(s->arena, struct rates, s->n_ranks);
    double unattended = 0;
    bool whole = true;
    for (int r = 0; r < usual->n_ranks; r++)
        if (usual->ranks[r].n > 0) {
            see_rank(l, &s->ranks[r], a, &rates[r]);
            whole &= !(rates[r].attended < 1);
        }
    if (!known || !whole)
        unattended = sum_kernels(&own, usual, rates, a);
    else if (known->of != a)
        sum_kernels(known, usual, rates, a);
    const struct computing_known *sums = known && whole ? known : &own;
    l->no_dtype = sums->no_dtype;
    l->flops = sums->flops;
    l->at_peak_s = sums->at_peak_s;
    l->at_dtype_s = sums->at_dtype_s;
    l->at_roofline_s = sums->at_roofline_s;
    l->compute_s = sum_seconds(usual);
    return unattended;
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

void ladder_measure(struct ladder_step *out, const struct record_step *s, const struct dag *g,
                    const struct usual *u)
{
    struct rungs rungs;
    const double all = g->length;
    const double no_eval = has_kind(g, DAG_EVAL) ? without_eval(g, s) : all;
    *out = (struct ladder_step){ .lacks_ranks = s->missing > 0, .incomplete = s->missing > 0 };
    rungs_measure(&rungs, s, g, u);
    memcpy(out->rungs, rungs.seconds, sizeof out->rungs);
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
    out->model_flops -= add_kernels(&out->kernels, &rungs.usual, &u->attained);
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
    l->compute_s += w * k->compute_s;
}

static void add_up_wall(struct ladder *l)
{
    l->wall_s = l->rung_s[RUNG_STEP] + l->eval_s + l->checkpoint_s + l->start_s + l->restart_s +
                l->retaken_s;
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
    add_up_wall(l);
    if (l->steps == 1 || fabs(x->fidelity - 1) > fabs(l->worst_fidelity - 1))
        l->worst_fidelity = x->fidelity;
    l->beyond_gate += fabs(x->fidelity - 1) > DAG_GATE;
    l->incomplete += x->incomplete;
    l->lacks_ranks |= x->lacks_ranks;
}

void ladder_add(struct ladder *l, const struct record *r, const struct record_step *s,
                const struct dag *g, const struct usual *u)
{
    struct ladder_step x;
    ladder_measure(&x, s, g, u);
    ladder_take(l, r, s, &x);
}

void ladder_add_retaken(struct ladder *l, const struct record *r)
{
    for (int i = 0; i < r->n_parts; i++)
        l->retaken_s += 1e-9 * (double)r->parts[i].lost_ns;
    add_up_wall(l);
}

void ladder_set_between(struct ladder *l, double eval_s, double checkpoint_s)
{
    const double steps = weight_of(l) * (double)l->steps;
    l->eval_s = steps * eval_s;
    l->checkpoint_s = steps * checkpoint_s;
    add_up_wall(l);
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
    /* What is left beyond a ceiling is noise: a task takes no less than at its roofline. Where
     * kernels that went beyond theirs make that less than their arithmetic alone, no format's
     * peak is higher for it: they attain as much. */
    const double dtype = fmin(l->at_dtype_s, l->compute_s);
    const double roofline = fmax(dtype, fmin(l->at_roofline_s, l->compute_s));
    out[LADDER_USEFUL] = ratio(useful_flops(l), l->flops);
    out[LADDER_DTYPE] = ratio(l->at_peak_s, dtype);
    out[LADDER_MEMORY] = ratio(dtype, roofline);
    out[LADDER_ATTAIN] = ratio(roofline, l->compute_s);
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
    static const char *const names[] = { "goodput", "data", "host", "clock", "cpu", "balance",
                                         "transfer", "stage", "bubble", "useful", "dtype",
                                         "memory", "attain" };
    _Static_assert(COUNT_OF(names) == LADDER_FACTORS, "a name for each");
    return names[f];
}
