#include "base/sys_share.h"

#include "base/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* --- memory ----------------------------------------------------------------------- */

int sys_memory_new(const char *name, i64 bytes)
{
    int fd = memfd_create(name, MFD_CLOEXEC);
    if (fd >= 0 && ftruncate(fd, bytes) != 0) {
        int saved = errno;
        close(fd);
        errno = saved;
        return -1;
    }
    return fd;
}

int sys_memory_open(int pid, int fd)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/fd/%d", pid, fd);
    return sys_open(path, O_RDWR, 0);
}

i64 sys_memory_bytes(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 ? (i64)st.st_size : -1;
}

void *sys_map_shared(int fd, i64 bytes)
{
    void *p = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd,
                   0);
    return p == MAP_FAILED ? NULL : p;
}

void *sys_map_scratch(const char *folder, i64 bytes)
{
    int fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    void *p = NULL;
    if (fd < 0)
        return NULL;
    int failed = posix_fallocate(fd, 0, bytes);
    if (!failed)
        p = sys_map_shared(fd, bytes);
    close(fd);
    if (failed)
        errno = failed;
    return p;
}

void sys_forget_pages(void *p, i64 bytes)
{
    enum { PAGE = 4096 };
    uintptr_t first = round_up((i64)(uintptr_t)p, PAGE);
    uintptr_t last = ((uintptr_t)p + (uintptr_t)bytes) / PAGE * PAGE;
    if (last > first)
        madvise((void *)first, last - first, MADV_DONTNEED);
}

/* --- sleep ------------------------------------------------------------------------ */

void sys_futex_wait(atomic_uint *word, u32 seen, u64 timeout_ns)
{
    struct timespec t = { (time_t)(timeout_ns / 1000000000u), (long)(timeout_ns % 1000000000u) };
    syscall(SYS_futex, word, FUTEX_WAIT, seen, &t, NULL, 0);
}

void sys_futex_wake(atomic_uint *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

void sys_yield(void)
{
    sched_yield();
}

/* --- processes -------------------------------------------------------------------- */

int sys_pid(void)
{
    return (int)getpid();
}

int sys_fork(void)
{
    return (int)fork();
}

void sys_exit_now(int code)
{
    _exit(code);
}

void sys_die_with_parent(void)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
}

int sys_spawn_self(const char *const *arguments, int out)
{
    enum { MOST = 256 };
    char *argv[MOST] = { "headway" };
    int n = 1;
    for (; arguments[n - 1]; n++) {
        if (n == MOST - 1) {
            errno = E2BIG;
            return -1;
        }
        argv[n] = (char *)(uintptr_t)arguments[n - 1];
    }
    pid_t pid = fork();
    if (pid != 0)
        return (int)pid;
    sys_die_with_parent();
    int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (nothing < 0 || dup2(nothing, 0) < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0)
        _exit(127);
    execv("/proc/self/exe", argv);
    _exit(127);
}

bool sys_wait_for(int pid, u64 timeout_ns, int *code)
{
    struct pollfd p = { .fd = sys_watch(pid), .events = POLLIN };
    const u64 begin = sys_now_ns();
    u64 passed = 0;
    int status;
    while (p.fd >= 0 && passed < timeout_ns &&
           poll(&p, 1, (int)((timeout_ns - passed) / 1000000 % INT32_MAX)) <= 0)
        passed = sys_now_ns() - begin;
    if (p.fd >= 0)
        close(p.fd);
    if (passed >= timeout_ns)
        return false;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return false;
    *code = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
    return true;
}

void sys_kill(int pid)
{
    kill((pid_t)pid, SIGKILL);
}

/* --- signals passed on -------------------------------------------------------------- */

enum { PASSED_MOST = 1024 };
static volatile int passed_to[PASSED_MOST]; /* pids */
static volatile sig_atomic_t passed_n, passed_last;

static void pass_on(int number)
{
    const int saved = errno;
    passed_last = number;
    for (int i = 0; i < passed_n; i++)
        if (passed_to[i] > 0)
            kill((pid_t)passed_to[i], number);
    errno = saved;
}

void sys_pass_signals(const int *pids, int n)
{
    struct sigaction action = { .sa_handler = pass_on, .sa_flags = SA_RESTART };
    passed_last = 0;
    passed_n = n < PASSED_MOST ? n : PASSED_MOST;
    for (int i = 0; i < passed_n; i++)
        passed_to[i] = pids[i];
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGUSR1, &action, NULL);
}

void sys_pass_no_more(int pid)
{
    for (int i = 0; i < passed_n; i++)
        if (passed_to[i] == pid)
            passed_to[i] = 0;
}

int sys_passed_signal(void)
{
    return passed_last;
}

void sys_die_of(int number)
{
    signal(number, SIG_DFL);
    raise(number);
}

int sys_wait_child(bool wait, int *code)
{
    int status;
    pid_t pid;
    do
        pid = waitpid(-1, &status, wait ? 0 : WNOHANG);
    while (pid < 0 && errno == EINTR);
    if (pid > 0)
        *code = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
    return (int)pid;
}

int sys_watch(int pid)
{
    return (int)syscall(SYS_pidfd_open, pid, 0);
}

bool sys_watch_ended(int watch)
{
    struct pollfd p = { .fd = watch, .events = POLLIN };
    return poll(&p, 1, 0) > 0 && (p.revents & POLLIN);
}

char sys_process_state(int pid)
{
    char path[64], line[512];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, line, sizeof line - 1);
    close(fd);
    line[n > 0 ? n : 0] = '\0';
    const char *name_end = strrchr(line, ')'); /* the name may hold anything */
    return name_end && name_end[1] == ' ' ? name_end[2] : 0;
}

int sys_pin_thread(int core)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(core, &set);
    return sched_setaffinity(0, sizeof set, &set);
}

/* The main thread's stack grows until the limit as it is then; other threads' have the size that
 * the limit had at the program's start. */
int sys_stack_at_least(i64 bytes)
{
    struct rlimit limit;
    pthread_attr_t attributes;
    size_t each = 0;
    if (getrlimit(RLIMIT_STACK, &limit) != 0)
        return -1;
    if (limit.rlim_cur < (rlim_t)bytes) {
        limit.rlim_cur = (rlim_t)bytes;
        limit.rlim_max = limit.rlim_max < limit.rlim_cur ? limit.rlim_cur : limit.rlim_max;
        if (setrlimit(RLIMIT_STACK, &limit) != 0)
            return -1;
    }
    int rc = pthread_attr_init(&attributes);
    if (rc == 0) {
        rc = pthread_getattr_default_np(&attributes);
        if (rc == 0)
            rc = pthread_attr_getstacksize(&attributes, &each);
        if (rc == 0 && each < (size_t)bytes)
            rc = pthread_attr_setstacksize(&attributes, (size_t)bytes);
        if (rc == 0 && each < (size_t)bytes)
            rc = pthread_setattr_default_np(&attributes);
        pthread_attr_destroy(&attributes);
    }
    errno = rc;
    return rc == 0 ? 0 : -1;
}
