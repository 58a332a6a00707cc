#include "model/spec.h"

#include "base/err.h"
#include "base/recipe.h"
#include "base/sys.h"
#include "base/text.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define FIELD(kind, name) OPTION_FIELD(kind, struct model_spec, name)

const struct option model_spec_options[] = {
    { "name", FIELD(STRING, name), "unnamed", .help = "What to call the model." },
    { "family", FIELD(CHOICE, family), "llama",
      .choices = "gpt2|llama|qwen2|qwen3|mixtral|qwen3_moe|dots1|deepseek_v3",
      .help = "How the model is laid out in Hugging Face folders." },
    { "vocab", FIELD(INT, vocab), "0", .unit = "tokens", .min = 0, .max = 1 << 24,
      .help = "Size of the vocabulary; 0 takes the tokenizer's." },
    { "positions", FIELD(INT, positions), "1024", .unit = "tokens", .min = 1, .max = 1 << 24,
      .help = "Longest sequence." },
    { "layers", FIELD(INT, layers), "12", .min = 1, .max = 4096, .help = "Number of blocks." },
    { "width", FIELD(INT, width), "768", .min = 1, .max = 1 << 20,
      .help = "Width of the residual stream." },
    { "heads", FIELD(INT, heads), "12", .min = 1, .max = 4096, .help = "Query heads." },
    { "kv_heads", FIELD(INT, kv_heads), "0", .min = 0, .max = 4096,
      .help = "Key and value heads (grouped-query attention); 0: as many as heads." },
    { "head_size", FIELD(INT, head_size), "0", .min = 0, .max = 1024,
      .help = "Size of a head; 0: width / heads." },
    { "value_size", FIELD(INT, value_size), "0", .min = 0, .max = 1024,
      .help = "Size of a value head, with latent attention; 0: as head_size." },
    { "latent.kv_rank", FIELD(INT, latent_kv), "0", .min = 0, .max = 1 << 20,
      .help = "Latent attention: keys and values are made of so many numbers of a row; 0: of the "
              "row itself." },
    { "latent.q_rank", FIELD(INT, latent_q), "0", .min = 0, .max = 1 << 20,
      .help = "The same of queries." },
    { "latent.rope_size", FIELD(INT, latent_rope), "0", .min = 0, .max = 512,
      .help = "Latent attention: rotary columns of a query or key head, beside head_size; the "
              "key's are the same for all heads." },
    { "hidden", FIELD(INT, hidden), "3072", .min = 1, .max = 1 << 22,
      .help = "Width of the feed-forward network." },
    { "experts", FIELD(INT, experts), "0", .min = 0, .max = 4096,
      .help = "Experts in each sparse layer; 0: all layers are dense." },
    { "experts_per_token", FIELD(INT, experts_per_token), "2", .min = 1, .max = 64,
      .help = "To how many experts the router sends a token." },
    { "expert_hidden", FIELD(INT, expert_hidden), "0", .min = 0, .max = 1 << 22,
      .help = "Width of one expert; 0: as hidden." },
    { "shared_hidden", FIELD(INT, shared_hidden), "0", .min = 0, .max = 1 << 22,
      .help = "Width of a feed-forward network beside the experts, for every token; 0: none." },
    { "dense_layers", FIELD(INT, dense_layers), "0", .min = 0, .max = 4096,
      .help = "How many of the first layers have no experts." },
    { "router.score", FIELD(CHOICE, score), "softmax", .choices = "softmax|sigmoid",
      .help = "What makes a score of an expert's logit." },
    { "router.normalise", FIELD(BOOL, score_normalise), "true",
      .help = "Divide the scores of a token's experts by their sum." },
    { "router.scale", FIELD(FLOAT, score_scale), "1", .min = 1e-6, .max = 1e6,
      .help = "Multiply them by this." },
    { "router.bias", FIELD(BOOL, router_bias), "false",
      .help = "Choose experts by score plus a bias that follows their load." },
    { "router.groups", FIELD(INT, groups), "0", .min = 0, .max = 4096,
      .help = "Groups of experts, of which a token's experts are in a few; 0: none. Plans price "
              "it, training does not have the rule." },
    { "router.group_limit", FIELD(INT, group_limit), "0", .min = 0, .max = 4096,
      .help = "In at most so many of them." },
    { "router.bias_rate", FIELD(FLOAT, bias_rate), "0.001", .min = 0, .max = 1,
      .help = "How far that bias moves in a step." },
    { "router.aux_loss", FIELD(FLOAT, aux_loss), "0", .min = 0, .max = 1e3,
      .help = "Coefficient of the loss that balances the experts within a sequence." },
    { "router.z_loss", FIELD(FLOAT, router_z_loss), "0", .min = 0, .max = 1e3,
      .help = "Coefficient of the loss that keeps the router's logits small." },
    { "router.capacity", FIELD(FLOAT, capacity), "0", .min = 0, .max = 1e3,
      .help = "In training, most tokens of a sequence that one expert takes, as a multiple of an "
              "even share; the rest skip it. 0: no limit." },
    { "norm", FIELD(CHOICE, norm), "rmsnorm", .choices = "layernorm|rmsnorm",
      .help = "Normalisation in front of each part." },
    { "norm_eps", FIELD(FLOAT, norm_eps), "1e-5", .min = 1e-12, .max = 1e-2,
      .help = "Added to the variance." },
    { "activation", FIELD(CHOICE, act), "swiglu", .choices = "gelu|gelu_exact|swiglu",
      .help = "Non-linearity of the feed-forward network." },
    { "position", FIELD(CHOICE, position), "rope", .choices = "learned|rope",
      .help = "How positions enter." },
    { "bias.qkv", FIELD(BOOL, bias_qkv), "false", .help = "Biases of query, key, value." },
    { "bias.out", FIELD(BOOL, bias_out), "false", .help = "Bias of attention's output." },
    { "bias.mlp", FIELD(BOOL, bias_mlp), "false", .help = "Biases of the feed-forward part." },
    { "qk_norm", FIELD(BOOL, qk_norm), "false",
      .help = "RMS-normalise query and key heads (Qwen3)." },
    { "tied", FIELD(BOOL, tied), "false", .help = "The LM head is the token embedding." },
    { "mtp.depth", FIELD(INT, mtp_depth), "0", .min = 0, .max = 8,
      .help = "Multi-token prediction: so many more tokens are predicted, each by one more "
              "block behind a projection, with the same embedding and head. Plans price it, "
              "training does not build it." },
    { "window", FIELD(INT, window), "0", .unit = "tokens", .min = 0, .max = 1 << 24,
      .help = "Sliding-window attention: how many tokens a token sees; 0: all before it." },
    { "rope.theta", FIELD(FLOAT, rope_theta), "10000", .min = 1, .max = 1e12,
      .help = "Base of the rotary frequencies." },
    { "rope.scaling", FIELD(CHOICE, rope_scaling), "none", .choices = "none|linear|llama3",
      .help = "How rotary frequencies are stretched for longer sequences." },
    { "rope.factor", FIELD(FLOAT, rope_factor), "1", .min = 1, .max = 1e6,
      .help = "How far they are stretched." },
    { "rope.low_factor", FIELD(FLOAT, rope_low_factor), "1", .min = 1e-3, .max = 1e3,
      .help = "llama3: wavelengths above original / low_factor are divided by factor." },
    { "rope.high_factor", FIELD(FLOAT, rope_high_factor), "4", .min = 1e-3, .max = 1e3,
      .help = "llama3: wavelengths below original / high_factor are kept." },
    { "rope.original", FIELD(INT, rope_original), "8192", .unit = "tokens", .min = 1,
      .max = 1 << 24, .help = "llama3: sequence length before stretching." },
    { "init.std", FIELD(FLOAT, init_std), "0.02", .min = 0, .max = 10,
      .help = "Deviation of the normal initialisation." },
    { "init.residual", FIELD(BOOL, init_residual), "true",
      .help = "Divide it by sqrt(2 layers) where a matrix writes the residual stream." },
    { 0 },
};

