/* Ids against those of Hugging Face's `tokenizers`, recorded for varied texts by
 * tests/peers/make_tokenizer_vectors.py. */
#include "test.h"

#include "base/json.h"
#include "base/sys.h"
#include "data/encoder.h"

#include <stdio.h>
#include <stdlib.h>

#define VECTORS SOURCE_DIR "/tests/vectors/tokenizer/"

static struct encoder *open_encoder(const char *kind, struct tokenizer **t)
{
    char path[512];
    struct encoder *e;
    struct encoder_options how = { .policy = UTF8_REJECT };
    snprintf(path, sizeof path, VECTORS "%s.json", kind);
    CHECK_OK(tokenizer_open(t, path));
    CHECK_OK(encoder_new(&e, *t, &how));
    return e;
}

static void expect_ids(struct encoder *e, const char *text, i64 bytes, const json_t *want,
                       i64 line, const char *kind)
{
    i64 count;
    encoder_clear(e);
    CHECK_OK(encoder_text(e, text, bytes));
    const i32 *got = encoder_ids(e, &count);
    bool same = count == (i64)json_array_size(want);
    for (i64 i = 0; same && i < count; i++)
        same = got[i] == json_integer_value(json_array_get(want, (size_t)i));
    if (!same)
        fail_msg("lines.jsonl:%lld: %s gives other ids", (long long)line, kind);
}

/* jansson itself, because texts here hold NUL characters, which base/json.h refuses. */
static i64 expect_lines(const char *file, i64 bytes, struct encoder *e, const char *kind)
{
    i64 line = 0;
    for (const char *p = file, *end = file + bytes; p < end; line++) {
        const char *stop = memchr(p, '\n', (size_t)(end - p));
        json_t *row = json_loadb(p, (size_t)(stop - p), JSON_ALLOW_NUL, NULL);
        json_t *text = json_object_get(row, "text");
        CHECK(json_is_string(text) && json_is_array(json_object_get(row, kind)));
        expect_ids(e, json_string_value(text), (i64)json_string_length(text),
                   json_object_get(row, kind), line + 1, kind);
        json_decref(row);
        p = stop + 1;
    }
    return line;
}

static void expect_kind(const char *kind)
{
    struct tokenizer *t;
    i64 bytes;
    struct encoder *e = open_encoder(kind, &t);
    char *file = sys_map_file(VECTORS "lines.jsonl", &bytes);
    CHECK(file != NULL);
    CHECK_EQ(expect_lines(file, bytes, e, kind), 2000);
    sys_unmap(file, bytes);
    encoder_free(e);
    tokenizer_free(t);
}

TEST(ids_of_gpt2_splits_equal_those_of_hugging_face) { expect_kind("gpt2"); }
TEST(ids_of_gpt4_splits_equal_those_of_hugging_face) { expect_kind("cl100k"); }
TEST(ids_of_llama3_splits_equal_those_of_hugging_face) { expect_kind("llama3"); }

TEST_MAIN(ONE(ids_of_gpt2_splits_equal_those_of_hugging_face),
          ONE(ids_of_gpt4_splits_equal_those_of_hugging_face),
          ONE(ids_of_llama3_splits_equal_those_of_hugging_face))
