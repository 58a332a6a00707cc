#include "data/stream.h"

#include "base/err.h"
#include "base/hash.h"
#include "base/sys.h"
#include "data/shard.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

enum { INPUT_BYTES = 1 << 18, ZSTD_WINDOW_LOG = 27 };

enum coding { PLAIN, GZIP, ZSTD };

struct stream {
    const char *name;
    int fd; /* -1: memory */
    const u8 *memory;
    i64 memory_bytes;
    enum coding coding;
    bool input_ended;
    bool between;   /* compressed: at the end of a member or frame */
    i64 taken;      /* bytes from the input */
    i64 begin, end; /* what is left in `in` */
    z_stream gzip;
    ZSTD_DStream *zstd;
    struct sha256 sha;
    u8 in[INPUT_BYTES];
};

/* --- input -------------------------------------------------------------------------- */

/* Reads behind what is left, which moves to the front. */
static int refill(struct stream *s)
{
    i64 left = s->end - s->begin, n;
    memmove(s->in, s->in + s->begin, (size_t)left);
    s->begin = 0;
    s->end = left;
    if (s->fd < 0) {
        n = i64_min(INPUT_BYTES - left, s->memory_bytes - s->taken);
        if (n > 0)
            memcpy(s->in + left, s->memory + s->taken, (size_t)n);
    } else {
        do
            n = sys_read(s->fd, s->in + left, INPUT_BYTES - left);
        while (n < 0 && errno == EINTR);
        if (n < 0)
            return err_set(ERR_SYS, "read %s: %s", s->name, strerror(errno));
    }
    sha256_add(&s->sha, s->in + left, n);
    s->taken += n;
    s->end += n;
    s->input_ended = n == 0;
    return OK;
}

static bool starts_with(const struct stream *s, const void *magic, i64 n)
{
    return s->end - s->begin >= n && memcmp(s->in + s->begin, magic, (size_t)n) == 0;
}

static bool at_gzip(const struct stream *s)
{
    return starts_with(s, "\x1f\x8b", 2);
}

/* A frame, or one that decoders skip, as pzstd and seekable files begin. */
static bool at_zstd(const struct stream *s)
{
    return starts_with(s, "\x28\xb5\x2f\xfd", 4) ||
           (s->end - s->begin >= 4 && (s->in[s->begin] & 0xf0) == 0x50 &&
            memcmp(s->in + s->begin + 1, "\x2a\x4d\x18", 3) == 0);
}

/* Nothing that was recognised, so it is text, unless the name promises otherwise, or it is what
 * text was made into. */
static int check_text(const struct stream *s)
{
    static const char *const packed[] = { ".gz", ".dz", ".zst" };
    const size_t n = strlen(s->name);
    for (i64 i = 0; i < COUNT_OF(packed); i++) {
        const size_t end = strlen(packed[i]);
        if (n > end && strcmp(s->name + n - end, packed[i]) == 0)
            return err_set(ERR_FORMAT, "%s does not begin as %s data do; it is damaged or not "
                           "compressed: get it again, or rename it if it is text",
                           s->name, i < 2 ? "gzip" : "zstd");
    }
    if (shard_begins(s->in + s->begin, s->end - s->begin))
        return err_set(ERR_FORMAT, "%s holds tokens, as headway data prepare makes them, and no "
                       "text", s->name);
    return OK;
}

/* Enough bytes to recognise a header, unless there are no more. */
static int peek(struct stream *s)
{
    while (s->end - s->begin < 4 && !s->input_ended)
        TRY(refill(s));
    return OK;
}

