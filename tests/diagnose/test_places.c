/* Where a fault is: on one rank, on some, on all; in the run or on the machine; and what its
 * own noise lets one say. */
#include "test.h"

#include "diagnose/dag.h"
#include "diagnose/plant.h"

static struct findings found;

static const struct finding *first(const struct measure *m, const char *id)
{
    findings_make(&found, m, NULL);
    if (found.n == 0 || strcmp(found.at[0].id, id) != 0) {
        tell(&found, m);
        fail_msg("%s is not the first", id);
    }
    return &found.at[0];
}

static bool has(const char *id)
{
    for (int i = 0; i < found.n; i++)
        if (strcmp(found.at[i].id, id) == 0)
            return true;
    return false;
}

struct where {
    bool on[4];
    int rank, last;
};

/* One rank, two neighbours, all; and two that are no range. */
static const struct where places[] = {
    { { false, true, false, false }, 1, 0 }, { { false, true, true, false }, 1, 2 },
    { { true, true, true, true }, -1, 0 },   { { true, false, true, false }, -1, 0 },
};

static void check_place(const struct finding *f, const struct where *w)
{
    const bool several = w->rank < 0 && !w->on[1]; /* listed, and no others are edited */
    CHECK_EQ(f->place.several.n, several ? 2 : 0);
    for (int r = 0; several && r < 4; r++)
        CHECK_EQ(finding_edits_rank(&f->edit, r), w->on[r]);
    CHECK_EQ(f->place.rank, w->rank);
    CHECK_EQ(f->place.last_rank > f->place.rank ? f->place.last_rank : 0, w->last);
    for (int r = 0; w->rank >= 0 && r < 4; r++)
        CHECK_EQ(finding_edits_rank(&f->edit, r), w->on[r]);
}

TEST(a_pause_and_a_slow_clock_are_where_they_are)
{
    for (i64 i = 0; i < COUNT_OF(places); i++) {
        struct arena a;
        arena_init(&a);
        struct measure *m = usual_run(4, STEPS, &a);
        for (int r = 0; r < 4; r++)
            for (i64 k = 4; places[i].on[r] && k < STEPS; k += 5)
                m->ranks[r].gap[HOST_GAP][k] = 0.2;
        for (i64 k = 4; k < STEPS; k += 5)
            m->seconds[k] += 0.2;
        measure_settle(m);
        check_place(first(m, "H9"), &places[i]);
        m = usual_run(4, STEPS, &a);
        for (int r = 0; r < 4; r++)
            m->ranks[r].clock = places[i].on[r] ? 0.7 : 0.99;
        check_place(first(m, "K4"), &places[i]);
        arena_fini(&a);
    }
}

/* What stands between a rank's tasks in every step stays when the pause goes. */
TEST(only_what_a_pause_has_above_other_gaps_goes_with_it)
{
    struct arena a;
    arena_init(&a);
    struct measure *m = usual_run(1, STEPS, &a);
    for (i64 k = 0; k < STEPS; k++) {
        m->ranks[0].gap[HOST_GAP][k] = k % 5 == 4 ? 0.21 : 0.01;
        m->seconds[k] += m->ranks[0].gap[HOST_GAP][k];
    }
    measure_settle(m);
    const struct finding *f = first(m, "H9");
    CHECK_NEAR(f->gain, 0.04, 1e-6);
    CHECK_NEAR(f->edit.factor, 0.01 / 0.05, 1e-6);
    CHECK(f->edit.factor_lo == f->edit.factor && f->edit.factor_hi == f->edit.factor);
    arena_fini(&a);
}

/* A replay in which every edit gives back 9 ms. */
static double nine_ms_less(void *context, const struct finding_edit *e, double factor)
{
    const struct measure *m = context;
    (void)factor;
    return m->step.mean - (e ? 0.009 : 0);
}

/* What saving leaves in caches makes the step behind it slower: that goes with it, replayed or not. */
TEST(steps_behind_a_checkpoint_may_be_slower_too)
{
    static const int behind[] = { 0, 1, 2 }; /* 0: no step is slower */
    double gain[3], low[3], replayed[3];
    for (int i = 0; i < 3; i++) {
        struct arena a;
        arena_init(&a);
        struct measure *m = usual_run(1, STEPS, &a);
        m->config.checkpoint_every = 5;
        m->config.checkpoint_async = true;
        for (i64 k = 4; k < STEPS - 3; k += 5) {
            m->ranks[0].gap[HOST_CHECKPOINT][k] = 0.05;
            m->seconds[k] += 0.05;
            m->ranks[0].compute[k + behind[i]] += behind[i] > 0 ? 0.01 : 0;
        }
        measure_settle(m);
        gain[i] = first(m, "H3")->gain;
        findings_make(&found, m, &(struct finding_replay){ m, nine_ms_less });
        CHECK_STR(found.at[0].id, "H3");
        replayed[i] = found.at[0].gain;
        low[i] = found.at[0].gain_lo;
        arena_fini(&a);
    }
    CHECK_NEAR(replayed[0], 0.009, 1e-9);
    CHECK_NEAR(replayed[1] - replayed[0], gain[1] - gain[0], 1e-4);
    CHECK_NEAR(gain[1] - gain[0], 0.9 * 0.01 / 5, 4e-4); /* saving ten times more rarely */
    CHECK_NEAR(gain[2], gain[0], 1e-9); /* two steps later it is something else */
    CHECK_NEAR(low[1], low[0], 2e-4); /* which a pessimist does not count on */
}

