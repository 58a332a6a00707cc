#include "cli/layout_recipe.h"

#include "base/err.h"
#include "data/tokenizer.h"
#include "train/train_layout.h"
#include "train/train_spec.h"

static int read_vocab(struct layout_recipe *x, const struct restore *from)
{
    const char *path = x->config.data.tokenizer ? x->config.data.tokenizer : from->tokenizer;
    struct tokenizer *t;
    if (x->spec.vocab > 0)
        return OK;
    if (!path || !*path)
        return err_set(ERR_CONFIG, "%s leaves its vocabulary open; name data.tokenizer, or set "
                       "model.override {vocab: N}", x->spec.name);
    TRY(tokenizer_open(&t, path));
    x->spec.vocab = tokenizer_size(t);
    tokenizer_free(t);
    return OK;
}

int layout_recipe_read(struct layout_recipe *x, const struct invocation *v, const char *layout)
{
    struct recipe recipe;
    struct restore from = { 0 };
    struct option_group groups[] = { { train_options, &x->config },
                                     { layout_options, &x->layout } };
    recipe_init(&recipe, v->arena, groups, COUNT_OF(groups));
    TRY(recipe_load(&recipe, v->args[0]));
    TRY(invocation_override(v, &recipe));
    if (layout)
        TRY(layout_parse(&x->layout, layout, "--layout", v->arena));
    TRY(train_config_check(&x->config, &recipe));
    TRY(train_spec(&x->spec, &from, &x->config, v->arena));
    TRY(read_vocab(x, &from));
    TRY(spec_check(&x->spec, x->spec.name));
    return train_layout_check(&x->layout, &x->spec, &x->config, layout_ranks(&x->layout));
}
