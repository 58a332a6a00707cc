#include "diagnose/slow_ranks.h"

#include <math.h>
#include <stdlib.h>

struct rank_mean {
    i64 rank;
    double scale; /* of its computing, to be compared */
    double mean;
};

static int slowest_first(const void *a, const void *b)
{
    const struct rank_mean *x = a, *y = b;
    return (x->mean < y->mean) - (x->mean > y->mean);
}

/* The list is divided where means are furthest apart; *n_in of the sorted list are slow. More than half
 * are slow only beside several that are not: one alone may have less to do. */
static void divide_sorted(struct rank_mean *sorted, i64 n, i64 *n_in)
{
    qsort(sorted, (size_t)n, sizeof *sorted, slowest_first);
    double widest = -1;
    for (i64 k = 1; k <= i64_max(n / 2, n - 2); k++)
        if (sorted[k - 1].mean - sorted[k].mean > widest) {
            widest = sorted[k - 1].mean - sorted[k].mean;
            *n_in = k;
        }
}

/* Without those that are left out. */
static i64 list_stage(const struct measure *m, int stage, const bool *left_out,
                      struct rank_mean *out)
{
    i64 n = 0;
    for (i64 r = 0; r < m->n_ranks; r++)
        if (m->ranks[r].stage == stage && !left_out[r])
            out[n++] = (struct rank_mean){ r, 1, measure_mean(m, m->ranks[r].compute) };
    return n;
}

/* Of what the machine's ceilings say two stages alone tell no slow one from a machine whose ceilings
 * are wrong for what one of them does; of tasks that both have they do. */
enum { LEAST_BY_CEILINGS = 3 };

/* What a rank should compute a step, in terms that all stages share. */
static double work_of(const struct measure_rank *k, bool by_tasks)
{
    return by_tasks ? k->usual_s : k->roofline_s;
}

/* Each stage's fastest rank: where that is slow, all of the stage are. 0: what their tasks cost
 * is not known. */
static i64 list_across(const struct measure *m, const bool *left_out, struct rank_mean *out)
{
    const i64 stages = m->config.pp;
    double cost = 0;
    bool by_tasks = true;
    for (i64 r = 0; r < m->n_ranks; r++)
        by_tasks &= m->ranks[r].usual_s > 0;
    if (stages < (by_tasks ? 2 : LEAST_BY_CEILINGS) || stages > m->n_ranks)
        return 0;
    for (i64 r = 0; r < m->n_ranks; r++)
        cost += work_of(&m->ranks[r], by_tasks) / (double)m->n_ranks;
    for (i64 p = 0; p < stages; p++)
        out[p] = (struct rank_mean){ -1, 1, INFINITY };
    for (i64 r = 0; r < m->n_ranks; r++) {
        const struct measure_rank *k = &m->ranks[r];
        const double work = work_of(k, by_tasks), mean = measure_mean(m, k->compute) * cost / work;
        if (!(work > 0) || k->stage < 0 || k->stage >= stages)
            return 0;
        if (mean < out[k->stage].mean && !left_out[r])
            out[k->stage] = (struct rank_mean){ r, cost / work, mean };
    }
    i64 n = 0;
    for (i64 p = 0; p < stages; p++)
        if (out[p].rank >= 0)
            out[n++] = out[p];
    return n;
}

/* Of the first n_in of the list, above those from `from` on. */
static struct rule_excess excess_of(const struct measure *m, const struct rank_mean *sorted,
                                    i64 n_in, i64 from, i64 n, struct arena *a)
{
    double *above = ARENA_ARRAY(a, double, m->n_steps), *others = ARENA_ARRAY(a, double, n);
    i64 clear = 0;
    for (i64 i = 0; i < m->n_steps; i++) {
        double sum = 0;
        for (i64 k = 0; k < n; k++) {
            const double x = sorted[k].scale * m->ranks[sorted[k].rank].compute[i];
            if (k < n_in)
                sum += x;
            else if (k >= from)
                others[k - from] = x;
        }
        above[i] = sum / (double)n_in - measure_quantile(others, n - from, 0.5);
        clear += sum / (double)n_in > measure_quantile(others, n - from, 1);
    }
    struct measure_stat s = measure_stat(above, m->n_steps);
    return (struct rule_excess){ s.mean, s.median, s.sigma, (double)clear / (double)m->n_steps };
}

