#include "data/bpe_train.h"

#include "base/err.h"
#include "base/sys.h"
#include "data/bpe_learn.h"
#include "data/byte_alphabet.h"
#include "data/tokenizer_impl.h"
#include "data/unicode.h"
#include "data/word_table.h"

#include <string.h>

enum {
    BATCH_BYTES = 16 << 20, /* collected before the threads count; small documents add up */
    SLICE_BYTES = 256 << 10,
    REPORT_EVERY = 64, /* tokens */
    MAX_VOCAB = 1 << 24,
};

struct slice {
    i64 begin, bytes; /* in the batch */
};

struct counter { /* one per thread */
    struct word_table words;
    struct pretoken_scratch pretoken;
    struct normalizer normalizer;
    int rc;
    char message[256];
};

struct bpe_trainer {
    struct bpe_train_options options;
    struct pool *pool;
    struct pretokenizer pretokenizer;
    enum normal_form form;
    struct buffer batch, slices; /* of bytes, of struct slice */
    struct counter *counters;
    i64 bytes_seen;
    struct arena arena; /* what learning produces */
    struct draft_token *tokens;
    i64 token_count;
    struct bpe_rule *rules;
    i64 rule_count;
    struct added_token *added;
    struct vocab_map specials;
};

/* --- counting words ----------------------------------------------------------------- */

static int count_word(void *context, const u8 *piece, i64 bytes)
{
    struct counter *c = context;
    return word_table_add(&c->words, piece, bytes, 1);
}

static int count_wellformed(const struct bpe_trainer *t, struct counter *c, const u8 *text,
                            i64 bytes)
{
    if (!normalize_not_needed(t->form, text, bytes)) {
        TRY(normalize(&c->normalizer, t->form, text, bytes));
        text = c->normalizer.out.data;
        bytes = c->normalizer.out.bytes;
    }
    return pretokenize(&t->pretokenizer, &c->pretoken, text, bytes, count_word, c);
}

static int count_text(const struct bpe_trainer *t, struct counter *c, const u8 *text, i64 bytes)
{
    bool incomplete;
    for (i64 at = 0; at < bytes;) {
        i64 good = utf8_valid(text + at, bytes - at);
        TRY(count_wellformed(t, c, text + at, good));
        at += good;
        i64 bad = at;
        while (bad < bytes && utf8_valid(text + bad, i64_min(bytes - bad, 4)) == 0)
            bad += utf8_bad_length(text + bad, bytes - bad, &incomplete);
        if (bad > at)
            TRY(word_table_add(&c->words, text + at, bad - at, 1));
        at = bad;
    }
    return OK;
}

static void count_slice(void *context, i64 part, int thread)
{
    const struct bpe_trainer *t = context;
    struct counter *c = &t->counters[thread];
    const struct slice *s = (const struct slice *)(const void *)t->slices.data + part;
    if (c->rc < 0)
        return;
    c->rc = count_text(t, c, t->batch.data + s->begin, s->bytes);
    if (c->rc < 0)
        strncpy(c->message, err_message(), sizeof c->message - 1);
}

static int count_batch(struct bpe_trainer *t)
{
    pool_run(t->pool, t->slices.bytes / (i64)sizeof(struct slice), count_slice, t);
    i64 held = 0;
    for (int i = 0; i < pool_threads(t->pool); i++) {
        if (t->counters[i].rc < 0)
            return err_set(t->counters[i].rc, "%s", t->counters[i].message);
        held += word_table_bytes(&t->counters[i].words);
    }
    t->bytes_seen += t->batch.bytes;
    t->batch.bytes = t->slices.bytes = 0;
    if (t->options.progress)
        t->options.progress(t->options.context, "count words", t->bytes_seen, 0);
    if (held > sys_memory_limit_bytes() / 4) /* learning takes about as much again */
        return err_set(ERR_LIMIT, "the words of the first %lld bytes fill %lld MiB; train on "
                                  "less text", (long long)t->bytes_seen, (long long)held >> 20);
    return OK;
}

