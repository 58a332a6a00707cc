#include "base/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Whoever wrote into the pipe has closed it; not so of one that nobody has opened yet. */
static bool left_by_writer(int fd)
{
    struct pollfd p = { .fd = fd, .events = POLLIN };
    return poll(&p, 1, 0) > 0 && (p.revents & POLLHUP) && !(p.revents & POLLIN);
}

i64 sys_read_first(int fd, void *buffer, i64 bytes)
{
    enum { WAIT_S = 10, LOOK_MS = 20 }; /* long enough to start a program in another window */
    const u64 until = sys_now_ns() + 1000000000ull * WAIT_S;
    i64 n;
    bool left = false;
    while ((n = sys_read(fd, buffer, bytes)) == 0 && !(left = left_by_writer(fd)) &&
           sys_now_ns() < until)
        sys_sleep_ns(1000000ull * LOOK_MS);
    if (n == 0)
        errno = ENODATA;
    const bool silent = n < 0 && errno == EAGAIN; /* somebody is there, and has not written yet */
    if ((n <= 0 && !silent && !left) || fcntl(fd, F_SETFL, O_RDONLY) != 0)
        return -1;
    while (silent && (n = sys_read(fd, buffer, bytes)) < 0 && errno == EINTR)
        ;
    return n;
}

void *sys_map_pipe(int fd, i64 *bytes)
{
    enum { MOST = 1 << 30 }; /* of address space; memory is taken where bytes come */
    char *p = sys_map_pages(MOST);
    i64 first = p ? sys_read_first(fd, p, MOST) : -1;
    i64 rest = first < 0 ? -1 : sys_read_full(fd, p + first, MOST - first);
    *bytes = first + rest;
    if (rest >= 0 && *bytes < MOST) {
        i64 kept = round_up(i64_max(1, *bytes), sysconf(_SC_PAGESIZE));
        munmap(p + kept, (size_t)(MOST - kept));
        return p;
    }
    const int why = rest < 0 ? errno : EFBIG;
    sys_unmap(p, MOST);
    errno = why;
    return NULL;
}

bool sys_is_channel(const char *path)
{
    struct stat st;
    const bool of_system = strncmp(path, "/dev/", 5) == 0 || strncmp(path, "/proc/", 6) == 0;
    if (of_system && lstat(path, &st) == 0 && S_ISLNK(st.st_mode))
        return true;
    return stat(path, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode);
}

int sys_write_channel(const char *path, const void *data, i64 bytes)
{
    const int fd = sys_open(path, O_WRONLY | O_APPEND | O_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    int failed = sys_write_full(fd, data, bytes) != 0 ? errno : 0;
    if (sys_close(fd) != 0 && !failed)
        failed = errno;
    errno = failed;
    return failed ? -1 : 0;
}

/* --- what is not whole --------------------------------------------------------------- */

static char discarded[4300];
static const int ending[] = { SIGINT, SIGTERM, SIGHUP };

static void discard(int number)
{
    unlink(discarded);
    signal(number, SIG_DFL);
    raise(number);
}

/* Signals that somebody ignores or handles already are left to them. */
void sys_discard_on_signal(const char *path)
{
    const bool fits = path && strlen(path) < sizeof discarded;
    struct sigaction was, action = { .sa_handler = fits ? discard : SIG_DFL };
    const sighandler_t before = fits ? SIG_DFL : discard;
    if (fits)
        memcpy(discarded, path, strlen(path) + 1);
    for (i64 i = 0; i < COUNT_OF(ending); i++)
        if (sigaction(ending[i], NULL, &was) == 0 && was.sa_handler == before)
            sigaction(ending[i], &action, NULL);
}

/* What is closed stays an error to use: reading where one only writes, and the reverse. */
void sys_begin_program(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF)
            (void)open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
    signal(SIGXFSZ, SIG_IGN);
}