TEST(several_ranks_may_be_slow)
{
    static const int some[] = { 0, 1, 3 };
    for (i64 n = 0; n < COUNT_OF(some); n++) {
        const i64 i = some[n];
        struct arena a;
        arena_init(&a);
        struct measure *m = usual_run(4, STEPS, &a);
        for (int r = 0; r < 4; r++)
            for (i64 k = 0; places[i].on[r] && k < STEPS; k++) {
                m->ranks[r].compute[k] += 0.045;
                m->ranks[r].last_share = 1;
            }
        longer(m, 0.045);
        const struct finding *f = first(m, "B1");
        check_place(f, &places[i]);
        CHECK_NEAR(f->gain, 0.045, 0.002);
        arena_fini(&a);
    }
}

/* While one loader is waited for the others catch up: of four alike one may have all the
 * waiting. */
TEST(loaders_that_are_alike_are_behind_together)
{
    struct arena a;
    arena_init(&a);
    for (int others = 0; others < 2; others++) {
        struct measure *m = usual_run(4, STEPS, &a);
        d1(m, &a);
        for (int r = 0; r < 4; r++)
            if (r != 1) {
                m->ranks[r].load = series(&a, others ? 0.147 : 0.08); /* wanted every 0.1 s */
                m->ranks[r].n_loads = STEPS;
            }
        CHECK_EQ(first(m, "D1")->place.rank, others ? -1 : 1);
    }
    arena_fini(&a);
}

/* Sigmas of few parts differ: where all but one have half of the worst's, all may have it. */
TEST(noise_of_all_but_one_is_noise_of_all)
{
    struct arena a;
    arena_init(&a);
    for (int odd = 1; odd < 3; odd++) { /* so many ranks of four are quiet */
        struct measure *m = usual_run(4, STEPS, &a);
        m->config.simulated = true;
        for (i64 i = 0; i < m->n_ops; i++)
            m->ops[i].roofline_s = m->ops[i].seconds;
        for (int r = 0; r < 4; r++)
            m->ranks[r].noise = r == 1 || (odd == 2 && r == 3) ? 0.03 : 0.07;
        m->loss[LOSS_BALANCE] = 0.01;
        const struct finding *f = first(m, "B3");
        CHECK_EQ(f->place.rank, -1);
        CHECK_EQ(f->place.several.n, odd == 2 ? 2 : 0);
        CHECK_EQ(finding_edits_rank(&f->edit, 1), odd == 1);
    }
    arena_fini(&a);
}

/* What a clock that stays low makes longer it makes longer in every step and task alike. */
TEST(a_low_clock_explains_no_pause_no_episode_and_no_jitter)
{
    struct arena a;
    arena_init(&a);
    struct measure *m = usual_run(2, STEPS, &a);
    k4_clock(m, &a);
    h9(m, &a);
    findings_make(&found, m, NULL);
    CHECK(has("K4") && has("H9"));
    CHECK(!has("B1")); /* which it is */
    m = usual_run(2, STEPS, &a);
    k4_clock(m, &a);
    for (i64 i = 12; i < 30; i++) {
        m->ranks[1].compute[i] += 0.09;
        m->seconds[i] += 0.09;
    }
    measure_settle(m);
    findings_make(&found, m, NULL);
    CHECK(has("K4") && has("B2"));
    for (int within = 0; within < 2; within++) { /* parts of a step, not only ranks, differ */
        m = usual_run(4, STEPS, &a);
        b3(m, &a);
        m->config.simulated = within;
        for (i64 i = 0; i < m->n_ops; i++)
            m->ops[i].roofline_s = m->ops[i].seconds;
        for (int r = 0; r < 4; r++) {
            m->ranks[r].clock = 0.85;
            m->ranks[r].noise = 0.07;
        }
        findings_make(&found, m, NULL);
        CHECK(has("K4"));
        CHECK_EQ(has("B3"), within);
    }
    arena_fini(&a);
}

/* A stage of one rank has no peers; but its tasks have a price. */
TEST(a_rank_that_is_a_stage_is_slow_only_for_its_work)
{
    for (int more_work = 0; more_work < 2; more_work++) {
        struct arena a;
        arena_init(&a);
        struct measure *m = usual_run(4, STEPS, &a);
        b4(m, &a);
        for (int r = 0; r < 4; r++)
            m->ranks[r].roofline_s = 0.08 * (more_work && r == 1 ? 0.13 / 0.09 : 1);
        const struct finding *f = first(m, more_work ? "B4" : "B1");
        CHECK_EQ(f->place.stage, 1);
        CHECK_EQ(f->place.rank, more_work ? -1 : 1);
        CHECK(!has(more_work ? "B1" : "B4"));
        arena_fini(&a);
    }
}

/* Stages of two ranks each: where both take longer than their work asks for it is the host, not how
 * layers are shared out; where one does it has its peer. */
