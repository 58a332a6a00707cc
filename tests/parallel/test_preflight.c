/* What ranks find out about each other before the first step. */
#include "base/err.h"
#include "comm/local.h"
#include "parallel/agree.h"
#include "parallel/preflight.h"
#include "test.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static struct preflight all(struct preflight_rank *ranks, i64 n)
{
    for (i64 r = 0; r < n; r++)
        ranks[r] = (struct preflight_rank){ 100e9, 2e-6, 5e9, (r + 1) % n, (r + 1) % n, 0, 0 };
    return (struct preflight){ .ranks = ranks, .n = n };
}

TEST(ranks_that_are_alike_give_no_finding)
{
    struct preflight_rank ranks[8];
    struct preflight_finding found[4];
    for (i64 n = 1; n <= 8; n++) {
        struct preflight p = all(ranks, n);
        for (i64 r = 0; r < n; r++) { /* what noise does */
            ranks[r].flops *= 1 + 0.02 * (double)(r % 3);
            ranks[r].latency_s *= 1 + 0.3 * (double)(r % 2);
        }
        CHECK(preflight_judge(&p, false, found, 4) == 0);
    }
}

TEST(the_slow_rank_and_the_slow_link_are_named_worst_first)
{
    struct preflight_rank ranks[4];
    struct preflight_finding found[4];
    struct preflight p = all(ranks, 4);
    ranks[2].flops = 50e9;
    ranks[1].bytes_per_s = ranks[3].bytes_per_s = 0.5e9; /* both see it */
    ranks[1].bytes_peer = 3;
    ranks[3].bytes_peer = 1;
    ranks[0].latency_s = 1e-5;
    ranks[0].latency_peer = 3;
    i64 n = preflight_judge(&p, false, found, 4);
    CHECK(n == 3);
    CHECK(found[0].rank == 1 && found[0].peer == 3 && !found[0].latency);
    CHECK(found[1].rank == 0 && found[1].peer == 3 && found[1].latency);
    CHECK(found[2].rank == 2 && found[2].peer == -1 && found[2].times > 1.9);
    CHECK(preflight_judge(&p, false, found, 1) == 1);
    CHECK(preflight_judge(&p, true, found, 4) == 0); /* they take turns */
    ranks[2].flops = 15e9;
    CHECK(preflight_judge(&p, true, found, 4) == 1 && found[0].rank == 2);
}

TEST(the_slowest_link_stands_beside_those_of_other_ranks)
{
    struct preflight_rank ranks[5];
    struct preflight_link link;
    for (i64 n = 3; n <= 5; n++) {
        struct preflight p = all(ranks, n);
        ranks[1].bytes_per_s = ranks[2].bytes_per_s = 0.5e9; /* both see it */
        ranks[1].bytes_peer = 2;
        ranks[2].bytes_peer = 1;
        CHECK(preflight_slowest(&p, &link));
        CHECK_EQ(link.rank + link.peer, 3);
        CHECK_NEAR(link.bytes_per_s, 0.5e9, 0);
        CHECK_NEAR(link.others_bytes_per_s, 5e9, 0);
        CHECK_NEAR(link.next_bytes_per_s, 5e9, 0);
        ranks[0].bytes_per_s = 0.6e9; /* at neither end */
        CHECK(preflight_slowest(&p, &link));
        CHECK_NEAR(link.next_bytes_per_s, 0.6e9, 0);
    }
    struct preflight two = all(ranks, 2);
    CHECK(!preflight_slowest(&two, &link));
}

/* Of four ranks a ring's sum is six messages, and one and a half times the bytes. */
TEST(a_sum_over_all_ranks_gives_what_a_message_and_a_byte_take_there)
{
    struct preflight_rank ranks[4];
    struct preflight p = all(ranks, 4);
    double latency, rate;
    for (i64 r = 0; r < 4; r++) {
        ranks[r].sum_small_s = 60e-6;
        ranks[r].sum_large_s = 60e-6 + 1e-3;
    }
    ranks[1].sum_small_s = 1; /* a rank that was pushed aside */
    preflight_sums(&p, &latency, &rate);
    CHECK_NEAR(latency, 10e-6, 1e-12);
    CHECK_NEAR(rate, 1.5 * (1 << 20) / 1e-3, 1);
    for (i64 r = 0; r < 4; r++)
        ranks[r].sum_large_s = 1e-9; /* noise: less than the small one */
    preflight_sums(&p, &latency, &rate);
    CHECK(isnan(rate));
    p.n = 1;
    preflight_sums(&p, &latency, &rate);
    CHECK(isnan(latency) && isnan(rate));
}

