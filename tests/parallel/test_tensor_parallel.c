/* Tensor and sequence parallel steps beside those of one rank. */
#include "test.h"

#include "parallel/ranks.h"

TEST(tensor_parallel_ranks_train_like_one)
{
    expect_close("tp=2", true, false, 1e-6, 2e-3);
    expect_close("tp=4", true, false, 1e-6, 2e-3);
    expect_close("tp=2", false, false, 1e-6, 2e-3);
    expect_close("tp=2", false, true, 1e-2, 2e-2);
}

TEST(tensor_and_data_parallel_ranks_train_like_one)
{
    expect_close("tp=2,dp=2", true, false, 1e-6, 2e-3);
    expect_close("tp=2,dp=4,zero=1", false, false, 1e-6, 2e-3);
}

static void expect_shared(const char *layout, i64 heads, i64 kv_heads, bool half, double loss_bound,
                          double bound)
{
    struct ranks_options o = { .tiny = { .threads = 1, .micro_batches = 2, .B = 4, .bf16 = half,
                                         .backend = backend_best() },
                               .layout = layout, .heads = heads, .kv_heads = kv_heads,
                               .bias_qkv = true };
    expect_as_one(&o, loss_bound, bound);
}

/* Fewer key-value heads than ranks along tp. */
TEST(ranks_that_share_a_key_value_head_train_like_one)
{
    expect_shared("tp=4", 4, 2, false, 1e-6, 2e-3);
    expect_shared("tp=8", 8, 2, false, 1e-6, 2e-3);
    expect_shared("tp=4", 8, 1, false, 1e-6, 2e-3);
    expect_shared("tp=4", 4, 2, true, 1e-2, 2e-2);
    expect_shared("tp=4,dp=2,zero=3", 4, 2, false, 1e-6, 2e-3);
    expect_shared("tp=4,pp=2", 4, 2, false, 1e-6, 2e-3);
    expect_shared("tp=4,cp=2", 4, 1, false, 1e-6, 2e-3); /* keys go around a ring too */
}

/* Of 8 query heads of 6 columns. */
TEST(what_key_value_heads_cannot_be_shared_by_is_refused)
{
    static const struct { const char *layout; i64 kv_heads; const char *says; } cases[] = {
        /* 8 would not cut its keys. */
        { "tp=16", 2, "tp=16 does not divide the model's 8 attention heads; tp=4 does" },
        { "tp=8", 2, "nor cuts each of them, of 6 columns, into equal parts; tp=4 does" },
        { "tp=3", 4, "the model's 8 attention heads; tp=2 and tp=4 do" },
        { "tp=5", 2, "the model's 8 attention heads; tp=4 does" },
        { "tp=2", 1, NULL }, { "tp=4", 2, NULL }, { "tp=8", 4, NULL }, { "tp=8", 8, NULL },
        { "tp=4,cp=2,cp_kind=ulysses", 2, "or choose cp_kind=ring" },
        { "tp=4,cp=2", 2, NULL },
        { "tp=4,exact=true", 2, NULL },
    };
    for (i64 i = 0; i < COUNT_OF(cases); i++) {
        struct model_spec spec = tiny_spec(false);
        struct layout l = layout_single();
        struct arena a;
        arena_init(&a);
        spec.heads = 8;
        spec.head_size = 6;
        spec.kv_heads = cases[i].kv_heads;
        CHECK_OK(layout_parse(&l, cases[i].layout, "test", &a));
        if (cases[i].says)
            CHECK_FAILS(layout_check(&l, &spec, layout_ranks(&l), 4, RANK_T, 1), ERR_CONFIG,
                        cases[i].says);
        else
            CHECK_OK(layout_check(&l, &spec, layout_ranks(&l), 4, RANK_T, 1));
        arena_fini(&a);
    }
}

TEST_MAIN(ONE(what_key_value_heads_cannot_be_shared_by_is_refused),
          ONE(tensor_parallel_ranks_train_like_one),
          ONE(ranks_that_share_a_key_value_head_train_like_one),
          ONE(tensor_and_data_parallel_ranks_train_like_one))