static int detect(struct stream *s)
{
    TRY(peek(s));
    if (at_gzip(s)) {
        s->coding = GZIP;
        /* 16: gzip headers only */
        if (inflateInit2(&s->gzip, MAX_WBITS + 16) != Z_OK)
            return err_set(ERR_LIMIT, "no memory to decompress %s", s->name);
    } else if (at_zstd(s)) {
        s->coding = ZSTD;
        s->zstd = ZSTD_createDStream();
        if (!s->zstd)
            return err_set(ERR_LIMIT, "no memory to decompress %s", s->name);
        ZSTD_DCtx_setParameter(s->zstd, ZSTD_d_windowLogMax, ZSTD_WINDOW_LOG);
    } else {
        return check_text(s);
    }
    return OK;
}

static struct stream *new_stream(const char *name)
{
    struct stream *s = sys_alloc(sizeof *s, 64);
    if (!s) {
        err_set(ERR_LIMIT, "no memory to read %s", name);
        return NULL;
    }
    memset(s, 0, offsetof(struct stream, in));
    s->name = name;
    sha256_init(&s->sha);
    return s;
}

/* Opened so that it does not wait for somebody who writes into a pipe; that is done here. */
static int begin_pipe(struct stream *s)
{
    s->end = sys_read_first(s->fd, s->in, INPUT_BYTES);
    if (s->end < 0)
        return errno == ENODATA
                   ? err_set(ERR_SYS, "%s is a pipe that nobody writes into; start first what does",
                             s->name)
                   : err_set(ERR_SYS, "read %s: %s", s->name, strerror(errno));
    sha256_add(&s->sha, s->in, s->end);
    s->taken = s->end;
    s->input_ended = s->end == 0;
    return OK;
}

static int ready(struct stream **out, struct stream *s)
{
    int rc = detect(s);
    if (rc < 0)
        stream_close(s);
    else
        *out = s;
    return rc;
}

int stream_open(struct stream **out, const char *path)
{
    struct stat st = { 0 };
    bool standard = strcmp(path, "-") == 0;
    if (!standard && sys_stat(path, &st) == 0 && S_ISDIR(st.st_mode))
        return err_set(ERR_SYS, "%s is a folder", path);
    struct stream *s = new_stream(standard ? "standard input" : path);
    if (!s)
        return ERR_LIMIT;
    const int wait = S_ISFIFO(st.st_mode) ? O_NONBLOCK : 0;
    if (!standard && (s->fd = sys_open(path, O_RDONLY | wait, 0)) < 0) {
        int error = errno;
        stream_close(s);
        return err_set(ERR_SYS, "open %s: %s", path, strerror(error));
    }
    int rc = !standard && S_ISFIFO(st.st_mode) ? begin_pipe(s) : OK;
    if (rc == OK)
        return ready(out, s);
    stream_close(s);
    return rc;
}

int stream_open_memory(struct stream **out, const void *bytes, i64 n, const char *name)
{
    struct stream *s = new_stream(name);
    if (!s)
        return ERR_LIMIT;
    s->fd = -1;
    s->memory = bytes;
    s->memory_bytes = n;
    return ready(out, s);
}

void stream_close(struct stream *s)
{
    char hex[65];
    if (!s)
        return;
    if (s->coding == GZIP)
        inflateEnd(&s->gzip);
    ZSTD_freeDStream(s->zstd);
    if (s->sha.context)
        sha256_fini(&s->sha, hex);
    if (s->fd > 0)
        sys_close(s->fd);
    sys_free(s);
}

/* --- output ------------------------------------------------------------------------- */

static int read_plain(struct stream *s, void *out, i64 n, i64 *got)
{
    if (s->begin == s->end)
        TRY(refill(s));
    *got = i64_min(n, s->end - s->begin);
    memcpy(out, s->in + s->begin, (size_t)*got);
    s->begin += *got;
    return OK;
}

static int truncated(const struct stream *s)
{
    return err_set(ERR_FORMAT,
                   "%s ends in the middle of its compressed data; it was not copied or "
                   "downloaded completely",
                   s->name);
}

static int damaged(const struct stream *s, const char *why)
{
    return err_set(ERR_FORMAT, "%s: its compressed data are damaged (%s)", s->name, why);
}

