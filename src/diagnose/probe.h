/* diagnose/probe.h - what a run's steps answered when some of their tasks were slowed on
 * purpose.
 *
 * A probe (inject kind `probe`) makes tasks take e times longer in one of each two steps. A
 * step's length T is a longest path: convex in the tasks' durations, and it never falls when
 * they grow. So along the line on which these tasks' durations are scaled, the slope below is
 * at most the slope above, and taking a share x of them away gives back at most x (T(1 + e) -
 * T(1)) / e. That is measured on the run itself and asks nothing of a replay; the replay's own
 * answer stands beside it.
 *
 * Slowed steps count in nothing else that is measured. */
#ifndef HEADWAY_DIAGNOSE_PROBE_H
#define HEADWAY_DIAGNOSE_PROBE_H

#include "diagnose/findings.h"
#include "diagnose/whatif.h"

enum { PROBES_MOST = 8 };

struct probe {
    const struct inject_fault *fault;
    i64 pairs;            /* of steps: one slowed, one not */
    double response, se;  /* how much longer the slowed one is: median of the pairs, seconds */
    double step;          /* that is not slowed: the median of the pairs */
    double seconds;       /* that these tasks take a step, on the rank where that is most; NaN: there
                           * are no graphs */
    double replayed;      /* the response, as the replay has it; NaN: it cannot say */
    double gain;          /* of taking the tasks away, as the replay has it; NaN likewise */
};

/* Those of the run's probes that have a pair among the steps which were measured; their number.
 * w: NULL when the steps have no graphs that can be trusted. */
int probes_measure(struct probe out[PROBES_MOST], const struct record *r, const struct measure *m,
                   struct whatif *w);

/* Seconds a step that taking the tasks away altogether gives back at most (no more than the
 * step), and its standard error. */
double probe_bound(const struct probe *p);
double probe_bound_se(const struct probe *p);

/* No finding gives back more than a probe of the same tasks allows, give or take its noise. */
void probes_limit(const struct probe *p, int n, struct findings *f);

void probes_text(const struct probe *p, int n, struct text *out);
/* As the value of a key: an array. */
void probes_json(const struct probe *p, int n, struct json *j);

#endif
