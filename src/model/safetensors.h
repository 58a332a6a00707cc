/* model/safetensors.h - the file format of weights: read strictly, write reproducibly.
 *
 * A file is 8 bytes of header length, a JSON header naming each tensor's type, shape and
 * place, and the tensors' bytes without a gap. Nothing in it can run.
 *
 * The reader trusts nothing: it takes the documented grammar and no more, checks every
 * product, and demands that the tensors tile the data exactly (no overlap, hole or tail).
 * It works in n log n time and in memory proportional to the header. It refuses what is
 * legal but useless to us: more than 8 dimensions, names with a NUL, integers above 2^48.
 *
 * The writer gives, byte for byte, what the Python library gives for the same tensors and
 * at most one metadata entry (the library writes several in random order).
 *
 * Folders with several files and an index are next door, in model/weights.h. */
#ifndef HEADWAY_SAFETENSORS_H
#define HEADWAY_SAFETENSORS_H

#include "base/arena.h"
#include "base/dtype.h"

enum { SAFETENSORS_RANK = 8, SAFETENSORS_MAX_HEADER = 100 * 1000 * 1000 };

struct safetensors_tensor {
    const char *name;
    const char *format; /* as in the file: "F32", "BF16", "BOOL" ... */
    int dtype;          /* enum dtype, or -1 for a format that is only carried along */
    int rank;
    i64 dim[SAFETENSORS_RANK];
    i64 begin, bytes; /* place in the data section; not aligned in general */
};

struct safetensors_pair {
    const char *key, *value;
};

struct safetensors {
    struct safetensors_tensor *tensor; /* in the order of the file */
    i64 n;
    struct safetensors_pair *metadata; /* sorted by key */
    i64 n_metadata;
    i64 data_begin; /* where the data section starts in the file */

    const struct safetensors_tensor **by_name;
    const u8 *file; /* the whole file when it is in memory, NULL after parse_header */
    i64 mapped;     /* bytes to unmap */
    struct arena arena;
};

/* Maps the file. Whoever shortens it while it is mapped kills the program (SIGBUS), as
 * with every mapped file; checkpoints are therefore read, not mapped. */
int safetensors_open(struct safetensors *out, const char *path);
/* A whole file in memory, which is borrowed. */
int safetensors_parse(struct safetensors *out, const void *file, i64 bytes);
/* Only the length word and the header are in memory: head_bytes of file_bytes. */
int safetensors_parse_header(struct safetensors *out, const void *head, i64 head_bytes,
                             i64 file_bytes);
void safetensors_close(struct safetensors *s); /* also after a failed open or parse */

/* NULL when there is none. */
const struct safetensors_tensor *safetensors_find(const struct safetensors *s,
                                                  const char *name);
const char *safetensors_meta(const struct safetensors *s, const char *key);
/* Borrowed; possibly unaligned, so copy before use as numbers. */
const void *safetensors_data(const struct safetensors *s, const struct safetensors_tensor *t);

/* --- writing --------------------------------------------------------------------- */

/* Name, dtype and dims in; puts the tensors into file order (widest type first, so that
 * all are aligned; then by name), fills format, begin and bytes, and gives the first bytes
 * of the file, length word included. */
int safetensors_header(struct arena *arena, struct safetensors_tensor *tensors, i64 n,
                       const struct safetensors_pair *metadata, i64 n_metadata,
                       const char **header, i64 *bytes);

/* Writes path through path.tmp, so that path is whole or absent at every moment. */
struct safetensors_writer {
    int fd;
    i64 put, total;
    char *path, *temporary;
    struct arena arena;
};
/* As safetensors_header; then put the tensors' bytes in the new order of the array, in
 * pieces of any size, and commit. A failed put or commit leaves nothing behind. */
int safetensors_create(struct safetensors_writer *w, const char *path,
                       struct safetensors_tensor *tensors, i64 n,
                       const struct safetensors_pair *metadata, i64 n_metadata);
int safetensors_put(struct safetensors_writer *w, const void *data, i64 bytes);
int safetensors_commit(struct safetensors_writer *w);
void safetensors_abort(struct safetensors_writer *w); /* also after commit: does nothing */

#endif
