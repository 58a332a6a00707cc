/* What the run makes of exchanges: too many of them, too large ones, or hidden behind nothing. Slow
 * links are rule_links.c's.
 *
 * A lane's exchange of bytes costs latency + bytes / bandwidth. Only what the compute lane stood
 * still for counts, and of that only what passed after the last rank had come: before, it is
 * somebody's lateness (the balance family). */
#include "diagnose/rule.h"
#include "graph/graph.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* With what it took their own threads to begin its exchanges. */
static double stood_and_began(const struct measure_lane *l)
{
    return rule_stood(l) + (l->begin_s > 0 ? l->begin_s : 0);
}

/* What a lane costs; 0 for one that others wait for in any case. */
static double stood_if_can_hide(const struct measure_lane *l)
{
    return finding_can_hide(l->lane) ? rule_stood(l) : 0;
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

/* Of those of gradients, whose sums are cut and begun alike, where they cost theta together. */
static const struct measure_lane *worst_of_sums(const struct measure *m,
                                                double (*cost)(const struct measure_lane *))
{
    return over_lanes(m, cost) >= m->theta ? rule_costliest_lane(m, 1e-3 * m->theta, cost) : NULL;
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
    double times_base = rule_where_crowded(m, limit[2].value, limit[4].value);
    if (!l || !(rule_by_latency(l) >= limit[0].value) || !(pieces * l->calls >= limit[1].value) || l->latency_s > times_base * l->base_latency_s)
        return false;
    /* Until latency is a tenth of what the bytes take. */
    const double share = rule_by_latency(l), least = limit[3].value;
    const double times = fmin(fmax(10 * share / fmax(1 - share, 1e-6), least), 16 * least);
    const double saved = 1 - 1 / times;
    const double begin = l->begin_s > 0 ? l->begin_s : 0;
    const double cost = over_lanes(m, stood_if_can_hide);
    double gain = fmin(cost, saved * over_lanes(m, starts_of_sums)) + saved * begin;
    rule_tell_lane(l, f);
    if (begin >= m->theta)
        rule_evidence(f, "beginning them takes the ranks' own threads %.1f ms", 1e3 * begin);
    rule_evidence(f, "%.0f %% of what they take is the beginning of an exchange, not bytes",
                  100 * rule_by_latency(l));
    rule_reject(f, "C5", "beginning one takes what was measured before the run");
    rule_edit_lane(f, l, 1);
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
    if (!l || !(l->tail_s >= limit[0].value * rule_stood(l)) ||
        l->backward_s > limit[1].value * each)
        return false;
    /* In pieces they hide behind one micro-batch's backward pass, the last one's, but for one. */
    const double all = over_lanes(m, stood_if_can_hide);
    double gain = fmin(all, each) * (1 - 1 / limit[2].value);
    if (!(gain >= m->theta))
        return false;
    rule_tell_lane(l, f);
    rule_evidence(f, "%.1f ms of it are behind the backward pass, where nothing is left to compute",
                  1e3 * l->tail_s);
    rule_reject(f, "C1", "the exchanges begin when all gradients are there: none could be hidden");
    rule_reject_wait(l, f);
    if (m->config.sums_at_end)
        rule_edit(f, EDIT_READY, 1);
    else
        rule_edit_lane(f, l, fmax(0, 1 - gain / rule_stood(l)));
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
    const struct measure_lane *l = rule_worst_lane(m);
    if (!l || (l->lane != LANE_DP && l->lane != LANE_SHARD) || !(l->turns > limit[0].value) ||
        m->config.micro_batches < 2)
        return false;
    double gain = rule_stood(l) * (1 - 1 / l->turns);
    rule_tell_lane(l, f);
    rule_evidence(f, "the same tensors are exchanged %.1f times in a step", l->turns);
    rule_reject_wait(l, f);
    rule_edit_lane(f, l, 1 / l->turns);
    f->edit.factor_hi = 0; /* the one that is left may be hidden */
    rule_gain(m, f, rule_stood(l), gain, 0.3);
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
    return l->lane == LANE_CP ? rule_stood(l) : stood_if_can_hide(l);
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
    const double share = rule_where_crowded(m, limit[1].value, limit[3].value / rule_crowd(m));
    const double times = rule_where_crowded(m, limit[2].value, limit[4].value);
    if (!l || !(rule_stood(l) > limit[0].value * l->transfer_s) ||
        l->bytes_per_s < share * l->base_bytes_per_s || l->latency_s > times * l->base_latency_s)
        return false;
    /* Where little could hide them, or most is what ends a step, they may stand in the way anyhow:
     * then only that ranks stand still for what they do not need yet says otherwise. */
    f->asks_replay = l->backward_s < rule_stood(l) || l->tail_s >= 0.5 * rule_stood(l) ||
                     l->lane == LANE_CP;
    rule_tell_lane(l, f);
    rule_evidence(f, "%.0f %% of what the exchanges take is exposed, although %.1f ms of computing "
                  "could hide it", 100 * rule_stood(l) / l->transfer_s, 1e3 * l->backward_s);
    rule_reject(f, "C4", "bytes pass as fast as before the run");
    rule_reject_wait(l, f);
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
