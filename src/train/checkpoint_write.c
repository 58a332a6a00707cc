#include "train/checkpoint_write.h"

#include "base/err.h"
#include "base/hash.h"
#include "base/sys.h"
#include "model/safetensors.h"
#include "train/checkpoint_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- the image ------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
    const struct checkpoint_tensor *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

static i64 prefix_length(const char *name)
{
    const char *slash = strchr(name, '/');
    return slash ? slash - name : 0;
}

static bool same_prefix(const char *a, const char *b)
{
    i64 n = prefix_length(a);
    return n == prefix_length(b) && strncmp(a, b, (size_t)n) == 0;
}

static i64 tensor_bytes(const struct checkpoint_tensor *t)
{
    i64 bytes = dtype_bytes(t->dtype);
    for (int d = 0; d < t->rank; d++)
        bytes *= t->dim[d];
    return bytes;
}

/* The file of sorted tensors [0, n), which share a prefix. */
static int make_file(struct checkpoint_image *image, const struct checkpoint_tensor **sorted,
                     i64 n)
{
    struct arena *a = &image->arena;
    struct checkpoint_file *f = &image->file[image->n];
    struct checkpoint_shard *s = &image->shard[image->n++];
    i64 prefix = prefix_length(sorted[0]->name), bytes;
    struct safetensors_tensor *t = ARENA_ARRAY(a, struct safetensors_tensor, n);
    const char *header;
    for (i64 i = 0; i < n; i++) {
        t[i] = (struct safetensors_tensor){ .name = sorted[i]->name + prefix + 1,
                                            .dtype = (int)sorted[i]->dtype,
                                            .rank = sorted[i]->rank };
        memcpy(t[i].dim, sorted[i]->dim, sizeof sorted[i]->dim);
    }
    TRY(safetensors_header(a, t, n, NULL, 0, &header, &bytes));
    f->header = (struct checkpoint_piece){ header, bytes };
    f->piece = ARENA_ARRAY(a, struct checkpoint_piece, n);
    f->n = n;
    f->fd = -1;
    for (i64 i = 0; i < n; i++) {
        struct checkpoint_tensor key = { .name = t[i].name - prefix - 1 }, *wanted = &key;
        const struct checkpoint_tensor **found =
            bsearch(&wanted, sorted, (size_t)n, sizeof *sorted, by_name);
        f->piece[i] = (struct checkpoint_piece){ (*found)->data, t[i].bytes };
        bytes += t[i].bytes;
    }
    s->file = arena_printf(a, "%.*s.safetensors", (int)prefix, sorted[0]->name);
    s->bytes = bytes;
    s->chunks = ceil_div(bytes, CHECKPOINT_CHUNK);
    s->crc = ARENA_ARRAY(a, u32, s->chunks);
    image->file_bytes += bytes;
    return OK;
}

static int make_files(struct checkpoint_image *image, const struct checkpoint_tensor *tensors,
                      i64 n)
{
    const struct checkpoint_tensor **sorted =
        ARENA_ARRAY(&image->arena, const struct checkpoint_tensor *, n);
    for (i64 i = 0; i < n; i++) {
        sorted[i] = &tensors[i];
        image->tensor_bytes += tensor_bytes(&tensors[i]);
    }
    qsort(sorted, (size_t)n, sizeof *sorted, by_name);
    image->file = ARENA_ARRAY(&image->arena, struct checkpoint_file, n);
    image->shard = ARENA_ARRAY(&image->arena, struct checkpoint_shard, n);
    for (i64 first = 0, end; first < n; first = end) {
        for (end = first + 1; end < n && same_prefix(sorted[first]->name, sorted[end]->name);)
            end++;
        TRY(make_file(image, sorted + first, end - first));
    }
    return OK;
}

/* Names come from our own code: a bad one is a broken promise, not bad input. */
static void check_names(const struct checkpoint_tensor *tensors, i64 n)
{
    assert(n > 0);
    for (i64 i = 0; i < n; i++) {
        i64 prefix = prefix_length(tensors[i].name);
        assert(prefix > 0 && prefix < 200 && tensors[i].name[0] != '.');
        assert((i64)strspn(tensors[i].name, "abcdefghijklmnopqrstuvwxyz0123456789._-") == prefix);
        (void)prefix;
    }
}

