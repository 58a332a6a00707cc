#include "diagnose/whatif_places.h"

#include <math.h>

const struct record_group *whatif_group(const struct record_head *h, const struct dag_node *n)
{
    const struct record_task *t = n->task;
    const struct record_group *g = h ? &h->groups[n->lane] : NULL;
    if (g && t && (t->flags & (RECORD_SENDS | RECORD_RECEIVES)))
        g = t->boundary >= 0 && t->boundary < h->n_boundaries ? &h->boundaries[t->boundary] : NULL;
    return g;
}

static bool has_part(const struct record_head *h, const struct dag_node *n, int rank)
{
    const struct record_group *g = whatif_group(h, n);
    if (n->rank == rank)
        return true;
    for (int i = 0; g && i < g->n; i++)
        if (g->ranks[i] == rank)
            return true;
    return false;
}

bool whatif_of_groups(const struct finding_edit *e, const struct record_head *h,
                      const struct dag_node *n)
{
    const int other = e->peer >= 0 ? e->peer : e->last_rank;
    return n->kind == DAG_CALL && (e->lane < 0 || n->lane == e->lane) && has_part(h, n, e->rank) &&
           (e->peer < 0 && other <= e->rank ? true : has_part(h, n, other));
}

double whatif_moved(const struct measure *m, int order, const struct record_group *g, double bytes,
                    double seconds, double factor)
{
    const struct measure_domains *d = &m->domains;
    const double more = (1 / d->far_bytes_per_s - 1 / d->near_bytes_per_s) * bytes;
    const bool was = measure_crosses(m, g->ranks, g->n, NULL);
    const bool is = measure_crosses(m, g->ranks, g->n, d->orders[order].to);
    if (was == is)
        return seconds;
    const double least = seconds * d->far_bytes_per_s / d->near_bytes_per_s;
    return is ? seconds + more : fmax(least, seconds - factor * more);
}

void whatif_slow_clocks(const struct measure *m, const struct dag *g, double share, double *seconds)
{
    for (i64 i = 0; i < g->n; i++) {
        const struct dag_node *n = &g->nodes[i];
        if (n->kind == DAG_COMPUTE && n->rank >= 0 && n->rank < m->n_ranks)
            seconds[i] *= 1 + share * (m->ranks[n->rank].stretch - 1);
    }
}
