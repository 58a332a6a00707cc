/* base/base.h - integer types and the few macros that everything shares.
 *
 * The rest of base is one header per idea (err, arena, sys, pool, ...). Include this
 * one first; it includes nothing of ours. */
#ifndef HEADWAY_BASE_H
#define HEADWAY_BASE_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef int8_t i8;
typedef int16_t i16;
typedef int32_t i32;
typedef int64_t i64;
typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

#define COUNT_OF(a) ((i64)(sizeof(a) / sizeof((a)[0])))
#define PRINTF_LIKE(fmt, first) __attribute__((format(printf, fmt, first)))

static inline i64 i64_min(i64 a, i64 b) { return a < b ? a : b; }
static inline i64 i64_max(i64 a, i64 b) { return a > b ? a : b; }
static inline i64 ceil_div(i64 a, i64 b) { return (a + b - 1) / b; }
static inline i64 round_up(i64 a, i64 b) { return ceil_div(a, b) * b; }

/* Sizes that come from a file are multiplied and added only here: true on overflow
 * or on a negative operand, and then *out is untouched. */
static inline bool size_mul(i64 a, i64 b, i64 *out)
{
    i64 r;
    if (a < 0 || b < 0 || __builtin_mul_overflow(a, b, &r))
        return true;
    *out = r;
    return false;
}

static inline bool size_add(i64 a, i64 b, i64 *out)
{
    i64 r;
    if (a < 0 || b < 0 || __builtin_add_overflow(a, b, &r))
        return true;
    *out = r;
    return false;
}

#endif
