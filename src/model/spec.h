/* model/spec.h - a decoder-only transformer as data.
 *
 * models/NAME.yaml holds one of these. Everything that depends on the architecture is
 * derived from it: parameters (params.h), the forward graph (decoder.h), foreign names
 * (hf.h). Supported: pre-norm blocks of attention and a feed-forward network with a
 * residual stream; GPT-2, Llama and Qwen are settings of it.
 *
 * With latent_kv attention's heads are made of a row's *latents* (DeepSeek-V2, 2024, section 2.1):
 * a matrix takes it down to latent_q numbers for queries and latent_kv for keys and values, an
 * RMS norm follows, and another takes those up to the heads. Of a query or key head head_size
 * columns have no position; latent_rope more are rotary, the key's the same for all heads.
 *
 * A sparse layer has E experts instead of one feed-forward network; a router sends each token
 * to k of them and sums what they give, weighted by its scores (Shazeer et al. 2017; Mixtral:
 * Jiang et al. 2024; shared experts and sigmoid scores: DeepSeek-V3, 2024, section 2.1.2). */
#ifndef HEADWAY_SPEC_H
#define HEADWAY_SPEC_H

#include "base/option.h"

enum spec_norm { NORM_LAYER, NORM_RMS };
enum spec_act { ACT_GELU, ACT_GELU_EXACT, ACT_SWIGLU };
enum spec_position { POSITION_LEARNED, POSITION_ROPE };
enum rope_scaling { ROPE_PLAIN, ROPE_LINEAR, ROPE_LLAMA3 };
enum spec_family { FAMILY_GPT2, FAMILY_LLAMA, FAMILY_QWEN2, FAMILY_QWEN3, FAMILY_MIXTRAL,
                   FAMILY_QWEN3_MOE, FAMILY_DOTS1, FAMILY_DEEPSEEK_V3 };
enum spec_score { SCORE_SOFTMAX, SCORE_SIGMOID }; /* of an expert, from its logit */

struct model_spec {
    const char *name;
    int family;            /* enum spec_family: how the model is called elsewhere */
    i64 vocab;             /* V */
    i64 positions;         /* P: longest sequence */
    i64 layers;            /* L */
    i64 width;             /* C */
    i64 heads, kv_heads;   /* H, G; kv_heads 0 means heads */
    i64 head_size;         /* D; 0 means width / heads */
    i64 value_size;        /* of a value head, with latents; 0 means head_size */
    i64 latent_kv;         /* what keys and values are made of; 0: of the row itself */
    i64 latent_q;          /* the same of queries; 0: of the row itself */
    i64 latent_rope;       /* rotary columns of a query or key head beside head_size */
    i64 hidden;            /* F; of dense layers */
    i64 experts;           /* E; 0: every layer is dense */
    i64 experts_per_token; /* k */
    i64 expert_hidden;     /* F of an expert; 0 means hidden */
    i64 shared_hidden;     /* F of the part of sparse layers that every token passes; 0: none */
    i64 dense_layers;      /* this many first layers are dense */
    int score;             /* enum spec_score */
    bool score_normalise;  /* the k scores are divided by their sum */
    double score_scale;    /* ... and multiplied by this */
    bool router_bias;      /* added to scores when experts are chosen; follows their load */
    i64 groups;            /* of experts: a token's are of at most group_limit of them
                            * (DeepSeek-V3, 2024, section 2.1.2); 0: no such rule. For plans */
    i64 group_limit;
    double bias_rate;      /* how far the bias moves per step (DeepSeek-V3's gamma) */
    double aux_loss, router_z_loss; /* coefficients; see op_router */
    double capacity;       /* most tokens an expert takes, as a multiple of its even share of a
                            * sequence; others skip it. Training only. 0: all (dropless) */
    int norm;              /* enum spec_norm */
    double norm_eps;
    int act;               /* enum spec_act */
    int position;          /* enum spec_position */
    bool bias_qkv, bias_out, bias_mlp;
    bool qk_norm;
    bool tied;             /* the LM head is the token embedding */
    i64 mtp_depth;         /* so many more tokens are predicted, each by a block more
                            * (DeepSeek-V3, 2024, section 2.2); for plans, not for training */
    i64 window;            /* sliding-window attention; 0: none */
    double rope_theta;
    int rope_scaling;      /* enum rope_scaling */
    double rope_factor, rope_low_factor, rope_high_factor;
    i64 rope_original;     /* positions before scaling */
    double init_std;       /* normal initialisation of matrices and embeddings */
    bool init_residual;    /* deviation / sqrt(2 L) for matrices that write the residual */
};

extern const struct option model_spec_options[];

/* Whether this layer has experts. */
static inline bool spec_is_sparse(const struct model_spec *s, i64 layer)
{
    return s->experts > 0 && layer >= s->dense_layers;
}

static inline i64 spec_sparse_layers(const struct model_spec *s)
{
    return s->experts > 0 ? s->layers - s->dense_layers : 0;
}

static inline bool spec_is_latent(const struct model_spec *s)
{
    return s->latent_kv > 0;
}

/* Columns of a query or key head; of what is turned of it; of a value head. */
static inline i64 spec_key_size(const struct model_spec *s)
{
    return s->head_size + (spec_is_latent(s) ? s->latent_rope : 0);
}

static inline i64 spec_rope_size(const struct model_spec *s)
{
    return spec_is_latent(s) ? s->latent_rope : s->head_size;
}

static inline i64 spec_value_size(const struct model_spec *s)
{
    return s->value_size > 0 ? s->value_size : s->head_size;
}

/* Reads a spec: a path, or the NAME of models/NAME.yaml in the folders of
 * spec_search_path. Fills derived defaults and checks it. Texts live in the arena. */
int spec_load(struct model_spec *out, const char *path_or_name, struct arena *a);
/* Derived defaults (kv_heads, head_size, latents' value_size) and all checks; messages begin
 * with `where`. */
int spec_check(struct model_spec *s, const char *where);
/* Writes it back as YAML that spec_load reads to the same spec. */
void spec_write_yaml(const struct model_spec *s, struct text *out);
/* The first key in which two specs describe other parameters or mathematics (names and
 * initialisation aside), or NULL. */
const char *spec_difference(const struct model_spec *a, const struct model_spec *b);

/* Rotary frequencies: half of spec_rope_size values, in radians per position. Llama-3 scaling
 * divides low frequencies by factor, keeps high ones, and blends between (Llama 3.1's release
 * notes; wavelengths against original / low_factor and original / high_factor). */
void spec_rope_frequencies(const struct model_spec *s, double *out);

/* Folders where names are looked up: $HEADWAY_MODELS, ./models, the installed one. */
int spec_find(const char *name, char *path, i64 capacity);

#endif
