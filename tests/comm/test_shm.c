/* Processes of one node: right results, and what they say when one of them is gone. */
#include "base/sys.h"
#include "base/sys_share.h"
#include "comm/comm.h"
#include "comm/lane.h"
#include "comm/flight.h"
#include "comm/local.h"
#include "comm/selftest.h"
#include "test.h"

#include <signal.h>

enum { MEMBERS = 8 };

static struct comm_group *world_of(struct comm *c)
{
    int members[MEMBERS] = { 0, 1, 2, 3, 4, 5, 6, 7 };
    struct comm_group *g = NULL;
    comm_group_new(&g, c, "dp", members, c->size);
    return g;
}

static int run_trials(struct comm *c, void *context)
{
    i64 calls;
    return comm_selftest(world_of(c), *(const int *)context, &calls);
}

/* Slots of 256 bytes make every call one of many rounds. */
TEST(every_operation_is_right_between_processes)
{
    static const int ranks[] = { 2, 3, 4, 8 };
    for (i64 i = 0; i < COUNT_OF(ranks); i++) {
        for (int small = 0; small < 2; small++) {
            int step = ranks[i] == 2 && !small ? 1 : 11;
            struct comm_local l = { .ranks = ranks[i], .deadline_s = 60,
                                    .slot_bytes = small ? 256 : 0 };
            CHECK_OK(comm_local_run(&l, run_trials, &step));
        }
    }
}

static int run_many_groups(struct comm *c, void *context)
{
    (void)context;
    for (int i = 0; i < 20; i++) {
        int pair[2] = { c->rank & ~1, c->rank | 1 };
        float in = (float)(c->rank + i), out = 0;
        struct comm_group *g, *h = world_of(c);
        TRY(comm_group_new(&g, c, "tp", pair, 2));
        struct comm_call a = { .op = COMM_ALLREDUCE, .group = g, .in = &in, .out = &out,
                               .count = 1 };
        TRY(comm_run(&a));
        if (out != (float)(2 * (c->rank & ~1) + 1 + 2 * i))
            return err_set(ERR_INTERNAL, "pair %d gave %g", i, (double)out);
        struct comm_call b = { .op = COMM_ALLREDUCE, .group = h, .in = &in, .out = &out,
                               .count = 1, .reduce = COMM_MAX };
        TRY(comm_run(&b));
        if (out != (float)(c->size - 1 + i))
            return err_set(ERR_INTERNAL, "world %d gave %g", i, (double)out);
    }
    return OK;
}

TEST(groups_with_the_same_members_are_different_groups)
{
    struct comm_local l = { .ranks = 4, .deadline_s = 60 };
    CHECK_OK(comm_local_run(&l, run_many_groups, NULL));
}

/* Everybody sends to everybody before it receives, with messages larger than any ring. */
static int send_first(struct comm *c, void *context)
{
    enum { COUNT = 300000 };
    static float in[COUNT], out[MEMBERS][COUNT];
    struct comm_call calls[2 * MEMBERS];
    struct comm_group *g = world_of(c);
    int n = 0, first = context != NULL;
    for (int i = 0; i < COUNT; i++)
        in[i] = (float)(c->rank * 1000 + i % 1000);
    for (int pass = 0; pass < 2; pass++)
        for (int m = 0; m < g->n; m++)
            if (m != g->index) {
                calls[n] = (struct comm_call){ .op = pass == first ? COMM_SEND : COMM_RECV,
                                               .group = g, .count = COUNT, .peer = m };
                calls[n].in = in;
                calls[n].out = out[m];
                TRY(comm_start(&calls[n++]));
            }
    for (int k = 0; k < n; k++)
        TRY(comm_wait(&calls[k]));
    for (int m = 0; m < g->n; m++)
        for (int i = 0; m != g->index && i < COUNT; i++)
            if (out[m][i] != (float)(m * 1000 + i % 1000))
                return err_set(ERR_INTERNAL, "element %d from %d is wrong", i, m);
    return OK;
}

TEST(waiting_for_one_call_moves_the_others_on)
{
    struct comm_local l = { .ranks = 3, .deadline_s = 60 };
    CHECK_OK(comm_local_run(&l, send_first, NULL));
    CHECK_OK(comm_local_run(&l, send_first, &l));
}

/* The computing thread looks at the status and does nothing else. */
static int compute_beside_lane(struct comm *c, void *context)
{
    enum { CALLS = 5, COUNT = 400000 };
    static float in[COUNT], out[CALLS][COUNT];
    struct comm_call calls[CALLS];
    struct comm_lane *lane;
    struct comm_group *g = world_of(c);
    i64 *counted = context, steps = 0;
    TRY(comm_lane_new(&lane, c, -1));
    for (int k = 0; k < CALLS; k++) {
        calls[k] = (struct comm_call){ .op = COMM_ALLREDUCE, .group = g, .in = in,
                                       .out = out[k], .count = COUNT, .tag = (u32)k };
        comm_lane_submit(lane, &calls[k]);
    }
    while (calls[CALLS - 1].status == COMM_STARTED)
        steps++;
    *counted = steps;
    int rc = OK;
    for (int k = 0; k < CALLS && rc == OK; k++)
        rc = comm_lane_wait(lane, &calls[k]);
    comm_lane_free(lane);
    if (rc == OK && steps == 0)
        return err_set(ERR_INTERNAL, "the lane ended before anything was computed");
    return rc;
}

