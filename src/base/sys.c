#include "base/sys.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

/* --- fault points ---------------------------------------------------------------- */

static const char *const op_names[SYS_OPS] = { "open",  "read",  "write",   "fsync",
                                               "close", "rename", "unlink", "mkdir",
                                               "stat",  "opendir", "mmap",  "alloc" };

enum fault_what { FAULT_ERRNO, FAULT_SHORT, FAULT_KILL };

static struct {
    atomic_ullong calls[SYS_OPS];
    atomic_int armed; /* enum sys_op + 1, 0 when none */
    u64 nth;
    bool repeat;
    enum fault_what what;
    int error;
} faults;

static const struct {
    const char *name;
    int value;
} fault_errors[] = { { "ENOSPC", ENOSPC }, { "EDQUOT", EDQUOT }, { "EIO", EIO },
                     { "EROFS", EROFS },   { "EACCES", EACCES }, { "EINTR", EINTR },
                     { "ENOMEM", ENOMEM }, { "ENOENT", ENOENT } };

const char *sys_op_name(enum sys_op op)
{
    return op_names[op];
}

u64 sys_op_count(enum sys_op op)
{
    return atomic_load(&faults.calls[op]);
}

static bool parse_fault_what(const char *text)
{
    if (strcmp(text, "SHORT") == 0 || strcmp(text, "KILL") == 0) {
        faults.what = text[0] == 'S' ? FAULT_SHORT : FAULT_KILL;
        return true;
    }
    for (i64 i = 0; i < COUNT_OF(fault_errors); i++) {
        if (strcmp(text, fault_errors[i].name) == 0) {
            faults.what = FAULT_ERRNO;
            faults.error = fault_errors[i].value;
            return true;
        }
    }
    return false;
}

int sys_fault_arm(const char *text)
{
    char op[16], what[16], tail[16] = "";
    unsigned long long nth;
    atomic_store(&faults.armed, 0);
    if (!text)
        return 0;
    if (sscanf(text, "%15[a-z]:%llu:%15[A-Z]:%15s", op, &nth, what, tail) < 3 ||
        !parse_fault_what(what))
        return -1;
    for (int i = 0; i < SYS_OPS; i++) {
        if (strcmp(op, op_names[i]) == 0) {
            faults.nth = nth;
            faults.repeat = strcmp(tail, "repeat") == 0;
            for (int k = 0; k < SYS_OPS; k++)
                atomic_store(&faults.calls[k], 0);
            atomic_store(&faults.armed, i + 1);
            return 0;
        }
    }
    return -1;
}

__attribute__((constructor)) static void arm_from_environment(void)
{
    sys_fault_arm(getenv("HEADWAY_FAULT"));
}

/* True when this call must fail (errno is set). *bytes, where given, may be shortened. */
static bool fault_here(enum sys_op op, i64 *bytes)
{
    u64 call = atomic_fetch_add(&faults.calls[op], 1) + 1;
    if (atomic_load_explicit(&faults.armed, memory_order_relaxed) != (int)op + 1)
        return false;
    if (call != faults.nth && !(faults.repeat && call > faults.nth))
        return false;
    if (faults.what == FAULT_KILL) {
        if (bytes)
            *bytes /= 2; /* die in the middle of the transfer: the caller does it first */
        else
            raise(SIGKILL);
        return false;
    }
    if (faults.what == FAULT_SHORT) {
        if (bytes && *bytes > 1)
            *bytes /= 2;
        return false;
    }
    errno = faults.error;
    return true;
}

/* --- recording ------------------------------------------------------------------- */

static struct {
    _Atomic(sys_recorder) fn;
    void *context;
} record;

void sys_record(sys_recorder recorder, void *context)
{
    record.context = context;
    atomic_store(&record.fn, recorder);
}

static void tell(struct sys_event event)
{
    sys_recorder fn = atomic_load_explicit(&record.fn, memory_order_acquire);
    int saved = errno;
    if (fn)
        fn(record.context, &event);
    errno = saved;
}

/* --- memory ---------------------------------------------------------------------- */

void *sys_alloc(i64 bytes, i64 align)
{
    if (fault_here(SYS_ALLOC, NULL))
        return NULL;
    if (align <= 16)
        return malloc((size_t)i64_max(bytes, 1));
    return aligned_alloc((size_t)align, (size_t)round_up(i64_max(bytes, 1), align));
}

