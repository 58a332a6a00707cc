#include "diagnose/measure.h"

#include <math.h>
#include <string.h>

/* A loss below this share of the step is not worth a person's time. */
static const double least_share = 0.02;
/* And none within three standard errors is told from noise. */
static const double least_errors = 3;

/* Neighbouring steps have the same weather, so that they are no independent samples: those in the
 * middle of blocks of so many tell how far the mean of all may be off. (Differences of neighbouring
 * blocks, so that an episode is no noise.) */
enum { BLOCK = 4 };

static double blocked_error(const double *x, i64 n, struct arena *a)
{
    const i64 blocks = n / BLOCK;
    double *apart = ARENA_ARRAY(a, double, blocks), before = NAN;
    for (i64 b = 0; b < blocks; b++) {
        /* The second of four: where two have a pause it is still one without. */
        const double middle = measure_quantile(x + b * BLOCK, BLOCK, 1. / 3);
        apart[b] = fabs(middle - before); /* NaN: left out */
        before = middle;
    }
    return 1.4826 * measure_quantile(apart, blocks, 0.5) / sqrt(2 * (double)blocks);
}

/* By differences of neighbours, of which few are between the levels of episodes. */
static double neighbours_error(const double *x, i64 n, struct arena *a)
{
    double *apart = ARENA_ARRAY(a, double, n);
    for (i64 i = 1; i < n; i++)
        apart[i - 1] = fabs(x[i] - x[i - 1]);
    return n > 1 ? 1.4826 * measure_quantile(apart, n - 1, 0.5) / sqrt(2 * (double)n) : NAN;
}

/* Of a computed clock, to nanoseconds. */
static const double rounding = 1e-6;

/* Steps that stand far from the one before: borders of episodes, where they are fewer than half of
 * the blocks. */
static bool has_few_borders(const double *x, i64 n, double near)
{
    const double five = 5 * near * sqrt(2 * (double)n) / 1.4826; /* usual differences */
    const double far = n > 0 ? fmax(five, rounding * fabs(x[0])) : five;
    i64 borders = 0;
    for (i64 i = 1; i < n; i++)
        borders += fabs(x[i] - x[i - 1]) > far;
    return 2 * borders <= n / BLOCK;
}

/* What comes every few steps is large in differences, episodes are so in deviations: noise is in
 * both. */
static double error_of(const struct measure *m, const double *x, i64 n, struct arena *a)
{
    const double near = neighbours_error(x, n, a);
    const double se = fmin(measure_stat(x, n).se, near); /* fmin: NaN is left out */
    if (m->config.simulated && n > 1 && near * sqrt(2 * (double)n) < rounding * fabs(x[0]))
        return se; /* steps repeat: what else some of them have is a fault, and no noise */
    double blocked = blocked_error(x, n, a);
    /* Of few blocks many may be beside a border; but weather in which each step is the one before and
     * something more has BLOCK times as much between them at most. */
    if (has_few_borders(x, n, near))
        blocked = fmin(blocked, BLOCK * near);
    return fmax(se, blocked);
}

/* How far the step may be off is told by what varies without a name: an evaluation in every
 * other step is no noise. */
static double unnamed_error(const struct measure *m)
{
    static const int named[] = { HOST_LOG, HOST_EVAL, HOST_CHECKPOINT };
    struct arena a;
    arena_init(&a);
    double *rest = ARENA_ARRAY(&a, double, m->n_steps);
    for (i64 i = 0; i < m->n_steps; i++) {
        double sum = 0, n = 0;
        for (i64 r = 0; r < m->n_ranks; r++)
            for (i64 k = 0; k < COUNT_OF(named); k++) {
                double gap = m->ranks[r].gap[named[k]][i];
                sum += isfinite(gap) ? gap : 0;
                n += isfinite(gap) && k == 0;
            }
        rest[i] = m->seconds[i] - (n > 0 ? sum / n : 0);
    }
    const double error = error_of(m, rest, m->n_steps, &a);
    arena_fini(&a);
    return error;
}

static void set_theta(struct measure *m)
{
    double noise = least_errors * m->step.se;
    m->theta = fmax(least_share * m->step.mean, isfinite(noise) ? noise : 0);
}

