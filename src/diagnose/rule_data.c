/* The loader is behind, or what it brings is worth less than it costs. */
#include "diagnose/rows.h"
#include "diagnose/rule.h"

#include <math.h>
#include <stdio.h>

/* --- waiting for the loader ------------------------------------------------------- */

/* Why a rank's loader makes steps wait: by what every batch takes, or by what some do. */
enum fault { STEADY, UNEVEN, FAULTS };

/* What mending does to the loaders of such ranks: every batch takes what the median one did; only
 * what the others' do not; nothing, whatever it is. */
enum mend { MEND_NOT, MEND_TO_MEDIAN, MEND_AWAY };

/* One rank's loader. */
struct loader_pace {
    const double *load;  /* of the steps that all timed ranks have; NULL: not timed */
    double median, quick, least; /* of a batch; the quickest tenth take at most the second */
    double span;         /* of its batches' mean above the quickest tenth */
    double own;          /* what a step would wait for it alone */
    bool has[FAULTS];
};

/* What the four rules about waiting look at. */
struct loading {
    const struct measure_rank *rank; /* that waits most */
    bool alone;                      /* and the others do not; said where no loads were timed */
    double lost, service, use;       /* s per step; to make a batch; batches made per wanted */
    double left;                     /* of others' loaders with another cause: what a step would wait
                                      * once these are mended; 0: there are none */
    double waited;                   /* what it waits for all of them */
    double amplification;
    bool episode;                    /* it is slow for some batches in a row, of these steps */
    i64 first, last;
    double consume;                  /* what a step takes without any wait for a loader */
    double usual;                    /* or the median step, if that is less: some may be slow */
    struct loader_pace *paces;       /* [n_ranks] */
    i64 n_loads, load_step;          /* of each; the first is for this step */
    bool found[FAULTS];
};

/* Of what an episode's batches take longer, what others differ by among each other. */
static const double most_apart = 0.25;

/* Batches of an episode all take longer than those before and behind it, which take about as
 * long as each other; where times jump, some of either kind do not. */
static bool is_episode(const double *load, i64 n, struct measure_change c)
{
    const double border = (c.before + c.inside) / 2;
    i64 odd = 0, outside = 0;
    if (c.until == 0 || !(c.inside > c.before) || c.until - c.at == n)
        return false;
    struct arena a;
    arena_init(&a);
    double *others = ARENA_UNSET(&a, double, n);
    for (i64 i = 0; i < n; i++) {
        const bool within = i >= c.at && i < c.until;
        odd += (load[i] > border) != within;
        if (!within)
            others[outside++] = load[i];
    }
    const double apart = measure_quantile(others, outside, 0.85) -
                         measure_quantile(others, outside, 0.15);
    arena_fini(&a);
    return odd <= 2 /* those that were under way */ && apart <= most_apart * (c.inside - c.before);
}

/* Fewer batches in a row that take longer are uneven ones. */
enum { LEAST_EPISODE = 5 };

/* On a computed clock no batch is off by chance, so that an episode is known to the batch. */
static struct measure_change change_of(const struct measure *m, const struct measure_rank *k,
                                       double sigma)
{
    const struct measure_change c = measure_change_of(m, k->load, k->n_loads, sigma);
    return c.until - c.at >= LEAST_EPISODE ? c : measure_change(k->load, k->n_loads, sigma);
}

/* For which steps' batches the loader is slow. */
static void see_episode(const struct measure *m, struct loading *l, const struct rule_limit *sigma)
{
    const struct measure_rank *k = l->rank;
    const struct measure_change c = change_of(m, k, sigma->value);
    if (!k->load || !is_episode(k->load, k->n_loads, c))
        return;
    l->episode = true;
    l->first = i64_max(k->load_step + c.at, m->numbers[0]);
    l->last = i64_min(k->load_step + c.until - 1, m->numbers[m->n_steps - 1]);
    l->use *= c.inside / l->service;
    l->service = c.inside;
}

static const struct rule_limit level = { 5, "sigma between the levels", "as B2" };

/* What steps wait for all ranks' loaders together, or only for those that have the fault, when
 * these are mended so. */
