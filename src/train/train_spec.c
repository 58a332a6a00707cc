#include "train/train_spec.h"

#include "base/err.h"
#include "base/recipe.h"
#include "base/yaml.h"

static int apply_overrides(struct model_spec *spec, const struct train_config *c,
                           struct arena *a)
{
    const struct yaml_node *map = c->model.override;
    if (map && map->kind != YAML_MAP)
        return err_set(ERR_CONFIG, "%s: model.override takes a map of model keys, such "
                       "as {layers: 4}", yaml_where(map, a));
    if (spec->kv_heads == spec->heads)
        spec->kv_heads = 0; /* derived: follow what is overridden */
    if (spec->value_size == spec->head_size)
        spec->value_size = 0;
    if (spec->head_size * spec->heads == spec->width)
        spec->head_size = 0;
    if (spec->expert_hidden == spec->hidden)
        spec->expert_hidden = 0;
    if (map)
        TRY(recipe_change_map(model_spec_options, spec, map, a));
    if (c->model.window > 0)
        spec->window = c->model.window;
    return OK;
}

/* A spec that is given beside model.from must be that of the weights. */
static int check_same(const struct model_spec *spec, const struct train_config *c,
                      struct arena *a)
{
    struct model_spec given;
    TRY(spec_load(&given, c->model.spec, a));
    if (given.vocab == 0)
        given.vocab = spec->vocab;
    const char *key = spec_difference(&given, spec);
    if (!key)
        return OK;
    return err_set(ERR_CONFIG, "model.spec %s is not the model in model.from %s: its %s differs; "
                   "leave model.spec out", c->model.spec, c->model.from, key);
}

/* What can be described but not trained. */
static int check_built(const struct model_spec *spec)
{
    if (spec->mtp_depth == 0 && spec->groups > 0)
        return err_set(ERR_CONFIG, "%s has router.groups %lld: training's router chooses of all "
                       "experts (plans price groups); set model.override {router.groups: 0, "
                       "router.group_limit: 0} to train without", spec->name,
                       (long long)spec->groups);
    if (spec->mtp_depth == 0)
        return OK;
    return err_set(ERR_CONFIG, "%s has mtp.depth %lld: training builds no module that predicts "
                   "further tokens (plans price it); set model.override {mtp.depth: 0} to train "
                   "without",
                   spec->name, (long long)spec->mtp_depth);
}

/* With the place of the setting that names what failed. */
static int placed(int rc, const struct recipe *r, const char *key)
{
    const char *where = rc < 0 && r ? recipe_where(r, key) : NULL;
    return where ? err_context(rc, "%s", where) : rc;
}

int train_spec(struct model_spec *out, struct restore *from, const struct train_config *c,
               const struct recipe *r, struct arena *a)
{
    if (!c->model.from) {
        TRY(placed(spec_load(out, c->model.spec, a), r, "model.spec"));
        TRY(apply_overrides(out, c, a));
        return check_built(out);
    }
    TRY(placed(restore_find(from, c->model.from, a), r, "model.from"));
    *out = from->spec;
    if (c->model.spec)
        TRY(placed(check_same(out, c, a), r, "model.spec"));
    TRY(apply_overrides(out, c, a));
    return check_built(out);
}
