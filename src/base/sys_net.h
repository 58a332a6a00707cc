/* base/sys_net.h - TCP, as little of it as ranks need to find each other.
 *
 * Conventions are those of base/sys.h; sockets are closed with sys_close. */
#ifndef HEADWAY_SYS_NET_H
#define HEADWAY_SYS_NET_H

#include "base/base.h"

/* Not blocking. */
int sys_listen(const char *host, int port);
int sys_accept(int listener);
/* Blocking; gives up at once when nobody listens (ECONNREFUSED). */
int sys_connect(const char *host, int port);
/* Bytes moved, maybe fewer; 0 from receive: closed. Never raises SIGPIPE. */
i64 sys_send(int socket, const void *data, i64 bytes);
i64 sys_receive(int socket, void *data, i64 bytes);
/* Waits until one of them can be read, and sets ready; -1 in sockets is left out. */
int sys_wait_readable(const int *sockets, bool *ready, int n, int timeout_ms);

#endif