static double wait_for(const struct measure *m, const struct loading *l, enum fault fault,
                       enum mend mend, i64 depth, bool only, bool full)
{
    struct arena a;
    i64 n = 0;
    arena_init(&a);
    const double **service = ARENA_ARRAY(&a, const double *, m->n_ranks);
    for (i64 r = 0; r < m->n_ranks; r++) {
        const struct loader_pace *p = &l->paces[r];
        if (!p->load || (only && !p->has[fault]))
            continue;
        service[n++] = p->load;
        if (mend == MEND_NOT || !p->has[fault])
            continue;
        const bool both = p->has[STEADY] && p->has[UNEVEN];
        double *mended = ARENA_UNSET(&a, double, l->n_loads);
        for (i64 i = 0; i < l->n_loads; i++)
            mended[i] = mend == MEND_TO_MEDIAN ? fmin(p->load[i], p->median)
                        : !both                ? 0
                        : fault == UNEVEN      ? p->least
                                               : fmax(0, p->load[i] - p->quick);
        service[n - 1] = mended;
    }
    const double wait = measure_queues_wait(service, n, l->n_loads, l->consume,
                                            m->config.loader_threads, depth, full);
    arena_fini(&a);
    return wait;
}

static double wait_together(const struct measure *m, const struct loading *l, enum fault fault,
                            enum mend mend, i64 depth)
{
    return wait_for(m, l, fault, mend, depth, false, false);
}

enum { ENOUGH_LOADS = 10 }; /* to tell even ones from others */

/* How far the replayed wait may be off: the queue's error with 40 steps is a fifth. Of a wait, what
 * batches may leave that all take as long, where it is their unevenness that costs. */
static const double most_off = 0.35, most_even = 0.5;
/* The same where every batch is slow besides: times that vary by a third leave more. */
static const double most_beside = 0.8;
/* Batches that are made for each that is wanted, by the quickest, where every batch is slow. */
static const double least_use = 0.9;
/* Of what the most uneven rank's batches take beyond its quick ones, what another's do that is as
 * uneven: with 40 of them chance makes the double or the half of it. */
static const double as_uneven = 0.25;
/* Of what is waited, what one rank would make steps wait: less is no reason. */
static const double least_own = 0.02;

/* Which of the steps have loads of all ranks that have any. */
static void find_common(const struct measure *m, struct loading *l)
{
    i64 first = INT64_MIN, end = INT64_MAX;
    for (i64 r = 0; r < m->n_ranks; r++) {
        const struct measure_rank *k = &m->ranks[r];
        if (!k->load || k->n_loads == 0)
            continue;
        first = i64_max(first, k->load_step);
        end = i64_min(end, k->load_step + k->n_loads);
    }
    l->n_loads = first < end && end < INT64_MAX ? end - first : 0;
    l->load_step = first;
    for (i64 r = 0; r < m->n_ranks && l->n_loads > 0; r++)
        if (m->ranks[r].load && m->ranks[r].n_loads > 0)
            l->paces[r].load = m->ranks[r].load + (first - m->ranks[r].load_step);
}

/* Of each of the loads what its step consumes; the mean where that step was not measured. */
static double *of_loads(const struct measure *m, const struct loading *l, const double *consume,
                        struct arena *a)
{
    double *out = ARENA_UNSET(a, double, l->n_loads);
    const double mean = measure_stat(consume, m->n_steps).mean;
    for (i64 i = 0; i < l->n_loads; i++)
        out[i] = mean;
    for (i64 k = 0; k < m->n_steps; k++) {
        const i64 i = m->numbers[k] - l->load_step;
        if (i >= 0 && i < l->n_loads)
            out[i] = consume[k];
    }
    return out;
}

double rule_loader_wait(const struct measure *m, const double *consume)
{
    struct arena a;
    i64 n = 0;
    arena_init(&a);
    struct loading l = { .paces = ARENA_ARRAY(&a, struct loader_pace, m->n_ranks) };
    const double **service = ARENA_ARRAY(&a, const double *, m->n_ranks);
    find_common(m, &l);
    for (i64 r = 0; r < m->n_ranks; r++)
        if (l.paces[r].load)
            service[n++] = l.paces[r].load;
    const double wait = l.n_loads > 0 ? measure_queues_wait_each(
        service, n, l.n_loads, of_loads(m, &l, consume, &a), m->config.loader_threads,
        m->config.prefetch, false) : NAN;
    arena_fini(&a);
    return wait;
}

