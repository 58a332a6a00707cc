#include "model/params.h"

#include <stdio.h>
#include <string.h>

/* Dimensions in terms of the spec. */
enum dim { NO_DIM, DIM_V, DIM_P, DIM_C, DIM_QKV, DIM_HD, DIM_D, DIM_UP, DIM_F };

static i64 size_of(const struct model_spec *s, enum dim d)
{
    switch (d) {
    case DIM_V: return s->vocab;
    case DIM_P: return s->positions;
    case DIM_C: return s->width;
    case DIM_QKV: return (s->heads + 2 * s->kv_heads) * s->head_size;
    case DIM_HD: return s->heads * s->head_size;
    case DIM_D: return s->head_size;
    case DIM_UP: return s->act == ACT_SWIGLU ? 2 * s->hidden : s->hidden;
    case DIM_F: return s->hidden;
    default: return 0;
    }
}

static bool always(const struct model_spec *s) { (void)s; return true; }
static bool learned(const struct model_spec *s) { return s->position == POSITION_LEARNED; }
static bool layer_norm(const struct model_spec *s) { return s->norm == NORM_LAYER; }
static bool bias_qkv(const struct model_spec *s) { return s->bias_qkv; }
static bool bias_out(const struct model_spec *s) { return s->bias_out; }
static bool bias_mlp(const struct model_spec *s) { return s->bias_mlp; }
static bool qk_norms(const struct model_spec *s) { return s->qk_norm; }
static bool untied(const struct model_spec *s) { return !s->tied; }

/* The rule table, in forward order. gpt2 and llama are the foreign names; names with '|'
 * are the pieces of a fused parameter. GPT-2 stores its matrices transposed (Conv1D). */
static const struct param_rule {
    enum param_id id;
    const char *name;
    bool in_block;
    enum dim rows, columns;
    enum param_init init;
    enum param_kind kind;
    enum param_split split;
    bool (*present)(const struct model_spec *);
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
      always, "attn.c_attn.weight",
      "self_attn.q_proj.weight|self_attn.k_proj.weight|self_attn.v_proj.weight" },
    { P_QKV_BIAS, "attn.qkv.bias", true, DIM_QKV, NO_DIM, INIT_ZEROS, PARAM_BIAS, SPLIT_ROWS,
      bias_qkv, "attn.c_attn.bias",
      "self_attn.q_proj.bias|self_attn.k_proj.bias|self_attn.v_proj.bias" },
    { P_Q_NORM, "attn.q_norm.gain", true, DIM_D, NO_DIM, INIT_ONES, PARAM_GAIN, SPLIT_NONE,
      qk_norms, NULL, "self_attn.q_norm.weight" },
    { P_K_NORM, "attn.k_norm.gain", true, DIM_D, NO_DIM, INIT_ONES, PARAM_GAIN, SPLIT_NONE,
      qk_norms, NULL, "self_attn.k_norm.weight" },
    { P_OUT, "attn.out.weight", true, DIM_C, DIM_HD, INIT_RESIDUAL, PARAM_MATRIX, SPLIT_COLUMNS,
      always, "attn.c_proj.weight", "self_attn.o_proj.weight" },
    { P_OUT_BIAS, "attn.out.bias", true, DIM_C, NO_DIM, INIT_ZEROS, PARAM_BIAS, SPLIT_NONE,
      bias_out, "attn.c_proj.bias", "self_attn.o_proj.bias" },
    { P_NORM2, "norm2.gain", true, DIM_C, NO_DIM, INIT_ONES, PARAM_GAIN, SPLIT_NONE,
      always, "ln_2.weight", "post_attention_layernorm.weight" },
    { P_NORM2_BIAS, "norm2.bias", true, DIM_C, NO_DIM, INIT_ZEROS, PARAM_BIAS, SPLIT_NONE,
      layer_norm, "ln_2.bias", "post_attention_layernorm.bias" },
    { P_UP, "mlp.up.weight", true, DIM_UP, DIM_C, INIT_NORMAL, PARAM_MATRIX, SPLIT_ROWS,
      always, "mlp.c_fc.weight", "mlp.gate_proj.weight|mlp.up_proj.weight" },
    { P_UP_BIAS, "mlp.up.bias", true, DIM_UP, NO_DIM, INIT_ZEROS, PARAM_BIAS, SPLIT_ROWS,
      bias_mlp, "mlp.c_fc.bias", "mlp.gate_proj.bias|mlp.up_proj.bias" },
    { P_DOWN, "mlp.down.weight", true, DIM_C, DIM_F, INIT_RESIDUAL, PARAM_MATRIX, SPLIT_COLUMNS,
      always, "mlp.c_proj.weight", "mlp.down_proj.weight" },
    { P_DOWN_BIAS, "mlp.down.bias", true, DIM_C, NO_DIM, INIT_ZEROS, PARAM_BIAS, SPLIT_NONE,
      bias_mlp, "mlp.c_proj.bias", "mlp.down_proj.bias" },
    { P_NORM_F, "norm_f.gain", false, DIM_C, NO_DIM, INIT_ONES, PARAM_GAIN, SPLIT_NONE,
      always, "ln_f.weight", "model.norm.weight" },
    { P_NORM_F_BIAS, "norm_f.bias", false, DIM_C, NO_DIM, INIT_ZEROS, PARAM_BIAS, SPLIT_NONE,
      layer_norm, "ln_f.bias", "model.norm.bias" },
    { P_HEAD, "head.weight", false, DIM_V, DIM_C, INIT_NORMAL, PARAM_HEAD, SPLIT_ROWS,
      untied, "lm_head.weight", "lm_head.weight" },
};

