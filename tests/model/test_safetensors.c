#include "test.h"

#include "base/hash.h"
#include "base/sys.h"
#include "model/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* A file with this header (length word added) and so many zero bytes of data. */
static u8 *make_file(const char *header, i64 header_bytes, i64 data_bytes, i64 *bytes)
{
    u64 length = (u64)header_bytes;
    *bytes = 8 + header_bytes + data_bytes;
    u8 *file = calloc(1, (size_t)*bytes + 1);
    memcpy(file, &length, 8);
    memcpy(file + 8, header, (size_t)header_bytes);
    return file;
}

/* Parses an exact-size heap copy, so that the address sanitizer sees every overrun. */
static int parse_bytes(const u8 *file, i64 bytes, struct safetensors *s)
{
    u8 *exact = malloc((size_t)bytes);
    if (bytes > 0)
        memcpy(exact, file, (size_t)bytes);
    int rc = safetensors_parse(s, exact, bytes);
    s->file = NULL;
    free(exact);
    return rc;
}

static int parse_text(const char *header, i64 data_bytes, struct safetensors *s)
{
    i64 bytes;
    u8 *file = make_file(header, (i64)strlen(header), data_bytes, &bytes);
    int rc = parse_bytes(file, bytes, s);
    free(file);
    return rc;
}

#define F32_2 "{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}"

