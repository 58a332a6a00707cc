#include "plan/measured.h"

#include "base/err.h"
#include "model/params.h"
#include "parallel/layout.h"
#include "plan/plan_files.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_LAYERS = 10000, MOST_SIZE = 10000000, MOST_WHOLE = 1000000000 }; /* beyond: no model, a slip */

struct reader {
    const struct csv *t;
    i64 row;
    struct arena *arena;
    struct plan_row *out;
    int rc;
};

static const char *cell(const struct reader *r, const char *column)
{
    return csv_cell(r->t, r->row, csv_column(r->t, column));
}

/* 0 where the cell is empty. */
static double any_number(struct reader *r, const char *column)
{
    const char *text = cell(r, column);
    char *end;
    double x = strtod(text, &end);
    if (!*text)
        return 0;
    if (end == text || *end || !(fabs(x) <= 1e15))
        r->rc = err_set(ERR_FORMAT, "%s:%lld: %s is '%s', which is no number", r->t->file,
                        (long long)r->t->lines[r->row], column, text);
    return x;
}

static double number(struct reader *r, const char *column)
{
    double x = any_number(r, column);
    if (x < 0)
        r->rc = err_set(ERR_FORMAT, "%s:%lld: %s is negative", r->t->file,
                        (long long)r->t->lines[r->row], column);
    return x;
}

static i64 whole(struct reader *r, const char *column)
{
    double x = number(r, column);
    if (x > MOST_WHOLE)
        r->rc = err_set(ERR_FORMAT, "%s:%lld: %s is beyond all sense", r->t->file,
                        (long long)r->t->lines[r->row], column);
    return (i64)fmin(x, MOST_WHOLE);
}

/* The same, which the row must have. */
static i64 needed(struct reader *r, const char *column)
{
    i64 x = whole(r, column);
    if (x <= 0 && !r->out->missing)
        r->out->missing = column;
    return x;
}

static bool begins(const char *text, const char *with)
{
    return !strncmp(text, with, strlen(with));
}

/* --- the model ------------------------------------------------------------------------ */

/* Sets name models, not architectures. These are said to be GPT-2's: one matrix up and one down,
 * layer norms, biases but for MPT; all others are Llama's. */
static bool is_gpt(const char *model)
{
    static const char *const names[] = { "GPT-", "BLOOM", "MPT", "MT-NLG", "OPT", "Gopher" };
    for (i64 i = 0; i < COUNT_OF(names); i++)
        if (begins(model, names[i]) && !begins(model, "GPT-OSS"))
            return true;
    return false;
}

static void read_experts(struct reader *r, struct model_spec *s)
{
    s->experts = whole(r, "moe_experts");
    if (s->experts == 0)
        return;
    s->experts_per_token = needed(r, "moe_topk");
    s->expert_hidden = needed(r, "moe_ffn");
    if (s->hidden == 0)
        s->hidden = s->expert_hidden;
}

static bool has_latents(const char *model)
{
    return begins(model, "DeepSeek") || begins(model, "Kimi");
}

/* What a row does not say of these models (DeepSeek-V3, 2024, section 4.2, and the configuration
 * that Moonshot AI published with Kimi K2, 2025). False: of another model. DeepSeek-V3 predicts a
 * second token, unless the row's notes say that it ran without. */
static bool read_latents(struct model_spec *s, const char *model, const char *notes)
{
    const bool v3 = begins(model, "DeepSeek-V3");
    if (!v3 && !begins(model, "Kimi-K2"))
        return false;
    s->family = FAMILY_DEEPSEEK_V3;
    s->latent_q = 1536;
    s->latent_kv = 512;
    s->latent_rope = 64;
    s->head_size = 128;
    s->kv_heads = 0;
    s->dense_layers = v3 ? 3 : 1;
    s->groups = v3 ? 8 : 0;
    s->group_limit = v3 ? 4 : 0;
    s->mtp_depth = v3 && !strstr(notes, "w/o MTP");
    s->shared_hidden = s->expert_hidden;
    s->score = SCORE_SIGMOID;
    s->router_bias = true;
    return true;
}

/* Whether head and embedding are one matrix follows from the published number of parameters. */
static bool is_tied(const struct model_spec *s, double published)
{
    struct model_spec other = *s;
    other.tied = true;
    double tied = (double)params_total(&other);
    other.tied = false;
    double apart = (double)params_total(&other);
    return fabs(tied - published) < fabs(apart - published);
}

