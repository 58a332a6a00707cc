#include "plan/fit.h"

#include "base/err.h"
#include "base/rng.h"
#include "plan/interval.h"
#include "plan/stack.h"
#include "plan/table.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define FIT_OUTLIER 0.5
#define FIT_PRIOR 0.002 /* a width off is worth a tenth of a percent of mean error */

enum { FIT_TRIES = 12000, FIT_CONSTANTS = 32 };

struct sample {
    const struct plan_row *row;
    struct plan_job job;
    struct plan_ops *ops;
};

/* All that a fit moves: jobs of samples point into it. */
struct state {
    struct plan_family family;
    struct plan_stack stacks[FIT_MOST_STACKS];
};

struct constant {
    const struct option *option;
    i64 offset;   /* of what has it, within a state */
    double begin; /* what one expects of it, and how far off (in logarithms) */
    double width;
};

struct fit {
    struct sample samples[FIT_MOST_ROWS];
    i64 n, n_stacks;
    struct state now, begin;
    i64 devices;
    struct constant constants[FIT_CONSTANTS];
    i64 n_constants;
    i64 left_out;   /* this sample does not count; -1: all do */
};

static double *constant_in(struct state *s, const struct constant *c)
{
    return OPTION_AT(double, c->option, (char *)s + c->offset);
}

/* --- rows ----------------------------------------------------------------------------- */

static bool usable(const struct fit *f, const struct plan_row *row, struct plan_world *w,
                   struct plan_job *job)
{
    return !row->missing && (f->devices == 0 || row->devices <= f->devices) &&
           row->status == ROW_RAN && row->seconds > 0 && !plan_world_job(w, row, job) &&
           !strcmp(job->family->name, f->now.family.name) &&
           !plan_layout_refused(job, &row->layout);
}

/* The state's copy of a stack: its values are moved, the world's are not. */
static const struct plan_stack *stack_of(struct fit *f, const struct plan_stack *s)
{
    for (i64 i = 0; i < f->n_stacks; i++)
        if (!strcmp(f->now.stacks[i].name, s->name))
            return &f->now.stacks[i];
    if (f->n_stacks == FIT_MOST_STACKS)
        return NULL;
    f->now.stacks[f->n_stacks] = *s;
    return &f->now.stacks[f->n_stacks++];
}

static int take_row(struct fit *f, const struct plan_row *row, const struct plan_job *job,
                    struct arena *a)
{
    struct sample *s = &f->samples[f->n];
    *s = (struct sample){ row, *job, ARENA_NEW(a, struct plan_ops) };
    TRY(plan_table_ops(s->ops, &s->job, &row->layout));
    s->job.family = &f->now.family;
    s->job.stack = stack_of(f, job->stack);
    if (!s->job.stack)
        return err_set(ERR_USAGE, "rows of at most %d stacks are fitted", FIT_MOST_STACKS);
    f->n++;
    return OK;
}

/* The middles of `share` equal stretches of what is usable. */
static int take_rows(struct fit *f, const struct plan_rows *set, i64 share, struct plan_world *w,
                     struct arena *a)
{
    struct plan_job job;
    i64 n = 0, at = 0, taken = 0;
    for (i64 i = 0; i < set->n; i++)
        n += usable(f, &set->rows[i], w, &job);
    share = i64_min(share, n);
    for (i64 i = 0; i < set->n && taken < share; i++) {
        if (!usable(f, &set->rows[i], w, &job))
            continue;
        if (at++ == (2 * taken + 1) * n / (2 * share)) {
            TRY(take_row(f, &set->rows[i], &job, a));
            taken++;
        }
    }
    return OK;
}

static i64 share_of(const struct fit *f, const struct plan_fit_choice *choice, i64 set)
{
    i64 left = choice->most - f->n;
    if (choice->shares && choice->shares[set] > 0)
        return i64_min(choice->shares[set], left);
    return left / (choice->n_sets - set);
}

/* --- constants ------------------------------------------------------------------------ */

/* What step times can show, and how far (in logarithms) one expects a device to be from the
 * defaults: shares of a peak are known well before anything is measured, times of the host are
 * not. */
