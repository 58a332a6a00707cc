#include "base/rng.h"

#include <math.h>
#include <pthread.h>

enum { PHILOX_ROUNDS = 10, FEISTEL_ROUNDS = 6 };

u64 rng_stream(const char *name)
{
    u64 h = 14695981039346656037u; /* FNV-1a, 64 bits */
    for (; *name; name++)
        h = (h ^ (u8)*name) * 1099511628211u;
    return h;
}

void rng_block(const struct rng *key, u64 index, u32 out[4])
{
    /* Multipliers and Weyl constants of Philox4x32, table 2 of the paper. */
    const u64 m0 = 0xD2511F53u, m1 = 0xCD9E8D57u;
    u32 k0 = (u32)key->seed, k1 = (u32)(key->seed >> 32);
    u32 c0 = (u32)index, c1 = (u32)(index >> 32);
    u32 c2 = (u32)key->stream, c3 = (u32)(key->stream >> 32);
    for (int round = 0; round < PHILOX_ROUNDS; round++) {
        u64 p0 = m0 * c0, p1 = m1 * c2;
        c0 = (u32)(p1 >> 32) ^ c1 ^ k0;
        c1 = (u32)p1;
        c2 = (u32)(p0 >> 32) ^ c3 ^ k1;
        c3 = (u32)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

u64 rng_u64(const struct rng *key, u64 index)
{
    u32 r[4];
    rng_block(key, index, r);
    return (u64)r[0] << 32 | r[1];
}

double rng_uniform(const struct rng *key, u64 index)
{
    return (double)(rng_u64(key, index) >> 11) * 0x1p-53;
}

double rng_normal(const struct rng *key, u64 index)
{
    u32 r[4];
    rng_block(key, index, r);
    double u = ((double)(((u64)r[0] << 32 | r[1]) >> 11) + 0.5) * 0x1p-53; /* (0, 1) */
    double v = (double)(((u64)r[2] << 32 | r[3]) >> 11) * 0x1p-53;
    return sqrt(-2 * log(u)) * cos(2 * 3.14159265358979323846 * v);
}

static float quantile[RNG_QUANTILES + 1];

static void fill_quantiles(void)
{
    double x = -4.2; /* Newton's method from one quantile to the next */
    for (int i = 1; i <= RNG_QUANTILES / 2; i++) {
        double p = (double)i / RNG_QUANTILES;
        for (int k = 0; k < 20; k++) {
            double density = 0.39894228040143268 * exp(-0.5 * x * x); /* 1/sqrt(2 pi) */
            x += (p - 0.5 * erfc(-x * 0.70710678118654752)) / density;
        }
        quantile[i] = (float)x;
        quantile[RNG_QUANTILES - i] = -(float)x;
    }
    quantile[RNG_QUANTILES / 2] = 0;
    quantile[0] = -4.2f;
    quantile[RNG_QUANTILES] = 4.2f;
}

const float *rng_quantiles(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, fill_quantiles);
    return quantile;
}

/* One pass of the Feistel network over 2*half bits. */
static u64 feistel(const struct rng *key, int half, u64 x)
{
    u64 mask = ((u64)1 << half) - 1;
    u64 left = x >> half, right = x & mask;
    for (u64 round = 0; round < FEISTEL_ROUNDS; round++) {
        u64 f = rng_u64(key, right | round << 56) & mask;
        u64 next = left ^ f;
        left = right;
        right = next;
    }
    return left << half | right;
}

i64 rng_permute(const struct rng *key, i64 n, i64 i)
{
    assert(n >= 1 && i >= 0 && i < n);
    if (n == 1)
        return 0;
    int half = 1;
    while (((i64)1 << (2 * half)) < n)
        half++;
    u64 x = (u64)i;
    do
        x = feistel(key, half, x);
    while (x >= (u64)n);
    return (i64)x;
}
