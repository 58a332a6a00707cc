/* The host: what it does between tasks, and what others do to its processors. */
#include "diagnose/rule.h"

#include <math.h>
#include <stdio.h>

/* --- gaps with a name ------------------------------------------------------------- */

/* The largest mean over ranks of one kind of gap, and at which rank. What is done once, in the end,
 * is done no less often whatever the recipe says. */
static double worst_gap(const struct measure *m, enum measure_host kind, i64 *rank)
{
    double most = 0;
    *rank = -1;
    for (i64 r = 0; r < m->n_ranks; r++) {
        double mean = measure_recurring(m, r, kind);
        if (mean > most) {
            most = mean;
            *rank = r;
        }
    }
    return most;
}

/* Such gaps in so many of the steps. */
static i64 times_of(const struct measure *m, i64 rank, enum measure_host kind, double least)
{
    i64 n = 0;
    for (i64 i = 0; rank >= 0 && i < m->n_steps; i++)
        n += m->ranks[rank].gap[kind][i] > least && !measure_is_final(m, i);
    return n;
}

static bool does_alone(const struct measure *m, i64 rank, enum measure_host kind)
{
    double most = measure_recurring(m, rank, kind);
    for (i64 r = 0; r < m->n_ranks; r++)
        if (r != rank && !(measure_recurring(m, r, kind) < 0.5 * most))
            return false;
    return true;
}

/* Fewer steps than this tell nothing of what they have in common. */
enum { LEAST_STEPS = 3 };
/* And what they have must be so many standard errors above the others. */
static const double least_errors = 3;

/* Steps that find caches full of what the host did before them compute for longer than the others: by
 * so much, over all steps; 0 where all or none stand behind such a gap, or it cannot be told. */
static double cold_behind(const struct measure *m, i64 rank, enum measure_host kind, double least)
{
    const struct measure_rank *k = &m->ranks[rank];
    struct arena a;
    arena_init(&a);
    double *behind = ARENA_ARRAY(&a, double, m->n_steps), *others = ARENA_ARRAY(&a, double, m->n_steps);
    i64 n = 0, rest = 0;
    for (i64 i = 1; i < m->n_steps; i++) {
        if (m->numbers[i] != m->numbers[i - 1] + 1 || !isfinite(k->compute[i]))
            continue;
        if (k->gap[kind][i - 1] > least)
            behind[n++] = k->compute[i];
        else
            others[rest++] = k->compute[i];
    }
    const struct measure_stat x = measure_stat(behind, n), y = measure_stat(others, rest);
    arena_fini(&a);
    const double more = x.median - y.median, se = fmax(hypot(x.se, y.se), y.sigma / sqrt((double)n));
    if (n < LEAST_STEPS || rest < LEAST_STEPS || !(more > least_errors * se))
        return 0;
    return more * (double)n / (double)m->n_steps;
}

/* What is done every so many steps (0: the recipe does not count it in steps) would be done so many
 * times more rarely. */
static bool look_gap(const struct measure *m, struct finding *f, enum measure_host kind,
                     const char *name, i64 every, double rarer)
{
    i64 rank;
    double lost = worst_gap(m, kind, &rank);
    if (!(lost >= m->theta))
        return false;
    i64 times = times_of(m, rank, kind, 0.1 * lost);
    if (times == 0 || (times == 1 && every < 1))
        return false; /* once is not too often */
    double kept = 1 / rarer;
    rule_evidence(f, "%s takes %.1f ms, %lld times in %lld steps: %.1f ms a step", name,
                  1e3 * lost * (double)m->n_steps / (double)times, (long long)times,
                  (long long)m->n_steps, 1e3 * lost);
    const double cold = cold_behind(m, rank, kind, 0.1 * lost);
    if (cold > 0)
        rule_evidence(f, "steps behind it compute for longer than others: %.1f ms a step more", 1e3 * cold);
    if (m->n_ranks > 1 && does_alone(m, rank, kind)) {
        f->place.rank = (int)rank;
        rule_evidence(f, "rank %lld does it, the others wait", (long long)rank);
    }
    rule_reject(f, "H9", "the pause has a name: %s", name);
    rule_edit(f, EDIT_HOST, kept);
    f->edit.factor_hi = 0; /* when it is not done at all */
    f->edit.host = (int)kind;
    f->period = every;
    f->beside = cold * (1 - kept);
    rule_gain(m, f, lost + cold, (lost + cold) * (1 - kept), 0.1);
    return true;
}

