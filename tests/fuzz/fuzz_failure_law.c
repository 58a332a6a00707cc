/* Any bytes as a law of failures: refused with a message, or a law whose goodput is a share. */
#include "base/err.h"
#include "plan/failures.h"

#include <math.h>

int LLVMFuzzerTestOneInput(const u8 *data, size_t bytes);

static void try_goodput(const struct failure_law *law)
{
    for (int end = 0; end <= FAILURE_SLOW; end++) {
        struct failure_job j = failure_job_of(law, 128, end);
        j.write_s = j.stall_s;
        j.every_s = failure_best_interval(&j);
        j.spares = 2;
        struct failure_time t = failure_goodput(&j);
        if (!(t.progress >= 0 && t.progress <= 1) || !(j.every_s > 0))
            err_panic("progress %g every %g s", t.progress, j.every_s);
    }
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t bytes)
{
    struct arena arena;
    struct failure_law law;
    const struct yaml_node *root;
    arena_init(&arena);
    if (yaml_parse((const char *)data, (i64)bytes, "fuzz.yaml", &arena, &root) == OK &&
        failure_law_read(&law, root, "fuzz.yaml", &arena) == OK)
        try_goodput(&law);
    else if (!*err_message())
        err_panic("refused without a message");
    arena_fini(&arena);
    return 0;
}
