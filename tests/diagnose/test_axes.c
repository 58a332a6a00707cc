/* C7: which axis crosses domains of ranks, and in which order less would. */
#include "test.h"

#include "diagnose/plant.h"
#include "diagnose/rule.h"

static const struct finding *look(const struct measure *m)
{
    static struct finding f;
    f = (struct finding){ .place = { .rank = -1, .peer = -1, .stage = -1, .layer = -1,
                                     .first_step = -1, .last_step = -1, .last_rank = -1 } };
    return rules_axes[0].look(m, rules_axes[0].limit, &f) ? &f : NULL;
}

static struct measure *across(struct arena *a)
{
    struct measure *m = usual_run(4, STEPS, a);
    c7(m, a);
    return m;
}

TEST(tensor_parallel_ranks_on_two_hosts_are_told_to_change_places)
{
    struct arena a;
    arena_init(&a);
    const struct measure *m = across(&a);
    const struct finding *f = look(m);
    CHECK(f);
    CHECK_STR(f->place.lane, "tp");
    CHECK(strstr(f->fix, "--layout.order tp-dp-pp"));
    CHECK(f->edit.kind == EDIT_PLACES && f->edit.order == 0 && f->asks_replay);
    CHECK_NEAR(f->gain, 0.03 * 0.75, 1e-4); /* four times as fast; dp hides what it takes more */
    CHECK_EQ(f->n_rejected, 2);
    arena_fini(&a);
}

TEST(no_order_is_proposed_that_does_not_help_or_is_not_known_to)
{
    struct arena a;
    arena_init(&a);
    struct measure *m = across(&a);
    m->domains.n = 0; /* nothing was found before the run */
    CHECK(!look(m));
    m = across(&a);
    m->domains.far_probed = 3e9; /* equal links, as far as was measured */
    CHECK(!look(m));
    m = across(&a);
    m->domains.far_bytes_per_s = 3e9; /* and in the run */
    CHECK(!look(m));
    m = across(&a);
    m->domains.near_bytes_per_s = NAN; /* no exchange lies within a domain: they are all slow (C4) */
    CHECK(!look(m));
    m = across(&a);
    m->domains.crosses[LANE_TP] = 0; /* it lies well */
    CHECK(!look(m));
    m = across(&a);
    m->lanes[1].exposed_s = m->lanes[1].transfer_s = 0.06; /* dp would cost more than tp does */
    m->lanes[1].backward_s = 0;
    CHECK(!look(m));
    m = across(&a);
    m->lanes[0].exposed_s = 0.001; /* what it takes is hidden */
    CHECK(!look(m));
    arena_fini(&a);
}

TEST(groups_cross_where_their_ranks_lie)
{
    struct arena a;
    arena_init(&a);
    const struct measure *m = across(&a);
    const i32 tp[] = { 1, 3 }, dp[] = { 0, 1 }, *to = m->domains.orders[0].to;
    CHECK(measure_crosses(m, tp, 2, NULL) && !measure_crosses(m, tp, 2, to));
    CHECK(!measure_crosses(m, dp, 2, NULL) && measure_crosses(m, dp, 2, to));
    CHECK(!measure_crosses(m, (const i32[]){ 2, -1, 7, 3 }, 4, NULL)); /* of a damaged record */
    arena_fini(&a);
}

TEST_MAIN(ONE(tensor_parallel_ranks_on_two_hosts_are_told_to_change_places),
          ONE(no_order_is_proposed_that_does_not_help_or_is_not_known_to),
          ONE(groups_cross_where_their_ranks_lie))
