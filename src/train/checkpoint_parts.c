#include "train/checkpoint_parts.h"

#include "base/err.h"
#include "base/sys.h"
#include "train/checkpoint_cover.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

enum { LOOK_NS = 2000000, MAX_NOTE = 256 << 20 };

static int note_path(char path[CHECKPOINT_PATH], const char *dir, i64 step, u64 ticket, int rank,
                     const char *ending)
{
    char rest[64];
    snprintf(rest, sizeof rest, "/rank-%d.%s", rank, ending);
    return checkpoint_temporary(path, dir, step, ticket, rest);
}

/* --- telling ------------------------------------------------------------------------ */

int checkpoint_part_done(const struct checkpoint_image *image, const char *dir, i64 step,
                         u64 ticket, int *cause)
{
    char folder[CHECKPOINT_PATH], path[CHECKPOINT_PATH], done[CHECKPOINT_PATH], who[80];
    struct text text = { 0 };
    *cause = 0;
    TRY(checkpoint_temporary(folder, dir, step, ticket, ""));
    TRY(note_path(path, dir, step, ticket, image->rank, "part"));
    TRY(note_path(done, dir, step, ticket, image->rank, "done"));
    snprintf(who, sizeof who, "{\"rank\": %d, \"ticket\": \"%llx\"}", image->rank,
             (unsigned long long)ticket);
    checkpoint_manifest_write(&text, step, sys_wall_seconds(), image->shard, image->n, who);
    int rc = checkpoint_put_file(path, text.data, text.length, cause);
    text_fini(&text);
    TRY(rc);
    if (sys_fsync_dir(folder) == 0 && sys_rename(path, done) == 0)
        return OK;
    *cause = errno;
    return err_set(ERR_SYS, "tell that the files in %s are durable: %s", folder,
                   strerror(errno));
}

void checkpoint_part_failed(const struct checkpoint_image *image, const char *dir, i64 step,
                            u64 ticket, const char *why)
{
    char path[CHECKPOINT_PATH], failed[CHECKPOINT_PATH];
    int cause;
    if (note_path(path, dir, step, ticket, image->rank, "why") < 0 ||
        note_path(failed, dir, step, ticket, image->rank, "failed") < 0)
        return;
    checkpoint_put_file(path, why, (i64)strlen(why), &cause); /* its name is enough */
    sys_rename(path, failed);
}

/* --- waiting ------------------------------------------------------------------------ */

/* Why that rank failed, in its own words where they were written. */
static int tell_failure(const char *path, int rank)
{
    char why[400] = "";
    int fd = sys_open(path, O_RDONLY | O_NOFOLLOW, 0);
    i64 n = fd < 0 ? 0 : sys_read_full(fd, why, sizeof why - 1);
    if (fd >= 0)
        sys_close(fd);
    why[i64_max(n, 0)] = '\0';
    return err_set(ERR_SYS, "rank %d could not write its part%s%s", rank, *why ? ": " : "", why);
}

/* Waits for the note of one rank. */
static int wait_for(int rank, const char *dir, i64 step, u64 ticket,
                    const struct checkpoint_patience *patience)
{
    char done[CHECKPOINT_PATH], failed[CHECKPOINT_PATH];
    TRY(note_path(done, dir, step, ticket, rank, "done"));
    TRY(note_path(failed, dir, step, ticket, rank, "failed"));
    for (;;) {
        bool last = !patience->goes_on(patience->context); /* asked first, to look once more */
        if (sys_exists(done))
            return OK;
        if (sys_exists(failed))
            return tell_failure(failed, rank);
        if (last)
            return err_set(ERR_SYS, "rank %d has not written its part", rank);
        sys_sleep_ns(LOOK_NS);
    }
}

/* --- joining ------------------------------------------------------------------------ */

static int read_part(struct checkpoint_manifest *m, int rank, const char *dir, i64 step,
                     u64 ticket)
{
    char path[CHECKPOINT_PATH], hex[24];
    i64 bytes;
    TRY(note_path(path, dir, step, ticket, rank, "done"));
    snprintf(hex, sizeof hex, "%llx", (unsigned long long)ticket);
    char *text = sys_map_file(path, &bytes);
    if (!text)
        return err_set(ERR_SYS, "read %s: %s", path, strerror(errno));
    int rc = bytes > MAX_NOTE ? err_set(ERR_LIMIT, "%s exceeds %d MiB", path, MAX_NOTE >> 20)
                              : checkpoint_manifest_parse(m, text, bytes, path);
    sys_unmap(text, bytes);
    TRY(rc);
    const char *of = json_string_value(json_object_get(m->state, "ticket"));
    if (m->step != step || !of || strcmp(of, hex) != 0 ||
        json_integer_value(json_object_get(m->state, "rank")) != rank)
        return err_set(ERR_FORMAT, "%s belongs to another checkpoint", path);
    if (sys_unlink(path) != 0)
        return err_set(ERR_SYS, "delete %s: %s", path, strerror(errno));
    return OK;
}

/* All shards side by side, the leading rank's first. */
static struct checkpoint_shard *join(const struct checkpoint_image *own,
                                     const struct checkpoint_manifest *part, struct arena *a,
                                     i64 *n)
{
    i64 total = own->n;
    for (int r = 1; r < own->ranks; r++)
        total += part[r].n;
    struct checkpoint_shard *all = ARENA_ARRAY(a, struct checkpoint_shard, total + 1);
    for (*n = 0; *n < own->n; ++*n)
        all[*n] = own->shard[*n];
    for (int r = 1; r < own->ranks; r++)
        for (i64 i = 0; i < part[r].n; i++)
            all[(*n)++] = part[r].shard[i];
    return all;
}

int checkpoint_parts_commit(const struct checkpoint_image *own, const char *dir, i64 step,
                            u64 ticket, const char *state,
                            const struct checkpoint_patience *patience, int *cause)
{
    struct arena a;
    i64 n;
    int rc = OK;
    *cause = 0;
    arena_init(&a);
    struct checkpoint_manifest *part = ARENA_ARRAY(&a, struct checkpoint_manifest, own->ranks);
    for (int r = 1; r < own->ranks && rc == OK; r++)
        rc = wait_for(r, dir, step, ticket, patience);
    for (int r = 1; r < own->ranks && rc == OK; r++)
        rc = read_part(&part[r], r, dir, step, ticket);
    struct checkpoint_shard *all = join(own, part, &a, &n);
    if (rc == OK)
        rc = checkpoint_check_covers(all, n);
    if (rc == OK)
        rc = checkpoint_commit(dir, step, ticket, all, n, state, cause);
    for (int r = 1; r < own->ranks; r++)
        checkpoint_manifest_fini(&part[r]);
    arena_fini(&a);
    return rc;
}
