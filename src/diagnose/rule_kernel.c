/* Computing: what a rank's tasks take, against what this machine could do. */
#include "diagnose/rule.h"
#include "graph/graph.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static bool is_product(const struct measure_op *o)
{
    return strncmp(o->name, "linear", 6) == 0 || strncmp(o->name, "expert_linear", 13) == 0;
}

/* --- processors ------------------------------------------------------------------- */

static bool look_oversubscribed(const struct measure *m, const struct rule_limit *limit,
                                struct finding *f)
{
    if (!(m->threads_per_node > limit[0].value * m->cores_per_node))
        return false;
    double u = 0, n = 0;
    for (i64 r = 0; r < m->n_ranks; r++)
        if (isfinite(m->ranks[r].on_cpu)) {
            u += m->ranks[r].on_cpu;
            n++;
        }
    double share = n > 0 ? u / n : NAN;
    double lost = m->step.mean * (1 - share);
    if (!(lost >= m->theta) || !(share < limit[1].value))
        return false;
    double threads = floor(m->cores_per_node * (double)m->config.threads / m->threads_per_node);
    rule_evidence(f, "%.0f threads compute on %.0f processors", m->threads_per_node,
                  m->cores_per_node);
    rule_evidence(f, "of the time that they are ready they run for %.0f %%", 100 * share);
    rule_reject(f, "H8", "the threads are this run's own");
    rule_gain(m, f, lost, lost, 0.4);
    rule_fix(f, "--train.threads %.0f", fmax(1, threads));
    rule_confirm(f, "headway train RECIPE --train.threads %.0f", fmax(1, threads));
    return true;
}

/* The op whose threads wait most for the last of them. */
static bool look_skewed(const struct measure *m, const struct rule_limit *limit,
                        struct finding *f)
{
    const struct measure_op *worst = NULL;
    for (i64 i = 0; i < m->n_ops; i++)
        if (m->ops[i].skewed_s >= m->theta && (!worst || m->ops[i].skewed_s > worst->skewed_s))
            worst = &m->ops[i];
    if (!worst || !(worst->skewed_s > (1 - limit[0].value) * worst->seconds))
        return false;
    snprintf(f->place.op, sizeof f->place.op, "%s", worst->name);
    rule_evidence(f, "of %.1f ms in %s a step, its threads work for %.0f %% on average: the others "
                  "wait for the last one", 1e3 * worst->seconds, worst->name,
                  100 * (1 - worst->skewed_s / worst->seconds));
    rule_reject(f, "H8", "the threads were on their processors while they worked");
    rule_edit(f, EDIT_COMPUTE, 1 - worst->skewed_s / worst->seconds);
    f->edit.phase = worst->phase;
    rule_gain(m, f, worst->skewed_s, worst->skewed_s, 0.25);
    rule_fix(f, "a --train.batch whose rows the threads can share out evenly, or fewer "
                "--train.threads; if one thread does it all, its kernel is not parallel");
    rule_confirm(f, "headway train RECIPE --train.batch %lld", (long long)(2 * m->config.batch));
    return true;
}

/* --- memory ------------------------------------------------------------------------- */

/* Seconds a step of tasks that wait for memory, not for arithmetic. */
static double memory_bound(const struct measure *m)
{
    double sum = 0;
    for (i64 i = 0; i < m->n_ops; i++) {
        const struct measure_op *o = &m->ops[i];
        if (o->bytes / m->ceilings.memory_bytes_per_s > o->flops / m->ceilings.used)
            sum += o->seconds;
    }
    return sum;
}

/* Its memory-bound tasks, when that much of what they read comes from as far. */
static double lost_to_distance(const struct measure_rank *k, double bound)
{
    double lost = bound * k->far_share * (1 - k->far_speed);
    return k->far_speed > 0 && lost > 0 ? lost : 0; /* NaN: not known */
}

