/* Every kind that a rule knows is planted into what a healthy run measures: it must be named first,
 * with its place and what it costs; and its look-alikes must not be. */
#include "test.h"

#include "diagnose/plant.h"
#include "diagnose/times.h"
#include "diagnose/whatif_pick.h"

TEST(every_planted_fault_is_named_first_with_place_and_cost)
{
    static struct findings f;
    for (i64 i = 0; i < COUNT_OF(all); i++) {
        const struct planted *p = &all[i];
        struct arena a;
        arena_init(&a);
        struct measure *m = usual_run(p->ranks, STEPS, &a);
        p->plant(m, &a);
        make_findings(&f, m, p);
        const struct finding *top = &f.at[0];
        if (f.n == 0 || strcmp(top->id, p->id) != 0 || top->place.rank != p->rank ||
            top->place.peer != p->peer ||
            (p->lost > 0 && fabs(top->lost - p->lost) > 0.05 * p->lost + 2e-4)) {
            tell(&f, m);
            fail_msg("%s was planted at rank %d", p->id, p->rank);
        }
        CHECK(top->fix[0] && top->confirm[0] && top->n_evidence > 0);
        if (!top->urgent)
            CHECK(top->gain_lo <= top->gain && top->gain <= top->gain_hi &&
                  (top->gain > 0) == !(top->saves_j > 0));
        CHECK(f.n <= 2); /* what comes of it is not a finding of its own */
        arena_fini(&a);
    }
}

TEST(every_rule_is_planted_and_says_why_its_numbers_are_what_they_are)
{
    for (i64 k = 0; rule_families[k]; k++)
        for (const struct rule *r = rule_families[k]; r->look; r++) {
            bool planted = false;
            for (i64 i = 0; i < COUNT_OF(all); i++)
                planted |= strcmp(all[i].id, r->id) == 0 || rule_behind(r->id);
            if (!planted)
                fail_msg("nothing plants %s", r->id);
            CHECK(r->limit[0].what && r->limit[0].reason);
        }
}

TEST(rows_that_are_not_full_are_confirmed_by_what_mends_them)
{
    static struct findings f;
    static const char *const confirm[] = { "headway train RECIPE --train.seq 256",
                                           "headway train RECIPE --data.packing contiguous" };
    for (int packed = 0; packed < 2; packed++) {
        struct arena a;
        arena_init(&a);
        struct measure *m = usual_run(1, STEPS, &a);
        d5(m, &a);
        m->config.packed = packed;
        m->config.seq = 512;
        findings_make(&f, m, NULL);
        CHECK_STR(f.at[0].id, "D5");
        CHECK_STR(f.at[0].confirm, confirm[packed]);
        arena_fini(&a);
    }
}

