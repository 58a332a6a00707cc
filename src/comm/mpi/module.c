/* One MPI library behind comm/mpi_table.h. Compiled once per library, with its mpicc. */
#include "comm/mpi_table.h"

#include <mpi.h>
#include <stdlib.h>
#include <string.h>

enum { MESSAGE_TAG = 7 };

const struct mpi_table *headway_mpi_table(void);

struct group {
    MPI_Comm comm;
};

static _Thread_local char error_text[MPI_MAX_ERROR_STRING];

static int failed(int rc)
{
    int length = 0;
    if (MPI_Error_string(rc, error_text, &length) != MPI_SUCCESS)
        strcpy(error_text, "an MPI call failed");
    return -1;
}

#define MPI_TRY(expr)                                                                    \
    do {                                                                                 \
        int mpi_rc_ = (expr);                                                            \
        if (mpi_rc_ != MPI_SUCCESS)                                                      \
            return failed(mpi_rc_);                                                      \
    } while (0)

static const char *last_error(void)
{
    return error_text;
}

static int module_open(int *rank, int *size)
{
    int provided;
    MPI_TRY(MPI_Init_thread(NULL, NULL, MPI_THREAD_MULTIPLE, &provided));
    MPI_TRY(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN));
    MPI_TRY(MPI_Comm_rank(MPI_COMM_WORLD, rank));
    MPI_TRY(MPI_Comm_size(MPI_COMM_WORLD, size));
    if (provided < MPI_THREAD_MULTIPLE) {
        strcpy(error_text, "this MPI library was built without threads (MPI_THREAD_MULTIPLE)");
        return -1;
    }
    return 0;
}

/* The barrier first: MPICH over UCX leaves off answering while it waits for the others to finalize,
 * and one that still waits for an answer to what it wrote into another's memory waits for ever. */
static void module_close(void)
{
    MPI_Barrier(MPI_COMM_WORLD);
    MPI_Finalize();
}

static void module_abort(int code)
{
    MPI_Abort(MPI_COMM_WORLD, code);
}

static const char *library(void)
{
    static char text[MPI_MAX_LIBRARY_VERSION_STRING];
    int length;
    MPI_Get_library_version(text, &length);
    text[strcspn(text, ",\n")] = '\0';
    for (char *c = text; *c; c++) /* MPICH has a tab behind its name */
        if ((unsigned char)*c < ' ')
            *c = ' ';
    return text;
}

static int node(int *ranks, int *n)
{
    MPI_Comm comm;
    int rank;
    MPI_TRY(MPI_Comm_rank(MPI_COMM_WORLD, &rank));
    MPI_TRY(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, rank, MPI_INFO_NULL,
                                &comm));
    MPI_TRY(MPI_Comm_size(comm, n));
    MPI_TRY(MPI_Allgather(&rank, 1, MPI_INT, ranks, 1, MPI_INT, comm));
    MPI_TRY(MPI_Comm_free(&comm));
    return 0;
}

static int exchange(const void *own, void *all, int bytes)
{
    MPI_TRY(MPI_Allgather(own, bytes, MPI_BYTE, all, bytes, MPI_BYTE, MPI_COMM_WORLD));
    return 0;
}

static int group_new(const int *ranks, int n, int tag, void **out)
{
    MPI_Group world, members;
    MPI_Comm comm;
    MPI_TRY(MPI_Comm_group(MPI_COMM_WORLD, &world));
    MPI_TRY(MPI_Group_incl(world, n, ranks, &members));
    MPI_TRY(MPI_Comm_create_group(MPI_COMM_WORLD, members, tag, &comm));
    MPI_Group_free(&members);
    MPI_Group_free(&world);
    struct group *g = malloc(sizeof *g);
    if (!g)
        return failed(MPI_ERR_NO_MEM);
    g->comm = comm;
    *out = g;
    return 0;
}

static void group_free(void *group)
{
    struct group *g = group;
    MPI_Comm_free(&g->comm);
    free(g);
}

