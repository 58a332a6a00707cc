/* diagnose/pace.h - how much slower a rank computes than the others, whatever its share of the
 * work: by tasks that do as much (op, dtype, FLOPs and bytes) at several ranks of a step. */
#ifndef HEADWAY_DIAGNOSE_PACE_H
#define HEADWAY_DIAGNOSE_PACE_H

#include "diagnose/computing.h"

/* pace[n_ranks]: what a rank's tasks take over what they take at the usual rank, at least 1. Of each
 * kind of task the usual time is that of the middle rank, of two the faster one; of a rank's
 * kinds the middle one by time counts, so neither an op that is slow by itself nor experts or
 * documents that give a rank more to do make it a slow rank. 1 where less than half of a rank's
 * time is in tasks that others have, too. */
void pace_of_ranks(const struct computing *c, double *pace);

#endif
