/* tests/parallel/ranks.h - N ranks of a layout in one thread, each with its own model. */
#ifndef HEADWAY_TEST_RANKS_H
#define HEADWAY_TEST_RANKS_H

#include "backend/engine.h"
#include "base/rng.h"
#include "comm/sim.h"
#include "ops/ops.h"
#include "ops/zigzag.h"
#include "parallel/driver.h"
#include "train/step.h"
#include "train/tiny_spec.h"

#include <math.h>
#include <stdio.h>

enum { MOST_RANKS = 64, RANK_T = 32 };

struct rank {
    struct arena arena;
    struct engine engine;
    struct model *model;
    struct mesh mesh;
    struct step_io io;
    struct step_program step, outer;
    struct driver *driver;
    struct layout_rows rows;
    i64 B, all_rows; /* of the recipe; of an island's step */
    i64 T;
    struct exec_cursor at;
};

struct ranks {
    struct train_config config;
    struct arena arena;
    struct layout layout;
    struct comm_sim *sim;
    struct rank rank[MOST_RANKS];
    int n;
};

struct ranks_options {
    struct tiny_options tiny; /* B and micro_batches are those of all ranks together */
    const char *layout;
    i64 heads; /* query and key heads, for many ranks along tp or cp; 0: the tiny model's */
    i64 kv_heads; /* 0: as many as heads, where these are given, or the tiny model's */
    bool bias_qkv; /* of a llama */
    i64 layers; /* 0: those of tiny_spec */
    i64 T; /* 0: RANK_T */
    i64 choices; /* experts per token; 0: those of the tiny model */
    i64 window;
    i64 health; /* as log.health */
    double outer_lr, outer_momentum; /* lr 0: there are no outer steps */
    void (*plant)(struct program *p); /* a fault in every rank's program; NULL: none */
};

/* Row r of a step is a function of (step, r), whoever computes it. */
static void ranks_batch(const struct task *t, struct run *x)
{
    const struct rank *k = x->context;
    i64 cp = k->mesh.layout.cp, here = k->T / cp, n = k->rows.B * here;
    i64 first = k->rows.first + x->micro_batch * k->rows.stride;
    i64 pairs = layout_pairs(&k->mesh.layout);
    i32 *tokens = t->out[BATCH_TOKENS]->data, *targets = t->out[BATCH_TARGETS]->data;
    i32 *positions = t->out[BATCH_POSITIONS]->data, *begin = t->out[BATCH_BEGIN]->data;
    for (i64 i = 0; i < n; i++) {
        i64 place = zigzag_pair_place(cp, k->mesh.cp_rank, pairs, here, i % here);
        i64 border = k->T / 3;
        struct rng key = { 7, x->step * 64 + (u64)(first + i / here) };
        tokens[i] = (i32)(rng_u64(&key, (u64)place) % 61);
        targets[i] = (i32)(rng_u64(&key, (u64)place + 1) % 61);
        begin[i] = (i32)(place < border ? 0 : border);
        positions[i] = (i32)(place - begin[i]);
        ((float *)t->out[BATCH_WEIGHTS]->data)[i] = place % 5 ? 1.0f : 0.0f;
        ((i32 *)t->out[BATCH_SOURCES]->data)[i] = 0;
    }
    float *inv_weight = t->out[BATCH_INV_WEIGHT]->data;
    *inv_weight = 1.0f / (float)((k->T - ceil_div(k->T, 5)) * k->all_rows);
}

static struct model_spec rank_spec(const struct ranks_options *o)
{
    struct model_spec spec = tiny_spec_of(&o->tiny);
    if (o->layers)
        spec.layers = o->layers;
    if (o->choices)
        spec.experts_per_token = o->choices;
    spec.window = o->window;
    spec.bias_qkv = spec.bias_qkv || o->bias_qkv;
    if (o->heads || o->kv_heads) {
        spec.heads = o->heads ? o->heads : spec.heads;
        spec.head_size = spec.width / spec.heads;
        spec.kv_heads = o->kv_heads ? o->kv_heads : spec.heads;
        CHECK_OK(spec_check(&spec, "tiny"));
    }
    return spec;
}

