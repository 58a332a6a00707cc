/* base/rng.h - counter-based random numbers (Philox4x32-10, Salmon et al., SC'11).
 *
 * A number is a pure function of (seed, stream, index): no state, so it does not depend
 * on the order of calls, the thread count or the layout. Streams separate uses:
 * one per parameter, one per purpose (rng_stream hashes a name). */
#ifndef HEADWAY_RNG_H
#define HEADWAY_RNG_H

#include "base/base.h"

struct rng {
    u64 seed, stream;
};

u64 rng_stream(const char *name);

/* 128 random bits for (key, index). */
void rng_block(const struct rng *key, u64 index, u32 out[4]);
u64 rng_u64(const struct rng *key, u64 index);
/* Uniform in [0, 1) with 53 random bits. */
double rng_uniform(const struct rng *key, u64 index);
/* Standard normal (Box-Muller on one block; index i and i^1 share no bits). */
double rng_normal(const struct rng *key, u64 index);
/* The standard normal's quantiles at i / RNG_QUANTILES, i in [0, RNG_QUANTILES]; tails end
 * at 4.2 deviations. Computed once, by plain arithmetic: the same on every machine. */
enum { RNG_QUANTILE_BITS = 12, RNG_QUANTILES = 1 << RNG_QUANTILE_BITS };
const float *rng_quantiles(void);
/* A keyed bijection of [0, n): position i of a shuffled order, in O(1) memory (Feistel
 * network on the next even power of two, walked until it falls inside). n >= 1. */
i64 rng_permute(const struct rng *key, i64 n, i64 i);

#endif
