#include "base/err.h"
#include "base/log.h"
#include "base/sys.h"
#include "model/safetensors.h"
#include "train/checkpoint.h"
#include "train/checkpoint_cover.h"
#include "train/checkpoint_folder.h"
#include "train/checkpoint_read.h"
#include "train/checkpoint_span.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One file of which tensors may be wanted. */
struct source {
    struct checkpoint_shard *shard;
    i64 *begin; /* of each of its boxes in the file; NULL before the header was read */
    struct checkpoint_span *span;
    i64 n, room;
    u8 *need; /* chunks with wanted bytes; NULL: all of them */
};

/* Where a box is. */
struct place {
    const struct checkpoint_box *box;
    struct source *source;
};

struct load {
    const char *dir;
    i64 step;
    const struct checkpoint_tensor **tensor; /* sorted by name */
    i64 n;
    bool part;
    struct checkpoint_manifest manifest;
    struct source *source; /* every file of the prefixes asked for */
    i64 sources;
    struct place *place; /* of every box in them, sorted by prefix and name */
    i64 places;
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

static int add_sources(struct load *l, const char *name, i64 prefix)
{
    i64 before = l->sources;
    for (i64 i = 0; i < l->manifest.n; i++) {
        const char *of = l->manifest.shard[i].prefix;
        if ((i64)strlen(of) == prefix && strncmp(of, name, (size_t)prefix) == 0)
            l->source[l->sources++].shard = &l->manifest.shard[i];
    }
    if (l->sources > before)
        return OK;
    return err_set(ERR_MODEL, "step-%lld has no %.*s.safetensors: it was saved with other "
                   "settings, such as another optimizer", (long long)l->step, (int)prefix, name);
}

static int find_sources(struct load *l)
{
    l->source = ARENA_ARRAY(&l->arena, struct source, l->manifest.n);
    for (i64 i = 0; i < l->n; i++) {
        const char *name = l->tensor[i]->name;
        const char *before = i ? l->tensor[i - 1]->name : "";
        i64 prefix = strchr(name, '/') - name;
        if (strncmp(before, name, (size_t)prefix + 1) != 0) /* sorted: equal ones adjoin */
            TRY(add_sources(l, name, prefix));
    }
    return OK;
}

/* --- headers --------------------------------------------------------------------- */

/* The first bytes of a file, from chunks that are proven. */
struct head {
    u8 *data;
    i64 bytes, room;
};

static void take_head(void *context, i64 offset, const u8 *data, i64 bytes)
{
    struct head *h = context;
    i64 n = i64_min(bytes, h->room - offset);
    if (n > 0)
        memcpy(h->data + offset, data, (size_t)n);
    h->bytes = i64_max(h->bytes, offset + n);
}

/* Reads and proves the first `bytes` bytes. stop_at_damage does not look at the context. */
static int read_head(struct load *l, const struct checkpoint_shard *s, i64 bytes, struct head *h)
{
    u8 *need = ARENA_ARRAY(&l->arena, u8, s->chunks + 1);
    *h = (struct head){ arena_alloc(&l->arena, bytes), 0, bytes };
    memset(need, 1, (size_t)i64_min(s->chunks, ceil_div(bytes, CHECKPOINT_CHUNK)));
    const struct checkpoint_reader r = { .dir = l->dir, .step = l->step, .chunk = l->chunk,
                                         .need = need, .take = take_head,
                                         .tell = stop_at_damage, .context = h };
    return checkpoint_read_shard(&r, s);
}

static int mismatch(const struct load *l, const struct source *s, const char *name,
                    const char *why)
{
    return err_set(ERR_MODEL, "step-%lld/%s: tensor \"%s\" %s: this run has another model or "
                   "optimizer", (long long)l->step, s->shard->file, name, why);
}

/* A file of one rank: each of its tensors is a whole one. */
static int boxes_of_header(struct load *l, struct source *s, const struct safetensors *file)
{
    struct checkpoint_shard *h = s->shard;
    h->box = ARENA_ARRAY(&l->arena, struct checkpoint_box, file->n);
    for (; h->boxes < file->n; h->boxes++) {
        const struct safetensors_tensor *t = &file->tensor[h->boxes];
        struct checkpoint_box *b = &h->box[h->boxes];
        if (t->rank > CHECKPOINT_RANK || t->dtype < 0)
            return mismatch(l, s, t->name, "has another type or shape");
        *b = (struct checkpoint_box){ .name = arena_strdup(&l->arena, t->name),
                                      .dtype = (enum dtype)t->dtype, .rank = t->rank };
        memcpy(b->dim, t->dim, sizeof *t->dim * (size_t)t->rank);
        memcpy(b->whole, t->dim, sizeof *t->dim * (size_t)t->rank);
        s->begin[h->boxes] = file->data_begin + t->begin;
    }
    return OK;
}

/* A file of one of several ranks: it must have what the manifest says. */
static int find_boxes(struct load *l, struct source *s, const struct safetensors *file)
{
    for (i64 i = 0; i < s->shard->boxes; i++) {
        const struct checkpoint_box *b = &s->shard->box[i];
        const char *name = checkpoint_box_name(b, &l->arena);
        const struct safetensors_tensor *t = safetensors_find(file, name);
        if (!t || t->rank != b->rank || t->dtype != (int)b->dtype ||
            memcmp(t->dim, b->dim, sizeof *b->dim * (size_t)b->rank) != 0)
            return err_set(ERR_FORMAT, "step-%lld/%s: has no %s as manifest.json says",
                           (long long)l->step, s->shard->file, name);
        s->begin[i] = file->data_begin + t->begin;
    }
    return OK;
}

static int read_header(struct load *l, struct source *s)
{
    const char *name = s->shard->file;
    struct head head;
    u64 length = 0;
    if (s->begin)
        return OK;
    TRY(read_head(l, s->shard, i64_min(8, s->shard->bytes), &head));
    memcpy(&length, head.data, (size_t)head.bytes);
    if (head.bytes < 8 || length > SAFETENSORS_MAX_HEADER || (i64)length > s->shard->bytes - 8)
        return err_set(ERR_FORMAT, "step-%lld/%s: not a safetensors file", (long long)l->step,
                       name);
    TRY(read_head(l, s->shard, (i64)length + 8, &head));
    struct safetensors file;
    int rc = safetensors_parse_header(&file, head.data, head.bytes, s->shard->bytes);
    if (rc < 0) {
        err_context(rc, "step-%lld/%s", (long long)l->step, name);
    } else {
        s->begin = ARENA_ARRAY(&l->arena, i64, i64_max(file.n, s->shard->boxes) + 1);
        rc = s->shard->box ? find_boxes(l, s, &file) : boxes_of_header(l, s, &file);
    }
    safetensors_close(&file);
    return rc;
}

/* --- which boxes ----------------------------------------------------------------- */

static int compare(const char *prefix, const char *name, const char *prefix2, const char *name2)
{
    int order = strcmp(prefix, prefix2);
    return order ? order : strcmp(name, name2);
}

static int by_tensor(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    return compare(x->source->shard->prefix, x->box->name, y->source->shard->prefix,
                   y->box->name);
}

static void list_places(struct load *l)
{
    i64 total = 0;
    for (i64 i = 0; i < l->sources; i++)
        total += l->source[i].shard->boxes;
    l->place = ARENA_ARRAY(&l->arena, struct place, total);
    for (i64 i = 0; i < l->sources; i++)
        for (i64 k = 0; k < l->source[i].shard->boxes; k++)
            l->place[l->places++] =
                (struct place){ &l->source[i].shard->box[k], &l->source[i] };
    if (total > 0)
        qsort(l->place, (size_t)total, sizeof *l->place, by_tensor);
}

/* The boxes of the tensor that is called so: first and count among places. */
static i64 find_places(const struct load *l, const char *full, i64 *count)
{
    i64 prefix = strchr(full, '/') - full, low = 0, high = l->places;
    char of[CHECKPOINT_PATH];
    snprintf(of, sizeof of, "%.*s", (int)prefix, full);
    const char *name = full + prefix + 1;
    while (low < high) {
        i64 middle = (low + high) / 2;
        const struct place *p = &l->place[middle];
        if (compare(p->source->shard->prefix, p->box->name, of, name) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    for (*count = 0; low + *count < l->places; ++*count) {
        const struct place *p = &l->place[low + *count];
        if (compare(p->source->shard->prefix, p->box->name, of, name) != 0)
            break;
    }
    return low;
}

static bool same_whole(const struct checkpoint_tensor *to, const struct checkpoint_box *b)
{
    const i64 *whole = checkpoint_is_box(to) ? to->whole : to->dim;
    return to->rank == b->rank && to->dtype == b->dtype &&
           memcmp(whole, b->whole, sizeof *whole * (size_t)b->rank) == 0;
}

static void add_span(struct load *l, struct source *s, const struct checkpoint_span *span)
{
    if (s->n == s->room) {
        struct checkpoint_span *old = s->span;
        s->room = i64_max(16, 2 * s->room);
        s->span = ARENA_ARRAY(&l->arena, struct checkpoint_span, s->room);
        if (s->n > 0)
            memcpy(s->span, old, sizeof *old * (size_t)s->n);
    }
    s->span[s->n++] = *span;
}

/* The tensor's boxes [0, n) in the files: whole together, of the shape that it has here. */
static int check_boxes(struct load *l, const struct checkpoint_tensor *to,
                       const struct place *place, i64 n)
{
    const struct checkpoint_box **box = ARENA_ARRAY(&l->arena, const struct checkpoint_box *, n);
    for (i64 i = 0; i < n; i++)
        box[i] = place[i].box;
    if (!same_whole(to, box[0]))
        return mismatch(l, place[0].source, box[0]->name, "has another type or shape");
    int rc = checkpoint_check_cover(box, n, place[0].source->shard->prefix);
    return rc < 0 ? err_context(rc, "step-%lld", (long long)l->step) : OK;
}

/* The first file of the tensor's prefix; find_sources saw to it that there is one. */
static struct source *source_of(const struct load *l, const char *full)
{
    size_t prefix = (size_t)(strchr(full, '/') - full);
    struct source *s = l->source;
    while (strlen(s->shard->prefix) != prefix || strncmp(s->shard->prefix, full, prefix) != 0)
        s++;
    return s;
}

static int match_tensor(struct load *l, const struct checkpoint_tensor *to)
{
    i64 n, first = find_places(l, to->name, &n);
    struct checkpoint_span span;
    if (n == 0)
        return mismatch(l, source_of(l, to->name), strchr(to->name, '/') + 1, "is missing there");
    TRY(check_boxes(l, to, &l->place[first], n));
    for (i64 i = first; i < first + n; i++) {
        struct source *s = l->place[i].source;
        i64 index = l->place[i].box - s->shard->box;
        if (!checkpoint_span_make(&span, l->place[i].box, 0, to))
            continue;
        TRY(read_header(l, s));
        checkpoint_span_make(&span, l->place[i].box, s->begin[index], to);
        add_span(l, s, &span);
    }
    return OK;
}

static bool is_wanted(const struct load *l, const struct place *p)
{
    char full[CHECKPOINT_PATH];
    const struct checkpoint_tensor key = { .name = full }, *at = &key;
    snprintf(full, sizeof full, "%s/%s", p->source->shard->prefix, p->box->name);
    return bsearch(&at, l->tensor, (size_t)l->n, sizeof at, by_name) != NULL;
}

static int match_tensors(struct load *l)
{
    for (i64 i = 0; i < l->sources; i++)
        if (!l->source[i].shard->box)
            TRY(read_header(l, &l->source[i]));
    list_places(l);
    for (i64 i = 0; i < l->places && !l->part; i++)
        if (!is_wanted(l, &l->place[i]))
            return mismatch(l, l->place[i].source, l->place[i].box->name, "is not wanted here");
    for (i64 i = 0; i < l->n; i++)
        TRY(match_tensor(l, l->tensor[i]));
    return OK;
}

/* --- verify, then copy ----------------------------------------------------------- */

static void scatter(void *context, i64 offset, const u8 *data, i64 bytes)
{
    const struct source *s = context;
    for (i64 i = 0; i < s->n; i++)
        checkpoint_span_copy(&s->span[i], offset, data, bytes);
}

static int read_sources(struct load *l, bool copy)
{
    struct checkpoint_reader r = { .dir = l->dir, .step = l->step, .chunk = l->chunk,
                                   .tell = stop_at_damage };
    for (i64 i = 0; i < l->sources; i++) {
        if (l->part && l->source[i].n == 0)
            continue;
        r.take = copy ? scatter : NULL;
        r.proven = copy;
        r.need = l->source[i].need;
        r.context = &l->source[i];
        TRY(checkpoint_read_shard(&r, l->source[i].shard));
    }
    return OK;
}

/* Chunks without a wanted byte need not be read. */
static void mark_needs(struct load *l)
{
    for (i64 i = 0; i < l->sources; i++) {
        struct source *s = &l->source[i];
        i64 needed = 0;
        s->need = ARENA_ARRAY(&l->arena, u8, s->shard->chunks + 1);
        for (i64 k = 0; k < s->n; k++)
            checkpoint_span_mark(&s->span[k], s->need);
        for (i64 k = 0; k < s->shard->chunks; k++)
            needed += s->need[k];
        if (needed == s->shard->chunks)
            s->need = NULL;
    }
}

/* Who wants all of the files believes nothing in them before all of it is proven. */
static int prove(struct load *l)
{
    TRY(find_sources(l));
    if (!l->part) {
        TRY(read_sources(l, false));
        return match_tensors(l);
    }
    TRY(match_tensors(l));
    mark_needs(l);
    return read_sources(l, false);
}

/* The second reading checks again: a file that changed in between is told, though by then
 * the tensors are lost. */
static int copy(struct load *l)
{
    if (read_sources(l, true) < 0) /* not ERR_FORMAT: an older checkpoint must not be tried */
        return err_context(ERR_SYS, "changed while it was being loaded");
    return OK;
}

/* What all ranks say together, after this one has proven its part or failed to. */
static int agree(const struct checkpoint_want *want, int rc)
{
    int worst = want->agree ? want->agree(want->context, rc) : rc;
    return worst < 0 && rc >= 0 ? err_set(worst, "another rank could not load it") : worst;
}

static int load_step(const char *dir, i64 step, const struct checkpoint_want *want,
                     const struct checkpoint_tensor **sorted, json_t **state)
{
    struct load l = { .dir = dir, .step = step, .tensor = sorted, .n = want->n,
                      .part = want->part };
    arena_init(&l.arena);
    int rc = checkpoint_read_manifest(&l.manifest, dir, step);
    if (rc == OK && !(l.chunk = sys_alloc(CHECKPOINT_CHUNK, 4096)))
        rc = err_set(ERR_LIMIT, "no memory to load %s", dir);
    if (rc == OK)
        rc = prove(&l);
    rc = agree(want, rc);
    if (rc == OK)
        rc = copy(&l);
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

static int load_newest(const char *dir, i64 *step, const struct checkpoint_want *want,
                       const struct checkpoint_tensor **sorted, json_t **state)
{
    i64 *steps, count = checkpoint_steps(dir, &steps);
    int rc = count < 0 ? (int)count : ERR_FORMAT;
    if (count == 0)
        rc = err_set(ERR_USAGE, "%s has no checkpoint", dir);
    for (i64 i = count - 1; i >= 0 && rc == ERR_FORMAT; i--) {
        *step = steps[i];
        rc = load_step(dir, *step, want, sorted, state);
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

static const struct checkpoint_tensor **sort(const struct checkpoint_want *want, struct arena *a)
{
    const struct checkpoint_tensor **sorted =
        ARENA_ARRAY(a, const struct checkpoint_tensor *, want->n);
    for (i64 i = 0; i < want->n; i++)
        sorted[i] = &want->tensors[i];
    if (want->n > 0)
        qsort(sorted, (size_t)want->n, sizeof *sorted, by_name);
    return sorted;
}

int checkpoint_load(const char *dir, i64 *step, const struct checkpoint_tensor *tensors, i64 n,
                    json_t **state)
{
    const struct checkpoint_want want = { .tensors = tensors, .n = n };
    struct arena a;
    int rc;
    arena_init(&a);
    const struct checkpoint_tensor **sorted = sort(&want, &a);
    if (*step == CHECKPOINT_NEWEST) {
        rc = load_newest(dir, step, &want, sorted, state);
    } else {
        rc = load_step(dir, *step, &want, sorted, state);
        if (rc == ERR_FORMAT || rc == ERR_SYS)
            rc = name_fallback(rc, dir, *step);
    }
    arena_fini(&a);
    return rc;
}

int checkpoint_load_part(const char *dir, i64 step, const struct checkpoint_want *want,
                         json_t **state)
{
    struct arena a;
    arena_init(&a);
    int rc = load_step(dir, step, want, sort(want, &a), state);
    arena_fini(&a);
    return rc;
}
