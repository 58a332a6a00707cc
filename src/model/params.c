#include "model/params.h"

#include <stdio.h>
#include <string.h>

/* Dimensions in terms of the spec. */
enum dim { NO_DIM, DIM_V, DIM_P, DIM_C, DIM_QKV, DIM_HV, DIM_D, DIM_QUERIES, DIM_Q_SOURCE,
           DIM_Q_LATENT, DIM_KV_DOWN, DIM_KV_LATENT, DIM_KV_UP, DIM_UP, DIM_F, DIM_E, DIM_SHARED_UP,
           DIM_SHARED_F, DIM_EXPERTS_UP, DIM_EXPERTS_C, DIM_EXPERT_F };

static i64 size_of(const struct model_spec *s, enum dim d)
{
    switch (d) {
    case DIM_V: return s->vocab;
    case DIM_P: return s->positions;
    case DIM_C: return s->width;
    case DIM_QKV: return (s->heads + 2 * s->kv_heads) * s->head_size;
    case DIM_HV: return s->heads * spec_value_size(s);
    case DIM_D: return s->head_size;
    case DIM_QUERIES: return s->heads * spec_key_size(s);
    case DIM_Q_SOURCE: return s->latent_q > 0 ? s->latent_q : s->width;
    case DIM_Q_LATENT: return s->latent_q;
    case DIM_KV_DOWN: return s->latent_kv + s->latent_rope;
    case DIM_KV_LATENT: return s->latent_kv;
    case DIM_KV_UP: return s->heads * (s->head_size + spec_value_size(s));
    case DIM_UP: return s->act == ACT_SWIGLU ? 2 * s->hidden : s->hidden;
    case DIM_F: return s->hidden;
    case DIM_E: return s->experts;
    case DIM_SHARED_UP: return 2 * s->shared_hidden;
    case DIM_SHARED_F: return s->shared_hidden;
    case DIM_EXPERTS_UP: return s->experts * 2 * s->expert_hidden;
    case DIM_EXPERTS_C: return s->experts * s->width;
    case DIM_EXPERT_F: return s->expert_hidden;
    default: return 0;
    }
}

static bool always(const struct model_spec *s, i64 l) { return (void)s, (void)l, true; }
static bool learned(const struct model_spec *s, i64 l)
{
    return (void)l, s->position == POSITION_LEARNED;
}
static bool layer_norm(const struct model_spec *s, i64 l) { return (void)l, s->norm == NORM_LAYER; }
static bool bias_qkv(const struct model_spec *s, i64 l) { return (void)l, s->bias_qkv; }
static bool bias_out(const struct model_spec *s, i64 l) { return (void)l, s->bias_out; }
static bool plain(const struct model_spec *s, i64 l) { return (void)l, !spec_is_latent(s); }
static bool latent(const struct model_spec *s, i64 l) { return (void)l, spec_is_latent(s); }
static bool q_latent(const struct model_spec *s, i64 l) { return (void)l, s->latent_q > 0; }
static bool qk_norms(const struct model_spec *s, i64 l) { return (void)l, s->qk_norm; }
static bool untied(const struct model_spec *s, i64 l) { return (void)l, !s->tied; }
static bool dense(const struct model_spec *s, i64 l) { return !spec_is_sparse(s, l); }
static bool dense_bias(const struct model_spec *s, i64 l) { return s->bias_mlp && dense(s, l); }
static bool sparse(const struct model_spec *s, i64 l) { return spec_is_sparse(s, l); }
static bool balanced(const struct model_spec *s, i64 l) { return s->router_bias && sparse(s, l); }
static bool shared(const struct model_spec *s, i64 l)
{
    return s->shared_hidden > 0 && sparse(s, l);
}

/* The rule table, in forward order. gpt2 and llama are the foreign names; names with '|'
 * are the pieces of a fused parameter, and '#' is an expert's number. GPT-2 stores its matrices
 * transposed (Conv1D). Mixtral has names of its own for what is sparse. */