/* Of a run that does it every so many steps, so many that it is seen once before the end. */
static i64 steps_to_see(const struct measure *m, double every)
{
    i64 steps = i64_max(40, (i64)every + 1);
    return m->config.steps > 0 ? i64_min(steps, m->config.steps) : steps;
}

static bool look_log(const struct measure *m, const struct rule_limit *limit, struct finding *f)
{
    i64 every = i64_max(m->config.log_every, 1), fewer = every * (i64)limit[0].value;
    if (!look_gap(m, f, HOST_LOG, "logging", every, limit[0].value))
        return false;
    rule_fix(f, "--log.every %lld", (long long)fewer);
    rule_confirm(f, "headway train RECIPE --log.every %lld", (long long)fewer);
    return true;
}

static bool look_eval(const struct measure *m, const struct rule_limit *limit, struct finding *f)
{
    i64 rank;
    if (!(worst_gap(m, HOST_EVAL, &rank) >= limit[0].value * m->step.mean))
        return false;
    i64 every = i64_max(m->config.eval_every, 1), fewer = every * (i64)limit[1].value;
    if (!look_gap(m, f, HOST_EVAL, "evaluating", m->config.eval_every, limit[1].value))
        return false;
    rule_fix(f, "--eval.every %lld, or a smaller --eval.tokens", (long long)fewer);
    rule_confirm(f, "headway train RECIPE --eval.every %lld", (long long)fewer);
    f->confirm_steps = steps_to_see(m, (double)fewer);
    return true;
}

static bool look_checkpoint(const struct measure *m, const struct rule_limit *limit,
                            struct finding *f)
{
    i64 every = m->config.checkpoint_every;
    i64 fewer = i64_max(every, 1) * (i64)limit[0].value;
    if (!look_gap(m, f, HOST_CHECKPOINT, "saving a checkpoint", every, limit[0].value))
        return false;
    if (!m->config.checkpoint_async) {
        f->edit.factor_lo = 0.3; /* the copy that an asynchronous one still makes */
        f->edit.factor = 0.1;
        f->edit.factor_hi = 0;
        rule_gain(m, f, f->lost, 0.9 * f->lost, 0.15);
        rule_fix(f, "--checkpoint.async true: written while training goes on");
        rule_confirm(f, "headway train RECIPE --checkpoint.async true");
        f->confirm_steps = steps_to_see(m, every > 0 ? (double)every
                                                     : m->config.checkpoint_interval_s / m->step.mean);
        return true;
    }
    rule_fix(f, "--checkpoint.every %lld, or a faster disk for checkpoint.dir", (long long)fewer);
    rule_confirm(f, "headway train RECIPE --checkpoint.every %lld", (long long)fewer);
    f->confirm_steps = steps_to_see(m, (double)fewer);
    return true;
}

/* --- memory ----------------------------------------------------------------------- */

