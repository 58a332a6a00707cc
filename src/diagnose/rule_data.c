/* The loader is behind, or what it brings is worth less than it costs. */
#include "diagnose/rule.h"

#include <math.h>
#include <stdio.h>

/* --- waiting for the loader ------------------------------------------------------- */

/* What the four rules about waiting look at. */
struct loading {
    const struct measure_rank *rank; /* that waits most */
    bool alone;                      /* and the others do not; said where no loads were timed */
    double lost, service, use;       /* s per step; to make a batch; batches made per wanted */
    double amplification;
    bool episode;                    /* it is slow for some batches in a row, of these steps */
    i64 first, last;
};

/* Batches of an episode all take longer than those before and behind it; where times jump, some of
 * either kind do not. */
static bool is_episode(const double *load, i64 n, struct measure_change c)
{
    const double border = (c.before + c.inside) / 2;
    i64 odd = 0;
    if (c.until == 0 || !(c.inside > c.before) || c.until - c.at == n)
        return false;
    for (i64 i = 0; i < n; i++)
        odd += (load[i] > border) != (i >= c.at && i < c.until);
    return odd <= 2; /* those that were under way */
}

/* For which steps' batches the loader is slow. */
static void see_episode(const struct measure *m, struct loading *l, const struct rule_limit *sigma)
{
    const struct measure_rank *k = l->rank;
    const struct measure_change c = measure_change(k->load, k->n_loads, sigma->value);
    if (!k->load || !is_episode(k->load, k->n_loads, c))
        return;
    l->episode = true;
    l->first = i64_max(k->load_step + c.at, m->numbers[0]);
    l->last = i64_min(k->load_step + c.until - 1, m->numbers[m->n_steps - 1]);
    l->use *= c.inside / l->service;
    l->service = c.inside;
}

static const struct rule_limit level = { 5, "sigma between the levels", "as B2" };

static bool see_loading(const struct measure *m, struct loading *l)
{
    i64 r = 0;
    if (m->n_ranks == 0)
        return false;
    l->alone = rule_alone(m, rule_data, &r);
    l->rank = &m->ranks[r];
    l->lost = m->loss[LOSS_DATA];
    double waited = measure_mean(m, l->rank->data);
    if (!isfinite(l->lost))
        l->lost = waited;
    l->service = measure_stat(l->rank->load, l->rank->n_loads).mean;
    double rest = m->step.mean - waited;
    l->use = l->service / ((double)i64_max(m->config.loader_threads, 1) * fmax(rest, 1e-9));
    l->amplification = l->rank->read_bytes / l->rank->used_bytes;
    l->episode = false;
    see_episode(m, l, &level);
    return l->lost >= m->theta;
}

/* Which ranks' loaders are behind: those that would make a step wait by themselves. While one
 * waits the others' loaders catch up, so that of equal loaders one may have all the waiting.
 * Where it is their unevenness that makes steps wait (uneven), by chance some wait far more
 * than others: then those whose times are as uneven. */
static void place_loading(const struct measure *m, const struct loading *l, bool uneven,
                          struct finding *f)
{
    const double consume = m->step.mean - measure_mean(m, l->rank->data);
    struct arena a;
    arena_init(&a);
    double *waits = ARENA_ARRAY(&a, double, m->n_ranks), most = 0;
    for (i64 r = 0; r < m->n_ranks; r++) {
        const struct measure_rank *k = &m->ranks[r];
        if (k->load && k->n_loads > 0 && uneven)
            waits[r] = measure_quantile(k->load, k->n_loads, 0.85) -
                       measure_quantile(k->load, k->n_loads, 0.15);
        else if (k->load && k->n_loads > 0)
            waits[r] = measure_queue_wait(k->load, k->n_loads, consume, m->config.loader_threads,
                                          m->config.prefetch);
        most = fmax(most, waits[r]);
    }
    if (most > 0)
        rule_place_ranks(m, waits, f);
    else if (l->alone)
        f->place.rank = l->rank->rank;
    arena_fini(&a);
}

