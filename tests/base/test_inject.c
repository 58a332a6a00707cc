/* What may be injected, as it is written and as it acts. */
#include "base/inject.h"
#include "test.h"

#include <math.h>
#include <stdio.h>

static struct inject one(const char *text, i64 rank)
{
    struct inject x;
    CHECK_OK(inject_read(&x, &text, 1, NULL));
    inject_begin(&x, rank, 1);
    return x;
}

TEST(values_have_units_and_faults_have_ranks_and_steps)
{
    struct inject_fault f;
    CHECK_OK(inject_parse(&f, "slow_compute=1.5@1:20-40", NULL));
    CHECK_EQ(f.kind, INJECT_SLOW_COMPUTE);
    CHECK_NEAR(f.value, 1.5, 0);
    CHECK_EQ(f.first_rank, 1);
    CHECK_EQ(f.last_rank, 1);
    CHECK_EQ(f.first_step, 19); /* the first is 0 inside */
    CHECK_EQ(f.last_step, 39);
    CHECK_OK(inject_parse(&f, "comm_delay=300", NULL));
    CHECK_NEAR(f.value, 300e-6, 1e-18);
    CHECK_EQ(f.last_rank, INT64_MAX);
    CHECK_OK(inject_parse(&f, "comm_delay=2ms", NULL));
    CHECK_NEAR(f.value, 2e-3, 1e-18);
    CHECK_OK(inject_parse(&f, "jitter=10%", NULL));
    CHECK_NEAR(f.value, 0.1, 1e-18);
    CHECK_OK(inject_parse(&f, "pair_bw=0-3:10MB/s@2-4:7-", NULL));
    CHECK_EQ(f.b, 3);
    CHECK_NEAR(f.value, 1e7, 0);
    CHECK_EQ(f.last_rank, 4);
    CHECK_EQ(f.first_step, 6);
    CHECK_EQ(f.last_step, INT64_MAX);
    CHECK_OK(inject_parse(&f, "pause=20ms/25", NULL));
    CHECK_NEAR(f.value, 0.02, 1e-18);
    CHECK_EQ(f.every, 25);
}

TEST(what_is_wrong_is_said)
{
    static const struct { const char *text, *says; } cases[] = {
        { "slow_compte=2", "did you mean slow_compute?" },
        { "slow_compute", "belong = and a value" },
        { "slow_compute=fast", "a number belongs here" },
        { "slow_compute=0.5", "out of range: between 1 and 1000" },
        { "loader_spin=1e99s", "out of range: between 0 and 3.6e+06 ms" },
        { "pause=1e99ms/2", "out of range" },
        { "eval_every=1e30", "out of range" },
        { "threads=1.5", "a whole number belongs here" },
        { "slow_compute=2ms", "unit does not fit" },
        { "slow_compute=2@x", "a whole number belongs" },
        { "slow_compute=2:0", "counted from 1" },
        { "slow_compute=2:9-3", "ends before it begins" },
        { "slow_compute=2:1 2", "what follows the value" },
        { "overlap=on", "overlap may be off" },
        { "op=linear", "behind the op belongs its delay" },
        { "probe=linear", "belongs by how much" },
        { "probe=linear,slower=0%", "out of range" },
        { "pair_bw=0-0:1", "two ranks and its rate" },
        { "pause=20ms", "how often" },
        { "recompute=full@1", "the same on all ranks" },
        { "attn=dense_mask", "never computes what its mask forbids" },
    };
    struct inject_fault f;
    for (i64 i = 0; i < COUNT_OF(cases); i++)
        CHECK_FAILS(inject_parse(&f, cases[i].text, NULL), ERR_CONFIG, cases[i].says);
}

/* What is beyond it is no fault, and turns into numbers that are none. */
TEST(every_number_has_a_range)
{
    struct inject_fault f;
    for (int k = 0; k < INJECT_KINDS; k++) {
        const struct inject_row *r = &inject_rows[k];
        static const char *const begin[] = { [INJECT_OP_DELAY] = "linear,delay=",
            [INJECT_OP_SLOWER] = "linear,slower=", [INJECT_LINK] = "0-1:" };
        char text[96];
        if (r->value == INJECT_WORD || r->refused)
            continue;
        const char *word = r->value < COUNT_OF(begin) ? begin[r->value] : NULL;
        snprintf(text, sizeof text, "%s=%s1e99%s", r->name, word ? word : "",
                 r->value == INJECT_EVERY ? "/1" : "");
        CHECK_FAILS(inject_parse(&f, text, NULL), ERR_CONFIG, "out of range");
    }
}

