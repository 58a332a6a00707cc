#include "test.h"

#include "base/log.h"
#include "base/sys.h"
#include "base/text.h"
#include "base/yaml.h"
#include "base/recipe.h"
#include "model/hf_config.h"
#include "model/model.h"
#include "model/weights.h"

#include <fcntl.h>
#include <math.h>

static struct model_spec load(const char *name, struct arena *a)
{
    struct model_spec s;
    CHECK_OK(spec_load(&s, name, a));
    return s;
}

/* The counts that the models' publishers give (Hugging Face model cards; GPT-2: its code). */
TEST(parameter_counts_are_the_published_ones)
{
    static const struct {
        const char *name;
        i64 count;
    } known[] = {
        { "gpt2-124m", 124439808 },   { "gpt2-355m", 354823168 },  { "gpt2-774m", 774030080 },
        { "gpt2-1558m", 1557611200 }, { "llama2-7b", 6738415616 }, { "llama3-8b", 8030261248 },
        { "llama3.1-8b", 8030261248 }, { "llama3.2-1b", 1235814400 },
        { "llama3.2-3b", 3212749824 }, { "qwen2.5-0.5b", 494032768 },
        { "qwen2.5-1.5b", 1543714304 }, { "qwen3-0.6b", 596049920 },
        { "qwen3-1.7b", 1720574976 }, { "mixtral-8x7b", 46702792704 },
        { "qwen3-30b-a3b", 30532122624 },
    };
    struct arena a;
    arena_init(&a);
    for (i64 i = 0; i < COUNT_OF(known); i++) {
        struct model_spec s = load(known[i].name, &a);
        CHECK_EQ(params_total(&s), known[i].count);
    }
    arena_fini(&a);
}

/* "12.9B active parameters" (Jiang et al. 2024, section 1) and "3.3B activated" (Qwen3's model
 * card): without the embedding, which only looks up a row, they round to these. */
TEST(active_parameters_are_the_published_ones)
{
    struct arena a;
    arena_init(&a);
    struct model_spec mixtral = load("mixtral-8x7b", &a), qwen = load("qwen3-30b-a3b", &a);
    struct model_spec dense = load("llama3-8b", &a);
    CHECK_EQ(params_active(&mixtral), 12879925248);
    CHECK_EQ(params_active(&qwen), 3353032704);
    CHECK_EQ(params_active(&dense), params_total(&dense));
    CHECK_EQ(params_matmul(&mixtral),
             params_active(&mixtral) - (2 * 32 + 1) * mixtral.width - 32000 * mixtral.width);
    arena_fini(&a);
}

/* Shares of the experts lie side by side in the whole, each with its rows of every matrix. */
TEST(shares_of_experts_cover_each_element_once)
{
    struct arena a;
    i64 n, elements = 0;
    arena_init(&a);
    struct model_spec s = load("mixtral-8x7b", &a);
    const struct param_desc *p = params_of(&s, &a, &n);
    while (p->id != P_EXPERT_UP)
        p++;
    for (i64 part = 0; part < 2; part++) {
        for (i64 expert = 0; expert < 4; expert++) {
            struct param_shard share = param_expert_share(p, 2, part, 4, expert);
            CHECK_EQ(share.experts.begin, 2 * expert);
            CHECK_EQ(share.experts.count, 2);
            CHECK_EQ(share.pieces, 2);
            CHECK_EQ(share.rows[0].begin, part * s.expert_hidden / 2);
            CHECK_EQ(share.rows[1].begin, s.expert_hidden + part * s.expert_hidden / 2);
            elements += share.dim[0] * share.dim[1];
        }
    }
    CHECK_EQ(elements, param_count(p));
    arena_fini(&a);
}

TEST(settings_of_experts_that_contradict_each_other_are_refused)
{
    struct arena a;
    arena_init(&a);
    struct model_spec good = load("mixtral-8x7b", &a), s = good;
    s.experts_per_token = 9;
    CHECK_FAILS(spec_check(&s, "x"), ERR_CONFIG, "experts_per_token (9) is more than experts (8)");
    s = good;
    s.dense_layers = 32;
    CHECK_FAILS(spec_check(&s, "x"), ERR_CONFIG, "dense_layers (32) leaves none");
    s = good;
    s.capacity = 0.5;
    CHECK_FAILS(spec_check(&s, "x"), ERR_CONFIG, "router.capacity below 1");
    s = good;
    s.bias_mlp = true;
    CHECK_FAILS(spec_check(&s, "x"), ERR_CONFIG, "experts have no biases");
    arena_fini(&a);
}

