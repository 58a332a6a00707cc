#include "plan/validate.h"

#include "base/err.h"
#include "model/params.h"
#include "plan/efficiency.h"
#include "plan/interval.h"
#include "plan/ops_scale.h"
#include "plan/stack.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- pricing -------------------------------------------------------------------------- */

/* Rows of a set share jobs, but for devices and batch: their tables are made once. */
struct shelves {
    struct plan_job *jobs; /* [capacity] */
    struct plan_shelf **shelves;
    i64 n;
    struct arena *arena;
};

static bool same_tables(const struct plan_job *a, const struct plan_job *b)
{
    return a->machine == b->machine && a->family == b->family && a->stack == b->stack &&
           a->sequence == b->sequence && a->dtype == b->dtype && a->frozen == b->frozen &&
           a->spec->vocab == b->spec->vocab && !spec_difference(a->spec, b->spec);
}

static struct plan_shelf *shelf_of(struct shelves *s, const struct plan_job *job)
{
    for (i64 i = 0; i < s->n; i++)
        if (same_tables(&s->jobs[i], job))
            return s->shelves[i];
    s->jobs[s->n] = *job;
    s->shelves[s->n] = plan_shelf_new(&s->jobs[s->n], s->arena);
    return s->shelves[s->n++];
}

/* A family's provenance names the rows that it was fitted on. */
static bool is_fitted(const struct plan_family *f, const char *id)
{
    size_t n = strlen(id);
    for (const char *at = f->provenance; at && (at = strstr(at, id)); at += n)
        if (at[n] == 0 || at[n] == ' ')
            return true;
    return false;
}

/* Between a step without recompute, which does not fit, and one with all of it, which does: of each
 * stage's layers as many are computed again as it takes to fit, as Megatron's block recompute does.
 * Bytes and seconds of layers are alike. */
static void blend(struct plan_step *step, const struct plan_step *full, const struct plan_job *job,
                  const struct plan_layout *l)
{
    double usable = job->machine->device.memory_bytes * job->stack->usable;
    double layers = (double)ceil_div(job->spec->layers, l->pp);
    double share = (step->memory_bytes - usable) / (step->memory_bytes - full->memory_bytes);
    share = fmin(1, ceil(layers * share) / layers);
    const struct plan_step none = *step;
    *step = *full;
    step->seconds += (1 - share) * (none.seconds - full->seconds);
    step->flops += (1 - share) * (none.flops - full->flops);
    step->memory_bytes += (1 - share) * (none.memory_bytes - full->memory_bytes);
    step->band.lo += (1 - share) * (none.band.lo - full->band.lo);
    step->band.mid += (1 - share) * (none.band.mid - full->band.mid);
    step->band.hi += (1 - share) * (none.band.hi - full->band.hi);
    for (int i = 0; i < PLAN_TERMS; i++)
        step->terms[i] += (1 - share) * (none.terms[i] - full->terms[i]);
    for (int i = 0; i < PLAN_MEMORIES; i++)
        step->memory[i] += (1 - share) * (none.memory[i] - full->memory[i]);
}

/* Of what nobody stated, the least with which it fits: nothing, attention where that is what takes
 * the memory, or all of some layers. */
static void price_least(struct plan_step *out, const struct plan_job *job, struct plan_layout l,
                        const struct plan_table *table)
{
    struct plan_step full;
    plan_step_of(job, &l, table, out);
    if (out->fits)
        return;
    l.recompute = RECOMPUTE_SELECTIVE;
    plan_step_of(job, &l, table, &full);
    if (full.fits) {
        blend(out, &full, job, &l);
        return;
    }
    l.recompute = RECOMPUTE_FULL;
    plan_step_of(job, &l, table, &full);
    if (full.fits)
        blend(out, &full, job, &l);
    else
        *out = full;
}

static void price(struct validated_row *v, struct plan_world *w, struct shelves *s)
{
    struct plan_job job;
    const struct plan_table *table;
    v->refused = plan_world_job(w, v->row, &job);
    if (!v->refused)
        v->refused = plan_layout_refused(&job, &v->row->layout);
    if (v->refused)
        return;
    if (plan_shelf_table(shelf_of(s, &job), &v->row->layout, &table) < 0) {
        v->refused = arena_strdup(s->arena, err_message());
        return;
    }
    if (v->row->any_recompute)
        price_least(&v->step, &job, v->row->layout, table);
    else
        plan_step_of(&job, &v->row->layout, table, &v->step);
    v->priced = true;
    v->stack = job.stack;
    v->family = job.family->name;
    v->widened = plan_interval_widening(&job);
    v->fitted = is_fitted(job.family, v->row->id);
    if (v->row->seconds > 0)
        v->error = v->step.seconds / v->row->seconds - 1;
}

/* --- rows over a range ---------------------------------------------------------------- */

static double table_flops(const struct plan_job *job)
{
    const struct model_spec *s = job->spec;
    double tokens = (double)job->global_batch * (double)job->sequence;
    return tokens * (6 * (double)params_matmul(s) +
                     6 * (double)(s->layers * s->heads * (spec_key_size(s) + spec_value_size(s)) *
                                  job->sequence));
}

