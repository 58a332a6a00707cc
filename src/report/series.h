/* report/series.h - numbers over steps, however many, in a bounded number of points.
 *
 * A point stands for one value, or for several neighbours: their mean, least and largest. When
 * there are too many points, each pair becomes one; so a spike of a long run stays visible, and
 * memory is the same for a thousand steps and for a billion. */
#ifndef HEADWAY_SERIES_H
#define HEADWAY_SERIES_H

#include "base/base.h"

struct series_point {
    double x_first, x_last;
    double sum, least, most;
    i64 count;
};

struct series {
    char *name;
    struct series_point *points; /* x ascending */
    i64 n, capacity, limit;
    i64 per_point; /* values that a full point has */
    double newest; /* the value that was added last */
};

/* limit: most points, even and at least 4. The name is copied. */
void series_init(struct series *s, const char *name, i64 limit);
void series_fini(struct series *s);

/* Where x does not grow, a run went back: what was there from x on is forgotten. Values that
 * are not finite are left out. */
void series_add(struct series *s, double x, double value);

static inline double series_mean(const struct series_point *p)
{
    return p->sum / (double)p->count;
}

#endif
