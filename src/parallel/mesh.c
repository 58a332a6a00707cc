#include "parallel/mesh.h"

#include "base/err.h"

#include <string.h>

enum { TAG_AGREE = 1, TAG_TELL, TAG_GATHER, TAG_GIVE = 8 };

struct mesh mesh_at(const struct layout *l, i64 rank)
{
    const i64 row = rank / layout_stride(l, AXIS_ROWS) % (l->dp * l->cp);
    struct mesh m = { .layout = *l, .rank = rank,
                      .island = rank / (l->pp * l->dp * l->cp * l->tp),
                      .pp_rank = rank / layout_stride(l, AXIS_PP) % l->pp,
                      .dp_rank = row / l->cp, .cp_rank = row % l->cp,
                      .tp_rank = rank / layout_stride(l, AXIS_TP) % l->tp };
    m.row_rank = m.island * l->dp + m.dp_rank;
    return m;
}

i64 mesh_rank_in(const struct mesh *m, const struct layout *l)
{
    return m->island * l->pp * l->dp * l->cp * l->tp + m->pp_rank * layout_stride(l, AXIS_PP) +
           (m->dp_rank * l->cp + m->cp_rank) * layout_stride(l, AXIS_ROWS) +
           m->tp_rank * layout_stride(l, AXIS_TP);
}

struct mesh mesh_single(void)
{
    struct layout single = layout_single();
    return mesh_at(&single, 0);
}

enum lane mesh_split_lane(const struct mesh *m)
{
    return mesh_degree(m, LANE_COPIES) > 1 ? LANE_SHARD : LANE_DP;
}

i64 mesh_degree(const struct mesh *m, enum lane lane)
{
    switch (lane) {
    case LANE_ISLAND: return m->layout.islands;
    case LANE_PP: return m->layout.pp;
    case LANE_DP: return layout_sharers(&m->layout);
    case LANE_SHARD: return layout_split_ranks(&m->layout);
    case LANE_COPIES: return layout_sharers(&m->layout) / layout_split_ranks(&m->layout);
    case LANE_CP: return m->layout.cp;
    case LANE_EP: return m->layout.ep;
    case LANE_EDP: return layout_split_ranks(&m->layout) / layout_expert_rows(&m->layout);
    case LANE_TP: return m->layout.tp;
    default: return 1;
    }
}

i64 mesh_coordinate(const struct mesh *m, enum lane lane)
{
    switch (lane) {
    case LANE_ISLAND: return m->island;
    case LANE_PP: return m->pp_rank;
    case LANE_DP:
        return m->layout.exact_context ? m->dp_rank : m->dp_rank * m->layout.cp + m->cp_rank;
    case LANE_SHARD: return mesh_coordinate(m, LANE_DP) % layout_split_ranks(&m->layout);
    case LANE_COPIES: return mesh_coordinate(m, LANE_DP) / layout_split_ranks(&m->layout);
    case LANE_CP: return m->cp_rank;
    case LANE_EP: return (m->dp_rank * m->layout.cp + m->cp_rank) % m->layout.ep;
    case LANE_EDP: return mesh_coordinate(m, LANE_SHARD) / layout_expert_rows(&m->layout);
    case LANE_TP: return m->tp_rank;
    default: return 0;
    }
}

enum lane mesh_sharers(const struct mesh *m, const struct bucket *b)
{
    return b->experts && m->layout.ep > 1 ? LANE_EDP : mesh_split_lane(m);
}

static bool splits_gradients(const struct mesh *m)
{
    return m->layout.zero > ZERO_OPTIMIZER;
}

enum lane mesh_turn_lane(const struct mesh *m, const struct bucket *b)
{
    if (splits_gradients(m))
        return mesh_sharers(m, b);
    return b->experts || mesh_joins_rows(m) ? LANE_COMPUTE : LANE_EP;
}

bool mesh_joins_rows(const struct mesh *m)
{
    const struct layout *l = &m->layout;
    return l->exact_context && l->cp > 1 && l->ep > l->cp && !splits_gradients(m);
}

enum lane mesh_row_lane(const struct mesh *m, const struct bucket *b)
{
    const struct layout *l = &m->layout;
    if (l->cp == 1 || !l->exact_context)
        return LANE_COMPUTE;
    if (b->experts && l->ep > 1)
        return layout_expert_twins(l) > 1 ? LANE_CP : LANE_COMPUTE;
    return mesh_joins_rows(m) ? LANE_EP : LANE_CP;
}

enum lane mesh_copies_lane(const struct mesh *m)
{
    return splits_gradients(m) ? LANE_COPIES : LANE_EDP;
}

/* The layers of this rank's stages. They were checked with the layout. */
static void add_chunks(const struct mesh *m, const struct model_spec *s, struct model_part *part)
{
    struct arena a;
    arena_init(&a);
    struct layer_range *layers = ARENA_ARRAY(&a, struct layer_range, m->stages.n);
    int rc = stages_layers(&m->layout, &m->stages, s, layers);
    assert(rc == OK);
    for (int t = 0; rc == OK && t < m->stages.n; t++)
        if (m->stages.rank_of[t] == (int)m->pp_rank)
            part->chunks[part->n_chunks++] = layers[t];
    arena_fini(&a);
}