static const struct param_rule {
    enum param_id id;
    const char *name;
    bool in_block;
    enum dim rows, columns;
    enum param_init init;
    enum param_kind kind;
    enum param_split split;
    bool (*present)(const struct model_spec *, i64 layer);
    const char *gpt2, *llama;
} rules[PARAM_IDS] = {
    { P_WTE, "wte.weight", false, DIM_V, DIM_C, INIT_NORMAL, PARAM_EMBEDDING, SPLIT_ROWS,
      always, "wte.weight", "model.embed_tokens.weight" },
    { P_WPE, "wpe.weight", false, DIM_P, DIM_C, INIT_NORMAL, PARAM_EMBEDDING, SPLIT_ROWS,
      learned, "wpe.weight", NULL },
    { P_NORM1, "norm1.gain", true, DIM_C, NO_DIM, INIT_ONES, PARAM_GAIN, SPLIT_NONE,
      always, "ln_1.weight", "input_layernorm.weight" },
    { P_NORM1_BIAS, "norm1.bias", true, DIM_C, NO_DIM, INIT_ZEROS, PARAM_BIAS, SPLIT_NONE,
      layer_norm, "ln_1.bias", "input_layernorm.bias" },
    { P_QKV, "attn.qkv.weight", true, DIM_QKV, DIM_C, INIT_NORMAL, PARAM_MATRIX, SPLIT_ROWS,
      plain, "attn.c_attn.weight",
      "self_attn.q_proj.weight|self_attn.k_proj.weight|self_attn.v_proj.weight" },
    { P_QKV_BIAS, "attn.qkv.bias", true, DIM_QKV, NO_DIM, INIT_ZEROS, PARAM_BIAS, SPLIT_ROWS,
      bias_qkv, "attn.c_attn.bias",
      "self_attn.q_proj.bias|self_attn.k_proj.bias|self_attn.v_proj.bias" },
    { P_Q_NORM, "attn.q_norm.gain", true, DIM_D, NO_DIM, INIT_ONES, PARAM_GAIN, SPLIT_NONE,
      qk_norms, NULL, "self_attn.q_norm.weight" },
    { P_K_NORM, "attn.k_norm.gain", true, DIM_D, NO_DIM, INIT_ONES, PARAM_GAIN, SPLIT_NONE,
      qk_norms, NULL, "self_attn.k_norm.weight" },
    { P_Q_DOWN, "attn.q_down.weight", true, DIM_Q_LATENT, DIM_C, INIT_NORMAL, PARAM_MATRIX,
      SPLIT_NONE, q_latent, NULL, "self_attn.q_a_proj.weight" },
    { P_Q_LATENT_NORM, "attn.q_latent_norm.gain", true, DIM_Q_LATENT, NO_DIM, INIT_ONES, PARAM_GAIN,
      SPLIT_NONE, q_latent, NULL, "self_attn.q_a_layernorm.weight" },
    { P_Q_UP, "attn.q_up.weight", true, DIM_QUERIES, DIM_Q_SOURCE, INIT_NORMAL, PARAM_MATRIX,
      SPLIT_ROWS, latent, NULL, "self_attn.q_b_proj.weight" },
    { P_KV_DOWN, "attn.kv_down.weight", true, DIM_KV_DOWN, DIM_C, INIT_NORMAL, PARAM_MATRIX,
      SPLIT_NONE, latent, NULL, "self_attn.kv_a_proj_with_mqa.weight" },
    { P_KV_LATENT_NORM, "attn.kv_latent_norm.gain", true, DIM_KV_LATENT, NO_DIM, INIT_ONES,
      PARAM_GAIN, SPLIT_NONE, latent, NULL, "self_attn.kv_a_layernorm.weight" },
    { P_KV_UP, "attn.kv_up.weight", true, DIM_KV_UP, DIM_KV_LATENT, INIT_NORMAL, PARAM_MATRIX,
      SPLIT_ROWS, latent, NULL, "self_attn.kv_b_proj.weight" },
    { P_OUT, "attn.out.weight", true, DIM_C, DIM_HV, INIT_RESIDUAL, PARAM_MATRIX, SPLIT_COLUMNS,
      always, "attn.c_proj.weight", "self_attn.o_proj.weight" },
    { P_OUT_BIAS, "attn.out.bias", true, DIM_C, NO_DIM, INIT_ZEROS, PARAM_BIAS, SPLIT_NONE,
      bias_out, "attn.c_proj.bias", "self_attn.o_proj.bias" },
    { P_NORM2, "norm2.gain", true, DIM_C, NO_DIM, INIT_ONES, PARAM_GAIN, SPLIT_NONE,
      always, "ln_2.weight", "post_attention_layernorm.weight" },
    { P_NORM2_BIAS, "norm2.bias", true, DIM_C, NO_DIM, INIT_ZEROS, PARAM_BIAS, SPLIT_NONE,
      layer_norm, "ln_2.bias", "post_attention_layernorm.bias" },
    { P_UP, "mlp.up.weight", true, DIM_UP, DIM_C, INIT_NORMAL, PARAM_MATRIX, SPLIT_ROWS,
      dense, "mlp.c_fc.weight", "mlp.gate_proj.weight|mlp.up_proj.weight" },
    { P_UP_BIAS, "mlp.up.bias", true, DIM_UP, NO_DIM, INIT_ZEROS, PARAM_BIAS, SPLIT_ROWS,
      dense_bias, "mlp.c_fc.bias", "mlp.gate_proj.bias|mlp.up_proj.bias" },
    { P_DOWN, "mlp.down.weight", true, DIM_C, DIM_F, INIT_RESIDUAL, PARAM_MATRIX, SPLIT_COLUMNS,
      dense, "mlp.c_proj.weight", "mlp.down_proj.weight" },
    { P_DOWN_BIAS, "mlp.down.bias", true, DIM_C, NO_DIM, INIT_ZEROS, PARAM_BIAS, SPLIT_NONE,
      dense_bias, "mlp.c_proj.bias", "mlp.down_proj.bias" },
    { P_ROUTER, "mlp.router.weight", true, DIM_E, DIM_C, INIT_NORMAL, PARAM_ROUTER, SPLIT_NONE,
      sparse, NULL, "mlp.gate.weight" },
    { P_ROUTER_BIAS, "mlp.router.bias", true, DIM_E, NO_DIM, INIT_ZEROS, PARAM_BALANCE, SPLIT_NONE,
      balanced, NULL, "mlp.gate.e_score_correction_bias" },
    { P_SHARED_UP, "mlp.shared.up.weight", true, DIM_SHARED_UP, DIM_C, INIT_NORMAL, PARAM_MATRIX,
      SPLIT_ROWS, shared, NULL,
      "mlp.shared_experts.gate_proj.weight|mlp.shared_experts.up_proj.weight" },
    { P_SHARED_DOWN, "mlp.shared.down.weight", true, DIM_C, DIM_SHARED_F, INIT_RESIDUAL,
      PARAM_MATRIX, SPLIT_COLUMNS, shared, NULL, "mlp.shared_experts.down_proj.weight" },
    { P_EXPERT_UP, "mlp.experts.up.weight", true, DIM_EXPERTS_UP, DIM_C, INIT_NORMAL, PARAM_MATRIX,
      SPLIT_ROWS, sparse, NULL, "mlp.experts.#.gate_proj.weight|mlp.experts.#.up_proj.weight" },
    { P_EXPERT_DOWN, "mlp.experts.down.weight", true, DIM_EXPERTS_C, DIM_EXPERT_F, INIT_RESIDUAL,
      PARAM_MATRIX, SPLIT_COLUMNS, sparse, NULL, "mlp.experts.#.down_proj.weight" },
    { P_NORM_F, "norm_f.gain", false, DIM_C, NO_DIM, INIT_ONES, PARAM_GAIN, SPLIT_NONE,
      always, "ln_f.weight", "model.norm.weight" },
    { P_NORM_F_BIAS, "norm_f.bias", false, DIM_C, NO_DIM, INIT_ZEROS, PARAM_BIAS, SPLIT_NONE,
      layer_norm, "ln_f.bias", "model.norm.bias" },
    { P_HEAD, "head.weight", false, DIM_V, DIM_C, INIT_NORMAL, PARAM_HEAD, SPLIT_ROWS,
      untied, "lm_head.weight", "lm_head.weight" },
};

