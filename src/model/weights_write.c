#include "base/err.h"
#include "base/json.h"
#include "base/sys.h"
#include "model/weights.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#define INDEX "model.safetensors.index.json"

static const char *file_name(struct weights_writer *w, i64 file)
{
    if (w->n_files == 1)
        return "model.safetensors";
    return arena_printf(&w->arena, "model-%05lld-of-%05lld.safetensors", (long long)file + 1,
                        (long long)w->n_files);
}

static const char *path_of(struct weights_writer *w, const char *name)
{
    return arena_printf(&w->arena, "%s/%s", w->folder, name);
}

/* Cuts the tensors into files and sorts each file's. */
static int cut_files(struct weights_writer *w, i64 max_file_bytes)
{
    const char *header;
    i64 in_file = 0, bytes;
    w->first = ARENA_ARRAY(&w->arena, i64, w->n + 2);
    w->n_files = 1;
    for (i64 i = 0; i < w->n; i++) {
        struct safetensors_tensor *t = &w->tensors[i];
        TRY(safetensors_header(&w->arena, t, 1, NULL, 0, &header, &bytes)); /* its size */
        if (i > w->first[w->n_files - 1] && t->bytes > max_file_bytes - in_file) {
            w->first[w->n_files++] = i;
            in_file = 0;
        }
        in_file += t->bytes;
    }
    w->first[w->n_files] = w->n;
    for (i64 f = 0; f < w->n_files; f++)
        TRY(safetensors_header(&w->arena, w->tensors + w->first[f],
                               w->first[f + 1] - w->first[f], NULL, 0, &header, &bytes));
    return OK;
}

static int open_file(struct weights_writer *w, i64 file)
{
    w->now = file;
    return safetensors_create(&w->file, path_of(w, file_name(w, file)),
                              w->tensors + w->first[file], w->first[file + 1] - w->first[file],
                              w->metadata, w->n_metadata);
}

int weights_create(struct weights_writer *w, const char *folder,
                   struct safetensors_tensor *tensors, i64 n,
                   const struct safetensors_pair *metadata, i64 n_metadata, i64 max_file_bytes)
{
    int rc;
    *w = (struct weights_writer){ .tensors = tensors, .n = n, .metadata = metadata,
                                  .n_metadata = n_metadata };
    arena_init(&w->arena);
    w->folder = arena_strdup(&w->arena, folder);
    if (sys_mkdirs(folder) != 0) {
        rc = err_set(ERR_SYS, "create folder %s: %s", folder, strerror(errno));
        goto fail;
    }
    TRY_TO(fail, cut_files(w, max_file_bytes));
    TRY_TO(fail, open_file(w, 0));
    return OK;
fail:
    arena_fini(&w->arena);
    w->n_files = 0;
    return rc;
}

/* Removes what was committed before a failure, and the memory. */
static void drop(struct weights_writer *w)
{
    for (i64 f = 0; f < w->now; f++)
        sys_unlink(path_of(w, file_name(w, f)));
    arena_fini(&w->arena);
    w->n_files = 0;
}

int weights_put(struct weights_writer *w, const void *data, i64 bytes)
{
    int rc;
    if (bytes > 0 && w->file.put == w->file.total) {
        TRY_TO(fail, safetensors_commit(&w->file));
        TRY_TO(fail, open_file(w, w->now + 1));
    }
    TRY_TO(fail, safetensors_put(&w->file, data, bytes));
    return OK;
fail:
    drop(w);
    return rc;
}

static void index_text(struct weights_writer *w, struct json *j)
{
    i64 total = 0;
    for (i64 i = 0; i < w->n; i++)
        total += w->tensors[i].bytes;
    json_begin_object(j);
    json_key(j, "metadata");
    json_begin_object(j);
    json_put_int(j, "total_size", total);
    json_end(j);
    json_key(j, "weight_map");
    json_begin_object(j);
    for (i64 f = 0; f < w->n_files; f++) {
        const char *name = file_name(w, f);
        for (i64 i = w->first[f]; i < w->first[f + 1]; i++)
            json_put_str(j, w->tensors[i].name, name);
    }
    json_end(j);
    json_end(j);
    text_add(&j->out, "\n");
}

static int write_text(const char *path, const struct text *text)
{
    int fd = sys_open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, 0666);
    if (fd < 0)
        return err_set(ERR_SYS, "create %s: %s", path, strerror(errno));
    bool bad = sys_write_full(fd, text->data, text->length) != 0 || sys_fsync(fd) != 0;
    int saved = errno;
    bool bad_close = sys_close(fd) != 0;
    if (bad || bad_close) {
        sys_unlink(path);
        return err_set(ERR_SYS, "write %s: %s", path, strerror(bad ? saved : errno));
    }
    return OK;
}

static int write_index(struct weights_writer *w)
{
    struct json j;
    json_writer_init(&j);
    j.indent = true;
    index_text(w, &j);
    int rc = write_text(path_of(w, INDEX), &j.out);
    json_writer_fini(&j);
    return rc;
}

/* What the index of an earlier export into this folder says; NULL: there is none that can
 * be read. */
static json_t *earlier_index(struct weights_writer *w)
{
    json_t *root = NULL;
    const char *path = path_of(w, INDEX);
    return sys_exists(path) && json_load(path, WEIGHTS_INDEX_BYTES, &root) == OK ? root : NULL;
}

static bool is_ours(struct weights_writer *w, const char *name)
{
    long long file, of;
    if (sscanf(name, "model-%5lld-of-%5lld.safetensors", &file, &of) != 2)
        return false;
    const char *again = arena_printf(&w->arena, "model-%05lld-of-%05lld.safetensors", file, of);
    bool kept = w->n_files > 1 && of == w->n_files && file >= 1 && file <= of;
    return strcmp(again, name) == 0 && !kept;
}

/* The files that it named and the new one does not. */
static void remove_earlier(struct weights_writer *w, json_t *index)
{
    const char *tensor;
    json_t *value;
    json_object_foreach(json_object_get(index, "weight_map"), tensor, value) {
        const char *name = json_string_value(value);
        if (name && is_ours(w, name))
            sys_unlink(path_of(w, name));
    }
}

int weights_commit(struct weights_writer *w)
{
    int rc;
    json_t *earlier = earlier_index(w);
    assert(w->now == w->n_files - 1);
    TRY_TO(fail, safetensors_commit(&w->file));
    w->now = w->n_files;
    if (w->n_files > 1)
        TRY_TO(fail, write_index(w));
    /* Readers would take it for the new one. */
    sys_unlink(path_of(w, w->n_files > 1 ? "model.safetensors" : INDEX));
    remove_earlier(w, earlier);
    json_decref(earlier);
    arena_fini(&w->arena);
    w->n_files = 0;
    return OK;
fail:
    json_decref(earlier);
    drop(w);
    return rc;
}

void weights_abort(struct weights_writer *w)
{
    if (w->n_files == 0)
        return;
    safetensors_abort(&w->file);
    drop(w);
}
