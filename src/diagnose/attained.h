/* diagnose/attained.h - what a run's kernels attained beyond the ceilings that were measured for it.
 *
 * A ceiling that a kernel goes beyond is none. There are two reasons. The peak was probed while others
 * had the processor, or its clock was low: then products that take a good part of the time show a
 * higher one, and that counts instead, for all of the rank's; where it is the dtype that products are
 * to have, for the others as well, which were probed beside it and may have no such witness (else what
 * computes in them seemed to be slow by its dtype). Or what a kernel reads lies in a cache, where
 * memory's rate is no limit: then what it attained is the ceiling of this kernel alone.
 *
 * A kernel is all tasks of one op, phase and dtype. Its times are those that the ladder judges (t f u,
 * diagnose/usual_time.h), of the best steps but for a few, and only of those in which least had to be
 * put right; peaks are of times as they were, which nothing makes too short. So noise moves neither,
 * and shares of a ceiling stay below one but for noise. */
#ifndef HEADWAY_DIAGNOSE_ATTAINED_H
#define HEADWAY_DIAGNOSE_ATTAINED_H

#include "diagnose/computing.h"

struct attained_peak {
    int rank, dtype;
    double ratio; /* over the peak that was measured, of times as they are */
};

struct attained_kernel {
    u64 key;
    double speed; /* of the rank then (f u); of a settled one the fastest */
    double by_flops, by_bytes; /* its FLOPs, its bytes at the ceilings, over what it took */
};

/* All zero but for the arena (the caller's) to begin with. */
struct attained {
    struct arena *arena;
    struct attained_peak *peaks; /* of ranks and steps; once settled for each, by rank and dtype */
    i64 n_peaks, room_peaks;
    struct attained_kernel *kernels; /* of steps, at the best rank; once settled those that go
                                      * beyond, by key */
    i64 n_kernels, room_kernels;
};

/* A step's, whose seconds are t f u; speed[c->n_ranks]: f u of each. */
void attained_add(struct attained *a, const struct computing *c, const double *speed);
/* What another one has, which is not settled. */
void attained_take(struct attained *a, const struct attained *other);
void attained_settle(struct attained *a);

/* Of the run's precision (enum dtype). */
int attained_dtype_in_use(const struct record_head *h);
/* FLOP/s of the rank for this dtype (enum dtype), at least what was measured; 0: not known. */
double attained_peak(const struct attained *a, const struct record_head *h, int dtype);
/* How many times faster than its ceilings the task's kernel is; at least 1. */
double attained_beyond(const struct attained *a, const struct record_task *t);

#endif
