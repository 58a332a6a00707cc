#include "tune/rounds.h"

#include <math.h>
#include <stdlib.h>

/* The median of |z|, z normal. */
static const double quartile = 0.6745;
/* Rounds of one change that are so many times further apart than rounds are elsewhere are its
 * own. */
static const double own_noise = 3;
/* What a median of normal numbers varies by, over what their mean does (3 to 8 of them: 1.09 to
 * 1.21). */
static const double of_median = 1.2;
/* A median of differences knows less than their mean square: so much of its freedom is left. */
static const double of_differences = 0.5;

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double rounds_median(double *x, i64 n)
{
    if (n < 1)
        return NAN;
    qsort(x, (size_t)n, sizeof *x, by_value);
    return n % 2 ? x[n / 2] : (x[n / 2 - 1] + x[n / 2]) / 2;
}

/* Student's t: in 19 of 20 cases no more standard errors than this. Fractions of freedom are what
 * is between; 1 at least. */
static double bar_of(double freedom)
{
    static const double table[] = { 12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262,
                                    2.228 };
    const i64 n = COUNT_OF(table);
    if (!(freedom > 1))
        return table[0];
    if (freedom >= (double)n)
        return 1.96 + 2.7 / freedom;
    const i64 whole = (i64)freedom;
    const double part = freedom - (double)whole, next = whole < n ? table[whole] : 2.228;
    return table[whole - 1] * (1 - part) + next * part;
}

/* --- noise --------------------------------------------------------------------------- */

enum { MOST_DIFFERENCES = 4096 };

/* Of every two rounds, over what two numbers of deviation 1 differ by. */
static i64 add_pairs(const struct rounds *r, double *out, i64 n)
{
    for (int i = 0; i < r->n; i++)
        for (int k = i + 1; k < r->n && n < MOST_DIFFERENCES; k++)
            out[n++] = fabs(r->x[i] - r->x[k]) / sqrt(2);
    return n;
}

/* Runs that follow each other: a ratio of two runs is as far off as these are apart. */
static i64 add_neighbours(const struct rounds *recipe, double *out, i64 n)
{
    for (int i = 1; i < recipe->n && n < MOST_DIFFERENCES; i++)
        out[n++] = fabs(recipe->x[i] - recipe->x[i - 1]);
    return n;
}

struct rounds_noise rounds_noise(const struct rounds *rows, i64 n_rows, const struct rounds *recipe,
                                 double floor)
{
    double differences[MOST_DIFFERENCES], freedom = recipe->n > 1 ? recipe->n - 1 : 0;
    i64 n = add_neighbours(recipe, differences, 0);
    for (i64 i = 0; i < n_rows; i++) {
        n = add_pairs(&rows[i], differences, n);
        freedom += rows[i].n > 1 ? rows[i].n - 1 : 0;
    }
    if (n == 0)
        return (struct rounds_noise){ NAN, 0 };
    return (struct rounds_noise){ fmax(floor, rounds_median(differences, n) / quartile),
                                  fmax(1, of_differences * freedom) };
}

/* --- judging ------------------------------------------------------------------------- */

static double middle_of(const struct rounds *r)
{
    double copy[ROUNDS_MOST];
    for (int i = 0; i < r->n; i++)
        copy[i] = r->x[i];
    return rounds_median(copy, r->n);
}

struct rounds_gain rounds_judge(const struct rounds *r, const struct rounds_noise *noise,
                                double least)
{
    struct rounds_gain g = { NAN, NAN, NAN, VERDICT_NONE };
    double differences[ROUNDS_MOST * ROUNDS_MOST], sigma = noise->sigma, freedom = noise->freedom;
    g.middle = middle_of(r);
    if (r->n < 2)
        return g;
    const double own = rounds_median(differences, add_pairs(r, differences, 0)) / quartile;
    if (!(own <= own_noise * sigma)) {
        sigma = own;
        freedom = r->n - 1;
    }
    g.error = sigma / sqrt(r->n) * (r->n > 2 ? of_median : 1);
    g.bar = bar_of(freedom) * g.error;
    if (g.middle - g.bar > 0)
        g.verdict = VERDICT_FASTER;
    else if (g.middle + g.bar < 0)
        g.verdict = VERDICT_SLOWER;
    else
        g.verdict = g.middle + g.bar < least ? VERDICT_EVEN : VERDICT_NOISE;
    return g;
}

bool rounds_ahead(const struct rounds_gain *a, const struct rounds_gain *b)
{
    return a->middle - b->middle > hypot(a->bar, b->bar);
}