/* In so many of the steps at least a rank has the time. */
static const double nearly_all = 0.9;
/* Half the clock is about the least that processors have. */
static const double most_stretch = 2;

static void settle_stretches(struct measure *m)
{
    struct arena a;
    arena_init(&a);
    double *times = ARENA_ARRAY(&a, double, m->n_steps);
    double *most = ARENA_ARRAY(&a, double, m->n_steps);
    for (i64 i = 0; i < m->n_steps; i++)
        for (i64 r = 0; r < m->n_ranks; r++)
            most[i] = fmax(most[i], m->ranks[r].compute[i]);
    for (i64 r = 0; r < m->n_ranks; r++) {
        for (i64 i = 0; i < m->n_steps; i++)
            times[i] = most[i] / m->ranks[r].compute[i];
        const double x = measure_quantile(times, m->n_steps, 1 - nearly_all);
        m->ranks[r].stretch = isfinite(x) ? fmin(most_stretch, fmax(1, x)) : 1;
    }
    arena_fini(&a);
}

void measure_settle(struct measure *m)
{
    m->step = measure_stat(m->seconds, m->n_steps);
    m->step.se = unnamed_error(m);
    set_theta(m);
    settle_stretches(m);
}

void measure_settle_left(struct measure *m, const double *left, i64 n)
{
    struct arena a;
    arena_init(&a);
    /* Of some of the steps; the mean is that of all. */
    const double error = error_of(m, left, n, &a) * sqrt((double)n / (double)m->n_steps);
    arena_fini(&a);
    m->step.se = fmin(m->step.se, error);
    set_theta(m);
}

static void blank_rank(struct measure_rank *r, int rank, i64 n_steps, struct arena *a)
{
    double **series[] = { &r->step, &r->compute, &r->data, &r->wait, &r->transfer };
    *r = (struct measure_rank){ .rank = rank, .last_share = NAN,
        .blamed_share = NAN, .noise = NAN, .quiet_pace = NAN, .load_cpu = NAN,
        .load_cpu_s = NAN, .queue_empty = NAN, .read_bytes = NAN, .used_bytes = NAN, .on_cpu = NAN,
        .run_queue_s = NAN, .pool_queue_s = NAN, .throttled_s = NAN, .steal_s = NAN, .throttles = NAN, .clock = NAN,
        .minor_faults = NAN, .major_faults = NAN, .switches = NAN, .system_s = NAN,
        .memory_stall = NAN, .io_stall = NAN, .rss_bytes = NAN, .limit_bytes = NAN,
        .far_share = NAN, .far_speed = NAN, .stretch = 1 };
    for (i64 i = 0; i < COUNT_OF(series); i++)
        *series[i] = ARENA_ARRAY(a, double, n_steps);
    for (int k = 0; k < HOST_KINDS; k++)
        r->gap[k] = ARENA_ARRAY(a, double, n_steps);
}

struct measure *measure_new(i64 n_ranks, i64 n_steps, struct arena *a)
{
    struct measure *m = ARENA_NEW(a, struct measure);
    struct measure_ceilings unknown = { NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN };
    m->n_ranks = n_ranks;
    m->n_steps = n_steps;
    m->numbers = ARENA_ARRAY(a, i64, n_steps);
    m->seconds = ARENA_ARRAY(a, double, n_steps);
    m->ranks = ARENA_ARRAY(a, struct measure_rank, n_ranks);
    for (i64 r = 0; r < n_ranks; r++)
        blank_rank(&m->ranks[r], (int)r, n_steps, a);
    m->ceilings = unknown;
    for (int k = 0; k < LOSSES; k++)
        m->loss[k] = NAN;
    m->padding = m->energy.watts = m->rows_slope = m->rows_unsure = NAN;
    m->threads_per_node = m->cores_per_node = NAN;
    m->memory_peak_bytes = m->memory_limit_bytes = m->recompute_bytes = NAN;
    m->run_s = m->start_s = m->compute = NAN;
    m->silent_s = NAN;
    m->end_absent = m->final_step = -1;
    m->config.link_latency_s = m->config.link_bytes_per_s = NAN;
    m->config.probed.a = m->config.probed.b = -1;
    m->behind_rank = m->slow_end.first = m->slow_end.last = -1;
    m->ended = true;
    m->config.islands = m->config.pp = m->config.dp = m->config.cp = m->config.tp = 1;
    m->config.ep = m->config.micro_batches = m->config.accumulate = 1;
    return m;
}

