/* comm/sim.h - N ranks in one thread.
 *
 * For tests, and for running a program of many ranks on one machine step by step: the
 * caller goes round the ranks, each starts what it can, and a call ends for all of its
 * members when the last one starts it. Nothing depends on time. Waiting for a call that
 * some member did not start can never end, so it is an error that names the member. */
#ifndef HEADWAY_COMM_SIM_H
#define HEADWAY_COMM_SIM_H

#include "comm/comm.h"

struct comm_sim;

int comm_sim_new(struct comm_sim **out, int ranks);
struct comm *comm_sim_rank(struct comm_sim *s, int rank); /* borrowed */
void comm_sim_free(struct comm_sim *s);

#endif
