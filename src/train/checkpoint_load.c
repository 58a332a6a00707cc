#include "base/err.h"
#include "base/log.h"
#include "base/sys.h"
#include "model/safetensors.h"
#include "train/checkpoint.h"
#include "train/checkpoint_folder.h"
#include "train/checkpoint_read.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Bytes [begin, begin + bytes) of a file belong at data. */
struct span {
    i64 begin, bytes;
    u8 *data;
};

/* One file of which tensors are wanted. */
struct source {
    const struct checkpoint_shard *shard;
    struct span *span; /* ascending */
    i64 n, next;       /* next: the first that does not end before the chunk at hand */
};

struct load {
    const char *dir;
    i64 step;
    const struct checkpoint_tensor **tensor; /* sorted by name */
    i64 n;
    struct checkpoint_manifest manifest;
    struct source *source; /* one per prefix asked for */
    i64 sources;
    u8 *chunk;
    struct arena arena;
};

static int by_name(const void *a, const void *b)
{
    const struct checkpoint_tensor *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

static int stop_at_damage(void *context, int code, i64 step, const char *file, i64 chunk,
                          const char *problem)
{
    (void)context;
    if (chunk < 0)
        return err_set(code, "step-%lld/%s: %s", (long long)step, file, problem);
    return err_set(code, "step-%lld/%s: chunk %lld: %s", (long long)step, file,
                   (long long)chunk, problem);
}

/* --- which files ----------------------------------------------------------------- */

static int add_source(struct load *l, const char *name, i64 prefix)
{
    for (i64 i = 0; i < l->manifest.n; i++) {
        const char *file = l->manifest.shard[i].file;
        if (strncmp(file, name, (size_t)prefix) == 0 &&
            strcmp(file + prefix, ".safetensors") == 0) {
            l->source[l->sources++].shard = &l->manifest.shard[i];
            return OK;
        }
    }
    return err_set(ERR_MODEL, "step-%lld has no %.*s.safetensors: it was saved with other "
                   "settings, such as another optimizer", (long long)l->step, (int)prefix, name);
}

static int find_sources(struct load *l)
{
    l->source = ARENA_ARRAY(&l->arena, struct source, l->n);
    for (i64 i = 0; i < l->n; i++) {
        const char *name = l->tensor[i]->name;
        const char *before = i ? l->tensor[i - 1]->name : "";
        i64 prefix = strchr(name, '/') - name;
        if (strncmp(before, name, (size_t)prefix + 1) != 0) /* sorted: equal ones adjoin */
            TRY(add_source(l, name, prefix));
    }
    return OK;
}

/* --- which bytes ----------------------------------------------------------------- */

static int mismatch(const struct load *l, const struct source *s, const char *name,
                    const char *why)
{
    return err_set(ERR_MODEL, "step-%lld/%s: tensor \"%s\" %s: this run has another model or "
                   "optimizer", (long long)l->step, s->shard->file, name, why);
}

static const struct checkpoint_tensor *wanted(const struct load *l, const char *name)
{
    const struct checkpoint_tensor key = { .name = name }, *at = &key;
    const struct checkpoint_tensor **found =
        bsearch(&at, l->tensor, (size_t)l->n, sizeof at, by_name);
    return found ? *found : NULL;
}

static int check_none_missing(const struct load *l, const struct source *s,
                              const struct safetensors *file, i64 prefix)
{
    for (i64 i = 0; i < l->n; i++) {
        const char *name = l->tensor[i]->name;
        if (strncmp(name, s->shard->file, (size_t)prefix) == 0 && name[prefix] == '/' &&
            !safetensors_find(file, name + prefix + 1))
            return mismatch(l, s, name + prefix + 1, "is missing there");
    }
    return OK;
}

static int match_tensors(struct load *l, struct source *s, const struct safetensors *file)
{
    i64 prefix = (i64)strlen(s->shard->file) - (i64)strlen(".safetensors");
    s->span = ARENA_ARRAY(&l->arena, struct span, file->n);
    for (i64 i = 0; i < file->n; i++) {
        const struct safetensors_tensor *t = &file->tensor[i];
        const char *name = arena_printf(&l->arena, "%.*s/%s", (int)prefix, s->shard->file,
                                        t->name);
        const struct checkpoint_tensor *to = wanted(l, name);
        if (!to)
            return mismatch(l, s, t->name, "is not wanted here");
        bool same = to->rank == t->rank && (int)to->dtype == t->dtype;
        for (int d = 0; same && d < t->rank; d++)
            same = to->dim[d] == t->dim[d];
        if (!same)
            return mismatch(l, s, t->name, "has another type or shape");
        s->span[s->n++] = (struct span){ file->data_begin + t->begin, t->bytes, to->data };
    }
    return check_none_missing(l, s, file, prefix);
}

static int read_header(struct load *l, struct source *s, int fd, const char *path)
{
    u64 length;
    if (sys_read_full(fd, &length, 8) != 8 || length > SAFETENSORS_MAX_HEADER ||
        (i64)length > s->shard->bytes - 8)
        return err_set(ERR_FORMAT, "%s: not a safetensors file", path);
    u8 *head = arena_alloc(&l->arena, (i64)length + 8);
    memcpy(head, &length, 8);
    if (sys_read_full(fd, head + 8, (i64)length) != (i64)length)
        return err_set(ERR_FORMAT, "%s: truncated", path);
    struct safetensors file;
    int rc = safetensors_parse_header(&file, head, (i64)length + 8, s->shard->bytes);
    if (rc < 0)
        err_context(rc, "%s", path);
    else
        rc = match_tensors(l, s, &file);
    safetensors_close(&file);
    return rc;
}

static int match_source(struct load *l, struct source *s)
{
    char path[CHECKPOINT_PATH], rest[256];
    snprintf(rest, sizeof rest, "/%s", s->shard->file);
    TRY(checkpoint_path(path, l->dir, l->step, rest));
    int fd = checkpoint_open_file(path);
    if (fd < 0)
        return err_set(ERR_SYS, "open %s: %s", path, strerror(errno));
    int rc = read_header(l, s, fd, path);
    sys_close(fd);
    return rc;
}

/* --- verify, then copy ----------------------------------------------------------- */

/* Copies what the chunk holds of each tensor; chunks come in order. */
static void scatter(void *context, i64 offset, const u8 *data, i64 bytes)
{
    struct source *s = context;
    while (s->next < s->n && s->span[s->next].begin + s->span[s->next].bytes <= offset)
        s->next++;
    for (i64 i = s->next; i < s->n && s->span[i].begin < offset + bytes; i++) {
        const struct span *p = &s->span[i];
        i64 from = i64_max(p->begin, offset);
        i64 to = i64_min(p->begin + p->bytes, offset + bytes);
        if (to > from)
            memcpy(p->data + (from - p->begin), data + (from - offset), (size_t)(to - from));
    }
}

static int read_sources(struct load *l, bool copy)
{
    struct checkpoint_reader r = { .dir = l->dir, .step = l->step, .chunk = l->chunk,
                                   .tell = stop_at_damage };
    for (i64 i = 0; i < l->sources; i++) {
        r.take = copy ? scatter : NULL;
        r.proven = copy;
        r.context = &l->source[i];
        TRY(checkpoint_read_shard(&r, l->source[i].shard));
    }
    return OK;
}

/* The second reading checks again: a file that changed in between is told, though by then
 * the tensors are lost. */
static int load_tensors(struct load *l)
{
    TRY(find_sources(l));
    TRY(read_sources(l, false));
    for (i64 i = 0; i < l->sources; i++)
        TRY(match_source(l, &l->source[i]));
    int rc = read_sources(l, true);
    if (rc < 0) /* not ERR_FORMAT: an older checkpoint must not be tried by itself */
        return err_context(ERR_SYS, "changed while it was being loaded");
    return OK;
}

static int load_step(const char *dir, i64 step, const struct checkpoint_tensor **sorted, i64 n,
                     json_t **state)
{
    struct load l = { .dir = dir, .step = step, .tensor = sorted, .n = n };
    arena_init(&l.arena);
    int rc = checkpoint_read_manifest(&l.manifest, dir, step);
    if (rc == OK && !(l.chunk = sys_alloc(CHECKPOINT_CHUNK, 4096)))
        rc = err_set(ERR_LIMIT, "no memory to load %s", dir);
    if (rc == OK)
        rc = load_tensors(&l);
    if (rc == OK && state)
        *state = json_incref(l.manifest.state);
    sys_free(l.chunk);
    checkpoint_manifest_fini(&l.manifest);
    arena_fini(&l.arena);
    return rc;
}

/* --- which step ------------------------------------------------------------------ */

/* Appends to the message at hand which older checkpoint can be loaded instead. */
static int name_fallback(int code, const char *dir, i64 step)
{
    char message[512];
    i64 *steps, n = checkpoint_steps(dir, &steps), sound = -1;
    snprintf(message, sizeof message, "%s", err_message());
    for (i64 i = n - 1; i >= 0 && sound < 0; i--)
        if (steps[i] < step && checkpoint_verify(dir, steps[i], NULL, NULL) == 0)
            sound = steps[i];
    sys_free(steps);
    if (sound < 0)
        return err_set(code, "%s; no older checkpoint is sound", message);
    return err_set(code, "%s; the newest sound one before it is step %lld", message,
                   (long long)sound);
}

static int load_newest(const char *dir, i64 *step, const struct checkpoint_tensor **sorted,
                       i64 n, json_t **state)
{
    i64 *steps, count = checkpoint_steps(dir, &steps);
    int rc = count < 0 ? (int)count : ERR_FORMAT;
    if (count == 0)
        rc = err_set(ERR_USAGE, "%s has no checkpoint", dir);
    for (i64 i = count - 1; i >= 0 && rc == ERR_FORMAT; i--) {
        *step = steps[i];
        rc = load_step(dir, *step, sorted, n, state);
        if (rc == ERR_FORMAT)
            log_line(LOG_WARN, "%s: passed over: %s", dir, err_message());
    }
    if (rc == ERR_SYS)
        rc = name_fallback(rc, dir, *step);
    sys_free(steps);
    return rc == ERR_FORMAT ? err_set(rc, "%s has no sound checkpoint; the oldest: %s", dir,
                                      err_message())
                            : rc;
}

int checkpoint_load(const char *dir, i64 *step, const struct checkpoint_tensor *tensors, i64 n,
                    json_t **state)
{
    struct arena a;
    int rc;
    arena_init(&a);
    const struct checkpoint_tensor **sorted = ARENA_ARRAY(&a, const struct checkpoint_tensor *, n);
    for (i64 i = 0; i < n; i++)
        sorted[i] = &tensors[i];
    if (n > 0)
        qsort(sorted, (size_t)n, sizeof *sorted, by_name);
    if (*step == CHECKPOINT_NEWEST) {
        rc = load_newest(dir, step, sorted, n, state);
    } else {
        rc = load_step(dir, *step, sorted, n, state);
        if (rc == ERR_FORMAT || rc == ERR_SYS)
            rc = name_fallback(rc, dir, *step);
    }
    arena_fini(&a);
    return rc;
}
