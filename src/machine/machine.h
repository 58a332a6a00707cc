/* machine/machine.h - this machine as data: what it is, and its measured ceilings.
 *
 * A ceiling is what our own instruction mix can reach at best: multiply-adds on registers
 * with random data, streams through each level of memory, dependent loads. MFU and the
 * planner divide by these, so every number says how it was obtained. Measured once and
 * cached per machine (processor, cores, backend), in $XDG_CACHE_HOME/headway. */
#ifndef HEADWAY_MACHINE_H
#define HEADWAY_MACHINE_H

#include "base/json.h"
#include "base/pool.h"

enum { MACHINE_LEVELS = 4 }; /* L1, L2, L3, DRAM */

struct machine_level {
    i64 bytes;                       /* of the cache, per instance; 0: absent. DRAM: installed */
    i64 working_set;                 /* per thread, that was measured */
    double read_one, read_all;       /* bytes/s, one thread and all threads */
    double copy_one, copy_all;       /* bytes/s, reads plus writes */
    double latency_ns;               /* of a dependent load */
};

struct machine {
    char processor[128];
    char backend[32];
    int cores, threads;
    double clock_hz;                 /* from a chain of dependent multiplications */
    double f32_one, f32_all;         /* FLOP/s of fp32's products, whichever way is faster: */
    bool f32_split;                  /* in pieces of bf16 (gemm_kernel_split_amx.c); else: */
    double fma_one, fma_all;         /* by multiply-adds on fp32 */
    double bf16_one, bf16_all;       /* bf16 operands, f32 sums, whichever way is faster: */
    bool bf16_native;                /* by bf16 instructions; else widened, as fast as f32 */
    struct machine_level level[MACHINE_LEVELS];
    double launch_ns;                /* of an empty task over all threads */
};

/* Names and sizes only; immediate. */
/* "model name" of /proc/cpuinfo, or "unknown". */
void machine_processor_name(char *out, size_t size);
void machine_detect(struct machine *m, const char *backend, int threads);
/* Peaks of arithmetic only: a fifth of a second. */
void machine_measure_peaks(struct machine *m, struct pool *pool);
/* All the rest as well: about ten seconds. progress may be NULL. */
void machine_measure(struct machine *m, struct pool *pool,
                     void (*progress)(void *context, double fraction, const char *what),
                     void *context);

/* True when something else must have run while m was measured, and why. before: an
 * earlier measurement of the same machine, or NULL. */
bool machine_disturbed(const struct machine *m, const struct machine *before, char *why, int chars);

/* The cached machine of this name, threads and backend; ERR_CONFIG when there is none. */
int machine_load(struct machine *m);
/* Failing to write the cache costs a measurement next time: a warning. */
void machine_save(const struct machine *m);

/* Peaks for a run: from the cache, else measured now and cached. Takes a tenth of a
 * second even then, to see whether the cache's are too low; those are measured again. */
void machine_peaks(struct machine *m, const char *backend, struct pool *pool);

void machine_write_json(const struct machine *m, struct json *j);

#endif
