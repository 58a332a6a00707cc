/* base/dtype.h - number formats: names, sizes, conversion of bf16.
 *
 * Precision is a run-time property of a tensor. bf16 is the upper half of an IEEE
 * single; conversion rounds to nearest, ties to even, and keeps NaN a NaN. */
#ifndef HEADWAY_DTYPE_H
#define HEADWAY_DTYPE_H

#include "base/base.h"

#include <string.h>

enum dtype { DTYPE_F32, DTYPE_BF16, DTYPE_F16, DTYPE_F64, DTYPE_I32, DTYPE_I64, DTYPE_U8, DTYPES };

typedef u16 bf16;

static inline i64 dtype_bytes(enum dtype d)
{
    static const i64 bytes[DTYPES] = { 4, 2, 2, 8, 4, 8, 1 };
    return bytes[d];
}

/* "f32", "bf16", ... as recipes and tables spell them. */
const char *dtype_name(enum dtype d);

static inline float bf16_to_f32(bf16 h)
{
    u32 bits = (u32)h << 16;
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

static inline bf16 bf16_from_f32(float f)
{
    u32 bits;
    memcpy(&bits, &f, 4);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (bf16)(bits >> 16 | 0x40); /* quiet NaN */
    return (bf16)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

/* Element i of an array of any dtype, as double; integers too. */
double dtype_get(enum dtype d, const void *data, i64 i);
/* Rounds to the dtype. */
void dtype_set(enum dtype d, void *data, i64 i, double value);

#endif
