/* plan/validate.h - the planner beside published measurements.
 *
 * Every row of a set that determines a layout is priced with the frozen constants of its family and
 * the declared stack of its framework. What a planner is good for is not one number: besides
 * errors a set's numbers are whether it orders layouts as they are (rank correlation), what
 * trusting it costs (regret), whether its intervals hold, and whether it knows what fits.
 *
 * A row that does not state its recompute has the least with which it fits, in layers: it ran.
 *
 *     error     |predicted - measured| / measured; mean, median, 90th percentile
 *     bias      mean of (predicted - measured) / measured
 *     rank      Spearman's correlation within cells, weighted by their rows; a cell: rows of the
 *               same model, devices, sequence, batch, precision and release
 *               of software, for these make the same layout up to twice as slow
 *     regret    measured time of the layout that is predicted to be best, of those said to fit, over
 *               the best measured one, less one; mean over cells with two layouts at least
 *     coverage  share of rows within their 10-90 % interval; width: (hi - lo) / mid, median */
#ifndef HEADWAY_PLAN_VALIDATE_H
#define HEADWAY_PLAN_VALIDATE_H

#include "plan/measured.h"

struct validated_row {
    const struct plan_row *row;
    bool priced;
    bool fitted;            /* the family's constants were fitted on it: not in the numbers of time */
    const char *refused;    /* not priced: why */
    const struct plan_stack *stack; /* whose software was assumed */
    const char *family;     /* of devices: whose constants */
    struct plan_step step;
    double widened;         /* its interval is so many times as far out: extrapolated beyond the fit */
    double error;           /* (predicted - measured) / measured; 0 where it did not run */
};

/* A row with an MFU but without a micro-batch, over those of a declared range of layouts that are
 * said to fit, as it ran: micro-batches of 1, 2 and 4, one to four stages per rank, no recompute or
 * that of attention, optimizer split or not. MFU by the formula that such tables use: 6 FLOPs per
 * weight of a product and token, attention over all pairs. */
struct validated_range {
    const struct plan_row *row;
    i64 layouts;       /* of the range that exist and fit */
    double lo, hi;     /* MFU, percent */
};

struct validated_set {
    const char *name;
    struct validated_row *rows;
    i64 n;
    i64 priced, compared, fitted, missing, refused, failed;
    double mape, median, p90, worst, bias, rank, regret, near_best;
    i64 cells;              /* with two layouts at least */
    double coverage, width;
    i64 memory_rows, fit_right;       /* that ran and whose memory is known */
    i64 failures, failures_no_fit;    /* that failed, and of these those said not to fit */
    double memory_error;    /* median of |predicted - reported| / reported */
    struct validated_range *ranges;
    i64 n_ranges, near_range; /* and those whose MFU is within three points of the range */
};

/* Families, stacks and machines are found by what the row calls its device and framework. */
struct plan_world;
int plan_world_new(struct plan_world **out, struct arena *a);
/* Fills machine, family and stack of a row's job. NULL, or what is not known. */
const char *plan_world_job(struct plan_world *w, const struct plan_row *row, struct plan_job *job);

int plan_validate(struct validated_set *out, const struct plan_rows *rows, struct plan_world *w,
                  struct arena *a);

/* The rows of several sets with step times, as one set: its errors and intervals, no more. Only
 * those of a family of devices; NULL: of all. */
void plan_validate_pool(struct validated_set *out, const char *name, const char *family,
                        const struct validated_set *const *sets, i64 n, struct arena *a);
/* Families of devices of such rows, each once, in the order in which they are met. */
i64 plan_validate_families(const char **out, i64 most, const struct validated_set *const *sets,
                           i64 n);

#endif
