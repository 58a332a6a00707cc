/* model/weights.h - the tensors of a model, whether in one safetensors file or in many.
 *
 * A folder holds model.safetensors, or several files and model.safetensors.index.json,
 * which says which tensor is where. File names in the index are names, not paths: one with
 * a slash or a leading dot is refused. */
#ifndef HEADWAY_WEIGHTS_H
#define HEADWAY_WEIGHTS_H

#include "model/safetensors.h"

enum { WEIGHTS_INDEX_BYTES = 64 << 20 }; /* at most */

struct weights {
    struct safetensors *file;
    const char **file_name;
    i64 n_files;
    i64 n; /* tensors in all files */
    struct weights_entry *entry; /* sorted by name */
    struct arena arena;
};

struct weights_entry {
    const struct safetensors_tensor *tensor;
    const struct safetensors *file;
};

/* path is a folder or a .safetensors file. */
int weights_open(struct weights *out, const char *path);
void weights_close(struct weights *w); /* also after a failed open */
/* NULL when there is none. */
const struct weights_entry *weights_find(const struct weights *w, const char *name);
const void *weights_data(const struct weights_entry *e); /* possibly unaligned */

/* Writes a folder. The tensors stay in the caller's order, cut into files of at most
 * max_file_bytes of data (one tensor may exceed it), and within each file are sorted as
 * safetensors_header says; after create, put the bytes in the array's order. */
struct weights_writer {
    struct safetensors_writer file;
    const char *folder;
    struct safetensors_tensor *tensors;
    const struct safetensors_pair *metadata;
    i64 n, n_metadata;
    i64 *first;       /* of each file, and n at the end */
    i64 n_files, now; /* the file being written */
    struct arena arena;
};
/* The arrays stay the caller's and must live until commit or abort. */
int weights_create(struct weights_writer *w, const char *folder,
                   struct safetensors_tensor *tensors, i64 n,
                   const struct safetensors_pair *metadata, i64 n_metadata,
                   i64 max_file_bytes);
int weights_put(struct weights_writer *w, const void *data, i64 bytes);
/* Files of shards that an earlier export's index in the folder named go, where this one
 * has none such. */
int weights_commit(struct weights_writer *w);
/* Removes the files written so far; after commit, or a failed call, it does nothing. */
void weights_abort(struct weights_writer *w);

#endif
