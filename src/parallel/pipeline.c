#include "parallel/pipeline.h"

#include "ops/ops.h"

/* --- turns -------------------------------------------------------------------------- */

static int part_of(const struct mesh *mesh, int stage)
{
    int part = 0;
    for (int t = 0; t < stage; t++)
        part += mesh->stages.rank_of[t] == mesh->stages.rank_of[stage];
    return part;
}

int pipeline_stage(const struct mesh *mesh, int part)
{
    int t = 0;
    while (mesh->stages.rank_of[t] != (int)mesh->pp_rank || part-- > 0)
        t++;
    return t;
}

static enum segment_kind kind_of(enum schedule_op op)
{
    static const enum segment_kind kinds[SCHEDULE_OPS] = {
        [SCHEDULE_F] = SEGMENT_FORWARD, [SCHEDULE_I] = SEGMENT_BACKWARD,
        [SCHEDULE_W] = SEGMENT_WEIGHT, [SCHEDULE_B] = SEGMENT_BACKWARD,
        [SCHEDULE_SEND_F] = SEGMENT_SEND_F, [SCHEDULE_RECV_F] = SEGMENT_RECV_F,
        [SCHEDULE_SEND_B] = SEGMENT_SEND_B, [SCHEDULE_RECV_B] = SEGMENT_RECV_B,
    };
    return kinds[op];
}

static i64 list_turns(const struct mesh *mesh, const struct schedule *s, struct turn *out)
{
    const struct schedule_list *l = &s->lists[mesh->pp_rank];
    bool splits = schedule_splits(s);
    i64 n = 0;
    for (i64 i = 0; i < l->n; i++) {
        const struct schedule_action *a = &l->actions[i];
        int part = part_of(mesh, a->stage);
        out[n++] = (struct turn){ kind_of(a->op), part, a->micro_batch };
        if (a->op == SCHEDULE_B && splits) /* others of the schedule put W off */
            out[n++] = (struct turn){ SEGMENT_WEIGHT, part, a->micro_batch };
    }
    return n;
}

int pipeline_turns(const struct mesh *mesh, int micro_batches, bool forward_only,
                   struct turn **out, i64 *n, struct arena *a)
{
    struct schedule s;
    if (forward_only)
        stages_forward(&s, &mesh->layout, &mesh->stages, micro_batches, a);
    else
        TRY(stages_schedule(&s, &mesh->layout, micro_batches, a));
    *out = ARENA_ARRAY(a, struct turn, 2 * s.lists[mesh->pp_rank].n + 1);
    *n = list_turns(mesh, &s, *out);
    if (!forward_only)
        (*out)[(*n)++] = (struct turn){ SEGMENT_UPDATE, 0, micro_batches - 1 };
    return OK;
}

/* --- between stages ----------------------------------------------------------------- */

static bool is_cut(const struct mesh *mesh, int boundary)
{
    return mesh->stages.rank_of[boundary] != mesh->stages.rank_of[boundary + 1];
}

struct tensor *pipeline_input(struct graph *g, const struct mesh *mesh, int stage,
                              struct tensor *before, enum dtype dtype, i64 rows, i64 columns)
{
    if (stage == 0)
        return NULL;
    if (!is_cut(mesh, stage - 1))
        return before;
    return recv_rows(g, dtype, rows, columns, stage - 1);
}

void pipeline_output(struct graph *g, const struct mesh *mesh, int stage, struct tensor *x)
{
    if (stage < mesh->stages.n - 1 && is_cut(mesh, stage))
        send_rows(g, x, stage);
}

/* --- what stages share -------------------------------------------------------------- */

static struct tensor *all_reduce(struct graph *g, enum lane lane, i64 ranks, i64 rank,
                                 struct tensor *in, struct tensor *out)
{
    struct task proto = { .op = &op_all_reduce, .lane = lane, .phase = PHASE_UPDATE,
                          .in = { in }, .out = { out },
                          .attr = { [COLLECTIVE_SIZE] = (double)ranks,
                                    [COLLECTIVE_RANK] = (double)rank,
                                    [COLLECTIVE_OUTER] = 1 } };
    struct task *t = graph_add(g, &proto);
    return t ? t->out[0] : NULL;
}

void pipeline_tie(struct graph *g, const struct model *m)
{
    if (!model_shares_table(m))
        return;
    bool last = !model_has_layer(&m->spec, &m->part, 0);
    struct tensor *grad = model_param(m, P_WTE, -1)->grad;
    all_reduce(g, LANE_TIE, 2, last, grad, grad);
}

bool pipeline_counts(const struct model *m, const struct param *p)
{
    return p->desc.id != P_WTE || model_has_layer(&m->spec, &m->part, 0);
}

struct tensor *pipeline_total(struct graph *g, struct tensor *total, const struct mesh *mesh)
{
    if (mesh->layout.pp == 1)
        return total;
    return all_reduce(g, LANE_PP, mesh->layout.pp, mesh->pp_rank, total, NULL);
}
