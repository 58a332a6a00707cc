#include "base/csv.h"

#include "base/err.h"
#include "base/sys.h"

#include <errno.h>
#include <string.h>

enum { MOST_BYTES = 64 << 20, MOST_COLUMNS = 1000, MOST_ROWS = 1000000 };

struct reader {
    const char *text, *end, *at;
    const char *file;
    i64 line;
    struct arena *arena;
    const char **cells; /* all so far */
    i64 n, capacity;
};

static int refuse(const struct reader *r, const char *what)
{
    return err_set(ERR_FORMAT, "%s:%lld: %s", r->file, (long long)r->line, what);
}

static void add_cell(struct reader *r, const char *text)
{
    if (r->n == r->capacity) {
        i64 more = r->capacity ? 2 * r->capacity : 256;
        const char **cells = ARENA_ARRAY(r->arena, const char *, more);
        if (r->n)
            memcpy(cells, r->cells, (size_t)r->n * sizeof *cells);
        r->cells = cells;
        r->capacity = more;
    }
    r->cells[r->n++] = text;
}

/* Behind the opening quote; ends behind the closing one. */
static int quoted_cell(struct reader *r)
{
    char *copy = NULL;
    i64 length = 0;
    for (const char *p = r->at; !copy; p++) { /* how long it can be at most */
        if (p == r->end)
            return refuse(r, "a quote does not end");
        if (*p == '"' && (p + 1 == r->end || p[1] != '"'))
            copy = arena_alloc(r->arena, p - r->at + 1);
        else if (*p == '"')
            p++;
    }
    for (;; r->at++) {
        if (*r->at == '"' && (r->at + 1 == r->end || r->at[1] != '"'))
            break;
        r->at += *r->at == '"';
        r->line += *r->at == '\n';
        copy[length++] = *r->at;
    }
    r->at++;
    copy[length] = 0;
    add_cell(r, copy);
    return OK;
}

static bool ends_line(const struct reader *r)
{
    if (r->at == r->end || *r->at == '\n')
        return true;
    return *r->at == '\r' && r->at + 1 < r->end && r->at[1] == '\n';
}

static int bare_cell(struct reader *r)
{
    const char *begin = r->at;
    while (!ends_line(r) && *r->at != ',') {
        if (*r->at == '"')
            return refuse(r, "a quote within a cell that does not begin with one");
        r->at++;
    }
    add_cell(r, arena_strndup(r->arena, begin, r->at - begin));
    return OK;
}

/* One line's cells; the line end is consumed. */
static int read_line(struct reader *r)
{
    for (;;) {
        bool quoted = r->at < r->end && *r->at == '"';
        r->at += quoted;
        TRY(quoted ? quoted_cell(r) : bare_cell(r));
        if (ends_line(r))
            break;
        if (*r->at != ',')
            return refuse(r, "text behind a closing quote");
        r->at++;
    }
    if (r->at < r->end && *r->at == '\r')
        r->at++;
    if (r->at < r->end)
        r->at++;
    r->line++;
    return OK;
}

static int read_columns(struct reader *r, struct csv *out)
{
    TRY(read_line(r));
    r->line--; /* for messages */
    if (r->n > MOST_COLUMNS)
        return refuse(r, "more than 1000 columns");
    if (r->n == 1 && strpbrk(r->cells[0], ";\t|"))
        return refuse(r, "one column alone: cells are separated by commas, not by semicolons, tabs "
                      "or bars");
    out->columns = r->cells;
    out->n_columns = r->n;
    for (i64 i = 0; i < r->n; i++) {
        if (!*r->cells[i])
            return refuse(r, "a column without a name");
        if (csv_column(out, r->cells[i]) != i)
            return refuse(r, "two columns with the same name");
    }
    r->line++;
    r->cells = NULL;
    r->n = r->capacity = 0;
    return OK;
}

static int read_rows(struct reader *r, struct csv *out)
{
    i64 capacity = 0;
    while (r->at < r->end) {
        i64 line = r->line, before = r->n;
        TRY(read_line(r));
        if (r->n - before != out->n_columns)
            return err_set(ERR_FORMAT, "%s:%lld: %lld cells, but there are %lld columns",
                           r->file, (long long)line, (long long)(r->n - before),
                           (long long)out->n_columns);
        if (out->n_rows == MOST_ROWS)
            return refuse(r, "more than a million rows");
        if (out->n_rows == capacity) {
            i64 *lines = ARENA_ARRAY(r->arena, i64, capacity ? 2 * capacity : 64);
            if (capacity)
                memcpy(lines, out->lines, (size_t)capacity * sizeof *lines);
            out->lines = lines;
            capacity = capacity ? 2 * capacity : 64;
        }
        out->lines[out->n_rows++] = line;
    }
    out->cells = r->cells;
    return OK;
}

int csv_parse(const char *text, i64 bytes, const char *name, struct arena *a, struct csv *out)
{
    struct reader r = { .text = text, .at = text, .end = text + bytes, .file = name, .line = 1,
                        .arena = a };
    *out = (struct csv){ .file = arena_strdup(a, name) };
    if (bytes > MOST_BYTES)
        return refuse(&r, "larger than 64 MiB");
    if (bytes == 0)
        return refuse(&r, "empty: the first line names the columns");
    if (memchr(text, 0, (size_t)bytes))
        return refuse(&r, "a NUL character");
    TRY(read_columns(&r, out));
    return read_rows(&r, out);
}

int csv_load(const char *path, struct arena *a, struct csv *out)
{
    i64 bytes;
    char *text = sys_map_file(path, &bytes);
    if (!text)
        return err_set(ERR_SYS, "open %s: %s", path, strerror(errno));
    int rc = csv_parse(text, bytes, path, a, out);
    sys_unmap(text, bytes);
    return rc;
}

i64 csv_column(const struct csv *t, const char *name)
{
    for (i64 i = 0; i < t->n_columns; i++)
        if (!strcmp(t->columns[i], name))
            return i;
    return -1;
}
