#include "model/weights.h"

#include "base/err.h"
#include "base/json.h"
#include "base/sys.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The largest published index has some 100,000 tensors in 9 MB. */
enum { MAX_FILES = 10000 };

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int by_name(const void *a, const void *b)
{
    const struct weights_entry *x = a, *y = b;
    return strcmp(x->tensor->name, y->tensor->name);
}

static bool is_plain_name(const char *name)
{
    return name[0] != '\0' && name[0] != '.' && !strchr(name, '/') && !strchr(name, '\\');
}

/* The distinct values of weight_map, sorted. */
static int list_files(struct weights *w, json_t *map, const char *path)
{
    const char *tensor;
    json_t *value;
    i64 n = 0;
    const char **all = ARENA_ARRAY(&w->arena, const char *, json_object_size(map));
    json_object_foreach(map, tensor, value) {
        const char *file = json_string_value(value);
        if (!file || !is_plain_name(file))
            return err_set(ERR_FORMAT, "%s: tensor \"%s\" is not mapped to a plain file name",
                           path, tensor);
        all[n++] = file;
    }
    if (n > 0)
        qsort(all, (size_t)n, sizeof *all, by_text);
    w->file_name = ARENA_ARRAY(&w->arena, const char *, n);
    for (i64 i = 0; i < n; i++)
        if (i == 0 || strcmp(all[i], all[i - 1]) != 0)
            w->file_name[w->n_files++] = arena_strdup(&w->arena, all[i]);
    if (w->n_files == 0 || w->n_files > MAX_FILES)
        return err_set(ERR_FORMAT, "%s names %lld files; from 1 to 10,000 are expected", path,
                       (long long)w->n_files);
    return OK;
}

static int open_files(struct weights *w, const char *folder)
{
    i64 wanted = w->n_files;
    w->file = ARENA_ARRAY(&w->arena, struct safetensors, wanted);
    w->n_files = 0;
    for (i64 i = 0; i < wanted; i++) {
        const char *path = folder ? arena_printf(&w->arena, "%s/%s", folder, w->file_name[i])
                                  : w->file_name[i];
        int rc = safetensors_open(&w->file[i], path);
        w->n_files = i + 1; /* close frees a half-open one too */
        TRY(rc);
    }
    return OK;
}

static int merge_names(struct weights *w)
{
    i64 n = 0;
    for (i64 f = 0; f < w->n_files; f++)
        w->n += w->file[f].n;
    w->entry = ARENA_ARRAY(&w->arena, struct weights_entry, w->n);
    for (i64 f = 0; f < w->n_files; f++)
        for (i64 i = 0; i < w->file[f].n; i++)
            w->entry[n++] = (struct weights_entry){ &w->file[f].tensor[i], &w->file[f] };
    if (n > 0)
        qsort(w->entry, (size_t)n, sizeof *w->entry, by_name);
    for (i64 i = 1; i < n; i++)
        if (by_name(&w->entry[i - 1], &w->entry[i]) == 0)
            return err_set(ERR_FORMAT, "two files hold a tensor named \"%s\"",
                           w->entry[i].tensor->name);
    return OK;
}

/* Each tensor is where the index says, and none is unknown to it. */
static int check_map(const struct weights *w, json_t *map, const char *path)
{
    const char *tensor;
    json_t *value;
    json_object_foreach(map, tensor, value) {
        const struct weights_entry *e = weights_find(w, tensor);
        if (!e || strcmp(w->file_name[e->file - w->file], json_string_value(value)) != 0)
            return err_set(ERR_FORMAT, "%s: tensor \"%s\" is not in %s", path, tensor,
                           json_string_value(value));
    }
    if ((i64)json_object_size(map) != w->n)
        return err_set(ERR_FORMAT, "%s names %lld tensors, its files hold %lld", path,
                       (long long)json_object_size(map), (long long)w->n);
    return OK;
}

static int open_index(struct weights *w, const char *folder, const char *path)
{
    json_t *root;
    TRY(json_load(path, WEIGHTS_INDEX_BYTES, &root));
    json_t *map = json_object_get(root, "weight_map");
    int rc;
    if (!json_is_object(map)) {
        rc = err_set(ERR_FORMAT, "%s has no object \"weight_map\"", path);
        goto done;
    }
    TRY_TO(done, list_files(w, map, path));
    TRY_TO(done, open_files(w, folder));
    TRY_TO(done, merge_names(w));
    rc = check_map(w, map, path);
done:
    json_decref(root);
    return rc;
}

static int open_one(struct weights *w, const char *path)
{
    w->file_name = ARENA_ARRAY(&w->arena, const char *, 1);
    w->file_name[0] = arena_strdup(&w->arena, path);
    w->n_files = 1;
    TRY(open_files(w, NULL));
    return merge_names(w);
}

/* Pickles run whatever code is in them when they are read. */
static int check_kind(struct weights *w, const char *folder)
{
    static const char *const others[] = {
        "pytorch_model.bin", "pytorch_model.bin.index.json", "consolidated.00.pth",
        "tf_model.h5", "flax_model.msgpack",
    };
    for (i64 i = 0; i < 2; i++)
        if (sys_exists(arena_printf(&w->arena, "%s/model.safetensors%s", folder,
                                    i ? ".index.json" : "")))
            return OK;
    for (i64 i = 0; i < COUNT_OF(others); i++)
        if (sys_exists(arena_printf(&w->arena, "%s/%s", folder, others[i])))
            return err_set(ERR_FORMAT, "%s holds its weights as %s, and only safetensors are read; "
                           "convert it with python3 -c 'from transformers import "
                           "AutoModelForCausalLM as M; "
                           "M.from_pretrained(\"%s\").save_pretrained(\"%s-safetensors\", "
                           "safe_serialization=True)' and copy its tokenizer.json",
                           folder, others[i], folder, folder);
    return OK;
}

int weights_open(struct weights *out, const char *path)
{
    struct stat st;
    *out = (struct weights){ 0 };
    arena_init(&out->arena);
    if (sys_stat(path, &st) != 0)
        return err_set(ERR_SYS, "open %s: %s", path, strerror(errno));
    if (!S_ISDIR(st.st_mode))
        return open_one(out, path);
    TRY(check_kind(out, path));
    const char *index = arena_printf(&out->arena, "%s/model.safetensors.index.json", path);
    if (sys_exists(index))
        return open_index(out, path, index);
    return open_one(out, arena_printf(&out->arena, "%s/model.safetensors", path));
}

void weights_close(struct weights *w)
{
    for (i64 i = 0; i < w->n_files; i++)
        safetensors_close(&w->file[i]);
    arena_fini(&w->arena);
    *w = (struct weights){ 0 };
}

const struct weights_entry *weights_find(const struct weights *w, const char *name)
{
    const struct safetensors_tensor wanted = { .name = name };
    const struct weights_entry key = { .tensor = &wanted };
    if (w->n == 0)
        return NULL;
    return bsearch(&key, w->entry, (size_t)w->n, sizeof key, by_name);
}

const void *weights_data(const struct weights_entry *e)
{
    return safetensors_data(e->file, e->tensor);
}
