#include "diagnose/rows.h"

#include <math.h>

typedef double value_fn(const struct measure_rank *k, i64 step);

static double computed(const struct measure_rank *k, i64 step) { return k->compute[step]; }
static double asked(const struct measure_rank *k, i64 step) { return k->work[step]; }

/* out[rank * n_steps + step]: beside the mean of the stage's ranks. */
static void beside_stage(const struct measure *m, value_fn *value, double *out)
{
    for (i64 r = 0; r < m->n_ranks; r++)
        for (i64 i = 0; i < m->n_steps; i++) {
            double sum = 0, n = 0;
            for (i64 p = 0; p < m->n_ranks; p++)
                if (m->ranks[p].stage == m->ranks[r].stage) {
                    sum += value(&m->ranks[p], i);
                    n++;
                }
            out[r * m->n_steps + i] = value(&m->ranks[r], i) - sum / n;
        }
}

/* And beside the rank's own mean. */
static void beside_own(const struct measure *m, double *x)
{
    for (i64 r = 0; r < m->n_ranks; r++) {
        double *own = &x[r * m->n_steps];
        const double mean = measure_stat(own, m->n_steps).mean;
        for (i64 i = 0; i < m->n_steps; i++)
            own[i] -= mean;
    }
}

static bool is_known(const struct measure *m)
{
    for (i64 r = 0; r < m->n_ranks; r++)
        if (!m->ranks[r].work)
            return false;
    return m->n_ranks > 1 && m->n_steps > 1;
}

/* Values that are free: each stage's ranks and each rank's steps have their mean. */
static double count_free(const struct measure *m)
{
    double stages = 0;
    for (i64 r = 0; r < m->n_ranks; r++) {
        bool first = true;
        for (i64 p = 0; p < r; p++)
            first &= m->ranks[p].stage != m->ranks[r].stage;
        stages += first;
    }
    return ((double)m->n_ranks - stages) * (double)(m->n_steps - 1);
}

static double mean_most(const struct measure *m, const double *work)
{
    double sum = 0;
    for (i64 i = 0; i < m->n_steps; i++) {
        double most = 0;
        for (i64 r = 0; r < m->n_ranks; r++)
            most = fmax(most, work[r * m->n_steps + i]);
        sum += most / (double)m->n_steps;
    }
    return sum;
}

struct rows_fit rows_fit(const struct measure *m)
{
    struct rows_fit f = { NAN, NAN, NAN, NAN, NAN, false };
    struct arena a;
    if (!is_known(m))
        return f;
    arena_init(&a);
    const i64 n = m->n_ranks * m->n_steps;
    double *c = ARENA_ARRAY(&a, double, n), *w = ARENA_ARRAY(&a, double, n);
    beside_stage(m, computed, c);
    beside_stage(m, asked, w);
    const double most = mean_most(m, w);
    beside_own(m, c);
    beside_own(m, w);
    const double free = count_free(m);
    f.correlation = measure_correlation(w, c, n);
    f.known = isfinite(m->rows_slope) && isfinite(f.correlation);
    f.slope = f.known ? m->rows_slope : measure_line(w, c, n).b;
    f.skew_s = f.slope * most;
    f.chance = free > 0 ? 1 / sqrt(free) : NAN;
    f.unsure = f.known ? m->rows_unsure
                       : f.chance * sqrt(fmax(0, 1 / (f.correlation * f.correlation) - 1));
    arena_fini(&a);
    return f;
}

bool rows_follow(const struct rows_fit *f, double least, double errors)
{
    return f->known || (f->correlation >= least && f->correlation >= errors * f->chance);
}

struct measure rows_left(const struct measure *m, const struct rows_fit *f, struct arena *a)
{
    struct measure left = *m;
    if (!f)
        return left;
    double *w = ARENA_ARRAY(a, double, m->n_ranks * m->n_steps);
    beside_stage(m, asked, w);
    left.means = NULL; /* of the series as they are */
    left.ranks = ARENA_ARRAY(a, struct measure_rank, m->n_ranks);
    for (i64 r = 0; r < m->n_ranks; r++) {
        left.ranks[r] = m->ranks[r];
        left.ranks[r].compute = ARENA_ARRAY(a, double, m->n_steps);
        for (i64 i = 0; i < m->n_steps; i++)
            left.ranks[r].compute[i] = m->ranks[r].compute[i] - f->slope * w[r * m->n_steps + i];
    }
    return left;
}
