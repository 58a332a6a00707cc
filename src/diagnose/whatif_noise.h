/* diagnose/whatif_noise.h - how much what ranks compute varies, and what it takes when it is quiet. */
#ifndef HEADWAY_WHATIF_NOISE_H
#define HEADWAY_WHATIF_NOISE_H

#include "diagnose/measure.h"
#include "diagnose/whatif_quiet.h"

/* Sets noise and quiet_pace of the measure's ranks, beside what their rows ask for, and that. actions: of each of
 * the graphs' ranks, how many it has; s: its stages and paces are not asked for. */
void quiet_noise(const struct quiet_steps *s, const i64 *actions, struct measure *m);

#endif
