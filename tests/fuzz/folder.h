/* tests/fuzz/folder.h - a folder in memory whose files are what is tried, for readers that take
 * paths. One per process. */
#ifndef HEADWAY_FUZZ_FOLDER_H
#define HEADWAY_FUZZ_FOLDER_H

#include "base/err.h"
#include "base/sys.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char fuzz_folder_path[64];

/* Files are gone behind each input. */
static inline void fuzz_folder_remove(void)
{
    sys_rmdir(fuzz_folder_path);
}

static inline const char *fuzz_folder(void)
{
    if (!fuzz_folder_path[0]) {
        snprintf(fuzz_folder_path, sizeof fuzz_folder_path, "/dev/shm/headway-fuzz-%d",
                 (int)getpid());
        if (sys_mkdirs(fuzz_folder_path) != 0)
            err_panic("no folder %s", fuzz_folder_path);
        atexit(fuzz_folder_remove);
    }
    return fuzz_folder_path;
}

static inline const char *fuzz_path(const char *name)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", fuzz_folder(), name);
    return path;
}

/* Such a file; bytes < 0: none. */
static inline void fuzz_file(const char *name, const void *data, i64 bytes)
{
    const char *path = fuzz_path(name);
    sys_unlink(path);
    if (bytes < 0)
        return;
    int fd = sys_open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || sys_write_full(fd, data, bytes) != 0)
        err_panic("cannot write %s", path);
    sys_close(fd);
}

/* At the end of each input. */
static inline void fuzz_folder_end(const char *const *names, i64 n)
{
    for (i64 i = 0; i < n; i++)
        fuzz_file(names[i], NULL, -1);
}

#endif
