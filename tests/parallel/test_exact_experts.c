/* In exact mode ranks that share experts have the bits of one rank: loss, gradients,
 * weights, moments, the counts that move a router's bias, and what the routers did. */
#include "test.h"

#include "parallel/exact.h"

static struct ranks_options of(const char *layout, enum tiny_experts experts, i64 B,
                               int micro_batches)
{
    const struct exact_case c = { .B = B, .micro_batches = micro_batches, .threads = 1 };
    struct ranks_options o = exact_options(&c, layout);
    o.tiny.experts = experts;
    return o;
}

TEST(ranks_with_all_experts_have_the_bits_of_one)
{
    static const struct { const char *layout; enum tiny_experts experts; i64 B; int n; } cases[] = {
        { "dp=2", TINY_MIXTRAL, 4, 1 },          { "dp=4", TINY_DEEPSEEK, 4, 2 },
        { "dp=8", TINY_MIXTRAL, 6, 4 },          { "dp=2,zero=1", TINY_CAPACITY, 3, 4 },
        { "dp=4,zero=2", TINY_DEEPSEEK, 2, 4 },  { "dp=2,zero=3", TINY_MIXTRAL, 4, 2 },
        { "pp=2,dp=2", TINY_DEEPSEEK, 2, 4 },    { "pp=3", TINY_CAPACITY, 2, 4 },
        { "dp=4,zero=3,zero_group=2", TINY_MIXTRAL, 4, 4 },
    };
    for (i64 i = 0; i < COUNT_OF(cases); i++) {
        struct ranks_options o = of(cases[i].layout, cases[i].experts, cases[i].B, cases[i].n);
        o.tiny.bf16 = i % 2;
        expect_exact_options(&o);
    }
}

TEST(ranks_that_share_experts_have_the_bits_of_one)
{
    static const struct {
        const char *layout;
        enum tiny_experts experts;
        i64 B;
        int n;
        enum recompute recompute;
    } cases[] = {
        { "dp=2,ep=2", TINY_MIXTRAL, 2, 1, 0 },
        { "dp=2,ep=2", TINY_DEEPSEEK, 2, 4, 0 },
        { "dp=4,ep=2", TINY_DEEPSEEK, 4, 2, RECOMPUTE_SELECTIVE },
        { "dp=4,ep=2", TINY_MIXTRAL, 2, 8, 0 },
        { "dp=4,ep=4", TINY_CAPACITY, 3, 8, 0 },
        { "dp=8,ep=8", TINY_MIXTRAL, 8, 2, RECOMPUTE_FULL },
        { "dp=8,ep=4,zero=1", TINY_MIXTRAL, 4, 4, 0 },
        { "dp=4,ep=2,zero=1", TINY_DEEPSEEK, 6, 4, 0 },
        { "dp=4,ep=4,zero=2", TINY_MIXTRAL, 4, 4, 0 },
        { "dp=4,ep=2,zero=2", TINY_CAPACITY, 4, 4, 0 },
        { "dp=4,ep=2,zero=3", TINY_DEEPSEEK, 2, 8, RECOMPUTE_FULL },
        { "pp=2,dp=2,ep=2", TINY_DEEPSEEK, 2, 4, 0 },
        { "pp=2,dp=4,ep=2,zero=1,schedule=zb-h1", TINY_MIXTRAL, 4, 4, 0 },
        { "pp=3,dp=2,ep=2,zero=3,schedule=gpipe", TINY_MIXTRAL, 2, 4, RECOMPUTE_SELECTIVE },
    };
    for (i64 i = 0; i < COUNT_OF(cases); i++) {
        struct ranks_options o = of(cases[i].layout, cases[i].experts, cases[i].B, cases[i].n);
        o.tiny.bf16 = i % 2;
        o.tiny.threads = i % 3 == 0 ? 2 : 1;
        o.tiny.recompute = cases[i].recompute;
        expect_exact_options(&o);
    }
}

TEST(ranks_that_cut_experts_have_the_bits_of_one)
{
    static const struct {
        const char *layout;
        enum tiny_experts experts;
        i64 B;
        int n;
        enum recompute recompute;
    } cases[] = {
        { "tp=2", TINY_MIXTRAL, 2, 1, 0 },
        { "tp=2", TINY_DEEPSEEK, 2, 1, 0 },
        { "tp=2", TINY_DEEPSEEK, 3, 2, RECOMPUTE_SELECTIVE },
        { "tp=4", TINY_CAPACITY, 2, 2, RECOMPUTE_FULL },
        { "tp=8", TINY_DEEPSEEK, 2, 1, 0 },
        { "dp=2,ep=2,tp=2", TINY_DEEPSEEK, 2, 4, 0 },
        { "dp=4,ep=2,tp=2,zero=1", TINY_MIXTRAL, 4, 2, RECOMPUTE_FULL },
        { "dp=4,ep=2,tp=4,zero=3", TINY_DEEPSEEK, 4, 2, 0 },
        { "pp=2,dp=2,ep=2,tp=2,zero=2,schedule=zb-v", TINY_DEEPSEEK, 2, 4, 0 },
    };
    for (i64 i = 0; i < COUNT_OF(cases); i++) {
        struct ranks_options o = of(cases[i].layout, cases[i].experts, cases[i].B, cases[i].n);
        o.heads = 8;
        o.layers = 4;
        o.tiny.bf16 = i % 2;
        o.tiny.recompute = cases[i].recompute;
        expect_exact_options(&o);
    }
}

