/* base/recipe.h - YAML files and --set read into bound structs, and written back.
 *
 * Modules own their option tables; a recipe is read into all of them at once. Nested maps
 * are dotted keys: "train: {steps: 10}" and "train.steps: 10" are the same. Later wins:
 * default, file, overrides in order. Nothing is read twice, nothing unknown is accepted.
 *
 *     struct train_config config;
 *     struct recipe recipe;
 *     struct option_group group = { train_options, &config };
 *     recipe_init(&recipe, &arena, &group, 1);
 *     TRY(recipe_load(&recipe, "gpt2.yaml"));
 *     TRY(recipe_override(&recipe, "train.steps=100"));
 */
#ifndef HEADWAY_RECIPE_H
#define HEADWAY_RECIPE_H

#include "base/option.h"
#include "base/yaml.h"

struct json;
struct text;

struct option_group {
    const struct option *table;
    void *target; /* the struct that the table's offsets refer to */
};

struct recipe {
    struct arena *arena;
    struct option_group *groups;
    i64 n_groups;
    const char ***where; /* [group][row]: who set it; NULL: still the default */
};

/* Sets every default. The arena must outlive the recipe and the bound structs. */
void recipe_init(struct recipe *r, struct arena *a, const struct option_group *groups,
                 i64 n);

int recipe_load(struct recipe *r, const char *path);
int recipe_apply(struct recipe *r, const struct yaml_node *root); /* an already read tree */
int recipe_override(struct recipe *r, const char *assignment);    /* "key=value" */

/* "recipe.yaml:12:5", "--set", or NULL when the key has its default. The key must exist. */
const char *recipe_where(const struct recipe *r, const char *key);

/* The option with this key in any group, or NULL; *target its struct (may be NULL). */
const struct option *recipe_find(const struct recipe *r, const char *key, void **target);

/* Every key with its resolved value, defaults included: as YAML that recipe_load reads
 * back to the same values, and as one JSON object for a manifest. */
void recipe_write_yaml(const struct recipe *r, struct text *out);
void recipe_write_json(const struct recipe *r, struct json *out);

/* One map by one table, for lists of maps (data.sources), model and machine files:
 * defaults first, then the map's keys (dotted for nested maps). */
int recipe_read_map(const struct option *table, void *target, const struct yaml_node *map,
                    struct arena *a);

/* The same without defaults: what the map does not name stays as it is in target. */
int recipe_change_map(const struct option *table, void *target, const struct yaml_node *map,
                      struct arena *a);

#endif
