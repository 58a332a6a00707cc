/* Any bytes as a table of worked examples: refused with a message, or rows that can be priced. */
#include "base/err.h"
#include "base/yaml.h"
#include "plan/worked.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t bytes);

int LLVMFuzzerTestOneInput(const u8 *data, size_t bytes)
{
    struct arena arena;
    struct worked_table t;
    const struct yaml_node *root;
    arena_init(&arena);
    if (yaml_parse((const char *)data, (i64)bytes, "fuzz.yaml", &arena, &root) == OK &&
        worked_read(&t, root, &arena) == OK) {
        for (i64 i = 0; i < t.n; i++)
            if (t.rows[i].gpus < 1 || t.rows[i].batch < 1 || t.rows[i].spec.layers < 1)
                err_panic("row %lld has nothing to price", (long long)i);
    } else if (!*err_message()) {
        err_panic("refused without a message");
    }
    arena_fini(&arena);
    return 0;
}
