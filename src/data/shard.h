/* data/shard.h - a file of tokens, and the documents they belong to.
 *
 * Our own format ("headway"), little-endian:
 *
 *     header        128 bytes, with its own CRC32C
 *     tokens        u16 when the vocabulary fits, else u32
 *     documents     one struct shard_document each, plus a last one where begin = tokens
 *     mask          one bit per token, 1: counts in the loss; absent when all do
 *     checks        one CRC32C for each SHARD_BLOCK_BYTES behind the header
 *
 * Every document begins with the separator token (unless there is none), so the token
 * that follows a document's last one is always the separator. Each section has a CRC32C in
 * the header; shard_verify checks all of them, opening checks the header and the sizes
 * only. The checks let a reader of a few tokens know that these are whole (dataset.h);
 * shards written before there were any have none.
 *
 * Also read, never written: the shards of llm.c (header of 256 int32, magic 20240520 with
 * u16 tokens or 20240801 with u32 tokens) and nanoGPT's bare u16 files. They know nothing
 * of documents.
 *
 * Counts are 64 bits wide: files beyond 4 GB are ordinary. */
#ifndef HEADWAY_DATA_SHARD_H
#define HEADWAY_DATA_SHARD_H

#include "base/base.h"

enum {
    SHARD_HEADER_BYTES = 128,
    SHARD_LLMC_HEADER_BYTES = 1024,
    SHARD_BLOCK_BYTES = 16 << 10 /* the checks are 1/4096 of the file */
};

enum shard_kind { SHARD_HEADWAY, SHARD_LLMC, SHARD_NANOGPT };
const char *shard_kind_name(enum shard_kind kind);

struct shard_document {
    i64 begin; /* first token, within the shard */
    i64 bytes; /* of text */
    u64 hash;  /* of text, alike for equal documents; 0: of a document that was cut */
};

/* What the header says, checked against the size of the file. */
struct shard {
    enum shard_kind kind;
    int token_bytes;
    i64 tokens, documents, text_bytes;
    i64 loss_tokens; /* targets that count in the loss, as row.h says; once per epoch */
    u64 tokenizer_hash; /* 0: unknown */
    i32 separator;      /* token id, -1: none */
    u32 vocab;          /* ids are below it; 0: unknown */
    u32 index; /* its place among the shards of its split */
    bool last; /* of them */
    i64 tokens_at, documents_at, mask_at, checks_at; /* byte offsets; 0: absent */
    i64 checks; /* blocks in [SHARD_HEADER_BYTES, checks_at) */
    i64 file_bytes;
    u32 tokens_crc, documents_crc, mask_crc, checks_crc;
};

/* Where a shard's bytes come from: a file, or memory. */
struct shard_file {
    const char *name; /* for messages */
    int fd;           /* -1: memory */
    const u8 *memory;
    i64 bytes;
};

/* Borrows path. */
int shard_file_open(struct shard_file *f, const char *path);
void shard_file_memory(struct shard_file *f, const void *bytes, i64 n, const char *name);
void shard_file_close(struct shard_file *f);
/* Exactly n bytes, or ERR_FORMAT when the file has become shorter. */
int shard_file_read(const struct shard_file *f, void *out, i64 n, i64 offset);

/* Whether a file that begins so is one of ours. */
bool shard_begins(const void *bytes, i64 n);
/* Reads and checks the header. */
int shard_read(struct shard *s, const struct shard_file *f);
/* Reads everything: CRCs, order of documents, ids below the vocabulary. */
int shard_verify(const struct shard *s, const struct shard_file *f);
/* Reads one block and compares it with its check; needs checks_at. */
int shard_check_block(const struct shard *s, const struct shard_file *f, i64 block);

/* Sets the offsets and file_bytes from the counts; with_mask: a mask section follows. */
void shard_lay_out(struct shard *s, bool with_mask);
void shard_encode_header(const struct shard *s, u8 out[SHARD_HEADER_BYTES]);

#endif