TEST(a_lane_moves_calls_while_its_rank_computes)
{
    i64 counted;
    struct comm_local l = { .ranks = 2, .deadline_s = 60 };
    CHECK_OK(comm_local_run(&l, compute_beside_lane, &counted));
}

/* Both send first and receive then, in one lane. */
static int exchange_in_lane(struct comm *c, void *context)
{
    enum { COUNT = 300000 };
    static float in[COUNT], out[COUNT];
    struct comm_lane *lane;
    struct comm_group *g = world_of(c);
    (void)context;
    in[COUNT - 1] = (float)c->rank + 1;
    TRY(comm_lane_new(&lane, c, -1));
    struct comm_call send = { .op = COMM_SEND, .group = g, .in = in, .count = COUNT,
                              .peer = 1 - c->rank };
    struct comm_call recv = { .op = COMM_RECV, .group = g, .out = out, .count = COUNT,
                              .peer = 1 - c->rank };
    comm_lane_submit(lane, &send);
    comm_lane_submit(lane, &recv);
    int rc = comm_lane_wait(lane, &recv);
    if (rc == OK)
        rc = comm_lane_wait(lane, &send);
    comm_lane_free(lane);
    if (rc == OK && out[COUNT - 1] != (float)(2 - c->rank))
        return err_set(ERR_INTERNAL, "rank %d got %g", c->rank, (double)out[COUNT - 1]);
    return rc;
}

TEST(a_send_does_not_hold_up_the_receive_behind_it)
{
    struct comm_local l = { .ranks = 2, .deadline_s = 60 };
    CHECK_OK(comm_local_run(&l, exchange_in_lane, NULL));
}

/* The lane fails; so does what comes after, with the same words. */
static int lane_meets_death(struct comm *c, void *context)
{
    struct comm_lane *lane;
    struct comm_group *g = world_of(c);
    (void)context;
    if (c->rank == 1)
        raise(SIGKILL);
    struct comm_call calls[2] = { { .op = COMM_BARRIER, .group = g },
                                  { .op = COMM_BARRIER, .group = g } };
    TRY(comm_lane_new(&lane, c, -1));
    comm_lane_submit(lane, &calls[0]);
    comm_lane_submit(lane, &calls[1]);
    int second = comm_lane_wait(lane, &calls[1]), first = comm_lane_wait(lane, &calls[0]);
    comm_lane_free(lane);
    return first == ERR_PEER && second == ERR_PEER ? first : err_set(ERR_INTERNAL, "no error");
}

TEST(a_lane_tells_who_died)
{
    struct comm_local l = { .ranks = 2, .deadline_s = 60 };
    CHECK_FAILS(comm_local_run(&l, lane_meets_death, NULL), ERR_PEER, "died before its first call");
}

/* All ranks work until rank `victim` of them meets its fate in step 5. */
struct fate {
    int victim, signal, step;
    bool leaves, differs, fails;
};

static int meet_fate(const struct fate *f)
{
    if (f->signal)
        raise(f->signal);
    return f->fails ? err_set(ERR_NUMERIC, "the loss is not finite") : OK;
}

static int work(struct comm *c, void *context)
{
    const struct fate *f = context;
    static float in[4096], out[4096];
    struct comm_group *g = world_of(c);
    for (int i = 0; i < 10; i++) {
        bool mine = c->rank == f->victim && i == f->step;
        struct comm_call call = { .op = COMM_ALLREDUCE, .group = g, .in = in, .out = out,
                                  .count = mine && f->differs ? 100 : 4096, .tag = (u32)i };
        if (mine && f->leaves)
            return OK;
        if (mine)
            TRY(meet_fate(f));
        TRY(comm_run(&call));
    }
    return OK;
}

static double seconds_to_fail(const struct fate *f, int ranks, double deadline, int code,
                              const char *text)
{
    struct comm_local l = { .ranks = ranks, .deadline_s = deadline };
    u64 begin = sys_now_ns();
    CHECK_FAILS(comm_local_run(&l, work, (void *)(uintptr_t)f), code, text);
    return 1e-9 * (double)(sys_now_ns() - begin);
}

TEST(a_dead_rank_is_named_within_a_second)
{
    struct fate f = { .victim = 2, .signal = SIGKILL, .step = 5 };
    double took = seconds_to_fail(&f, 4, 30, ERR_PEER, "rank 2 (pid ");
    CHECK(strstr(err_message(), "died after allreduce 4 on dp (tag 4, 16384 bytes)"));
    CHECK(took < 1.0);
}

TEST(a_stopped_rank_is_named_with_the_call_it_did_not_reach)
{
    struct fate f = { .victim = 1, .signal = SIGSTOP, .step = 5 };
    seconds_to_fail(&f, 3, 0.3, ERR_HANG, "rank 1 (pid ");
    CHECK(strstr(err_message(), "stopped) did not reach allreduce 5 on dp (tag 5, 16384 bytes)"));
    CHECK(strstr(err_message(), "its last call, allreduce 4 on dp") != NULL);
}

