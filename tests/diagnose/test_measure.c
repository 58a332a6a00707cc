/* Statistics beside values that are known. */
#include "test.h"

#include "diagnose/usual.h"

TEST(a_median_and_its_error_do_not_mind_one_odd_value)
{
    const double x[] = { 1, 2, 3, 4, 1000, NAN };
    struct measure_stat s = measure_stat(x, 6);
    CHECK_EQ(s.n, 5);
    CHECK_NEAR(s.median, 3, 0);
    CHECK_NEAR(s.mean, 202, 1e-12);
    CHECK_NEAR(s.sigma, 1.4826, 1e-12);
    CHECK_NEAR(s.se, 1.4826 / sqrt(5), 1e-12);
    CHECK(isnan(measure_stat(x + 5, 1).median));
    CHECK_NEAR(measure_quantile(x, 5, 0.25), 2, 0);
}

TEST(a_line_gives_latency_and_bandwidth)
{
    const double bytes[] = { 1e3, 1e6, 4e6, 1e3 };
    double seconds[4];
    for (int i = 0; i < 4; i++)
        seconds[i] = 5e-5 + bytes[i] / 2e9;
    struct measure_line l = measure_line(bytes, seconds, 4);
    CHECK_NEAR(l.a, 5e-5, 1e-12);
    CHECK_NEAR(1 / l.b, 2e9, 1);
    CHECK(isnan(measure_line(bytes, seconds, 1).b));
    const double same[] = { 5, 5, 5 };
    CHECK(isnan(measure_line(same, seconds, 3).b));
    CHECK_NEAR(measure_correlation(bytes, seconds, 4), 1, 1e-12);
    CHECK(isnan(measure_correlation(same, seconds, 3)));
}

TEST(an_episode_is_found_with_its_borders_and_noise_alone_is_none)
{
    double y[60];
    u64 seed = 3;
    for (int k = 0; k < 20; k++) {
        for (int i = 0; i < 60; i++)
            y[i] = 1 + 0.02 * usual_noise(&seed);
        CHECK_EQ(measure_change(y, 60, 5).until, 0);
    }
    for (int i = 20; i < 45; i++)
        y[i] += 0.3;
    struct measure_change c = measure_change(y, 60, 5);
    CHECK_EQ(c.at, 20);
    CHECK_EQ(c.until, 45);
    CHECK_NEAR(c.inside - c.before, 0.3, 0.01);
    y[10] += 2; /* one odd step is no level */
    c = measure_change(y, 60, 5);
    CHECK_EQ(c.at, 20);
    CHECK_EQ(c.until, 45);
}

TEST(the_borders_of_an_episode_in_a_long_run_are_exact)
{
    enum { LONG = 40000 };
    static double y[LONG];
    u64 seed = 3;
    for (int i = 0; i < LONG; i++)
        y[i] = 1 + 0.02 * usual_noise(&seed) + (i >= 12345 && i < 31007 ? 0.3 : 0);
    struct measure_change c = measure_change(y, LONG, 5);
    CHECK_EQ(c.at, 12345);
    CHECK_EQ(c.until, 31007);
    CHECK_NEAR(c.inside - c.before, 0.3, 0.01);
}

/* Shorter than the least part that is looked for: a step of the other level is none of it. */
TEST(a_short_episode_has_no_step_more_than_it_had)
{
    double y[40];
    for (int length = 2; length < 9; length++) {
        u64 seed = 5;
        for (int i = 0; i < 40; i++)
            y[i] = 0.1 * (1 + 0.01 * usual_noise(&seed)) + (i >= 11 && i < 11 + length ? 0.1 : 0);
        struct measure_change c = measure_change(y, 40, 5);
        CHECK_EQ(c.at, 11);
        CHECK_EQ(c.until, 11 + length);
    }
}

TEST(spikes_have_a_period_when_they_are_regular)
{
    double y[50];
    u64 seed = 3;
    for (int i = 0; i < 50; i++)
        y[i] = 0.1 * (1 + 0.02 * usual_noise(&seed)) + (i % 12 == 7 ? 0.4 : 0);
    struct measure_spikes s = measure_spikes(y, 50, 6, 0.5, 0.05);
    CHECK_EQ(s.count, 4);
    CHECK_EQ(s.period, 12);
    CHECK_EQ(s.first, 7);
    CHECK_NEAR(s.area, 1.6, 0.02);
    y[20] += 0.4;
    CHECK_EQ(measure_spikes(y, 50, 6, 0.5, 0.05).period, 0);
}

