/* trace/record_toc.h - the table of contents of a file of recorded spans.
 *
 *     RUN/trace/rank-N.spans.toc       beside rank-N.spans, one entry for each of its chunks
 *
 * Who opens a record wants to know where each step lies. Without this it has to go through all of
 * the file for that, since chunks are small; with it a file of 5 GB is opened by reading 0.1 GB.
 *
 * It only saves time: a record without it, or with a wrong one, is read as well. So an entry counts
 * only if its checksum is right, it begins where the one before it ended, and it ends within the
 * file; the last such one must be in the file as it says. From there on, the file itself is gone
 * through: what a killed writer had not entered yet is found, and damage is. */
#ifndef HEADWAY_TRACE_RECORD_TOC_H
#define HEADWAY_TRACE_RECORD_TOC_H

#include "trace/record.h"

#define RECORD_TOC_SUFFIX ".toc"

/* One entry, as in the file. */
struct record_entry {
    i64 at; /* of the chunk, in its file */
    struct record_chunk chunk;
    u8 begin[RECORD_BEGIN_BYTES]; /* of the payload; zeros behind a shorter one */
    u32 checksum; /* the low half of XXH3 of all before it */
    u32 unused;
};

_Static_assert(sizeof(struct record_entry) == 64, "as in the file");

/* place: of the chunk; payload: at least RECORD_BEGIN_BYTES of it, or all. */
void record_toc_enter(struct record_entry *out, const struct record_place *place,
                      const void *payload);

/* The entries that count of the table beside this file, which has so many bytes. *fd: of the table;
 * -1: there is none. */
i64 record_toc_open(int *fd, const char *path, int file, i64 file_bytes);

/* Entries [from, from + n) into out. False: they cannot be read. */
bool record_toc_read(int fd, struct record_entry *out, i64 from, i64 n);

/* Whether an entry is one, of a chunk at this place. */
bool record_toc_counts(const struct record_entry *e, i64 at, i64 file_bytes);

#endif
