/* Exchanges that are slow in some steps only: what they take there says how slow their links are,
 * which the whole run's does not. */
#include "diagnose/measure_record.h"

#include <math.h>

/* Sigma between the two levels: as of ranks that become slow (B2). */
static const double least_height = 5;

/* Seconds that the mean rank stands still for bytes, by step. */
static double *stood_for_bytes(const struct measure *m, struct arena *a)
{
    double *x = ARENA_ARRAY(a, double, m->n_steps);
    for (i64 i = 0; i < m->n_steps; i++)
        for (i64 r = 0; r < m->n_ranks; r++)
            x[i] += m->ranks[r].transfer[i] / (double)m->n_ranks;
    return x;
}

int measure_link_episode(struct measure *m, struct record *r, const char *folder, struct arena *a)
{
    if (!measure_whole(m) || m->n_lanes == 0)
        return OK;
    const struct measure_change c = measure_change_of(m, stood_for_bytes(m, a), m->n_steps,
                                                      least_height);
    const double steps = (double)(c.until - c.at);
    if (c.until == 0 || steps == (double)m->n_steps || !(c.inside > c.before) ||
        !((c.inside - c.before) * steps >= 0.5 * m->theta * (double)m->n_steps))
        return OK;
    const struct measure_range range = { m->numbers[c.at], m->numbers[c.until - 1], 0 };
    return measure_record(&m->slow_links, r, folder, &range, a);
}
