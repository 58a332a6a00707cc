/* Calls and their meaning, on one rank and on N ranks in one thread. */
#include "base/sys.h"
#include "comm/ask.h"
#include "comm/comm.h"
#include "comm/flight.h"
#include "comm/reduce.h"
#include "comm/selftest.h"
#include "comm/sim.h"
#include "comm/transport.h"
#include "test.h"

enum { MEMBERS = 8 };

static struct trial_side sides[MEMBERS];

static struct comm_group *group_of(struct comm *c, const char *axis, int n)
{
    int members[MEMBERS] = { 0, 1, 2, 3, 4, 5, 6, 7 };
    struct comm_group *g;
    CHECK_OK(comm_group_new(&g, c, axis, members, n));
    return g;
}

/* Starts a member's calls; where they claim to have ended, looks at the result at once. */
static const char *start_member(const struct trial *t, int m)
{
    int ended = 0;
    for (int k = 0; k < sides[m].calls; k++) {
        CHECK_OK(comm_start(&sides[m].call[k]));
        ended += sides[m].call[k].ended;
    }
    return ended == sides[m].calls ? trial_check(t, &sides[m], m) : NULL;
}

/* What is wrong with a trial, or NULL. */
static const char *try(const struct trial *t, struct comm_group **groups)
{
    const char *wrong = NULL;
    for (int m = 0; m < t->n; m++)
        trial_prepare(t, &sides[m], groups[m]);
    for (int m = t->n - 1; m >= 0; m--) {
        const char *early = start_member(t, m);
        wrong = wrong ? wrong : early;
    }
    for (int m = 0; m < t->n; m++)
        for (int k = 0; k < sides[m].calls; k++)
            CHECK_EQ(comm_test(&sides[m].call[k]), 1);
    for (int m = 0; m < t->n && !wrong; m++)
        wrong = trial_check(t, &sides[m], m);
    return wrong;
}

static void run_trial(const struct trial *t, struct comm_group **groups)
{
    const char *wrong = try(t, groups);
    if (wrong)
        fail_msg("%s %s of %lld, %d members: %s", comm_op_name(t->op), dtype_name(t->dtype),
                 (long long)t->count, t->n, wrong);
}

TEST(every_operation_is_right_on_one_rank)
{
    struct comm *c;
    struct trial t;
    CHECK_OK(comm_self_new(&c));
    struct comm_group *g = group_of(c, "dp", 1);
    for (int at = 0; trial_next(&t, 1, &at);)
        run_trial(&t, &g);
    CHECK_EQ(comm_axis_count(c, "dp").sent_bytes, 0);
    comm_free(c);
}

TEST(every_operation_is_right_on_simulated_ranks)
{
    for (int n = 1; n <= MEMBERS; n++) {
        int step = n == 3 ? 1 : 7; /* 7: every operation, dtype, size and variant in turn */
        struct comm_sim *s;
        struct comm_group *groups[MEMBERS];
        struct trial t;
        CHECK_OK(comm_sim_new(&s, n));
        for (int m = 0; m < n; m++)
            groups[m] = group_of(comm_sim_rank(s, m), "dp", n);
        for (int at = 0; trial_next(&t, n, &at); at += step - 1)
            run_trial(&t, groups);
        comm_sim_free(s);
    }
}

/* --- mistakes that a transport could make ------------------------------------------- */

static const struct comm_transport *honest;

/* Says that a call has ended before the others came. */
static int without_waiting(struct comm_call *call)
{
    TRY(honest->start(call));
    call->ended = true;
    return OK;
}

/* Member 0 gives the buffer of member 1 and the other way round. */
static int with_swapped_buffers(struct comm_call *call)
{
    int m = call->group->index;
    if (m < 2 && call->in && call->in != call->out)
        call->in = sides[1 - m].in;
    return honest->start(call);
}

/* The sum begins with another member: the same numbers, another tree. */
static int with_another_tree(struct comm_call *call)
{
    if (call->op == COMM_ALLREDUCE && call->in != call->out)
        call->in = sides[(call->group->index + 1) % call->group->n].in;
    return honest->start(call);
}

static int without_the_last_element(struct comm_call *call)
{
    if (call->op == COMM_ALLREDUCE && call->count > 0)
        call->count--;
    return honest->start(call);
}

