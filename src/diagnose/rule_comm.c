/* Bytes between ranks: too slow, too many, in too many pieces, or hidden behind nothing.
 *
 * A lane's exchange of bytes costs latency + bytes / bandwidth. Only what the compute lane stood
 * still for counts, and of that only what passed after the last rank had come: before, it is
 * somebody's lateness (the balance family). */
#include "diagnose/rule.h"
#include "graph/graph.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Ranks that share cores wait for each other's turns within an exchange, which a probe of two of
 * them does not see. */
static double where_crowded(const struct measure *m, double usual, double crowded)
{
    return m->threads_per_node > m->cores_per_node ? crowded : usual;
}

/* Of what was measured before the run: on a computed clock that repeats, but for what lanes that share
 * a link take from each other. */
static double where_given(const struct measure *m, double given, double measured)
{
    return m->config.simulated ? given : measured;
}

/* Where ranks share cores, what is slow leaves the others room. Once it is mended all come at once
 * again, and an exchange takes up to so many times what it takes alone. */
static double crowd(const struct measure *m)
{
    return where_crowded(m, 1, m->threads_per_node / m->cores_per_node);
}

/* Of `less`, when an exchange takes `alone` without it, the pessimist has none of the crowd's
 * share, and one expects half of that. */
static void leave_to_crowd(const struct measure *m, struct finding_edit *e, double less, double alone)
{
    e->factor_hi = 1;
    e->factor_lo = less > 0 && isfinite(alone) ? fmax(0, 1 - (crowd(m) - 1) * alone / less) : 1;
    e->factor = (e->factor_lo + e->factor_hi) / 2;
}

/* Seconds a step that the ranks stood still for bytes of this lane. */
static double stood(const struct measure_lane *l)
{
    return fmax(0, l->exposed_s - l->wait_exposed_s);
}

/* Which share of what its calls took is latency. */
static double by_latency(const struct measure_lane *l)
{
    if (!(l->transfer_s > 0) || !isfinite(l->latency_s))
        return NAN;
    return fmin(1, l->calls * l->latency_s / l->transfer_s); /* some begin behind others */
}

/* And which is bytes, at what they pass now. Delays of exchanges that are under way together overlap,
 * their bytes do not: both may be most of it. */
static double by_bytes(const struct measure_lane *l)
{
    return fmin(1, l->bytes / l->bytes_per_s / l->transfer_s);
}

/* With what it took their own threads to begin its exchanges. */
static double stood_and_began(const struct measure_lane *l)
{
    return stood(l) + (l->begin_s > 0 ? l->begin_s : 0);
}

/* What a lane costs; 0 for one that others wait for in any case. */
static double stood_if_can_hide(const struct measure_lane *l)
{
    return finding_can_hide(l->lane) ? stood(l) : 0;
}

static double stood_and_began_if_can_hide(const struct measure_lane *l)
{
    return finding_can_hide(l->lane) ? stood_and_began(l) : 0;
}

static double over_lanes(const struct measure *m, double (*cost)(const struct measure_lane *))
{
    double sum = 0;
    for (i64 i = 0; i < m->n_lanes; i++)
        sum += cost(&m->lanes[i]);
    return sum;
}