static const struct expectation {
    const char *name;
    double width;
} usual[] = {
    { "product", 0.1 }, { "memory", 0.15 }, { "small_tile", 0.15 }, { "ramp", 0.7 },
    { "quantisation", 0.7 }, { "align16", 0.5 }, { "align128", 0.1 },
    { "attention_forward", 0.3 }, { "attention_backward", 0.3 }, { "attention_rows", 1 },
    { "kernel_s", 0.7 }, { "launch_s", 0.5 }, { "pace", 0.5 }, { "link", 0.3 }, { "net", 0.25 },
    { "link_latency_s", 0.3 }, { "net_latency_s", 0.7 }, { "overlap_tax", 0.5 },
    { "collective_s", 1 },
};

/* The same of software: nothing is known beforehand of what nobody meant it to do. */
static const struct {
    const char *name;
    double begin, width;
} software[] = {
    { "kernels.exchange", 5, 1 }, { "kernels.pipeline", 50, 1 }, { "stall", 1, 2 },
    { "overlap.dp", 0.5, 0.5 }, { "split_rate", 0.5, 1 },
};

static double width_of(const char *name)
{
    for (i64 i = 0; i < COUNT_OF(usual); i++)
        if (!strcmp(usual[i].name, name))
            return usual[i].width;
    return 0.5;
}

/* --- search --------------------------------------------------------------------------- */

static void price_sample(const struct sample *s, struct plan_step *step)
{
    struct plan_table table;
    plan_table_price(&table, &s->job, &s->row->layout, s->ops);
    plan_step_of(&s->job, &s->row->layout, &table, step);
}

static double log_error(const struct sample *s)
{
    struct plan_step step;
    price_sample(s, &step);
    return log(step.seconds / s->row->seconds);
}

/* Whether a run stalled is not among what rows say: of both, what comes nearer. */
static double nearer_error(const struct sample *s, bool *stalled)
{
    struct plan_step step;
    price_sample(s, &step);
    double without = step.seconds - step.terms[PLAN_STRAGGLER];
    double calm = fabs(log(without / s->row->seconds));
    double with = without + plan_stall_seconds(&s->job, &s->row->layout);
    double stall = fabs(log(with / s->row->seconds));
    *stalled = s->row->layout.pp > 1 && stall < calm;
    return fmin(calm, stall);
}

static double mean_error(const struct fit *f)
{
    double sum = 0;
    for (i64 i = 0; i < f->n; i++)
        sum += fabs(log_error(&f->samples[i]));
    return sum / (double)f->n;
}

/* Beyond a factor of 1.65 something happened in a run that no constant explains. */
static double robust_error(const struct fit *f)
{
    double sum = 0;
    bool stalled;
    for (i64 i = 0; i < f->n; i++)
        if (i != f->left_out)
            sum += fmin(nearer_error(&f->samples[i], &stalled), FIT_OUTLIER);
    return sum / (double)(f->n - (f->left_out >= 0));
}

/* A constant that the rows say nothing of stays where it began. */
static double loss(struct fit *f)
{
    double far = 0;
    for (i64 i = 0; i < f->n_constants; i++) {
        const struct constant *c = &f->constants[i];
        double x = log(*constant_in(&f->now, c) / c->begin) / c->width;
        far += x * x;
    }
    return robust_error(f) + FIT_PRIOR * far;
}

static double limited(const struct option *o, double x)
{
    x = fmax(x, o->min);
    return o->max > o->min ? fmin(x, o->max) : x;
}

/* All constants a random way each, counted and so the same in every fit. Steps grow where they
 * succeed and shrink where they do not (Schumer and Steiglitz 1968). */
static double search(struct fit *f, double best, u64 stream)
{
    double step = 0.2;
    const struct rng key = { 20211, stream };
    u64 draw = 0;
    for (int i = 0; i < FIT_TRIES; i++) {
        const struct state before = f->now;
        i64 one = i % (2 * f->n_constants); /* half the tries move one constant alone */
        for (i64 k = 0; k < f->n_constants; k++) {
            double *x = constant_in(&f->now, &f->constants[k]);
            double way = rng_normal(&key, draw++);
            if (one >= f->n_constants || one == k)
                *x = limited(f->constants[k].option, *x * exp(step * way));
        }
        double now = loss(f);
        if (now < best) {
            best = now;
            step = fmin(0.5, step * 1.5);
        } else {
            f->now = before;
            step = fmax(0.01, step * 0.97);
        }
    }
    return best;
}