TEST(memory_that_is_left_stands_behind_what_it_would_mend)
{
    static struct findings f;
    static const struct { double peak; i64 accumulate; int n; const char *fix; } cases[] = {
        { 1e9, 1, 2, "--train.batch 28 at least" }, /* of 8 GB, four rows */
        { 4.5e9, 1, 2, "--train.batch 6 at least" },
        { 5e9, 1, 1, NULL },
        { 1e9, 3, 2, "--train.batch 12, all rows of a step at once" },
        { 1e9, 16, 2, "--train.batch 28 at least" },
        { 1e7, 1, 2, "within noise then, and 720.0 times what is in use fits" },
    };
    for (i64 i = 0; i < COUNT_OF(cases); i++) {
        struct arena a;
        arena_init(&a);
        struct measure *m = usual_run(1, STEPS, &a);
        k7(m, &a);
        m->memory_peak_bytes = cases[i].peak;
        m->config.batch = 4;
        m->config.accumulate = cases[i].accumulate;
        m->ceilings.op_s = NAN; /* what was not measured is not told */
        findings_make(&f, m, NULL);
        CHECK_EQ(f.n, cases[i].n);
        CHECK_STR(f.at[0].id, "K7");
        for (int k = 0; k < f.at[0].n_rejected; k++)
            CHECK(!strstr(f.at[0].rejected[k].why, "nan"));
        if (f.n == 2) {
            CHECK_STR(f.at[1].id, "R3");
            CHECK(strstr(f.at[1].fix, cases[i].fix) && strstr(f.at[1].evidence[0], "K7"));
            CHECK_NEAR(f.at[1].gain, f.at[0].gain, 0);
            CHECK(strstr(f.at[1].fix, "--train.batch ") == f.at[1].fix);
            double rows = strtod(f.at[1].fix + strlen("--train.batch "), NULL);
            CHECK(rows <= 4 * ceil(f.at[0].lost / m->theta)); /* not what is of no use */
            CHECK(!strstr(f.at[1].confirm, "--dry-run"));     /* which takes no step */
        }
        arena_fini(&a);
    }
    struct arena a; /* and not where nothing would use it, or nothing may come of it */
    arena_init(&a);
    findings_make(&f, usual_run(1, STEPS, &a), NULL);
    CHECK_EQ(f.n, 0);
    struct measure *m = usual_run(1, STEPS, &a);
    k7(m, &a);
    m->config.batch = 4;
    m->step.se = 0.4 * m->step.mean;
    findings_make(&f, m, NULL);
    CHECK_STR(f.at[0].id, "K7");
    CHECK_NEAR(f.at[0].gain_lo, 0, 0);
    CHECK_EQ(f.n, 1);
    arena_fini(&a);
}

/* Which makes up for one that slept too long: it reaches more than memory does, and moves no bound. */
TEST(a_task_that_sleeps_too_shortly_says_nothing_of_memory)
{
    static const char *const backends[] = { "none", "avx2" };
    static struct findings f;
    double rate[2], gain[2];
    for (int i = 0; i < 2; i++) {
        struct arena a;
        arena_init(&a);
        struct measure *m = usual_run(1, STEPS, &a);
        k7(m, &a);
        snprintf(m->config.backend, sizeof m->config.backend, "%s", backends[i]);
        m->ops[2].bytes = 2 * m->ceilings.memory_bytes_per_s * m->ops[2].seconds;
        rate[i] = rule_memory_rate(m) / m->ceilings.memory_bytes_per_s;
        findings_make(&f, m, NULL);
        CHECK(i == 1 || (f.n > 0 && strcmp(f.at[0].id, "K7") == 0));
        gain[i] = f.n > 0 ? f.at[0].gain : 0;
        arena_fini(&a);
    }
    CHECK_NEAR(rate[0], 1, 0);
    CHECK_NEAR(rate[1], 2, 1e-9); /* which caches may be the reason of */
    CHECK(gain[0] > gain[1]);
}

TEST(losses_of_more_than_a_step_are_said_to_overlap)
{
    static const struct { double lost; bool overlaps; } cases[] = { { 0.03, false }, { 0.06, true } };
    for (i64 i = 0; i < COUNT_OF(cases); i++) {
        static struct findings f = { .n = 2, .at = { { .id = "H8", .title = "one" },
                                                     { .id = "K8", .title = "another" } } };
        struct text out = { 0 };
        struct arena a;
        arena_init(&a);
        f.at[0].lost = f.at[1].lost = cases[i].lost;
        findings_text(&f, usual_run(1, STEPS, &a), &out);
        CHECK_EQ(strstr(out.data, "These overlap") != NULL, cases[i].overlaps);
        text_fini(&out);
        arena_fini(&a);
    }
}

/* Young: 0.02 s a checkpoint and a failure in 200 s ask for one every 2.8 s: every 200 s is far
 * from it, every 2 s near enough, and one failure says nothing. */