/* A place to cut a long document without changing its pieces: behind a newline that has
 * no white space on either side. All patterns of data/scan.h begin a piece there. */
static i64 cut_at(const u8 *text, i64 bytes)
{
    for (i64 i = i64_min(SLICE_BYTES, bytes); i < bytes; i++)
        if (text[i - 1] == '\n' && text[i] > ' ' && text[i] < 0x7F && text[i - 2] > ' ' &&
            text[i - 2] < 0x7F)
            return i;
    return bytes;
}

int bpe_trainer_add(struct bpe_trainer *t, const void *text, i64 bytes)
{
    const u8 *rest = text;
    while (bytes > 0) {
        struct slice s = { t->batch.bytes, cut_at(rest, bytes) };
        TRY(buffer_add(&t->batch, rest, s.bytes));
        TRY(buffer_add(&t->slices, &s, (i64)sizeof s));
        rest += s.bytes;
        bytes -= s.bytes;
        if (t->batch.bytes >= BATCH_BYTES)
            TRY(count_batch(t));
    }
    return OK;
}

/* --- learning ----------------------------------------------------------------------- */

static i32 add_token(struct bpe_trainer *t, const u8 *bytes, i64 length, bool raw)
{
    i32 id = (i32)t->token_count++;
    t->tokens[id] = (struct draft_token){ bytes, (i32)length, id, raw };
    return id;
}

static int add_specials(struct bpe_trainer *t)
{
    const struct bpe_train_options *o = &t->options;
    t->added = ARENA_ARRAY(&t->arena, struct added_token, o->special_count);
    vocab_map_init(&t->specials, &t->arena, o->special_count);
    for (i64 i = 0; i < o->special_count; i++) {
        const char *text = o->specials[i];
        i64 length = (i64)strlen(text);
        if (length < 2 || length > INT32_MAX / 2 || utf8_valid((const u8 *)text, length) != length)
            return err_set(ERR_USAGE, "the special token \"%s\" is not UTF-8 text of two bytes "
                                      "or more", text);
        u8 *bytes = arena_alloc(&t->arena, length);
        i64 read = byte_alphabet_read(text, length, bytes);
        if (read < 0)
            memcpy(bytes, text, (size_t)length);
        i32 id = add_token(t, bytes, read < 0 ? length : read, read < 0);
        if (vocab_map_add(&t->specials, bytes, t->tokens[id].length, read < 0, id) >= 0)
            return err_set(ERR_USAGE, "the special token %s is given twice", text);
        t->added[i] = (struct added_token){ .content = text, .bytes = length, .id = id,
                                            .special = true };
    }
    return OK;
}

/* Ids of the bytes follow the order of their characters, as in GPT-2's vocabulary. */
static void add_bytes(struct bpe_trainer *t, i32 byte_id[256])
{
    for (u32 c = 0; c < 512; c++)
        for (int byte = 0; byte < 256; byte++)
            if (byte_alphabet_char((u8)byte) == c) {
                u8 *copy = arena_alloc(&t->arena, 1);
                *copy = (u8)byte;
                byte_id[byte] = add_token(t, copy, 1, false);
            }
}

static i32 learnt(void *context, i32 left, i32 right, i32 next)
{
    struct bpe_trainer *t = context;
    const struct draft_token *l = &t->tokens[left], *r = &t->tokens[right];
    i64 length = (i64)l->length + r->length;
    u8 *bytes = arena_alloc(&t->arena, length);
    memcpy(bytes, l->bytes, (size_t)l->length);
    memcpy(bytes + l->length, r->bytes, (size_t)r->length);
    i32 id = vocab_map_find(&t->specials, bytes, length, false);
    if (id < 0)
        id = add_token(t, bytes, length, false);
    assert(id <= next);
    t->rules[t->rule_count++] = (struct bpe_rule){ left, right, id };
    if (t->options.progress && id == next && id % REPORT_EVERY == 0)
        t->options.progress(t->options.context, "merge pairs", t->token_count,
                            t->options.vocab_size);
    return id;
}

