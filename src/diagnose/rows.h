/* diagnose/rows.h - what rows of unequal length explain of how long ranks compute.
 *
 * A line through what each rank computes by what its rows ask of attention, over ranks and steps: both
 * beside the rank's own mean, and beside the mean of its stage's ranks in that step. So neither a rank
 * that is always slow nor a slow step has a part in it. Where steps are replayed their attention tells
 * the slope, whatever else varies. */
#ifndef HEADWAY_DIAGNOSE_ROWS_H
#define HEADWAY_DIAGNOSE_ROWS_H

#include "diagnose/measure.h"

struct rows_fit {
    double correlation; /* NaN: what rows ask for is not known, or does not vary */
    double chance;      /* standard error of a correlation where there is none */
    double slope;       /* seconds for each unit of work */
    double unsure;      /* the slope's standard error, as a share of it */
    double skew_s;      /* mean over steps: what the rank with most work has above its stage's mean, by
                         * the line; in the stage where that is most */
    bool known;         /* the slope is that of attention beside all else (whatif_rows.h) */
};
struct rows_fit rows_fit(const struct measure *m);
/* Whether times follow the rows: attention does, or all computing by so much at least, and by so many
 * standard errors of chance. */
bool rows_follow(const struct rows_fit *f, double least, double errors);
/* The measure with what ranks would compute if all had the mean work of their stage in each step, by the
 * line; NULL: as it is. In the arena. */
struct measure rows_left(const struct measure *m, const struct rows_fit *f, struct arena *a);

#endif
