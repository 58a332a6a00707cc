#include "test.h"

#include "base/text.h"
#include "data/normalize.h"
#include "data/pretoken.h"
#include "data/scan.h"
#include "data/split_regex.h"
#include "data/unicode.h"
#include "random_text.h"

static i64 valid(const char *text)
{
    return utf8_valid((const u8 *)text, (i64)strlen(text));
}

TEST(utf8_stops_at_the_first_ill_formed_byte)
{
    CHECK_EQ(valid("plain text that is longer than a word"), 37);
    CHECK_EQ(valid("\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80"), 9);
    CHECK_EQ(valid("ab\x80"), 2);                 /* a lone continuation */
    CHECK_EQ(valid("ab\xC1\xBF"), 2);             /* overlong */
    CHECK_EQ(valid("ab\xE0\x9F\xBF"), 2);         /* overlong */
    CHECK_EQ(valid("ab\xED\xA0\x80"), 2);         /* a surrogate */
    CHECK_EQ(valid("ab\xF4\x90\x80\x80"), 2);     /* above U+10FFFF */
    CHECK_EQ(valid("abcdefgh\xE2\x82"), 8);       /* cut off */
}

/* Table 3-8 of the Unicode standard: 61 F1 80 80 E1 80 C2 62 80 63 80 BF 64. */
TEST(ill_formed_text_is_divided_as_unicode_says)
{
    static const u8 text[] = { 0xF1, 0x80, 0x80, 0xE1, 0x80, 0xC2, 0x62 };
    bool incomplete;
    CHECK_EQ(utf8_bad_length(text, 7, &incomplete), 3);
    CHECK(!incomplete);
    CHECK_EQ(utf8_bad_length(text + 3, 4, &incomplete), 2);
    CHECK_EQ(utf8_bad_length(text + 5, 2, &incomplete), 1);
    CHECK_EQ(utf8_bad_length(text, 2, &incomplete), 2);
    CHECK(incomplete);
    CHECK_EQ(utf8_bad_length((const u8 *)"\xED\xA0\x80", 3, &incomplete), 1);
    CHECK(!incomplete);
}

TEST(every_character_survives_encoding)
{
    for (u32 c = 0; c <= 0x10FFFF; c++) {
        u8 bytes[4];
        int length;
        if (c >= 0xD800 && c < 0xE000)
            continue;
        CHECK_EQ(utf8_valid(bytes, utf8_put(c, bytes)), utf8_put(c, bytes));
        CHECK_EQ(utf8_decode(bytes, &length), c);
    }
}

TEST(classes_know_unicode_16)
{
    CHECK_EQ(char_class_of(0xE9), CHAR_LETTER);
    CHECK_EQ(char_class_of(0x2160), CHAR_NUMBER); /* Roman numeral one */
    CHECK_EQ(char_class_of(0x85), CHAR_SPACE);
    CHECK_EQ(char_class_of(0x3000), CHAR_SPACE);
    CHECK_EQ(char_class_of(0x180E), CHAR_OTHER); /* no white space since Unicode 6.3 */
    CHECK_EQ(char_class_of(0x200B), CHAR_OTHER);
    CHECK_EQ(char_class_of(0x301), CHAR_OTHER);   /* a combining mark is no letter */
    CHECK_EQ(char_class_of(0x1F600), CHAR_OTHER);
    CHECK_EQ(char_class_of(0x1C89), CHAR_LETTER); /* Unicode 16 */
    CHECK_EQ(char_class_of(0x10D40), CHAR_NUMBER); /* Unicode 16 */
    CHECK(char_is_word(0x301) && char_is_word('_') && char_is_word(0x24B6));
    CHECK(!char_is_word('-') && !char_is_word(0xB2));
}

static void check_form(enum normal_form form, const char *text, const char *expected)
{
    struct normalizer n = { 0 };
    CHECK_OK(normalize(&n, form, (const u8 *)text, (i64)strlen(text)));
    CHECK_OK(buffer_add(&n.out, "", 1));
    CHECK_STR((const char *)n.out.data, expected);
    normalizer_fini(&n);
}

