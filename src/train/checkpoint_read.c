#include "train/checkpoint_read.h"

#include "base/err.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/sys.h"
#include "train/checkpoint.h"
#include "train/checkpoint_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

enum { MAX_MANIFEST = 256 << 20 };

int checkpoint_open_file(const char *path)
{
    return sys_open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0);
}

/* --- the manifest ---------------------------------------------------------------- */

static int read_all(struct text *out, const char *path)
{
    char part[1 << 14];
    i64 n;
    int fd = checkpoint_open_file(path);
    if (fd < 0) /* missing, or a link: the checkpoint is not what it was */
        return err_set(errno == ENOENT || errno == ELOOP ? ERR_FORMAT : ERR_SYS, "open %s: %s",
                       path, strerror(errno));
    while ((n = sys_read_full(fd, part, sizeof part)) > 0 && out->length < MAX_MANIFEST)
        text_add_bytes(out, part, n);
    int rc = n < 0   ? err_set(ERR_SYS, "read %s: %s", path, strerror(errno))
             : n > 0 ? err_set(ERR_LIMIT, "%s exceeds %d MiB", path, MAX_MANIFEST >> 20)
                     : OK;
    sys_close(fd);
    return rc;
}

int checkpoint_read_manifest(struct checkpoint_manifest *m, const char *dir, i64 step)
{
    char path[CHECKPOINT_PATH];
    struct text text = { 0 };
    *m = (struct checkpoint_manifest){ 0 };
    TRY(checkpoint_path(path, dir, step, "/manifest.json"));
    int rc = read_all(&text, path);
    if (rc == OK)
        rc = checkpoint_manifest_parse(m, text.data ? text.data : "", text.length, path);
    if (rc == OK && m->step != step)
        rc = err_set(ERR_FORMAT, "%s: belongs to step %lld", path, (long long)m->step);
    text_fini(&text);
    return rc;
}

/* --- one file -------------------------------------------------------------------- */

static int tell(const struct checkpoint_reader *r, const struct checkpoint_shard *s, int code,
                i64 chunk, const char *problem)
{
    return r->tell(r->context, code, r->step, s->file, chunk, problem);
}

static int read_chunks(const struct checkpoint_reader *r, const struct checkpoint_shard *s,
                       int fd, struct sha256 *hash, i64 *bad)
{
    char problem[128];
    for (i64 i = 0; i < s->chunks; i++) {
        i64 offset = i * CHECKPOINT_CHUNK, n = i64_min(CHECKPOINT_CHUNK, s->bytes - offset);
        if (r->need && !r->need[i])
            continue;
        bool jump = r->need && i > 0 && !r->need[i - 1];
        i64 got = jump && sys_seek(fd, offset, SEEK_SET) < 0 ? -1
                                                              : sys_read_full(fd, r->chunk, n);
        if (got < 0) {
            snprintf(problem, sizeof problem, "cannot be read: %s", strerror(errno));
            *bad += 1;
            return tell(r, s, ERR_SYS, i, problem);
        }
        if (!r->proven && !r->need)
            sha256_add(hash, r->chunk, got);
        if (got < n) {
            snprintf(problem, sizeof problem, "truncated at byte %lld of %lld",
                     (long long)(offset + got), (long long)s->bytes);
            *bad += 1;
            return tell(r, s, ERR_FORMAT, i, problem);
        }
        if (crc32c(0, r->chunk, n) != s->crc[i]) {
            snprintf(problem, sizeof problem, "damaged between byte %lld and %lld",
                     (long long)offset, (long long)(offset + n));
            *bad += 1;
            TRY(tell(r, s, ERR_FORMAT, i, problem));
        } else if (r->take) {
            r->take(r->context, offset, r->chunk, n);
        }
    }
    return OK;
}

static int read_shard(const struct checkpoint_reader *r, const struct checkpoint_shard *s, int fd)
{
    struct sha256 hash;
    char hex[65];
    u8 extra;
    i64 bad = 0;
    sha256_init(&hash);
    int rc = read_chunks(r, s, fd, &hash, &bad);
    sha256_fini(&hash, hex);
    if (rc < 0 || bad > 0 || r->need)
        return rc;
    if (sys_read_full(fd, &extra, 1) > 0)
        return tell(r, s, ERR_FORMAT, -1, "longer than it was written");
    if (!r->proven && strcmp(hex, s->sha256) != 0) /* a change that leaves every CRC32C right */
        return tell(r, s, ERR_FORMAT, -1, "its SHA-256 does not match");
    return OK;
}

int checkpoint_read_shard(const struct checkpoint_reader *r, const struct checkpoint_shard *s)
{
    char path[CHECKPOINT_PATH], rest[256], problem[128];
    snprintf(rest, sizeof rest, "/%s", s->file);
    TRY(checkpoint_path(path, r->dir, r->step, rest));
    int fd = checkpoint_open_file(path);
    if (fd < 0) {
        bool missing = errno == ENOENT || errno == ELOOP;
        snprintf(problem, sizeof problem, "cannot be opened: %s", strerror(errno));
        return tell(r, s, missing ? ERR_FORMAT : ERR_SYS, -1, problem);
    }
    int rc = read_shard(r, s, fd);
    sys_close(fd);
    return rc;
}