bool param_decays(const struct param_desc *p)
{
    return p->kind == PARAM_MATRIX || p->kind == PARAM_EMBEDDING || p->kind == PARAM_HEAD;
}

/* Rows of the parts that one fused parameter holds. */
static void fused_blocks(const struct model_spec *s, struct param_desc *p)
{
    if (p->id == P_QKV || p->id == P_QKV_BIAS) {
        p->blocks[0] = s->heads * s->head_size;
        p->blocks[1] = p->blocks[2] = s->kv_heads * s->head_size;
    } else if ((p->id == P_UP || p->id == P_UP_BIAS) && s->act == ACT_SWIGLU) {
        p->blocks[0] = p->blocks[1] = s->hidden;
    } else {
        p->blocks[0] = p->dim[0];
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
    fused_blocks(s, &p);
    return p;
}

struct param_desc *params_of(const struct model_spec *s, struct arena *a, i64 *n)
{
    struct param_desc *list = ARENA_ARRAY(a, struct param_desc, PARAM_IDS * (s->layers + 1));
    *n = 0;
    for (int i = 0; i < PARAM_IDS;) {
        if (!rules[i].in_block) {
            if (rules[i].present(s))
                list[(*n)++] = describe(s, &rules[i], -1);
            i++;
            continue;
        }
        int end = i;
        while (rules[end].in_block)
            end++;
        for (int layer = 0; layer < s->layers; layer++)
            for (int k = i; k < end; k++)
                if (rules[k].present(s))
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

struct param_shard param_share(const struct param_desc *p, i64 parts, i64 part)
{
    bool table = p->kind == PARAM_EMBEDDING || p->kind == PARAM_HEAD;
    struct param_shard s = { .columns = { 0, p->rank == 2 ? p->dim[1] : 0 } };
    i64 first = 0;
    for (int i = 0; i < 3 && p->blocks[i] > 0; i++) {
        struct shard_range r = { 0, p->blocks[i] };
        if (p->split == SPLIT_ROWS)
            r = table ? share_of_leaves(r.count, parts, part) : even_share(r.count, parts, part);
        s.rows[s.pieces++] = (struct shard_range){ first + r.begin, r.count };
        s.dim[0] += r.count;
        first += p->blocks[i];
    }
    if (p->split == SPLIT_COLUMNS)
        s.columns = even_share(p->dim[1], parts, part);
    s.dim[1] = s.columns.count;
    return s;
}

i64 params_total(const struct model_spec *s)
{
    i64 total = 0;
    for (int i = 0; i < PARAM_IDS; i++) {
        if (!rules[i].present(s))
            continue;
        struct param_desc p = describe(s, &rules[i], rules[i].in_block ? 0 : -1);
        total += param_count(&p) * (rules[i].in_block ? s->layers : 1);
    }
    return total;
}

i64 params_matmul(const struct model_spec *s)
{
    i64 total = s->vocab * s->width; /* the head, tied or not */
    for (int i = 0; i < PARAM_IDS; i++) {
        if (rules[i].kind != PARAM_MATRIX || !rules[i].present(s))
            continue;
        struct param_desc p = describe(s, &rules[i], 0);
        total += param_count(&p) * s->layers;
    }
    return total;
}

/* The index-th name of "a|b|c" behind the layer's prefix. */
static void piece_name(char *out, i64 capacity, const char *prefix, const char *names,
                       int index)
{
    while (index-- > 0 && strchr(names, '|'))
        names = strchr(names, '|') + 1;
    size_t length = strcspn(names, "|");
    snprintf(out, (size_t)capacity, "%s%.*s", prefix, (int)length, names);
}

int params_foreign(const struct model_spec *s, const struct param_desc *p,
                   struct foreign_piece pieces[3])
{
    const struct param_rule *r = &rules[p->id];
    bool gpt2 = s->family == FAMILY_GPT2;
    const char *names = gpt2 ? r->gpt2 : r->llama;
    char prefix[64] = "";
    if (!names)
        return 0;
    if (p->layer >= 0)
        snprintf(prefix, sizeof prefix, gpt2 ? "transformer.h.%d." : "model.layers.%d.",
                 p->layer);
    else if (gpt2 && p->id != P_HEAD)
        snprintf(prefix, sizeof prefix, "transformer.");
    int n = 1;
    for (const char *c = names; (c = strchr(c, '|')); c++)
        n++;
    i64 row = 0;
    for (int i = 0; i < n; i++) {
        pieces[i].rows = n == 1 ? p->dim[0] : p->blocks[i];
        pieces[i].row = row;
        pieces[i].transposed = gpt2 && p->kind == PARAM_MATRIX;
        piece_name(pieces[i].name, sizeof pieces[i].name, prefix, names, i);
        row += pieces[i].rows;
    }
    return n;
}
