/* tests/support/cut_short.h - data that a failing disk or a hasty user takes away. */
#ifndef HEADWAY_TEST_CUT_SHORT_H
#define HEADWAY_TEST_CUT_SHORT_H

#include "base/sys.h"
#include "test.h"

#include <fcntl.h>
#include <stdio.h>

/* Every file of a folder loses its last three quarters. */
static inline void cut_short(const char *folder)
{
    char **names, path[512];
    int n = sys_list(folder, &names);
    CHECK(n > 0);
    for (int i = 0; i < n; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        int fd = sys_open(path, O_RDWR, 0);
        CHECK(sys_truncate(fd, sys_file_bytes(path) / 4) == 0);
        sys_close(fd);
    }
    sys_free(names);
}

#endif
