/* backend/cpu/amx_panel.h - tiles as the panels of amx have them: 16 vectors of 16 words, which are
 * rows of A, or steps of B. */
#ifndef HEADWAY_AMX_PANEL_H
#define HEADWAY_AMX_PANEL_H

#include "base/base.h"

#include <string.h>

#define INLINE static inline __attribute__((always_inline))

enum { HALF = 16, TILE = HALF * HALF };

typedef u32 vec __attribute__((vector_size(64)));
typedef u16 narrow_vec __attribute__((vector_size(32)));

INLINE void store_tile(u32 *tile, const vec v[HALF])
{
#pragma GCC unroll 16
    for (int i = 0; i < HALF; i++)
        memcpy(tile + i * HALF, &v[i], sizeof v[i]);
}

/* v[i] lane j and v[j] lane i change places: words of neighbours, then pairs, fours, eights. */
INLINE void transpose(vec v[HALF])
{
    vec t[HALF];
#pragma GCC unroll 8
    for (int i = 0; i < HALF; i += 2) {
        t[i] = __builtin_shufflevector(v[i], v[i + 1], 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26,
                                       12, 28, 14, 30);
        t[i + 1] = __builtin_shufflevector(v[i], v[i + 1], 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11,
                                           27, 13, 29, 15, 31);
    }
#pragma GCC unroll 16
    for (int i = 0; i < HALF; i++)
        v[i] = i & 2 ? __builtin_shufflevector(t[i - 2], t[i], 2, 3, 18, 19, 6, 7, 22, 23, 10, 11,
                                               26, 27, 14, 15, 30, 31)
                     : __builtin_shufflevector(t[i], t[i + 2], 0, 1, 16, 17, 4, 5, 20, 21, 8, 9,
                                               24, 25, 12, 13, 28, 29);
#pragma GCC unroll 16
    for (int i = 0; i < HALF; i++)
        t[i] = i & 4 ? __builtin_shufflevector(v[i - 4], v[i], 4, 5, 6, 7, 20, 21, 22, 23, 12, 13,
                                               14, 15, 28, 29, 30, 31)
                     : __builtin_shufflevector(v[i], v[i + 4], 0, 1, 2, 3, 16, 17, 18, 19, 8, 9,
                                               10, 11, 24, 25, 26, 27);
#pragma GCC unroll 16
    for (int i = 0; i < HALF; i++)
        v[i] = i & 8 ? __builtin_shufflevector(t[i - 8], t[i], 8, 9, 10, 11, 12, 13, 14, 15, 24,
                                               25, 26, 27, 28, 29, 30, 31)
                     : __builtin_shufflevector(t[i], t[i + 8], 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18,
                                               19, 20, 21, 22, 23);
}

#endif
