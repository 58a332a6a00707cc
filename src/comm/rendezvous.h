/* comm/rendezvous.h - ranks of one machine that find each other by an address.
 *
 * For schedulers that start N processes and set HEADWAY_RANK, HEADWAY_SIZE and
 * HEADWAY_ADDRESS=host:port and nothing else. Rank 0 listens there; the others say who they
 * are and are told where the shared memory is; each tells whether it could open it. All must be
 * on one machine; between machines, MPI carries data.
 *
 * Bytes from strangers: what does not begin like a hello is dropped and waiting goes on; a
 * hello that does not fit (another size, a rank twice) ends the start with one sentence. */
#ifndef HEADWAY_COMM_RENDEZVOUS_H
#define HEADWAY_COMM_RENDEZVOUS_H

#include "comm/comm.h"

int comm_rendezvous(struct comm **out, int rank, int size, const char *address,
                    double deadline_s);

/* "host:port", "[::1]:port" */
int rendezvous_address(const char *text, char *host, int chars, int *port);

/* What a rank says first, as it travels (little endian). */
enum { HELLO_BYTES = 40 };
struct hello {
    int rank, size, pid;
    u64 machine;
};
void hello_write(const struct hello *h, u8 bytes[HELLO_BYTES]);
bool hello_read(struct hello *h, const u8 bytes[HELLO_BYTES]); /* false: no hello at all */

#endif
