/* Data parallel steps beside those of one rank. */
#include "test.h"

#include "parallel/ranks.h"

static const struct ranks_options plain = {
    .tiny = { .backend = "reference", .gpt2 = true, .threads = 1, .micro_batches = 2, .B = 4 },
};

/* |a - b| / |a| over all weights. */
static double distance(const struct ranks *a, const struct ranks *b, int rank)
{
    double squares = 0, difference = 0;
    for (i64 i = 0; i < a->rank[0].model->n_params; i++) {
        const struct tensor *x = a->rank[0].model->params[i].compute;
        const struct tensor *y = b->rank[rank].model->params[i].compute;
        for (i64 k = 0; k < tensor_count(x); k++) {
            double d = tensor_get(x, k) - tensor_get(y, k);
            squares += tensor_get(x, k) * tensor_get(x, k);
            difference += d * d;
        }
    }
    return sqrt(difference / squares);
}

static void expect_close(const char *layout, bool gpt2, bool half, double loss_bound,
                         double bound)
{
    struct ranks one, many;
    struct ranks_options o = plain;
    o.tiny.gpt2 = gpt2;
    o.tiny.bf16 = half;
    o.tiny.backend = backend_best();
    o.layout = "dp=1";
    ranks_open(&one, &o);
    o.layout = layout;
    ranks_open(&many, &o);
    for (u64 step = 0; step < 3; step++) {
        double a = ranks_step(&one, step), b = ranks_step(&many, step);
        if (fabs(a - b) > loss_bound * a)
            fail_msg("%s, step %d: loss %.9f, one rank has %.9f", layout, (int)step, b, a);
    }
    for (int r = 0; r < many.n; r++) {
        double d = distance(&one, &many, r);
        if (d > bound)
            fail_msg("%s: weights of rank %d are off by %g", layout, r, d);
    }
    ranks_close(&one);
    ranks_close(&many);
}

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

TEST_MAIN(ONE(data_parallel_ranks_train_like_one), ONE(split_optimizer_state_changes_nothing))
