/* parallel/mesh.h - which rank is where, and with whom it talks.
 *
 * rank = (((island x pp + pp_rank) x dp + dp_rank) x cp + cp_rank) x tp + tp_rank, where
 * layout.order does not say otherwise: tp is innermost, because it talks most and neighbours in
 * rank order are usually neighbours in the machine; stages of a pipeline talk less, and islands
 * least. Members of a group are in the order of their coordinates, whatever their ranks, so that
 * sums are the same in every order. Groups are made once.
 *
 * Ranks along dp and cp together *share the batch*: each has other tokens of it, so gradients and
 * losses are summed over all of them, and they split what zero splits. The lane LANE_DP and the
 * axis "dp" mean these; with layout.exact_context only those along dp, since gradients are summed
 * along cp before, row by row. With layout.zero_group they split what zero splits in groups of
 * neighbours (LANE_SHARD), which are copies of each other (LANE_COPIES).
 *
 * Where tp exceeds the key-value heads, so many neighbours along tp share one (`heads`); what they
 * exchange is of the lane LANE_TP and the axis "tp".
 *
 * The same ranks seen by experts: sharer = edp_rank x ep + ep_rank. Those along ep have
 * other experts and send each other rows (LANE_EP); those along edp have the same
 * experts, whose gradients they sum and whose state they split (LANE_EDP). With
 * layout.zero_group the same of each group, which has all experts: then LANE_COPIES goes
 * across groups for experts too. With layout.exact_context ranks along cp are no sharers:
 * a group of ep has those of a row first, then other rows. Where it is a part of a row,
 * the others of it with the same experts (`row_twins`, of the axis "cp") sum what their
 * tokens gave; edp is of other rows alone. */
#ifndef HEADWAY_MESH_H
#define HEADWAY_MESH_H

#include "comm/comm.h"
#include "graph/graph.h"
#include "model/model.h"
#include "parallel/layout.h"
#include "parallel/stages.h"

struct mesh {
    struct layout layout;
    struct stages stages;
    i64 rank, island, pp_rank, dp_rank, cp_rank, tp_rank;
    i64 row_rank; /* whose share of a step's rows: island x dp + dp_rank */
    struct comm *comm;
    struct comm_group *groups[LANE_COUNT]; /* by lane; NULL where the axis has one rank */
    /* For agreement between steps; NULL for a single rank. Groups of their own, since a lane's
     * may be in use by its thread: all ranks, and those that share the batch. */
    struct comm_group *world, *batch;
    struct comm_group *splitters; /* who share the optimizer's state: batch, or fewer of it */
    struct comm_group *twins;  /* who shares the batch and has the same experts */
    /* Who has the same experts along cp (layout_expert_twins); NULL: nobody. */
    struct comm_group *row_twins;
    struct comm_group *column; /* who shares the batch, on all stages of all islands */
    struct comm_group *heads; /* who along tp shares a key-value head; NULL: nobody does */
    struct comm_group **boundaries; /* [stages - 1]: member 0 has the earlier stage; NULL where
                                     * this rank has neither or both */
};

/* Coordinates alone, for those who plan: no comm, no groups, no stages. */
struct mesh mesh_at(const struct layout *l, i64 rank);

/* The rank that has these coordinates in another layout's order; its degrees are the same. */
i64 mesh_rank_in(const struct mesh *m, const struct layout *l);

/* The mesh of one rank. */
struct mesh mesh_single(void);

/* The mesh of ranks that know no layout yet: enough to agree on one. comm NULL: one rank. */
int mesh_meet(struct mesh *out, struct comm *comm);

/* Called by all ranks together. The layout fits comm->size and the model (layout_check). */
int mesh_new(struct mesh *out, const struct layout *l, const struct model_spec *s,
             struct comm *comm);

/* What of the model this rank holds. */
struct model_part mesh_part(const struct mesh *m, const struct model_spec *s);

/* Degree and own coordinate along the axis of a lane; of LANE_DP, among those who share the
 * batch. LANE_EP and LANE_EDP divide these. */
i64 mesh_degree(const struct mesh *m, enum lane lane);
i64 mesh_coordinate(const struct mesh *m, enum lane lane);
/* How far ranks are apart that are neighbours along the axis. */
i64 mesh_stride(const struct mesh *m, enum lane lane);
/* Ranks that differ in nothing but their stage are a column; columns are numbered from 0. */
i64 mesh_column(const struct mesh *m);

/* The lane of those who split what zero splits: LANE_SHARD where they are not all of LANE_DP. */
enum lane mesh_split_lane(const struct mesh *m);
/* The same for what is in this bucket: of experts that are spread, LANE_EDP. */
enum lane mesh_sharers(const struct mesh *m, const struct bucket *b);
/* Where ranks take turns (layout_turn_takers): who sums a bucket's gradients in each
 * micro-batch, and who sums them over the step's end. LANE_COMPUTE: nobody has to,
 * experts' rows have come together. */
enum lane mesh_turn_lane(const struct mesh *m, const struct bucket *b);
enum lane mesh_copies_lane(const struct mesh *m);
/* With exact_context, who sums what the tokens of a row gave to a bucket's gradients
 * before any other row's are added: LANE_CP, of experts that are spread those of it with
 * the same (COLLECTIVE_FEW). LANE_COMPUTE: nobody has to. */
enum lane mesh_row_lane(const struct mesh *m, const struct bucket *b);
/* A group of ep has several whole rows, which take turns: it sums over their tokens and
 * over them in one go, which is the same tree, and LANE_EP is the lane of rows. */
bool mesh_joins_rows(const struct mesh *m);

/* True for the one rank that writes and tells. */
bool mesh_leads(const struct mesh *m);
/* values[i] = their sum over the ranks that share the batch, in a fixed order: the same bits
 * on every rank. */
int mesh_sum(const struct mesh *m, double *values, i64 n);
/* The same over the stages and the islands too: what only the last one has, others give as 0. */
int mesh_sum_stages(const struct mesh *m, double *values, i64 n);
/* Over all ranks. */
int mesh_sum_all(const struct mesh *m, double *values, i64 n);
/* values[i] = their maximum over all ranks. Also a meeting: nobody leaves before all came. */
int mesh_max(const struct mesh *m, double *values, i64 n);
/* all: bytes from each rank of the world, in order of ranks; own is this one's. */
int mesh_gather(const struct mesh *m, const void *own, void *all, i64 bytes);
/* Rank `from` gives so many bytes to the leading rank; only these two call it. */
int mesh_give(const struct mesh *m, int from, void *data, i64 bytes);
/* Every rank that shares the optimizer's state, or that of experts (axis LANE_EDP), has
 * one of equal parts of data in its place, in order; all get all. count: elements of a
 * part. */
int mesh_join(const struct mesh *m, enum lane axis, void *data, i64 count, enum dtype dtype);
/* All ranks get what the leading one has; what rank `from` has. */
int mesh_tell(const struct mesh *m, void *data, i64 bytes);
int mesh_tell_from(const struct mesh *m, int from, void *data, i64 bytes);

#endif
