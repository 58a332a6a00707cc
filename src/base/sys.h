/* base/sys.h - the only door to the operating system.
 *
 * Every file, clock, thread-free memory and socket call of the program goes through a
 * function of this header, so that a test can make the Nth such call fail or kill the
 * process there (a *fault point*), and so that crash tests can record what was written.
 * scripts/check-layers refuses direct calls elsewhere.
 *
 * Conventions are the system's own: -1 or NULL with errno set, unless said otherwise.
 * sys_read_full/sys_write_full retry EINTR and short transfers.
 *
 * Faults: HEADWAY_FAULT="op:nth:what[:repeat]" in the environment, e.g. "write:3:ENOSPC",
 * "fsync:1:EIO", "rename:2:KILL", "write:5:SHORT". nth counts from 1 per op; with
 * ":repeat" every call from the nth on fails. */
#ifndef HEADWAY_SYS_H
#define HEADWAY_SYS_H

#include "base/base.h"

#include <stdio.h>
#include <sys/stat.h>
#include <sys/types.h>

enum sys_op {
    SYS_OPEN, SYS_READ, SYS_WRITE, SYS_FSYNC, SYS_CLOSE, SYS_RENAME, SYS_UNLINK,
    SYS_MKDIR, SYS_STAT, SYS_OPENDIR, SYS_MMAP, SYS_ALLOC, SYS_OPS
};
const char *sys_op_name(enum sys_op op);
u64 sys_op_count(enum sys_op op); /* calls so far, all threads */

/* Arms one fault; text as in HEADWAY_FAULT, NULL disarms. 0, or -1 if it does not parse. */
int sys_fault_arm(const char *text);

/* One change to files, told after it succeeded. Reads are not told, nor is what goes
 * through a FILE. Crash tests replay these events up to any point. */
struct sys_event {
    enum sys_op op; /* OPEN, WRITE, FSYNC, CLOSE, RENAME, UNLINK (also of a folder), MKDIR */
    int fd;         /* OPEN, WRITE, FSYNC, CLOSE */
    const char *path, *to; /* to: RENAME */
    const void *data;      /* WRITE */
    i64 offset, bytes;
};
typedef void (*sys_recorder)(void *context, const struct sys_event *event);
/* NULL stops. To be set while no other thread writes; the recorder is called by each
 * thread that does. */
void sys_record(sys_recorder recorder, void *context);

/* --- memory ---------------------------------------------------------------------- */
void *sys_alloc(i64 bytes, i64 align); /* uninitialised; NULL when there is none */
void *sys_realloc(void *p, i64 bytes); /* for pointers of sys_alloc with align <= 16 */
void sys_free(void *p);
/* Zeroed pages for tensors, transparent huge pages asked for; NULL when there are none. */
void *sys_map_pages(i64 bytes);
void sys_unmap(void *p, i64 bytes);
/* Read-only private view of a whole file; *bytes receives its size. An empty file gives
 * a non-NULL pointer and 0 bytes. Of a pipe: all that comes through it. */
void *sys_map_file(const char *path, i64 *bytes);
void *sys_map_pipe(int fd, i64 *bytes); /* of one that was opened as for sys_read_first */

/* --- files ----------------------------------------------------------------------- */
int sys_open(const char *path, int flags, int mode);
int sys_close(int fd);
ssize_t sys_read(int fd, void *buffer, i64 bytes);
ssize_t sys_pread(int fd, void *buffer, i64 bytes, i64 offset);
/* The first bytes of a pipe that was opened with O_NONBLOCK, so that one which nobody writes into
 * is an error after ten seconds (-1, ENODATA), and one whose writer has left ends (0); from then on
 * reading waits, as of other files. */
