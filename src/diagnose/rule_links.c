/* Slow links: one of them (C11), or all, by what bytes take (C4) or what beginning takes (C5).
 *
 * What tells: how exchanges of one group compare with those of others, what a line through their
 * sizes says, and what was measured before the run. */
#include "diagnose/rule.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- what is slow, of lanes ------------------------------------------------------- */

/* Of what was measured before the run: on a computed clock that repeats, but for what lanes that share
 * a link take from each other. */
static double where_given(const struct measure *m, double given, double measured)
{
    return m->config.simulated ? given : measured;
}

/* Of `less`, when an exchange takes `alone` without it, the pessimist has none of the crowd's
 * share, and one expects half of that. */
static void leave_to_crowd(const struct measure *m, struct finding_edit *e, double less, double alone)
{
    e->factor_hi = 1;
    e->factor_lo = less > 0 && isfinite(alone) ? fmax(0, 1 - (rule_crowd(m) - 1) * alone / less) : 1;
    e->factor = (e->factor_lo + e->factor_hi) / 2;
}

/* And which is bytes, at what they pass now. Delays of exchanges that are under way together overlap,
 * their bytes do not: both may be most of it. */
static double by_bytes(const struct measure_lane *l)
{
    return fmin(1, l->bytes / l->bytes_per_s / l->transfer_s);
}

/* What of the lane's exposed time goes when calls take `saved` seconds less. */
static double hidden_first(const struct measure_lane *l, double saved)
{
    return fmin(saved, rule_stood(l));
}

/* Exchanges begin as before the run, at best, and bytes pass as now; or the other way round. */
static void edit_latency(struct finding *f, const struct measure_lane *l)
{
    rule_edit_lane(f, l, 1);
    f->edit.floor = l->base_latency_s;
    f->edit.floor_per_byte = 1 / fmin(l->base_bytes_per_s, l->bytes_per_s); /* fmin: NaN is left out */
    f->edit.less = l->latency_s - l->base_latency_s;
}

