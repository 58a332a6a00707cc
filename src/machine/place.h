/* machine/place.h - which cores a process of several on this machine uses. */
#ifndef HEADWAY_PLACE_H
#define HEADWAY_PLACE_H

#include "base/base.h"

/* What this process may run on, as one number: processes with the same number share cores. */
u64 machine_place_now(void);

/* Binds this process (threads that it starts from now on) to part `seat` of `seats`
 * of the cores that it may use, in hwloc's logical order, so that a part is as near
 * together as the machine allows (a package, a cache, the two threads of a core).
 * Returns how many processing units that are, or 0 when nothing was done: fewer units
 * than seats, or no topology to be seen. */
int machine_place(int seat, int seats);

#endif
