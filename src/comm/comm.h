/* comm/comm.h - what ranks say to each other: one table of collectives.
 *
 * A program that runs on several ranks describes what they exchange as *calls*: data that
 * says what is reduced, gathered or sent, among which ranks, for which part of the step.
 * A *transport* carries calls out: `self` (one rank), `sim` (N ranks in one thread, for
 * tests and for planning), `shm` (processes of one node), `mpi`. They mean the same; with
 * call.exact they also give the same bits.
 *
 * How to think about it:
 *   - Every member of a group starts the same calls on it in the same order. The k-th call
 *     of one member belongs to the k-th of the others; that number is its sequence. Sends
 *     and receives are numbered per ordered pair. A tag says what the call is for; members
 *     whose k-th calls differ get an error that names both, wherever the transport sees
 *     both sides (self, sim, shm).
 *   - start, then test until it says 1 or wait. Between start and the end the buffers
 *     belong to the call: inputs must not change, outputs must not be read.
 *   - Calls on different groups, and sends and receives of different pairs, do not wait for
 *     each other: testing or waiting moves on everything that this rank has started. A send
 *     may end only when its receive was started: never count on it being buffered.
 *   - Calls of a group are started by one thread.
 *
 * Sum of a reduction: a binary tree over the member index, ((0+1)+(2+3))+((4+5)+(6+7)), in
 * f32 for f32 and bf16 (rounded to bf16 once, at the end), in f64 for f64, in wrapping
 * arithmetic for integers. With exact this is a promise. Without it a transport may use a
 * faster order; only `mpi` does.
 *
 * Bytes counted: a byte is counted at the member that has it, once for every *other* member
 * to which it is delivered. An allreduce is a reduce-scatter followed by an all-gather of
 * parts as equal as can be (the first count % n members take one more). Summed over the
 * members that is what a ring moves, 2(n-1)X for an allreduce of X bytes, (n-1)X for the
 * others with X the bytes of all parts; a member sends exactly the ring's 2(n-1)X/n where n
 * divides. A broadcast counts (n-1)X at its root. Own parts and padding count nothing.
 *
 * This room prints nothing and knows nothing of tensors or steps. */
#ifndef HEADWAY_COMM_H
#define HEADWAY_COMM_H

#include "base/arena.h"
#include "base/base.h"
#include "base/dtype.h"

#include <stdatomic.h>

enum comm_op {
    COMM_ALLREDUCE,      /* out[count] = reduction over members of in[count] */
    COMM_REDUCE_SCATTER, /* in: all parts; out: the reduction of the own part */
    COMM_ALL_GATHER,     /* in: the own part; out: all parts */
    COMM_ALL_TO_ALL,     /* in: one part for each member; out: one part from each */
    COMM_SEND,           /* in[count] to peer */
    COMM_RECV,           /* out[count] from peer */
    COMM_BROADCAST,      /* in[count] of member peer to everybody's out[count] */
    COMM_BARRIER,
    COMM_OPS
};
const char *comm_op_name(enum comm_op op);

enum comm_reduce { COMM_SUM, COMM_MAX };

enum comm_status { COMM_NEW, COMM_STARTED, COMM_DONE, COMM_FAILED };

struct comm_group;
struct comm_transport;
struct comm_flight;
struct comm_sight;
struct node;

/* Filled by the caller up to tag; the rest is the transport's. Zero is a good beginning. */
struct comm_call {
    enum comm_op op;
    struct comm_group *group;
    /* Parts lie one after another in the order of members. out may be in itself
     * (allreduce, broadcast), or the own part may lie in its place in the larger buffer
     * (reduce_scatter, all_gather); otherwise buffers do not overlap. */
    const void *in;
    void *out;
    i64 count;              /* elements: allreduce, broadcast, send, recv */
    const i64 *counts;      /* elements of each member's part; all_to_all: to each */
    const i64 *recv_counts; /* all_to_all: from each member */
    int peer;               /* index of a member: root, destination, source */
    enum dtype dtype;
    enum comm_reduce reduce;
    bool exact;
    u64 link_ns, delay_ns; /* as if a slow link carried it: it ends so much later than it would;
                            * link_ns one after the other within a group. Usually 0 */
    u32 tag;

