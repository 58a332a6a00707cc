#include "model/hf_config.h"

#include "base/err.h"
#include "model/hf_keys.h"

#include <string.h>

#define SUPPORTED \
    "gpt2, llama, mistral, qwen2, qwen3, mixtral, qwen3_moe, dots1 and deepseek_v3"

/* --- reading ------------------------------------------------------------------------ */

static int read_act(struct model_spec *s, const char *name, bool gated, const char *where)
{
    static const struct {
        const char *name;
        enum spec_act act;
    } acts[] = { { "gelu_new", ACT_GELU },           { "gelu_pytorch_tanh", ACT_GELU },
                 { "gelu_fast", ACT_GELU },          { "gelu", ACT_GELU_EXACT },
                 { "silu", ACT_SWIGLU },             { "swish", ACT_SWIGLU } };
    for (i64 i = 0; i < COUNT_OF(acts); i++) {
        if (strcmp(acts[i].name, name) == 0 && (acts[i].act == ACT_SWIGLU) == gated) {
            s->act = acts[i].act;
            return OK;
        }
    }
    return err_set(ERR_FORMAT, "%s: activation '%s' is not supported; supported %s", where,
                   name, gated ? "is silu" : "are gelu_new and gelu");
}

/* What transformers takes for a key that a file does not have (its configuration_TYPE.py). */
struct silent {
    i64 positions, window;
    double norm_eps, rope_theta;
};

/* Families that are laid out like Llama. */
static const struct {
    const char *type, *architecture;
    struct silent silent;
} llama_like[] = {
    [FAMILY_LLAMA] = { "llama", "LlamaForCausalLM", { 2048, 0, 1e-6, 1e4 } },
    [FAMILY_QWEN2] = { "qwen2", "Qwen2ForCausalLM", { 32768, 4096, 1e-6, 1e4 } },
    [FAMILY_QWEN3] = { "qwen3", "Qwen3ForCausalLM", { 32768, 4096, 1e-6, 1e4 } },
    [FAMILY_MIXTRAL] = { "mixtral", "MixtralForCausalLM", { 131072, 0, 1e-5, 1e6 } },
    [FAMILY_QWEN3_MOE] = { "qwen3_moe", "Qwen3MoeForCausalLM", { 32768, 4096, 1e-6, 1e4 } },
    [FAMILY_DOTS1] = { "dots1", "Dots1ForCausalLM", { 2048, 4096, 1e-6, 1e4 } },
    [FAMILY_DEEPSEEK_V3] = { "deepseek_v3", "DeepseekV3ForCausalLM", { 4096, 0, 1e-6, 1e4 } },
};
static const struct silent silent_mistral = { 131072, 4096, 1e-6, 1e4 };

/* -1 when it is none of them. */
static int family_of(const char *type)
{
    if (strcmp(type, "mistral") == 0)
        return FAMILY_LLAMA;
    for (int i = 0; i < COUNT_OF(llama_like); i++)
        if (llama_like[i].type && strcmp(type, llama_like[i].type) == 0)
            return i;
    return -1;
}

/* Experts with sigmoid scores, a bias that balances them, and some that all tokens pass. */
static bool has_dots_experts(int family)
{
    return family == FAMILY_DOTS1 || family == FAMILY_DEEPSEEK_V3;
}

static bool has_qk_norm(int family)
{
    return family == FAMILY_QWEN3 || family == FAMILY_QWEN3_MOE || family == FAMILY_DOTS1;
}

static int read_gpt2(struct model_spec *s, struct hf_keys *k)
{
    s->family = FAMILY_GPT2;
    s->positions = hf_keys_integer(k, "n_positions", 1024);
    s->width = hf_keys_integer(k, "n_embd", 768);
    s->layers = hf_keys_integer(k, "n_layer", 12);
    s->heads = hf_keys_integer(k, "n_head", 12);
    s->hidden = hf_keys_integer(k, "n_inner", 4 * s->width);
    s->norm = NORM_LAYER;
    s->norm_eps = hf_keys_number(k, "layer_norm_epsilon", 1e-5);
    s->position = POSITION_LEARNED;
    s->bias_qkv = s->bias_out = s->bias_mlp = true;
    s->tied = hf_keys_truth(k, "tie_word_embeddings", true);
    const char *act = hf_keys_string(k, "activation_function", "gelu_new");
    TRY(k->rc);
    return read_act(s, act, false, k->where);
}