TEST(settings_of_latents_that_contradict_each_other_are_refused)
{
    struct arena a;
    arena_init(&a);
    struct model_spec good = load("laptop-mla", &a), s = good;
    CHECK_EQ(s.value_size, s.head_size); /* where nothing is said */
    s.latent_kv = 0;
    CHECK_FAILS(spec_check(&s, "x"), ERR_CONFIG, "go with latent.kv_rank");
    s = good;
    s.latent_rope = 7;
    CHECK_FAILS(spec_check(&s, "x"), ERR_CONFIG, "latent.rope_size must be even");
    s = good;
    s.kv_heads = 2;
    CHECK_FAILS(spec_check(&s, "x"), ERR_CONFIG, "leave kv_heads out");
    s = good;
    s.qk_norm = true;
    CHECK_FAILS(spec_check(&s, "x"), ERR_CONFIG, "neither qk_norm nor bias.qkv");
    s = good;
    s.norm = NORM_LAYER;
    CHECK_FAILS(spec_check(&s, "x"), ERR_CONFIG, "position rope and norm rmsnorm");
    s = good;
    s.head_size = 500;
    CHECK_FAILS(spec_check(&s, "x"), ERR_CONFIG, "at most 512 columns");
    arena_fini(&a);
}

/* 187 M weights in a layer's attention (DeepSeek-V3, 2024); whole where tp cuts heads. */
TEST(latents_have_the_matrices_of_deepseek_v3)
{
    struct arena a;
    i64 n, attention = 0, here = 0;
    arena_init(&a);
    struct model_spec s = load("deepseek-v3", &a), kimi = load("kimi-k2", &a);
    const struct param_desc *p = params_of(&s, &a, &n);
    for (i64 i = 0; i < n; i++)
        if (p[i].layer == 5 && p[i].id >= P_Q_DOWN && p[i].id <= P_OUT && p[i].rank == 2) {
            struct param_shard share = param_share(&p[i], 8, 3);
            attention += param_count(&p[i]);
            here += share.dim[0] * share.dim[1];
        }
    const i64 whole = 7168 * (1536 + 512 + 64), q = 1536 * 128 * 192, kv = 512 * 128 * 256;
    CHECK_EQ(attention, whole + q + kv + 7168 * 128 * 128);
    CHECK_EQ(here, whole + (q + kv + 7168 * 128 * 128) / 8);
    CHECK_EQ(params_total(&s) / 1000000000, 671);
    CHECK_EQ(params_active(&s) / 1000000000, 37);
    CHECK_EQ(params_total(&kimi) / 1000000000, 1026);
    CHECK_EQ(params_active(&kimi) / 1000000000, 32);
    arena_fini(&a);
}

TEST(every_model_file_loads_and_survives_a_round_trip)
{
    struct arena a;
    char **names;
    arena_init(&a);
    int n = sys_list(SOURCE_DIR "/models", &names);
    CHECK(n >= 10);
    for (int i = 0; i < n; i++) {
        struct model_spec again;
        struct text yaml = { 0 };
        const struct yaml_node *root;
        struct model_spec s =
            load(arena_printf(&a, "%s/%s", SOURCE_DIR "/models", names[i]), &a);
        spec_write_yaml(&s, &yaml);
        CHECK_OK(yaml_parse(yaml.data, yaml.length, "again", &a, &root));
        CHECK_OK(recipe_read_map(model_spec_options, &again, root, &a));
        CHECK_OK(spec_check(&again, "again"));
        CHECK(!spec_difference(&s, &again));
        text_fini(&yaml);
    }
    sys_free(names);
    arena_fini(&a);
}

