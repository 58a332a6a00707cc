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

TEST_MAIN(ONE(tensor_parallel_ranks_train_like_one),
          ONE(tensor_and_data_parallel_ranks_train_like_one))