static int merge_tables(struct bpe_trainer *t)
{
    struct word_table *all = &t->counters[0].words;
    for (int i = 1; i < pool_threads(t->pool); i++) {
        struct word_table *more = &t->counters[i].words;
        for (i64 k = 0; k < more->capacity; k++)
            if (more->slots[k].bytes)
                TRY(word_table_add(all, more->slots[k].bytes, more->slots[k].length,
                                   more->slots[k].count));
        word_table_fini(more);
        word_table_init(more);
    }
    return OK;
}

int bpe_trainer_finish(struct bpe_trainer *t, struct tokenizer **out)
{
    const struct bpe_train_options *o = &t->options;
    struct bpe_learn in = { .words = &t->counters[0].words,
                            .min_count = i64_max(1, o->min_count),
                            .learnt = learnt,
                            .context = t };
    TRY(count_batch(t));
    TRY(merge_tables(t));
    add_bytes(t, in.byte_id);
    in.first_id = (i32)t->token_count;
    in.new_tokens = o->vocab_size - t->token_count;
    /* A rule makes a new token, or one of the special tokens, each of them once. */
    t->rules = ARENA_ARRAY(&t->arena, struct bpe_rule, in.new_tokens + o->special_count);
    TRY(bpe_learn(&in));
    struct tokenizer_draft d = { .vocab = t->tokens, .vocab_count = t->token_count,
                                 .rules = t->rules, .rule_count = t->rule_count,
                                 .added = t->added, .added_count = o->special_count };
    return import_build(out, &d, o->pattern);
}

/* --- life --------------------------------------------------------------------------- */

static int check_options(const struct bpe_train_options *o)
{
    if (!scan_by_name(o->pattern))
        return err_set(ERR_USAGE, "there is no pre-tokenizer pattern %s; known are gpt2, "
                                  "cl100k, llama3 and qwen2", o->pattern);
    if (o->vocab_size < 256 + o->special_count || o->vocab_size > MAX_VOCAB)
        return err_set(ERR_USAGE, "a vocabulary of %lld tokens cannot be: 256 bytes and %lld "
                                  "special tokens are the least, %d the most",
                       (long long)o->vocab_size, (long long)o->special_count, MAX_VOCAB);
    return OK;
}

int bpe_trainer_new(struct bpe_trainer **out, const struct bpe_train_options *o,
                    struct pool *pool)
{
    TRY(check_options(o));
    struct bpe_trainer *t = sys_alloc((i64)sizeof *t, 64);
    if (!t)
        return err_set(ERR_LIMIT, "no memory to train a tokenizer");
    *t = (struct bpe_trainer){ .options = *o, .pool = pool };
    arena_init(&t->arena);
    t->form = strcmp(o->pattern, "qwen2") ? FORM_NONE : FORM_NFC;
    t->counters = ARENA_ARRAY(&t->arena, struct counter, pool_threads(pool));
    for (int i = 0; i < pool_threads(pool); i++)
        word_table_init(&t->counters[i].words);
    json_t *json = pretokenizer_json(scan_by_name(o->pattern));
    int rc = pretokenizer_init(&t->pretokenizer, json);
    json_decref(json);
    if (rc >= 0) { /* before text is read for hours */
        t->tokens = ARENA_ARRAY(&t->arena, struct draft_token, o->vocab_size);
        rc = add_specials(t);
    }
    if (rc < 0)
        bpe_trainer_free(t);
    else
        *out = t;
    return rc;
}

void bpe_trainer_free(struct bpe_trainer *t)
{
    if (!t)
        return;
    for (int i = 0; i < pool_threads(t->pool); i++) {
        word_table_fini(&t->counters[i].words);
        pretoken_scratch_fini(&t->counters[i].pretoken);
        normalizer_fini(&t->counters[i].normalizer);
    }
    pretokenizer_fini(&t->pretokenizer);
    buffer_fini(&t->batch);
    buffer_fini(&t->slices);
    arena_fini(&t->arena);
    sys_free(t);
}
