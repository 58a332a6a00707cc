/* train/checkpoint_write.h - one checkpoint, from memory to durable.
 *
 * An image is the fixed part, made once: which bytes of memory make up which file. Writing
 * it allocates nothing but the manifest's text. Private to train/checkpoint*.c. */
#ifndef HEADWAY_CHECKPOINT_WRITE_H
#define HEADWAY_CHECKPOINT_WRITE_H

#include "train/checkpoint.h"
#include "train/checkpoint_manifest.h"

struct checkpoint_piece {
    const void *data;
    i64 bytes;
};

struct checkpoint_file {
    struct checkpoint_piece header, *piece; /* a tensor each */
    i64 n;
    int fd; /* while it is being written, else -1 */
};

struct checkpoint_image {
    struct checkpoint_file *file;
    struct checkpoint_shard *shard; /* of the same index: names, sizes, room for hashes */
    i64 n;
    i64 tensor_bytes, file_bytes; /* of all */
    u8 *chunk;                    /* what is being hashed and written */
    struct arena arena;
};

int checkpoint_image_init(struct checkpoint_image *image,
                          const struct checkpoint_tensor *tensors, i64 n);
void checkpoint_image_fini(struct checkpoint_image *image);

/* How bytes leave tensors that training will change: copy may refuse (then the checkpoint
 * fails), done says that no more will be copied. */
struct checkpoint_gate {
    int (*copy)(void *context, void *to, const void *from, i64 bytes);
    void (*done)(void *context);
    void *context;
};

/* Writes and commits: OK means durable. Otherwise nothing named step-N was made, and
 * errno-like *cause tells why (0 when it was not the system). */
int checkpoint_write(struct checkpoint_image *image, const char *dir, i64 step,
                     const char *state, const struct checkpoint_gate *gate, int *cause);

#endif
