/* comm/flight.h - the flight recorder: each rank's last calls, and who a stall waits for.
 *
 * A ring of records per rank, written by the rank alone and read by others only when
 * something is wrong; where ranks share a node it lies in shared memory, so that a stopped
 * rank's last call can be read without its help. A stall is explained by following who
 * waits for whom: a member that did not reach the call is absent; if it waits in a call of
 * its own, what that one lacks is looked for, until a rank is found that waits for nobody,
 * or the ranks wait in a circle. A rank that is lost, being stopped or silent, is named before all
 * others: what they lack follows from it. */
#ifndef HEADWAY_COMM_FLIGHT_H
#define HEADWAY_COMM_FLIGHT_H

#include "comm/comm.h"

#include <stdatomic.h>

enum { COMM_FLIGHT_RECORDS = 512, COMM_FLIGHT_GROUPS = 64 };

struct comm_record {
    u64 key;                     /* the group's */
    u64 sequence;
    u64 started_ns, finished_ns; /* finished 0: not yet */
    u64 progress;                /* what the transport did for it so far; grows */
    i64 bytes;
    u32 tag;
    i32 peer; /* rank of the world; -1 when the call has none */
    u8 op;
    char axis[16];
};

/* Plain memory without pointers: it may be mapped at different addresses. */
struct comm_flight {
    atomic_llong written;           /* calls ever; the last ones are there */
    u64 groups[COMM_FLIGHT_GROUPS]; /* keys of the groups that the rank belongs to, or 0 */
    struct comm_record records[COMM_FLIGHT_RECORDS];
};

/* A rank on another node, as it was when it was last asked (comm/ask.h). Its flight, where it
 * is known, is a copy. */
enum { COMM_HOST_CHARS = 64 };
struct comm_sight {
    char host[COMM_HOST_CHARS];
    int pid;
    char state;  /* as sys_process_state; 0: never asked */
    bool silent; /* neither it nor a neighbour answered */
};

void comm_flight_join(struct comm_flight *f, u64 key);
i64 comm_flight_start(struct comm_flight *f, const struct comm_call *call);
void comm_flight_progress(struct comm_flight *f, i64 entry, u64 progress);
void comm_flight_finish(struct comm_flight *f, i64 entry, u64 now_ns);

/* The newest record; NULL when there is none. */
const struct comm_record *comm_flight_last(const struct comm_flight *f);

void comm_record_fill(struct comm_record *r, const struct comm_call *call);
/* "allreduce 12 on dp (tag 7, 4096 bytes)" */
void comm_record_describe(const struct comm_record *r, char *text, int chars);

/* Of two ranks whose calls of a group with this sequence differ, the one that does
 * something else than the last time that it had made the calls before; -1: neither does,
 * or both, or it is not known. Steps repeat, so whoever left out a call is told from
 * whoever made it. */
int comm_odd_of(const struct comm *c, u64 key, u64 sequence, int a, int b);

/* ", stopped", for a process's state. */
const char *comm_state_words(char state);

/* Whom a sentence about a stall or a death names as the one that others lacked: the rank, or -1. */
int comm_absent_in(const char *sentence);

/* ERR_HANG, with one sentence that names the absent rank and the call it did not reach. */
int comm_explain_stall(const struct comm_call *call);
/* The same when there is still patience: ERR_HANG only if that rank is stopped, else the
 * sentence goes to the log of one rank. */
int comm_look_into_stall(const struct comm_call *call);

#endif
