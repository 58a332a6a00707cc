/* A step's band beside what the links' bands make of it. */
#include "test.h"

#include "plan/net_band.h"

#include <math.h>

/* 8 seconds of computing and one each for messages of tp (in the node) and of dp (out of it). */
static struct plan_step step_of(const struct plan_machine *m, const struct plan_layout *l)
{
    struct plan_family f = { .link = 1, .net = 1 };
    struct plan_job job = { .machine = m, .family = &f };
    struct plan_step s = { .seconds = 10, .band = { 9, 10, 12 } };
    s.terms[PLAN_IDEAL] = 8;
    s.terms[PLAN_TP] = s.terms[PLAN_DP] = 1;
    plan_widen_by_network(&job, l, &s);
    return s;
}

static struct plan_machine nodes(void)
{
    struct plan_machine m = { .n_tiers = 2, .node_ranks = 8 };
    m.device.network_bytes_per_s = 50e9;
    m.tiers[0] = (struct plan_tier){ .ranks = 8, .bytes_per_s = { 400e9, 400e9, 400e9 },
                                     .oversubscription = 1 };
    m.tiers[1] = (struct plan_tier){ .ranks = 1024, .bytes_per_s = { 40e9, 40e9, 40e9 },
                                     .oversubscription = 1 };
    return m;
}

TEST(links_without_a_band_change_nothing)
{
    struct plan_machine m = nodes();
    struct plan_layout l = { .tp = 8, .cp = 1, .pp = 1, .dp = 16, .ep = 1 };
    struct plan_step s = step_of(&m, &l);
    CHECK_NEAR(s.band.lo, 9, 1e-12);
    CHECK_NEAR(s.band.hi, 12, 1e-12);
}

TEST(only_messages_of_a_tier_feel_its_band)
{
    struct plan_machine m = nodes();
    struct plan_layout l = { .tp = 8, .cp = 1, .pp = 1, .dp = 16, .ep = 1 };
    m.tiers[1].bytes_per_s.lo = 20e9; /* dp's second becomes two */
    struct plan_step s = step_of(&m, &l);
    CHECK_NEAR(s.band.lo, 9, 1e-12);
    CHECK_NEAR(s.band.hi, 10 * exp(hypot(log(1.2), log(1.1))), 1e-9);
    m.tiers[1].bytes_per_s.hi = 100e9; /* a device has 50 */
    s = step_of(&m, &l);
    CHECK_NEAR(s.band.lo, 10 * exp(-hypot(log(10 / 9.0), log(10 / 9.8))), 1e-9);
    l.tp = 1; /* neighbours along dp lie in one node */
    l.dp = 8;
    s = step_of(&m, &l);
    CHECK_NEAR(s.band.hi, 12, 1e-12);
}

/* Twice the ports that the data sheet has give twice as much. */
TEST(a_machine_may_have_quicker_ports_than_the_sheet)
{
    struct plan_machine m = nodes();
    double usual = plan_tier_rate(&m, 1, 0.5, m.tiers[1].bytes_per_s.mid);
    m.tiers[1].bytes_per_s = (struct plan_band){ 100e9, 100e9, 100e9 };
    CHECK_NEAR(plan_tier_rate(&m, 1, 0.5, m.tiers[1].bytes_per_s.mid), 2 * usual, 1);
}

TEST(software_gets_its_share_of_the_sheet_or_what_was_measured)
{
    struct plan_machine m = nodes();
    CHECK_NEAR(plan_tier_rate(&m, 1, 0.5, 40e9), 25e9, 1);
    CHECK_NEAR(plan_tier_rate(&m, 1, 0.9, 40e9), 40e9, 1);
    CHECK_NEAR(plan_tier_rate(&m, 0, 0.5, 400e9), 200e9, 1); /* no sheet: of the tier */
    m.tiers[1].oversubscription = 4;
    CHECK_NEAR(plan_tier_rate(&m, 1, 0.9, 40e9), 10e9, 1);
    CHECK_EQ(plan_tier_of(&m, 8, 1), 0);
    CHECK_EQ(plan_tier_of(&m, 2, 8), 1);
}

TEST_MAIN(ONE(links_without_a_band_change_nothing), ONE(only_messages_of_a_tier_feel_its_band),
          ONE(a_machine_may_have_quicker_ports_than_the_sheet),
          ONE(software_gets_its_share_of_the_sheet_or_what_was_measured))