static void see_pace(const struct measure *m, const struct loading *l, struct loader_pace *p)
{
    p->median = measure_quantile(p->load, l->n_loads, 0.5);
    p->quick = measure_quantile(p->load, l->n_loads, 0.1);
    p->least = measure_quantile(p->load, l->n_loads, 0);
    p->span = measure_stat(p->load, l->n_loads).mean - p->quick;
    p->own = measure_queue_wait(p->load, l->n_loads, l->consume, m->config.loader_threads,
                                m->config.prefetch);
}

/* What the steps whose batches' times are known wait, over what all do. */
static double waited_there(const struct measure *m, const struct loading *l)
{
    double there = 0, all = 0;
    i64 n = 0;
    for (i64 i = 0; i < m->n_steps; i++) {
        const bool known = m->numbers[i] >= l->load_step &&
                           m->numbers[i] < l->load_step + l->n_loads;
        double most = 0;
        for (i64 r = 0; r < m->n_ranks; r++)
            most = fmax(most, m->ranks[r].data[i]); /* fmax: NaN is left out */
        all += most;
        there += known ? most : 0;
        n += known;
    }
    return n > 0 && all > 0 ? there / (double)n / (all / (double)m->n_steps) : 1;
}

/* Whether the loads, replayed, wait as long as was waited: in the midst of a run, or where the
 * first were made before the run asked for them. */
static bool is_explained(const struct measure *m, const struct loading *l)
{
    const double waited = waited_there(m, l) * l->lost;
    const i64 depth = m->config.prefetch;
    const double usual = wait_for(m, l, UNEVEN, MEND_NOT, depth, false, false);
    const double full = wait_for(m, l, UNEVEN, MEND_NOT, depth, false, true);
    const double off = most_off * waited;
    return fmin(full, usual) - off <= waited && waited <= fmax(full, usual) + off;
}

/* Whether what would be waited for the ranks that are marked as uneven alone is for what some of
 * their batches take longer than the median one, and not for what all take; or in part, where all
 * are slow besides. */
static bool is_uneven(const struct measure *m, const struct loading *l, bool slow_besides)
{
    const i64 depth = m->config.prefetch;
    const double as_is = wait_for(m, l, UNEVEN, MEND_NOT, depth, true, false);
    const double even = wait_for(m, l, UNEVEN, MEND_TO_MEDIAN, depth, true, false);
    return even < (slow_besides ? most_beside : most_even) * as_is;
}

/* Tells ranks whose batches are uneven from those whose loader is slow throughout. */
static void judge_paces(const struct measure *m, struct loading *l)
{
    const double per_batch = (double)i64_max(m->config.loader_threads, 1) * l->consume;
    double widest = 0;
    find_common(m, l);
    for (i64 r = 0; r < m->n_ranks; r++)
        if (l->paces[r].load) {
            see_pace(m, l, &l->paces[r]);
            widest = fmax(widest, l->paces[r].span);
        }
    if (l->n_loads == 0)
        return;
    bool uneven = is_explained(m, l) && !l->episode && l->n_loads >= ENOUGH_LOADS && widest > 0;
    bool slow = false;
    for (i64 r = 0; r < m->n_ranks && uneven; r++) {
        l->paces[r].has[UNEVEN] = l->paces[r].span >= as_uneven * widest;
        slow |= l->paces[r].has[UNEVEN] && l->paces[r].quick >= least_use * per_batch;
    }
    uneven = uneven && is_uneven(m, l, slow);
    for (i64 r = 0; r < m->n_ranks; r++) {
        struct loader_pace *p = &l->paces[r];
        p->has[UNEVEN] = p->has[UNEVEN] && uneven;
        p->has[STEADY] = p->own >= least_own * l->lost &&
                         (!p->has[UNEVEN] || p->quick >= least_use * per_batch);
        for (int k = 0; k < FAULTS; k++)
            l->found[k] |= p->has[k];
    }
}

/* Of those that have the fault, the rank for which a step would wait most; -1: it is not known. */
static i64 worst_of(const struct measure *m, const struct loading *l, enum fault fault)
{
    i64 worst = -1;
    for (i64 r = 0; r < m->n_ranks; r++)
        if (l->paces[r].has[fault] &&
            (worst < 0 || l->paces[r].own > l->paces[worst].own))
            worst = r;
    return worst;
}

static void take_rank(const struct measure *m, struct loading *l, const struct measure_rank *k)
{
    l->rank = k;
    l->service = measure_stat(k->load, k->n_loads).mean;
    l->use = l->service / ((double)i64_max(m->config.loader_threads, 1) * l->usual);
    l->amplification = k->read_bytes / k->used_bytes;
    l->episode = false;
    see_episode(m, l, &level);
}