static void read_model(struct reader *r)
{
    struct model_spec *s = &r->out->spec;
    bool gpt = is_gpt(r->out->model);
    option_set_defaults(model_spec_options, s, r->arena);
    s->name = r->out->model;
    s->family = gpt ? FAMILY_GPT2 : FAMILY_LLAMA;
    s->norm = gpt ? NORM_LAYER : NORM_RMS;
    s->act = gpt ? ACT_GELU : ACT_SWIGLU;
    s->position = gpt ? POSITION_LEARNED : POSITION_ROPE;
    s->bias_qkv = s->bias_out = s->bias_mlp = gpt && !begins(r->out->model, "MPT");
    s->layers = needed(r, "layers");
    s->width = needed(r, "hidden");
    s->heads = needed(r, "heads");
    s->kv_heads = whole(r, "kv_heads");
    s->vocab = whole(r, "vocab");
    s->positions = r->out->sequence;
    s->hidden = whole(r, "ffn");
    read_experts(r, s);
    if (s->hidden == 0)
        needed(r, "ffn");
    if (s->vocab == 0)
        needed(r, "vocab");
    if (r->out->missing || r->rc < 0)
        return;
    if (s->layers > MOST_LAYERS || s->width > MOST_SIZE || s->hidden > MOST_SIZE ||
        s->heads > MOST_SIZE || s->vocab > MOST_SIZE || s->experts > MOST_SIZE) {
        r->out->missing = "a shape that a decoder can have";
        return;
    }
    if (has_latents(r->out->model) && !read_latents(s, r->out->model, cell(r, "notes"))) {
        r->out->missing = "the sizes of its latents";
        return;
    }
    if (begins(r->out->model, "Qwen3"))
        s->head_size = 128;
    if (begins(r->out->model, "GPT-OSS"))
        s->head_size = 64;
    if (spec_check(s, r->out->id) < 0)
        r->out->missing = "a shape that a decoder can have";
    double published = any_number(r, "params_b") * 1e9; /* derived ones can be nonsense */
    if (!spec_is_latent(s)) /* which are known not to be */
        s->tied = !r->out->missing && published > 0 ? is_tied(s, published) : gpt;
}

/* --- the layout ----------------------------------------------------------------------- */

/* A word that the column does not have is not taken for the usual one. */
static void unknown_word(struct reader *r, const char *column, const char *there_are)
{
    if (!r->out->missing)
        r->out->missing = arena_printf(r->arena, "a known %s: '%s' is none of %s", column,
                                       cell(r, column), there_are);
}

static int recompute_of(struct reader *r)
{
    const char *text = cell(r, "recompute");
    if (!strcmp(text, "full"))
        return RECOMPUTE_FULL;
    if (begins(text, "selective"))
        return RECOMPUTE_SELECTIVE;
    if (*text && strcmp(text, "none"))
        unknown_word(r, "recompute", "none, selective, full");
    return RECOMPUTE_NONE;
}

static i64 zero_of(struct reader *r)
{
    const char *text = cell(r, "shard");
    static const struct { const char *name; i64 stage; } names[] = {
        { "zero1", ZERO_OPTIMIZER }, { "distopt", ZERO_OPTIMIZER }, { "zero2", ZERO_GRADIENTS },
        { "fsdp-shard_grad_op", ZERO_GRADIENTS }, { "fsdp", ZERO_WEIGHTS },
        { "hsdp", ZERO_WEIGHTS }, { "zero3", ZERO_WEIGHTS },
    };
    for (i64 i = 0; i < COUNT_OF(names); i++)
        if (begins(text, names[i].name))
            return names[i].stage;
    if (*text && strcmp(text, "ddp") && strcmp(text, "zero0") && strcmp(text, "none"))
        unknown_word(r, "shard", "ddp, zero0 to zero3, distopt, fsdp, hsdp");
    return ZERO_NONE;
}

static int dtype_of(struct reader *r)
{
    const char *text = cell(r, "precision");
    if (strstr(text, "fp4"))
        return PLAN_FP4;
    if (strstr(text, "fp8"))
        return PLAN_FP8;
    if (*text && !strstr(text, "bf16") && !strstr(text, "fp16") && strcmp(text, "fp32"))
        unknown_word(r, "precision", "fp32, bf16, fp16, fp8, fp4");
    if (strstr(text, "fp16"))
        return PLAN_FP16;
    return strcmp(text, "fp32") ? PLAN_BF16 : PLAN_FP32;
}