TEST(a_stage_is_slow_where_all_its_ranks_are)
{
    for (int which = 0; which < 3; which++) { /* both ranks; both, for more work; one */
        struct arena a;
        arena_init(&a);
        struct measure *m = usual_run(8, STEPS, &a);
        m->config.pp = 4;
        m->config.dp = 2;
        m->config.micro_batches = 16;
        for (int r = 0; r < 8; r++) {
            struct measure_rank *k = &m->ranks[r];
            const bool slow = r == 4 || (r == 5 && which < 2);
            k->stage = r / 2;
            k->roofline_s = 0.08 * (which == 1 && slow ? 1.4 : 1);
            for (i64 i = 0; slow && i < STEPS; i++)
                k->compute[i] *= 1.4;
            m->stages[k->stage] += measure_mean(m, k->compute) / 2;
        }
        const struct finding *f = first(m, which == 1 ? "B4" : "B1");
        CHECK_EQ(f->place.rank, which == 1 ? -1 : 4);
        CHECK_EQ(f->place.last_rank > f->place.rank, which == 0);
        CHECK(which > 0 || f->place.last_rank == 5);
        CHECK_EQ(f->place.stage, which == 0 ? -1 : 2);
        CHECK(!has(which == 1 ? "B1" : "B4"));
        arena_fini(&a);
    }
}

/* Two stages of one rank each have no peers, but tasks of one kind: whose take longer is slow, and
 * how the layers are shared out is another matter. */
TEST(tasks_that_two_stages_have_tell_which_of_them_is_slow)
{
    for (int more_work = 0; more_work < 2; more_work++) {
        struct arena a;
        arena_init(&a);
        struct measure *m = usual_run(2, STEPS, &a);
        m->config.pp = 2;
        m->config.dp = 1;
        m->config.micro_batches = 16;
        for (int r = 0; r < 2; r++) {
            struct measure_rank *k = &m->ranks[r];
            const double work = r == 0 && more_work ? 1.4 : 1, slow = r == 1 ? 1.5 : 1;
            k->stage = r;
            k->usual_s = 0.09 * work;
            for (i64 i = 0; i < STEPS; i++)
                k->compute[i] *= work * slow;
            m->stages[r] = measure_mean(m, k->compute);
        }
        const struct finding *f = first(m, "B1");
        CHECK_EQ(f->place.rank, 1);
        CHECK_NEAR(f->gain, 0.045, 0.001);
        CHECK_EQ(has("B4"), more_work == 1);
        if (more_work)
            CHECK_EQ(found.at[1].place.stage, 0); /* though it is not the slowest as it is */
        m->ranks[1].usual_s = 0; /* and nothing is said where that is not known */
        findings_make(&found, m, NULL);
        CHECK(!has("B1"));
        arena_fini(&a);
    }
}

/* How layers are shared out is the same for all ranks of a stage and in all steps. */
TEST(a_stage_is_not_long_for_one_rank_nor_for_some_steps)
{
    for (int which = 0; which < 3; which++) { /* one rank always; both in some steps; both always */
        struct arena a;
        arena_init(&a);
        struct measure *m = usual_run(8, STEPS, &a);
        m->config.pp = 4;
        m->config.dp = 2;
        m->config.micro_batches = 16;
        for (int r = 0; r < 8; r++) {
            struct measure_rank *k = &m->ranks[r];
            k->stage = r / 2;
            k->roofline_s = 0.08 * (which == 2 && k->stage == 2 ? 1.4 : 1);
            for (i64 i = which == 1 ? 25 : 0; k->stage == 2 && i < STEPS; i++)
                k->compute[i] *= which > 0 || r == 4 ? 1.4 : 1;
            m->stages[k->stage] += measure_mean(m, k->compute) / 2;
        }
        longer(m, 0.03);
        findings_make(&found, m, NULL);
        CHECK_EQ(has("B4"), which == 2);
        arena_fini(&a);
    }
}

/* Where the times of tasks are given, nothing but a fault makes them vary, in a pipeline too, in
 * which nobody has a peer. */
TEST(tasks_that_vary_though_their_times_are_given_are_jitter)
{
    struct arena a;
    arena_init(&a);
    for (int simulated = 0; simulated < 2; simulated++) {
        struct measure *m = usual_run(2, STEPS, &a);
        m->config.pp = 2;
        m->config.micro_batches = 16;
        m->config.simulated = simulated;
        for (i64 i = 0; i < m->n_ops; i++)
            m->ops[i].roofline_s = m->ops[i].seconds;
        for (int r = 0; r < 2; r++) {
            m->ranks[r].stage = r;
            m->ranks[r].noise = 0.07;
        }
        m->loss[LOSS_BALANCE] = 0.5 * m->theta;
        findings_make(&found, m, NULL);
        CHECK_EQ(has("B3"), simulated == 1);
        if (simulated)
            CHECK_EQ(found.at[0].place.rank, -1);
        m->ranks[0].noise = 0.001;
        findings_make(&found, m, NULL);
        CHECK_EQ(has("B3"), simulated == 1);
        if (simulated)
            CHECK_EQ(found.at[0].place.rank, 1);
        m->ranks[1].noise = 0.01; /* where tasks sleep so much is usual */
        findings_make(&found, m, NULL);
        CHECK_EQ(has("B3"), simulated == 1);
        m->ranks[1].noise = 0.001;
        findings_make(&found, m, NULL);
        CHECK(!has("B3"));
    }
    arena_fini(&a);
}

/* Another lane may cost more, in rings of which the link is a part; what is known is where its own
 * lane's bytes pass. */
