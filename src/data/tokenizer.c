#include "data/tokenizer_impl.h"

#include "base/err.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/sys.h"
#include "data/byte_alphabet.h"

#include <stdlib.h>
#include <string.h>

/* --- vocabulary --------------------------------------------------------------------- */

/* Unused ids cost memory too, so a file may not leave out many more than it has. */
static int check_id(const struct tokenizer_draft *d, i64 id)
{
    i64 limit = (i64)i64_min(4 * (d->vocab_count + d->added_count) + (1 << 20), INT32_MAX);
    if (id < 0 || id >= limit)
        return err_set(ERR_FORMAT, "a token has the id %lld; with %lld tokens, ids from 0 to "
                                   "%lld are accepted", (long long)id,
                       (long long)(d->vocab_count + d->added_count), (long long)limit - 1);
    return OK;
}

static int size_up(struct tokenizer *t, const struct tokenizer_draft *d)
{
    if (d->vocab_count == 0)
        return err_set(ERR_FORMAT, "the vocabulary is empty");
    for (i64 i = 0; i < d->vocab_count; i++) {
        TRY(check_id(d, d->vocab[i].id));
        t->size = (i32)i64_max(t->size, (i64)d->vocab[i].id + 1);
    }
    for (i64 i = 0; i < d->added_count; i++) {
        TRY(check_id(d, d->added[i].id));
        t->size = (i32)i64_max(t->size, (i64)d->added[i].id + 1);
    }
    return OK;
}

static int fill_vocab(struct tokenizer *t, const struct tokenizer_draft *d)
{
    i64 total = 0;
    for (i64 i = 0; i < d->vocab_count; i++)
        total += d->vocab[i].length;
    t->vocab = ARENA_ARRAY(&t->arena, struct vocab_token, t->size);
    vocab_map_init(&t->map, &t->arena, d->vocab_count);
    u8 *bytes = arena_alloc(&t->arena, total);
    for (i64 i = 0; i < d->vocab_count; i++) {
        const struct draft_token *from = &d->vocab[i];
        if (t->vocab[from->id].bytes)
            return err_set(ERR_FORMAT, "two entries of the vocabulary have the id %d", from->id);
        memcpy(bytes, from->bytes, (size_t)from->length);
        t->vocab[from->id] =
            (struct vocab_token){ .bytes = bytes, .length = from->length, .raw = from->raw };
        i32 twin = vocab_map_add(&t->map, bytes, from->length, from->raw, from->id);
        if (twin >= 0)
            return err_set(ERR_FORMAT, "ids %d and %d of the vocabulary are the same token",
                           twin, from->id);
        bytes += from->length;
    }
    return OK;
}

/* A spelling as vocabulary files have it: byte alphabet, or characters outside it. */
static i32 find_spelling(const struct tokenizer *t, const char *spelling)
{
    i64 length = (i64)strlen(spelling), count = -1;
    u8 bytes[256];
    if (length <= COUNT_OF(bytes))
        count = byte_alphabet_read(spelling, length, bytes);
    return count >= 0 ? vocab_map_find(&t->map, bytes, count, false)
                      : vocab_map_find(&t->map, (const u8 *)spelling, length, true);
}

/* Hugging Face's tokenizers leave them away too, in silence. */
static void warn_of_lost_bytes(const struct tokenizer *t)
{
    int n = 0, first = 0;
    for (int byte = 255; byte >= 0; byte--)
        if (t->byte_id[byte] < 0) {
            first = byte;
            n++;
        }
    if (n > 0)
        log_line(LOG_WARN, "tokenizer: %d of the 256 bytes have no token, such as 0x%02x: text "
                 "loses them", n, (unsigned)first);
}

static int fill_bytes(struct tokenizer *t, const struct tokenizer_draft *d)
{
    i32 unknown = -1;
    if (d->unknown && d->unknown[0]) {
        t->unknown = arena_strdup(&t->arena, d->unknown);
        unknown = find_spelling(t, d->unknown);
        if (unknown < 0)
            return err_set(ERR_FORMAT, "the unknown token %s is not in the vocabulary",
                           d->unknown);
    }
    t->fuse_unknown = d->fuse_unknown;
    for (int byte = 0; byte < 256; byte++) {
        t->byte_id[byte] = vocab_map_find(&t->map, &(u8){ (u8)byte }, 1, false);
        t->byte_unknown[byte] = t->byte_id[byte] < 0 && unknown >= 0;
        if (t->byte_unknown[byte])
            t->byte_id[byte] = unknown;
    }
    warn_of_lost_bytes(t);
    return OK;
}