static bool look_far_memory(const struct measure *m, const struct rule_limit *limit,
                            struct finding *f)
{
    const double bound = memory_bound(m);
    const struct measure_rank *k = &m->ranks[0];
    for (i64 r = 1; r < m->n_ranks; r++)
        if (lost_to_distance(&m->ranks[r], bound) > lost_to_distance(k, bound))
            k = &m->ranks[r];
    const double lost = lost_to_distance(k, bound);
    if (!(lost >= m->theta) || !(k->far_share > limit[0].value))
        return false;
    struct arena a;
    arena_init(&a);
    double *each = ARENA_ARRAY(&a, double, m->n_ranks);
    for (i64 r = 0; r < m->n_ranks; r++)
        each[r] = lost_to_distance(&m->ranks[r], bound);
    rule_place_ranks(m, each, f);
    arena_fini(&a);
    rule_evidence(f, "%.0f %% of its memory lies on NUMA nodes other than those of its processors, "
                  "from where it comes at %.0f %% of the speed, by the firmware's distances",
                  100 * k->far_share, 100 * k->far_speed);
    rule_evidence(f, "%.1f ms a step go into tasks that wait for memory", 1e3 * bound);
    rule_reject(f, "H7", "nothing of it comes from storage: %.0f such faults a step",
                isfinite(k->major_faults) ? k->major_faults : 0);
    const double gained = lost / fmax(lost, measure_mean(m, k->compute));
    rule_edit(f, EDIT_COMPUTE, 1 - gained);
    f->edit.factor_lo = 1 - (1 - limit[1].value) * gained;
    f->edit.factor_hi = fmax(0, 1 - (1 + limit[1].value) * gained);
    rule_gain(m, f, lost, lost, limit[1].value);
    rule_fix(f, "one rank per NUMA node, with processors and memory of that node: numactl "
                "--cpunodebind N --membind N headway train ..., or the launcher's "
                "--map-by numa --bind-to numa, --ranks as many as nodes");
    rule_confirm(f, "numastat -p $(pgrep -n headway)");
    return true;
}

enum { RULE_K1, RULE_K2, RULE_K4 }; /* the first of rules_kernel */

/* By quota. */
static double held_back(const struct measure_rank *r, double least)
{
    return r->throttles > 0 && r->throttled_s >= least ? r->throttled_s : 0;
}

/* Of its speed at the start: below that a clock is low. */
static double low_clock(const struct measure *m, const struct rule_limit *limit)
{
    return limit[m->config.simulated ? 2 : 0].value;
}

/* Steps in which the clock stood on a lower level than in the rest of them; until 0: none. */
static struct measure_change clock_fell(const struct measure *m, const struct measure_rank *r,
                                        const struct rule_limit *limit)
{
    const i64 n = m->n_steps;
    struct measure_change c = measure_change_of(m, r->phi, n, limit[1].value);
    if (c.until - c.at == n || !(c.inside < low_clock(m, limit)) || c.before < low_clock(m, limit))
        c.until = 0;
    return c;
}

double rule_low_clock(const struct measure *m, const struct measure_rank *r)
{
    const struct rule_limit *limit = rules_kernel[RULE_K4].limit;
    const bool low = r->clock > 0 && r->clock < low_clock(m, limit);
    return low && clock_fell(m, r, limit).until == 0 ? r->clock : 1;
}

/* By the clock: what slower registers cost while computing. */
static double slowed(const struct measure *m, const struct measure_rank *r,
                     const struct rule_limit *limit)
{
    const struct measure_change c = clock_fell(m, r, limit);
    double sum = 0;
    if (c.until == 0)
        return r->clock < low_clock(m, limit) ? measure_mean(m, r->compute) * (1 - r->clock) : 0;
    for (i64 i = c.at; i < c.until; i++)
        sum += r->compute[i] * (1 - c.inside);
    return sum / (double)m->n_steps;
}

