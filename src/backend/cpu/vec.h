/* backend/cpu/vec.h - a vector of floats, as wide as this instruction set's registers.
 *
 * Files in multi/ are compiled once per instruction set (ISA, and ISA_avx2 and so on, come
 * from the build). They write each kernel once on the few functions below; NAMED gives
 * each copy its own name. VL is the number of lanes: 4 generic, 8 AVX2, 16 AVX-512; the
 * tests also build ISA=wide, 16 lanes without AVX-512, to run that code anywhere.
 *
 * Sums over lanes are trees of a fixed shape, so a kernel's bits depend on VL but never on
 * the number of threads. Elements are f32 or bf16 in memory and f32 in registers; `half`
 * is a constant wherever these functions are used in a loop. */
#ifndef HEADWAY_VEC_H
#define HEADWAY_VEC_H

#include "base/base.h"
#include "base/dtype.h"

#include <math.h>
#include <string.h>
#if defined(ISA_avx2) || defined(ISA_avx512)
#include <immintrin.h>
#endif

#define PASTE_(a, b) a##_##b
#define PASTE(a, b) PASTE_(a, b)
#define NAMED(name) PASTE(name, ISA)
#define INLINE static inline __attribute__((always_inline))

#if defined(ISA_avx512) || defined(ISA_wide)
enum { VL = 16 };
#elif defined(ISA_avx2)
enum { VL = 8 };
#else
enum { VL = 4 };
#endif

typedef float vec __attribute__((vector_size(VL * 4)));
typedef i32 vec_i32 __attribute__((vector_size(VL * 4)));
typedef u32 vec_u32 __attribute__((vector_size(VL * 4)));
typedef u16 vec_u16 __attribute__((vector_size(VL * 2)));

/* --- registers ---------------------------------------------------------------------- */

INLINE vec vec_all(float x)
{
    return x - (vec){ 0 };
}

INLINE vec_i32 vec_all_i32(i32 x)
{
    return x - (vec_i32){ 0 };
}

/* 0, 1, 2, ... */
INLINE vec_i32 vec_lanes(void)
{
    vec_i32 v;
    for (int i = 0; i < VL; i++)
        v[i] = i;
    return v;
}

/* mask lanes are all ones or all zeros, as comparisons of vectors give them. */
INLINE vec vec_select(vec_i32 mask, vec yes, vec no)
{
#if defined(ISA_avx2)
    return (vec)_mm256_blendv_ps((__m256)no, (__m256)yes, (__m256)mask);
#endif
    return (vec)((mask & (vec_i32)yes) | (~mask & (vec_i32)no));
}

/* The larger; b where either is NaN. Put the operand whose NaN shall survive second. */
INLINE vec vec_max(vec a, vec b)
{
#if defined(ISA_avx512)
    return (vec)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(ISA_avx2)
    return (vec)_mm256_max_ps((__m256)a, (__m256)b);
#else
    return vec_select(a > b, a, b);
#endif
}

/* The smaller; b where either is NaN. */
INLINE vec vec_min(vec a, vec b)
{
#if defined(ISA_avx512)
    return (vec)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined(ISA_avx2)
    return (vec)_mm256_min_ps((__m256)a, (__m256)b);
#else
    return vec_select(a < b, a, b);
#endif
}

INLINE vec vec_sqrt(vec x)
{
#if defined(ISA_avx512)
    return (vec)_mm512_sqrt_ps((__m512)x);
#elif defined(ISA_avx2)
    return (vec)_mm256_sqrt_ps((__m256)x);
#else
    for (int i = 0; i < VL; i++)
        x[i] = sqrtf(x[i]);
    return x;
#endif
}

/* a b + c, rounded once where this set multiplies and adds in one. Expressions say how that is
 * where a compiler has no choice; in x y + u v it may round either product, here as there another,
 * and then an element's bits depend on where it stands. */