TEST(small_gaps_are_no_spikes_and_one_stray_does_not_spoil_what_is_regular)
{
    double y[40];
    u64 seed = 3;
    for (int i = 0; i < 40; i++) /* gaps of a microsecond, and two of a millisecond */
        y[i] = 1e-6 * (1 + usual_noise(&seed)) + (i % 5 == 2 ? 0.6 : i == 14 || i == 30 ? 1e-3 : 0);
    struct measure_spikes s = measure_spikes(y, 40, 6, 0.5, 0.01);
    CHECK_EQ(s.count, 8);
    CHECK_EQ(s.period, 5);
    CHECK_EQ(measure_spikes(y, 40, 6, 0.5, 0).count, 8);
    CHECK_EQ(measure_spikes(y, 40, 6, 0.5, 0.7).count, 0); /* none is as large as that */
    y[4] = y[8] = 0.05;
    CHECK_EQ(measure_spikes(y, 40, 6, 0.5, 0.01).period, 5);
    y[4] = y[8] = 0;
    y[15] = 0.3;
    s = measure_spikes(y, 40, 6, 0.5, 0.01);
    CHECK_EQ(s.count, 9);
    CHECK_EQ(s.period, 5);
    y[0] = y[1] = 0.4;
    CHECK_EQ(measure_spikes(y, 40, 6, 0.5, 0.01).period, 0);
    y[0] = y[1] = y[15] = y[22] = 0; /* one is left out */
    CHECK_EQ(measure_spikes(y, 40, 6, 0.5, 0.01).period, 0);
}

/* Two are always equally far apart. */
TEST(two_spikes_are_regular_where_no_third_one_is_missing)
{
    static const struct { int first, second; i64 period; } cases[] = {
        { 10, 30, 20 }, { 3, 22, 19 }, { 25, 33, 0 }, { 2, 16, 0 }, { 22, 39, 0 },
    };
    for (i64 k = 0; k < COUNT_OF(cases); k++) {
        double y[40];
        u64 seed = 3;
        for (int i = 0; i < 40; i++)
            y[i] = 1e-3 * (1 + 0.1 * usual_noise(&seed)) +
                   (i == cases[k].first || i == cases[k].second ? 0.5 : 0);
        CHECK_EQ(measure_spikes(y, 40, 6, 0.5, 0.01).period, cases[k].period);
    }
}

/* Nor is the run's end one of them, which all runs have. */
TEST(what_a_run_does_in_the_end_is_no_pause)
{
    struct arena a;
    arena_init(&a);
    struct measure *m = usual_run(1, 40, &a);
    m->ranks[0].gap[HOST_GAP][19] = m->ranks[0].gap[HOST_GAP][39] = 0.2;
    CHECK_EQ(measure_regular_pauses(m, 0, 6, 0.01).period, 20);
    m->final_step = m->numbers[39];
    CHECK_EQ(measure_regular_pauses(m, 0, 6, 0.01).count, 0);
    m->ranks[0].gap[HOST_GAP][9] = m->ranks[0].gap[HOST_GAP][29] = 0.2; /* then one is due */
    CHECK_EQ(measure_regular_pauses(m, 0, 6, 0.01).count, 4);
    CHECK_EQ(measure_regular_pauses(m, 0, 6, 0.01).period, 10);
    arena_fini(&a);
}

/* A reader as fast as the consumer, but for one item: a queue of two hides what one does not. */
TEST(a_deeper_queue_hides_what_comes_late)
{
    double s[40];
    for (int i = 0; i < 40; i++)
        s[i] = i % 10 == 9 ? 3.0 : 0.5;
    double one = measure_queue_wait(s, 40, 1, 1, 1), two = measure_queue_wait(s, 40, 1, 1, 2);
    double eight = measure_queue_wait(s, 40, 1, 1, 8);
    CHECK(one > two && two > eight);
    CHECK_NEAR(eight, 0, 1e-9);
    for (int i = 0; i < 40; i++)
        s[i] = 2; /* twice as slow as wanted: half of the time is waited for, at any depth */
    CHECK_NEAR(measure_queue_wait(s, 40, 1, 1, 64), 1, 1e-9);
    CHECK_NEAR(measure_queue_wait(s, 40, 1, 2, 64), 0, 1e-9);
}