/* rope_scaling of transformers 4, rope_parameters of transformers 5. What a kind of scaling needs
 * has no defaults, but for the positions of Llama 3's. */
static int read_rope(struct model_spec *s, struct hf_keys *k, double theta)
{
    static const char *const known[] = {
        "rope_type", "type", "rope_theta", "factor", "low_freq_factor", "high_freq_factor",
        "original_max_position_embeddings", "partial_rotary_factor",
    };
    struct hf_keys r = hf_keys_object(k, "rope_parameters", "rope_parameters.");
    if (!r.object)
        r = hf_keys_object(k, "rope_scaling", "rope_scaling.");
    const char *type = hf_keys_string(&r, "type", "default");
    const char *kind = hf_keys_string(&r, "rope_type", type);
    const bool scaled = strcmp(kind, "default") != 0, llama3 = strcmp(kind, "llama3") == 0;
    s->rope_theta = hf_keys_number(&r, "rope_theta", hf_keys_number(k, "rope_theta", theta));
    s->rope_factor = hf_keys_number(&r, "factor", scaled ? 0 : 1);
    s->rope_low_factor = hf_keys_number(&r, "low_freq_factor", llama3 ? 0 : 1);
    s->rope_high_factor = hf_keys_number(&r, "high_freq_factor", llama3 ? 0 : 4);
    s->rope_original = hf_keys_integer(&r, "original_max_position_embeddings",
                                       llama3 ? s->positions : 8192);
    if (llama3) /* transformers prefers it where others have it */
        s->rope_original = hf_keys_integer(k, "original_max_position_embeddings", s->rope_original);
    TRY(k->rc);
    TRY(r.rc);
    s->rope_scaling = strcmp(kind, "linear") == 0 ? ROPE_LINEAR
                      : llama3                    ? ROPE_LLAMA3
                                                  : ROPE_PLAIN;
    if (s->rope_scaling == ROPE_PLAIN && scaled)
        return err_set(ERR_FORMAT, "%s: rotary scaling '%s' is not supported; supported are "
                       "linear and llama3", k->where, kind);
    if (!(s->rope_theta > 0) || !(s->rope_factor >= 1) || !(s->rope_low_factor > 0) ||
        !(s->rope_high_factor > s->rope_low_factor) || s->rope_original < 1)
        return err_set(ERR_FORMAT, "%s: rotary scaling needs rope_theta > 0, factor >= 1, "
                       "0 < low_freq_factor < high_freq_factor and positive "
                       "original_max_position_embeddings", k->where);
    TRY(hf_keys_neutral(&r, false));
    return hf_keys_only(&r, known, COUNT_OF(known));
}

/* Mistral and Mixtral have a window wherever one is given; dots1 behind max_window_layers; Qwen's
 * when it is asked for, with experts in all layers, else as dots1. Null is no window. */
static int read_window(struct model_spec *s, struct hf_keys *k, bool mistral, i64 silent)
{
    const bool dots = s->family == FAMILY_DOTS1;
    const bool absent = !json_object_get(k->object, "sliding_window");
    const bool always = mistral || s->family == FAMILY_MIXTRAL;
    const bool everywhere = always || s->family == FAMILY_QWEN3_MOE;
    const bool used = hf_keys_truth(k, "use_sliding_window", false) || always || dots;
    i64 window = hf_keys_integer(k, "sliding_window", absent ? silent : 0);
    i64 first = everywhere ? 0 : hf_keys_integer(k, "max_window_layers", dots ? 62 : 28);
    TRY(k->rc);
    if (used && window > 0 && first > 0 && first < s->layers)
        return err_set(ERR_FORMAT, "%s: a sliding window in some layers only is not supported",
                       k->where);
    if (used && window > 0 && first == 0)
        s->window = window;
    return hf_keys_layer_types(k, s->layers, s->window > 0);
}

static int check_ranges(const struct model_spec *s, const char *where)
{
    const struct {
        const char *name;
        i64 value, most;
    } limits[] = { { "vocab_size", s->vocab, 1 << 24 },  { "positions", s->positions, 1 << 24 },
                   { "layers", s->layers, 4096 },        { "hidden_size", s->width, 1 << 20 },
                   { "heads", s->heads, 4096 },          { "kv_heads", s->kv_heads, 4096 },
                   { "intermediate_size", s->hidden, 1 << 22 },
                   { "moe_intermediate_size", s->expert_hidden, 1 << 22 },
                   { "experts", s->experts, 4096 } };
    for (i64 i = 0; i < COUNT_OF(limits); i++)
        if (limits[i].value < (i == 5 || i > 6 ? 0 : 1) || limits[i].value > limits[i].most)
            return err_set(ERR_FORMAT, "%s: %s is %lld; it must be between 1 and %lld", where,
                           limits[i].name, (long long)limits[i].value,
                           (long long)limits[i].most);
    if (s->head_size < 0 || s->head_size > 1024)
        return err_set(ERR_FORMAT, "%s: head_dim is %lld; it must be at most 1024", where,
                       (long long)s->head_size);
    return OK;
}

