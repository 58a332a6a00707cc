#include "train/rank_view.h"

#include "parallel/pipeline.h"
#include "train/schedule.h"

static void count_messages(const struct program *p, double bytes[LANE_COUNT])
{
    for (i64 a = 0; a < p->n_actions; a++) {
        const struct segment *s = &p->segments[p->actions[a].segment];
        for (i64 i = 0; i < s->n_tasks; i++)
            if (task_has_turn(&s->tasks[i], p->actions[a].micro_batch, p->micro_batches))
                bytes[s->tasks[i].lane] += s->tasks[i].cost.message_bytes;
    }
}

static void count_flops(struct rank_view *v)
{
    const struct program *p = v->step.program;
    for (i64 id = 0; id < p->n_tasks; id++) {
        const struct task *t = p->by_id[id];
        struct stage_time *time = &v->flops[t->part];
        if (t->first_turn || t->last_turn || t->phase == PHASE_UPDATE)
            continue;
        if (t->phase == PHASE_FORWARD)
            time->F += t->cost.flops;
        else if (t->phase == PHASE_INPUT_GRAD || t->head) /* as program_new sorts them */
            time->I += t->cost.flops;
        else
            time->W += t->cost.flops;
    }
}

static void count_memory(struct rank_view *v)
{
    for (i64 i = 0; i < v->model->n_params; i++)
        v->parameters += param_weights_here(&v->model->params[i]).count;
    v->model_bytes = v->model->region_bytes;
    v->activation_bytes = v->step.program->memory.bytes + program_kept_bytes(v->step.program);
}

static int view_outer(struct rank_view *v, const struct train_config *c, const struct step_io *io,
                      struct arena *a)
{
    TRY(outer_program_new(&v->outer, v->model, c, io, &v->mesh, a));
    count_messages(v->outer.program, v->outer_bytes);
    v->activation_bytes = i64_max(v->activation_bytes, v->outer.program->memory.bytes);
    return OK;
}

int rank_view_new(struct rank_view *out, const struct layout *l, const struct model_spec *s,
                  const struct train_config *c, i64 rank, struct arena *a)
{
    struct step_io io;
    enum dtype compute = c->train.precision == PRECISION_BF16 ? DTYPE_BF16 : DTYPE_F32;
    *out = (struct rank_view){ .mesh = mesh_at(l, rank) };
    TRY(stages_place(&out->mesh.stages, l, a));
    struct model_part part = mesh_part(&out->mesh, s);
    struct layout_rows rows = layout_rows(l, c->train.batch,
                                          (int)schedule_full_micro_batches(c),
                                          out->mesh.row_rank);
    struct step_shape shape = { rows.B, c->train.seq, rows.micro_batches, 1 };
    unsigned needs = step_needs(c) | (shape.micro_batches == 1 ? MODEL_GRADS_LENT : 0);
    model_outline(&out->model, s, compute, needs, c->train.seq, &part, a);
    step_io_new(&io, s, 1, a);
    TRY(step_program_new(&out->step, out->model, c, &shape, &io, &out->mesh, a));
    count_messages(out->step.program, out->message_bytes);
    count_flops(out);
    count_memory(out);
    return c->outer.every > 0 ? view_outer(out, c, &io, a) : OK;
}

bool rank_view_has_op(const struct rank_view *v,
                      bool (*is_meant)(const void *context, const char *op), const void *context)
{
    const struct program *programs[] = { v->step.program, v->outer.program };
    for (i64 k = 0; k < COUNT_OF(programs); k++)
        for (i64 id = 0; programs[k] && id < programs[k]->n_tasks; id++) {
            const struct task *t = programs[k]->by_id[id];
            if (t->lane == LANE_COMPUTE && is_meant(context, t->op->name))
                return true;
        }
    return false;
}

int rank_view_schedule(const struct rank_view *const *views, int micro_batches,
                       struct schedule *order, struct schedule_time *time, struct arena *a)
{
    const struct mesh *mesh = &views[0]->mesh;
    int *part = ARENA_ARRAY(a, int, mesh->layout.pp);
    struct stage_time *times = ARENA_ARRAY(a, struct stage_time, mesh->stages.n);
    TRY(stages_schedule(order, &mesh->layout, micro_batches, a));
    for (int t = 0; t < mesh->stages.n; t++) {
        int at = mesh->stages.rank_of[t];
        times[t] = views[at]->flops[part[at]++];
    }
    schedule_time(order, times, 0, time, a);
    return OK;
}
