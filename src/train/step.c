#include "train/step.h"

#include "parallel/context_parallel.h"
#include "parallel/data_parallel.h"
#include "parallel/exact.h"
#include "parallel/islands.h"
#include "parallel/offload.h"
#include "parallel/orthogonal.h"
#include "parallel/pipeline.h"
#include "parallel/spread.h"
#include "parallel/tensor_parallel.h"
#include "parallel/zero.h"

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

void step_io_new(struct step_io *io, const struct model_spec *spec, i64 sources,
                 struct arena *a)
{
    i64 sparse = spec_sparse_layers(spec);
    io->load = sparse ? host_tensor(a, "expert_load", DTYPE_F64, sparse, spec->experts + 3) : NULL;
    io->health.params = params_of(spec, a, &io->health.n_params);
    io->health.layers = spec->layers;
    io->health.due = host_tensor(a, HEALTH_DUE, DTYPE_I32, 1, 0);
    io->health.norms = host_tensor(a, "health_norms", DTYPE_F64,
                                   io->health.n_params * HEALTH_COLUMNS, 0);
    io->health.logits = host_tensor(a, "health_logits", DTYPE_F64, spec->layers, 0);
    io->hyper = host_tensor(a, "hyper", DTYPE_F32, HYPERS, 0);
    io->sums = host_tensor(a, "loss_sums", DTYPE_F64, sources, 2);
    io->norm = host_tensor(a, "grad_norm", DTYPE_F64, 1, 0);
    io->scale = host_tensor(a, "grad_scale", DTYPE_F32, 1, 0);
    io->apply = host_tensor(a, "apply_update", DTYPE_I32, 1, 0);
    io->apart = host_tensor(a, "islands_apart", DTYPE_F64, 1, 0);
    io->moved = host_tensor(a, "islands_moved", DTYPE_F64, 1, 0);
}

unsigned step_needs(const struct train_config *c)
{
    unsigned needs = MODEL_GRADS | MODEL_ADAM;
    if (c->optim.name == OPTIMIZER_MUON)
        needs |= MODEL_MUON;
    if (c->train.ema > 0)
        needs |= MODEL_EMA;
    if (c->outer.every > 0)
        needs |= MODEL_OUTER;
    return needs;
}

/* What one optimizer task needs: a parameter, or a flat piece of one. */
struct piece {
    struct tensor *grad, *p, *m, *v, *copy, *ema;
};

static struct tensor *piece_of(struct graph *g, struct tensor *flat, i64 first, i64 n)
{
    return flat ? graph_view(g, flat, first, n) : NULL;
}

/* Elements [first, first + n) of a bucket; their state is here. */
static struct piece cut_piece(struct graph *g, const struct bucket *b, i64 first, i64 n)
{
    i64 state = bucket_state_at(b, first), weight = bucket_weight_at(b, first);
    return (struct piece){
        .grad = piece_of(g, b->own_grad, bucket_grad_at(b, first), n),
        .p = piece_of(g, b->master, weight, n),
        .m = piece_of(g, b->m, state, n),
        .v = piece_of(g, first < b->adam ? b->v : NULL, state, n),
        .copy = piece_of(g, first < b->copied ? NULL : b->compute, weight - b->copied, n),
        .ema = piece_of(g, b->ema, state, n),
    };
}

static struct piece whole_piece(const struct param *p)
{
    return (struct piece){ p->grad, p->master, p->m, p->v,
                           p->compute == p->master ? NULL : p->compute, p->ema };
}

/* What the update is made from. */
struct update {
    struct graph *g;
    const struct model *m;
    const struct train_config *c;
    const struct step_io *io;
    const struct mesh *mesh;
    const struct health *health; /* NULL: nobody asks */
    struct muon_config muon;
    double *load; /* orthogonal.h */
};

/* p, where its health is measured here. */
static const struct param *watched(const struct update *x, const struct param *p)
{
    return x->health && health_measures(x->m, x->mesh, p) ? p : NULL;
}

static void update_piece(const struct update *u, const struct param *p, const struct piece *x)
{
    const struct train_config *c = u->c;
    double decay = param_decays(&p->desc) ? c->optim.weight_decay : 0;
    struct adamw_config config = { c->optim.beta1, c->optim.beta2, c->optim.eps, decay };
    if (p->desc.kind == PARAM_BALANCE) {
        balance_bias(u->g, x->grad, x->p, u->io->apply, u->m->spec.bias_rate);
        return;
    }
    struct tensor *before = health_keep(u->g, u->health, watched(u, p), x->p);
    health_watch_gradient(u->g, u->health, watched(u, p), x->grad);
    adamw(u->g, x->grad, u->io->scale, u->io->hyper, x->p, x->m, x->v, x->copy, u->io->apply,
          &config);
    health_watch_update(u->g, u->health, watched(u, p), x->p, before);
}