TEST(what_is_not_measured_is_no_number_and_theta_has_a_floor)
{
    struct arena a;
    arena_init(&a);
    struct measure *m = measure_new(2, 20, &a);
    CHECK(isnan(m->ranks[1].on_cpu) && isnan(m->loss[LOSS_DATA]) && isnan(m->ceilings.f32));
    for (i64 i = 0; i < 20; i++)
        m->seconds[i] = 0.1;
    measure_settle(m);
    CHECK_NEAR(m->theta, 0.002, 1e-12); /* 2 % where there is no noise at all */
    for (i64 i = 0; i < 20; i++)
        m->seconds[i] = i % 2 ? 0.1 : 0.12;
    measure_settle(m);
    CHECK_NEAR(m->theta, 3 * 1.4826 * 0.01 / sqrt(20), 1e-9);
    arena_fini(&a);
}

TEST(steps_wait_for_the_last_of_several_queues)
{
    static const double three[] = { 3, 3, 3, 3 }, two[] = { 2, 2, 2, 2 }, odd[] = { 6, 0, 6, 0 };
    const double *const queues[] = { three, two, odd };
    CHECK_NEAR(measure_queues_wait(queues, 2, 4, 1, 1, 2, false), 2, 1e-9); /* the slower's alone */
    CHECK(measure_queues_wait(queues, 3, 4, 1, 1, 1, false) > 2);
    CHECK_NEAR(measure_queues_wait(queues, 0, 4, 1, 1, 2, false), 0, 1e-9);
    CHECK_NEAR(measure_queues_wait(queues, 2, 4, 1, 1, 4, true), 0, 1e-9);
}

TEST(what_the_record_explains_of_a_step_is_no_noise)
{
    struct arena a;
    arena_init(&a);
    struct measure *m = measure_new(2, 40, &a);
    double left[40];
    for (i64 i = 0; i < 40; i++) {
        left[i] = 0.1 + (i % 3) * 1e-4;
        m->seconds[i] = left[i] + (i * 7 % 11) * 0.03;
    }
    measure_settle(m);
    const double before = m->theta;
    measure_settle_left(m, left, 40);
    CHECK(m->theta < before && m->step.se < 1e-4);
    CHECK_NEAR(m->theta, 0.02 * m->step.mean, 1e-9);
    measure_settle_left(m, m->seconds, 40); /* never more than before */
    CHECK_NEAR(m->theta, 0.02 * m->step.mean, 1e-9);
    arena_fini(&a);
}

TEST(means_are_found_once_where_series_change_no_more)
{
    enum { RANKS = 3, STEPS = 5, OTHERS = 100 };
    struct arena a;
    double others[OTHERS][STEPS];
    arena_init(&a);
    struct measure *m = measure_new(RANKS, STEPS, &a);
    for (int r = 0; r < RANKS; r++)
        for (int i = 0; i < STEPS; i++)
            m->ranks[r].step[i] = r + i;
    CHECK_NEAR(measure_mean(m, m->ranks[1].step), 3, 0);
    m->ranks[1].step[0] = 6; /* it may still change */
    CHECK_NEAR(measure_mean(m, m->ranks[1].step), 4, 0);
    measure_keep_means(m, &a);
    CHECK_NEAR(measure_mean(m, m->ranks[1].step), 4, 0);
    m->ranks[1].step[0] = 1000; /* against the rule: so that it shows */
    CHECK_NEAR(measure_mean(m, m->ranks[1].step), 4, 0);
    CHECK_NEAR(measure_mean(m, m->ranks[2].step), 4, 0);
    CHECK(isnan(measure_mean(m, NULL)));
    for (int k = 0; k < OTHERS; k++) /* more than there is room for */
        for (int i = 0; i < STEPS; i++)
            others[k][i] = k;
    for (int k = 0; k < 2 * OTHERS; k++)
        CHECK_NEAR(measure_mean(m, others[k % OTHERS]), k % OTHERS, 0);
    arena_fini(&a);
}

TEST_MAIN(ONE(means_are_found_once_where_series_change_no_more),
          ONE(the_borders_of_an_episode_in_a_long_run_are_exact),
          ONE(a_short_episode_has_no_step_more_than_it_had),
          ONE(a_median_and_its_error_do_not_mind_one_odd_value),
          ONE(a_line_gives_latency_and_bandwidth),
          ONE(an_episode_is_found_with_its_borders_and_noise_alone_is_none),
          ONE(spikes_have_a_period_when_they_are_regular),
          ONE(small_gaps_are_no_spikes_and_one_stray_does_not_spoil_what_is_regular),
          ONE(two_spikes_are_regular_where_no_third_one_is_missing),
          ONE(what_a_run_does_in_the_end_is_no_pause),
          ONE(a_deeper_queue_hides_what_comes_late),
          ONE(steps_wait_for_the_last_of_several_queues),
          ONE(what_the_record_explains_of_a_step_is_no_noise),
          ONE(what_is_not_measured_is_no_number_and_theta_has_a_floor))