static const struct {
    enum param_id id;
    const char *name;
} mixtral[] = {
    { P_ROUTER, "block_sparse_moe.gate.weight" },
    { P_EXPERT_UP, "block_sparse_moe.experts.#.w1.weight|block_sparse_moe.experts.#.w3.weight" },
    { P_EXPERT_DOWN, "block_sparse_moe.experts.#.w2.weight" },
};

bool param_is_copied(const struct param_desc *p)
{
    return p->kind == PARAM_MATRIX || p->kind == PARAM_EMBEDDING || p->kind == PARAM_HEAD;
}

bool param_decays(const struct param_desc *p)
{
    return param_is_copied(p) || p->kind == PARAM_ROUTER;
}

/* Rows of the parts that one fused parameter holds. */
static void fused_blocks(const struct model_spec *s, struct param_desc *p)
{
    i64 rows = p->dim[0] / p->experts;
    bool up = p->id == P_UP || p->id == P_UP_BIAS || p->id == P_SHARED_UP || p->id == P_EXPERT_UP;
    if (p->id == P_QKV || p->id == P_QKV_BIAS) {
        p->blocks[0] = s->heads * s->head_size;
        p->blocks[1] = p->blocks[2] = s->kv_heads * s->head_size;
    } else if (up && s->act == ACT_SWIGLU) {
        p->blocks[0] = p->blocks[1] = rows / 2;
    } else {
        p->blocks[0] = rows;
    }
}

