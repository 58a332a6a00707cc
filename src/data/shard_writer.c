#include "data/shard_writer.h"

#include "base/err.h"
#include "base/hash.h"
#include "base/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

enum { TOKENS, DOCUMENTS, MASK, FILES, OUT_BYTES = 1 << 18 };
static const char *const suffixes[FILES] = { "shard", "documents", "mask" };

struct out_buffer {
    i64 bytes;
    u8 data[OUT_BYTES];
};

/* --- files -------------------------------------------------------------------------- */

enum { PATH_BYTES = 4096 };

static void path_of(const struct shard_writer *w, i64 index, int file,
                    char out[PATH_BYTES])
{
    snprintf(out, PATH_BYTES, "%s/%s-%05lld.%s", w->folder, w->split, (long long)index,
             suffixes[file]);
}

static int failed(const struct shard_writer *w, const char *verb, int file)
{
    int error = errno;
    char path[PATH_BYTES];
    path_of(w, w->at.index, file, path);
    return err_set(ERR_SYS, "%s %s: %s", verb, path, strerror(error));
}

/* Opens file so that it ends at `bytes`, which must be there, ready to append. */
static int open_at(struct shard_writer *w, int file, i64 bytes)
{
    char path[PATH_BYTES];
    path_of(w, w->at.index, file, path);
    w->out[file].bytes = 0;
    w->fd[file] = sys_open(path, O_RDWR | O_CREAT, 0666);
    if (w->fd[file] < 0)
        return failed(w, "create", file);
    if (sys_seek(w->fd[file], 0, SEEK_END) < bytes)
        return err_set(ERR_FORMAT,
                       "%s is shorter than recorded; remove the folder %s and "
                       "prepare again",
                       path, w->folder);
    if (sys_truncate(w->fd[file], bytes) != 0 ||
        sys_seek(w->fd[file], bytes, SEEK_SET) < 0)
        return failed(w, "write", file);
    return OK;
}

static int write_out(struct shard_writer *w, int file, const void *data, i64 bytes)
{
    if (bytes > 0 && sys_write_full(w->fd[file], data, bytes) != 0)
        return failed(w, "write", file);
    return OK;
}

static int flush(struct shard_writer *w, int file)
{
    u32 *crc[FILES] = { &w->at.tokens_crc, &w->at.documents_crc, &w->at.mask_crc };
    struct out_buffer *b = &w->out[file];
    TRY(write_out(w, file, b->data, b->bytes));
    *crc[file] = crc32c(*crc[file], b->data, b->bytes);
    b->bytes = 0;
    return OK;
}

static int add_bytes(struct shard_writer *w, int file, const void *data, i64 bytes)
{
    struct out_buffer *b = &w->out[file];
    if (b->bytes + bytes > OUT_BYTES)
        TRY(flush(w, file));
    memcpy(b->data + b->bytes, data, (size_t)bytes);
    b->bytes += bytes;
    return OK;
}

static int close_files(struct shard_writer *w)
{
    int rc = OK;
    for (int i = 0; i < FILES; i++) {
        if (w->fd[i] >= 0 && sys_close(w->fd[i]) != 0 && rc == OK)
            rc = failed(w, "close", i);
        w->fd[i] = -1;
    }
    return rc;
}

void shard_writer_close(struct shard_writer *w)
{
    close_files(w);
}

/* --- one shard ---------------------------------------------------------------------- */

static int begin_shard(struct shard_writer *w)
{
    static const u8 no_header[SHARD_HEADER_BYTES];
    const struct shard_writer_state *s = &w->at;
    if (s->tokens == 0) {
        TRY(open_at(w, TOKENS, 0));
        TRY(write_out(w, TOKENS, no_header, sizeof no_header));
    } else {
        TRY(open_at(w, TOKENS, SHARD_HEADER_BYTES + s->tokens * w->like.token_bytes));
    }
    TRY(open_at(w, DOCUMENTS, s->documents * (i64)sizeof(struct shard_document)));
    return open_at(w, MASK, s->tokens / 8);
}

/* Appends what a side file holds to the shard. */
static int append(struct shard_writer *w, int file)
{
    u8 *chunk = w->out[file].data; /* flushed: free to use */
    if (sys_seek(w->fd[file], 0, SEEK_SET) < 0)
        return failed(w, "read", file);
    for (;;) {
        i64 n = sys_read_full(w->fd[file], chunk, OUT_BYTES);
        if (n < 0)
            return failed(w, "read", file);
        if (n == 0)
            return OK;
        TRY(write_out(w, TOKENS, chunk, n));
    }
}

/* Appends the checks of all that lies behind the header: read again, because blocks do
 * not end where documents do, and it is still in memory. */
