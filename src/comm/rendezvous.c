#include "comm/rendezvous.h"

#include "base/err.h"
#include "base/hash.h"
#include "base/sys.h"
#include "base/sys_net.h"
#include "base/sys_share.h"
#include "comm/local.h"
#include "comm/node.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    REPLY_BYTES = 256, REPLY_TEXT = REPLY_BYTES - 16,
    STRANGERS = 64,     /* connections beyond the ranks' own */
    POLL_MS = 100,
    RETRY_NS = 20 * 1000 * 1000,
};
static const u64 start_ns = (u64)60 * 1000 * 1000 * 1000;
static const u8 hello_magic[8] = { 'h', 'e', 'a', 'd', 'w', 'a', 'y', 1 };

static void put(u8 *to, u64 value, int bytes)
{
    for (int i = 0; i < bytes; i++)
        to[i] = (u8)(value >> 8 * i);
}

static u64 get(const u8 *from, int bytes)
{
    u64 value = 0;
    for (int i = 0; i < bytes; i++)
        value |= (u64)from[i] << 8 * i;
    return value;
}

void hello_write(const struct hello *h, u8 bytes[HELLO_BYTES])
{
    memset(bytes, 0, HELLO_BYTES);
    memcpy(bytes, hello_magic, sizeof hello_magic);
    put(bytes + 8, (u32)h->rank, 4);
    put(bytes + 12, (u32)h->size, 4);
    put(bytes + 16, (u32)h->pid, 4);
    put(bytes + 24, h->machine, 8);
}

bool hello_read(struct hello *h, const u8 bytes[HELLO_BYTES])
{
    if (memcmp(bytes, hello_magic, sizeof hello_magic) != 0)
        return false;
    *h = (struct hello){ .rank = (i32)get(bytes + 8, 4), .size = (i32)get(bytes + 12, 4),
                         .pid = (i32)get(bytes + 16, 4), .machine = get(bytes + 24, 8) };
    return true;
}

int rendezvous_address(const char *text, char *host, int chars, int *port)
{
    const char *colon = strrchr(text, ':');
    char *end = NULL;
    long value = colon ? strtol(colon + 1, &end, 10) : 0;
    i64 length = colon ? colon - text : 0;
    const char *begin = text;
    if (length > 2 && text[0] == '[' && text[length - 1] == ']') {
        begin++;
        length -= 2;
    }
    if (!colon || colon[1] == '\0' || *end || value < 1 || value > 65535 || length < 1 ||
        length >= chars)
        return err_set(ERR_CONFIG, "HEADWAY_ADDRESS=%.100s is not host:port, for example "
                       "127.0.0.1:29500", text);
    memcpy(host, begin, (size_t)length);
    host[length] = '\0';
    *port = (int)value;
    return OK;
}

/* The same for all processes since this machine started. */
static u64 machine_id(void)
{
    char text[64] = "";
    int fd = sys_open("/proc/sys/kernel/random/boot_id", 0, 0);
    if (fd >= 0) {
        i64 n = sys_read_full(fd, text, sizeof text);
        sys_close(fd);
        return hash64(text, i64_max(n, 0), 0);
    }
    return 0;
}

/* --- rank 0 ----------------------------------------------------------------------- */

struct guest {
    int socket, rank; /* rank -1: not known yet */
    i64 got;
    u8 bytes[HELLO_BYTES];
};

struct host {
    int listener, size, arrived, n, most;
    u64 machine;
    struct guest *guests;
    int *sockets; /* of all guests, the listener last */
    bool *ready;
};

static void drop(struct guest *g)
{
    if (g->socket >= 0)
        sys_close(g->socket);
    g->socket = -1;
}

static int check_hello(const struct host *h, const struct hello *hello)
{
    if (hello->size != h->size)
        return err_set(ERR_CONFIG, "rank %d was started with HEADWAY_SIZE=%d, rank 0 with %d",
                       hello->rank, hello->size, h->size);
    if (hello->rank < 0 || hello->rank >= h->size)
        return err_set(ERR_CONFIG, "there is no rank %d of %d", hello->rank, h->size);
    if (hello->rank == 0)
        return err_set(ERR_CONFIG, "two processes say that they are rank 0");
    if (hello->machine != h->machine)
        return err_set(ERR_CONFIG, "rank %d runs on another machine than rank 0; between machines "
                       "use mpirun or srun --mpi=pmix", hello->rank);
    for (int i = 0; i < h->n; i++)
        if (h->guests[i].rank == hello->rank && h->guests[i].socket >= 0)
            return err_set(ERR_CONFIG, "two processes say that they are rank %d", hello->rank);
    return OK;
}