static void try_layout(struct validated_range *out, const struct plan_job *job,
                       struct plan_shelf *shelf, const struct plan_layout *l)
{
    const struct plan_table *table;
    struct plan_step step;
    if (plan_layout_refused(job, l) || plan_shelf_table(shelf, l, &table) < 0)
        return;
    plan_step_of(job, l, table, &step);
    if (!step.fits) /* it ran */
        return;
    const struct plan_device *d = &job->machine->device;
    double peak = d->peak[plan_half_dtype(d)];
    double mfu = 100 * table_flops(job) / (step.seconds * (double)job->devices * peak);
    out->lo = out->layouts++ ? fmin(out->lo, mfu) : mfu;
    out->hi = fmax(out->hi, mfu);
}

static bool price_range(struct validated_range *out, const struct plan_row *row,
                        struct plan_world *w, struct shelves *s)
{
    struct plan_job job;
    *out = (struct validated_range){ .row = row };
    if (!row->any_micro_batch || row->mfu == 0 || plan_world_job(w, row, &job))
        return false;
    struct plan_shelf *shelf = shelf_of(s, &job);
    for (i64 rows = 1; rows <= 4; rows *= 2)
        for (i64 v = 1; v <= (row->layout.pp > 1 ? 4 : 1); v++)
            for (int i = 0; i < 4; i++) {
                struct plan_layout l = row->layout;
                l.zero = i / 2;
                l.recompute = i % 2 ? RECOMPUTE_SELECTIVE : RECOMPUTE_NONE;
                l.micro_batch = rows;
                l.micro_batches = job.global_batch / (rows * l.dp);
                l.virtual_stages = v;
                l.schedule = v > 1 ? SCHEDULE_INTERLEAVED : SCHEDULE_1F1B;
                try_layout(out, &job, shelf, &l);
            }
    return out->layouts > 0;
}

/* --- numbers of a set ----------------------------------------------------------------- */

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Sorts x. */
static double quantile(double *x, i64 n, double q)
{
    if (n == 0)
        return 0;
    qsort(x, (size_t)n, sizeof *x, ascending);
    double at = q * (double)(n - 1);
    i64 i = (i64)at;
    return i + 1 < n ? x[i] + (at - (double)i) * (x[i + 1] - x[i]) : x[i];
}

static bool compares(const struct validated_row *v)
{
    return v->priced && !v->fitted && v->row->status == ROW_RAN && v->row->seconds > 0;
}

static void errors_of(struct validated_set *s, struct arena *a)
{
    double *x = ARENA_ARRAY(a, double, s->n + 1), *wide = ARENA_ARRAY(a, double, s->n + 1);
    double sum = 0;
    for (i64 i = 0; i < s->n; i++) {
        const struct validated_row *v = &s->rows[i];
        if (!compares(v))
            continue;
        s->bias += v->error;
        sum += fabs(v->error);
        wide[s->compared] = (v->step.band.hi - v->step.band.lo) / v->step.band.mid;
        x[s->compared++] = fabs(v->error);
        s->coverage += v->row->seconds >= v->step.band.lo && v->row->seconds <= v->step.band.hi;
        s->worst = fmax(s->worst, fabs(v->error));
    }
    if (s->compared == 0)
        return;
    s->bias /= (double)s->compared;
    s->mape = sum / (double)s->compared;
    s->coverage /= (double)s->compared;
    s->median = quantile(x, s->compared, 0.5);
    s->p90 = quantile(x, s->compared, 0.9);
    s->width = quantile(wide, s->compared, 0.5);
}

static bool same_cell(const struct plan_row *a, const struct plan_row *b)
{
    return a->devices == b->devices && a->sequence == b->sequence && a->batch == b->batch &&
           !strcmp(a->precision, b->precision) && !strcmp(a->framework, b->framework) &&
           !strcmp(a->gpu, b->gpu) && !strcmp(a->model, b->model);
}

/* The rank of row i among those of its cell, ties shared. */
static double rank_in(const struct validated_set *s, const i64 *cell, i64 n, i64 i, bool measured)
{
    const struct validated_row *me = &s->rows[cell[i]];
    double mine = measured ? me->row->seconds : me->step.seconds, rank = 0;
    for (i64 k = 0; k < n; k++) {
        const struct validated_row *v = &s->rows[cell[k]];
        double x = measured ? v->row->seconds : v->step.seconds;
        rank += x < mine ? 1 : x == mine ? 0.5 : 0;
    }
    return rank;
}

static double spearman(const struct validated_set *s, const i64 *cell, i64 n)
{
    double mean = (double)n / 2, xy = 0, xx = 0, yy = 0;
    for (i64 i = 0; i < n; i++) {
        double x = rank_in(s, cell, n, i, true) - mean, y = rank_in(s, cell, n, i, false) - mean;
        xy += x * y;
        xx += x * x;
        yy += y * y;
    }
    return xx > 0 && yy > 0 ? xy / sqrt(xx * yy) : 0;
}

