#include "test.h"

#include "base/hash.h"
#include "base/json.h"
#include "base/log.h"
#include "base/rng.h"
#include "base/sys.h"
#include "base/text.h"
#include "data/byte_alphabet.h"
#include "data/encoder.h"
#include "data/tokenizer.h"
#include "random_text.h"
#include "small_tokenizer.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

static char folder[] = "/tmp/headway-tokenizer-XXXXXX";

static const char *in_folder(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void write_file(const char *name, const char *text)
{
    int fd = sys_open(in_folder(name), O_WRONLY | O_CREAT | O_TRUNC, 0666);
    CHECK(fd >= 0 && sys_write_full(fd, text, (i64)strlen(text)) == 0);
    sys_close(fd);
}

/* Ids as "1 2 3". */
static const char *encode_bytes(const struct tokenizer *t, const struct encoder_options *o,
                                const void *text, i64 bytes)
{
    static char line[4096];
    struct encoder *e;
    i64 count, at = 0;
    CHECK_OK(encoder_new(&e, t, o));
    CHECK_OK(encoder_text(e, text, bytes));
    const i32 *ids = encoder_ids(e, &count);
    line[0] = '\0';
    for (i64 i = 0; i < count; i++)
        at += snprintf(line + at, sizeof line - (size_t)at, "%s%d", i ? " " : "", ids[i]);
    encoder_free(e);
    return line;
}

static const char *encode(const struct tokenizer *t, const char *text)
{
    return encode_bytes(t, &(struct encoder_options){ 0 }, text, (i64)strlen(text));
}

/* --- merges ------------------------------------------------------------------------- */

TEST(the_rule_of_lowest_rank_goes_first_and_leftmost)
{
    struct tokenizer *t = parse_json(",\"bc\":256,\"ab\":257,\"abc\":258,\"aa\":259",
                                     "\"b c\",\"a b\",[\"a\",\"bc\"],\"a a\"", "");
    CHECK_STR(encode(t, "abc"), "258");
    CHECK_STR(encode(t, "ab"), "257");
    CHECK_STR(encode(t, "aaa"), "259 97");
    CHECK_STR(encode(t, "aabc"), "97 258");
    CHECK_STR(encode(t, ""), "");
    tokenizer_free(t);
}

TEST(of_two_rules_for_one_pair_the_later_counts)
{
    struct tokenizer *t = parse_json(",\"ab\":256,\"bc\":257", "\"a b\",\"b c\",\"a b\"", "");
    CHECK_STR(encode(t, "abc"), "97 257");
    tokenizer_free(t);
}

/* Pieces of 41 symbols and more go through the heap, shorter ones through the scan. */
TEST(long_and_short_pieces_merge_alike)
{
    struct tokenizer *t = parse_json(",\"ab\":256,\"ba\":257,\"aba\":258,\"abab\":259,\"bb\":260",
                                     "\"ab ab\",\"b a\",\"a b\",\"ab a\",\"b b\",\"a ba\"", "");
    struct encoder *e;
    struct dice d = { { 3, 1 }, 0 };
    CHECK_OK(encoder_new(&e, t, &(struct encoder_options){ 0 }));
    for (int round = 0; round < 2000; round++) {
        char text[120];
        i64 whole, parts;
        /* "c" never merges, so the ids of the halves are those of the whole. */
        for (i64 i = 0; i < COUNT_OF(text); i++)
            text[i] = i % 30 == 29 ? 'c' : "ab"[throw(&d, 2)];
        encoder_clear(e);
        CHECK_OK(encoder_text(e, text, sizeof text));
        encoder_ids(e, &whole);
        for (i64 at = 0; at < 120; at += 30)
            CHECK_OK(encoder_text(e, text + at, 30));
        const i32 *ids = encoder_ids(e, &parts);
        CHECK_EQ(parts, 2 * whole);
        CHECK(!memcmp(ids, ids + whole, (size_t)whole * sizeof *ids));
    }
    encoder_free(e);
    tokenizer_free(t);
}

TEST(whole_words_skip_the_merges_when_asked_to)
{
    const char *vocab = ",\"hello\":256,\"lo\":257";
    struct tokenizer *t = parse_json(vocab, "\"l o\"", "");
    CHECK_STR(encode(t, "hello"), "104 101 108 257");
    tokenizer_free(t);
    struct text json = make_json(vocab, "\"l o\"", "");
    struct text changed = { 0 };
    const char *at = strstr(json.data, "\"type\":\"BPE\"");
    text_add_bytes(&changed, json.data, at - json.data);
    text_printf(&changed, "\"ignore_merges\":true,%s", at);
    CHECK_OK(tokenizer_parse(&t, changed.data, changed.length, "test.json"));
    CHECK_STR(encode(t, "hello"), "256");
    CHECK_STR(encode(t, "hellos"), "104 101 108 257 115");
    tokenizer_free(t);
    text_fini(&json);
    text_fini(&changed);
}

/* A quadratic merge loop would need 10^12 steps; this takes a fraction of a second. */
TEST(a_megabyte_of_one_letter_ends_in_bounded_time)
{
    enum { MEGABYTE = 1 << 20 };
    static const char letters[] = "a ,\n1\xCC";
    struct tokenizer *t = train_small("llama3", 300, 1);
    struct encoder *e;
    struct buffer out = { 0 };
    char *text = malloc(MEGABYTE);
    CHECK_OK(encoder_new(&e, t, &(struct encoder_options){ .policy = UTF8_BYTES }));
    for (const char *letter = letters; *letter; letter++) {
        i64 count;
        memset(text, *letter, MEGABYTE);
        encoder_clear(e);
        CHECK_OK(encoder_text(e, text, MEGABYTE));
        const i32 *ids = encoder_ids(e, &count);
        out.bytes = 0;
        CHECK_OK(tokenizer_decode(t, ids, count, false, &out));
        CHECK_EQ(out.bytes, MEGABYTE);
        CHECK(!memcmp(out.data, text, MEGABYTE));
    }
    free(text);
    buffer_fini(&out);
    encoder_free(e);
    tokenizer_free(t);
}

/* --- what is not UTF-8 -------------------------------------------------------------- */

TEST(random_bytes_come_back_under_the_policy_bytes)
{
    struct dice d = { { 5, 1 }, 0 };
    struct buffer text = { 0 }, out = { 0 };
    for (int k = 0; k < 3; k++) {
        static const char *const patterns[] = { "gpt2", "cl100k", "llama3" };
        struct tokenizer *t = train_small(patterns[k], 320, 1);
        struct encoder *e;
        CHECK_OK(encoder_new(&e, t, &(struct encoder_options){ .policy = UTF8_BYTES }));
        for (int round = 0; round < 3000; round++) {
            i64 count;
            random_text(&d, &text);
            for (u32 damage = throw(&d, 8); damage > 0; damage--)
                text.data[throw(&d, (u32)text.bytes)] = (u8)throw(&d, 256);
            encoder_clear(e);
            CHECK_OK(encoder_text(e, text.data, text.bytes));
            const i32 *ids = encoder_ids(e, &count);
            out.bytes = 0;
            CHECK_OK(tokenizer_decode(t, ids, count, false, &out));
            CHECK_EQ(out.bytes, text.bytes);
            CHECK(!memcmp(out.data, text.data, (size_t)text.bytes));
        }
        encoder_free(e);
        tokenizer_free(t);
    }
    buffer_fini(&text);
    buffer_fini(&out);
}

TEST(policies_reject_replace_or_keep_bytes)
{
    struct tokenizer *t = parse_json("", "", "");
    struct encoder *e;
    i64 count;
    const char text[] = "a\xE2\x82z\xFF";
    CHECK_OK(encoder_new(&e, t, &(struct encoder_options){ .policy = UTF8_REJECT }));
    CHECK_OK(encoder_text(e, "ok", 2));
    CHECK_FAILS(encoder_text(e, text, 5), ERR_FORMAT, "byte 1 (0xe2)");
    encoder_ids(e, &count);
    CHECK_EQ(count, 2); /* nothing appended */
    encoder_free(e);
    struct encoder_options replace = { .policy = UTF8_REPLACE }, bytes = { .policy = UTF8_BYTES };
    CHECK_STR(encode_bytes(t, &replace, text, 5), "97 239 191 189 122 239 191 189");
    CHECK_STR(encode_bytes(t, &bytes, text, 5), "97 226 130 122 255");
    CHECK_OK(encoder_new(&e, t, &bytes));
    CHECK_OK(encoder_text(e, text, 5));
    CHECK_EQ(encoder_malformed(e), 2);
    encoder_free(e);
    tokenizer_free(t);
}

/* --- added tokens ------------------------------------------------------------------- */

#define ADDED(id, content, flags)                                                        \
    "{\"id\":" id ",\"content\":\"" content "\"," flags "}"
#define PLAIN "\"special\":true,\"normalized\":false"

TEST(special_tokens_are_found_before_anything_else)
{
    struct tokenizer *t = parse_json("", "",
        ",\"added_tokens\":[" ADDED("256", "<|end|>", PLAIN) "," ADDED("257", "<|end", PLAIN) ","
        ADDED("258", "word", "\"special\":false,\"single_word\":true") ","
        ADDED("259", "<s>", PLAIN ",\"lstrip\":true,\"rstrip\":true") "]");
    CHECK_STR(encode(t, "a<|end|>b<|end"), "97 256 98 257");
    CHECK_STR(encode(t, "<|en"), "60 124 101 110");
    CHECK_STR(encode(t, "word,"), "258 44");
    CHECK_STR(encode(t, "words"), "119 111 114 100 115");
    CHECK_STR(encode(t, "a \n<s>\t <s> b"), "97 259 259 98");
    CHECK_EQ(tokenizer_size(t), 260);
    CHECK_EQ(tokenizer_find(t, "<|end"), 257);
    CHECK_EQ(tokenizer_find(t, "nowhere"), -1);
    CHECK(tokenizer_is_special(t, 256) && !tokenizer_is_special(t, 258));
    struct encoder_options letters = { .specials_as_text = true };
    CHECK_STR(encode_bytes(t, &letters, "<s>word", 7), "60 115 62 258");
    CHECK_STR(encode_bytes(t, &letters, "<s> word", 8), "60 115 62 32 258");
    tokenizer_free(t);
}

/* Hugging Face numbers them on from the size of the vocabulary. */
TEST(added_tokens_get_the_ids_that_hugging_face_gives)
{
    struct tokenizer *t = parse_json(",\"<s>\":256", "",
        ",\"added_tokens\":[" ADDED("300", "<x>", PLAIN) "," ADDED("256", "<s>", PLAIN) "]");
    CHECK_EQ(tokenizer_find(t, "<x>"), 257);
    CHECK_EQ(tokenizer_find(t, "<s>"), 256);
    tokenizer_free(t);
}

TEST(template_and_well_known_names_give_begin_and_end)
{
    struct tokenizer *t = parse_json("", "",
        ",\"added_tokens\":[" ADDED("256", "<b>", PLAIN) "," ADDED("257", "<|endoftext|>", PLAIN)
        "],\"post_processor\":{\"type\":\"Sequence\",\"processors\":[{\"type\":\"ByteLevel\"},"
        "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<b>\"}},"
        "{\"Sequence\":{\"id\":\"A\"}}],\"special_tokens\":{\"<b>\":{\"ids\":[256]}}}]}");
    CHECK_EQ(tokenizer_bos(t), 256);
    CHECK_EQ(tokenizer_eos(t), 257);
    CHECK_STR(encode(t, "a"), "97");
    struct encoder_options o = { .add_template = true };
    CHECK_STR(encode_bytes(t, &o, "a", 1), "256 97");
    tokenizer_free(t);
}

/* --- decoding ----------------------------------------------------------------------- */

TEST(streamed_text_holds_back_half_characters)
{
    struct tokenizer *t = parse_json("", "", "");
    struct text_decoder d;
    text_decoder_init(&d, t);
    CHECK_OK(text_decoder_push(&d, 0xE2));
    CHECK_EQ(d.out.bytes, 0);
    CHECK_OK(text_decoder_push(&d, 0x82));
    CHECK_EQ(d.out.bytes, 0);
    CHECK_OK(text_decoder_push(&d, 0xAC));
    CHECK_EQ(d.out.bytes, 3);
    CHECK_OK(text_decoder_push(&d, 0xE2));
    CHECK_OK(text_decoder_push(&d, 'x')); /* cannot go on so: replaced */
    CHECK_EQ(d.out.bytes, 4);
    CHECK(!memcmp(d.out.data, "\xEF\xBF\xBDx", 4));
    CHECK_OK(text_decoder_push(&d, 0xF0));
    CHECK_OK(text_decoder_end(&d));
    CHECK_EQ(d.out.bytes, 3);
    CHECK_OK(text_decoder_end(&d));
    CHECK_EQ(d.out.bytes, 0);
    CHECK_FAILS(text_decoder_push(&d, 256), ERR_FORMAT, "no token 256");
    text_decoder_fini(&d);
    tokenizer_free(t);
}

TEST(special_tokens_can_be_left_out_of_decoded_text)
{
    struct tokenizer *t = parse_json("", "",
        ",\"added_tokens\":[" ADDED("256", "<|end|>", PLAIN) "]");
    struct buffer out = { 0 };
    const i32 ids[] = { 'h', 256, 'i' };
    CHECK_OK(tokenizer_decode(t, ids, 3, false, &out));
    CHECK_EQ(out.bytes, 9);
    out.bytes = 0;
    CHECK_OK(tokenizer_decode(t, ids, 3, true, &out));
    CHECK_EQ(out.bytes, 2);
    CHECK_FAILS(tokenizer_decode(t, &(i32){ -1 }, 1, true, &out), ERR_FORMAT, "no token -1");
    buffer_fini(&out);
    tokenizer_free(t);
}

/* --- files -------------------------------------------------------------------------- */

static void check_same(const struct tokenizer *a, const struct tokenizer *b)
{
    CHECK_STR(tokenizer_hash(a), tokenizer_hash(b));
    CHECK_EQ(tokenizer_size(a), tokenizer_size(b));
    char first[4096];
    snprintf(first, sizeof first, "%s", encode(a, "it was the best<|endoftext|> of times"));
    CHECK_STR(encode(b, "it was the best<|endoftext|> of times"), first);
}

TEST(what_is_saved_opens_as_the_same_tokenizer)
{
    static const char *const patterns[] = { "gpt2", "cl100k", "llama3", "qwen2" };
    for (int k = 0; k < COUNT_OF(patterns); k++) {
        struct tokenizer *t = train_small(patterns[k], 320, 1), *again;
        char hex[65];
        CHECK_OK(tokenizer_save(t, in_folder("tokenizer.json")));
        CHECK_OK(tokenizer_open(&again, folder));
        check_same(t, again);
        CHECK_OK(sha256_file(in_folder("tokenizer.json"), hex));
        CHECK_STR(tokenizer_hash(t), hex);
        tokenizer_free(t);
        tokenizer_free(again);
    }
    CHECK_EQ(sys_unlink(in_folder("tokenizer.json")), 0);
}

/* transformers takes these words for granted; without them it guesses by the model's family. */
TEST(a_saved_tokenizer_says_what_ends_a_text)
{
    struct tokenizer *t = train_small("llama3", 320, 1), *again;
    json_t *o;
    CHECK_OK(tokenizer_save(t, in_folder("tokenizer.json")));
    CHECK_OK(tokenizer_save_config(t, 256, in_folder("tokenizer_config.json")));
    CHECK_OK(json_load(in_folder("tokenizer_config.json"), 1 << 16, &o));
    CHECK_STR(json_string_value(json_object_get(o, "eos_token")), "<|endoftext|>");
    CHECK(json_is_null(json_object_get(o, "bos_token")));
    CHECK_STR(json_string_value(json_object_get(o, "tokenizer_class")), "PreTrainedTokenizerFast");
    CHECK_EQ(json_integer_value(json_object_get(o, "model_max_length")), 256);
    CHECK_STR(json_string_value(json_object_get(o, "chat_template")),
              "{{- '<|endoftext|>' }}{%- for message in messages %}{{- '### ' + "
              "message['role'] + '\\n' + message['content'] + '\\n\\n' }}{%- endfor %}"
              "{%- if add_generation_prompt %}{{- '### ' + 'assistant' + '\\n' }}{%- "
              "endif %}");
    CHECK_OK(tokenizer_open(&again, folder));
    CHECK_EQ(tokenizer_eos(again), tokenizer_eos(t));
    CHECK_EQ(tokenizer_bos(again), tokenizer_bos(t));
    json_decref(o);
    tokenizer_free(t);
    tokenizer_free(again);
    CHECK_EQ(sys_unlink(in_folder("tokenizer.json")), 0);
    CHECK_EQ(sys_unlink(in_folder("tokenizer_config.json")), 0);
}

/* Ids that Hugging Face would not give by counting on go into the vocabulary. */
TEST(odd_ids_of_special_tokens_survive_saving)
{
    struct tokenizer *t, *again;
    const char *specials[] = { "<|endoftext|>=300", "<|x=|>" };
    struct tokenizer_import how = { "cl100k", specials, 2 };
    write_file("one.tiktoken", "YQ== 0\nYg== 1\nYWI= 2\nYWJhYg== 3\nIA== 4\nYmE= 5\n");
    CHECK_OK(tokenizer_open_as(&t, in_folder("one.tiktoken"), &how));
    CHECK_EQ(tokenizer_find(t, "<|endoftext|>"), 300);
    CHECK_EQ(tokenizer_find(t, "<|x=|>"), 301);
    CHECK_EQ(tokenizer_eos(t), 300);
    CHECK_STR(encode(t, "ab abab<|endoftext|>aba"), "2 4 3 300 2 0");
    CHECK_OK(tokenizer_save(t, in_folder("saved.json")));
    CHECK_OK(tokenizer_open(&again, in_folder("saved.json")));
    CHECK_EQ(tokenizer_find(again, "<|endoftext|>"), 300);
    check_same(t, again);
    tokenizer_free(t);
    tokenizer_free(again);
}

TEST(ids_of_special_tokens_that_cannot_be_are_refused)
{
    static const struct { const char *special, *why; } bad[] = {
        { "<|x|>=3", "the id 3, which is another token's" },
        { "<|x|>=-3", "<|x|> is not between 0" },
        { "<|x|>=99999999999", "<|x|> is not between 0" },
        { "ab=3", "has the id 2 already, not 3" },
    };
    struct tokenizer *t;
    write_file("one.tiktoken", "YQ== 0\nYg== 1\nYWI= 2\nYWJhYg== 3\n");
    for (int i = 0; i < COUNT_OF(bad); i++) {
        const char *specials[] = { bad[i].special, "<|y|>" };
        struct tokenizer_import how = { "cl100k", specials, 2 };
        CHECK_FAILS(tokenizer_open_as(&t, in_folder("one.tiktoken"), &how), ERR_USAGE,
                    bad[i].why);
    }
    const char *both[] = { "<|x|>=9", "<|y|>=9" };
    CHECK_FAILS(tokenizer_open_as(&t, in_folder("one.tiktoken"),
                                  &(struct tokenizer_import){ "cl100k", both, 2 }),
                ERR_USAGE, "the id 9, which is another token's");
}

static char told[256];

static void keep_told(void *context, enum log_level level, const char *line)
{
    (void)context;
    if (level == LOG_WARN)
        snprintf(told, sizeof told, "%s", line);
}

/* As with Hugging Face's tokenizers, which do not say so. */
TEST(bytes_that_no_token_stands_for_are_told)
{
    struct tokenizer *t;
    const struct tokenizer_import how = { "cl100k", NULL, 0 };
    write_file("one.tiktoken", "YQ== 0\nYg== 1\nYWI= 2\n");
    log_add_sink(keep_told, NULL, LOG_WARN);
    CHECK_OK(tokenizer_open_as(&t, in_folder("one.tiktoken"), &how));
    CHECK(strstr(told, "254 of the 256 bytes have no token, such as 0x00: text loses them"));
    CHECK_STR(encode(t, "abc"), "2");
    tokenizer_free(t);
    told[0] = '\0';
    t = parse_json("", "", "");
    CHECK_STR(told, "");
    tokenizer_free(t);
    log_remove_sink(keep_told, NULL);
}

TEST(damaged_tiktoken_files_are_refused)
{
    struct tokenizer *t;
    static const char *const bad[] = { "YQ== 0\nYg==", "YQ= 0\n", "YQ== -1\n", "YQ== 12345678901\n",
                                       "Y*== 0\n", "\x0a\x0b model", "YQ== 0 1\n", "==== 0\n" };
    for (int i = 0; i < COUNT_OF(bad); i++) {
        write_file("bad.tiktoken", bad[i]);
        CHECK_FAILS(tokenizer_open(&t, in_folder("bad.tiktoken")), ERR_FORMAT, "tiktoken");
    }
    write_file("bad.tiktoken", "YQ== 0\nYQ== 1\n");
    CHECK_FAILS(tokenizer_open(&t, in_folder("bad.tiktoken")), ERR_FORMAT, "same token");
    write_file("bad.tiktoken", "YQ== 0\nYg== 0\n");
    CHECK_FAILS(tokenizer_open(&t, in_folder("bad.tiktoken")), ERR_FORMAT, "the id 0");
    write_file("bad.tiktoken", "");
    CHECK_FAILS(tokenizer_open(&t, in_folder("bad.tiktoken")), ERR_FORMAT, "empty");
    char longest[700] = ""; /* 516 zero bytes, well written */
    memset(longest, 'A', 688);
    strcpy(longest + 688, " 0\n");
    write_file("bad.tiktoken", longest);
    CHECK_FAILS(tokenizer_open(&t, in_folder("bad.tiktoken")), ERR_LIMIT, ":1: a token of more");
}

TEST(vocabulary_and_merges_open_like_the_json_they_came_from)
{
    struct tokenizer *t;
    write_file("vocab.json", "{\"a\":0,\"b\":1,\"ab\":2,\"\\u0120\":3,\"\\u0120ab\":4,"
                             "\"<|endoftext|>\":5}");
    write_file("merges.txt", "#version: 0.2\na b\r\n\u0120 ab\n");
    CHECK_OK(tokenizer_open(&t, in_folder("vocab.json")));
    CHECK_STR(encode(t, "ab ab<|endoftext|>"), "2 4 5");
    CHECK_EQ(tokenizer_eos(t), 5);
    tokenizer_free(t);
    write_file("tokenizer_config.json", "{\"eos_token\":\"a\",\"bos_token\":{\"content\":\"<b>\"},"
               "\"added_tokens_decoder\":{\"6\":{\"content\":\"<b>\",\"special\":true}}}");
    CHECK_OK(tokenizer_open(&t, in_folder("merges.txt")));
    CHECK_EQ(tokenizer_bos(t), 6);
    CHECK_EQ(tokenizer_eos(t), 0);
    tokenizer_free(t);
    write_file("merges.txt", "a b c\n");
    CHECK_FAILS(tokenizer_open(&t, in_folder("vocab.json")), ERR_FORMAT, "merges.txt:1");
    write_file("merges.txt", "a a\n");
    CHECK_FAILS(tokenizer_open(&t, in_folder("vocab.json")), ERR_FORMAT, "the vocabulary lacks it");
    CHECK_EQ(sys_unlink(in_folder("merges.txt")), 0);
    CHECK_FAILS(tokenizer_open(&t, in_folder("vocab.json")), ERR_SYS, "merges.txt");
    CHECK_FAILS(tokenizer_open_as(&t, in_folder("saved.json"),
                                  &(struct tokenizer_import){ .pattern = "gpt2" }),
                ERR_USAGE, "its own pattern");
    CHECK_FAILS(tokenizer_open(&t, in_folder("nothing")), ERR_SYS, "nothing");
}

TEST(other_kinds_of_tokenizers_are_refused_in_one_sentence)
{
    static const struct {
        const char *json, *message;
    } bad[] = {
        { "{\"model\":{\"type\":\"Unigram\",\"vocab\":[]}}", "of type Unigram" },
        { "{\"model\":{\"type\":\"BPE\",\"byte_fallback\":true}}", "byte_fallback" },
        { "{\"model\":{\"end_of_word_suffix\":\"</w>\"}}", "end_of_word_suffix" },
        { "{\"model\":{\"dropout\":0.1}}", "dropout" },
        { "{\"model\":{\"vocab\":{}}}", "no vocab or no merges" },
        { "{\"model\":{\"vocab\":{},\"merges\":[]}}", "empty" },
        { "{\"version\":\"2\",\"model\":{\"vocab\":{},\"merges\":[]}}", "version is 2" },
        { "{\"model\":{\"vocab\":{\"a\":-1},\"merges\":[]}}", "has no id" },
        { "{\"model\":{\"vocab\":{\"a\":1.5},\"merges\":[]}}", "has no id" },
        { "{\"model\":{\"vocab\":{\"a\":99000000},\"merges\":[]}}", "99000000" },
        { "{\"model\":{\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}}", "the id 0" },
        { "{\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"a\"]}}", "merge 1 is not a pair" },
        { "{\"model\":{\"vocab\":{\"a\":0},\"merges\":[[\"a\",\"a\",\"a\"]]}}", "not a pair" },
        { "{\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"a a\"]}}", "lacks it" },
        { "{\"model\":{\"vocab\":{\"a\":0},\"merges\":[]}}", "no pre-tokenizer" },
        { "{\"pre_tokenizer\":{\"type\":\"Metaspace\"},\"model\":{\"vocab\":{\"a\":0},"
          "\"merges\":[]}}", "of type Metaspace" },
        { "{\"pre_tokenizer\":{\"type\":\"Digits\"},\"model\":{\"vocab\":{\"a\":0},"
          "\"merges\":[]}}", "no ByteLevel step" },
        { "{\"model\":{\"vocab\":{\"a\":0,\"a\":1},\"merges\":[]}}", "duplicate" },
        { "[]", "no \"model\"" },
        { "{", "test.json" },
    };
    for (int i = 0; i < COUNT_OF(bad); i++) {
        struct tokenizer *t;
        CHECK_FAILS(tokenizer_parse(&t, bad[i].json, (i64)strlen(bad[i].json), "test.json"),
                    ERR_FORMAT, bad[i].message);
    }
    CHECK_FAILS(parse_fails("", "", ",\"normalizer\":{\"type\":\"Lowercase\"}"), ERR_FORMAT,
                "of type Lowercase");
    CHECK_FAILS(parse_fails("", "", ",\"post_processor\":{\"type\":\"Odd\"}"), ERR_FORMAT,
                "of type Odd");
    CHECK_FAILS(parse_fails("", "", ",\"added_tokens\":[" ADDED("300", "far", PLAIN) "],"
                            "\"post_processor\":{\"type\":\"BertProcessing\",\"cls\":[\"far\",300],"
                            "\"sep\":[\"gap\",299]}"), ERR_FORMAT, "a token that does not exist");
    CHECK_FAILS(parse_fails("", "", ",\"added_tokens\":[" ADDED("256", "", PLAIN) "]"),
                ERR_FORMAT, "empty");
    CHECK_FAILS(parse_fails("", "", ",\"added_tokens\":[" ADDED("97", "a", PLAIN) ","
                            ADDED("97", "a", PLAIN) "]"), ERR_FORMAT, "twice");
}

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    return sys_remove_tree(folder);
}