TEST(a_slow_link_is_of_the_lane_that_shows_it)
{
    struct arena a;
    arena_init(&a);
    struct measure *m = usual_run(4, STEPS, &a);
    c11(m, &a);
    struct measure_lane *lanes = ARENA_ARRAY(&a, struct measure_lane, 2);
    lanes[0] = lanes[1] = m->lanes[0];
    lanes[1].lane = LANE_CP;
    snprintf(lanes[1].axis, sizeof lanes[1].axis, "cp");
    lanes[1].exposed_s = 2 * lanes[0].exposed_s;
    m->lanes = lanes;
    m->n_lanes = 2;
    m->link_lane = lanes[0].lane;
    const struct finding *f = first(m, "C11");
    CHECK_STR(f->place.lane, lanes[0].axis);
    CHECK_EQ(f->edit.lane, lanes[0].lane);
    m->link_lane = LANE_CP;
    CHECK_STR(first(m, "C11")->place.lane, "cp");
    arena_fini(&a);
}

/* What all slow groups have in common is the place: one rank (whatever the lane), two, or a range;
 * and what their exchanges take longer says whether it is latency. */
TEST(the_end_that_slow_groups_share_is_where_the_link_is_slow)
{
    static const struct { int common, first, last; bool delay; const char *id; int rank, peer, to; }
    cases[] = {
        { 1, 2, 2, false, "C4", 2, -1, 0 }, { 1, 2, 2, true, "C5", 2, -1, 0 },
        { 2, 0, 2, true, "C5", 0, 2, 0 },   { 3, 1, 3, true, "C5", 1, -1, 3 },
    };
    struct arena a;
    arena_init(&a);
    for (i64 i = 0; i < COUNT_OF(cases); i++) {
        struct measure *m = usual_run(5, STEPS, &a);
        m->lanes[0].exposed_s = 0.06;
        m->loss[LOSS_TRANSFER] = 0.06;
        longer(m, 0.06);
        m->slow_end = (struct measure_slow_end){ .groups = 2, .lanes = 2, .times = 4,
            .common = cases[i].common, .first = cases[i].first, .last = cases[i].last,
            .delay_s = cases[i].delay ? 0.005 : 0, .s_per_byte = cases[i].delay ? 0 : 1.4e-9 };
        const struct finding *f = first(m, cases[i].id);
        CHECK_EQ(f->place.rank, cases[i].rank);
        CHECK_EQ(f->place.peer, cases[i].peer);
        CHECK_EQ(f->place.last_rank > f->place.rank ? f->place.last_rank : 0, cases[i].to);
        CHECK(f->edit.groups);
        CHECK(!has("C11"));
    }
    arena_fini(&a);
}

/* More than half of the ranks may be slow; but where one has less to do the others are not. */
TEST(most_ranks_may_be_slow_beside_several_that_are_not)
{
    struct arena a;
    arena_init(&a);
    for (int slow = 3; slow < 5; slow++) {
        struct measure *m = usual_run(5, STEPS, &a);
        for (int r = 0; r < slow; r++) {
            m->ranks[r].last_share = 1 / (double)slow;
            for (i64 i = 0; i < STEPS; i++)
                m->ranks[r].compute[i] *= 1.4;
        }
        findings_make(&found, m, NULL);
        CHECK_EQ(has("B1"), slow == 3);
        if (slow == 3)
            CHECK_EQ(found.at[0].place.last_rank, 2);
    }
    arena_fini(&a);
}

/* A rank that is slow in the backward pass only is not last to the gathers of the forward pass; but
 * all that others wait for is it. */
TEST(a_rank_that_is_slow_in_some_tasks_is_waited_for)
{
    struct arena a;
    arena_init(&a);
    for (int blamed = 0; blamed < 2; blamed++) {
        struct measure *m = usual_run(4, STEPS, &a);
        b1(m, &a);
        for (int r = 0; r < 4; r++) {
            m->ranks[r].last_share = r == 1 ? 0.5 : 0.17;
            m->ranks[r].blamed_share = blamed ? (r == 1 ? 0.94 : 0.02) : 0.25;
        }
        findings_make(&found, m, NULL);
        CHECK_EQ(has("B1"), blamed);
    }
    arena_fini(&a);
}

static bool says(const struct finding *f, const char *what)
{
    bool there = false;
    for (int i = 0; i < f->n_evidence; i++)
        there |= strstr(f->evidence[i], what) != NULL;
    return there;
}

/* The only ring there is: its links are not told apart, and that is said. */
TEST(of_one_ring_it_is_said_that_one_link_may_be_slow)
{
    static const struct { const char *id; void (*make)(struct measure *, struct arena *); }
        slow[] = { { "C4", c4 }, { "C5", c5 } };
    for (i64 i = 0; i < COUNT_OF(slow); i++)
        for (int members = 2; members < 5; members += 2) {
            struct arena a;
            arena_init(&a);
            struct measure *m = usual_run(4, STEPS, &a);
            slow[i].make(m, &a);
            m->lanes[0].members = members;
            CHECK_EQ(says(first(m, slow[i].id), "one slow link of the ring of 4"), members == 4);
            arena_fini(&a);
        }
}

