/* Any text in place of what the kernel tells: a number or none, and nothing read beyond its end. */
#include "base/arena.h"
#include "base/err.h"
#include "base/proc_text.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const u8 *data, size_t bytes);

int LLVMFuzzerTestOneInput(const u8 *data, size_t bytes)
{
    struct arena a;
    u64 x, y;
    char path[24];
    arena_init(&a);
    const char *text = arena_strndup(&a, (const char *)data, (i64)bytes);
    proc_value(text, "nr_throttled", &x);
    proc_value(text, "read_bytes", &x);
    proc_schedstat(text, &x, &y);
    proc_pressure(text, &x);
    proc_steal(text, &x);
    proc_resident(text, &x);
    proc_list_has(text, 7);
    proc_distance(text, 1, &x);
    x = y = 0;
    if (!proc_numa_line(text, 1, &x, &y) && x + y != 0)
        err_panic("a line that tells nothing adds %llu", (unsigned long long)(x + y));
    for (int v2 = 0; v2 < 2; v2++)
        if (proc_cgroup(text, v2 ? NULL : "cpu", path, sizeof path) &&
            (path[0] != '/' || strlen(path) >= sizeof path || strchr(path, '\n')))
            err_panic("'%s' is no path", path);
    arena_fini(&a);
    return 0;
}
