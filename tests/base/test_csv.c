/* Tables of texts, and what is refused. */
#include "test.h"

#include "base/csv.h"

static int parse(struct arena *a, const char *text, struct csv *t)
{
    return csv_parse(text, (i64)strlen(text), "t.csv", a, t);
}

TEST(cells_have_commas_quotes_and_line_ends_in_quotes)
{
    struct arena a;
    struct csv t;
    arena_init(&a);
    CHECK_OK(parse(&a, "x,y,z\r\n1,\"a, \"\"b\"\"\nc\",\n,,last", &t));
    CHECK_EQ(t.n_columns, 3);
    CHECK_EQ(t.n_rows, 2);
    CHECK_STR(csv_cell(&t, 0, 1), "a, \"b\"\nc");
    CHECK_STR(csv_cell(&t, 0, 2), "");
    CHECK_STR(csv_cell(&t, 1, csv_column(&t, "z")), "last");
    CHECK_STR(csv_cell(&t, 1, csv_column(&t, "w")), "");
    CHECK_EQ(t.lines[0], 2);
    CHECK_EQ(t.lines[1], 4);
    arena_fini(&a);
}

TEST(what_is_no_table_is_refused_with_its_line)
{
    struct arena a;
    struct csv t;
    arena_init(&a);
    CHECK_FAILS(parse(&a, "", &t), ERR_FORMAT, "t.csv:1: empty");
    CHECK_FAILS(parse(&a, "a,b\n1,2\n3\n", &t), ERR_FORMAT, "t.csv:3: 1 cells");
    CHECK_FAILS(parse(&a, "a,a\n", &t), ERR_FORMAT, "t.csv:1: two columns");
    CHECK_FAILS(parse(&a, "a;b\n1;\"2\"\n", &t), ERR_FORMAT, "t.csv:1: one column alone");
    CHECK_FAILS(parse(&a, "a,\n", &t), ERR_FORMAT, "t.csv:1: a column without a name");
    CHECK_FAILS(parse(&a, "a\n\"x", &t), ERR_FORMAT, "t.csv:2: a quote does not end");
    CHECK_FAILS(parse(&a, "a\nx\"y\n", &t), ERR_FORMAT, "t.csv:2: a quote within");
    CHECK_FAILS(parse(&a, "a\n\"x\"y\n", &t), ERR_FORMAT, "t.csv:2: text behind");
    CHECK_FAILS(csv_parse("a\n\0", 3, "t.csv", &a, &t), ERR_FORMAT, "NUL");
    arena_fini(&a);
}

TEST_MAIN(ONE(cells_have_commas_quotes_and_line_ends_in_quotes),
          ONE(what_is_no_table_is_refused_with_its_line))
