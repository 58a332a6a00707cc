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

TEST_MAIN(ONE(data_parallel_ranks_train_like_one), ONE(split_optimizer_state_changes_nothing))