/* What slow loaders do with their time: they compute, or stand still for storage; or whatever. */
enum cause { COMPUTES, STANDS, WHATEVER };

/* Of their time that they compute, by what two loaders differ whose causes do: 0.8 and 0.3 are what
 * either was seen with in its pure form. */
static const double other_cause = 0.5;

/* Where some slow loaders compute and others stand still, each cause has its own. */
static void keep_cause(const struct measure *m, struct loading *l, enum cause cause, double border)
{
    double least = INFINITY, most = -INFINITY;
    bool kept = false;
    for (i64 r = 0; r < m->n_ranks; r++)
        if (l->paces[r].has[STEADY]) {
            least = fmin(least, m->ranks[r].load_cpu);
            most = fmax(most, m->ranks[r].load_cpu);
        }
    if (cause == WHATEVER || !(most - least > other_cause))
        return;
    l->waited = wait_together(m, l, STEADY, MEND_NOT, m->config.prefetch);
    for (i64 r = 0; r < m->n_ranks; r++) {
        bool *has = &l->paces[r].has[STEADY];
        *has = *has && (m->ranks[r].load_cpu >= border) == (cause == COMPUTES);
        kept |= *has;
    }
    l->found[STEADY] = kept;
    l->left = wait_together(m, l, STEADY, MEND_AWAY, m->config.prefetch);
}

static double usual_consume(const struct measure *m, struct arena *a)
{
    double *ready = ARENA_ARRAY(a, double, m->n_steps);
    for (i64 i = 0; i < m->n_steps; i++) {
        double waited = 0;
        for (i64 r = 0; r < m->n_ranks; r++)
            waited = fmax(waited, m->ranks[r].data[i]); /* fmax: NaN is left out */
        ready[i] = fmax(m->seconds[i] - waited, 1e-9);
    }
    return measure_quantile(ready, m->n_steps, 0.5);
}

static bool see_loading(const struct measure *m, struct loading *l, enum fault fault,
                        enum cause cause, double border, struct arena *a)
{
    i64 r = 0;
    if (m->n_ranks == 0)
        return false;
    *l = (struct loading){ .alone = rule_alone(m, rule_data, &r),
                           .lost = m->loss[LOSS_DATA] };
    if (!isfinite(l->lost))
        l->lost = measure_mean(m, m->ranks[r].data);
    if (!(l->lost >= m->theta))
        return false;
    l->consume = fmax(m->step.mean - l->lost, 1e-9);
    l->usual = fmin(l->consume, usual_consume(m, a));
    l->paces = ARENA_ARRAY(a, struct loader_pace, m->n_ranks);
    take_rank(m, l, &m->ranks[r]);
    judge_paces(m, l);
    keep_cause(m, l, cause, border);
    const i64 worst = worst_of(m, l, fault);
    if (worst >= 0)
        take_rank(m, l, &m->ranks[worst]);
    return true;
}

/* Which ranks' loaders are behind: those that would make a step wait by themselves. While one
 * waits the others' loaders catch up, so that of equal loaders one may have all the waiting.
 * Of those that are uneven some wait far more than others by chance: all are named. */
static void place_loading(const struct measure *m, const struct loading *l, enum fault fault,
                          struct finding *f)
{
    struct arena a;
    arena_init(&a);
    double *waits = ARENA_ARRAY(&a, double, m->n_ranks), most = 0;
    for (i64 r = 0; r < m->n_ranks; r++) {
        const struct loader_pace *p = &l->paces[r];
        if (p->has[fault])
            waits[r] = fault == UNEVEN ? 1 : p->own;
        most = fmax(most, waits[r]);
    }
    if (most > 0)
        rule_place_ranks(m, waits, f);
    else if (l->alone)
        f->place.rank = l->rank->rank;
    arena_fini(&a);
}

static void tell_loading(const struct measure *m, const struct loading *l, enum fault fault,
                         struct finding *f)
{
    place_loading(m, l, fault, f);
    snprintf(f->place.lane, sizeof f->place.lane, "loader");
    rule_evidence(f, "the step waits %.1f ms for data; %.0f %% of the steps found nothing ready",
                  1e3 * l->lost, 100 * l->rank->queue_empty);
    rule_evidence(f, "a step's batch takes %.1f ms to make, and is wanted every %.1f ms",
                  1e3 * l->service, 1e3 * l->consume);
    if (l->episode) {
        f->place.first_step = l->first;
        f->place.last_step = l->last;
    }
    rule_edit(f, EDIT_DATA, 0);
}