static MPI_Datatype type_of(enum mpi_dtype d)
{
    switch (d) {
    case MPI_TABLE_F32:
        return MPI_FLOAT;
    case MPI_TABLE_F64:
        return MPI_DOUBLE;
    case MPI_TABLE_I32:
        return MPI_INT32_T;
    case MPI_TABLE_I64:
        return MPI_INT64_T;
    default:
        return MPI_BYTE;
    }
}

static int start_call(MPI_Comm comm, const struct mpi_call *c, MPI_Request *r)
{
    MPI_Datatype type = type_of(c->dtype);
    MPI_Op op = c->max ? MPI_MAX : MPI_SUM;
    const void *in = c->in ? c->in : MPI_IN_PLACE;
    switch (c->kind) {
    case MPI_TABLE_ALLREDUCE:
        return MPI_Iallreduce(in, c->out, c->count, type, op, comm, r);
    case MPI_TABLE_REDUCE_SCATTER:
        return MPI_Ireduce_scatter(in, c->out, c->counts, type, op, comm, r);
    case MPI_TABLE_GATHER:
        return MPI_Iallgatherv(in, c->count, type, c->out, c->counts, c->offsets, type, comm, r);
    case MPI_TABLE_ALL_TO_ALL:
        return MPI_Ialltoallv(in, c->counts, c->offsets, type, c->out, c->recv_counts,
                              c->recv_offsets, type, comm, r);
    case MPI_TABLE_SEND:
        return MPI_Isend(c->in, c->count, type, c->peer, MESSAGE_TAG, comm, r);
    case MPI_TABLE_RECV:
        return MPI_Irecv(c->out, c->count, type, c->peer, MESSAGE_TAG, comm, r);
    case MPI_TABLE_BROADCAST:
        return MPI_Ibcast(c->out, c->count, type, c->peer, comm, r);
    default:
        return MPI_Ibarrier(comm, r);
    }
}

static int keep(int rc, MPI_Request *r, void **request)
{
    if (rc != MPI_SUCCESS) {
        free(r);
        return failed(rc);
    }
    *request = r;
    return 0;
}

static int start(void *group, const struct mpi_call *call, void **request)
{
    MPI_Request *r = malloc(sizeof *r);
    if (!r)
        return failed(MPI_ERR_NO_MEM);
    return keep(start_call(((struct group *)group)->comm, call, r), r, request);
}

static int post(void *group, int to, int tag, const void *in, int bytes, void **request)
{
    MPI_Request *r = malloc(sizeof *r);
    if (!r)
        return failed(MPI_ERR_NO_MEM);
    return keep(MPI_Isend(in, bytes, MPI_BYTE, to, tag, ((struct group *)group)->comm, r), r,
                request);
}

static int poll(void *group, int tag, void *out, int bytes, int *from)
{
    MPI_Comm comm = ((struct group *)group)->comm;
    MPI_Status status;
    int there = 0;
    MPI_TRY(MPI_Iprobe(MPI_ANY_SOURCE, tag, comm, &there, &status));
    if (!there)
        return 0;
    *from = status.MPI_SOURCE;
    MPI_TRY(MPI_Recv(out, bytes, MPI_BYTE, *from, tag, comm, &status));
    return 1;
}

static int test(void **request)
{
    int done = 0;
    MPI_Status status;
    int rc = MPI_Test(*request, &done, &status);
    if (rc != MPI_SUCCESS)
        return failed(rc);
    if (done) {
        free(*request);
        *request = NULL;
    }
    return done;
}

static const struct mpi_table table = {
    .version = MPI_TABLE_VERSION, .open = module_open, .close = module_close,
    .abort = module_abort, .library = library, .last_error = last_error, .node = node,
    .exchange = exchange, .group = group_new, .group_free = group_free, .start = start,
    .test = test, .post = post, .poll = poll,
};

const struct mpi_table *headway_mpi_table(void)
{
    return &table;
}