/* The longest of the ranks that are in it, or that are not; of one stage, or -1: of all. */
static double longest(const struct measure *m, const bool *in, bool which, int stage, i64 step)
{
    double most = 0;
    for (i64 r = 0; r < m->n_ranks; r++)
        if (in[r] == which && (stage < 0 || m->ranks[r].stage == stage))
            most = fmax(most, m->ranks[r].compute[step]);
    return most;
}

/* Of what these ranks lose in steps [c.at, c.until), what others wait for. The slowest stage of a
 * pipeline paces it; another one is waited for once, while the pipeline fills. */
static double waited_for(const struct measure *m, const bool *in, const struct measure_rank *r,
                         const struct measure_change *c)
{
    double sum = 0;
    for (i64 i = c->at; i < c->until; i++) {
        const double slow = longest(m, in, true, r->stage, i), lost = slow * (1 - c->inside);
        const double above = fmin(lost, slow - longest(m, in, false, r->stage, i));
        const double paces = fmin(lost, slow - longest(m, in, false, -1, i));
        sum += fmax(0, m->config.pp > 1 ? fmax(paces, above / fmax(1, (double)m->config.micro_batches))
                                        : above);
    }
    return sum / (double)m->n_steps;
}

static void tell_quota(const struct measure *m, const struct measure_rank *k, struct finding *f)
{
    char there[RULE_WHERE];
    rule_evidence(f, "its quota ran out %.1f times a step and held it back for %.1f ms",
                  k->throttles, 1e3 * k->throttled_s);
    rule_reject(f, "H8", "the cgroup counts the time: no neighbour took it");
    rule_fix(f, "raise the cgroup's cpu quota (cpu.max, cpu.cfs_quota_us), or --train.threads "
                "such that it is not used up");
    rule_confirm(f, "%scat /sys/fs/cgroup/cpu.stat", rule_there(m, k - m->ranks, there));
    rule_look(f, "throttled_usec, before and after some steps");
    rule_edit(f, EDIT_NONE, 1);
}

static void tell_clock(const struct measure *m, const struct measure_rank *k,
                       const struct measure_change *c, struct finding *f)
{
    char there[RULE_WHERE];
    f->about = ABOUT_MACHINE;
    if (c->until > 0) {
        f->place.first_step = m->numbers[c->at];
        f->place.last_step = m->numbers[c->until - 1];
        rule_evidence(f, "in these steps a loop on registers runs at %.0f %% of its speed at the "
                      "start, in the other %lld at %.0f %%", 100 * c->inside,
                      (long long)(m->n_steps - (c->until - c->at)), 100 * c->before);
        rule_edit(f, EDIT_AS_ELSE, 1);
    } else {
        rule_edit(f, EDIT_COMPUTE, k->clock);
        f->edit.takes = k->clock;
        rule_evidence(f, "a loop on registers runs at %.0f %% of its speed at the start",
                      100 * k->clock);
    }
    if (isfinite(k->on_cpu))
        rule_reject(f, "H8", "its threads are on a processor for %.0f %% of the time that they "
                    "are ready", 100 * k->on_cpu);
    rule_fix(f, "cooling, power cap or clock governor of that host; other ranks do not help");
    rule_confirm(f, "%sheadway machine --again", rule_there(m, k - m->ranks, there));
    rule_look(f, "what it reaches now, and when it is cool");
}

static bool tell_throttled(const struct measure *m, const struct rule_limit *limit,
                           struct finding *f, struct arena *a)
{
    double *lost = ARENA_ARRAY(a, double, m->n_ranks), most = 0;
    bool *in = ARENA_ARRAY(a, bool, m->n_ranks);
    i64 rank = -1;
    for (i64 r = 0; r < m->n_ranks; r++) {
        const struct measure_rank *k = &m->ranks[r];
        lost[r] = fmax(held_back(k, 0), slowed(m, k, limit));
        const double x = fmax(held_back(k, m->theta), slowed(m, k, limit));
        rank = x > most ? r : rank;
        most = fmax(most, x);
    }
    if (rank < 0 || !(most >= m->theta))
        return false;
    const struct measure_rank *k = &m->ranks[rank];
    const bool quota = held_back(k, m->theta) > slowed(m, k, limit);
    const struct measure_change c = clock_fell(m, k, limit);
    for (i64 r = 0; r < m->n_ranks; r++)
        in[r] = lost[r] >= 0.5 * most;
    rule_place_ranks(m, lost, f);
    if (quota)
        tell_quota(m, k, f);
    else
        tell_clock(m, k, &c, f);
    rule_gain(m, f, most, !quota && c.until > 0 ? waited_for(m, in, k, &c) : most, 0.25);
    return f->gain > 0;
}