/* Of two causes each hides some of what the other makes steps wait. other: the id of that one. */
static void gain_beside(const struct measure *m, const struct loading *l, const char *other,
                        struct finding *f)
{
    const double scale = l->lost / l->waited;
    const double own = scale * wait_for(m, l, STEADY, MEND_NOT, m->config.prefetch, true, false);
    const double gain = l->lost - scale * l->left;
    f->edit.kind = EDIT_NONE;
    if (gain >= m->theta) {
        rule_evidence(f, "other ranks' loaders have another cause (%s): for these a step would wait "
                      "%.1f ms", other, 1e3 * scale * l->left);
        rule_gain(m, f, own, gain, 0.25);
        return;
    }
    const bool less = own < scale * l->left;
    rule_gain(m, f, own, own, 0.25);
    rule_evidence(f, less ? "the gain is what is left once the others' loaders (%s) are mended: until "
                            "then steps wait for those"
                          : "the gain is that of mending the others' loaders (%s), too: as long as "
                            "either are slow, steps wait", other);
    if (less)
        snprintf(f->after, sizeof f->after, "%s", other);
}

/* What loaders that are slow throughout lose: beside uneven ones, what is not these'. */
static void gain_steady(const struct measure *m, const struct loading *l, const char *other,
                        struct finding *f)
{
    if (l->left > 0) {
        gain_beside(m, l, other, f);
        return;
    }
    if (!l->found[UNEVEN]) {
        rule_gain(m, f, l->lost, l->lost, 0.15);
        return;
    }
    const i64 depth = m->config.prefetch;
    const double left = wait_together(m, l, STEADY, MEND_AWAY, depth) /
                        wait_together(m, l, STEADY, MEND_NOT, depth);
    f->edit.kind = EDIT_NONE;
    rule_gain(m, f, l->lost * (1 - left), l->lost * (1 - left), 0.25);
}

static void reject_busy(const struct loading *l, struct finding *f, bool also_cpu)
{
    if (isfinite(l->amplification) && l->amplification <= 1.5)
        rule_reject(f, "D3", "reads %.2f times what it uses", l->amplification);
    if (l->use >= 0.9)
        rule_reject(f, "D4", "on average the loader is %.0f %% busy: it is not jitter",
                    100 * fmin(l->use, 9.99));
    if (also_cpu && isfinite(l->rank->load_cpu))
        rule_reject(f, "D2", "%.0f %% of the loader's time it computes, it does not wait for "
                             "a disk",
                    100 * l->rank->load_cpu);
}

/* Seconds that the loader takes from the threads that compute, where they share cores. */
static double taken_by_loader(const struct measure_rank *r)
{
    double taken = fmin(r->run_queue_s, r->load_cpu_s);
    return isfinite(taken) && r->load_cpu_s >= 0.5 * r->run_queue_s ? taken : 0;
}

static bool look_thief(const struct measure *m, struct finding *f)
{
    i64 rank = -1;
    double most = 0;
    for (i64 r = 0; r < m->n_ranks; r++)
        if (taken_by_loader(&m->ranks[r]) > most) {
            most = taken_by_loader(&m->ranks[r]);
            rank = r;
        }
    if (rank < 0)
        return false;
    const struct measure_rank *k = &m->ranks[rank];
    double waited = measure_mean(m, k->data), lost = most + (isfinite(waited) ? waited : 0);
    if (!(lost >= m->theta))
        return false;
    struct arena a;
    arena_init(&a);
    double *others = ARENA_ARRAY(&a, double, m->n_ranks);
    for (i64 r = 0; r < m->n_ranks; r++)
        others[r] = r == rank ? NAN : taken_by_loader(&m->ranks[r]);
    if (m->n_ranks > 1 && most > 2 * measure_quantile(others, m->n_ranks, 0.5))
        f->place.rank = k->rank;
    arena_fini(&a);
    snprintf(f->place.lane, sizeof f->place.lane, "loader");
    rule_evidence(f, "the loader computes for %.1f ms a step on the cores that train, which "
                  "wait %.1f ms for them; for data the step waits %.1f ms", 1e3 * k->load_cpu_s,
                  1e3 * k->run_queue_s, 1e3 * waited);
    rule_reject(f, "H8", "what takes the cores is this run's own loader");
    rule_gain(m, f, lost, lost, 0.3);
    rule_fix(f, "sources prepared beforehand with `headway data prepare`, or a core for the "
                "loader: one thread less in --train.threads");
    if (m->config.threads > 1) {
        rule_confirm(f, "headway train RECIPE --train.threads %lld", (long long)m->config.threads - 1);
    } else {
        rule_confirm(f, "headway train RECIPE");
        rule_look(f, "top -H while it runs: the loader's thread");
    }
    return true;
}

