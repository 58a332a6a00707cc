/* tune/rounds.h - what rounds of trials say of a change, and how sure that is.
 *
 * A round gives each change one number: the logarithm of what the recipe costs over what the change
 * costs, so that what helps is above 0. The recipe runs at both ends of a round, and counts as it
 * was in between, by time: a machine that gets slower steadily makes no change look worse. Every
 * other round goes through the changes backwards.
 *
 * All trials run on one machine, so all changes' rounds say together how far a round is off: the
 * median of how far rounds of one change, and neighbouring runs of the recipe, are apart. One wild
 * round moves neither that nor the middle of three rounds. A change whose own rounds are three
 * times further apart than that is judged by its own.
 *
 * A change is told to be faster or slower only by the interval in which its gain lies in 19 of 20
 * such cases (Student's t), and never by one round. */
#ifndef HEADWAY_TUNE_ROUNDS_H
#define HEADWAY_TUNE_ROUNDS_H

#include "base/base.h"

enum { ROUNDS_MOST = 12 };

/* Of one change, or of the recipe itself: then the logarithm of what it cost, one run after the
 * other. */
struct rounds {
    double x[ROUNDS_MOST];
    int n;
};

enum verdict {
    VERDICT_NONE,  /* fewer than two rounds */
    VERDICT_NOISE, /* the gain may be above 0 or below it: it cannot be told */
    VERDICT_EVEN,  /* the same, within what would count as a gain */
    VERDICT_FASTER, VERDICT_SLOWER,
};

/* How far one round is off, as a standard deviation, and from how many rounds that is known. */
struct rounds_noise {
    double sigma; /* NaN: not known */
    double freedom;
};

struct rounds_gain {
    double middle, bar; /* logarithms; the gain is between middle - bar and middle + bar */
    double error;       /* standard error */
    enum verdict verdict;
};

/* rows[n], of changes; the recipe's own runs; floor: of what steps of one run differ by, at
 * least. */
struct rounds_noise rounds_noise(const struct rounds *rows, i64 n, const struct rounds *recipe,
                                 double floor);

/* least: as a share, what would count as a gain. */
struct rounds_gain rounds_judge(const struct rounds *r, const struct rounds_noise *noise,
                                double least);

/* Whether a's gain is larger than b's, beyond the noise. */
bool rounds_ahead(const struct rounds_gain *a, const struct rounds_gain *b);

/* The middle one; of an even number the mean of two. Sorts x. */
double rounds_median(double *x, i64 n);

#endif
