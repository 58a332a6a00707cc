#include "backend/vec_probe.h"

#include "backend/cpu/tile.h"

static void probe_exp2(float *y, const float *x, i64 n)
{
    for (i64 i = 0; i < n; i += VL)
        vec_store(y + i, vec_exp2(vec_load(x + i)));
}

static void probe_exp(float *y, const float *x, i64 n)
{
    for (i64 i = 0; i < n; i += VL)
        vec_store(y + i, vec_exp(vec_load(x + i)));
}

static void probe_sigmoid(float *y, const float *x, i64 n)
{
    for (i64 i = 0; i < n; i += VL)
        vec_store(y + i, vec_sigmoid(vec_load(x + i)));
}

static void probe_normal(float *y, const float *x, i64 n)
{
    for (i64 i = 0; i < n; i += VL)
        vec_store(y + i, vec_normal(vec_load(x + i)));
}

static void probe_sqrt(float *y, const float *x, i64 n)
{
    for (i64 i = 0; i < n; i += VL)
        vec_store(y + i, vec_sqrt(vec_load(x + i)));
}

static void probe_narrow(bf16 *y, const float *x, i64 n)
{
    for (i64 i = 0; i < n; i += VL)
        vec_put(true, y, i, vec_load(x + i));
}

static void probe_widen(float *y, const bf16 *x, i64 n)
{
    for (i64 i = 0; i < n; i += VL)
        vec_store(y + i, vec_get(true, x, i));
}

static void probe_copy_some(float *y, const float *x, i64 n)
{
    vec_put_n(false, y, 0, vec_get_n(false, x, 0, n), n);
}

static void probe_copy_some_half(bf16 *y, const bf16 *x, i64 n)
{
    vec_put_n(true, y, 0, vec_get_n(true, x, 0, n), n);
}

static float probe_sum(const float *x)
{
    return vec_sum(vec_load(x));
}

static float probe_largest(const float *x)
{
    return vec_largest(vec_load(x));
}

static void probe_transpose(float *square)
{
    vec v[VL];
    for (int i = 0; i < VL; i++)
        v[i] = vec_load(square + i * VL);
    transpose(v);
    for (int i = 0; i < VL; i++)
        vec_store(square + i * VL, v[i]);
}

#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)

const struct vec_probe NAMED(vec_probe) = {
#if defined(ISA_wide)
    .backend = "avx2", /* 16 lanes in pairs of registers */
#else
    .backend = TEXT(ISA),
#endif
    .lanes = VL,
    .exp2 = probe_exp2, .exp = probe_exp, .sigmoid = probe_sigmoid, .normal = probe_normal,
    .sqrt = probe_sqrt, .narrow = probe_narrow, .widen = probe_widen,
    .copy_some = probe_copy_some, .copy_some_half = probe_copy_some_half,
    .sum = probe_sum, .largest = probe_largest, .transpose = probe_transpose,
};
