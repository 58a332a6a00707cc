/* train/rank_view.h - what one rank of a layout holds, computes and sends, without being it.
 *
 * The rank's model is described but has no memory, and its step is built as in training: what is
 * said of it is counted on the very tasks that it would run. Needs no other rank and no
 * data. */
#ifndef HEADWAY_RANK_VIEW_H
#define HEADWAY_RANK_VIEW_H

#include "parallel/schedule.h"
#include "train/step.h"

struct rank_view {
    struct mesh mesh;    /* coordinates and stages; no groups */
    struct model *model; /* described only: no tensor has data */
    struct step_program step;
    struct step_program outer; /* program NULL: there are no outer steps */
    i64 parameters;      /* elements that are here */
    i64 model_bytes, activation_bytes;
    double message_bytes[LANE_COUNT]; /* sent in a step, by axis */
    double outer_bytes[LANE_COUNT]; /* and in an outer step, where there are any */
    struct stage_time flops[MODEL_CHUNKS]; /* of each of its stages, for one micro-batch */
};

/* The layout was checked. The step is that of the recipe's full batch and length. All of it lives
 * in the arena. */
int rank_view_new(struct rank_view *out, const struct layout *l, const struct model_spec *s,
                  const struct train_config *c, i64 rank, struct arena *a);

/* Whether a task that the rank computes itself, in a step or an outer one, is of an op of which
 * `is_meant` says so. */
bool rank_view_has_op(const struct rank_view *v,
                      bool (*is_meant)(const void *context, const char *op), const void *context);

/* The order of so many micro-batches, and how long it takes when time is FLOPs; views[i]: a rank
 * with coordinate i along pp. Only where pp is more than one. */
int rank_view_schedule(const struct rank_view *const *views, int micro_batches,
                       struct schedule *order, struct schedule_time *time, struct arena *a);

#endif
