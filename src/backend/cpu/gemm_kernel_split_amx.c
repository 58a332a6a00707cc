/* backend/cpu/gemm_kernel_split_amx.c - products of fp32 on tile registers, which multiply bf16.
 *
 * A value is the sum of three bf16, exactly: x1 is x rounded to 8 bits, x2 is x - x1 rounded to
 * 8 bits, x3 is what is left, which has 8 bits at most. With |x2| <= 2^-8 |x| and
 * |x3| <= 2^-17 |x| six of the nine products make up x y but for
 *     |x2 y3 + x3 y2 + x3 y3| <= 2^-24 (1 + 2^-9) |x y|,
 * half an ulp: less than what rounding a product to fp32 may change. Six multiplications of tiles
 * take 96 cycles where multiply-adds take 256. (Henry, Tang, Heinecke, "Leveraging the bfloat16
 * artificial intelligence datatype for higher-precision computations", ARITH 2019.)
 *
 * Sums are rounded less often than a chain of multiply-adds is. Per group of 32 values of k each
 * of the six is (16 products, ascending, from zero) + (16 others), products of bf16 being exact,
 * and is added to the sum: six additions where a chain has 32. Small ones come in between, in the
 * order in which 14 loads of tiles serve 24 multiplications: one operand changes at a time, and
 * four sums share it.
 *
 * Tiles take subnormal numbers for zero. What is lost of x y is so at most
 * 2^-126 (|x| + |y| + 1), for each of three pieces; below 2^-133 nothing is left of x.
 *
 * A residue of Inf is zero, so Inf times a number is NaN here, as 0 Inf is. Where a block's sum
 * is not finite it is taken again by multiply-adds on what the pieces add up to, and is what
 * these make of it. Whether that happens is up to the element's row, column and k alone. */
#include "backend/cpu/amx.h"
#include "backend/cpu/amx_panel.h"
#include "backend/cpu/amx_tail.h"
#include "backend/cpu/gemm_pack.h"

#include <immintrin.h>

/* A group is 32 values of k of 32 rows (or columns): per piece two tiles, one behind the other.
 * A word is a pair (k, k + 16), low half first. */
enum { SIDE = 32, DEPTH = 32, PIECES = 3, GROUP = PIECES * 2 * TILE, KC = 768 };
enum { GROUP_STEPS = GROUP / SIDE, AHEAD = 4 }; /* steps as gemm.h counts them: a word a row */

typedef float real_vec __attribute__((vector_size(64)));

/* --- splitting ---------------------------------------------------------------------- */

struct split {
    vec piece[PIECES]; /* in the upper half of each word; whatever in the lower half of the last */
};

/* Numbers next to FLT_MAX are cut off instead of rounded: they would become Inf. */
INLINE struct split split(vec x)
{
    const __m512i bits = (__m512i)x, twice = _mm512_add_epi32(bits, bits); /* without the sign */
    const __mmask16 high = _mm512_cmpge_epu32_mask(twice, _mm512_set1_epi32((int)0xfeff0000u));
    const __mmask16 inf = _mm512_cmpeq_epi32_mask(twice, _mm512_set1_epi32((int)0xff000000u));
    const vec first = (vec)_mm512_mask_add_epi32(bits, (__mmask16)~high, bits,
                                                 _mm512_set1_epi32(0x8000)) & 0xffff0000u;
    const vec rest = (vec)_mm512_maskz_sub_ps((__mmask16)~inf, (__m512)x, (__m512)first);
    const vec second = (rest + 0x8000u) & 0xffff0000u;
    const vec third = (vec)((real_vec)rest - (real_vec)second);
    return (struct split){ { first, second, third } };
}

/* What is left of a slab from one tile's first number on: rows by values of k. */
struct part {
    const void *data;
    enum dtype type;
    i64 row_stride, k_stride, rows, depth;
};

INLINE const void *number(const struct part *p, i64 row, i64 k)
{
    return (const u8 *)p->data + (row * p->row_stride + k * p->k_stride) * dtype_bytes(p->type);
}

/* 16 numbers that lie side by side. */
INLINE vec load_numbers(const void *p, enum dtype type)
{
    vec v;
    narrow_vec narrow;
    if (type == DTYPE_F32) {
        memcpy(&v, p, sizeof v);
        return v;
    }
    memcpy(&narrow, p, sizeof narrow);
    return __builtin_convertvector(narrow, vec) << 16;
}

/* Numbers that do not fill a tile, into one that they do. */
static void copy_some(float *whole, const struct part *p)
{
    memset(whole, 0, HALF * DEPTH * sizeof *whole);
    for (i64 r = 0; r < i64_min(p->rows, HALF); r++)
        for (i64 k = 0; k < i64_min(p->depth, DEPTH); k++)
            memcpy(whole + r * DEPTH + k, number(p, r, k), 4);
}