int checkpoint_image_init(struct checkpoint_image *image,
                          const struct checkpoint_tensor *tensors, i64 n)
{
    check_names(tensors, n);
    *image = (struct checkpoint_image){ 0 };
    arena_init(&image->arena);
    int rc = make_files(image, tensors, n);
    if (rc == OK && !(image->chunk = sys_alloc(CHECKPOINT_CHUNK, 4096)))
        rc = err_set(ERR_LIMIT, "no memory to write checkpoints");
    if (rc < 0)
        checkpoint_image_fini(image);
    return rc;
}

void checkpoint_image_fini(struct checkpoint_image *image)
{
    sys_free(image->chunk);
    arena_fini(&image->arena);
    *image = (struct checkpoint_image){ 0 };
}

/* --- one file -------------------------------------------------------------------- */

static int sys_failed(int *cause, const char *what, const char *path)
{
    *cause = errno;
    return err_set(ERR_SYS, "%s %s: %s", what, path, strerror(errno));
}

struct stream {
    struct checkpoint_image *image;
    struct checkpoint_shard *shard;
    const char *path;
    int fd, *cause;
    i64 filled, chunk;
};

static int flush_chunk(struct stream *s)
{
    u8 *data = s->image->chunk;
    s->shard->crc[s->chunk++] = crc32c(0, data, s->filled);
    if (sys_write_full(s->fd, data, s->filled) != 0)
        return sys_failed(s->cause, "write", s->path);
    s->filled = 0;
    return OK;
}

static int stream_piece(struct stream *s, struct checkpoint_piece piece,
                        const struct checkpoint_gate *gate)
{
    for (i64 at = 0; at < piece.bytes;) {
        i64 n = i64_min(piece.bytes - at, CHECKPOINT_CHUNK - s->filled);
        TRY(gate->copy(gate->context, s->image->chunk + s->filled,
                       (const u8 *)piece.data + at, n));
        at += n;
        s->filled += n;
        if (s->filled == CHECKPOINT_CHUNK)
            TRY(flush_chunk(s));
    }
    return OK;
}

/* Does no more than it must while the tensors may not change: the SHA-256 and the fsync,
 * which take longer than the copy into the page cache, follow when all files are written. */
static int write_file(struct checkpoint_image *image, i64 index, const char *path,
                      const struct checkpoint_gate *gate, int *cause)
{
    struct checkpoint_file *f = &image->file[index];
    struct stream s = { .image = image, .shard = &image->shard[index], .path = path,
                        .cause = cause };
    s.fd = f->fd = sys_open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);
    if (f->fd < 0)
        return sys_failed(cause, "create", path);
    TRY(stream_piece(&s, f->header, gate));
    for (i64 i = 0; i < f->n; i++)
        TRY(stream_piece(&s, f->piece[i], gate));
    if (s.filled > 0)
        TRY(flush_chunk(&s));
    assert(s.chunk == s.shard->chunks);
    return OK;
}

static int read_back(struct checkpoint_image *image, struct checkpoint_shard *s, int fd,
                     struct sha256 *hash, const char *path, int *cause)
{
    if (sys_seek(fd, 0, SEEK_SET) != 0)
        return sys_failed(cause, "read back", path);
    for (i64 i = 0; i < s->chunks; i++) {
        i64 n = i64_min(CHECKPOINT_CHUNK, s->bytes - i * CHECKPOINT_CHUNK);
        i64 got = sys_read_full(fd, image->chunk, n);
        if (got < 0)
            return sys_failed(cause, "read back", path);
        if (got != n || crc32c(0, image->chunk, n) != s->crc[i])
            return err_set(ERR_SYS, "%s: chunk %lld is not what was written", path,
                           (long long)i);
        sha256_add(hash, image->chunk, n);
    }
    return OK;
}

/* From the page cache: what is hashed is what was written, and proven to be. */
static int hash_file(struct checkpoint_image *image, i64 index, const char *path, int *cause)
{
    struct sha256 hash;
    sha256_init(&hash);
    int rc = read_back(image, &image->shard[index], image->file[index].fd, &hash, path, cause);
    sha256_fini(&hash, image->shard[index].sha256);
    return rc;
}

/* fsync and close. After a failed fsync the kernel may forget which pages it lost, so
 * the descriptor is never tried again: the caller starts over with a new file. */
