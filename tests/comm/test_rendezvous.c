/* Ranks that find each other by an address, among strangers and mistakes. */
#include "base/hash.h"
#include "base/sys.h"
#include "base/sys_net.h"
#include "base/sys_share.h"
#include "comm/rendezvous.h"
#include "comm/selftest.h"
#include "comm/world.h"
#include "test.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

/* A port that nobody listens on now. */
static int free_port(void)
{
    for (int port = 20000 + sys_pid() % 20000;; port++) {
        int fd = sys_listen("127.0.0.1", port);
        if (fd >= 0) {
            sys_close(fd);
            return port;
        }
    }
}

static int be_rank(int rank, int size, int port)
{
    char address[64];
    struct comm *c;
    struct comm_group *g;
    i64 calls;
    snprintf(address, sizeof address, "127.0.0.1:%d", port);
    TRY(comm_rendezvous(&c, rank, size, address, 30));
    TRY(comm_world_group(&g, c, "world"));
    TRY(comm_selftest(g, 40, &calls));
    comm_free(c);
    return OK;
}

static int fork_rank(int rank, int size, int port)
{
    int pid = sys_fork();
    if (pid == 0) {
        sys_die_with_parent();
        int rc = be_rank(rank, size, port);
        sys_exit_now(-rc);
    }
    return pid;
}

/* Ends of n children: how many ended with this code. */
static int count_ends(int n, int code)
{
    int count = 0, ended;
    for (int i = 0; i < n; i++)
        if (sys_wait_child(true, &ended) > 0)
            count += ended == code;
    return count;
}

static int stranger(int port, const void *bytes, i64 n)
{
    int fd = -1;
    for (int i = 0; i < 500 && fd < 0; i++) {
        fd = sys_connect("127.0.0.1", port);
        if (fd < 0)
            sys_sleep_ns(10 * 1000 * 1000);
    }
    CHECK(fd >= 0);
    if (n > 0)
        CHECK_EQ(sys_send(fd, bytes, n), n);
    return fd;
}

TEST(ranks_find_each_other_in_any_order)
{
    int port = free_port();
    for (int rank = 3; rank >= 0; rank--)
        fork_rank(rank, 4, port);
    CHECK_EQ(count_ends(4, 0), 4);
}

TEST(strangers_do_not_disturb)
{
    static const char http[] = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    u8 half[HELLO_BYTES];
    struct hello h = { .rank = 1, .size = 2, .pid = 1 };
    int port = free_port(), fds[3];
    hello_write(&h, half);
    fork_rank(0, 2, port);
    fds[0] = stranger(port, http, sizeof http);
    fds[1] = stranger(port, NULL, 0); /* says nothing */
    fds[2] = stranger(port, half, 20); /* says half of it, and leaves */
    sys_close(fds[2]);
    fork_rank(1, 2, port);
    CHECK_EQ(count_ends(2, 0), 2);
    sys_close(fds[0]);
    sys_close(fds[1]);
}

static void check_refusal(int rank, int size)
{
    int port = free_port();
    fork_rank(0, 2, port);
    fork_rank(rank, size, port);
    CHECK_EQ(count_ends(2, -ERR_CONFIG), 2);
}

TEST(ranks_that_do_not_fit_are_refused_everywhere)
{
    check_refusal(1, 3);
    check_refusal(2, 2);
}

TEST(another_machine_is_refused)
{
    u8 bytes[HELLO_BYTES];
    struct hello h = { .rank = 1, .size = 2, .pid = 1, .machine = 42 };
    int port = free_port();
    hello_write(&h, bytes);
    fork_rank(0, 2, port);
    int fd = stranger(port, bytes, HELLO_BYTES);
    CHECK_EQ(count_ends(1, -ERR_CONFIG), 1);
    sys_close(fd);
}

/* A process that sees other processes than rank 0 does, as in a container of its own. */
static void be_apart(int port)
{
    char text[64];
    u8 bytes[HELLO_BYTES], why = ENOENT, reply[256];
    int file = sys_open("/proc/sys/kernel/random/boot_id", 0, 0);
    CHECK(file >= 0);
    i64 n = sys_read_full(file, text, sizeof text);
    sys_close(file);
    struct hello h = { .rank = 1, .size = 3, .pid = sys_pid(), .machine = hash64(text, n, 0) };
    hello_write(&h, bytes);
    int fd = stranger(port, bytes, HELLO_BYTES);
    for (i64 got = 0; got < (i64)sizeof reply;)
        got += i64_max(0, sys_receive(fd, reply + got, (i64)sizeof reply - got));
    CHECK_EQ(sys_send(fd, &why, 1), 1);
    sys_close(fd);
}

