/* backend/cpu/gemm_kernel_amx.c - 32 x 32 tiles of C in four tile registers of 16 x 16.
 *
 * A tile register has 16 rows of 64 bytes. tdpbf16ps multiplies a tile of A (16 rows, 32 values
 * of k side by side) by one of B (16 steps of 16 columns, each word a pair k, k + 1) in 16
 * cycles, 16 times what vfmadd does. So a panel is made of *groups* of 16 steps, each two tiles
 * of 1 KiB one behind the other; missing rows and steps are zeros.
 *
 * Of the four tiles that a group needs, those of B stay in L1 from one panel of A to the next, 24
 * of its 48 KiB (NEAR steps): beside a whole panel of 768 values of k the stores of sums find no
 * line there, and products with so many take 1.25 times as long. tileloaddt1 asks that A's, used
 * once, do not push them out. What is fetched ahead goes to L2 only, and lines of C are not
 * fetched: both would take from the loads of tiles, which need half of all that L1 can have on its
 * way.
 *
 * What is stored to C waits for memory as long as a whole micro tile takes to multiply, so it is
 * done while the next one is multiplied (amx_tail.h). Between blocks of k sums come back into
 * tile registers and the chain goes on.
 *
 * An element of a group is (the 16 products of even k, ascending, from zero) + (those of odd k),
 * added to the sum; subnormals are zero, as in vdpbf16ps (Intel SDM, TDPBF16PS). */
#include "backend/cpu/amx.h"
#include "backend/cpu/amx_panel.h"
#include "backend/cpu/amx_tail.h"
#include "backend/cpu/gemm_pack.h"

#include <immintrin.h>

enum { SIDE = 32, GROUP = 16, KC = 768, NEAR = 192, AHEAD = 4 };

/* --- panels ------------------------------------------------------------------------- */