TEST(checkpoints_are_moved_only_where_failures_ask_for_it)
{
    static struct findings f;
    static const struct { i64 failures, every; double retaken; bool found; } cases[] = {
        { 2, 2000, 60, true }, { 1, 2000, 60, false }, { 2, 20, 1.5, false }, { 0, 2000, 0, false },
    };
    for (i64 i = 0; i < COUNT_OF(cases); i++) {
        struct arena a;
        arena_init(&a);
        struct measure *m = usual_run(1, STEPS, &a);
        m->failures = cases[i].failures;
        m->up_s = 400;
        m->retaken_s = cases[i].retaken;
        m->config.checkpoint_every = cases[i].every;
        for (i64 k = 0; k < STEPS; k++)
            m->ranks[0].gap[HOST_CHECKPOINT][k] = 0.02 / (double)cases[i].every;
        findings_make(&f, m, NULL);
        CHECK_EQ(f.n > 0 && strcmp(f.at[0].id, "R1") == 0, cases[i].found);
        arena_fini(&a);
    }
}

TEST(healthy_runs_of_any_size_have_no_finding)
{
    static struct findings f;
    const i64 ranks[] = { 1, 2, 4, 8 };
    for (i64 i = 0; i < COUNT_OF(ranks); i++) {
        struct arena a;
        arena_init(&a);
        struct measure *m = usual_run(ranks[i], STEPS, &a);
        findings_make(&f, m, NULL);
        if (f.n != 0) {
            tell(&f, m);
            fail();
        }
        struct text out = { 0 };
        findings_text(&f, m, &out);
        CHECK(strstr(out.data, "No finding above 2.00 ms a step"));
        text_fini(&out);
        arena_fini(&a);
    }
}

/* A loader that is late in no way that a rule knows; then one that is. */
TEST(a_loss_that_no_kind_matches_is_said_to_be_unexplained)
{
    static struct findings f;
    struct arena a;
    struct text out = { 0 };
    arena_init(&a);
    struct measure *m = usual_run(1, STEPS, &a);
    for (i64 i = 0; i < STEPS; i++)
        m->ranks[0].data[i] = 0.05;
    longer(m, 0.05);
    findings_make(&f, m, NULL);
    CHECK_EQ(f.n, 0);
    CHECK_NEAR(times_unexplained(m, &f, TIME_DATA), 0.05, 1e-9);
    findings_text(&f, m, &out);
    CHECK(strstr(out.data, "No kind that is known matches, yet 50.00 ms (33.3 %) of waiting for "
                           "data is unexplained."));
    CHECK(!strstr(out.data, "No finding above"));
    text_fini(&out);
    m = usual_run(1, STEPS, &a);
    d1_alone(m, &a);
    findings_make(&f, m, NULL);
    CHECK_STR(f.at[0].id, "D1");
    for (int k = 0; k < TIMES; k++)
        CHECK_NEAR(times_unexplained(m, &f, (enum times_class)k), 0, 0);
    arena_fini(&a);
}

TEST(without_all_ranks_no_rank_and_no_link_is_blamed)
{
    static struct findings f;
    static const char *const ids[] = { "B1", "C4", "K14" };
    for (i64 i = 0; i < COUNT_OF(all); i++)
        for (i64 k = 0; k < COUNT_OF(ids); k++) {
            struct arena a;
            if (strcmp(all[i].id, ids[k]) != 0)
                continue;
            arena_init(&a);
            struct measure *m = usual_run(all[i].ranks, STEPS, &a);
            all[i].plant(m, &a);
            m->missing = 1;
            findings_make(&f, m, NULL);
            CHECK_EQ(f.n, 0);
            m->missing = 0; /* nor where they are there and their clocks are apart */
            m->apart = true;
            findings_make(&f, m, NULL);
            CHECK_EQ(f.n, 0);
            arena_fini(&a);
        }
}

/* A rank that stands in line for its processor all the time, in tasks, exchanges and between them:
 * whatever its processor gives back, its tasks still take what they take on it. */
