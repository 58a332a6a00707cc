#include "test.h"

#include "base/option.h"
#include "base/text.h"
#include "base/yaml.h"

#include <math.h>

struct settings {
    bool flag;
    i64 steps, bytes, tokens;
    double rate, time;
    const char *name, *path;
    int choice;
    struct option_strings words;
    struct option_ints sizes;
    struct option_floats betas;
    const struct yaml_node *node;
};

static const struct option table[] = {
    { "flag", OPTION_FIELD(BOOL, struct settings, flag), "no", .help = "A flag." },
    { "train.steps", OPTION_FIELD(INT, struct settings, steps), "1000", .unit = "steps",
      .min = 1, .max = 1e12, .help = "Steps." },
    { "bytes", OPTION_FIELD(SIZE, struct settings, bytes), "64MiB", .unit = "bytes",
      .help = "Bytes." },
    { "tokens", OPTION_FIELD(SIZE, struct settings, tokens), "10M", .unit = "tokens",
      .min = 1, .max = 1e12, .help = "Tokens." },
    { "rate", OPTION_FIELD(FLOAT, struct settings, rate), "3e-4", .max = 1, .help = "Rate." },
    { "time", OPTION_FIELD(DURATION, struct settings, time), "90s", .help = "Time." },
    { "name", OPTION_FIELD(STRING, struct settings, name), NULL, .help = "Name." },
    { "path", OPTION_FIELD(PATH, struct settings, path), "a/b", .help = "Path." },
    { "choice", OPTION_FIELD(CHOICE, struct settings, choice), "muon",
      .choices = "adamw|muon|sgd", .help = "Choice." },
    { "words", OPTION_FIELD(STRINGS, struct settings, words), "a, b c", .help = "Words." },
    { "sizes", OPTION_FIELD(INTS, struct settings, sizes), "[1, 2]", .min = 1, .max = 9,
      .help = "Sizes." },
    { "betas", OPTION_FIELD(FLOATS, struct settings, betas), "0.9,0.95", .help = "Betas." },
    { "node", OPTION_FIELD(NODE, struct settings, node), "{a: [1, x]}", .help = "Node." },
    { 0 },
};

static struct arena arena;
static struct settings s;

static int start(void **state)
{
    (void)state;
    arena_init(&arena);
    memset(&s, 0xff, sizeof s); /* defaults overwrite whatever was there */
    option_set_defaults(table, &s, &arena);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    arena_fini(&arena);
    return 0;
}

static int set(const char *key, const char *text)
{
    return option_parse_one(table, &s, key, text, "f.yaml:1:2", &arena);
}

TEST(defaults_reach_every_type)
{
    CHECK(!s.flag);
    CHECK_EQ(s.steps, 1000);
    CHECK_EQ(s.bytes, 64 << 20);
    CHECK_EQ(s.tokens, 10000000);
    CHECK(s.rate == 3e-4);
    CHECK(s.time == 90);
    CHECK(s.name == NULL);
    CHECK_STR(s.path, "a/b");
    CHECK_EQ(s.choice, 1);
    CHECK_EQ(s.words.count, 2);
    CHECK_STR(s.words.at[1], "b c");
    CHECK_EQ(s.sizes.count, 2);
    CHECK_EQ(s.sizes.at[1], 2);
    CHECK(s.betas.at[1] == 0.95);
    CHECK_STR(yaml_get(s.node, "a")->last->text, "x");
}

TEST(an_empty_path_is_one_that_was_not_given)
{
    CHECK_OK(set("path", "x"));
    CHECK_STR(s.path, "x");
    CHECK_OK(set("path", ""));
    CHECK_STR(s.path, "a/b");
}

TEST(an_empty_text_without_a_default_was_not_given)
{
    CHECK_OK(set("name", "x"));
    CHECK_STR(s.name, "x");
    CHECK_OK(set("name", ""));
    CHECK(s.name == NULL);
}

TEST(a_lone_dash_is_text)
{
    CHECK_OK(set("node", "-"));
    CHECK_EQ(s.node->kind, YAML_SCALAR);
    CHECK_STR(s.node->text, "-");
}

TEST(whole_numbers_take_the_forms_people_write)
{
    static const struct { const char *text; i64 value; } cases[] = {
        { "1", 1 }, { "1_000_000", 1000000 }, { "1e6", 1000000 }, { "250 steps", 250 },
        { "1.5e3", 1500 }, { "999999999999", 999999999999 },
    };
    for (i64 i = 0; i < COUNT_OF(cases); i++) {
        CHECK_OK(set("train.steps", cases[i].text));
        CHECK_EQ(s.steps, cases[i].value);
    }
    static const char *const bad[] = { "", "ten", "1.5", "0x10", "inf", "nan", "1__0", "_1",
                                       "1e", "--1", "1e999", "99999999999999999999", "1 2" };
    for (i64 i = 0; i < COUNT_OF(bad); i++)
        CHECK(set("train.steps", bad[i]) == ERR_CONFIG);
    CHECK_EQ(s.steps, 999999999999);
}