TEST(shapes_that_do_not_fit_are_refused_with_numbers)
{
    struct arena a;
    arena_init(&a);
    struct model_spec s = load("gpt2-124m", &a);
    s.heads = 7;
    s.kv_heads = s.head_size = 0;
    CHECK_FAILS(spec_check(&s, "x.yaml"), ERR_CONFIG,
                "x.yaml: width (768) must be a multiple of heads (7)");
    s.heads = 8;
    s.kv_heads = 3;
    CHECK_FAILS(spec_check(&s, "x.yaml"), ERR_CONFIG, "multiple of kv_heads (3)");
    CHECK_FAILS(spec_load(&s, "gpt3", &a), ERR_CONFIG, "no model 'gpt3'");
    CHECK_FAILS(spec_load(&s, "laptop-2n", &a), ERR_CONFIG, "did you mean 'laptop-2m'?");
    arena_fini(&a);
}

static bool same_weights(const struct model *a, const struct model *b, double bound)
{
    for (i64 i = 0; i < a->n_params; i++) {
        const float *x = a->params[i].master->data, *y = b->params[i].master->data;
        for (i64 k = 0; k < tensor_count(a->params[i].master); k++)
            if (!((double)x[k] - (double)y[k] <= bound && (double)y[k] - (double)x[k] <= bound))
                return false;
    }
    return true;
}

/* Out to a folder and back, in one file or several. */
static void round_trip(struct model_spec *s, enum dtype dtype, i64 max_file, double bound,
                       struct pool *pool, struct arena *a)
{
    struct model *m, *again;
    struct model_spec read;
    struct hf_export how = { dtype, max_file, 1, 2 };
    sys_remove_tree("hf-test");
    CHECK_OK(model_new(&m, s, DTYPE_F32, MODEL_WEIGHTS, 8, a));
    model_init(m, 5, pool);
    CHECK_OK(hf_write(m, "hf-test", &how));
    CHECK_OK(hf_read_spec(&read, "hf-test", a));
    CHECK_OK(model_new(&again, &read, DTYPE_F32, MODEL_WEIGHTS, 8, a));
    CHECK_OK(hf_load_weights(again, "hf-test", pool));
    CHECK_EQ(m->n_params, again->n_params);
    CHECK(same_weights(m, again, bound));
    model_free(m);
    model_free(again);
    sys_remove_tree("hf-test");
}

TEST(weights_survive_a_hugging_face_folder)
{
    static const char *const families[] = { "gpt2-124m", "llama3.2-1b", "qwen2.5-0.5b",
                                            "qwen3-0.6b" };
    struct arena a;
    struct pool *pool;
    arena_init(&a);
    CHECK_OK(pool_new(&pool, 2, false));
    for (i64 i = 0; i < COUNT_OF(families); i++) {
        struct model_spec s = load(families[i], &a);
        s.vocab = 97;
        s.layers = 2;
        s.width = 24;
        s.heads = 4;
        s.kv_heads = s.family == FAMILY_GPT2 ? 4 : 2;
        s.head_size = 6;
        s.hidden = 40;
        s.positions = 16;
        round_trip(&s, DTYPE_F32, (i64)1 << 30, 0, pool, &a);
        round_trip(&s, DTYPE_F32, 10000, 0, pool, &a);
        round_trip(&s, DTYPE_BF16, (i64)1 << 30, 0x1p-9, pool, &a); /* weights below 1/2 */
    }
    for (i64 q_rank = 0; q_rank <= 24; q_rank += 24) {
        struct model_spec s = load("laptop-mla", &a);
        s.vocab = 97;
        s.layers = 2;
        s.latent_q = q_rank;
        round_trip(&s, DTYPE_F32, (i64)1 << 30, 0, pool, &a);
    }
    pool_free(pool);
    arena_fini(&a);
}

/* The tensors of "hf-test" and one more, into "hf-more": the embedding as a head, in fp32 or bf16,
 * its element `changed` another one. */