/* 16 pairs that lie side by side. */
INLINE vec load_pairs(const bf16 *p)
{
    vec v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* 16 pairs, the first of each from x, the second from y. */
INLINE vec load_zipped(const bf16 *x, const bf16 *y)
{
    narrow_vec low, high;
    memcpy(&low, x, sizeof low);
    memcpy(&high, y, sizeof high);
    return __builtin_convertvector(low, vec) | __builtin_convertvector(high, vec) << 16;
}

/* What is left of a slab from one tile's first number on: rows by values of k. */
struct part {
    const bf16 *data;
    i64 row_stride, k_stride, rows, depth;
};

/* Numbers that do not fill a tile, into one that they do. */
static void copy_some(bf16 *whole, const struct part *p)
{
    memset(whole, 0, 2 * 2 * TILE);
    for (i64 r = 0; r < i64_min(p->rows, HALF); r++)
        for (i64 k = 0; k < i64_min(p->depth, 2 * GROUP); k++)
            whole[r * 2 * GROUP + k] = p->data[r * p->row_stride + k * p->k_stride];
}

/* The tile's vectors are rows when `by_row`, as of A, else steps. */
INLINE void move_tile(u32 *tile, const struct part *p, bool by_row)
{
    vec v[HALF];
    bf16 whole[2 * TILE];
    struct part q = *p;
    if (p->rows < HALF || p->depth < 2 * GROUP) {
        copy_some(whole, p);
        q = (struct part){ whole, 2 * GROUP, 1, HALF, 2 * GROUP };
    }
    const bool lies_by_row = q.k_stride == 1;
#pragma GCC unroll 16
    for (int i = 0; i < HALF; i++) {
        const bf16 *zip = q.data + 2 * i * q.k_stride;
        v[i] = lies_by_row ? load_pairs(q.data + i * q.row_stride)
                           : load_zipped(zip, zip + q.k_stride);
    }
    if (lies_by_row != by_row)
        transpose(v);
    store_tile(tile, v);
}

/* Asks for lines of a block of `runs` runs of `length` lines each, into L2: share `part` of `parts`
 * of them, run after run, which is how processors too fetch ahead. A line of each run in turn, as
 * tiles need them, came at a fifth of what L3 can give. */
INLINE void fetch_share(const bf16 *p, i64 stride, i64 runs, i64 length, i64 part, i64 parts)
{
    for (i64 r = part * runs / parts; r < (part + 1) * runs / parts; r++)
        for (i64 i = 0; i < length; i++)
            __builtin_prefetch(p + r * stride + i * SIDE, 0, 2);
}

static void move_group(u32 *group, const struct part *p, bool by_row)
{
    struct part half = *p;
    for (int h = 0; h < 2; h++, half.rows -= HALF, half.data += HALF * half.row_stride)
        move_tile(group + h * TILE, &half, by_row);
}

static void pack(u32 *panels, const struct gemm_slab *s, bool by_row)
{
    const i64 groups = ceil_div(s->k, 2 * GROUP), panel = groups * 2 * TILE;
    struct part p = { .row_stride = s->row_stride, .k_stride = s->k_stride };
    assert(s->type == DTYPE_BF16);
    const bf16 *data = s->data;
    if (s->k_stride == 1) { /* read on along k */
        for (i64 row = 0; row < s->rows; row += SIDE, panels += panel)
            for (i64 g = 0; g < groups; g++) {
                p.data = data + row * s->row_stride + g * 2 * GROUP;
                p.rows = s->rows - row;
                p.depth = s->k - g * 2 * GROUP;
                fetch_share(data + (row + SIDE) * s->row_stride, s->row_stride,
                            i64_max(0, i64_min(SIDE, p.rows - SIDE)), groups, g, groups);
                move_group(panels + g * 2 * TILE, &p, by_row);
            }
        return;
    }
    const i64 across = ceil_div(s->rows, SIDE);
    for (i64 g = 0; g < groups; g++)
        for (i64 i = 0; i < across; i++) {
            p.data = data + i * SIDE * s->row_stride + g * 2 * GROUP * s->k_stride;
            p.rows = s->rows - i * SIDE;
            p.depth = s->k - g * 2 * GROUP;
            fetch_share(data + (g + 1) * 2 * GROUP * s->k_stride, s->k_stride,
                        i64_max(0, i64_min(2 * GROUP, p.depth - 2 * GROUP)), across, i, across);
            move_group(panels + i * panel + g * 2 * TILE, &p, by_row);
        }
}

static void pack_a(u32 *panels, const struct gemm_slab *s, i64 width)
{
    (void)width;
    pack(panels, s, true);
}

static void pack_b(u32 *panels, const struct gemm_slab *s, i64 width)
{
    (void)width;
    pack(panels, s, false);
}

/* --- tiles -------------------------------------------------------------------------- */

/* Tile registers are numbers in the instructions: 0 to 3 are C, 4 and 5 A, 6 and 7 B. */
INLINE void multiply(i64 steps, const u32 *a, const u32 *b, const float *on, i64 on_stride,
                     float *c, i64 ldc, const u32 *ahead, const float *before_sums,
                     const struct gemm_tail *before)
{
    enum { ROW_BYTES = 4 * HALF };
    struct tail_work w = tail_begin(before_sums, before, steps / GROUP);
    amx_order();
    if (on) {
        _tile_loadd(0, on, 4 * on_stride);
        _tile_loadd(1, on + HALF, 4 * on_stride);
        _tile_loadd(2, on + HALF * on_stride, 4 * on_stride);
        _tile_loadd(3, on + HALF * on_stride + HALF, 4 * on_stride);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    for (i64 i = 0; i < steps; i += GROUP, a += 2 * TILE, b += 2 * TILE) {
        _tile_stream_loadd(4, a, ROW_BYTES); /* loads first: they wait for caches together */
        _tile_loadd(6, b, ROW_BYTES);
        _tile_loadd(7, b + TILE, ROW_BYTES);
        _tile_stream_loadd(5, a + TILE, ROW_BYTES);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
        for (int p = 0; p < GROUP / AHEAD; p++, ahead += 16)
            __builtin_prefetch(ahead, 0, 2);
        tail_go_on(&w);
    }
    tail_end(&w);
    _tile_stored(0, c, 4 * ldc);
    _tile_stored(1, c + HALF, 4 * ldc);
    _tile_stored(2, c + HALF * ldc, 4 * ldc);
    _tile_stored(3, c + HALF * ldc + HALF, 4 * ldc);
}

static void micro(i64 steps, const u32 *a, const u32 *b, float *c, i64 ldc, bool add,
                  const u32 *ahead)
{
    _Alignas(64) float sums[SIDE * SIDE];
    if (!add) {
        multiply(steps, a, b, NULL, 0, c, ldc, ahead, NULL, NULL);
        return;
    }
    multiply(steps, a, b, NULL, 0, sums, SIDE, ahead, NULL, NULL);
    for (i64 r = 0; r < SIDE; r++, c += ldc)
        for (i64 i = 0; i < SIDE; i++)
            c[i] += sums[r * SIDE + i];
}

static void micro_on(i64 steps, const u32 *a, const u32 *b, float *c, i64 ldc, const u32 *ahead)
{
    multiply(steps, a, b, c, ldc, c, ldc, ahead, NULL, NULL);
}

static void micro_tail(i64 steps, const u32 *a, const u32 *b, const float *on, i64 on_stride,
                       float *sums, const u32 *ahead, float *before_sums,
                       const struct gemm_tail *before)
{
    if (before)
        multiply(steps, a, b, on, on_stride, sums, SIDE, ahead, before_sums, before);
    else
        multiply(steps, a, b, on, on_stride, sums, SIDE, ahead, NULL, NULL);
}

static void tail(float *sums, const struct gemm_tail *t)
{
    struct tail_work w = tail_begin(sums, t, 0);
    tail_end(&w);
}

/* Four sums, as in micro: a product every 16 cycles, ready after 52. */
static i64 peak(i64 rounds, float *data)
{
    amx_begin();
    amx_order();
    for (i64 r = 0; r < rounds; r++) {
        if (r % 1024 == 0) {
            _tile_loadd(4, data, 0);
            _tile_loadd(5, data + 16, 0);
            _tile_loadd(6, data + 32, 0);
            _tile_loadd(7, data + 48, 0);
            _tile_zero(0);
            _tile_zero(1);
            _tile_zero(2);
            _tile_zero(3);
        }
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _Alignas(64) float sums[TILE];
    _tile_stored(3, sums, 4 * HALF);
    data[0] = sums[0] < 1 ? data[0] : data[1];
    amx_end();
    return rounds * 4 * TILE * 2 * GROUP * 2;
}

const struct gemm_kernels gemm_kernels_amx = {
    .name = "amx", .mr = SIDE, .nr = SIDE, .kc = KC, .mc = 256, .nc = 768, .per_step = 2,
    .steps_at_once = GROUP, .near_steps = NEAR, .ahead_steps = AHEAD,
    .mixed = &gemm_kernels_split,
    .begin = amx_begin, .end = amx_end,
    .pack_a = pack_a, .pack_b = pack_b, .micro = micro, .micro_tail = micro_tail, .tail = tail,
    .micro_on = micro_on,
    .start = gemm_start_avx512, .finish = gemm_finish_avx512,
    .sum_rows = gemm_sum_rows_avx512, .peak = peak,
};