static void welcome(struct host *h)
{
    int socket = sys_accept(h->listener);
    if (socket < 0)
        return;
    int at = 0;
    while (at < h->n && h->guests[at].socket >= 0)
        at++;
    if (at == h->most) {
        sys_close(socket);
        return;
    }
    h->guests[at] = (struct guest){ .socket = socket, .rank = -1 };
    h->n += at == h->n;
}

static int listen_to(struct host *h, struct guest *g)
{
    struct hello hello;
    i64 n = sys_receive(g->socket, g->bytes + g->got, HELLO_BYTES - g->got);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return OK;
    g->got += n > 0 ? n : 0;
    if (n <= 0 && g->rank > 0)
        return err_set(ERR_PEER, "rank %d went away before all ranks had started", g->rank);
    if (n <= 0 || memcmp(g->bytes, hello_magic, (size_t)i64_min(g->got, 8)) != 0) {
        drop(g);
        return OK;
    }
    if (g->got < HELLO_BYTES || g->rank > 0 || !hello_read(&hello, g->bytes))
        return OK;
    TRY(check_hello(h, &hello));
    g->rank = hello.rank;
    h->arrived++;
    return OK;
}

static int wait_for_guests(struct host *h)
{
    u64 begin = sys_now_ns();
    while (h->arrived < h->size - 1) {
        if (sys_now_ns() - begin > start_ns)
            return err_set(ERR_HANG, "only %d of %d ranks came to HEADWAY_ADDRESS within 60 s",
                           h->arrived + 1, h->size);
        for (int i = 0; i < h->n; i++)
            h->sockets[i] = h->guests[i].socket;
        h->sockets[h->n] = h->listener;
        int n = h->n;
        sys_wait_readable(h->sockets, h->ready, n + 1, POLL_MS);
        for (int i = 0; i < n; i++)
            if (h->ready[i])
                TRY(listen_to(h, &h->guests[i]));
        if (h->ready[n])
            welcome(h);
    }
    return OK;
}

static void reply_to_all(const struct host *h, int code, int memory)
{
    u8 reply[REPLY_BYTES] = { 0 };
    put(reply, (u32)-code, 4);
    put(reply + 4, (u32)sys_pid(), 4);
    put(reply + 8, (u32)memory, 4);
    if (code < 0)
        snprintf((char *)reply + 16, REPLY_TEXT, "%s", err_message());
    for (int i = 0; i < h->n; i++)
        if (h->guests[i].socket >= 0)
            sys_send(h->guests[i].socket, reply, REPLY_BYTES);
}

static int cannot_share(int rank, int why)
{
    return err_set(ERR_SYS, "rank %d cannot open the memory of rank 0 (%s): HEADWAY_ADDRESS is for "
                   "ranks of one host, one container and one user; between hosts or containers "
                   "start them with mpirun or srun --mpi=pmix", rank, strerror(why));
}

/* Whether that rank has opened the memory: it says so in a byte, 0 or why not. */
static int hear_whether_open(const struct guest *g)
{
    u64 begin = sys_now_ns();
    for (;;) {
        u8 why = 0;
        bool ready;
        i64 n = sys_receive(g->socket, &why, 1);
        if (n == 1)
            return why ? cannot_share(g->rank, why) : OK;
        bool again = n < 0 && (errno == EAGAIN || errno == EINTR);
        if (!again)
            return err_set(ERR_PEER, "rank %d went away before all ranks had started", g->rank);
        if (sys_now_ns() - begin > start_ns)
            return err_set(ERR_HANG, "rank %d did not say within 60 s whether it can "
                           "open the memory of rank 0", g->rank);
        sys_wait_readable(&g->socket, &ready, 1, POLL_MS);
    }
}

