#include "base/err.h"
#include "base/sys.h"
#include "model/safetensors.h"
#include "train/checkpoint.h"
#include "train/checkpoint_folder.h"
#include "train/checkpoint_read.h"

#include <stdio.h>
#include <string.h>

enum { FINDING = 512 };

static bool is_step_folder(const char *path, i64 *step)
{
    char manifest[CHECKPOINT_PATH + 16], again[40];
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    long long value;
    if (sscanf(name, "step-%18lld", &value) != 1)
        return false;
    snprintf(again, sizeof again, "step-%lld", value);
    snprintf(manifest, sizeof manifest, "%s/manifest.json", path);
    *step = value;
    return strcmp(again, name) == 0 && sys_exists(manifest);
}

int checkpoint_find(const char *path, char *dir, i64 bytes, i64 *step)
{
    char bare[CHECKPOINT_PATH], inside[CHECKPOINT_PATH + 16];
    i64 n = (i64)strlen(path);
    while (n > 1 && path[n - 1] == '/')
        n--;
    if (n == 0 || n >= (i64)sizeof bare || n + 16 > bytes)
        return err_set(ERR_USAGE, "the folder's name is empty or too long");
    snprintf(bare, sizeof bare, "%.*s", (int)n, path);
    if (!sys_exists(bare))
        return err_set(ERR_USAGE, "there is no folder %s", bare);
    struct stat st;
    if (sys_stat(bare, &st) == 0 && !S_ISDIR(st.st_mode))
        return err_set(ERR_USAGE, "%s is no folder: give that of a run, or of its checkpoints",
                       bare);
    *step = -1;
    if (is_step_folder(bare, step)) {
        char *slash = strrchr(bare, '/');
        if (slash)
            *slash = '\0';
        snprintf(dir, (size_t)bytes, "%s", !slash ? "." : slash == bare ? "/" : bare);
        return OK;
    }
    *step = -1;
    snprintf(inside, sizeof inside, "%s/checkpoints", bare);
    snprintf(dir, (size_t)bytes, "%s", sys_exists(inside) ? inside : bare);
    return OK;
}

/* The first finding becomes the message. */
static void keep_finding(void *context, i64 step, const char *file, i64 chunk,
                         const char *problem)
{
    char *text = context, where[32] = "";
    if (text[0] != '\0')
        return;
    if (chunk >= 0)
        snprintf(where, sizeof where, "chunk %lld: ", (long long)chunk);
    snprintf(text, FINDING, "step-%lld/%s: %s%s", (long long)step, file, where, problem);
}

static int copy_tensors(const struct safetensors *s, i64 step, const char *path)
{
    char number[24];
    struct safetensors_writer w;
    struct arena a;
    const struct safetensors_pair meta = { "step", number };
    int rc;
    snprintf(number, sizeof number, "%lld", (long long)step);
    arena_init(&a);
    struct safetensors_tensor *t = ARENA_ARRAY(&a, struct safetensors_tensor, s->n);
    memcpy(t, s->tensor, sizeof *t * (size_t)s->n);
    TRY_TO(done, safetensors_create(&w, path, t, s->n, &meta, 1));
    for (i64 i = 0; i < s->n; i++)
        TRY_TO(done, safetensors_put(&w, safetensors_data(s, safetensors_find(s, t[i].name)),
                                     t[i].bytes));
    rc = safetensors_commit(&w);
done:
    arena_fini(&a);
    return rc;
}

/* The tensors of prefix param, each once, whole; returns how many. */
static i64 list_params(const struct checkpoint_manifest *m, struct safetensors_tensor *t)
{
    i64 n = 0;
    for (i64 i = 0; i < m->n; i++) {
        const struct checkpoint_shard *s = &m->shard[i];
        for (i64 k = 0; k < s->boxes && strcmp(s->prefix, "param") == 0; k++) {
            const struct checkpoint_box *b = &s->box[k];
            bool first = true; /* the box at the origin stands for the tensor */
            for (int d = 0; d < b->rank; d++)
                first = first && b->at[d] == 0;
            if (!first)
                continue;
            t[n] = (struct safetensors_tensor){ .name = b->name, .dtype = (int)b->dtype,
                                                .rank = b->rank };
            memcpy(t[n++].dim, b->whole, sizeof b->whole);
        }
    }
    return n;
}

/* One tensor, put together from all files. */
static int put_tensor(struct safetensors_writer *w, const struct safetensors_tensor *t,
                      const char *dir, i64 step)
{
    char name[CHECKPOINT_PATH];
    struct checkpoint_tensor whole = { .name = name, .dtype = (enum dtype)t->dtype,
                                       .rank = t->rank, .data = sys_alloc(t->bytes + 1, 64) };
    const struct checkpoint_want want = { .tensors = &whole, .n = 1, .part = true };
    snprintf(name, sizeof name, "param/%s", t->name);
    memcpy(whole.dim, t->dim, sizeof whole.dim);
    int rc = whole.data ? checkpoint_load_part(dir, step, &want, NULL)
                        : err_set(ERR_LIMIT, "no memory for the %lld bytes of %s",
                                  (long long)t->bytes, t->name);
    if (rc == OK)
        rc = safetensors_put(w, whole.data, t->bytes);
    else
        safetensors_abort(w);
    sys_free(whole.data);
    return rc;
}

static int export_boxes(const struct checkpoint_manifest *m, const char *dir, i64 step,
                        const char *path)
{
    char number[24];
    const struct safetensors_pair meta = { "step", number };
    struct safetensors_writer w;
    struct arena a;
    i64 most = 0;
    int rc;
    snprintf(number, sizeof number, "%lld", (long long)step);
    arena_init(&a);
    for (i64 i = 0; i < m->n; i++)
        most += m->shard[i].boxes;
    struct safetensors_tensor *t = ARENA_ARRAY(&a, struct safetensors_tensor, most);
    i64 n = list_params(m, t);
    TRY_TO(done, safetensors_create(&w, path, t, n, &meta, 1));
    for (i64 i = 0; i < n; i++)
        TRY_TO(done, put_tensor(&w, &t[i], dir, step));
    rc = safetensors_commit(&w);
done:
    arena_fini(&a);
    return rc;
}

/* The file of a single rank has all that is wanted but the step. */
static int export_file(const char *dir, i64 step, const char *path)
{
    char from[CHECKPOINT_PATH];
    struct safetensors s;
    TRY(checkpoint_path(from, dir, step, "/param.safetensors"));
    int rc = safetensors_open(&s, from);
    if (rc == OK)
        rc = copy_tensors(&s, step, path);
    safetensors_close(&s);
    return rc;
}

int checkpoint_export(const char *dir, i64 step, const char *path)
{
    char finding[FINDING] = "";
    struct checkpoint_manifest m;
    int damage = checkpoint_verify(dir, step, keep_finding, finding);
    if (damage < 0)
        return damage;
    if (damage > 0)
        return err_set(ERR_FORMAT, "%s: not exported", finding);
    int rc = checkpoint_read_manifest(&m, dir, step);
    if (rc == OK)
        rc = m.n > 0 && m.shard[0].box ? export_boxes(&m, dir, step, path)
                                       : export_file(dir, step, path);
    checkpoint_manifest_fini(&m);
    return rc;
}