/* Unless groups of another lane are slow, too: the two that all of them have. */
TEST(a_slow_ring_and_a_slow_pair_of_it_are_one_link)
{
    struct arena a;
    arena_init(&a);
    for (int lanes = 1; lanes < 3; lanes++) {
        struct measure *m = usual_run(8, STEPS, &a);
        c11(m, &a);
        m->n_links = 2;
        for (int g = 0; g < 2; g++)
            m->links[g] = (struct measure_link){ .a = 4 * g, .b = 4 * g + 3, .members = 4,
                .bytes_per_s = g == 1 ? 3e8 : 2e9, .base_bytes_per_s = NAN, .latency_s = NAN };
        m->slow_end = (struct measure_slow_end){ .groups = 2, .lanes = lanes, .common = 2,
            .first = 4, .last = 5, .times = 4, .s_per_byte = 1.4e-9 };
        const struct finding *f = first(m, "C11");
        CHECK_EQ(f->place.rank, 4);
        CHECK_EQ(f->place.peer, lanes == 2 ? 5 : -1);
        CHECK_EQ(f->place.last_rank > 4 ? f->place.last_rank : 0, lanes == 2 ? 0 : 7);
        CHECK_EQ(f->edit.groups, lanes == 2);
    }
    arena_fini(&a);
}

/* The only ring passes about what its slowest link did before the run: it is that link. Where it
 * passes much more, that link was like others, another is as slow, or all ranks' ring passed much
 * more before the run, it is not. */
TEST(what_was_measured_before_the_run_tells_which_link_of_the_only_ring_is_slow)
{
    /* all: what all ranks' ring passed, of which 1 and 3 are no neighbours */
    static const struct { double before, next, ring, all; int peer; const char *id; } cases[] = {
        { 3e8, 1.9e9, 3e8, 2e9, 3, "C11" }, { 3e8, NAN, 3e8, 2e9, 3, "C11" },
        { 3e8, 1.9e9, 3e8, 3e8, 2, "C11" }, { 3e8, 1.9e9, 3e8, 2e9, 2, "C4" },
        { 3e8, 1.9e9, 1.2e9, 2e9, 3, "C4" }, { 1.8e9, 1.9e9, 3e8, 2e9, 3, "C4" },
        { 3e8, 4e8, 3e8, 2e9, 3, "C4" },
    };
    struct arena a;
    arena_init(&a);
    for (i64 i = 0; i < COUNT_OF(cases); i++) {
        struct measure *m = usual_run(4, STEPS, &a);
        c4(m, &a);
        m->config.probed = (struct measure_probed){ 1, cases[i].peer, cases[i].before, 2e9,
                                                   cases[i].next };
        m->config.simulated = false;
        m->lanes[0].base_bytes_per_s = cases[i].all;
        m->n_probed_rings = 1;
        m->probed_rings[0] = (struct measure_probed_ring){ m->lanes[0].lane, cases[i].ring };
        const struct finding *f = first(m, cases[i].id);
        CHECK_EQ(f->place.rank, strcmp(cases[i].id, "C11") == 0 ? 1 : -1);
        CHECK_EQ(f->place.peer, strcmp(cases[i].id, "C11") == 0 ? cases[i].peer : -1);
        CHECK(!has(strcmp(cases[i].id, "C11") == 0 ? "C4" : "C11"));
    }
    arena_fini(&a);
}

/* Which link of a ring is slow does not show, but which ring: as a range where its ranks are
 * one. */
TEST(a_ring_is_as_fast_as_its_slowest_link)
{
    static const i32 rings[8] = { 0, 2, 4, 6, 1, 3, 5, 7 };
    struct arena a;
    arena_init(&a);
    for (int strided = 0; strided < 2; strided++) {
        struct measure *m = usual_run(8, STEPS, &a);
        c11(m, &a);
        m->n_links = 2;
        for (int g = 0; g < 2; g++)
            m->links[g] = (struct measure_link){
                .a = strided ? g : 4 * g, .b = strided ? 6 + g : 4 * g + 3, .members = 4,
                .ranks = strided ? &rings[4 * g] : NULL,
                .bytes_per_s = g == 1 ? 3e8 : 2e9, .base_bytes_per_s = NAN, .latency_s = NAN
            };
        const struct finding *f = first(m, "C11");
        CHECK_EQ(f->place.rank, strided ? -1 : 4);
        CHECK(strided || f->place.last_rank == 7);
        CHECK_EQ(f->place.peer, -1);
        CHECK_EQ(f->place.several.n, strided ? 4 : 0);
        CHECK_EQ(f->edit.groups, strided); /* no other group has both ends */
        CHECK(!strided || (f->edit.rank == 1 && f->edit.last_rank == 7 && f->edit.several.n == 0));
        CHECK(!has("C4"));
    }
    arena_fini(&a);
}

TEST(all_ranks_may_become_slow_at_once)
{
    struct arena a;
    arena_init(&a);
    struct measure *m = usual_run(4, STEPS, &a);
    for (i64 k = 12; k < 30; k++) {
        for (int r = 0; r < 4; r++)
            m->ranks[r].compute[k] += 0.045;
        m->seconds[k] += 0.045;
    }
    measure_settle(m);
    const struct finding *f = first(m, "B2");
    CHECK_EQ(f->place.rank, -1);
    CHECK_EQ(f->place.first_step, m->numbers[12]);
    CHECK_EQ(f->place.last_step, m->numbers[29]);
    arena_fini(&a);
}

struct even_noise {
    double before, quiet, even;
};

static double length_in_noise(void *context, const struct finding_edit *e, double factor)
{
    const struct even_noise *n = context;
    (void)factor;
    return !e ? n->before : n->before - (e->kind == EDIT_EVEN_ROWS ? n->even : n->quiet);
}