INLINE vec vec_fma(vec a, vec b, vec c)
{
#if defined(ISA_avx512)
    return (vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(ISA_avx2)
    return (vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__FP_FAST_FMAF)
    for (int i = 0; i < VL; i++)
        a[i] = __builtin_fmaf(a[i], b[i], c[i]);
    return a;
#else
    return a * b + c;
#endif
}

/* Sum of the lanes: halves are added to halves. */
INLINE float vec_sum(vec x)
{
    float lane[VL];
    memcpy(lane, &x, sizeof x);
    for (int half = VL / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++)
            lane[i] += lane[i + half];
    return lane[0];
}

INLINE float vec_largest(vec x)
{
    float lane[VL];
    memcpy(lane, &x, sizeof x);
    for (int half = VL / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++)
            lane[i] = lane[i] > lane[i + half] ? lane[i] : lane[i + half];
    return lane[0];
}

/* --- memory ------------------------------------------------------------------------- */

INLINE vec vec_load(const float *p)
{
    vec v;
    memcpy(&v, p, sizeof v);
    return v;
}

INLINE void vec_store(float *p, vec v)
{
    memcpy(p, &v, sizeof v);
}

/* bf16 to f32 is exact: 16 zero bits below. */
INLINE vec vec_widen(vec_u16 h)
{
#if defined(ISA_avx512)
    return (vec)_mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)h), 16);
#elif defined(ISA_avx2)
    return (vec)_mm256_slli_epi32(_mm256_cvtepu16_epi32((__m128i)h), 16);
#else
    return (vec)(__builtin_convertvector(h, vec_u32) << 16);
#endif
}

/* Nearest, ties to even; NaN stays NaN. The same bits as bf16_from_f32. */
INLINE vec_u16 vec_narrow(vec x)
{
    vec_u32 bits = (vec_u32)x;
    vec_u32 rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    rounded = (vec_u32)vec_select(x != x, (vec)(bits >> 16 | 0x40), (vec)rounded);
#if defined(ISA_avx512)
    return (vec_u16)_mm512_cvtepi32_epi16((__m512i)rounded);
#elif defined(ISA_avx2)
    __m256i packed = _mm256_packus_epi32((__m256i)rounded, (__m256i)rounded);
    return (vec_u16)_mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0x08));
#else
    return __builtin_convertvector(rounded, vec_u16);
#endif
}

INLINE bool is_half(enum dtype type)
{
    assert(type == DTYPE_F32 || type == DTYPE_BF16);
    return type == DTYPE_BF16;
}

/* Elements i .. i + VL - 1 of an array of f32 (half false) or bf16 (half true). */
INLINE vec vec_get(bool half, const void *p, i64 i)
{
    if (!half)
        return vec_load((const float *)p + i);
    vec_u16 h;
    memcpy(&h, (const bf16 *)p + i, sizeof h);
    return vec_widen(h);
}

INLINE void vec_put(bool half, void *p, i64 i, vec v)
{
    if (half) {
        vec_u16 h = vec_narrow(v);
        memcpy((bf16 *)p + i, &h, sizeof h);
    } else {
        vec_store((float *)p + i, v);
    }
}

/* The same for the last n < VL elements; absent lanes read as zero. */
INLINE vec vec_get_some(bool half, const void *p, i64 i, i64 n)
{
    float wide[VL] = { 0 };
    bf16 narrow[VL] = { 0 };
    if (half)
        memcpy(narrow, (const bf16 *)p + i, (size_t)n * sizeof(bf16));
    else
        memcpy(wide, (const float *)p + i, (size_t)n * sizeof(float));
    return half ? vec_get(true, narrow, 0) : vec_get(false, wide, 0);
}

INLINE void vec_put_some(bool half, void *p, i64 i, vec v, i64 n)
{
    float wide[VL];
    bf16 narrow[VL];
    vec_put(half, half ? (void *)narrow : (void *)wide, 0, v);
    if (half)
        memcpy((bf16 *)p + i, narrow, (size_t)n * sizeof(bf16));
    else
        memcpy((float *)p + i, wide, (size_t)n * sizeof(float));
}

