/* machine/speed.h - how fast the processor's clock runs, without counters: a loop on registers.
 *
 * A chain of dependent multiplications takes as many cycles on a hot, a throttled and a fresh
 * processor; only the length of a cycle differs. */
#ifndef HEADWAY_MACHINE_SPEED_H
#define HEADWAY_MACHINE_SPEED_H

#include "base/base.h"

/* ns that the loop takes, the least of `times` runs of about 10 microseconds each: being pushed
 * aside makes one longer, never shorter. */
u64 speed_probe_ns(int times);

#endif
