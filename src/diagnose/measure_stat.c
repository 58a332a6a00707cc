/* Statistics that a few odd values do not move (measure.h). */
#include "diagnose/measure.h"

#include "base/sort.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Of sorted values. */
static double sorted_quantile(const double *x, i64 n, double q)
{
    double at = q * (double)(n - 1);
    i64 low = (i64)at;
    double rest = at - (double)low;
    return low + 1 < n ? x[low] * (1 - rest) + x[low + 1] * rest : x[n - 1];
}

/* Into out, in their order; how many. */
static i64 keep_finite(const double *x, i64 n, double *out)
{
    i64 count = 0;
    for (i64 i = 0; x && i < n; i++)
        if (isfinite(x[i]))
            out[count++] = x[i];
    return count;
}

static double *numbers_of(const double *x, i64 n, struct arena *a, i64 *count)
{
    double *kept = ARENA_UNSET(a, double, n);
    *count = keep_finite(x, n, kept);
    sort_numbers(kept, *count, a);
    return kept;
}

/* What sorted_quantile gives of them when they are sorted. */
static double quantile_of(const double *x, i64 n, double q, struct arena *a)
{
    const double at = q * (double)(n - 1);
    const i64 low = (i64)at;
    const double rest = at - (double)low;
    if (low + 1 >= n)
        return sort_select(x, n, n - 1, a);
    const double first = sort_select(x, n, low, a);
    double second = INFINITY;
    i64 until = 0; /* how many are not behind the first */
    for (i64 i = 0; i < n; i++) {
        until += x[i] <= first;
        second = x[i] > first && x[i] < second ? x[i] : second;
    }
    return first * (1 - rest) + (until > low + 1 ? first : second) * rest;
}

/* Of so few, as of the ranks in each step, without an arena. */
enum { FEW = 32 };

static double quantile_of_few(const double *x, i64 n, double q)
{
    double kept[FEW];
    const i64 count = keep_finite(x, n, kept);
    for (i64 i = 1; i < count; i++) {
        const double own = kept[i];
        i64 at = i;
        for (; at > 0 && kept[at - 1] > own; at--)
            kept[at] = kept[at - 1];
        kept[at] = own;
    }
    return count > 0 ? sorted_quantile(kept, count, q) : NAN;
}

double measure_quantile(const double *x, i64 n, double q)
{
    struct arena a;
    if (n <= FEW)
        return quantile_of_few(x, n, q);
    arena_init(&a);
    double *kept = ARENA_UNSET(&a, double, n);
    const i64 count = keep_finite(x, n, kept);
    const double value = count > 0 ? quantile_of(kept, count, q, &a) : NAN;
    arena_fini(&a);
    return value;
}

static const double trimmed_share = 0.1;

double measure_trimmed(const double *x, i64 n)
{
    struct arena a;
    i64 count;
    arena_init(&a);
    double *kept = numbers_of(x, n, &a, &count), sum = 0;
    const i64 cut = (i64)(trimmed_share * (double)count);
    for (i64 i = cut; i < count - cut; i++)
        sum += kept[i];
    arena_fini(&a);
    return count > 0 ? sum / (double)(count - 2 * cut) : NAN;
}

struct measure_stat measure_stat(const double *x, i64 n)
{
    struct measure_stat s = { NAN, NAN, NAN, NAN, NAN, NAN, 0 };
    struct arena a;
    arena_init(&a);
    double *kept = numbers_of(x, n, &a, &s.n), sum = 0;
    if (s.n > 0) {
        for (i64 i = 0; i < s.n; i++)
            sum += kept[i];
        s.mean = sum / (double)s.n;
        s.median = sorted_quantile(kept, s.n, 0.5);
        s.least = kept[0];
        s.most = kept[s.n - 1];
        for (i64 i = 0; i < s.n; i++)
            kept[i] = fabs(kept[i] - s.median);
        s.sigma = 1.4826 * quantile_of(kept, s.n, 0.5, &a);
        s.se = s.sigma / sqrt((double)s.n);
    }
    arena_fini(&a);
    return s;
}

/* --- pairs ------------------------------------------------------------------------ */