static int with_a_maximum(struct comm_call *call)
{
    call->reduce = COMM_MAX;
    return honest->start(call);
}

static int counting_own_parts(struct comm_call *call)
{
    TRY(honest->start(call));
    call->sent_bytes += call->op == COMM_ALL_GATHER ? comm_payload_bytes(call) : 0;
    return OK;
}

/* Trials of the honest list that a transport with this start fails. */
static int count_caught(int (*start)(struct comm_call *))
{
    struct comm_sim *s;
    struct comm_group *groups[4];
    struct trial t;
    int caught = 0;
    CHECK_OK(comm_sim_new(&s, 4));
    for (int m = 0; m < 4; m++)
        groups[m] = group_of(comm_sim_rank(s, m), "dp", 4);
    honest = groups[0]->transport;
    struct comm_transport mutant = *honest;
    mutant.start = start;
    for (int m = 0; m < 4; m++)
        groups[m]->transport = &mutant;
    for (int at = 0; trial_next(&t, 4, &at); at += 6)
        caught += try(&t, groups) != NULL;
    comm_sim_free(s);
    return caught;
}

TEST(mistakes_of_a_transport_are_caught)
{
    CHECK(count_caught(without_waiting) > 0);
    CHECK(count_caught(with_swapped_buffers) > 0);
    CHECK(count_caught(with_another_tree) > 0);
    CHECK(count_caught(without_the_last_element) > 0);
    CHECK(count_caught(with_a_maximum) > 0);
    CHECK(count_caught(counting_own_parts) > 0);
}

TEST(a_tree_over_eight_is_the_tree_over_the_sums_of_halves)
{
    enum { COUNT = 1500 };
    static float in[8][COUNT], left[COUNT], right[COUNT], two[COUNT], whole[COUNT];
    const void *inputs[8];
    for (int m = 0; m < 8; m++) {
        inputs[m] = in[m];
        for (int i = 0; i < COUNT; i++)
            in[m][i] = (float)((m + 3) * (i + 1) % 1009) / (float)(1 + (7 * m + i) % 13);
    }
    comm_reduce_tree(DTYPE_F32, COMM_SUM, 4, inputs, left, COUNT);
    comm_reduce_tree(DTYPE_F32, COMM_SUM, 4, inputs + 4, right, COUNT);
    comm_reduce_tree(DTYPE_F32, COMM_SUM, 2, (const void *[]){ left, right }, two, COUNT);
    comm_reduce_tree(DTYPE_F32, COMM_SUM, 8, inputs, whole, COUNT);
    CHECK_EQ(memcmp(two, whole, sizeof two), 0);
}

TEST(a_maximum_with_nan_is_nan)
{
    float a[4] = { 1, __builtin_nanf(""), 3, 4 }, b[4] = { 2, 2, __builtin_nanf(""), 1 }, out[4];
    comm_reduce_tree(DTYPE_F32, COMM_MAX, 2, (const void *[]){ a, b }, out, 4);
    CHECK(out[0] == 2 && out[1] != out[1] && out[2] != out[2] && out[3] == 4);
}

struct pair {
    struct comm_sim *sim;
    struct comm_group *g[2];
};

static void pair_init(struct pair *p)
{
    CHECK_OK(comm_sim_new(&p->sim, 2));
    for (int m = 0; m < 2; m++)
        p->g[m] = group_of(comm_sim_rank(p->sim, m), "dp", 2);
}

TEST(calls_meet_by_their_order_not_by_when_they_start)
{
    struct pair p;
    float in[2][3] = { { 1, 2, 3 }, { 10, 20, 30 } }, out[2][3];
    struct comm_call calls[2][3];
    pair_init(&p);
    for (int m = 0; m < 2; m++)
        for (int k = 0; k < 3; k++) {
            calls[m][k] = (struct comm_call){ .op = COMM_ALLREDUCE, .group = p.g[m], .count = 1,
                                              .in = &in[m][k], .out = &out[m][k],
                                              .tag = (u32)k };
            CHECK_OK(comm_start(&calls[m][k]));
            CHECK_EQ(comm_test(&calls[m][k]), m);
        }
    for (int k = 0; k < 3; k++)
        CHECK(out[0][k] == 11 * (float)(k + 1) && out[1][k] == out[0][k]);
    comm_sim_free(p.sim);
}