static bool look_throttled(const struct measure *m, const struct rule_limit *limit,
                           struct finding *f)
{
    struct arena a;
    arena_init(&a);
    const bool found = tell_throttled(m, limit, f, &a);
    arena_fini(&a);
    return found;
}

/* --- shapes and precision --------------------------------------------------------- */

/* Seconds of all products, their FLOPs and bytes. */
static struct measure_op all_products(const struct measure *m)
{
    struct measure_op sum = { .calls = 0 };
    for (i64 i = 0; i < m->n_ops; i++) {
        const struct measure_op *o = &m->ops[i];
        if (!is_product(o))
            continue;
        sum.seconds += o->seconds;
        sum.flops += o->flops;
        sum.bytes += o->bytes;
        sum.roofline_s += o->roofline_s;
        sum.calls += o->calls;
    }
    return sum;
}

static bool look_skinny(const struct measure *m, const struct rule_limit *limit,
                        struct finding *f)
{
    struct measure_op p = all_products(m);
    if (m->config.pp > 1 && m->config.micro_batches > 1)
        return false; /* more rows at once lengthen a pipeline's bubble: B6 weighs both */
    const double rate = rule_memory_rate(m), ridge = m->ceilings.used / rate;
    if (!(p.flops / p.bytes < limit[0].value * ridge) ||
        !(p.seconds > limit[1].value * m->compute))
        return false;
    /* With `more` times the rows a product reads its weights once for all of them. */
    double more = limit[2].value, by_flops = p.flops / m->ceilings.used;
    double by_bytes = p.bytes / rate;
    double bound = fmax(by_flops, by_bytes), later = fmax(by_flops, by_bytes / more);
    double gain = p.seconds * (1 - later / bound);
    if (!(gain >= m->theta) || !(bound >= limit[3].value * p.seconds))
        return false; /* far above what their bytes take: it is not bytes that they wait for */
    snprintf(f->place.op, sizeof f->place.op, "linear");
    rule_evidence(f, "products make %.1f FLOPs per byte, this machine wants %.1f; they take "
                     "%.0f %% "
                  "of the computing", p.flops / p.bytes, ridge, 100 * p.seconds / m->compute);
    rule_evidence(f, "a micro-batch has %lld tokens",
                  (long long)(m->config.batch * m->config.seq));
    if (isfinite(m->ceilings.op_s))
        rule_reject(f, "H5", "a product takes %.0f times what beginning a task takes",
                    p.seconds / p.calls / m->ceilings.op_s);
    if (m->memory_peak_bytes < 0.6 * m->memory_limit_bytes)
        rule_evidence(f, "memory for more rows is there: %.2f of %.2f GiB are used (R3)",
                      m->memory_peak_bytes / 1073741824., m->memory_limit_bytes / 1073741824.);
    rule_edit(f, EDIT_COMPUTE, later / bound);
    f->edit.factor_lo = fmax(later / bound, 1 - (bound - later) / p.seconds); /* bytes alone */
    rule_gain(m, f, gain, gain, 0.4);
    i64 batch = m->config.batch * (i64)more;
    rule_fix(f, "--train.batch %lld%s", (long long)batch,
             m->config.accumulate >= (i64)more ? " with as much less --train.accumulate" : "");
    rule_confirm(f, "headway train RECIPE --train.batch %lld", (long long)batch);
    return true;
}

