#include "data/tokenizer_impl.h"

#include "base/err.h"
#include "base/log.h"

#include <string.h>

static int check_model(const json_t *model)
{
    const char *type = json_string_value(json_object_get(model, "type"));
    if (!json_is_object(model))
        return err_set(ERR_FORMAT, "there is no \"model\", so this is no tokenizer.json");
    if (type && strcmp(type, "BPE") != 0)
        return err_set(ERR_FORMAT, "the model is of type %s; Headway reads byte-level BPE only "
                                   "(GPT-2, GPT-4, Llama 3, Qwen)", type);
    if (json_is_true(json_object_get(model, "byte_fallback")))
        return err_set(ERR_FORMAT, "the model has byte_fallback, as SentencePiece tokenizers "
                                   "do; Headway reads byte-level BPE only (GPT-2, Llama 3, Qwen)");
    static const char *const affixes[] = { "continuing_subword_prefix", "end_of_word_suffix" };
    for (int i = 0; i < COUNT_OF(affixes); i++) {
        const char *affix = json_string_value(json_object_get(model, affixes[i]));
        if (affix && affix[0])
            return err_set(ERR_FORMAT, "the model has a %s; Headway reads byte-level BPE only "
                                       "(GPT-2, GPT-4, Llama 3, Qwen)", affixes[i]);
    }
    if (json_number_value(json_object_get(model, "dropout")) != 0)
        return err_set(ERR_FORMAT, "the model has dropout, so its ids would be random; set "
                                   "\"dropout\" to null");
    if (!json_is_object(json_object_get(model, "vocab")) ||
        !json_is_array(json_object_get(model, "merges")))
        return err_set(ERR_FORMAT, "the model has no vocab or no merges");
    return OK;
}

/* One element of "merges": "left right" or ["left", "right"]. *skip for a "#version" line,
 * which old files carry over from merges.txt. */
static int read_rule(struct bpe_rule *out, const json_t *vocab, struct text scratch[2],
                     const json_t *item, i64 number, bool *skip)
{
    const char *left = json_string_value(json_array_get(item, 0));
    const char *right = json_string_value(json_array_get(item, 1));
    const char *line = json_string_value(item);
    *skip = line && !strncmp(line, "#version", 8);
    if (*skip)
        return OK;
    if (line) {
        char *cut;
        text_clear(&scratch[1]);
        text_add(&scratch[1], line);
        if (import_cut_rule(scratch[1].data, &cut)) {
            left = scratch[1].data;
            right = cut;
        }
    }
    if (!left || !right || json_array_size(item) > 2)
        return err_set(ERR_FORMAT, "merge %lld is not a pair of tokens", (long long)number);
    return import_rule(out, vocab, &scratch[0], left, right, number);
}

static int read_rules(struct tokenizer_draft *d, struct arena *a, const json_t *model)
{
    const json_t *vocab = json_object_get(model, "vocab");
    const json_t *merges = json_object_get(model, "merges"), *item;
    struct bpe_rule *rules = ARENA_ARRAY(a, struct bpe_rule, json_array_size(merges));
    struct text scratch[2] = { { 0 }, { 0 } };
    i64 count = 0;
    size_t i;
    int rc = OK;
    json_array_foreach(merges, i, item) {
        bool skip;
        TRY_TO(done, read_rule(&rules[count], vocab, scratch, item, (i64)i + 1, &skip));
        count += !skip;
    }
    d->rules = rules;
    d->rule_count = count;
done:
    text_fini(&scratch[0]);
    text_fini(&scratch[1]);
    return rc;
}

static int read_flag(const json_t *json, const char *key, bool *out)
{
    const json_t *value = json_object_get(json, key);
    if (value && !json_is_boolean(value))
        return err_set(ERR_FORMAT, "an added token's %s is neither true nor false", key);
    *out = json_is_true(value);
    return OK;
}

/* The id is Hugging Face's choice: an entry of the vocabulary keeps its own, others count
 * on from the vocabulary's size, whatever the file says. */
static int read_added_token(struct added_token *out, const json_t *item, const json_t *vocab,
                            i64 *next)
{
    const char *content = json_string_value(json_object_get(item, "content"));
    const json_t *said = json_object_get(item, "id");
    if (!content || !json_is_integer(said))
        return err_set(ERR_FORMAT, "an added token has no content or no id");
    *out = (struct added_token){ .content = content, .bytes = (i64)strlen(content) };
    TRY(read_flag(item, "special", &out->special));
    TRY(read_flag(item, "single_word", &out->single_word));
    TRY(read_flag(item, "lstrip", &out->lstrip));
    TRY(read_flag(item, "rstrip", &out->rstrip));
    TRY(read_flag(item, "normalized", &out->normalized));
    const json_t *known = json_object_get(vocab, content);
    out->id = (i32)(known ? json_integer_value(known) : (*next)++);
    if (out->id != json_integer_value(said))
        log_line(LOG_WARN, "tokenizer: added token %s gets the id %d, as Hugging Face's "
                           "tokenizers give it, not %lld as its file says", content, out->id,
                 (long long)json_integer_value(said));
    return OK;
}

static int read_added(struct tokenizer_draft *d, struct arena *a, const json_t *list,
                      const json_t *vocab)
{
    struct added_token *added = ARENA_ARRAY(a, struct added_token, json_array_size(list));
    i64 next = (i64)json_object_size(vocab);
    const json_t *item;
    size_t i;
    json_array_foreach(list, i, item)
        TRY(read_added_token(&added[i], item, vocab, &next));
    d->added = added;
    d->added_count = (i64)json_array_size(list);
    return OK;
}

static int read_draft(struct tokenizer_draft *d, struct arena *a, const json_t *root,
                      const json_t *config)
{
    const json_t *model = json_object_get(root, "model");
    const char *version = json_string_value(json_object_get(root, "version"));
    TRY(check_model(model));
    if (version && strcmp(version, "1.0") != 0)
        return err_set(ERR_FORMAT, "the file's version is %s; Headway reads version 1.0", version);
    const json_t *vocab = json_object_get(model, "vocab");
    TRY(import_vocab(d, a, vocab));
    TRY(read_rules(d, a, model));
    TRY(read_added(d, a, json_object_get(root, "added_tokens"), vocab));
    d->normalizer = json_object_get(root, "normalizer");
    d->pre_tokenizer = json_object_get(root, "pre_tokenizer");
    d->post_processor = json_object_get(root, "post_processor");
    d->decoder = json_object_get(root, "decoder");
    d->unknown = json_string_value(json_object_get(model, "unk_token"));
    d->fuse_unknown = json_is_true(json_object_get(model, "fuse_unk"));
    d->ignore_merges = json_is_true(json_object_get(model, "ignore_merges"));
    d->bos = import_config_token(config, "bos_token");
    d->eos = import_config_token(config, "eos_token");
    return OK;
}

int import_json(struct tokenizer **out, const json_t *root, const json_t *config)
{
    struct arena a;
    struct tokenizer_draft d = { 0 };
    int rc;
    arena_init(&a);
    TRY_TO(done, read_draft(&d, &a, root, config));
    rc = tokenizer_build(out, &d);
done:
    arena_fini(&a);
    return rc;
}