static void tell_loading(const struct measure *m, const struct loading *l, bool uneven,
                         struct finding *f)
{
    place_loading(m, l, uneven, f);
    snprintf(f->place.lane, sizeof f->place.lane, "loader");
    rule_evidence(f, "the step waits %.1f ms for data; %.0f %% of the steps found nothing ready",
                  1e3 * l->lost, 100 * l->rank->queue_empty);
    rule_evidence(f, "a step's batch takes %.1f ms to make, and is wanted every %.1f ms",
                  1e3 * l->service, 1e3 * (m->step.mean - measure_mean(m, l->rank->data)));
    if (l->episode) {
        f->place.first_step = l->first;
        f->place.last_step = l->last;
    }
    rule_edit(f, EDIT_DATA, 0);
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
    rule_confirm(f, "top -H -p PID shows the loader's thread");
    return true;
}

enum { ENOUGH_LOADS = 10 }; /* to tell even ones from others */

/* What steps would wait if each batch took the median batch's time. */
static double even_wait(const struct measure *m, const struct loading *l, double consume)
{
    const struct measure_rank *k = l->rank;
    const double median = measure_quantile(k->load, k->n_loads, 0.5);
    struct arena a;
    arena_init(&a);
    double *service = ARENA_ARRAY(&a, double, k->n_loads);
    for (i64 i = 0; i < k->n_loads; i++)
        service[i] = median;
    double wait = measure_queue_wait(service, k->n_loads, consume, m->config.loader_threads,
                                     m->config.prefetch);
    arena_fini(&a);
    return wait;
}

/* How far the replayed wait may be off: the queue's error with 40 steps is a fifth. Of a wait, what
 * batches may leave that all take as long, where it is their unevenness that costs. */
static const double most_off = 0.35, most_even = 0.5;

/* Whether the loaders' times, replayed, explain what was waited: of the rank that waits most, or of
 * all, since of equally uneven ones chance makes one wait most. */
static bool explained(const struct measure *m, const struct loading *l)
{
    const double most = measure_mean(m, l->rank->data);
    double waited = 0, replayed = 0;
    for (i64 r = 0; r < m->n_ranks; r++) {
        const struct measure_rank *k = &m->ranks[r];
        const double own = measure_mean(m, k->data);
        if (!k->load || k->n_loads == 0 || !isfinite(own))
            continue;
        const double again = measure_queue_wait(k->load, k->n_loads, m->step.mean - own,
                                                m->config.loader_threads, m->config.prefetch);
        if (k == l->rank && fabs(again - most) <= most_off * most)
            return true;
        waited += own;
        replayed += again;
    }
    return fabs(replayed - waited) <= most_off * waited;
}

/* Steps wait for batches that take longer than others, and would not for batches that all take as
 * long as the median one. */
static bool is_uneven(const struct measure *m, const struct loading *l)
{
    const double waited = measure_mean(m, l->rank->data);
    return !l->episode && l->rank->n_loads >= ENOUGH_LOADS && explained(m, l) &&
           even_wait(m, l, m->step.mean - waited) < most_even * waited;
}

/* The loader is late in most steps or for some, or is by what an ordinary batch takes. */
static bool is_behind(const struct measure *m, const struct loading *l, double most_empty)
{
    const double waited = measure_mean(m, l->rank->data);
    if (l->episode || is_uneven(m, l))
        return l->episode;
    return l->rank->queue_empty >= most_empty ||
           (l->rank->n_loads >= ENOUGH_LOADS &&
            even_wait(m, l, m->step.mean - waited) >= most_even * waited);
}

static bool look_slow_loader(const struct measure *m, const struct rule_limit *limit,
                             struct finding *f)
{
    struct loading l;
    if (look_thief(m, f))
        return true;
    if (!see_loading(m, &l) || !is_behind(m, &l, limit[0].value) ||
        l.use < limit[2].value || l.rank->load_cpu < limit[1].value || l.amplification > 1.5)
        return false;
    tell_loading(m, &l, false, f);
    rule_evidence(f, "the loader computes for %.0f %% of its time", 100 * l.rank->load_cpu);
    reject_busy(&l, f, true);
    rule_gain(m, f, l.lost, l.lost, 0.15);
    i64 threads = (i64)ceil(l.use * (double)i64_max(m->config.loader_threads, 1) * 1.2);
    rule_fix(f, "--data.threads %lld, or sources prepared beforehand with `headway data prepare`",
             (long long)i64_max(threads, 2));
    rule_confirm(f, "headway train RECIPE --data.threads %lld",
                 (long long)i64_max(threads, 2));
    return true;
}

