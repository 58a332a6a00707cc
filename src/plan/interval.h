/* plan/interval.h - how far off a predicted step may be: where 80 % of such steps lie.
 *
 * Said once for all who ask, so that a plan says what an examination of it says. About the
 * prediction lie the residuals of rows that were left out of the fit, of the software where it
 * has its own, else of the family of devices. Messages that nothing hides are six times as
 * uncertain as the rest of a step (as published bands are); residuals are multiples of what
 * that makes of their row. Of how much further out the truth may lie beyond what was fitted
 * nobody knows. A rule, then: twice as far for constants of another device, and for software of
 * which no step was fitted on any device (unless it says so itself, or is like one that was); a
 * tenth further for each doubling of the most devices and of the longest rows that were seen,
 * if any were; reasons add as squares. Where pipelines of the software may stall (in more than
 * one step of five), the interval holds both. Pure. */
#ifndef HEADWAY_PLAN_INTERVAL_H
#define HEADWAY_PLAN_INTERVAL_H

#include "plan/cost.h"

/* The ends are so many times as far out as those of what was fitted; 1: nothing is extrapolated. */
double plan_interval_widening(const struct plan_job *job);

/* Are the job's constants those of another family of devices? Is its software one that nobody
 * fitted? */
bool plan_interval_foreign(const struct plan_job *job);
bool plan_interval_strange(const struct plan_job *job);

/* How uncertain a step is, beside one that only computes; its terms and seconds are known. */
double plan_interval_spread(const struct plan_step *step);

/* Seconds that such a step takes longer in another state in which its software has been seen on as
 * many nodes, more than one time in five; step->band holds both. 0: no such state is known. */
double plan_interval_may_wait(const struct plan_job *job, const struct plan_layout *l,
                              const struct plan_step *step);

/* Fills step->band; step->seconds and terms are known. */
void plan_interval_of(const struct plan_job *job, const struct plan_layout *l,
                      struct plan_step *step);

#endif
