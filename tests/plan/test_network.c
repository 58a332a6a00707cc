/* Collectives beside closed forms, and beside links that are walked step by step. */
#include "test.h"

#include "base/err.h"
#include "plan/net_facts.h"

#include <math.h>

static const double X = 1 << 28;
static const double flat_rate = 100e9, flat_latency = 3e-6;

/* One tier of 1,024 devices: 100 GB/s, 3 us. */
static struct plan_machine flat(void)
{
    struct plan_machine m = { .n_tiers = 1, .algorithms = (1u << NET_ALGORITHMS) - 1 };
    m.tiers[0] = (struct plan_tier){ .name = "all", .ranks = 1024, .oversubscription = 1,
                                     .bytes_per_s = { 80e9, 100e9, 120e9 },
                                     .latency_s = { 2e-6, 3e-6, 5e-6 }, .axes = 1 };
    return m;
}

/* Nodes of 8 at 400 GB/s, then 50 GB/s per device. */
static struct plan_machine nodes(void)
{
    struct plan_machine m = flat();
    m.n_tiers = 2;
    m.tiers[1] = m.tiers[0];
    m.tiers[1].bytes_per_s = (struct plan_band){ 40e9, 50e9, 55e9 };
    m.tiers[1].latency_s = (struct plan_band){ 5e-6, 8e-6, 20e-6 };
    m.tiers[1].ranks = 4096;
    m.tiers[0].ranks = 8;
    m.tiers[0].bytes_per_s = (struct plan_band){ 300e9, 400e9, 450e9 };
    return m;
}

static double seconds(const struct plan_machine *m, enum net_op op, enum net_algorithm how,
                      i64 ranks, i64 stride, double bytes)
{
    return net_seconds_by(m, op, how, (struct net_group){ ranks, stride, 1 }, bytes);
}

TEST(on_one_tier_the_forms_are_closed)
{
    struct plan_machine m = flat();
    for (i64 n = 2; n <= 256; n *= 2) {
        double rho = (double)(n - 1) / (double)n, a = flat_latency, b = flat_rate;
        double steps = log2((double)n), t = X / b;
        CHECK_NEAR(seconds(&m, NET_ALLREDUCE, NET_RING, n, 1, X),
                   2 * (double)(n - 1) * a + 2 * rho * t, 1e-12);
        CHECK_NEAR(seconds(&m, NET_ALLGATHER, NET_RING, n, 1, X),
                   (double)(n - 1) * a + rho * t, 1e-12);
        CHECK_NEAR(seconds(&m, NET_ALLREDUCE, NET_TREE, n, 1, X), 2 * steps * a + 2 * t, 1e-12);
        CHECK_NEAR(seconds(&m, NET_ALLREDUCE, NET_DOUBLING, n, 1, X),
                   2 * steps * a + 2 * rho * t, 1e-12);
        CHECK_NEAR(seconds(&m, NET_REDUCE_SCATTER, NET_HIERARCHICAL, n, 1, X),
                   (double)(n - 1) * a + rho * t, 1e-12);
        CHECK_NEAR(seconds(&m, NET_ALLTOALL, NET_DIRECT, n, 1, X),
                   (double)(n - 1) * a + rho * t, 1e-12);
        CHECK_NEAR(seconds(&m, NET_SENDRECV, NET_DIRECT, 2, n, X), a + t, 1e-12);
        CHECK_NEAR(seconds(&m, NET_ALLTOALL, NET_DOUBLING, n, 1, X), steps * (a + t / 2), 1e-12);
    }
    CHECK_NEAR(seconds(&m, NET_ALLREDUCE, NET_RING, 1, 1, X), 0, 0);
    m.call_s = 1e-5;
    CHECK_NEAR(seconds(&m, NET_SENDRECV, NET_DIRECT, 2, 1, 0), flat_latency + 1e-5, 1e-12);
}

