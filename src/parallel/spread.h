/* parallel/spread.h - does every rank have what a task needs? A check of a finished list.
 *
 * Along an axis of the mesh each tensor is *spread* in one way: the same on all ranks, rows or
 * columns cut among them, or partial values still to be summed. Every op has a rule: from how its
 * inputs are spread follows how its outputs are, or that the task makes no sense. So a reduction
 * that is missing, doubled, or on the wrong axis is an error when the program is built, with the
 * task and the tensor that it is about, and not a wrong number.
 *
 * With layout.zero_group, dp is two axes, within a group and across groups: a sum over dp is complete
 * when it was made along both.
 *
 * Ranges of flat tensors (buckets, slices) are followed one by one. What ops without a rule make of
 * cut tensors is unknown, and unknown tensors are never an error. It is a check of kinds, not of
 * values: which rank, which rows, in which order it does not know. */
#ifndef HEADWAY_SPREAD_H
#define HEADWAY_SPREAD_H

#include "model/model.h"
#include "parallel/mesh.h"

/* Right before program_new. ERR_INTERNAL with a sentence. */
int spread_check(const struct graph *g, const struct model *m, const struct mesh *mesh);
/* The same for the list of an outer step, along islands too. */
int spread_check_islands(const struct graph *g, const struct model *m, const struct mesh *mesh);

#endif
