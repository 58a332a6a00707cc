/* train/model_boxes.h - which part of the whole model's state lies on this rank, for
 * checkpoints.
 *
 * A parameter's share, or a slice of it whose optimizer state is here (ZeRO), becomes boxes of
 * the whole parameter, which lie row by row both there and here. Names are "param/NAME",
 * "m/NAME", "v/NAME" and "ema/NAME", whatever the layout. Where there are outer steps
 * (parallel/islands.h) "param/NAME" is what islands have in common, "outer/NAME" its momentum, and
 * "island.I/param/NAME", "island.I/m/NAME" and so on are what each has of its own. */
#ifndef HEADWAY_MODEL_BOXES_H
#define HEADWAY_MODEL_BOXES_H

#include "parallel/mesh.h"
#include "train/checkpoint.h"

struct model_boxes {
    struct checkpoint_tensor *list;
    i64 n;
    bool part; /* there is more of the model than this */
};

/* All that is here: what a rank loads. */
struct model_boxes model_boxes_held(const struct model *m, struct arena *a);

/* What this rank writes: of what several ranks have alike, each writes its share. Of weights
 * whose state is split, the owner of the state has the true ones. */
struct model_boxes model_boxes_written(const struct model *m, const struct mesh *mesh,
                                       struct arena *a);

/* The weights alone, or with ema their averages, to be loaded into the weights. */
struct model_boxes model_boxes_weights(const struct model *m, bool ema, struct arena *a);

#endif
