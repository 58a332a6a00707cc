/* Any bytes as a machine file and as a machine's line: refused with a message, or a machine whose
 * line is read back to the same line. */
#include "base/err.h"
#include "plan/machine_file.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const u8 *data, size_t bytes);

static int read_file(const char *text, i64 bytes, struct arena *a, struct plan_machine *m)
{
    const struct yaml_node *root;
    TRY(yaml_parse(text, bytes, "fuzz.yaml", a, &root));
    return plan_machine_read(m, root, a);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t bytes)
{
    struct arena arena;
    struct plan_machine m, again;
    arena_init(&arena);
    const char *text = arena_strndup(&arena, (const char *)data, (i64)bytes);
    if (read_file((const char *)data, (i64)bytes, &arena, &m) != OK && !*err_message())
        err_panic("a file was refused without a message");
    if (plan_machine_line(&m, text, &arena) == OK) {
        const char *line = plan_machine_text(&m, &arena);
        if (plan_machine_line(&again, line, &arena) != OK)
            err_panic("what was written is refused: %s\n%s", err_message(), line);
        if (strcmp(plan_machine_text(&again, &arena), line) != 0)
            err_panic("a line changed: %s\n%s", line, plan_machine_text(&again, &arena));
    } else if (!*err_message()) {
        err_panic("a line was refused without a message");
    }
    arena_fini(&arena);
    return 0;
}
