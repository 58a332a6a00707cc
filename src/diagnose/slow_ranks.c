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

/* How many of the list, which is sorted, are slow: it is divided where means are furthest apart. */
static i64 divide_sorted(const struct rank_mean *sorted, i64 most)
{
    double widest = -1;
    i64 n_in = 1;
    for (i64 k = 1; k <= most; k++)
        if (sorted[k - 1].mean - sorted[k].mean > widest) {
            widest = sorted[k - 1].mean - sorted[k].mean;
            n_in = k;
        }
    return n_in;
}

/* Of n ranks of which it is not known that they have equally much to do: more than half are slow
 * only beside several that are not, since one alone may have less. */
static i64 most_beside_several(i64 n)
{
    return i64_max(n / 2, n - 2);
}

/* clocks: at the clock of the start, so that one that is low now makes no rank slow (K4 tells of it). */
static struct rank_mean compared(const struct measure *m, i64 rank, double scale, bool clocks)
{
    if (clocks)
        scale *= rule_low_clock(m, &m->ranks[rank]);
    return (struct rank_mean){ rank, scale, scale * measure_mean(m, m->ranks[rank].compute) };
}

/* Without those that are left out. */
static i64 list_stage(const struct measure *m, int stage, const bool *left_out, bool clocks,
                      struct rank_mean *out)
{
    i64 n = 0;
    for (i64 r = 0; r < m->n_ranks; r++)
        if (m->ranks[r].stage == stage && !left_out[r])
            out[n++] = compared(m, r, 1, clocks);
    return n;
}

/* Of what the machine's ceilings say two stages alone tell no slow one from a machine whose ceilings
 * are wrong for what one of them does; of tasks that both have they do. */
enum { LEAST_BY_CEILINGS = 3 };

/* What a rank should compute a step, in terms that all ranks share. */
static double work_of(const struct measure_rank *k, enum slow_pace_by by)
{
    return by == SLOW_PACE_TASKS ? k->usual_s : k->roofline_s;
}

static bool all_know(const struct measure *m, enum slow_pace_by by)
{
    for (i64 r = 0; r < m->n_ranks; r++)
        if (!(work_of(&m->ranks[r], by) > 0) || m->ranks[r].stage < 0 ||
            m->ranks[r].stage >= i64_max(1, m->config.pp))
            return false;
    return m->n_ranks > 1;
}

static enum slow_pace_by work_known(const struct measure *m)
{
    if (rule_times_are_given(m) && all_know(m, SLOW_PACE_TOLD))
        return SLOW_PACE_TOLD;
    return m->config.pp > 1 && all_know(m, SLOW_PACE_TASKS) ? SLOW_PACE_TASKS : SLOW_PACE_CEILINGS;
}

/* All ranks beside each other, by what each has to do. */
static i64 list_all(const struct measure *m, enum slow_pace_by by, const bool *left_out, bool clocks,
                    struct rank_mean *out)
{
    double cost = 0;
    i64 n = 0;
    for (i64 r = 0; r < m->n_ranks; r++)
        cost += work_of(&m->ranks[r], by) / (double)m->n_ranks;
    for (i64 r = 0; r < m->n_ranks; r++) {
        const double scale = cost / work_of(&m->ranks[r], by);
        if (!left_out[r])
            out[n++] = compared(m, r, scale, clocks);
    }
    return n;
}

/* Each stage's fastest rank, by what the machine's ceilings say: where that is slow, all of the stage
 * are. 0: what their tasks cost is not known. */
