/* Ranks that do not have, or do not do, equally much. */
#include "diagnose/rule.h"
#include "graph/graph.h"
#include "parallel/layout.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* --- ranks ------------------------------------------------------------------------ */

/* Steps in which one rank's time, above its peers', stands on another level than in the rest. */
static bool is_episode(const struct measure *m, struct measure_change c)
{
    i64 odd = c.until - c.at;
    return c.until > 0 && c.inside > c.before && odd < m->n_steps &&
           (c.at > 0 || c.until < m->n_steps);
}

static struct measure_change change_of(const struct measure *m, i64 rank, double least)
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
    struct measure_change c = measure_change(x, m->n_steps, least);
    arena_fini(&a);
    return c;
}

/* A rank that was as the others, then slower for a time (or from then on). */
static bool look_onset(const struct measure *m, const struct rule_limit *limit,
                       struct finding *f)
{
    struct measure_change worst = { .until = 0 };
    i64 rank = -1;
    for (i64 r = 0; r < m->n_ranks; r++) {
        struct measure_change c = change_of(m, r, limit[0].value);
        if (is_episode(m, c) && (rank < 0 || c.inside - c.before > worst.inside - worst.before)) {
            worst = c;
            rank = r;
        }
    }
    double steps = (double)(worst.until - worst.at);
    double inside = worst.inside - worst.before, lost = inside * steps / (double)m->n_steps;
    if (rank < 0 || !(inside >= fmax(2 * m->theta, limit[1].value * m->step.median)) ||
        !(lost >= 0.5 * m->theta))
        return false;
    /* Before and behind it the rank is as its peers, or there are none. */
    if (fabs(worst.before) > 0.5 * inside && m->n_ranks > 1 &&
        isfinite(rule_excess(m, rank, rule_compute).mean))
        return false;
    f->place.rank = m->n_ranks > 1 ? (int)rank : -1;
    f->place.first_step = m->numbers[worst.at];
    f->place.last_step = m->numbers[worst.until - 1];
    bool alone = m->n_ranks == 1;
    const i64 others = m->n_steps - (worst.until - worst.at);
    if (alone)
        f->title = "the step became slow";
    rule_evidence(f, "from step %lld to %lld %s %.1f ms longer a step than in the other %lld "
                  "(%.0f sigma)", (long long)f->place.first_step + 1,
                  (long long)f->place.last_step + 1, alone ? "computing takes" : "it computes",
                  1e3 * inside, (long long)others, worst.height);
    if (!alone && isfinite(rule_excess(m, rank, rule_compute).mean))
        rule_reject(f, "B1", "in the other %lld steps the rank is as fast as its peers",
                    (long long)others);
    if (m->ranks[rank].clock > 0.95)
        rule_reject(f, "K4", "its clock is at %.0f %% of what it was", 100 * m->ranks[rank].clock);
    rule_gain(m, f, lost, lost, 0.25);
    rule_fix(f, "see what that host did then (its log, its other jobs, its temperature); if "
                "it comes "
                "back, %s and go on with --resume",
             alone ? "take another host" : "give the rank another host");
    rule_confirm(f, "headway diagnose RUN --steps %lld-%lld",
                 (long long)f->place.first_step + 1, (long long)f->place.last_step + 1);
    return true;
}

/* Whether the other data-parallel ranks can share out rows and experts. */
static bool fits_without_one(const struct measure_config *c)
{
    return c->dp > 1 && (c->dp - 1) * c->cp % c->ep == 0 &&
           layout_rows_fit(c->islands, c->dp - 1, c->batch, (int)c->accumulate);
}

