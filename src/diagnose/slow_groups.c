#include "diagnose/slow_groups.h"

#include <math.h>

/* --- episodes --------------------------------------------------------------------- */

bool episode_is(const struct measure *m, struct measure_change c)
{
    i64 odd = c.until - c.at;
    return c.until > 0 && c.inside > c.before && odd < m->n_steps &&
           (c.at > 0 || c.until < m->n_steps);
}

struct measure_change episode_of(const struct measure *m, i64 rank, double least)
{
    struct arena a;
    arena_init(&a);
    double *x = ARENA_ARRAY(&a, double, m->n_steps), *peers = ARENA_ARRAY(&a, double, m->n_ranks);
    for (i64 i = 0; i < m->n_steps; i++) {
        i64 n = 0;
        for (i64 r = 0; r < m->n_ranks; r++)
            if (r != rank && m->ranks[r].stage == m->ranks[rank].stage)
                peers[n++] = m->ranks[r].compute[i];
        x[i] = m->ranks[rank].compute[i] - (n > 0 ? measure_quantile(peers, n, 0.5) : 0);
    }
    struct measure_change c = measure_change_of(m, x, m->n_steps, least);
    arena_fini(&a);
    return c;
}

/* --- slow ranks ------------------------------------------------------------------- */

/* Of the waiting for ranks, the share that is for these, between what equal ranks have (0) and all. */
static double beyond_chance(const struct measure *m, const struct slow_ranks *g)
{
    const double chance = (double)g->n / (double)m->n_ranks;
    return (g->blamed_share - chance) / (1 - chance);
}

double slow_usual(const struct measure *m, const struct slow_ranks *g)
{
    return measure_mean(m, m->ranks[g->rank].compute) - g->excess.mean;
}

double slow_mended(const struct measure *m, const struct slow_ranks *g)
{
    return slow_usual(m, g) / (slow_usual(m, g) + g->excess.mean);
}

/* Whether the ranks of *g are always slow. */
static bool is_steady(const struct measure *m, const struct rule_limit *limit,
                      const struct slow_ranks *g)
{
    const struct rule_excess e = g->excess;
    if (g->rank < 0 || !(e.median >= m->theta) || !(e.share >= limit[0].value) ||
        !(e.median > limit[1].value * e.sigma / sqrt((double)m->n_steps)) ||
        (g->across && !(e.mean >= (limit[3].value - 1) * slow_usual(m, g))))
        return false;
    if (!(e.median > rule_robbed_computing(m, &m->ranks[g->rank])))
        return false; /* others' work on its processors may be all of it (H8) */
    /* An episode that may be all of it is one of B2's. */
    const struct measure_change c = episode_of(m, g->rank, 5);
    const double height = c.inside - c.before;
    return !(episode_is(m, c) && fabs(c.before) < 0.5 * height && height >= 0.5 * e.mean);
}

/* What evening the ranks of a stage gives back, along the critical path, is theirs: half of it is lost
 * where one of two is slow, as evening leaves both the mean. */
static bool explains_balance(const struct measure *m, const struct slow_ranks *g)
{
    return m->loss[LOSS_BALANCE] >= fmax(m->theta, 0.4 * g->excess.mean);
}

static void add_group(const struct measure *m, struct slow_groups *all, struct slow_ranks g, bool *had)
{
    all->at[all->n++] = g;
    for (i64 r = 0; r < m->n_ranks; r++)
        if (g.in[r]) {
            all->take[r] *= g.takes[r];
            had[r] = true;
        }
}

static void at_clocks_of_start(const struct measure *m, struct slow_groups *all)
{
    for (i64 r = 0; r < m->n_ranks; r++)
        all->take[r] = rule_low_clock(m, &m->ranks[r]);
}

/* Those that are always slow beside the usual ones (NULL: those that are not slow beside others). */
static struct slow_groups list_groups(const struct measure *m, const struct rule_limit *limit,
                                      const bool *usual, struct arena *a)
{
    struct slow_groups all = { .take = ARENA_ARRAY(a, double, m->n_ranks) };
    bool *had = ARENA_ARRAY(a, bool, m->n_ranks);
    at_clocks_of_start(m, &all);
    struct slow_ranks g = slow_ranks_among(m, had, usual, a);
    while (all.n < SLOW_GROUPS && is_steady(m, limit, &g)) {
        add_group(m, &all, g, had);
        g = slow_ranks_among(m, had, usual, a);
    }
    return all;
}

/* Whether the step waits for them, too: the slowest. In a pipeline stages come last in turns; in
 * tensor groups all are late to other groups with the one that is slow. */
static bool are_waited_for(const struct measure *m, const struct rule_limit *limit,
                           const struct slow_ranks *g)
{
    const double least = limit[0].value - limit[2].value;
    return m->config.pp > 1 || explains_balance(m, g) || g->last_share >= least ||
           beyond_chance(m, g) >= least;
}

static bool hides_its_stage(const struct measure *m, const struct slow_groups *g, i64 rank)
{
    for (int k = 0; k < g->n; k++)
        if (g->at[k].across && g->at[k].in[rank])
            return true;
    for (i64 r = 0; r < m->n_ranks; r++)
        if (m->ranks[r].stage == m->ranks[rank].stage && g->take[r] >= 1)
            return false;
    return true;
}

/* Whether all ranks take as much less once mended. */
static bool all_alike(const struct measure *m, const struct slow_groups *g)
{
    const double alike = 0.02; /* takes that a replay may take for one */
    for (i64 r = 0; r < m->n_ranks; r++)
        if (!(fabs(g->take[r] - g->take[0]) <= alike * g->take[0]))
            return false;
    return true;
}

bool slow_hides(const struct measure *m, const struct slow_groups *g, i64 rank)
{
    return hides_its_stage(m, g, rank) && !all_alike(m, g);
}

struct slow_groups slow_groups_find(const struct measure *m, const struct rule_limit *limit,
                                    struct arena *a)
{
    struct slow_groups all = list_groups(m, limit, NULL, a);
    if (all.n == 0 || !are_waited_for(m, limit, &all.at[0])) {
        all.n = 0;
        at_clocks_of_start(m, &all);
        return all;
    }
    if (all.n < 2)
        return all;
    /* Others that are slow by less do not show what these should take. */
    bool *usual = ARENA_ARRAY(a, bool, m->n_ranks);
    for (i64 r = 0; r < m->n_ranks; r++)
        usual[r] = true;
    for (int k = 0; k < all.n; k++)
        for (i64 r = 0; r < m->n_ranks; r++)
            usual[r] &= !all.at[k].in[r];
    const struct slow_groups again = list_groups(m, limit, usual, a);
    return again.n > 0 && again.at[0].rank == all.at[0].rank ? again : all;
}

void slow_place(const struct measure *m, const bool *in, struct finding *f, struct arena *a)
{
    double *has = ARENA_ARRAY(a, double, m->n_ranks);
    i64 n = 0, first = -1, last = -1;
    for (i64 r = 0; r < m->n_ranks; r++) {
        has[r] = in[r] ? 1 : 0;
        n += in[r];
        last = in[r] ? r : last;
        first = first < 0 ? last : first;
    }
    if (n == last - first + 1 || n > FINDING_RANKS) {
        rule_place_ranks(m, has, f);
        return;
    }
    for (i64 r = 0; r < m->n_ranks; r++)
        if (in[r])
            f->place.several.at[f->place.several.n++] = m->ranks[r].rank;
}