static void read_qwen3_experts(struct model_spec *s, struct hf_keys *k)
{
    s->experts = hf_keys_integer(k, "num_experts", 128);
    s->experts = hf_keys_integer(k, "num_local_experts", s->experts);
    s->experts_per_token = hf_keys_integer(k, "num_experts_per_tok", 8);
    s->expert_hidden = hf_keys_integer(k, "moe_intermediate_size", 768);
    s->dense_layers = hf_keys_first_layers(k, "mlp_only_layers");
    s->score_normalise = hf_keys_truth(k, "norm_topk_prob", false);
    s->aux_loss = hf_keys_number(k, "router_aux_loss_coef", 0.001);
}

static void read_dots_experts(struct model_spec *s, struct hf_keys *k)
{
    s->experts = hf_keys_integer(k, "n_routed_experts", 0);
    s->experts_per_token = hf_keys_integer(k, "num_experts_per_tok", 0);
    s->expert_hidden = hf_keys_integer(k, "moe_intermediate_size", 1408);
    s->shared_hidden = hf_keys_integer(k, "n_shared_experts", 0) * s->expert_hidden;
    s->dense_layers = hf_keys_integer(k, "first_k_dense_replace", 0);
    s->score = SCORE_SIGMOID;
    s->score_normalise = hf_keys_truth(k, "norm_topk_prob", s->family == FAMILY_DEEPSEEK_V3);
    s->score_scale = hf_keys_number(k, "routed_scaling_factor", 1);
    s->router_bias = true;
}

/* Its latents' norms have the epsilon of transformers' code, whatever the file says of others. */
static int read_latents(struct model_spec *s, struct hf_keys *k)
{
    const bool groups = hf_keys_integer(k, "n_group", 8) != 1;
    s->head_size = hf_keys_integer(k, "qk_nope_head_dim", 128);
    s->value_size = hf_keys_integer(k, "v_head_dim", 128);
    s->latent_kv = hf_keys_integer(k, "kv_lora_rank", 512);
    const bool silent = !json_object_get(k->object, "q_lora_rank"); /* null says that it has none */
    s->latent_q = hf_keys_integer(k, "q_lora_rank", silent ? 1536 : 0);
    s->latent_rope = hf_keys_integer(k, "qk_rope_head_dim", 64);
    const bool pairs = hf_keys_truth(k, "rope_interleave", true);
    TRY(k->rc);
    if (groups)
        return err_set(ERR_FORMAT, "%s: experts in groups (n_group other than 1) are not supported",
                       k->where);
    if (!pairs)
        return err_set(ERR_FORMAT, "%s: \"rope_interleave\" is false; that is not supported",
                       k->where);
    if (s->norm_eps != 1e-6)
        return err_set(ERR_FORMAT, "%s: rms_norm_eps is %g, and norms of latents have 1e-6; "
                       "different ones are not supported", k->where, s->norm_eps);
    if (s->latent_kv < 1 || s->latent_kv > 1 << 20 || s->latent_q < 0 || s->latent_q > 1 << 20 ||
        s->latent_rope < 2 || s->latent_rope > 512 || s->value_size < 1 || s->value_size > 512)
        return err_set(ERR_FORMAT, "%s: q_lora_rank, kv_lora_rank, qk_rope_head_dim and v_head_dim "
                       "are no sizes of latent attention", k->where);
    return OK;
}

static int read_experts(struct model_spec *s, struct hf_keys *k)
{
    if (s->family == FAMILY_MIXTRAL) {
        s->experts = hf_keys_integer(k, "num_local_experts", 8);
        s->experts_per_token = hf_keys_integer(k, "num_experts_per_tok", 2);
        s->aux_loss = hf_keys_number(k, "router_aux_loss_coef", 0.001);
    } else if (s->family == FAMILY_QWEN3_MOE) {
        read_qwen3_experts(s, k);
    } else if (has_dots_experts(s->family)) {
        read_dots_experts(s, k);
    } else {
        return k->rc;
    }
    TRY(k->rc);
    if (s->experts < 1 || s->experts_per_token < 1 || s->experts_per_token > 64)
        return err_set(ERR_FORMAT, "%s: there must be experts, and from 1 to 64 of them for each "
                       "token; it has %lld and %lld", k->where, (long long)s->experts,
                       (long long)s->experts_per_token);
    return OK;
}