static bool look_churn(const struct measure *m, const struct rule_limit *limit,
                       struct finding *f)
{
    double most = 0;
    i64 rank = -1;
    for (i64 r = 0; r < m->n_ranks; r++)
        if (m->ranks[r].minor_faults > most) {
            most = m->ranks[r].minor_faults;
            rank = r;
        }
    double lost = most * m->ceilings.minor_fault_s;
    if (rank < 0 || !(lost >= m->theta))
        return false;
    const struct measure_rank *k = &m->ranks[rank];
    if (k->major_faults > limit[1].value * k->minor_faults ||
        k->system_s < limit[0].value * lost)
        return false;
    /* Giving pages back takes the kernel time, too; all of it passes where no task runs. */
    const double gap = measure_mean(m, k->gap[HOST_GAP]), usual = lost;
    if (gap > lost)
        lost = fmin(gap, fmax(lost, k->system_s));
    struct arena a;
    arena_init(&a);
    double *faults = ARENA_ARRAY(&a, double, m->n_ranks);
    for (i64 r = 0; r < m->n_ranks; r++)
        faults[r] = m->ranks[r].minor_faults;
    rule_place_ranks(m, faults, f);
    arena_fini(&a);
    rule_evidence(f, "%.0f pages a step are mapped afresh, %.2f us each: %.1f ms; %.1f ms of "
                  "processor time are the kernel's", most, 1e6 * m->ceilings.minor_fault_s,
                  1e3 * usual, 1e3 * k->system_s);
    if (gap > lost)
        rule_evidence(f, "between tasks %.1f ms a step pass in which nothing else is timed",
                      1e3 * gap);
    rule_reject(f, "H7", "%.1f pages a step come from storage", k->major_faults);
    rule_gain(m, f, lost, lost, 0.3);
    f->gain_hi = fmax(f->gain_hi, fmin(gap, m->step.mean)); /* fmax: NaN is left out */
    rule_fix(f, "memory that is given back and taken again in each step: keep it "
                "(MALLOC_TRIM_THRESHOLD_ "
                "and MALLOC_MMAP_THRESHOLD_ in the environment keep the C library from giving "
                "it back)");
    rule_confirm(f, "MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=4294967296 headway "
                    "train RECIPE");
    return true;
}

static bool look_pressure(const struct measure *m, const struct rule_limit *limit,
                          struct finding *f)
{
    for (i64 r = 0; r < m->n_ranks; r++) {
        const struct measure_rank *k = &m->ranks[r];
        double lost = fmax(k->major_faults * m->ceilings.major_fault_s,
                           k->memory_stall > limit[0].value ? k->memory_stall * m->step.mean : 0);
        if (!(lost >= m->theta) || !(k->rss_bytes > limit[1].value * k->limit_bytes) ||
            k->read_bytes > limit[2].value * k->used_bytes)
            continue;
        f->place.rank = m->n_ranks > 1 ? k->rank : -1;
        rule_evidence(f, "%.0f pages a step come from storage; tasks stand still for memory in "
                      "%.1f %% of the time", k->major_faults, 100 * k->memory_stall);
        rule_evidence(f, "%.2f GiB of %.2f GiB are in use", k->rss_bytes / 1073741824.,
                      k->limit_bytes / 1073741824.);
        rule_reject(f, "D3", "the loader reads what it uses: the pages are the model's");
        rule_gain(m, f, lost, lost, 0.3);
        rule_fix(f, "--train.recompute full or a smaller --train.batch with more "
                    "--train.accumulate; "
                    "on several ranks --layout.zero 1");
        rule_confirm(f, "headway train RECIPE --train.recompute full");
        return true;
    }
    return false;
}

/* --- processors ------------------------------------------------------------------- */

static bool look_neighbour(const struct measure *m, const struct rule_limit *limit,
                           struct finding *f)
{
    char there[RULE_WHERE];
    i64 rank = -1;
    double most = 0;
    for (i64 r = 0; r < m->n_ranks; r++)
        if (rule_robbed(&m->ranks[r]) > most) {
            most = rule_robbed(&m->ranks[r]);
            rank = r;
        }
    if (rank < 0 || !(most >= m->theta) || m->threads_per_node > m->cores_per_node)
        return false;
    const struct measure_rank *k = &m->ranks[rank];
    if (k->throttled_s > limit[0].value * most)
        return false;
    /* Where a rank alone is robbed, the others wait for it: the step loses what it loses. */
    double computing = measure_mean(m, k->compute);
    double lost = rule_robbed_computing(m, k);
    if (!(lost >= m->theta))
        return false;
    struct arena a;
    arena_init(&a);
    double *taken = ARENA_ARRAY(&a, double, m->n_ranks);
    for (i64 r = 0; r < m->n_ranks; r++)
        taken[r] = rule_robbed(&m->ranks[r]);
    rule_place_ranks(m, taken, f);
    arena_fini(&a);
    f->about = ABOUT_OTHERS;
    rule_evidence(f, "its threads are ready and do not run for %.1f ms a step%s", 1e3 * most,
                  f->place.rank < 0 && m->n_ranks > 1 ? ", on every rank alike" : "");
    if (isfinite(k->on_cpu))
        rule_evidence(f, "of the time that it wants to compute it is on a processor for %.0f %%",
                      100 * k->on_cpu);
    rule_reject(f, "K1", "%.0f thread%s for %.0f processor%s: not too many of its own",
                m->threads_per_node, m->threads_per_node > 1 ? "s" : "", m->cores_per_node,
                m->cores_per_node > 1 ? "s" : "");
    if (isfinite(k->throttled_s))
        rule_reject(f, "K4", "its quota held it back for %.1f ms a step", 1e3 * k->throttled_s);
    rule_edit(f, EDIT_COMPUTE, 1 - lost / fmax(computing, lost));
    rule_gain(m, f, lost, lost, 0.3);
    rule_fix(f, "something else runs on these processors: stop it, or give the ranks cores of "
                "their own (taskset, cpuset, --cpu-bind)");
    rule_confirm(f, "%stop -b -H -n 1", rule_there(m, rank, there));
    rule_look(f, "who else is on these processors; then the same run on an idle machine");
    return true;
}