TEST(of_two_ranks_the_slower_is_odd)
{
    struct preflight_rank ranks[2];
    struct preflight_finding found[4];
    struct preflight p = all(ranks, 2);
    ranks[0].flops = 60e9;
    CHECK(preflight_judge(&p, false, found, 4) == 1 && found[0].rank == 0);
}

TEST(most_ranks_are_right_about_a_fact)
{
    struct fact facts[5], *at[5];
    int usual = -1;
    for (int r = 0; r < 5; r++) {
        at[r] = &facts[r];
        snprintf(facts[r].value, sizeof facts[r].value, "%s", r == 0 ? "4" : "8");
    }
    CHECK(odd_one((const struct fact *const *)at, 5, &usual) == 0 && usual == 1);
    snprintf(facts[0].value, sizeof facts[0].value, "8");
    CHECK(odd_one((const struct fact *const *)at, 5, &usual) == -1);
}

/* --- real processes ----------------------------------------------------------------- */

struct told {
    int odd;
    char message[300];
};

/* Every rank must find the same sentence; a rank reports by its exit code. */
static int differ(struct comm *c, void *context)
{
    const struct told *t = context;
    struct arena a;
    struct mesh m;
    struct facts f;
    arena_init(&a);
    TRY(mesh_meet(&m, c));
    facts_init(&f, &a);
    facts_add_program(&f);
    TRY(mesh_same(&m, &f, "the program"));
    facts_init(&f, &a);
    facts_add(&f, "lr", "1e-3");
    facts_add(&f, "batch", c->rank == t->odd ? "4" : "8");
    if (c->rank == t->odd && t->odd == 1)
        facts_add(&f, "another", "one");
    int rc = mesh_same(&m, &f, "the recipe");
    arena_fini(&a);
    if (t->odd < 0)
        return rc;
    return rc == ERR_CONFIG && strstr(err_message(), t->message)
               ? OK : err_set(ERR_INTERNAL, "rank %d: %s", c->rank, rc < 0 ? err_message() : "ok");
}

static void expect_told(int odd, const char *message)
{
    struct comm_local l = { .ranks = 3, .deadline_s = 20 };
    struct told t = { .odd = odd };
    snprintf(t.message, sizeof t.message, "%s", message);
    CHECK_OK(comm_local_run(&l, differ, &t));
}

TEST(a_rank_with_another_setting_is_named_with_both_values)
{
    expect_told(-1, "");
    expect_told(2, "rank 2 does not run the same as rank 0: in the recipe, its batch is '4', not "
                   "'8'");
    expect_told(1, "rank 1 does not run the same as rank 0: in the recipe, its list of settings");
}

static int time_all(struct comm *c, void *context)
{
    struct arena a;
    struct mesh m;
    struct engine e;
    struct preflight p;
    (void)context;
    arena_init(&a);
    TRY(mesh_meet(&m, c));
    TRY(engine_init(&e, "auto", 1, 64));
    TRY(preflight_run(&p, &m, &e, NULL, &a));
    for (i64 r = 0; r < p.n; r++) {
        const struct preflight_rank *k = &p.ranks[r];
        bool sound = k->flops > 1e6 && k->latency_s > 0 && k->latency_s < 5 &&
                     k->bytes_per_s > 1e3 && k->latency_peer != r && k->bytes_peer >= 0;
        if (!sound || p.n != c->size)
            return err_set(ERR_INTERNAL, "rank %lld: %g FLOP/s, %g s, %g B/s", (long long)r,
                           k->flops, k->latency_s, k->bytes_per_s);
    }
    engine_fini(&e);
    arena_fini(&a);
    return OK;
}

static int time_slow_link(struct comm *c, void *context)
{
    struct arena a;
    struct mesh m;
    struct engine e;
    struct preflight p;
    struct preflight_link slowest;
    struct inject x = { .n = 1 };
    (void)context;
    arena_init(&a);
    TRY(inject_parse(&x.faults[0], "pair_bw=1-3:10MB/s", NULL));
    inject_begin(&x, c->rank, 0);
    TRY(mesh_meet(&m, c));
    TRY(engine_init(&e, "auto", 1, 64));
    TRY(preflight_run(&p, &m, &e, &x, &a));
    if (!preflight_slowest(&p, &slowest) || slowest.rank + slowest.peer != 4 ||
        slowest.rank == 2 || slowest.bytes_per_s > 10.1e6)
        return err_set(ERR_INTERNAL, "%lld and %lld, %g B/s", (long long)slowest.rank,
                       (long long)slowest.peer, slowest.bytes_per_s);
    engine_fini(&e);
    arena_fini(&a);
    return OK;
}

