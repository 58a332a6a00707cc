/* data/word_table.h - counts how often each piece of text occurs. */
#ifndef HEADWAY_DATA_WORD_TABLE_H
#define HEADWAY_DATA_WORD_TABLE_H

#include "base/arena.h"

struct word {
    u64 hash;
    const u8 *bytes; /* NULL: an empty slot */
    i64 length, count;
};

struct word_table {
    struct arena arena; /* holds the bytes */
    struct word *slots; /* open addressing, at most half full */
    i64 capacity, count;
};

void word_table_init(struct word_table *t);
void word_table_fini(struct word_table *t);
i64 word_table_bytes(const struct word_table *t); /* memory held */

/* Counts the word `times` more; ERR_LIMIT when there is no memory. */
int word_table_add(struct word_table *t, const u8 *bytes, i64 length, i64 times);

#endif