/* A pause that stands in no span, in regular steps. */
static bool look_pause(const struct measure *m, const struct rule_limit *limit,
                       struct finding *f)
{
    struct measure_spikes worst = { .count = 0 };
    char there[RULE_WHERE];
    struct arena a;
    arena_init(&a);
    double *lost = ARENA_ARRAY(&a, double, m->n_ranks);
    for (i64 r = 0; r < m->n_ranks; r++) {
        struct measure_spikes s = measure_regular_pauses(m, r, limit[0].value, m->theta);
        lost[r] = s.area / (double)m->n_steps;
        if (lost[r] > 0 && s.area > worst.area)
            worst = s;
    }
    const double most = worst.area / (double)m->n_steps;
    double gaps = most; /* of the rank that has most: with what stands between its tasks anyhow */
    for (i64 r = 0; r < m->n_ranks; r++)
        gaps = fmax(gaps, lost[r] >= most ? measure_mean(m, m->ranks[r].gap[HOST_GAP]) : 0);
    const bool found = worst.count > 0 && most >= m->theta;
    if (found)
        rule_place_ranks(m, lost, f);
    arena_fini(&a);
    if (!found)
        return false;
    const bool regular = worst.count > 2;
    rule_evidence(f, "%s %lld steps %.1f ms pass in which nothing that is timed takes place "
                  "(%lld times%s)", regular ? "every" : "twice,", (long long)worst.period,
                  1e3 * worst.area / (double)worst.count, (long long)worst.count,
                  regular ? "" : ": whether it is regular is not known yet");
    rule_reject(f, "H3", "no evaluation, checkpoint or log line stands in the gap");
    rule_edit(f, EDIT_HOST, 1 - most / gaps);
    f->edit.host = HOST_GAP;
    f->period = worst.period;
    rule_gain(m, f, most, most, 0.15);
    rule_fix(f, "find what runs every %lld steps (%.1f s) on that host: a timer, a collector, a "
                "monitoring agent", (long long)worst.period, (double)worst.period * m->step.median);
    rule_confirm(f, "%sperf trace -a sleep %.0f", rule_there(m, f->place.rank, there),
                 fmax(1, ceil(2 * (double)worst.period * m->step.median)));
    rule_look(f, "while the run goes on: what wakes up every %.1f s",
              (double)worst.period * m->step.median);
    return true;
}

