#include "test.h"

#include "base/json.h"
#include "base/recipe.h"
#include "base/text.h"

struct first {
    i64 steps;
    double time;
    const char *name;
    struct option_strings tags;
};

struct second {
    double lr, beta;
    const struct yaml_node *sources;
};

static const struct option first_table[] = {
    { "train.steps", OPTION_FIELD(INT, struct first, steps), "1000", .min = 1,
      .help = "Steps." },
    { "train.max_time", OPTION_FIELD(DURATION, struct first, time), "0", .help = "Time." },
    { "train.run.name", OPTION_FIELD(STRING, struct first, name), NULL, .help = "Name." },
    { "train.run.tags", OPTION_FIELD(STRINGS, struct first, tags), "", .help = "Tags." },
    { 0 },
};

static const struct option second_table[] = {
    { "optim.lr", OPTION_FIELD(FLOAT, struct second, lr), "3e-4", .max = 1, .help = "Rate." },
    { "optim.adamw.beta", OPTION_FIELD(FLOAT, struct second, beta), "0.9", .help = "Beta." },
    { "sources", OPTION_FIELD(NODE, struct second, sources), NULL, .help = "Sources." },
    { 0 },
};

static struct arena arena;
static struct first one;
static struct second two;
static struct recipe recipe;

static void init_recipe(void)
{
    memset(&one, 0, sizeof one);
    memset(&two, 0, sizeof two);
    recipe_init(&recipe, &arena,
                (struct option_group[]){ { first_table, &one }, { second_table, &two } }, 2);
}

static int start(void **state)
{
    (void)state;
    arena_init(&arena);
    init_recipe();
    return 0;
}

static int stop(void **state)
{
    (void)state;
    arena_fini(&arena);
    return 0;
}

static int apply(const char *text)
{
    const struct yaml_node *root;
    TRY(yaml_parse(text, (i64)strlen(text), "r.yaml", &arena, &root));
    return recipe_apply(&recipe, root);
}

TEST(later_wins_and_every_value_knows_its_origin)
{
    CHECK_OK(apply("train:\n  steps: 5\noptim.lr: 0.1\n"));
    CHECK_OK(recipe_override(&recipe, "train.steps=7"));
    CHECK_OK(recipe_override(&recipe, "train.run.name=a=b"));
    CHECK_EQ(one.steps, 7);
    CHECK(two.lr == 0.1 && two.beta == 0.9);
    CHECK_STR(one.name, "a=b");
    CHECK_STR(recipe_where(&recipe, "train.steps"), "--set");
    CHECK_STR(recipe_where(&recipe, "optim.lr"), "r.yaml:3:1");
    CHECK(recipe_where(&recipe, "optim.adamw.beta") == NULL);
}

/* "null" leaves a text out, on the command line as in a file. */
TEST(null_is_no_text)
{
    CHECK_OK(apply("train.run.name: x\n"));
    CHECK_OK(recipe_override(&recipe, "train.run.name=null"));
    CHECK(one.name == NULL);
    CHECK_STR(recipe_where(&recipe, "train.run.name"), "--set");
    CHECK_OK(recipe_override(&recipe, "train.run.name=nulls"));
    CHECK_STR(one.name, "nulls");
    CHECK_OK(recipe_override(&recipe, "train.run.name=~"));
    CHECK(one.name == NULL);
    CHECK_FAILS(recipe_override(&recipe, "train.steps=null"), ERR_CONFIG,
                "train.steps has no value: it takes a whole number");
}

TEST(mistakes_are_named_with_place_and_nearest_key)
{
    CHECK_FAILS(apply("train:\n    trian: 1\n"), ERR_CONFIG,
                "unknown key 'train.trian'; train has ");
    CHECK_FAILS(apply("trian.steps: 1\n"), ERR_CONFIG, "");
    CHECK_STR(err_message(),
              "r.yaml:1:1: unknown key 'trian.steps'; did you mean 'train.steps'?");
    CHECK_FAILS(apply("train: {steps: 0}\n"), ERR_CONFIG, "");
    CHECK_STR(err_message(),
              "r.yaml:1:16: value 0 is out of range: train.steps must be at least 1");
    CHECK_FAILS(apply("train: {max_time: 10 GB}\n"), ERR_CONFIG,
                "r.yaml:1:19: '10 GB' where seconds are expected");
    CHECK_FAILS(apply("train: 5\n"), ERR_CONFIG,
                "r.yaml:1:1: 'train' is a section: its keys go below it, such as train.steps");
    CHECK_FAILS(apply("train: {steps: [1]}\n"), ERR_CONFIG,
                "r.yaml:1:16: train.steps takes a whole number, such as 1000, not a list");
    CHECK_FAILS(apply("train: {steps: }\n"), ERR_CONFIG, "train.steps has no value");
    CHECK_FAILS(apply("- 1\n"), ERR_CONFIG, "r.yaml:1:1: keys with values are expected");
    CHECK_FAILS(recipe_override(&recipe, "train.steps"), ERR_USAGE, "expected key=value");
    CHECK_FAILS(recipe_override(&recipe, "steps=1"), ERR_CONFIG,
                "--set: unknown key 'steps'; did you mean 'train.steps'?");
    CHECK_FAILS(recipe_override(&recipe, "optim.lr=2"), ERR_CONFIG,
                "--set: value 2 is out of range: optim.lr must be between 0 and 1");
}