/* What passes between any two of these, in a matrix of n x n. */
static void pass_between(double *pairs, i64 n, double near, double far, i64 of_a_domain)
{
    for (i64 a = 0; a < n; a++)
        for (i64 b = 0; b < n; b++) /* equal links differ by a fifth */
            pairs[a * n + b] = (a / of_a_domain == b / of_a_domain ? near : far) *
                               (1 + 0.02 * (double)((3 * a + 5 * b) % 9));
}

TEST(ranks_that_are_nearer_to_each_other_are_a_domain)
{
    static const i32 halves[] = { 0, 0, 0, 0, 1, 1, 1, 1 };
    struct preflight_domains d;
    double pairs[64], odd;
    pass_between(pairs, 8, 4e9, 1e9, 4);
    CHECK(preflight_find_domains(pairs, 8, &d));
    CHECK_EQ(d.n, 2);
    for (int r = 0; r < 8; r++)
        CHECK_EQ(d.of[r], halves[r]);
    CHECK_NEAR(d.near_bytes_per_s, 4.3e9, 0.3e9);
    CHECK_NEAR(d.far_bytes_per_s, 1.08e9, 0.08e9);
    odd = pairs[3]; /* one slow link within: it is no matter of domains */
    pairs[3] = 1e9;
    CHECK(!preflight_find_domains(pairs, 8, &d));
    pairs[3] = odd;
    pairs[5] = pairs[40] = 4e9; /* or one fast link between */
    CHECK(!preflight_find_domains(pairs, 8, &d));
    pass_between(pairs, 8, 4e9, 4e9, 4);
    CHECK(!preflight_find_domains(pairs, 8, &d));
    pass_between(pairs, 8, 4e9, 1e9, 7); /* the last rank's links alone are slow */
    CHECK(!preflight_find_domains(pairs, 8, &d));
    CHECK(!preflight_find_domains(NULL, 8, &d));
}

static int time_domains(struct comm *c, void *context)
{
    static const char *const slow[] = { "pair_bw=0-1:10MB/s", "pair_bw=0-3:10MB/s",
                                        "pair_bw=2-1:10MB/s", "pair_bw=2-3:10MB/s" };
    struct arena a;
    struct mesh m;
    struct engine e;
    struct preflight p;
    struct preflight_domains d;
    struct inject x = { .n = 4 };
    (void)context;
    arena_init(&a);
    for (int i = 0; i < 4; i++)
        TRY(inject_parse(&x.faults[i], slow[i], NULL));
    inject_begin(&x, c->rank, 0);
    TRY(mesh_meet(&m, c));
    TRY(engine_init(&e, "auto", 1, 64));
    TRY(preflight_run(&p, &m, &e, &x, &a));
    if (!preflight_find_domains(p.pairs, p.n, &d) || d.n != 2 || d.of[1] != 1 || d.of[2] != 0 ||
        d.of[3] != 1 || d.far_bytes_per_s > 10.1e6)
        return err_set(ERR_INTERNAL, "%lld domains", (long long)d.n);
    engine_fini(&e);
    arena_fini(&a);
    return OK;
}

TEST(domains_are_found_before_the_run)
{
    struct comm_local l = { .ranks = 4, .deadline_s = 20 };
    CHECK_OK(comm_local_run(&l, time_domains, NULL));
}

TEST(a_link_that_is_slow_on_purpose_is_so_before_the_run)
{
    struct comm_local l = { .ranks = 4, .deadline_s = 20 };
    CHECK_OK(comm_local_run(&l, time_slow_link, NULL));
}

TEST(every_rank_meets_every_other)
{
    for (int n = 2; n <= 5; n++) {
        struct comm_local l = { .ranks = n, .deadline_s = 20 };
        CHECK_OK(comm_local_run(&l, time_all, NULL));
    }
}

TEST_MAIN(ONE(ranks_that_are_alike_give_no_finding),
          ONE(a_sum_over_all_ranks_gives_what_a_message_and_a_byte_take_there),
          ONE(the_slow_rank_and_the_slow_link_are_named_worst_first),
          ONE(of_two_ranks_the_slower_is_odd), ONE(most_ranks_are_right_about_a_fact),
          ONE(a_rank_with_another_setting_is_named_with_both_values),
          ONE(the_slowest_link_stands_beside_those_of_other_ranks),
          ONE(a_link_that_is_slow_on_purpose_is_so_before_the_run),
          ONE(ranks_that_are_nearer_to_each_other_are_a_domain),
          ONE(domains_are_found_before_the_run), ONE(every_rank_meets_every_other))
