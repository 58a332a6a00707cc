/* Reading memory with this set's registers. */
#include "backend/cpu/stream.h"

#include "backend/cpu/vec.h"

/* Eight sums, so that no load waits for an addition. */
u64 NAMED(stream_read)(const void *data, i64 bytes)
{
    const vec_u32 *v = data;
    vec_u32 sum[8] = { { 0 } };
    for (i64 i = 0; i + 8 <= bytes / (VL * 4); i += 8)
        for (int k = 0; k < 8; k++)
            sum[k] += v[i + k];
    u64 total = 0;
    for (int k = 0; k < 8; k++)
        for (int lane = 0; lane < VL; lane++)
            total += sum[k][lane];
    return total;
}