static const struct {
    const char *header;
    i64 data_bytes;
    const char *why; /* NULL: valid */
} corpus[] = {
    { "{}", 0, NULL },
    { "{ }   ", 0, NULL },
    { "{\"a\":" F32_2 "}", 8, NULL },
    { "{\"__metadata__\":{\"k\":\"v\"},\"a\":" F32_2 "}  ", 8, NULL },
    { "{\"a\":{\"data_offsets\":[0,4],\"shape\":[],\"dtype\":\"F32\"}}", 4, NULL },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[0,9],\"data_offsets\":[0,0]}}", 0, NULL },
    { "{\"a\":{\"dtype\":\"BOOL\",\"shape\":[3],\"data_offsets\":[0,3]}}", 3, NULL },
    { "{\"caf\xc3\xa9\":" F32_2 "}", 8, NULL },
    { "{\"\\ud83d\\ude00\":" F32_2 "}", 8, NULL },
    { "{\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]},"
      "\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 2, NULL },
    /* not an object, or not only one */
    { " {}", 0, "begin with '{'" },
    { "[]", 0, "begin with '{'" },
    { "\xef\xbb\xbf{}", 0, "begin with '{'" },
    { "{}x", 0, "nothing but spaces" },
    { "{}\n", 0, "nothing but spaces" },
    { "{},{}", 0, "nothing but spaces" },
    { "{\"a\":" F32_2, 8, "expected '}'" },
    { "{\"a\":" F32_2 ",}", 8, "a string" },
    { "{\"a\"}", 0, "expected ':'" },
    { "{a:1}", 0, "a string" },
    /* strings */
    { "{\"\xff\":" F32_2 "}", 8, "UTF-8" },
    { "{\"\xc0\xaf\":" F32_2 "}", 8, "UTF-8" },
    { "{\"\xed\xa0\x80\":" F32_2 "}", 8, "UTF-8" },
    { "{\"\xf4\x90\x80\x80\":" F32_2 "}", 8, "UTF-8" },
    { "{\"\\ud83d\":" F32_2 "}", 8, "surrogate" },
    { "{\"\\ude00\":" F32_2 "}", 8, "surrogate" },
    { "{\"\\ud83dx\\ude00\":" F32_2 "}", 8, "surrogate" },
    { "{\"\\u0000\":" F32_2 "}", 8, "NUL" },
    { "{\"\\u00g0\":" F32_2 "}", 8, "hexadecimal" },
    { "{\"\\x41\":" F32_2 "}", 8, "escape" },
    { "{\"a\nb\":" F32_2 "}", 8, "control" },
    { "{\"a", 0, "closing quote" },
    { "{\"a\\", 0, "escape" },
    { "{\"a\\u12", 0, "hexadecimal" },
    /* names */
    { "{\"a\":" F32_2 ",\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,16]}}", 16,
      "two tensors are named" },
    { "{\"a\":" F32_2 ",\"\\u0061\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,16]}}",
      16, "two tensors are named" },
    { "{\"__metadata__\":{},\"__metadata__\":{}}", 0, "twice" },
    { "{\"__metadata__\":{},\"__meta\\u0064ata__\":{}}", 0, "twice" },
    { "{\"__metadata__\":{\"k\":\"1\",\"\\u006b\":\"2\"}}", 0, "two metadata entries" },
    { "{\"__metadata__\":{\"k\":1}}", 0, "a string" },
    { "{\"__metadata__\":{\"k\":{}}}", 0, "a string" },
    { "{\"__metadata__\":null}", 0, "expected '{'" },
    /* fields */
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8],\"x\":0}}", 8,
      "dtype, shape or data_offsets" },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"shape\":[2],\"data_offsets\":[0,8]}}", 8,
      "twice" },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"sh\\u0061pe\":[2],\"data_offsets\":[0,8]}}", 8,
      "twice" },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8, "all three" },
    { "{\"a\":{}}", 0, "a string" },
    { "{\"a\":[]}", 0, "expected '{'" },
    { "{\"a\":{\"dtype\":\"F33\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "a dtype" },
    { "{\"a\":{\"dtype\":\"f32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "a dtype" },
    { "{\"a\":{\"dtype\":\"F32F32F32F32F32F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8,
      "a dtype" },
    { "{\"a\":{\"dtype\":32,\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "a string" },
    /* numbers */
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}", 8, "whole number" },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[-0],\"data_offsets\":[0,0]}}", 0, "whole number" },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[2.0],\"data_offsets\":[0,8]}}", 8, "expected ']'" },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[2e0],\"data_offsets\":[0,8]}}", 8, "expected ']'" },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[02],\"data_offsets\":[0,8]}}", 8, "leading zeros" },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[\"2\"],\"data_offsets\":[0,8]}}", 8, "whole number" },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[true],\"data_offsets\":[0,8]}}", 8, "whole number" },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[[2]],\"data_offsets\":[0,8]}}", 8, "whole number" },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[2,],\"data_offsets\":[0,8]}}", 8, "whole number" },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[281474976710657],\"data_offsets\":[0,8]}}", 8, "2^48" },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[99999999999999999999999999],\"data_offsets\":[0,8]}}",
      8, "2^48" },
    { "{\"a\":{\"dtype\":\"U8\",\"shape\":[281474976710656,65536],\"data_offsets\":[0,0]}}", 0,
      "63 bits" }, /* 2^64: wraps to 0 in 64 bits */
    { "{\"a\":{\"dtype\":\"F64\",\"shape\":[281474976710656,8192],\"data_offsets\":[0,0]}}", 0,
      "63 bits" }, /* 2^64 after the element size */
    { "{\"a\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,1]}}", 1,
      "at most 8 dimensions" },
    /* places */
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}", 8, "match dtype" },
    { "{\"a\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "match dtype" },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}", 8, "backwards" },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0]}}", 8, "expected ','" },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8,9]}}", 8, "expected ']'" },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[1,9]}}", 9, "hole" },
    { "{\"a\":" F32_2 ",\"b\":" F32_2 "}", 8, "overlap" },
    { "{\"a\":" F32_2 ",\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[4,8]}}", 8,
      "overlap" },
    { "{\"a\":" F32_2 ",\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[9,10]}}", 10,
      "hole" },
    { "{\"a\":" F32_2 "}", 9, "trailing" },
    { "{\"a\":" F32_2 "}", 7, "truncated" },
    { "{}", 1, "trailing" },
};

TEST(every_malicious_header_is_refused_and_every_odd_but_legal_one_is_read)
{
    for (i64 i = 0; i < COUNT_OF(corpus); i++) {
        struct safetensors s;
        int rc = parse_text(corpus[i].header, corpus[i].data_bytes, &s);
        if (!corpus[i].why && rc != OK)
            fail_msg("%s: refused: %s", corpus[i].header, err_message());
        if (corpus[i].why && (rc != ERR_FORMAT || !strstr(err_message(), corpus[i].why)))
            fail_msg("%s: %d \"%s\", expected \"%s\"", corpus[i].header, rc, err_message(),
                     corpus[i].why);
        safetensors_close(&s);
    }
}

