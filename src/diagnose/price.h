/* diagnose/price.h - what mending each finding gives back, by a replay of the run's steps.
 *
 * Each edit is replayed alone; of slow ranks that nobody waits for, as long as others are slower, it is
 * replayed beside these, mended; and what noise in all tasks hides, beside quiet ones. */
#ifndef HEADWAY_DIAGNOSE_PRICE_H
#define HEADWAY_DIAGNOSE_PRICE_H

#include "diagnose/findings.h"

/* What a replay predicts is off by so much of itself at least: durations change with the edit. */
static const double price_spread = 0.15;

/* Sets gains, and leaves out what gives back nothing or what only a replay could have said. */
void price_all(struct findings *f, const struct measure *m, const struct finding_replay *replay);

#endif
