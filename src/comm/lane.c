#include "comm/lane.h"

#include "base/err.h"
#include "base/sys.h"
#include "base/sys_share.h"
#include "comm/node.h"
#include "comm/transport.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

enum {
    QUEUE = 256,
    WINDOW = 64,             /* calls under way at once: a pipeline sends ahead of receivers */
    IDLE_FROM = 1 << 20,     /* never spin: the core may be computing */
    SPIN = 200,              /* looks before a waiter sleeps */
    ERROR_CHARS = 700,
};
static const u64 nap_ns = 100 * 1000 * 1000;

struct comm_lane {
    struct comm *comm;
    pthread_t thread;
    int core;
    struct comm_call *queue[QUEUE];
    atomic_uint bell;      /* the lane sleeps on it when it has nothing to do */
    atomic_uint submitted; /* ever */
    atomic_uint taken;     /* ever */
    atomic_uint ended;     /* ever; who waits for a call sleeps on it */
    atomic_int waiters;
    atomic_bool stop;
    atomic_int failed;     /* the first error's code, once error can be read */
    char error[ERROR_CHARS];
    struct comm_call *under_way[WINDOW];
    int n_under_way;
};

static void fail(struct comm_lane *l, int code)
{
    if (atomic_load(&l->failed))
        return;
    snprintf(l->error, sizeof l->error, "%s", err_message());
    atomic_store(&l->failed, code);
}

static void tell_end(struct comm_lane *l)
{
    atomic_fetch_add(&l->ended, 1);
    if (atomic_load(&l->waiters) > 0)
        sys_futex_wake(&l->ended);
}

static void take_new(struct comm_lane *l)
{
    while (l->n_under_way < WINDOW && atomic_load(&l->taken) != atomic_load(&l->submitted)) {
        struct comm_call *call = l->queue[atomic_load(&l->taken) % QUEUE];
        atomic_fetch_add(&l->taken, 1);
        int rc = atomic_load(&l->failed);
        if (rc == OK && (rc = comm_start(call)) < 0)
            fail(l, rc);
        if (rc < 0) {
            call->status = COMM_FAILED;
            tell_end(l);
        } else {
            l->under_way[l->n_under_way++] = call;
        }
    }
}

/* Ended calls leave; the others keep their order. */
static bool drive(struct comm_lane *l)
{
    int kept = 0, n = l->n_under_way;
    for (int i = 0; i < n; i++) {
        struct comm_call *call = l->under_way[i];
        int rc = atomic_load(&l->failed) ? ERR_PEER : comm_test(call);
        if (rc == 0) {
            l->under_way[kept++] = call;
            continue;
        }
        if (rc < 0) {
            fail(l, rc);
            call->status = COMM_FAILED;
        }
        l->n_under_way--;
        tell_end(l);
    }
    return kept < n;
}

static void *lane_main(void *argument)
{
    struct comm_lane *l = argument;
    struct comm *c = l->comm;
    sys_sleep_exactly(); /* what is held back ends in time without looking at it all the while */
    if (l->core >= 0)
        sys_pin_thread(l->core); /* a wish: elsewhere it works too */
    for (u64 idle = IDLE_FROM;; idle++) {
        u32 own_bell = atomic_load(&l->bell);
        u32 bell = comm_bell(c);
        take_new(l);
        if (l->n_under_way == 0) {
            if (atomic_load(&l->stop) && atomic_load(&l->taken) == atomic_load(&l->submitted))
                return NULL;
            sys_futex_wait(&l->bell, own_bell, nap_ns);
            continue;
        }
        if (drive(l)) {
            idle = IDLE_FROM;
        } else {
            int rc = comm_rest(c, bell, idle);
            if (rc < 0)
                fail(l, rc);
        }
    }
}

int comm_lane_new(struct comm_lane **out, struct comm *c, int core)
{
    if (c->transport->one_thread)
        return err_set(ERR_INTERNAL, "%s ranks live in one thread: they have no lanes",
                       c->transport->name);
    struct comm_lane *l = sys_alloc((i64)sizeof *l, 64);
    if (!l)
        return err_set(ERR_LIMIT, "no memory for a communication lane");
    memset(l, 0, sizeof *l);
    l->comm = c;
    l->core = core;
    int rc = pthread_create(&l->thread, NULL, lane_main, l);
    if (rc != 0) {
        sys_free(l);
        return err_set(ERR_SYS, "cannot start a communication thread: %s", strerror(rc));
    }
    *out = l;
    return OK;
}

static void wake(struct comm_lane *l)
{
    atomic_fetch_add(&l->bell, 1);
    sys_futex_wake(&l->bell);
    struct node *node = l->comm->node;
    if (node)
        node_ring(node, node_seat_of(node, l->comm->rank));
}

void comm_lane_free(struct comm_lane *l)
{
    if (!l)
        return;
    atomic_store(&l->stop, true);
    wake(l);
    pthread_join(l->thread, NULL);
    sys_free(l);
}

void comm_lane_submit(struct comm_lane *l, struct comm_call *call)
{
    u32 at = atomic_load(&l->submitted);
    while (at - atomic_load(&l->taken) >= QUEUE)
        sys_yield();
    call->status = COMM_STARTED;
    l->queue[at % QUEUE] = call;
    atomic_store(&l->submitted, at + 1);
    wake(l);
}

int comm_lane_wait(struct comm_lane *l, struct comm_call *call)
{
    for (int look = 0;; look++) {
        u32 ended = atomic_load(&l->ended);
        int status = call->status;
        if (status == COMM_DONE)
            return OK;
        if (status == COMM_FAILED && atomic_load(&l->failed))
            return err_set(atomic_load(&l->failed), "%s", l->error);
        if (look < SPIN) {
            sys_pause();
            continue;
        }
        atomic_fetch_add(&l->waiters, 1);
        sys_futex_wait(&l->ended, ended, nap_ns);
        atomic_fetch_sub(&l->waiters, 1);
    }
}
