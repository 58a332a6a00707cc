/* Data parallel steps beside those of one rank. */
#include "test.h"

#include "parallel/ranks.h"

TEST(data_parallel_ranks_train_like_one)
{
    expect_close("dp=2", true, false, 1e-6, 2e-3);
    expect_close("dp=8", false, false, 1e-6, 2e-3);
}

TEST(split_optimizer_state_changes_nothing)
{
    expect_close("dp=2,zero=1", true, false, 1e-6, 2e-3);
    expect_close("dp=4,zero=1", false, false, 1e-6, 2e-3);
    expect_close("dp=4,zero=1", false, true, 1e-2, 2e-2);
}

TEST(split_gradients_and_weights_change_nothing)
{
    static const char *const layouts[] = { "dp=2,zero=2", "dp=4,zero=2", "dp=2,zero=3",
                                           "dp=4,zero=3", "dp=8,zero=3" };
    for (i64 i = 0; i < COUNT_OF(layouts); i++)
        expect_close(layouts[i], i % 2, false, 1e-6, 2e-3);
    expect_close("dp=4,zero=2", false, true, 1e-2, 2e-2);
    expect_close("dp=4,zero=3", false, true, 1e-2, 2e-2);
    expect_close("dp=2,tp=2,zero=2", true, false, 1e-6, 2e-3);
    expect_close("dp=2,tp=2,zero=3", true, false, 1e-6, 2e-3);
}

/* PARALLELISM's bytes of fp32: 16 a weight, 20 with the average, of which a rank keeps its slice of
 * what is split. Vectors are whole. */
static i64 expected_bytes(const struct model *m, int zero)
{
    i64 bytes = m->rope_table ? tensor_bytes(m->rope_table) : 0;
    for (i64 i = 0; i < m->n_buckets; i++) {
        const struct bucket *b = &m->buckets[i];
        i64 slice = b->copied + b->own_count;
        bytes += 4 * (3 * slice + (zero >= 2 ? slice : b->count) + (zero >= 3 ? slice : b->count));
    }
    return bytes;
}

static i64 largest_matrices(const struct model *m)
{
    i64 most = 0;
    for (i64 i = 0; i < m->n_buckets; i++)
        most = i64_max(most, 4 * (m->buckets[i].count - m->buckets[i].copied));
    return most;
}

TEST(a_rank_keeps_its_slice_and_two_layers_at_a_time)
{
    static const char *const layouts[] = { "dp=4", "dp=4,zero=1", "dp=4,zero=2", "dp=4,zero=3" };
    i64 activations[4];
    for (int zero = 0; zero < 4; zero++) {
        struct ranks many;
        struct ranks_options o = { .tiny = { .threads = 1, .micro_batches = 1, .B = 4,
                                             .backend = backend_best() },
                                   .layout = layouts[zero] };
        ranks_open(&many, &o);
        const struct model *m = many.rank[1].model;
        CHECK_EQ(m->region_bytes, expected_bytes(m, zero));
        activations[zero] = many.rank[1].step.program->memory.bytes;
        /* Gathers begin one stretch ahead; holes of the plan are less than one more. */
        if (zero == 3)
            CHECK(activations[3] <= activations[2] + 3 * largest_matrices(m));
        ranks_close(&many);
    }
    CHECK_EQ(activations[0], activations[1]);
}

TEST_MAIN(ONE(data_parallel_ranks_train_like_one), ONE(split_optimizer_state_changes_nothing),
          ONE(split_gradients_and_weights_change_nothing),
          ONE(a_rank_keeps_its_slice_and_two_layers_at_a_time))