/* The loader is late in most steps or for some, or is by what an ordinary batch takes; beside slower
 * ones none is late. */
static bool is_behind(const struct loading *l, double most_empty)
{
    const struct measure_rank *k = l->rank;
    if (l->left > 0)
        return l->found[STEADY];
    if (l->episode || (l->found[STEADY] && l->found[UNEVEN]))
        return true;
    if (l->found[UNEVEN])
        return false;
    return k->queue_empty >= most_empty ||
           (k->n_loads >= ENOUGH_LOADS &&
            (measure_quantile(k->load, k->n_loads, 0.5) * l->use / l->service - 1) * l->consume >=
                most_even * l->lost);
}

static bool see_slow_loader(const struct measure *m, const struct rule_limit *limit,
                             struct finding *f, struct arena *a)
{
    struct loading l;
    if (!see_loading(m, &l, STEADY, COMPUTES, limit[1].value, a) || !is_behind(&l, limit[0].value) ||
        l.use < limit[2].value || l.rank->load_cpu < limit[1].value || l.amplification > 1.5)
        return false;
    tell_loading(m, &l, STEADY, f);
    rule_evidence(f, "the loader computes for %.0f %% of its time", 100 * l.rank->load_cpu);
    reject_busy(&l, f, true);
    gain_steady(m, &l, "D2", f);
    i64 threads = (i64)ceil(l.use * (double)i64_max(m->config.loader_threads, 1) * 1.2);
    rule_fix(f, "--data.threads %lld, or sources prepared beforehand with `headway data prepare`",
             (long long)i64_max(threads, 2));
    rule_confirm(f, "headway train RECIPE --data.threads %lld",
                 (long long)i64_max(threads, 2));
    return f->lost >= m->theta;
}

static bool see_storage(const struct measure *m, const struct rule_limit *limit,
                         struct finding *f, struct arena *a)
{
    struct loading l;
    if (!see_loading(m, &l, STEADY, STANDS, limit[1].value, a) || !is_behind(&l, limit[0].value) ||
        l.use < limit[2].value || !(l.rank->load_cpu < limit[1].value) || l.amplification > 1.5)
        return false;
    tell_loading(m, &l, STEADY, f);
    rule_evidence(f, "the loader stands still for storage: %.0f %% of its time on a processor, "
                  "%.1f MB/s read", 100 * l.rank->load_cpu,
                  1e-6 * l.rank->read_bytes / m->step.mean);
    if (l.rank->io_stall > 0)
        rule_evidence(f, "something waits for storage in %.0f %% of the time",
                      100 * l.rank->io_stall);
    rule_reject(f, "D1", "it computes for %.0f %% of its time only", 100 * l.rank->load_cpu);
    reject_busy(&l, f, false);
    gain_steady(m, &l, "D1", f);
    rule_fix(f, "copy the shards to a local disk and set data.sources there");
    rule_confirm(f, "headway train RECIPE && headway train RECIPE");
    rule_look(f, "the second: the first has read the shards into the page cache");
    return f->lost >= m->theta;
}

static bool see_thrash(const struct measure *m, const struct rule_limit *limit,
                        struct finding *f, struct arena *a)
{
    struct loading l;
    if (!see_loading(m, &l, STEADY, WHATEVER, 0, a) || !(l.amplification > limit[0].value) ||
        !(l.rank->major_faults > limit[1].value))
        return false;
    tell_loading(m, &l, STEADY, f);
    rule_evidence(f, "%.1f times as much is read as used; %.1f pages a step come from storage",
                  l.amplification, l.rank->major_faults);
    rule_reject(f, "D2", "the disk reads %.1f times what is used: the page cache is too small",
                l.amplification);
    rule_gain(m, f, l.lost, l.lost * (1 - 1 / l.amplification), 0.25);
    rule_fix(f, "more memory for the page cache (the cgroup's limit), or fewer ranks per node");
    if (l.rank->limit_bytes > 0)
        rule_confirm(f, "systemd-run --scope -p MemoryMax=%.0fM headway train RECIPE",
                     2 * l.rank->limit_bytes / 1048576);
    else
        rule_confirm(f, "systemd-run --scope -p MemoryMax=infinity headway train RECIPE");
    return true;
}

