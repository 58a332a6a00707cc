/* In exact mode a layout gives the bits of one rank: loss, gradients, weights, moments. */
#include "test.h"

#include <stdlib.h>

#include "parallel/exact_matrix.h"

TEST(data_parallel_ranks_have_the_bits_of_one)
{
    static const struct exact_case cases[] = {
        { true, false, 4, 2, "dp=2", 0, 1, 0, 0 },
        { false, false, 4, 2, "dp=4", 0, 1, 0, 0 },
        { true, true, 4, 2, "dp=8", 0, 1, 0, 0 },
        { false, true, 2, 4, "dp=2", 0, 1, 0, 0 },
        { true, false, 6, 1, "dp=2,zero=1", 0, 1, 0, 0 },
        { false, true, 3, 4, "dp=4,zero=1", 0, 1, 0, 0 },
        { true, false, 20, 1, "dp=4", 0, 1, 0, 0 }, /* chunks of the head with several sequences */
    };
    for (i64 i = 0; i < COUNT_OF(cases); i++)
        expect_exact(&cases[i]);
}

TEST(tensor_parallel_ranks_have_the_bits_of_one)
{
    static const struct exact_case cases[] = {
        { true, false, 2, 1, "tp=2", 0, 1, 0, 0 },
        { true, false, 2, 1, "tp=4", 0, 1, 0, 0 },
        { false, false, 2, 1, "tp=2", 0, 1, 0, 0 },
        { true, true, 2, 2, "tp=4", 0, 1, 0, 0 },
        { false, true, 3, 2, "tp=2", 0, 1, 0, 0 },
    };
    for (i64 i = 0; i < COUNT_OF(cases); i++)
        expect_exact(&cases[i]);
}

/* Along tp, more of them than key-value heads; llama has norms of queries and keys. */
TEST(ranks_that_share_key_value_heads_have_the_bits_of_one)
{
    static const struct sharing {
        const char *layout;
        i64 heads, kv_heads; /* 0: 4 and 2 */
        bool bias, half;
        int micro_batches;
        i64 B;
        enum recompute recompute;
    } cases[] = {
        { "tp=4", 0, 0, false, false, 1, 2, RECOMPUTE_NONE },
        { "tp=2", 0, 1, false, true, 2, 2, RECOMPUTE_NONE },
        { "tp=4", 0, 1, true, true, 1, 2, RECOMPUTE_SELECTIVE },
        { "tp=8", 8, 2, true, false, 1, 2, RECOMPUTE_NONE },
        { "tp=8", 8, 4, false, true, 2, 2, RECOMPUTE_FULL },
        { "tp=2", 8, 2, true, false, 1, 2, RECOMPUTE_NONE }, /* only the leaves are shared */
        { "dp=2,tp=4,zero=3", 0, 0, true, false, 2, 4, RECOMPUTE_NONE },
        { "dp=2,tp=4,zero=2", 0, 0, false, true, 4, 2, RECOMPUTE_NONE },
        { "pp=2,tp=4", 0, 0, false, false, 4, 1, RECOMPUTE_NONE },
        { "cp=2,tp=4", 0, 0, false, true, 1, 2, RECOMPUTE_NONE },
        { "cp=2,cp_kind=ulysses,tp=2", 8, 4, true, false, 1, 2, RECOMPUTE_NONE },
    };
    for (i64 i = 0; i < COUNT_OF(cases); i++) {
        const struct sharing *c = &cases[i];
        struct ranks_options o = { .tiny = { .threads = 1, .B = c->B, .bf16 = c->half,
                                             .micro_batches = c->micro_batches,
                                             .recompute = c->recompute, .backend = backend_best() },
                                   .layout = c->layout, .heads = c->heads,
                                   .kv_heads = c->kv_heads, .bias_qkv = c->bias };
        expect_exact_options(&o);
    }
}

TEST(pipelines_have_the_bits_of_one_rank)
{
    static const struct exact_case cases[] = {
        { true, false, 2, 4, "pp=2,schedule=gpipe", 0, 1, 0, 0 },
        { true, true, 1, 4, "pp=3,schedule=1f1b", 0, 1, 0, 0 },
        { false, false, 3, 4, "pp=2,dp=2,zero=1,stages=1+2", 0, 1, 0, 0 },
    };
    for (i64 i = 0; i < COUNT_OF(cases); i++)
        expect_exact(&cases[i]);
}

