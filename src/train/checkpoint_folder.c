#include "train/checkpoint_folder.h"

#include "base/err.h"
#include "base/log.h"
#include "base/sys.h"
#include "train/checkpoint.h"
#include "train/checkpoint_read.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int checkpoint_path(char path[CHECKPOINT_PATH], const char *dir, i64 step, const char *rest)
{
    int n = snprintf(path, CHECKPOINT_PATH, "%s/step-%lld%s", dir, (long long)step, rest);
    return n < CHECKPOINT_PATH ? OK : err_set(ERR_LIMIT, "path too long: %.200s...", dir);
}

int checkpoint_make_folder(const char *dir)
{
    char part[CHECKPOINT_PATH];
    size_t n = strlen(dir), slash = 0;
    if (n == 0 || n >= sizeof part)
        return err_set(ERR_USAGE, "the checkpoint folder's name is empty or too long");
    for (size_t i = 1; i <= n; i++) {
        if (dir[i] != '/' && dir[i] != '\0')
            continue;
        memcpy(part, dir, i);
        part[i] = '\0';
        if (!sys_exists(part)) {
            if (sys_mkdir(part, 0777) != 0 && errno != EEXIST)
                return err_set(ERR_SYS, "create folder %s: %s", part, strerror(errno));
            part[slash ? slash : 1] = '\0'; /* "a" is in ".", "/a" in "/", "b/a" in "b" */
            if (sys_fsync_dir(slash || dir[0] == '/' ? part : ".") != 0)
                return err_set(ERR_SYS, "make folder %s durable: %s", dir, strerror(errno));
        }
        slash = i;
    }
    return OK;
}

/* "step-120" is 120; anything else, leading zeros included, is -1. */
static i64 parse_step(const char *name)
{
    char again[40];
    long long step;
    if (sscanf(name, "step-%18lld", &step) != 1 || step < 0)
        return -1;
    snprintf(again, sizeof again, "step-%lld", step);
    return strcmp(name, again) == 0 ? step : -1;
}

static int by_value(const void *a, const void *b)
{
    i64 x = *(const i64 *)a, y = *(const i64 *)b;
    return (x > y) - (x < y);
}

i64 checkpoint_steps(const char *dir, i64 **steps)
{
    char **names;
    i64 found = 0;
    *steps = NULL;
    int n = sys_list(dir, &names);
    if (n < 0 && errno == ENOENT)
        return 0;
    if (n < 0)
        return err_set(ERR_SYS, "list %s: %s", dir, strerror(errno));
    *steps = sys_alloc(n * (i64)sizeof **steps, 16);
    if (!*steps) {
        sys_free(names);
        return err_set(ERR_LIMIT, "no memory to list %s", dir);
    }
    for (int i = 0; i < n; i++)
        if (parse_step(names[i]) >= 0)
            (*steps)[found++] = parse_step(names[i]);
    sys_free(names);
    if (found > 0)
        qsort(*steps, (size_t)found, sizeof **steps, by_value);
    return found;
}

static bool is_leftover(const char *name)
{
    size_t n = strlen(name);
    return n > 9 && strncmp(name, "step-", 5) == 0 &&
           (strcmp(name + n - 4, ".tmp") == 0 || strcmp(name + n - 4, ".del") == 0);
}

int checkpoint_clean(const char *dir)
{
    char **names, path[CHECKPOINT_PATH];
    int rc = OK, n = sys_list(dir, &names);
    if (n < 0)
        return err_set(ERR_SYS, "list %s: %s", dir, strerror(errno));
    for (int i = 0; i < n && rc == OK; i++) {
        if (!is_leftover(names[i]))
            continue;
        if (snprintf(path, sizeof path, "%s/%s", dir, names[i]) >= (int)sizeof path)
            rc = err_set(ERR_LIMIT, "path too long: %.200s...", dir);
        else if (sys_remove_tree(path) != 0)
            rc = err_set(ERR_SYS, "remove %s, left by an interrupted save: %s", path,
                         strerror(errno));
    }
    sys_free(names);
    return rc;
}

int checkpoint_delete(const char *dir, i64 step)
{
    char path[CHECKPOINT_PATH], gone[CHECKPOINT_PATH];
    TRY(checkpoint_path(path, dir, step, ""));
    TRY(checkpoint_path(gone, dir, step, ".del"));
    if (sys_rename(path, gone) != 0)
        return err_set(ERR_SYS, "rename %s to be deleted: %s", path, strerror(errno));
    /* Durable before the first file goes: else a crash could show step-N half empty. */
    if (sys_fsync_dir(dir) != 0 || sys_remove_tree(gone) != 0)
        return err_set(ERR_SYS, "delete %s: %s", gone, strerror(errno));
    return OK;
}

int checkpoint_set_aside(const char *dir, i64 step)
{
    char path[CHECKPOINT_PATH], aside[CHECKPOINT_PATH], rest[32] = ".damaged";
    TRY(checkpoint_path(path, dir, step, ""));
    TRY(checkpoint_path(aside, dir, step, rest));
    for (int i = 2; sys_exists(aside); i++) {
        snprintf(rest, sizeof rest, ".damaged-%d", i);
        TRY(checkpoint_path(aside, dir, step, rest));
    }
    if (sys_rename(path, aside) != 0)
        return err_set(ERR_SYS, "rename %s, which is damaged: %s", path, strerror(errno));
    if (sys_fsync_dir(dir) != 0)
        return err_set(ERR_SYS, "fsync %s: %s", dir, strerror(errno));
    log_line(LOG_WARN, "%s is damaged: set aside as step-%lld%s, which can be deleted", path,
             (long long)step, rest);
    return OK;
}

int checkpoint_peek(const char *dir, i64 step, i64 *bytes, double *saved_at)
{
    struct checkpoint_manifest m;
    char path[CHECKPOINT_PATH];
    int rc = checkpoint_read_manifest(&m, dir, step);
    *bytes = 0;
    *saved_at = m.saved_at;
    for (i64 i = 0; i < m.n && rc == OK; i++) {
        char rest[256];
        snprintf(rest, sizeof rest, "/%s", m.shard[i].file);
        TRY_TO(done, checkpoint_path(path, dir, step, rest));
        i64 size = sys_file_bytes(path);
        if (size < 0)
            rc = err_set(errno == ENOENT ? ERR_FORMAT : ERR_SYS, "%s: %s", path,
                         strerror(errno));
        else if (size != m.shard[i].bytes)
            rc = err_set(ERR_FORMAT, "%s: %lld bytes instead of %lld", path, (long long)size,
                         (long long)m.shard[i].bytes);
        *bytes += m.shard[i].bytes;
    }
done:
    checkpoint_manifest_fini(&m);
    return rc;
}