static bool look_storage(const struct measure *m, const struct rule_limit *limit,
                         struct finding *f)
{
    struct loading l;
    if (!see_loading(m, &l) || !is_behind(m, &l, limit[0].value) ||
        l.use < limit[2].value || !(l.rank->load_cpu < limit[1].value) || l.amplification > 1.5)
        return false;
    tell_loading(m, &l, false, f);
    rule_evidence(f, "the loader stands still for storage: %.0f %% of its time on a processor, "
                  "%.1f MB/s read", 100 * l.rank->load_cpu,
                  1e-6 * l.rank->read_bytes / m->step.mean);
    if (l.rank->io_stall > 0)
        rule_evidence(f, "something waits for storage in %.0f %% of the time",
                      100 * l.rank->io_stall);
    rule_reject(f, "D1", "it computes for %.0f %% of its time only", 100 * l.rank->load_cpu);
    reject_busy(&l, f, false);
    rule_gain(m, f, l.lost, l.lost, 0.15);
    rule_fix(f, "copy the shards to a local disk and set data.sources there");
    rule_confirm(f, "cat SHARDS >/dev/null (into the page cache), then the same run again");
    return true;
}

static bool look_thrash(const struct measure *m, const struct rule_limit *limit,
                        struct finding *f)
{
    struct loading l;
    if (!see_loading(m, &l) || !(l.amplification > limit[0].value) ||
        !(l.rank->major_faults > limit[1].value))
        return false;
    tell_loading(m, &l, false, f);
    rule_evidence(f, "%.1f times as much is read as used; %.1f pages a step come from storage",
                  l.amplification, l.rank->major_faults);
    rule_reject(f, "D2", "the disk reads %.1f times what is used: the page cache is too small",
                l.amplification);
    rule_gain(m, f, l.lost, l.lost * (1 - 1 / l.amplification), 0.25);
    rule_fix(f, "more memory for the page cache (the cgroup's limit), or fewer ranks per node");
    rule_confirm(f, "the same run with twice the memory limit");
    return true;
}

/* The least depth whose replayed wait is below a hundredth of the step; 0: none helps. */
static i64 depth_that_suits(const struct measure *m, const struct loading *l, double consume)
{
    for (i64 depth = 2; depth <= 256; depth *= 2)
        if (depth > m->config.prefetch &&
            measure_queue_wait(l->rank->load, l->rank->n_loads, consume,
                               m->config.loader_threads, depth) < 0.01 * m->step.mean)
            return depth;
    return 0;
}

static bool look_jitter(const struct measure *m, const struct rule_limit *limit,
                        struct finding *f)
{
    struct loading l;
    if (!see_loading(m, &l) || !is_uneven(m, &l))
        return false;
    double waited = measure_mean(m, l.rank->data), consume = m->step.mean - waited;
    double replayed = measure_queue_wait(l.rank->load, l.rank->n_loads, consume,
                                         m->config.loader_threads, m->config.prefetch);
    i64 depth = depth_that_suits(m, &l, consume), tried = depth > 0 ? depth : 256;
    double left = measure_queue_wait(l.rank->load, l.rank->n_loads, consume,
                                     m->config.loader_threads, tried);
    const double even = even_wait(m, &l, consume);
    const bool deeper = left < limit[0].value * waited;
    tell_loading(m, &l, true, f);
    rule_evidence(f, "making a batch takes %.1f ms in the median and %.1f ms in the worst "
                     "twentieth",
                  1e3 * measure_quantile(l.rank->load, l.rank->n_loads, 0.5),
                  1e3 * measure_quantile(l.rank->load, l.rank->n_loads, 0.95));
    rule_evidence(f, "these times, replayed with %lld batches ahead, wait %.1f ms a step; "
                     "with %lld "
                  "ahead %.1f ms", (long long)m->config.prefetch, 1e3 * replayed,
                  (long long)tried, 1e3 * left);
    if (l.use < 0.9)
        rule_reject(f, "D1", "on average the loader is busy for %.0f %% only", 100 * l.use);
    else
        rule_reject(f, "D1", "if each batch took the median one's time, %.1f ms would be waited",
                    1e3 * even);
    f->edit.kind = EDIT_NONE;
    /* Slow batches may become ordinary ones, or all of them quick. */
    rule_gain(m, f, l.lost, fmax(0, l.lost - 0.5 * fmin(left, even)), 0.25);
    if (deeper)
        rule_fix(f, "--data.prefetch %lld", (long long)tried);
    else
        rule_fix(f, "find what makes some batches that slow: storage that others use, long "
                    "documents, a source that is fetched; more batches ahead do not make up "
                    "for it");
    rule_confirm(f, "headway train RECIPE --data.prefetch %lld", (long long)tried);
    return true;
}