/* The host's pace decides which rows show anything else, so the search begins at several. */
static void search_from_starts(struct fit *f, double least)
{
    const double starts[] = { 1, 2, 4 };
    struct state best = f->begin;
    for (i64 i = 0; i < COUNT_OF(starts); i++) {
        f->now = f->begin;
        f->now.family.launch_s *= starts[i];
        double reached = search(f, loss(f), (u64)i);
        if (reached < least) {
            least = reached;
            best = f->now;
        }
    }
    f->now = best;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Where fitted rows lie: beyond that a prediction extrapolates. */
static void seen(struct fit *f, struct arena *a)
{
    struct plan_family *family = &f->now.family;
    struct option_strings *stacks = &family->seen_stacks;
    const char **names = ARENA_ARRAY(a, const char *, f->n);
    *stacks = (struct option_strings){ names, 0 };
    family->seen_devices = family->seen_sequence = 0;
    for (i64 i = 0; i < f->n; i++) {
        const struct plan_job *job = &f->samples[i].job;
        family->seen_devices = fmax(family->seen_devices, (double)job->devices);
        family->seen_sequence = fmax(family->seen_sequence, (double)job->sequence);
        if (!plan_family_saw(family, job->stack->name))
            names[stacks->count++] = job->stack->name;
    }
}

static bool has_own_interval(const struct plan_stack *s)
{
    return s->residual_lo != 0 || s->residual_hi != 0;
}

/* |log(measured / predicted)| of rows, each by constants that were fitted without it, in the nearer of
 * the states that its software may be in, beside how uncertain such a step is. */
static void errors_left_out(struct fit *f, double *x)
{
    const struct state fitted = f->now;
    struct plan_step step;
    bool stalled;
    for (i64 i = 0; i < f->n; i++) {
        f->now = fitted; /* what another start would find is not of the row */
        f->left_out = i;
        search(f, loss(f), (u64)i);
        price_sample(&f->samples[i], &step);
        x[i] = nearer_error(&f->samples[i], &stalled) / plan_interval_spread(&step);
    }
    f->left_out = -1;
    f->now = fitted;
}

/* The value of rank 0.8 (n + 1) from below. */
static double end_of(double *x, i64 n)
{
    double rank = fmin((double)n, 0.8 * (double)(n + 1));
    qsort(x, (size_t)n, sizeof *x, ascending);
    i64 k = (i64)rank, next = i64_min(k, n - 1);
    return n > 1 ? x[k - 1] + (rank - (double)k) * (x[next] - x[k - 1]) : x[0];
}

/* An interval that holds a new row with a chance of 80 %, if it is as those were (conformal, by
 * rows left out; Vovk et al. 2005): as far out on either side, for few rows tell little of each
 * side's tail. None is dropped. Software with an interval of its own has that of its rows; the
 * family that of the others. */
static void residuals(struct fit *f)
{
    double errors[FIT_MOST_ROWS], x[FIT_MOST_ROWS];
    if (f->n < 2)
        return;
    errors_left_out(f, errors);
    for (i64 k = -1; k < f->n_stacks; k++) {
        struct plan_stack *own = k >= 0 ? &f->now.stacks[k] : NULL;
        double *lo = own ? &own->residual_lo : &f->now.family.residual_lo;
        double *hi = own ? &own->residual_hi : &f->now.family.residual_hi;
        i64 n = 0;
        if (own && !has_own_interval(own))
            continue;
        for (i64 i = 0; i < f->n; i++) {
            const struct plan_stack *s = f->samples[i].job.stack;
            if (own ? s == own : !has_own_interval(s))
                x[n++] = errors[i];
        }
        if (n == 0)
            continue;
        *hi = end_of(x, n);
        *lo = -*hi;
    }
}

static bool has_fused_attention(const struct fit *f)
{
    for (i64 i = 0; i < f->n; i++)
        if (f->samples[i].job.stack->attention == STACK_FUSED)
            return true;
    return false;
}

static int add_constant(struct fit *f, const struct option *o, void *of, double width)
{
    if (f->n_constants == FIT_CONSTANTS)
        return err_set(ERR_USAGE, "at most %d constants are fitted", FIT_CONSTANTS);
    f->constants[f->n_constants++] = (struct constant){
        o, (char *)of - (char *)&f->now, *OPTION_AT(double, o, of), width
    };
    return OK;
}

static int no_constant(const char *name, struct arena *a)
{
    const char *all = "";
    for (i64 i = 0; i < COUNT_OF(usual); i++)
        all = arena_printf(a, "%s%s%s", all, i ? ", " : "", usual[i].name);
    return err_set(ERR_USAGE, "a family has no constant '%s'; step times can show %s", name, all);
}

/* They begin at their defaults, so that a fit does not depend on the one before. */
static int family_constants(struct fit *f, const struct option_strings *names, struct arena *a)
{
    i64 n = names->count ? names->count : COUNT_OF(usual);
    for (i64 i = 0; i < n; i++) {
        const char *name = names->count ? names->at[i] : usual[i].name;
        const struct option *o = option_find(plan_family_options, name);
        if (!o || o->type != OPTION_FLOAT)
            return no_constant(name, a);
        if (!names->count && !strncmp(name, "attention", 9) && !has_fused_attention(f))
            continue;
        TRY(option_set(o, &f->now.family, o->default_text, NULL, a));
        TRY(add_constant(f, o, &f->now.family, width_of(name)));
    }
    return OK;
}

/* Values of software that its file says are found so. */
static int stack_constants(struct fit *f, struct plan_stack *s)
{
    for (i64 i = 0; i < s->fitted.count; i++) {
        const struct option *o = option_find(plan_stack_options, s->fitted.at[i]);
        i64 k = 0;
        while (k < COUNT_OF(software) && strcmp(software[k].name, s->fitted.at[i]))
            k++;
        if (!o || k == COUNT_OF(software))
            return err_set(ERR_CONFIG, "stack '%s': '%s' is nothing that a fit can find", s->name,
                           s->fitted.at[i]);
        *OPTION_AT(double, o, s) = software[k].begin;
        TRY(add_constant(f, o, s, software[k].width));
    }
    return OK;
}

static int find_constants(struct fit *f, const struct option_strings *names, struct arena *a)
{
    TRY(family_constants(f, names, a));
    for (i64 i = 0; i < f->n_stacks && names->count == 0; i++)
        TRY(stack_constants(f, &f->now.stacks[i]));
    f->begin = f->now;
    return OK;
}

static int check_shares(const struct plan_fit_choice *choice)
{
    i64 sum = 0;
    for (i64 i = 0; choice->shares && i < choice->n_sets; i++)
        sum += choice->shares[i];
    return sum <= choice->most ? OK : err_set(ERR_USAGE, "%lld rows are asked for, and at most %lld are "
                                              "fitted", (long long)sum, (long long)choice->most);
}

int plan_fit_family(struct plan_family *family, struct plan_fit *out,
                    const struct plan_fit_choice *choice, struct plan_world *w, struct arena *a)
{
    struct fit *f = ARENA_NEW(a, struct fit);
    TRY(check_shares(choice));
    f->now.family = *family;
    f->devices = choice->devices;
    f->left_out = -1;
    for (i64 i = 0; i < choice->n_sets; i++)
        TRY(take_rows(f, choice->sets[i], share_of(f, choice, i), w, a));
    if (f->n == 0)
        return err_set(ERR_USAGE, "none of the rows is of family '%s' and determines a layout",
                       family->name);
    *out = (struct plan_fit){ .n = f->n };
    for (i64 i = 0; i < f->n; i++)
        out->ids[i] = f->samples[i].row->id;
    TRY(find_constants(f, &choice->constants, a));
    out->before = mean_error(f);
    search_from_starts(f, loss(f));
    out->after = mean_error(f);
    seen(f, a);
    if (choice->interval)
        residuals(f);
    *family = f->now.family;
    for (i64 i = 0; i < f->n_stacks; i++)
        if (f->now.stacks[i].fitted.count > 0 || has_own_interval(&f->now.stacks[i]))
            out->stacks[out->n_stacks++] = f->now.stacks[i];
    return OK;
}
