/* Which steps are replayed, and how far they stand for all. */
#include "diagnose/whatif_pick.h"

#include <math.h>

i64 whatif_pick(i64 i, i64 take, i64 steps)
{
    const double golden = 0.6180339887498949, within = fmod((double)i * golden, 1);
    return take < steps ? (i64)(((double)i + within) * (double)steps / (double)take) : i;
}

/* How often the index is picked, in ascending order: where most steps are picked, some are twice.
 * *next is the first pick behind it. */
static double times_picked(i64 index, i64 take, i64 steps, i64 *next)
{
    const i64 before = *next;
    while (*next < take && whatif_pick(*next, take, steps) == index)
        ++*next;
    return (double)(*next - before);
}

/* How far the share of a kind in the steps that are replayed may be from that in all. */
static const double as_much = 0.2;

bool whatif_stands_for(const struct measure *m, i64 take, enum measure_host kind)
{
    double seen = 0, seen_s = 0, all = 0, all_s = 0;
    for (i64 i = 0, k = 0; i < m->n_steps; i++) {
        const double picked = times_picked(i, take, m->n_steps, &k);
        double gap = 0;
        for (i64 r = 0; r < m->n_ranks; r++)
            gap += isfinite(m->ranks[r].gap[kind][i]) ? m->ranks[r].gap[kind][i] : 0;
        all += gap;
        all_s += m->seconds[i];
        seen += picked * gap;
        seen_s += picked * m->seconds[i];
    }
    return fabs(seen * all_s - all * seen_s) <= as_much * all * seen_s;
}

double whatif_rarer(const struct measure *m, i64 take, enum measure_host kind)
{
    double seen = 0, all = 0;
    for (i64 i = 0, k = 0; i < m->n_steps; i++) {
        const double picked = times_picked(i, take, m->n_steps, &k);
        for (i64 r = 0; r < m->n_ranks; r++) {
            const double gap = m->ranks[r].gap[kind][i];
            all += isfinite(gap) ? gap : 0;
            seen += isfinite(gap) ? picked * gap : 0;
        }
    }
    return seen > 0 ? all / (double)m->n_steps / (seen / (double)take) : 1;
}

double whatif_less_data(const struct measure *m, i64 take)
{
    double seen = 0, all = 0;
    for (i64 i = 0, k = 0; i < m->n_steps; i++) {
        const double picked = times_picked(i, take, m->n_steps, &k);
        double most = 0;
        for (i64 r = 0; r < m->n_ranks; r++)
            most = fmax(most, m->ranks[r].data[i]); /* fmax: NaN is left out */
        all += most;
        seen += picked * most;
    }
    return seen > 0 ? all / (double)m->n_steps / (seen / (double)take) : 1;
}