struct sums {
    double n, x, y, xx, xy, yy; /* of deviations from the first pair, for accuracy */
    double x0, y0;
};

static struct sums sum_pairs(const double *x, const double *y, i64 n)
{
    struct sums s = { 0 };
    for (i64 i = 0; x && y && i < n; i++) {
        if (!isfinite(x[i]) || !isfinite(y[i]))
            continue;
        if (s.n == 0) {
            s.x0 = x[i];
            s.y0 = y[i];
        }
        double dx = x[i] - s.x0, dy = y[i] - s.y0;
        s.n++;
        s.x += dx;
        s.y += dy;
        s.xx += dx * dx;
        s.xy += dx * dy;
        s.yy += dy * dy;
    }
    return s;
}

double measure_correlation(const double *x, const double *y, i64 n)
{
    struct sums s = sum_pairs(x, y, n);
    double vx = s.n * s.xx - s.x * s.x, vy = s.n * s.yy - s.y * s.y;
    if (s.n < 3 || vx <= 0 || vy <= 0)
        return NAN;
    return (s.n * s.xy - s.x * s.y) / sqrt(vx * vy);
}

struct measure_line measure_line(const double *x, const double *y, i64 n)
{
    struct sums s = sum_pairs(x, y, n);
    double vx = s.n * s.xx - s.x * s.x;
    struct measure_line line = { NAN, NAN, (i64)s.n };
    if (s.n < 2 || vx <= 0)
        return line;
    line.b = (s.n * s.xy - s.x * s.y) / vx;
    line.a = s.y0 + s.y / s.n - line.b * (s.x0 + s.x / s.n);
    return line;
}

/* --- series ----------------------------------------------------------------------- */

/* Fewer steps than this, or than an eighth of all, are no level: a machine's weather has spells. */
enum { LEAST_PART = 5, PARTS = 8, BORDERS = 512 };

static double mean_of(const double *y, i64 from, i64 to)
{
    double sum = 0;
    for (i64 i = from; i < to; i++)
        sum += y[i];
    return to > from ? sum / (double)(to - from) : NAN;
}

/* How much of the squared deviations one odd part [at, until) explains. */
static double explained(const double *sum, i64 n, i64 at, i64 until)
{
    double inside = sum[until] - sum[at], all = sum[n], k = (double)(until - at);
    double rest = all - inside, m = (double)n - k;
    return inside * inside / k + rest * rest / m - all * all / (double)n;
}

/* Sigma within the two levels. */
static double noise_of(const double *y, i64 n, const struct measure_change *c, struct arena *a)
{
    double *d = ARENA_ARRAY(a, double, n);
    for (i64 i = 0; i < n; i++)
        d[i] = fabs(y[i] - (i >= c->at && i < c->until ? c->inside : c->before));
    return 1.4826 * measure_quantile(d, n, 0.5);
}

/* y without values that no level has: each is moved to the middle of its neighbours. */
static void smooth(const double *y, i64 n, double *out)
{
    for (i64 i = 0; i < n; i++) {
        double three[3] = { y[i64_max(i - 1, 0)], y[i], y[i64_min(i + 1, n - 1)] };
        qsort(three, 3, sizeof *three, ascending);
        out[i] = three[1];
    }
}

/* The best of parts whose borders lie `stride` apart in these ranges, in *c, when it is better than
 * `best`. */
struct borders {
    i64 at, at_end, until, until_end, stride;
};

static double best_part(const double *sum, i64 n, i64 part, const struct borders *b, double best,
                        struct measure_change *c)
{
    for (i64 at = i64_max(b->at, part > 1 ? part : 0); at + part <= n && at <= b->at_end; at += b->stride)
        for (i64 until = i64_max(b->until, at + part); until <= n && until <= b->until_end;
             until += b->stride) {
            double gain = explained(sum, n, at, until);
            if (gain > best * (1 + 1e-9)) {
                best = gain;
                c->at = at;
                c->until = until;
            }
        }
    return best;
}

