/* Any bytes: refused, or a tree that is written as JSON which a JSON reader accepts. */
#include "base/err.h"
#include "base/json.h"
#include "base/yaml.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const u8 *data, size_t bytes);

int LLVMFuzzerTestOneInput(const u8 *data, size_t bytes)
{
    struct arena arena;
    const struct yaml_node *root;
    arena_init(&arena);
    if (yaml_parse((const char *)data, (i64)bytes, "fuzz.yaml", &arena, &root) == OK) {
        struct json j;
        json_t *read;
        json_writer_init(&j);
        yaml_write_json(root, &j);
        /* jansson refuses numbers beyond its types; everything else is our mistake. */
        if (json_parse(j.out.data, j.out.length, "tree", &read) == OK)
            json_decref(read);
        else if (!strstr(err_message(), "too big") && !strstr(err_message(), "overflow"))
            err_panic("the tree became bad JSON: %s", err_message());
        json_writer_fini(&j);
    }
    arena_fini(&arena);
    return 0;
}
