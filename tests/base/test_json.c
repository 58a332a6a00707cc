#include "test.h"

#include "base/json.h"
#include "base/sys.h"

#include <math.h>

static struct json j;

static int start(void **state)
{
    (void)state;
    json_writer_init(&j);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    json_writer_fini(&j);
    return 0;
}

TEST(objects_and_arrays_get_their_commas)
{
    json_begin_object(&j);
    json_put_int(&j, "step", 7);
    json_put_double(&j, "loss", 0.1);
    json_put_bool(&j, "ok", true);
    json_put_str(&j, "none", NULL);
    json_key(&j, "list");
    json_begin_array(&j);
    json_int(&j, 1);
    json_begin_object(&j);
    json_end(&j);
    json_str(&j, "x");
    json_end(&j);
    json_end(&j);
    CHECK_STR(j.out.data, "{\"step\":7,\"loss\":0.1,\"ok\":true,\"none\":null,"
                          "\"list\":[1,{},\"x\"]}");
}

TEST(indented_output_has_one_item_a_line)
{
    j.indent = true;
    json_begin_object(&j);
    json_key(&j, "a");
    json_begin_array(&j);
    json_int(&j, 1);
    json_int(&j, 2);
    json_end(&j);
    json_key(&j, "b");
    json_begin_array(&j);
    json_end(&j);
    json_end(&j);
    CHECK_STR(j.out.data, "{\n  \"a\": [\n    1,\n    2\n  ],\n  \"b\": []\n}");
}

TEST(strings_of_any_bytes_become_valid_json)
{
    json_str_bytes(&j, "a\"\\\n\t\x01\x7f\0z", 9);
    CHECK_STR(j.out.data, "\"a\\\"\\\\\\n\\t\\u0001\\u007f\\u0000z\"");
    json_writer_clear(&j);
    json_str(&j, "gr\xc3\xbc\xc3\x9f \xf0\x9f\x98\x80 \xff \xed\xa0\x80 \xc3");
    CHECK_STR(j.out.data, "\"gr\xc3\xbc\xc3\x9f \xf0\x9f\x98\x80 \\ufffd "
                          "\\ufffd\\ufffd\\ufffd \\ufffd\"");
    json_writer_clear(&j);
    json_str(&j, "\xc2\x85 \xe2\x80\xa8 \xef\xbb\xbf \xef\xbf\xbf");
    CHECK_STR(j.out.data, "\"\\u0085 \\u2028 \\ufeff \\uffff\"");
}

/* Every byte pair, written and read back by an independent reader. */
TEST(a_reader_accepts_every_pair_of_bytes)
{
    for (int a = 0; a < 256; a++) {
        json_writer_clear(&j);
        json_begin_array(&j);
        for (int b = 0; b < 256; b++)
            json_str_bytes(&j, (char[]){ (char)a, (char)b }, 2);
        json_end(&j);
        json_error_t error;
        json_t *read = json_loads(j.out.data, JSON_ALLOW_NUL, &error);
        CHECK(read && json_array_size(read) == 256);
        json_decref(read);
    }
}

TEST(numbers_read_back_the_same_and_nan_is_null)
{
    static const double values[] = { 0.1, 1.0 / 3, 5e-324, 1.7976931348623157e308, -0.0,
                                     123456789012345678.0 };
    for (i64 i = 0; i < COUNT_OF(values); i++) {
        json_t *read;
        json_writer_clear(&j);
        json_double(&j, values[i]);
        CHECK_OK(json_parse(j.out.data, j.out.length, "number", &read));
        CHECK(json_number_value(read) == values[i]);
        json_decref(read);
    }
    json_writer_clear(&j);
    json_begin_array(&j);
    json_double(&j, NAN);
    json_double(&j, INFINITY);
    json_end(&j);
    CHECK_STR(j.out.data, "[null,null]");
}

TEST(a_cleared_writer_allocates_nothing)
{
    for (int i = 0; i < 100; i++) {
        u64 before = sys_op_count(SYS_ALLOC);
        json_writer_clear(&j);
        json_begin_object(&j);
        json_put_int(&j, "step", i);
        json_put_double(&j, "loss", 1.0 / (i + 1));
        json_put_str(&j, "text", "some text that is long enough to matter");
        json_end(&j);
        if (i > 0)
            CHECK_EQ(sys_op_count(SYS_ALLOC) - before, 0);
    }
}

static void check_refused(const char *text, int code, const char *message)
{
    json_t *read = NULL;
    CHECK_FAILS(json_parse(text, (i64)strlen(text), "f.json", &read), code, message);
    CHECK(read == NULL);
}

TEST(reading_is_strict_and_says_where)
{
    json_t *marked;
    CHECK_OK(json_parse("\xEF\xBB\xBF{}", 5, "marked", &marked));
    json_decref(marked);
    check_refused("{\"a\": 1, \"a\": 2}", ERR_FORMAT, "f.json:1:12: duplicate object key near");
    check_refused("{\"a\": 1", ERR_FORMAT, "f.json:1:7: '}' expected near end of file");
    check_refused("[1]\n[2]", ERR_FORMAT, "f.json:2:1: end of file expected");
    check_refused("", ERR_FORMAT, "f.json:1:0:");
    check_refused("[\"\xff\"]", ERR_FORMAT, "unable to decode byte 0xff");
    check_refused("[\"\\u0000\"]", ERR_FORMAT, "\\u0000 is not allowed");
    check_refused("[NaN]", ERR_FORMAT, "invalid token");
    check_refused("[1e999]", ERR_FORMAT, "real number overflow");
}

/* 8 MB of "[[],[],..." would take 40 times that; the budget is 64 MiB + 16 times. */
TEST(a_bomb_ends_at_the_memory_limit)
{
    struct text t = { 0 };
    text_add(&t, "[");
    while (t.length < 8 << 20)
        text_add(&t, "[],[],[],[],[],[],[],[],");
    text_add(&t, "1]");
    check_refused(t.data, ERR_LIMIT, "f.json: its JSON needs more than 192 MiB");
    text_clear(&t);
    text_repeat(&t, '[', 100000);
    check_refused(t.data, ERR_FORMAT, "maximum parsing depth reached");
    text_fini(&t);
}

TEST(files_beyond_their_limit_are_not_read)
{
    json_t *read;
    FILE *f = sys_fopen("json_test.json", "w");
    fputs("{\"key\": [1, 2]}", f);
    sys_fclose(f);
    CHECK_FAILS(json_load("json_test.json", 10, &read), ERR_LIMIT,
                "json_test.json: 15 bytes, more than the limit of 10");
    CHECK_OK(json_load("json_test.json", 100, &read));
    CHECK_EQ(json_array_size(json_object_get(read, "key")), 2);
    json_decref(read);
    CHECK_FAILS(json_load("no.json", 100, &read), ERR_SYS, "open no.json: No such file");
    sys_unlink("json_test.json");
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, start, stop)
TEST_MAIN(CASE(objects_and_arrays_get_their_commas), CASE(indented_output_has_one_item_a_line),
          CASE(strings_of_any_bytes_become_valid_json),
          CASE(a_reader_accepts_every_pair_of_bytes),
          CASE(numbers_read_back_the_same_and_nan_is_null),
          CASE(a_cleared_writer_allocates_nothing), CASE(reading_is_strict_and_says_where),
          CASE(a_bomb_ends_at_the_memory_limit), CASE(files_beyond_their_limit_are_not_read))
