/* data/buffer.h - bytes that grow: the scratch of encoders, readers and writers.
 *
 * Unlike base/text.h it is for bulk data of the user's, so that running out of memory is
 * an error and not the end of the program. Zero-initialise it; buffer_fini gives the
 * memory back. Growing doubles, so that a buffer that is reused stops allocating. */
#ifndef HEADWAY_DATA_BUFFER_H
#define HEADWAY_DATA_BUFFER_H

#include "base/base.h"

struct buffer {
    u8 *data;
    i64 bytes, capacity;
};

void buffer_fini(struct buffer *b);
/* Room for `more` bytes behind the first b->bytes; ERR_LIMIT when there is no memory. */
int buffer_reserve(struct buffer *b, i64 more);
int buffer_add(struct buffer *b, const void *data, i64 bytes);

#endif
