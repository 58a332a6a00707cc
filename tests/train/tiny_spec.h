/* tests/train/tiny_spec.h - a small GPT-2 or Qwen-like model, and how a test wants it run. */
#ifndef HEADWAY_TEST_TINY_SPEC_H
#define HEADWAY_TEST_TINY_SPEC_H

#include "graph/program.h"
#include "model/spec.h"
#include "test.h"
#include "train/train_config.h"

/* Experts as in Mixtral, with the losses of a router; as in DeepSeek-V3, with a dense layer, a
 * shared part and a bias; and the former with a capacity that drops tokens. */
enum tiny_experts { TINY_DENSE, TINY_MIXTRAL, TINY_DEEPSEEK, TINY_CAPACITY };

struct tiny_options {
    const char *backend;
    bool gpt2, bf16;
    bool lent; /* MODEL_GRADS_LENT */
    bool offload; /* optimizer state and all activations that can be */
    i64 layers;   /* 0: three */
    int threads, micro_batches;
    enum recompute recompute;
    enum train_optimizer optimizer;
    double decay_more; /* than the default */
    double clip;       /* 0: the default */
    i64 B, T;
    enum tiny_experts experts; /* not with gpt2 */
    bool latent;               /* attention as in DeepSeek-V3; not with gpt2 */
};

static void tiny_experts_of(struct model_spec *s, enum tiny_experts kind)
{
    s->experts = kind == TINY_DENSE ? 0 : 8;
    s->experts_per_token = 2;
    s->expert_hidden = 24;
    if (kind == TINY_DEEPSEEK) {
        s->shared_hidden = 32;
        s->dense_layers = 1;
        s->score = SCORE_SIGMOID;
        s->score_scale = 1.5;
        s->router_bias = true;
        s->bias_rate = 0.01;
    } else if (kind != TINY_DENSE) {
        s->aux_loss = 0.1;
        s->router_z_loss = 0.01;
        s->capacity = kind == TINY_CAPACITY ? 1.25 : 0;
    }
}

static void tiny_latents_of(struct model_spec *s)
{
    s->kv_heads = s->heads;
    s->qk_norm = false;
    s->latent_q = 24;
    s->latent_kv = 20;
    s->latent_rope = 4;
    s->value_size = 6;
}

static struct model_spec tiny_spec(bool gpt2)
{
    struct model_spec s;
    struct arena a;
    arena_init(&a);
    option_set_defaults(model_spec_options, &s, &a);
    s.name = "tiny";
    s.vocab = 61;
    s.positions = 40;
    s.layers = 3;
    s.width = 32;
    s.heads = 4;
    s.hidden = 48;
    s.kv_heads = gpt2 ? 4 : 2;
    s.tied = gpt2;
    s.family = gpt2 ? FAMILY_GPT2 : FAMILY_LLAMA;
    s.norm = gpt2 ? NORM_LAYER : NORM_RMS;
    s.act = gpt2 ? ACT_GELU : ACT_SWIGLU;
    s.position = gpt2 ? POSITION_LEARNED : POSITION_ROPE;
    s.bias_qkv = s.bias_out = s.bias_mlp = gpt2;
    s.qk_norm = !gpt2;
    s.init_std = 0.2; /* larger than usual, so that nothing is negligible */
    CHECK_OK(spec_check(&s, "tiny"));
    arena_fini(&a);
    return s;
}

static struct model_spec tiny_spec_of(const struct tiny_options *o)
{
    struct model_spec s = tiny_spec(o->gpt2);
    tiny_experts_of(&s, o->gpt2 ? TINY_DENSE : o->experts);
    if (o->latent && !o->gpt2)
        tiny_latents_of(&s);
    CHECK_OK(spec_check(&s, "tiny"));
    return s;
}

#endif
