#include "parallel/clock.h"

#include "base/sys.h"
#include "comm/node.h"

enum { TRIPS = 16, TAG_CLOCK = 6 };

i64 clock_fit(const struct clock_trip *trips, int n)
{
    const struct clock_trip *best = trips;
    for (int i = 1; i < n; i++)
        if (trips[i].back_ns - trips[i].left_ns < best->back_ns - best->left_ns)
            best = &trips[i];
    u64 half_way = best->left_ns + (best->back_ns - best->left_ns) / 2;
    return (i64)(half_way - best->there_ns);
}

static int pass(struct comm_group *g, enum comm_op op, int peer, void *value)
{
    struct comm_call call = { .op = op, .group = g, .in = value, .out = value,
                              .count = (i64)sizeof(u64), .dtype = DTYPE_U8, .peer = peer,
                              .tag = TAG_CLOCK };
    return comm_run(&call);
}

int clock_ping(struct comm_group *g, int peer, u64 (*now)(void), i64 *shift_ns)
{
    struct clock_trip trips[TRIPS] = { 0 };
    bool asks = g->index == 0;
    int other = asks ? peer : 0;
    for (int i = 0; i < TRIPS; i++) {
        struct clock_trip *t = &trips[i];
        t->left_ns = now();
        TRY(pass(g, asks ? COMM_SEND : COMM_RECV, other, &t->there_ns));
        if (!asks)
            t->there_ns = now();
        TRY(pass(g, asks ? COMM_RECV : COMM_SEND, other, &t->there_ns));
        t->back_ns = now();
    }
    *shift_ns = clock_fit(trips, TRIPS);
    return pass(g, asks ? COMM_SEND : COMM_RECV, other, shift_ns);
}

/* Both see the same: a node's memory has seats for all of its ranks. */
static bool share_clock(const struct comm *c, int other)
{
    return c->node && node_seat_of(c->node, other) >= 0;
}

int clock_shift(const struct mesh *m, i64 *shift_ns)
{
    *shift_ns = 0;
    if (!m->world)
        return OK;
    if (m->world->index > 0)
        return share_clock(m->comm, 0) ? OK : clock_ping(m->world, m->world->index, sys_now_ns,
                                                         shift_ns);
    for (int peer = 1; peer < m->world->n; peer++) {
        i64 theirs;
        if (!share_clock(m->comm, peer))
            TRY(clock_ping(m->world, peer, sys_now_ns, &theirs));
    }
    return OK;
}