static i64 list_across(const struct measure *m, const bool *left_out, bool clocks,
                       struct rank_mean *out)
{
    const i64 stages = m->config.pp;
    struct arena a;
    i64 n = 0;
    if (stages < LEAST_BY_CEILINGS || stages > m->n_ranks || !all_know(m, SLOW_PACE_CEILINGS))
        return 0;
    arena_init(&a);
    struct rank_mean *all = ARENA_ARRAY(&a, struct rank_mean, m->n_ranks);
    const i64 n_all = list_all(m, SLOW_PACE_CEILINGS, left_out, clocks, all);
    for (i64 p = 0; p < stages; p++) {
        struct rank_mean least = { -1, 1, INFINITY };
        for (i64 k = 0; k < n_all; k++)
            if (m->ranks[all[k].rank].stage == p && all[k].mean < least.mean)
                least = all[k];
        if (least.rank >= 0)
            out[n++] = least;
    }
    arena_fini(&a);
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

/* No rank is slow. */
static struct slow_ranks none_slow(const struct measure *m, struct arena *a)
{
    struct slow_ranks g = { .in = ARENA_ARRAY(a, bool, m->n_ranks),
                            .takes = ARENA_ARRAY(a, double, m->n_ranks), .rank = -1,
                            .excess = { NAN, NAN, NAN, 0 } };
    for (i64 r = 0; r < m->n_ranks; r++)
        g.takes[r] = 1;
    return g;
}

/* Of the sorted list the first `from` are slow: those of them that are as slow as the slowest. */
static struct slow_ranks take_group(const struct measure *m, const struct rank_mean *sorted, i64 from,
                                    i64 n, struct arena *a)
{
    struct slow_ranks g = none_slow(m, a);
    const double usual = sorted[from + (n - from) / 2].mean;
    i64 n_in = from;
    while (n_in > 1 && sorted[n_in - 1].mean - usual < as_slow * (sorted[0].mean - usual))
        n_in--;
    const struct rule_excess e = excess_of(m, sorted, n_in, from, n, a);
    if (!isfinite(e.mean))
        return g;
    double usually = -e.mean;
    for (i64 k = 0; k < n_in; k++)
        usually += sorted[k].mean / (double)n_in;
    for (i64 k = 0; k < n_in; k++) {
        g.in[sorted[k].rank] = true;
        g.takes[sorted[k].rank] = usually / sorted[k].mean;
        g.last_share += m->ranks[sorted[k].rank].last_share;
        g.blamed_share += m->ranks[sorted[k].rank].blamed_share;
    }
    g.n = n_in;
    g.rank = sorted[0].rank;
    /* In the rank's own work. */
    g.excess = (struct rule_excess){ e.mean / sorted[0].scale, e.median / sorted[0].scale,
                                     e.sigma / sorted[0].scale, e.share };
    return g;
}

/* Of the list at most `most` are slow; those that `usual` has are not (NULL: it is to be found). */
static struct slow_ranks find_group(const struct measure *m, struct rank_mean *list, i64 n, i64 most,
                                    const bool *usual, struct arena *a)
{
    i64 from = 0;
    if (n < 2)
        return none_slow(m, a);
    qsort(list, (size_t)n, sizeof *list, slowest_first);
    while (usual && from < n && !usual[list[from].rank])
        from++;
    if (!usual)
        from = divide_sorted(list, most);
    return from > 0 && from < n ? take_group(m, list, from, n, a) : none_slow(m, a);
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

/* Whether a stage with slow ranks has too few others to show what these should take. */
static bool needs_other_stages(const struct measure *m, const struct slow_ranks *g)
{
    for (i64 r = 0; r < m->n_ranks; r++) {
        i64 slow = 0, n = 0;
        for (i64 k = 0; g->in[r] && k < m->n_ranks; k++)
            if (m->ranks[k].stage == m->ranks[r].stage) {
                n++;
                slow += g->in[k];
            }
        if (2 * slow > n)
            return true;
    }
    return false;
}

static bool has_all_of(const struct measure *m, const struct slow_ranks *g, const struct slow_ranks *less)
{
    for (i64 r = 0; r < m->n_ranks; r++)
        if (less->in[r] && !g->in[r])
            return false;
    return true;
}

/* Of both the one that says more: the slower, or the one that has the other's ranks and more. */
static struct slow_ranks more_of(const struct measure *m, struct slow_ranks g, struct slow_ranks other)
{
    const bool wider = other.n > g.n && has_all_of(m, &other, &g);
    const bool slower = other.excess.mean > g.excess.mean && !has_all_of(m, &g, &other);
    return other.rank >= 0 && (g.rank < 0 || wider || slower) ? other : g;
}

static struct slow_ranks find_among(const struct measure *m, const bool *left_out, const bool *usual,
                                    bool clocks, struct arena *a)
{
    struct slow_ranks g = none_slow(m, a), x;
    struct rank_mean *list = ARENA_ARRAY(a, struct rank_mean, m->n_ranks);
    const enum slow_pace_by by = work_known(m);
    i64 n;
    if (m->n_steps == 0)
        return g;
    for (int p = 0; by != SLOW_PACE_TOLD && p < i64_max(1, m->config.pp); p++) {
        n = list_stage(m, p, left_out, clocks, list);
        x = find_group(m, list, n, most_beside_several(n), usual, a);
        if (x.rank >= 0 && !(x.excess.mean <= g.excess.mean)) /* NaN: there is none yet */
            g = x;
    }
    if (by != SLOW_PACE_CEILINGS) {
        n = list_all(m, by, left_out, clocks, list);
        x = find_group(m, list, n, n - 1, usual, a);
        x.across = needs_other_stages(m, &x);
        return more_of(m, g, x);
    }
    n = list_across(m, left_out, clocks, list);
    x = find_group(m, list, n, most_beside_several(n), usual, a);
    if (x.rank < 0 || (g.rank >= 0 && !(x.excess.mean > g.excess.mean)))
        return g;
    take_whole_stages(m, &x, a);
    return x;
}

struct slow_ranks slow_ranks_find(const struct measure *m, struct arena *a)
{
    return find_among(m, ARENA_ARRAY(a, bool, m->n_ranks), NULL, false, a);
}

struct slow_ranks slow_ranks_among(const struct measure *m, const bool *left_out, const bool *usual,
                                   struct arena *a)
{
    return find_among(m, left_out, usual, true, a);
}

struct slow_pace slow_stage_pace(const struct measure *m, int stage, const double *take)
{
    const i64 stages = m->config.pp;
    struct slow_pace out = { work_known(m), NAN, NAN };
    struct arena a;
    if (stages < 2 || stages > m->n_ranks || !all_know(m, out.by))
        return out;
    arena_init(&a);
    double *pace = ARENA_ARRAY(&a, double, stages), *work = ARENA_ARRAY(&a, double, stages);
    double mean = 0;
    for (i64 p = 0; p < stages; p++)
        pace[p] = INFINITY;
    for (i64 r = 0; r < m->n_ranks; r++) {
        const struct measure_rank *k = &m->ranks[r];
        const double took = (take ? take[r] : 1) * measure_mean(m, k->compute) / work_of(k, out.by);
        if (took < pace[k->stage]) {
            pace[k->stage] = took;
            work[k->stage] = work_of(k, out.by);
        }
    }
    for (i64 p = 0; p < stages; p++)
        mean += work[p] / (double)stages;
    const double middle = (double)((stages - 1) / 2) / (double)(stages - 1);
    out.pace = pace[stage] / measure_quantile(pace, stages, middle);
    out.work = work[stage] / mean;
    arena_fini(&a);
    return out;
}
