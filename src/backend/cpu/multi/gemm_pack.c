/* backend/cpu/multi/gemm_pack.c - copies between matrices and the panels of gemm.h.
 *
 * Compiled once per instruction set. Words of 4 bytes are moved eight at a time; what a
 * word is (an f32, a bf16 widened to f32, a pair of bf16) is settled by enum word, a
 * constant wherever it is used in a loop. */
#include "backend/cpu/gemm.h"

#include "backend/cpu/gemm_pack.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#define PASTE_(a, b) a##_##b
#define PASTE(a, b) PASTE_(a, b)
#define NAMED(name) PASTE(name, ISA)
#define INLINE static inline __attribute__((always_inline))

enum word { WORD_F32, WORD_WIDENED, WORD_PAIR };
enum { LANES = 8, HALF = 4 };
/* Steps copied of one panel before going on to the next one, when the source runs along
 * the panels' width; and how many steps ahead its lines are asked for. */
enum { CHUNK = 8 };

typedef u32 vec __attribute__((vector_size(32)));
typedef u32 half_vec __attribute__((vector_size(16)));
typedef u16 narrow_vec __attribute__((vector_size(16)));

INLINE vec load(const void *p)
{
    vec v;
    memcpy(&v, p, sizeof v);
    return v;
}

INLINE void store(u32 *p, vec v)
{
    memcpy(p, &v, sizeof v);
}

INLINE vec load_widened(const void *p)
{
#if defined(__AVX2__) /* gcc 12 makes six instructions of the conversion */
    return (vec)_mm256_cvtepu16_epi32(_mm_loadu_si128(p)) << 16;
#else
    narrow_vec h;
    memcpy(&h, p, sizeof h);
    return __builtin_convertvector(h, vec) << 16;
#endif
}

INLINE i64 element_bytes(enum word w)
{
    return w == WORD_F32 ? 4 : 2;
}

INLINE i64 per_word(enum word w)
{
    return w == WORD_PAIR ? 2 : 1;
}

/* --- sources that run along k: rows are read, transposed, written ------------------ */

/* Eight words at consecutive k. */
INLINE vec load_along_k(enum word w, const u8 *p)
{
    return w == WORD_WIDENED ? load_widened(p) : load(p);
}

/* The same where only some elements are left. */
static vec load_some_along_k(enum word w, const u8 *p, i64 elements)
{
    u8 padded[32] = { 0 };
    memcpy(padded, p, (size_t)(i64_min(elements, LANES * per_word(w)) * element_bytes(w)));
    return load_along_k(w, padded);
}

/* Four rows of eight steps: t[i] <- step i of rows 0 to 3, then step i + 4 of them. */
INLINE void transpose_halves(vec t[HALF])
{
    vec a = __builtin_shufflevector(t[0], t[1], 0, 8, 1, 9, 4, 12, 5, 13);
    vec b = __builtin_shufflevector(t[0], t[1], 2, 10, 3, 11, 6, 14, 7, 15);
    vec c = __builtin_shufflevector(t[2], t[3], 0, 8, 1, 9, 4, 12, 5, 13);
    vec d = __builtin_shufflevector(t[2], t[3], 2, 10, 3, 11, 6, 14, 7, 15);
    t[0] = __builtin_shufflevector(a, c, 0, 1, 8, 9, 4, 5, 12, 13);
    t[1] = __builtin_shufflevector(a, c, 2, 3, 10, 11, 6, 7, 14, 15);
    t[2] = __builtin_shufflevector(b, d, 0, 1, 8, 9, 4, 5, 12, 13);
    t[3] = __builtin_shufflevector(b, d, 2, 3, 10, 11, 6, 7, 14, 15);
}

INLINE vec low_halves(vec x, vec y)
{
    return __builtin_shufflevector(x, y, 0, 1, 2, 3, 8, 9, 10, 11);
}

INLINE vec high_halves(vec x, vec y)
{
    return __builtin_shufflevector(x, y, 4, 5, 6, 7, 12, 13, 14, 15);
}