/* The part of a parameter whose state is here: all of it, or its share of the slice. */
static bool own_piece(struct graph *g, const struct param *p, struct piece *out)
{
    const struct shard_range here = param_state_here(p);
    if (here.count == param_here(p) && !p->bucket->split_grads)
        *out = whole_piece(p);
    else if (here.count > 0)
        *out = cut_piece(g, p->bucket, p->at + here.begin, here.count);
    return here.count > 0;
}

/* Which parameters have what in common across ranks, by their place in a bucket. */
enum sharing { SHARE_EXPERTS, SHARE_MATRICES, SHARE_WHOLE_MATRICES, SHARE_CUT_VECTORS,
               SHARE_SAME_VECTORS };

static enum sharing sharing_of(const struct model *m, const struct param *p)
{
    if (p->at >= p->bucket->copied && p->desc.split == SPLIT_NONE && m->part.tensor_parts > 1)
        return SHARE_WHOLE_MATRICES; /* alike along tp */
    if (p->at >= p->bucket->copied)
        return p->bucket->experts ? SHARE_EXPERTS : SHARE_MATRICES;
    return p->at >= p->bucket->cut ? SHARE_CUT_VECTORS : SHARE_SAME_VECTORS;
}

/* Whether the norm has its gradient, here and among these. */
static bool is_counted(const struct model *m, const struct param *p, enum sharing which)
{
    return p->desc.kind != PARAM_BALANCE && sharing_of(m, p) == which && pipeline_counts(m, p);
}

/* Behind `more` (NULL: nothing), the squares of what is here of these parameters. */
static struct tensor *add_squares(struct graph *g, const struct model *m, struct tensor *more,
                                  enum sharing which)
{
    struct tensor **parts = ARENA_ARRAY(g->arena, struct tensor *, m->n_params + 1);
    struct piece piece;
    i64 n = 0;
    if (more)
        parts[n++] = more;
    for (i64 i = 0; i < m->n_params; i++)
        if (is_counted(m, &m->params[i], which) && own_piece(g, &m->params[i], &piece))
            parts[n++] = sum_squares(g, piece.grad);
    return total_squares(g, parts, n);
}

/* The same as a whole number, which has no order. */
static struct tensor *count_squares(struct graph *g, const struct model *m,
                                    struct tensor *digits, enum sharing which)
{
    struct piece piece;
    for (i64 i = 0; i < m->n_params; i++)
        if (is_counted(m, &m->params[i], which) && own_piece(g, &m->params[i], &piece))
            digits = exact_squares(g, piece.grad, digits);
    return digits;
}

/* A rank that owns no matrix takes part with a sum over none. */
static struct tensor *no_squares(struct graph *g, const struct model *m, bool exact)
{
    i64 b = 0;
    while (!m->buckets[b].own_grad) /* of another stage */
        b++;
    struct tensor *none = graph_view(g, m->buckets[b].own_grad, 0, 0);
    return exact ? exact_squares(g, none, NULL) : sum_squares(g, none);
}

/* Behind `sum`, of matrices that all along tp have: of each slice once. */
static struct tensor *add_whole_matrices(struct graph *g, const struct model *m,
                                         const struct mesh *mesh, struct tensor *sum)
{
    bool any = false;
    for (i64 i = 0; i < m->n_params; i++)
        any = any || is_counted(m, &m->params[i], SHARE_WHOLE_MATRICES);
    if (!any)
        return sum;
    struct tensor *whole = add_squares(g, m, NULL, SHARE_WHOLE_MATRICES);
    if (!whole)
        whole = no_squares(g, m, false);
    return total_squares(g, (struct tensor *[]){ sum, data_parallel_total(g, whole, mesh) }, 2);
}

/* The squared norm of the whole gradient: each element once. Experts that are on other ranks come
 * first. Slices of a split state are
 * summed over their owners, then shares over the ranks that cut the model, and what all have
 * is added behind that; then stages are summed. */
static struct tensor *gradient_squares(struct graph *g, const struct model *m,
                                       const struct mesh *mesh)
{
    const bool exact = mesh->layout.exact;
    struct tensor *(*squares)(struct graph *, const struct model *, struct tensor *,
                              enum sharing) = exact ? count_squares : add_squares;
    struct tensor *sum = squares(g, m, NULL, SHARE_EXPERTS);
    sum = data_parallel_experts_total(g, sum, mesh);
    sum = squares(g, m, sum, SHARE_MATRICES);
    if (!sum)
        sum = no_squares(g, m, exact);
    sum = data_parallel_total(g, sum, mesh);
    sum = squares(g, m, sum, SHARE_CUT_VECTORS);
    sum = tensor_parallel_total(g, sum, mesh);
    sum = add_whole_matrices(g, m, mesh, sum);
    sum = pipeline_total(g, squares(g, m, sum, SHARE_SAME_VECTORS), mesh);
    return exact ? exact_total(g, sum) : sum;
}