static bool look_slow_rank(const struct measure *m, const struct rule_limit *limit,
                           struct finding *f)
{
    struct rule_excess e;
    i64 rank = rule_odd_rank(m, rule_compute, &e);
    if (rank < 0 || !(e.median >= m->theta) || !(e.share >= limit[0].value) ||
        !(e.median > limit[1].value * e.sigma / sqrt((double)m->n_steps)) ||
        (m->config.pp < 2 && m->ranks[rank].last_share < limit[0].value - limit[2].value))
        return false; /* in a pipeline stages come last in turns */
    struct measure_change c = change_of(m, rank, 5);
    if (is_episode(m, c) && fabs(c.before) < 0.5 * (c.inside - c.before))
        return false;
    const struct measure_rank *k = &m->ranks[rank];
    f->place.rank = k->rank;
    f->place.stage = m->config.pp > 1 ? k->stage : -1;
    double usual = measure_mean(m, k->compute) - e.mean;
    rule_evidence(f, "it computes for %.1f ms a step, its peers %.1f ms: %.2f times as long",
                  1e3 * (usual + e.mean), 1e3 * usual, (usual + e.mean) / usual);
    rule_evidence(f, "it is the slowest in %.0f %% of the steps", 100 * e.share);
    if (isfinite(k->last_share))
        rule_evidence(f, "it comes last to %.0f %% of the exchanges", 100 * k->last_share);
    if (k->clock > 0)
        rule_reject(f, "K4", "its clock is at %.0f %% of what it was, no quota held it back",
                    100 * k->clock);
    if (isfinite(k->on_cpu))
        rule_reject(f, "H8", "its threads run for %.0f %% of the time that they are ready",
                    100 * k->on_cpu);
    rule_reject(f, "D6", "it is always the same rank");
    double lost = e.mean;
    if (isfinite(m->loss[LOSS_BALANCE]) && m->loss[LOSS_BALANCE] > 0)
        lost = fmax(m->loss[LOSS_BALANCE], e.mean);
    rule_edit(f, EDIT_EVEN_RANK, 1);
    rule_gain(m, f, lost, e.mean, 0.2);
    const char *host = k->host[0] ? k->host : "its host";
    if (m->config.pp > 1)
        rule_fix(f, "give rank %d (%s) another host; if it must stay: --layout.stages with fewer "
                    "layers on stage %d", k->rank, host, k->stage);
    else if (fits_without_one(&m->config))
        rule_fix(f, "give rank %d (%s) another host, or leave it out: --layout.dp %lld", k->rank,
                 host, (long long)(m->config.dp - 1));
    else
        rule_fix(f, "give rank %d (%s) another host", k->rank, host);
    rule_confirm(f, "headway machine --again on %s", host);
    return true;
}

struct spread {
    double mean, median;
};

/* Over steps, what the slowest rank of a stage has above its peers, in the stage where that is most. */
static struct spread spread_within_stages(const struct measure *m)
{
    struct arena a;
    arena_init(&a);
    double *x = ARENA_ARRAY(&a, double, m->n_ranks), *worst = ARENA_ARRAY(&a, double, m->n_steps);
    for (i64 i = 0; i < m->n_steps; i++)
        for (int p = 0; p < m->config.pp; p++) {
            i64 n = 0;
            for (i64 r = 0; r < m->n_ranks; r++)
                if (m->ranks[r].stage == p && isfinite(m->ranks[r].compute[i]))
                    x[n++] = m->ranks[r].compute[i];
            double above = measure_quantile(x, n, 1) - measure_quantile(x, n, 0.5);
            worst[i] = n > 1 ? fmax(worst[i], above) : worst[i];
        }
    struct measure_stat s = measure_stat(worst, m->n_steps);
    arena_fini(&a);
    return (struct spread){ m->n_steps > 0 ? s.mean : 0, s.median };
}

static bool look_jitter(const struct measure *m, const struct rule_limit *limit,
                        struct finding *f)
{
    double lost = m->loss[LOSS_BALANCE];
    struct rule_excess e;
    i64 rank = rule_odd_rank(m, rule_compute, &e);
    struct spread within = spread_within_stages(m);
    if (!isfinite(lost))
        lost = within.mean;
    if (!(within.median >= limit[2].value * within.mean))
        return false; /* in some odd steps only */
    if (rank < 0 || !(lost >= m->theta) || e.share >= limit[0].value ||
        e.median > limit[1].value * lost)
        return false;
    double sigma = measure_stat(m->ranks[rank].compute, m->n_steps).sigma;
    rule_evidence(f, "compute times vary by %.1f ms from step to step (%.0f %%), and each "
                     "step waits "
                  "for whoever is slowest: %.1f ms", 1e3 * sigma,
                  100 * sigma / fmax(m->compute, 1e-12), 1e3 * lost);
    rule_reject(f, "B1", "no rank is the slowest in more than %.0f %% of the steps",
                100 * e.share);
    rule_edit(f, EDIT_QUIET, 1);
    f->edit.least = EDIT_EVEN_ROWS; /* noise that stays, but evenly */
    rule_gain(m, f, lost, lost, 0.35);
    rule_fix(f, "cores of their own for the ranks (taskset, cpuset), a quiet system, or fewer "
                "meetings: --train.accumulate %lld", (long long)(2 * m->config.accumulate));
    rule_confirm(f, "headway machine --again, some times: how much this host varies");
    return true;
}

/* --- a pipeline's stages ---------------------------------------------------------- */

struct stages {
    double most, mean;
    int slow;
};

static struct stages see_stages(const struct measure *m)
{
    struct stages s = { 0, 0, 0 };
    for (int p = 0; p < m->config.pp && p < 64; p++) {
        s.mean += m->stages[p] / (double)m->config.pp;
        if (m->stages[p] > s.most) {
            s.most = m->stages[p];
            s.slow = p;
        }
    }
    return s;
}