/* Noise in tasks lengthens whole steps by turns, too: what tells it is how well its own loss is
 * known. */
TEST(jitter_is_found_in_steps_that_vary)
{
    struct arena a;
    arena_init(&a);
    struct measure *m = usual_run(2, STEPS, &a);
    u64 seed = 5;
    for (i64 k = 0; k < STEPS; k++) {
        const double x = 0.02 * (0.6 + usual_noise(&seed));
        m->ranks[k % 2].compute[k] += x;
        m->seconds[k] += x + 0.04 * usual_noise(&seed);
    }
    measure_settle(m);
    m->loss[LOSS_BALANCE] = 0.75 * m->theta;
    first(m, "B3");
    /* Only if something comes back even where the noise stays, but evenly. */
    struct even_noise n = { .before = m->step.mean, .quiet = 0.02 };
    const struct finding_replay replay = { &n, length_in_noise };
    findings_make(&found, m, &replay);
    CHECK(!has("B3"));
    n.even = 0.02;
    findings_make(&found, m, &replay);
    CHECK(has("B3"));
    arena_fini(&a);
}

struct told {
    double before, gain;
};

static double length_told(void *context, const struct finding_edit *e, double factor)
{
    const struct told *t = context;
    (void)factor;
    return t->before - (e ? t->gain : 0);
}

/* What passes round a ring may be attended to meanwhile: whether it could, a replay tells. */
TEST(a_ring_that_nothing_hides_is_found_where_a_replay_says_so)
{
    struct arena a;
    arena_init(&a);
    struct measure *m = usual_run(4, STEPS, &a);
    c1(m, &a);
    m->lanes[0].lane = LANE_CP;
    struct told t = { m->step.mean, 0.1 * m->step.mean };
    const struct finding_replay replay = { &t, length_told };
    findings_make(&found, m, &replay);
    CHECK(has("C1"));
    t.gain = 0;
    findings_make(&found, m, &replay);
    CHECK(!has("C1"));
    arena_fini(&a);
}

TEST(what_follows_the_lengths_of_rows_is_no_jitter)
{
    for (int follows = 0; follows < 2; follows++) {
        struct arena a;
        arena_init(&a);
        struct measure *m = usual_run(4, STEPS, &a);
        u64 draw = 3;
        b3(m, &a);
        for (int r = 0; r < 4; r++) {
            m->ranks[r].work = series(&a, 0);
            for (i64 k = 0; k < STEPS; k++)
                m->ranks[r].work[k] = 1e9 + 1e9 * usual_noise(&draw) +
                                      (follows ? 3e10 * (m->ranks[r].compute[k] - 0.09) : 0);
        }
        findings_make(&found, m, NULL);
        CHECK_EQ(has("B3"), !follows);
        arena_fini(&a);
    }
}

/* It varies within steps, and is slower than its peers in all of them. */
TEST(a_rank_that_varies_is_slow_besides_only_if_it_is_so_when_quiet)
{
    for (int slow = 0; slow < 2; slow++) {
        struct arena a;
        arena_init(&a);
        struct measure *m = usual_run(4, STEPS, &a);
        b1(m, &a);
        m->config.simulated = true;
        m->loss[LOSS_BALANCE] = 0.045;
        for (int r = 0; r < 4; r++) {
            m->ranks[r].noise = r == 1 ? 0.3 : 0.001;
            m->ranks[r].quiet_pace = r == 1 && slow ? 1.3 : 1.01;
        }
        findings_make(&found, m, NULL);
        CHECK(has("B3"));
        CHECK_EQ(has("B1"), slow == 1);
        for (int i = 0; i < found.n; i++)
            CHECK_EQ(found.at[i].place.rank, 1);
        arena_fini(&a);
    }
}

/* Of few parts of a step chance makes the noise of one rank seem large, of another small. */
TEST(noise_of_all_ranks_has_no_place_though_some_seem_to_have_more)
{
    static const double noise[] = { 0.18, 0.11, 0.14, 0.12, 0.10, 0.085 };
    for (int of_one = 0; of_one < 2; of_one++) {
        struct arena a;
        arena_init(&a);
        struct measure *m = usual_run(6, STEPS, &a);
        b3(m, &a);
        m->config.simulated = true;
        for (int r = 0; r < 6; r++)
            m->ranks[r].noise = of_one && r != 3 ? 0.03 : noise[r];
        CHECK_EQ(first(m, "B3")->place.rank, of_one ? 3 : -1);
        arena_fini(&a);
    }
}

/* --- the machine ------------------------------------------------------------------ */

TEST(what_others_take_stands_behind_the_runs_own_faults_and_widens_their_gains)
{
    struct arena a;
    arena_init(&a);
    double low[2], high[2];
    for (int disturbed = 0; disturbed < 2; disturbed++) {
        struct measure *m = usual_run(2, STEPS, &a);
        k10(m, &a);
        for (int r = 0; r < 2 && disturbed; r++) {
            m->ranks[r].run_queue_s = 0.05;
            m->ranks[r].on_cpu = 0.5;
        }
        const struct finding *f = first(m, "K10");
        CHECK(f->about == ABOUT_SETTINGS);
        CHECK_EQ(has("H8"), disturbed == 1);
        low[disturbed] = f->gain_lo;
        high[disturbed] = f->gain_hi;
    }
    CHECK(low[1] < 0.7 * low[0] && high[1] > 1.2 * high[0]);
    CHECK(found.at[1].about == ABOUT_OTHERS && found.at[1].gain > found.at[0].gain);
    struct text out = { 0 };
    findings_text(&found, usual_run(2, STEPS, &a), &out);
    CHECK(strstr(out.data, "the machine is disturbed") != NULL);
    text_fini(&out);
    arena_fini(&a);
}

