/* Tensor and sequence parallel steps beside those of one rank. */
#include "test.h"

#include "parallel/ranks.h"

static const struct ranks_options plain = {
    .tiny = { .gpt2 = true, .threads = 1, .micro_batches = 2, .B = 4 },
};

/* Where element k of a rank's share lies in the whole parameter. */
static i64 place_in_whole(const struct param *p, i64 k)
{
    i64 whole = p->desc.rank == 2 ? p->desc.dim[1] : 1;
    i64 columns = p->desc.rank == 2 ? p->shard.columns.count : 1;
    i64 row = k / columns, piece = 0;
    while (row >= p->shard.rows[piece].count)
        row -= p->shard.rows[piece++].count;
    return (p->shard.rows[piece].begin + row) * whole + p->shard.columns.begin + k % columns;
}

/* |a - b| / |a| over what this rank has of all weights. */
static double distance(const struct ranks *a, const struct rank *b)
{
    double squares = 0, difference = 0;
    for (i64 i = 0; i < b->model->n_params; i++) {
        const struct param *p = &b->model->params[i];
        const struct tensor *whole = a->rank[0].model->params[i].master;
        for (i64 k = 0; k < tensor_count(p->master); k++) {
            double x = tensor_get(whole, place_in_whole(p, k));
            double d = x - tensor_get(p->master, k);
            squares += x * x;
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
    for (int r = 0; r < many.n; r++)
        CHECK(distance(&one, &many.rank[r]) == 0);
    for (u64 step = 0; step < 3; step++) {
        double a = ranks_step(&one, step), b = ranks_step(&many, step);
        if (fabs(a - b) > loss_bound * a)
            fail_msg("%s, step %d: loss %.9f, one rank has %.9f", layout, (int)step, b, a);
    }
    for (int r = 0; r < many.n; r++) {
        double d = distance(&one, &many.rank[r]);
        if (d > bound)
            fail_msg("%s: weights of rank %d are off by %g", layout, r, d);
    }
    ranks_close(&one);
    ranks_close(&many);
}

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

TEST_MAIN(ONE(tensor_parallel_ranks_train_like_one),
          ONE(tensor_and_data_parallel_ranks_train_like_one))
