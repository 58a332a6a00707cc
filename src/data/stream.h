/* data/stream.h - the bytes of an input, decompressed as they are needed.
 *
 * A file, a pipe, or "-" for standard input; gzip (also .dz, and several members one
 * after another) and zstd are told by their first bytes, not by the name; a name that ends in
 * .gz, .dz or .zst over other bytes is refused (ERR_FORMAT). Memory is
 * bounded whatever the input expands to: a small buffer, and for zstd a window of at most
 * 128 MiB. The SHA-256 is that of the input as it lies on disk. */
#ifndef HEADWAY_DATA_STREAM_H
#define HEADWAY_DATA_STREAM_H

#include "data/buffer.h"

struct stream;

/* Borrows path. */
int stream_open(struct stream **out, const char *path);
/* The same for bytes in memory; name stands for them in messages. */
int stream_open_memory(struct stream **out, const void *bytes, i64 n, const char *name);
/* Up to n bytes; *got is 0 at the end only. ERR_FORMAT when compressed data are damaged
 * or end early. */
int stream_read(struct stream *s, void *out, i64 n, i64 *got);
/* Bytes taken from the input so far. */
i64 stream_input_bytes(const struct stream *s);
/* Of all of it, once the end was reached. */
void stream_sha256(struct stream *s, char hex[65]);
void stream_close(struct stream *s); /* NULL is fine */

/* All that the input holds, behind what is in out. */
int stream_read_all(const char *path, struct buffer *out);

#endif