/* Sets the levels of the two parts. */
static void set_levels(const double *flat, i64 n, struct measure_change *c)
{
    double outside = mean_of(flat, 0, c->at) * (double)c->at;
    outside = c->at > 0 ? outside : 0;
    if (c->until < n)
        outside += mean_of(flat, c->until, n) * (double)(n - c->until);
    c->before = outside / (double)(n - c->until + c->at);
    c->inside = mean_of(flat, c->at, c->until);
}

/* A part of the least length may have been shorter: what is nearer to the other level is none of it. */
static void trim(const double *y, struct measure_change *c)
{
    const double border = (c->before + c->inside) / 2;
    const bool above = c->inside > c->before;
    while (c->until - c->at > 2 && (y[c->at] > border) != above)
        c->at++;
    while (c->until - c->at > 2 && (y[c->until - 1] > border) != above)
        c->until--;
}

/* A part that begins where the shortest first level ends may have begun before. */
static void grow(const double *y, i64 part, struct measure_change *c)
{
    const double border = (c->before + c->inside) / 2;
    const bool above = c->inside > c->before;
    while (c->at == part && part > 1 && (y[part - 1] > border) == above)
        c->at = --part;
}

/* Of two parts behind each other the higher one is odd, also where it is the first. */
static void take_higher(const double *y, i64 n, struct measure_change *c)
{
    if (c->inside < c->before && (c->at == 0 || c->until == n)) {
        const struct measure_change low = *c;
        c->at = low.at == 0 ? low.until : 0;
        c->until = low.at == 0 ? n : low.at;
        set_levels(y, n, c);
    }
}

/* exact: no value is off by chance. */
static struct measure_change find_change(const double *y, i64 n, double least, bool exact)
{
    struct measure_change c = { 0, 0, NAN, NAN, 0 };
    struct arena a;
    const i64 part = exact ? 1 : i64_max(LEAST_PART, n / PARTS);
    if (!y || n < 3 * part)
        return c;
    arena_init(&a);
    double *flat = ARENA_ARRAY(&a, double, n), *sum = ARENA_ARRAY(&a, double, n + 1), best = 0;
    if (exact)
        memcpy(flat, y, (size_t)n * sizeof *flat);
    else
        smooth(y, n, flat);
    for (i64 i = 0; i < n; i++)
        sum[i + 1] = sum[i] + flat[i] - flat[0];
    /* All pairs of borders of a long series are too many: first some hundred, then those around. */
    const i64 stride = ceil_div(n, BORDERS);
    best = best_part(sum, n, part, &(struct borders){ 0, n, 0, n, stride }, best, &c);
    if (stride > 1 && c.until > 0)
        best_part(sum, n, part, &(struct borders){ c.at - stride, c.at + stride, c.until - stride,
                                                   c.until + stride, 1 }, best, &c);
    if (c.until > 0) {
        set_levels(flat, n, &c);
        if (c.until - c.at == part)
            trim(y, &c);
        grow(y, part, &c);
        set_levels(flat, n, &c);
        if (exact && c.until - c.at < n)
            take_higher(flat, n, &c);
        double noise = fmax(noise_of(y, n, &c, &a), 1e-9 * fabs(c.before));
        c.height = fabs(c.inside - c.before) / fmax(noise, 1e-300);
    }
    if (c.height < least)
        c.at = c.until = 0;
    arena_fini(&a);
    return c;
}

struct measure_change measure_change(const double *y, i64 n, double least)
{
    return find_change(y, n, least, false);
}

struct measure_change measure_change_of(const struct measure *m, const double *y, i64 n, double least)
{
    return find_change(y, n, least, m->config.simulated);
}

/* One spike beside so many regular ones is a stray. */
enum { REGULAR_PER_STRAY = 5 };
/* What is smaller than this share of the largest is of another kind. */
static const double least_of_largest = 0.1;

/* at[count] ascending: whether those that are `period` apart from at[from] on, with none left out,
 * are all but some strays. */
static bool is_regular(const i64 *at, i64 count, i64 from, i64 period)
{
    i64 next = at[from] + period, n = 1;
    for (i64 k = from + 1; k < count; k++) {
        if (at[k] > next)
            break; /* one is left out: what follows are strays */
        n += at[k] == next;
        next += at[k] == next ? period : 0;
    }
    return n >= 2 && next > at[count - 1] && REGULAR_PER_STRAY * (count - n) <= n;
}