/* "grad_accum 16" in the notes: the product counts, where the batch as printed differs. */
static i64 accumulated(const struct reader *r)
{
    const char *note = strstr(cell(r, "notes"), "grad_accum ");
    i64 n = note ? atoll(note + strlen("grad_accum ")) : 0;
    return n > 0 && n <= MOST_SIZE ? n : 0;
}

static void read_batch(struct reader *r)
{
    struct plan_layout *l = &r->out->layout;
    i64 accumulate = accumulated(r);
    const char *missing = r->out->missing;
    r->out->batch = needed(r, "gbs");
    l->micro_batch = whole(r, "mbs");
    if (l->micro_batch == 0 && !missing && !r->out->missing) {
        r->out->missing = "mbs";
        r->out->any_micro_batch = true;
    }
    l->micro_batch = i64_max(1, l->micro_batch);
    if (l->dp <= 0 || l->micro_batch > MOST_SIZE || l->dp > MOST_SIZE) {
        if (!r->out->missing)
            r->out->missing = "a batch with a row for every data rank";
        return;
    }
    l->micro_batches = accumulate > 0 ? accumulate : r->out->batch / (l->micro_batch * l->dp);
    if (size_mul(l->micro_batches, l->micro_batch * l->dp, &r->out->batch))
        l->micro_batches = 0;
    if (l->micro_batches < 1 && !r->out->missing)
        r->out->missing = "a batch with a row for every data rank";
}

/* Several stages per rank are interleaved, whatever the row calls that. */
static void read_schedule(struct reader *r)
{
    struct plan_layout *l = &r->out->layout;
    const char *text = cell(r, "schedule");
    i64 stages = whole(r, "vpp");
    enum schedule_kind kind = SCHEDULE_1F1B;
    if (begins(text, "interleaved"))
        kind = SCHEDULE_INTERLEAVED;
    else if (*text)
        kind = schedule_kind_of(text);
    if (kind == SCHEDULE_KINDS) {
        unknown_word(r, "schedule", "gpipe, 1f1b, interleaved, zb-h1, zb-v");
        kind = SCHEDULE_1F1B;
    }
    if (stages == 0 && kind == SCHEDULE_INTERLEAVED && l->pp > 1 && !r->out->missing)
        r->out->missing = "vpp, how many stages of its interleaved schedule a rank has";
    l->virtual_stages = stages > 0 ? stages : kind == SCHEDULE_ZB_V && l->pp > 1 ? 2 : 1;
    if (kind == SCHEDULE_1F1B || kind == SCHEDULE_INTERLEAVED || l->pp == 1)
        kind = l->virtual_stages > 1 ? SCHEDULE_INTERLEAVED : SCHEDULE_1F1B;
    if ((l->virtual_stages < schedule_least_chunks(kind) ||
         (schedule_most_chunks(kind) && l->virtual_stages > schedule_most_chunks(kind))) &&
        !r->out->missing)
        r->out->missing = "as many stages per rank as its schedule has";
    l->schedule = (int)kind;
}

static void read_layout(struct reader *r)
{
    struct plan_layout *l = &r->out->layout;
    const char *sp = cell(r, "sp");
    l->tp = needed(r, "tp");
    l->pp = needed(r, "pp");
    l->cp = i64_max(1, whole(r, "cp"));
    l->ep = i64_max(1, whole(r, "ep"));
    l->dp = whole(r, "dp");
    if (l->dp == 0 && l->tp > 0 && l->pp > 0)
        l->dp = r->out->devices / l->tp / l->pp / l->cp;
    read_schedule(r);
    l->recompute = recompute_of(r);
    r->out->any_recompute = !*cell(r, "recompute") && strstr(cell(r, "notes"), "recompute not stated");
    l->zero = zero_of(r);
    if (begins(cell(r, "shard"), "hsdp")) /* split within nodes */
        l->zero_group = r->out->node_ranks;
    l->sequence_parallel = l->tp > 1 && !strcmp(sp, "yes");
    if (!*sp && l->tp > 1) /* later software than these always does */
        l->sequence_parallel = !strstr(r->out->framework, "DeepSpeed");
    read_batch(r);
    i64 product;
    bool large = size_mul(l->tp, l->pp, &product) || size_mul(product, l->cp, &product) ||
                 size_mul(product, l->dp, &product);
    if (!r->out->missing && (large || product != r->out->devices))
        r->out->missing = "degrees whose product is the number of devices";
}

