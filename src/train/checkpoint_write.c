#include "train/checkpoint_write.h"

#include "base/err.h"
#include "base/hash.h"
#include "base/sys.h"
#include "model/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- the image ------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
    const struct checkpoint_tensor *const *x = a, *const *y = b;
    int order = strcmp((*x)->name, (*y)->name);
    for (int d = 0; d < CHECKPOINT_RANK && order == 0; d++)
        order = ((*x)->at[d] > (*y)->at[d]) - ((*x)->at[d] < (*y)->at[d]);
    return order;
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

/* What a manifest of several ranks says of the tensor. */
static struct checkpoint_box box_of(const struct checkpoint_tensor *t, i64 prefix)
{
    struct checkpoint_box b = { .name = t->name + prefix + 1, .dtype = t->dtype,
                                .rank = t->rank };
    memcpy(b.at, t->at, sizeof b.at);
    memcpy(b.dim, t->dim, sizeof b.dim);
    memcpy(b.whole, checkpoint_is_box(t) ? t->whole : t->dim, sizeof b.whole);
    return b;
}

static void name_shard(struct checkpoint_image *image, struct checkpoint_shard *s,
                       const char *tensor, i64 prefix)
{
    struct arena *a = &image->arena;
    s->prefix = arena_strndup(a, tensor, prefix);
    s->file = image->ranks == 1
                  ? arena_printf(a, "%s.safetensors", s->prefix)
                  : arena_printf(a, "%s-%05d-of-%05d.safetensors", s->prefix, image->rank,
                                 image->ranks);
}

/* Describes sorted[0, n) and gives t[i] its name in the file. */
static void describe(struct checkpoint_image *image, struct checkpoint_shard *s,
                     const struct checkpoint_tensor **sorted, i64 n,
                     struct safetensors_tensor *t)
{
    i64 prefix = (i64)strlen(s->prefix);
    if (image->ranks > 1) {
        s->box = ARENA_ARRAY(&image->arena, struct checkpoint_box, n);
        s->boxes = n;
    }
    for (i64 i = 0; i < n; i++) {
        const struct checkpoint_box b = box_of(sorted[i], prefix);
        t[i] = (struct safetensors_tensor){ .name = b.name, .dtype = (int)b.dtype,
                                            .rank = b.rank };
        memcpy(t[i].dim, b.dim, sizeof b.dim);
        if (s->box) {
            s->box[i] = b;
            t[i].name = checkpoint_box_name(&b, &image->arena);
        }
    }
}

/* Which of sorted[0, n) is called `name` in the file: names stay where they are when the
 * tensors are put into the file's order. */
static i64 index_of(const char *const *names, i64 n, const char *name)
{
    i64 i = 0;
    while (i < n && names[i] != name)
        i++;
    return i;
}

/* The file of sorted tensors [0, n), which share a prefix. */
static int make_file(struct checkpoint_image *image, const struct checkpoint_tensor **sorted,
                     i64 n)
{
    struct arena *a = &image->arena;
    struct checkpoint_file *f = &image->file[image->n];
    struct checkpoint_shard *s = &image->shard[image->n++];
    struct safetensors_tensor *t = ARENA_ARRAY(a, struct safetensors_tensor, n);
    const char **names = ARENA_ARRAY(a, const char *, n), *header;
    i64 bytes;
    name_shard(image, s, sorted[0]->name, prefix_length(sorted[0]->name));
    describe(image, s, sorted, n, t);
    for (i64 i = 0; i < n; i++)
        names[i] = t[i].name;
    TRY(safetensors_header(a, t, n, NULL, 0, &header, &bytes));
    f->header = (struct checkpoint_piece){ header, bytes };
    f->piece = ARENA_ARRAY(a, struct checkpoint_piece, n);
    f->n = n;
    f->fd = -1;
    for (i64 i = 0; i < n; i++) {
        i64 from = index_of(names, n, t[i].name);
        f->piece[i] = (struct checkpoint_piece){ sorted[from]->data, t[i].bytes };
        bytes += t[i].bytes;
    }
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
    if (n > 0)
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
    for (i64 i = 0; i < n; i++) {
        i64 prefix = prefix_length(tensors[i].name);
        assert(prefix > 0 && prefix < 200 && tensors[i].name[0] != '.');
        assert((i64)strspn(tensors[i].name, "abcdefghijklmnopqrstuvwxyz0123456789._-") == prefix);
        (void)prefix;
    }
}

