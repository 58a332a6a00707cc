/* comm/lane.h - a thread that communicates while others compute.
 *
 * MPI and shared memory move nothing by themselves: somebody must call them. A lane takes
 * calls in the order submitted, starts each as soon as it can and drives all of them until
 * they end; a send does not hold up the receive behind it. One thread submits; the same
 * one waits. A lane sleeps when nothing can move, so it takes no time from computing but
 * what moving costs.
 *
 * When a call fails, it and every later one fail with the same message. */
#ifndef HEADWAY_COMM_LANE_H
#define HEADWAY_COMM_LANE_H

#include "comm/comm.h"

struct comm_lane;

/* core: where its thread stays; -1: anywhere. */
int comm_lane_new(struct comm_lane **out, struct comm *c, int core);
void comm_lane_free(struct comm_lane *l); /* after what was submitted has ended */

/* The call is the lane's until it ended; its status may be read at any time. */
void comm_lane_submit(struct comm_lane *l, struct comm_call *call);
int comm_lane_wait(struct comm_lane *l, struct comm_call *call);

#endif