TEST(what_others_took_is_never_all_of_the_computing)
{
    static struct findings f;
    struct arena a;
    arena_init(&a);
    struct measure *m = usual_run(1, STEPS, &a);
    for (i64 i = 0; i < STEPS; i++)
        m->ranks[0].compute[i] = 0.05;
    m->ranks[0].run_queue_s = 0.136;
    m->ranks[0].on_cpu = 0.14;
    longer(m, 0.1);
    findings_make(&f, m, NULL);
    CHECK_STR(f.at[0].id, "H8");
    CHECK_NEAR(f.at[0].lost, 0.86 * 0.05, 1e-6);
    CHECK_NEAR(f.at[0].edit.factor, 0.14, 1e-6);
    arena_fini(&a);
}

TEST(a_run_of_which_nothing_was_measured_has_no_finding)
{
    static struct findings f;
    struct arena a;
    arena_init(&a);
    findings_make(&f, measure_new(0, 0, &a), NULL);
    CHECK_EQ(f.n, 0);
    struct measure *m = measure_new(3, 10, &a);
    measure_settle(m);
    findings_make(&f, m, NULL);
    CHECK_EQ(f.n, 0);
    arena_fini(&a);
}

TEST(a_rank_whose_experts_are_fuller_is_not_slow_besides)
{
    static struct findings f;
    struct arena a;
    arena_init(&a);
    struct measure *m = usual_run(4, STEPS, &a);
    b7(m, &a);
    for (i64 i = 0; i < m->n_steps; i++) {
        m->ranks[1].compute[i] += 0.02;
        m->ranks[1].step[i] += 0.02;
    }
    m->ranks[1].last_share = 1;
    findings_make(&f, m, NULL);
    CHECK_EQ(f.n, 1);
    CHECK(strcmp(f.at[0].id, "B7") == 0);
    arena_fini(&a);
}

/* Seconds in steps `first`, `first` + period, ... */
static void evaluate(struct measure *m, i64 first, i64 period, double seconds)
{
    for (i64 i = first; i < m->n_steps; i += period) {
        m->seconds[i] += seconds;
        for (i64 r = 0; r < m->n_ranks; r++) {
            m->ranks[r].gap[HOST_EVAL][i] += seconds;
            m->ranks[r].step[i] += seconds;
        }
    }
    measure_settle(m);
}

TEST(an_evaluation_in_every_other_step_is_no_noise_and_one_in_the_end_not_too_often)
{
    static struct findings f;
    struct arena a;
    arena_init(&a);
    struct measure *m = usual_run(2, STEPS, &a);
    m->config.eval_every = 2;
    evaluate(m, 0, 2, 0.5);
    findings_make(&f, m, NULL);
    CHECK_EQ(f.n, 1);
    CHECK(strcmp(f.at[0].id, "H2") == 0);
    CHECK_NEAR(f.at[0].lost, 0.25, 0.01);
    m = usual_run(2, STEPS, &a);
    m->config.eval_every = 0;
    evaluate(m, m->n_steps - 1, 1, 2);
    findings_make(&f, m, NULL);
    CHECK_EQ(f.n, 0);
    arena_fini(&a);
}

/* However often the recipe evaluates: what stands behind the run's last step is done once. */
TEST(what_is_done_behind_the_last_step_is_not_too_often_nor_unexplained)
{
    static const struct { i64 every, first, period; int n; double lost; } cases[] = {
        { 1250, STEPS - 1, 1, 0, 0 },
        { 25, 19, 20, 1, 2. / STEPS }, /* once in the midst, once in the end */
    };
    static struct findings f;
    for (i64 i = 0; i < COUNT_OF(cases); i++) {
        struct arena a;
        struct text out = { 0 };
        arena_init(&a);
        struct measure *m = usual_run(2, STEPS, &a);
        m->config.eval_every = cases[i].every;
        m->final_step = m->numbers[STEPS - 1];
        evaluate(m, cases[i].first, cases[i].period, 2);
        findings_make(&f, m, NULL);
        findings_text(&f, m, &out);
        CHECK_EQ(f.n, cases[i].n);
        CHECK(!strstr(out.data, "unexplained"));
        if (f.n > 0) {
            CHECK_STR(f.at[0].id, "H2");
            CHECK_NEAR(f.at[0].lost, cases[i].lost, 1e-6);
            CHECK(strstr(f.at[0].evidence[0], "1 times in 40 steps"));
        }
        text_fini(&out);
        arena_fini(&a);
    }
}

