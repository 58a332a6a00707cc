#include "test.h"

#include "base/json.h"
#include "base/sys.h"
#include "base/text.h"
#include "base/yaml.h"

static struct arena arena;

static int start(void **state)
{
    (void)state;
    arena_init(&arena);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    arena_fini(&arena);
    return 0;
}

static int parse(const char *text, const struct yaml_node **root)
{
    return yaml_parse(text, (i64)strlen(text), "f.yaml", &arena, root);
}

static void check_fails(const char *text, const char *message)
{
    const struct yaml_node *root;
    CHECK_FAILS(parse(text, &root), ERR_CONFIG, message);
}

TEST(every_node_knows_where_it_stands)
{
    const struct yaml_node *root;
    CHECK_OK(parse("# a comment\ntrain:\n  steps: 100\n  names: [a, \"b c\"]\n", &root));
    const struct yaml_node *train = yaml_get(root, "train");
    const struct yaml_node *steps = yaml_get(train, "steps");
    CHECK_EQ(train->key_line, 2);
    CHECK_EQ(steps->line, 3);
    CHECK_EQ(steps->column, 10);
    CHECK_STR(yaml_where(steps, &arena), "f.yaml:3:10");
    CHECK_STR(yaml_key_where(steps, &arena), "f.yaml:3:3");
    CHECK_STR(steps->text, "100");
    const struct yaml_node *names = yaml_get(train, "names");
    CHECK_EQ(names->kind, YAML_LIST);
    CHECK_EQ(names->count, 2);
    CHECK_STR(names->last->text, "b c");
    CHECK(names->last->quoted && !names->first->quoted);
    CHECK(yaml_get(train, "other") == NULL);
    CHECK(yaml_get(steps, "x") == NULL);
}

TEST(a_mark_of_utf8_is_passed_over)
{
    const struct yaml_node *root;
    CHECK_OK(parse("\xEF\xBB\xBFtrain:\r\n  steps: 100\r\n", &root));
    CHECK_STR(yaml_get(yaml_get(root, "train"), "steps")->text, "100");
}

TEST(an_empty_file_is_an_empty_map)
{
    const struct yaml_node *root;
    CHECK_OK(parse("", &root));
    CHECK(root->kind == YAML_MAP && root->count == 0);
    CHECK_OK(parse("# only a comment\n", &root));
    CHECK_EQ(root->count, 0);
}

TEST(null_is_what_is_unquoted_and_empty)
{
    const struct yaml_node *root;
    CHECK_OK(parse("a:\nb: ~\nc: null\nd: ''\ne: \"null\"\n", &root));
    CHECK(yaml_is_null(yaml_get(root, "a")) && yaml_is_null(yaml_get(root, "b")));
    CHECK(yaml_is_null(yaml_get(root, "c")));
    CHECK(!yaml_is_null(yaml_get(root, "d")) && !yaml_is_null(yaml_get(root, "e")));
}

TEST(what_is_refused_names_line_and_column)
{
    check_fails("a: 1\nb: 2\na: 3\n", "f.yaml:3:1: key 'a' was already given in line 1");
    check_fails("a: {b: 1, b: 2}", "f.yaml:1:11: key 'b' was already given in line 1");
    check_fails("a: &x 1\n", "f.yaml:1:4: anchors (&) are not supported");
    check_fails("a: 1\nb: *x\n", "f.yaml:2:4: aliases (*) are not supported");
    check_fails("a: !!python/object x\n", "f.yaml:1:4: tags (!) are not supported");
    check_fails("a: 1\n---\nb: 2\n", "f.yaml:2:1: a second document");
    check_fails("[a]: 1\n", "a key must be a word");
    check_fails("? {a: b}\n: 1\n", "a key must be a word");
    check_fails("a: \"\\0\"\n", "f.yaml:1:4: text with a NUL character");
    check_fails("a: [1, 2\n", "f.yaml:2:1:");
    check_fails("a: 1\n b: 2\n", "f.yaml:2:");
    check_fails("a: \"x\n", "f.yaml:2:1: found unexpected end of stream");
    check_fails("\ta: 1\n", "f.yaml:1:1: a tab indents this line; use spaces");
    check_fails("a:\n  \tb: 1\n", "f.yaml:2:3: a tab indents this line; use spaces");
    check_fails("a:\n  b: @\tc\n", "f.yaml:2:6: found character that cannot start any token");
    check_fails("a: 1\nb: \xff\n", "f.yaml:2:4: not valid UTF-8");
}