static void add_head(const char *name, enum dtype dtype, i64 changed)
{
    struct weights w;
    struct weights_writer out;
    struct safetensors_tensor t[64];
    u8 head[1 << 14];
    CHECK_OK(weights_open(&w, "hf-test"));
    const struct weights_entry *e = weights_find(&w, "transformer.wte.weight");
    const i64 n = e->tensor->dim[0] * e->tensor->dim[1];
    CHECK(w.n < COUNT_OF(t) && n * 4 <= (i64)sizeof head);
    for (i64 i = 0; i < n; i++) {
        float x;
        memcpy(&x, (const u8 *)weights_data(e) + 4 * i, sizeof x);
        dtype_set(dtype, head, i, (double)x + (i == changed));
    }
    for (i64 i = 0; i < w.n; i++)
        t[i] = *w.entry[i].tensor;
    t[w.n] = *e->tensor;
    t[w.n].name = name;
    t[w.n].dtype = dtype;
    sys_mkdirs("hf-more");
    CHECK_OK(weights_create(&out, "hf-more", t, w.n + 1, NULL, 0, (i64)1 << 30));
    for (i64 i = 0; i <= w.n; i++) { /* in the order that they have now */
        const struct weights_entry *old = weights_find(&w, t[i].name);
        CHECK_OK(weights_put(&out, old ? weights_data(old) : head,
                             old ? old->tensor->bytes : n * dtype_bytes(dtype)));
    }
    CHECK_OK(weights_commit(&out));
    weights_close(&w);
}

static void keep_line(void *line, enum log_level level, const char *text)
{
    (void)level;
    snprintf(line, 400, "%s", text);
}

/* transformers takes a head that differs, though the configuration says it is the embedding. */
TEST(a_head_that_is_to_be_the_embedding_is_that_or_is_refused)
{
    struct arena a;
    struct pool *pool;
    struct model *m;
    struct hf_export how = { DTYPE_F32, (i64)1 << 30, 1, 2 };
    arena_init(&a);
    CHECK_OK(pool_new(&pool, 2, false));
    struct model_spec s = load("gpt2-124m", &a);
    s.vocab = 97;
    s.layers = 2;
    s.width = 24;
    s.heads = s.kv_heads = 4;
    s.head_size = 6;
    s.hidden = 40;
    s.positions = 16;
    CHECK_OK(model_new(&m, &s, DTYPE_F32, MODEL_WEIGHTS, 8, &a));
    model_init(m, 5, pool);
    for (i64 i = 0; i < 97 * 24; i++) /* which bf16 has */
        tensor_set(model_param(m, P_WTE, -1)->master, i, (double)(i % 200) / 256);
    CHECK_OK(hf_write(m, "hf-test", &how));
    for (int k = 0; k < 2; k++) {
        const enum dtype dtype = k ? DTYPE_BF16 : DTYPE_F32;
        add_head("lm_head.weight", dtype, -1);
        CHECK_OK(hf_load_weights(m, "hf-more", pool));
        add_head("lm_head.weight", dtype, 97 * 24 - 1);
        CHECK_FAILS(hf_load_weights(m, "hf-more", pool), ERR_FORMAT, "hf-more: lm_head.weight "
                    "differs from transformer.wte.weight, and config.json says");
        CHECK_FAILS(hf_check_weights(&s, "hf-more", &a), ERR_FORMAT, "differs from");
    }
    char said[400] = "";
    add_head("transformer.h.0.attn.other", DTYPE_F32, -1);
    log_add_sink(keep_line, said, LOG_WARN);
    CHECK_OK(hf_load_weights(m, "hf-more", pool));
    log_remove_sink(keep_line, said);
    CHECK(strstr(said, "1 of 29 tensors are not part of the model and were left out, such as "
                       "transformer.h.0.attn.other"));
    model_free(m);
    sys_remove_tree("hf-test");
    sys_remove_tree("hf-more");
    pool_free(pool);
    arena_fini(&a);
}

/* Through a config.json and back; what it cannot say stays as it is by default. */
static void expect_config_keeps(const char *yaml, struct arena *a)
{
    const struct hf_export how = { DTYPE_F32, 0, 1, 2 };
    struct model_spec s, again;
    struct json out;
    const struct yaml_node *root;
    json_t *config;
    CHECK_OK(yaml_parse(yaml, (i64)strlen(yaml), yaml, a, &root));
    CHECK_OK(recipe_read_map(model_spec_options, &s, root, a));
    CHECK_OK(spec_check(&s, yaml));
    json_writer_init(&out);
    CHECK_OK(hf_config_write(&s, &how, &out));
    CHECK_OK(json_parse(out.out.data, out.out.length, yaml, &config));
    CHECK_OK(hf_config_read(&again, config, "config.json", a));
    const char *difference = spec_difference(&s, &again);
    if (difference)
        fail_msg("%s: %s", yaml, difference);
    CHECK(again.init_std == s.init_std);
    json_decref(config);
    json_writer_fini(&out);
}