/* A pause in every fourth step does not come of what is done in every twentieth, whatever that
 * costs. */
TEST(a_pause_comes_of_what_is_done_as_often)
{
    static const struct { i64 pause; bool named; } cases[] = { { 4, true }, { 20, false } };
    static struct findings f;
    for (i64 i = 0; i < COUNT_OF(cases); i++) {
        struct arena a;
        arena_init(&a);
        struct measure *m = usual_run(1, STEPS, &a);
        bool named = false;
        m->config.eval_every = 20;
        evaluate(m, 19, 20, 4);
        gap(m, HOST_GAP, 0, cases[i].pause, 0.3);
        findings_make(&f, m, NULL);
        for (int k = 0; k < f.n; k++)
            named |= strcmp(f.at[k].id, "H9") == 0;
        CHECK_STR(f.at[0].id, "H2");
        CHECK_EQ(named, cases[i].named);
        arena_fini(&a);
    }
}

/* Picking every fourth of 256 would show a pause in every fourth always or never. */
TEST(steps_that_are_replayed_show_what_comes_regularly_as_often_as_all)
{
    enum { TAKE = 64, ALL = 256 };
    for (i64 period = 2; period <= 8; period++) {
        i64 hits[8] = { 0 }, before = -1;
        for (i64 i = 0; i < TAKE; i++) {
            i64 at = whatif_pick(i, TAKE, ALL);
            CHECK(at > before && at < ALL);
            before = at;
            hits[at % period]++;
        }
        for (i64 k = 0; k < period; k++)
            CHECK_NEAR((double)hits[k] * (double)period / TAKE, 1, 0.5);
    }
    for (i64 i = 0; i < TAKE; i++)
        CHECK_EQ(whatif_pick(i, TAKE, TAKE), i);
    struct arena a;
    arena_init(&a);
    struct measure *m = usual_run(2, STEPS, &a);
    evaluate(m, STEPS - 1, 1, 2);
    CHECK(whatif_stands_for(m, STEPS, HOST_EVAL));
    CHECK(!whatif_stands_for(m, STEPS / 4, HOST_EVAL)); /* seen never, or four times too often */
    CHECK(whatif_stands_for(m, STEPS / 4, HOST_LOG));   /* there is none */
    m = usual_run(2, STEPS, &a);
    evaluate(m, STEPS / 2, 4, 2);
    CHECK(whatif_stands_for(m, 3 * STEPS / 4, HOST_EVAL)); /* some steps are picked twice */
    arena_fini(&a);
}

/* That it is not too often does not make it unexplained. */
TEST(evaluating_that_is_not_too_often_is_told_as_what_it_is)
{
    static struct findings f;
    struct text out = { 0 };
    struct arena a;
    arena_init(&a);
    struct measure *m = usual_run(2, STEPS, &a);
    m->config.eval_every = 10;
    evaluate(m, 9, 10, 0.04);
    findings_make(&f, m, NULL);
    findings_text(&f, m, &out);
    CHECK_EQ(f.n, 0);
    CHECK(strstr(out.data, "No finding above"));
    CHECK(strstr(out.data, "Evaluating takes 4.00 ms (3.8 %): less than what is too often (H2)."));
    CHECK(!strstr(out.data, "unexplained"));
    text_fini(&out);
    arena_fini(&a);
}

