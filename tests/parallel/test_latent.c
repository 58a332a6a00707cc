/* Latent attention over ranks: the matrices that take rows down are whole on every rank along tp,
 * which sees a cut of the rows only. */
#include "test.h"

#include "parallel/exact.h"

static struct ranks_options options(const char *layout, enum tiny_experts experts)
{
    return (struct ranks_options){
        .tiny = { .threads = 1, .B = 4, .micro_batches = 2, .backend = backend_best(),
                  .experts = experts, .latent = true },
        .layout = layout,
    };
}

TEST(ranks_of_latent_attention_train_like_one)
{
    static const struct { const char *layout; enum tiny_experts experts; } cases[] = {
        { "tp=2", TINY_DENSE },          { "tp=4", TINY_DENSE },
        { "dp=4,zero=2", TINY_DENSE },   { "dp=2,tp=2", TINY_DEEPSEEK },
        { "dp=2,tp=2,zero=1", TINY_DENSE }, { "dp=4,tp=2,zero=2", TINY_DENSE },
        { "dp=2,tp=4,zero=3", TINY_DENSE }, { "pp=3,tp=2", TINY_DENSE },
        { "pp=2,dp=2,tp=2,zero=2", TINY_DEEPSEEK }, { "dp=2,ep=2,tp=2,zero=3", TINY_DEEPSEEK },
        { "dp=4,tp=2,zero=1,zero_group=2", TINY_DENSE },
        { "cp=2", TINY_DENSE }, { "cp=4,tp=2", TINY_DENSE },
        { "cp=2,dp=2,tp=2,zero=3", TINY_DEEPSEEK }, { "pp=2,cp=2,tp=2", TINY_DENSE },
        { "cp=4,cp_kind=ulysses", TINY_DENSE }, { "cp=2,cp_kind=ulysses,tp=2", TINY_DENSE },
    };
    for (i64 i = 0; i < COUNT_OF(cases); i++)
        for (int muon = 0; muon < 2; muon++) {
            struct ranks_options o = options(cases[i].layout, cases[i].experts);
            o.tiny.optimizer = muon ? OPTIMIZER_MUON : OPTIMIZER_ADAMW;
            expect_as_one(&o, 1e-6, 2e-3);
        }
}

TEST(so_they_do_in_bf16_and_with_recompute)
{
    struct ranks_options o = options("dp=2,tp=2,zero=2", TINY_DENSE);
    for (int policy = RECOMPUTE_NONE; policy <= RECOMPUTE_FULL; policy++) {
        o.tiny.recompute = (enum recompute)policy;
        expect_as_one(&o, 1e-6, 2e-3);
    }
    o.tiny.bf16 = true;
    expect_as_one(&o, 1e-2, 2e-2);
}

/* AdamW does not mind the size of gradients. */
TEST(the_norm_counts_every_matrix_once)
{
    static const char *const layouts[] = { "tp=2", "dp=2,tp=4,zero=1", "dp=4,tp=2,zero=3",
                                           "pp=3,dp=2,tp=2,zero=2" };
    struct ranks_options o = options("dp=1", TINY_DENSE);
    expect_norm_of_one(&o, layouts, COUNT_OF(layouts));
}

/* And so does what says how far islands are apart. */
TEST(islands_measure_every_matrix_once)
{
    static const char *const layouts[] = { "islands=2", "islands=2,tp=2",
                                           "islands=2,dp=2,tp=2,zero=1",
                                           "islands=2,dp=2,tp=2,zero=3" };
    double want = 0;
    for (i64 i = 0; i < COUNT_OF(layouts); i++) {
        struct ranks all;
        struct ranks_options o = options(layouts[i], TINY_DENSE);
        o.outer_lr = 0.7;
        o.outer_momentum = 0.9;
        ranks_open(&all, &o);
        ranks_step(&all, 0);
        CHECK_OK(ranks_run(&all, 0, true));
        double apart = *(double *)all.rank[0].io.apart->data;
        want = i == 0 ? apart : want;
        CHECK(want > 0);
        CHECK_NEAR(apart, want, 1e-4 * want);
        ranks_close(&all);
    }
}

TEST(layouts_without_tp_have_the_bits_of_one_rank)
{
    static const struct { const char *layout; enum tiny_experts experts; } cases[] = {
        { "dp=2", TINY_DENSE }, { "dp=4,zero=2", TINY_DENSE }, { "pp=3,dp=2,zero=3", TINY_DENSE },
        { "dp=2,ep=2,zero=1", TINY_DEEPSEEK }, { "cp=2", TINY_DENSE }, { "cp=4,dp=2", TINY_DENSE },
        { "cp=2,cp_kind=ulysses,zero=2", TINY_DENSE },
    };
    for (i64 i = 0; i < COUNT_OF(cases); i++) {
        struct ranks_options o = options(cases[i].layout, cases[i].experts);
        o.tiny.bf16 = i % 2;
        expect_exact_options(&o);
    }
}

TEST(what_heads_of_latents_cannot_be_cut_by_is_refused)
{
    static const struct { const char *layout, *says; } cases[] = {
        { "cp=4,cp_kind=ulysses,tp=2", "does not divide the model's 4 attention heads" },
        { "tp=2,exact=true", "tp=2 cannot be exact" },
        { "tp=3", "does not divide the model's 4 attention heads" },
        { "tp=4", NULL }, { "dp=2,exact=true", NULL }, { "cp=2,tp=2", NULL },
        { "cp=2,cp_kind=ulysses,tp=2", NULL },
    };
    for (i64 i = 0; i < COUNT_OF(cases); i++) {
        const struct model_spec spec = tiny_spec_of(&(struct tiny_options){ .latent = true });
        struct layout l = layout_single();
        struct arena a;
        arena_init(&a);
        CHECK_OK(layout_parse(&l, cases[i].layout, "test", &a));
        if (cases[i].says)
            CHECK_FAILS(layout_check(&l, &spec, layout_ranks(&l), 4, RANK_T, 1), ERR_CONFIG,
                        cases[i].says);
        else
            CHECK_OK(layout_check(&l, &spec, layout_ranks(&l), 4, RANK_T, 1));
        arena_fini(&a);
    }
}

TEST_MAIN(ONE(ranks_of_latent_attention_train_like_one),
          ONE(so_they_do_in_bf16_and_with_recompute),
          ONE(the_norm_counts_every_matrix_once),
          ONE(islands_measure_every_matrix_once),
          ONE(layouts_without_tp_have_the_bits_of_one_rank),
          ONE(what_heads_of_latents_cannot_be_cut_by_is_refused))