TEST(a_list_may_have_been_cut_at_the_comma_of_an_op)
{
    static const char *const cut[] = { "jitter=5", "op=linear", "delay=2ms", "loader_spin=1" };
    struct inject x;
    CHECK_OK(inject_read(&x, cut, 4, NULL));
    CHECK_EQ(x.n, 3);
    inject_begin(&x, 0, 1);
    CHECK(inject_has(&x, INJECT_OP) && inject_has(&x, INJECT_LOADER_SPIN));
    CHECK(!inject_has(&x, INJECT_PAUSE));
}

TEST(faults_hold_for_their_ranks_and_steps_only)
{
    struct inject x = one("slow_compute=2@1-2:3-4", 1), other = one("slow_compute=2@1-2:3-4", 0);
    CHECK_NEAR(inject_compute(&x, "add", 1, 0, 1), 1, 0);
    CHECK_NEAR(inject_compute(&x, "add", 2, 0, 1), 2, 0);
    CHECK_NEAR(inject_compute(&x, "add", 4, 0, 1), 1, 0);
    CHECK(!inject_has(&other, INJECT_SLOW_COMPUTE));
    x = one("op=linear,delay=2ms", 0);
    CHECK_NEAR(inject_compute(&x, "linear", 0, 0, 1), 1.002, 1e-12);
    CHECK_NEAR(inject_compute(&x, "add", 0, 0, 1), 1, 0);
    x = one("phi_override=0.8", 0);
    CHECK_NEAR(inject_compute(&x, "add", 0, 0, 1), 1.25, 1e-12);
    CHECK(inject_at(NULL, INJECT_PHI, 0) == NULL);
}

TEST(a_probe_slows_one_of_each_two_steps_the_same_on_all_ranks)
{
    struct inject x = one("probe=linear,slower=10%:3-", 0), other = one("probe=all,slower=10%", 3);
    int first = 0;
    for (u64 k = 0; k < 1000; k++) {
        bool slowed[2] = { inject_probed(&x, 2 * k), inject_probed(&x, 2 * k + 1) };
        CHECK(slowed[0] != slowed[1]);
        first += slowed[0];
        CHECK_EQ(inject_probed(&other, 2 * k), slowed[0]);
        CHECK_NEAR(inject_compute(&other, "add", 2 * k, 0, 1), slowed[0] ? 1.1 : 1, 1e-12);
        CHECK_NEAR(inject_compute(&x, "linear_dw", 2 * k, 0, 1),
                   slowed[0] && k > 0 ? 1.1 : 1, 1e-12);
        CHECK_NEAR(inject_compute(&x, "add", 2 * k, 0, 1), 1, 0);
    }
    CHECK_NEAR(first, 500, 64); /* 4 standard deviations */
}

TEST(only_probes_may_be_asked_for_later)
{
    struct inject x = one("slow_compute=2", 0);
    CHECK_OK(inject_add_probes(&x, "probe=linear,slower=5%:9-12\n\nprobe=all,slower=1%\n"));
    CHECK_EQ(x.n, 3);
    CHECK_EQ(x.faults[1].last_step, 11);
    CHECK_FAILS(inject_add_probes(&x, "pause=1s/2\n"), ERR_CONFIG, "only probes");
    CHECK_FAILS(inject_add_probes(&x, "nonsense"), ERR_CONFIG, "nothing called");
    for (int i = 0; i < 2 * INJECT_FAULTS && inject_add_probes(&x, "probe=a,slower=1%") == OK; i++)
        ;
    CHECK_EQ(x.n, INJECT_FAULTS);
}

TEST(jitter_is_half_normal_and_repeats)
{
    struct inject x = one("jitter=10", 3), again = one("jitter=10%", 3);
    struct inject other = one("jitter=10", 4);
    double sum = 0;
    int alike = 0;
    for (u64 step = 0; step < 2000; step++) {
        double t = inject_compute(&x, "add", step, 1, 1);
        CHECK(t >= 1);
        CHECK_NEAR(t, inject_compute(&again, "mul", step, 1, 1), 0);
        alike += t == inject_compute(&other, "add", step, 1, 1);
        sum += t - 1;
    }
    CHECK_EQ(alike, 0);
    CHECK_NEAR(sum / 2000, 0.1 * sqrt(2 / M_PI), 0.005); /* 4 standard errors */
}

