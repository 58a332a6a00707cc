#include "base/err.h"
#include "base/sys.h"
#include "base/text.h"
#include "model/safetensors.h"
#include "model/safetensors_format.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Escapes as the Python library's serialiser does. */
static void add_string(struct text *t, const char *s)
{
    static const char from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt";
    text_add(t, "\"");
    for (; *s; s++) {
        const char *special = strchr(from, *s);
        if (special)
            text_add_bytes(t, (char[2]){ '\\', to[special - from] }, 2);
        else if ((u8)*s < 0x20)
            text_printf(t, "\\u%04x", (u8)*s);
        else
            text_add_bytes(t, s, 1);
    }
    text_add(t, "\"");
}

static void add_tensor(struct text *t, const struct safetensors_tensor *tensor)
{
    add_string(t, tensor->name);
    text_add(t, ":{\"dtype\":\"");
    text_add(t, tensor->format);
    text_add(t, "\",\"shape\":[");
    for (int d = 0; d < tensor->rank; d++) {
        text_add(t, d ? "," : "");
        text_printf(t, "%lld", (long long)(tensor->dim[d]));
    }
    text_add(t, "],\"data_offsets\":[");
    text_printf(t, "%lld", (long long)(tensor->begin));
    text_add(t, ",");
    text_printf(t, "%lld", (long long)(tensor->begin + tensor->bytes));
    text_add(t, "]}");
}

static int file_order(const void *a, const void *b)
{
    const struct safetensors_tensor *x = a, *y = b;
    if (x->dtype != y->dtype)
        return safetensors_format_of(x->dtype) > safetensors_format_of(y->dtype) ? -1 : 1;
    return strcmp(x->name, y->name);
}

static int place_tensors(struct safetensors_tensor *tensors, i64 n, i64 *total)
{
    *total = 0;
    if (n > 0)
        qsort(tensors, (size_t)n, sizeof *tensors, file_order);
    for (i64 i = 0; i < n; i++) {
        struct safetensors_tensor *t = &tensors[i];
        const struct safetensors_format *f = safetensors_format_of(t->dtype);
        t->format = f->name;
        t->bytes = f->bytes;
        for (int d = 0; d < t->rank; d++)
            if (size_mul(t->bytes, t->dim[d], &t->bytes))
                return err_set(ERR_LIMIT, "tensor \"%s\" has an impossible size", t->name);
        t->begin = *total;
        if (size_add(*total, t->bytes, total))
            return err_set(ERR_LIMIT, "the tensors exceed 2^63 bytes");
    }
    return OK;
}

static void add_header(struct text *t, const struct safetensors_tensor *tensors, i64 n,
                       const struct safetensors_pair *metadata, i64 n_metadata)
{
    text_add_bytes(t, (char[8]){ 0 }, 8);
    text_add(t, "{");
    for (i64 i = 0; i < n_metadata; i++) {
        text_add(t, i ? "," : "\"__metadata__\":{");
        add_string(t, metadata[i].key);
        text_add(t, ":");
        add_string(t, metadata[i].value);
    }
    text_add(t, n_metadata ? "}" : "");
    for (i64 i = 0; i < n; i++) {
        text_add(t, i || n_metadata ? "," : "");
        add_tensor(t, &tensors[i]);
    }
    text_add(t, "}");
    text_repeat(t, ' ', round_up(t->length, 8) - t->length); /* aligns the data */
}

int safetensors_header(struct arena *arena, struct safetensors_tensor *tensors, i64 n,
                       const struct safetensors_pair *metadata, i64 n_metadata,
                       const char **header, i64 *bytes)
{
    struct text t = { 0 };
    i64 total;
    TRY(place_tensors(tensors, n, &total));
    add_header(&t, tensors, n, metadata, n_metadata);
    u64 length = (u64)t.length - 8;
    memcpy(t.data, &length, 8);
    *header = arena_strndup(arena, t.data, t.length);
    *bytes = t.length;
    text_fini(&t);
    if (length > SAFETENSORS_MAX_HEADER)
        return err_set(ERR_LIMIT, "the names and shapes of %lld tensors exceed 100 MB: split "
                       "them over several files", (long long)n);
    return OK;
}

/* --- one file -------------------------------------------------------------------- */

int safetensors_create(struct safetensors_writer *w, const char *path,
                       struct safetensors_tensor *tensors, i64 n,
                       const struct safetensors_pair *metadata, i64 n_metadata)
{
    const char *header;
    i64 bytes;
    int rc;
    *w = (struct safetensors_writer){ .fd = -1 };
    arena_init(&w->arena);
    w->path = arena_strdup(&w->arena, path);
    w->temporary = arena_printf(&w->arena, "%s.tmp", path);
    if (sys_is_channel(path)) {
        rc = err_set(ERR_USAGE, "%s is a device or a pipe; tensors are written to a file", path);
        goto fail;
    }
    TRY_TO(fail, safetensors_header(&w->arena, tensors, n, metadata, n_metadata, &header, &bytes));
    w->total = bytes;
    for (i64 i = 0; i < n; i++)
        w->total += tensors[i].bytes;
    sys_unlink(w->temporary); /* left by a crash; if it cannot go, open says why */
    w->fd = sys_open(w->temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0666);
    if (w->fd < 0) {
        rc = err_set(ERR_SYS, "create %s: %s", w->temporary, strerror(errno));
        goto fail;
    }
    return safetensors_put(w, header, bytes);
fail:
    arena_fini(&w->arena);
    return rc;
}

int safetensors_put(struct safetensors_writer *w, const void *data, i64 bytes)
{
    assert(w->fd >= 0 && w->put + bytes <= w->total);
    if (sys_write_full(w->fd, data, bytes) != 0) {
        int rc = err_set(ERR_SYS, "write %s: %s", w->temporary, strerror(errno));
        safetensors_abort(w);
        return rc;
    }
    w->put += bytes;
    return OK;
}

/* The folder that holds path, in the arena. */
static const char *folder_of(struct arena *a, const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash)
        return ".";
    return slash == path ? "/" : arena_strndup(a, path, slash - path);
}

int safetensors_commit(struct safetensors_writer *w)
{
    assert(w->fd >= 0 && w->put == w->total);
    int rc = sys_fsync(w->fd);
    int saved = errno;
    if (sys_close(w->fd) != 0 && rc == 0) {
        rc = -1;
        saved = errno;
    }
    w->fd = -1;
    if (rc == 0 && sys_rename(w->temporary, w->path) != 0) {
        rc = -1;
        saved = errno;
    }
    if (rc == 0) {
        if (sys_fsync_dir(folder_of(&w->arena, w->path)) != 0)
            rc = err_set(ERR_SYS, "make %s durable: %s", w->path, strerror(errno));
    } else {
        sys_unlink(w->temporary);
        rc = err_set(ERR_SYS, "write %s: %s", w->path, strerror(saved));
    }
    arena_fini(&w->arena);
    return rc;
}

void safetensors_abort(struct safetensors_writer *w)
{
    if (w->fd < 0)
        return;
    sys_close(w->fd);
    w->fd = -1;
    sys_unlink(w->temporary);
    arena_fini(&w->arena);
}