/* Keeps the last rule of every pair. */
static int fill_rules(struct tokenizer *t, const struct tokenizer_draft *d)
{
    for (i64 i = 0; i < d->rule_count; i++) {
        const struct bpe_rule *r = &d->rules[i];
        assert(r->left >= 0 && r->left < t->size && r->right >= 0 && r->right < t->size &&
               r->result >= 0 && r->result < t->size);
        (void)r;
    }
    struct arena scratch;
    struct bpe_table last;
    arena_init(&scratch);
    bpe_table_init(&last, &scratch, d->rules, d->rule_count);
    t->rules = ARENA_ARRAY(&t->arena, struct bpe_rule, d->rule_count);
    for (i64 i = 0; i < d->rule_count; i++)
        if (bpe_table_rank(&last, d->rules[i].left, d->rules[i].right) == i)
            t->rules[t->rule_count++] = d->rules[i];
    arena_fini(&scratch);
    bpe_table_init(&t->table, &t->arena, t->rules, t->rule_count);
    t->ignore_merges = d->ignore_merges;
    return OK;
}

/* --- added tokens ------------------------------------------------------------------- */

static int by_id(const void *a, const void *b)
{
    const struct added_token *x = a, *y = b;
    return (x->id > y->id) - (x->id < y->id);
}

static int copy_added(struct tokenizer *t, const struct tokenizer_draft *d)
{
    t->added = ARENA_ARRAY(&t->arena, struct added_token, d->added_count);
    t->added_count = d->added_count;
    for (i64 i = 0; i < d->added_count; i++) {
        struct added_token *a = &t->added[i];
        *a = d->added[i];
        if (a->bytes == 0)
            return err_set(ERR_FORMAT, "an added token is empty");
        a->content = arena_strndup(&t->arena, a->content, a->bytes);
        if (t->vocab[a->id].added)
            return err_set(ERR_FORMAT, "the added token %s is listed twice", a->content);
        t->vocab[a->id].added = true;
        t->vocab[a->id].special = a->special;
    }
    qsort(t->added, (size_t)t->added_count, sizeof *t->added, by_id);
    return OK;
}

/* Tokens with the flag "normalized" are looked for in normalised text, so their own
 * content is normalised too. */
static int sort_added(struct tokenizer *t)
{
    struct normalizer n = { 0 };
    struct arena scratch;
    i64 plain = 0, changed = 0;
    int rc = OK;
    arena_init(&scratch);
    struct added_token *a = ARENA_ARRAY(&scratch, struct added_token, t->added_count);
    for (i64 i = 0; i < t->added_count; i++)
        if (!t->added[i].normalized)
            a[plain++] = t->added[i];
    added_set_init(&t->plain, &t->arena, a, plain);
    for (i64 i = 0; i < t->added_count; i++) {
        struct added_token token = t->added[i];
        const u8 *content = (const u8 *)token.content;
        if (!token.normalized)
            continue;
        if (!normalize_not_needed(t->form, content, token.bytes)) {
            TRY_TO(done, normalize(&n, t->form, content, token.bytes));
            token.bytes = n.out.bytes;
            token.content = arena_strndup(&t->arena, (char *)n.out.data, n.out.bytes);
        }
        a[changed++] = token;
    }
    added_set_init(&t->normalized, &t->arena, a, changed);
done:
    normalizer_fini(&n);
    arena_fini(&scratch);
    return rc;
}

/* --- normalizer and post-processor -------------------------------------------------- */

static int read_normalizer(struct tokenizer *t, const json_t *json)
{
    if (!json || json_is_null(json))
        return OK;
    const char *type = json_string_value(json_object_get(json, "type"));
    const json_t *list = json_object_get(json, "normalizers");
    if (type && !strcmp(type, "Sequence") && json_array_size(list) <= 1)
        return read_normalizer(t, json_array_get(list, 0));
    t->form = type ? normal_form_from_name(type) : FORM_NONE;
    if (t->form == FORM_NONE)
        return err_set(ERR_FORMAT, "the normalizer is of type %s; Headway knows NFC, NFD, NFKC "
                                   "and NFKD, one at a time", type ? type : "(none)");
    return OK;
}

static int template_add(struct tokenizer *t, bool behind, const json_t *id)
{
    i64 value = json_is_integer(id) ? (i64)json_integer_value(id) : -1;
    int *count = behind ? &t->suffix_count : &t->prefix_count;
    i64 bytes;
    if (value < 0 || value >= t->size ||
        !tokenizer_token(t, (i32)value, &bytes)) /* a vocabulary has gaps */
        return err_set(ERR_FORMAT, "the post-processor names a token that does not exist");
    if (*count == TOKENIZER_MAX_TEMPLATE)
        return err_set(ERR_LIMIT, "the post-processor puts more than %d tokens around a text",
                       TOKENIZER_MAX_TEMPLATE);
    (behind ? t->suffix : t->prefix)[(*count)++] = (i32)value;
    return OK;
}