TEST(an_unknown_section_is_named_where_it_stands)
{
    CHECK_FAILS(apply("optim.lr: 1\ntrian:\n    steps: 1\n"), ERR_CONFIG, "");
    CHECK_STR(err_message(), "r.yaml:2:1: unknown section 'trian'; did you mean 'train'?");
    CHECK_FAILS(apply("train:\n  rnu: {name: a}\n"), ERR_CONFIG, "");
    CHECK_STR(err_message(), "r.yaml:2:3: unknown section 'train.rnu'; did you mean 'train.run'?");
    CHECK_FAILS(apply("elsewhere: {steps: 1}\n"), ERR_CONFIG, "");
    CHECK_STR(err_message(), "r.yaml:1:1: unknown section 'elsewhere'; there are train, optim");
    CHECK_FAILS(apply("trian: {}\n"), ERR_CONFIG, "unknown section 'trian'");
    CHECK_FAILS(apply("trian: 5\n"), ERR_CONFIG,
                "r.yaml:1:1: unknown key 'trian'; did you mean 'train'?");
}

TEST(one_key_written_in_two_ways_is_a_duplicate)
{
    CHECK_FAILS(apply("train: {steps: 1}\ntrain.steps: 2\n"), ERR_CONFIG,
                "r.yaml:2:1: train.steps was already given at r.yaml:1:9");
}

struct source {
    const char *path;
    double weight;
};

static const struct option source_table[] = {
    { "path", OPTION_FIELD(PATH, struct source, path), NULL, .help = "Path." },
    { "weight", OPTION_FIELD(FLOAT, struct source, weight), "1", .help = "Weight." },
    { 0 },
};

TEST(lists_of_maps_are_read_by_their_own_table)
{
    struct source s[2] = { 0 };
    CHECK_OK(apply("sources:\n  - {path: a.txt, weight: 0.5}\n  - {path: b.txt}\n"));
    const struct yaml_node *item = two.sources->first;
    for (int i = 0; i < 2; i++, item = item->next)
        CHECK_OK(recipe_read_map(source_table, &s[i], item, &arena));
    CHECK_STR(s[0].path, "a.txt");
    CHECK(s[0].weight == 0.5 && s[1].weight == 1);
    init_recipe();
    CHECK_OK(apply("sources:\n  - {path: a, wieght: 1}\n"));
    CHECK_FAILS(recipe_read_map(source_table, &s[0], two.sources->first, &arena), ERR_CONFIG,
                "r.yaml:2:15: unknown key 'wieght'; did you mean 'weight'?");
    CHECK_OK(recipe_override(&recipe, "sources=[{path: c}]"));
    CHECK_STR(yaml_get(two.sources->first, "path")->text, "c");
}

static const char *resolved_json(void)
{
    struct json j;
    json_writer_init(&j);
    recipe_write_json(&recipe, &j);
    const char *copy = arena_strdup(&arena, j.out.data);
    json_writer_fini(&j);
    return copy;
}

TEST(the_resolved_recipe_reads_back_to_the_same_values)
{
    struct text yaml = { 0 };
    CHECK_OK(apply("train: {max_time: 90m, run: {name: 'a: \"b\"', tags: [x, 'y, z']}}\n"
                   "sources: [{path: 'p q', n: 1}, s]\n"));
    const char *before = resolved_json();
    CHECK_STR(before, "{\"train\":{\"steps\":1000,\"max_time\":5400,\"run\":{\"name\":"
                      "\"a: \\\"b\\\"\",\"tags\":[\"x\",\"y, z\"]}},\"optim\":{\"lr\":0.0003,"
                      "\"adamw\":{\"beta\":0.9}},\"sources\":[{\"path\":\"p q\",\"n\":1},"
                      "\"s\"]}");
    recipe_write_yaml(&recipe, &yaml);
    CHECK_STR(yaml.data, "train:\n  steps: 1000\n  max_time: 90m\n  run:\n"
                         "    name: \"a: \\\"b\\\"\"\n    tags: [\"x\",\"y, z\"]\n"
                         "optim:\n  lr: 0.0003\n  adamw:\n    beta: 0.9\n"
                         "sources: [{\"path\":\"p q\",\"n\":1},\"s\"]\n");
    init_recipe();
    CHECK_OK(apply(yaml.data));
    CHECK_STR(resolved_json(), before);
    text_fini(&yaml);
    init_recipe();
    CHECK_STR(resolved_json(), "{\"train\":{\"steps\":1000,\"max_time\":0,\"run\":{\"name\":"
                               "null,\"tags\":[]}},\"optim\":{\"lr\":0.0003,\"adamw\":"
                               "{\"beta\":0.9}},\"sources\":null}");
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, start, stop)
TEST_MAIN(CASE(null_is_no_text), CASE(later_wins_and_every_value_knows_its_origin),
          CASE(mistakes_are_named_with_place_and_nearest_key),
          CASE(an_unknown_section_is_named_where_it_stands),
          CASE(one_key_written_in_two_ways_is_a_duplicate),
          CASE(lists_of_maps_are_read_by_their_own_table),
          CASE(the_resolved_recipe_reads_back_to_the_same_values))