static int append_checks(struct shard_writer *w, struct shard *s)
{
    u8 *block = w->out[DOCUMENTS].data; /* flushed: free to use */
    u32 *checks = (u32 *)w->out[MASK].data;
    const i64 most = OUT_BYTES / (i64)sizeof *checks;
    char path[PATH_BYTES];
    path_of(w, w->at.index, TOKENS, path);
    const struct shard_file f = { .name = path, .fd = w->fd[TOKENS], .bytes = s->checks_at };
    for (i64 done = 0; done < s->checks; done += most) {
        i64 count = i64_min(most, s->checks - done);
        for (i64 i = 0; i < count; i++) {
            i64 at = SHARD_HEADER_BYTES + (done + i) * SHARD_BLOCK_BYTES;
            i64 n = i64_min(SHARD_BLOCK_BYTES, s->checks_at - at);
            TRY(shard_file_read(&f, block, n, at));
            checks[i] = crc32c(0, block, n);
        }
        i64 bytes = count * (i64)sizeof *checks;
        s->checks_crc = crc32c(s->checks_crc, checks, bytes);
        TRY(write_out(w, TOKENS, checks, bytes));
    }
    return OK;
}

static int write_header(struct shard_writer *w, const struct shard *s)
{
    u8 header[SHARD_HEADER_BYTES];
    shard_encode_header(s, header);
    if (sys_seek(w->fd[TOKENS], 0, SEEK_SET) < 0)
        return failed(w, "write", TOKENS);
    TRY(write_out(w, TOKENS, header, sizeof header));
    if (sys_fsync(w->fd[TOKENS]) != 0)
        return failed(w, "flush", TOKENS);
    return OK;
}

static int finish_shard(struct shard_writer *w, bool last)
{
    static const u8 zeros[8];
    const struct shard_writer_state *at = &w->at;
    const struct shard_document last_one = { .begin = at->tokens };
    u8 mask_byte = (u8)at->mask_byte;
    TRY(add_bytes(w, DOCUMENTS, &last_one, sizeof last_one));
    if (at->tokens % 8)
        TRY(add_bytes(w, MASK, &mask_byte, 1));
    for (int i = 0; i < FILES; i++)
        TRY(flush(w, i));
    struct shard s = w->like;
    s.tokens = at->tokens;
    s.documents = at->documents;
    s.text_bytes = at->text_bytes;
    s.loss_tokens = at->loss_tokens;
    s.tokens_crc = at->tokens_crc;
    s.documents_crc = at->documents_crc;
    s.index = (u32)at->index;
    s.last = last;
    bool with_mask = at->masked > 0;
    s.mask_crc = with_mask ? at->mask_crc : 0;
    shard_lay_out(&s, with_mask);
    TRY(write_out(w, TOKENS, zeros,
                  s.documents_at - s.tokens_at - s.tokens * s.token_bytes));
    TRY(append(w, DOCUMENTS));
    if (with_mask)
        TRY(append(w, MASK));
    i64 end = with_mask ? s.mask_at + ceil_div(s.tokens, 8)
                        : s.documents_at + (s.documents + 1) * (i64)sizeof last_one;
    TRY(write_out(w, TOKENS, zeros, s.checks_at - end));
    TRY(append_checks(w, &s));
    TRY(write_header(w, &s));
    return close_files(w);
}

/* --- entry points ------------------------------------------------------------------- */

int shard_writer_open(struct shard_writer *w, const char *folder, const char *split,
                      const struct shard *like, i64 max_tokens,
                      const struct shard_writer_state *state, struct arena *a)
{
    *w = (struct shard_writer){ .folder = folder, .split = split, .like = *like,
                                .max_tokens = max_tokens, .fd = { -1, -1, -1 } };
    w->out = ARENA_ARRAY(a, struct out_buffer, FILES);
    if (state)
        w->at = *state;
    return begin_shard(w);
}

static int add_tokens(struct shard_writer *w, const u32 *ids, i64 n)
{
    struct shard_writer_state *at = &w->at;
    for (i64 i = 0; i < n; i++) {
        u32 id = ids[i] & ~SHARD_NO_LOSS, counts = !(ids[i] & SHARD_NO_LOSS);
        TRY(add_bytes(w, TOKENS, &id, w->like.token_bytes)); /* little-endian */
        at->mask_byte |= counts << at->tokens % 8;
        at->masked += !counts;
        if (++at->tokens % 8 == 0) {
            u8 byte = (u8)at->mask_byte;
            TRY(add_bytes(w, MASK, &byte, 1));
            at->mask_byte = 0;
        }
    }
    return OK;
}

/* What counts of a document when it is predicted: its first token never is, and the separator
 * behind it is where its last token counts. */