/* What kernels of the best instruction set would save, seconds a step. */
struct faster {
    double alike; /* if they reach the share of their peak that those in use reach of theirs */
    double good;  /* if products reach the share that good kernels do, where that saves more */
    double most;  /* if they reached their peak, or the memory's rate */
    double all;   /* that all ops take */
};

static struct faster save_by_backend(const struct measure *m, double good_share)
{
    const struct measure_ceilings *c = &m->ceilings;
    const double memory = rule_memory_rate(m);
    struct faster s = { 0 };
    for (i64 i = 0; i < m->n_ops; i++) {
        const struct measure_op *o = &m->ops[i];
        const double now = fmax(o->flops / c->used, o->bytes / memory);
        const double then = fmax(o->flops / c->widest, o->bytes / memory);
        const double alike = now > 0 ? o->seconds * (1 - then / now) : 0;
        s.all += o->seconds;
        s.alike += alike;
        s.good += is_product(o) ? fmax(alike, o->seconds - then / good_share) : alike;
        s.most += fmax(alike, o->seconds - then);
    }
    return s;
}

/* Kernels for an older instruction set: whatever arithmetic bounds gets faster with the best. How
 * well those in use do says little of how well the best would. */
static bool look_backend(const struct measure *m, const struct rule_limit *limit,
                         struct finding *f)
{
    const struct measure_ceilings *c = &m->ceilings;
    if (!(c->widest > limit[0].value * c->used) || strcmp(m->config.backend, m->config.widest) == 0)
        return false;
    const struct faster s = save_by_backend(m, limit[3].value);
    const double gain = (s.alike + s.good) / 2;
    if (!(gain >= m->theta))
        return false;
    rule_evidence(f, "kernels are %s, of at most %.0f GFLOP/s here; %s was measured at %.0f",
                  m->config.backend, 1e-9 * c->used, m->config.widest, 1e-9 * c->widest);
    rule_evidence(f, "%.1f ms a step are saved if %s kernels reach the share of their peak that these "
                  "do, %.1f if its products reach %.0f %% of it", 1e3 * s.alike, m->config.widest,
                  1e3 * s.good, 100 * limit[3].value);
    rule_reject(f, "H8", "these kernels reach at most that on an idle processor too");
    rule_edit(f, EDIT_COMPUTE, 1 - gain / s.all);
    f->most = s.most;
    rule_gain(m, f, gain, gain, 0.25);
    rule_fix(f, "--backend %s", m->config.widest);
    rule_confirm(f, "headway train RECIPE --backend %s", m->config.widest);
    return true;
}

/* What numbers of half the bytes, and arithmetic that is made for them, would save. */
struct narrow {
    double products, attention, others, all; /* others: by their bytes alone, at best */
    double most; /* if products and attention came down to what their FLOPs and bytes ask for */
};

static struct narrow save_by_narrow(const struct measure *m, double best)
{
    const double rate = rule_memory_rate(m);
    struct narrow n = { 0 };
    for (i64 i = 0; i < m->n_ops; i++) {
        const struct measure_op *o = &m->ops[i];
        const double now = fmax(o->flops / m->ceilings.used, o->bytes / rate);
        const double then = fmax(o->flops / best, 0.5 * o->bytes / rate);
        const double saved = o->seconds * (1 - then / now);
        const bool attends = strncmp(o->name, "attention", 9) == 0;
        n.all += o->seconds;
        n.most += is_product(o) || attends ? fmax(saved, o->seconds - then) : 0;
        if (is_product(o))
            n.products += saved;
        else if (attends)
            n.attention += saved;
        else if (o->phase != PHASE_UPDATE && !o->watching)
            n.others += 0.5 * o->seconds; /* the update keeps numbers of full width */
    }
    return n;
}