static struct param_desc describe(const struct model_spec *s, const struct param_rule *r,
                                  int layer)
{
    struct param_desc p = { .id = r->id, .layer = layer, .init = r->init, .kind = r->kind,
                            .split = r->split };
    if (layer >= 0)
        snprintf(p.name, sizeof p.name, "blocks.%d.%s", layer, r->name);
    else
        snprintf(p.name, sizeof p.name, "%s", r->name);
    p.rank = r->columns ? 2 : 1;
    p.dim[0] = size_of(s, r->rows);
    p.dim[1] = size_of(s, r->columns);
    p.experts = param_is_expert(&p) ? s->experts : 1;
    fused_blocks(s, &p);
    return p;
}

struct param_desc *params_of(const struct model_spec *s, struct arena *a, i64 *n)
{
    struct param_desc *list = ARENA_ARRAY(a, struct param_desc, PARAM_IDS * (s->layers + 1));
    *n = 0;
    for (int i = 0; i < PARAM_IDS;) {
        if (!rules[i].in_block) {
            if (rules[i].present(s, -1))
                list[(*n)++] = describe(s, &rules[i], -1);
            i++;
            continue;
        }
        int end = i;
        while (rules[end].in_block)
            end++;
        for (int layer = 0; layer < s->layers; layer++)
            for (int k = i; k < end; k++)
                if (rules[k].present(s, layer))
                    list[(*n)++] = describe(s, &rules[k], layer);
        i = end;
    }
    return list;
}

static struct shard_range even_share(i64 n, i64 parts, i64 part)
{
    i64 begin = part * n / parts;
    return (struct shard_range){ begin, (part + 1) * n / parts - begin };
}

static struct shard_range share_of_leaves(i64 n, i64 parts, i64 part)
{
    if (SHARD_LEAVES % parts)
        return even_share(n, parts, part);
    i64 leaf = ceil_div(n, SHARD_LEAVES), each = leaf * (SHARD_LEAVES / parts);
    i64 begin = i64_min(n, each * part);
    return (struct shard_range){ begin, i64_min(n, each * (part + 1)) - begin };
}

struct param_shard param_expert_share(const struct param_desc *p, i64 parts, i64 part,
                                      i64 expert_parts, i64 expert_part)
{
    bool table = p->kind == PARAM_EMBEDDING || p->kind == PARAM_HEAD;
    struct param_shard s = { .columns = { 0, p->rank == 2 ? p->dim[1] : 0 },
                             .experts = { 0, 1 } };
    i64 first = 0;
    if (param_is_expert(p))
        s.experts = even_share(p->experts, expert_parts, expert_part);
    for (int i = 0; i < 3 && p->blocks[i] > 0; i++) {
        struct shard_range r = { 0, p->blocks[i] };
        if (p->split == SPLIT_ROWS)
            r = table ? share_of_leaves(r.count, parts, part) : even_share(r.count, parts, part);
        s.rows[s.pieces++] = (struct shard_range){ first + r.begin, r.count };
        s.dim[0] += r.count * s.experts.count;
        first += p->blocks[i];
    }
    if (p->split == SPLIT_COLUMNS)
        s.columns = even_share(p->dim[1], parts, part);
    s.dim[1] = s.columns.count;
    return s;
}

