#include "train/step.h"

static struct tensor *host_tensor(struct arena *a, const char *name, enum dtype dtype, i64 n,
                                  i64 columns)
{
    struct tensor *t = ARENA_NEW(a, struct tensor);
    t->name = name;
    t->dtype = dtype;
    t->role = ROLE_RESULT;
    t->rank = columns ? 2 : 1;
    t->dim[0] = n;
    t->dim[1] = columns;
    t->index = -1;
    t->data = arena_alloc(a, tensor_bytes(t));
    return t;
}

void step_io_new(struct step_io *io, i64 sources, struct arena *a)
{
    io->hyper = host_tensor(a, "hyper", DTYPE_F32, HYPERS, 0);
    io->sums = host_tensor(a, "loss_sums", DTYPE_F64, sources, 2);
    io->norm = host_tensor(a, "grad_norm", DTYPE_F64, 1, 0);
    io->scale = host_tensor(a, "grad_scale", DTYPE_F32, 1, 0);
    io->apply = host_tensor(a, "apply_update", DTYPE_I32, 1, 0);
}

unsigned step_needs(const struct train_config *c)
{
    unsigned needs = MODEL_GRADS | MODEL_ADAM;
    if (c->optim.name == OPTIMIZER_MUON)
        needs |= MODEL_MUON;
    if (c->train.ema > 0)
        needs |= MODEL_EMA;
    return needs;
}

static void update_param(struct graph *g, const struct model *m, const struct param *p,
                         const struct train_config *c, const struct step_io *io)
{
    struct tensor *copy = p->compute == p->master ? NULL : p->compute;
    double decay = param_decays(&p->desc) ? c->optim.weight_decay : 0;
    g->layer = p->desc.layer;
    if (model_uses_muon(m, &p->desc)) {
        struct muon_config config = { .momentum = c->optim.muon_momentum, .decay = decay,
                                      .steps = (int)c->optim.muon_ns_steps,
                                      .nesterov = true };
        for (int i = 0; i < 3; i++)
            config.block_rows[i] = p->desc.blocks[i];
        muon(g, p->grad, io->scale, io->hyper, p->master, p->m, copy, io->apply, &config);
    } else {
        struct adamw_config config = { c->optim.beta1, c->optim.beta2, c->optim.eps, decay };
        adamw(g, p->grad, io->scale, io->hyper, p->master, p->m, p->v, copy, io->apply,
              &config);
    }
    if (p->ema)
        ema(g, p->master, p->ema, io->apply, c->train.ema);
    g->layer = -1;
}

static void build_update(struct graph *g, const struct model *m, const struct train_config *c,
                         const struct step_io *io)
{
    struct tensor **parts = ARENA_ARRAY(g->arena, struct tensor *, m->n_params);
    g->phase = PHASE_UPDATE;
    for (i64 i = 0; i < m->n_params; i++)
        parts[i] = sum_squares(g, m->params[i].grad);
    clip(g, total_squares(g, parts, m->n_params), c->train.clip, io->norm, io->scale,
         io->apply);
    for (i64 i = 0; i < m->n_params; i++)
        update_param(g, m, &m->params[i], c, io);
}

static void build_forward(struct graph *g, const struct model *m,
                          const struct step_shape *shape, const struct decoder_shape *d,
                          struct tensor *sums)
{
    struct batch batch;
    load_batch(g, shape->B, shape->T, &batch);
    struct tensor *h = decoder_hidden(g, m, &batch, shape->B, shape->T);
    decoder_loss(g, m, h, &batch, d, sums);
}

int step_program_new(struct step_program *out, const struct model *m,
                     const struct train_config *c, const struct step_shape *shape,
                     const struct step_io *io, struct arena *a)
{
    struct graph *g = &out->graph;
    struct decoder_shape d = { shape->B, shape->T, c->train.z_loss, true };
    out->shape = *shape;
    graph_init(g, a);
    build_forward(g, m, shape, &d, io->sums);
    TRY(graph_backward(g, 0, g->n_tasks));
    TRY(pass_chunk_head(g));
    TRY(pass_recompute(g, (enum recompute)c->train.recompute));
    build_update(g, m, c, io);
    return program_new(&out->program, g, "train", shape->micro_batches);
}

int eval_program_new(struct step_program *out, const struct model *m,
                     const struct step_shape *shape, struct tensor *sums, struct arena *a)
{
    struct graph *g = &out->graph;
    struct decoder_shape d = { shape->B, shape->T, 0, false };
    out->shape = *shape;
    graph_init(g, a);
    build_forward(g, m, shape, &d, sums);
    return program_new(&out->program, g, "eval", shape->micro_batches);
}