/* Eight steps of a panel: out[i] <- words i * 8 to i * 8 + 7 of width x 8. */
INLINE void transpose_panel(vec *out, vec *rows, i64 width)
{
#pragma GCC unroll 16
    for (i64 g = 0; g < width; g += HALF)
        transpose_halves(rows + g);
    if (width == HALF) {
        for (int i = 0; i < 2; i++) {
            out[i] = low_halves(rows[2 * i], rows[2 * i + 1]);
            out[i + 2] = high_halves(rows[2 * i], rows[2 * i + 1]);
        }
        return;
    }
    const i64 groups = width / LANES;
#pragma GCC unroll 16
    for (i64 g = 0; g < groups; g++)
#pragma GCC unroll 4
        for (i64 i = 0; i < HALF; i++) {
            out[i * groups + g] = low_halves(rows[g * LANES + i], rows[g * LANES + HALF + i]);
            out[(i + HALF) * groups + g] =
                high_halves(rows[g * LANES + i], rows[g * LANES + HALF + i]);
        }
}

/* Eight whole steps of all rows of a panel. */
INLINE void move_eight_steps(enum word w, u32 *dst, i64 width, const u8 *src, i64 stride)
{
    vec rows[48], out[48];
#pragma GCC unroll 48
    for (i64 r = 0; r < width; r++) {
        rows[r] = load_along_k(w, src + r * stride);
        /* a row some panels further on, into L2 */
        __builtin_prefetch(src + (r + (width < LANES ? 2 * width : width)) * stride, 0, 2);
    }
    transpose_panel(out, rows, width);
#pragma GCC unroll 48
    for (i64 i = 0; i < width; i++)
        store(dst + i * LANES, out[i]);
}

/* Up to eight steps, of rows of which `present` exist. */
static void move_some_steps(enum word w, u32 *dst, i64 width, const u8 *src, i64 stride,
                            i64 present, i64 elements)
{
    u32 row[LANES];
    const i64 steps = i64_min(LANES, ceil_div(elements, per_word(w)));
    for (i64 r = 0; r < width; r++) {
        vec v = r < present ? load_some_along_k(w, src + r * stride, elements) : (vec){ 0 };
        store(row, v);
        for (i64 i = 0; i < steps; i++)
            dst[i * width + r] = row[i];
    }
}

INLINE void pack_along_k(enum word w, u32 *panels, const struct gemm_slab *s, i64 width)
{
    const i64 bytes = element_bytes(w), stride = s->row_stride * bytes, per = per_word(w);
    const i64 steps = ceil_div(s->k, per);
    for (i64 row = 0; row < s->rows; row += width, panels += steps * width) {
        const u8 *src = (const u8 *)s->data + row * stride;
        i64 present = i64_min(width, s->rows - row), step = 0;
        if (present == width)
            for (; (step + LANES) * per <= s->k; step += LANES)
                move_eight_steps(w, panels + step * width, width, src + step * per * bytes,
                                 stride);
        for (; step < steps; step += LANES)
            move_some_steps(w, panels + step * width, width, src + step * per * bytes, stride,
                            present, s->k - step * per);
    }
}

/* --- sources that run along the width --------------------------------------------- */

/* Eight words side by side at one k; k + 1 is there for the second half of a pair. */
INLINE vec load_along_width(enum word w, const u8 *p, i64 k_bytes, bool second)
{
    if (w == WORD_F32)
        return load(p);
    if (w == WORD_WIDENED)
        return load_widened(p);
    vec high = second ? load_widened(p + k_bytes) : (vec){ 0 };
    return load_widened(p) >> 16 | high;
}

/* The same where only `rows` numbers are left. */
static vec load_some_along_width(enum word w, const u8 *p, i64 k_bytes, bool second, i64 rows)
{
    u8 padded[64] = { 0 };
    const size_t bytes = (size_t)(i64_min(rows, LANES) * element_bytes(w));
    if (rows <= 0)
        return (vec){ 0 };
    memcpy(padded, p, bytes);
    if (w == WORD_PAIR && second)
        memcpy(padded + 32, p + k_bytes, bytes);
    return load_along_width(w, padded, 32, second);
}

