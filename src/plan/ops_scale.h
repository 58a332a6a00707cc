/* plan/ops_scale.h - operators of large micro-batches from those of two small ones.
 *
 * What a layer's operators compute, move, keep and send is a constant (weights) plus a multiple of
 * the micro-batch's rows, and so is the loss head's as long as its chunks are whole. Reading them
 * off a program takes milliseconds; two programs give all the others. */
#ifndef HEADWAY_PLAN_OPS_SCALE_H
#define HEADWAY_PLAN_OPS_SCALE_H

#include "plan/table.h"

/* The tables of a job, made when they are asked for and kept. */
struct plan_shelf;

struct plan_shelf *plan_shelf_new(const struct plan_job *job, struct arena *a);

/* The same as plan_table_new; with cp to half a percent, since programs count the table of
 * rotations whole. Borrowed. Degrees and micro-batch of the layout count. */
int plan_shelf_table(struct plan_shelf *s, const struct plan_layout *l,
                     const struct plan_table **out);

i64 plan_shelf_tables(const struct plan_shelf *s); /* made so far */

#endif
