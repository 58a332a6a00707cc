/* plan/outcome.h - what a layout's step means for a whole run: days, goodput, energy, gas, money,
 * each with its 10th, 50th and 90th percentile.
 *
 * Days are steps x seconds / goodput; uncertainties of the step (residuals of the fit), of
 * failures and of power are taken to be independent, so their logarithms add as squares. Goodput is
 * that of the law's best checkpoint interval and number of spares (plan/failures.h); energy, gas
 * and money follow plan/bill.h, spares included. */
#ifndef HEADWAY_PLAN_OUTCOME_H
#define HEADWAY_PLAN_OUTCOME_H

#include "plan/bill.h"
#include "plan/failures.h"
#include "plan/search.h"

struct plan_terms { /* under which a run takes place */
    const struct failure_law *law; /* NULL: nothing fails */
    double price;                  /* per device and hour; 0: the machine's, if it has one */
    const char *currency;
    double pue;                    /* 0: the machine's, or the usual */
    const char *location;          /* NULL: the machine's, or the world's mean */
    double g_per_kwh;              /* 0: by location */
};

struct plan_outcome {
    struct plan_band step_s, rate, mfu; /* rate: tokens per second and device */
    double ideal_s;                /* a step's model FLOPs, each once, at the peak: mfu x step */
    double hfu;                    /* as mfu, what is computed again included */
    struct plan_band goodput;      /* lo is the worst */
    i64 spares;                    /* devices beside those that compute */
    struct plan_band days;         /* 0 without tokens; lo is the fewest, here and below */
    struct plan_band mwh, tco2e;   /* 0: power is not known */
    struct plan_band money;        /* 0: no price */
    struct plan_bill bill;         /* of the middle */
};

/* ERR_CONFIG for a place or a PUE that cannot be. */
int plan_outcome_of(struct plan_outcome *out, const struct plan_job *job,
                    const struct plan_step *step, const struct plan_terms *terms);

#endif