TEST(normal_forms_follow_the_standard)
{
    check_form(FORM_NFC, "e\u0301", "\u00E9");
    check_form(FORM_NFC, "a\u0301\u0323", "\u1EA1\u0301"); /* marks are ordered first */
    check_form(FORM_NFC, "\u212B", "\u00C5");
    check_form(FORM_NFC, "\u1100\u1161\u11A8", "\uAC01");
    check_form(FORM_NFC, "\u0958", "\u0915\u093C"); /* excluded from composition */
    check_form(FORM_NFD, "\u1EA1\u0301", "a\u0323\u0301");
    check_form(FORM_NFKC, "\uFB01\u00B2", "fi2");
    check_form(FORM_NFKD, "\u1E9B\u0323", "s\u0323\u0307");
    check_form(FORM_NFC, "", "");
}

/* Quadratic sorting would take hours; the marks come in the worst order. */
TEST(a_megabyte_of_marks_is_normalised_in_linear_time)
{
    enum { MARKS = 500 * 1000 };
    struct buffer text = { 0 };
    struct normalizer n = { 0 };
    for (i64 i = 0; i < MARKS; i++)
        CHECK_OK(buffer_add(&text, i < MARKS / 2 ? "\u0301" : "\u0323", 2));
    CHECK_OK(normalize(&n, FORM_NFC, text.data, text.bytes));
    CHECK_EQ(n.out.bytes, text.bytes);
    CHECK(!memcmp(n.out.data, "\u0323\u0323", 4));
    normalizer_fini(&n);
    buffer_fini(&text);
}

/* Two independent readings of the same expression: the scanner's and PCRE2's. */
TEST(scanners_split_as_their_expressions_do)
{
    struct dice d = { { 7, 1 }, 0 };
    struct buffer text = { 0 };
    struct split_match *match;
    CHECK_OK(split_match_new(&match));
    for (i64 k = 0; k < scan_pattern_count; k++) {
        const struct scan_pattern *p = &scan_patterns[k];
        struct split_regex *regex;
        CHECK_OK(split_regex_new(&regex, p->regex));
        for (int round = 0; round < 5000; round++) {
            random_text(&d, &text);
            for (i64 at = 0, begin, end; at < text.bytes; at = end) {
                CHECK_EQ(split_regex_find(regex, match, text.data, text.bytes, at, &begin,
                                          &end), 1);
                CHECK_EQ(begin, at);
                CHECK_EQ(p->scan(text.data, at, text.bytes), end);
            }
        }
        split_regex_free(regex);
    }
    split_match_free(match);
    buffer_fini(&text);
}

/* Every assigned character in five places; this finds what random text may miss. */
TEST(scanners_class_every_character_as_the_expressions_do)
{
    struct split_match *match;
    struct split_regex *regex;
    const struct scan_pattern *p = scan_by_name("llama3");
    CHECK_OK(split_match_new(&match));
    CHECK_OK(split_regex_new(&regex, p->regex));
    for (u32 c = 1; c < 0x110000; c += c < 0x32400 ? 1 : 61) { /* all that is assigned */
        u8 text[32] = "a";
        i64 n = 1, begin, end;
        if (c >= 0xD800 && c < 0xE000)
            continue;
        n += utf8_put(c, text + n);
        text[n++] = '1';
        n += utf8_put(c, text + n);
        text[n++] = '.';
        n += utf8_put(c, text + n);
        text[n++] = ' ';
        n += utf8_put(c, text + n);
        text[n++] = '\'';
        n += utf8_put(c, text + n);
        for (i64 at = 0; at < n; at = end) {
            CHECK_EQ(split_regex_find(regex, match, text, n, at, &begin, &end), 1);
            if (p->scan(text, at, n) != end)
                fail_msg("U+%04X", c);
        }
    }
    split_regex_free(regex);
    split_match_free(match);
}