/* A rank of the slow stage that is slow alone is no matter of the stage. */
static bool one_rank_only(const struct measure *m, int stage)
{
    struct rule_excess e;
    i64 rank = rule_odd_rank(m, rule_compute, &e);
    return rank >= 0 && m->ranks[rank].stage == stage && e.median >= m->theta && e.share >= 0.8;
}

static bool look_stages(const struct measure *m, const struct rule_limit *limit,
                        struct finding *f)
{
    struct stages s = see_stages(m);
    double M = (double)m->config.micro_batches, P = (double)m->config.pp;
    if (P < 2 || !(s.most > limit[0].value * s.mean) || one_rank_only(m, s.slow))
        return false;
    /* The slow stage alone is busy all the time; the others wait for it in each micro-batch. */
    double lost = (M + P - 1) / M * (s.most - s.mean);
    if (!(lost >= m->theta))
        return false;
    f->place.stage = s.slow;
    rule_evidence(f, "stage %d computes for %.1f ms a step, the mean of the stages is %.1f "
                     "ms", s.slow,
                  1e3 * s.most, 1e3 * s.mean);
    rule_reject(f, "B1", "the stage's ranks are alike");
    rule_reject(f, "B5", "%.0f micro-batches for %.0f stages: the bubble of even stages is "
                         "%.0f %%", M,
                P, 100 * (P - 1) / (M + P - 1));
    rule_edit(f, EDIT_EVEN_STAGES, 1);
    f->edit.stage = -1;
    rule_gain(m, f, lost, lost, 0.25);
    rule_fix(f, s.slow == P - 1 ? "--layout.stages with fewer layers on the last stage, which has "
                                  "the loss head too"
                                : "--layout.stages with fewer layers on stage %d", s.slow);
    rule_confirm(f, "headway layout show RECIPE --layout.stages A+B+...");
    return true;
}

static bool look_bubble(const struct measure *m, const struct rule_limit *limit,
                        struct finding *f)
{
    double M = (double)m->config.micro_batches, P = (double)m->config.pp;
    double lost = m->loss[LOSS_BUBBLE];
    if (P < 2)
        return false;
    struct stages s = see_stages(m);
    if (!isfinite(lost))
        lost = s.mean * (P - 1) / M;
    if (!(lost >= limit[0].value * m->step.mean) || !(lost >= m->theta))
        return false;
    /* Twice as many, half as long: so is what stands before and behind the steady part. It lies
     * between a pipeline that the slowest stage paces, and one that only the others fill. */
    double high = fmin((P - 1) * s.most / (2 * M), lost);
    double low = fmin((P * s.mean - s.most) / (2 * M), lost), gain = 0.5 * (low + high);
    rule_evidence(f, "%.0f micro-batches pass through %.0f stages: stages stand empty for "
                     "%.1f ms a "
                  "step, %.0f %%", M, P, 1e3 * lost, 100 * lost / m->step.mean);
    rule_reject(f, "B4", "the slowest stage has %.2f times the mean", s.most / s.mean);
    rule_gain(m, f, lost, gain, 0.15);
    f->gain_lo = fmin(f->gain_lo, 0.9 * low);
    f->gain_hi = fmax(f->gain_hi, 1.1 * high);
    rule_fix(f, "--train.accumulate %lld with --train.batch %lld, or --layout.schedule zb-h1",
             (long long)(2 * m->config.accumulate), (long long)i64_max(1, m->config.batch / 2));
    rule_confirm(f, "headway layout show RECIPE --train.accumulate %lld",
                 (long long)(2 * m->config.accumulate));
    return true;
}

/* Seconds that a rank computes per step with micro-batches of `times` as many rows: products read
 * their weights less often, and so many tasks fewer begin. */
static double compute_with(const struct measure *m, double times)
{
    double saved = 0, overhead = 0;
    for (i64 i = 0; i < m->n_ops; i++) {
        const struct measure_op *o = &m->ops[i];
        double by_flops = o->flops / m->ceilings.used;
        double by_bytes = o->bytes / m->ceilings.memory_bytes_per_s;
        if (o->phase == PHASE_UPDATE)
            continue;
        overhead += o->calls * m->ceilings.op_s * (1 - 1 / times);
        if (strncmp(o->name, "linear", 6) == 0 || strncmp(o->name, "expert_linear", 13) == 0)
            saved += o->seconds * (1 - fmax(by_flops, by_bytes / times) / fmax(by_flops, by_bytes));
    }
    return m->compute - saved - (isfinite(overhead) ? overhead : 0);
}

