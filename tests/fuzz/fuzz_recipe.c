/* Any bytes as a training recipe: refused with a message, or a recipe that is written out
 * and read back to the same values. */
#include "base/err.h"
#include "base/json.h"
#include "base/recipe.h"
#include "train/train_config.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const u8 *data, size_t bytes);

static int read_recipe(const char *text, i64 bytes, struct arena *a, struct json *resolved,
                       struct text *yaml)
{
    struct train_config config = { 0 };
    struct recipe r;
    const struct yaml_node *root;
    recipe_init(&r, a, &(struct option_group){ train_options, &config }, 1);
    TRY(yaml_parse(text, bytes, "fuzz.yaml", a, &root));
    TRY(recipe_apply(&r, root));
    if (train_config_check(&config, &r) < 0 && !*err_message())
        err_panic("a recipe was refused without a reason");
    recipe_write_json(&r, resolved);
    recipe_write_yaml(&r, yaml);
    return OK;
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t bytes)
{
    struct arena arena;
    struct json first, second;
    struct text yaml = { 0 }, again = { 0 };
    arena_init(&arena);
    json_writer_init(&first);
    json_writer_init(&second);
    if (read_recipe((const char *)data, (i64)bytes, &arena, &first, &yaml) == OK) {
        if (read_recipe(yaml.data, yaml.length, &arena, &second, &again) != OK)
            err_panic("what was written is refused: %s\n%s", err_message(), yaml.data);
        if (strcmp(first.out.data, second.out.data) != 0)
            err_panic("values changed:\n%s\n%s", first.out.data, second.out.data);
    } else if (!*err_message()) {
        err_panic("refused without a message");
    }
    json_writer_fini(&first);
    json_writer_fini(&second);
    text_fini(&yaml);
    text_fini(&again);
    arena_fini(&arena);
    return 0;
}