/* A ring of n ranks on nodes of 8, in as many channels as a node has members, each of which leaves
 * the node at another member. Step by step: a link carries its pieces one after another, and a rank
 * goes on when its neighbour's piece has come. Link l of a rank: 0 within the node, 1 out of it. */
static double walk_rings(const struct plan_machine *m, i64 n, i64 local, double bytes, i64 steps)
{
    enum { MOST = 64 };
    double free_at[MOST][2] = { 0 }, ready[MOST][8] = { 0 }, came[MOST][8], end = 0;
    double piece = bytes / (double)n / (double)local;
    for (i64 s = 0; s < steps; s++) {
        for (i64 c = 0; c < local; c++)
            for (i64 place = 0; place < n; place++) {
                i64 node = place / local, at = node * local + (place % local + c) % local;
                i64 next_place = (place + 1) % n;
                i64 next = next_place / local * local + (next_place % local + c) % local;
                bool out = m->n_tiers > 1 && node != next_place / local;
                const struct plan_tier *t = &m->tiers[out];
                double begin = fmax(ready[at][c], free_at[at][out]);
                free_at[at][out] = begin + piece / t->bytes_per_s.mid;
                came[next][c] = free_at[at][out] + t->latency_s.mid;
                end = fmax(end, came[next][c]);
            }
        memcpy(ready, came, sizeof ready);
    }
    return end;
}

TEST(rings_take_what_walking_their_links_takes)
{
    struct plan_machine one = flat(), two = nodes();
    for (i64 n = 2; n <= 64; n *= 2) { /* one channel, one tier: to the last digit */
        double walked = walk_rings(&one, n, 1, X, n - 1);
        CHECK_NEAR(seconds(&one, NET_ALLGATHER, NET_RING, n, 1, X), walked, 1e-9 * walked);
        walked = walk_rings(&one, n, 1, X, 2 * (n - 1));
        CHECK_NEAR(seconds(&one, NET_ALLREDUCE, NET_RING, n, 1, X), walked, 1e-9 * walked);
    }
    /* Nodes: large messages are bound by the links out, small ones by latency. In between the
     * walk lets quick edges run ahead. */
    for (i64 n = 16; n <= 64; n *= 2)
        for (double bytes = 1e4; bytes < 1e11; bytes *= 10) {
            double walked = walk_rings(&two, n, 8, bytes, n - 1);
            double formula = seconds(&two, NET_ALLGATHER, NET_RING, n, 1, bytes);
            CHECK(formula > 0.85 * walked && formula < 1.9 * walked);
            if (bytes > 5e8)
                CHECK_NEAR(formula / walked, 1, 0.25);
        }
}

TEST(groups_are_spread_over_tiers)
{
    struct plan_machine m = nodes();
    i64 fan[PLAN_TIERS];
    CHECK_EQ(net_spread(&m, (struct net_group){ 8, 1, 1 }, fan), 1);
    CHECK_EQ(net_spread(&m, (struct net_group){ 64, 1, 1 }, fan), 2);
    CHECK_EQ(fan[0], 8);
    CHECK_EQ(fan[1], 8);
    CHECK_EQ(net_spread(&m, (struct net_group){ 16, 4, 1 }, fan), 2);
    CHECK_EQ(fan[0], 2);
    CHECK_EQ(fan[1], 8);
    CHECK_EQ(net_spread(&m, (struct net_group){ 16, 8, 1 }, fan), 2);
    CHECK_EQ(fan[0], 1); /* one in each node */
    CHECK_EQ(fan[1], 16);
    CHECK_EQ(net_spread(&m, (struct net_group){ 1, 1, 1 }, fan), 0);
}

