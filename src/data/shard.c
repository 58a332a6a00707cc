#include "data/shard.h"

#include "base/err.h"
#include "base/hash.h"
#include "base/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "shards are little-endian");
_Static_assert(sizeof(struct shard_document) == 24, "documents are stored as they are");

/* The header as stored. */
struct header {
    char magic[8];
    u32 header_bytes, token_bytes;
    i64 tokens, documents, text_bytes, loss_tokens;
    u64 tokenizer_hash;
    i32 separator;
    u32 vocab;
    i64 tokens_at, documents_at, mask_at, file_bytes;
    u32 tokens_crc, documents_crc, mask_crc;
    u32 index, last;
    u32 checks, checks_crc; /* 0: written before there were any */
    u32 crc; /* of all before it */
};
_Static_assert(sizeof(struct header) == SHARD_HEADER_BYTES, "no padding");

static const char shard_magic[8] = "HWSHARD1";
enum { LLMC_MAGIC_U16 = 20240520, LLMC_MAGIC_U32 = 20240801 };

const char *shard_kind_name(enum shard_kind kind)
{
    static const char *const names[] = { "headway", "llm.c", "nanoGPT" };
    return names[kind];
}

/* --- bytes -------------------------------------------------------------------------- */

int shard_file_open(struct shard_file *f, const char *path)
{
    struct stat st;
    *f = (struct shard_file){ .name = path, .fd = -1 };
    if (sys_stat(path, &st) == 0 && !S_ISREG(st.st_mode)) /* to open a pipe could wait for ever */
        return err_set(ERR_FORMAT, "%s is not an ordinary file", path);
    f->fd = sys_open(path, O_RDONLY, 0);
    if (f->fd < 0)
        return err_set(ERR_SYS, "open %s: %s", path, strerror(errno));
    f->bytes = st.st_size;
    return OK;
}

void shard_file_memory(struct shard_file *f, const void *bytes, i64 n, const char *name)
{
    *f = (struct shard_file){ .name = name, .fd = -1, .memory = bytes, .bytes = n };
}

void shard_file_close(struct shard_file *f)
{
    if (f->fd >= 0)
        sys_close(f->fd);
    f->fd = -1;
}