TEST(different_calls_are_refused_with_both_names)
{
    struct pair p;
    float in[4] = { 0 }, out[4];
    pair_init(&p);
    struct comm_call a = { .op = COMM_ALLREDUCE, .group = p.g[0], .in = in, .out = out,
                           .count = 4, .tag = 7 };
    struct comm_call b = { .op = COMM_BROADCAST, .group = p.g[1], .in = in, .out = out,
                           .count = 4, .tag = 9 };
    CHECK_OK(comm_start(&a));
    CHECK_FAILS(comm_start(&b), ERR_INTERNAL, "rank 1 calls broadcast 0 on dp (tag 9, 16 bytes");
    CHECK(strstr(err_message(), "rank 0 calls allreduce 0 on dp (tag 7, 16 bytes)") != NULL);
    CHECK_FAILS(comm_test(&a), ERR_INTERNAL, "failed before");
    comm_sim_free(p.sim);
}

TEST(a_call_that_breaks_the_rules_is_refused)
{
    struct pair p;
    pair_init(&p);
    struct comm_call bytes = { .op = COMM_ALLREDUCE, .group = p.g[0], .dtype = DTYPE_U8 };
    CHECK_FAILS(comm_start(&bytes), ERR_INTERNAL, "cannot be reduced");
    struct comm_call self = { .op = COMM_SEND, .group = p.g[0], .peer = 0 };
    CHECK_FAILS(comm_start(&self), ERR_INTERNAL, "to itself");
    struct comm_call far = { .op = COMM_RECV, .group = p.g[0], .peer = 2 };
    CHECK_FAILS(comm_start(&far), ERR_INTERNAL, "no member");
    struct comm_call negative = { .op = COMM_BROADCAST, .group = p.g[0], .count = -1 };
    CHECK_FAILS(comm_start(&negative), ERR_INTERNAL, "negative");
    int twice[2] = { 0, 0 }, other[1] = { 1 };
    struct comm_group *g;
    CHECK_FAILS(comm_group_new(&g, p.g[0]->comm, "tp", twice, 2), ERR_INTERNAL, "twice");
    CHECK_FAILS(comm_group_new(&g, p.g[0]->comm, "tp", other, 1), ERR_INTERNAL, "without itself");
    comm_sim_free(p.sim);
}

TEST(a_stall_names_the_absent_rank_and_the_call)
{
    struct comm_sim *s;
    struct comm_group *dp[4], *tp[4];
    CHECK_OK(comm_sim_new(&s, 4));
    for (int r = 0; r < 4; r++) {
        dp[r] = group_of(comm_sim_rank(s, r), "dp", 4);
        int pair[2] = { r & ~1, r | 1 };
        CHECK_OK(comm_group_new(&tp[r], comm_sim_rank(s, r), "tp", pair, 2));
    }
    struct comm_call calls[3] = { { .op = COMM_BARRIER, .group = dp[0], .tag = 5 },
                                  { .op = COMM_BARRIER, .group = dp[1], .tag = 5 },
                                  { .op = COMM_BARRIER, .group = tp[2], .tag = 6 } };
    for (int i = 0; i < 3; i++)
        CHECK_OK(comm_start(&calls[i]));
    /* 0 waits for 2, which waits for 3, which waits for nobody */
    CHECK_FAILS(comm_wait(&calls[0]), ERR_HANG, "rank 3 did not reach barrier 0 on tp (tag 6");
    CHECK_EQ(comm_absent_in(err_message()), 3);
    CHECK(strstr(err_message(), "where rank 2 waits") && strstr(err_message(), "no call yet"));
    comm_sim_free(s);
}

/* Two hosts with two ranks each, as rank 0 sees them; nobody can be seen but its neighbour. */
struct hosts {
    struct comm_sim *sim;
    struct comm_group *dp[4];
    struct comm_call calls[4];
    struct comm_sight sights[4];
};

static void hosts_init(struct hosts *h, const int *callers, int n)
{
    *h = (struct hosts){ 0 };
    CHECK_OK(comm_sim_new(&h->sim, 4));
    for (int r = 0; r < 4; r++) {
        h->dp[r] = group_of(comm_sim_rank(h->sim, r), "dp", 4);
        h->sights[r] = (struct comm_sight){ .pid = 100 + r, .state = 'S' };
        snprintf(h->sights[r].host, sizeof h->sights[r].host, "h%d", r / 2);
    }
    comm_sim_rank(h->sim, 0)->sights = h->sights;
    for (int i = 0; i < n; i++) {
        h->calls[i] = (struct comm_call){ .op = COMM_BARRIER, .group = h->dp[callers[i]] };
        CHECK_OK(comm_start(&h->calls[i]));
    }
}

