/* train/checkpoint_read.h - the parts of reading that several files share.
 *
 * Private to train/checkpoint*.c. */
#ifndef HEADWAY_CHECKPOINT_READ_H
#define HEADWAY_CHECKPOINT_READ_H

#include "train/checkpoint_manifest.h"

/* Opened without following a link, and without waiting where the name is a pipe. -1. */
int checkpoint_open_file(const char *path);

/* ERR_FORMAT when it is missing, damaged, or of another step. Always to be followed by
 * checkpoint_manifest_fini. */
int checkpoint_read_manifest(struct checkpoint_manifest *m, const char *dir, i64 step);

/* Reads a file chunk by chunk. Each whose CRC32C is right is given to take, which may be
 * NULL; findings go to tell, with ERR_FORMAT for damage and ERR_SYS for what cannot be
 * read; it returns a negative code to stop or OK to go on. */
struct checkpoint_reader {
    const char *dir;
    i64 step;
    u8 *chunk;   /* CHECKPOINT_CHUNK bytes */
    bool proven; /* a moment ago: the CRC32C is enough to see whether it changed since */
    const u8 *need; /* which chunks to read, non-zero; NULL: all, and then the SHA-256 counts too */
    void (*take)(void *context, i64 offset, const u8 *data, i64 bytes);
    int (*tell)(void *context, int code, i64 step, const char *file, i64 chunk,
                const char *problem);
    void *context;
};
int checkpoint_read_shard(const struct checkpoint_reader *r, const struct checkpoint_shard *s);

#endif
