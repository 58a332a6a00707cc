/* base/arena.h - memory that is given back all at once.
 *
 * Ask for an arena instead of calling malloc. arena_alloc never returns NULL: running
 * out of memory for bookkeeping stops the program with a message (tensors do not live
 * here: their one region is planned and checked before anything starts). */
#ifndef HEADWAY_ARENA_H
#define HEADWAY_ARENA_H

#include "base/base.h"

struct arena {
    struct arena_block *top;
    i64 used_bytes; /* sum of what was asked for */
};

void arena_init(struct arena *a);
void arena_fini(struct arena *a); /* gives everything back; the arena may be used again */
/* Forgets what is in it and keeps the memory, as one piece: for work that repeats, which otherwise
 * asks the system for the same pages over and over. */
void arena_clear(struct arena *a);

/* Zeroed, aligned to 64 bytes when bytes >= 64 and to 16 otherwise. bytes may be 0. */
void *arena_alloc(struct arena *a, i64 bytes);
#define ARENA_NEW(a, type) ((type *)arena_alloc((a), (i64)sizeof(type)))
#define ARENA_ARRAY(a, type, n) ((type *)arena_alloc((a), (i64)sizeof(type) * (i64)(n)))

/* The same, but what is in it is not defined: for arrays that are filled at once. */
void *arena_alloc_unset(struct arena *a, i64 bytes);
#define ARENA_UNSET(a, type, n) ((type *)arena_alloc_unset((a), (i64)sizeof(type) * (i64)(n)))

char *arena_strdup(struct arena *a, const char *text);
char *arena_strndup(struct arena *a, const char *text, i64 length);
char *arena_printf(struct arena *a, const char *fmt, ...) PRINTF_LIKE(2, 3);

#endif
