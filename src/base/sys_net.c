#include "base/sys_net.h"

#include "base/sys.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct addrinfo *look_up(const char *host, int port)
{
    char service[16];
    struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM }, *list;
    snprintf(service, sizeof service, "%d", port);
    if (getaddrinfo(host, service, &hints, &list) != 0) {
        errno = EHOSTUNREACH;
        return NULL;
    }
    return list;
}

static int close_with(int fd)
{
    int saved = errno;
    close(fd);
    errno = saved;
    return -1;
}

int sys_listen(const char *host, int port)
{
    struct addrinfo *a = look_up(host, port);
    if (!a)
        return -1;
    int yes = 1;
    int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0) {
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
        if (bind(fd, a->ai_addr, a->ai_addrlen) != 0 || listen(fd, 128) != 0)
            fd = close_with(fd);
    }
    freeaddrinfo(a);
    return fd;
}

int sys_accept(int listener)
{
    return accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
}

int sys_connect(const char *host, int port)
{
    struct addrinfo *a = look_up(host, port);
    if (!a)
        return -1;
    int yes = 1;
    int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        if (connect(fd, a->ai_addr, a->ai_addrlen) != 0)
            fd = close_with(fd);
    }
    freeaddrinfo(a);
    return fd;
}

i64 sys_send(int socket, const void *data, i64 bytes)
{
    return send(socket, data, (size_t)bytes, MSG_NOSIGNAL);
}

i64 sys_receive(int socket, void *data, i64 bytes)
{
    return recv(socket, data, (size_t)bytes, 0);
}

int sys_wait_readable(const int *sockets, bool *ready, int n, int timeout_ms)
{
    enum { AT_ONCE = 1024 };
    struct pollfd p[AT_ONCE];
    n = n < AT_ONCE ? n : AT_ONCE;
    for (int i = 0; i < n; i++)
        p[i] = (struct pollfd){ .fd = sockets[i], .events = POLLIN };
    int rc = poll(p, (nfds_t)n, timeout_ms);
    for (int i = 0; i < n; i++)
        ready[i] = rc > 0 && p[i].revents != 0;
    return rc;
}