struct param_shard param_share(const struct param_desc *p, i64 parts, i64 part)
{
    return param_expert_share(p, parts, part, 1, 0);
}

/* --- counts ------------------------------------------------------------------------- */

/* Sum over the parameters that `of` names; `active` counts experts as often as a token meets
 * them. */
static i64 count(const struct model_spec *s, bool active, bool matrices_only)
{
    i64 total = 0;
    for (int i = 0; i < PARAM_IDS; i++) {
        bool matrix = rules[i].kind == PARAM_MATRIX || rules[i].kind == PARAM_ROUTER;
        for (int layer = 0; layer < (rules[i].in_block ? s->layers : 1); layer++) {
            if (!rules[i].present(s, layer) || (matrices_only && !matrix))
                continue;
            struct param_desc p = describe(s, &rules[i], rules[i].in_block ? layer : -1);
            i64 n = param_count(&p);
            total += active && p.experts > 1 ? n / p.experts * s->experts_per_token : n;
        }
    }
    return total;
}

i64 params_total(const struct model_spec *s)
{
    return count(s, false, false);
}

i64 params_active(const struct model_spec *s)
{
    return count(s, true, false);
}

i64 params_matmul(const struct model_spec *s)
{
    return s->vocab * s->width + count(s, true, true); /* the head, tied or not */
}

/* --- foreign names ------------------------------------------------------------------ */

static const char *foreign_names(const struct model_spec *s, enum param_id id)
{
    if (s->family == FAMILY_GPT2)
        return rules[id].gpt2;
    if (id == P_Q_UP && s->latent_q == 0)
        return "self_attn.q_proj.weight";
    for (i64 i = 0; s->family == FAMILY_MIXTRAL && i < COUNT_OF(mixtral); i++)
        if (mixtral[i].id == id)
            return mixtral[i].name;
    return rules[id].llama;
}

static i64 pieces_each(const char *names)
{
    i64 n = names ? 1 : 0;
    for (const char *c = names; c && (c = strchr(c, '|')); c++)
        n++;
    return n;
}

i64 params_foreign_count(const struct model_spec *s, const struct param_desc *p)
{
    return pieces_each(foreign_names(s, p->id)) * p->experts;
}

/* The index-th name of "a|b|c" behind the layer's prefix, with the expert's number. */
static void piece_name(char *out, i64 capacity, const char *prefix, const char *names,
                       i64 index, i64 expert)
{
    while (index-- > 0 && strchr(names, '|'))
        names = strchr(names, '|') + 1;
    int length = (int)strcspn(names, "|"), before = (int)strcspn(names, "#|");
    if (before == length)
        snprintf(out, (size_t)capacity, "%s%.*s", prefix, length, names);
    else
        snprintf(out, (size_t)capacity, "%s%.*s%lld%.*s", prefix, before, names,
                 (long long)expert, length - before - 1, names + before + 1);
}

struct foreign_piece params_foreign(const struct model_spec *s, const struct param_desc *p, i64 i)
{
    const char *names = foreign_names(s, p->id);
    bool gpt2 = s->family == FAMILY_GPT2;
    i64 each = pieces_each(names), expert = i / each, block = i % each;
    struct foreign_piece piece = { .row = expert * (p->dim[0] / p->experts),
                                   .rows = each == 1 ? p->dim[0] / p->experts : p->blocks[block],
                                   .transposed = gpt2 && p->kind == PARAM_MATRIX };
    char prefix[64] = "";
    if (p->layer >= 0)
        snprintf(prefix, sizeof prefix, gpt2 ? "transformer.h.%d." : "model.layers.%d.",
                 p->layer);
    else if (gpt2 && p->id != P_HEAD)
        snprintf(prefix, sizeof prefix, "transformer.");
    piece_name(piece.name, sizeof piece.name, prefix, names, block, expert);
    for (i64 k = 0; k < block; k++)
        piece.row += p->blocks[k];
    return piece;
}
