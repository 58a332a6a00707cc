#include "parallel/mesh.h"

#include "base/err.h"

#include <string.h>

enum { TAG_AGREE = 1, TAG_TELL, TAG_GATHER };

struct mesh mesh_at(const struct layout *l, i64 rank)
{
    return (struct mesh){ .layout = *l, .rank = rank, .dp_rank = rank / l->tp,
                          .tp_rank = rank % l->tp };
}

struct mesh mesh_single(void)
{
    struct layout single = layout_single();
    return mesh_at(&single, 0);
}

i64 mesh_degree(const struct mesh *m, enum lane lane)
{
    return lane == LANE_DP ? m->layout.dp : lane == LANE_TP ? m->layout.tp : 1;
}

i64 mesh_coordinate(const struct mesh *m, enum lane lane)
{
    return lane == LANE_DP ? m->dp_rank : lane == LANE_TP ? m->tp_rank : 0;
}

struct model_part mesh_part(const struct mesh *m)
{
    struct model_part part = model_whole();
    part.tensor_parts = m->layout.tp;
    part.tensor_part = m->tp_rank;
    if (m->layout.zero >= ZERO_OPTIMIZER) {
        part.state_parts = m->layout.dp;
        part.state_part = m->dp_rank;
    }
    return part;
}

/* The ranks that differ from this one in the lane's coordinate only. */
static int make_group(struct mesh *m, enum lane lane, const char *axis, struct comm_group **out)
{
    i64 n = mesh_degree(m, lane), stride = lane == LANE_DP ? m->layout.tp : 1;
    i64 first = m->rank - mesh_coordinate(m, lane) * stride;
    if (n == 1)
        return OK;
    int *members = ARENA_ARRAY(&m->comm->arena, int, n);
    for (i64 i = 0; i < n; i++)
        members[i] = (int)(first + i * stride);
    return comm_group_new(out, m->comm, axis, members, (int)n);
}

static int make_world(struct mesh *m, struct comm *comm)
{
    m->comm = comm;
    if (!comm || comm->size == 1)
        return OK;
    int *all = ARENA_ARRAY(&comm->arena, int, comm->size);
    for (int i = 0; i < comm->size; i++)
        all[i] = i;
    return comm_group_new(&m->world, comm, "world", all, comm->size);
}

int mesh_meet(struct mesh *out, struct comm *comm)
{
    *out = mesh_single();
    out->rank = comm ? comm->rank : 0;
    return make_world(out, comm);
}

int mesh_new(struct mesh *out, const struct layout *l, struct comm *comm)
{
    *out = mesh_at(l, comm->rank);
    TRY(make_world(out, comm));
    if (comm->size == 1)
        return OK;
    TRY(make_group(out, LANE_DP, "batch", &out->batch));
    TRY(make_group(out, LANE_DP, "dp", &out->groups[LANE_DP]));
    return make_group(out, LANE_TP, "tp", &out->groups[LANE_TP]);
}

bool mesh_leads(const struct mesh *m)
{
    return m->rank == 0;
}

static int agree(struct comm_group *group, double *values, i64 n, enum comm_reduce how)
{
    struct comm_call call = { .op = COMM_ALLREDUCE, .group = group, .in = values,
                              .out = values, .count = n, .dtype = DTYPE_F64, .reduce = how,
                              .exact = true, .tag = TAG_AGREE };
    return group ? comm_run(&call) : OK;
}

int mesh_sum(const struct mesh *m, double *values, i64 n)
{
    return agree(m->batch, values, n, COMM_SUM);
}

int mesh_max(const struct mesh *m, double *values, i64 n)
{
    return agree(m->world, values, n, COMM_MAX);
}

int mesh_gather(const struct mesh *m, const void *own, void *all, i64 bytes)
{
    if (!m->world) {
        memcpy(all, own, (size_t)bytes);
        return OK;
    }
    struct arena a;
    arena_init(&a);
    i64 *counts = ARENA_ARRAY(&a, i64, m->comm->size);
    for (int r = 0; r < m->comm->size; r++)
        counts[r] = bytes;
    struct comm_call call = { .op = COMM_ALL_GATHER, .group = m->world, .in = own, .out = all,
                              .count = bytes * m->comm->size, .counts = counts,
                              .dtype = DTYPE_U8, .tag = TAG_GATHER };
    int rc = comm_run(&call);
    arena_fini(&a);
    return rc;
}

int mesh_join(const struct mesh *m, void *data, i64 count, enum dtype dtype)
{
    if (!m->batch)
        return OK;
    struct arena a;
    arena_init(&a);
    i64 *counts = ARENA_ARRAY(&a, i64, m->batch->n);
    for (int i = 0; i < m->batch->n; i++)
        counts[i] = count;
    struct comm_call call = { .op = COMM_ALL_GATHER, .group = m->batch, .out = data,
                              .in = (u8 *)data + m->batch->index * count * dtype_bytes(dtype),
                              .count = count * m->batch->n, .counts = counts, .dtype = dtype,
                              .tag = TAG_GATHER };
    int rc = comm_run(&call);
    arena_fini(&a);
    return rc;
}

int mesh_tell_from(const struct mesh *m, int from, void *data, i64 bytes)
{
    struct comm_call call = { .op = COMM_BROADCAST, .group = m->world, .in = data, .out = data,
                              .count = bytes, .peer = from, .dtype = DTYPE_U8, .tag = TAG_TELL };
    return m->world ? comm_run(&call) : OK;
}

int mesh_tell(const struct mesh *m, void *data, i64 bytes)
{
    return mesh_tell_from(m, 0, data, bytes);
}