static void rank_open(struct rank *k, struct ranks *all, const struct ranks_options *o,
                      struct comm *comm)
{
    const struct tiny_options *t = &o->tiny;
    struct model_spec spec = rank_spec(o);
    arena_init(&k->arena);
    CHECK_OK(mesh_new(&k->mesh, &all->layout, &spec, comm));
    k->rows = layout_rows(&all->layout, t->B, t->micro_batches, k->mesh.row_rank);
    k->all_rows = t->B * t->micro_batches / all->layout.islands;
    k->T = o->T ? o->T : RANK_T;
    struct step_shape shape = { k->rows.B, k->T, k->rows.micro_batches, 1 };
    struct model_part part = mesh_part(&k->mesh, &spec);
    CHECK_OK(engine_init(&k->engine, t->backend, t->threads, 64));
    CHECK_OK(model_new_part(&k->model, &spec, t->bf16 ? DTYPE_BF16 : DTYPE_F32,
                            step_needs(&all->config), k->T, &part, &k->arena));
    backend_set(&k->engine.backend, &op_load_batch,
                (struct kernel){ .run = ranks_batch, .context = k });
    step_io_new(&k->io, &spec, 1, &k->arena);
    CHECK_OK(step_program_new(&k->step, k->model, &all->config, &shape, &k->io, &k->mesh,
                              &k->arena));
    if (o->plant)
        o->plant(k->step.program);
    CHECK_OK(engine_add(&k->engine, k->step.program));
    if (o->outer_lr > 0) {
        CHECK_OK(outer_program_new(&k->outer, k->model, &all->config, &k->io, &k->mesh, &k->arena));
        CHECK_OK(engine_add(&k->engine, k->outer.program));
    }
    CHECK_OK(engine_commit(&k->engine));
    CHECK_OK(driver_new(&k->driver, &k->mesh, driver_calls(k->step.program),
                        false));
    k->engine.lanes = driver_lanes(k->driver);
    model_init(k->model, 3, k->engine.pool);
}

static void ranks_open(struct ranks *all, const struct ranks_options *o)
{
    *all = (struct ranks){ .layout = layout_single() };
    arena_init(&all->arena);
    option_set_defaults(train_options, &all->config, &all->arena);
    all->config.train.recompute = o->tiny.recompute;
    all->config.optim.name = o->tiny.optimizer;
    all->config.log.health = o->health;
    all->config.train.ema = o->outer_lr > 0 ? 0 : 0.9;
    all->config.outer.every = o->outer_lr > 0;
    all->config.outer.lr = o->outer_lr;
    all->config.outer.momentum = o->outer_momentum;
    CHECK_OK(layout_parse(&all->layout, o->layout, "test", &all->arena));
    all->n = (int)layout_ranks(&all->layout);
    assert(all->n <= MOST_RANKS);
    CHECK_OK(comm_sim_new(&all->sim, all->n));
    for (int r = 0; r < all->n; r++)
        rank_open(&all->rank[r], all, o, comm_sim_rank(all->sim, r));
}

static void ranks_close(struct ranks *all)
{
    for (int r = 0; r < all->n; r++) {
        struct rank *k = &all->rank[r];
        model_free(k->model);
        engine_fini(&k->engine);
        arena_fini(&k->arena);
    }
    comm_sim_free(all->sim);
    arena_fini(&all->arena);
}

static void write_hyper(struct rank *k, const struct train_config *c, u64 step)
{
    float *hyper = k->io.hyper->data;
    hyper[HYPER_LR] = hyper[HYPER_MUON_LR] = 1e-2f;
    hyper[HYPER_CORRECT1] = (float)(1 - pow(c->optim.beta1, (double)step + 1));
    hyper[HYPER_CORRECT2] = (float)(1 - pow(c->optim.beta2, (double)step + 1));
}

/* All ranks' steps, or outer steps, in turns. Negative with a message when a rank fails, or all
 * wait. */
static int ranks_run(struct ranks *all, u64 step, bool outer)
{
    int done = 0, idle = 0;
    for (int r = 0; r < all->n; r++)
        all->rank[r].at = (struct exec_cursor){ 0 };
    bool over[MOST_RANKS] = { false };
    for (int r = 0; done < all->n; r = (r + 1) % all->n) {
        struct rank *k = &all->rank[r];
        const struct program *p = outer ? k->outer.program : k->step.program;
        struct run x = engine_context(&k->engine, step);
        struct exec_cursor before = k->at;
        x.yields = true;
        int rc = over[r] ? EXEC_BLOCKED : exec_resume(p, &k->at, &x);
        if (rc < 0)
            return rc;
        bool moved = rc == OK || k->at.action != before.action || k->at.task != before.task;
        idle = moved ? 0 : idle + 1;
        if (idle > 2 * all->n)
            return err_set(ERR_INTERNAL, "the ranks wait for each other");
        if (rc == OK) {
            over[r] = true;
            done++;
        }
    }
    return OK;
}

/* One step of all ranks; *loss is the mean over all of them. */
static int ranks_try_step(struct ranks *all, u64 step, double *loss)
{
    for (int r = 0; r < all->n; r++)
        write_hyper(&all->rank[r], &all->config, step);
    TRY(ranks_run(all, step, false));
    /* The last stage has the loss. */
    double nll = 0, weight = 0;
    for (int r = 0; r < all->n; r++) {
        const double *sums = all->rank[r].io.sums->data;
        const struct model *m = all->rank[r].model;
        if (mesh_coordinate(&all->rank[r].mesh, LANE_TP) == 0 &&
            model_has_layer(&m->spec, &m->part, m->spec.layers - 1)) {
            nll += sums[0];
            weight += sums[1];
        }
    }
    *loss = nll / weight;
    return OK;
}

static double ranks_step(struct ranks *all, u64 step)
{
    double loss = 0;
    CHECK_OK(ranks_try_step(all, step, &loss));
    return loss;
}

