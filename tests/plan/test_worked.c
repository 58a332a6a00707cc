/* Worked examples: all that are shipped are read, and what is wrong in one is said. */
#include "test.h"

#include "base/err.h"
#include "base/yaml.h"
#include "plan/worked.h"

static struct arena arena;

TEST(every_shipped_table_is_read)
{
    static const struct { const char *name; i64 rows; } tables[] = {
        { "plan-megatron-lm", 10 }, { "plan-megascale", 7 }, { "plan-llama3", 3 },
        { "plan-deepseek-v3", 1 },
    };
    for (i64 i = 0; i < COUNT_OF(tables); i++) {
        struct worked_table t;
        CHECK_OK(worked_load(&t, tables[i].name, &arena));
        CHECK_EQ(t.n, tables[i].rows);
        CHECK(*t.about);
        for (i64 r = 0; r < t.n; r++)
            CHECK(t.rows[r].gpus > 0 && t.rows[r].spec.layers > 0);
    }
}

TEST(rows_add_to_what_they_share)
{
    struct worked_table t;
    CHECK_OK(worked_load(&t, "plan-megatron-lm", &arena));
    CHECK_EQ(t.rows[0].spec.layers, 24);
    CHECK_EQ(t.rows[0].spec.heads, 24);
    CHECK_EQ(t.rows[0].spec.head_size, 96); /* of the row's width, not of the model's */
    CHECK_EQ(t.rows[9].spec.width, 25600);
    CHECK_EQ(t.rows[9].spec.vocab, 51200);  /* shared */
    CHECK_STR(t.rows[9].machine, t.rows[0].machine);
    CHECK(strstr(t.rows[9].machine, "a100-sxm-80gb"));
}

static int read(const char *text)
{
    struct worked_table t;
    const struct yaml_node *root;
    TRY(yaml_parse(text, (i64)strlen(text), "t.yaml", &arena, &root));
    return worked_read(&t, root, &arena);
}

TEST(what_is_wrong_in_a_table_is_said)
{
    CHECK_FAILS(read("model: gpt3-175b\n"), ERR_CONFIG, "no rows");
    CHECK_FAILS(read("model: gpt3-175b\nrows:\n  - {gpus: 8, batch: 8, mfu: 40}\n"), ERR_CONFIG,
                "needs model, machine, gpus and batch");
    CHECK_FAILS(read("model: gpt3-175b\nmachine: selene\nrows:\n  - {gpus: 8, batch: 8}\n"),
                ERR_CONFIG, "what was published");
    CHECK_FAILS(read("model: gpt3-175b\nmachine: selene\nrows:\n  - {gpu: 8}\n"), ERR_CONFIG,
                "did you mean 'gpus'");
    CHECK_FAILS(read("model: gpt3-175b\nmachine: selene\nrows:\n"
                     "  - {gpus: 8, batch: 8, mfu: 40, override: {head: 3}}\n"),
                ERR_CONFIG, "did you mean 'heads'");
    CHECK_FAILS(read("model: gpt3-175b\nmachine: selene\nrows:\n"
                     "  - {gpus: 8, batch: 8, mfu: 40, override: {heads: 7}}\n"),
                ERR_CONFIG, "heads");
}

int main(void)
{
    const struct CMUnitTest all[] = { ONE(every_shipped_table_is_read),
                                      ONE(rows_add_to_what_they_share),
                                      ONE(what_is_wrong_in_a_table_is_said) };
    arena_init(&arena);
    int failed = cmocka_run_group_tests(all, NULL, NULL);
    arena_fini(&arena);
    return failed;
}