struct model_part mesh_part(const struct mesh *m, const struct model_spec *s)
{
    struct model_part part = model_whole();
    if (m->layout.pp > 1)
        add_chunks(m, s, &part);
    part.islands = m->layout.islands;
    part.island = m->island;
    part.tensor_parts = m->layout.tp;
    part.tensor_part = m->tp_rank;
    part.expert_parts = m->layout.ep;
    part.expert_part = mesh_coordinate(m, LANE_EP);
    part.expert_neighbours = layout_expert_rows(&m->layout);
    if (m->layout.zero >= ZERO_OPTIMIZER) {
        bool several = layout_split_ranks(&m->layout) > 1;
        part.state_parts = layout_split_ranks(&m->layout);
        part.state_part = mesh_coordinate(m, LANE_SHARD);
        part.split_grads = several && m->layout.zero >= ZERO_GRADIENTS;
        part.split_weights = several && m->layout.zero >= ZERO_WEIGHTS;
    }
    return part;
}

i64 mesh_stride(const struct mesh *m, enum lane lane)
{
    const struct layout *l = &m->layout;
    const i64 rows = layout_stride(l, AXIS_ROWS);
    const i64 apart = l->exact_context ? l->cp * rows : rows; /* of those along LANE_DP */
    switch (lane) {
    case LANE_ISLAND: return l->pp * l->dp * l->cp * l->tp;
    case LANE_PP: return layout_stride(l, AXIS_PP);
    case LANE_DP:
    case LANE_SHARD: return apart;
    case LANE_COPIES: return layout_split_ranks(l) * apart;
    case LANE_EDP: return layout_expert_rows(l) * apart;
    case LANE_TP: return layout_stride(l, AXIS_TP);
    default: return rows;
    }
}

i64 mesh_column(const struct mesh *m)
{
    const struct layout *l = &m->layout;
    return ((m->island * l->dp + m->dp_rank) * l->cp + m->cp_rank) * l->tp + m->tp_rank;
}

/* The ranks that differ from this one in the lane's coordinate only. */
static int make_group(struct mesh *m, enum lane lane, const char *axis, struct comm_group **out)
{
    i64 n = mesh_degree(m, lane), stride = mesh_stride(m, lane);
    i64 first = m->rank - mesh_coordinate(m, lane) * stride;
    if (n == 1)
        return OK;
    int *members = ARENA_ARRAY(&m->comm->arena, int, n);
    for (i64 i = 0; i < n; i++)
        members[i] = (int)(first + i * stride);
    return comm_group_new(out, m->comm, axis, members, (int)n);
}

/* This rank's counterpart on another stage's rank. */
static int rank_at(const struct mesh *m, int pp_rank)
{
    return (int)(m->rank + (pp_rank - m->pp_rank) * mesh_stride(m, LANE_PP));
}

static int make_pair(struct mesh *m, const char *axis, int earlier, int later,
                     struct comm_group **out)
{
    if (earlier == later || (earlier != (int)m->pp_rank && later != (int)m->pp_rank))
        return OK;
    const int members[] = { rank_at(m, earlier), rank_at(m, later) };
    return comm_group_new(out, m->comm, axis, members, 2);
}

/* One pair for each boundary, so that what crosses it one way is never mixed with anything
 * else; and one for a table that the first and the last stage share. */
static int make_boundaries(struct mesh *m)
{
    const struct stages *s = &m->stages;
    m->boundaries = ARENA_ARRAY(&m->comm->arena, struct comm_group *, s->n);
    for (int b = 0; b < s->n - 1; b++)
        TRY(make_pair(m, "pp", s->rank_of[b], s->rank_of[b + 1], &m->boundaries[b]));
    return make_pair(m, "tie", s->rank_of[0], s->rank_of[s->n - 1], &m->groups[LANE_TIE]);
}

/* Neighbours along cp and dp. */
static int make_batch(struct mesh *m)
{
    const i64 n = m->layout.dp * m->layout.cp, apart = mesh_stride(m, LANE_CP);
    const i64 own = m->dp_rank * m->layout.cp + m->cp_rank;
    if (n == 1)
        return OK;
    int *members = ARENA_ARRAY(&m->comm->arena, int, n);
    for (i64 i = 0; i < n; i++)
        members[i] = (int)(m->rank + (i - own) * apart);
    return comm_group_new(&m->batch, m->comm, "batch", members, (int)n);
}

