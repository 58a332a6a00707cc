#include "cli/layout_recipe.h"

#include "base/err.h"
#include "train/train_recipe.h"

int layout_recipe_read(struct layout_recipe *x, const struct invocation *v, const char *layout)
{
    struct train_recipe *r = ARENA_NEW(v->arena, struct train_recipe);
    TRY(train_recipe_read(r, v->args[0], v->sets, v->n_sets, layout, v->arena));
    *x = (struct layout_recipe){ r->config, r->layout, r->spec };
    return OK;
}
