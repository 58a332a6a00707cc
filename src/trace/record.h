/* trace/record.h - recorded spans: the chunks of a file, and reading them.
 *
 *     RUN/trace/rank-N.spans             the newest steps of rank N
 *               rank-N.old.spans         those before; when the newest file is full it takes this
 *                                        place, so the disk used is bounded
 *               rank-N.kept.spans        steps around what a trigger saw; and kept.old
 *
 * A file is chunks, one behind the other, little endian:
 *
 *     u32 kind, u32 checksum, u64 bytes, payload, zeros up to a multiple of 8
 *
 * The checksum is the low half of XXH3 of the payload, seeded with the kind. What a process that
 * was killed left unfinished is behind the last whole chunk: that chunk alone is lost. Damage in
 * the midst of a file costs what is damaged: reading goes on at the next chunk whose checksum is
 * right.
 *
 * Beside each file lies a table of its contents (trace/record_toc.h), which may lack.
 *
 * What HEAD, TABLE and EVENT hold is JSON (train/record_table.h writes it, diagnose/record.h reads
 * it); this room knows spans only. */
#ifndef HEADWAY_TRACE_RECORD_H
#define HEADWAY_TRACE_RECORD_H

#include "trace/sample.h"
#include "trace/trace.h"

enum { RECORD_VERSION = 1 };

enum record_kind {           /* as text in the file: "HEAD" */
    RECORD_HEAD = 0x44414548,  /* JSON: who writes, since when; begins a part of the run, a file */
    RECORD_TABLE = 0x4c424154, /* "TABL", JSON: one program, numbered from 0 within a part */
    RECORD_SPANS = 0x4e415053, /* "SPAN": struct record_spans, then its spans */
    RECORD_CLOCK = 0x434f4c43, /* "CLOC": struct record_clock */
    RECORD_SAMPLE = 0x504d4153, /* "SAMP": struct sample, or the beginning of a longer one */
    RECORD_EVENT = 0x4e455645,  /* "EVEN", JSON: what a trigger saw */
};

struct record_chunk {
    u32 kind, checksum;
    u64 bytes; /* of the payload */
};

enum { RECORD_CHUNK_BYTES = 16, RECORD_MOST_BYTES = 1 << 28, RECORD_BEGIN_BYTES = 32 };

/* All spans that were made since the last such chunk, most of them of one step. */
struct record_spans {
    u32 step;  /* 0-based */
    u32 n;     /* spans */
    u32 table; /* whose tasks they name */
    u32 flags; /* enum record_flag */
    u64 begin_ns, end_ns; /* since when, until when, on this rank's clock */
};

enum record_flag {
    RECORD_FIRST = 1, /* of this step; chunks without it continue the step before them */
    RECORD_LOST = 2,  /* spans were overwritten before they could be taken from the ring */
};

struct record_clock {
    u64 at_ns;
    i64 shift_ns; /* from this rank's clock to the common one, then */
};

_Static_assert(sizeof(struct record_chunk) == RECORD_CHUNK_BYTES, "as in the file");
_Static_assert(sizeof(struct record_spans) == 32 && sizeof(struct record_clock) == 16,
               "as in the file");

u32 record_checksum(u32 kind, const void *payload, i64 bytes);
/* Whether this could be a chunk's head. */
bool record_plausible(const struct record_chunk *c);
/* Where a chunk that begins at this place ends, and the next one begins. */
i64 record_chunk_end(const struct record_chunk *c, i64 at);

/* --- reading ------------------------------------------------------------------------ */

struct record_reader {
    int fd;
    char path[2200];
    i64 at, bytes;  /* next chunk; of the file when it was opened or last looked at */
    u8 *window;     /* of the file, [from, from + n): heads of small chunks come together */
    i64 window_from, window_n;
    bool jumps;     /* chunks are large: their heads come alone */
    i64 damaged;    /* bytes that were passed over because they are no chunk */
    struct record_entry *toc; /* a window of the table of contents that says what comes next; NULL:
                               * the file itself is gone through */
    const struct record_entry *toc_next; /* in the window, behind what was said last */
    i64 toc_at_hand, toc_n, toc_left;    /* in it, not yet said; in the table; of these not said */
    int toc_fd; /* of the table, where toc is not NULL */
};

struct record_place { /* of a chunk in its file */
    struct record_chunk chunk;
    i64 at; /* of the payload */
};

/* ERR_SYS when it cannot be opened. */
int record_reader_open(struct record_reader *r, const char *path);
void record_reader_close(struct record_reader *r);

/* The next chunk that is whole; only its head is read, unless bytes before it are damaged, or not
 * even that, where the file has a table of contents (trace/record_toc.h). 1: there
 * is one; 0: the end, or what is there is not whole yet (ask again later: the file may grow). */
int record_reader_next(struct record_reader *r, struct record_place *out);

/* The payload into memory of chunk.bytes; ERR_FORMAT when it is not what was written. */
int record_reader_payload(struct record_reader *r, const struct record_place *p, void *out);
/* The same for what many others are read by: where one bit of it is wrong, it is found by trying
 * and put right, if it is no longer than 32 KiB. 1: that was so. */
int record_reader_mended(struct record_reader *r, const struct record_place *p, void *out);
/* Its first bytes only, unchecked. */
int record_reader_peek(struct record_reader *r, const struct record_place *p, void *out,
                       i64 bytes);

#endif
