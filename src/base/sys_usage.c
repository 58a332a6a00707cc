#include "base/sys_usage.h"

#include "base/proc_text.h"
#include "base/sys.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { MOST_THREADS = 256, TEXT = 1024 };

struct sys_usage_reader {
    int io, statm, stat, throttle;
    bool throttle_is_v2; /* its times are microseconds, with another name */
    int pressure[3];     /* cpu, io, memory */
    int threads[MOST_THREADS];
    int n_threads;
    u64 steal_ns; /* as last read */
    bool knows_steal;
};

int sys_thread_id(void)
{
    return (int)syscall(SYS_gettid);
}

double sys_thread_cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int open_text(const char *path)
{
    return sys_open(path, O_RDONLY | O_CLOEXEC, 0);
}

/* The beginning of the file; false when there is none. */
static bool read_text(int fd, char text[TEXT])
{
    ssize_t n = fd >= 0 ? sys_pread(fd, text, TEXT - 1, 0) : -1;
    text[n > 0 ? n : 0] = '\0';
    return n > 0;
}

/* cpu.stat of this process's own group; within a container, whose root it sees, of that. */
static int open_throttle(bool *v2)
{
    char text[TEXT], path[512], file[600];
    int fd = open_text("/proc/self/cgroup");
    bool known = read_text(fd, text);
    if (fd >= 0)
        sys_close(fd);
    const struct { const char *controller, *folder; } kinds[] = {
        { "cpu", "/sys/fs/cgroup/cpu" }, { NULL, "/sys/fs/cgroup" },
    };
    for (int i = 0; known && i < 2; i++) {
        if (!proc_cgroup(text, kinds[i].controller, path, sizeof path))
            continue;
        *v2 = i == 1;
        snprintf(file, sizeof file, "%s%s/cpu.stat", kinds[i].folder, path);
        fd = open_text(file);
        if (fd >= 0)
            return fd;
        snprintf(file, sizeof file, "%s/cpu.stat", kinds[i].folder);
        fd = open_text(file);
        if (fd >= 0)
            return fd;
    }
    return -1;
}

struct sys_usage_reader *sys_usage_open(const int *threads, int n)
{
    static const char *const pressure[] = { "/proc/pressure/cpu", "/proc/pressure/io",
                                            "/proc/pressure/memory" };
    struct sys_usage_reader *r = sys_alloc((i64)sizeof *r, 64);
    if (!r)
        return NULL;
    memset(r, 0, sizeof *r);
    r->io = open_text("/proc/self/io");
    r->statm = open_text("/proc/self/statm");
    r->stat = open_text("/proc/stat");
    r->throttle = open_throttle(&r->throttle_is_v2);
    for (int i = 0; i < 3; i++)
        r->pressure[i] = open_text(pressure[i]);
    for (; r->n_threads < n && r->n_threads < MOST_THREADS; r->n_threads++) {
        char path[64];
        snprintf(path, sizeof path, "/proc/self/task/%d/schedstat", threads[r->n_threads]);
        r->threads[r->n_threads] = open_text(path);
    }
    return r;
}

static void close_text(int fd)
{
    if (fd >= 0)
        sys_close(fd);
}

void sys_usage_close(struct sys_usage_reader *r)
{
    if (!r)
        return;
    close_text(r->io);
    close_text(r->statm);
    close_text(r->stat);
    close_text(r->throttle);
    for (int i = 0; i < 3; i++)
        close_text(r->pressure[i]);
    for (int i = 0; i < r->n_threads; i++)
        close_text(r->threads[i]);
    sys_free(r);
}

static void read_threads(const struct sys_usage_reader *r, struct sys_usage *u)
{
    char text[TEXT];
    u64 run, queue;
    for (int i = 0; i < r->n_threads; i++) {
        if (!read_text(r->threads[i], text) || !proc_schedstat(text, &run, &queue))
            continue;
        *(i == 0 ? &u->run_ns : &u->others_run_ns) += run;
        *(i == 0 ? &u->queue_ns : &u->others_queue_ns) += queue;
        u->has |= i == 0 ? SYS_USAGE_SCHED : 0;
    }
}

static u64 ns_of(struct timeval t)
{
    return (u64)t.tv_sec * 1000000000u + (u64)t.tv_usec * 1000u;
}

static void read_process(struct sys_usage *u)
{
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) != 0)
        return;
    u->user_ns = ns_of(usage.ru_utime);
    u->system_ns = ns_of(usage.ru_stime);
    u->minor_faults = (u64)usage.ru_minflt;
    u->major_faults = (u64)usage.ru_majflt;
    u->voluntary = (u64)usage.ru_nvcsw;
    u->involuntary = (u64)usage.ru_nivcsw;
    u->peak_rss_bytes = (u64)usage.ru_maxrss * 1024; /* Linux says KiB */
    u->has |= SYS_USAGE_PROCESS;
}

static void read_throttle(const struct sys_usage_reader *r, struct sys_usage *u)
{
    char text[TEXT];
    const char *time = r->throttle_is_v2 ? "throttled_usec" : "throttled_time";
    if (!read_text(r->throttle, text) || !proc_value(text, "nr_throttled", &u->throttled) ||
        !proc_value(text, time, &u->throttled_ns))
        return;
    u->throttled_ns *= r->throttle_is_v2 ? 1000 : 1;
    u->has |= SYS_USAGE_THROTTLE;
}

static void read_pressure(const struct sys_usage_reader *r, struct sys_usage *u)
{
    u64 *to[] = { &u->cpu_pressure_ns, &u->io_pressure_ns, &u->memory_pressure_ns };
    char text[TEXT];
    for (int i = 0; i < 3; i++) {
        if (!read_text(r->pressure[i], text) || !proc_pressure(text, to[i]))
            return;
        *to[i] *= 1000;
    }
    u->has |= SYS_USAGE_PRESSURE;
}

static void read_steal(struct sys_usage_reader *r)
{
    char text[TEXT];
    u64 ticks;
    if (!read_text(r->stat, text) || !proc_steal(text, &ticks))
        return;
    r->steal_ns = ticks * (1000000000u / (u64)sysconf(_SC_CLK_TCK));
    r->knows_steal = true;
}

void sys_usage_read(struct sys_usage_reader *r, bool steal, struct sys_usage *out)
{
    char text[TEXT];
    *out = (struct sys_usage){ 0 };
    read_threads(r, out);
    read_process(out);
    if (read_text(r->io, text) && proc_value(text, "read_bytes", &out->read_bytes) &&
        proc_value(text, "write_bytes", &out->written_bytes))
        out->has |= SYS_USAGE_IO;
    read_throttle(r, out);
    read_pressure(r, out);
    if (steal || !r->knows_steal)
        read_steal(r);
    out->steal_ns = r->steal_ns;
    out->has |= r->knows_steal ? SYS_USAGE_STEAL : 0;
    u64 pages;
    if (read_text(r->statm, text) && proc_resident(text, &pages)) {
        out->rss_bytes = pages * (u64)sysconf(_SC_PAGESIZE);
        out->has |= SYS_USAGE_MEMORY;
    }
}
