/* comm/transport.h - what a transport is to the rest of this room.
 *
 * comm.c checks calls, numbers them and keeps the flight recorder; a transport moves bytes
 * and counts them. Calls of groups with one member never reach it. */
#ifndef HEADWAY_COMM_TRANSPORT_H
#define HEADWAY_COMM_TRANSPORT_H

#include "comm/comm.h"

struct comm_transport {
    const char *name;
    bool one_thread; /* all ranks live in one: there can be no lanes */
    /* Sets g->state, may change g->transport. (optional) */
    int (*group_new)(struct comm_group *g);
    int (*start)(struct comm_call *call);
    /* Moves what can be moved without waiting, of all calls of the group; sets `ended` of
     * those that are done. start and progress of a group are never entered twice at once. */
    int (*progress)(struct comm_group *g);
    /* What moves rings the bells of node.h: a waiter may sleep until then. */
    bool rings;
    /* Nothing moved, `idle` times in a row: rest until something may have, since the bell
     * was read. ERR_HANG: nothing ever can. */
    int (*idle)(struct comm *c, u32 bell, u64 idle);
    /* Renews flights and sights of the ranks that this one cannot see: a group's members, or, with
     * NULL, all of the world. An error: another rank told why all end. (optional) */
    int (*ask)(struct comm *c, const struct comm_group *of);
    void (*close)(struct comm *c); /* (optional) */
};

/* A comm with its flight recorder (of this process, unless the transport replaces it). */
int comm_new(struct comm **out, const struct comm_transport *t, int rank, int size);

/* Rests as the transports of all calls under way allow. bell: comm_bell before looking. */
u32 comm_bell(const struct comm *c);
int comm_rest(struct comm *c, u32 bell, u64 idle);

/* Do two members' calls with the same sequence belong together? An error names both. */
int comm_check_match(const struct comm_call *a, const struct comm_call *b);

/* "allreduce 12 on dp (tag 7, 4096 bytes)" */
void comm_describe(const struct comm_call *call, char *text, int chars);

i64 comm_payload_bytes(const struct comm_call *call); /* of the larger buffer */

extern const struct comm_transport shm_transport;

static inline char *comm_at(const void *buffer, i64 element, enum dtype d)
{
    return (char *)(uintptr_t)buffer + element * dtype_bytes(d);
}

/* Skips the copy when the part already lies in its place. */
void comm_copy(void *to, const void *from, i64 bytes);

#endif