TEST(a_rank_that_others_rob_is_not_slow_by_less_than_that)
{
    struct arena a;
    arena_init(&a);
    for (int robbed = 0; robbed < 2; robbed++) {
        struct measure *m = usual_run(4, STEPS, &a);
        b1(m, &a);
        for (int r = 0; r < 4 && robbed; r++) {
            m->ranks[r].run_queue_s = 0.06;
            m->ranks[r].on_cpu = 0.5;
        }
        findings_make(&found, m, NULL);
        CHECK_EQ(has("B1"), !robbed);
    }
    arena_fini(&a);
}

TEST(a_clock_that_fell_is_the_machines_doing_and_stands_before_what_others_take)
{
    struct arena a;
    arena_init(&a);
    struct measure *m = usual_run(1, STEPS, &a);
    m->ranks[0].clock = 0.8;
    m->ranks[0].run_queue_s = 0.05;
    m->ranks[0].on_cpu = 0.4;
    const struct finding *f = first(m, "K4");
    CHECK(f->about == ABOUT_MACHINE);
    struct text out = { 0 };
    findings_text(&found, m, &out);
    CHECK(strstr(out.data, "the machine is slower than it was") != NULL);
    text_fini(&out);
    arena_fini(&a);
}

/* A host that is hot for a time: which steps, and what the others wait for then. */
TEST(a_clock_may_fall_for_some_steps_only)
{
    struct arena a;
    arena_init(&a);
    for (int everywhere = 0; everywhere < 2; everywhere++) {
        struct measure *m = usual_run(4, STEPS, &a);
        for (int r = 0; r < 4; r++) {
            struct measure_rank *k = &m->ranks[r];
            const bool hot = everywhere || r == 2;
            k->phi = ARENA_ARRAY(&a, double, STEPS);
            for (i64 i = 0; i < STEPS; i++) {
                const bool then = hot && i >= 10 && i < 26;
                k->phi[i] = (then ? 0.75 : 0.99) + 0.001 * (double)(i % 3);
                k->compute[i] /= then ? 0.75 : 1;
            }
            k->clock = hot ? 0.93 : 0.99;
        }
        for (i64 i = 10; i < 26; i++)
            m->seconds[i] += 0.03;
        measure_settle(m);
        const struct finding *f = first(m, "K4");
        CHECK_EQ(f->place.rank, everywhere ? -1 : 2);
        CHECK_EQ(f->place.first_step, m->numbers[10]);
        CHECK_EQ(f->place.last_step, m->numbers[25]);
        CHECK_NEAR(f->gain, 0.03 * 16 / STEPS, 0.001);
        CHECK(f->gain_lo > 0.6 * f->gain && f->gain_hi < 1.4 * f->gain);
        CHECK(!has("B2"));
    }
    arena_fini(&a);
}

/* Nobody waits for a rank that has less to do than the others. */
TEST(a_clock_that_falls_where_nobody_waits_costs_nothing)
{
    struct arena a;
    arena_init(&a);
    struct measure *m = usual_run(4, STEPS, &a);
    m->ranks[1].phi = ARENA_ARRAY(&a, double, STEPS);
    for (i64 i = 0; i < STEPS; i++) {
        m->ranks[1].phi[i] = i >= 10 && i < 26 ? 0.75 : 0.99;
        m->ranks[1].compute[i] = i >= 10 && i < 26 ? 0.080 : 0.060;
    }
    findings_make(&found, m, NULL);
    CHECK(!has("K4"));
    arena_fini(&a);
}

/* Products that read faster than memory was measured to be have their operands in caches. */
TEST(products_are_not_thin_where_the_run_reads_faster_than_the_probe)
{
    struct arena a;
    arena_init(&a);
    for (int faster = 0; faster < 2; faster++) {
        struct measure *m = usual_run(1, STEPS, &a);
        k7(m, &a);
        if (faster)
            m->ops[3].bytes = 4e11 * m->ops[3].seconds;
        m->ops[3].seconds *= 2;
        findings_make(&found, m, NULL);
        CHECK_EQ(has("K7"), !faster);
    }
    arena_fini(&a);
}

/* --- noise ------------------------------------------------------------------------ */

/* Steps that wander slowly are fewer samples than their number. */
TEST(steps_that_wander_are_known_less_well_and_an_episode_is_no_noise)
{
    struct arena a;
    arena_init(&a);
    struct measure *m = usual_run(1, STEPS, &a);
    const double still = m->step.se;
    static const double level[] = { 0, 0.02, -0.03, 0.01, 0.04, -0.02, 0.03, -0.04, 0, 0.02 };
    for (i64 i = 0; i < STEPS; i++)
        m->seconds[i] = 0.1 + level[i / 4];
    measure_settle(m);
    CHECK(m->step.se > 1.3 * measure_stat(m->seconds, STEPS).se && m->step.se > 5 * still);
    m = usual_run(1, STEPS, &a);
    for (i64 i = 12; i < 24; i++)
        m->seconds[i] += 0.1;
    measure_settle(m);
    CHECK(m->step.se < 3 * still);
    m = usual_run(1, STEPS, &a);
    for (i64 i = 0; i < STEPS; i += 3) /* pauses, two of which lie in some blocks of steps */
        m->seconds[i] += 0.3;
    measure_settle(m);
    CHECK(m->step.se < 3 * still);
    arena_fini(&a);
}

