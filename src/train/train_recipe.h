/* train/train_recipe.h - a recipe with its layout and its model, read without opening any data. */
#ifndef HEADWAY_TRAIN_RECIPE_H
#define HEADWAY_TRAIN_RECIPE_H

#include "parallel/layout.h"
#include "train/train_config.h"

struct train_recipe {
    struct train_config config;
    struct layout layout;
    struct model_spec spec; /* with a vocabulary: the tokenizer's where the model's is open */
    struct recipe recipe;   /* who set what */
};

/* --layout's text over what the recipe and --set say, into l, which r's layout options refer to.
 * ERR_USAGE where --set says otherwise: neither may win in silence. */
int train_layout_override(const struct recipe *r, struct layout *l, const char *text,
                          struct arena *a);

/* sets: "key=value", in order. layout (NULL: what the recipe says) as --layout. The layout is
 * checked for as many ranks as it needs. All of it lives in the arena; *out must not be moved. */
int train_recipe_read(struct train_recipe *out, const char *path, const char *const *sets,
                      int n_sets, const char *layout, struct arena *a);

#endif