static i64 counted_targets(const struct shard_writer *w, const u32 *ids, i64 n)
{
    i64 counts = w->like.separator >= 0 && !(ids[n - 1] & SHARD_NO_LOSS);
    for (i64 i = 1; i < n; i++)
        counts += !(ids[i] & SHARD_NO_LOSS);
    return counts;
}

int shard_writer_add(struct shard_writer *w, const u32 *ids, i64 n, i64 bytes, u64 hash)
{
    assert(n >= 1);
    if (w->at.tokens > 0 && w->at.tokens + n > w->max_tokens) {
        TRY(finish_shard(w, false));
        w->at = (struct shard_writer_state){ .index = w->at.index + 1 };
        TRY(begin_shard(w));
    }
    const struct shard_document d = { w->at.tokens, bytes, hash };
    TRY(add_bytes(w, DOCUMENTS, &d, sizeof d));
    TRY(add_tokens(w, ids, n));
    w->at.documents++;
    w->at.text_bytes += bytes;
    w->at.loss_tokens += counted_targets(w, ids, n);
    return OK;
}

int shard_writer_sync(struct shard_writer *w, struct shard_writer_state *out)
{
    char path[PATH_BYTES];
    for (int i = 0; i < FILES; i++) {
        TRY(flush(w, i));
        if (sys_fsync(w->fd[i]) != 0)
            return failed(w, "flush", i);
    }
    /* Files of shards that were finished before the last sync. */
    for (; w->kept < out->index; w->kept++) {
        for (int i = DOCUMENTS; i < FILES; i++) {
            path_of(w, w->kept, i, path);
            if (sys_exists(path) && sys_unlink(path) != 0)
                return err_set(ERR_SYS, "remove %s: %s", path, strerror(errno));
        }
    }
    *out = w->at;
    return OK;
}

int shard_writer_finish(struct shard_writer *w)
{
    char path[PATH_BYTES];
    if (w->at.tokens > 0) {
        TRY(finish_shard(w, true));
    } else {
        TRY(close_files(w));
        path_of(w, 0, TOKENS, path);
        if (sys_unlink(path) != 0)
            return err_set(ERR_SYS, "remove %s: %s", path, strerror(errno));
    }
    return OK;
}

/* n entries of a table of documents that begins at byte `at`. */
static int table_hashes(const struct shard_file *f, i64 at, i64 n,
                        int (*each)(void *context, u64 hash), void *context)
{
    enum { CHUNK = 512 };
    struct shard_document table[CHUNK];
    for (i64 done = 0; done < n; done += CHUNK) {
        i64 count = i64_min(CHUNK, n - done);
        TRY(shard_file_read(f, table, count * (i64)sizeof *table,
                            at + done * (i64)sizeof *table));
        for (i64 i = 0; i < count; i++)
            TRY(each(context, table[i].hash));
    }
    return OK;
}

int shard_writer_hashes(struct shard_writer *w, int (*each)(void *context, u64 hash),
                        void *context)
{
    char path[PATH_BYTES];
    struct shard_file f;
    struct shard s;
    for (i64 i = 0; i < w->at.index; i++) {
        path_of(w, i, TOKENS, path);
        TRY(shard_file_open(&f, path));
        int rc = shard_read(&s, &f);
        if (rc == OK)
            rc = table_hashes(&f, s.documents_at, s.documents, each, context);
        shard_file_close(&f);
        TRY(rc);
    }
    path_of(w, w->at.index, DOCUMENTS, path);
    TRY(shard_file_open(&f, path));
    int rc = table_hashes(&f, 0, w->at.documents, each, context);
    shard_file_close(&f);
    return rc;
}

bool shard_writer_names(const char *name)
{
    const char *dash = strchr(name, '-'), *dot = strrchr(name, '.');
    if (!dash || !dot || dot != dash + 1 + strspn(dash + 1, "0123456789"))
        return false;
    for (i64 i = 0; i < COUNT_OF(suffixes); i++)
        if (strcmp(dot + 1, suffixes[i]) == 0)
            return true;
    return false;
}

int shard_writer_clean(const char *folder)
{
    char **names, path[PATH_BYTES];
    int rc = OK, n = sys_list(folder, &names);
    if (n < 0)
        return err_set(ERR_SYS, "list %s: %s", folder, strerror(errno));
    for (int i = 0; i < n && rc == OK; i++) {
        const char *dot = strrchr(names[i], '.');
        if (!dot ||
            (strcmp(dot + 1, suffixes[DOCUMENTS]) && strcmp(dot + 1, suffixes[MASK])))
            continue;
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        if (sys_unlink(path) != 0)
            rc = err_set(ERR_SYS, "remove %s: %s", path, strerror(errno));
    }
    sys_free(names);
    return rc;
}
