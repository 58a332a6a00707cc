/* comm/mpi_table.h - between the program and one MPI library.
 *
 * Every MPI has its own binary interface, so the program knows none of them: a small module
 * per library (comm/mpi/module.c, compiled once with each) translates. Nothing of mpi.h
 * appears here, and nothing of ours but this header there.
 *
 * Functions return 0, or -1 with a message that last_error gives; test: 1 or 0 or -1. */
#ifndef HEADWAY_COMM_MPI_TABLE_H
#define HEADWAY_COMM_MPI_TABLE_H

enum mpi_dtype { MPI_TABLE_F32, MPI_TABLE_F64, MPI_TABLE_I32, MPI_TABLE_I64, MPI_TABLE_U8 };

enum mpi_kind {
    MPI_TABLE_ALLREDUCE, MPI_TABLE_REDUCE_SCATTER, MPI_TABLE_GATHER, MPI_TABLE_ALL_TO_ALL,
    MPI_TABLE_SEND, MPI_TABLE_RECV, MPI_TABLE_BROADCAST, MPI_TABLE_BARRIER
};

struct mpi_call {
    enum mpi_kind kind;
    enum mpi_dtype dtype;
    int max;        /* a maximum instead of a sum */
    int peer;
    const void *in; /* NULL: already in its place in out */
    void *out;
    int count;
    const int *counts, *offsets;           /* elements; to each, or of each */
    const int *recv_counts, *recv_offsets; /* all_to_all: from each */
};

struct mpi_table {
    int version; /* MPI_TABLE_VERSION */
    int (*open)(int *rank, int *size);
    void (*close)(void);
    void (*abort)(int code); /* ends all ranks */
    const char *(*library)(void); /* "Open MPI v4.1.4 ..." */
    const char *(*last_error)(void); /* of the calling thread */
    int (*node)(int *ranks, int *n); /* ranks of the world on this node, ascending */
    int (*exchange)(const void *own, void *all, int bytes); /* all of the world; waits */
    int (*group)(const int *ranks, int n, int tag, void **group);
    void (*group_free)(void *group);
    int (*start)(void *group, const struct mpi_call *call, void **request);
    int (*test)(void **request);
    /* Single messages on a group that carries nothing else, told apart by a tag. poll: 1 when
     * one was there, now in `out`, with its sender. */
    int (*post)(void *group, int to, int tag, const void *in, int bytes, void **request);
    int (*poll)(void *group, int tag, void *out, int bytes, int *from);
};

enum { MPI_TABLE_VERSION = 2 };

/* What a module exports. */
#define MPI_TABLE_SYMBOL "headway_mpi_table"
typedef const struct mpi_table *(*mpi_table_fn)(void);

#endif
