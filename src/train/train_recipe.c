#include "train/train_recipe.h"

#include "base/err.h"
#include "base/text.h"
#include "data/tokenizer.h"
#include "train/train_layout.h"
#include "train/train_spec.h"

#include <string.h>

static int read_vocab(struct train_recipe *x, const struct restore *from)
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

int train_layout_override(const struct recipe *r, struct layout *l, const char *text,
                          struct arena *a)
{
    const struct layout before = *l;
    TRY(layout_parse(l, text, "--layout", a));
    for (const struct option *o = layout_options; o->key; o++) {
        const char *where = recipe_where(r, o->key);
        struct text was = { 0 }, is = { 0 };
        option_format(o, &before, &was);
        option_format(o, l, &is);
        int rc = OK;
        if (where && strcmp(where, "--set") == 0 && strcmp(was.data, is.data) != 0)
            rc = err_set(ERR_USAGE, "--layout %s says %s %s, and --set (or --%s) says %s: leave "
                         "one of them out", text, o->key, is.data, o->key, was.data);
        text_fini(&was);
        text_fini(&is);
        TRY(rc);
    }
    return OK;
}

int train_recipe_read(struct train_recipe *x, const char *path, const char *const *sets,
                      int n_sets, const char *layout, struct arena *a)
{
    struct restore from = { 0 };
    struct option_group groups[] = { { train_options, &x->config },
                                     { layout_options, &x->layout } };
    recipe_init(&x->recipe, a, groups, COUNT_OF(groups));
    TRY(recipe_load(&x->recipe, path));
    for (int i = 0; i < n_sets; i++)
        TRY(recipe_override(&x->recipe, sets[i]));
    if (layout)
        TRY(train_layout_override(&x->recipe, &x->layout, layout, a));
    TRY(train_config_check(&x->config, &x->recipe));
    TRY(train_spec(&x->spec, &from, &x->config, &x->recipe, a));
    TRY(read_vocab(x, &from));
    TRY(spec_check(&x->spec, x->spec.name));
    return train_layout_check(&x->layout, &x->spec, &x->config, layout_ranks(&x->layout));
}