/* A search takes no layout of which it says that it does not fit. */
static bool preferred(const struct validated_row *a, const struct validated_row *b)
{
    if (a->step.fits != b->step.fits)
        return a->step.fits;
    return a->step.seconds < b->step.seconds;
}

static double regret_of(const struct validated_set *s, const i64 *cell, i64 n)
{
    const struct validated_row *chosen = &s->rows[cell[0]], *best = chosen;
    for (i64 i = 1; i < n; i++) {
        const struct validated_row *v = &s->rows[cell[i]];
        if (preferred(v, chosen))
            chosen = v;
        if (v->row->seconds < best->row->seconds)
            best = v;
    }
    return chosen->row->seconds / best->row->seconds - 1;
}

static void order_of(struct validated_set *s, struct arena *a)
{
    bool *seen = ARENA_ARRAY(a, bool, s->n + 1);
    i64 *cell = ARENA_ARRAY(a, i64, s->n + 1);
    double ranked = 0;
    for (i64 i = 0; i < s->n; i++) {
        i64 n = 0;
        if (seen[i] || !compares(&s->rows[i]))
            continue;
        for (i64 k = i; k < s->n; k++)
            if (compares(&s->rows[k]) && same_cell(s->rows[i].row, s->rows[k].row)) {
                seen[k] = true;
                cell[n++] = k;
            }
        if (n < 2)
            continue;
        double regret = regret_of(s, cell, n);
        s->cells++;
        s->regret += regret;
        s->near_best += regret <= 0.1;
        s->rank += (double)n * spearman(s, cell, n);
        ranked += (double)n;
    }
    if (s->cells > 0) {
        s->regret /= (double)s->cells;
        s->near_best /= (double)s->cells;
        s->rank /= ranked;
    }
}

static void memory_of(struct validated_set *s, struct arena *a)
{
    double *x = ARENA_ARRAY(a, double, s->n + 1);
    for (i64 i = 0; i < s->n; i++) {
        const struct validated_row *v = &s->rows[i];
        if (!v->priced)
            continue;
        if (v->row->status != ROW_RAN) {
            s->failures++;
            s->failures_no_fit += !v->step.fits;
        } else if (v->row->memory_bytes > 0) {
            s->fit_right += v->step.fits;
            x[s->memory_rows++] = fabs(v->step.memory_bytes / v->row->memory_bytes - 1);
        }
    }
    s->memory_error = quantile(x, s->memory_rows, 0.5);
}

int plan_validate(struct validated_set *out, const struct plan_rows *rows, struct plan_world *w,
                  struct arena *a)
{
    struct shelves shelves = { .arena = a };
    *out = (struct validated_set){ .name = rows->name, .n = rows->n };
    out->rows = ARENA_ARRAY(a, struct validated_row, rows->n + 1);
    out->ranges = ARENA_ARRAY(a, struct validated_range, rows->n + 1);
    shelves.jobs = ARENA_ARRAY(a, struct plan_job, rows->n + 1);
    shelves.shelves = ARENA_ARRAY(a, struct plan_shelf *, rows->n + 1);
    for (i64 i = 0; i < rows->n; i++) {
        struct validated_row *v = &out->rows[i];
        v->row = &rows->rows[i];
        if (v->row->missing) {
            struct validated_range *range = &out->ranges[out->n_ranges];
            out->missing++;
            if (price_range(range, v->row, w, &shelves)) {
                out->n_ranges++;
                out->near_range += v->row->mfu >= range->lo - 3 && v->row->mfu <= range->hi + 3;
            }
            continue;
        }
        price(v, w, &shelves);
        out->priced += v->priced;
        out->refused += !v->priced;
        out->fitted += v->priced && v->fitted;
    }
    errors_of(out, a);
    order_of(out, a);
    memory_of(out, a);
    return OK;
}

/* --- several sets together ------------------------------------------------------------ */

void plan_validate_pool(struct validated_set *out, const char *name, const char *family,
                        const struct validated_set *const *sets, i64 n, struct arena *a)
{
    i64 rows = 0;
    for (i64 i = 0; i < n; i++)
        rows += sets[i]->n;
    *out = (struct validated_set){ .name = name };
    out->rows = ARENA_ARRAY(a, struct validated_row, rows + 1);
    for (i64 i = 0; i < n; i++)
        for (i64 k = 0; k < sets[i]->n; k++) {
            const struct validated_row *v = &sets[i]->rows[k];
            if (compares(v) && (!family || !strcmp(v->family, family)))
                out->rows[out->n++] = *v;
        }
    errors_of(out, a);
}

i64 plan_validate_families(const char **out, i64 most, const struct validated_set *const *sets,
                           i64 n)
{
    i64 found = 0;
    for (i64 i = 0; i < n; i++)
        for (i64 k = 0; k < sets[i]->n; k++) {
            const struct validated_row *v = &sets[i]->rows[k];
            i64 f = 0;
            while (compares(v) && f < found && strcmp(out[f], v->family))
                f++;
            if (compares(v) && f == found && found < most)
                out[found++] = v->family;
        }
    return found;
}
