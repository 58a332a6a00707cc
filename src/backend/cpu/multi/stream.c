/* Reading memory with this set's registers. */
#include "backend/cpu/stream.h"

#include "backend/cpu/vec.h"

/* Where the compiler must believe that a value is used: a register, or without knowing the
 * machine's names for them, memory. */
#if defined(__x86_64__) && !defined(ISA_wide)
#define USED_IN "x"
#else
#define USED_IN "m"
#endif

/* Loads and nothing else: additions would share their ports, and their sum's lanes would
 * cost as much as reading 10 KiB. */
void NAMED(stream_read)(const void *data, i64 bytes)
{
    const vec_u32 *v = data;
    for (i64 i = 0; i + 8 <= bytes / (VL * 4); i += 8)
        for (int k = 0; k < 8; k++) {
            vec_u32 loaded = v[i + k];
            __asm__ volatile("" : : USED_IN(loaded));
        }
}