i64 sys_read_first(int fd, void *buffer, i64 bytes);
ssize_t sys_write(int fd, const void *buffer, i64 bytes);
int sys_write_full(int fd, const void *buffer, i64 bytes); /* 0 or -1 */
i64 sys_read_full(int fd, void *buffer, i64 bytes);        /* bytes read (< asked at EOF), -1 */
bool sys_pread_full(int fd, void *buffer, i64 bytes, i64 offset); /* false: fewer, or an error */
/* A hint: what was read there will not be read again soon, and need not stay in memory. */
void sys_forget(int fd, i64 offset, i64 bytes);
i64 sys_seek(int fd, i64 offset, int whence);
int sys_truncate(int fd, i64 bytes);
int sys_fsync(int fd);
int sys_fsync_dir(const char *path); /* makes renames and creations in it durable */
int sys_rename(const char *from, const char *to);
int sys_lock(int fd); /* whole file or folder, until fd is closed; EWOULDBLOCK when taken */
int sys_unlink(const char *path);
int sys_rmdir(const char *path);
int sys_mkdir(const char *path, int mode);
int sys_mkdirs(const char *path); /* like mkdir -p; 0 if it exists */
int sys_stat(const char *path, struct stat *out);
bool sys_exists(const char *path);
i64 sys_file_bytes(const char *path);  /* -1 with errno */
/* Whether the path is that of a device or a pipe, or the system's own link to something, as
 * /dev/stdout is: it is written to as it stands, and never replaced by a file. */
bool sys_is_channel(const char *path);
int sys_write_channel(const char *path, const void *data, i64 bytes); /* all of it, or -1 */
/* Whether files could be made in this folder, or where it lacks, in the nearest one above it that
 * there is, with what stands in the way in errno. Only looks. */
bool sys_may_write(const char *folder);
i64 sys_free_bytes(const char *path);  /* free space of the file system that holds path */
int sys_remove_tree(const char *path); /* like rm -r; does not follow links */
int sys_isatty(int fd);
FILE *sys_fopen(const char *path, const char *mode);
int sys_fclose(FILE *f);

/* Names in a folder, sorted bytewise, without "." and ".."; returns the count or -1.
 * The array and its strings are one block: sys_free(*names). */
int sys_list(const char *path, char ***names);

/* A signal that ends the process removes this file first: what is written under a name of its own
 * until it is whole. One at a time; NULL: no more. */
void sys_discard_on_signal(const char *path);

/* At the program's start. Whoever started it may have closed standard input, output or errors:
 * files would then be opened under their numbers, and messages written into them. And a limit of
 * file sizes is an error of writing, not a signal. */
void sys_begin_program(void);

/* --- time and process ------------------------------------------------------------ */
u64 sys_now_ns(void);       /* monotonic */
double sys_wall_seconds(void); /* since the epoch, for time stamps only */
void sys_sleep_ns(u64 ns);
void sys_sleep_exactly(void); /* the calling thread wakes without the usual slack of 50 us */
int sys_cpu_count(void);      /* that this process may run on: affinity and cgroup quota */
/* Processors that this process may run on, as bits: n words of 64. */
void sys_cpu_mask(u64 *mask, int n);
i64 sys_cpu_quota(void);         /* whole processors that the cgroup allows; INT32_MAX: all */
double sys_cpu_seconds(void);    /* that this process's threads have computed, all together */
i64 sys_peak_rss_bytes(void); /* VmHWM */
i64 sys_rss_bytes(void);      /* VmRSS */
/* What all processes of this machine have: least of RAM, cgroup limit. */
i64 sys_machine_memory_bytes(void);
i64 sys_memory_limit_bytes(void); /* least of RAM, cgroup limit, RLIMIT_AS */
i64 sys_process_id(void);
void sys_host_name(char *name, int chars); /* "host" when it has none */
int sys_random(void *out, i64 bytes); /* that nobody can guess; 0 or -1 */
void sys_be_nice(void); /* this thread, and those it begins: others go first, and on the disk */
/* Asks that this process may use the tile registers of AMX, whose 8 KiB the kernel keeps per
 * thread only on request; false: it may not, or there are none. */
bool sys_allow_amx(void);
/* From now on, in this thread and in those that it starts, a result below the least
 * normal number (2^-126 in f32) is zero, and such an operand counts as zero. Returns what
 * sys_set_float_mode takes. */
u64 sys_flush_subnormals(void);
void sys_set_float_mode(u64 mode);
const char *sys_getenv(const char *name);
void sys_program_folder(char *path, int chars); /* where the running program lies; "." */
/* A function of a shared library, whose own libraries see each other's names; NULL, and
 * then *why says what is wrong. The library stays. */
void *sys_load(const char *path, const char *symbol, const char **why);
/* For libraries that are told things this way; what the user has set stays. Before any
 * thread is started. */
void sys_setenv_default(const char *name, const char *value);

#endif