/* Any two are equally far apart: they are regular where a third one's place is in none of n values. */
static i64 period_of(const i64 *at, i64 count, i64 n)
{
    if (count == 2) {
        const i64 period = at[1] - at[0];
        return at[0] < period && at[1] + period >= n ? period : 0;
    }
    for (i64 from = 0; from < i64_min(count, 2); from++)
        for (i64 k = from + 1; k < i64_min(count, from + 3); k++)
            if (is_regular(at, count, from, at[k] - at[from]))
                return at[k] - at[from];
    return 0;
}

struct measure_spikes measure_spikes(const double *y, i64 n, double least, double share,
                                     double floor)
{
    struct measure_spikes s = { 0, 0, -1, 0 };
    struct measure_stat stat = measure_stat(y, n);
    double above = fmax(floor, fmax(least * stat.sigma, share * fabs(stat.median)));
    above = fmax(above, least_of_largest * (stat.most - stat.median));
    struct arena a;
    arena_init(&a);
    i64 *at = ARENA_ARRAY(&a, i64, n);
    for (i64 i = 0; i < n; i++)
        if (y[i] > stat.median + above) {
            at[s.count++] = i;
            s.area += y[i] - stat.median;
        }
    s.first = s.count > 0 ? at[0] : -1;
    s.period = period_of(at, s.count, n);
    arena_fini(&a);
    return s;
}

/* When each queue has as many of the items as it may hold. */
static double when_full(const double *const *service, i64 queues, i64 n, i64 depth)
{
    double all = 0;
    for (i64 q = 0; q < queues; q++) {
        double own = 0;
        for (i64 i = 0; i < i64_min(depth, n); i++)
            own += service[q][i];
        all = fmax(all, own);
    }
    return all;
}

/* One of several readers takes the next item when it is free and the item may be read: not more
 * than `depth` ahead of the one that is being consumed. An item is consumed once every queue has
 * it. The items come twice, and the second time counts: the queues are then as full as they are
 * in the midst of a run. */
double measure_queues_wait_each(const double *const *service, i64 queues, i64 n,
                                const double *consume, i64 workers, i64 depth, bool full)
{
    struct arena a;
    arena_init(&a);
    workers = i64_max(workers, 1);
    depth = i64_max(depth, 1);
    const i64 items = full ? n : 2 * n;
    double *free_at = ARENA_ARRAY(&a, double, queues * workers);
    double *taken = ARENA_ARRAY(&a, double, queues * items), waited = 0;
    double now = full ? when_full(service, queues, n, depth) : 0;
    for (i64 i = 0; i < items; i++) {
        const double asked = now;
        for (i64 q = 0; q < queues; q++) {
            double *free = &free_at[q * workers];
            for (i64 k = 1; k < workers; k++)
                if (free_at[q * workers + k] < *free)
                    free = &free_at[q * workers + k];
            const double allowed = i >= depth ? taken[q * items + i - depth] : 0;
            *free = fmax(*free, allowed) + service[q][i % n];
            now = fmax(now, *free);
            /* Its place is free for another once it is taken, whoever else has to wait. */
            taken[q * items + i] = fmax(asked, *free);
        }
        waited += i >= items - n ? now - asked : 0;
        now += consume[i % n];
    }
    arena_fini(&a);
    return n > 0 ? waited / (double)n : NAN;
}

double measure_queues_wait(const double *const *service, i64 queues, i64 n, double consume,
                           i64 workers, i64 depth, bool full)
{
    struct arena a;
    arena_init(&a);
    double *each = ARENA_UNSET(&a, double, n);
    for (i64 i = 0; i < n; i++)
        each[i] = consume;
    const double wait = measure_queues_wait_each(service, queues, n, each, workers, depth, full);
    arena_fini(&a);
    return wait;
}

double measure_queue_wait(const double *service, i64 n, double consume, i64 workers, i64 depth)
{
    return measure_queues_wait(&service, 1, n, consume, workers, depth, false);
}
