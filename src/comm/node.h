/* comm/node.h - memory that the ranks of one node share, and how they notice each other.
 *
 * It holds a seat per rank (who it is, its flight recorder, its bell), a directory by
 * which members of a group find the same memory without talking, and one note for the end:
 * the first rank that fails, or that sees another dead or absent, writes what happened;
 * everybody else ends with the same sentence. */
#ifndef HEADWAY_COMM_NODE_H
#define HEADWAY_COMM_NODE_H

#include "comm/comm.h"
#include "comm/flight.h"

struct node;

/* Made by one process. Others of the node get the descriptor by fork or by process id.
 * slot_bytes: what one member puts down for others at a time. */
int node_new(int *memory, int ranks, i64 slot_bytes);
int node_open(struct node **out, int memory); /* takes the descriptor over, unless it fails */
/* This process is that one of the node's ranks, and that rank of the world. */
void node_sit(struct node *n, int seat, int rank);
void node_close(struct node *n); /* whoever sat leaves in peace; NULL is fine */

int node_ranks(const struct node *n);
i64 node_slot_bytes(const struct node *n);
int node_seat_of(const struct node *n, int rank); /* -1: not on this node */
int node_rank_at(const struct node *n, int seat);
struct comm_flight *node_flight(struct node *n, int seat);
/* Waits until all ranks of the node are here. */
int node_meet(struct node *n, u64 timeout_ns);

/* The same zeroed memory for everybody who asks with this key, or NULL: all is taken. */
void *node_find(struct node *n, u64 key, i64 bytes);

/* Bells: a waiter reads its own, looks whether it can go on, and rests until the bell
 * rings again. Whoever publishes something rings those whom it concerns. */
u32 node_bell(struct node *n);
void node_ring(struct node *n, int seat);
/* ERR_PEER when a rank of the node died meanwhile. */
int node_rest(struct node *n, u32 bell, u64 idle);
/* Until the bell rings or the time is over. */
void node_nap(struct node *n, u32 bell, u64 timeout_ns);
int node_look(struct node *n); /* the same without resting: has anybody died, or noted? */

/* The first note stays. node_check gives it as an error, else OK. */
void node_note(struct node *n, int code, const char *text);
int node_check(struct node *n);
bool node_left(const struct node *n, int seat);
char node_state(const struct node *n, int seat); /* as sys_process_state */
/* " (pid 7, stopped)", for reports. */
void node_describe(const struct node *n, int seat, char *text, int chars);

#endif