struct lateness {
    bool stops, untimed;
};

/* Rank 1 stops, or sleeps for a while, in step 5; the deadline is far away. */
static int work_patiently(struct comm *c, void *context)
{
    static float data[64];
    struct comm_group *g = world_of(c);
    const struct lateness *late = context;
    atomic_store(&c->patience_ns, (u64)300 * 1000 * 1000);
    atomic_store(&c->untimed, late->untimed);
    for (int i = 0; i < 10; i++) {
        struct comm_call call = { .op = COMM_ALLREDUCE, .group = g, .in = data, .out = data,
                                  .count = 64, .tag = (u32)i };
        if (c->rank == 1 && i == 5 && late->stops)
            raise(SIGSTOP);
        if (c->rank == 1 && i == 5)
            sys_sleep_ns((u64)700 * 1000 * 1000);
        TRY(comm_run(&call));
        if (c->rank == 0 && i == 5 && !call.looked)
            return err_set(ERR_INTERNAL, "nobody looked");
    }
    return OK;
}

TEST(patience_ends_sooner_with_a_stopped_rank_than_with_a_late_one)
{
    struct comm_local l = { .ranks = 3, .deadline_s = 60 };
    struct lateness late = { .stops = true };
    for (int i = 0; i < 2; i++, late.untimed = true) { /* before the first step, too */
        u64 begin = sys_now_ns();
        CHECK_FAILS(comm_local_run(&l, work_patiently, &late), ERR_HANG,
                    "stopped) did not reach allreduce 5");
        CHECK(sys_now_ns() - begin < (u64)10 * 1000 * 1000 * 1000);
    }
    late.stops = false;
    CHECK_OK(comm_local_run(&l, work_patiently, &late));
}

TEST(a_rank_that_leaves_early_is_named)
{
    struct fate f = { .victim = 0, .leaves = true, .step = 3 };
    seconds_to_fail(&f, 2, 30, ERR_PEER, "rank 0 ended without reaching allreduce 3 on dp");
}

TEST(a_rank_that_fails_tells_the_others_why)
{
    struct fate f = { .victim = 1, .fails = true, .step = 3 };
    seconds_to_fail(&f, 2, 30, ERR_NUMERIC, "rank 1: the loss is not finite");
}

TEST(ranks_that_disagree_are_both_named)
{
    struct fate f = { .victim = 1, .differs = true, .step = 2 };
    seconds_to_fail(&f, 2, 30, ERR_INTERNAL, "ranks do not agree: rank ");
    CHECK(strstr(err_message(), "allreduce 2 on dp (tag 2, 400 bytes)") != NULL);
    CHECK(strstr(err_message(), "allreduce 2 on dp (tag 2, 16384 bytes)") != NULL);
}

/* Steps of calls, in which like ones follow each other; in the third one a rank leaves one out. */
static int work_in_steps(struct comm *c, void *context)
{
    static const i64 counts[] = { 64, 128, 128, 128, 32, 256 };
    static float data[256];
    const struct fate *f = context;
    struct comm_group *g = world_of(c);
    for (int i = 0; i < 3; i++)
        for (int k = 0; k < COUNT_OF(counts); k++) {
            struct comm_call call = { .op = COMM_ALLREDUCE, .group = g, .in = data, .out = data,
                                      .count = counts[k], .tag = 7 };
            if (i < 2 || k != f->step || c->rank != f->victim)
                TRY(comm_run(&call));
        }
    return OK;
}

TEST(who_left_out_a_call_is_told_from_who_made_it)
{
    static const char *const names[] = { "rank 0 left its order of calls: ranks do not agree",
                                         "rank 1 left its order of calls: ranks do not agree" };
    for (int victim = 0; victim < 2; victim++)
        for (int step = 0; step < 5; step++) {
            struct fate f = { .victim = victim, .step = step };
            struct comm_local l = { .ranks = 2, .deadline_s = 30 };
            CHECK_FAILS(comm_local_run(&l, work_in_steps, &f), ERR_INTERNAL, names[victim]);
            CHECK_EQ(comm_absent_in(err_message()), victim);
        }
}

TEST_MAIN(ONE(who_left_out_a_call_is_told_from_who_made_it),
          ONE(every_operation_is_right_between_processes),
          ONE(groups_with_the_same_members_are_different_groups),
          ONE(waiting_for_one_call_moves_the_others_on),
          ONE(a_lane_moves_calls_while_its_rank_computes),
          ONE(a_send_does_not_hold_up_the_receive_behind_it),
          ONE(a_lane_tells_who_died),
          ONE(a_dead_rank_is_named_within_a_second),
          ONE(a_stopped_rank_is_named_with_the_call_it_did_not_reach),
          ONE(patience_ends_sooner_with_a_stopped_rank_than_with_a_late_one),
          ONE(a_rank_that_leaves_early_is_named),
          ONE(a_rank_that_fails_tells_the_others_why),
          ONE(ranks_that_disagree_are_both_named))
