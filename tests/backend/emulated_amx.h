/* Included in front of kernels that use AMX, to run them on machines without it: the
 * instructions on tile registers of 16 rows of 64 bytes, as plain loops. */
#ifndef HEADWAY_EMULATED_AMX_H
#define HEADWAY_EMULATED_AMX_H

#include <immintrin.h> /* first: these names must win */
#include <stdint.h>
#include <string.h>

/* A planted fault: of each 24 multiplications, as a group of products of split fp32 has them, four
 * are left out, the i-th four. -1: none. */
__attribute__((weak)) int amx_left_out = -1;

/* Per thread. */
static _Thread_local struct {
    union {
        float f32[16][16];
        uint32_t words[16][16];
    } tile[8];
    uint8_t shapes[64]; /* of LDTILECFG; zeros: released */
    int multiplications;
} amx;

/* What the instructions refuse to do without a shape. */
static __attribute__((unused)) void amx_check(int t)
{
    if (amx.shapes[0] != 1 || amx.shapes[16 + 2 * t] != 64 || amx.shapes[48 + t] != 16)
        __builtin_trap();
}

static __attribute__((unused)) void amx_load(int t, const void *from, long stride)
{
    amx_check(t);
    for (int r = 0; r < 16; r++)
        memcpy(amx.tile[t].words[r], (const char *)from + r * stride, 64);
}

static __attribute__((unused)) void amx_store(int t, void *to, long stride)
{
    amx_check(t);
    for (int r = 0; r < 16; r++)
        memcpy((char *)to + r * stride, amx.tile[t].words[r], 64);
}

/* A bf16 in the low or high half of a word; subnormals are zero. */
static __attribute__((unused)) float amx_number(uint32_t word, int high)
{
    uint32_t bits = high ? word & 0xffff0000u : word << 16;
    float x;
    if (!(bits & 0x7f800000u))
        bits &= 0x80000000u;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* The Intel SDM's TDPBF16PS, but for subnormal sums. */
static __attribute__((unused)) void amx_multiply(int c, int a, int b)
{
    amx_check(c);
    amx_check(a);
    amx_check(b);
    if (amx.multiplications++ % 24 / 4 == amx_left_out)
        return;
    for (int m = 0; m < 16; m++)
        for (int n = 0; n < 16; n++) {
            float even = 0, odd = 0;
            for (int k = 0; k < 16; k++) {
                const uint32_t x = amx.tile[a].words[m][k], y = amx.tile[b].words[k][n];
                even = __builtin_fmaf(amx_number(x, 0), amx_number(y, 0), even);
                odd = __builtin_fmaf(amx_number(x, 1), amx_number(y, 1), odd);
            }
            amx.tile[c].f32[m][n] += even + odd;
        }
}

/* Traps where the processor would not: whoever configures twice forgot to release. */
static __attribute__((unused)) void amx_configure(const void *shapes)
{
    if (amx.shapes[0] != 0)
        __builtin_trap();
    memcpy(amx.shapes, shapes, sizeof amx.shapes);
    memset(amx.tile, 0, sizeof amx.tile);
    amx.multiplications = 0;
}

static __attribute__((unused)) void amx_release(void)
{
    if (amx.shapes[0] != 1)
        __builtin_trap();
    memset(&amx, 0xff, sizeof amx);
    amx.shapes[0] = 0;
}

static __attribute__((unused)) void amx_zero(int t)
{
    amx_check(t);
    memset(&amx.tile[t], 0, sizeof amx.tile[t]);
}

#undef _tile_zero
#undef _tile_loadd
#undef _tile_stream_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#define _tile_loadconfig(shapes) amx_configure(shapes)
#define _tile_release() amx_release()
#define _tile_zero(t) amx_zero(t)
#define _tile_loadd(t, from, stride) amx_load(t, from, stride)
#define _tile_stream_loadd(t, from, stride) amx_load(t, from, stride)
#define _tile_stored(t, to, stride) amx_store(t, to, stride)
#define _tile_dpbf16ps(c, a, b) amx_multiply(c, a, b)

#endif
