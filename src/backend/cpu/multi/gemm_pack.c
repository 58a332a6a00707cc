/* backend/cpu/multi/gemm_pack.c - copies between matrices and the panels of gemm.h.
 *
 * Compiled once per instruction set. Words of 4 bytes are moved eight at a time; what a
 * word is (an f32, a bf16 widened to f32, a pair of bf16) is settled by enum word, a
 * constant wherever it is used in a loop. */
#include "backend/cpu/gemm.h"

#include "backend/cpu/gemm_pack.h"

#define PASTE_(a, b) a##_##b
#define PASTE(a, b) PASTE_(a, b)
#define NAMED(name) PASTE(name, ISA)
#define INLINE static inline __attribute__((always_inline))

enum word { WORD_F32, WORD_WIDENED, WORD_PAIR };
enum { LANES = 8 };
/* Rows of k copied per panel before going on to the next one, when the source runs along
 * the panel's width: 16 x 24 bytes is six full lines of the narrowest panel. */
enum { K_CHUNK = 16 };

typedef u32 vec __attribute__((vector_size(32)));
typedef u16 half_vec __attribute__((vector_size(16)));

INLINE vec load(const void *p)
{
    vec v;
    memcpy(&v, p, sizeof v);
    return v;
}

INLINE vec load_widened(const void *p)
{
    half_vec h;
    memcpy(&h, p, sizeof h);
    return __builtin_convertvector(h, vec) << 16;
}

INLINE i64 element_bytes(enum word w)
{
    return w == WORD_F32 ? 4 : 2;
}

/* --- sources that run along k: eight rows are read, transposed, written ----------- */

/* Eight words at consecutive k, of which the first n exist. */
INLINE vec load_along_k(enum word w, const u8 *p, i64 elements)
{
    u8 padded[32] = { 0 };
    i64 needed = w == WORD_PAIR ? 2 * LANES : LANES;
    if (__builtin_expect(elements < needed, 0)) {
        memcpy(padded, p, (size_t)(elements * element_bytes(w)));
        p = padded;
    }
    return w == WORD_WIDENED ? load_widened(p) : load(p);
}