/* One fix has one gain, and what confirms it is that fix. */
TEST(a_fix_of_a_pipeline_is_what_its_run_confirms)
{
    static const struct { i64 dp, batch, accumulate, own; const char *fix, *both; } cases[] = {
        { 1, 8, 2, 2, "--train.accumulate 4 --train.batch 4",
          "--train.accumulate 4 --train.batch 4" },
        { 1, 1, 2, 2, "--train.accumulate 4 --train.batch 1: steps of twice the rows",
          "--train.accumulate 4 --train.batch 1" },
        /* Of 16 rows a rank has 4 at once: two of 2 are had with 8 micro-batches in all. */
        { 4, 16, 1, 1, "--train.accumulate 8 --train.batch 2",
          "--train.accumulate 8 --train.batch 2" },
    };
    static struct findings f;
    for (i64 i = 0; i < COUNT_OF(cases); i++) {
        for (int zero_bubble = 0; zero_bubble < 2; zero_bubble++) {
            struct arena a;
            arena_init(&a);
            struct measure *m = usual_run(4, STEPS, &a);
            b5(m, &a);
            m->config.islands = 1;
            m->config.dp = cases[i].dp;
            m->config.batch = cases[i].batch;
            m->config.accumulate = cases[i].accumulate;
            m->config.micro_batches = cases[i].own;
            m->config.zero_bubble = zero_bubble;
            findings_make(&f, m, NULL);
            CHECK_STR(f.at[0].id, "B5");
            CHECK(strstr(f.at[0].fix, cases[i].fix) && !strstr(f.at[0].fix, "zb-h1"));
            CHECK(strstr(f.at[0].confirm, "headway train RECIPE"));
            CHECK(strstr(f.at[0].confirm, cases[i].both));
            bool other = false;
            for (int k = 0; k < f.at[0].n_evidence; k++)
                other |= strstr(f.at[0].evidence[k], "zb-h1") != NULL;
            CHECK_EQ(other, !zero_bubble);
            arena_fini(&a);
        }
    }
}

/* Each rank its share of the update, and what that takes to gather. */
TEST(an_update_is_shared_out_only_where_gathering_leaves_something)
{
    static struct findings f;
    for (int slow = 0; slow < 2; slow++) {
        struct arena a;
        bool named = false;
        arena_init(&a);
        struct measure *m = usual_run(2, STEPS, &a);
        k14(m, &a);
        m->lanes[0].lane = LANE_DP;
        m->lanes[0].bytes_per_s = slow ? m->lanes[0].bytes / 0.06 : m->lanes[0].bytes / 0.004;
        findings_make(&f, m, NULL);
        for (int i = 0; i < f.n; i++)
            named |= strcmp(f.at[i].id, "K14") == 0;
        CHECK_EQ(named, !slow);
        arena_fini(&a);
    }
}

/* Real kernels reach their own shares of the machine. */
TEST(an_op_is_slow_beside_others_only_where_times_are_given)
{
    static struct findings f;
    struct arena a;
    arena_init(&a);
    struct measure *m = usual_run(2, STEPS, &a);
    k6(m, &a);
    findings_make(&f, m, NULL);
    CHECK_STR(f.at[0].id, "K6");
    CHECK_STR(f.at[0].place.op, "attention");
    CHECK(f.at[0].edit.whole_name);
    CHECK_NEAR(f.at[0].edit.less, 0.02 / m->ops[2].calls, 1e-9);
    m->config.simulated = false;
    findings_make(&f, m, NULL);
    CHECK_EQ(f.n, 0);
    arena_fini(&a);
}