static int read_llama(struct model_spec *s, struct hf_keys *k, const char *type)
{
    bool mistral = strcmp(type, "mistral") == 0;
    bool bias = hf_keys_truth(k, "attention_bias", false);
    s->family = family_of(type);
    const struct silent *silent = mistral ? &silent_mistral : &llama_like[s->family].silent;
    s->positions = hf_keys_integer(k, "max_position_embeddings", silent->positions);
    s->width = hf_keys_integer(k, "hidden_size", 4096);
    s->layers = hf_keys_integer(k, "num_hidden_layers", 32);
    s->heads = hf_keys_integer(k, "num_attention_heads", 32);
    s->kv_heads = hf_keys_integer(k, "num_key_value_heads", s->heads);
    s->head_size = hf_keys_integer(k, "head_dim", s->family == FAMILY_QWEN3 ? 128 : 0);
    s->hidden = hf_keys_integer(k, "intermediate_size", 11008);
    s->norm = NORM_RMS;
    s->norm_eps = hf_keys_number(k, "rms_norm_eps", silent->norm_eps);
    s->position = POSITION_ROPE;
    s->bias_qkv = bias || s->family == FAMILY_QWEN2;
    s->bias_out = bias && s->family != FAMILY_QWEN2;
    s->bias_mlp = hf_keys_truth(k, "mlp_bias", false);
    s->qk_norm = has_qk_norm(s->family);
    s->tied = hf_keys_truth(k, "tie_word_embeddings", false);
    const char *act = hf_keys_string(k, "hidden_act", "silu");
    TRY(read_rope(s, k, silent->rope_theta));
    if (s->family == FAMILY_DEEPSEEK_V3)
        TRY(read_latents(s, k));
    TRY(read_experts(s, k));
    TRY(check_ranges(s, k->where)); /* before layers are counted */
    TRY(read_window(s, k, mistral, silent->window));
    return read_act(s, act, true, k->where);
}

int hf_config_read(struct model_spec *out, const json_t *c, const char *where,
                   struct arena *a)
{
    struct hf_keys k = { json_is_object(c) ? c : NULL, where, "", OK };
    option_set_defaults(model_spec_options, out, a);
    const char *type = hf_keys_string(&k, "model_type", "");
    out->name = arena_strdup(a, hf_keys_string(&k, "_name_or_path", type));
    out->vocab = hf_keys_integer(&k, "vocab_size", 0);
    out->init_std = hf_keys_number(&k, "initializer_range", 0.02);
    out->kv_heads = out->head_size = out->value_size = out->window = out->expert_hidden = 0;
    TRY(k.rc);
    if (strcmp(type, "gpt2") == 0)
        TRY(read_gpt2(out, &k));
    else if (family_of(type) >= 0)
        TRY(read_llama(out, &k, type));
    else if (!*type)
        return err_set(ERR_FORMAT, "%s says no model_type, so nobody knows what its weights mean; "
                       "give it one of " SUPPORTED, where);
    else
        return err_set(ERR_FORMAT, "%s: model_type '%s' is not supported; supported are "
                       SUPPORTED, where, type);
    TRY(hf_keys_neutral(&k, out->experts > 0));
    TRY(check_ranges(out, where));
    return spec_check(out, where);
}

/* --- writing ------------------------------------------------------------------------ */

static void put_common(const struct model_spec *s, const struct hf_export *how,
                       const char *type, const char *architecture, struct json *j)
{
    json_key(j, "architectures");
    json_begin_array(j);
    json_str(j, architecture);
    json_end(j);
    json_put_str(j, "model_type", type);
    json_put_int(j, "vocab_size", s->vocab);
    json_put_bool(j, "tie_word_embeddings", s->tied);
    json_put_double(j, "initializer_range", s->init_std);
    json_put_str(j, "torch_dtype", how->dtype == DTYPE_BF16 ? "bfloat16" : "float32");
    json_put_bool(j, "use_cache", true);
    json_key(j, "bos_token_id");
    how->bos >= 0 ? json_int(j, how->bos) : json_nothing(j);
    json_key(j, "eos_token_id");
    how->eos >= 0 ? json_int(j, how->eos) : json_nothing(j);
}

