/* Wrong shapes are refused with a sentence that says what, what was got, what was expected. */
#include "base/arena.h"
#include "ops/ops.h"
#include "test.h"

struct bench {
    struct arena arena;
    struct graph g;
};

static void setup(struct bench *b)
{
    arena_init(&b->arena);
    graph_init(&b->g, &b->arena);
    b->g.layer = 3;
}

static struct tensor *matrix(struct bench *b, enum dtype dtype, i64 rows, i64 columns,
                             const char *name)
{
    return graph_matrix(&b->g, dtype, rows, columns, name);
}

TEST(linear_names_the_weight_that_does_not_fit)
{
    struct bench b;
    setup(&b);
    struct tensor *x = matrix(&b, DTYPE_F32, 4, 8, "x");
    linear(&b.g, x, matrix(&b, DTYPE_F32, 5, 7, "mlp.up"), NULL, NULL);
    CHECK_FAILS(b.g.rc, ERR_MODEL,
                "linear in layer 3: w (mlp.up) has shape (5, 7), expected (any, 8)");
    CHECK(linear(&b.g, x, x, NULL, NULL) == NULL); /* errors are sticky */
    arena_fini(&b.arena);
}

TEST(linear_refuses_mixed_precision)
{
    struct bench b;
    setup(&b);
    linear(&b.g, matrix(&b, DTYPE_BF16, 4, 8, "x"), matrix(&b, DTYPE_F32, 5, 8, "master"),
           NULL, NULL);
    CHECK_FAILS(b.g.rc, ERR_MODEL, "w (master) is f32, expected bf16");
    arena_fini(&b.arena);
}

TEST(attention_refuses_heads_that_do_not_divide)
{
    struct bench b;
    setup(&b);
    struct attention_shape s = { .B = 1, .T = 4, .H = 6, .G = 4, .D = 8 };
    attention(&b.g, matrix(&b, DTYPE_F32, 4, 14 * 8, "qkv"), NULL, &s);
    CHECK_FAILS(b.g.rc, ERR_MODEL, "6 query heads do not divide among 4 key heads");
    arena_fini(&b.arena);
}

TEST(swiglu_refuses_an_odd_width)
{
    struct bench b;
    setup(&b);
    swiglu(&b.g, matrix(&b, DTYPE_F32, 4, 7, "up"));
    CHECK_FAILS(b.g.rc, ERR_MODEL, "x (up) has 7 columns, expected an even number");
    arena_fini(&b.arena);
}

TEST(a_missing_input_is_named)
{
    struct bench b;
    setup(&b);
    rmsnorm(&b.g, matrix(&b, DTYPE_F32, 4, 7, "x"), NULL, 1e-5);
    CHECK_FAILS(b.g.rc, ERR_MODEL, "gain is missing, expected shape (7)");
    arena_fini(&b.arena);
}

TEST(muon_blocks_must_cover_the_rows)
{
    struct bench b;
    struct muon_config config = { .steps = 5, .block_rows = { 4, 2 } };
    setup(&b);
    muon_orthogonal(&b.g, matrix(&b, DTYPE_F32, 8, 4, "wqkv"), NULL, NULL, &config);
    CHECK_FAILS(b.g.rc, ERR_MODEL, "the blocks have 6 rows together, wqkv has 8");
    arena_fini(&b.arena);
    setup(&b);
    config = (struct muon_config){ .steps = 5, .block_rows = { 4, 2, 2 }, .shares = 4 };
    muon_orthogonal(&b.g, matrix(&b, DTYPE_F32, 8, 4, "wqkv"), NULL, NULL, &config);
    CHECK_FAILS(b.g.rc, ERR_MODEL, "a block of 2 rows is not 4 shares");
    arena_fini(&b.arena);
}

TEST(total_squares_chains_any_number_of_parts)
{
    struct bench b;
    struct tensor *parts[23];
    setup(&b);
    for (int i = 0; i < 23; i++)
        parts[i] = graph_vector(&b.g, DTYPE_F64, 1, "part");
    CHECK(total_squares(&b.g, parts, 23) != NULL);
    CHECK_OK(b.g.rc);
    CHECK_EQ(b.g.n_tasks, 4); /* 8, then 7 more each: 8 + 7 + 7 + 1 */
    i64 read = 0;
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < TASK_INS; k++)
            read += b.g.tasks[i]->in[k] != NULL;
    CHECK_EQ(read, 23 + 3);
    arena_fini(&b.arena);
}

TEST_MAIN(ONE(linear_names_the_weight_that_does_not_fit), ONE(linear_refuses_mixed_precision),
          ONE(attention_refuses_heads_that_do_not_divide), ONE(swiglu_refuses_an_odd_width),
          ONE(a_missing_input_is_named), ONE(muon_blocks_must_cover_the_rows),
          ONE(total_squares_chains_any_number_of_parts))