/* None of these values is a default, here or there. */
#define ODD "vocab: 97, positions: 24, layers: 3, width: 24, heads: 4, hidden: 44, init.std: 0.03, "
#define ODD_GPT2 "{family: gpt2, norm: layernorm, position: learned, bias.qkv: true, " \
                 "bias.out: true, bias.mlp: true, norm_eps: 3e-4, " ODD
#define ODD_EXPERTS "experts: 6, experts_per_token: 3, "

TEST(every_setting_survives_a_config)
{
    static const char *const specs[] = {
        ODD_GPT2 "activation: gelu, tied: true}",
        ODD_GPT2 "activation: gelu_exact, tied: false}",
        "{family: llama, norm_eps: 3e-4, rope.theta: 12345, kv_heads: 2, head_size: 10, "
        "bias.qkv: true, bias.out: true, bias.mlp: true, tied: true, " ODD
        "rope.scaling: llama3, rope.factor: 3, rope.low_factor: 1.5, rope.high_factor: 5, "
        "rope.original: 512}",
        "{family: llama, bias.mlp: false, " ODD "rope.scaling: linear, rope.factor: 2.5}",
        "{family: llama, window: 7, " ODD "norm_eps: 3e-4}",
        "{family: qwen2, bias.qkv: true, window: 7, kv_heads: 2, " ODD "rope.theta: 12345}",
        "{family: qwen3, qk_norm: true, head_size: 10, kv_heads: 2, " ODD "norm_eps: 3e-4}",
        "{family: mixtral, " ODD ODD_EXPERTS "router.aux_loss: 0.07}",
        "{family: qwen3_moe, qk_norm: true, " ODD ODD_EXPERTS "expert_hidden: 20, "
        "router.normalise: false, router.aux_loss: 0.07}",
        "{family: dots1, qk_norm: true, " ODD ODD_EXPERTS "expert_hidden: 20, shared_hidden: 40, "
        "dense_layers: 1, router.score: sigmoid, router.bias: true, router.scale: 1.7}",
        "{family: deepseek_v3, norm_eps: 1e-6, latent.kv_rank: 9, latent.q_rank: 11, "
        "latent.rope_size: 4, head_size: 10, value_size: 8, " ODD ODD_EXPERTS
        "expert_hidden: 20, shared_hidden: 20, dense_layers: 2, router.score: sigmoid, "
        "router.bias: true, router.scale: 1.7, rope.theta: 12345}",
    };
    struct arena a;
    arena_init(&a);
    for (i64 i = 0; i < COUNT_OF(specs); i++)
        expect_config_keeps(specs[i], &a);
    arena_fini(&a);
}

static int read_config_into(struct model_spec *s, const char *json)
{
    struct arena a;
    arena_init(&a);
    sys_mkdirs("hf-config");
    int fd = sys_open("hf-config/config.json", O_WRONLY | O_CREAT | O_TRUNC, 0644);
    CHECK_EQ(sys_write_full(fd, json, (i64)strlen(json)), 0);
    sys_close(fd);
    int rc = hf_read_spec(s, "hf-config", &a);
    sys_remove_tree("hf-config");
    arena_fini(&a);
    return rc;
}

static int read_config(const char *json)
{
    struct model_spec s;
    return read_config_into(&s, json);
}

TEST(foreign_configurations_are_obeyed_or_refused)
{
    CHECK_OK(read_config("{\"model_type\":\"gpt2\",\"vocab_size\":10}"));
    CHECK_FAILS(read_config("{\"vocab_size\":10}"), ERR_FORMAT, "config.json says no model_type");
    CHECK_FAILS(read_config("{\"model_type\":\"bert\"}"), ERR_FORMAT, "'bert' is not supported");
    CHECK_FAILS(read_config("{\"model_type\":\"llama\",\"vocab_size\":10,\"rope_scaling\":"
                            "{\"rope_type\":\"yarn\"}}"), ERR_FORMAT, "'yarn'");
    CHECK_FAILS(read_config("{\"model_type\":\"llama\",\"vocab_size\":-1}"), ERR_FORMAT,
                "vocab_size is -1");
    CHECK_FAILS(read_config("{\"model_type\":\"gpt2\",\"vocab_size\":10,"
                            "\"activation_function\":\"relu\"}"), ERR_FORMAT, "'relu'");
    CHECK_FAILS(read_config("{\"model_type\":\"qwen2\",\"vocab_size\":9,\"num_hidden_layers\":4,"
                            "\"use_sliding_window\":true,\"sliding_window\":8,"
                            "\"max_window_layers\":2}"), ERR_FORMAT, "some layers only");
    CHECK_FAILS(read_config("{\"model_type\":"), ERR_FORMAT, "config.json");
}

