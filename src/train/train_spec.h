/* train/train_spec.h - which model a recipe asks for. */
#ifndef HEADWAY_TRAIN_SPEC_H
#define HEADWAY_TRAIN_SPEC_H

#include "train/restore.h"
#include "train/train_config.h"

/* The spec of model.spec or of the weights in model.from, with model.override and model.window.
 * A vocabulary that the spec leaves open stays 0. *from is filled when there are weights to start
 * from. r, which says where a setting stands, may be NULL. */
int train_spec(struct model_spec *out, struct restore *from, const struct train_config *c,
               const struct recipe *r, struct arena *a);

#endif
