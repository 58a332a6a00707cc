/* backend/away_lane.h - carries copies between memory and slower memory out, in order, on a
 * thread of its own.
 *
 * Slower memory is what can be mapped and is larger: here pages of a file, which leave this
 * process's memory when a copy is done with them. */
#ifndef HEADWAY_AWAY_LANE_H
#define HEADWAY_AWAY_LANE_H

#include "graph/run.h"

struct away_lane;

/* others: who carries the remaining lanes out; NULL: there are none. It must outlive the lane. */
int away_lane_new(struct away_lane **out, const struct lane_driver *others);
void away_lane_free(struct away_lane *l); /* NULL is fine; nothing may be under way */
/* Of all lanes. */
const struct lane_driver *away_lane_driver(const struct away_lane *l);
/* Bytes copied so far, both ways. */
i64 away_lane_bytes(const struct away_lane *l);

#endif