/* 65 levels, a million and one values, and the classic bomb end at once. */
TEST(limits_hold_against_hostile_files)
{
    const struct yaml_node *root;
    struct text t = { 0 };
    text_repeat(&t, '[', 65);
    check_fails(t.data, "f.yaml:1:65: nested deeper than 64 levels");
    text_clear(&t);
    text_repeat(&t, '[', 500000);
    check_fails(t.data, "nested deeper than 64 levels");
    text_clear(&t);
    text_add(&t, "[");
    for (int i = 0; i < 1000001; i++)
        text_add(&t, "1,");
    text_add(&t, "]");
    check_fails(t.data, "more than a million values");
    text_fini(&t);
    check_fails("a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]\n", "anchors (&)");
    CHECK_FAILS(yaml_parse("a", (64 << 20) + 1, "f.yaml", &arena, &root), ERR_LIMIT,
                "f.yaml: larger than 64 MiB");
}

TEST(a_hundred_thousand_keys_are_compared_quickly)
{
    const struct yaml_node *root;
    struct text t = { 0 };
    for (int i = 0; i < 100000; i++)
        text_printf(&t, "k%d: 1\n", i);
    u64 begin = sys_now_ns();
    CHECK_OK(parse(t.data, &root));
    CHECK_EQ(root->count, 100000);
    /* 0.1 s here; comparing all pairs would take minutes, also under sanitizers. */
    CHECK(sys_now_ns() - begin < 20000000000u);
    text_fini(&t);
}

TEST(files_are_loaded_and_missing_ones_named)
{
    const struct yaml_node *root;
    CHECK_FAILS(yaml_load("/no/such.yaml", &arena, &root), ERR_SYS,
                "open /no/such.yaml: No such file or directory");
    CHECK_FAILS(yaml_load("/", &arena, &root), ERR_SYS, "Is a directory");
    FILE *f = sys_fopen("yaml_test.yaml", "w");
    fputs("a: {b: [1, two]}\n", f);
    sys_fclose(f);
    CHECK_OK(yaml_load("yaml_test.yaml", &arena, &root));
    CHECK_STR(yaml_get(yaml_get(root, "a"), "b")->first->text, "1");
    sys_unlink("yaml_test.yaml");
}

TEST(trees_become_json_with_numbers_as_numbers)
{
    const struct yaml_node *root;
    struct json j;
    json_writer_init(&j);
    CHECK_OK(parse("a: [1, -2.5e3, 01, .5, 1., true, yes, null, \"7\", 1e, 0]\nb: {}\n", &root));
    yaml_write_json(root, &j);
    CHECK_STR(j.out.data, "{\"a\":[1,-2.5e3,\"01\",\".5\",\"1.\",true,\"yes\",null,\"7\","
                          "\"1e\",0],\"b\":{}}");
    json_writer_fini(&j);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, start, stop)
TEST_MAIN(CASE(every_node_knows_where_it_stands), CASE(a_mark_of_utf8_is_passed_over),
          CASE(an_empty_file_is_an_empty_map),
          CASE(null_is_what_is_unquoted_and_empty), CASE(what_is_refused_names_line_and_column),
          CASE(limits_hold_against_hostile_files),
          CASE(a_hundred_thousand_keys_are_compared_quickly),
          CASE(files_are_loaded_and_missing_ones_named),
          CASE(trees_become_json_with_numbers_as_numbers))
