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
    const struct recipe *recipe; /* who set what */
};

/* The first argument's recipe with the command's --set, and `layout` (NULL: what the
 * recipe says), which fits as many ranks as it needs. "auto": the best of so many ranks,
 * each with its share of this machine's memory; why it is the best is printed. */
int layout_recipe_read(struct layout_recipe *x, const struct invocation *v, const char *layout,
                       i64 ranks);

/* For commands that take `auto`; of a struct with a field `ranks`. */
#define LAYOUT_RANKS_OPTION(type) \
    { "ranks", OPTION_FIELD(INT, type, ranks), "0", .unit = "ranks", .max = 1 << 20, \
      .help = "With --layout auto: of how many ranks." }

extern const struct command cmd_layout_check; /* cmd_layout_check.c */

#endif