static bool look_precision(const struct measure *m, const struct rule_limit *limit,
                           struct finding *f)
{
    struct measure_op p = all_products(m);
    double best = fmax(m->ceilings.f32, m->ceilings.bf16);
    if (look_backend(m, limit, f))
        return true;
    if (!(best > limit[0].value * m->ceilings.used))
        return false;
    const struct narrow n = save_by_narrow(m, best);
    const double most = n.products + n.attention, gain = limit[1].value * most;
    if (!(most >= m->theta))
        return false;
    rule_evidence(f, "products run in arithmetic of %.0f GFLOP/s; this processor was measured at "
                  "%.0f", 1e-9 * m->ceilings.used, 1e-9 * best);
    rule_evidence(f, "at that, products would take %.1f ms less, and attention, which is some, %.1f ms",
                  1e3 * n.products, 1e3 * n.attention);
    rule_reject(f, "K7", "they are bound by arithmetic: %.1f FLOPs per byte", p.flops / p.bytes);
    rule_edit(f, EDIT_COMPUTE, 1 - gain / n.all);
    f->edit.factor_lo = 1 - limit[2].value * n.products / n.all;
    f->edit.factor_hi = 1 - (most + n.others) / n.all;
    snprintf(f->place.op, sizeof f->place.op, "linear");
    /* One rank waits for none; were all waits, transfers and bubbles to shrink like the computing,
     * a step of several lost its share. */
    f->most = (n.most + n.others) * (m->n_ranks > 1 ? m->step.mean / n.all : 1);
    rule_gain(m, f, most, gain, 0.35);
    rule_fix(f, "--train.precision bf16");
    rule_confirm(f, "headway train RECIPE --train.precision bf16");
    return true;
}

/* --- one op ------------------------------------------------------------------------- */

/* All tasks of the op that stands there, in whatever phase; blank where an earlier one has its name. */
static struct measure_op all_of(const struct measure *m, i64 first)
{
    struct measure_op sum = m->ops[first];
    for (i64 i = 0; i < m->n_ops; i++) {
        const struct measure_op *o = &m->ops[i];
        if (i == first || strcmp(o->name, sum.name) != 0)
            continue;
        if (i < first)
            return (struct measure_op){ .calls = 0 };
        sum.seconds += o->seconds;
        sum.roofline_s += o->roofline_s;
        sum.calls += o->calls;
    }
    return sum;
}

/* How many times what its FLOPs and bytes ask for an op usually takes. */
static double usual_times(const struct measure *m)
{
    struct arena a;
    arena_init(&a);
    double *times = ARENA_ARRAY(&a, double, m->n_ops);
    for (i64 i = 0; i < m->n_ops; i++)
        times[i] = m->ops[i].roofline_s > 0 ? m->ops[i].seconds / m->ops[i].roofline_s : NAN;
    const double usual = measure_quantile(times, m->n_ops, 0.5);
    arena_fini(&a);
    return usual;
}

/* Real kernels reach their own share of the machine each; where times come from FLOPs and bytes, an
 * op that takes longer than others for as much is slow, on all ranks though it be. */
static bool look_slow_op(const struct measure *m, const struct rule_limit *limit, struct finding *f)
{
    const double usual = usual_times(m);
    struct measure_op worst = { .calls = 0 };
    double most = 0;
    for (i64 i = 0; i < m->n_ops && m->config.simulated; i++) {
        const struct measure_op o = all_of(m, i);
        const double more = o.seconds - usual * o.roofline_s;
        if (o.roofline_s > 0 && o.seconds > limit[0].value * usual * o.roofline_s && more > most) {
            most = more;
            worst = o;
        }
    }
    if (!(most >= m->theta))
        return false;
    snprintf(f->place.op, sizeof f->place.op, "%s", worst.name);
    rule_evidence(f, "%s takes %.1f ms a step, %.2f times what its FLOPs and bytes ask for; half of the "
                  "ops take at most %.2f times that", worst.name, 1e3 * worst.seconds,
                  worst.seconds / worst.roofline_s, usual);
    rule_evidence(f, "each of %.0f tasks takes %.0f us longer than it would as the others",
                  worst.calls, 1e6 * most / worst.calls);
    rule_reject(f, "B1", "it is so on every rank alike");
    rule_reject(f, "K4", "other ops are not slower");
    rule_edit(f, EDIT_COMPUTE, 1);
    f->edit.whole_name = true;
    f->edit.less = most / worst.calls;
    rule_gain(m, f, most, most, 0.15);
    rule_fix(f, "the kernel of %s for these shapes: leading dimensions that are no power of two, another "
             "--train.batch or --train.seq, or another --backend", worst.name);
    rule_confirm(f, "headway train RECIPE --backend generic");
    rule_look(f, "what that op takes in it, by headway diagnose or headway report");
    return true;
}