/* t[i] lane j <- t[j] lane i: swaps words, pairs of words, halves. */
INLINE void transpose(vec t[LANES])
{
    vec a[LANES], b[LANES];
    for (int i = 0; i < LANES; i += 2) {
        a[i] = __builtin_shufflevector(t[i], t[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
        a[i + 1] = __builtin_shufflevector(t[i], t[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
    }
    for (int h = 0; h < LANES; h += 4) {
        b[h] = __builtin_shufflevector(a[h], a[h + 2], 0, 1, 8, 9, 4, 5, 12, 13);
        b[h + 1] = __builtin_shufflevector(a[h], a[h + 2], 2, 3, 10, 11, 6, 7, 14, 15);
        b[h + 2] = __builtin_shufflevector(a[h + 1], a[h + 3], 0, 1, 8, 9, 4, 5, 12, 13);
        b[h + 3] = __builtin_shufflevector(a[h + 1], a[h + 3], 2, 3, 10, 11, 6, 7, 14, 15);
    }
    for (int i = 0; i < 4; i++) {
        t[i] = __builtin_shufflevector(b[i], b[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
        t[i + 4] = __builtin_shufflevector(b[i], b[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    }
}

/* Eight steps of `lanes` words each, width apart. Where lanes < 8 (a panel narrower than a
 * vector) a store spills into the next step, which is written after it; the last step of
 * the panel has no next one. */
INLINE void store_steps(u32 *dst, const vec t[LANES], i64 steps, i64 width, i64 lanes, bool last)
{
    for (i64 i = 0; i < steps; i++)
        if (lanes == LANES || !(last && i == steps - 1))
            memcpy(dst + i * width, &t[i], sizeof t[i]);
        else
            memcpy(dst + i * width, &t[i], (size_t)(4 * lanes));
}

INLINE void pack_group_along_k(enum word w, u32 *dst, const struct gemm_slab *s, i64 row,
                               i64 width, i64 lanes)
{
    const i64 per_word = w == WORD_PAIR ? 2 : 1, bytes = element_bytes(w);
    const i64 steps = ceil_div(s->k, per_word);
    const u8 *src = (const u8 *)s->data + row * s->row_stride * bytes;
    const i64 stride = s->row_stride * bytes, present = i64_min(lanes, s->rows - row);
    vec t[LANES];

    for (i64 step = 0; step < steps; step += LANES, src += LANES * per_word * bytes) {
        i64 left = s->k - step * per_word, n = i64_min(LANES, steps - step);
        if (present == LANES && left >= LANES * per_word) {
            for (int r = 0; r < LANES; r++)
                t[r] = load_along_k(w, src + r * stride, LANES * per_word);
        } else {
            for (int r = 0; r < LANES; r++)
                t[r] = r < present ? load_along_k(w, src + r * stride, left) : (vec){ 0 };
        }
        transpose(t);
        if (n == LANES && lanes == LANES)
            store_steps(dst + step * width, t, LANES, width, LANES, false);
        else
            store_steps(dst + step * width, t, n, width, lanes, step + n == steps);
    }
}

INLINE void pack_along_k(enum word w, u32 *panels, const struct gemm_slab *s, i64 width)
{
    const i64 steps = ceil_div(s->k, w == WORD_PAIR ? 2 : 1);
    for (i64 row = 0; row < s->rows; row += width, panels += steps * width)
        for (i64 g = 0; g < width; g += LANES)
            pack_group_along_k(w, panels + g, s, row + g, width, i64_min(LANES, width - g));
}

/* --- sources that run along the width --------------------------------------------- */

/* Eight words side by side at one k; k + 1 is there for the second half of a pair. */
INLINE vec load_along_width(enum word w, const u8 *p, i64 k_stride, bool second)
{
    if (w == WORD_F32)
        return load(p);
    if (w == WORD_WIDENED)
        return load_widened(p);
    vec high = second ? load_widened(p + k_stride * 2) : (vec){ 0 };
    return load_widened(p) >> 16 | high;
}

/* The same for the last, incomplete group of a matrix. */
static vec load_some_along_width(enum word w, const u8 *p, i64 k_stride, bool second, i64 rows)
{
    u8 padded[64] = { 0 };
    const i64 bytes = element_bytes(w);
    if (rows <= 0)
        return (vec){ 0 };
    memcpy(padded, p, (size_t)(rows * bytes));
    if (w == WORD_PAIR && second)
        memcpy(padded + 16, p + k_stride * 2, (size_t)(rows * 2));
    return load_along_width(w, padded, 8, second);
}

INLINE void pack_steps_along_width(enum word w, u32 *dst, const struct gemm_slab *s, i64 row,
                                   i64 width, i64 step, i64 n, i64 steps)
{
    const i64 per_word = w == WORD_PAIR ? 2 : 1, bytes = element_bytes(w);
    const u8 *src = (const u8 *)s->data + (step * per_word * s->k_stride + row) * bytes;

    for (i64 i = step; i < step + n; i++, src += per_word * s->k_stride * bytes) {
        bool second = i * per_word + 1 < s->k;
        for (i64 g = 0; g < width; g += LANES) {
            i64 lanes = i64_min(LANES, width - g), left = s->rows - row - g;
            vec v = left >= LANES ? load_along_width(w, src + g * bytes, s->k_stride, second)
                                  : load_some_along_width(w, src + g * bytes, s->k_stride,
                                                          second, left);
            if (lanes == LANES || i < steps - 1)
                memcpy(dst + i * width + g, &v, sizeof v);
            else
                memcpy(dst + i * width + g, &v, (size_t)(4 * lanes));
        }
    }
}

/* Rows that the next chunk will read: too far apart for the hardware to guess. */
INLINE void prefetch_rows(enum word w, const struct gemm_slab *s, i64 k)
{
    const i64 bytes = element_bytes(w), end = i64_min(s->k, k + K_CHUNK);
    for (; k < end; k++) {
        const u8 *src = (const u8 *)s->data + k * s->k_stride * bytes;
        for (i64 b = 0; b < s->rows * bytes; b += 64)
            __builtin_prefetch(src + b);
    }
}

INLINE void pack_along_width(enum word w, u32 *panels, const struct gemm_slab *s, i64 width)
{
    const i64 per_word = w == WORD_PAIR ? 2 : 1, steps = ceil_div(s->k, per_word);
    for (i64 step = 0; step < steps; step += K_CHUNK / per_word) {
        i64 n = i64_min(K_CHUNK / per_word, steps - step);
        prefetch_rows(w, s, (step + n) * per_word);
        u32 *dst = panels;
        for (i64 row = 0; row < s->rows; row += width, dst += steps * width)
            pack_steps_along_width(w, dst, s, row, width, step, n, steps);
    }
}

INLINE void pack_as(enum word w, u32 *panels, const struct gemm_slab *s, i64 width)
{
    assert(width % LANES == 0 || width < LANES);
    if (s->k_stride == 1)
        pack_along_k(w, panels, s, width);
    else
        pack_along_width(w, panels, s, width);
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

void NAMED(gemm_start)(float *dst, i64 dst_stride, const struct gemm_start *s, i64 rows,
                       i64 cols)
{
    const float *from = s->from;
    const bf16 *from_half = s->from;
    for (i64 r = 0; r < rows; r++, dst += dst_stride) {
        if (!s->from)
            memset(dst, 0, (size_t)cols * sizeof *dst);
        else if (s->from_type == DTYPE_F32)
            memmove(dst, from + r * s->from_stride, (size_t)cols * sizeof *dst);
        else
            for (i64 c = 0; c < cols; c++)
                dst[c] = bf16_to_f32(from_half[r * s->from_stride + c]);
        if (s->bias)
            for (i64 c = 0; c < cols; c++)
                dst[c] += s->bias[c];
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
