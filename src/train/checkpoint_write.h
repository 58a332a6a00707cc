/* train/checkpoint_write.h - one checkpoint, from memory to durable.
 *
 * An image is the fixed part, made once: which bytes of memory make up which file. Writing
 * it allocates nothing but the manifest's text. Private to train/checkpoint*.c. */
#ifndef HEADWAY_CHECKPOINT_WRITE_H
#define HEADWAY_CHECKPOINT_WRITE_H

#include "train/checkpoint.h"
#include "train/checkpoint_folder.h"
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
    int rank, ranks;              /* which of how many images make up a checkpoint */
    u8 *chunk;                    /* what is being hashed and written */
    struct arena arena;
};

/* A single rank's tensors are whole. */
int checkpoint_image_init(struct checkpoint_image *image,
                          const struct checkpoint_tensor *tensors, i64 n, int rank, int ranks);
void checkpoint_image_fini(struct checkpoint_image *image);

/* How bytes leave tensors that training will change: copy may refuse (then the checkpoint
 * fails), done says that no more will be copied. */
struct checkpoint_gate {
    int (*copy)(void *context, void *to, const void *from, i64 bytes);
    void (*done)(void *context);
    void *context;
};

/* DIR/step-N.tmp, or with a ticket one that no other attempt has, and then `rest`. */
int checkpoint_temporary(char path[CHECKPOINT_PATH], const char *dir, i64 step, u64 ticket,
                         const char *rest);

/* Each of these: OK, or errno-like *cause tells why (0 when it was not the system).
 *
 * prepare: clears leftovers away and makes the temporary folder.
 * files: writes the image's files there and makes them durable, but not yet their names;
 * after a failure none of them is there.
 * commit: the manifest of these shards, and the folder's final name. OK means durable; else
 * nothing named step-N was made. */
int checkpoint_prepare(const char *dir, i64 step, u64 ticket, int *cause);
int checkpoint_files(struct checkpoint_image *image, const char *dir, i64 step, u64 ticket,
                     const struct checkpoint_gate *gate, int *cause);
int checkpoint_commit(const char *dir, i64 step, u64 ticket, const struct checkpoint_shard *shards,
                      i64 n, const char *state, int *cause);

/* All three for a single rank. */
int checkpoint_write(struct checkpoint_image *image, const char *dir, i64 step,
                     const char *state, const struct checkpoint_gate *gate, int *cause);

/* A small file, durable when it has its name. */
int checkpoint_put_file(const char *path, const char *data, i64 bytes, int *cause);

#endif
