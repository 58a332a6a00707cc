#include "base/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
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
