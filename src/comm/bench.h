/* comm/bench.h - is this interconnect sane? Times and rates per operation and size. */
#ifndef HEADWAY_COMM_BENCH_H
#define HEADWAY_COMM_BENCH_H

#include "comm/comm.h"

struct comm_timing {
    enum comm_op op;  /* COMM_SEND: every rank sends to the next and receives */
    i64 bytes;        /* of the larger buffer */
    int repetitions;
    double median_us, worst_us; /* on this rank */
    double bus_gb_per_s; /* bytes that a ring would send per rank, by the median; 0: none */
};

/* All members call it with the same arguments. */
int comm_bench(struct comm_group *g, enum comm_op op, i64 bytes, bool exact,
               struct comm_timing *out);

/* An allreduce of so many bytes on a lane, beside a computation that takes as long. */
struct comm_overlap {
    double call_us, compute_us, together_us;
    double hidden; /* share of the shorter one that took no time */
};
int comm_bench_overlap(struct comm_group *g, i64 bytes, struct comm_overlap *out);

#endif