static void widen_some(float *whole, const struct part *p)
{
    memset(whole, 0, HALF * DEPTH * sizeof *whole);
    for (i64 r = 0; r < i64_min(p->rows, HALF); r++)
        for (i64 k = 0; k < i64_min(p->depth, DEPTH); k++)
            whole[r * DEPTH + k] = bf16_to_f32(*(const bf16 *)number(p, r, k));
}

/* Vector i of the 16 values of k from k0 on: row i, or k0 + i of all rows, as they lie. */
INLINE vec load_line(const struct part *p, i64 k0, i64 i)
{
    return load_numbers(p->k_stride == 1 ? number(p, i, k0) : number(p, 0, k0 + i), p->type);
}

INLINE void store_pairs(u32 *tile, vec low, vec high)
{
    const struct split x = split(low), y = split(high);
#pragma GCC unroll 3
    for (int piece = 0; piece < PIECES; piece++) {
        const vec pair = x.piece[piece] >> 16 | (y.piece[piece] & 0xffff0000u);
        memcpy(tile + piece * 2 * TILE, &pair, sizeof pair);
    }
}

/* The three pieces' tiles; their vectors are rows when `by_row`, as of A, else values of k. */
INLINE void move_tiles(u32 *tile, const struct part *p, bool by_row)
{
    vec low[HALF], high[HALF];
    if (by_row == (p->k_stride == 1)) {
        for (int i = 0; i < HALF; i++)
            store_pairs(tile + i * HALF, load_line(p, 0, i), load_line(p, HALF, i));
        return;
    }
#pragma GCC unroll 16
    for (int i = 0; i < HALF; i++)
        low[i] = load_line(p, 0, i);
    transpose(low);
#pragma GCC unroll 16
    for (int i = 0; i < HALF; i++)
        high[i] = load_line(p, HALF, i);
    transpose(high);
    for (int i = 0; i < HALF; i++)
        store_pairs(tile + i * HALF, low[i], high[i]);
}

INLINE void move_half_group(u32 *tile, const struct part *p, bool by_row)
{
    float whole[HALF * DEPTH];
    struct part q = *p;
    if (p->rows < HALF || p->depth < DEPTH) {
        if (p->type == DTYPE_F32)
            copy_some(whole, p);
        else
            widen_some(whole, p);
        q = (struct part){ whole, DTYPE_F32, DEPTH, 1, HALF, DEPTH };
    }
    if (q.type == DTYPE_F32 && q.k_stride == 1) /* each with its strides known */
        move_tiles(tile, &(struct part){ q.data, DTYPE_F32, q.row_stride, 1, HALF, DEPTH }, by_row);
    else if (q.type == DTYPE_F32)
        move_tiles(tile, &(struct part){ q.data, DTYPE_F32, 1, q.k_stride, HALF, DEPTH }, by_row);
    else
        move_tiles(tile, &q, by_row);
}

static void move_group(u32 *group, const struct part *p, bool by_row)
{
    struct part half = *p;
    for (int h = 0; h < 2; h++) {
        move_half_group(group + h * TILE, &half, by_row);
        half.rows -= HALF;
        half.data = number(&half, HALF, 0);
    }
}

/* Asks for what the move of the next group reads, into L2. */
INLINE void fetch_lines(const void *p, i64 stride_bytes, i64 lines, i64 line_bytes)
{
    for (i64 i = 0; i < lines; i++)
        for (i64 b = 0; b < line_bytes; b += 64)
            __builtin_prefetch((const u8 *)p + i * stride_bytes + b, 0, 2);
}