/* --- work that need not be done --------------------------------------------------- */

static bool look_recompute(const struct measure *m, const struct rule_limit *limit,
                           struct finding *f)
{
    double again = 0, flops = 0;
    for (i64 i = 0; i < m->n_ops; i++)
        if (m->ops[i].recompute) {
            again += m->ops[i].seconds;
            flops += m->ops[i].flops;
        }
    double peak = m->memory_peak_bytes + m->recompute_bytes;
    if (!(again >= m->theta) || peak > limit[0].value * m->memory_limit_bytes)
        return false;
    rule_evidence(f, "%.1f ms a step compute again what was known (%.2g FLOPs)", 1e3 * again,
                  flops);
    if (isfinite(peak) && isfinite(m->memory_limit_bytes))
        rule_evidence(f, "keeping it needs %.2f GiB in all, of %.2f", peak / 1073741824.,
                      m->memory_limit_bytes / 1073741824.);
    else
        rule_evidence(f, "whether memory suffices to keep it is not known: headway train RECIPE "
                      "--train.recompute none --dry-run says");
    rule_edit(f, EDIT_COMPUTE, 0);
    f->edit.recompute = true;
    rule_gain(m, f, again, again, 0.15);
    rule_fix(f, "--train.recompute none");
    rule_confirm(f, "headway train RECIPE --train.recompute none");
    return true;
}

/* What a lane sums over n ranks: its sums' bytes are 2 (n - 1) / n times the gradients'. */
static double summed_bytes(const struct measure_lane *l)
{
    const bool sums = l->lane == LANE_DP || l->lane == LANE_EDP;
    return sums && l->members > 1 ? 0.5 * l->bytes * (double)l->members / (double)(l->members - 1)
                                  : 0;
}

/* Share of the update that ranks make alike: experts have fewer copies than the rest. */
static double repeated_share(const struct measure *m)
{
    double all = 0, repeated = 0;
    for (i64 i = 0; i < m->n_lanes; i++) {
        const double bytes = summed_bytes(&m->lanes[i]);
        all += bytes;
        repeated += bytes * (1 - 1 / (double)i64_max(1, m->lanes[i].members));
    }
    return all > 0 ? repeated / all : 1 - 1 / (double)(m->config.dp * m->config.cp);
}

/* What ranks give each other of what each has updated: half of what summing to all sends, and
 * nothing is left to hide it. Lanes do it beside each other, or share a link. */
struct gathering {
    double longest, all; /* of a lane; of all of them */
    double back;         /* what the sums before it, half as long, expose less */
};

static struct gathering see_gathering(const struct measure *m)
{
    struct gathering g = { 0, 0, 0 };
    for (i64 i = 0; i < m->n_lanes; i++) {
        const struct measure_lane *l = &m->lanes[i];
        double rate = isfinite(l->bytes_per_s) ? l->bytes_per_s : l->base_bytes_per_s;
        if (!(summed_bytes(l) > 0) || !(rate > 0))
            continue;
        const double gather = 0.5 * l->bytes / rate;
        g.back += fmin(gather, fmax(0, l->exposed_s - l->wait_exposed_s));
        g.all += gather;
        g.longest = fmax(g.longest, gather);
    }
    return g;
}

