/* The run as a whole: what is not a step, and whether it goes on at all. */
#include "base/err.h"
#include "diagnose/rule.h"

#include <math.h>
#include <stdio.h>

/* The run has ended because a rank did not come or called something else: its ranks have left
 * word. */
static bool look_lost(const struct measure *m, struct finding *f)
{
    f->urgent = true;
    f->title = m->end_exit == EXIT_HANG        ? "the run stood still until it was ended"
               : m->end_exit == EXIT_PEER_LOST ? "the run lost a rank"
                                               : "ranks did not make the same calls";
    f->place.rank = (int)m->end_absent;
    rule_evidence(f, "it ended with exit code %lld after step %lld: %s", (long long)m->end_exit,
                  (long long)m->end_step, m->end_why);
    rule_fix(f, "look at that rank's host and what it wrote last; then headway train RECIPE "
                "--resume");
    rule_confirm(f, "tail RUN/log.txt");
    return true;
}

static bool look_hang(const struct measure *m, const struct rule_limit *limit, struct finding *f)
{
    if (m->ended && m->end_exit != 0)
        return look_lost(m, f);
    double p99 = measure_quantile(m->seconds, m->n_steps, 0.99);
    double patience = fmax(limit[0].value, isfinite(p99) ? limit[1].value * p99 : 0);
    if (m->ended || !(m->silent_s > patience))
        return false;
    f->urgent = true;
    f->place.rank = (int)m->behind_rank;
    rule_evidence(f, "nothing was recorded for %.0f s; a step takes %.2f s", m->silent_s,
                  m->step.median);
    if (m->behind_rank >= 0)
        rule_evidence(f, "rank %lld has made %lld exchanges fewer than the others",
                      (long long)m->behind_rank, (long long)m->calls_behind);
    rule_fix(f, "if the process is gone: headway train RECIPE --resume; if it is there, its "
                "log names "
                "the rank and the exchange that it waits for");
    rule_confirm(f, "tail RUN/log.txt");
    f->lost = m->silent_s;
    return true;
}

/* Over the whole run, as seconds per step. */
static bool look_start(const struct measure *m, const struct rule_limit *limit,
                       struct finding *f)
{
    double share = m->start_s / m->run_s, steps = m->run_s / m->step.mean;
    if (!(m->run_s >= limit[1].value) || !(share >= limit[0].value))
        return false;
    double lost = m->start_s / steps;
    rule_evidence(f, "%.1f of %.1f s passed before the first step", m->start_s, m->run_s);
    rule_gain(m, f, lost, 0.7 * lost, 0.4);
    rule_fix(f, "sources prepared beforehand (headway data prepare), --run.preflight no once the "
                "machines are known");
    rule_confirm(f, "headway train RECIPE --run.preflight no");
    return true;
}

/* Young's first-order optimum: saving takes C / t of the time and failures lose t / 2 each. */
static bool look_interval(const struct measure *m, const struct rule_limit *limit,
                          struct finding *f)
{
    double stall = 0, step = m->step.mean, mtbf = m->up_s / (double)m->failures;
    for (i64 r = 0; r < m->n_ranks; r++)
        stall = fmax(stall, measure_mean(m, m->ranks[r].gap[HOST_CHECKPOINT]));
    double every = (double)m->config.checkpoint_every * step;
    if (m->config.checkpoint_interval_s > 0 && !(every > 0 && every < m->config.checkpoint_interval_s))
        every = m->config.checkpoint_interval_s;
    bool seen = stall > 0 && every > 0;
    double C = seen ? stall / step * every : m->memory_peak_bytes / limit[1].value;
    if (m->failures < (i64)limit[0].value || !(C > 0))
        return false;
    double best = fmax(sqrt(2 * C * mtbf), step), now = (every > 0 ? C / every : 0) + m->retaken_s / m->up_s;
    double gain = step * (now - C / best - best / (2 * mtbf)) / (1 + now);
    if (!(gain >= limit[2].value * step)) /* not theta: steps' noise is not in it */
        return false;
    rule_evidence(f, "%lld times in %.3g s work was lost before it was saved: %.3g s of it was done "
                  "again", (long long)m->failures, m->up_s, m->retaken_s);
    if (seen)
        rule_evidence(f, "a checkpoint holds the step up for %.3g s, every %.3g s", C, every);
    else
        rule_evidence(f, "none was saved in these steps: it is taken to hold up for %.3g s", C);
    rule_reject(f, "H3", "checkpoints themselves take %.1f %% of the time",
                every > 0 ? 100 * C / every : 0);
    rule_gain(m, f, step * now, gain, 1 / sqrt((double)m->failures));
    rule_fix(f, "--checkpoint.every %.0f: the square root of twice a checkpoint's time times that "
                "between failures is %.3g s", fmax(1, best / step), best);
    rule_confirm(f, "headway train RECIPE --checkpoint.every %.0f", fmax(1, best / step));
    rule_look(f, "what saving takes in it, and after a failure the retaken steps of headway trace "
                 "ladder");
    f->confirm_steps = i64_max(40, (i64)(best / step) + 1);
    return true;
}

/* Behind what larger micro-batches mend. */
static bool look_unused(const struct measure *m, const struct rule_limit *limit,
                        struct finding *f)
{
    double peak = m->memory_peak_bytes, all = m->memory_limit_bytes;
    if (!(peak < limit[0].value * all))
        return false;
    const i64 batch = m->config.batch; /* what does not grow with it is counted as if it did */
    const i64 room = (i64)floor((double)batch * limit[1].value * all / peak);
    /* What is lost once for each micro-batch is below theta with so many rows in one. */
    const i64 enough = batch * i64_max(2, (i64)ceil(f->lost / m->theta));
    /* The rows of a step stay what they are, where they are gathered in several micro-batches. */
    const i64 step = m->config.accumulate > 1 ? batch * m->config.accumulate : INT64_MAX;
    const i64 fits = i64_min(i64_min(room, enough), step);
    const double times = limit[1].value * all / peak;
    rule_evidence(f, "%.2f of %.2f GiB are in use at most", peak / 1073741824., all / 1073741824.);
    if (fits == step)
        rule_fix(f, "--train.batch %lld, all rows of a step at once: %.1f times what is in use fits",
                 (long long)fits, times);
    else if (fits == room)
        rule_fix(f, "--train.batch %lld at least: %.1f times what is in use fits", (long long)fits,
                 times);
    else
        rule_fix(f, "--train.batch %lld: what is lost is within noise then, and %.1f times what is in "
                 "use fits", (long long)fits, times);
    rule_confirm(f, "headway train RECIPE --train.batch %lld", (long long)fits);
    return fits > batch;
}

const struct rule rules_run[] = {
    { "R5", "the run stands still", look_hang,
      { { 10, "seconds of silence", "a slow disk or a swap storm ends by then" },
        { 5, "times the slowest step in a hundred", "evaluations and checkpoints are shorter" } } },
    { "R2", "a slow start", look_start,
      { { 0.1, "share of the run before the first step", "a tenth is worth a look" },
        { 600, "seconds of run", "a short run is all start, and nobody minds" } } },
    { "R1", "checkpoints too far apart for these failures", look_interval,
      { { 2, "failures", "one may be chance: nothing says how often they come" },
        { 5e8, "bytes per second that a checkpoint is saved at, where none was seen",
          "a slow disk" },
        { 0.02, "of the time", "as much as any finding must lose" } } },
    { "R3", "memory that a larger micro-batch could use", look_unused,
      { { 0.6, "of the limit in use", "above it not many more rows fit" },
        { 0.9, "of the limit that may be in use then", "as K10" } } },
    { .id = "" },
};
