/* plan/worked.h - worked examples: a published table as data, to be priced beside what it says.
 *
 * A file has what all rows share (model, machine, gpus, batch ...) and `rows` that add to it or
 * stand above it. What a source does not say of a layout (micro-batch, recompute ...) is left out
 * of `layout`, and the prediction is then a range over all that fits. */
#ifndef HEADWAY_PLAN_WORKED_H
#define HEADWAY_PLAN_WORKED_H

#include "base/option.h"
#include "model/spec.h"

struct worked_row {
    const char *label, *model, *machine, *stack, *layout, *note;
    const struct yaml_node *override; /* of the model's keys */
    i64 gpus, batch, seq;             /* rows of a step; tokens of a row */
    int dtype;                        /* enum plan_dtype */
    double step_s, mfu, tokens_per_s; /* published: of a step; %, of dense peak; per device */
    bool squares;                     /* that MFU counts attention as whole squares */
    struct model_spec spec;
};

struct worked_table {
    const char *about;
    i64 n;
    struct worked_row *rows;
};

/* A path, or the name of a file in recipes/. */
int worked_load(struct worked_table *out, const char *path, struct arena *a);
int worked_read(struct worked_table *out, const struct yaml_node *root, struct arena *a);

#endif
