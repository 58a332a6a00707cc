#include "cli/layout_recipe.h"

#include "base/err.h"
#include "base/sys.h"
#include "train/train_layout.h"
#include "train/train_recipe.h"

#include <stdio.h>
#include <string.h>

static int choose(struct layout_recipe *x, i64 ranks)
{
    struct text why = { 0 };
    if (ranks == 0)
        return err_set(ERR_USAGE, "--layout auto chooses for a number of ranks: say it, such as "
                       "--ranks 8");
    const struct layout_budget budget =
        layout_budget_usual(ranks, sys_memory_limit_bytes() / ranks);
    const struct layout base = x->layout;
    int rc = train_layout_choose(&x->layout, &base, &x->spec, &x->config, &budget, &why);
    if (rc >= 0)
        printf("layout: %s\n\n", why.data);
    text_fini(&why);
    return rc;
}

int layout_recipe_read(struct layout_recipe *x, const struct invocation *v, const char *layout,
                       i64 ranks)
{
    bool find = layout && strcmp(layout, "auto") == 0;
    struct train_recipe *r = ARENA_NEW(v->arena, struct train_recipe);
    if (ranks > 0 && !find)
        return err_set(ERR_USAGE, "--ranks goes with --layout auto; a layout says how "
                       "many it needs");
    TRY(train_recipe_read(r, v->args[0], v->sets, v->n_sets, find ? NULL : layout, v->arena));
    *x = (struct layout_recipe){ r->config, r->layout, r->spec, &r->recipe };
    return find ? choose(x, ranks) : OK;
}