/* Packed documents throughout: ranks_batch has a border in every row. */
TEST(context_parallel_ranks_have_the_bits_of_one)
{
    static const struct exact_case cases[] = {
        { false, false, 1, 1, "cp=2", 0, 1, 0, 0 },
        { true, false, 2, 1, "cp=2", 0, 1, 0, 0 },
        { false, true, 2, 2, "cp=4", 0, 1, 0, 0 },
        { true, true, 1, 2, "cp=8", 0, 2, 0, 5 },
        { false, false, 2, 1, "cp=2,cp_kind=ulysses", 0, 1, 0, 0 },
        { true, true, 2, 2, "cp=4,cp_kind=ulysses", 0, 1, 0, 7 },
        { true, false, 1, 1, "cp=8,cp_kind=ulysses", 0, 1, 8, 0 },
        { false, true, 4, 1, "cp=2,dp=2", 0, 1, 0, 0 },
        { false, false, 2, 1, "cp=4,tp=2", 0, 1, 0, 9 },
        { true, true, 4, 1, "cp=2,dp=2,tp=2,zero=1", RECOMPUTE_FULL, 1, 0, 0 },
        { true, false, 2, 2, "cp=2,pp=2", 0, 1, 0, 0 },
        { true, false, 8, 1, "dp=2,cp=2,pp=2,zero=2", 0, 1, 0, 0 }, /* a table that stays whole */
    };
    for (i64 i = 0; i < COUNT_OF(cases); i++)
        expect_exact(&cases[i]);
}

TEST(any_two_choices_together_have_the_bits_of_one_rank)
{
    enum { IMPOSSIBLE = 29 }; /* pairs: bench/LAYOUTS.md lists them, but two that say nothing */
    int cases = 0;
    struct arena a;
    struct matrix m;
    struct matrix_case c;
    arena_init(&a);
    matrix_init(&m, 2, &a);
    while (matrix_next(&m, &c)) {
        char name[256];
        const char *difference = matrix_run(&c);
        matrix_name(&c, name, sizeof name);
        if (difference)
            fail_msg("%s %s", name, difference);
        cases++;
    }
    /* Or layouts are refused that were not, or the other way round. */
    CHECK_EQ(m.impossible, IMPOSSIBLE);
    CHECK(cases >= 60);
    arena_fini(&a);
}

/* What is not taken over shows. */
TEST(a_run_that_goes_on_without_a_rank_s_moments_differs)
{
    const struct exact_case c = { .gpt2 = true, .B = 4, .micro_batches = 1, .threads = 1 };
    for (int spoiled = 0; spoiled < 2; spoiled++) {
        struct ranks one, first, many;
        struct ranks_options o = exact_options(&c, "exact=true");
        ranks_open(&one, &o);
        o.layout = "dp=2,zero=1,exact=true";
        ranks_open(&first, &o);
        o.layout = "tp=2,exact=true";
        ranks_open(&many, &o);
        CHECK(exact_steps(&one, &first, 0, 1) == NULL);
        reshard(&many, &first);
        if (spoiled) {
            struct tensor *m = many.rank[1].model->buckets[1].m;
            memset(m->data, 0, (size_t)tensor_bytes(m));
        }
        CHECK((exact_steps(&one, &many, 1, 2) != NULL) == (spoiled > 0));
        ranks_close(&one);
        ranks_close(&first);
        ranks_close(&many);
    }
}

TEST_MAIN(ONE(data_parallel_ranks_have_the_bits_of_one),
          ONE(tensor_parallel_ranks_have_the_bits_of_one),
          ONE(ranks_that_share_key_value_heads_have_the_bits_of_one),
          ONE(pipelines_have_the_bits_of_one_rank),
          ONE(context_parallel_ranks_have_the_bits_of_one),
          ONE(a_run_that_goes_on_without_a_rank_s_moments_differs),
          ONE(any_two_choices_together_have_the_bits_of_one_rank))