/* The lane that costs most; NULL when none costs `least`. */
static const struct measure_lane *costliest(const struct measure *m, double least,
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

static const struct measure_lane *worst_lane(const struct measure *m)
{
    return costliest(m, m->theta, stood);
}

/* Of those of gradients, whose sums are cut and begun alike, where they cost theta together. */
static const struct measure_lane *worst_of_sums(const struct measure *m,
                                                double (*cost)(const struct measure_lane *))
{
    return over_lanes(m, cost) >= m->theta ? costliest(m, 1e-3 * m->theta, cost) : NULL;
}

static void tell_lane(const struct measure_lane *l, struct finding *f)
{
    snprintf(f->place.lane, sizeof f->place.lane, "%s", l->axis);
    rule_evidence(f, "%s: %.0f exchanges and %.2f MB a step; the ranks stand still %.1f ms for "
                  "bytes, %.1f ms for ranks that have not come", l->axis, l->calls,
                  1e-6 * l->bytes, 1e3 * stood(l), 1e3 * l->wait_exposed_s);
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

static void reject_wait(const struct measure_lane *l, struct finding *f)
{
    rule_reject(f, "B1", "%.0f %% of the waiting is for bytes, not for a late rank",
                100 * stood(l) / fmax(l->exposed_s, 1e-12));
}

/* What of the lane's exposed time goes when calls take `saved` seconds less. */
static double hidden_first(const struct measure_lane *l, double saved)
{
    return fmin(saved, stood(l));
}

static void edit_lane(struct finding *f, const struct measure_lane *l, double factor)
{
    rule_edit(f, EDIT_TRANSFER, factor);
    f->edit.lane = l->lane;
}

/* Exchanges begin as before the run, at best, and bytes pass as now; or the other way round. */
static void edit_latency(struct finding *f, const struct measure_lane *l)
{
    edit_lane(f, l, 1);
    f->edit.floor = l->base_latency_s;
    f->edit.floor_per_byte = 1 / fmin(l->base_bytes_per_s, l->bytes_per_s); /* fmin: NaN is left out */
    f->edit.less = l->latency_s - l->base_latency_s;
}

static void edit_bandwidth(struct finding *f, const struct measure_lane *l)
{
    edit_lane(f, l, 1);
    f->edit.floor = l->base_latency_s; /* behind others its delay has passed */
    f->edit.delayed = true;
    f->edit.floor_per_byte = 1 / l->base_bytes_per_s;
    f->edit.less_per_byte = 1 / l->bytes_per_s - 1 / l->base_bytes_per_s;
}

/* Every lane that sends something has less than this share of its bandwidth, or more than so many
 * times its latency: it is the links, not what the lane does. */
static bool all_slow(const struct measure *m, double share, double times)
{
    bool all = true;
    for (i64 i = 0; i < m->n_lanes; i++) {
        const struct measure_lane *l = &m->lanes[i];
        if (isfinite(times)) /* a lane that does not tell which is no witness */
            all &= !(l->latency_s <= times * l->base_latency_s);
        else
            all &= !(l->bytes_per_s >= share * l->base_bytes_per_s);
    }
    return all;
}

static double slow_bytes(const struct measure_lane *l)
{
    return l->calls > 0 ? l->bytes * (1 / l->bytes_per_s - 1 / l->base_bytes_per_s) : NAN;
}

/* For whom ranks stand still, others wait: all of it is lost with the bytes. */
static double lost_to_transfer(const struct measure *m)
{
    double sum = 0;
    for (i64 i = 0; i < m->n_lanes; i++)
        sum += stood(&m->lanes[i]);
    return isfinite(m->loss[LOSS_TRANSFER]) ? m->loss[LOSS_TRANSFER] : sum;
}

/* Where no lane alone costs theta but all together do, and all are slow: the one that costs most. */
static const struct measure_lane *worst_of_all(const struct measure *m, double share, double times)
{
    const struct measure_lane *worst = NULL;
    if (!all_slow(m, share, times) || !(lost_to_transfer(m) >= m->theta))
        return NULL;
    for (i64 i = 0; i < m->n_lanes; i++) {
        const struct measure_lane *l = &m->lanes[i];
        const bool told = isfinite(times) ? isfinite(l->latency_s) : isfinite(l->bytes_per_s);
        if (told && (!worst || stood(l) > stood(worst)))
            worst = l;
    }
    return worst;
}

static double slow_starts(const struct measure_lane *l)
{
    return l->calls > 0 ? l->calls * (l->latency_s - l->base_latency_s) : NAN;
}

/* What of `slow` seconds of a lane's calls stood in the way; where all lanes are slow together, of
 * theirs. */
static double at_stake(const struct measure *m, const struct measure_lane *l, bool together,
                       double (*slow)(const struct measure_lane *))
{
    double sum = 0;
    for (i64 i = 0; i < m->n_lanes; i++)
        sum += fmax(0, slow(&m->lanes[i])); /* fmax: NaN is left out */
    return together ? fmin(sum, lost_to_transfer(m)) : hidden_first(l, slow(l));
}

/* --- links ------------------------------------------------------------------------ */

/* The slowest link, when it alone is slow: below `share` of the median of the others. */
static const struct measure_link *odd_link(const struct measure *m, double share, double *usual)
{
    const struct measure_link *slow = NULL;
    struct arena a;
    arena_init(&a);
    double *others = ARENA_ARRAY(&a, double, m->n_links);
    i64 n = 0;
    for (i64 i = 0; i < m->n_links; i++)
        if (!slow || m->links[i].bytes_per_s < slow->bytes_per_s)
            slow = &m->links[i];
    for (i64 i = 0; i < m->n_links; i++)
        if (&m->links[i] != slow)
            others[n++] = m->links[i].bytes_per_s;
    *usual = measure_quantile(others, n, 0.5);
    double next = measure_quantile(others, n, 0);
    arena_fini(&a);
    return n > 0 && slow->bytes_per_s < share * *usual && slow->bytes_per_s < 0.8 * next ? slow
                                                                                      : NULL;
}

/* The lane whose links are known, where it costs something; else the one that costs most. A lane's
 * seconds are a mean over ranks: for one link of a pipeline a few ranks only may stand still, for
 * less than theta on the mean, and yet the step is that much longer. */
static const struct measure_lane *lane_of_links(const struct measure *m)
{
    const struct measure_lane *worst = worst_lane(m);
    const bool longer = m->loss[LOSS_TRANSFER] >= m->theta;
    for (i64 i = 0; i < m->n_lanes && (worst || longer); i++) {
        const struct measure_lane *l = &m->lanes[i];
        if (l->lane == m->link_lane && (stood(l) >= m->theta || (longer && stood(l) > 0)))
            return l;
    }
    return worst;
}

/* Two ranks; of a ring of more its ranks, as far as there is room. */
static void place_link(const struct measure_link *l, struct finding *f)
{
    if (l->members <= 2) {
        f->place.rank = l->a;
        f->place.peer = l->b;
    } else if (l->b - l->a + 1 == l->members) {
        f->place.rank = l->a;
        f->place.last_rank = l->b;
    } else if (l->ranks && l->members <= FINDING_RANKS) {
        f->place.several.n = l->members;
        for (int i = 0; i < l->members; i++)
            f->place.several.at[i] = l->ranks[i];
    }
}

/* Seconds a step that the mean rank's exchanges would take longer, were all as slow as those. */
static double slow_end_delay(const struct measure *m)
{
    double sum = 0;
    for (i64 i = 0; i < m->n_lanes; i++)
        sum += m->lanes[i].calls * m->slow_end.delay_s;
    return sum;
}

static double slow_end_bytes(const struct measure *m)
{
    double sum = 0;
    for (i64 i = 0; i < m->n_lanes; i++)
        sum += m->lanes[i].bytes * m->slow_end.s_per_byte;
    return sum;
}

static void edit_slow_end(const struct measure *m, struct finding *f)
{
    rule_edit(f, EDIT_TRANSFER, 1);
    f->edit.groups = true;
    f->edit.less = m->slow_end.delay_s;
    f->edit.less_per_byte = m->slow_end.s_per_byte;
}

/* Where is a slow group: its two ranks, or the range that its ranks are; -1: none says it. */
static void place_slow_end(const struct measure_slow_end *e, struct finding *f)
{
    if (e->common == 1 || e->common == e->last - e->first + 1)
        f->place.rank = e->first;
    if (e->common == 2) {
        f->place.rank = e->first;
        f->place.peer = e->last;
    } else if (f->place.rank >= 0 && e->common > 2) {
        f->place.last_rank = e->last;
    }
}

/* Exchanges of one rank are slow whomever they are with; or those of one group, by a delay. */
static bool tell_slow_end(const struct measure *m, struct finding *f, bool by_delay)
{
    const struct measure_slow_end *e = &m->slow_end;
    const double lost = lost_to_transfer(m), delay = slow_end_delay(m), bytes = slow_end_bytes(m);
    if ((delay > bytes) != by_delay || !(lost >= m->theta))
        return false;
    place_slow_end(e, f);
    const bool one = e->common == 1;
    if (f->place.rank < 0 || (!one && !by_delay))
        return false;
    if (one)
        f->title = by_delay ? "high latency at one rank" : "low bandwidth at one rank";
    rule_evidence(f, "exchanges take %.1f times as long as others of their lanes in %lld groups, of "
                     "%lld lanes%s", e->times, (long long)e->groups, (long long)e->lanes,
                  one ? ": it alone is in all of them" : "");
    rule_evidence(f, "each takes %.0f us longer, and %.2f ms per MB", 1e6 * e->delay_s,
                  1e9 * e->s_per_byte);
    rule_reject(f, by_delay ? "C4" : "C5", "of what they take longer %.0f %% is by their bytes",
                100 * bytes / (delay + bytes));
    if (one)
        rule_reject(f, "C11", "no single link has all of them");
    edit_slow_end(m, f);
    rule_gain(m, f, lost, fmin(lost, delay + bytes), 0.3);
    rule_fix(f, "the network interface of %s, its cable and switch port; until then %s another host",
             m->ranks[e->first].host[0] ? m->ranks[e->first].host : "its host",
             one ? "give the rank" : "give one of these ranks");
    rule_confirm_link(m, e->first, -1, f);
    return true;
}

/* Whether exchanges are slow in some groups only: C4 and C5 are then about these. */
static bool is_somewhere(const struct measure *m)
{
    return m->slow_end.groups > 0 && m->slow_end.common < m->n_ranks;
}

/* Slow groups of several lanes have two ranks of the slow ring in common: theirs is the link. */
static bool is_of_two(const struct measure *m, const struct measure_link *ring)
{
    const struct measure_slow_end *e = &m->slow_end;
    return e->groups > 1 && e->lanes > 1 && e->common == 2 && ring->members > 2 &&
           ring->a <= e->first && e->last <= ring->b;
}

static void fix_link(const struct measure *m, int a, int b, struct finding *f)
{
    rule_fix(f, "replace or route around the link between ranks %d and %d (%s and %s); until then "
             "leave one of the two hosts out", a, b, m->ranks[a].host, m->ranks[b].host);
    rule_confirm_link(m, a, b, f);
}

/* Before the run all ranks' ring, which this link is part of, passed much more than the lane does
 * now: it waits for something else. What a simulated link does was not measured. */
static bool passed_more(const struct measure *m, const struct measure_lane *l, double share)
{
    const struct measure_probed *p = &m->config.probed;
    const bool neighbours = p->b == p->a + 1 || (p->a == 0 && p->b == m->n_ranks - 1);
    return !m->config.simulated && neighbours && l->bytes_per_s < share * l->base_bytes_per_s;
}

/* A link that was slow before the run, in a ring of this lane that passes about as little as it
 * did, beside what other links did. */
static bool is_by_probed(const struct measure *m, const struct measure_lane *l, double share)
{
    const struct measure_probed *p = &m->config.probed;
    const double middle = sqrt(p->bytes_per_s * p->others_bytes_per_s);
    if (p->a < 0 || !l || !(p->bytes_per_s < share * p->others_bytes_per_s) ||
        p->next_bytes_per_s < middle || /* it is not that one alone */
        passed_more(m, l, share))
        return false;
    for (int i = 0; i < m->n_probed_rings; i++)
        if (m->probed_rings[i].lane == l->lane && m->probed_rings[i].bytes_per_s < middle)
            return true;
    return false;
}

static void place_probed(const struct measure *m, struct finding *f)
{
    const struct measure_probed *p = &m->config.probed;
    f->place.several.n = f->place.last_rank = 0;
    f->place.rank = p->a;
    f->place.peer = p->b;
    rule_evidence(f, "before the run ranks %d and %d exchanged %.0f MB/s, others %.0f or more", p->a,
                  p->b, 1e-6 * p->bytes_per_s, 1e-6 * p->others_bytes_per_s);
    fix_link(m, p->a, p->b, f);
}

/* All of a ring's ranks wait alike for one link of it: where there is no other ring, only what was
 * measured before the run tells which. Rings of other lanes may have it, too. */
static bool look_probed_link(const struct measure *m, const struct measure_lane *l, double share,
                             struct finding *f)
{
    if (!is_by_probed(m, l, share))
        return false;
    const double usual = m->config.probed.others_bytes_per_s;
    const double rate = isfinite(l->bytes_per_s) ? l->bytes_per_s : m->config.probed.bytes_per_s;
    const double less = 1 / rate - 1 / usual;
    double gain = 0;
    for (i64 i = 0; i < m->n_lanes; i++)
        if (is_by_probed(m, &m->lanes[i], share))
            gain += hidden_first(&m->lanes[i], m->lanes[i].bytes * less);
    if (!(gain >= m->theta))
        return false;
    tell_lane(l, f);
    rule_reject(f, "C4", "other links passed %.1f times as much before the run",
                usual / m->config.probed.bytes_per_s);
    reject_wait(l, f);
    place_probed(m, f);
    rule_edit(f, EDIT_TRANSFER, 1);
    f->edit.groups = true; /* all that both ranks take part in */
    f->edit.floor_per_byte = 1 / usual;
    f->edit.less_per_byte = less;
    leave_to_crowd(m, &f->edit, less, 1 / usual);
    rule_gain(m, f, fmax(gain, stood(l)), f->edit.factor * gain, 0.3);
    return true;
}

/* Slow pairs that have no rank in common, beside as many or more that are not. */
static bool look_several_links(const struct measure *m, const struct measure_lane *l, double share,
                               struct finding *f)
{
    struct arena a;
    double usual = NAN;
    arena_init(&a);
    struct measure_link *sorted = ARENA_ARRAY(&a, struct measure_link, m->n_links);
    for (i64 i = 0; i < m->n_links; i++)
        sorted[i] = m->links[i];
    const i64 n = l->lane == m->link_lane ? rule_odd_links(sorted, m->n_links, share, &usual) : 0;
    const bool found = n > 0 && rule_place_ends(m, sorted, n, f);
    if (found) {
        const double slowest = sorted[0].bytes_per_s;
        f->title = "several slow links";
        for (i64 i = 0; i < i64_min(n, 3); i++)
            rule_evidence(f, "between ranks %d and %d %.0f MB/s pass, between others %.0f",
                          sorted[i].a, sorted[i].b, 1e-6 * sorted[i].bytes_per_s, 1e-6 * usual);
        tell_lane(l, f);
        reject_wait(l, f);
        edit_lane(f, l, 1);
        f->edit.less_per_byte = 1 / slowest - 1 / usual;
        f->edit.floor = l->base_latency_s > 0 ? l->base_latency_s : 0;
        f->edit.floor_per_byte = 1 / usual; /* these ranks' other links stay as they are */
        leave_to_crowd(m, &f->edit, f->edit.less_per_byte, 1 / usual);
        rule_gain(m, f, stood(l), f->edit.factor * stood(l) * (1 - slowest / usual), 0.3);
        fix_link(m, sorted[0].a, sorted[0].b, f);
    }
    arena_fini(&a);
    return found;
}

static bool look_one_link(const struct measure *m, const struct rule_limit *limit,
                          struct finding *f)
{
    double usual;
    const struct measure_lane *l = lane_of_links(m);
    const struct measure_link *slow = l ? odd_link(m, limit[0].value, &usual) : NULL;
    if (!slow && !is_somewhere(m))
        return look_probed_link(m, l, limit[0].value, f) ||
               (l && look_several_links(m, l, limit[0].value, f));
    if (!slow || (is_somewhere(m) && (m->slow_end.common == 1 ||
                                      slow_end_delay(m) > slow_end_bytes(m))))
        return false; /* C4 and C5 tell it */
    const double left = slow->bytes_per_s / usual;
    double gain = stood(l) * (1 - fmin(1, (1 + crowd(m)) / 2 * left));
    tell_lane(l, f);
    place_link(slow, f);
    const bool spaced = slow->b - slow->a + 1 > slow->members;
    rule_evidence(f, slow->members <= 2 ? "between ranks %d and %d %.0f MB/s pass, between others %.0f"
                  : spaced ? "in the ring from rank %d on, to %d, %.0f MB/s pass, in others %.0f"
                           : "in the ring of ranks %d to %d %.0f MB/s pass, in others %.0f",
                  slow->a, slow->b, 1e-6 * slow->bytes_per_s, 1e-6 * usual);
    rule_reject(f, "C4", "the other links are %.1f times as fast", usual / slow->bytes_per_s);
    reject_wait(l, f);
    edit_lane(f, l, fmin(1, (1 + crowd(m)) / 2 * left));
    f->edit.factor_lo = fmin(1, crowd(m) * left);
    f->edit.factor_hi = left;
    if (m->slow_end.groups > 0 && m->slow_end.first == slow->a && m->slow_end.last == slow->b)
        edit_slow_end(m, f); /* in other lanes' groups too, of which the link is a part */
    if (f->place.rank < 0) { /* its members are no range of ranks, but no other group has both ends */
        f->edit.groups = true;
        f->edit.several.n = 0;
        f->edit.rank = slow->a;
        f->edit.last_rank = slow->b;
    }
    rule_gain(m, f, stood(l), gain, 0.3);
    if (slow->members > 2 && is_by_probed(m, l, limit[0].value)) {
        place_probed(m, f);
        return true;
    }
    if (is_of_two(m, slow)) {
        f->place.several.n = f->place.last_rank = 0;
        f->place.rank = m->slow_end.first;
        f->place.peer = m->slow_end.last;
        edit_slow_end(m, f);
        rule_evidence(f, "ranks %d and %d are in all %lld groups that are slow, of %lld lanes",
                      f->place.rank, f->place.peer, (long long)m->slow_end.groups,
                      (long long)m->slow_end.lanes);
        rule_gain(m, f, lost_to_transfer(m), lost_to_transfer(m), 0.3);
        fix_link(m, f->place.rank, f->place.peer, f);
        return true;
    }
    if (slow->members > 2) {
        rule_fix(f, "find the slow link of that ring of %d: between two of its neighbours at a "
                    "time (headway comm), then replace it or route around it", slow->members);
        rule_confirm_link(m, slow->a, slow->ranks ? slow->ranks[1] : slow->b, f);
        rule_look(f, "what passes a second; then the same with the ring's next two hosts");
        return true;
    }
    fix_link(m, slow->a, slow->b, f);
    return true;
}

/* All of a ring's ranks wait alike for one link of it, and where there is no other ring nothing says
 * what they should take. */
static void tell_of_one_link(const struct measure *m, const struct measure_lane *l, struct finding *f)
{
    if (l->members > 2 && m->n_links < 2)
        rule_evidence(f, "one slow link of the ring of %lld would look the same: headway comm between two "
                      "neighbours at a time tells", (long long)l->members);
}

static bool look_bandwidth(const struct measure *m, const struct rule_limit *limit,
                           struct finding *f)
{
    const struct measure_lane *l = worst_lane(m);
    if (is_somewhere(m) && tell_slow_end(m, f, false))
        return true;
    double usual, share = where_given(m, limit[4].value, where_crowded(m, limit[0].value,
                                                                      limit[3].value / crowd(m)));
    const bool together = !l;
    l = l ? l : worst_of_all(m, share, INFINITY);
    if (!l || !(l->bytes_per_s < share * l->base_bytes_per_s) ||
        (by_latency(l) > limit[1].value && by_bytes(l) < where_given(m, 0, limit[1].value)) ||
        odd_link(m, limit[2].value, &usual) ||
        is_by_probed(m, l, limit[2].value))
        return false;
    const double gain = at_stake(m, l, together, slow_bytes);
    if (!(gain >= m->theta)) /* the rest is what these bytes cost on a link as it was */
        return false;
    tell_lane(l, f);
    rule_evidence(f, "before the run %.0f MB/s were measured between ranks",
                  1e-6 * l->base_bytes_per_s);
    tell_of_one_link(m, l, f);
    reject_wait(l, f);
    if (by_latency(l) <= limit[1].value)
        rule_reject(f, "C5", "latency is %.0f %% of what the exchanges take", 100 * by_latency(l));
    if (m->n_links > 1)
        rule_reject(f, "C11", "all links are alike");
    edit_bandwidth(f, l);
    if (all_slow(m, share, INFINITY))
        f->edit.lane = -1;
    leave_to_crowd(m, &f->edit, f->edit.less_per_byte, 1 / l->base_bytes_per_s);
    rule_gain(m, f, fmax(gain, stood(l)), f->edit.factor * gain, 0.3);
    rule_fix(f, "a faster link (%s), or fewer bytes over it: --train.accumulate %lld", l->axis,
             (long long)(2 * m->config.accumulate));
    rule_confirm_links(m, f);
    return true;
}

static bool look_latency(const struct measure *m, const struct rule_limit *limit,
                         struct finding *f)
{
    const struct measure_lane *l = worst_lane(m);
    double times = where_given(m, limit[4].value, where_crowded(m, limit[0].value, limit[2].value));
    if (is_somewhere(m) && tell_slow_end(m, f, true))
        return true;
    const bool together = !l;
    l = l ? l : worst_of_all(m, 0, times);
    if (!l || !(l->latency_s > times * l->base_latency_s) ||
        !(by_latency(l) >= limit[1].value || l->bytes_per_s >= limit[3].value * l->base_bytes_per_s))
        return false;
    const double gain = at_stake(m, l, together, slow_starts);
    if (!(gain >= m->theta))
        return false;
    tell_lane(l, f);
    rule_evidence(f, "before the run a small message took %.1f us", 1e6 * l->base_latency_s);
    tell_of_one_link(m, l, f);
    reject_wait(l, f);
    if (!(by_bytes(l) >= limit[1].value))
        rule_reject(f, "C4", "bytes are %.0f %% of what the exchanges take", 100 - 100 * by_latency(l));
    rule_reject(f, "C2", "each message itself takes %.1f times what it should",
                l->latency_s / l->base_latency_s);
    edit_latency(f, l);
    if (all_slow(m, 0, times))
        f->edit.lane = -1;
    const double rate = l->bytes_per_s > 0 ? l->bytes_per_s : l->base_bytes_per_s;
    leave_to_crowd(m, &f->edit, f->edit.less, l->base_latency_s + l->bytes / l->calls / rate);
    rule_gain(m, f, fmax(gain, stood(l)), f->edit.factor * gain, 0.3);
    rule_fix(f, "the network's delay (route, interrupt moderation, busy polling), or fewer "
                "exchanges: --train.accumulate %lld", (long long)(2 * m->config.accumulate));
    rule_confirm_links(m, f);
    return true;
}

/* Seconds that the beginnings of a lane's exchanges take, where it can be hidden. */
static double starts_of_sums(const struct measure_lane *l)
{
    return finding_can_hide(l->lane) && isfinite(l->latency_s) ? l->calls * l->latency_s : 0;
}

/* Where state is split among ranks, pieces are as it is split: no setting makes them larger. */
static bool look_small_pieces(const struct measure *m, const struct rule_limit *limit,
                              struct finding *f)
{
    const struct measure_lane *l =
        m->config.zero > 0 ? NULL : worst_of_sums(m, stood_and_began_if_can_hide);
    double pieces = l ? fmax(1, l->pieces) : 1;
    double times_base = where_crowded(m, limit[2].value, limit[4].value);
    if (!l || !(by_latency(l) >= limit[0].value) || !(pieces * l->calls >= limit[1].value) || l->latency_s > times_base * l->base_latency_s)
        return false;
    /* Until latency is a tenth of what the bytes take. */
    const double share = by_latency(l), least = limit[3].value;
    const double times = fmin(fmax(10 * share / fmax(1 - share, 1e-6), least), 16 * least);
    const double saved = 1 - 1 / times;
    const double begin = l->begin_s > 0 ? l->begin_s : 0;
    const double cost = over_lanes(m, stood_if_can_hide);
    double gain = fmin(cost, saved * over_lanes(m, starts_of_sums)) + saved * begin;
    tell_lane(l, f);
    if (begin >= m->theta)
        rule_evidence(f, "beginning them takes the ranks' own threads %.1f ms", 1e3 * begin);
    rule_evidence(f, "%.0f %% of what they take is the beginning of an exchange, not bytes",
                  100 * by_latency(l));
    rule_reject(f, "C5", "beginning one takes what was measured before the run");
    edit_lane(f, l, 1);
    f->edit.sums = pieces > 1; /* of one size: the more bytes, the more of them, in whatever lane */
    if (pieces > 1)
        f->edit.less_share = saved * share;
    else
        f->edit.less = saved * l->latency_s;
    f->edit.starts = saved; /* each piece is begun by the rank's own thread */
    f->edit.factor_hi = 1 / saved; /* as one exchange */
    rule_gain(m, f, cost + begin, gain, 0.4);
    i64 kib = (i64)ceil(times * l->bytes / l->calls / pieces / 1024);
    rule_fix(f, "fewer and larger exchanges: --layout.bucket %lldKiB, or --train.accumulate %lld",
             (long long)kib, (long long)(2 * m->config.accumulate));
    rule_confirm(f, "headway train RECIPE --layout.bucket %lldKiB", (long long)kib);
    return true;
}

/* Seconds of the backward pass, which could hide exchanges. */
static double backward_seconds(const struct measure *m)
{
    double sum = 0;
    for (i64 i = 0; i < m->n_ops; i++)
        if (m->ops[i].phase == PHASE_INPUT_GRAD || m->ops[i].phase == PHASE_WEIGHT_GRAD)
            sum += m->ops[i].seconds;
    return sum;
}

static bool look_large_pieces(const struct measure *m, const struct rule_limit *limit,
                              struct finding *f)
{
    const struct measure_lane *l = worst_of_sums(m, stood_if_can_hide);
    double each = backward_seconds(m) / (double)i64_max(1, m->config.micro_batches);
    if (!l || !(l->tail_s >= limit[0].value * stood(l)) ||
        l->backward_s > limit[1].value * each)
        return false;
    /* In pieces they hide behind one micro-batch's backward pass, the last one's, but for one. */
    const double all = over_lanes(m, stood_if_can_hide);
    double gain = fmin(all, each) * (1 - 1 / limit[2].value);
    if (!(gain >= m->theta))
        return false;
    tell_lane(l, f);
    rule_evidence(f, "%.1f ms of it are behind the backward pass, where nothing is left to compute",
                  1e3 * l->tail_s);
    rule_reject(f, "C1", "the exchanges begin when all gradients are there: none could be hidden");
    reject_wait(l, f);
    if (m->config.sums_at_end)
        rule_edit(f, EDIT_READY, 1);
    else
        edit_lane(f, l, fmax(0, 1 - gain / stood(l)));
    rule_gain(m, f, all, gain, 0.35);
    if (m->config.sums_at_end) {
        rule_fix(f, "--layout.sums ready: sums of gradients begin while others are computed");
        rule_confirm(f, "headway train RECIPE --layout.sums ready");
        return true;
    }
    i64 kib = (i64)fmax(64, ceil(l->bytes / l->calls / limit[2].value / 1024));
    rule_fix(f, "--layout.bucket %lldKiB: sums of gradients begin while others are computed",
             (long long)kib);
    rule_confirm(f, "headway train RECIPE --layout.bucket %lldKiB", (long long)kib);
    return true;
}

/* --- when and how often ----------------------------------------------------------- */

static bool look_volume(const struct measure *m, const struct rule_limit *limit,
                        struct finding *f)
{
    const struct measure_lane *l = worst_lane(m);
    if (!l || (l->lane != LANE_DP && l->lane != LANE_SHARD) || !(l->turns > limit[0].value) ||
        m->config.micro_batches < 2)
        return false;
    double gain = stood(l) * (1 - 1 / l->turns);
    tell_lane(l, f);
    rule_evidence(f, "the same tensors are exchanged %.1f times in a step", l->turns);
    reject_wait(l, f);
    edit_lane(f, l, 1 / l->turns);
    f->edit.factor_hi = 0; /* the one that is left may be hidden */
    rule_gain(m, f, stood(l), gain, 0.3);
    if (m->config.zero >= 2) {
        /* The last turn's stays where it is; the pessimist has as much of each turn's instead. */
        f->edit.kind = EDIT_ONE_TURN;
        f->edit.least = EDIT_TRANSFER;
        rule_fix(f, "--layout.zero 1: gradients are exchanged once a step, not per micro-batch");
        rule_confirm(f, "headway train RECIPE --layout.zero 1");
        return true;
    }
    const i64 batch = 2 * m->config.batch, fewer = i64_max(1, m->config.accumulate / 2);
    rule_fix(f, "larger micro-batches: --train.batch %lld with --train.accumulate %lld",
             (long long)batch, (long long)fewer);
    rule_confirm(f, "headway train RECIPE --train.batch %lld --train.accumulate %lld",
                 (long long)batch, (long long)fewer);
    return true;
}

/* Keys and values that pass round a ring are attended to while the next ones pass: that can be
 * hidden, too. */
static double stood_or_passed(const struct measure_lane *l)
{
    return l->lane == LANE_CP ? stood(l) : stood_if_can_hide(l);
}

/* What is behind the pass stays. Of sums alone: what goes round a ring, or is exchanged for heads, is
 * not theirs, and only a replay can say that it could be hidden, too. */
static double sums_before_end(const struct measure_lane *l)
{
    return fmax(0, stood_if_can_hide(l) - l->tail_s); /* fmax: NaN is left out */
}

static double stood_before_end(const struct measure_lane *l)
{
    return fmax(0, stood_or_passed(l) - l->tail_s);
}

static bool look_overlap(const struct measure *m, const struct rule_limit *limit,
                         struct finding *f)
{
    const struct measure_lane *l = worst_of_sums(m, stood_or_passed);
    const double share = where_crowded(m, limit[1].value, limit[3].value / crowd(m));
    const double times = where_crowded(m, limit[2].value, limit[4].value);
    if (!l || !(stood(l) > limit[0].value * l->transfer_s) ||
        l->bytes_per_s < share * l->base_bytes_per_s || l->latency_s > times * l->base_latency_s)
        return false;
    /* Where little could hide them, or most is what ends a step, they may stand in the way anyhow:
     * then only that ranks stand still for what they do not need yet says otherwise. */
    f->asks_replay = l->backward_s < stood(l) || l->tail_s >= 0.5 * stood(l) ||
                     l->lane == LANE_CP;
    tell_lane(l, f);
    rule_evidence(f, "%.0f %% of what the exchanges take is exposed, although %.1f ms of computing "
                  "could hide it", 100 * stood(l) / l->transfer_s, 1e3 * l->backward_s);
    rule_reject(f, "C4", "bytes pass as fast as before the run");
    reject_wait(l, f);
    const double before = over_lanes(m, l->lane == LANE_CP ? stood_before_end : sums_before_end);
    rule_edit(f, EDIT_OVERLAP, 0);
    rule_gain(m, f, before, 0.9 * fmin(before, l->backward_s), 0.25);
    rule_fix(f, "exchanges that begin behind each layer's gradient: --layout.sums ready, "
                "--layout.zero at most 1, a smaller --layout.bucket, and no --inject overlap=off");
    rule_confirm(f, "headway train RECIPE --layout.sums ready --layout.zero %lld",
                 (long long)i64_min(m->config.zero, 1));
    return true;
}

static bool look_contention(const struct measure *m, const struct rule_limit *limit,
                            struct finding *f)
{
    double lost = 0, alone = 0, beside = 0;
    for (i64 i = 0; i < m->n_ops; i++) {
        const struct measure_op *o = &m->ops[i];
        if (!(o->alone_calls >= 1) || !(o->beside_calls >= 1))
            continue;
        lost += fmax(0, o->beside_calls * (o->beside_s - o->alone_s));
        alone += o->beside_calls * o->alone_s;
        beside += o->beside_calls * o->beside_s;
    }
    if (!(beside > limit[0].value * alone) || !(lost >= m->theta) ||
        strcmp(m->config.backend, "none") == 0) /* tasks that sleep have no core to share */
        return false;
    rule_evidence(f, "tasks beside an exchange take %.2f times what the same ones take alone",
                  beside / alone);
    rule_reject(f, "H8", "it comes and goes with the exchanges");
    rule_gain(m, f, lost, lost, 0.4);
    i64 threads = i64_max(1, m->config.threads - 1);
    rule_fix(f, "leave a core to the exchanges: --train.threads %lld", (long long)threads);
    rule_confirm(f, "headway train RECIPE --train.threads %lld", (long long)threads);
    return true;
}

const struct rule rules_comm[] = {
    { "C11", "one slow link", look_one_link,
      { { 0.6, "of the other links' bandwidth", "equal links were seen to differ by a fifth" } } },
    { "C4", "low bandwidth", look_bandwidth,
      { { 0.7, "of the bandwidth before the run", "probes repeat within a fifth" },
        { 0.5, "share of latency", "more than half: it is latency (C5, C2)" },
        { 0.6, "of the other links' bandwidth", "as C11" },
        { 0.5, "of the bandwidth before the run, over the threads of a core, where ranks share them",
          "all come at once, and both ends of an exchange must have their turn" },
        { 0.92, "of the bandwidth before the run where times are given", "they repeat" } } },
    { "C5", "high latency", look_latency,
      { { 1.5, "times the latency before the run", "probes repeat within a fifth" },
        { 0.5, "share of latency", "less than half: it is bytes" },
        { 10, "times the latency before the run where ranks share cores",
          "4 ranks that took turns on 2 cores had 5 times, undisturbed" },
        { 0.9, "of the bandwidth before the run", "then bytes take what they took, whatever their share" },
        { 1.1, "times the latency before the run where times are given", "they repeat" } } },
    { "C2", "exchanges in too many pieces", look_small_pieces,
      { { 0.5, "share of latency", "as C5" },
        { 4, "exchanges a step", "fewer cannot be put together" },
        { 1.5, "times the latency before the run", "more: it is latency (C5)" },
        { 16, "times larger pieces at least",
          "leaves a sixteenth of the latency" },
        { 10, "times the latency before the run where ranks share cores", "as C5" } } },
    { "C3", "exchanges in too few pieces", look_large_pieces,
      { { 0.5, "of the exposed time that lies behind the backward pass",
          "with several pieces only the last one lies there" },
        { 0.1, "of a micro-batch's backward pass that the first exchange stands before",
          "with several pieces the first one has nearly all of it behind it" },
        { 8, "pieces that the fix makes of one", "of eight only one cannot be hidden" } } },
    { "C10", "the same is exchanged several times", look_volume,
      { { 1.2, "exchanges of a tensor in a step", "one, and some that a pipeline's ends "
                                                  "share" } } },
    { "C1", "exchanges that nothing hides", look_overlap,
      { { 0.5, "of what they take that is exposed", "what overlaps hides more than half" },
        { 0.7, "of the bandwidth before the run", "less: they are slow (C4)" },
        { 1.5, "times the latency before the run", "more: they are slow (C5)" },
        { 0.5, "of the bandwidth before the run, over the threads of a core, where ranks share them",
          "as C4" },
        { 10, "times the latency before the run where ranks share cores", "as C5" } } },
    { "C9", "computing slows down beside exchanges", look_contention,
      { { 1.1, "times as long as alone", "the same task repeats within 5 %" } } },
    { .id = "" },
};