/* Slow by as much as the slowest, as far as can be told. */
static const double as_slow = 0.85;

/* Takes the slow ones of the list into g, if they are slower than what it has: those that are as
 * slow as the slowest, beside those that are not slow. */
static bool take_group(const struct measure *m, struct slow_ranks *g, struct rank_mean *sorted,
                       i64 n, struct arena *a)
{
    i64 n_in = 0;
    divide_sorted(sorted, n, &n_in);
    const i64 from = n_in;
    const double usual = sorted[from + (n - from) / 2].mean;
    while (n_in > 1 && sorted[n_in - 1].mean - usual < as_slow * (sorted[0].mean - usual))
        n_in--;
    struct rule_excess e = excess_of(m, sorted, n_in, from, n, a);
    if (!isfinite(e.mean) || (g->rank >= 0 && !(e.mean > g->excess.mean)))
        return false;
    double usually = -e.mean;
    for (i64 k = 0; k < n_in; k++)
        usually += sorted[k].mean / (double)n_in;
    for (i64 r = 0; r < m->n_ranks; r++) {
        g->in[r] = false;
        g->takes[r] = 1;
    }
    g->last_share = g->blamed_share = 0;
    for (i64 k = 0; k < n_in; k++) {
        g->in[sorted[k].rank] = true;
        g->takes[sorted[k].rank] = usually / sorted[k].mean;
        g->last_share += m->ranks[sorted[k].rank].last_share;
        g->blamed_share += m->ranks[sorted[k].rank].blamed_share;
    }
    g->n = n_in;
    g->rank = sorted[0].rank;
    /* In the rank's own work. */
    g->excess = (struct rule_excess){ e.mean / sorted[0].scale, e.median / sorted[0].scale,
                                      e.sigma / sorted[0].scale, e.share };
    return true;
}

/* From the ranks that stand for their stages to all of these. */
static void take_whole_stages(const struct measure *m, struct slow_ranks *g, struct arena *a)
{
    double *usually = ARENA_ARRAY(a, double, m->config.pp); /* 0: not slow */
    for (i64 r = 0; r < m->n_ranks; r++)
        if (g->in[r])
            usually[m->ranks[r].stage] = g->takes[r] * measure_mean(m, m->ranks[r].compute);
    g->n = 0;
    for (i64 r = 0; r < m->n_ranks; r++) {
        const double own = usually[m->ranks[r].stage];
        g->in[r] = own > 0;
        g->takes[r] = g->in[r] ? own / measure_mean(m, m->ranks[r].compute) : 1;
        g->n += g->in[r];
    }
    g->across = true;
}

struct slow_ranks slow_ranks_among(const struct measure *m, const bool *left_out, struct arena *a)
{
    struct slow_ranks g = { .in = ARENA_ARRAY(a, bool, m->n_ranks),
                            .takes = ARENA_ARRAY(a, double, m->n_ranks), .rank = -1,
                            .excess = { NAN, NAN, NAN, 0 } };
    struct rank_mean *list = ARENA_ARRAY(a, struct rank_mean, m->n_ranks);
    for (int p = 0; p < i64_max(1, m->config.pp) && m->n_steps > 0; p++) {
        i64 n = list_stage(m, p, left_out, list);
        if (n > 1)
            take_group(m, &g, list, n, a);
    }
    i64 n = m->n_steps > 0 ? list_across(m, left_out, list) : 0;
    if (n > 1 && take_group(m, &g, list, n, a))
        take_whole_stages(m, &g, a);
    return g;
}

struct slow_ranks slow_ranks_find(const struct measure *m, struct arena *a)
{
    return slow_ranks_among(m, ARENA_ARRAY(a, bool, m->n_ranks), a);
}