static void edit_bandwidth(struct finding *f, const struct measure_lane *l)
{
    rule_edit_lane(f, l, 1);
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
        sum += rule_stood(&m->lanes[i]);
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
        if (told && (!worst || rule_stood(l) > rule_stood(worst)))
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

/* --- several of them -------------------------------------------------------------- */

/* As far apart slow links are from the next: equal ones were seen to differ by a fifth (C11). */
static const double apart = 0.8;

static int slowest_first(const void *a, const void *b)
{
    const struct measure_link *x = a, *y = b;
    return (x->bytes_per_s > y->bytes_per_s) - (x->bytes_per_s < y->bytes_per_s);
}

static i64 odd_links(struct measure_link *links, i64 n, double share, double *usual)
{
    struct arena a;
    i64 found = 0;
    qsort(links, (size_t)n, sizeof *links, slowest_first);
    arena_init(&a);
    double *rates = ARENA_ARRAY(&a, double, n);
    for (i64 i = 0; i < n; i++)
        rates[i] = links[i].bytes_per_s;
    for (i64 k = 2; 2 * k <= n && found == 0 && links[k - 1].members == 2; k++) {
        *usual = measure_quantile(rates + k, n - k, 0.5);
        if (rates[k - 1] < share * *usual && rates[k - 1] < apart * rates[k])
            found = links[0].members == 2 ? k : 0;
    }
    arena_fini(&a);
    return found;
}

static bool place_ends(const struct measure *m, const struct measure_link *links, i64 n,
                       struct finding *f)
{
    struct finding_ranks ends = { .n = 0 };
    for (i64 r = 0; r < m->n_ranks; r++) {
        bool is = false;
        for (i64 i = 0; i < n; i++)
            is |= links[i].a == m->ranks[r].rank || links[i].b == m->ranks[r].rank;
        if (is && ends.n == FINDING_RANKS)
            return false;
        if (is)
            ends.at[ends.n++] = m->ranks[r].rank;
    }
    f->place.several = ends;
    return true;
}

/* --- one of them ------------------------------------------------------------------ */

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
    const struct measure_lane *worst = rule_worst_lane(m);
    const bool longer = m->loss[LOSS_TRANSFER] >= m->theta;
    for (i64 i = 0; i < m->n_lanes && (worst || longer); i++) {
        const struct measure_lane *l = &m->lanes[i];
        if (l->lane == m->link_lane && (rule_stood(l) >= m->theta || (longer && rule_stood(l) > 0)))
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
    rule_tell_lane(l, f);
    rule_reject(f, "C4", "other links passed %.1f times as much before the run",
                usual / m->config.probed.bytes_per_s);
    rule_reject_wait(l, f);
    place_probed(m, f);
    rule_edit(f, EDIT_TRANSFER, 1);
    f->edit.groups = true; /* all that both ranks take part in */
    f->edit.floor_per_byte = 1 / usual;
    f->edit.less_per_byte = less;
    leave_to_crowd(m, &f->edit, less, 1 / usual);
    rule_gain(m, f, fmax(gain, rule_stood(l)), f->edit.factor * gain, 0.3);
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
    const i64 n = l->lane == m->link_lane ? odd_links(sorted, m->n_links, share, &usual) : 0;
    const bool found = n > 0 && place_ends(m, sorted, n, f);
    if (found) {
        const double slowest = sorted[0].bytes_per_s;
        f->title = "several slow links";
        for (i64 i = 0; i < i64_min(n, 3); i++)
            rule_evidence(f, "between ranks %d and %d %.0f MB/s pass, between others %.0f",
                          sorted[i].a, sorted[i].b, 1e-6 * sorted[i].bytes_per_s, 1e-6 * usual);
        rule_tell_lane(l, f);
        rule_reject_wait(l, f);
        rule_edit_lane(f, l, 1);
        f->edit.less_per_byte = 1 / slowest - 1 / usual;
        f->edit.floor = l->base_latency_s > 0 ? l->base_latency_s : 0;
        f->edit.floor_per_byte = 1 / usual; /* these ranks' other links stay as they are */
        leave_to_crowd(m, &f->edit, f->edit.less_per_byte, 1 / usual);
        rule_gain(m, f, rule_stood(l), f->edit.factor * rule_stood(l) * (1 - slowest / usual), 0.3);
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
    double gain = rule_stood(l) * (1 - fmin(1, (1 + rule_crowd(m)) / 2 * left));
    rule_tell_lane(l, f);
    place_link(slow, f);
    const bool spaced = slow->b - slow->a + 1 > slow->members;
    rule_evidence(f, slow->members <= 2 ? "between ranks %d and %d %.0f MB/s pass, between others %.0f"
                  : spaced ? "in the ring from rank %d on, to %d, %.0f MB/s pass, in others %.0f"
                           : "in the ring of ranks %d to %d %.0f MB/s pass, in others %.0f",
                  slow->a, slow->b, 1e-6 * slow->bytes_per_s, 1e-6 * usual);
    rule_reject(f, "C4", "the other links are %.1f times as fast", usual / slow->bytes_per_s);
    rule_reject_wait(l, f);
    rule_edit_lane(f, l, fmin(1, (1 + rule_crowd(m)) / 2 * left));
    f->edit.factor_lo = fmin(1, rule_crowd(m) * left);
    f->edit.factor_hi = left;
    if (m->slow_end.groups > 0 && m->slow_end.first == slow->a && m->slow_end.last == slow->b)
        edit_slow_end(m, f); /* in other lanes' groups too, of which the link is a part */
    if (f->place.rank < 0) { /* its members are no range of ranks, but no other group has both ends */
        f->edit.groups = true;
        f->edit.several.n = 0;
        f->edit.rank = slow->a;
        f->edit.last_rank = slow->b;
    }
    rule_gain(m, f, rule_stood(l), gain, 0.3);
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

/* --- all of them ------------------------------------------------------------------ */

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
    const struct measure_lane *l = rule_worst_lane(m);
    if (is_somewhere(m) && tell_slow_end(m, f, false))
        return true;
    double usual, share = where_given(m, limit[4].value, rule_where_crowded(m, limit[0].value,
                                                                      limit[3].value / rule_crowd(m)));
    const bool together = !l;
    l = l ? l : worst_of_all(m, share, INFINITY);
    if (!l || !(l->bytes_per_s < share * l->base_bytes_per_s) ||
        (rule_by_latency(l) > limit[1].value && by_bytes(l) < where_given(m, 0, limit[1].value)) ||
        odd_link(m, limit[2].value, &usual) ||
        is_by_probed(m, l, limit[2].value))
        return false;
    const double gain = at_stake(m, l, together, slow_bytes);
    if (!(gain >= m->theta)) /* the rest is what these bytes cost on a link as it was */
        return false;
    rule_tell_lane(l, f);
    rule_evidence(f, "before the run %.0f MB/s were measured between ranks",
                  1e-6 * l->base_bytes_per_s);
    tell_of_one_link(m, l, f);
    rule_reject_wait(l, f);
    if (rule_by_latency(l) <= limit[1].value)
        rule_reject(f, "C5", "latency is %.0f %% of what the exchanges take", 100 * rule_by_latency(l));
    if (m->n_links > 1)
        rule_reject(f, "C11", "all links are alike");
    edit_bandwidth(f, l);
    if (all_slow(m, share, INFINITY))
        f->edit.lane = -1;
    leave_to_crowd(m, &f->edit, f->edit.less_per_byte, 1 / l->base_bytes_per_s);
    rule_gain(m, f, fmax(gain, rule_stood(l)), f->edit.factor * gain, 0.3);
    rule_fix(f, "a faster link (%s), or fewer bytes over it: --train.accumulate %lld", l->axis,
             (long long)(2 * m->config.accumulate));
    rule_confirm_links(m, f);
    return true;
}

static bool look_latency(const struct measure *m, const struct rule_limit *limit,
                         struct finding *f)
{
    const struct measure_lane *l = rule_worst_lane(m);
    double times = where_given(m, limit[4].value, rule_where_crowded(m, limit[0].value, limit[2].value));
    if (is_somewhere(m) && tell_slow_end(m, f, true))
        return true;
    const bool together = !l;
    l = l ? l : worst_of_all(m, 0, times);
    if (!l || !(l->latency_s > times * l->base_latency_s) ||
        !(rule_by_latency(l) >= limit[1].value || l->bytes_per_s >= limit[3].value * l->base_bytes_per_s))
        return false;
    const double gain = at_stake(m, l, together, slow_starts);
    if (!(gain >= m->theta))
        return false;
    rule_tell_lane(l, f);
    rule_evidence(f, "before the run a small message took %.1f us", 1e6 * l->base_latency_s);
    tell_of_one_link(m, l, f);
    rule_reject_wait(l, f);
    if (!(by_bytes(l) >= limit[1].value))
        rule_reject(f, "C4", "bytes are %.0f %% of what the exchanges take", 100 - 100 * rule_by_latency(l));
    rule_reject(f, "C2", "each message itself takes %.1f times what it should",
                l->latency_s / l->base_latency_s);
    edit_latency(f, l);
    if (all_slow(m, 0, times))
        f->edit.lane = -1;
    const double rate = l->bytes_per_s > 0 ? l->bytes_per_s : l->base_bytes_per_s;
    leave_to_crowd(m, &f->edit, f->edit.less, l->base_latency_s + l->bytes / l->calls / rate);
    rule_gain(m, f, fmax(gain, rule_stood(l)), f->edit.factor * gain, 0.3);
    rule_fix(f, "the network's delay (route, interrupt moderation, busy polling), or fewer "
                "exchanges: --train.accumulate %lld", (long long)(2 * m->config.accumulate));
    rule_confirm_links(m, f);
    return true;
}

const struct rule rules_links[] = {
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
    { .id = "" },
};
