/* What a lane's exchanges cost: for rule_links.c, rule_comm.c and rule_axes.c. */
#include "diagnose/rule.h"

#include <math.h>
#include <stdio.h>

double rule_where_crowded(const struct measure *m, double usual, double crowded)
{
    return m->threads_per_node > m->cores_per_node ? crowded : usual;
}

double rule_crowd(const struct measure *m)
{
    return rule_where_crowded(m, 1, m->threads_per_node / m->cores_per_node);
}

double rule_stood(const struct measure_lane *l)
{
    return fmax(0, l->exposed_s - l->wait_exposed_s);
}

double rule_by_latency(const struct measure_lane *l)
{
    if (!(l->transfer_s > 0) || !isfinite(l->latency_s))
        return NAN;
    return fmin(1, l->calls * l->latency_s / l->transfer_s); /* some begin behind others */
}

const struct measure_lane *rule_costliest_lane(const struct measure *m, double least,
                                               double (*cost)(const struct measure_lane *))
{
    const struct measure_lane *worst = NULL;
    for (i64 i = 0; i < m->n_lanes; i++)
        if (cost(&m->lanes[i]) >= least && (!worst || cost(&m->lanes[i]) > cost(worst)))
            worst = &m->lanes[i];
    if (isfinite(m->loss[LOSS_TRANSFER]) && !(m->loss[LOSS_TRANSFER] >= 0.5 * m->theta))
        return NULL; /* not on the critical path */
    return worst;
}

const struct measure_lane *rule_worst_lane(const struct measure *m)
{
    return rule_costliest_lane(m, m->theta, rule_stood);
}

void rule_tell_lane(const struct measure_lane *l, struct finding *f)
{
    snprintf(f->place.lane, sizeof f->place.lane, "%s", l->axis);
    rule_evidence(f, "%s: %.0f exchanges and %.2f MB a step; the ranks stand still %.1f ms for "
                  "bytes, %.1f ms for ranks that have not come", l->axis, l->calls,
                  1e-6 * l->bytes, 1e3 * rule_stood(l), 1e3 * l->wait_exposed_s);
    if (isfinite(l->latency_s) && isfinite(l->bytes_per_s))
        rule_evidence(f, "an exchange takes %.0f us and %.2f ms per MB (%.0f MB/s)",
                      1e6 * l->latency_s, 1e9 / l->bytes_per_s, 1e-6 * l->bytes_per_s);
    else if (isfinite(l->latency_s))
        rule_evidence(f, "an exchange of %.0f bytes takes %.0f us: too few bytes to tell what they "
                      "cost", l->bytes / l->calls, 1e6 * l->latency_s);
    else if (isfinite(l->bytes_per_s))
        rule_evidence(f, "exchanges, all alike, take %.2f ms per MB (%.0f MB/s)",
                      1e9 / l->bytes_per_s, 1e-6 * l->bytes_per_s);
}

void rule_reject_wait(const struct measure_lane *l, struct finding *f)
{
    rule_reject(f, "B1", "%.0f %% of the waiting is for bytes, not for a late rank",
                100 * rule_stood(l) / fmax(l->exposed_s, 1e-12));
}

void rule_edit_lane(struct finding *f, const struct measure_lane *l, double factor)
{
    rule_edit(f, EDIT_TRANSFER, factor);
    f->edit.lane = l->lane;
}
