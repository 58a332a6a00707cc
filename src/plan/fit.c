#include "plan/fit.h"

#include "base/err.h"
#include "base/rng.h"
#include "plan/stack.h"
#include "plan/table.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define FIT_OUTLIER 0.5
#define FIT_PRIOR 0.002 /* a width off is worth a tenth of a percent of mean error */

enum { FIT_TRIES = 8000, FIT_CONSTANTS = 24 };

struct sample {
    const struct plan_row *row;
    struct plan_job job;
    struct plan_ops *ops;
};

struct fit {
    struct sample samples[FIT_MOST_ROWS];
    i64 n;
    struct plan_family *family;
    i64 devices;
    const struct option *constants[FIT_CONSTANTS];
    struct plan_family begin; /* what the constants are before: what one expects of a device */
    double widths[FIT_CONSTANTS];
    i64 n_constants;
    i64 left_out;   /* this sample does not count; -1: all do */
    double start;   /* launch_s began so many times as long, where it ended best */
};

/* --- rows ----------------------------------------------------------------------------- */

static bool usable(const struct fit *f, const struct plan_row *row, struct plan_world *w,
                   struct plan_job *job)
{
    return !row->missing && (f->devices == 0 || row->devices <= f->devices) && row->status == ROW_RAN && row->seconds > 0 &&
           !plan_world_job(w, row, job) && !strcmp(job->family->name, f->family->name) &&
           !plan_layout_refused(job, &row->layout);
}