/* --- lists ----------------------------------------------------------------------- */

int checkpoint_list(const char *dir, struct checkpoint_entry **entries)
{
    i64 *steps, n = checkpoint_steps(dir, &steps);
    *entries = NULL;
    if (n < 0)
        return (int)n;
    *entries = sys_alloc(n * (i64)sizeof **entries, 16);
    for (i64 i = 0; i < n && *entries; i++) {
        struct checkpoint_entry *e = &(*entries)[i];
        e->step = steps[i];
        e->valid = checkpoint_peek(dir, e->step, &e->bytes, &e->saved_at) == OK;
    }
    sys_free(steps);
    return *entries ? (int)n : err_set(ERR_LIMIT, "no memory to list %s", dir);
}

int checkpoint_latest(const char *dir, i64 *step)
{
    i64 *steps, bytes, n = checkpoint_steps(dir, &steps);
    double saved_at;
    *step = -1;
    if (n < 0)
        return (int)n;
    int rc = OK;
    for (i64 i = n - 1; i >= 0 && *step < 0 && rc == OK; i--) {
        rc = checkpoint_peek(dir, steps[i], &bytes, &saved_at);
        if (rc == OK)
            *step = steps[i];
        else if (rc == ERR_FORMAT)
            rc = OK; /* damaged: an older one counts */
    }
    sys_free(steps);
    return rc;
}

int checkpoint_newest(const char *dir, i64 *step)
{
    i64 *steps, bytes, n = checkpoint_steps(dir, &steps);
    double saved_at;
    char why[512];
    *step = -1;
    if (n < 0)
        return (int)n;
    const i64 newest = n > 0 ? steps[n - 1] : -1;
    sys_free(steps);
    int rc = newest < 0 ? OK : checkpoint_peek(dir, newest, &bytes, &saved_at);
    if (rc != ERR_FORMAT) {
        *step = newest;
        return rc;
    }
    snprintf(why, sizeof why, "%s", err_message());
    TRY(checkpoint_latest(dir, step));
    if (*step < 0)
        return err_set(rc, "%s; no older checkpoint is sound", why);
    return err_set(rc, "%s; the newest sound one before it is step %lld: name %s/step-%lld to take "
                   "that", why, (long long)*step, dir, (long long)*step);
}

int checkpoint_state(const char *dir, i64 step, json_t **state)
{
    struct checkpoint_manifest m;
    int rc = checkpoint_read_manifest(&m, dir, step);
    if (rc == OK)
        *state = json_incref(m.state);
    checkpoint_manifest_fini(&m);
    return rc;
}

/* --- verify ---------------------------------------------------------------------- */

struct verify {
    checkpoint_report report;
    void *context;
    int findings;
};

static int count_finding(void *context, int code, i64 step, const char *file, i64 chunk,
                         const char *problem)
{
    struct verify *v = context;
    (void)code; /* unreadable or damaged: a finding either way */
    v->findings++;
    if (v->report)
        v->report(v->context, step, file, chunk, problem);
    return OK;
}

static int verify_step(const char *dir, i64 step, u8 *chunk, struct verify *v)
{
    struct checkpoint_manifest m;
    struct checkpoint_reader r = { .dir = dir, .step = step, .chunk = chunk,
                                   .tell = count_finding, .context = v };
    int rc = checkpoint_read_manifest(&m, dir, step);
    if (rc < 0) {
        checkpoint_manifest_fini(&m);
        return count_finding(v, rc, step, "manifest.json", -1, err_message());
    }
    for (i64 i = 0; i < m.n && rc == OK; i++)
        rc = checkpoint_read_shard(&r, &m.shard[i]);
    checkpoint_manifest_fini(&m);
    return rc;
}

int checkpoint_verify(const char *dir, i64 step, checkpoint_report report, void *context)
{
    struct verify v = { report, context, 0 };
    i64 *steps, n = checkpoint_steps(dir, &steps);
    if (n < 0)
        return (int)n;
    u8 *chunk = sys_alloc(CHECKPOINT_CHUNK, 4096);
    bool seen = false;
    int rc = chunk ? OK : err_set(ERR_LIMIT, "no memory to verify %s", dir);
    for (i64 i = 0; i < n && rc == OK; i++) {
        if (step >= 0 && steps[i] != step)
            continue;
        seen = true;
        rc = verify_step(dir, steps[i], chunk, &v);
    }
    if (rc == OK && step >= 0 && !seen)
        rc = err_set(ERR_USAGE, "%s has no checkpoint of step %lld", dir, (long long)step);
    sys_free(chunk);
    sys_free(steps);
    return rc < 0 ? rc : v.findings;
}
