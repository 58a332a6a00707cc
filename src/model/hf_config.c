#include "model/hf_config.h"

#include "base/err.h"
#include "model/hf_keys.h"

#include <string.h>

/* --- reading ----------------------------------------------------------------------------- */

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

/* rope_scaling of transformers 4, rope_parameters of transformers 5. */
static int read_rope(struct model_spec *s, struct hf_keys *k)
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
    s->rope_theta = hf_keys_number(&r, "rope_theta", hf_keys_number(k, "rope_theta", 10000));
    s->rope_factor = hf_keys_number(&r, "factor", 1);
    s->rope_low_factor = hf_keys_number(&r, "low_freq_factor", 1);
    s->rope_high_factor = hf_keys_number(&r, "high_freq_factor", 4);
    s->rope_original = hf_keys_integer(&r, "original_max_position_embeddings", 8192);
    TRY(k->rc);
    TRY(r.rc);
    s->rope_scaling = strcmp(kind, "linear") == 0   ? ROPE_LINEAR
                      : strcmp(kind, "llama3") == 0 ? ROPE_LLAMA3
                                                    : ROPE_PLAIN;
    if (s->rope_scaling == ROPE_PLAIN && strcmp(kind, "default") != 0)
        return err_set(ERR_FORMAT, "%s: rotary scaling '%s' is not supported; supported are "
                       "linear and llama3", k->where, kind);
    if (!(s->rope_theta > 0) || !(s->rope_factor >= 1) || !(s->rope_low_factor > 0) ||
        !(s->rope_high_factor > s->rope_low_factor) || s->rope_original < 1)
        return err_set(ERR_FORMAT, "%s: rotary scaling needs rope_theta > 0, factor >= 1, "
                       "0 < low_freq_factor < high_freq_factor and positive "
                       "original_max_position_embeddings", k->where);
    TRY(hf_keys_neutral(&r));
    return hf_keys_only(&r, known, COUNT_OF(known));
}

static int read_window(struct model_spec *s, struct hf_keys *k, bool mistral)
{
    bool used = hf_keys_truth(k, "use_sliding_window", false) || mistral;
    i64 window = hf_keys_integer(k, "sliding_window", 0);
    i64 first = mistral ? 0 : hf_keys_integer(k, "max_window_layers", 0);
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
                   { "intermediate_size", s->hidden, 1 << 22 } };
    for (i64 i = 0; i < COUNT_OF(limits); i++)
        if (limits[i].value < (i == 5 ? 0 : 1) || limits[i].value > limits[i].most)
            return err_set(ERR_FORMAT, "%s: %s is %lld; it must be between 1 and %lld", where,
                           limits[i].name, (long long)limits[i].value,
                           (long long)limits[i].most);
    if (s->head_size < 0 || s->head_size > 1024)
        return err_set(ERR_FORMAT, "%s: head_dim is %lld; it must be at most 1024", where,
                       (long long)s->head_size);
    return OK;
}

static int read_llama(struct model_spec *s, struct hf_keys *k, const char *type)
{
    bool mistral = strcmp(type, "mistral") == 0;
    bool bias = hf_keys_truth(k, "attention_bias", false);
    s->family = strcmp(type, "qwen2") == 0   ? FAMILY_QWEN2
                : strcmp(type, "qwen3") == 0 ? FAMILY_QWEN3
                                             : FAMILY_LLAMA;
    s->positions = hf_keys_integer(k, "max_position_embeddings", 2048);
    s->width = hf_keys_integer(k, "hidden_size", 4096);
    s->layers = hf_keys_integer(k, "num_hidden_layers", 32);
    s->heads = hf_keys_integer(k, "num_attention_heads", 32);
    s->kv_heads = hf_keys_integer(k, "num_key_value_heads", s->heads);
    s->head_size = hf_keys_integer(k, "head_dim", s->family == FAMILY_QWEN3 ? 128 : 0);
    s->hidden = hf_keys_integer(k, "intermediate_size", 11008);
    s->norm = NORM_RMS;
    s->norm_eps = hf_keys_number(k, "rms_norm_eps", 1e-6);
    s->position = POSITION_ROPE;
    s->bias_qkv = bias || s->family == FAMILY_QWEN2;
    s->bias_out = bias && s->family != FAMILY_QWEN2;
    s->bias_mlp = hf_keys_truth(k, "mlp_bias", false);
    s->qk_norm = s->family == FAMILY_QWEN3;
    s->tied = hf_keys_truth(k, "tie_word_embeddings", false);
    const char *act = hf_keys_string(k, "hidden_act", "silu");
    TRY(read_rope(s, k));
    TRY(check_ranges(s, k->where)); /* before layers are counted */
    TRY(read_window(s, k, mistral));
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
    out->kv_heads = out->head_size = out->window = 0;
    TRY(k.rc);
    if (strcmp(type, "gpt2") == 0)
        TRY(read_gpt2(out, &k));
    else if (strcmp(type, "llama") == 0 || strcmp(type, "mistral") == 0 ||
             strcmp(type, "qwen2") == 0 || strcmp(type, "qwen3") == 0)
        TRY(read_llama(out, &k, type));
    else
        return err_set(ERR_FORMAT, "%s: model_type '%s' is not supported; supported are gpt2, "
                       "llama, mistral, qwen2 and qwen3", where, type);
    TRY(hf_keys_neutral(&k));
    TRY(check_ranges(out, where));
    return spec_check(out, where);
}

/* --- writing ----------------------------------------------------------------------------- */

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

/* What the three llama-like families cannot say. */
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
    if (s->qk_norm != (s->family == FAMILY_QWEN3))
        return "qk_norm and family qwen3 go together";
    if (s->family == FAMILY_LLAMA && s->window && (s->bias_qkv || s->bias_mlp))
        return "a sliding window (mistral) has no biases";
    return NULL;
}

static int write_llama(const struct model_spec *s, const struct hf_export *how,
                       struct json *j)
{
    static const char *const names[][2] = {
        [FAMILY_LLAMA] = { "llama", "LlamaForCausalLM" },
        [FAMILY_QWEN2] = { "qwen2", "Qwen2ForCausalLM" },
        [FAMILY_QWEN3] = { "qwen3", "Qwen3ForCausalLM" },
    };
    const char *why = inexpressible(s);
    if (why)
        return err_set(ERR_MODEL, "%s has no place in Hugging Face's families: %s", s->name,
                       why);
    bool mistral = s->family == FAMILY_LLAMA && s->window > 0;
    put_common(s, how, mistral ? "mistral" : names[s->family][0],
               mistral ? "MistralForCausalLM" : names[s->family][1], j);
    json_put_int(j, "max_position_embeddings", s->positions);
    json_put_int(j, "hidden_size", s->width);
    json_put_int(j, "num_hidden_layers", s->layers);
    json_put_int(j, "num_attention_heads", s->heads);
    json_put_int(j, "num_key_value_heads", s->kv_heads);
    json_put_int(j, "head_dim", s->head_size);
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
    }
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
