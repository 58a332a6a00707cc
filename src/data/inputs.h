/* data/inputs.h - the files that a list of paths stands for.
 *
 * A folder stands for all ordinary files below it, sorted by name level by level, without
 * those whose name begins with a dot. A link to a folder above itself is left out, and the log
 * says so. "-" is standard input. The order is always the
 * same. */
#ifndef HEADWAY_DATA_INPUTS_H
#define HEADWAY_DATA_INPUTS_H

#include "base/arena.h"

struct input {
    const char *path;
    i64 bytes;    /* -1: a pipe, unknown */
    i64 mtime_ns; /* so that a changed file is noticed when work is resumed */
};

struct inputs {
    struct input *at;
    i64 count;
    i64 bytes; /* of all; -1 when one is unknown */
};

/* Paths that do not exist are an error, as is finding nothing at all. */
int inputs_find(struct inputs *out, const char *const *paths, i64 n, struct arena *a);

#endif
