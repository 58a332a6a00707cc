/* tests/train/tiny.h - a small model and a batch that does not need data, for tests of
 * whole steps. */
#ifndef HEADWAY_TEST_TINY_H
#define HEADWAY_TEST_TINY_H

#include "backend/away_lane.h"
#include "backend/engine.h"
#include "base/rng.h"
#include "ops/ops.h"
#include "train/step.h"
#include "train/tiny_spec.h"

struct tiny {
    struct arena arena;
    struct train_config config;
    struct engine engine;
    struct model *model;
    struct step_io io;
    struct step_program step;
    struct away_lane *away; /* with offload */
};

/* Random tokens and targets, a function of (step, micro-batch); two documents a row. */
static void tiny_batch(const struct task *t, struct run *x)
{
    i64 R = t->out[BATCH_TOKENS]->dim[0];
    i64 T = *(const i64 *)x->context;
    struct rng key = { 7, x->step * 64 + (u64)x->micro_batch };
    i32 *tokens = t->out[BATCH_TOKENS]->data, *targets = t->out[BATCH_TARGETS]->data;
    i32 *positions = t->out[BATCH_POSITIONS]->data, *begin = t->out[BATCH_BEGIN]->data;
    for (i64 r = 0; r < R; r++) {
        i64 at = r % T, border = T / 3;
        tokens[r] = (i32)(rng_u64(&key, (u64)r) % 61);
        targets[r] = (i32)(rng_u64(&key, (u64)r + 1) % 61);
        begin[r] = (i32)(at < border ? 0 : border);
        positions[r] = (i32)(at - begin[r]);
        ((float *)t->out[BATCH_WEIGHTS]->data)[r] = r % 5 ? 1.0f : 0.0f;
        ((i32 *)t->out[BATCH_SOURCES]->data)[r] = 0;
    }
    *(float *)t->out[BATCH_INV_WEIGHT]->data = 1.0f / (float)(R - ceil_div(R, 5)) / 2.0f;
}

static void tiny_open_spec(struct tiny *t, const struct tiny_options *o, struct model_spec spec)
{
    static i64 T;
    struct step_shape shape = { o->B, o->T, o->micro_batches, 1 };
    *t = (struct tiny){ 0 };
    arena_init(&t->arena);
    option_set_defaults(train_options, &t->config, &t->arena);
    t->config.train.recompute = o->recompute;
    t->config.optim.name = o->optimizer;
    t->config.optim.weight_decay += o->decay_more;
    if (o->clip > 0)
        t->config.train.clip = o->clip;
    t->config.train.ema = 0.9;
    CHECK_OK(engine_init(&t->engine, o->backend, o->threads, 1024));
    struct model_part part = model_whole();
    if (o->layers)
        spec.layers = o->layers;
    if (o->offload) {
        t->config.offload.optimizer = t->config.offload.activations = true;
        t->config.offload.least = 1;
        part.state_folder = t->engine.away_folder = ".";
        CHECK_OK(away_lane_new(&t->away, NULL));
        t->engine.lanes = away_lane_driver(t->away);
    }
    CHECK_OK(model_new_part(&t->model, &spec, o->bf16 ? DTYPE_BF16 : DTYPE_F32,
                            step_needs(&t->config) | (o->lent ? MODEL_GRADS_LENT : 0), o->T,
                            &part, &t->arena));
    T = o->T;
    backend_set(&t->engine.backend, &op_load_batch,
                (struct kernel){ .run = tiny_batch, .context = &T });
    step_io_new(&t->io, &spec, 1, &t->arena);
    struct mesh mesh = mesh_single();
    CHECK_OK(step_program_new(&t->step, t->model, &t->config, &shape, &t->io, &mesh,
                              &t->arena));
    CHECK_OK(engine_add(&t->engine, t->step.program));
    CHECK_OK(engine_commit(&t->engine));
    model_init(t->model, 3, t->engine.pool);
}

static void tiny_open(struct tiny *t, const struct tiny_options *o)
{
    tiny_open_spec(t, o, tiny_spec_of(o));
}

/* One step with Adam's corrections for update `step`; returns the mean loss. */
static double tiny_step(struct tiny *t, u64 step)
{
    float *hyper = t->io.hyper->data;
    double b1 = 1, b2 = 1;
    for (u64 i = 0; i <= step; i++) {
        b1 *= t->config.optim.beta1;
        b2 *= t->config.optim.beta2;
    }
    hyper[HYPER_LR] = 1e-2f;
    hyper[HYPER_MUON_LR] = 1e-2f;
    hyper[HYPER_CORRECT1] = (float)(1 - b1);
    hyper[HYPER_CORRECT2] = (float)(1 - b2);
    engine_run(&t->engine, t->step.program, NULL, step);
    const double *sums = t->io.sums->data;
    return sums[0] / sums[1];
}

static void tiny_close(struct tiny *t)
{
    away_lane_free(t->away);
    model_free(t->model);
    engine_fini(&t->engine);
    arena_fini(&t->arena);
}

/* First parameter whose weights, gradients or moments differ in any bit, or NULL. */
static const char *tiny_difference(const struct tiny *a, const struct tiny *b)
{
    for (i64 i = 0; i < a->model->n_params; i++) {
        const struct param *p = &a->model->params[i], *q = &b->model->params[i];
        const struct tensor *x[] = { p->master, p->compute, p->grad, p->m, p->v, p->ema };
        const struct tensor *y[] = { q->master, q->compute, q->grad, q->m, q->v, q->ema };
        for (int k = 0; k < 6; k++)
            if (x[k] && memcmp(x[k]->data, y[k]->data, (size_t)tensor_bytes(x[k])) != 0)
                return p->desc.name;
    }
    return NULL;
}

#endif
