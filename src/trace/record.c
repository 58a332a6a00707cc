#include "trace/record.h"

#include "base/err.h"
#include "base/hash.h"
#include "base/sys.h"
#include "trace/record_toc.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

u32 record_checksum(u32 kind, const void *payload, i64 bytes)
{
    return (u32)hash64(payload, bytes, kind);
}

/* --- by its table of contents ------------------------------------------------------- */

enum { TOC_WINDOW = 1024 }; /* entries */

static void close_toc(struct record_reader *r)
{
    if (r->toc)
        sys_close(r->toc_fd);
    sys_free(r->toc);
    r->toc = NULL;
    r->toc_left = r->toc_at_hand = 0;
}

static void open_toc(struct record_reader *r)
{
    r->bytes = i64_max(r->bytes, sys_seek(r->fd, 0, SEEK_END));
    r->toc_n = r->toc_left = record_toc_open(&r->toc_fd, r->path, r->fd, r->bytes);
    if (r->toc_n == 0)
        return;
    r->toc = sys_alloc(TOC_WINDOW * (i64)sizeof *r->toc, 64);
    if (!r->toc)
        sys_close(r->toc_fd);
}

/* The chunk that begins here, as the table of contents has it. False: it says no more. */
static bool next_entry(struct record_reader *r, struct record_place *out)
{
    if (r->toc_at_hand == 0 && r->toc_left > 0) {
        const i64 n = i64_min(TOC_WINDOW, r->toc_left);
        r->toc_at_hand = record_toc_read(r->toc_fd, r->toc, r->toc_n - r->toc_left, n) ? n : 0;
        r->toc_next = r->toc;
    }
    const struct record_entry *e = r->toc_at_hand > 0 ? r->toc_next : NULL;
    if (!e || !record_toc_counts(e, r->at, r->bytes)) {
        close_toc(r);
        return false;
    }
    r->toc_next++;
    r->toc_at_hand--;
    r->toc_left--;
    *out = (struct record_place){ e->chunk, e->at + RECORD_CHUNK_BYTES };
    r->at = record_chunk_end(&e->chunk, e->at);
    return true;
}

/* --- opening ------------------------------------------------------------------------ */

int record_reader_open(struct record_reader *r, const char *path)
{
    /* A pipe in its place is not waited for: nothing can be read from it at a position. */
    *r = (struct record_reader){ .fd = sys_open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC, 0) };
    snprintf(r->path, sizeof r->path, "%s", path);
    if (r->fd < 0)
        return err_set(ERR_SYS, "open %s: %s", path, strerror(errno));
    return OK;
}

void record_reader_close(struct record_reader *r)
{
    if (r->fd >= 0)
        sys_close(r->fd);
    sys_free(r->window);
    close_toc(r);
    r->fd = -1;
    r->window = NULL;
    r->window_n = 0;
}

/* --- chunk by chunk ----------------------------------------------------------------- */

/* Small chunks are so near to each other that reading all of the file is as fast as reading their
 * heads; large ones are jumped over. A head comes with what scanning looks at behind it. */
enum { SMALL_CHUNK = 1 << 17, WINDOW = 1 << 18, HEAD_BYTES = 96 };

static bool in_window(const struct record_reader *r, i64 at, i64 bytes)
{
    return at >= r->window_from && at + bytes <= r->window_from + r->window_n;
}

static bool read_head(struct record_reader *r, struct record_chunk *out)
{
    const i64 left = r->bytes - r->at;
    if (!in_window(r, r->at, i64_min(HEAD_BYTES, left))) {
        if (!r->window && !(r->window = sys_alloc(WINDOW, 64)))
            return false;
        r->window_from = r->at;
        r->window_n = i64_min(r->jumps ? HEAD_BYTES : WINDOW, left);
        if (!sys_pread_full(r->fd, r->window, r->window_n, r->at)) {
            r->window_n = 0;
            return false;
        }
    }
    memcpy(out, r->window + (r->at - r->window_from), sizeof *out);
    r->jumps = out->bytes > SMALL_CHUNK;
    return true;
}

static bool is_kind(u32 kind)
{
    return kind == RECORD_HEAD || kind == RECORD_TABLE || kind == RECORD_SPANS ||
           kind == RECORD_CLOCK || kind == RECORD_SAMPLE || kind == RECORD_EVENT;
}

bool record_plausible(const struct record_chunk *c)
{
    return is_kind(c->kind) && c->bytes <= RECORD_MOST_BYTES &&
           (c->kind != RECORD_SPANS || c->bytes >= sizeof(struct record_spans));
}

i64 record_chunk_end(const struct record_chunk *c, i64 at)
{
    return at + RECORD_CHUNK_BYTES + round_up((i64)c->bytes, 8);
}

/* A chunk at this place whose checksum is right, read piece by piece into memory of its own. */
static bool proven(struct record_reader *r, const struct record_chunk *c, i64 at)
{
    void *payload = sys_alloc((i64)c->bytes + 1, 16);
    bool good = payload &&
                sys_pread_full(r->fd, payload, (i64)c->bytes, at + RECORD_CHUNK_BYTES) &&
                record_checksum(c->kind, payload, (i64)c->bytes) == c->checksum;
    sys_free(payload);
    return good;
}