static void update_average(const struct update *x, const struct piece *piece)
{
    if (piece->ema)
        ema(x->g, piece->p, piece->ema, x->io->apply, x->c->train.ema);
}

/* What of a unit's matrix is here, and the same of u or y. */
static bool matrix_piece(const struct update *x, const struct orthogonal_unit *unit,
                         const struct param *p, struct tensor *of, struct piece *out,
                         struct tensor **part)
{
    const struct shard_range here = param_state_here(p);
    if (!orthogonal_has(x->m, unit, p) || here.count == 0)
        return false;
    x->g->layer = p->desc.layer;
    *part = of;
    if (unit->matrix) {
        *out = whole_piece(p);
        return true;
    }
    *out = cut_piece(x->g, p->bucket, p->at + here.begin, here.count);
    *part = graph_view(x->g, of, p->at + here.begin - unit->first, here.count);
    return true;
}

/* AdamW's parameters, and the momentum of Muon's. Who has none of it takes part with nothing. */
static void begin_unit(const struct update *x, struct orthogonal_unit *unit)
{
    struct graph *g = x->g;
    struct piece piece;
    struct tensor *u;
    orthogonal_open(g, x->m, unit);
    if (unit->u && !unit->matrix) {
        piece = cut_piece(g, unit->bucket, unit->first, 0);
        muon_momentum(g, piece.grad, x->io->scale, piece.m, graph_view(g, unit->u, 0, 0),
                      x->io->apply, &x->muon);
    }
    for (i64 i = 0; i < x->m->n_params; i++) {
        const struct param *p = &x->m->params[i];
        if (matrix_piece(x, unit, p, unit->u, &piece, &u)) {
            muon_momentum(g, piece.grad, x->io->scale, piece.m, u, x->io->apply, &x->muon);
            health_watch_gradient(g, x->health, watched(x, p), piece.grad);
        } else if (unit->opens && p->bucket == unit->bucket &&
                   !model_uses_muon(x->m, &p->desc) && own_piece(g, p, &piece)) {
            g->layer = p->desc.layer;
            update_piece(x, p, &piece);
            update_average(x, &piece);
        }
    }
    g->layer = -1;
}

/* The steps of Muon's matrices; then the bucket is done. */
static void end_unit(const struct update *x, const struct orthogonal_unit *unit)
{
    struct graph *g = x->g;
    struct piece piece;
    struct tensor *y;
    for (i64 i = 0; i < x->m->n_params; i++) {
        const struct param *p = &x->m->params[i];
        if (!matrix_piece(x, unit, p, unit->y, &piece, &y))
            continue;
        struct tensor *before = health_keep(g, x->health, watched(x, p), piece.p);
        muon_step(g, y, x->io->hyper, piece.p, piece.copy, x->io->apply, &x->muon);
        health_watch_update(g, x->health, watched(x, p), piece.p, before);
        update_average(x, &piece);
    }
    g->layer = -1;
    if (unit->closes)
        data_parallel_gather(g, unit->bucket, x->mesh);
}

static void update_weights(struct update *x)
{
    struct orthogonal_unit *units;
    i64 n = orthogonal_units(x->g, x->m, &units), ahead = orthogonal_ahead(x->mesh);
    x->load = ARENA_ARRAY(x->g->arena, double, orthogonal_ranks(x->mesh));
    x->muon = (struct muon_config){ .momentum = x->c->optim.muon_momentum,
                                    .decay = x->c->optim.weight_decay, .nesterov = true,
                                    .steps = (int)x->c->optim.muon_ns_steps };
    for (i64 i = 0; i < n + 2 * ahead && x->g->rc >= 0; i++) {
        if (i < n)
            begin_unit(x, &units[i]);
        if (i >= ahead && i - ahead < n)
            orthogonal_run(x->g, x->m, x->mesh, &units[i - ahead], x->load, &x->muon);
        if (i >= 2 * ahead)
            end_unit(x, &units[i - 2 * ahead]);
    }
}

static void build_update(struct graph *g, const struct model *m, const struct train_config *c,
                         const struct step_io *io, const struct mesh *mesh)
{
    struct update x = { .g = g, .m = m, .c = c, .io = io, .mesh = mesh,
                        .health = c->log.health > 0 ? &io->health : NULL };
    g->phase = PHASE_UPDATE;
    data_parallel_reduce_shared(g, m, mesh);
    pipeline_tie(g, m);
    clip(g, gradient_squares(g, m, mesh), c->train.clip, io->norm, io->scale, io->apply);
    update_weights(&x);
}

