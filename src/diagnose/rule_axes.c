/* Where ranks lie on the axes: which axis' exchanges pass between domains of ranks, such as hosts,
 * and which would in another order. */
#include "diagnose/rule.h"
#include "graph/graph.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* --- what an order costs ---------------------------------------------------------- */

/* What its exchanges would take, were this share of their bytes to pass between domains. */
static double transfer(const struct measure_domains *d, const struct measure_lane *l, double share)
{
    const double times = d->near_bytes_per_s / d->far_bytes_per_s;
    return l->transfer_s * (1 + share * (times - 1)) / (1 + d->crosses[l->lane] * (times - 1));
}

/* And what of that would be waited for: sums of gradients hide behind the backward pass, the rest is
 * waited for as it is now. */
static double cost(const struct measure_domains *d, const struct measure_lane *l, double share)
{
    const double then = transfer(d, l, share);
    if (!(l->transfer_s > 0))
        return 0;
    if (!finding_can_hide(l->lane))
        return rule_stood(l) * then / l->transfer_s;
    const double hides = fmax(l->transfer_s - rule_stood(l), 0.9 * l->backward_s);
    return fmax(fmin(rule_stood(l), l->tail_s) * then / l->transfer_s, then - hides);
}

static double cost_of(const struct measure *m, const double crosses[LANE_COUNT])
{
    double sum = 0;
    for (i64 i = 0; i < m->n_lanes; i++)
        sum += cost(&m->domains, &m->lanes[i], crosses[m->lanes[i].lane]);
    return sum;
}

/* --- C7 --------------------------------------------------------------------------- */

/* The lane for which ranks wait most, of those that pass between domains. */
static const struct measure_lane *worst_crossing(const struct measure *m, double least)
{
    const struct measure_lane *worst = NULL;
    for (i64 i = 0; i < m->n_lanes; i++) {
        const struct measure_lane *l = &m->lanes[i];
        if (m->domains.crosses[l->lane] >= least && (!worst || rule_stood(l) > rule_stood(worst)))
            worst = l;
    }
    return worst;
}

static const struct measure_order *cheapest(const struct measure *m, double *least)
{
    const struct measure_order *best = NULL;
    for (int i = 0; i < m->domains.n_orders; i++) {
        const double c = cost_of(m, m->domains.orders[i].crosses);
        if (!best || c < *least - 1e-3 * m->theta) {
            best = &m->domains.orders[i];
            *least = c;
        }
    }
    return best;
}

/* "dp", "dp and pp": what would pass between domains instead. */
static void list_crossing(const struct measure *m, const double crosses[LANE_COUNT], char *out,
                          size_t bytes)
{
    int n = 0;
    *out = '\0';
    for (i64 i = 0; i < m->n_lanes; i++)
        if (crosses[m->lanes[i].lane] > 0 && n < (int)bytes)
            n += snprintf(out + n, bytes - (size_t)n, "%s%s", n ? " and " : "", m->lanes[i].axis);
}

static bool several_hosts(const struct measure *m)
{
    for (i64 r = 1; r < m->n_ranks; r++)
        if (strcmp(m->ranks[r].host, m->ranks[0].host) != 0)
            return true;
    return false;
}

static void tell_domains(const struct measure *m, const struct measure_lane *l, struct finding *f)
{
    const struct measure_domains *d = &m->domains;
    snprintf(f->place.lane, sizeof f->place.lane, "%s", l->axis);
    rule_evidence(f, "ranks lie in %lld %s: before the run %.0f MB/s passed within them and %.0f between "
                  "them, in the run's exchanges %.0f and %.0f", (long long)d->n,
                  several_hosts(m) ? "domains, by hosts or racks" : "domains of one host",
                  1e-6 * d->near_probed, 1e-6 * d->far_probed, 1e-6 * d->near_bytes_per_s,
                  1e-6 * d->far_bytes_per_s);
    rule_evidence(f, "%s: %.0f exchanges and %.2f MB a step, %.0f %% of them between domains; ranks stand "
                  "still %.1f ms for them", l->axis, l->calls, 1e-6 * l->bytes,
                  100 * d->crosses[l->lane], 1e3 * rule_stood(l));
    rule_reject(f, "C4", "exchanges within domains pass %.1f times as much",
                d->near_bytes_per_s / d->far_bytes_per_s);
    rule_reject(f, "C11", "every link between domains is slow, and no other");
}

static bool look_axes(const struct measure *m, const struct rule_limit *limit, struct finding *f)
{
    const struct measure_domains *d = &m->domains;
    const struct measure_lane *l = d->n > 1 ? worst_crossing(m, limit[1].value) : NULL;
    double then = NAN, now = l ? cost_of(m, d->crosses) : NAN;
    const struct measure_order *best = l ? cheapest(m, &then) : NULL;
    char others[64];
    if (!best || !(d->far_bytes_per_s < limit[0].value * d->near_bytes_per_s) ||
        !(d->far_probed < limit[0].value * d->near_probed) || !(rule_stood(l) >= m->theta) ||
        !(best->crosses[l->lane] < d->crosses[l->lane]) || !(now - then >= m->theta))
        return false;
    tell_domains(m, l, f);
    list_crossing(m, best->crosses, others, sizeof others);
    rule_evidence(f, "in the order %s %s passes between domains; what ranks wait for bytes would fall "
                  "from %.1f to %.1f ms", best->name, *others ? others : "nothing", 1e3 * now,
                  1e3 * then);
    rule_edit(f, EDIT_PLACES, 1);
    f->edit.order = (int)(best - d->orders);
    f->asks_replay = true;
    rule_gain(m, f, fmax(rule_stood(l), now - then), now - then, 0.3);
    rule_fix(f, "--layout.order %s, or the launcher places ranks such that %s has its neighbours in one "
             "domain (mpirun --map-by, a rank file)", best->name, l->axis);
    rule_confirm(f, "headway train RECIPE --layout.order %s", best->name);
    return true;
}

const struct rule rules_axes[] = {
    { "C7", "the axis that talks most crosses domains", look_axes,
      { { 0.6, "of what passes within domains", "as C11: equal links differ by a fifth" },
        { 0.5, "of a lane's bytes that pass between domains",
          "fewer: most of its groups lie well" } } },
    { .id = "" },
};
