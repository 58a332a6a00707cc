/* The run as a whole: what is not a step, and whether it goes on at all. */
#include "diagnose/rule.h"

#include <math.h>
#include <stdio.h>

static bool look_hang(const struct measure *m, const struct rule_limit *limit, struct finding *f)
{
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

const struct rule rules_run[] = {
    { "R5", "the run stands still", look_hang,
      { { 10, "seconds of silence", "a slow disk or a swap storm ends by then" },
        { 5, "times the slowest step in a hundred", "evaluations and checkpoints are shorter" } } },
    { "R2", "a slow start", look_start,
      { { 0.1, "share of the run before the first step", "a tenth is worth a look" },
        { 600, "seconds of run", "a short run is all start, and nobody minds" } } },
    { .id = "" },
};
