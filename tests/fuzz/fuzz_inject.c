/* Any text: refused with a sentence, or a fault whose effect is a finite number that is not
 * negative, for every rank and step. */
#include "base/arena.h"
#include "base/err.h"
#include "base/inject.h"

#include <math.h>

int LLVMFuzzerTestOneInput(const u8 *data, size_t bytes);

int LLVMFuzzerTestOneInput(const u8 *data, size_t bytes)
{
    const int members[] = { 0, 1, 2 };
    struct arena a;
    struct inject x;
    double spin;
    arena_init(&a);
    const char *text = arena_strndup(&a, (const char *)data, (i64)bytes);
    if (inject_read(&x, &text, 1, "fuzz") == OK) {
        for (int rank = 0; rank < 3; rank++) {
            inject_begin(&x, rank, 7);
            for (u64 step = 0; step < 3; step++) {
                double compute = inject_compute(&x, "linear", step, 0, 1e-3);
                double load = inject_load(&x, step, 1e6, &spin);
                struct inject_call c = inject_call(&x, step, members, 3, rank, -1, 1e6);
                double all = compute + load + spin + c.link + c.delay + inject_pause(&x, step);
                i64 length = inject_length(&x, step, 1, 64);
                if (!isfinite(all) || all < 1e-3 || length < 1 || length > 64)
                    err_panic("'%s' takes %g s, documents of %lld", text, all, (long long)length);
            }
        }
    }
    arena_fini(&a);
    return 0;
}
