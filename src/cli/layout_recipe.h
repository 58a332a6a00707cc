/* cli/layout_recipe.h - what `headway layout ...` reads: a recipe, a layout and a model's spec. */
#ifndef HEADWAY_LAYOUT_RECIPE_H
#define HEADWAY_LAYOUT_RECIPE_H

#include "cli/command.h"
#include "parallel/layout.h"
#include "train/train_config.h"

struct layout_recipe {
    struct train_config config;
    struct layout layout;
    struct model_spec spec; /* its vocabulary settled */
};

/* The first argument's recipe with the command's --set, and `layout` (NULL: what the recipe says),
 * which fits as many ranks as it needs. */
int layout_recipe_read(struct layout_recipe *x, const struct invocation *v, const char *layout);

extern const struct command cmd_layout_check; /* cmd_layout_check.c */

#endif