TEST(the_length_word_is_checked_before_anything_is_read)
{
    static const u64 lengths[] = { 0, 1, 3, 100, 100000000, 100000001, 1ull << 63, ~0ull };
    for (i64 i = 0; i < COUNT_OF(lengths); i++) {
        struct safetensors s;
        u8 file[10] = { 0, 0, 0, 0, 0, 0, 0, 0, '{', '}' };
        memcpy(file, &lengths[i], 8);
        CHECK_FAILS(parse_bytes(file, 10, &s), ERR_FORMAT, "header length");
        safetensors_close(&s);
    }
    for (i64 bytes = 0; bytes < 8; bytes++) {
        struct safetensors s;
        CHECK_FAILS(parse_bytes((const u8 *)"\2\0\0\0\0\0\0\0", bytes, &s), ERR_FORMAT, "too few");
        safetensors_close(&s);
    }
}

TEST(every_truncation_of_a_valid_file_is_refused)
{
    const char *header = "{\"__metadata__\":{\"k\":\"v\\u00e9\"},\"a\":" F32_2 "}";
    i64 bytes;
    u8 *file = make_file(header, (i64)strlen(header), 8, &bytes);
    struct safetensors s;
    CHECK_OK(parse_bytes(file, bytes, &s));
    safetensors_close(&s);
    for (i64 keep = 0; keep < bytes; keep++) {
        CHECK_EQ(parse_bytes(file, keep, &s), ERR_FORMAT);
        safetensors_close(&s);
    }
    free(file);
}

/* A million brackets: a recursive reader would overflow its stack. */
TEST(deep_nesting_is_refused_at_once)
{
    enum { DEEP = 1 << 20 };
    char *header = malloc(DEEP + 1);
    struct safetensors s;
    memset(header, '[', DEEP);
    memcpy(header, "{\"a\":{\"shape\":", 14);
    header[DEEP] = '\0';
    CHECK_FAILS(parse_text(header, 0, &s), ERR_FORMAT, "whole number");
    safetensors_close(&s);
    free(header);
}

/* P13: at most twice the file and 64 MiB, for the worst header that we know: nothing but
 * the shortest possible entries. */
TEST(memory_stays_within_twice_the_header)
{
    enum { N = 50000, ENTRY = 64 };
    char *header = malloc((size_t)N * ENTRY + 2);
    char *at = header;
    for (int i = 0; i < N; i++)
        at += sprintf(at, "%c\"%x\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[%d,%d]}",
                      i ? ',' : '{', i, i, i + 1);
    strcpy(at, "}");
    struct safetensors s;
    CHECK_OK(parse_text(header, N, &s));
    CHECK_EQ(s.n, N);
    CHECK(s.arena.used_bytes <= 2 * (i64)strlen(header));
    CHECK_EQ(safetensors_find(&s, "ff")->begin, 0xff);
    CHECK(!safetensors_find(&s, "zz"));
    safetensors_close(&s);
    free(header);
}

TEST(tensors_are_found_by_name_and_metadata_by_key)
{
    struct safetensors s;
    CHECK_OK(parse_text("{\"__metadata__\":{\"z\":\"1\",\"a\":\"\"},"
                        "\"w\":{\"dtype\":\"BF16\",\"shape\":[3,2],\"data_offsets\":[4,16]},"
                        "\"b\":{\"dtype\":\"I32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
                        16, &s));
    CHECK_EQ(s.n, 2);
    CHECK_STR(s.tensor[0].name, "b");
    const struct safetensors_tensor *w = safetensors_find(&s, "w");
    CHECK_EQ(w->dtype, DTYPE_BF16);
    CHECK_EQ(w->rank, 2);
    CHECK_EQ(w->dim[0], 3);
    CHECK_EQ(w->begin, 4);
    CHECK_EQ(w->bytes, 12);
    CHECK_STR(safetensors_meta(&s, "z"), "1");
    CHECK_STR(safetensors_meta(&s, "a"), "");
    CHECK(!safetensors_meta(&s, "b"));
    safetensors_close(&s);
}

/* --- writing --------------------------------------------------------------------- */

static char folder[] = "/tmp/headway-safetensors-XXXXXX";

static struct safetensors_tensor shapes[] = {
    { .name = "z.bias", .dtype = DTYPE_BF16, .rank = 1, .dim = { 3 } },
    { .name = "a\"\\\n\x01\xc3\xa9", .dtype = DTYPE_F32, .rank = 2, .dim = { 2, 2 } },
    { .name = "flag", .dtype = DTYPE_U8, .rank = 1, .dim = { 5 } },
    { .name = "ids", .dtype = DTYPE_I64, .rank = 1, .dim = { 2 } },
    { .name = "scalar", .dtype = DTYPE_F64, .rank = 0 },
    { .name = "empty", .dtype = DTYPE_F16, .rank = 2, .dim = { 0, 4 } },
    { .name = "n", .dtype = DTYPE_I32, .rank = 1, .dim = { 1 } },
};