TEST(nodes_are_entered_by_all_their_links)
{
    struct plan_machine m = nodes();
    double n = 64;
    /* Eight members share the way out of a node; one alone has its own. */
    CHECK_NEAR(seconds(&m, NET_ALLREDUCE, NET_RING, 64, 1, X),
               2 * (n - 1) * 8e-6 + 2 * (n - 1) / n * X / (8 * 50e9), 1e-9);
    CHECK_NEAR(seconds(&m, NET_ALLREDUCE, NET_RING, 64, 8, X),
               2 * (n - 1) * 8e-6 + 2 * (n - 1) / n * X / 50e9, 1e-9);
    CHECK_NEAR(seconds(&m, NET_ALLREDUCE, NET_HIERARCHICAL, 64, 1, X),
               2 * (7 * 3e-6 + 7.0 / 8 * X / 400e9 + 7 * 8e-6 + 7.0 / 8 * X / 8 / 50e9), 1e-9);
    /* Most of an all-to-all leaves the node, and nothing shares it. */
    CHECK_NEAR(seconds(&m, NET_ALLTOALL, NET_DIRECT, 64, 1, X),
               7 * 3e-6 + 56 * 8e-6 + 56.0 / 64 * X / 50e9, 1e-9);
}

TEST(small_messages_go_by_trees_and_large_ones_by_rings)
{
    struct plan_machine m = nodes();
    enum net_algorithm how;
    m.algorithms = 1u << NET_RING | 1u << NET_TREE | 1u << NET_DIRECT;
    net_seconds(&m, NET_ALLREDUCE, (struct net_group){ 64, 1, 1 }, 1e4, &how);
    CHECK_EQ(how, NET_TREE);
    net_seconds(&m, NET_ALLREDUCE, (struct net_group){ 64, 1, 1 }, 1e12, &how);
    CHECK_EQ(how, NET_RING);
    m.tiers[0].reduces = true;
    m.algorithms |= 1u << NET_IN_SWITCH;
    net_seconds(&m, NET_ALLREDUCE, (struct net_group){ 8, 1, 1 }, 1e9, &how);
    CHECK_EQ(how, NET_IN_SWITCH);
    double last = 0; /* bus bandwidth only grows with size */
    for (double bytes = 1e3; bytes < 1e11; bytes *= 2) {
        struct net_group g = { 64, 1, 1 };
        double rate = net_bus_bytes(NET_ALLREDUCE, 64, bytes) /
                      net_seconds(&m, NET_ALLREDUCE, g, bytes, NULL).mid;
        CHECK(rate >= last);
        last = rate;
    }
}

TEST(what_is_shared_takes_longer)
{
    struct plan_machine m = nodes();
    double large = 1e11;
    double alone = seconds(&m, NET_ALLREDUCE, NET_RING, 64, 8, large);
    m.tiers[1].oversubscription = 4;
    CHECK_NEAR(seconds(&m, NET_ALLREDUCE, NET_RING, 64, 8, large) / alone, 4, 0.01);
    CHECK_NEAR(seconds(&m, NET_ALLREDUCE, NET_RING, 8, 1, large) * 400e9 / large, 1.75, 0.01);
    m.tiers[1].oversubscription = 1;
    double shared = net_seconds_by(&m, NET_ALLREDUCE, NET_RING, (struct net_group){ 64, 8, 3 },
                                   large);
    CHECK_NEAR(shared / alone, 3, 0.01);
    m.tiers[0].wiring = PLAN_MESH; /* two of eight use one of seven links */
    CHECK_NEAR(seconds(&m, NET_SENDRECV, NET_DIRECT, 2, 1, large) * 400e9 / large, 7, 0.01);
    CHECK_NEAR(seconds(&m, NET_ALLGATHER, NET_RING, 8, 1, large) * 400e9 / large, 7.0 / 8, 0.01);
}