/* What transformers 5.24 has in its configurations where these files say nothing. */
TEST(what_a_foreign_configuration_leaves_out_is_what_transformers_takes)
{
    static const struct {
        const char *keys;
        i64 positions, window;
        double norm_eps, theta;
    } files[] = {
        { "llama\"", 2048, 0, 1e-6, 1e4 },
        { "mistral\"", 131072, 4096, 1e-6, 1e4 },
        { "mistral\",\"sliding_window\":null", 131072, 0, 1e-6, 1e4 },
        { "mixtral\"", 131072, 0, 1e-5, 1e6 },
        { "qwen2\"", 32768, 0, 1e-6, 1e4 },
        { "qwen2\",\"use_sliding_window\":true", 32768, 0, 1e-6, 1e4 }, /* behind 28 layers */
        { "qwen3\",\"use_sliding_window\":true,\"max_window_layers\":0", 32768, 4096, 1e-6, 1e4 },
        { "qwen3_moe\",\"use_sliding_window\":true,\"max_window_layers\":2", 32768, 4096, 1e-6,
          1e4 },
    };
    for (i64 i = 0; i < COUNT_OF(files); i++) {
        struct model_spec s;
        char json[1024];
        snprintf(json, sizeof json, "{\"vocab_size\":16,\"hidden_size\":8,\"num_hidden_layers\":2,"
                 "\"num_attention_heads\":2,\"intermediate_size\":8,\"model_type\":\"%s}",
                 files[i].keys);
        CHECK_OK(read_config_into(&s, json));
        CHECK_EQ(s.positions, files[i].positions);
        CHECK_EQ(s.window, files[i].window);
        CHECK(s.norm_eps == files[i].norm_eps && s.rope_theta == files[i].theta);
    }
}

/* A model of DeepSeek-V3's kind with these keys more. */
static int read_deepseek_with(const char *keys)
{
    char json[1024];
    snprintf(json, sizeof json, "{\"model_type\":\"deepseek_v3\",\"vocab_size\":16,"
             "\"hidden_size\":8,\"num_hidden_layers\":2,\"num_attention_heads\":2,"
             "\"intermediate_size\":8,\"n_routed_experts\":4,\"num_experts_per_tok\":2%s%s}",
             *keys ? "," : "", keys);
    return read_config(json);
}

TEST(latents_that_are_others_are_refused_by_name)
{
    static const struct { const char *keys, *says; } refused[] = {
        { "", "n_group other than 1" }, { "\"n_group\":4", "n_group other than 1" },
        { "\"n_group\":1,\"rope_interleave\":false", "\"rope_interleave\" is false" },
        { "\"n_group\":1,\"rms_norm_eps\":1e-5", "rms_norm_eps is 1e-05" },
        { "\"n_group\":1,\"kv_lora_rank\":0", "no sizes of latent attention" },
        { "\"n_group\":1,\"rope_scaling\":{\"rope_type\":\"yarn\"}", "'yarn'" },
    };
    for (i64 i = 0; i < COUNT_OF(refused); i++)
        CHECK_FAILS(read_deepseek_with(refused[i].keys), ERR_FORMAT, refused[i].says);
    CHECK_FAILS(read_deepseek_with("\"n_group\":1,\"attention_bias\":true"), ERR_CONFIG,
                "neither qk_norm nor bias.qkv");
    CHECK_OK(read_deepseek_with("\"n_group\":1"));
    CHECK_OK(read_deepseek_with("\"n_group\":1,\"q_lora_rank\":null"));
}

/* A llama of 2 layers with these keys more, none of which it has already. */
static int read_llama_with(const char *keys)
{
    char json[1024];
    snprintf(json, sizeof json, "{\"model_type\":\"llama\",\"vocab_size\":16,\"hidden_size\":8,"
             "\"num_hidden_layers\":2,\"num_attention_heads\":2,\"intermediate_size\":8%s%s}",
             *keys ? "," : "", keys);
    return read_config(json);
}