/* Byte i of a tensor is i + 1, whatever its type. */
static int write_example(const char *path)
{
    static const struct safetensors_pair meta = { "format", "pt" };
    static const u8 bytes[16] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 };
    struct safetensors_tensor t[COUNT_OF(shapes)];
    struct safetensors_writer w;
    memcpy(t, shapes, sizeof t);
    TRY(safetensors_create(&w, path, t, COUNT_OF(t), &meta, 1));
    for (i64 i = 0; i < COUNT_OF(t); i++) {
        TRY(safetensors_put(&w, bytes, t[i].bytes / 2));
        TRY(safetensors_put(&w, bytes + t[i].bytes / 2, t[i].bytes - t[i].bytes / 2));
    }
    return safetensors_commit(&w);
}

TEST(what_is_written_is_read_back)
{
    char path[256];
    struct safetensors s;
    snprintf(path, sizeof path, "%s/x.safetensors", folder);
    CHECK_OK(write_example(path));
    CHECK_OK(safetensors_open(&s, path));
    CHECK_EQ(s.n, COUNT_OF(shapes));
    CHECK_EQ(s.data_begin % 8, 0);
    for (i64 i = 0; i < COUNT_OF(shapes); i++) {
        const struct safetensors_tensor *t = safetensors_find(&s, shapes[i].name);
        CHECK(t != NULL);
        CHECK_EQ(t->dtype, shapes[i].dtype);
        CHECK_EQ(t->rank, shapes[i].rank);
        CHECK_EQ(t->begin % dtype_bytes((enum dtype)t->dtype), 0);
        for (i64 b = 0; b < t->bytes; b++)
            CHECK_EQ(((const u8 *)safetensors_data(&s, t))[b], b + 1);
    }
    safetensors_close(&s);
}

/* The hash is that of safetensors.torch.save_file of the Python library 0.8.0 for the
 * same tensors. */
TEST(the_file_equals_the_python_librarys_byte_for_byte)
{
    char path[256], hex[65];
    snprintf(path, sizeof path, "%s/y.safetensors", folder);
    CHECK_OK(write_example(path));
    CHECK_OK(sha256_file(path, hex));
    CHECK_STR(hex, "e4360eef8c50364a3232138e5638ff3c6415a78c847bb1d7c951933bd86a4857");
}

TEST(a_failed_write_leaves_neither_a_file_nor_a_trace)
{
    static const char *const faults[] = { "open:1:EACCES", "write:1:ENOSPC", "write:3:EIO",
                                          "fsync:1:EIO",   "close:1:EIO",    "rename:1:EROFS" };
    char path[256], temporary[300];
    snprintf(path, sizeof path, "%s/z.safetensors", folder);
    snprintf(temporary, sizeof temporary, "%s.tmp", path);
    for (i64 i = 0; i < COUNT_OF(faults); i++) {
        sys_fault_arm(faults[i]);
        CHECK_FAILS(write_example(path), ERR_SYS, path);
        sys_fault_arm(NULL);
        CHECK(!sys_exists(path));
        CHECK(!sys_exists(temporary));
    }
    sys_fault_arm("write:2:SHORT:repeat"); /* not an error: the rest is written next */
    CHECK_OK(write_example(path));
    sys_fault_arm(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ONE(every_malicious_header_is_refused_and_every_odd_but_legal_one_is_read),
        ONE(the_length_word_is_checked_before_anything_is_read),
        ONE(every_truncation_of_a_valid_file_is_refused),
        ONE(deep_nesting_is_refused_at_once),
        ONE(memory_stays_within_twice_the_header),
        ONE(tensors_are_found_by_name_and_metadata_by_key),
        ONE(what_is_written_is_read_back),
        ONE(the_file_equals_the_python_librarys_byte_for_byte),
        ONE(a_failed_write_leaves_neither_a_file_nor_a_trace),
    };
    if (!mkdtemp(folder))
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    sys_remove_tree(folder);
    return failed;
}
