/* tests/backend/vec_probe.h - vec.h applied to arrays, once per instruction set, so that a
 * test compiled for none of them can look. n is a multiple of 64. */
#ifndef HEADWAY_VEC_PROBE_H
#define HEADWAY_VEC_PROBE_H

#include "base/dtype.h"

struct vec_probe {
    const char *backend; /* the machine must support it */
    int lanes;
    void (*exp2)(float *y, const float *x, i64 n);
    void (*exp)(float *y, const float *x, i64 n);
    void (*sigmoid)(float *y, const float *x, i64 n);
    void (*normal)(float *y, const float *x, i64 n);
    void (*sqrt)(float *y, const float *x, i64 n);
    void (*narrow)(bf16 *y, const float *x, i64 n);
    void (*widen)(float *y, const bf16 *x, i64 n);
    /* The first n < lanes elements only, through the functions for tails. */
    void (*copy_some)(float *y, const float *x, i64 n);
    void (*copy_some_half)(bf16 *y, const bf16 *x, i64 n);
    float (*sum)(const float *x);                /* of one vector */
    float (*largest)(const float *x);
    void (*transpose)(float *square);            /* lanes x lanes */
};

extern const struct vec_probe vec_probe_generic;
#if defined(__x86_64__)
extern const struct vec_probe vec_probe_avx2, vec_probe_avx512, vec_probe_wide;
#endif

#endif
