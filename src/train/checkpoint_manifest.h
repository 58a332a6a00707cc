/* train/checkpoint_manifest.h - what a checkpoint's manifest.json says.
 *
 * JSON for people and tools; its last line is the SHA-256 of all bytes before it, so that
 * a damaged manifest is seen before it is believed. File names in it are plain names.
 *
 * Where several ranks wrote (version 2), it says for each file which boxes of which tensors
 * are in it; a box's tensor there is called as checkpoint_box_name says. Where one did
 * (version 1), every tensor is whole and the file's header says enough. */
#ifndef HEADWAY_CHECKPOINT_MANIFEST_H
#define HEADWAY_CHECKPOINT_MANIFEST_H

#include "base/arena.h"
#include "base/text.h"
#include "train/checkpoint.h"

enum { CHECKPOINT_CHUNK = 1 << 20 };

/* Elements [at, at + dim) of a tensor of the shape `whole`. */
struct checkpoint_box {
    const char *name; /* of the tensor, without its prefix */
    enum dtype dtype;
    int rank;
    i64 at[CHECKPOINT_RANK], dim[CHECKPOINT_RANK], whole[CHECKPOINT_RANK];
};

/* Its name within a file: that of the tensor, and behind '@' where it begins. */
const char *checkpoint_box_name(const struct checkpoint_box *b, struct arena *a);

struct checkpoint_shard {
    const char *file, *prefix; /* "adamw.m" of tensors "adamw.m/x" */
    struct checkpoint_box *box; /* NULL: the header says what is in it */
    i64 boxes;
    i64 bytes;
    i64 chunks; /* of CHECKPOINT_CHUNK bytes, the last one shorter */
    u32 *crc;   /* CRC32C of each */
    char sha256[65];
};

struct checkpoint_manifest {
    i64 step, version;
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