int shard_file_read(const struct shard_file *f, void *out, i64 n, i64 offset)
{
    char *at = out;
    if (f->fd < 0) {
        if (offset < 0 || n > f->bytes - offset)
            return err_set(ERR_FORMAT, "%s ends early", f->name);
        memcpy(out, f->memory + offset, (size_t)n);
        return OK;
    }
    while (n > 0) {
        ssize_t got = sys_pread(f->fd, at, n, offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_set(ERR_SYS, "read %s: %s", f->name, strerror(errno));
        if (got == 0)
            return err_set(
                ERR_FORMAT,
                "%s ends at byte %lld, before what its header promises: it was "
                "truncated; prepare the data again",
                f->name, (long long)i64_min(offset, i64_max(0, sys_seek(f->fd, 0, SEEK_END))));
        at += got;
        offset += got;
        n -= got;
    }
    return OK;
}

/* --- header ------------------------------------------------------------------------- */

void shard_lay_out(struct shard *s, bool with_mask)
{
    s->tokens_at = SHARD_HEADER_BYTES;
    s->documents_at = round_up(s->tokens_at + s->tokens * s->token_bytes, 8);
    i64 end = s->documents_at + (s->documents + 1) * (i64)sizeof(struct shard_document);
    s->mask_at = with_mask ? end : 0;
    end += with_mask ? ceil_div(s->tokens, 8) : 0;
    s->checks_at = round_up(end, sizeof(u32));
    s->checks = ceil_div(s->checks_at - SHARD_HEADER_BYTES, SHARD_BLOCK_BYTES);
    s->file_bytes = s->checks_at + s->checks * (i64)sizeof(u32);
}

/* The same for a shard of the time before there were checks. */
static void lay_out_old(struct shard *s, bool with_mask)
{
    shard_lay_out(s, with_mask);
    s->file_bytes = s->documents_at + (s->documents + 1) * (i64)sizeof(struct shard_document) +
                    (with_mask ? ceil_div(s->tokens, 8) : 0);
    s->checks = s->checks_at = 0;
}

void shard_encode_header(const struct shard *s, u8 out[SHARD_HEADER_BYTES])
{
    struct header h = { .header_bytes = SHARD_HEADER_BYTES,
                        .token_bytes = (u32)s->token_bytes,
                        .tokens = s->tokens,
                        .documents = s->documents,
                        .text_bytes = s->text_bytes,
                        .loss_tokens = s->loss_tokens,
                        .tokenizer_hash = s->tokenizer_hash,
                        .separator = s->separator,
                        .vocab = s->vocab,
                        .tokens_at = s->tokens_at,
                        .documents_at = s->documents_at,
                        .mask_at = s->mask_at,
                        .file_bytes = s->file_bytes,
                        .tokens_crc = s->tokens_crc,
                        .documents_crc = s->documents_crc,
                        .mask_crc = s->mask_crc,
                        .index = s->index,
                        .last = s->last,
                        .checks = (u32)s->checks,
                        .checks_crc = s->checks_crc };
    memcpy(h.magic, shard_magic, sizeof h.magic);
    h.crc = crc32c(0, &h, offsetof(struct header, crc));
    memcpy(out, &h, sizeof h);
}

static int refuse(const struct shard_file *f, const char *what)
{
    return err_set(ERR_FORMAT, "%s is not a usable shard: %s", f->name, what);
}

/* Counts whose section sizes cannot overflow: each at most the file's own size. */
static bool counts_fit(const struct header *h)
{
    return h->tokens >= 0 && h->documents >= 0 && h->tokens <= h->file_bytes &&
           h->documents <= h->tokens && h->text_bytes >= 0 && h->loss_tokens >= 0 &&
           h->loss_tokens <= h->tokens && h->file_bytes < (i64)1 << 56;
}

static int decode_header(struct shard *s, const struct header *h,
                         const struct shard_file *f)
{
    if (h->crc != crc32c(0, h, offsetof(struct header, crc)))
        return refuse(f, "the header is damaged (CRC)");
    if (h->header_bytes != SHARD_HEADER_BYTES)
        return refuse(f, "it has a version that this program does not know");
    if (h->token_bytes != 2 && h->token_bytes != 4)
        return refuse(f, "tokens must be 2 or 4 bytes wide");
    if (h->file_bytes != f->bytes)
        return err_set(ERR_FORMAT,
                       "%s has %lld bytes, its header says %lld: truncated or changed; "
                       "prepare the data again",
                       f->name, (long long)f->bytes, (long long)h->file_bytes);
    if (!counts_fit(h) || h->separator < -1 ||
        (h->separator >= 0 && h->vocab && (u32)h->separator >= h->vocab))
        return refuse(f, "the counts in its header contradict each other");
    *s = (struct shard){ .kind = SHARD_HEADWAY,
                         .token_bytes = (int)h->token_bytes,
                         .tokens = h->tokens,
                         .documents = h->documents,
                         .text_bytes = h->text_bytes,
                         .loss_tokens = h->loss_tokens,
                         .tokenizer_hash = h->tokenizer_hash,
                         .separator = h->separator,
                         .vocab = h->vocab,
                         .index = h->index,
                         .last = h->last != 0,
                         .tokens_crc = h->tokens_crc,
                         .documents_crc = h->documents_crc,
                         .mask_crc = h->mask_crc,
                         .checks_crc = h->checks_crc };
    (h->checks ? shard_lay_out : lay_out_old)(s, h->mask_at != 0);
    if (s->tokens_at != h->tokens_at || s->documents_at != h->documents_at ||
        s->mask_at != h->mask_at || s->file_bytes != h->file_bytes ||
        s->checks != (i64)h->checks)
        return refuse(f, "its sections do not lie where they should");
    return OK;
}

/* llm.c: int32 magic, version 1 (u16) or 7 (u32, Llama 3), number of tokens. */
static int decode_llmc(struct shard *s, const i32 *words, const struct shard_file *f)
{
    const i32 version = words[0] == LLMC_MAGIC_U16 ? 1 : 7;
    if (words[1] != version)
        return err_set(ERR_FORMAT, "%s has an llm.c header of version %d, which is not known; "
                       "tokens of %d bytes have version %d", f->name, words[1],
                       version == 1 ? 2 : 4, version);
    *s = (struct shard){ .kind = SHARD_LLMC,
                         .token_bytes = words[0] == LLMC_MAGIC_U16 ? 2 : 4,
                         .tokens = words[2],
                         .loss_tokens = words[2],
                         .separator = -1,
                         .last = true,
                         .tokens_at = SHARD_LLMC_HEADER_BYTES,
                         .file_bytes = f->bytes };
    i64 bytes = SHARD_LLMC_HEADER_BYTES + s->tokens * s->token_bytes;
    if (s->tokens < 0 || bytes != f->bytes)
        return err_set(
            ERR_FORMAT,
            "%s has %lld bytes, its llm.c header promises %lld tokens (%lld bytes)",
            f->name, (long long)f->bytes, (long long)s->tokens, (long long)bytes);
    return OK;
}

static int decode_bare(struct shard *s, const struct shard_file *f)
{
    size_t n = strlen(f->name);
    if (n < 4 || strcmp(f->name + n - 4, ".bin") != 0)
        return refuse(
            f, "it has no header, so it was never finished (run the same data prepare "
               "again), or is something else");
    if (f->bytes % 2)
        return refuse(f, "an odd number of bytes cannot be u16 tokens");
    *s = (struct shard){ .kind = SHARD_NANOGPT,
                         .token_bytes = 2,
                         .tokens = f->bytes / 2,
                         .loss_tokens = f->bytes / 2,
                         .separator = -1,
                         .last = true,
                         .file_bytes = f->bytes };
    return OK;
}

bool shard_begins(const void *bytes, i64 n)
{
    return n >= (i64)sizeof shard_magic && memcmp(bytes, shard_magic, sizeof shard_magic) == 0;
}

int shard_read(struct shard *s, const struct shard_file *f)
{
    union {
        struct header header;
        i32 words[3];
    } head = { 0 };
    TRY(shard_file_read(f, &head, i64_min(f->bytes, sizeof head), 0));
    if (shard_begins(head.header.magic, sizeof shard_magic)) {
        if (f->bytes < SHARD_HEADER_BYTES)
            return refuse(f, "it ends within its header");
        return decode_header(s, &head.header, f);
    }
    if (head.words[0] == LLMC_MAGIC_U16 || head.words[0] == LLMC_MAGIC_U32) {
        if (f->bytes < SHARD_LLMC_HEADER_BYTES)
            return refuse(f, "it ends within its header");
        return decode_llmc(s, head.words, f);
    }
    return decode_bare(s, f);
}

/* --- verification ------------------------------------------------------------------- */

enum {
    VERIFY_CHUNK = 3 << 14
}; /* a multiple of 4 and of sizeof(struct shard_document) */

typedef int (*check_chunk)(const struct shard *s, const struct shard_file *f,
                           const void *chunk, i64 bytes, i64 at);

static int check_tokens(const struct shard *s, const struct shard_file *f,
                        const void *chunk, i64 bytes, i64 at)
{
    const u16 *narrow = chunk;
    const u32 *wide = chunk;
    i64 n = bytes / s->token_bytes;
    for (i64 i = 0; i < n && s->vocab; i++) {
        u32 id = s->token_bytes == 2 ? narrow[i] : wide[i];
        if (id >= s->vocab)
            return err_set(ERR_FORMAT, "%s: token %lld is %u, the vocabulary has %u",
                           f->name, (long long)(at / s->token_bytes + i), id, s->vocab);
    }
    return OK;
}

static int check_documents(const struct shard *s, const struct shard_file *f,
                           const void *chunk, i64 bytes, i64 at)
{
    const struct shard_document *d = chunk;
    i64 first = at / (i64)sizeof *d, n = bytes / (i64)sizeof *d;
    struct shard_document before = { .begin = -1 };
    if (first > 0)
        TRY(shard_file_read(f, &before, sizeof before,
                            s->documents_at + at - (i64)sizeof before));
    for (i64 i = 0; i < n; i++) {
        bool last = first + i == s->documents;
        if (d[i].begin <= before.begin || d[i].bytes < 0 || d[i].begin > s->tokens ||
            (first + i == 0 && d[i].begin != 0) || (last && d[i].begin != s->tokens))
            return err_set(ERR_FORMAT, "%s: document %lld does not begin where it should",
                           f->name, (long long)(first + i));
        before = d[i];
    }
    return OK;
}

static int check_section(const struct shard *s, const struct shard_file *f, i64 at,
                         i64 bytes, u32 want, check_chunk check, const char *what)
{
    u64 chunk[VERIFY_CHUNK / 8];
    u32 crc = 0;
    for (i64 done = 0; done < bytes; done += (i64)sizeof chunk) {
        i64 n = i64_min(sizeof chunk, bytes - done);
        TRY(shard_file_read(f, chunk, n, at + done));
        crc = crc32c(crc, chunk, n);
        if (check)
            TRY(check(s, f, chunk, n, done));
    }
    if (s->kind == SHARD_HEADWAY && crc != want)
        return err_set(ERR_FORMAT, "%s: its %s are damaged (CRC); prepare the data again",
                       f->name, what);
    return OK;
}

int shard_check_block(const struct shard *s, const struct shard_file *f, i64 block)
{
    u64 bytes[SHARD_BLOCK_BYTES / 8];
    i64 at = SHARD_HEADER_BYTES + block * SHARD_BLOCK_BYTES;
    i64 n = i64_min(SHARD_BLOCK_BYTES, s->checks_at - at);
    u32 want;
    assert(block >= 0 && block < s->checks);
    TRY(shard_file_read(f, bytes, n, at));
    TRY(shard_file_read(f, &want, sizeof want, s->checks_at + block * (i64)sizeof want));
    if (crc32c(0, bytes, n) != want)
        return err_set(ERR_FORMAT, "%s: bytes %lld to %lld are damaged (CRC); prepare the "
                       "data again", f->name, (long long)at, (long long)(at + n));
    return OK;
}

int shard_verify(const struct shard *s, const struct shard_file *f)
{
    TRY(check_section(s, f, s->tokens_at, s->tokens * s->token_bytes, s->tokens_crc,
                      check_tokens, "tokens"));
    if (s->documents_at)
        TRY(check_section(s, f, s->documents_at,
                          (s->documents + 1) * (i64)sizeof(struct shard_document),
                          s->documents_crc, check_documents, "documents"));
    if (s->mask_at)
        TRY(check_section(s, f, s->mask_at, ceil_div(s->tokens, 8), s->mask_crc, NULL,
                          "loss mask bits"));
    if (s->checks_at)
        TRY(check_section(s, f, s->checks_at, s->checks * (i64)sizeof(u32), s->checks_crc,
                          NULL, "checks"));
    for (i64 i = 0; i < s->checks; i++) /* the padding between sections, too */
        TRY(shard_check_block(s, f, i));
    return OK;
}