TEST(over_rails_another_place_is_reached_by_way_of_the_node)
{
    struct plan_machine m = nodes();
    double hop = 3e-6 + X / 400e9, out = 8e-6 + X / 50e9;
    m.tiers[1].wiring = PLAN_RAIL;
    CHECK_NEAR(seconds(&m, NET_SENDRECV, NET_DIRECT, 2, 8, X), out, 1e-12); /* of one place */
    CHECK_NEAR(seconds(&m, NET_SENDRECV, NET_DIRECT, 2, 12, X), out + hop, 1e-12);
    m.tiers[0].bytes_per_s.mid = 50e9; /* what stays in the node, and 7 of 8 parts of the rest */
    double inside = 7.0 / 64 + 56.0 / 64;
    double rails = seconds(&m, NET_ALLTOALL, NET_DIRECT, 64, 1, 1e12) * 50e9 / 1e12;
    CHECK_NEAR(rails, 63.0 / 64 + 56.0 / 64 * 7 / 8, 0.01);
    CHECK(rails > inside);
}

TEST(a_torus_is_crossed_by_what_goes_far)
{
    struct plan_machine m = flat();
    m.tiers[0].wiring = PLAN_TORUS;
    m.tiers[0].axes = 3; /* 8 x 8 x 8: a byte makes 3 x 8 / 4 hops */
    CHECK_NEAR(seconds(&m, NET_ALLTOALL, NET_DIRECT, 512, 1, 1e12) * flat_rate / 1e12, 6, 0.02);
    CHECK_NEAR(seconds(&m, NET_ALLGATHER, NET_RING, 512, 1, 1e12) * flat_rate / 1e12, 1, 0.01);
}

TEST(bands_stay_in_order)
{
    struct plan_machine m = nodes();
    for (int op = 0; op < NET_OPS; op++)
        for (i64 n = 2; n <= 512; n *= 4)
            for (double bytes = 1e3; bytes < 1e10; bytes *= 100) {
                struct net_group g = { op == NET_SENDRECV ? 2 : n, 1, 1 };
                struct plan_band t = net_seconds(&m, op, g, bytes, NULL);
                CHECK(t.lo > 0 && t.lo <= t.mid && t.mid <= t.hi && isfinite(t.hi));
            }
}

/* Of machines whose tiers were fitted to published rows: a change that makes them worse is seen. */
TEST(measured_collectives_are_met)
{
    static const struct { const char *name; i64 rows, inside; double median, mean; } sets[] = {
        { "p5-efa", 31, 27, 0.07, 0.17 },
        { "dgx-a100", 18, 16, 0.08, 0.12 },
        { "a100-100g", 17, 14, 0.10, 0.15 },
        { "mi300x-roce", 2, 2, 0.05, 0.05 },
    };
    struct arena a;
    arena_init(&a);
    for (i64 i = 0; i < COUNT_OF(sets); i++) {
        struct plan_machine m;
        struct net_fact *facts;
        i64 n;
        CHECK_OK(plan_machine_load(&m, sets[i].name, &a));
        CHECK_OK(net_facts_of(&m, &facts, &n, &a));
        CHECK_EQ(n, sets[i].rows);
        struct net_errors e = net_facts_errors(facts, n, &a);
        CHECK(e.inside >= sets[i].inside);
        CHECK(e.median < sets[i].median && e.mean < sets[i].mean);
    }
    struct plan_machine none;
    struct net_fact *facts;
    i64 n;
    CHECK_OK(plan_machine_load(&none, "h100-sxm-roce", &a));
    CHECK_FAILS(net_facts_of(&none, &facts, &n, &a), ERR_CONFIG, "names no measured system");
    arena_fini(&a);
}

TEST_MAIN(ONE(on_one_tier_the_forms_are_closed), ONE(rings_take_what_walking_their_links_takes),
          ONE(groups_are_spread_over_tiers), ONE(nodes_are_entered_by_all_their_links),
          ONE(small_messages_go_by_trees_and_large_ones_by_rings), ONE(what_is_shared_takes_longer),
          ONE(over_rails_another_place_is_reached_by_way_of_the_node),
          ONE(a_torus_is_crossed_by_what_goes_far), ONE(bands_stay_in_order),
          ONE(measured_collectives_are_met))
