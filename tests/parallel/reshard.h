/* tests/parallel/reshard.h - the state of some ranks becomes that of others, as through a
 * checkpoint: what each would write, into what each would load. */
#ifndef HEADWAY_TEST_RESHARD_H
#define HEADWAY_TEST_RESHARD_H

#include "parallel/ranks.h"
#include "train/model_boxes.h"

#include <string.h>

/* The elements of box `from` that are in box `to` too, which is a vector or a matrix of the same
 * tensor; returns how many. */
static i64 copy_box(const struct checkpoint_tensor *to, const struct checkpoint_tensor *from)
{
    bool matrix = to->rank == 2;
    i64 row = i64_max(to->at[0], from->at[0]), column = i64_max(to->at[1], from->at[1]);
    i64 end = i64_min(to->at[0] + to->dim[0], from->at[0] + from->dim[0]);
    i64 last = matrix ? i64_min(to->at[1] + to->dim[1], from->at[1] + from->dim[1]) : 1;
    i64 to_columns = matrix ? to->dim[1] : 1, from_columns = matrix ? from->dim[1] : 1, copied = 0;
    if (!matrix)
        column = 0;
    for (i64 r = row; r < end && column < last; r++) {
        float *out = (float *)to->data + (r - to->at[0]) * to_columns + column - to->at[1];
        const float *in = (float *)from->data + (r - from->at[0]) * from_columns + column -
                          from->at[1];
        memcpy(out, in, (size_t)(last - column) * sizeof *out);
        copied += last - column;
    }
    return copied;
}

/* Every element that a rank holds was written once. */
static void load_rank(struct rank *k, const struct model_boxes *written, int n)
{
    struct model_boxes held = model_boxes_held(k->model, &k->arena);
    for (i64 i = 0; i < held.n; i++) {
        const struct checkpoint_tensor *to = &held.list[i];
        i64 found = 0, wanted = to->dim[0] * (to->rank == 2 ? to->dim[1] : 1);
        for (int r = 0; r < n; r++)
            for (i64 b = 0; b < written[r].n; b++)
                if (strcmp(written[r].list[b].name, to->name) == 0)
                    found += copy_box(to, &written[r].list[b]);
        if (found != wanted)
            fail_msg("%lld of %lld elements of %s were written", (long long)found,
                     (long long)wanted, to->name);
    }
    model_refresh_compute(k->model, k->engine.pool);
}

static inline void reshard(struct ranks *to, struct ranks *from)
{
    struct model_boxes *written = ARENA_ARRAY(&from->arena, struct model_boxes, from->n);
    for (int r = 0; r < from->n; r++)
        written[r] = model_boxes_written(from->rank[r].model, &from->rank[r].mesh, &from->arena);
    for (int r = 0; r < to->n; r++)
        load_rank(&to->rank[r], written, from->n);
}

#endif
