/* parallel/pipeline.h - what a pipeline adds to a step's list.
 *
 * The forward list of a rank has one part per stage that it holds: what comes in is received
 * (or made by this rank's stage before), what goes out is sent. Differentiation turns each
 * send into a receive of its gradient and each receive into a send. The schedule then orders
 * the segments of all parts (graph/program.h). */
#ifndef HEADWAY_PIPELINE_H
#define HEADWAY_PIPELINE_H

#include "graph/program.h"
#include "model/model.h"
#include "parallel/mesh.h"

/* This rank's turns of a step, the update last; forward alone for an evaluation. They live in the
 * arena. */
int pipeline_turns(const struct mesh *mesh, int micro_batches, bool forward_only,
                   struct turn **out, i64 *n, struct arena *a);

/* Which of all stages the rank's part is. */
int pipeline_stage(const struct mesh *mesh, int part);

/* What stage `stage` works on: received rows, or `before`, what this rank's stage before made;
 * NULL for the first one. */
struct tensor *pipeline_input(struct graph *g, const struct mesh *mesh, int stage,
                              struct tensor *before, enum dtype dtype, i64 rows, i64 columns);
/* Sends what it made, unless the next stage is here or there is none. */
void pipeline_output(struct graph *g, const struct mesh *mesh, int stage, struct tensor *x);

/* In the update, behind data_parallel_reduce_shared: the gradient of a table that is both
 * embedding and head, summed over the first and the last stage. Not before, because one of them
 * is done long before the other. */
void pipeline_tie(struct graph *g, const struct model *m);

/* Whether this rank's copy counts in the gradient's norm: of a shared table the first stage's. */
bool pipeline_counts(const struct model *m, const struct param *p);

/* The sum over stages of what each has. */
struct tensor *pipeline_total(struct graph *g, struct tensor *total, const struct mesh *mesh);

#endif
