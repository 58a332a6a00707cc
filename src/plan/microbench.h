/* plan/microbench.h - what this machine's kernels and exchanges take, without a run to learn from.
 *
 * So many ranks with so many threads each take steps of small made-up models, one layer each, of
 * several widths, lengths and batches: the decoder's own programs on the backend's own kernels, so
 * every op of training is timed at many sizes, matrix products above all. Ranks work at the same
 * time and so share caches and memory as in a run. Two or more then time collectives through the
 * memory that they share, alone and beside computing.
 *
 * What comes out are rates (rates.h): seconds per FLOP, byte and task of each op, per byte and call
 * of exchanges; the products themselves as a curve; the time of computing that driving an exchange
 * takes away. Memory levels and the launch floor are those of machine/machine.h. */
#ifndef HEADWAY_PLAN_MICROBENCH_H
#define HEADWAY_PLAN_MICROBENCH_H

#include "machine/machine.h"
#include "plan/rates.h"

struct microbench {
    int ranks, threads;           /* threads of each */
    enum dtype dtype;             /* of the products */
    i64 widest;                   /* made-up models of at most this width; 0: all */
    const char *backend;          /* as backend_init takes it */
    const struct machine *machine; /* its memory levels and launch floor; measured before */
    void (*progress)(void *context, double fraction, const char *what); /* called by one rank */
    void *context;
    int part, parts;              /* of all that is measured, for progress */
};

/* The calling process has no other threads (comm/local.h). Texts live in the arena. */
int microbench_run(struct plan_rates *out, const struct microbench *m, struct arena *a);

#endif
