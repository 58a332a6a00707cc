/* report/kernels.h - what the kernels of some steps took, and what they had to do: the points of a
 * roofline. Tasks of the compute lane with the same op, phase and dtype are one kernel. */
#ifndef HEADWAY_KERNELS_H
#define HEADWAY_KERNELS_H

#include "base/json.h"
#include "diagnose/record.h"

enum { KERNELS_MOST = 256 };

struct kernel_use {
    const char *op; /* borrowed from the record */
    int phase, dtype;
    bool again;     /* computed again (recompute) */
    double calls, seconds, flops, model_flops, bytes;
};

struct kernels {
    struct kernel_use at[KERNELS_MOST];
    i64 n;
    double left_out; /* seconds of kernels beyond them */
};

/* Adds a rank's spans of one step. */
void kernels_add(struct kernels *k, const struct record_rank *rank);
/* An array, the longest first. Sums are over all ranks and steps that were added. */
void kernels_put(struct kernels *k, struct json *j);

#endif