static int read_template(struct tokenizer *t, const json_t *json)
{
    const json_t *specials = json_object_get(json, "special_tokens"), *item, *id;
    bool behind = false;
    size_t i, k;
    json_array_foreach(json_object_get(json, "single"), i, item) {
        const json_t *special = json_object_get(item, "SpecialToken");
        if (!special) {
            behind = true;
            continue;
        }
        const char *name = json_string_value(json_object_get(special, "id"));
        const json_t *token = name ? json_object_get(specials, name) : NULL;
        if (!token)
            return err_set(ERR_FORMAT, "the post-processor uses a special token that it does "
                                       "not define");
        json_array_foreach(json_object_get(token, "ids"), k, id)
            TRY(template_add(t, behind, id));
    }
    return OK;
}

static int read_post_processor(struct tokenizer *t, const json_t *json, int depth)
{
    if (!json || json_is_null(json))
        return OK;
    const char *type = json_string_value(json_object_get(json, "type"));
    if (type && !strcmp(type, "ByteLevel"))
        return OK;
    if (type && !strcmp(type, "TemplateProcessing"))
        return read_template(t, json);
    if (type && (!strcmp(type, "RobertaProcessing") || !strcmp(type, "BertProcessing"))) {
        TRY(template_add(t, false, json_array_get(json_object_get(json, "cls"), 1)));
        return template_add(t, true, json_array_get(json_object_get(json, "sep"), 1));
    }
    if (type && !strcmp(type, "Sequence") && depth == 0) {
        size_t i;
        const json_t *item;
        json_array_foreach(json_object_get(json, "processors"), i, item)
            TRY(read_post_processor(t, item, depth + 1));
        return OK;
    }
    return err_set(ERR_FORMAT, "the post-processor is of type %s, which Headway does not read",
                   type ? type : "(none)");
}

static i32 first_known(const struct tokenizer *t, const char *const *names, i64 count)
{
    for (i64 i = 0; i < count; i++)
        if (names[i] && tokenizer_find(t, names[i]) >= 0)
            return tokenizer_find(t, names[i]);
    return -1;
}

/* What the files say, then what the template does, then the names that models use. */
static void find_ends(struct tokenizer *t, const struct tokenizer_draft *d)
{
    static const char *const begins[] = { "<|begin_of_text|>", "<|startoftext|>", "<s>",
                                          "<\uFF5Cbegin\u2581of\u2581sentence\uFF5C>" };
    static const char *const ends[] = { "<|endoftext|>", "<|end_of_text|>", "</s>",
                                        "<\uFF5Cend\u2581of\u2581sentence\uFF5C>" };
    t->bos = first_known(t, &d->bos, 1);
    t->eos = first_known(t, &d->eos, 1);
    if (t->bos < 0 && t->prefix_count > 0)
        t->bos = t->prefix[0];
    if (t->eos < 0 && t->suffix_count > 0)
        t->eos = t->suffix[t->suffix_count - 1];
    if (t->bos < 0)
        t->bos = first_known(t, begins, COUNT_OF(begins));
    if (t->eos < 0)
        t->eos = first_known(t, ends, COUNT_OF(ends));
}

/* --- build -------------------------------------------------------------------------- */

static int add_to_text(const char *bytes, size_t count, void *text)
{
    text_add_bytes(text, bytes, (i64)count);
    return 0;
}

/* Canonical: keys sorted, no blanks. */
static char *dump_json(struct arena *a, const json_t *json)
{
    struct text text = { 0 };
    if (json && !json_is_null(json))
        json_dump_callback(json, add_to_text, &text, JSON_SORT_KEYS | JSON_COMPACT);
    else
        text_add(&text, "null");
    char *copy = arena_strdup(a, text.data);
    text_fini(&text);
    return copy;
}

/* Puts the token before a text, as Llama 3's file does it. */
static json_t *begin_template(const struct added_token *b)
{
    return json_pack("{s:s, s:[{s:{s:s,s:i}}, {s:{s:s,s:i}}],"
                     " s:[{s:{s:s,s:i}}, {s:{s:s,s:i}}, {s:{s:s,s:i}}, {s:{s:s,s:i}}],"
                     " s:{s:{s:s, s:[i], s:[s]}}}",
                     "type", "TemplateProcessing",
                     "single", "SpecialToken", "id", b->content, "type_id", 0,
                     "Sequence", "id", "A", "type_id", 0,
                     "pair", "SpecialToken", "id", b->content, "type_id", 0,
                     "Sequence", "id", "A", "type_id", 0,
                     "SpecialToken", "id", b->content, "type_id", 1,
                     "Sequence", "id", "B", "type_id", 1,
                     "special_tokens", b->content, "id", b->content, "ids", (int)b->id,
                     "tokens", b->content);
}