static int write_gpt2(const struct model_spec *s, const struct hf_export *how,
                      struct json *j)
{
    if (s->norm != NORM_LAYER || s->position != POSITION_LEARNED || !s->bias_qkv ||
        !s->bias_out || !s->bias_mlp || s->window || s->qk_norm ||
        s->kv_heads != s->heads || s->head_size * s->heads != s->width)
        return err_set(ERR_MODEL, "%s differs from GPT-2 in a way that Hugging Face's gpt2 "
                       "cannot express", s->name);
    put_common(s, how, "gpt2", "GPT2LMHeadModel", j);
    json_put_int(j, "n_positions", s->positions);
    json_put_int(j, "n_ctx", s->positions);
    json_put_int(j, "n_embd", s->width);
    json_put_int(j, "n_layer", s->layers);
    json_put_int(j, "n_head", s->heads);
    json_put_int(j, "n_inner", s->hidden);
    json_put_str(j, "activation_function", s->act == ACT_GELU ? "gelu_new" : "gelu");
    json_put_double(j, "layer_norm_epsilon", s->norm_eps);
    json_put_double(j, "attn_pdrop", 0);
    json_put_double(j, "embd_pdrop", 0);
    json_put_double(j, "resid_pdrop", 0);
    return OK;
}

static void write_rope(const struct model_spec *s, struct json *j)
{
    json_put_double(j, "rope_theta", s->rope_theta);
    json_key(j, "rope_scaling");
    if (s->rope_scaling == ROPE_PLAIN) {
        json_nothing(j);
        return;
    }
    json_begin_object(j);
    json_put_str(j, "rope_type", s->rope_scaling == ROPE_LINEAR ? "linear" : "llama3");
    json_put_double(j, "factor", s->rope_factor);
    if (s->rope_scaling == ROPE_LLAMA3) {
        json_put_double(j, "low_freq_factor", s->rope_low_factor);
        json_put_double(j, "high_freq_factor", s->rope_high_factor);
        json_put_int(j, "original_max_position_embeddings", s->rope_original);
    }
    json_end(j);
}

/* What the families with experts, and those without, cannot say. */
static const char *inexpressible_experts(const struct model_spec *s)
{
    bool dots = has_dots_experts(s->family), mixtral = s->family == FAMILY_MIXTRAL;
    if (!mixtral && !dots && s->family != FAMILY_QWEN3_MOE)
        return s->experts ? "experts need family mixtral, qwen3_moe, dots1 or deepseek_v3" : NULL;
    if (!s->experts)
        return "this family has experts";
    if ((s->score == SCORE_SIGMOID) != dots || s->router_bias != dots)
        return "sigmoid scores and a router bias go with families dots1 and deepseek_v3, and only "
               "there";
    if (mixtral && (!s->score_normalise || s->dense_layers || s->expert_hidden != s->hidden))
        return "mixtral has normalised scores, experts in all layers, of width hidden";
    if (!dots && (s->score_scale != 1 || s->shared_hidden))
        return "router.scale and a shared part need family dots1 or deepseek_v3";
    if (s->shared_hidden % i64_max(1, s->expert_hidden))
        return "shared_hidden must be a multiple of expert_hidden";
    return NULL;
}

/* What the llama-like families cannot say. */
static const char *inexpressible(const struct model_spec *s)
{
    if (s->norm != NORM_RMS || s->position != POSITION_ROPE || s->act != ACT_SWIGLU)
        return "rmsnorm, rope and swiglu are required";
    if (s->family == FAMILY_QWEN2 && (!s->bias_qkv || s->bias_out || s->bias_mlp))
        return "qwen2 has biases on query, key and value only";
    if (s->family != FAMILY_QWEN2 && s->bias_qkv != s->bias_out)
        return "biases of qkv and out go together";
    if (s->family != FAMILY_LLAMA && s->bias_mlp)
        return "there is no bias in the feed-forward part";
    if (spec_is_latent(s) != (s->family == FAMILY_DEEPSEEK_V3))
        return "latent attention goes with family deepseek_v3, and only there";
    if (spec_is_latent(s) && (s->norm_eps != 1e-6 || s->window || s->bias_out))
        return "latent attention has norm_eps 1e-6, no window and no biases";
    if (s->qk_norm != has_qk_norm(s->family))
        return "qk_norm goes with families qwen3, qwen3_moe and dots1, and only there";
    if (s->family == FAMILY_LLAMA && s->window && (s->bias_qkv || s->bias_mlp))
        return "a sliding window (mistral) has no biases";
    if (s->family == FAMILY_MIXTRAL && s->bias_qkv)
        return "mixtral has no biases";
    return inexpressible_experts(s);
}