TEST(a_silent_rank_of_another_host_is_named_before_all_others)
{
    struct hosts h;
    hosts_init(&h, (int[]){ 0, 1 }, 2);
    h.sights[3].silent = true; /* rank 2 did not reach the call, but it answers */
    comm_sim_rank(h.sim, 0)->flights[3] = NULL;
    CHECK_FAILS(comm_wait(&h.calls[0]), ERR_HANG, "rank 3 (pid 103 on h1) does not answer");
    CHECK(strstr(err_message(), "rank 0 waits in barrier 0 on dp"));
    CHECK_EQ(comm_absent_in(err_message()), 3);
    comm_sim_free(h.sim);
}

TEST(a_stopped_rank_outside_the_group_is_named_and_no_member)
{
    struct hosts h;
    hosts_init(&h, NULL, 0);
    struct comm_group *tp[2];
    for (int r = 0; r < 2; r++)
        CHECK_OK(comm_group_new(&tp[r], comm_sim_rank(h.sim, r), "tp", (int[]){ 0, 1 }, 2));
    struct comm_call out = { .op = COMM_BARRIER, .group = h.dp[2] };
    struct comm_call in = { .op = COMM_BARRIER, .group = tp[0] };
    CHECK_OK(comm_start(&out));
    CHECK_OK(comm_start(&in));
    h.sights[2].state = 'T';
    CHECK_FAILS(comm_wait(&in), ERR_HANG, "rank 2 (pid 102 on h1, stopped) stopped moving in "
                "barrier 0 on dp");
    CHECK_EQ(comm_absent_in(err_message()), 2);
    comm_sim_free(h.sim);
}

TEST(of_those_that_answer_the_one_that_did_not_reach_the_call_is_named)
{
    struct hosts h;
    hosts_init(&h, (int[]){ 0, 1, 3 }, 3);
    CHECK_FAILS(comm_wait(&h.calls[0]), ERR_HANG, "rank 2 (pid 102 on h1, sleeping) did not reach "
                "barrier 0 on dp");
    comm_sim_free(h.sim);
}

TEST(nobody_is_named_where_all_have_reached_the_call)
{
    struct hosts h;
    hosts_init(&h, (int[]){ 0, 1, 3 }, 3);
    struct comm *c = comm_sim_rank(h.sim, 0);
    struct comm_flight *own = c->flights[2], copy = *c->flights[3];
    c->flights[2] = &copy; /* it is in the call too, and no bytes move */
    CHECK_FAILS(comm_wait(&h.calls[0]), ERR_HANG, "all its members have reached it");
    CHECK_EQ(comm_absent_in(err_message()), -1);
    c->flights[2] = own;
    comm_sim_free(h.sim);
}

TEST(a_flight_that_travels_keeps_what_is_under_way_and_the_last_calls)
{
    static struct comm_flight from, to;
    static struct answer a;
    struct comm_record r = { .key = 7, .started_ns = 1000, .finished_ns = 2000, .peer = -1 };
    comm_flight_join(&from, 7);
    for (int i = 0; i < COMM_FLIGHT_RECORDS + 40; i++) {
        r.sequence = (u64)i;
        r.finished_ns = i == 100 ? 0 : 2000;
        from.records[from.written++ % COMM_FLIGHT_RECORDS] = r;
    }
    answer_pack(&a, &from);
    a.now_ns = 5000; /* the other host's clock is 10,000 ns behind */
    answer_unpack(&to, &a, 15000);
    CHECK_EQ(to.groups[0], 7);
    CHECK_EQ(to.written, ASK_NEWEST + 1);
    CHECK(to.records[0].sequence == 100 && to.records[0].finished_ns == 0);
    CHECK_EQ(to.records[0].started_ns, 11000);
    CHECK_EQ(comm_flight_last(&to)->sequence, COMM_FLIGHT_RECORDS + 39);
    CHECK_EQ(comm_flight_last(&to)->finished_ns, 12000);
}

