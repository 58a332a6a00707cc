/* Learning rates and ramps, by value. */
#include "test.h"

#include "train/schedule.h"

#include <math.h>

static const double pi = 3.14159265358979323846;

static struct train_config config(enum train_schedule schedule, i64 steps, i64 warmup)
{
    struct train_config c = { 0 };
    c.lr.schedule = (int)schedule;
    c.lr.warmup = warmup;
    c.lr.decay_fraction = 0.25;
    c.lr.min_ratio = 0.1;
    c.train.steps = steps;
    c.train.batch = 2;
    c.train.seq = 64;
    c.train.accumulate = 8;
    return c;
}

static double factor(const struct train_config *c, i64 step)
{
    return schedule_factor(c, step, (double)step / (double)c->train.steps);
}

/* Warm-up (step + 1) / warmup, then a cosine from the peak over what is left, as nanoGPT,
 * llm.c and transformers have it. */
TEST(a_cosine_begins_at_the_peak_when_the_warm_up_ends)
{
    struct train_config c = config(SCHEDULE_COSINE, 20, 5);
    for (i64 step = 0; step < 5; step++)
        CHECK_NEAR(factor(&c, step), 0.2 * (double)(step + 1), 1e-15);
    for (i64 step = 5; step < 20; step++)
        CHECK_NEAR(factor(&c, step), 0.1 + 0.45 * (1 + cos(pi * (double)(step - 5) / 15)),
                   1e-12);
    CHECK_NEAR(factor(&c, 5), 1, 1e-15);
    CHECK_NEAR(factor(&c, 20), 0.1, 1e-12);
}

TEST(a_line_begins_at_the_peak_when_the_warm_up_ends)
{
    struct train_config c = config(SCHEDULE_LINEAR, 20, 5);
    CHECK_NEAR(factor(&c, 4), 1, 1e-15);
    for (i64 step = 5; step <= 20; step++)
        CHECK_NEAR(factor(&c, step), 1 - 0.9 * (double)(step - 5) / 15, 1e-12);
}

TEST(the_cooldown_of_wsd_is_a_share_of_the_whole_run)
{
    struct train_config c = config(SCHEDULE_WSD, 20, 5);
    CHECK_NEAR(factor(&c, 0), 0.2, 1e-15);
    for (i64 step = 4; step <= 15; step++)
        CHECK_NEAR(factor(&c, step), 1, 1e-15);
    for (i64 step = 15; step <= 20; step++)
        CHECK_NEAR(factor(&c, step), 0.1 + 0.9 * (1 - sqrt((double)(step - 15) / 5)), 1e-12);
}

TEST(a_constant_rate_stays_after_its_warm_up)
{
    struct train_config c = config(SCHEDULE_CONSTANT, 20, 4);
    CHECK_NEAR(factor(&c, 1), 0.5, 1e-15);
    CHECK_NEAR(factor(&c, 4), 1, 1e-15);
    CHECK_NEAR(factor(&c, 20), 1, 1e-15);
    c.lr.warmup = 0;
    CHECK_NEAR(factor(&c, 0), 1, 1e-15);
}

/* A run that the clock ends knows its progress only: steps of one pace give what the same
 * steps counted give. */
TEST(a_clock_gives_the_rates_that_counted_steps_give)
{
    struct train_config counted = config(SCHEDULE_COSINE, 40, 10), clocked = counted;
    clocked.train.steps = 0;
    clocked.train.max_time = 80;
    for (i64 step = 0; step < 40; step++)
        CHECK_NEAR(schedule_factor(&clocked, step, 2 * (double)step / 80),
                   factor(&counted, step), 1e-12);
}

TEST(a_warm_up_longer_than_the_run_only_rises)
{
    struct train_config c = config(SCHEDULE_COSINE, 20, 40);
    for (i64 step = 0; step < 20; step++)
        CHECK_NEAR(factor(&c, step), (double)(step + 1) / 40, 1e-15);
}

TEST(the_batch_grows_evenly_and_the_row_doubles)
{
    static const i64 batch[] = { 2, 3, 4, 5, 6, 7, 8, 8 };
    static const i64 row[] = { 16, 16, 32, 32, 64, 64 };
    struct train_config c = config(SCHEDULE_CONSTANT, 20, 0);
    CHECK_EQ(schedule_micro_batches(&c, 0), 8);
    CHECK_EQ(schedule_seq(&c, 0), 64);
    c.ramp.batch_from = 2;
    c.ramp.batch_steps = 6;
    c.ramp.seq_from = 16;
    c.ramp.seq_steps = 4;
    for (i64 i = 0; i < COUNT_OF(batch); i++)
        CHECK_EQ(schedule_micro_batches(&c, i), batch[i]);
    for (i64 i = 0; i < COUNT_OF(row); i++)
        CHECK_EQ(schedule_seq(&c, i), row[i]);
}

TEST(a_goal_in_tokens_counts_what_the_ramps_take)
{
    struct train_config c = config(SCHEDULE_CONSTANT, 0, 0);
    c.train.tokens = 10240;
    CHECK_EQ(schedule_steps(&c), 10); /* of 2 x 64 x 8 */
    c.ramp.batch_from = 4;
    c.ramp.batch_steps = 4; /* 4 5 6 7 micro-batches: 2,816 tokens, then 7,424 / 1,024 */
    CHECK_EQ(schedule_steps(&c), 12);
    c.ramp.seq_from = 16;
    c.ramp.seq_steps = 4; /* of 16 16 32 32 tokens: 128 + 160 + 384 + 448, then 9,120 / 1,024 */
    CHECK_EQ(schedule_steps(&c), 13);
    for (i64 tokens = 0; tokens < 3000; tokens++) { /* 128, 288, 672, 1,120, then 1,024 each */
        i64 want = (tokens >= 128) + (tokens >= 288) + (tokens >= 672);
        CHECK_EQ(schedule_steps_within(&c, tokens),
                 tokens < 1120 ? want : 4 + (tokens - 1120) / 1024);
    }
    c.train.steps = 3;
    CHECK_EQ(schedule_steps(&c), 3);
    c.train.tokens = c.train.steps = 0;
    CHECK_EQ(schedule_steps(&c), 0);
    c.train.global_batch = 512;
    CHECK_EQ(schedule_full_micro_batches(&c), 4);
}

TEST_MAIN(ONE(a_cosine_begins_at_the_peak_when_the_warm_up_ends),
          ONE(a_line_begins_at_the_peak_when_the_warm_up_ends),
          ONE(the_cooldown_of_wsd_is_a_share_of_the_whole_run),
          ONE(a_constant_rate_stays_after_its_warm_up),
          ONE(a_clock_gives_the_rates_that_counted_steps_give),
          ONE(a_warm_up_longer_than_the_run_only_rises),
          ONE(the_batch_grows_evenly_and_the_row_doubles),
          ONE(a_goal_in_tokens_counts_what_the_ramps_take))
