/* base/csv.h - a table of texts: rows of cells under named columns (RFC 4180).
 *
 * The first line names the columns. Cells are divided by commas; a cell in double quotes may have
 * commas, line ends and doubled quotes in it. Lines end with \n or \r\n. Every row has as many
 * cells as there are columns. Refused, with file and line: NUL characters, a quote that does not
 * end or stands within a bare cell, rows of another length, columns without a name or with
 * the same one, and files beyond 64 MiB, 1,000 columns or a million rows. */
#ifndef HEADWAY_CSV_H
#define HEADWAY_CSV_H

#include "base/arena.h"

struct csv {
    const char *file;
    i64 n_columns, n_rows;
    const char **columns; /* [n_columns] */
    const char **cells;   /* [n_rows n_columns] */
    i64 *lines;           /* [n_rows]: where each begins, from 1 */
};

int csv_load(const char *path, struct arena *a, struct csv *out);

/* name stands for the file in messages. Everything is copied into the arena. */
int csv_parse(const char *text, i64 bytes, const char *name, struct arena *a, struct csv *out);

/* The column's position, or -1. */
i64 csv_column(const struct csv *t, const char *name);

/* The cell; "" in a column that there is not (-1). */
static inline const char *csv_cell(const struct csv *t, i64 row, i64 column)
{
    return column < 0 ? "" : t->cells[row * t->n_columns + column];
}

#endif