static void write_latents(const struct model_spec *s, struct json *j)
{
    json_key(j, "q_lora_rank");
    s->latent_q > 0 ? json_int(j, s->latent_q) : json_nothing(j);
    json_put_int(j, "kv_lora_rank", s->latent_kv);
    json_put_int(j, "qk_nope_head_dim", s->head_size);
    json_put_int(j, "qk_rope_head_dim", s->latent_rope);
    json_put_int(j, "v_head_dim", spec_value_size(s));
    json_put_bool(j, "rope_interleave", true);
    json_put_int(j, "num_nextn_predict_layers", 0);
}

static void write_experts(const struct model_spec *s, struct json *j)
{
    bool mixtral = s->family == FAMILY_MIXTRAL, dots = has_dots_experts(s->family);
    json_put_int(j, mixtral ? "num_local_experts" : dots ? "n_routed_experts" : "num_experts",
                 s->experts);
    json_put_int(j, "num_experts_per_tok", s->experts_per_token);
    if (!dots)
        json_put_double(j, "router_aux_loss_coef", s->aux_loss);
    if (mixtral)
        return;
    json_put_int(j, "moe_intermediate_size", s->expert_hidden);
    json_put_bool(j, "norm_topk_prob", s->score_normalise);
    if (dots) {
        json_put_int(j, "n_shared_experts", s->shared_hidden / s->expert_hidden);
        json_put_int(j, "first_k_dense_replace", s->dense_layers);
        json_put_double(j, "routed_scaling_factor", s->score_scale);
        json_put_int(j, "n_group", 1);
        json_put_int(j, "topk_group", 1);
        return;
    }
    json_put_int(j, "decoder_sparse_step", 1);
    json_key(j, "mlp_only_layers");
    json_begin_array(j);
    for (i64 i = 0; i < s->dense_layers; i++)
        json_int(j, i);
    json_end(j);
}

static int write_llama(const struct model_spec *s, const struct hf_export *how,
                       struct json *j)
{
    const char *why = inexpressible(s);
    if (why)
        return err_set(ERR_MODEL, "%s has no place in Hugging Face's families: %s", s->name,
                       why);
    bool mistral = s->family == FAMILY_LLAMA && s->window > 0;
    put_common(s, how, mistral ? "mistral" : llama_like[s->family].type,
               mistral ? "MistralForCausalLM" : llama_like[s->family].architecture, j);
    json_put_int(j, "max_position_embeddings", s->positions);
    json_put_int(j, "hidden_size", s->width);
    json_put_int(j, "num_hidden_layers", s->layers);
    json_put_int(j, "num_attention_heads", s->heads);
    json_put_int(j, "num_key_value_heads", s->kv_heads);
    json_put_int(j, "head_dim", spec_is_latent(s) ? s->latent_rope : s->head_size);
    json_put_int(j, "intermediate_size", s->hidden);
    json_put_str(j, "hidden_act", "silu");
    json_put_double(j, "rms_norm_eps", s->norm_eps);
    json_put_bool(j, "attention_bias", s->bias_out);
    json_put_bool(j, "mlp_bias", s->bias_mlp);
    json_put_double(j, "attention_dropout", 0);
    if (s->window) {
        json_put_int(j, "sliding_window", s->window);
        json_put_bool(j, "use_sliding_window", true);
        json_put_int(j, "max_window_layers", 0);
    } else if (s->family == FAMILY_DOTS1) { /* whose default has one */
        json_key(j, "sliding_window");
        json_nothing(j);
    }
    if (spec_is_latent(s))
        write_latents(s, j);
    if (s->experts > 0)
        write_experts(s, j);
    write_rope(s, j);
    return OK;
}

int hf_config_write(const struct model_spec *s, const struct hf_export *how,
                    struct json *out)
{
    out->indent = true;
    json_begin_object(out);
    if (s->family == FAMILY_GPT2)
        TRY(write_gpt2(s, how, out));
    else
        TRY(write_llama(s, how, out));
    json_end(out);
    text_add(&out->out, "\n");
    return OK;
}