static bool look_overhead(const struct measure *m, const struct rule_limit *limit,
                          struct finding *f)
{
    double calls = 0, short_s = 0, all_s = 0;
    for (i64 i = 0; i < m->n_ops; i++) {
        const struct measure_op *o = &m->ops[i];
        all_s += o->seconds;
        if (o->median_s < limit[0].value * m->ceilings.op_s) {
            calls += o->calls;
            short_s += o->seconds;
        }
    }
    double lost = calls * m->ceilings.op_s;
    if (!(lost >= m->theta) || short_s < limit[1].value * all_s)
        return false;
    double gain = lost * (m->config.accumulate > 1 ? 1 - 1 / (double)m->config.accumulate : 0.5);
    rule_evidence(f, "%.0f tasks a step are shorter than %.0f us, %.0f times what beginning one "
                  "takes (%.1f us)", calls, 1e6 * limit[0].value * m->ceilings.op_s,
                  limit[0].value, 1e6 * m->ceilings.op_s);
    rule_reject(f, "K7", "%.0f %% of the computing is in such tasks: not their shape, their number",
                100 * short_s / all_s);
    rule_gain(m, f, lost, gain, 0.4);
    if (m->config.accumulate > 1)
        rule_fix(f, "--train.batch %lld --train.accumulate 1: as many rows, fewer tasks",
                 (long long)(m->config.batch * m->config.accumulate));
    else
        rule_fix(f, "--train.batch %lld: tasks twice as long, per token half as many",
                 (long long)(2 * m->config.batch));
    rule_confirm(f, "headway train RECIPE --train.batch %lld",
                 (long long)(m->config.batch * i64_max(2, m->config.accumulate)));
    return true;
}

/* Tasks that measure gradients, weights and scores, in the steps that are asked for. */
static bool look_watching(const struct measure *m, const struct rule_limit *limit,
                          struct finding *f)
{
    double lost = 0, calls = 0;
    for (i64 i = 0; i < m->n_ops; i++)
        if (m->ops[i].watching) {
            lost += m->ops[i].seconds;
            calls += m->ops[i].calls;
        }
    const i64 every = i64_max(1, m->config.health_every), fewer = every * (i64)limit[0].value;
    if (!(lost >= m->theta))
        return false;
    rule_evidence(f, "%.0f tasks that measure how learning goes take %.1f ms of every %lld. step",
                  calls * (double)every, 1e3 * lost * (double)every, (long long)every);
    rule_reject(f, "H1", "the time is in tasks, not in writing lines");
    rule_edit(f, EDIT_COMPUTE, 1 / limit[0].value);
    f->edit.factor_hi = 0;
    f->edit.watching = true;
    rule_gain(m, f, lost, lost * (1 - 1 / limit[0].value), 0.15);
    rule_fix(f, "--log.health %lld", (long long)fewer);
    rule_confirm(f, "headway train RECIPE --log.health %lld", (long long)fewer);
    return true;
}

const struct rule rules_host[] = {
    { "H1", "logging too often", look_log,
      { { 10, "times fewer lines that the fix proposes", "an order of magnitude makes it "
                                                         "vanish" } } },
    { "H2", "evaluating too often", look_eval,
      { { 0.05, "share of the time", "one part in twenty is what people set aside for it" },
        { 5, "times fewer evaluations that the fix proposes", "brings 5 % to 1 %" } } },
    { "H3", "checkpoints hold the step up", look_checkpoint,
      { { 10, "times fewer checkpoints that the fix proposes", "as H1" } } },
    { "H4", "memory is mapped afresh in each step", look_churn,
      { { 0.3, "of the loss that must be seen as the kernel's time",
          "what the kernel takes for a page is most of what a fault costs" },
        { 0.01, "of the faults that may come from storage", "else it is pressure" } } },
    { "H5", "too many short tasks", look_overhead,
      { { 20, "times an empty task that a short one takes",
          "above it, beginning a task is less than a twentieth of it" },
        { 0.3, "share of computing in short tasks", "else their number is not what the step "
                                                    "is" } } },
    { "H6", "what watches learning takes time", look_watching,
      { { 20, "times fewer steps watched that the fix proposes", "brings half of a step to a "
          "fortieth" } } },
    { "H7", "memory is short", look_pressure,
      { { 0.01, "share of time that tasks stand still for memory", "an idle system has none" },
        { 0.9, "of the limit in use", "the kernel takes pages back only near its limit" },
        { 1.5, "bytes read per byte used", "else the loader's pages are what is missing (D3)" } } },
    { "H8", "something else runs on these processors", look_neighbour,
      { { 0.5, "of the loss that a quota explains", "more than half: it is the quota (K4)" } } },
    { "H9", "a regular pause without a name", look_pause,
      { { 6, "sigma above the median", "at 40 steps chance gives fewer than one in a million" } } },
    { .id = "" },
};