/* n lanes in use: all, or the tail of a row. */
INLINE vec vec_get_n(bool half, const void *p, i64 i, i64 n)
{
    return n >= VL ? vec_get(half, p, i) : vec_get_some(half, p, i, n);
}

INLINE void vec_put_n(bool half, void *p, i64 i, vec v, i64 n)
{
    if (n >= VL)
        vec_put(half, p, i, v);
    else
        vec_put_some(half, p, i, v, n);
}

/* Address of element i. */
INLINE void *vec_at(bool half, const void *p, i64 i)
{
    return (char *)(uintptr_t)p + i * (half ? (i64)sizeof(bf16) : (i64)sizeof(float));
}

/* --- mathematics -------------------------------------------------------------------- */

/* 2^x for x < 127.5, within 2 ulp; 0 below -126.5. NaN stays NaN.
 * x = n + f with |f| <= 1/2; 2^f is a polynomial, 2^n is put together from its bits: the
 * magic number leaves n + 127 in the low bits of the sum. */
INLINE vec vec_exp2(vec x)
{
    const float magic = 12582912.0f + 127.0f; /* 1.5 * 2^23: the unit is the last bit */
    x = vec_max(vec_all(-127.0f), x);
    vec t = x + magic;
    vec f = x - (t - magic);
    /* 2^f within 2^-28.9, minimax; ln(2)^k / k! bent a little */
    vec p = f * 1.53533619e-4f + 1.33988744e-3f;
    p = p * f + 9.61843736e-3f;
    p = p * f + 5.55033247e-2f;
    p = p * f + 2.40226479e-1f;
    p = p * f + 6.93147203e-1f;
    p = p * f + 1.0f;
    return p * (vec)((vec_u32)t << 23);
}

/* e^x, relative error below 2 ulp for results from 2^-126 to 2^127; 0 below -87.7,
 * infinity above 88.4. NaN stays NaN. f = x - n ln 2 in two pieces keeps it exact. */
INLINE vec vec_exp(vec x)
{
    const float magic = 12582912.0f + 127.0f;
    x = vec_min(vec_all(88.7f), vec_max(vec_all(-88.0f), x));
    vec t = x * 1.44269504f + magic;
    vec n = t - magic;
    vec f = x - n * 0.693145752f; /* 15 bits of ln 2: n times it is exact */
    f = f - n * 1.42860677e-6f;
    /* e^f within 2^-28.2, minimax; 1 / k! bent a little */
    vec p = f * 1.38146023e-3f + 8.36871564e-3f;
    p = p * f + 4.16683890e-2f;
    p = p * f + 1.66665211e-1f;
    p = p * f + 4.99999940e-1f;
    p = p * f * f + f + 1.0f;
    return p * (vec)((vec_u32)t << 23);
}

/* 1 / (1 + e^-x), relative error below 4 ulp. */
INLINE vec vec_sigmoid(vec x)
{
    return 1.0f / (1.0f + vec_exp(-x));
}

/* The normal distribution function, erfc(-x / sqrt 2) / 2, absolute error below 3e-7:
 * Chebyshev fit of Numerical Recipes (erfcc), fractional error 1.2e-7. */
INLINE vec vec_normal(vec x)
{
    static const float c[] = { 0.17087277f,  -0.82215223f, 1.48851587f, -1.13520398f,
                               0.27886807f,  -0.18628806f, 0.09678418f, 0.37409196f,
                               1.00002368f,  -1.26551223f };
    vec z = vec_max(x, -x) * 0.70710678f;
    vec t = 1.0f / (1.0f + 0.5f * z);
    vec p = vec_all(c[0]);
    for (int i = 1; i < (int)COUNT_OF(c); i++)
        p = p * t + c[i];
    vec tail = 0.5f * t * vec_exp(p - z * z);
    return vec_select(x < 0, tail, 1.0f - tail);
}

#endif