/* One part for each stage that is here. The whole model is one stage. */
static void build_forward(struct graph *g, const struct model *m, const struct decoder_shape *d,
                          struct tensor *sums, const struct mesh *mesh)
{
    struct layer_range chunks[MODEL_CHUNKS];
    struct tensor *x = NULL;
    for (i64 n = model_chunks(m, chunks); g->part < n && g->rc >= 0; g->part++) {
        const struct layer_range *layers = &chunks[g->part];
        bool last = layers->first + layers->count == m->spec.layers;
        int stage = mesh->layout.pp > 1 ? pipeline_stage(mesh, g->part) : 0;
        struct batch batch;
        load_batch(g, d->B, d->T, &batch);
        x = pipeline_input(g, mesh, stage, x, m->compute, d->B * d->T, m->spec.width);
        x = decoder_stage(g, m, &batch, d, x, layers);
        if (last)
            decoder_loss(g, m, x, &batch, d, sums);
        else
            pipeline_output(g, mesh, stage, x);
    }
    g->part = 0;
}

static int seal(struct step_program *out, const char *name, bool forward_only,
                const struct mesh *mesh)
{
    struct graph *g = &out->graph;
    struct turn *turns;
    i64 n;
    int micro_batches = out->shape.micro_batches;
    if (mesh->layout.pp == 1)
        return program_new(&out->program, g, name, micro_batches);
    TRY(pipeline_turns(mesh, micro_batches, forward_only, &turns, &n, g->arena));
    return program_new_scheduled(&out->program, g, name, micro_batches, turns, n);
}

int step_program_new(struct step_program *out, const struct model *m,
                     const struct train_config *c, const struct step_shape *shape,
                     const struct step_io *io, const struct mesh *mesh, struct arena *a)
{
    struct graph *g = &out->graph;
    struct decoder_shape d = {
        .B = shape->B, .T = context_tokens(mesh, shape->T), .parts = mesh->layout.cp,
        .z_loss = c->train.z_loss,
        .gradient = true,
        .leaf = exact_leaf(&mesh->layout, shape->T),
        .sequences = shape->B * shape->micro_batches * mesh->layout.dp, .load = io->load,
    };
    struct exact exact = { m, mesh, shape->B, shape->T, shape->micro_batches, NULL };
    out->shape = *shape;
    graph_init(g, a);
    model_bind(m, g, true);
    build_forward(g, m, &d, io->sums, mesh);
    TRY(tensor_parallel(g, m, mesh, shape->B));
    TRY(context_parallel(g, mesh));
    if (c->log.health > 0)
        health_watch_logits(g, &io->health);
    TRY(graph_backward(g, 0, g->n_tasks));
    TRY(exact_sums(g, &exact));
    TRY(pass_chunk_head(g));
    TRY(pass_recompute(g, (enum recompute)c->train.recompute));
    if (c->offload.activations)
        TRY(offload_activations(g, c->offload.least));
    TRY(data_parallel_reduce(g, m, mesh, shape->micro_batches));
    TRY(exact_join(g, &exact));
    if (c->log.health > 0)
        TRY(health_watch_gradients(g, &io->health, m, mesh));
    TRY(zero_gather(g, m, mesh));
    build_update(g, m, c, io, mesh);
    TRY(spread_check(g, m, mesh));
    TRY(offload_state(g));
    return seal(out, "train", false, mesh);
}

int outer_program_new(struct step_program *out, const struct model *m,
                      const struct train_config *c, const struct step_io *io,
                      const struct mesh *mesh, struct arena *a)
{
    struct graph *g = &out->graph;
    const struct islands x = { c->outer.lr, c->outer.momentum, io->apart, io->moved };
    out->shape = (struct step_shape){ .micro_batches = 1 };
    graph_init(g, a);
    g->phase = PHASE_UPDATE;
    TRY(islands_step(g, m, mesh, &x));
    TRY(spread_check_islands(g, m, mesh));
    TRY(offload_state(g));
    return program_new(&out->program, g, "outer", 1);
}

int eval_program_new(struct step_program *out, const struct model *m,
                     const struct step_shape *shape, struct tensor *sums,
                     const struct mesh *mesh, struct arena *a)
{
    struct graph *g = &out->graph;
    struct decoder_shape d = { .B = shape->B, .T = context_tokens(mesh, shape->T) };
    struct exact exact = { m, mesh, shape->B, shape->T, 1, NULL };
    out->shape = *shape;
    graph_init(g, a);
    model_bind(m, g, false);
    build_forward(g, m, &d, sums, mesh);
    TRY(tensor_parallel(g, m, mesh, shape->B));
    TRY(context_parallel(g, mesh));
    TRY(exact_sums(g, &exact));
    TRY(zero_gather(g, m, mesh));
    return seal(out, "eval", true, mesh);
}
