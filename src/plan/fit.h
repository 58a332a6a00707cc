/* plan/fit.h - a family's constants from a few published step times.
 *
 * Deterministic: rows are taken at even distances from each set (so nobody picks them), and a
 * random search with counted random numbers over the logarithms of the constants reduces the
 * mean of |log(predicted / measured)|, counted up to 0.5 of a row, and a little of how far they go
 * from where they began. Values of software that its file declares as `fitted` are moved too: they
 * are of the same rows, and are printed with the family's. */
#ifndef HEADWAY_PLAN_FIT_H
#define HEADWAY_PLAN_FIT_H

#include "plan/efficiency.h"
#include "plan/measured.h"
#include "plan/stack.h"
#include "plan/validate.h"

enum { FIT_MOST_ROWS = 30, FIT_MOST_STACKS = 4 };

struct plan_fit {
    i64 n;                          /* rows fitted */
    const char *ids[FIT_MOST_ROWS];
    struct plan_stack stacks[FIT_MOST_STACKS]; /* with the values and intervals found */
    i64 n_stacks;
    double before, after;           /* mean of |log(predicted / measured)| */
};

struct plan_fit_choice {
    const struct plan_rows *const *sets;
    i64 n_sets;
    i64 most;    /* rows in all; each set has its share, */
    const i64 *shares; /* an equal one where that is NULL or its own is 0 */
    i64 devices; /* only rows of at most so many; 0: all */
    struct option_strings constants;
    bool interval; /* found too, by a fit without each row in turn: ten times as long */
};

/* `constants`: keys of plan_family_options to be fitted, from their defaults, or
 * all that step times can show (count 0); *family keeps the others. Rows of other
 * families are passed over. */
int plan_fit_family(struct plan_family *family, struct plan_fit *out,
                    const struct plan_fit_choice *choice, struct plan_world *w, struct arena *a);

#endif