/* --- rows that hold less than they cost ------------------------------------------- */

static bool look_padding(const struct measure *m, const struct rule_limit *limit,
                         struct finding *f)
{
    double lost = m->padding * m->compute;
    if (m->config.answers || !(m->padding > limit[0].value) || !(lost >= m->theta))
        return false;
    rule_evidence(f, "%.1f %% of the places in the rows count in no loss", 100 * m->padding);
    rule_reject(f, "K7", "the rows are long enough; they are not full");
    rule_gain(m, f, lost, lost, 0.15);
    if (m->config.packed)
        rule_fix(f, "--data.packing contiguous, or a longer --train.seq: fewer documents are cut "
                    "short of a row's end");
    else
        rule_fix(f, "a shorter --train.seq, or longer documents");
    rule_confirm(f, "headway train RECIPE --data.packing contiguous");
    return true;
}

static void centre(const struct measure *m, measure_series_fn series, double *out)
{
    for (i64 i = 0; i < m->n_steps; i++) {
        double mean = 0;
        for (i64 r = 0; r < m->n_ranks; r++)
            mean += series(&m->ranks[r])[i] / (double)m->n_ranks;
        for (i64 r = 0; r < m->n_ranks; r++)
            out[i * m->n_ranks + r] = series(&m->ranks[r])[i] - mean;
    }
}

static const double *series_work(const struct measure_rank *r) { return r->work; }

static bool look_length_skew(const struct measure *m, const struct rule_limit *limit,
                             struct finding *f)
{
    for (i64 r = 0; r < m->n_ranks; r++)
        if (!m->ranks[r].work)
            return false;
    struct measure_spread spread = measure_spread(m, rule_compute);
    double lost = isfinite(m->loss[LOSS_BALANCE]) ? m->loss[LOSS_BALANCE] : spread.excess;
    if (m->n_ranks < 2 || !(lost >= m->theta) || spread.share > limit[1].value)
        return false;
    struct arena a;
    arena_init(&a);
    i64 n = m->n_ranks * m->n_steps;
    double *c = ARENA_ARRAY(&a, double, n), *w = ARENA_ARRAY(&a, double, n);
    centre(m, rule_compute, c);
    centre(m, series_work, w);
    double together = measure_correlation(c, w, n);
    arena_fini(&a);
    if (!(together >= limit[0].value))
        return false;
    rule_evidence(f, "the slowest rank computes %.1f ms longer than the median, and it is another "
                  "one each time (the most frequent: %.0f %%)", 1e3 * spread.excess,
                  100 * spread.share);
    rule_evidence(f, "compute time follows the attention that the rows' lengths ask for: "
                  "correlation %.2f", together);
    rule_reject(f, "B1", "no rank is the slowest in more than %.0f %% of the steps",
                100 * spread.share);
    rule_reject(f, "B3", "the lengths explain it: correlation %.2f, not below 0.3", together);
    rule_edit(f, EDIT_EVEN_ROWS, 1);
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
      { { 0.02, "share of places that count in no loss", "as much as a finding must lose" } } },
    { "D6", "rows of unequal length", look_length_skew,
      { { 0.7, "correlation of compute time and work", "0.8 was seen for pure skew; noise of a "
          "tenth in the times lowers it by a tenth" },
        { 0.75, "share of steps in which one rank is the slowest",
          "of two equal ranks each is it in half of 40 steps, give or take 0.16 (two sigma)" } } },
    { .id = "" },
};
