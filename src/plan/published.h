/* plan/published.h - whole runs that somebody published, beside what bill.h makes of their hours.
 *
 * Rows of facts/published_runs.csv. The utilisation that hours and 6ND imply is that of everything:
 * restarts, evaluations and lost steps included. */
#ifndef HEADWAY_PLAN_PUBLISHED_H
#define HEADWAY_PLAN_PUBLISHED_H

#include "plan/bill.h"

struct published_run {
    const char *name, *source;
    struct plan_machine device;
    double active, tokens, device_hours;
    double mwh, tco2e;       /* published; 0: not */
    double mfu;              /* that they imply, of 6ND and the peak of 16 bits */
    struct plan_bill bill;   /* of these hours, where that is; the usual PUE */
};

int published_runs(struct published_run **runs, i64 *n, struct arena *a);

#endif
