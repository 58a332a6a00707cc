/* base/pool.h - a persistent pool of worker threads for the compute lane.
 *
 * pool_run splits work into parts; threads take parts in order from a shared counter.
 * What a part computes must not depend on which thread runs it nor on how many threads
 * there are: that, and nothing else, is why results do not depend on the thread count.
 * One caller at a time; the caller works too (it is thread 0). Nothing is allocated. */
#ifndef HEADWAY_POOL_H
#define HEADWAY_POOL_H

#include "base/base.h"

struct pool;

/* part is in [0, parts); thread is in [0, pool_threads(p)), for per-thread scratch. */
typedef void (*pool_fn)(void *context, i64 part, int thread);

/* threads >= 1; worker i is pinned to the i-th allowed core when pin is true. */
int pool_new(struct pool **out, int threads, bool pin);
void pool_free(struct pool *p); /* NULL is fine */
int pool_threads(const struct pool *p);
/* The system's ids of its other threads, at most n; returns how many. */
int pool_thread_ids(const struct pool *p, int *ids, int n);

/* How the threads worked in the rounds since pool_measure. */
struct pool_work {
    double busy, longest; /* ns on parts: all threads together, the one with most */
    double on_cpu;        /* ns of `busy` on a processor; 0 unless asked for */
    double rounds;        /* ns that the rounds took their caller */
};

/* Begins to measure, until pool_measured tells. on_cpu costs each thread a microsecond a round, two
 * where rounds do not follow each other at once. */
void pool_measure(struct pool *p, bool on_cpu);
struct pool_work pool_measured(struct pool *p);

/* Runs fn for every part and returns when all are done. */
void pool_run(struct pool *p, i64 parts, pool_fn fn, void *context);

#endif
