#include "base/dtype.h"

#include <math.h>

static const char *const names[DTYPES] = { "f32", "bf16", "f16", "f64", "i32", "i64", "u8" };

const char *dtype_name(enum dtype d)
{
    return names[d];
}

/* IEEE half: 1 sign, 5 exponent (bias 15), 10 fraction bits. */
static double f16_to_double(u16 h)
{
    int exponent = h >> 10 & 31, fraction = h & 1023;
    double value;
    if (exponent == 31)
        value = fraction ? (double)NAN : (double)INFINITY;
    else if (exponent == 0)
        value = ldexp(fraction, -24);
    else
        value = ldexp(fraction + 1024, exponent - 25);
    return h & 0x8000 ? -value : value;
}

static u16 f16_from_double(double value)
{
    u16 sign = signbit(value) ? 0x8000 : 0;
    double a = fabs(value);
    if (isnan(value))
        return sign | 0x7e00;
    if (a >= 65520)
        return sign | 0x7c00; /* rounds to infinity */
    int exponent;
    frexp(a, &exponent); /* a = m 2^exponent, m in [0.5, 1) */
    int scale = exponent - 11 < -24 ? -24 : exponent - 11;
    double units = nearbyint(ldexp(a, -scale)); /* ties to even in the default mode */
    if (units >= 2048) {
        units /= 2;
        scale++;
    }
    if (units < 1024)
        return sign | (u16)units; /* subnormal or zero */
    return sign | (u16)((scale + 25) << 10) | ((u16)units & 1023);
}

double dtype_get(enum dtype d, const void *data, i64 i)
{
    switch (d) {
    case DTYPE_F32: return (double)((const float *)data)[i];
    case DTYPE_BF16: return (double)bf16_to_f32(((const bf16 *)data)[i]);
    case DTYPE_F16: return f16_to_double(((const u16 *)data)[i]);
    case DTYPE_F64: return ((const double *)data)[i];
    case DTYPE_I32: return (double)((const i32 *)data)[i];
    case DTYPE_I64: return (double)((const i64 *)data)[i];
    default: return (double)((const u8 *)data)[i];
    }
}

/* double to bf16 in one rounding: via a single that keeps a sticky bit (round to odd). */
static bf16 bf16_from_double(double value)
{
    float f = (float)value;
    u32 bits;
    if (!isfinite(f) || (double)f == value)
        return bf16_from_f32(f);
    memcpy(&bits, &f, 4);
    if (fabs((double)f) > fabs(value))
        bits--; /* towards zero */
    bits |= 1;
    memcpy(&f, &bits, 4);
    return bf16_from_f32(f);
}

void dtype_set(enum dtype d, void *data, i64 i, double value)
{
    switch (d) {
    case DTYPE_F32: ((float *)data)[i] = (float)value; break;
    case DTYPE_BF16: ((bf16 *)data)[i] = bf16_from_double(value); break;
    case DTYPE_F16: ((u16 *)data)[i] = f16_from_double(value); break;
    case DTYPE_F64: ((double *)data)[i] = value; break;
    case DTYPE_I32: ((i32 *)data)[i] = (i32)value; break;
    case DTYPE_I64: ((i64 *)data)[i] = (i64)value; break;
    default: ((u8 *)data)[i] = (u8)value; break;
    }
}