/* Where element k of a rank's share lies in the whole parameter. */
static i64 place_in_whole(const struct param *p, i64 k)
{
    i64 whole = p->desc.rank == 2 ? p->desc.dim[1] : 1;
    i64 columns = p->desc.rank == 2 ? p->shard.columns.count : 1;
    i64 each = p->shard.dim[0] / p->shard.experts.count; /* rows of an expert here */
    i64 row = k / columns % each, piece = 0, expert = p->shard.experts.begin + k / columns / each;
    while (row >= p->shard.rows[piece].count)
        row -= p->shard.rows[piece++].count;
    row += p->shard.rows[piece].begin + expert * (p->desc.dim[0] / p->desc.experts);
    return row * whole + p->shard.columns.begin + k % columns;
}

/* What products read of element k, which is here; a copy that is gathered for each layer is in
 * its slice. */
static double computed_weight(const struct param *p, i64 k)
{
    const struct bucket *b = p->bucket;
    if (b->split_weights && p->at >= b->copied)
        return b->compute ? tensor_get(b->compute, p->at + k - b->own_begin)
                          : (double)*param_weight(p, k);
    return tensor_get(p->compute, k);
}

/* |a - b| / |a| over what this rank computes with: a split state keeps only its own slice
 * of the master weights up to date. */
static inline double distance(const struct ranks *a, const struct rank *b)
{
    double squares = 0, difference = 0;
    for (i64 i = 0; i < b->model->n_params; i++) {
        const struct param *p = &b->model->params[i];
        const struct tensor *whole =
            model_param(a->rank[0].model, p->desc.id, p->desc.layer)->compute;
        const struct shard_range here = param_weights_here(p);
        for (i64 k = here.begin; k < here.begin + here.count; k++) {
            double x = tensor_get(whole, place_in_whole(p, k));
            double d = x - computed_weight(p, k);
            squares += x * x;
            difference += d * d;
        }
    }
    return sqrt(difference / squares);
}

/* How three steps of the options' layout differ from those of one rank, in words; NULL:
 * by less than the bounds, of losses and of weights. After an update losses may differ by
 * ten times as much: AdamW's first steps have the size of the rate wherever a gradient
 * lies, also where rounding decides its sign (3e-6 was seen on several backends, 1e-8
 * before the first update). */
static inline const char *ranks_difference(const struct ranks_options *o, double loss_bound,
                                           double bound)
{
    enum { UPDATED = 10 };
    static char text[256];
    struct ranks one, many;
    struct ranks_options alone = *o;
    int rc = OK;
    alone.layout = "dp=1";
    alone.plant = NULL;
    *text = '\0';
    ranks_open(&one, &alone);
    ranks_open(&many, o);
    for (int r = 0; r < many.n; r++)
        CHECK(distance(&one, &many.rank[r]) == 0);
    for (u64 step = 0; step < 3 && rc >= 0 && !*text; step++) {
        double a = ranks_step(&one, step), b = NAN;
        rc = ranks_try_step(&many, step, &b);
        if (rc < 0)
            snprintf(text, sizeof text, "%s: %.200s", o->layout, err_message());
        else if (!(fabs(a - b) <= (step ? UPDATED : 1) * loss_bound * a))
            snprintf(text, sizeof text, "%s, step %d: loss %.9f, one rank has %.9f", o->layout,
                     (int)step, b, a);
    }
    for (int r = 0; r < many.n && !*text; r++) {
        double d = distance(&one, &many.rank[r]);
        if (!(d <= bound))
            snprintf(text, sizeof text, "%s: weights of rank %d are off by %g", o->layout, r, d);
    }
    ranks_close(&one);
    ranks_close(&many);
    return *text ? text : NULL;
}

/* The layout of o beside one rank. */
static inline void expect_as_one(const struct ranks_options *o, double loss_bound, double bound)
{
    const char *difference = ranks_difference(o, loss_bound, bound);
    if (difference)
        fail_msg("%s", difference);
}

static inline void expect_close(const char *layout, bool gpt2, bool half, double loss_bound,
                                double bound)
{
    struct ranks_options o = { .tiny = { .threads = 1, .micro_batches = 2, .B = 4 } };
    o.tiny.gpt2 = gpt2;
    o.tiny.bf16 = half;
    o.tiny.backend = backend_best();
    o.layout = layout;
    expect_as_one(&o, loss_bound, bound);
}

/* On each of these layouts every rank has the norm of gradients that one rank alone (o) has. */
static inline void expect_norm_of_one(const struct ranks_options *o, const char *const *layouts,
                                      i64 n)
{
    struct ranks one, many;
    struct ranks_options other = *o;
    ranks_open(&one, o);
    ranks_step(&one, 0);
    const double norm = *(double *)one.rank[0].io.norm->data;
    CHECK(norm > 0);
    for (i64 i = 0; i < n; i++) {
        other.layout = layouts[i];
        ranks_open(&many, &other);
        ranks_step(&many, 0);
        for (int r = 0; r < many.n; r++)
            CHECK_NEAR(*(double *)many.rank[r].io.norm->data, norm, 1e-5 * norm);
        ranks_close(&many);
    }
    ranks_close(&one);
}

#endif