static int count_piece(void *context, const u8 *piece, i64 bytes)
{
    (void)piece;
    (void)bytes;
    ++*(int *)context;
    return OK;
}

/* The step Digits knows Unicode 17, as Hugging Face's does; patterns know 16 only. */
TEST(digits_are_those_of_unicode_17)
{
    static const struct {
        const char *digits;
        int pieces;
    } cases[] = { { "true", 5 }, { "false", 3 } };
    const char text[] = "a\U00011DE0\U00011DE9\U00016FF5b";
    for (int i = 0; i < COUNT_OF(cases); i++) {
        struct pretoken_scratch scratch = { 0 };
        struct pretokenizer p;
        struct text json = { 0 };
        int pieces = 0;
        text_printf(&json,
                    "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\","
                    "\"individual_digits\":%s},{\"type\":\"ByteLevel\","
                    "\"add_prefix_space\":false,\"use_regex\":false}]}",
                    cases[i].digits);
        json_t *root = json_loadb(json.data, (size_t)json.length, 0, NULL);
        CHECK_OK(pretokenizer_init(&p, root));
        CHECK_OK(pretokenize(&p, &scratch, (const u8 *)text, sizeof text - 1, count_piece,
                             &pieces));
        CHECK_EQ(pieces, cases[i].pieces);
        pretoken_scratch_fini(&scratch);
        pretokenizer_fini(&p);
        json_decref(root);
        text_fini(&json);
    }
}

TEST(patterns_that_would_mean_something_else_are_refused)
{
    struct split_regex *r;
    CHECK_FAILS(split_regex_new(&r, " ?[^(\\s|[.,!?])]+"), ERR_FORMAT, "a set inside a set");
    CHECK_FAILS(split_regex_new(&r, "\\w+"), ERR_FORMAT, "an escape other than");
    CHECK_FAILS(split_regex_new(&r, "\\p{N}{1,3}+"), ERR_FORMAT, "{ }+");
    CHECK_FAILS(split_regex_new(&r, "[\\S]"), ERR_FORMAT, "inside [ ]");
    CHECK_FAILS(split_regex_new(&r, "a*"), ERR_FORMAT, "match nothing");
    CHECK_FAILS(split_regex_new(&r, "(a"), ERR_FORMAT, "does not compile");
    CHECK_FAILS(split_regex_new(&r, "(*LIMIT_MATCH=1)a"), ERR_FORMAT, "(*");
    CHECK_FAILS(split_regex_new(&r, "a\\"), ERR_FORMAT, "an escape other than");
    CHECK_FAILS(split_regex_new(&r, "\\p{L"), ERR_FORMAT, "without }");
}

TEST(a_pattern_of_exponential_effort_ends_with_an_error)
{
    struct split_regex *r;
    struct split_match *m;
    i64 begin, end;
    u8 text[64];
    memset(text, 'a', sizeof text);
    text[63] = '!';
    CHECK_OK(split_regex_new(&r, "(a+)+[bc]"));
    CHECK_OK(split_match_new(&m));
    CHECK_FAILS(split_regex_find(r, m, text, sizeof text, 0, &begin, &end), ERR_LIMIT,
                "takes too long");
    split_match_free(m);
    split_regex_free(r);
}

TEST_MAIN(ONE(utf8_stops_at_the_first_ill_formed_byte),
          ONE(ill_formed_text_is_divided_as_unicode_says), ONE(every_character_survives_encoding),
          ONE(classes_know_unicode_16), ONE(normal_forms_follow_the_standard),
          ONE(a_megabyte_of_marks_is_normalised_in_linear_time),
          ONE(scanners_split_as_their_expressions_do),
          ONE(scanners_class_every_character_as_the_expressions_do),
          ONE(digits_are_those_of_unicode_17),
          ONE(patterns_that_would_mean_something_else_are_refused),
          ONE(a_pattern_of_exponential_effort_ends_with_an_error))