TEST(ranks_that_wait_for_each_other_are_named)
{
    struct pair p;
    pair_init(&p);
    struct comm_call a = { .op = COMM_RECV, .group = p.g[0], .peer = 1, .tag = 1 };
    struct comm_call b = { .op = COMM_RECV, .group = p.g[1], .peer = 0, .tag = 2 };
    CHECK_OK(comm_start(&a));
    CHECK_OK(comm_start(&b));
    CHECK_FAILS(comm_wait(&a), ERR_HANG, "in a circle");
    CHECK_EQ(comm_absent_in(err_message()), -1); /* both */
    CHECK(strstr(err_message(), "from rank 0)") && strstr(err_message(), "from rank 1)"));
    comm_sim_free(p.sim);
}

static i64 idled;

static int count_idle(struct comm *c, u32 bell, u64 idle)
{
    (void)c, (void)bell, (void)idle;
    idled++;
    return OK;
}

/* No bell rings when time is over: who rested just then would rest for long. */
TEST(who_waits_for_what_is_held_back_looks_once_more_when_its_time_is_over)
{
    struct pair p;
    pair_init(&p);
    struct comm *c = p.g[0]->comm;
    struct comm_transport counting = *p.g[0]->transport;
    counting.idle = count_idle;
    c->transport = p.g[0]->transport = &counting;
    struct comm_call own = { .op = COMM_BARRIER, .group = p.g[0], .delay_ns = 1000 };
    struct comm_call other = { .op = COMM_BARRIER, .group = p.g[1] };
    CHECK_OK(comm_start(&own));
    CHECK_OK(comm_start(&other));
    CHECK_EQ(comm_test(&own), 0); /* ended, and held */
    while (sys_now_ns() < own.release_ns)
        ;
    idled = 0;
    CHECK_OK(comm_rest(c, 0, 0));
    CHECK_EQ(idled, 0);
    CHECK_OK(comm_rest(c, 0, 0));
    CHECK_EQ(idled, 1);
    CHECK_EQ(comm_test(&own), 1);
    comm_sim_free(p.sim);
}

TEST(the_last_of_what_is_held_back_counts)
{
    struct pair p;
    pair_init(&p);
    struct comm *c = p.g[0]->comm;
    struct comm_call late = { .op = COMM_BARRIER, .group = p.g[0], .delay_ns = 3600000000000u };
    struct comm_call soon = { .op = COMM_BARRIER, .group = group_of(c, "tp", 2), .delay_ns = 1000 };
    struct comm_group *peer = group_of(p.g[1]->comm, "tp", 2);
    struct comm_call others[] = { { .op = COMM_BARRIER, .group = p.g[1] },
                                  { .op = COMM_BARRIER, .group = peer } };
    CHECK_OK(comm_start(&late));
    CHECK_OK(comm_start(&soon));
    for (int i = 0; i < 2; i++)
        CHECK_OK(comm_start(&others[i]));
    CHECK_EQ(comm_test(&late), 0);
    CHECK_EQ(comm_test(&soon), 0);
    CHECK_EQ(c->held_ns, late.release_ns);
    comm_sim_free(p.sim);
}

TEST_MAIN(ONE(every_operation_is_right_on_one_rank),
          ONE(who_waits_for_what_is_held_back_looks_once_more_when_its_time_is_over),
          ONE(the_last_of_what_is_held_back_counts),
          ONE(every_operation_is_right_on_simulated_ranks),
          ONE(mistakes_of_a_transport_are_caught),
          ONE(a_tree_over_eight_is_the_tree_over_the_sums_of_halves),
          ONE(a_maximum_with_nan_is_nan),
          ONE(calls_meet_by_their_order_not_by_when_they_start),
          ONE(different_calls_are_refused_with_both_names),
          ONE(a_call_that_breaks_the_rules_is_refused),
          ONE(a_stall_names_the_absent_rank_and_the_call),
          ONE(a_silent_rank_of_another_host_is_named_before_all_others),
          ONE(a_stopped_rank_outside_the_group_is_named_and_no_member),
          ONE(of_those_that_answer_the_one_that_did_not_reach_the_call_is_named),
          ONE(nobody_is_named_where_all_have_reached_the_call),
          ONE(a_flight_that_travels_keeps_what_is_under_way_and_the_last_calls),
          ONE(ranks_that_wait_for_each_other_are_named))
