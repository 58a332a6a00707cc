/* data/shard_writer.h - documents in, shards of one split out.
 *
 * Tokens go straight into SPLIT-00000.shard behind an empty header; the documents and the
 * mask wait in SPLIT-00000.documents and .mask until the shard is full, are then
 * appended, and the header is filled in last. The next shard begins when max_tokens would
 * be passed.
 *
 * shard_writer_sync makes all of it durable and tells where it stands; after a crash,
 * shard_writer_open with that state cuts the files back to it and goes on, and the final
 * shards are the same, byte for byte, as without the crash. Files that a finished shard
 * no longer needs are removed by the sync after the next, and those of the last by
 * shard_writer_clean, so that no saved state misses them. */
#ifndef HEADWAY_DATA_SHARD_WRITER_H
#define HEADWAY_DATA_SHARD_WRITER_H

#include "base/arena.h"
#include "data/shard.h"

/* Set on a token that does not count in the loss. */
#define SHARD_NO_LOSS ((u32)1 << 31)

/* All that is needed to go on, besides the files. */
struct shard_writer_state {
    i64 index; /* of the shard being written; those before are finished */
    i64 tokens, documents, text_bytes, loss_tokens; /* in it */
    i64 masked; /* of its tokens */
    u32 tokens_crc, documents_crc, mask_crc;
    u32 mask_byte; /* bits of the last tokens % 8 tokens */
};

struct shard_writer {
    const char *folder, *split;
    struct shard like; /* token_bytes, tokenizer_hash, separator, vocab */
    i64 max_tokens;
    struct shard_writer_state at;
    i64 kept; /* shards from here on may still have side files */
    int fd[3];            /* tokens, documents, mask; -1 */
    struct out_buffer *out; /* [3] */
};

/* state: NULL to begin. Folder and split are borrowed. */
int shard_writer_open(struct shard_writer *w, const char *folder, const char *split,
                      const struct shard *like, i64 max_tokens,
                      const struct shard_writer_state *state, struct arena *a);
/* One document: n >= 1 ids, with SHARD_NO_LOSS where the mask is 0. */
int shard_writer_add(struct shard_writer *w, const u32 *ids, i64 n, i64 bytes, u64 hash);
/* *out is what was saved last, and becomes what to save now. */
int shard_writer_sync(struct shard_writer *w, struct shard_writer_state *out);
/* Finishes the last shard; a split without documents has none. */
int shard_writer_finish(struct shard_writer *w);
/* Hashes of all documents so far, in order; right after opening. */
int shard_writer_hashes(struct shard_writer *w, int (*each)(void *context, u64 hash),
                        void *context);
/* Removes side files of finished splits, once no saved state needs them. */
int shard_writer_clean(const char *folder);
/* Whether a file of this name may be one of a writer's. */
bool shard_writer_names(const char *name);
void shard_writer_close(struct shard_writer *w); /* gives up open files; any state */

#endif
