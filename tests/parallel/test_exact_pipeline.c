/* In exact mode pipelines give the bits of one rank: loss, gradients, weights, moments. */
#include "test.h"

#include "parallel/exact.h"

TEST(every_schedule_has_the_bits_of_one_rank)
{
    static const char *const layouts[] = {
        "pp=2,schedule=gpipe", "pp=2", "pp=2,schedule=interleaved", "pp=2,schedule=zb-h1",
        "pp=2,schedule=zb-v", "pp=4", "pp=4,schedule=zb-h1",
    };
    for (int gpt2 = 0; gpt2 < 2; gpt2++)
        for (i64 i = 0; i < COUNT_OF(layouts); i++) {
            const struct exact_case c = { gpt2, i % 2, 2, 4, layouts[i], 0, 1, 0, 0 };
            expect_exact_layers(&c, 5);
        }
}

TEST(pipelines_with_rows_and_matrices_cut_have_the_bits_of_one_rank)
{
    static const struct exact_case cases[] = {
        { true, false, 2, 8, "pp=2,dp=2,zero=1,schedule=zb-h1", RECOMPUTE_SELECTIVE, 2, 0, 0 },
        { true, true, 2, 4, "pp=2,dp=2,tp=2,schedule=zb-v", 0, 1, 0, 0 },
        { false, false, 3, 4, "pp=2,dp=4,zero=1,stages=1+3", 0, 1, 0, 0 },
        { true, false, 4, 1, "pp=4,tp=2", 0, 1, 0, 0 },
        { false, true, 2, 4, "pp=2,tp=2,schedule=interleaved", RECOMPUTE_FULL, 1, 0, 0 },
    };
    for (i64 i = 0; i < COUNT_OF(cases); i++)
        expect_exact_layers(&cases[i], 4);
}

/* Pairs that the matrix of tests/parallel/exact_matrix.h leaves out for their many ranks
 * or rows. */
TEST(the_largest_degrees_together_have_the_bits_of_one_rank)
{
    static const struct exact_case cases[] = {
        { .gpt2 = true, .B = 8, .micro_batches = 1, .layout = "dp=8,cp=8,zero=1", .heads = 8 },
        { .B = 1, .micro_batches = 2, .layout = "pp=8,cp=8", .heads = 8 },
        { .gpt2 = true, .half = true, .B = 4, .micro_batches = 16,
          .layout = "dp=8,pp=2,schedule=interleaved,zero=3", .heads = 8 },
    };
    for (i64 i = 0; i < COUNT_OF(cases); i++)
        expect_exact_layers(&cases[i], 8);
}

/* Schedules that need more layers, experts on every stage, and rows that cp and tp cut most. */
TEST(eight_stages_with_experts_and_the_finest_cuts_have_the_bits_of_one_rank)
{
    static const struct wide {
        const char *layout;
        i64 layers, B;
        int micro_batches;
        enum tiny_experts experts;
        i64 T; /* 0: the usual */
    } cases[] = {
        { "pp=8,schedule=gpipe", 9, 1, 2, TINY_MIXTRAL, 0 },
        { "pp=8,schedule=zb-h1", 8, 1, 4, TINY_MIXTRAL, 0 },
        { "pp=8,schedule=interleaved", 16, 1, 8, TINY_DENSE, 0 },
        { "pp=8,schedule=zb-v", 16, 1, 2, TINY_DEEPSEEK, 0 },
        { "tp=8,cp=8", 2, 1, 1, TINY_DENSE, 64 },
    };
    for (i64 i = 0; i < COUNT_OF(cases); i++) {
        const struct wide *w = &cases[i];
        struct ranks_options o = { .tiny = { .threads = 1, .B = w->B, .bf16 = i % 2,
                                             .micro_batches = w->micro_batches,
                                             .experts = w->experts, .backend = backend_best() },
                                   .layout = w->layout, .layers = w->layers, .heads = 8,
                                   .T = w->T };
        expect_exact_options(&o);
    }
}

TEST_MAIN(ONE(every_schedule_has_the_bits_of_one_rank),
          ONE(pipelines_with_rows_and_matrices_cut_have_the_bits_of_one_rank),
          ONE(the_largest_degrees_together_have_the_bits_of_one_rank),
          ONE(eight_stages_with_experts_and_the_finest_cuts_have_the_bits_of_one_rank))
