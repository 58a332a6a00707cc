/* backend/selftest.h - does this backend compute what the ops say, on this machine?
 *
 * Two independent questions, asked of every example of every op:
 *
 *   kernels    does the backend's kernel give what the reference gives? At odd shapes, in
 *              f32 and bf16, error scaled to the reference's norm; with the same bits at 1
 *              to 4 threads, when it overwrites and when it adds, and when its output takes
 *              the place of an input; from outputs and scratch full of NaN, leaving inputs
 *              and the bytes behind its scratch alone.
 *   gradients  is the gradient rule the derivative of the op? By directional finite
 *              differences in double, through the reference kernels.
 *
 * A new op is found through op_table. What fails is told by ERR_NUMERIC in one sentence. */
#ifndef HEADWAY_SELFTEST_H
#define HEADWAY_SELFTEST_H

#include "backend/backend.h"

enum { SELFTEST_THREADS = 4 };

struct selftest {
    const struct backend *backend;
    struct pool *pools[SELFTEST_THREADS]; /* of 1, 2, ... threads */
    i64 checks;                           /* tensors compared, slopes checked */
    double worst;                         /* largest error so far, as share of its bound */
    const char *worst_op; /* where: op, example, dtype */
    int worst_example;
    enum dtype worst_dtype;
};

int selftest_init(struct selftest *s, const struct backend *backend);
void selftest_fini(struct selftest *s);

/* Ops without a reference (load_batch) pass. */
int selftest_kernels(struct selftest *s, const struct op_info *op);
/* The backend must be able to run f64: reference. Ops without a gradient rule pass. */
int selftest_gradients(struct selftest *s, const struct op_info *op);

/* Kernels of all ops, stopping at the first failure. */
int selftest_all_kernels(struct selftest *s);
int selftest_all_gradients(struct selftest *s);

#endif
