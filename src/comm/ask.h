/* comm/ask.h - what ranks of other nodes are doing, asked over MPI.
 *
 * Ranks of one node read each other's flight recorder in shared memory. Ranks of others
 * are asked, on a group of MPI's that carries nothing else: each rank has a thread that
 * looks for questions a few times a second, so that it answers while it computes or
 * waits. Whoever does not answer is asked about at its neighbours on its node, which see
 * it; whom nobody can tell of is silent: stopped, or its host cannot be reached. Only
 * worlds with ranks that cannot see each other have this.
 *
 * It judges nothing: answers become flights and sights of the comm, read by comm/flight.c. */
#ifndef HEADWAY_COMM_ASK_H
#define HEADWAY_COMM_ASK_H

#include "comm/flight.h"
#include "comm/mpi_table.h"

struct ask;

/* By all ranks of the world. nodes: a number per rank, the same for ranks that see each other.
 * c->sights must be set: who and where each rank is. */
int ask_open(struct ask **out, const struct mpi_table *table, struct comm *c, const int *nodes);
/* Its thread ends; after the ranks met, since others may ask until then. NULL is fine. */
void ask_stop(struct ask *a);
/* After all ranks have stopped: takes in what is still on its way here, so that no letter
 * of anybody is under way when MPI ends. For a second at most. */
void ask_take_in(struct ask *a);
void ask_close(struct ask *a); /* after ask_stop, unless MPI is being aborted */

/* Asks those of these ranks that this one cannot see and did not ask just now, and waits
 * 3.5 seconds for the last of them. An error: ask_check's. */
int ask_ranks(struct ask *a, const int *ranks, int n);
int ask_all(struct ask *a); /* the same of the whole world */

/* This rank ends all, for the reason `code` in err_message: ranks elsewhere shall say the same. */
void ask_tell(struct ask *a, int code);
/* What another rank told, as an error; else OK. */
int ask_check(struct ask *a);

/* The part of a flight recorder that travels: all that is under way, and the last calls. */
enum { ASK_RECORDS = 160, ASK_NEWEST = 128 };
struct answer {
    i32 rank;   /* of whom */
    u32 round;  /* the question's */
    i32 state;  /* as sys_process_state */
    i32 n;
    u64 now_ns; /* by the clock of its host */
    u64 groups[COMM_FLIGHT_GROUPS];
    struct comm_record records[ASK_RECORDS];
};
void answer_pack(struct answer *to, const struct comm_flight *from);
/* Times become those of this host's clock. */
void answer_unpack(struct comm_flight *to, const struct answer *from, u64 now_ns);

#endif
