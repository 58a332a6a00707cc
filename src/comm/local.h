/* comm/local.h - N ranks on this machine, without a launcher.
 *
 * The calling process forks the ranks and waits for them; it is no rank itself. It must
 * have no other threads. When one rank dies or fails, the others end with the same
 * message, and so does the call; ranks that do not end by themselves are killed. They are
 * also killed when the calling process dies. */
#ifndef HEADWAY_COMM_LOCAL_H
#define HEADWAY_COMM_LOCAL_H

#include "comm/comm.h"

struct comm_local {
    int ranks;
    double deadline_s; /* 0: wait for ever */
    i64 slot_bytes;    /* 0: what was measured to be good */
};

/* What a rank does; flushes what it printed. */
typedef int (*comm_body)(struct comm *c, void *context);

int comm_local_run(const struct comm_local *l, comm_body body, void *context);

/* Smaller ones cost more rounds than they save cache: see bench/RESULTS.md. */
enum { COMM_SLOT_BYTES = 1 << 20 };

/* This process is one of a world that is all on this node. Takes node over, unless it fails. */
int comm_shm_new(struct comm **out, struct node *node, int rank, int size, double deadline_s);

/* Others end with this rank's message, as ERR_PEER unless it is theirs already. */
void comm_fail(struct comm *c, int code);

#endif
