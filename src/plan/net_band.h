/* plan/net_band.h - what bands of links mean for a step.
 *
 * A step's band is that of the fit's residuals. Where a machine's links have bands of their own,
 * messages that nothing hides take longer or less long by the ratio of rates; the two are taken to
 * be independent, so their logarithms add as squares. */
#ifndef HEADWAY_PLAN_NET_BAND_H
#define HEADWAY_PLAN_NET_BAND_H

#include "plan/cost.h"
#include "plan/efficiency.h"

/* What software gets out of a tier whose devices could send `bytes_per_s`: no more than `share` of
 * what the device's data sheet says of its links, where collectives were not measured on this very
 * network, and what oversubscription leaves. Ports to a network are the machine's choice: where it
 * has quicker ones than the sheet's, these are meant. */
static inline double plan_tier_rate(const struct plan_machine *m, int tier, double share,
                                    double bytes_per_s)
{
    double sheet = tier ? m->device.network_bytes_per_s : m->device.link_bytes_per_s;
    const double port = m->tiers[tier].bytes_per_s.mid;
    double most = (sheet <= 0 || (tier > 0 && port > sheet) ? port : sheet) * share;
    if (m->tiers[tier].reached)
        most = bytes_per_s;
    return (bytes_per_s < most ? bytes_per_s : most) / m->tiers[tier].oversubscription;
}

/* The tier that ranks which are `stride` apart meet in. */
static inline int plan_tier_of(const struct plan_machine *m, i64 ranks, i64 stride)
{
    int t = 0;
    while (t < m->n_tiers - 1 && m->tiers[t].ranks < ranks * stride)
        t++;
    return t;
}

/* step->band has the residuals' ends and step->terms are known. */
void plan_widen_by_network(const struct plan_job *job, const struct plan_layout *l,
                           struct plan_step *step);

#endif