void *sys_realloc(void *p, i64 bytes)
{
    if (fault_here(SYS_ALLOC, NULL))
        return NULL;
    return realloc(p, (size_t)i64_max(bytes, 1));
}

void sys_free(void *p)
{
    free(p);
}

void *sys_map_pages(i64 bytes)
{
    enum { HUGE_PAGE = 2 << 20 };
    if (fault_here(SYS_ALLOC, NULL))
        return NULL;
    void *p = mmap(NULL, (size_t)i64_max(bytes, 1), PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    if (bytes >= HUGE_PAGE)
        madvise(p, (size_t)bytes, MADV_HUGEPAGE); /* a hint: 4 KiB pages only cost speed */
    return p;
}

void sys_unmap(void *p, i64 bytes)
{
    if (p)
        munmap(p, (size_t)i64_max(bytes, 1));
}

void *sys_map_file(const char *path, i64 *bytes)
{
    struct stat st;
    if (fault_here(SYS_MMAP, NULL))
        return NULL;
    int fd = sys_open(path, O_RDONLY | O_NONBLOCK, 0);
    if (fd < 0)
        return NULL;
    void *p = NULL;
    if (fstat(fd, &st) == 0) {
        if (S_ISDIR(st.st_mode)) {
            errno = EISDIR;
        } else if (S_ISFIFO(st.st_mode)) {
            p = sys_map_pipe(fd, bytes);
        } else {
            *bytes = st.st_size;
            if (st.st_size == 0)
                p = mmap(NULL, 1, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            else
                p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        }
    }
    int saved = errno;
    close(fd);
    errno = saved;
    return p == MAP_FAILED ? NULL : p;
}

/* --- files ----------------------------------------------------------------------- */

int sys_open(const char *path, int flags, int mode)
{
    if (fault_here(SYS_OPEN, NULL))
        return -1;
    int fd;
    do
        fd = open(path, flags | O_CLOEXEC, mode);
    while (fd < 0 && errno == EINTR);
    if (fd >= 0)
        tell((struct sys_event){ .op = SYS_OPEN, .fd = fd, .path = path });
    return fd;
}

int sys_close(int fd)
{
    bool fail = fault_here(SYS_CLOSE, NULL);
    int saved = errno;
    tell((struct sys_event){ .op = SYS_CLOSE, .fd = fd });
    int rc = close(fd);
    if (fail) {
        errno = saved;
        return -1;
    }
    return rc;
}

ssize_t sys_read(int fd, void *buffer, i64 bytes)
{
    if (fault_here(SYS_READ, &bytes))
        return -1;
    return read(fd, buffer, (size_t)bytes);
}

ssize_t sys_pread(int fd, void *buffer, i64 bytes, i64 offset)
{
    if (fault_here(SYS_READ, &bytes))
        return -1;
    return pread(fd, buffer, (size_t)bytes, offset);
}

ssize_t sys_write(int fd, const void *buffer, i64 bytes)
{
    i64 asked = bytes;
    if (fault_here(SYS_WRITE, &bytes))
        return -1;
    bool told = atomic_load_explicit(&record.fn, memory_order_relaxed) != NULL;
    i64 offset = told ? lseek(fd, 0, SEEK_CUR) : 0;
    ssize_t done = write(fd, buffer, (size_t)bytes);
    if (told && done > 0)
        tell((struct sys_event){ .op = SYS_WRITE, .fd = fd, .data = buffer, .offset = offset,
                                 .bytes = done });
    if (bytes < asked && faults.what == FAULT_KILL)
        raise(SIGKILL);
    return done;
}

int sys_write_full(int fd, const void *buffer, i64 bytes)
{
    const char *p = buffer;
    while (bytes > 0) {
        ssize_t done = sys_write(fd, p, bytes);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return -1;
        p += done;
        bytes -= done;
    }
    return 0;
}

i64 sys_read_full(int fd, void *buffer, i64 bytes)
{
    char *p = buffer;
    i64 total = 0;
    while (total < bytes) {
        ssize_t done = sys_read(fd, p + total, bytes - total);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return -1;
        if (done == 0)
            break;
        total += done;
    }
    return total;
}

bool sys_pread_full(int fd, void *buffer, i64 bytes, i64 offset)
{
    for (i64 done = 0; done < bytes;) {
        ssize_t n = sys_pread(fd, (char *)buffer + done, bytes - done, offset + done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        done += n;
    }
    return true;
}

void sys_forget(int fd, i64 offset, i64 bytes)
{
    posix_fadvise(fd, offset, bytes, POSIX_FADV_DONTNEED); /* a hint: failing costs nothing */
}

i64 sys_seek(int fd, i64 offset, int whence)
{
    return lseek(fd, offset, whence);
}

int sys_truncate(int fd, i64 bytes)
{
    return ftruncate(fd, bytes);
}

int sys_fsync(int fd)
{
    if (fault_here(SYS_FSYNC, NULL))
        return -1;
    int rc = fsync(fd);
    if (rc == 0)
        tell((struct sys_event){ .op = SYS_FSYNC, .fd = fd });
    return rc;
}

int sys_fsync_dir(const char *path)
{
    int fd = sys_open(path, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0)
        return -1;
    int rc = sys_fsync(fd);
    int saved = errno;
    sys_close(fd); /* nothing was written through it: its result says nothing */
    errno = saved;
    return rc;
}

int sys_rename(const char *from, const char *to)
{
    if (fault_here(SYS_RENAME, NULL))
        return -1;
    int rc = rename(from, to);
    if (rc == 0)
        tell((struct sys_event){ .op = SYS_RENAME, .path = from, .to = to });
    return rc;
}

int sys_lock(int fd)
{
    return flock(fd, LOCK_EX | LOCK_NB);
}

int sys_unlink(const char *path)
{
    if (fault_here(SYS_UNLINK, NULL))
        return -1;
    int rc = unlink(path);
    if (rc == 0)
        tell((struct sys_event){ .op = SYS_UNLINK, .path = path });
    return rc;
}

int sys_rmdir(const char *path)
{
    if (fault_here(SYS_UNLINK, NULL))
        return -1;
    int rc = rmdir(path);
    if (rc == 0)
        tell((struct sys_event){ .op = SYS_UNLINK, .path = path });
    return rc;
}

int sys_mkdir(const char *path, int mode)
{
    if (fault_here(SYS_MKDIR, NULL))
        return -1;
    int rc = mkdir(path, (mode_t)mode);
    if (rc == 0)
        tell((struct sys_event){ .op = SYS_MKDIR, .path = path });
    return rc;
}

int sys_mkdirs(const char *path)
{
    char part[4096];
    size_t n = strlen(path);
    if (n == 0 || n >= sizeof part) {
        errno = n ? ENAMETOOLONG : ENOENT;
        return -1;
    }
    memcpy(part, path, n + 1);
    for (size_t i = 1; i <= n; i++) {
        if (part[i] != '/' && part[i] != '\0')
            continue;
        char keep = part[i];
        part[i] = '\0';
        if (!sys_exists(part) && sys_mkdir(part, 0777) != 0 && errno != EEXIST)
            return -1;
        part[i] = keep;
    }
    return 0;
}

int sys_stat(const char *path, struct stat *out)
{
    if (fault_here(SYS_STAT, NULL))
        return -1;
    return stat(path, out);
}

bool sys_exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

bool sys_may_write(const char *folder)
{
    struct stat st;
    char at[4096], *slash = NULL;
    int found;
    if (snprintf(at, sizeof at, "%s", folder) >= (int)sizeof at) {
        errno = ENAMETOOLONG;
        return false;
    }
    while ((found = stat(at, &st)) != 0 && errno == ENOENT && (slash = strrchr(at, '/')) > at)
        *slash = '\0';
    if (found != 0 && errno == ENOENT) /* "name" or "/name" */
        found = stat(strcpy(at, slash ? "/" : "."), &st);
    if (found == 0 && !S_ISDIR(st.st_mode)) {
        errno = ENOTDIR;
        return false;
    }
    return found == 0 && access(at, W_OK | X_OK) == 0;
}

i64 sys_file_bytes(const char *path)
{
    struct stat st;
    return sys_stat(path, &st) == 0 ? (i64)st.st_size : -1;
}

i64 sys_free_bytes(const char *path)
{
    struct statvfs fs;
    if (statvfs(path, &fs) != 0)
        return -1;
    return (i64)fs.f_bavail * (i64)fs.f_frsize;
}

int sys_remove_tree(const char *path)
{
    struct stat st;
    if (lstat(path, &st) != 0)
        return -1;
    if (!S_ISDIR(st.st_mode))
        return sys_unlink(path);
    char **names;
    int n = sys_list(path, &names);
    if (n < 0)
        return -1;
    int rc = 0;
    for (int i = 0; i < n && rc == 0; i++) {
        char child[4096];
        if (snprintf(child, sizeof child, "%s/%s", path, names[i]) >= (int)sizeof child) {
            errno = ENAMETOOLONG;
            rc = -1;
        } else {
            rc = sys_remove_tree(child);
        }
    }
    sys_free(names);
    return rc ? rc : sys_rmdir(path);
}

int sys_isatty(int fd)
{
    return isatty(fd);
}

FILE *sys_fopen(const char *path, const char *mode)
{
    if (fault_here(SYS_OPEN, NULL))
        return NULL;
    return fopen(path, mode);
}

int sys_fclose(FILE *f)
{
    bool fail = fault_here(SYS_CLOSE, NULL);
    int saved = errno;
    int rc = fclose(f);
    if (fail) {
        errno = saved;
        return -1;
    }
    return rc;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Moves n names into one block: pointers first, then the text. */
static char **pack_names(char **names, int n)
{
    i64 text = 0;
    for (int i = 0; i < n; i++)
        text += (i64)strlen(names[i]) + 1;
    char **block = sys_alloc((i64)sizeof(char *) * (n + 1) + text, 16);
    if (!block)
        return NULL;
    char *at = (char *)(block + n + 1);
    for (int i = 0; i < n; i++) {
        block[i] = at;
        at = stpcpy(at, names[i]) + 1;
    }
    block[n] = NULL;
    return block;
}

int sys_list(const char *path, char ***names)
{
    if (fault_here(SYS_OPENDIR, NULL))
        return -1;
    DIR *dir = opendir(path);
    if (!dir)
        return -1;
    char **list = NULL;
    int n = 0, capacity = 0, rc = -1;
    for (struct dirent *e; (e = readdir(dir));) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        if (n == capacity) {
            capacity = capacity ? 2 * capacity : 64;
            char **more = realloc(list, sizeof *list * (size_t)capacity);
            if (!more)
                goto done;
            list = more;
        }
        if (!(list[n] = strdup(e->d_name)))
            goto done;
        n++;
    }
    if (n > 0)
        qsort(list, (size_t)n, sizeof *list, by_name);
    if ((*names = pack_names(list, n)))
        rc = n;
done:
    for (int i = 0; i < n; i++)
        free(list[i]);
    free(list);
    closedir(dir);
    return rc;
}

/* --- time and process ------------------------------------------------------------ */

u64 sys_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (u64)t.tv_sec * 1000000000u + (u64)t.tv_nsec;
}

double sys_wall_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void sys_sleep_ns(u64 ns)
{
    struct timespec t = { (time_t)(ns / 1000000000u), (long)(ns % 1000000000u) };
    while (nanosleep(&t, &t) != 0 && errno == EINTR)
        ;
}

void sys_sleep_exactly(void)
{
    prctl(PR_SET_TIMERSLACK, 1ul);
}

/* First number in a small file; fallback when the file is absent or says "max". */
static i64 read_number(const char *path, i64 fallback)
{
    FILE *f = fopen(path, "r");
    long long value;
    if (!f)
        return fallback;
    if (fscanf(f, "%lld", &value) != 1)
        value = fallback;
    fclose(f);
    return value;
}

i64 sys_cpu_quota(void)
{
    i64 quota = -1, period = 100000;
    FILE *f = fopen("/sys/fs/cgroup/cpu.max", "r");
    if (f) {
        long long q, p;
        if (fscanf(f, "%lld %lld", &q, &p) == 2) {
            quota = q;
            period = p;
        }
        fclose(f);
    } else {
        quota = read_number("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", -1);
        period = read_number("/sys/fs/cgroup/cpu/cpu.cfs_period_us", 100000);
    }
    return quota > 0 && period > 0 ? i64_max(1, ceil_div(quota, period)) : INT32_MAX;
}

int sys_cpu_count(void)
{
    cpu_set_t set;
    int allowed = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    return (int)i64_min(allowed, sys_cpu_quota());
}

void sys_cpu_mask(u64 *mask, int n)
{
    cpu_set_t set;
    memset(mask, 0, sizeof *mask * (size_t)n);
    if (sched_getaffinity(0, sizeof set, &set) != 0)
        mask[0] = 1;
    else
        memcpy(mask, &set, sizeof *mask * (size_t)i64_min(n, (i64)(sizeof set / sizeof *mask)));
}

double sys_cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static i64 status_kib(const char *key)
{
    char line[256];
    long long kib = 0;
    size_t n = strlen(key);
    FILE *f = fopen("/proc/self/status", "r");
    if (!f)
        return 0;
    while (fgets(line, sizeof line, f))
        if (strncmp(line, key, n) == 0 && sscanf(line + n, ": %lld", &kib) == 1)
            break;
    fclose(f);
    return kib;
}

i64 sys_peak_rss_bytes(void)
{
    return status_kib("VmHWM") * 1024;
}

i64 sys_rss_bytes(void)
{
    return status_kib("VmRSS") * 1024;
}

i64 sys_machine_memory_bytes(void)
{
    i64 limit = (i64)sysconf(_SC_PHYS_PAGES) * (i64)sysconf(_SC_PAGESIZE);
    limit = i64_min(limit, read_number("/sys/fs/cgroup/memory.max", INT64_MAX));
    limit = i64_min(limit,
                    read_number("/sys/fs/cgroup/memory/memory.limit_in_bytes", INT64_MAX));
    return limit;
}

i64 sys_memory_limit_bytes(void)
{
    i64 limit = sys_machine_memory_bytes();
    struct rlimit as;
    if (getrlimit(RLIMIT_AS, &as) == 0 && as.rlim_cur != RLIM_INFINITY)
        limit = i64_min(limit, (i64)as.rlim_cur);
    return limit;
}

void sys_host_name(char *name, int chars)
{
    if (gethostname(name, (size_t)chars - 1) != 0)
        snprintf(name, (size_t)chars, "host");
    name[chars - 1] = '\0';
}

i64 sys_process_id(void)
{
    return getpid();
}

int sys_random(void *out, i64 bytes)
{
    return getrandom(out, (size_t)bytes, 0) == bytes ? 0 : -1;
}

void sys_be_nice(void)
{
    enum { LEAST = 19, IDLE_CLASS = 3 << 13, ONE = 1 }; /* Linux: of a thread, not a process */
    (void)setpriority(PRIO_PROCESS, 0, LEAST);
    (void)syscall(SYS_ioprio_set, ONE, 0, IDLE_CLASS); /* glibc has no name for it */
}

bool sys_allow_amx(void)
{
#if defined(__x86_64__) && defined(SYS_arch_prctl)
    enum { REQUEST = 0x1023, TILE_DATA = 18 }; /* ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA */
    return syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
#else
    return false;
#endif
}

static u64 float_mode(void)
{
    u64 mode = 0;
#if defined(__x86_64__)
    mode = _mm_getcsr();
#elif defined(__aarch64__)
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
#endif
    return mode;
}

void sys_set_float_mode(u64 mode)
{
#if defined(__x86_64__)
    _mm_setcsr((u32)mode);
#elif defined(__aarch64__)
    __asm__ volatile("msr fpcr, %0" : : "r"(mode));
#else
    (void)mode;
#endif
}

u64 sys_flush_subnormals(void)
{
#if defined(__x86_64__)
    const u64 flush = 0x8040; /* MXCSR: flush to zero, denormals are zero */
#else
    const u64 flush = 1 << 24; /* Arm's FPCR: FZ is both */
#endif
    const u64 before = float_mode();
    sys_set_float_mode(before | flush);
    return before;
}

const char *sys_getenv(const char *name)
{
    return getenv(name);
}

void sys_program_folder(char *path, int chars)
{
    ssize_t n = readlink("/proc/self/exe", path, (size_t)chars - 1);
    path[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(path, '/');
    if (slash)
        *slash = '\0';
    else
        snprintf(path, (size_t)chars, ".");
}

void *sys_load(const char *path, const char *symbol, const char **why)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    void *found = library ? dlsym(library, symbol) : NULL;
    if (!found)
        *why = dlerror();
    return found;
}

void sys_setenv_default(const char *name, const char *value)
{
    (void)setenv(name, value, 0);
}