static void read_measured(struct reader *r)
{
    struct plan_row *o = r->out;
    double rate = number(r, "tokens_per_s_per_gpu");
    double printed = number(r, "gbs");
    const char *status = cell(r, "status");
    o->seconds = number(r, "step_time_s");
    if (rate > 0 && (o->seconds == 0 || printed != (double)o->batch))
        o->seconds = (double)o->batch * (double)o->sequence / (rate * (double)o->devices);
    o->mfu = number(r, "mfu_pct");
    o->memory_bytes = number(r, "mem_gb") * 1e9;
    bool measured = o->seconds > 0 || o->mfu > 0 || o->memory_bytes > 0;
    o->status = !strcmp(status, "ok") || (!*status && measured) ? ROW_RAN
              : !strcmp(status, "oom") ? ROW_OUT_OF_MEMORY : ROW_CRASHED;
    if (*status && strcmp(status, "ok") && strcmp(status, "oom") && strcmp(status, "oom_or_crash"))
        unknown_word(r, "status", "ok, oom, oom_or_crash");
    if (o->status == ROW_RAN && o->seconds == 0 && !o->missing)
        o->missing = "a step time";
}

/* The first year that stands by itself; 0 where there is none. Numbers of papers are smaller. */
static i64 year_in(const char *text)
{
    bool apart = true;
    while (*text) {
        size_t n = strspn(text, "0123456789");
        i64 year = n == 4 && apart && !isalnum((unsigned char)text[4]) ? atoll(text) : 0;
        if (year >= 2013 && year < 2100)
            return year;
        text += n ? n : 1;
        apart = !isalnum((unsigned char)text[-1]);
    }
    return 0;
}

static i64 year_of(const struct reader *r)
{
    i64 said = year_in(cell(r, "framework"));
    return said ? said : year_in(cell(r, "source"));
}

static int read_row(struct reader *r)
{
    struct plan_row *o = r->out;
    o->id = cell(r, "id");
    o->model = cell(r, "model");
    o->gpu = cell(r, "gpu");
    o->precision = cell(r, "precision");
    o->framework = cell(r, "framework");
    o->year = year_of(r);
    o->devices = needed(r, "n_gpus");
    o->sequence = needed(r, "seq");
    o->node_ranks = o->devices > 1 ? needed(r, "gpus_per_node") : 1;
    o->node_ranks = i64_max(1, o->node_ranks);
    o->dtype = dtype_of(r);
    o->frozen = strstr(cell(r, "notes"), "LoRA") != NULL;
    o->link_bytes_per_s = number(r, "intra_gbs_per_gpu") * 1e9;
    o->net_bytes_per_s = number(r, "inter_gbs_per_gpu") * 1e9;
    read_model(r);
    read_layout(r);
    read_measured(r);
    return r->rc;
}

static const char *const columns[] = {
    "id", "model", "layers", "hidden", "ffn", "heads", "kv_heads", "vocab", "seq", "gpu", "n_gpus",
    "gpus_per_node", "precision", "tp", "pp", "dp", "mbs", "gbs", "recompute", "framework",
    "step_time_s", "tokens_per_s_per_gpu", "status",
};

int plan_rows_of(struct plan_rows *out, const struct csv *t, struct arena *a)
{
    for (i64 i = 0; i < COUNT_OF(columns); i++)
        if (csv_column(t, columns[i]) < 0)
            return err_set(ERR_FORMAT, "%s has no column '%s'; facts/README.md lists the columns",
                           t->file, columns[i]);
    const char *slash = strrchr(t->file, '/'), *name = slash ? slash + 1 : t->file;
    const char *dot = strrchr(name, '.');
    *out = (struct plan_rows){ .name = arena_strndup(a, name, dot ? dot - name
                                                                  : (i64)strlen(name)),
                               .n = t->n_rows };
    out->rows = ARENA_ARRAY(a, struct plan_row, t->n_rows);
    for (i64 i = 0; i < t->n_rows; i++) {
        struct reader r = { t, i, a, &out->rows[i], OK };
        TRY(read_row(&r));
    }
    return OK;
}

int plan_set_path(const char *set, const char **path, struct arena *a)
{
    char found[4096];
    TRY(plan_file_find(found, sizeof found, "facts/measured",
                       arena_printf(a, "%s.csv", set)));
    *path = arena_strdup(a, found);
    return OK;
}

int plan_rows_load(struct plan_rows *out, const char *path, struct arena *a)
{
    struct csv t;
    TRY(csv_load(path, a, &t));
    return plan_rows_of(out, &t, a);
}
