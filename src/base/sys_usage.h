/* base/sys_usage.h - what the system counts about this process and its machine.
 *
 * The files are opened once and read again from their beginning: a reading takes some tens of
 * microseconds and allocates nothing. What this system does not tell is left out of `has`.
 * Counters only grow; who wants what happened meanwhile subtracts two readings. */
#ifndef HEADWAY_SYS_USAGE_H
#define HEADWAY_SYS_USAGE_H

#include "base/base.h"

enum sys_usage_part {
    SYS_USAGE_SCHED = 1 << 0, SYS_USAGE_PROCESS = 1 << 1, SYS_USAGE_IO = 1 << 2,
    SYS_USAGE_THROTTLE = 1 << 3, SYS_USAGE_PRESSURE = 1 << 4, SYS_USAGE_STEAL = 1 << 5,
    SYS_USAGE_MEMORY = 1 << 6,
};

struct sys_usage {
    u32 has; /* enum sys_usage_part */
    u64 run_ns, queue_ns;             /* of the first thread given to sys_usage_open */
    u64 others_run_ns, others_queue_ns; /* of the rest */
    u64 user_ns, system_ns, minor_faults, major_faults, voluntary, involuntary;
    u64 read_bytes, written_bytes;
    u64 throttled, throttled_ns;
    u64 cpu_pressure_ns, io_pressure_ns, memory_pressure_ns;
    u64 steal_ns;
    u64 rss_bytes, peak_rss_bytes;
};

struct sys_usage_reader;

int sys_thread_id(void); /* of the calling thread */
double sys_thread_cpu_seconds(void); /* that the calling thread has computed */

/* threads: ids of this process's threads. NULL when there is no memory. */
struct sys_usage_reader *sys_usage_open(const int *threads, int n);
void sys_usage_close(struct sys_usage_reader *r); /* NULL is fine */
/* steal: also the machine's, whose text grows with its processors. */
void sys_usage_read(struct sys_usage_reader *r, bool steal, struct sys_usage *out);

/* Where this process's own memory lies, on a machine of several NUMA nodes: on those of the
 * processors that it may use, and on others, whose memory is so much slower (1: as fast), by the
 * distances that the firmware tells. */
struct sys_numa {
    u64 near_bytes, far_bytes;
    double far_speed;
};
/* False: there is one node, or this system does not tell. It walks through all of the process's
 * pages: tens of milliseconds for as many GiB of small ones. */
bool sys_numa_read(struct sys_numa *out);

#endif