TEST(a_rank_that_cannot_open_the_memory_ends_all_of_them_at_once)
{
    int port = free_port();
    u64 begin = sys_now_ns();
    fork_rank(0, 3, port);
    fork_rank(2, 3, port);
    be_apart(port);
    CHECK_EQ(count_ends(2, -ERR_SYS), 2);
    CHECK(sys_now_ns() - begin < (u64)20 * 1000 * 1000 * 1000); /* not their time-out of 60 s */
}

TEST(a_hello_survives_the_journey)
{
    u8 bytes[HELLO_BYTES];
    struct hello out, h = { .rank = 123456, .size = 1 << 30, .pid = -1, .machine = ~(u64)1 };
    hello_write(&h, bytes);
    CHECK(hello_read(&out, bytes));
    CHECK(out.rank == h.rank && out.size == h.size && out.pid == -1 && out.machine == h.machine);
    bytes[7]++;
    CHECK(!hello_read(&out, bytes));
}

TEST(addresses_are_checked)
{
    static const char *const bad[] = { "", ":", "host", "host:", "host:0", "host:65536", ":80",
                                       "host:12x", "host:-1" };
    char host[32];
    int port;
    CHECK_OK(rendezvous_address("node1:29500", host, sizeof host, &port));
    CHECK_STR(host, "node1");
    CHECK_EQ(port, 29500);
    CHECK_OK(rendezvous_address("[::1]:80", host, sizeof host, &port));
    CHECK_STR(host, "::1");
    for (i64 i = 0; i < COUNT_OF(bad); i++)
        CHECK_FAILS(rendezvous_address(bad[i], host, sizeof host, &port), ERR_CONFIG,
                    "is not host:port");
}

static void set_all(const char *const *pairs)
{
    static const char *const known[] = {
        "HEADWAY_RANK", "HEADWAY_SIZE", "HEADWAY_ADDRESS", "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"
    };
    for (i64 i = 0; i < COUNT_OF(known); i++)
        unsetenv(known[i]);
    for (; *pairs; pairs += 2)
        setenv(pairs[0], pairs[1], 1);
}

#define ENVIRONMENT(...) set_all((const char *const[]){ __VA_ARGS__, NULL })

TEST(launchers_are_known_by_their_variables)
{
    struct comm_launch l;
    ENVIRONMENT("OMPI_COMM_WORLD_SIZE", "4", "OMPI_COMM_WORLD_RANK", "2");
    CHECK_OK(comm_launch_detect(&l));
    CHECK(l.launcher == LAUNCHER_OPENMPI && l.rank == 2 && l.size == 4);
    ENVIRONMENT("PMIX_RANK", "1", "SLURM_STEP_NUM_TASKS", "3");
    CHECK_OK(comm_launch_detect(&l));
    CHECK(l.launcher == LAUNCHER_OPENMPI && l.rank == 1 && l.size == 3);
    ENVIRONMENT("PMI_RANK", "1", "PMI_SIZE", "2");
    CHECK_OK(comm_launch_detect(&l));
    CHECK(l.launcher == LAUNCHER_MPICH && l.rank == 1 && l.size == 2);
    ENVIRONMENT("SLURM_STEP_NUM_TASKS", "2");
    CHECK_FAILS(comm_launch_detect(&l), ERR_CONFIG, "use srun --mpi=pmix");
    ENVIRONMENT("HEADWAY_RANK", "1", "HEADWAY_SIZE", "2");
    CHECK_FAILS(comm_launch_detect(&l), ERR_CONFIG, "HEADWAY_ADDRESS is not set");
    ENVIRONMENT("HEADWAY_RANK", "2", "HEADWAY_SIZE", "2", "HEADWAY_ADDRESS", "a:1");
    CHECK_FAILS(comm_launch_detect(&l), ERR_CONFIG, "HEADWAY_RANK=2 is not below HEADWAY_SIZE=2");
    ENVIRONMENT("PMI_RANK", "1", "PMI_SIZE", "two");
    CHECK_FAILS(comm_launch_detect(&l), ERR_CONFIG, "PMI_SIZE=two is not a number");
    ENVIRONMENT("HEADWAY_RANK", "");
    CHECK_OK(comm_launch_detect(&l));
    CHECK_EQ(l.launcher, LAUNCHER_NONE);
}

TEST_MAIN(ONE(ranks_find_each_other_in_any_order), ONE(strangers_do_not_disturb),
          ONE(ranks_that_do_not_fit_are_refused_everywhere), ONE(another_machine_is_refused),
          ONE(a_rank_that_cannot_open_the_memory_ends_all_of_them_at_once),
          ONE(a_hello_survives_the_journey), ONE(addresses_are_checked),
          ONE(launchers_are_known_by_their_variables))
