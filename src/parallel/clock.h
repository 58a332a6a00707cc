/* parallel/clock.h - what time it is elsewhere.
 *
 * Ranks of one node share a clock. Between nodes, the leading rank and another send each other
 * a few small messages; of the one with the shortest round trip, the other's answer was given
 * about half way (Cristian 1989). Clocks drift by some ten microseconds per second: ask near the
 * times that are to be compared. */
#ifndef HEADWAY_CLOCK_H
#define HEADWAY_CLOCK_H

#include "parallel/mesh.h"

/* When the message left, when the other answered, when the answer came. */
struct clock_trip {
    u64 left_ns, there_ns, back_ns;
};

/* What to add to the other's clock to get one's own. */
i64 clock_fit(const struct clock_trip *trips, int n);

/* Both ends call it; member 0 of the group measures, and *shift_ns is the same for both: from
 * the peer's clock to that of member 0. now: sys_now_ns, or a test's clock. */
int clock_ping(struct comm_group *g, int peer, u64 (*now)(void), i64 *shift_ns);

/* All ranks call it together: what to add to this rank's clock to get the leading rank's. */
int clock_shift(const struct mesh *m, i64 *shift_ns);

#endif
