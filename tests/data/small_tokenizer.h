/* tests/data/small_tokenizer.h - tokenizers to try things on. */
#ifndef HEADWAY_TEST_SMALL_TOKENIZER_H
#define HEADWAY_TEST_SMALL_TOKENIZER_H

#include "test.h"

#include "base/pool.h"
#include "base/text.h"
#include "data/bpe_train.h"
#include "data/byte_alphabet.h"
#include "data/encoder.h"

static const char small_text[] =
    "It was the best of times, it was the worst of times, it was the age of wisdom, it was the "
    "age of foolishness, it was the epoch of belief, it was the epoch of incredulity, it was "
    "the season of Light, it was the season of Darkness, it was the spring of hope, it was the "
    "winter of despair.\n\nWe had everything before us; we'd nothing before us, we're all going "
    "direct to Heaven in 1775 -- 12345, 67890 \xE2\x80\x94 caf\xC3\xA9 d\xC3\xA9j\xC3\xA0 vu.\n"
    "aaaaaaaaaaaaaaaa aaaaaaaa aaaa\taa\r\n    if (x == 0)\n        return x;\n";

static inline struct tokenizer *train_small(const char *pattern, i64 vocab_size, int threads)
{
    const char *specials[] = { "<|endoftext|>" };
    struct bpe_train_options o = { .vocab_size = vocab_size, .min_count = 2, .pattern = pattern,
                                   .specials = specials, .special_count = 1 };
    struct bpe_trainer *trainer;
    struct tokenizer *t;
    struct pool *pool;
    CHECK_OK(pool_new(&pool, threads, false));
    CHECK_OK(bpe_trainer_new(&trainer, &o, pool));
    CHECK_OK(bpe_trainer_add(trainer, small_text, sizeof small_text - 1));
    CHECK_OK(bpe_trainer_finish(trainer, &t));
    bpe_trainer_free(trainer);
    pool_free(pool);
    return t;
}

/* {"model": {...}, ...} of a tokenizer whose vocabulary is all bytes and these extras:
 * vocab ",\"ab\":256", merges "\"a b\"", rest ",\"added_tokens\":[...]". */
static inline struct text make_json(const char *vocab, const char *merges, const char *rest)
{
    struct text json = { 0 };
    text_add(&json, "{\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},"
                    "\"model\":{\"type\":\"BPE\",\"vocab\":{");
    struct buffer letter = { 0 };
    for (int byte = 0; byte < 256; byte++) {
        letter.bytes = 0;
        CHECK_OK(byte_alphabet_spell(&letter, &(u8){ (u8)byte }, 1));
        text_printf(&json, "%s\"%s%.*s\":%d", byte ? "," : "",
                    byte == '"' || byte == '\\' ? "\\" : "", (int)letter.bytes, letter.data, byte);
    }
    text_printf(&json, "%s},\"merges\":[%s]}%s}", vocab, merges, rest);
    buffer_fini(&letter);
    return json;
}

static inline struct tokenizer *parse_json(const char *vocab, const char *merges,
                                           const char *rest)
{
    struct text json = make_json(vocab, merges, rest);
    struct tokenizer *t;
    CHECK_OK(tokenizer_parse(&t, json.data, json.length, "test.json"));
    text_fini(&json);
    return t;
}

static inline int parse_fails(const char *vocab, const char *merges, const char *rest)
{
    struct text json = make_json(vocab, merges, rest);
    struct tokenizer *t;
    int rc = tokenizer_parse(&t, json.data, json.length, "test.json");
    text_fini(&json);
    return rc;
}

#endif
