/* base/text.h - text that grows, and "did you mean".
 *
 * struct text is a buffer that is reused: text_clear keeps the memory, so that a metrics
 * line per step costs no allocation after the first. Running out of memory stops the
 * program, as for an arena. */
#ifndef HEADWAY_TEXT_H
#define HEADWAY_TEXT_H

#include "base/base.h"

struct text {
    char *data; /* always ends in '\0' once something was added; NULL before */
    i64 length, capacity;
};

void text_fini(struct text *t);
void text_clear(struct text *t);
void text_add(struct text *t, const char *string);
void text_add_bytes(struct text *t, const char *bytes, i64 n);
void text_printf(struct text *t, const char *fmt, ...) PRINTF_LIKE(2, 3);
void text_repeat(struct text *t, char c, i64 n);
/* A protocol-buffer varint: 7 bits a byte, the lowest first. */
void text_add_varint(struct text *t, u64 value);
/* The words of string, broken into lines of at most width columns; each line after the
 * first begins with indent blanks. The first line starts at column `column`. */
void text_wrap(struct text *t, const char *string, int column, int indent, int width);

/* Bytes of the mark with which some editors begin a file of UTF-8; 0: it has none. */
i64 text_mark(const void *text, i64 bytes);

/* The shortest decimal that reads back as the same double; "nan", "inf", "-inf". */
void text_add_double(struct text *t, double value);

/* Finds the name nearest to what was typed, by edit distance with transpositions.
 *     struct nearest n = { .typed = word };
 *     for (...) nearest_offer(&n, name);
 *     if (nearest_found(&n)) ... */
struct nearest {
    const char *typed, *best;
    i64 distance;
};

void nearest_offer(struct nearest *n, const char *name);
/* NULL when nothing is near enough to be worth suggesting. */
const char *nearest_found(const struct nearest *n);

#endif