/* The least depth with which less than a hundredth of the step is waited beyond `others`, what
 * other loaders make it wait; 0: none helps. */
static i64 depth_that_suits(const struct measure *m, const struct loading *l, double others)
{
    for (i64 depth = 2; depth <= 256; depth *= 2)
        if (depth > m->config.prefetch &&
            wait_together(m, l, UNEVEN, MEND_NOT, depth) - others < 0.01 * m->step.mean)
            return depth;
    return 0;
}

static bool see_uneven(const struct measure *m, const struct rule_limit *limit,
                        struct finding *f, struct arena *a)
{
    struct loading l;
    if (!see_loading(m, &l, UNEVEN, WHATEVER, 0, a) || !l.found[UNEVEN])
        return false;
    const i64 now = m->config.prefetch;
    const double replayed = wait_together(m, &l, UNEVEN, MEND_NOT, now);
    const double others = wait_together(m, &l, UNEVEN, MEND_AWAY, now);
    const double even = wait_together(m, &l, UNEVEN, MEND_TO_MEDIAN, now);
    const i64 depth = depth_that_suits(m, &l, others), tried = depth > 0 ? depth : 256;
    const double left = wait_together(m, &l, UNEVEN, MEND_NOT, tried);
    const double lost = l.lost * (1 - others / replayed);
    if (!(lost >= m->theta))
        return false;
    tell_loading(m, &l, UNEVEN, f);
    rule_evidence(f, "making a batch takes %.1f ms in the median and %.1f ms in the worst "
                     "twentieth",
                  1e3 * measure_quantile(l.rank->load, l.rank->n_loads, 0.5),
                  1e3 * measure_quantile(l.rank->load, l.rank->n_loads, 0.95));
    rule_evidence(f, "these times, replayed with %lld batches ahead, wait %.1f ms a step; "
                     "with %lld "
                  "ahead %.1f ms", (long long)now, 1e3 * replayed, (long long)tried, 1e3 * left);
    if (l.use < 0.9)
        rule_reject(f, "D1", "on average the loader is busy for %.0f %% only", 100 * l.use);
    else
        rule_reject(f, "D1", "if each batch took the median one's time, %.1f ms would be waited",
                    1e3 * even);
    f->edit.kind = EDIT_NONE;
    /* Slow batches may become ordinary ones, or all of them quick. */
    const double rest = l.lost * fmax(0, fmin(left, even) - others) / replayed;
    const double gain = lost - 0.5 * rest;
    rule_gain(m, f, lost, gain, 0.15 + 0.5 * rest / gain);
    if (left - others < limit[0].value * (replayed - others))
        rule_fix(f, "--data.prefetch %lld", (long long)tried);
    else
        rule_fix(f, "find what makes some batches that slow: storage that others use, long "
                    "documents, a source that is fetched; more batches ahead do not make up "
                    "for it");
    rule_confirm(f, "headway train RECIPE --data.prefetch %lld", (long long)tried);
    return true;
}

/* The four have an arena each for what they look at. */
typedef bool (*loading_fn)(const struct measure *m, const struct rule_limit *limit,
                           struct finding *f, struct arena *a);

static bool with_arena(loading_fn look, const struct measure *m, const struct rule_limit *limit,
                       struct finding *f)
{
    struct arena a;
    arena_init(&a);
    const bool found = look(m, limit, f, &a);
    arena_fini(&a);
    return found;
}

static bool look_slow_loader(const struct measure *m, const struct rule_limit *limit,
                             struct finding *f)
{
    return look_thief(m, f) || with_arena(see_slow_loader, m, limit, f);
}

static bool look_storage(const struct measure *m, const struct rule_limit *limit,
                         struct finding *f)
{
    return with_arena(see_storage, m, limit, f);
}

static bool look_thrash(const struct measure *m, const struct rule_limit *limit,
                        struct finding *f)
{
    return with_arena(see_thrash, m, limit, f);
}

static bool look_jitter(const struct measure *m, const struct rule_limit *limit,
                        struct finding *f)
{
    return with_arena(see_uneven, m, limit, f);
}