TEST(a_slow_link_is_met_by_its_neighbours_in_the_ring)
{
    const int ring[] = { 0, 2, 5, 7 };
    struct inject x = one("pair_bw=2-5:1MB/s", 0), far = one("pair_bw=0-5:1MB/s", 0);
    CHECK_NEAR(inject_call(&x, 0, ring, 4, 0, -1, 1e6).link, 1, 1e-12);
    CHECK_NEAR(inject_call(&far, 0, ring, 4, 0, -1, 1e6).link, 0, 0);
    const int pair[] = { 2, 5 };
    CHECK_NEAR(inject_call(&x, 0, pair, 2, 0, 1, 2e6).link, 2, 1e-12);
    CHECK_NEAR(inject_call(&far, 0, pair, 2, 0, 1, 2e6).link, 0, 0);
    CHECK_NEAR(inject_pair(&x, 5, 2, 2e6), 2, 1e-12);
    CHECK_NEAR(inject_pair(&x, 0, 2, 2e6), 0, 0);
    x = one("pair_bw=2-5:1MB/s:10-", 0); /* not yet before the run */
    CHECK_NEAR(inject_pair(&x, 5, 2, 2e6), 0, 0);
    x = one("comm_delay=50us", 0);
    CHECK_NEAR(inject_call(&x, 0, ring, 4, 0, -1, 1e6).delay, 50e-6, 1e-15);
}

TEST(a_lognormal_loader_exceeds_its_value_in_one_step_of_twenty)
{
    struct inject x = one("loader_lognormal=10ms", 0);
    int over = 0;
    double spin;
    for (u64 step = 0; step < 4000; step++)
        over += inject_load(&x, step, 0, &spin) > 0.01;
    CHECK_NEAR(over, 200, 56); /* 4 standard deviations */
    x = one("loader_bw=1MB/s", 0);
    CHECK_NEAR(inject_load(&x, 0, 5e5, &spin), 0.5, 1e-12);
    CHECK_NEAR(spin, 0, 0);
    x = one("loader_spin=3", 0);
    CHECK_NEAR(inject_load(&x, 0, 5e5, &spin), 3e-3, 1e-15);
    CHECK_NEAR(spin, 3e-3, 1e-15);
}

TEST(rows_are_cut_into_documents_by_zipfs_law)
{
    struct inject x = one("seqlen_zipf=1", 0);
    int whole = 0;
    for (i64 row = 0; row < 4000; row++) {
        i64 length = inject_length(&x, 0, row, 64);
        CHECK(length >= 1 && length <= 64 && 64 % length == 0);
        whole += length == 64;
    }
    /* the first of seven numbers: 1 / (1 + 1/2 + ... + 1/7) = 0.3857; 4 standard deviations */
    CHECK_NEAR(whole, 1543, 124);
}

TEST(a_rank_that_there_is_not_is_refused)
{
    static struct inject x;
    const char *texts[] = { "slow_compute=2@1" };
    CHECK_OK(inject_read(&x, texts, 1, NULL));
    CHECK_OK(inject_check_ranks(&x, 2));
    CHECK_FAILS(inject_check_ranks(&x, 1), ERR_CONFIG, "no rank 1");
}

TEST_MAIN(ONE(a_rank_that_there_is_not_is_refused), ONE(every_number_has_a_range),
          ONE(values_have_units_and_faults_have_ranks_and_steps), ONE(what_is_wrong_is_said),
          ONE(a_list_may_have_been_cut_at_the_comma_of_an_op),
          ONE(faults_hold_for_their_ranks_and_steps_only),
          ONE(a_probe_slows_one_of_each_two_steps_the_same_on_all_ranks),
          ONE(only_probes_may_be_asked_for_later), ONE(jitter_is_half_normal_and_repeats),
          ONE(a_slow_link_is_met_by_its_neighbours_in_the_ring),
          ONE(a_lognormal_loader_exceeds_its_value_in_one_step_of_twenty),
          ONE(rows_are_cut_into_documents_by_zipfs_law))