/* Where documents have a token before them and another behind, transformers too shall begin a text
 * with the first. */
static int write_post_processor(struct tokenizer *t, const struct tokenizer_draft *d)
{
    const struct added_token *b = NULL;
    i32 begin, end;
    tokenizer_separators(t, &begin, &end);
    for (i64 i = 0; i < t->added_count; i++)
        b = t->added[i].id == begin ? &t->added[i] : b;
    if (!d->made_here || end < 0 || !b || t->prefix_count > 0) {
        t->post_processor_json = dump_json(&t->arena, d->post_processor);
        return OK;
    }
    json_t *both = json_pack("{s:s, s:[O, o]}", "type", "Sequence", "processors",
                             (json_t *)d->post_processor, begin_template(b));
    if (!both)
        return err_set(ERR_LIMIT, "no memory for the post-processor");
    t->prefix[t->prefix_count++] = begin;
    t->post_processor_json = dump_json(&t->arena, both);
    json_decref(both);
    return OK;
}

static int fill(struct tokenizer *t, const struct tokenizer_draft *d)
{
    struct json out;
    TRY(size_up(t, d));
    TRY(fill_vocab(t, d));
    TRY(fill_bytes(t, d));
    TRY(fill_rules(t, d));
    TRY(copy_added(t, d));
    TRY(read_normalizer(t, d->normalizer));
    TRY(sort_added(t));
    TRY(pretokenizer_init(&t->pretokenizer, d->pre_tokenizer));
    TRY(read_post_processor(t, d->post_processor, 0));
    find_ends(t, d);
    t->normalizer_json = dump_json(&t->arena, d->normalizer);
    t->pre_tokenizer_json = dump_json(&t->arena, d->pre_tokenizer);
    TRY(write_post_processor(t, d));
    t->decoder_json = dump_json(&t->arena, d->decoder);
    json_writer_init(&out);
    tokenizer_write(t, &out);
    sha256_of(out.out.data, out.out.length, t->hash);
    json_writer_fini(&out);
    return OK;
}

int tokenizer_build(struct tokenizer **out, const struct tokenizer_draft *d)
{
    struct tokenizer *t = sys_alloc((i64)sizeof *t, 64);
    if (!t)
        return err_set(ERR_LIMIT, "no memory for a tokenizer");
    *t = (struct tokenizer){ .bos = -1, .eos = -1 };
    arena_init(&t->arena);
    int rc = fill(t, d);
    if (rc < 0)
        tokenizer_free(t);
    else
        *out = t;
    return rc;
}

void tokenizer_free(struct tokenizer *t)
{
    if (!t)
        return;
    pretokenizer_fini(&t->pretokenizer);
    arena_fini(&t->arena);
    sys_free(t);
}

/* --- questions ---------------------------------------------------------------------- */

i32 tokenizer_size(const struct tokenizer *t)
{
    return t->size;
}

static const struct added_token *added_by_id(const struct tokenizer *t, i32 id)
{
    struct added_token key = { .id = id };
    return bsearch(&key, t->added, (size_t)t->added_count, sizeof key, by_id);
}

const u8 *tokenizer_token(const struct tokenizer *t, i32 id, i64 *bytes)
{
    *bytes = 0;
    if (id < 0 || id >= t->size)
        return NULL;
    if (t->vocab[id].added) {
        const struct added_token *a = added_by_id(t, id);
        *bytes = a->bytes;
        return (const u8 *)a->content;
    }
    *bytes = t->vocab[id].length;
    return t->vocab[id].bytes;
}

i32 tokenizer_find(const struct tokenizer *t, const char *token)
{
    i64 length = (i64)strlen(token);
    for (i64 i = 0; i < t->added_count; i++)
        if (t->added[i].bytes == length && !memcmp(t->added[i].content, token, (size_t)length))
            return t->added[i].id;
    i32 id = vocab_map_find(&t->map, (const u8 *)token, length, false);
    return id >= 0 ? id : vocab_map_find(&t->map, (const u8 *)token, length, true);
}

bool tokenizer_is_special(const struct tokenizer *t, i32 id)
{
    return id >= 0 && id < t->size && t->vocab[id].special;
}

i32 tokenizer_bos(const struct tokenizer *t)
{
    return t->bos;
}

i32 tokenizer_eos(const struct tokenizer *t)
{
    return t->eos;
}

void tokenizer_separators(const struct tokenizer *t, i32 *begin, i32 *end)
{
    const bool both = t->bos >= 0 && t->eos >= 0 && t->bos != t->eos;
    *begin = both ? t->bos : t->eos >= 0 ? t->eos : t->bos;
    *end = both ? t->eos : -1;
}

const char *tokenizer_hash(const struct tokenizer *t)
{
    return t->hash;
}
