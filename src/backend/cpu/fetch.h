/* backend/cpu/fetch.h - asking for rows of a tensor beside arithmetic that needs them later.
 *
 * Rows of one head lie far apart, so the hardware sees no pattern. A core has room for some sixteen
 * lines on their way and stands still when more are asked for: hence a few at a time, wherever
 * arithmetic leaves room. What is not fetched by then is only late. */
#ifndef HEADWAY_FETCH_H
#define HEADWAY_FETCH_H

#include "backend/cpu/vec.h"

enum { FETCH_STREAMS = 8 };

struct fetch_stream {
    const char *row;
    i64 row_bytes, bytes, rows; /* bytes: of each row; rows: still to come */
};

struct fetch {
    struct fetch_stream streams[FETCH_STREAMS]; /* the last is fetched first */
    int n;
};

/* Rows from element `at` on, `row` elements apart; nothing where there is no room. */
INLINE void fetch_add(struct fetch *f, bool half, const void *data, i64 at, i64 row, i64 rows,
                      i64 columns)
{
    const i64 size = half ? (i64)sizeof(bf16) : (i64)sizeof(float);
    if (rows > 0 && f->n < FETCH_STREAMS)
        f->streams[f->n++] = (struct fetch_stream){ (const char *)data + at * size, row * size,
                                                    columns * size, rows };
}

INLINE void fetch_some(struct fetch *f, i64 lines)
{
    while (lines > 0 && f->n > 0) {
        struct fetch_stream *s = &f->streams[f->n - 1];
        for (i64 at = 0; at < s->bytes; at += 64, lines--)
            __builtin_prefetch(s->row + at, 0, 2);
        s->row += s->row_bytes;
        if (--s->rows == 0)
            f->n--;
    }
}

#endif