/* Four words side by side, whole. */
INLINE half_vec load_half_along_width(enum word w, const u8 *p, i64 k_bytes)
{
    u16 low[HALF], high[HALF];
    half_vec v;
    if (w == WORD_F32) {
        memcpy(&v, p, sizeof v);
        return v;
    }
    memcpy(low, p, sizeof low);
    if (w == WORD_WIDENED)
        return (half_vec){ low[0], low[1], low[2], low[3] } << 16;
    memcpy(high, p + k_bytes, sizeof high);
    return (half_vec){ low[0], low[1], low[2], low[3] } |
           (half_vec){ high[0], high[1], high[2], high[3] } << 16;
}

/* One panel, steps [step, end), every row there and every pair complete. */
INLINE void move_panel_steps(enum word w, u32 *dst, const struct gemm_slab *s, i64 row, i64 width,
                             i64 step, i64 end)
{
    const i64 bytes = element_bytes(w), k_bytes = s->k_stride * bytes;
    const i64 step_bytes = k_bytes * per_word(w);
    const u8 *src = (const u8 *)s->data + step * step_bytes + row * bytes;
    for (dst += step * width; step < end; step++, src += step_bytes, dst += width) {
        /* into L2: twice as fast as into L1, where fewer lines can be on their way */
#pragma GCC unroll 16
        for (i64 b = 0; b < width * bytes; b += 64)
            for (i64 second = 0; second < per_word(w); second++)
                __builtin_prefetch(src + CHUNK * step_bytes + second * k_bytes + b, 0, 2);
        if (width == HALF) {
            half_vec v = load_half_along_width(w, src, k_bytes);
            memcpy(dst, &v, sizeof v);
            continue;
        }
#pragma GCC unroll 16
        for (i64 g = 0; g < width; g += LANES)
            store(dst + g, load_along_width(w, src + g * bytes, k_bytes, true));
    }
}

/* The same for the last panel and an odd last k. */
static void move_some_panel_steps(enum word w, u32 *dst, const struct gemm_slab *s, i64 row,
                                  i64 width, i64 step, i64 end)
{
    const i64 bytes = element_bytes(w), k_bytes = s->k_stride * bytes;
    for (; step < end; step++) {
        const u8 *src = (const u8 *)s->data + step * per_word(w) * k_bytes + row * bytes;
        bool second = step * per_word(w) + 1 < s->k;
        for (i64 g = 0; g < width; g += LANES) {
            vec v = load_some_along_width(w, src + g * bytes, k_bytes, second, s->rows - row - g);
            memcpy(dst + step * width + g, &v, (size_t)(4 * i64_min(LANES, width - g)));
        }
    }
}

INLINE void pack_along_width(enum word w, u32 *panels, const struct gemm_slab *s, i64 width)
{
    const i64 steps = ceil_div(s->k, per_word(w)), whole = s->k / per_word(w);
    for (i64 step = 0; step < steps; step += CHUNK) {
        i64 end = i64_min(steps, step + CHUNK), easy = i64_min(end, whole);
        u32 *dst = panels;
        for (i64 row = 0; row < s->rows; row += width, dst += steps * width) {
            bool all = row + width <= s->rows;
            if (all)
                move_panel_steps(w, dst, s, row, width, step, easy);
            move_some_panel_steps(w, dst, s, row, width, all ? easy : step, end);
        }
    }
}

/* With the width known the loops over it unroll: these are the widths in use. */
INLINE void pack_width(enum word w, u32 *panels, const struct gemm_slab *s, i64 width)
{
    if (s->k_stride == 1)
        pack_along_k(w, panels, s, width);
    else
        pack_along_width(w, panels, s, width);
}

