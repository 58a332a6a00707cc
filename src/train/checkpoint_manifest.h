/* train/checkpoint_manifest.h - what a checkpoint's manifest.json says.
 *
 * JSON for people and tools; its last line is the SHA-256 of all bytes before it, so that
 * a damaged manifest is seen before it is believed. File names in it are plain names. */
#ifndef HEADWAY_CHECKPOINT_MANIFEST_H
#define HEADWAY_CHECKPOINT_MANIFEST_H

#include "base/arena.h"
#include "base/text.h"

#include <jansson.h>

enum { CHECKPOINT_CHUNK = 1 << 20 };

struct checkpoint_shard {
    const char *file;
    i64 bytes;
    i64 chunks; /* of CHECKPOINT_CHUNK bytes, the last one shorter */
    u32 *crc;   /* CRC32C of each */
    char sha256[65];
};

struct checkpoint_manifest {
    i64 step;
    double saved_at;
    struct checkpoint_shard *shard;
    i64 n;
    json_t *state; /* an object */
    struct arena arena;
};

/* Appends the file's text; state is JSON already. */
void checkpoint_manifest_write(struct text *out, i64 step, double saved_at,
                               const struct checkpoint_shard *shards, i64 n, const char *state);
/* name stands for the file in messages. After a failure too, _fini is due. */
int checkpoint_manifest_parse(struct checkpoint_manifest *out, const char *text, i64 bytes,
                              const char *name);
void checkpoint_manifest_fini(struct checkpoint_manifest *m);

#endif
