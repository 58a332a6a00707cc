/* graph/plan.h - where activations lie: offsets from liveness. Internal to graph/.
 *
 * Every activation lives from its first writer to its last reader in the order
 * forward, backward, update. Buffers that never live together share bytes. Placing them
 * best is NP-hard; largest-first best fit stays within a few percent of the lower bound
 * (both are reported). */
#ifndef HEADWAY_PLAN_H
#define HEADWAY_PLAN_H

#include "graph/program.h"

/* Fills tensor->offset of the program's owned activations and p->memory. tasks[] are all
 * tasks in execution order. */
int plan_memory(struct program *p);

#endif
