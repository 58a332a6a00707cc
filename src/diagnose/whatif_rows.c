#include "diagnose/whatif_rows.h"

#include "diagnose/usual_time.h"

#include <math.h>

/* Fewer steps say nothing of how times follow rows, nor does a slope that chance may make: three
 * standard errors. */
enum { LEAST_STEPS = 5 };
static const double surely = 3;

/* Of each graph and rank, flat. */
struct seen {
    double *work;    /* pairs of tokens that attend to each other; NaN: not known */
    double *seconds; /* of attention; NaN with work */
    double *beside;  /* that over what all else takes */
    i64 n;
};

static bool attends(const struct dag_node *n)
{
    return n->kind == DAG_COMPUTE && n->task && usual_attends(n->task);
}

static struct seen see(const struct record_step *steps, struct dag *const *graphs, int n, int ranks,
                       struct arena *a)
{
    const i64 all = (i64)n * ranks;
    struct seen s = { ARENA_ARRAY(a, double, all), ARENA_ARRAY(a, double, all),
                      ARENA_ARRAY(a, double, all), all };
    for (int k = 0; k < n; k++) {
        for (i64 i = 0; i < graphs[k]->n; i++) {
            const struct dag_node *x = &graphs[k]->nodes[i];
            if (x->kind == DAG_COMPUTE)
                *(attends(x) ? &s.seconds[k * ranks + x->rank] : &s.beside[k * ranks + x->rank]) +=
                    graphs[k]->seconds[i];
        }
        for (int r = 0; r < ranks; r++) {
            const struct sample *x = steps[k].ranks[r].sample;
            double *seconds = &s.seconds[k * ranks + r], *beside = &s.beside[k * ranks + r];
            const bool known = x && (x->has & SAMPLE_ROWS) && *seconds > 0 && *beside > 0;
            s.work[k * ranks + r] = known ? x->attended : NAN;
            *seconds = known ? *seconds : NAN;
            *beside = *seconds / *beside;
        }
    }
    return s;
}

/* Over the mean of the rank. */
static void over_own(const double *x, i64 n, int ranks, double *out)
{
    for (int r = 0; r < ranks; r++) {
        double sum = 0, count = 0;
        for (i64 i = r; i < n; i += ranks)
            if (isfinite(x[i])) {
                sum += x[i];
                count++;
            }
        for (i64 i = r; i < n; i += ranks)
            out[i] = x[i] * count / sum - 1; /* NaN stays */
    }
}

/* By how much of its time attention follows its rows' work: 1 as pairs do, 0 not for certain. */
static double slope_of(const double *work, const double *beside, i64 n, double *unsure)
{
    double xx = 0, xy = 0, yy = 0, count = 0;
    for (i64 i = 0; i < n; i++)
        if (isfinite(work[i]) && isfinite(beside[i])) {
            xx += work[i] * work[i];
            xy += work[i] * beside[i];
            yy += beside[i] * beside[i];
            count++;
        }
    if (!(xx > 0) || !(xy > 0) || count < 3)
        return 0;
    const double slope = xy / xx, left = fmax(0, yy - slope * xy) / (count - 2);
    *unsure = sqrt(left / xx) / slope;
    return surely * *unsure <= 1 ? fmin(1, slope) : 0;
}

static double mean_of(const double *x, i64 n)
{
    double sum = 0, known = 0;
    for (i64 i = 0; i < n; i++)
        if (isfinite(x[i])) {
            sum += x[i];
            known++;
        }
    return sum / known;
}

static void set_copies(const struct record_step *steps, int n, struct rows_work *w)
{
    for (int k = 0; k < n; k++)
        for (int r = 0; r < w->ranks; r++) {
            const struct record_head *own = steps[k].ranks[r].head;
            double sum = 0, count = 0;
            for (int p = 0; own && p < w->ranks; p++) {
                const struct record_head *h = steps[k].ranks[p].head;
                if (h && h->pp == own->pp) {
                    sum += w->above[k * w->ranks + p];
                    count++;
                }
            }
            w->copies[k * w->ranks + r] = count > 0 ? sum / count : 0;
        }
}

struct rows_work rows_find(const struct record_step *steps, struct dag *const *graphs, int n,
                           struct arena *keep)
{
    struct rows_work w = { .ranks = n > 0 ? graphs[0]->n_ranks : 0 };
    for (int k = 0; k < n; k++)
        if (graphs[k]->n_ranks != w.ranks || steps[k].n_ranks != w.ranks)
            return w;
    if (n < LEAST_STEPS)
        return w;
    struct arena a;
    arena_init(&a);
    const struct seen s = see(steps, graphs, n, w.ranks, &a);
    double *work = ARENA_ARRAY(&a, double, s.n), *beside = ARENA_ARRAY(&a, double, s.n);
    over_own(s.work, s.n, w.ranks, work);
    over_own(s.beside, s.n, w.ranks, beside);
    const double slope = slope_of(work, beside, s.n, &w.unsure), usual = mean_of(s.work, s.n);
    if (slope > 0 && usual > 0) {
        w.seconds_per_work = slope * mean_of(s.seconds, s.n) / usual;
        w.above = ARENA_ARRAY(keep, double, s.n);
        w.copies = ARENA_ARRAY(keep, double, s.n);
        for (i64 i = 0; i < s.n; i++)
            w.above[i] = isfinite(s.work[i]) ? slope * (s.work[i] / usual - 1) : 0;
        set_copies(steps, n, &w);
    }
    arena_fini(&a);
    return w;
}

double rows_times(const struct rows_work *w, int graph, const struct dag_node *n)
{
    return w && w->above && attends(n) ? 1 + w->above[graph * w->ranks + n->rank] : 1;
}

double rows_even(const struct rows_work *w, int graph, const struct dag_node *n, double share)
{
    if (!w->above || !attends(n))
        return 1;
    const i64 at = (i64)graph * w->ranks + n->rank;
    return (1 + share * w->copies[at]) / (1 + share * w->above[at]);
}