static bool look_replicated(const struct measure *m, const struct rule_limit *limit,
                            struct finding *f)
{
    double update = 0;
    i64 copies = m->config.dp * m->config.cp;
    for (i64 i = 0; i < m->n_ops; i++)
        if (m->ops[i].phase == PHASE_UPDATE && !m->ops[i].watching)
            update += m->ops[i].seconds;
    const double lost = update * repeated_share(m);
    if (m->config.zero > 0 || copies < 2 || !(lost >= m->theta) ||
        !(update >= limit[0].value * m->compute))
        return false;
    struct gathering g = see_gathering(m);
    g.back = fmin(g.back, g.longest);
    if (!(lost > g.longest && lost - g.longest + g.back >= m->theta))
        return false; /* gathering takes it all */
    rule_evidence(f, "every one of %lld ranks makes the same update, %.1f ms a step",
                  (long long)copies, 1e3 * update);
    if (g.longest > 0)
        rule_evidence(f, "what each then updates alone is gathered in %.1f ms; shorter sums give "
                      "%.1f ms of that back", 1e3 * g.longest, 1e3 * g.back);
    rule_gain(m, f, lost, lost - g.longest + g.back, 0.15);
    f->gain_lo = fmin(f->gain_lo, fmax(0, 0.9 * (lost - g.all)));
    f->gain_hi = fmax(f->gain_hi, 1.05 * lost);
    rule_fix(f, "--layout.zero 1: each rank updates its share");
    rule_confirm(f, "headway train RECIPE --layout.zero 1");
    return true;
}

const struct rule rules_kernel[] = {
    { "K1", "more threads than processors", look_oversubscribed,
      { { 1, "threads per processor", "one each is all that can run" },
        { 0.9, "share of their ready time that they run", "above it they do not disturb each "
          "other, however many" } } },
    { "K2", "threads wait for one of them", look_skewed,
      { { 0.85, "mean of the threads' work over the longest",
          "parts of unequal size are within a seventh" } } },
    { "K4", "a processor is held back", look_throttled,
      { { 0.95, "of its clock at the start", "clocks of a quiet machine wander by 3 %" },
        { 5, "sigma between the levels", "CUSUM's usual threshold: once in 10^4 steps by chance" },
        { 0.99, "of its clock at the start, on a computed clock", "there it does not wander" } } },
    { "K5", "memory of another NUMA node", look_far_memory,
      { { 0.1, "of its memory on other nodes", "libraries and what is shared lie anywhere" },
        { 0.5, "of the gain that is not known", "distances tell latency, of bandwidth only the "
                                                "order" } } },
    { "K6", "one op is slow for what it does", look_slow_op,
      { { 1.03, "times what other ops take for as much", "tasks whose times are given repeat" } } },
    { "K7", "products are too thin", look_skinny,
      { { 1, "FLOPs per byte over what the machine wants", "below one, memory is the limit" },
        { 0.3, "share of computing in products", "else something else is what a step is" },
        { 4, "times the rows that the fix proposes", "brings the thinnest that still pay to the "
          "other side" },
        { 0.5, "of their time that their bytes must explain",
          "what is further from the memory's rate waits for something else" } } },
    { "K8", "slow arithmetic", look_precision,
      { { 1.2, "times what this processor was measured to do", "probes repeat within 5 %" },
        { 0.85, "of what a faster peak would save", "few rows reach less of it: 1.04 to 0.72 of it "
          "were saved with 64 to 512 of them (Xeon with AMX)" },
        { 0.8, "of what products would save that the pessimist expects", "and attention none" },
        { 0.8, "of their peak that products of a better instruction set reach",
          "0.76 to 0.92 of it were measured, with 1024 rows and more (bench/RESULTS.md)" } } },
    { "K10", "recompute that memory does not ask for", look_recompute,
      { { 0.9, "of the limit that would then be in use", "a tenth is left to what is not "
                                                         "planned" } } },
    { "K14", "every rank makes the same update", look_replicated,
      { { 0.03, "share of computing", "less is not worth a gather" } } },
    { .id = "" },
};
