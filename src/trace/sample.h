/* trace/sample.h - what the host did while a step was computed: one rank's counters.
 *
 * Spans say when something took place; a sample says why it took as long: whether threads were
 * on a processor or waited for one, whether pages were missing, whether the cgroup or the clock
 * held the processor back, what the loader read. Counters are differences since the sample
 * before (`covers_ns` long), so one sample alone says what its step cost; what is not a
 * difference says so. A part that this machine does not tell is 0 and has no bit in `has`.
 *
 * A plain struct without holes, of numbers in this machine's byte order: record files hold it as
 * it is. New fields go to the end; who reads a shorter one takes the rest to be 0. */
#ifndef HEADWAY_TRACE_SAMPLE_H
#define HEADWAY_TRACE_SAMPLE_H

#include "base/base.h"

enum sample_part {
    SAMPLE_SCHED = 1 << 0,    /* run_ns .. pool_queue_ns */
    SAMPLE_USAGE = 1 << 1,    /* user_ns .. involuntary */
    SAMPLE_IO = 1 << 2,       /* read_bytes, written_bytes */
    SAMPLE_THROTTLE = 1 << 3, /* throttled, throttled_ns */
    SAMPLE_PRESSURE = 1 << 4, /* cpu_pressure_ns .. memory_pressure_ns */
    SAMPLE_STEAL = 1 << 5,    /* steal_ns */
    SAMPLE_MEMORY = 1 << 6,   /* rss_bytes, peak_rss_bytes */
    SAMPLE_CLOCK = 1 << 7,    /* phi */
    SAMPLE_LOADER = 1 << 8,   /* loader_* */
    SAMPLE_ROWS = 1 << 9,     /* tokens .. attended */
    SAMPLE_NUMA = 1 << 10,    /* near_bytes .. far_speed */
};

struct sample {
    u64 at_ns;     /* when it was taken (sys_now_ns): behind the step */
    u64 covers_ns; /* since the one before */
    u32 step;      /* that has just ended, counted as spans count it */
    u32 has;       /* enum sample_part */

    /* /proc/.../schedstat: on a processor, and waiting for one though runnable. The thread that
     * computes; then the pool's other threads, together (they spin for 0.1 ms before they
     * sleep, so their run_ns is more than their work). */
    u64 run_ns, queue_ns;
    u64 pool_run_ns, pool_queue_ns;

    /* getrusage: the whole process. */
    u64 user_ns, system_ns;
    u64 minor_faults, major_faults;
    u64 voluntary, involuntary; /* switches: it waited; it was pushed aside */

    /* /proc/self/io: what really went to and came from storage. */
    u64 read_bytes, written_bytes;

    /* cpu.stat of the cgroup (v1 or v2): periods in which its quota ran out, and for how long. */
    u64 throttled, throttled_ns;

    /* /proc/pressure: some task of the machine stood still for lack of it. */
    u64 cpu_pressure_ns, io_pressure_ns, memory_pressure_ns;

    u64 steal_ns; /* /proc/stat: taken by other virtual machines, all processors together */

    u64 rss_bytes, peak_rss_bytes; /* now; the largest so far */
    u64 limit_bytes;               /* least of RAM, cgroup and rlimit; not a difference */

    double phi; /* speed of a loop on registers now over its speed at the start */

    u32 threads;    /* that compute in this process */
    u32 processors; /* that it may use: affinity and quota; not differences */

    /* The loader: bytes asked of files, and bytes of tokens that the step took; its threads'
     * time in making rows, by the clock and on a processor; steps that lay ready when this one
     * was asked for, of so many that can; its threads. */
    u64 loader_read_bytes, loader_used_bytes;
    u64 loader_busy_ns, loader_cpu_ns;
    u32 loader_ready, loader_ahead;
    u32 loader_threads;
    u32 documents; /* (parts of) documents in this rank's rows of the step */

    /* Of this rank's rows of the step: tokens, those of them that no counted target depends on
     * (padding, and what a document has behind its last counted target), and pairs of tokens that
     * attend to each other, the sum of n (n + 1) / 2 over documents of n tokens. */
    u64 tokens, tokens_idle;
    double attended;

    /* Of the process's own memory: on NUMA nodes of its processors, and on others, and how fast
     * these are beside its own. As of when it was looked at last; where there are several nodes. */
    u64 near_bytes, far_bytes;
    double far_speed;
};

_Static_assert(sizeof(struct sample) % 8 == 0, "no holes at its end");

#endif