    u64 sequence;
    u64 started_ns, finished_ns;
    i64 sent_bytes, received_bytes;
    _Atomic int status; /* enum comm_status */
    _Atomic bool ended; /* the transport is done with it, and its byte counts are final */
    u64 tested_ns, waited_ns;
    u64 release_ns;         /* it has ended, and is held back until then; 0: not looked at */
    u32 looked;             /* so many times into why it waits */
    i64 flight;             /* its entry in the flight recorder */
    struct comm_call *next; /* in a queue of the transport or of a lane */
    u64 step, part;         /* how far the transport got */
    void *state;
};

struct comm_count {
    i64 calls, sent_bytes, received_bytes;
};

/* Some ranks in a fixed order. */
struct comm_group {
    struct comm *comm;
    struct comm_group *next; /* in the comm */
    char axis[16];           /* "dp", "tp" ... for reports and for counting */
    u64 key;                 /* the same at every member, different for every group */
    int n, index;            /* members; which of them this rank is */
    int *members;            /* ranks of the world */
    u64 sequence;            /* collectives started */
    u64 link_free_ns;        /* when its calls' slow link is free */
    u64 *sent, *received;    /* sends to and receives from each member started */
    struct comm_count count[COMM_OPS];
    const struct comm_transport *transport;
    void *state;           /* the transport's */
    _Atomic int under_way; /* calls started and not ended */
    atomic_flag busy;      /* a thread moves its calls on */
};

/* One rank's world. */
struct comm {
    const struct comm_transport *transport;
    int rank, size;
    u64 deadline_ns; /* a call that waits longer is a hang; 0: wait for ever */
    /* A call that waits longer is looked into: if the rank that it waits for is stopped, that
     * is a hang already; else it is told in the log, once, and waiting goes on. 0: never. */
    _Atomic u64 patience_ns;
    _Atomic bool untimed; /* nobody knows yet what is long: the log is told nothing */
    _Atomic u64 held_ns; /* some call that ended is held back until then */
    int failed;      /* the code with which this rank gave up: comm_fail */
    bool speaks;     /* says why it failed when it is closed: nobody else will */
    bool together;   /* the ranks agreed to end here, for better or worse: nobody waits */
    struct comm_group *groups;
    struct comm_flight **flights; /* of every rank; NULL where it cannot be seen */
    struct comm_sight *sights;    /* what is known of ranks elsewhere; NULL: there are none */
    atomic_flag judging;          /* one thread looks into a stall at a time */
    struct node *node;            /* what ranks of this node share; may be NULL */
    struct arena arena;
    void *state;
};

/* A world of one. Other worlds: comm/world.h, comm/sim.h. */
int comm_self_new(struct comm **out);
void comm_free(struct comm *c); /* and its groups; NULL is fine */

/* Called by every member with the same arguments, in the same order for groups with the
 * same members. members must contain this rank and no rank twice. The group lives as long
 * as its comm. */
int comm_group_new(struct comm_group **out, struct comm *c, const char *axis,
                   const int *members, int n);

int comm_start(struct comm_call *call);
int comm_test(struct comm_call *call); /* 1: done; 0: not yet; or an error */
int comm_wait(struct comm_call *call);
int comm_run(struct comm_call *call); /* start and wait */

/* What this rank moved so far over all groups of the axis (NULL: all), ended calls only. */
struct comm_count comm_axis_count(const struct comm *c, const char *axis);

/* Elements [begin, begin + count) of member m's part, for reductions and all_gather. */
struct comm_part {
    i64 begin, count;
};
struct comm_part comm_part(const struct comm_call *call, int m);

#endif
