/* plan/island_plan.h - islands of devices joined by slow links, which meet now and then (DiLoCo;
 * parallel/islands.h is what would run).
 *
 * Each of K islands takes steps on its share of the rows, on the best layout within; after H steps
 * all sum how far their weights moved, over the islands' links:
 *
 *     2 (K - 1) / K x parameters x bytes / (an island's bytes per second) + 2 (K - 1) x latency
 *
 * (a ring; every rank sends its slice, all at once, so it is the island's link that counts). The
 * links are idle otherwise. Nothing hides the outer step unless `hidden` says how much does.
 *
 * Assumed: an island is as good as any other and waits for the slowest at the outer step; failures
 * stop an island, and the others at the next outer step: goodput lies between that of one island
 * and that of all of them as one job. That the model gets as good as with synchronous steps is
 * assumed, too: no formula here knows. */
#ifndef HEADWAY_PLAN_ISLAND_PLAN_H
#define HEADWAY_PLAN_ISLAND_PLAN_H

#include "plan/outcome.h"

struct island_link {
    i64 islands, every;     /* K, H */
    double bytes_per_s;     /* out of one island, one way */
    double latency_s;
    double element_bytes;   /* 4; 1 for 8-bit differences */
    double hidden;          /* share of the outer step beside computing: 0 as Headway runs it */
};

struct island_plan {
    struct plan_job job;        /* of one island */
    struct plan_found inner;    /* its best layout */
    struct plan_outcome outcome; /* of an island's steps */
    double parameters;
    double outer_s;             /* one outer step, all of it */
    double outer_share;         /* of the time, what is not hidden */
    struct plan_band goodput;   /* lo: all islands as one job; hi: of one island alone */
    struct plan_band rate;      /* tokens per second of all devices, failures counted */
    struct plan_band days;
    double synchronous_s;       /* a step if gradients crossed the links in every step instead */
    double every_for_5;         /* H at which outer steps take 5 % of the time */
};

/* job: of all islands together; its devices and rows are shared out. ERR_CONFIG where that does not
 * go, and the errors of plan_search for one island. */
int plan_islands_of(struct island_plan *out, const struct plan_job *job,
                    const struct plan_pick *pick, const struct island_link *link,
                    const struct plan_terms *terms, struct arena *a);

/* That an island sends in one outer step for each parameter. */
double plan_outer_bytes(const struct island_link *link);

/* Seconds of one outer step. */
double plan_outer_seconds(const struct island_link *link, double parameters);

#endif
