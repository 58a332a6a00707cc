#include "model/hf_keys.h"

#include "base/err.h"

#include <string.h>

/* --- reading by type ---------------------------------------------------------------- */

static const char *type_name(const json_t *v)
{
    static const char *const names[] = {
        [JSON_OBJECT] = "an object", [JSON_ARRAY] = "a list",      [JSON_STRING] = "text",
        [JSON_INTEGER] = "a number", [JSON_REAL] = "a number",     [JSON_TRUE] = "true",
        [JSON_FALSE] = "false",      [JSON_NULL] = "null",
    };
    return names[json_typeof(v)];
}

/* NULL when the key is absent or null. */
static const json_t *find(const struct hf_keys *k, const char *key)
{
    const json_t *v = json_object_get(k->object, key);
    return json_is_null(v) ? NULL : v;
}

static void wrong_type(struct hf_keys *k, const char *key, const json_t *v, const char *want)
{
    if (k->rc < 0)
        return;
    k->rc = err_set(ERR_FORMAT, "%s: \"%s%s\" is %s; it must be %s", k->where, k->prefix, key,
                    json_is_real(v) ? "a fraction" : type_name(v), want);
}

i64 hf_keys_integer(struct hf_keys *k, const char *key, i64 fallback)
{
    const json_t *v = find(k, key);
    if (json_is_integer(v))
        return (i64)json_integer_value(v);
    if (v)
        wrong_type(k, key, v, "a whole number");
    return fallback;
}

double hf_keys_number(struct hf_keys *k, const char *key, double fallback)
{
    const json_t *v = find(k, key);
    if (json_is_number(v))
        return json_number_value(v);
    if (v)
        wrong_type(k, key, v, "a number");
    return fallback;
}

bool hf_keys_truth(struct hf_keys *k, const char *key, bool fallback)
{
    const json_t *v = find(k, key);
    if (json_is_boolean(v))
        return json_is_true(v);
    if (v)
        wrong_type(k, key, v, "true or false");
    return fallback;
}

const char *hf_keys_string(struct hf_keys *k, const char *key, const char *fallback)
{
    const json_t *v = find(k, key);
    if (json_is_string(v))
        return json_string_value(v);
    if (v)
        wrong_type(k, key, v, "text");
    return fallback;
}

struct hf_keys hf_keys_object(struct hf_keys *k, const char *key, const char *prefix)
{
    const json_t *v = find(k, key);
    if (v && !json_is_object(v))
        wrong_type(k, key, v, "an object");
    return (struct hf_keys){ json_is_object(v) ? v : NULL, k->where, prefix, k->rc };
}

/* --- surprises ---------------------------------------------------------------------- */

/* Keys that change what a model computes, read by transformers for one of our families, by
 * its relatives whose config.json was given our model_type, or by code that a folder
 * brings along. Dropout is not among them: it changes no logit, and training here has
 * none. */
static const struct {
    const char *key;
    enum { ABSENT, ALWAYS_FALSE, ALWAYS_TRUE, VALUE, DENSE } neutral; /* DENSE: see header */
    double value;
} surprises[] = {
    { "quantization_config", ABSENT, 0 },
    { "compression_config", ABSENT, 0 },
    { "auto_map", ABSENT, 0 }, /* code of its own */
    { "partial_rotary_factor", VALUE, 1 },
    { "rope_interleaved", ALWAYS_FALSE, 0 },
    { "use_mrope", ALWAYS_FALSE, 0 },
    { "no_rope_layers", ABSENT, 0 },
    { "scale_attn_weights", ALWAYS_TRUE, 0 },
    { "scale_attn_by_inverse_layer_idx", ALWAYS_FALSE, 0 },
    { "attention_multiplier", ABSENT, 0 },
    { "query_pre_attn_scalar", ABSENT, 0 },
    { "attn_logit_softcapping", ABSENT, 0 },
    { "final_logit_softcapping", ABSENT, 0 },
    { "attention_chunk_size", ABSENT, 0 },
    { "clip_qkv", ABSENT, 0 },
    { "is_causal", ALWAYS_TRUE, 0 },
    { "use_bidirectional_attention", ALWAYS_FALSE, 0 },
    { "add_cross_attention", ALWAYS_FALSE, 0 },
    { "is_encoder_decoder", ALWAYS_FALSE, 0 },
    { "embedding_multiplier", VALUE, 1 },
    { "residual_multiplier", VALUE, 1 },
    { "logit_scale", VALUE, 1 },
    { "logits_scaling", VALUE, 1 },
    { "num_experts", DENSE, 0 },
    { "num_local_experts", DENSE, 0 },
    { "n_routed_experts", DENSE, 0 },
    { "decoder_sparse_step", VALUE, 1 },
    { "moe_layer_freq", VALUE, 1 },
    { "n_group", VALUE, 1 },
    { "topk_group", VALUE, 1 },
    { "router_jitter_noise", VALUE, 0 },
    { "pruned_heads", ABSENT, 0 },
};