static void pack(u32 *panels, const struct gemm_slab *s, bool by_row)
{
    const i64 groups = ceil_div(s->k, DEPTH), rows = ceil_div(s->rows, SIDE);
    const i64 bytes = dtype_bytes(s->type);
    const bool along_k = s->k_stride == 1;
    const struct part whole = { s->data, s->type, s->row_stride, s->k_stride, s->rows, s->k };
    for (i64 i = 0; i < groups * rows; i++) { /* as the source lies */
        const i64 g = along_k ? i % groups : i / rows;
        const i64 row = (along_k ? i / groups : i % rows) * SIDE;
        struct part p = whole;
        p.data = number(&whole, row, g * DEPTH);
        p.rows -= row;
        p.depth -= g * DEPTH;
        if (along_k)
            fetch_lines(number(&p, SIDE, 0), s->row_stride * bytes, i64_min(SIDE, p.rows - SIDE),
                        DEPTH * bytes);
        else
            fetch_lines(number(&p, 0, DEPTH), s->k_stride * bytes, i64_min(DEPTH, p.depth - DEPTH),
                        SIDE * bytes);
        move_group(panels + (row / SIDE * groups + g) * GROUP, &p, by_row);
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

/* --- sums that are not finite ------------------------------------------------------- */

/* 32 x 32 numbers of a group: vector i of tile h to to[h x half_stride + i x stride], the upper
 * halves `high` further on. */
static void join_pieces(float *to, i64 half_stride, i64 stride, i64 high, const u32 *group)
{
    for (int h = 0; h < 2; h++)
        for (int i = 0; i < HALF; i++) {
            real_vec low_sum = { 0 }, high_sum = { 0 };
            for (int piece = PIECES - 1; piece >= 0; piece--) {
                vec w;
                memcpy(&w, group + (2 * piece + h) * TILE + i * HALF, sizeof w);
                low_sum += (real_vec)(w << 16);
                high_sum += (real_vec)(w & 0xffff0000u);
            }
            memcpy(to + h * half_stride + i * stride, &low_sum, sizeof low_sum);
            memcpy(to + h * half_stride + i * stride + high, &high_sum, sizeof high_sum);
        }
}

/* sums += x y, all 32 x 32 */
static void add_products(float *sums, const float *x, const float *y)
{
    for (int r = 0; r < SIDE; r++, sums += SIDE, x += SIDE) {
        __m512 low = _mm512_loadu_ps(sums), high = _mm512_loadu_ps(sums + HALF);
        for (int k = 0; k < DEPTH; k++) {
            const __m512 v = _mm512_set1_ps(x[k]);
            low = _mm512_fmadd_ps(v, _mm512_loadu_ps(y + k * SIDE), low);
            high = _mm512_fmadd_ps(v, _mm512_loadu_ps(y + k * SIDE + HALF), high);
        }
        _mm512_storeu_ps(sums, low);
        _mm512_storeu_ps(sums + HALF, high);
    }
}

static __attribute__((noinline)) void take_again(float *sums, i64 groups, const u32 *a,
                                                 const u32 *b)
{
    float x[SIDE * DEPTH], y[DEPTH * SIDE], again[SIDE * SIDE] = { 0 };
    for (i64 g = 0; g < groups; g++) {
        join_pieces(x, HALF * DEPTH, DEPTH, HALF, a + g * GROUP);
        join_pieces(y, HALF, SIDE, HALF * SIDE, b + g * GROUP);
        add_products(again, x, y);
    }
    for (int i = 0; i < SIDE * SIDE; i++)
        sums[i] = __builtin_isfinite(sums[i]) ? sums[i] : again[i];
}

/* --- tiles -------------------------------------------------------------------------- */

/* Tile registers are numbers in the instructions: 0 to 3 are C, 4 and 5 A, 6 and 7 B. */
enum { ROW_BYTES = 4 * HALF };

/* Two lines of B's next panel into L2; and into L1 a sixth of the next group of A and of B, which
 * are in L2. Where another thread has half of the core, loads of tiles would wait for these. */
INLINE void fetch_ahead(const u32 *ahead, const u32 *a, const u32 *b, int sixth)
{
    __builtin_prefetch(ahead + 32 * sixth, 0, 2);
    __builtin_prefetch(ahead + 32 * sixth + 16, 0, 2);
#pragma GCC unroll 16
    for (int i = 0; i < TILE; i += 16) {
        __builtin_prefetch(a + GROUP + sixth * TILE + i);
        __builtin_prefetch(b + GROUP + sixth * TILE + i);
    }
}

/* Half a piece of A, or of B, into its register. */
#define LOAD(number, from, piece, half) \
    _tile_loadd(number, (from) + (2 * (piece) + (half)) * TILE, ROW_BYTES)

/* Four products with the pieces in registers; behind the last product that needs one, the half
 * that takes its place is loaded: two products lie between a load and its use, without which
 * products wait for loads where another thread has half of the core. */
#define THEN_NEW_A(from, piece)   \
    do {                          \
        _tile_dpbf16ps(0, 4, 6);  \
        _tile_dpbf16ps(1, 4, 7);  \
        LOAD(4, from, piece, 0);  \
        _tile_dpbf16ps(2, 5, 6);  \
        _tile_dpbf16ps(3, 5, 7);  \
        LOAD(5, from, piece, 1);  \
    } while (0)
#define THEN_NEW_B(from, piece)   \
    do {                          \
        _tile_dpbf16ps(0, 4, 6);  \
        _tile_dpbf16ps(2, 5, 6);  \
        LOAD(6, from, piece, 0);  \
        _tile_dpbf16ps(1, 4, 7);  \
        _tile_dpbf16ps(3, 5, 7);  \
        LOAD(7, from, piece, 1);  \
    } while (0)
#define THEN_NEW_GROUP(from_a, from_b) \
    do {                               \
        _tile_dpbf16ps(0, 4, 6);       \
        _tile_dpbf16ps(1, 4, 7);       \
        LOAD(4, from_a, 0, 0);         \
        _tile_dpbf16ps(2, 5, 6);       \
        LOAD(6, from_b, 2, 0);         \
        _tile_dpbf16ps(3, 5, 7);       \
        LOAD(7, from_b, 2, 1);         \
        LOAD(5, from_a, 0, 1);         \
    } while (0)

INLINE void multiply(i64 groups, const u32 *a, const u32 *b, float *sums, const u32 *ahead,
                     const float *before_sums, const struct gemm_tail *before)
{
    struct tail_work w = tail_begin(before_sums, before, groups);
    amx_order();
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    if (groups > 0) {
        LOAD(4, a, 0, 0);
        LOAD(6, b, 2, 0);
        LOAD(7, b, 2, 1);
        LOAD(5, a, 0, 1);
    }
    for (i64 g = 0; g < groups; g++, ahead += 16 * (GROUP_STEPS / AHEAD)) {
        const i64 on = g + 1 < groups ? GROUP : 0; /* behind the last group there is none */
        THEN_NEW_B(b, 1); /* behind A's first, B's third */
        fetch_ahead(ahead, a, b, 0);
        THEN_NEW_A(a, 1);
        fetch_ahead(ahead, a, b, 1);
        THEN_NEW_B(b, 0);
        fetch_ahead(ahead, a, b, 2);
        THEN_NEW_A(a, 0);
        fetch_ahead(ahead, a, b, 3);
        THEN_NEW_A(a, 2);
        fetch_ahead(ahead, a, b, 4);
        THEN_NEW_GROUP(a + on, b + on);
        fetch_ahead(ahead, a, b, 5);
        tail_go_on(&w);
        a += on;
        b += on;
    }
    tail_end(&w);
    _tile_stored(0, sums, 4 * SIDE);
    _tile_stored(1, sums + HALF, 4 * SIDE);
    _tile_stored(2, sums + HALF * SIDE, 4 * SIDE);
    _tile_stored(3, sums + HALF * SIDE + HALF, 4 * SIDE);
}

INLINE bool all_finite(const float *sums)
{
    __m512i most = _mm512_setzero_si512();
    for (int i = 0; i < SIDE * SIDE; i += HALF) {
        const __m512i bits = _mm512_castps_si512(_mm512_loadu_ps(sums + i));
        most = _mm512_max_epu32(most, _mm512_add_epi32(bits, bits)); /* without the sign */
    }
    return _mm512_cmpge_epu32_mask(most, _mm512_set1_epi32((int)0xff000000u)) == 0;
}

static void micro(i64 steps, const u32 *a, const u32 *b, float *c, i64 ldc, bool add,
                  const u32 *ahead)
{
    _Alignas(64) float sums[SIDE * SIDE];
    const i64 groups = steps / GROUP_STEPS;
    multiply(groups, a, b, sums, ahead, NULL, NULL);
    if (!all_finite(sums))
        take_again(sums, groups, a, b);
    for (i64 r = 0; r < SIDE; r++, c += ldc)
        for (i64 i = 0; i < SIDE; i++)
            c[i] = (add ? c[i] : 0) + sums[r * SIDE + i];
}

static void mend(float *sums, const struct gemm_tail *t)
{
    if (!all_finite(sums))
        take_again(sums, t->steps / GROUP_STEPS, t->a, t->b);
}

/* on is NULL: there is no micro_on. */
static void micro_tail(i64 steps, const u32 *a, const u32 *b, const float *on, i64 on_stride,
                       float *sums, const u32 *ahead, float *before_sums,
                       const struct gemm_tail *before)
{
    (void)on;
    (void)on_stride;
    if (!before) {
        multiply(steps / GROUP_STEPS, a, b, sums, ahead, NULL, NULL);
        return;
    }
    mend(before_sums, before);
    multiply(steps / GROUP_STEPS, a, b, sums, ahead, before_sums, before);
}

static void tail(float *sums, const struct gemm_tail *t)
{
    mend(sums, t);
    struct tail_work w = tail_begin(sums, t, 0);
    tail_end(&w);
}

/* Products of fp32 by six of tiles, on registers alone. */
static i64 peak(i64 rounds, float *data)
{
    return gemm_kernels_amx.peak(rounds, data) / 6;
}

const struct gemm_kernels gemm_kernels_split = {
    .name = "split", .mr = SIDE, .nr = SIDE, .kc = KC, .mc = 256, .nc = 384, .per_step = 2,
    .unsplit = &gemm_kernels_avx512, .pieces = PIECES, .steps_at_once = HALF, .ahead_steps = AHEAD,
    .begin = amx_begin, .end = amx_end,
    .pack_a = pack_a, .pack_b = pack_b, .micro = micro, .micro_tail = micro_tail, .tail = tail,
    .start = gemm_start_avx512, .finish = gemm_finish_avx512,
    .sum_rows = gemm_sum_rows_avx512, .peak = peak,
};
