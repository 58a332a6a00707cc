#include "data/inputs.h"

#include "base/err.h"
#include "base/log.h"
#include "base/sys.h"

#include <errno.h>
#include <string.h>

enum { DEEPEST = 64 };

/* A folder that is being walked, and those above it. */
struct place {
    dev_t device;
    ino_t inode;
    const char *path;
    const struct place *above;
    int depth;
};

static void add(struct inputs *list, i64 *capacity, const struct input *input,
                struct arena *a)
{
    if (list->count == *capacity) {
        struct input *old = list->at;
        *capacity = i64_max(64, 2 * *capacity);
        list->at = ARENA_ARRAY(a, struct input, *capacity);
        if (old)
            memcpy(list->at, old, sizeof *old * (size_t)list->count);
    }
    list->at[list->count++] = *input;
    if (input->bytes < 0 || list->bytes < 0)
        list->bytes = -1;
    else
        list->bytes += input->bytes;
}

/* The folder above that this one is, by a link; NULL if it is none of them. */
static const struct place *same_above(const struct place *here)
{
    for (const struct place *p = here->above; p; p = p->above)
        if (p->device == here->device && p->inode == here->inode)
            return p;
    return NULL;
}

static int add_path(struct inputs *list, i64 *capacity, const char *path,
                    const struct place *above, struct arena *a);

static int add_folder(struct inputs *list, i64 *capacity, const struct place *here,
                      struct arena *a)
{
    char **names;
    int rc = OK;
    const struct place *same = same_above(here);
    if (same) {
        log_line(LOG_WARN, "%s is left out: this link leads back to %s", here->path, same->path);
        return OK;
    }
    if (here->depth == DEEPEST)
        return err_set(ERR_LIMIT, "%s lies more than %d folders deep; give the folders below it "
                       "themselves", here->path, DEEPEST);
    int n = sys_list(here->path, &names);
    if (n < 0)
        return err_set(ERR_SYS, "list %s: %s", here->path, strerror(errno));
    for (int i = 0; i < n && rc == OK; i++)
        if (names[i][0] != '.')
            rc = add_path(list, capacity, arena_printf(a, "%s/%s", here->path, names[i]), here,
                          a);
    sys_free(names);
    return rc;
}

static int add_path(struct inputs *list, i64 *capacity, const char *path,
                    const struct place *above, struct arena *a)
{
    struct stat st;
    if (strcmp(path, "-") == 0) {
        add(list, capacity, &(struct input){ path, -1, 0 }, a);
        return OK;
    }
    if (sys_stat(path, &st) != 0)
        return err_set(ERR_SYS, "read %s: %s", path, strerror(errno));
    if (S_ISDIR(st.st_mode)) {
        const struct place here = { st.st_dev, st.st_ino, path, above,
                                    above ? above->depth + 1 : 0 };
        return add_folder(list, capacity, &here, a);
    }
    i64 mtime_ns = (i64)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
    if (S_ISREG(st.st_mode))
        add(list, capacity, &(struct input){ path, st.st_size, mtime_ns }, a);
    else if (!above) /* a pipe that was named, not a socket found in a folder */
        add(list, capacity, &(struct input){ path, -1, 0 }, a);
    return OK;
}

int inputs_find(struct inputs *out, const char *const *paths, i64 n, struct arena *a)
{
    i64 capacity = 0;
    *out = (struct inputs){ 0 };
    for (i64 i = 0; i < n; i++)
        TRY(add_path(out, &capacity, arena_strdup(a, paths[i]), NULL, a));
    if (out->count == 0)
        return err_set(ERR_USAGE, "no files in %s", n > 0 ? paths[0] : "an empty list");
    return OK;
}