/* The same rows in fewer and larger micro-batches: T(k) = C(k) (1 + (P - 1) k / M). */
static bool look_tiny(const struct measure *m, const struct rule_limit *limit, struct finding *f)
{
    double M = (double)m->config.micro_batches, P = (double)m->config.pp, best = 0;
    double now = m->compute * (1 + (P - 1) / M);
    i64 times = 1;
    if (P < 2)
        return false;
    for (i64 k = 2; (double)k <= M && k <= (i64)limit[1].value; k *= 2) {
        double gain = now - compute_with(m, (double)k) * (1 + (P - 1) * (double)k / M);
        if (gain > best) {
            best = gain;
            times = k;
        }
    }
    double lost = m->compute - compute_with(m, (double)times);
    if (!(best >= m->theta) || !(m->compute > limit[0].value * (m->compute - lost)))
        return false;
    rule_evidence(f, "a micro-batch of %lld rows computes %.2f times as long per row as one of %lld "
                  "would, by FLOPs and bytes of its products", (long long)m->config.batch,
                  m->compute / (m->compute - lost), (long long)(times * m->config.batch));
    rule_evidence(f, "%.0f micro-batches for %.0f stages: with %.0f the bubble grows from %.0f to "
                  "%.0f %%", M, P, M / (double)times, 100 * (P - 1) / (M + P - 1),
                  100 * (P - 1) / (M / (double)times + P - 1));
    rule_reject(f, "B5", "there are %.1f micro-batches per stage", M / P);
    rule_gain(m, f, lost, best, 0.3);
    rule_fix(f, "%lld times larger micro-batches, as many times fewer: --train.batch and "
                "--train.accumulate", (long long)times);
    rule_confirm(f, "headway layout show RECIPE with it");
    return true;
}

/* --- experts ---------------------------------------------------------------------- */

static double expert_seconds(const struct measure *m)
{
    double sum = 0;
    for (i64 i = 0; i < m->n_ops; i++)
        if (strncmp(m->ops[i].name, "expert_linear", 13) == 0)
            sum += m->ops[i].seconds;
    return sum;
}

static bool look_experts(const struct measure *m, const struct rule_limit *limit,
                         struct finding *f)
{
    double worst = 0, sum = 0;
    for (i64 i = 0; i < m->n_experts; i++) {
        sum += m->experts[i].worst / (double)m->n_experts;
        if (m->experts[i].worst > worst) {
            worst = m->experts[i].worst;
            f->place.layer = m->experts[i].layer;
        }
    }
    double lost = expert_seconds(m) * (1 - 1 / sum);
    if (m->config.ep < 2 || !(sum > limit[0].value) || !(lost >= m->theta))
        return false;
    rule_evidence(f, "the fullest expert gets %.2f times the mean (layer %d: %.2f)", sum,
                  f->place.layer, worst);
    rule_evidence(f, "products of experts take %.1f ms a step", 1e3 * expert_seconds(m));
    rule_gain(m, f, lost, lost, 0.35);
    rule_fix(f, "more balance: the model's balance_rate or aux loss (model.override), or "
                "fewer ranks "
                "along ep");
    rule_confirm(f, "headway train RECIPE --log.every 1, and expert_imbalance in its metrics");
    return true;
}

const struct rule rules_balance[] = {
    { "B2", "a rank became slow", look_onset,
      { { 5, "sigma between the levels", "CUSUM's usual threshold: once in 10^4 steps by chance" },
        { 0.05, "of the step", "smaller episodes are weather" } } },
    { "B1", "one rank is always slow", look_slow_rank,
      { { 0.8, "share of steps in which it is the slowest", "of equal ranks none is it so often" },
        { 4, "standard errors above its peers", "one in 10^4 by chance" },
        { 0.2, "less often last to exchanges than slowest",
          "some stand before its slow tasks" } } },
    { "B3", "ranks are slow by turns", look_jitter,
      { { 0.8, "share of steps in which one rank is the slowest", "more: it is that rank (B1)" },
        { 0.5, "of the loss that one rank explains", "more: it is that rank (B1)" },
        { 0.25, "of its mean that the spread of ranks has in half of the steps",
          "noise in every task has it; less: a few steps were disturbed" } } },
    { "B4", "stages of unequal length", look_stages,
      { { 1.05, "times the mean of the stages", "equal stages repeat within 3 %" } } },
    { "B5", "too few micro-batches for the pipeline", look_bubble,
      { { 0.1, "of the step", "a tenth is what good schedules leave" } } },
    { "B6", "micro-batches are smaller than the pipeline needs", look_tiny,
      { { 1.1, "times the time per row of larger ones", "below it the curve is flat" },
        { 16, "times larger at most", "beyond, activations are what decides" } } },
    { "B7", "experts of unequal load", look_experts,
      { { 1.2, "times the mean load", "a balanced router stays below" } } },
    { .id = "" },
};