static bool is_file(const char *path)
{
    struct stat st;
    return sys_stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

/* Offers the names of the folder's specs; the nearest so far lies in `kept`. */
static void offer_specs(const char *folder, struct nearest *nearest, char *kept, i64 capacity)
{
    char **names;
    int n = sys_list(folder, &names);
    for (int i = 0; i < n; i++) {
        char *end = strrchr(names[i], '.');
        if (end && strcmp(end, ".yaml") == 0) {
            *end = '\0';
            nearest_offer(nearest, names[i]);
        }
    }
    if (nearest->best && nearest->best != kept) {
        snprintf(kept, (size_t)capacity, "%s", nearest->best);
        nearest->best = kept;
    }
    if (n >= 0)
        sys_free(names);
}

int spec_find(const char *name, char *path, i64 capacity)
{
    char kept[128];
    struct nearest nearest = { .typed = name };
    const char *folders[] = { sys_getenv("HEADWAY_MODELS"), "models",
                              HEADWAY_SOURCE_DIR "/models" };
    if (is_file(name)) {
        snprintf(path, (size_t)capacity, "%s", name);
        return OK;
    }
    for (i64 i = 0; i < COUNT_OF(folders) && !strchr(name, '/'); i++) {
        if (!folders[i])
            continue;
        snprintf(path, (size_t)capacity, "%s/%s.yaml", folders[i], name);
        if (is_file(path))
            return OK;
        offer_specs(folders[i], &nearest, kept, sizeof kept);
    }
    const char *near = nearest_found(&nearest);
    return err_set(ERR_CONFIG, "no model '%s': it is neither a file nor a name in models/; "
                   "%s%s%s'headway model list' shows the names", name, near ? "did you mean '" : "",
                   near ? near : "", near ? "'? " : "");
}

static int refuse(const char *where, const char *what)
{
    return err_set(ERR_CONFIG, "%s: %s", where, what);
}

static int check_experts(struct model_spec *s, const char *where)
{
    s->expert_hidden = s->expert_hidden ? s->expert_hidden : s->hidden;
    if (s->experts_per_token > s->experts)
        return err_set(ERR_CONFIG, "%s: experts_per_token (%lld) is more than experts (%lld)",
                       where, (long long)s->experts_per_token, (long long)s->experts);
    if (s->dense_layers >= s->layers)
        return err_set(ERR_CONFIG, "%s: dense_layers (%lld) leaves none of the %lld layers to the "
                       "experts; leave experts out", where, (long long)s->dense_layers,
                       (long long)s->layers);
    if ((s->groups > 0) != (s->group_limit > 0) || s->group_limit > s->groups ||
        (s->groups > 0 && s->experts % s->groups))
        return refuse(where, "router.groups divides experts, and router.group_limit is 1 up to "
                      "router.groups; give both, or neither");
    if (s->act != ACT_SWIGLU)
        return refuse(where, "experts need activation swiglu");
    if (s->bias_mlp)
        return refuse(where, "experts have no biases; leave bias.mlp out");
    if (s->capacity > 0 && s->capacity < 1)
        return refuse(where, "router.capacity below 1 drops tokens even when the experts are "
                      "perfectly balanced; use 0 (no limit) or at least 1");
    return OK;
}

enum { LARGEST_HEAD = 512 }; /* kernels': ops/kit.h */

static int check_latent(struct model_spec *s, const char *where)
{
    if (!spec_is_latent(s) && (s->latent_q || s->latent_rope || s->value_size))
        return refuse(where, "value_size, latent.q_rank and latent.rope_size go with "
                      "latent.kv_rank; give that, or leave them out");
    if (!spec_is_latent(s))
        return OK;
    s->value_size = spec_value_size(s);
    if (s->latent_rope < 2 || s->latent_rope % 2)
        return refuse(where, "latent.rope_size must be even and at least 2");
    if (s->position != POSITION_ROPE || s->norm != NORM_RMS)
        return refuse(where, "latent attention has position rope and norm rmsnorm");
    if (s->kv_heads != s->heads)
        return refuse(where, "latent attention has a key and a value for each query head; leave "
                      "kv_heads out");
    if (s->qk_norm || s->bias_qkv)
        return refuse(where, "latent attention has neither qk_norm nor bias.qkv");
    if (spec_key_size(s) > LARGEST_HEAD || spec_value_size(s) > LARGEST_HEAD)
        return refuse(where, "a head of latent attention has at most 512 columns");
    return OK;
}

int spec_check(struct model_spec *s, const char *where)
{
    s->kv_heads = s->kv_heads ? s->kv_heads : s->heads;
    if (s->heads % s->kv_heads)
        return err_set(ERR_CONFIG, "%s: heads (%lld) must be a multiple of kv_heads (%lld)",
                       where, (long long)s->heads, (long long)s->kv_heads);
    if (!s->head_size && s->width % s->heads)
        return err_set(ERR_CONFIG, "%s: width (%lld) must be a multiple of heads (%lld), or "
                       "head_size be given", where, (long long)s->width, (long long)s->heads);
    s->head_size = s->head_size ? s->head_size : s->width / s->heads;
    TRY(check_latent(s, where));
    if (s->position == POSITION_ROPE && !spec_is_latent(s) && s->head_size % 2)
        return refuse(where, "head_size must be even for rotary positions");
    if (s->family == FAMILY_GPT2 && s->act == ACT_SWIGLU)
        return refuse(where, "family gpt2 has no swiglu; use gelu, or family llama");
    return s->experts > 0 ? check_experts(s, where) : OK;
}

int spec_load(struct model_spec *out, const char *path_or_name, struct arena *a)
{
    char path[4096];
    const struct yaml_node *root;
    TRY(spec_find(path_or_name, path, sizeof path));
    TRY(yaml_load(path, a, &root));
    if (root->kind == YAML_SCALAR && root->text && *root->text)
        return err_set(ERR_CONFIG, "%s describes no model: it has no keys, such as 'layers: 12'",
                       path);
    if (root->count == 0)
        return err_set(ERR_CONFIG, "%s describes no model: it is empty", path);
    TRY(recipe_read_map(model_spec_options, out, root, a));
    return spec_check(out, arena_strdup(a, path));
}

void spec_write_yaml(const struct model_spec *s, struct text *out)
{
    for (const struct option *o = model_spec_options; o->key; o++) {
        text_printf(out, "%s: ", o->key);
        option_format(o, s, out);
        text_add(out, "\n");
    }
}

/* What initial weights are like is forgotten once there are weights, and what only training
 * does to a router changes no logit. */
static bool matters(const struct option *o)
{
    static const char *const training[] = { "router.bias_rate", "router.aux_loss",
                                            "router.z_loss", "router.capacity" };
    for (i64 i = 0; i < COUNT_OF(training); i++)
        if (strcmp(o->key, training[i]) == 0)
            return false;
    return strcmp(o->key, "name") != 0 && strncmp(o->key, "init.", 5) != 0;
}

const char *spec_difference(const struct model_spec *a, const struct model_spec *b)
{
    const char *key = NULL;
    struct text x = { 0 }, y = { 0 };
    for (const struct option *o = model_spec_options; o->key && !key; o++) {
        text_clear(&x);
        text_clear(&y);
        option_format(o, a, &x);
        option_format(o, b, &y);
        if (matters(o) && strcmp(x.data, y.data) != 0)
            key = o->key;
    }
    text_fini(&x);
    text_fini(&y);
    return key;
}

/* The blend of Llama 3.1: scale between the wavelengths original/low and original/high. */
static double llama3_frequency(const struct model_spec *s, double f)
{
    double wavelength = 2 * 3.14159265358979323846 / f;
    double original = (double)s->rope_original;
    if (wavelength < original / s->rope_high_factor)
        return f;
    if (wavelength > original / s->rope_low_factor)
        return f / s->rope_factor;
    double smooth = (original / wavelength - s->rope_low_factor) /
                    (s->rope_high_factor - s->rope_low_factor);
    return (1 - smooth) * f / s->rope_factor + smooth * f;
}

void spec_rope_frequencies(const struct model_spec *s, double *out)
{
    const i64 n = spec_rope_size(s);
    for (i64 i = 0; i < n / 2; i++) {
        double f = pow(s->rope_theta, -2.0 * (double)i / (double)n);
        if (s->rope_scaling == ROPE_LINEAR)
            f /= s->rope_factor;
        else if (s->rope_scaling == ROPE_LLAMA3)
            f = llama3_frequency(s, f);
        out[i] = f;
    }
}
