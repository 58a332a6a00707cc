/* data/dataset.h - one split of a data set: its shards as one long stream of tokens.
 *
 * A data set is a folder made by `data prepare` (train-*.shard, val-*.shard,
 * tokenizer.json, ledger.json), a folder of llm.c or nanoGPT files (*.bin; those with
 * "val" in their name are the validation split), or one such file. Shards follow each
 * other in the order of their names; token and document numbers run through all of them.
 *
 * struct dataset is constant after opening and may be shared; each thread reads
 * through its own dataset_reader, which holds a few open files and nothing that grows
 * with the corpus. The one thing that changes is which blocks of a shard were
 * compared with their checks: each is, by the first reader that touches it, so that
 * damaged tokens are an error before anything is computed from them. Foreign files
 * have no checks. Bytes are read with pread: a mapped corpus would count as this
 * program's memory. */
#ifndef HEADWAY_DATA_DATASET_H
#define HEADWAY_DATA_DATASET_H

#include "base/arena.h"
#include "data/shard.h"

struct dataset_shard {
    struct shard info;
    const char *path;
    i64 token_begin, document_begin; /* in the stream */
    _Atomic u64 *checked; /* one bit per block of the file that was found whole */
};

struct dataset {
    const char *path;
    const char *split; /* "train", "val" */
    struct dataset_shard *shards;
    i64 n_shards;
    i64 tokens, documents, text_bytes, loss_tokens;
    u64 tokenizer_hash; /* 0: unknown */
    u32 vocab;          /* 0: unknown */
    i32 separator;      /* begins every document; -1: none known */
    bool has_documents; /* a document table; else separators found by looking */
    bool has_mask;
};

/* What shards keep of a tokenizer: the first 64 bits of its SHA-256 (hexadecimal). */
u64 dataset_tokenizer_id(const char *sha256);

/* True when path holds shards of any kind that dataset_open reads. */
bool dataset_is_prepared(const char *path);

/* separator: for files without document tables the token that begins documents, or -1.
 * A data set without this split has 0 shards and 0 tokens: that is no error. */
int dataset_open(struct dataset *d, const char *path, const char *split, i32 separator,
                 struct arena *a);

/* Tells data sets apart by their tokens, wherever they lie: a hash of the shards'
 * checksums. Shards of other programs have none; of these it is their sizes and 64 MiB of
 * their bytes, in pieces of 64 KiB all over the files, so that one which differs between
 * the pieces alone passes for the same. */
u64 dataset_identity(const struct dataset *d);

enum { DATASET_FILES = 32 };

struct dataset_reader {
    const struct dataset *dataset;
    int n_files;
    struct shard_file files[DATASET_FILES]; /* shard i is kept open at i % n_files */
    i64 open[DATASET_FILES];                /* which shard; -1: none */
};

/* Keeps at most `files` of them open, DATASET_FILES at most. */
void dataset_reader_init(struct dataset_reader *r, const struct dataset *d, int files);
void dataset_reader_fini(struct dataset_reader *r);

/* Tokens [at, at + n) of the stream. */
int dataset_tokens(struct dataset_reader *r, i64 at, i64 n, u32 *out);
/* 1 where a token counts in the loss, else 0. */
int dataset_mask(struct dataset_reader *r, i64 at, i64 n, u8 *out);

/* The document that holds a token; 0 <= token < tokens. Needs has_documents. */
int dataset_document_of(struct dataset_reader *r, i64 token, i64 *document);
/* First tokens of documents [first, first + n), counted in the stream; n may reach one
 * beyond the last document, whose begin is the stream's length. */
int dataset_begins(struct dataset_reader *r, i64 first, i64 n, i64 *out);
/* The first token at or after this one that begins a document, or the stream's length. */
int dataset_next_begin(struct dataset_reader *r, i64 token, i64 *begin, i64 *document);

#endif
