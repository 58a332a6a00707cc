/* graph/plan.h - where activations lie: offsets from liveness. Internal to graph/.
 *
 * Every activation lives from its first writer to its last reader in the order of the list:
 * forward, backward, update. Buffers that never live together share bytes. Placing them
 * best is NP-hard; largest-first best fit stays within a few percent of the lower bound
 * (both are reported).
 *
 * In a pipeline, actions of several micro-batches alternate. What one leaves for another
 * then has slots (slots.c), one for each micro-batch in flight, for the whole step. */
#ifndef HEADWAY_PLAN_H
#define HEADWAY_PLAN_H

#include "graph/program.h"

enum { PLAN_ALIGN = 64 };

/* Gives tensors their slots, after the actions are known and before places are sought. */
void plan_slots(struct program *p, struct arena *arena);

/* The id of the task at which one of another lane is certainly over. */
i64 plan_end_of(const struct program *p, const struct task *t);

/* Fills tensor->offset of the program's owned activations and p->memory. tasks[] are all
 * tasks in execution order. */
int plan_memory(struct program *p);

#endif
