/* parallel/spread.h - does every rank have what a task needs? A check of a finished list.
 *
 * Along an axis of the mesh each tensor is *spread* in one way: the same on all ranks, rows or
 * columns cut among them, or partial values still to be summed. Every op has a rule: from how its
 * inputs are spread follows how its outputs are, or that the task makes no sense. So a reduction
 * that is missing, doubled, or on the wrong axis is an error when the program is built, with the
 * task and the tensor that it is about, and not a wrong number.
 *
 * With layout.zero_group, dp is two axes, within a group and across groups: a sum over dp
 * is complete when it was made along both.
 *
 * Stages have lists of their own. Along pp it is checked that rows and their gradients
 * cross every boundary of a rank's stages once, and, in the update, that the gradient's
 * norm is summed; along tie, that a table which two stages have gets the gradients of
 * both.
 *
 * In fast mode cp is a part of dp. What tokens of one row have to do with each other
 * (attention, a router's statistics) is looked at along cp too, unless rows lie across
 * groups of layout.zero_group.
 *
 * Ranges of flat tensors (buckets, slices) are followed one by one. What ops without a
 * rule make of cut tensors is unknown, and unknown tensors are no error; but an
 * activation that is read before anything has written it is one. In the layouts of
 * tests/parallel/test_bytes.c these stay unknown: sums over a bucket whose parts are of
 * several kinds, and what an update makes of them; averages of weights, since nothing
 * says how they begin; loads of experts of one rank; sums that wait for their other half
 * (carry); and along pp and tie all but gradients in the update. Other activations and
 * their gradients are known.
 *
 * It is a check of kinds, not of values: which rank, which rows, in which order it does
 * not know, but for the keys of a ring, whose turns are counted (spread_ring.c). Nor does
 * it see what the host sums (losses, what is told). tests/parallel/test_spread.c leaves
 * out every exchange of many layouts.
 */
#ifndef HEADWAY_SPREAD_H
#define HEADWAY_SPREAD_H

#include "model/model.h"
#include "parallel/mesh.h"

/* Right before program_new. ERR_INTERNAL with a sentence. */
int spread_check(const struct graph *g, const struct model *m, const struct mesh *mesh);
/* The same for the list of an outer step, along islands too. */
int spread_check_islands(const struct graph *g, const struct model *m, const struct mesh *mesh);

#endif
