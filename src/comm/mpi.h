/* comm/mpi.h - ranks that an MPI launcher started.
 *
 * Ranks of one node share memory (comm/node.h) and move data through it; groups that span
 * nodes use MPI. MPI has no sum in bf16 and promises no order, so bf16 and exact sums are
 * made here: everybody's part to its owner, a tree there, and the sums to all. */
#ifndef HEADWAY_COMM_MPI_H
#define HEADWAY_COMM_MPI_H

#include "comm/comm.h"

enum mpi_library { MPI_LIBRARY_OPENMPI, MPI_LIBRARY_MPICH, MPI_LIBRARIES };
const char *mpi_library_name(enum mpi_library l);

/* launched: how many ranks the launcher says that it started (0: it does not say);
 * always_mpi: also among ranks of one node. */
int comm_mpi_new(struct comm **out, enum mpi_library l, int launched, bool always_mpi,
                 double deadline_s);

/* Is the module for this library beside the program? */
bool comm_mpi_exists(enum mpi_library l);

#endif
