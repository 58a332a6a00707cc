/* base/sys_share.h - what processes of one node share: memory, sleep, and who lives.
 *
 * Shared memory is a memfd: it has no name to clean up after a crash, and the small limit
 * that containers put on /dev/shm does not concern it. Another process of the same user
 * opens it by process id and descriptor. Conventions are those of base/sys.h. */
#ifndef HEADWAY_SYS_SHARE_H
#define HEADWAY_SYS_SHARE_H

#include "base/base.h"

#include <stdatomic.h>

/* --- memory ----------------------------------------------------------------------- */
int sys_memory_new(const char *name, i64 bytes); /* zeroed, taken when touched; descriptor */
int sys_memory_open(int pid, int fd);            /* that of another process */
i64 sys_memory_bytes(int fd);
void *sys_map_shared(int fd, i64 bytes);         /* sys_unmap gives it back */

/* Slower memory: zeroed pages of a file without a name in this folder, whose space is taken
 * at once, so that a full disk is known here and not when it is written. NULL with errno. */
void *sys_map_scratch(const char *folder, i64 bytes);
/* What lies there leaves this process's memory, not the file. Whole pages within are meant. */
void sys_forget_pages(void *p, i64 bytes);

/* --- sleep ------------------------------------------------------------------------ */
/* Sleeps while *word == seen, at most so long. */
void sys_futex_wait(atomic_uint *word, u32 seen, u64 timeout_ns);
void sys_futex_wake(atomic_uint *word); /* everybody */
void sys_yield(void);
static inline void sys_pause(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

/* --- processes -------------------------------------------------------------------- */
int sys_pid(void);
int sys_fork(void);
_Noreturn void sys_exit_now(int code); /* no handlers, no flushing: for forked children */
void sys_die_with_parent(void);        /* SIGKILL when the parent ends */
/* This very program again, with other arguments (ends with NULL; argv[0] is set here), what it says
 * in the descriptor `out`. It dies with this process. Its pid, or -1. */
int sys_spawn_self(const char *const *arguments, int out);
/* Until that child ends: its exit code or -signal. False: it has not within timeout_ns. */
bool sys_wait_for(int pid, u64 timeout_ns, int *code);
void sys_kill(int pid);
/* From now on SIGINT, SIGTERM and SIGUSR1 do not end this process but go on to these
 * children (at most 1,024), whatever they make of them; to one that ended, no more. The
 * last one so far, or 0. */
void sys_pass_signals(const int *pids, int n);
void sys_pass_no_more(int pid);
int sys_passed_signal(void);
void sys_die_of(int number); /* of that signal, as if nobody had caught it */
/* Ends of children: the pid, with its exit code or -signal; 0 when wait is false and none
 * ended; -1 when there is no child. */
int sys_wait_child(bool wait, int *code);
/* A descriptor by which a process's end is seen, even before its parent asks; -1. */
int sys_watch(int pid);
bool sys_watch_ended(int watch);
/* 'R' runs, 'S' sleeps, 'T' is stopped, 'Z' ended ...; 0 when it cannot be known. */
char sys_process_state(int pid);
int sys_pin_thread(int core); /* the calling thread */
/* Stacks, of the calling main thread and of threads to come, may grow to so many bytes at least.
 * The limit of this process is raised for it; -1 with errno when it may not be. */
int sys_stack_at_least(i64 bytes);

#endif