TEST(sizes_and_durations_carry_units)
{
    static const struct { const char *key, *text; double value; } cases[] = {
        { "bytes", "10K", 1e4 },     { "bytes", "1.5 GB", 1.5e9 }, { "bytes", "1GiB", 1 << 30 },
        { "bytes", "7", 7 },         { "tokens", "2.5M", 2.5e6 },  { "tokens", "3k tokens", 3000 },
        { "tokens", "1T", 1e12 },    { "tokens", "300B", 3e11 },   { "bytes", "300B", 300 },
    };
    for (i64 i = 0; i < COUNT_OF(cases); i++) {
        CHECK_OK(set(cases[i].key, cases[i].text));
        CHECK_EQ(cases[i].key[0] == 'b' ? s.bytes : s.tokens, cases[i].value);
    }
    static const struct { const char *text; double value; } times[] = {
        { "90", 90 },   { "0.25s", 0.25 }, { "250ms", 0.25 }, { "5m", 300 }, { "5min", 300 },
        { "2h", 7200 }, { "1h30m", 5400 }, { "1 h 30 s", 3630 }, { "1d", 86400 },
    };
    for (i64 i = 0; i < COUNT_OF(times); i++) {
        CHECK_OK(set("time", times[i].text));
        CHECK_NEAR(s.time, times[i].value, 1e-9); /* 250 * 1e-3 is not exact */
    }
}

TEST(messages_say_where_what_and_what_is_expected)
{
    CHECK_FAILS(set("trian.steps", "1"), ERR_CONFIG, "");
    CHECK_STR(err_message(),
              "f.yaml:1:2: unknown key 'trian.steps'; did you mean 'train.steps'?");
    CHECK_FAILS(set("steps", "1"), ERR_CONFIG, "did you mean 'train.steps'?");
    CHECK_FAILS(set("zzzzzz", "1"), ERR_CONFIG, "");
    CHECK_STR(err_message(), "f.yaml:1:2: unknown key 'zzzzzz'");
    CHECK_FAILS(set("train.steps", "0"), ERR_CONFIG, "");
    CHECK_STR(err_message(), "f.yaml:1:2: value 0 is out of range: train.steps must be "
                             "between 1 and 1000000000000");
    CHECK_FAILS(set("time", "10 GB"), ERR_CONFIG,
                "'10 GB' where seconds are expected: time takes a time, such as 90s");
    CHECK_FAILS(set("tokens", "10 GB"), ERR_CONFIG, "'10 GB' where tokens are expected");
    CHECK_FAILS(set("bytes", "10 s"), ERR_CONFIG, "'10 s' where bytes are expected");
    CHECK_FAILS(set("train.steps", "ten"), ERR_CONFIG, "'ten' is not a whole number");
    CHECK_FAILS(set("flag", "maybe"), ERR_CONFIG, "'maybe' is neither true nor false");
    CHECK_FAILS(set("choice", "adam"), ERR_CONFIG,
                "'adam' is not a choice of choice, which are adamw|muon|sgd; did you mean "
                "'adamw'?");
    CHECK_FAILS(set("sizes", "1,10"), ERR_CONFIG, "value 10 is out of range: sizes must be "
                                                  "between 1 and 9");
    CHECK_FAILS(set("sizes", "[1, [2]]"), ERR_CONFIG, "without lists or maps inside");
    CHECK_FAILS(set("rate", "{a: 1}"), ERR_CONFIG, "'{a: 1}' is not a number");
    CHECK_FAILS(option_parse_one(table, &s, "rate", "2", NULL, &arena), ERR_CONFIG,
                "value 2 is out of range");
}