/* Behind a member: another one, padding of zeros, or the end. */
static int next_member(struct stream *s, bool *more)
{
    TRY(peek(s));
    *more = at_gzip(s);
    if (*more) {
        inflateReset(&s->gzip);
        s->between = false;
        return OK;
    }
    do {
        for (; s->begin < s->end; s->begin++)
            if (s->in[s->begin] != 0)
                return damaged(s, "something else follows them");
        TRY(refill(s));
    } while (!s->input_ended);
    return OK;
}

static int inflate_some(struct stream *s, void *out, i64 n, i64 *got)
{
    if (s->begin == s->end && !s->input_ended)
        TRY(refill(s));
    s->gzip.next_in = s->in + s->begin;
    s->gzip.avail_in = (uInt)(s->end - s->begin);
    s->gzip.next_out = out;
    s->gzip.avail_out = (uInt)n;
    int state = inflate(&s->gzip, Z_NO_FLUSH);
    s->begin = s->end - s->gzip.avail_in;
    *got = n - s->gzip.avail_out;
    s->between = state == Z_STREAM_END;
    if (state == Z_MEM_ERROR)
        return err_set(ERR_LIMIT, "no memory to decompress %s", s->name);
    if (state == Z_BUF_ERROR && s->input_ended && s->begin == s->end && *got == 0)
        return truncated(s);
    if (state != Z_OK && state != Z_STREAM_END && state != Z_BUF_ERROR)
        return damaged(s, s->gzip.msg ? s->gzip.msg : "gzip");
    return OK;
}

static int read_gzip(struct stream *s, void *out, i64 n, i64 *got)
{
    while (*got == 0) {
        bool more = true;
        if (s->between)
            TRY(next_member(s, &more));
        if (!more)
            return OK;
        TRY(inflate_some(s, out, n, got));
    }
    return OK;
}

static int read_zstd(struct stream *s, void *out, i64 n, i64 *got)
{
    ZSTD_outBuffer to = { out, (size_t)n, 0 };
    while (to.pos == 0) {
        if (s->begin == s->end && !s->input_ended)
            TRY(refill(s));
        if (s->begin == s->end && s->input_ended && s->between)
            break;
        ZSTD_inBuffer from = { s->in + s->begin, (size_t)(s->end - s->begin), 0 };
        size_t hint = ZSTD_decompressStream(s->zstd, &to, &from);
        bool stuck = from.pos == 0 && to.pos == 0;
        s->begin += (i64)from.pos;
        if (ZSTD_isError(hint))
            return damaged(s, ZSTD_getErrorName(hint));
        s->between = hint == 0;
        if (stuck && s->input_ended && !s->between)
            return truncated(s);
    }
    *got = (i64)to.pos;
    return OK;
}

int stream_read(struct stream *s, void *out, i64 n, i64 *got)
{
    *got = 0;
    n = i64_min(n, 1 << 30); /* zlib counts with 32 bits */
    if (s->coding == GZIP)
        return read_gzip(s, out, n, got);
    if (s->coding == ZSTD)
        return read_zstd(s, out, n, got);
    return read_plain(s, out, n, got);
}

i64 stream_input_bytes(const struct stream *s)
{
    return s->taken;
}

void stream_sha256(struct stream *s, char hex[65])
{
    sha256_fini(&s->sha, hex);
}

int stream_read_all(const char *path, struct buffer *out)
{
    enum { PIECE = 1 << 16 };
    struct stream *s;
    i64 got = 1;
    TRY(stream_open(&s, path));
    int rc = OK;
    while (rc >= 0 && got > 0) {
        rc = buffer_reserve(out, PIECE);
        if (rc >= 0)
            rc = stream_read(s, out->data + out->bytes, PIECE, &got);
        out->bytes += rc >= 0 ? got : 0;
    }
    stream_close(s);
    return rc;
}
