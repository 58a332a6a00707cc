/* backend/cpu/amx.h - the mode in which tile registers work, for the kernels that use them. */
#ifndef HEADWAY_AMX_H
#define HEADWAY_AMX_H

#include "base/base.h"

#include <immintrin.h>

/* All eight registers: 16 rows of 64 bytes (Intel SDM, LDTILECFG). Constant, since gcc 12 holds
 * that the instruction reads the first 8 bytes only, and leaves out what is stored to the
 * others. */
static const struct {
    u8 palette, start_row, unused[14];
    u16 bytes_per_row[16];
    u8 rows[16];
} amx_shapes = {
    .palette = 1,
    .bytes_per_row = { 64, 64, 64, 64, 64, 64, 64, 64 },
    .rows = { 16, 16, 16, 16, 16, 16, 16, 16 },
};

/* Around a thread's work; without it every instruction on tiles is a fault. */
static inline void amx_begin(void)
{
    _tile_loadconfig(&amx_shapes);
}

static inline void amx_end(void)
{
    _mm_sfence(); /* of what was stored past the caches, before others are told of it */
    _tile_release();
}

/* In front of loads of tiles from what was just stored: gcc 12 does not know that they read. */
static inline __attribute__((always_inline)) void amx_order(void)
{
    __asm__ volatile("" : : : "memory");
}

#endif
