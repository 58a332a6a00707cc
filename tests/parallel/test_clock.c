#include "test.h"

#include "base/sys.h"
#include "comm/local.h"
#include "parallel/clock.h"

/* The other clock is 1000 ahead; only the quick trip is symmetric enough to show it. */
TEST(the_quickest_trip_tells_the_shift)
{
    const struct clock_trip trips[] = {
        { 0, 1010 + 700, 800 }, { 900, 900 + 5 + 1000, 910 }, { 1000, 1000 + 20 + 1000, 1400 },
    };
    CHECK_EQ(clock_fit(trips, COUNT_OF(trips)), -1000);
    CHECK_EQ(clock_fit(trips, 1), 400 - 1710);
}

static u64 ahead(void)
{
    return sys_now_ns() + 5000000000u;
}

static int ping(struct comm *c, void *context)
{
    struct mesh m;
    i64 shift, shared = 1;
    (void)context;
    TRY(mesh_meet(&m, c));
    TRY(clock_ping(m.world, 1, c->rank ? ahead : sys_now_ns, &shift));
    TRY(clock_shift(&m, &shared)); /* one node, one clock */
    i64 error = shift + 5000000000;
    if (error < -20000000 || error > 20000000 || shared != 0)
        return err_set(ERR_INTERNAL, "shift %lld", (long long)shift);
    return OK;
}

/* 20 ms: two ranks may take turns on one core. */
TEST(ranks_find_how_far_apart_their_clocks_are)
{
    CHECK_OK(comm_local_run(&(struct comm_local){ .ranks = 2, .deadline_s = 20 }, ping, NULL));
}

TEST_MAIN(ONE(the_quickest_trip_tells_the_shift), ONE(ranks_find_how_far_apart_their_clocks_are))
