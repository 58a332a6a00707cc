/* tests/train/small_model.h - a model with random weights, to ask and to sample. */
#ifndef HEADWAY_TEST_SMALL_MODEL_H
#define HEADWAY_TEST_SMALL_MODEL_H

#include "test.h"

#include "backend/engine.h"
#include "model/model.h"

struct small_model {
    struct arena arena;
    struct engine engine;
    struct model *model;
};

/* Or with `experts` of them in the second layer. */
static inline struct model_spec small_spec(struct small_model *m, bool gpt2, i64 vocab,
                                           i64 positions, i64 window, i64 experts)
{
    struct model_spec s;
    arena_init(&m->arena);
    option_set_defaults(model_spec_options, &s, &m->arena);
    s.experts = experts;
    s.dense_layers = 1;
    s.capacity = 1; /* of training: no token may miss its experts here */
    s.name = "small";
    s.vocab = vocab;
    s.positions = positions;
    s.layers = 2;
    s.width = 32;
    s.heads = s.kv_heads = 4;
    s.hidden = 48;
    s.window = window;
    s.init_std = 0.2; /* larger than usual, so that no two tokens are equally likely */
    if (!gpt2) {
        s.family = FAMILY_LLAMA;
        s.kv_heads = 2;
        s.norm = NORM_RMS;
        s.act = ACT_SWIGLU;
        s.position = POSITION_ROPE;
        s.qk_norm = true;
    } else {
        s.family = FAMILY_GPT2;
        s.norm = NORM_LAYER;
        s.act = ACT_GELU;
        s.position = POSITION_LEARNED;
        s.bias_qkv = s.bias_out = s.bias_mlp = s.tied = true;
    }
    return s;
}

static inline void small_model_open_spec(struct small_model *m, struct model_spec s)
{
    CHECK_OK(spec_check(&s, "small"));
    CHECK_OK(engine_init(&m->engine, "auto", 2, 64));
    CHECK_OK(model_new(&m->model, &s, DTYPE_F32, MODEL_WEIGHTS, s.positions, &m->arena));
    model_init(m->model, 3, m->engine.pool);
}

static inline void small_model_open_experts(struct small_model *m, bool gpt2, i64 vocab,
                                            i64 positions, i64 window, i64 experts)
{
    small_model_open_spec(m, small_spec(m, gpt2, vocab, positions, window, experts));
}

/* Attention as in DeepSeek-V3; q_rank 0: queries are made of the row itself. */
static inline void small_model_open_latent(struct small_model *m, i64 vocab, i64 positions,
                                           i64 q_rank)
{
    struct model_spec s = small_spec(m, false, vocab, positions, 0, 0);
    s.kv_heads = 0;
    s.qk_norm = false;
    s.latent_q = q_rank;
    s.latent_kv = 20;
    s.latent_rope = 4;
    s.value_size = 6;
    small_model_open_spec(m, s);
}

static inline void small_model_open(struct small_model *m, bool gpt2, i64 vocab, i64 positions,
                                    i64 window)
{
    small_model_open_experts(m, gpt2, vocab, positions, window, 0);
}

static inline void small_model_close(struct small_model *m)
{
    model_free(m->model);
    engine_fini(&m->engine);
    arena_fini(&m->arena);
}

#endif