INLINE void pack_as(enum word w, u32 *panels, const struct gemm_slab *s, i64 width)
{
    assert(width == 4 || width == 8 || width == 24 || width == 48);
    if (width == 4)
        pack_width(w, panels, s, 4);
    else if (width == 8)
        pack_width(w, panels, s, 8);
    else if (width == 24)
        pack_width(w, panels, s, 24);
    else
        pack_width(w, panels, s, 48);
}

/* --- entry points ------------------------------------------------------------------ */

void NAMED(gemm_pack_words)(u32 *panels, const struct gemm_slab *s, i64 width)
{
    if (s->type == DTYPE_F32)
        pack_as(WORD_F32, panels, s, width);
    else
        pack_as(WORD_WIDENED, panels, s, width);
}

void NAMED(gemm_pack_pairs)(u32 *panels, const struct gemm_slab *s, i64 width)
{
    assert(s->type == DTYPE_BF16);
    pack_as(WORD_PAIR, panels, s, width);
}

/* One row; what there is of from and bias is settled where it is called. */
INLINE void start_row(float *dst, const float *from, const bf16 *from_half, const float *bias,
                      const float *sums, i64 cols)
{
    for (i64 c = 0; c < cols; c++) {
        float start = from ? from[c] : from_half ? bf16_to_f32(from_half[c]) : 0;
        if (bias)
            start += bias[c];
        dst[c] = start + sums[c];
    }
}

void NAMED(gemm_start)(float *dst, i64 dst_stride, const struct gemm_start *s,
                       const float *sums, i64 sums_stride, i64 rows, i64 cols)
{
    const bool wide = s->from && s->from_type == DTYPE_F32, half = s->from && !wide;
    for (i64 r = 0; r < rows; r++, dst += dst_stride, sums += sums_stride) {
        const float *from = wide ? (const float *)s->from + r * s->from_stride : NULL;
        const bf16 *from_half = half ? (const bf16 *)s->from + r * s->from_stride : NULL;
        if (wide && s->bias)
            start_row(dst, from, NULL, s->bias, sums, cols);
        else if (wide)
            start_row(dst, from, NULL, NULL, sums, cols);
        else if (half)
            start_row(dst, NULL, from_half, s->bias, sums, cols);
        else
            start_row(dst, NULL, NULL, s->bias, sums, cols);
    }
}

void NAMED(gemm_finish)(void *dst, enum dtype type, i64 dst_stride, const float *src,
                        i64 src_stride, i64 rows, i64 cols, bool add)
{
    float *wide = dst;
    bf16 *half = dst;
    for (i64 r = 0; r < rows; r++, src += src_stride) {
        if (type == DTYPE_BF16)
            for (i64 c = 0; c < cols; c++)
                half[r * dst_stride + c] = bf16_from_f32(src[c]);
        else if (add)
            for (i64 c = 0; c < cols; c++)
                wide[r * dst_stride + c] += src[c];
        else
            memcpy(wide + r * dst_stride, src, (size_t)cols * sizeof *src);
    }
}

INLINE void sum_as(enum word w, float *sums, const struct gemm_slab *s)
{
    const float *wide = s->data;
    const bf16 *half = s->data;
    memset(sums, 0, (size_t)s->rows * sizeof *sums);
    for (i64 k = 0; k < s->k; k++)
        for (i64 r = 0; r < s->rows; r++) {
            i64 i = r * s->row_stride + k * s->k_stride;
            sums[r] += w == WORD_F32 ? wide[i] : bf16_to_f32(half[i]);
        }
}

void NAMED(gemm_sum_rows)(float *sums, const struct gemm_slab *s)
{
    struct gemm_slab along_width = *s; /* the stride as a constant lets it use vectors */
    along_width.row_stride = 1;
    if (s->row_stride == 1 && s->type == DTYPE_F32)
        sum_as(WORD_F32, sums, &along_width);
    else if (s->row_stride == 1)
        sum_as(WORD_WIDENED, sums, &along_width);
    else if (s->type == DTYPE_F32)
        sum_as(WORD_F32, sums, s);
    else
        sum_as(WORD_WIDENED, sums, s);
}
