/* parallel/stages.h - which layers make a stage, which rank of the pipeline has it, and in which
 * order stages work: what a layout says of its pipeline.
 *
 * Pure arithmetic, and a file when the schedule is one: it talks to no one. */
#ifndef HEADWAY_STAGES_H
#define HEADWAY_STAGES_H

#include "model/model.h"
#include "parallel/layout.h"
#include "parallel/schedule.h"

struct stages {
    int n;        /* of all ranks of a pipeline together */
    int *rank_of; /* [n]: coordinate along pp */
};

/* Where each stage is. For pp=1 one stage. Errors: a schedule that there is not, or a file
 * that cannot be used. */
int stages_place(struct stages *out, const struct layout *l, struct arena *a);

/* out[n]: which layers each stage has: layout.stages, or such that ranks, with all of their stages,
 * have as much to do as can be when each layer weighs what a token costs there, the embedding one
 * row, the head all of its matrix. Every stage has a layer. */
int stages_layers(const struct layout *l, const struct stages *st, const struct model_spec *s,
                  struct layer_range *out);
/* count[n]: so many of `layers` layers, which cost `layer` each, beside what stages have without
 * any (fixed[n]), that the busiest rank is as little busy as can be. layers >= n. */
void stages_share_out(const struct stages *st, i64 layers, double layer, const double *fixed,
                      i64 *count);

/* The order of a step with so many micro-batches per rank, proved, with its moves. */
int stages_schedule(struct schedule *out, const struct layout *l, int micro_batches,
                    struct arena *a);

/* The order of a forward pass alone, with its moves. */
void stages_forward(struct schedule *out, const struct layout *l, const struct stages *stages,
                    int micro_batches, struct arena *a);

/* Where pp is 1: takes out what a layout says of a pipeline, for whoever tries several degrees. */
void stages_leave_out(struct layout *l);

/* Refuses a pipeline that does not suit the model or the step. */
int stages_check(const struct layout *l, const struct model_spec *s, int micro_batches);

#endif