/* Those that have opened it wait in it by now, and are told there. */
static int hear_all(const struct host *h, struct node *node)
{
    for (int i = 0; i < h->n; i++) {
        if (h->guests[i].rank < 0 || h->guests[i].socket < 0)
            continue;
        int rc = hear_whether_open(&h->guests[i]);
        if (rc < 0) {
            node_note(node, rc, err_message());
            return rc;
        }
    }
    return OK;
}

static int be_host(struct node **node, int size, const char *host, int port)
{
    struct arena a;
    struct host h = { .size = size, .most = size + STRANGERS, .machine = machine_id() };
    int rc, memory;
    TRY(node_new(&memory, size, COMM_SLOT_BYTES));
    TRY(node_open(node, memory));
    h.listener = sys_listen(host, port);
    if (h.listener < 0)
        return err_set(ERR_SYS, "rank 0 cannot listen on %s:%d: %s", host, port, strerror(errno));
    arena_init(&a);
    h.guests = ARENA_ARRAY(&a, struct guest, h.most);
    h.sockets = ARENA_ARRAY(&a, int, h.most + 1);
    h.ready = ARENA_ARRAY(&a, bool, h.most + 1);
    rc = wait_for_guests(&h);
    reply_to_all(&h, rc, memory);
    if (rc >= 0)
        rc = hear_all(&h, *node);
    for (int i = 0; i < h.n; i++)
        drop(&h.guests[i]);
    sys_close(h.listener);
    arena_fini(&a);
    return rc;
}

/* --- the others ------------------------------------------------------------------- */

static int reach(const char *host, int port)
{
    u64 begin = sys_now_ns();
    for (;;) {
        int socket = sys_connect(host, port);
        if (socket >= 0)
            return socket;
        if (sys_now_ns() - begin > start_ns)
            return err_set(ERR_HANG, "rank 0 did not listen on %s:%d within 60 s: %s", host, port,
                           strerror(errno));
        sys_sleep_ns(RETRY_NS);
    }
}

static int read_reply(int socket, u8 reply[REPLY_BYTES])
{
    for (i64 got = 0; got < REPLY_BYTES;) {
        i64 n = sys_receive(socket, reply + got, REPLY_BYTES - got);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return err_set(ERR_PEER, "rank 0 went away before all ranks had started");
        got += n;
    }
    return OK;
}

/* And tells rank 0 how that went. */
static int open_node(struct node **node, int socket, int rank, const u8 *reply)
{
    int memory = sys_memory_open((int)get(reply + 4, 4), (int)get(reply + 8, 4));
    u8 why = memory < 0 ? (u8)(errno & 255) : 0;
    int rc = memory < 0 ? cannot_share(rank, errno) : node_open(node, memory);
    if (rc < 0 && !why)
        why = EIO;
    sys_send(socket, &why, 1);
    return rc;
}

static int be_guest(struct node **node, const struct hello *h, const char *host, int port)
{
    u8 hello[HELLO_BYTES], reply[REPLY_BYTES + 1] = { 0 };
    int socket = reach(host, port);
    TRY(socket);
    hello_write(h, hello);
    int rc = OK;
    if (sys_send(socket, hello, HELLO_BYTES) != HELLO_BYTES)
        rc = err_set(ERR_PEER, "rank 0 went away before all ranks had started");
    if (rc >= 0)
        rc = read_reply(socket, reply);
    if (rc >= 0 && get(reply, 4) != 0)
        rc = err_set(-(int)(get(reply, 4) & 15), "%.*s", REPLY_TEXT, (char *)reply + 16);
    if (rc >= 0)
        rc = open_node(node, socket, h->rank, reply);
    sys_close(socket);
    return rc;
}

int comm_rendezvous(struct comm **out, int rank, int size, const char *address,
                    double deadline_s)
{
    char host[256];
    int port;
    struct node *node = NULL;
    struct hello h = { .rank = rank, .size = size, .pid = sys_pid(), .machine = machine_id() };
    TRY(rendezvous_address(address, host, sizeof host, &port));
    int rc = rank == 0 ? be_host(&node, size, host, port) : be_guest(&node, &h, host, port);
    if (rc >= 0)
        rc = comm_shm_new(out, node, rank, size, deadline_s);
    if (rc < 0)
        node_close(node);
    return rc;
}