/* --layout.bucket is about sums of what is not split. */
TEST(pieces_of_split_state_cannot_be_made_larger)
{
    for (i64 zero = 0; zero < 4; zero++) {
        static struct findings f;
        struct arena a;
        bool told = false;
        arena_init(&a);
        struct measure *m = usual_run(4, STEPS, &a);
        c2(m, &a);
        m->config.zero = zero;
        findings_make(&f, m, NULL);
        for (int i = 0; i < f.n; i++)
            told |= strcmp(f.at[i].id, "C2") == 0;
        CHECK_EQ(told, zero == 0);
        arena_fini(&a);
    }
}

TEST(one_disturbed_step_is_no_jitter)
{
    static struct findings f;
    struct arena a;
    arena_init(&a);
    struct measure *m = usual_run(4, STEPS, &a);
    m->ranks[1].compute[5] += 1;
    m->ranks[1].step[5] += 1;
    m->seconds[5] += 1;
    measure_settle(m);
    findings_make(&f, m, NULL);
    CHECK_EQ(f.n, 0);
    arena_fini(&a);
}

TEST(of_two_faults_both_are_found_the_larger_gain_first)
{
    static struct findings f;
    static const struct { int one, two; } pairs[] = {
        { 30, 24 }, /* B1, C4 */
        { 0, 15 },  /* D1, K4 */
        { 17, 6 },  /* K7, H1 */
    };
    for (i64 i = 0; i < COUNT_OF(pairs); i++) {
        const struct planted *x = &all[pairs[i].one], *y = &all[pairs[i].two];
        struct arena a;
        arena_init(&a);
        struct measure *m = usual_run(4, STEPS, &a);
        x->plant(m, &a);
        y->plant(m, &a);
        findings_make(&f, m, NULL);
        bool has_x = false, has_y = false;
        for (int k = 0; k < f.n && k < 3; k++) {
            has_x |= strcmp(f.at[k].id, x->id) == 0;
            has_y |= strcmp(f.at[k].id, y->id) == 0;
            CHECK(k == 0 || f.at[k].gain <= f.at[k - 1].gain);
        }
        if (!has_x || !has_y) {
            tell(&f, m);
            fail_msg("%s and %s were planted", x->id, y->id);
        }
        arena_fini(&a);
    }
}

TEST_MAIN(ONE(every_planted_fault_is_named_first_with_place_and_cost),
          ONE(every_rule_is_planted_and_says_why_its_numbers_are_what_they_are),
          ONE(healthy_runs_of_any_size_have_no_finding),
          ONE(rows_that_are_not_full_are_confirmed_by_what_mends_them),
          ONE(memory_that_is_left_stands_behind_what_it_would_mend),
          ONE(a_task_that_sleeps_too_shortly_says_nothing_of_memory),
          ONE(losses_of_more_than_a_step_are_said_to_overlap),
          ONE(checkpoints_are_moved_only_where_failures_ask_for_it),
          ONE(a_loss_that_no_kind_matches_is_said_to_be_unexplained),
          ONE(without_all_ranks_no_rank_and_no_link_is_blamed),
          ONE(what_others_took_is_never_all_of_the_computing),
          ONE(a_run_of_which_nothing_was_measured_has_no_finding),
          ONE(of_two_faults_both_are_found_the_larger_gain_first),
          ONE(evaluating_that_is_not_too_often_is_told_as_what_it_is),
          ONE(a_fix_of_a_pipeline_is_what_its_run_confirms),
          ONE(an_update_is_shared_out_only_where_gathering_leaves_something),
          ONE(an_op_is_slow_beside_others_only_where_times_are_given),
          ONE(pieces_of_split_state_cannot_be_made_larger),
          ONE(one_disturbed_step_is_no_jitter),
          ONE(an_evaluation_in_every_other_step_is_no_noise_and_one_in_the_end_not_too_often),
          ONE(what_is_done_behind_the_last_step_is_not_too_often_nor_unexplained),
          ONE(a_pause_comes_of_what_is_done_as_often),
          ONE(steps_that_are_replayed_show_what_comes_regularly_as_often_as_all),
          ONE(a_rank_whose_experts_are_fuller_is_not_slow_besides))