/* Behind damage: the next place where a chunk is, or the end of the file. */
static i64 find_chunk(struct record_reader *r, i64 from)
{
    enum { SEARCHED = 1 << 16 };
    char window[SEARCHED + RECORD_CHUNK_BYTES];
    for (i64 begin = from; begin + RECORD_CHUNK_BYTES <= r->bytes; begin += SEARCHED) {
        i64 n = i64_min((i64)sizeof window, r->bytes - begin);
        if (!sys_pread_full(r->fd, window, n, begin))
            break;
        for (i64 i = 0; i + RECORD_CHUNK_BYTES <= n && i < SEARCHED; i += 8) {
            struct record_chunk c;
            memcpy(&c, window + i, sizeof c);
            if (record_plausible(&c) && record_chunk_end(&c, begin + i) <= r->bytes &&
                proven(r, &c, begin + i))
                return begin + i;
        }
    }
    return r->bytes;
}

static int next_chunk(struct record_reader *r, struct record_place *out)
{
    if (r->at + RECORD_CHUNK_BYTES > r->bytes || !r->window) { /* the first time, or again */
        i64 end = sys_seek(r->fd, 0, SEEK_END);
        r->bytes = i64_max(r->bytes, end);
    }
    while (r->at + RECORD_CHUNK_BYTES <= r->bytes) {
        struct record_chunk c;
        if (!read_head(r, &c))
            return 0;
        bool chunk = record_plausible(&c);
        if (chunk && record_chunk_end(&c, r->at) <= r->bytes) {
            *out = (struct record_place){ c, r->at + RECORD_CHUNK_BYTES };
            r->at = record_chunk_end(&c, r->at);
            return 1;
        }
        i64 next = find_chunk(r, r->at + 8);
        if (chunk && next == r->bytes)
            return 0; /* the last one, torn or not whole yet */
        r->damaged += next - r->at;
        r->at = next;
    }
    return 0;
}

int record_reader_next(struct record_reader *r, struct record_place *out)
{
    if (r->at == 0 && r->bytes == 0)
        open_toc(r);
    if (r->toc && next_entry(r, out))
        return 1;
    const int got = next_chunk(r, out);
    if (got == 0) { /* what is there now may be different when it is asked for again */
        sys_free(r->window);
        r->window = NULL;
        r->window_n = 0;
    }
    return got;
}

int record_reader_payload(struct record_reader *r, const struct record_place *p, void *out)
{
    if (!sys_pread_full(r->fd, out, (i64)p->chunk.bytes, p->at))
        return err_set(ERR_FORMAT, "%s ends within a chunk", r->path);
    if (record_checksum(p->chunk.kind, out, (i64)p->chunk.bytes) != p->chunk.checksum)
        return err_set(ERR_FORMAT, "%s: the chunk at byte %lld is damaged", r->path,
                       (long long)(p->at - RECORD_CHUNK_BYTES));
    return OK;
}

/* It takes as many checksums of all of it as it has bits: a quarter of a second. Who tries
 * a million files has no time for that (the fuzz preset). */
#ifdef HEADWAY_FUZZING
enum { MEND_BYTES = 1 << 10 };
#else
enum { MEND_BYTES = 1 << 15 };
#endif

/* With 32 bits of checksum and at most 2^18 places, one in 16,000 of what is damaged otherwise is
 * taken for a flipped bit; who reads it checks what it says, too. */
static bool mend(const struct record_chunk *c, u8 *payload)
{
    const i64 bytes = (i64)c->bytes;
    const u32 apart = record_checksum(c->kind, payload, bytes) ^ c->checksum;
    if ((apart & (apart - 1)) == 0)
        return true; /* the bit is one of the checksum's */
    for (i64 i = 0; i < 8 * bytes && bytes <= MEND_BYTES; i++) {
        const u8 bit = (u8)(1 << i % 8);
        payload[i / 8] ^= bit;
        if (record_checksum(c->kind, payload, bytes) == c->checksum)
            return true;
        payload[i / 8] ^= bit;
    }
    return false;
}

int record_reader_mended(struct record_reader *r, const struct record_place *p, void *out)
{
    const int rc = record_reader_payload(r, p, out);
    if (rc == OK || !sys_pread_full(r->fd, out, (i64)p->chunk.bytes, p->at))
        return rc;
    return mend(&p->chunk, out) ? 1 : rc;
}

int record_reader_peek(struct record_reader *r, const struct record_place *p, void *out, i64 bytes)
{
    const struct record_entry *e = r->toc && r->toc_next > r->toc ? r->toc_next - 1 : NULL;
    const bool entered = e && e->at + RECORD_CHUNK_BYTES == p->at && bytes <= RECORD_BEGIN_BYTES;
    const bool at_hand = entered || in_window(r, p->at, bytes);
    if (at_hand)
        memcpy(out, entered ? e->begin : r->window + (p->at - r->window_from), (size_t)bytes);
    if (bytes > (i64)p->chunk.bytes || (!at_hand && !sys_pread_full(r->fd, out, bytes, p->at)))
        return err_set(ERR_FORMAT, "%s: the chunk at byte %lld is too short", r->path,
                       (long long)(p->at - RECORD_CHUNK_BYTES));
    return OK;
}