TEST(keys_that_change_the_mathematics_are_refused_by_name)
{
    static const char *const neutral[] = {
        "", "\"partial_rotary_factor\":1.0", "\"quantization_config\":null",
        "\"layer_types\":[\"full_attention\",\"full_attention\"]", "\"logit_scale\":1",
        "\"rope_parameters\":{\"rope_type\":\"default\",\"partial_rotary_factor\":1}",
        "\"num_local_experts\":0", "\"attention_dropout\":0.1", "\"pruned_heads\":{}",
        "\"something_of_tomorrow\":3",
    };
    static const struct {
        const char *keys, *named;
    } refused[] = {
        { "\"partial_rotary_factor\":0.5", "\"partial_rotary_factor\" is 0.5" },
        { "\"quantization_config\":{\"quant_method\":\"gptq\"}", "\"quantization_config\"" },
        { "\"layer_types\":[\"sliding_attention\",\"full_attention\"]", "for layer 0" },
        { "\"layer_types\":[\"full_attention\"]", "each of the 2 layers" },
        { "\"rope_parameters\":{\"partial_rotary_factor\":0.5}",
          "\"rope_parameters.partial_rotary_factor\" is 0.5" },
        { "\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":2,\"beta_fast\":32}",
          "\"rope_scaling.beta_fast\"" },
        { "\"rope_parameters\":{\"full_attention\":{\"rope_theta\":9}}",
          "\"rope_parameters.full_attention\"" },
        { "\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":0}", "factor >= 1" },
        { "\"rope_scaling\":{\"rope_type\":\"linear\"}", "factor >= 1" },
        { "\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8}", "0 < low_freq_factor" },
        { "\"num_experts\":8", "\"num_experts\" is 8" },
        { "\"is_causal\":false", "\"is_causal\" is false" },
        { "\"logits_scaling\":8.0", "\"logits_scaling\"" },
        { "\"hidden_act\":\"gelu\"", "'gelu' is not supported; supported is silu" },
    };
    for (i64 i = 0; i < COUNT_OF(neutral); i++)
        CHECK_OK(read_llama_with(neutral[i]));
    for (i64 i = 0; i < COUNT_OF(refused); i++)
        CHECK_FAILS(read_llama_with(refused[i].keys), ERR_FORMAT, refused[i].named);
    CHECK_FAILS(read_config("{\"model_type\":\"gpt2\",\"vocab_size\":10,"
                            "\"scale_attn_weights\":false}"), ERR_FORMAT,
                "\"scale_attn_weights\" is false");
    CHECK_FAILS(read_config("{\"model_type\":\"gpt2\",\"vocab_size\":10,"
                            "\"activation_function\":\"silu\"}"), ERR_FORMAT, "'silu'");
}

TEST(values_of_another_type_are_refused_by_name)
{
    CHECK_FAILS(read_config("[1]"), ERR_FORMAT, "config.json says no model_type");
    CHECK_FAILS(read_config("{\"model_type\":3}"), ERR_FORMAT,
                "\"model_type\" is a number; it must be text");
    CHECK_FAILS(read_llama_with("\"num_key_value_heads\":\"two\""), ERR_FORMAT,
                "config.json: \"num_key_value_heads\" is text; it must be a whole number");
    CHECK_FAILS(read_llama_with("\"max_position_embeddings\":64.5"), ERR_FORMAT,
                "is a fraction; it must be a whole number");
    CHECK_FAILS(read_llama_with("\"rope_theta\":\"x\""), ERR_FORMAT, "\"rope_theta\" is text");
    CHECK_FAILS(read_llama_with("\"tie_word_embeddings\":1"), ERR_FORMAT, "true or false");
    CHECK_FAILS(read_llama_with("\"rope_scaling\":[]"), ERR_FORMAT,
                "\"rope_scaling\" is a list; it must be an object");
    CHECK_FAILS(read_llama_with("\"rope_scaling\":{\"factor\":\"2\"}"), ERR_FORMAT,
                "\"rope_scaling.factor\" is text; it must be a number");
    CHECK_OK(read_llama_with("\"num_key_value_heads\":null,\"rope_scaling\":null"));
}