static bool is_neutral(i64 i, const json_t *v)
{
    switch (surprises[i].neutral) {
    case ALWAYS_FALSE: return json_is_false(v);
    case ALWAYS_TRUE: return json_is_true(v);
    case DENSE:
    case VALUE: return json_is_number(v) && json_number_value(v) == surprises[i].value;
    default: return json_is_object(v) && json_object_size(v) == 0;
    }
}

int hf_keys_neutral(const struct hf_keys *k, bool sparse)
{
    for (i64 i = 0; i < COUNT_OF(surprises); i++) {
        const json_t *v = find(k, surprises[i].key);
        if (!v || is_neutral(i, v) || (sparse && surprises[i].neutral == DENSE))
            continue;
        char text[60];
        size_t n = json_dumpb(v, text, sizeof text, JSON_ENCODE_ANY | JSON_COMPACT);
        return err_set(ERR_FORMAT, "%s: \"%s%s\" is %.*s%s; that is not supported", k->where,
                       k->prefix, surprises[i].key, (int)i64_min((i64)n, sizeof text), text,
                       n > sizeof text ? "..." : "");
    }
    return OK;
}

i64 hf_keys_first_layers(struct hf_keys *k, const char *key)
{
    const json_t *list = find(k, key);
    i64 n = (i64)json_array_size(list), sum = 0;
    bool good = !list || json_is_array(list);
    for (i64 i = 0; i < n && good; i++) {
        i64 layer = json_integer_value(json_array_get(list, (size_t)i));
        good = json_is_integer(json_array_get(list, (size_t)i)) && layer >= 0 && layer < n;
        sum += layer;
    }
    if ((!good || sum != n * (n - 1) / 2) && k->rc >= 0)
        k->rc = err_set(ERR_FORMAT, "%s: \"%s%s\" must list the first layers, from 0 on without "
                        "gaps; others are not supported", k->where, k->prefix, key);
    return n;
}

int hf_keys_layer_types(const struct hf_keys *k, i64 layers, bool window)
{
    const char *want = window ? "sliding_attention" : "full_attention";
    const json_t *list = find(k, "layer_types");
    if (!list)
        return OK;
    if (!json_is_array(list) || (i64)json_array_size(list) != layers)
        return err_set(ERR_FORMAT, "%s: \"layer_types\" must be a list with one kind of "
                       "attention for each of the %lld layers", k->where, (long long)layers);
    for (i64 i = 0; i < layers; i++) {
        const char *kind = json_string_value(json_array_get(list, (size_t)i));
        if (!kind || strcmp(kind, want) != 0)
            return err_set(ERR_FORMAT, "%s: \"layer_types\" has %s for layer %lld, where the "
                           "other keys ask for %s in all layers; that is not supported",
                           k->where, kind ? kind : "no text", (long long)i, want);
    }
    return OK;
}

int hf_keys_only(const struct hf_keys *k, const char *const *known, i64 n)
{
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)k->object, key, v) {
        i64 i = 0;
        while (i < n && strcmp(known[i], key) != 0)
            i++;
        if (i == n && !json_is_null(v))
            return err_set(ERR_FORMAT, "%s: \"%s%s\" is not supported", k->where, k->prefix,
                           key);
    }
    return OK;
}