TEST(a_clock_is_not_slow_where_the_loop_lost_its_processor)
{
    double phi[20];
    for (int i = 0; i < 20; i++)
        phi[i] = i % 10 == 3 ? 0.2 : 1;
    CHECK_NEAR(measure_trimmed(phi, 20), 1, 1e-12);
    phi[0] = NAN;
    phi[3] = 1;
    CHECK_NEAR(measure_trimmed(phi, 20), 1, 1e-12);
    CHECK(isnan(measure_trimmed(phi, 0)));
}

/* --- gaps ------------------------------------------------------------------------- */

/* Rank 1 pauses for 4 s, then begins what rank 0 has sent: without the pause it begins at once. */
TEST(what_is_begun_behind_a_pause_is_begun_earlier_without_it)
{
    struct dag_node nodes[] = {
        { .kind = DAG_BEGIN, .rank = 1, .before = -1 },
        { .kind = DAG_CALL, .rank = 1, .before = -1, .needs = 0, .n_needs = 1 },
        { .kind = DAG_COMPUTE, .rank = 1, .before = -1, .needs = 1, .n_needs = 1 },
        { .kind = DAG_REST, .rank = 1, .before = 2 },
    };
    i32 needs[] = { 0, 1 };
    double seconds[] = { 4, 0.5, 2, 0 }, lead[] = { 0, 0, 4, 0 }, starts[2] = { 0 }, ends[4];
    struct dag g = { .nodes = nodes, .n = 4, .needs = needs, .seconds = seconds, .lead = lead,
                     .n_ranks = 2, .starts = starts, .ends = ends };
    CHECK_NEAR(dag_length(&g, NULL, NULL, NULL), 6.5, 1e-12);
    const bool other[] = { true, false }, own[] = { false, true };
    dag_scale_gaps(&g, other, 0, seconds, lead);
    CHECK_NEAR(dag_length(&g, NULL, NULL, NULL), 6.5, 1e-12);
    dag_scale_gaps(&g, own, 0.5, seconds, lead);
    CHECK_NEAR(dag_length(&g, NULL, NULL, NULL), 4.5, 1e-12);
    dag_scale_gaps(&g, own, 0, seconds, lead);
    CHECK_NEAR(dag_length(&g, NULL, NULL, NULL), 2.5, 1e-12);
}

TEST_MAIN(ONE(a_pause_and_a_slow_clock_are_where_they_are), ONE(several_ranks_may_be_slow),
          ONE(only_what_a_pause_has_above_other_gaps_goes_with_it),
          ONE(steps_behind_a_checkpoint_may_be_slower_too),
          ONE(loaders_that_are_alike_are_behind_together),
          ONE(a_rank_that_is_a_stage_is_slow_only_for_its_work),
          ONE(a_stage_is_slow_where_all_its_ranks_are),
          ONE(the_end_that_slow_groups_share_is_where_the_link_is_slow),
          ONE(tasks_that_two_stages_have_tell_which_of_them_is_slow),
          ONE(a_low_clock_explains_no_pause_no_episode_and_no_jitter),
          ONE(noise_of_all_but_one_is_noise_of_all),
          ONE(a_stage_is_not_long_for_one_rank_nor_for_some_steps),
          ONE(tasks_that_vary_though_their_times_are_given_are_jitter),
          ONE(a_slow_link_is_of_the_lane_that_shows_it),
          ONE(most_ranks_may_be_slow_beside_several_that_are_not),
          ONE(a_rank_that_is_slow_in_some_tasks_is_waited_for),
          ONE(of_one_ring_it_is_said_that_one_link_may_be_slow),
          ONE(a_slow_ring_and_a_slow_pair_of_it_are_one_link),
          ONE(a_ring_is_as_fast_as_its_slowest_link),
          ONE(what_was_measured_before_the_run_tells_which_link_of_the_only_ring_is_slow),
          ONE(all_ranks_may_become_slow_at_once), ONE(jitter_is_found_in_steps_that_vary),
          ONE(a_ring_that_nothing_hides_is_found_where_a_replay_says_so),
          ONE(what_follows_the_lengths_of_rows_is_no_jitter),
          ONE(noise_of_all_ranks_has_no_place_though_some_seem_to_have_more),
          ONE(a_rank_that_varies_is_slow_besides_only_if_it_is_so_when_quiet),
          ONE(what_others_take_stands_behind_the_runs_own_faults_and_widens_their_gains),
          ONE(a_rank_that_others_rob_is_not_slow_by_less_than_that),
          ONE(a_clock_that_fell_is_the_machines_doing_and_stands_before_what_others_take),
          ONE(a_clock_may_fall_for_some_steps_only),
          ONE(a_clock_that_falls_where_nobody_waits_costs_nothing),
          ONE(products_are_not_thin_where_the_run_reads_faster_than_the_probe),
          ONE(steps_that_wander_are_known_less_well_and_an_episode_is_no_noise),
          ONE(a_clock_is_not_slow_where_the_loop_lost_its_processor),
          ONE(what_is_begun_behind_a_pause_is_begun_earlier_without_it))
