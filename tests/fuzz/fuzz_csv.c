/* Any bytes: refused, or a table that, written with every cell in quotes, is read the same. */
#include "base/csv.h"
#include "base/err.h"
#include "base/text.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const u8 *data, size_t bytes);

static void write_cells(struct text *out, const char **cells, i64 n)
{
    for (i64 i = 0; i < n; i++) {
        text_printf(out, "%s\"", i ? "," : "");
        for (const char *c = cells[i]; *c; c++)
            text_printf(out, *c == '"' ? "\"\"" : "%c", *c);
        text_printf(out, "\"");
    }
    text_printf(out, "\n");
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t bytes)
{
    struct arena arena;
    struct csv t, again;
    struct text out = { 0 };
    arena_init(&arena);
    if (csv_parse((const char *)data, (i64)bytes, "fuzz.csv", &arena, &t) == OK) {
        write_cells(&out, t.columns, t.n_columns);
        for (i64 r = 0; r < t.n_rows; r++)
            write_cells(&out, t.cells + r * t.n_columns, t.n_columns);
        if (csv_parse(out.data, (i64)strlen(out.data), "again.csv", &arena, &again) != OK)
            err_panic("what was read is refused: %s", err_message());
        if (again.n_rows != t.n_rows || again.n_columns != t.n_columns)
            err_panic("another number of rows or columns");
        for (i64 i = 0; i < t.n_rows * t.n_columns; i++)
            if (strcmp(t.cells[i], again.cells[i]))
                err_panic("cell %lld changed", (long long)i);
        text_fini(&out);
    }
    arena_fini(&arena);
    return 0;
}