bool measure_whole(const struct measure *m)
{
    return m->missing == 0 && !m->apart;
}

void measure_keep_means(struct measure *m, struct arena *a)
{
    enum { EACH = 16 }; /* series of a rank, and some room */
    i64 places = EACH;
    while (places < EACH * m->n_ranks)
        places *= 2;
    m->means = ARENA_NEW(a, struct measure_means);
    *m->means = (struct measure_means){ ARENA_ARRAY(a, const double *, places),
                                        ARENA_ARRAY(a, double, places), places, 0 };
}

double measure_mean(const struct measure *m, const double *series)
{
    struct measure_means *k = m->means;
    if (!k || !series || 2 * k->n >= k->places)
        return measure_stat(series, m->n_steps).mean;
    /* 2^64 over the golden ratio: Fibonacci hashing. */
    i64 at = (i64)((u64)(uintptr_t)series * 0x9e3779b97f4a7c15u >> 32) & (k->places - 1);
    while (k->series[at] && k->series[at] != series)
        at = (at + 1) & (k->places - 1);
    if (!k->series[at]) {
        k->series[at] = series;
        k->mean[at] = measure_stat(series, m->n_steps).mean;
        k->n++;
    }
    return k->mean[at];
}

bool measure_is_final(const struct measure *m, i64 index)
{
    return m->final_step >= 0 && m->numbers[index] == m->final_step;
}

double measure_recurring(const struct measure *m, i64 rank, enum measure_host kind)
{
    const double *gap = m->ranks[rank].gap[kind];
    double sum = 0;
    i64 n = 0;
    for (i64 i = 0; i < m->n_steps; i++)
        if (isfinite(gap[i])) {
            sum += measure_is_final(m, i) ? 0 : gap[i];
            n++;
        }
    return n > 0 ? sum / (double)n : NAN;
}

struct measure_spikes measure_regular_pauses(const struct measure *m, i64 rank, double sigma,
                                             double floor)
{
    const double *gap = m->ranks[rank].gap[HOST_GAP];
    const struct measure_spikes all = measure_spikes(gap, m->n_steps, sigma, 0.5, floor);
    struct measure_spikes s = all;
    /* What the run's end takes is a pause only where those before it say that one is due. */
    if (m->n_steps > 0 && measure_is_final(m, m->n_steps - 1)) {
        s = measure_spikes(gap, m->n_steps - 1, sigma, 0.5, floor);
        s = s.count >= 2 && s.period == all.period ? all : s;
    }
    return s.count >= 2 && s.period > 0 ? s : (struct measure_spikes){ .first = -1 };
}

struct measure_spread measure_spread(const struct measure *m, measure_series_fn series)
{
    struct measure_spread s = { 0, 0, 0, -1, 0 };
    struct arena a;
    arena_init(&a);
    double *x = ARENA_ARRAY(&a, double, m->n_ranks);
    i64 *first = ARENA_ARRAY(&a, i64, m->n_ranks);
    for (i64 i = 0; i < m->n_steps; i++) {
        i64 most = 0;
        for (i64 r = 0; r < m->n_ranks; r++) {
            x[r] = series(&m->ranks[r])[i];
            if (isfinite(x[r]) && !(x[r] <= x[most]))
                most = r;
        }
        first[most]++;
        s.most += x[most] / (double)m->n_steps;
        s.median += measure_quantile(x, m->n_ranks, 0.5) / (double)m->n_steps;
    }
    s.excess = s.most - s.median;
    for (i64 r = 0; r < m->n_ranks; r++)
        if (s.rank < 0 || first[r] > first[s.rank])
            s.rank = r;
    if (m->n_steps > 0)
        s.share = (double)first[s.rank] / (double)m->n_steps;
    arena_fini(&a);
    return s;
}

const struct inject_fault *measure_probe(const struct measure *m, i64 step)
{
    if (!m->inject)
        return NULL;
    for (int i = m->inject->n - 1; i >= 0; i--) {
        const struct inject_fault *f = &m->inject->faults[i];
        if (f->kind == INJECT_PROBE && step >= f->first_step && step <= f->last_step)
            return f;
    }
    return NULL;
}