static int finish_file(int *fd, const char *path, int *cause)
{
    int rc = OK;
    if (sys_fsync(*fd) != 0)
        rc = sys_failed(cause, "fsync", path);
    if (sys_close(*fd) != 0 && rc == OK)
        rc = sys_failed(cause, "close", path);
    *fd = -1;
    return rc;
}

static int write_manifest(struct checkpoint_image *image, i64 step, const char *state,
                          const char *path, int *cause)
{
    struct text text = { 0 };
    int rc = OK;
    checkpoint_manifest_write(&text, step, sys_wall_seconds(), image->shard, image->n, state);
    int fd = sys_open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);
    if (fd < 0) {
        rc = sys_failed(cause, "create", path);
    } else {
        if (sys_write_full(fd, text.data, text.length) != 0)
            rc = sys_failed(cause, "write", path);
        if (rc == OK)
            rc = finish_file(&fd, path, cause);
        else
            sys_close(fd);
    }
    text_fini(&text);
    return rc;
}

/* --- the whole ------------------------------------------------------------------- */

static int file_path(char path[CHECKPOINT_PATH], const struct checkpoint_image *image, i64 i,
                     const char *dir, i64 step)
{
    char rest[256];
    snprintf(rest, sizeof rest, ".tmp/%s", image->shard[i].file);
    return checkpoint_path(path, dir, step, rest);
}

static int write_files(struct checkpoint_image *image, const char *dir, i64 step,
                       const char *state, const struct checkpoint_gate *gate, int *cause)
{
    char path[CHECKPOINT_PATH];
    for (i64 i = 0; i < image->n; i++) {
        TRY(file_path(path, image, i, dir, step));
        TRY(write_file(image, i, path, gate, cause));
    }
    gate->done(gate->context);
    for (i64 i = 0; i < image->n; i++) {
        TRY(file_path(path, image, i, dir, step));
        TRY(hash_file(image, i, path, cause));
        TRY(finish_file(&image->file[i].fd, path, cause));
    }
    TRY(checkpoint_path(path, dir, step, ".tmp/manifest.json"));
    return write_manifest(image, step, state, path, cause);
}

/* A step folder of that name can only be a damaged one: whoever resumed passed it over. */
static int remove_damaged(const char *dir, i64 step)
{
    char path[CHECKPOINT_PATH];
    i64 bytes;
    double saved_at;
    TRY(checkpoint_path(path, dir, step, ""));
    if (!sys_exists(path))
        return OK;
    if (checkpoint_peek(dir, step, &bytes, &saved_at) == OK)
        return err_set(ERR_USAGE, "%s exists already", path);
    return checkpoint_delete(dir, step);
}

static int commit(const char *temporary, const char *dir, i64 step, int *cause)
{
    char path[CHECKPOINT_PATH];
    TRY(checkpoint_path(path, dir, step, ""));
    if (sys_fsync_dir(temporary) != 0)
        return sys_failed(cause, "fsync", temporary);
    if (sys_rename(temporary, path) != 0)
        return sys_failed(cause, "rename", temporary);
    if (sys_fsync_dir(dir) == 0)
        return OK;
    int rc = sys_failed(cause, "fsync", dir);
    sys_rename(path, temporary); /* whole, but not durable: not to be taken for saved */
    return rc;
}

int checkpoint_write(struct checkpoint_image *image, const char *dir, i64 step,
                     const char *state, const struct checkpoint_gate *gate, int *cause)
{
    char temporary[CHECKPOINT_PATH];
    int rc;
    *cause = 0;
    TRY(checkpoint_path(temporary, dir, step, ".tmp"));
    TRY(checkpoint_clean(dir));
    TRY(remove_damaged(dir, step));
    if (sys_mkdir(temporary, 0700) != 0)
        return sys_failed(cause, "create folder", temporary);
    TRY_TO(fail, write_files(image, dir, step, state, gate, cause));
    TRY_TO(fail, commit(temporary, dir, step, cause));
    return OK;
fail:
    for (i64 i = 0; i < image->n; i++) {
        if (image->file[i].fd >= 0)
            sys_close(image->file[i].fd);
        image->file[i].fd = -1;
    }
    sys_remove_tree(temporary); /* if not now, the next save cleans up */
    return rc;
}