int checkpoint_image_init(struct checkpoint_image *image,
                          const struct checkpoint_tensor *tensors, i64 n, int rank, int ranks)
{
    check_names(tensors, n);
    *image = (struct checkpoint_image){ .rank = rank, .ranks = ranks };
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

int checkpoint_put_file(const char *path, const char *data, i64 bytes, int *cause)
{
    int rc = OK, fd = sys_open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);
    if (fd < 0)
        return sys_failed(cause, "create", path);
    if (sys_write_full(fd, data, bytes) != 0)
        rc = sys_failed(cause, "write", path);
    if (rc == OK)
        return finish_file(&fd, path, cause);
    sys_close(fd);
    return rc;
}

/* --- the whole ------------------------------------------------------------------- */

int checkpoint_temporary(char path[CHECKPOINT_PATH], const char *dir, i64 step, u64 ticket,
                         const char *rest)
{
    char name[300] = ".tmp";
    if (ticket)
        snprintf(name, sizeof name, ".%016llx.tmp", (unsigned long long)ticket);
    size_t n = strlen(name);
    snprintf(name + n, sizeof name - n, "%s", rest);
    return checkpoint_path(path, dir, step, name);
}

static int file_path(char path[CHECKPOINT_PATH], const struct checkpoint_image *image, i64 i,
                     const char *dir, i64 step, u64 ticket)
{
    char rest[256];
    snprintf(rest, sizeof rest, "/%s", image->shard[i].file);
    return checkpoint_temporary(path, dir, step, ticket, rest);
}

static int write_files(struct checkpoint_image *image, const char *dir, i64 step, u64 ticket,
                       const struct checkpoint_gate *gate, int *cause)
{
    char path[CHECKPOINT_PATH];
    for (i64 i = 0; i < image->n; i++) {
        TRY(file_path(path, image, i, dir, step, ticket));
        TRY(write_file(image, i, path, gate, cause));
    }
    gate->done(gate->context);
    for (i64 i = 0; i < image->n; i++) {
        TRY(file_path(path, image, i, dir, step, ticket));
        TRY(hash_file(image, i, path, cause));
        TRY(finish_file(&image->file[i].fd, path, cause));
    }
    return OK;
}

int checkpoint_files(struct checkpoint_image *image, const char *dir, i64 step, u64 ticket,
                     const struct checkpoint_gate *gate, int *cause)
{
    char path[CHECKPOINT_PATH];
    *cause = 0;
    int rc = write_files(image, dir, step, ticket, gate, cause);
    for (i64 i = 0; i < image->n && rc < 0; i++) {
        if (image->file[i].fd >= 0)
            sys_close(image->file[i].fd);
        image->file[i].fd = -1;
        if (file_path(path, image, i, dir, step, ticket) == OK)
            sys_unlink(path); /* most were not made: whether this works says nothing */
    }
    return rc;
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

int checkpoint_prepare(const char *dir, i64 step, u64 ticket, int *cause)
{
    char temporary[CHECKPOINT_PATH];
    *cause = 0;
    TRY(checkpoint_temporary(temporary, dir, step, ticket, ""));
    TRY(checkpoint_clean(dir));
    TRY(remove_damaged(dir, step));
    return sys_mkdir(temporary, 0700) == 0 ? OK : sys_failed(cause, "create folder", temporary);
}

static int give_name(const char *temporary, const char *dir, i64 step, int *cause)
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

int checkpoint_commit(const char *dir, i64 step, u64 ticket, const struct checkpoint_shard *shards,
                      i64 n, const char *state, int *cause)
{
    char temporary[CHECKPOINT_PATH], path[CHECKPOINT_PATH];
    struct text text = { 0 };
    *cause = 0;
    TRY(checkpoint_temporary(temporary, dir, step, ticket, ""));
    TRY(checkpoint_temporary(path, dir, step, ticket, "/manifest.json"));
    checkpoint_manifest_write(&text, step, sys_wall_seconds(), shards, n, state);
    int rc = checkpoint_put_file(path, text.data, text.length, cause);
    text_fini(&text);
    return rc < 0 ? rc : give_name(temporary, dir, step, cause);
}

int checkpoint_write(struct checkpoint_image *image, const char *dir, i64 step,
                     const char *state, const struct checkpoint_gate *gate, int *cause)
{
    char temporary[CHECKPOINT_PATH];
    TRY(checkpoint_prepare(dir, step, 0, cause));
    int rc = checkpoint_files(image, dir, step, 0, gate, cause);
    if (rc == OK)
        rc = checkpoint_commit(dir, step, 0, image->shard, image->n, state, cause);
    if (rc < 0 && checkpoint_temporary(temporary, dir, step, 0, "") == OK)
        sys_remove_tree(temporary); /* if not now, the next save cleans up */
    return rc;
}
