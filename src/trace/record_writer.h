/* trace/record_writer.h - recording spans into files while something else goes on.
 *
 * What is put is copied into a buffer, and a thread writes it: putting takes no longer than copying
 * does, allocates nothing, and never waits for a disk. When the disk is so slow that the buffer is
 * full, what is put is dropped, counted, and the run goes on. A disk that refuses ends the
 * recording, not the run.
 *
 * Files are as trace/record.h says, each with its table of contents; both generations of both files
 * together stay below the bytes that are allowed (a fourth of which is for what is kept). */
#ifndef HEADWAY_TRACE_RECORD_WRITER_H
#define HEADWAY_TRACE_RECORD_WRITER_H

#include "trace/record.h"

struct record_writer;

/* folder exists. What a process that was killed left unfinished at the end of a file is cut off;
 * whole chunks stay, and new ones go behind them. */
int record_writer_new(struct record_writer **out, const char *folder, int rank, i64 disk_bytes);
/* Writes what was put, and ends. NULL is fine. */
void record_writer_free(struct record_writer *w);

/* Chunks that every file of this part begins with: HEAD, TABLEs in order, a first CLOCK. Before
 * anything is put; they are copied. */
void record_writer_preamble(struct record_writer *w, enum record_kind kind, const void *payload,
                            i64 bytes);

enum record_where { RECORD_IN_NEWEST = 1, RECORD_IN_KEPT = 2 };

/* The least disk_bytes that all files keep to when no chunk is larger than this: each has room for
 * what it begins with and for one chunk. After the preamble. */
i64 record_writer_least_bytes(const struct record_writer *w, i64 chunk_bytes);

/* One chunk whose payload is head and then body, into the files of `where`. False: dropped. */
bool record_writer_put(struct record_writer *w, int where, enum record_kind kind, const void *head,
                       i64 head_bytes, const void *body, i64 body_bytes);
/* The thread may write what was put: at once, or a tenth of a second behind its last writing. The
 * first time it begins the newest file, whatever was. */
void record_writer_go(struct record_writer *w);

i64 record_writer_dropped(const struct record_writer *w); /* chunks */
/* Why recording ended; NULL: it did not. */
const char *record_writer_error(const struct record_writer *w);

#endif