/* --- rows that hold less than they cost ------------------------------------------- */

static bool look_padding(const struct measure *m, const struct rule_limit *limit,
                         struct finding *f)
{
    double lost = m->padding * m->compute;
    if (!(m->padding > limit[0].value) || !(lost >= m->theta))
        return false;
    rule_evidence(f, "%.1f %% of the places in the rows serve no token that counts", 100 * m->padding);
    rule_reject(f, "K7", "the rows are long enough; they are not full");
    rule_gain(m, f, lost, lost, 0.15);
    if (m->config.packed) {
        rule_fix(f, "--data.packing contiguous, or a longer --train.seq: fewer documents are cut "
                    "short of a row's end");
        rule_confirm(f, "headway train RECIPE --data.packing contiguous");
    } else {
        rule_fix(f, "a shorter --train.seq, or longer documents");
        rule_confirm(f, "headway train RECIPE --train.seq %lld",
                     (long long)i64_max(1, m->config.seq / 2));
    }
    return true;
}

static bool look_length_skew(const struct measure *m, const struct rule_limit *limit,
                             struct finding *f)
{
    const struct rows_fit rows = rows_fit(m);
    const struct measure_spread spread = measure_spread(m, rule_compute);
    const double part = rows.correlation * rows.correlation, balance = m->loss[LOSS_BALANCE];
    const double lost = isfinite(balance) ? fmax(rows.skew_s, part * balance) : rows.skew_s;
    if (m->n_ranks < 2 || !rows_follow(&rows, limit[0].value, limit[1].value) || !(lost >= m->theta))
        return false;
    rule_evidence(f, "the rank whose rows ask for most attention computes %.1f ms longer for them than "
                  "the mean, and it is another one each time", 1e3 * rows.skew_s);
    rule_evidence(f, "compute time follows the attention that the rows' lengths ask for: correlation "
                  "%.2f", rows.correlation);
    if (spread.share <= limit[2].value)
        rule_reject(f, "B1", "no rank is the slowest in more than %.0f %% of the steps",
                    100 * spread.share);
    rule_reject(f, "B3", "the lengths explain %.0f %% of how much ranks vary beside each other",
                100 * part);
    rule_edit(f, EDIT_EVEN_WORK, 1);
    f->edit.factor_lo = fmax(0, 1 - 2 * rows.unsure);
    rule_gain(m, f, lost, lost, 0.2);
    rule_fix(f, "--data.border cross (every row costs the same), or more rows per rank: "
                "--train.batch");
    rule_confirm(f, "headway train RECIPE --data.border cross");
    return true;
}

const struct rule rules_data[] = {
    { "D1", "the loader computes too slowly", look_slow_loader,
      { { 0.5, "share of steps that found nothing read ahead",
          "a loader that is behind is behind in most steps, unless a queue that was full at first "
          "hides it; one whose batches are uneven is D4" },
        { 0.5, "share of its time that it computes",
          "between 0.3 (storage) and 0.8 (computing), where both were seen in their pure form" },
        { 0.9, "batches made per batch wanted",
          "below it a queue of a few batches hides the loader, unless its times jump" } } },
    { "D2", "storage is too slow", look_storage,
      { { 0.5, "share of steps that found nothing read ahead", "as D1" },
        { 0.5, "share of its time that it computes", "as D1" },
        { 0.9, "batches made per batch wanted", "as D1" } } },
    { "D3", "the page cache is too small", look_thrash,
      { { 1.5, "bytes read per byte used", "reading ahead in whole pages gives up to 1.2" },
        { 0.5, "pages per step that came from storage",
          "a warm mapping has none; one in two steps is not chance" } } },
    { "D4", "batches come unevenly", look_jitter,
      { { 0.5, "of the wait that a deeper queue leaves",
          "else more depth is not what mends it" } } },
    { "D5", "rows are padded", look_padding,
      { { 0.02, "share of places that serve no token that counts", "as much as a finding must lose" } } },
    { "D6", "rows of unequal length", look_length_skew,
      { { 0.3, "correlation of compute time and work",
          "less and rows explain less than a tenth of how ranks vary" },
        { 4, "standard errors of a correlation by chance", "one in 10^4 by chance" },
        { 0.75, "share of steps in which one rank is the slowest",
          "of two equal ranks each is it in half of 40 steps, give or take 0.16 (two sigma)" } } },
    { .id = "" },
};