static int make_column(struct mesh *m)
{
    const struct layout *l = &m->layout;
    const i64 sharers = l->dp * l->cp, all = l->islands * l->pp * sharers;
    const i64 first = m->tp_rank * mesh_stride(m, LANE_TP);
    i64 n = 0;
    m->column = m->batch;
    if (all == sharers)
        return OK;
    int *members = ARENA_ARRAY(&m->comm->arena, int, all);
    for (i64 i = 0; i < l->islands; i++)
        for (i64 p = 0; p < l->pp; p++)
            for (i64 r = 0; r < sharers; r++)
                members[n++] = (int)(first + i * mesh_stride(m, LANE_ISLAND) +
                                     p * mesh_stride(m, LANE_PP) + r * mesh_stride(m, LANE_CP));
    return comm_group_new(&m->column, m->comm, "column", members, (int)n);
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

/* A group of ep is a part of those along cp. */
static int make_row_twins(struct mesh *m)
{
    const i64 n = layout_expert_twins(&m->layout), apart = m->layout.ep * mesh_stride(m, LANE_CP);
    if (n == 1)
        return OK;
    int *members = ARENA_ARRAY(&m->comm->arena, int, n);
    for (i64 i = 0; i < n; i++)
        members[i] = (int)(m->rank + (i - m->cp_rank / m->layout.ep) * apart);
    return comm_group_new(&m->row_twins, m->comm, "cp", members, (int)n);
}

static int make_expert_groups(struct mesh *m)
{
    if (m->layout.ep == 1)
        return OK;
    TRY(make_group(m, LANE_EP, "ep", &m->groups[LANE_EP]));
    TRY(make_group(m, LANE_EDP, "edp", &m->groups[LANE_EDP]));
    TRY(make_group(m, LANE_EDP, "twins", &m->twins));
    return make_row_twins(m);
}

/* A head's are neighbours: each of them projects an equal part of it. */
static int make_heads(struct mesh *m, const struct model_spec *s)
{
    const i64 n = m->layout.tp / s->kv_heads, apart = mesh_stride(m, LANE_TP);
    const i64 first = m->rank - m->tp_rank % i64_max(1, n) * apart;
    if (n <= 1)
        return OK;
    if (n == m->layout.tp) {
        m->heads = m->groups[LANE_TP];
        return OK;
    }
    int *members = ARENA_ARRAY(&m->comm->arena, int, n);
    for (i64 i = 0; i < n; i++)
        members[i] = (int)(first + i * apart);
    return comm_group_new(&m->heads, m->comm, "tp", members, (int)n);
}

int mesh_new(struct mesh *out, const struct layout *l, const struct model_spec *s,
             struct comm *comm)
{
    *out = mesh_at(l, comm->rank);
    TRY(stages_place(&out->stages, l, &comm->arena));
    TRY(make_world(out, comm));
    if (comm->size == 1)
        return OK;
    TRY(make_batch(out));
    TRY(make_group(out, LANE_DP, "dp", &out->groups[LANE_DP]));
    out->splitters = out->batch;
    if (mesh_degree(out, LANE_SHARD) < out->layout.dp * out->layout.cp) {
        out->splitters = NULL; /* where it is one rank */
        TRY(make_group(out, LANE_SHARD, "splitters", &out->splitters));
    }
    if (mesh_split_lane(out) == LANE_SHARD) {
        TRY(make_group(out, LANE_SHARD, "shard", &out->groups[LANE_SHARD]));
        TRY(make_group(out, LANE_COPIES, "copies", &out->groups[LANE_COPIES]));
    }
    TRY(make_group(out, LANE_CP, "cp", &out->groups[LANE_CP]));
    TRY(make_group(out, LANE_TP, "tp", &out->groups[LANE_TP]));
    TRY(make_heads(out, s));
    TRY(make_expert_groups(out));
    TRY(make_column(out));
    TRY(make_group(out, LANE_ISLAND, "islands", &out->groups[LANE_ISLAND]));
    TRY(make_group(out, LANE_PP, "pp", &out->groups[LANE_PP]));
    return make_boundaries(out);
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

int mesh_sum_stages(const struct mesh *m, double *values, i64 n)
{
    return agree(m->column, values, n, COMM_SUM);
}

int mesh_sum_all(const struct mesh *m, double *values, i64 n)
{
    return agree(m->world, values, n, COMM_SUM);
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

int mesh_give(const struct mesh *m, int from, void *data, i64 bytes)
{
    bool gives = m->world->index == from;
    struct comm_call call = { .op = gives ? COMM_SEND : COMM_RECV, .group = m->world, .in = data,
                              .out = data, .count = bytes, .dtype = DTYPE_U8,
                              .peer = gives ? 0 : from, .tag = TAG_GIVE };
    return comm_run(&call);
}

int mesh_join(const struct mesh *m, enum lane axis, void *data, i64 count, enum dtype dtype)
{
    struct comm_group *group = axis == LANE_EDP ? m->twins : m->splitters;
    if (!group)
        return OK;
    struct arena a;
    arena_init(&a);
    i64 *counts = ARENA_ARRAY(&a, i64, group->n);
    for (int i = 0; i < group->n; i++)
        counts[i] = count;
    struct comm_call call = { .op = COMM_ALL_GATHER, .group = group, .out = data,
                              .in = (u8 *)data + group->index * count * dtype_bytes(dtype),
                              .count = count * group->n, .counts = counts, .dtype = dtype,
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