/* Each rank along cp has all experts, and a part of each row. */
TEST(ranks_that_cut_rows_have_the_bits_of_one)
{
    static const struct { const char *layout; enum tiny_experts experts; i64 B; int n; } cases[] = {
        { "cp=2", TINY_MIXTRAL, 2, 1 },
        { "cp=2", TINY_DEEPSEEK, 2, 2 },
        { "cp=4", TINY_CAPACITY, 2, 1 },
        { "cp=8", TINY_DEEPSEEK, 1, 2 },
        { "cp=4,cp_kind=ulysses", TINY_MIXTRAL, 2, 2 },
        { "dp=2,cp=2,zero=1", TINY_DEEPSEEK, 2, 2 },
        { "dp=2,cp=2,zero=3", TINY_MIXTRAL, 2, 4 },
        { "cp=2,tp=2", TINY_DEEPSEEK, 2, 2 },
        { "pp=2,dp=2,cp=2,zero=2", TINY_CAPACITY, 2, 4 },
    };
    for (i64 i = 0; i < COUNT_OF(cases); i++) {
        struct ranks_options o = of(cases[i].layout, cases[i].experts, cases[i].B, cases[i].n);
        o.heads = 8;
        o.tiny.bf16 = i % 2;
        o.tiny.recompute = (enum recompute)(i % 3);
        expect_exact_options(&o);
    }
}

/* Groups of ep that are a part of a row, a row, or several, of which what zero splits has
 * some or all. */
TEST(ranks_that_cut_rows_and_share_experts_have_the_bits_of_one)
{
    static const struct { const char *layout; enum tiny_experts experts; i64 B; int n; } cases[] = {
        { "cp=2,ep=2", TINY_MIXTRAL, 2, 2 },
        { "cp=4,ep=2", TINY_DEEPSEEK, 2, 2 },
        { "cp=8,ep=2", TINY_CAPACITY, 1, 2 },
        { "dp=2,cp=2,ep=2", TINY_DEEPSEEK, 2, 4 },
        { "dp=2,cp=2,ep=4", TINY_DEEPSEEK, 2, 4 },
        { "dp=4,cp=2,ep=4", TINY_DEEPSEEK, 4, 4 },
        { "dp=4,cp=2,ep=8,cp_kind=ulysses", TINY_MIXTRAL, 4, 2 },
        { "dp=2,cp=4,ep=2", TINY_DEEPSEEK, 2, 2 },
        { "dp=2,cp=4,ep=2,zero=1", TINY_DEEPSEEK, 2, 2 },
        { "dp=2,cp=4,ep=2,zero=3", TINY_MIXTRAL, 2, 4 },
        { "dp=4,cp=2,ep=4,zero=1", TINY_DEEPSEEK, 2, 4 },
        { "dp=4,cp=2,ep=4,zero=2", TINY_DEEPSEEK, 2, 8 },
        { "dp=4,cp=2,ep=8,zero=3", TINY_CAPACITY, 4, 2 },
        { "dp=2,cp=2,ep=2,zero=2", TINY_MIXTRAL, 2, 4 },
        { "dp=4,cp=2,ep=4,zero=1,zero_group=2", TINY_DEEPSEEK, 2, 4 },
        { "dp=4,cp=4,ep=2,zero=3,zero_group=2", TINY_MIXTRAL, 2, 4 },
        { "dp=4,cp=2,ep=2,zero=1,zero_group=1", TINY_DEEPSEEK, 2, 4 },
        { "cp=4,ep=2,tp=2", TINY_DEEPSEEK, 2, 2 },
        { "dp=2,cp=2,ep=4,tp=2,zero=1", TINY_DEEPSEEK, 2, 2 },
        { "pp=2,dp=2,cp=2,ep=4,schedule=zb-v", TINY_DEEPSEEK, 2, 4 },
        { "pp=2,cp=4,ep=2,schedule=zb-h1", TINY_MIXTRAL, 2, 4 },
    };
    for (i64 i = 0; i < COUNT_OF(cases); i++) {
        struct ranks_options o = of(cases[i].layout, cases[i].experts, cases[i].B, cases[i].n);
        o.heads = 8;
        o.layers = 4;
        o.tiny.bf16 = i % 2;
        o.tiny.recompute = (enum recompute)(i % 3);
        expect_exact_options(&o);
    }
}

TEST(muon_of_experts_has_the_bits_of_one)
{
    static const char *const layouts[] = { "dp=2,ep=2", "dp=4,ep=2,zero=1", "dp=4,ep=2,zero=3",
                                          "tp=2", "dp=2,ep=2,tp=2,zero=1",
                                          "cp=4,ep=2,zero=1", "dp=2,cp=2,ep=4,zero=1",
                                          "dp=2,cp=2,ep=2,zero=3" };
    for (i64 i = 0; i < COUNT_OF(layouts); i++) {
        struct ranks_options o = of(layouts[i], TINY_DEEPSEEK, 2, 4);
        o.tiny.optimizer = OPTIMIZER_MUON;
        expect_exact_options(&o);
    }
}

TEST_MAIN(ONE(ranks_with_all_experts_have_the_bits_of_one),
          ONE(ranks_that_share_experts_have_the_bits_of_one),
          ONE(ranks_that_cut_experts_have_the_bits_of_one),
          ONE(ranks_that_cut_rows_have_the_bits_of_one),
          ONE(ranks_that_cut_rows_and_share_experts_have_the_bits_of_one),
          ONE(muon_of_experts_has_the_bits_of_one))