/* 0.6 M draws: mean within 5 / sqrt(n), deviation within 0.2 %, tails present. */
TEST(initial_weights_are_normal_and_independent_of_threads)
{
    struct arena a;
    struct model *m[2];
    arena_init(&a);
    struct model_spec s = load("gpt2-124m", &a);
    s.layers = 1;
    s.vocab = 100;
    for (int i = 0; i < 2; i++) {
        struct pool *pool;
        CHECK_OK(pool_new(&pool, 1 + i, false));
        CHECK_OK(model_new(&m[i], &s, DTYPE_F32, MODEL_WEIGHTS, 8, &a));
        model_init(m[i], 5, pool);
        pool_free(pool);
    }
    CHECK(same_weights(m[0], m[1], 0));
    const struct tensor *t = model_param(m[0], P_QKV, 0)->master;
    double sum = 0, squares = 0, fourth = 0, n = (double)tensor_count(t);
    for (i64 i = 0; i < tensor_count(t); i++) {
        double x = tensor_get(t, i) / 0.02;
        sum += x;
        squares += x * x;
        fourth += x * x * x * x;
    }
    CHECK_NEAR(sum / n, 0, 5 / 1300.0);
    CHECK_NEAR(squares / n, 1, 0.01);
    CHECK_NEAR(fourth / n, 3, 0.06); /* a normal's kurtosis */
    model_free(m[0]);
    model_free(m[1]);
    arena_fini(&a);
}

static double deviation_of(const struct model *m, enum param_id id)
{
    const struct tensor *t = model_param(m, id, 0)->master;
    double squares = 0, n = (double)tensor_count(t);
    for (i64 i = 0; i < tensor_count(t); i++)
        squares += tensor_get(t, i) * tensor_get(t, i);
    return sqrt(squares / n);
}

/* Of 36,864 and more draws, so that 3 % are eight deviations. */
TEST(initial_weights_are_as_wide_as_the_spec_says)
{
    struct arena a;
    struct pool *pool;
    arena_init(&a);
    CHECK_OK(pool_new(&pool, 2, false));
    struct model_spec s = load("laptop-2m", &a);
    s.vocab = 300;
    s.init_std = 0.05;
    for (int residual = 0; residual < 2; residual++) {
        struct model *m;
        const double narrow = residual ? 0.05 / sqrt(2.0 * (double)s.layers) : 0.05;
        s.init_residual = residual;
        CHECK_OK(model_new(&m, &s, DTYPE_F32, MODEL_WEIGHTS, 8, &a));
        model_init(m, 5, pool);
        CHECK_NEAR(deviation_of(m, P_QKV), 0.05, 0.03 * 0.05);
        CHECK_NEAR(deviation_of(m, P_UP), 0.05, 0.03 * 0.05);
        CHECK_NEAR(deviation_of(m, P_OUT), narrow, 0.03 * narrow);
        CHECK_NEAR(deviation_of(m, P_DOWN), narrow, 0.03 * narrow);
        model_free(m);
    }
    pool_free(pool);
    arena_fini(&a);
}

TEST_MAIN(ONE(parameter_counts_are_the_published_ones),
          ONE(active_parameters_are_the_published_ones),
          ONE(shares_of_experts_cover_each_element_once),
          ONE(settings_of_experts_that_contradict_each_other_are_refused),
          ONE(settings_of_latents_that_contradict_each_other_are_refused),
          ONE(latents_have_the_matrices_of_deepseek_v3),
          ONE(every_model_file_loads_and_survives_a_round_trip),
          ONE(shapes_that_do_not_fit_are_refused_with_numbers),
          ONE(weights_survive_a_hugging_face_folder),
          ONE(a_head_that_is_to_be_the_embedding_is_that_or_is_refused),
          ONE(every_setting_survives_a_config),
          ONE(foreign_configurations_are_obeyed_or_refused),
          ONE(what_a_foreign_configuration_leaves_out_is_what_transformers_takes),
          ONE(latents_that_are_others_are_refused_by_name),
          ONE(keys_that_change_the_mathematics_are_refused_by_name),
          ONE(values_of_another_type_are_refused_by_name),
          ONE(initial_weights_are_normal_and_independent_of_threads),
          ONE(initial_weights_are_as_wide_as_the_spec_says))