/* They are numbers; what is wrong is how large they are. */
TEST(numbers_that_no_variable_holds_are_out_of_range)
{
    CHECK_FAILS(set("train.steps", "99999999999999999999"), ERR_CONFIG, "");
    CHECK_STR(err_message(), "f.yaml:1:2: value 99999999999999999999 is out of range: train.steps "
                             "must be between 1 and 1000000000000");
    static const char *const keys[] = { "train.steps", "bytes", "tokens", "rate", "time" };
    char zeros[600] = "1";
    memset(zeros + 1, '0', 400);
    for (i64 i = 0; i < COUNT_OF(keys); i++) {
        CHECK_FAILS(set(keys[i], "1e999"), ERR_CONFIG, "value 1e999 is out of range: ");
        CHECK_FAILS(set(keys[i], "-1e999"), ERR_CONFIG, "value -1e999 is out of range: ");
        CHECK_FAILS(set(keys[i], zeros), ERR_CONFIG, "is out of range: ");
    }
    CHECK_FAILS(set("bytes", "1e18T"), ERR_CONFIG, "value 1e18T is out of range: bytes must be "
                                                   "between -9e+18 and 9e+18");
    CHECK_FAILS(set("time", "1e308d"), ERR_CONFIG, "is out of range: ");
    CHECK_FAILS(set("train.steps", "1e30 GB"), ERR_CONFIG, "'1e30 GB' where steps are expected");
}

/* What option_format writes, option_set reads back to the same text. */
TEST(formatted_values_read_back)
{
    static const struct { const char *key, *text, *expected; } cases[] = {
        { "flag", "yes", "true" },         { "train.steps", "1e6", "1000000" },
        { "bytes", "1048576", "1MiB" },    { "bytes", "3000", "3K" },
        { "bytes", "10G", "10G" },         { "bytes", "64KiB", "64KiB" },
        { "tokens", "2.5M", "2500K" },     { "tokens", "1234567", "1234567" },
        { "rate", "0.1", "0.1" },          { "time", "7200", "2h" },
        { "time", "61", "61s" },           { "time", "250ms", "0.25s" },
        { "time", "0", "0s" },             { "name", "x y", "x y" },
        { "choice", "sgd", "sgd" },        { "words", "[\"a,b\", c]", "[\"a,b\", c]" },
        { "words", "", "[]" },             { "sizes", "3, 4", "[3, 4]" },
        { "betas", "[1, 0.5]", "[1, 0.5]" }, { "node", "[{a: 1}, b]", "[{\"a\":1},\"b\"]" },
    };
    for (i64 i = 0; i < COUNT_OF(cases); i++) {
        const struct option *o = option_find(table, cases[i].key);
        struct text out = { 0 };
        CHECK_OK(set(cases[i].key, cases[i].text));
        option_format(o, &s, &out);
        CHECK_STR(out.data, cases[i].expected);
        CHECK_OK(set(cases[i].key, cases[i].expected));
        text_clear(&out);
        option_format(o, &s, &out);
        CHECK_STR(out.data, cases[i].expected);
        text_fini(&out);
    }
}

TEST(nearest_name_forgives_typing_but_not_everything)
{
    static const char *const names[] = { "train", "eval", "sample", "tokenizer" };
    static const struct { const char *typed, *expected; } cases[] = {
        { "tarin", "train" }, { "tokeniser", "tokenizer" }, { "smaple", "sample" },
        { "evla", "eval" },   { "diagnose", NULL },
    };
    for (i64 i = 0; i < COUNT_OF(cases); i++) {
        struct nearest n = { .typed = cases[i].typed };
        for (i64 k = 0; k < COUNT_OF(names); k++)
            nearest_offer(&n, names[k]);
        const char *found = nearest_found(&n);
        CHECK(cases[i].expected ? found && strcmp(found, cases[i].expected) == 0 : !found);
    }
}

TEST(doubles_are_written_short_and_exact)
{
    static const struct { double value; const char *text; } cases[] = {
        { 0.1, "0.1" }, { 1e-8, "1e-08" }, { 3, "3" }, { 1.0 / 3, "0.3333333333333333" },
        { -0.0, "-0" }, { 5e-324, "4.94066e-324" }, { (double)NAN, "nan" },
    };
    struct text t = { 0 };
    for (i64 i = 0; i < COUNT_OF(cases); i++) {
        text_clear(&t);
        text_add_double(&t, cases[i].value);
        CHECK_STR(t.data, cases[i].text);
    }
    text_fini(&t);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, start, stop)
TEST_MAIN(CASE(defaults_reach_every_type), CASE(an_empty_path_is_one_that_was_not_given),
          CASE(an_empty_text_without_a_default_was_not_given),
          CASE(a_lone_dash_is_text), CASE(whole_numbers_take_the_forms_people_write),
          CASE(sizes_and_durations_carry_units),
          CASE(messages_say_where_what_and_what_is_expected),
          CASE(numbers_that_no_variable_holds_are_out_of_range),
          CASE(formatted_values_read_back), ONE(nearest_name_forgives_typing_but_not_everything),
          ONE(doubles_are_written_short_and_exact))