int main(void)
{
    const struct CMUnitTest all_tests[] = {
        ONE(the_rule_of_lowest_rank_goes_first_and_leftmost),
        ONE(of_two_rules_for_one_pair_the_later_counts),
        ONE(long_and_short_pieces_merge_alike),
        ONE(whole_words_skip_the_merges_when_asked_to),
        ONE(a_megabyte_of_one_letter_ends_in_bounded_time),
        ONE(random_bytes_come_back_under_the_policy_bytes),
        ONE(policies_reject_replace_or_keep_bytes),
        ONE(special_tokens_are_found_before_anything_else),
        ONE(added_tokens_get_the_ids_that_hugging_face_gives),
        ONE(template_and_well_known_names_give_begin_and_end),
        ONE(streamed_text_holds_back_half_characters),
        ONE(special_tokens_can_be_left_out_of_decoded_text),
        ONE(what_is_saved_opens_as_the_same_tokenizer),
          ONE(a_saved_tokenizer_says_what_ends_a_text),
        ONE(odd_ids_of_special_tokens_survive_saving),
        ONE(ids_of_special_tokens_that_cannot_be_are_refused),
        ONE(bytes_that_no_token_stands_for_are_told),
        ONE(damaged_tiktoken_files_are_refused),
        ONE(vocabulary_and_merges_open_like_the_json_they_came_from),
        ONE(other_kinds_of_tokenizers_are_refused_in_one_sentence),
    };
    return cmocka_run_group_tests(all_tests, make_folder, remove_folder);
}
