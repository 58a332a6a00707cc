/* model/safetensors_format.h - the format names of safetensors and our dtypes.
 *
 * Private to model/safetensors*.c. */
#ifndef HEADWAY_SAFETENSORS_FORMAT_H
#define HEADWAY_SAFETENSORS_FORMAT_H

#include "base/base.h"

struct safetensors_format {
    const char *name;
    i64 bytes;
    int dtype; /* -1: none of ours */
};

/* A row of one table, in ascending order of width: files hold the tensors of later rows
 * (of higher addresses) first. */
const struct safetensors_format *safetensors_format_of(int dtype);

#endif
