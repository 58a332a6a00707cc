/* Any bytes: refused, or rows of which each has a layout or says what it lacks. */
#include "base/err.h"
#include "plan/measured.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t bytes);

int LLVMFuzzerTestOneInput(const u8 *data, size_t bytes)
{
    struct arena arena;
    struct csv t;
    struct plan_rows rows;
    arena_init(&arena);
    if (csv_parse((const char *)data, (i64)bytes, "fuzz.csv", &arena, &t) == OK &&
        plan_rows_of(&rows, &t, &arena) == OK)
        for (i64 i = 0; i < rows.n; i++) {
            const struct plan_row *r = &rows.rows[i];
            const struct plan_layout *l = &r->layout;
            if (!r->missing && (l->tp * l->cp * l->pp * l->dp != r->devices ||
                                l->micro_batches < 1 || r->spec.layers < 1))
                err_panic("row %lld has no layout and does not say so", (long long)i);
        }
    arena_fini(&arena);
    return 0;
}
