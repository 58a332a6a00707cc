/* train/checkpoint_span.h - which bytes of a file belong where in memory.
 *
 * A file holds a box of a tensor, memory wants another one of it: what they have in common is
 * a set of runs of bytes, with a regular distance in both. Pure arithmetic. Private to
 * train/checkpoint*.c. */
#ifndef HEADWAY_CHECKPOINT_SPAN_H
#define HEADWAY_CHECKPOINT_SPAN_H

#include "train/checkpoint_manifest.h"

struct checkpoint_span {
    i64 begin, end; /* bytes of the file from the first run to the end of the last */
    i64 run, runs;  /* bytes of each; how many */
    int rank;       /* dimensions along which runs repeat */
    i64 count[CHECKPOINT_RANK];
    i64 in_file[CHECKPOINT_RANK], in_memory[CHECKPOINT_RANK]; /* bytes from one to the next */
    u8 *data; /* of the first run */
};

/* False when the boxes have nothing in common. begin: where the file's box begins in it. */
bool checkpoint_span_make(struct checkpoint_span *out, const struct checkpoint_box *file, i64 begin,
                          const struct checkpoint_tensor *memory);

/* Copies what bytes [offset, offset + n) of the file hold of it. */
void checkpoint_span_copy(const struct checkpoint_span *s, i64 offset, const u8 *data, i64 n);

/* Sets need[i] for every chunk of the file with a byte of it. */
void checkpoint_span_mark(const struct checkpoint_span *s, u8 *need);

#endif
