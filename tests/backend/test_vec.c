/* The vector layer of the CPU kernels against the C library, on every instruction set that
 * this machine can run, and on 16 lanes whatever it can. */
#include "backend/vec_probe.h"

#include "backend/backend.h"
#include "test.h"

#include <math.h>
#include <stdio.h>

static const struct vec_probe *const probes[] = {
    &vec_probe_generic,
#if defined(__x86_64__)
    &vec_probe_avx2, &vec_probe_avx512, &vec_probe_wide,
#endif
};

/* The next instruction set to try, from i on; NULL at the end. */
static const struct vec_probe *next_probe(int *i)
{
    while (*i < COUNT_OF(probes)) {
        const struct vec_probe *p = probes[(*i)++];
        if (backend_supported(p->backend))
            return p;
    }
    return NULL;
}
#define EACH_PROBE(p) for (int at_ = 0; (p = next_probe(&at_)) != NULL;)

enum { BATCH = 1024 };

/* Every sign and exponent with some 2^13 fractions each: bits first, first + stride, ... */
struct sweep {
    u64 bits;
    float x[BATCH];
};

static bool sweep_next(struct sweep *s)
{
    const u64 stride = 1019; /* a prime: low bits of the fraction vary as well */
    for (int i = 0; i < BATCH; i++, s->bits += stride) {
        u32 bits = (u32)s->bits;
        memcpy(&s->x[i], &bits, 4);
    }
    return s->bits < (u64)1 << 32;
}

static double ulp_error(float got, double want)
{
    double unit = ldexp(1, i64_max(ilogb(want), -126) - 23);
    return fabs((double)got - want) / unit;
}

/* Largest error in ulp where low <= x <= high; NaN must stay NaN everywhere. */
static double worst_ulp(void (*f)(float *, const float *, i64), double (*truth)(double),
                        double low, double high)
{
    struct sweep s = { 0 };
    float y[BATCH];
    double worst = 0;
    while (sweep_next(&s)) {
        f(y, s.x, BATCH);
        for (int i = 0; i < BATCH; i++) {
            double x = (double)s.x[i];
            if (isnan(x))
                CHECK(isnan(y[i]));
            else if (x >= low && x <= high)
                worst = fmax(worst, ulp_error(y[i], truth(x)));
        }
    }
    return worst;
}

static float one(void (*f)(float *, const float *, i64), double x)
{
    float in[64], out[64];
    for (int i = 0; i < 64; i++)
        in[i] = (float)x;
    f(out, in, 64);
    return out[63];
}

TEST(exponentials_are_within_two_ulp_and_vanish_below)
{
    const struct vec_probe *p;
    EACH_PROBE(p)
    {
        double a = worst_ulp(p->exp2, exp2, -126, 127.4);
        double b = worst_ulp(p->exp, exp, -87.3, 88.3);
        printf("%s, %d lanes: exp2 %.2f ulp, exp %.2f ulp\n", p->backend, p->lanes, a, b);
        CHECK(a <= 2 && b <= 2);
        CHECK(one(p->exp2, 0) == 1 && one(p->exp, 0) == 1);
        CHECK(one(p->exp2, -1e4) == 0 && one(p->exp2, -INFINITY) == 0);
        CHECK(one(p->exp, -1e4) == 0 && one(p->exp, -INFINITY) == 0);
        CHECK(isinf(one(p->exp, 89)) && isinf(one(p->exp, INFINITY)));
    }
}

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

static double normal(double x)
{
    return erfc(-x / sqrt(2)) / 2;
}

TEST(sigmoid_and_normal_keep_their_bounds)
{
    const struct vec_probe *p;
    EACH_PROBE(p)
    {
        struct sweep s = { 0 };
        float y[BATCH];
        double worst = 0;
        CHECK(worst_ulp(p->sigmoid, sigmoid, -87, 1e30) <= 4);
        CHECK(worst_ulp(p->sqrt, sqrt, 0, 3e38) <= 0.5);
        while (sweep_next(&s)) {
            p->normal(y, s.x, BATCH);
            for (int i = 0; i < BATCH; i++)
                if (isfinite(s.x[i]))
                    worst = fmax(worst, fabs((double)y[i] - normal((double)s.x[i])));
        }
        CHECK_NEAR(worst, 0, 3e-7);
    }
}

TEST(bf16_conversion_has_the_bits_of_dtype)
{
    const struct vec_probe *p;
    EACH_PROBE(p)
    {
        struct sweep s = { 0 };
        bf16 y[BATCH];
        while (sweep_next(&s)) {
            p->narrow(y, s.x, BATCH);
            for (int i = 0; i < BATCH; i++)
                CHECK_EQ(y[i], bf16_from_f32(s.x[i]));
        }
        for (u32 first = 0; first < 65536; first += BATCH) {
            bf16 h[BATCH], back[BATCH];
            float x[BATCH];
            for (u32 i = 0; i < BATCH; i++)
                h[i] = (bf16)(first + i);
            p->widen(x, h, BATCH);
            for (int i = 0; i < BATCH; i++) {
                float want = bf16_to_f32(h[i]);
                CHECK(memcmp(&want, &x[i], 4) == 0);
                /* ties: half a unit above every bf16 */
                u32 bits = (u32)h[i] << 16 | 0x8000;
                memcpy(&x[i], &bits, 4);
            }
            p->narrow(back, x, BATCH);
            for (int i = 0; i < BATCH; i++)
                CHECK_EQ(back[i], bf16_from_f32(x[i]));
        }
    }
}

TEST(tails_read_and_write_nothing_beyond)
{
    const struct vec_probe *p;
    EACH_PROBE(p)
    {
        for (i64 n = 1; n <= p->lanes; n++) {
            float x[16], y[17];
            bf16 h[16], back[17];
            for (int i = 0; i < 16; i++) {
                x[i] = (float)(i + 1);
                h[i] = bf16_from_f32(x[i]);
            }
            memset(y, 0x55, sizeof y);
            memset(back, 0x55, sizeof back);
            p->copy_some(y, x, n);
            p->copy_some_half(back, h, n);
            CHECK(memcmp(x, y, (size_t)n * 4) == 0);
            CHECK(memcmp(h, back, (size_t)n * 2) == 0);
            for (i64 i = n; i < 17; i++) {
                u32 bits;
                memcpy(&bits, &y[i], 4);
                CHECK(bits == 0x55555555);
                CHECK(back[i] == 0x5555);
            }
        }
    }
}

TEST(lanes_are_summed_compared_and_transposed)
{
    const struct vec_probe *p;
    EACH_PROBE(p)
    {
        float x[16], square[256];
        for (int i = 0; i < 16; i++)
            x[i] = (float)(1 << i);
        CHECK(p->sum(x) == (float)((1 << p->lanes) - 1));
        x[p->lanes - 2] = 1e6f;
        CHECK(p->largest(x) == 1e6f);
        for (int i = 0; i < p->lanes * p->lanes; i++)
            square[i] = (float)i;
        p->transpose(square);
        for (int i = 0; i < p->lanes; i++)
            for (int j = 0; j < p->lanes; j++)
                CHECK(square[i * p->lanes + j] == (float)(j * p->lanes + i));
    }
}

TEST_MAIN(ONE(exponentials_are_within_two_ulp_and_vanish_below),
          ONE(sigmoid_and_normal_keep_their_bounds),
          ONE(bf16_conversion_has_the_bits_of_dtype), ONE(tails_read_and_write_nothing_beyond),
          ONE(lanes_are_summed_compared_and_transposed))
