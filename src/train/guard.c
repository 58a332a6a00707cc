#include "train/guard.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void guard_init(struct guard *g, double sigma, i64 max_bad, i64 bad_window)
{
    *g = (struct guard){ .sigma = sigma, .max_bad = max_bad, .bad_window = bad_window };
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *values, i64 n)
{
    qsort(values, (size_t)n, sizeof *values, ascending);
    return n % 2 ? values[n / 2] : 0.5 * (values[n / 2 - 1] + values[n / 2]);
}

double guard_deviation(const struct guard *g, double loss)
{
    double sorted[GUARD_WINDOW];
    i64 n = i64_min(g->seen, GUARD_WINDOW);
    if (n < GUARD_LEAST)
        return 0;
    memcpy(sorted, g->loss, sizeof *sorted * (size_t)n);
    double middle = median(sorted, n);
    for (i64 i = 0; i < n; i++)
        sorted[i] = fabs(g->loss[i] - middle);
    /* 1.4826 MAD estimates a normal's deviation; the floor keeps a flat loss from making
     * every ripple a spike. */
    double deviation = fmax(1.4826 * median(sorted, n), 1e-3 * fabs(middle) + 1e-12);
    return (loss - middle) / deviation;
}

bool guard_set_mix(struct guard *g, u64 mix)
{
    bool other = g->mix != 0 && g->mix != mix;
    g->mix = mix;
    if (other)
        g->seen = g->spikes = 0;
    return other;
}

bool guard_is_spike(const struct guard *g, double loss)
{
    return guard_deviation(g, loss) > g->sigma && g->spikes + 1 < GUARD_LASTING;
}

/* The last spikes become the statistics. */
static enum verdict accept_rise(struct guard *g)
{
    memcpy(g->loss, g->spike, sizeof g->spike);
    g->seen = GUARD_LASTING;
    g->spikes = 0;
    return VERDICT_RISEN;
}

enum verdict guard_judge(struct guard *g, i64 step, double loss, bool finite)
{
    if (!finite || !isfinite(loss)) {
        g->bad_step[g->bad_count++ % GUARD_WINDOW] = step;
        return VERDICT_BAD;
    }
    if (guard_deviation(g, loss) > g->sigma) {
        g->spike[g->spikes++] = loss;
        return g->spikes < GUARD_LASTING ? VERDICT_SPIKE : accept_rise(g);
    }
    if (g->spikes > 0)
        g->spikes--;
    g->loss[g->seen++ % GUARD_WINDOW] = loss;
    return VERDICT_FINE;
}

bool guard_exhausted(const struct guard *g, i64 step)
{
    i64 recent = 0;
    for (i64 i = 0; i < i64_min(g->bad_count, GUARD_WINDOW); i++)
        recent += g->bad_step[i] > step - g->bad_window;
    return recent > g->max_bad;
}