static int take_row(struct fit *f, const struct plan_row *row, const struct plan_job *job,
                    struct arena *a)
{
    struct sample *s = &f->samples[f->n];
    *s = (struct sample){ row, *job, ARENA_NEW(a, struct plan_ops) };
    TRY(plan_table_ops(s->ops, &s->job, &row->layout));
    s->job.family = f->family;
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

/* --- constants ------------------------------------------------------------------------ */

/* What step times can show, and how far (in logarithms) one expects a device to be from the
 * defaults: shares of a peak are known well before anything is measured, times of the host are not. */
static const struct expectation {
    const char *name;
    double width;
} usual[] = {
    { "product", 0.1 }, { "memory", 0.15 }, { "small_tile", 0.15 }, { "ramp", 0.7 },
    { "quantisation", 0.7 }, { "attention_forward", 0.5 }, { "attention_backward", 0.5 },
    { "attention_rows", 1 }, { "kernel_s", 0.7 }, { "launch_s", 2 }, { "link", 0.3 },
    { "net", 0.5 }, { "link_latency_s", 1 }, { "net_latency_s", 2 }, { "overlap_tax", 0.5 },
};

static double width_of(const char *name)
{
    for (i64 i = 0; i < COUNT_OF(usual); i++)
        if (!strcmp(usual[i].name, name))
            return usual[i].width;
    return 0.5;
}

/* --- search --------------------------------------------------------------------------- */

static double log_error(const struct sample *s)
{
    struct plan_table table;
    struct plan_step step;
    plan_table_price(&table, &s->job, &s->row->layout, s->ops);
    plan_step_of(&s->job, &s->row->layout, &table, &step);
    return log(step.seconds / s->row->seconds);
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
    for (i64 i = 0; i < f->n; i++)
        if (i != f->left_out)
            sum += fmin(fabs(log_error(&f->samples[i])), FIT_OUTLIER);
    return sum / (double)(f->n - (f->left_out >= 0));
}

/* A constant that the rows say nothing of stays where it began. */
static double loss(const struct fit *f)
{
    double far = 0;
    for (i64 i = 0; i < f->n_constants; i++) {
        double from = *OPTION_AT_CONST(double, f->constants[i], &f->begin);
        double to = *OPTION_AT_CONST(double, f->constants[i], f->family);
        double x = log(to / from) / f->widths[i];
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
        const struct plan_family before = *f->family;
        i64 one = i % (2 * f->n_constants); /* half the tries move one constant alone */
        for (i64 k = 0; k < f->n_constants; k++) {
            double *x = OPTION_AT(double, f->constants[k], f->family);
            double way = rng_normal(&key, draw++);
            if (one >= f->n_constants || one == k)
                *x = limited(f->constants[k], *x * exp(step * way));
        }
        double now = loss(f);
        if (now < best) {
            best = now;
            step = fmin(0.5, step * 1.5);
        } else {
            *f->family = before;
            step = fmax(0.01, step * 0.97);
        }
    }
    return best;
}

/* The host's pace decides which rows show anything else, so the search begins at several. */
static void search_from_starts(struct fit *f, double least)
{
    const double starts[] = { 1, 2, 4 };
    const struct plan_family begin = *f->family;
    struct plan_family best = begin;
    for (i64 i = 0; i < COUNT_OF(starts); i++) {
        *f->family = begin;
        f->family->launch_s *= starts[i];
        double reached = search(f, loss(f), (u64)i);
        if (reached < least) {
            least = reached;
            best = *f->family;
            f->start = starts[i];
        }
    }
    *f->family = best;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Where fitted rows lie: beyond that a prediction extrapolates. */
static void seen(const struct fit *f, struct arena *a)
{
    struct option_strings *stacks = &f->family->seen_stacks;
    const char **names = ARENA_ARRAY(a, const char *, f->n);
    *stacks = (struct option_strings){ names, 0 };
    f->family->seen_devices = f->family->seen_sequence = 0;
    for (i64 i = 0; i < f->n; i++) {
        const struct plan_job *job = &f->samples[i].job;
        f->family->seen_devices = fmax(f->family->seen_devices, (double)job->devices);
        f->family->seen_sequence = fmax(f->family->seen_sequence, (double)job->sequence);
        if (!plan_family_saw(f->family, job->stack->name))
            names[stacks->count++] = job->stack->name;
    }
}

static bool has_own_interval(const struct plan_stack *s)
{
    return s->residual_lo != 0 || s->residual_hi != 0;
}

/* log(measured / predicted) of rows, each by constants that were fitted without it. Rows of
 * software that has an interval of its own are never priced with the family's and do not count. */
static i64 errors_left_out(struct fit *f, double *x)
{
    const struct plan_family fitted = *f->family;
    i64 n = 0;
    for (i64 i = 0; i < f->n; i++) {
        if (has_own_interval(f->samples[i].job.stack))
            continue;
        *f->family = f->begin;
        f->family->launch_s *= f->start;
        f->left_out = i;
        search(f, loss(f), (u64)i);
        x[n++] = -log_error(&f->samples[i]);
    }
    f->left_out = -1;
    *f->family = fitted;
    return n;
}

/* An interval that holds a new row with a chance of 80 %, if it is as those were: of n errors of
 * rows left out the (n+1)/10-th from below and from above (Vovk et al. 2005). None is dropped. */
static void residuals(struct fit *f)
{
    double x[FIT_MOST_ROWS];
    i64 n = f->n > 1 ? errors_left_out(f, x) : 0;
    if (n == 0)
        return;
    qsort(x, (size_t)n, sizeof *x, ascending);
    i64 tail = i64_max(1, (n + 1) / 10);
    f->family->residual_lo = x[tail - 1];
    f->family->residual_hi = x[n - tail];
}

static bool has_fused_attention(const struct fit *f)
{
    for (i64 i = 0; i < f->n; i++)
        if (f->samples[i].job.stack->attention == STACK_FUSED)
            return true;
    return false;
}

/* They begin at their defaults, so that a fit does not depend on the one before. */
static int find_constants(struct fit *f, const struct option_strings *names, struct arena *a)
{
    i64 n = names->count ? names->count : COUNT_OF(usual);
    if (n > FIT_CONSTANTS)
        return err_set(ERR_USAGE, "at most %d constants are fitted", FIT_CONSTANTS);
    for (i64 i = 0; i < n; i++) {
        const char *name = names->count ? names->at[i] : usual[i].name;
        const struct option *o = option_find(plan_family_options, name);
        if (!o || o->type != OPTION_FLOAT)
            return err_set(ERR_USAGE, "a family has no constant '%s'", name);
        if (!names->count && !strncmp(name, "attention", 9) && !has_fused_attention(f))
            continue;
        TRY(option_set(o, f->family, o->default_text, NULL, a));
        f->widths[f->n_constants] = width_of(name);
        f->constants[f->n_constants++] = o;
    }
    return OK;
}

int plan_fit_family(struct plan_family *family, struct plan_fit *out,
                    const struct plan_fit_choice *choice, struct plan_world *w, struct arena *a)
{
    struct fit *f = ARENA_NEW(a, struct fit);
    f->family = family;
    f->devices = choice->devices;
    f->left_out = -1;
    f->start = 1;
    for (i64 i = 0; i < choice->n_sets; i++)
        TRY(take_rows(f, choice->sets[i], (choice->most - f->n) / (choice->n_sets - i), w, a));
    if (f->n == 0)
        return err_set(ERR_USAGE, "none of the rows is of family '%s' and determines a layout",
                       family->name);
    *out = (struct plan_fit){ .n = f->n };
    for (i64 i = 0; i < f->n; i++)
        out->ids[i] = f->samples[i].row->id;
    TRY(find_constants(f, &choice->constants, a));
    f->begin = *family;
    out->before = mean_error(f);
    search_from_starts(f, loss(f));
    out->after = mean_error(f);
    seen(f, a);
    if (choice->interval)
        residuals(f);
    return OK;
}
