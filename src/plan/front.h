/* plan/front.h - no other plan is better in time, money, energy and gas at once.
 *
 * Of a number of devices, and of halves of it down to what still fits, the quickest layouts and
 * the ones that take the least energy; then every plan that another one beats in all four
 * is left out. */
#ifndef HEADWAY_PLAN_FRONT_H
#define HEADWAY_PLAN_FRONT_H

#include "plan/outcome.h"

struct plan_point {
    i64 devices;
    struct plan_found found;
    struct plan_outcome outcome;
    bool beaten;
};

enum { PLAN_FRONT_POINTS = 64 };

struct plan_front {
    struct plan_point points[PLAN_FRONT_POINTS]; /* quickest first; beaten ones, too */
    i64 n;
};

/* s->job has tokens. Numbers of devices with no layout that fits are passed over; the error is
 * that of the largest when none has. */
int plan_front_of(struct plan_front *out, const struct plan_search *s,
                  const struct plan_terms *terms, struct arena *a);

/* p is at least as good as q in everything that is known of both, and better in something. */
bool plan_beats(const struct plan_outcome *p, const struct plan_outcome *q);

#endif
