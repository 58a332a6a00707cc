/* Schedules: closed forms, proof, text. */
#include "test.h"

#include "base/rng.h"
#include "base/text.h"
#include "parallel/schedule.h"

static const int all_ranks[] = { 2, 4, 8 }, all_batches[] = { 8, 16, 32 };

static void make(struct schedule *s, enum schedule_kind kind, int p, int chunks, int m,
                 struct arena *a)
{
    CHECK_OK(schedule_new(s, kind, p, chunks, m, a));
    CHECK_OK(schedule_check(s)); /* what depends on what */
    schedule_add_moves(s, 1);
    CHECK_OK(schedule_check(s)); /* and every move */
}

static void time_it(const struct schedule *s, double F, double I, double W, double latency,
                    struct schedule_time *out)
{
    struct stage_time *times = ARENA_ARRAY(s->arena, struct stage_time, s->stages);
    for (int t = 0; t < s->stages; t++)
        times[t] = (struct stage_time){ F, I, W };
    schedule_time(s, times, latency, out, s->arena);
}

/* F, I and W of a rank's share of the layers, halved and so on for its chunks. */
static void expect(enum schedule_kind kind, int p, int chunks, int m, const double *unit,
                   double idle, double peak_first, double peak_last)
{
    struct arena a;
    struct schedule s;
    struct schedule_time t;
    arena_init(&a);
    make(&s, kind, p, chunks, m, &a);
    time_it(&s, unit[0] / chunks, unit[1] / chunks, unit[2] / chunks, 0, &t);
    for (int r = 0; r < p; r++) {
        CHECK_NEAR(t.ranks[r].busy, m * (unit[0] + unit[1] + unit[2]), 0);
        CHECK_NEAR(t.ranks[r].idle, idle, 0);
    }
    CHECK_NEAR(t.length, m * (unit[0] + unit[1] + unit[2]) + idle, 0);
    CHECK_NEAR(t.ranks[0].peak, peak_first, 0);
    CHECK_NEAR(t.ranks[p - 1].peak, peak_last, 0);
    arena_fini(&a);
}

/* Sixteenths, so that doubles are exact. */
static const double units[][3] = { { 1, 1, 1 }, { 1, 1.25, 0.75 }, { 2, 3, 1 }, { 1, 2, 1 } };

TEST(idle_times_and_memory_are_those_of_the_closed_forms)
{
    for (int i = 0; i < COUNT_OF(all_ranks); i++)
        for (int k = 0; k < COUNT_OF(all_batches); k++)
            for (int u = 0; u < COUNT_OF(units); u++) {
                const double *x = units[u];
                int p = all_ranks[i], m = all_batches[k];
                double F = x[0], B = x[1] + x[2], whole = (p - 1) * (F + B);
                expect(SCHEDULE_GPIPE, p, 1, m, x, whole, m, m);
                expect(SCHEDULE_1F1B, p, 1, m, x, whole, p, 1);
                expect(SCHEDULE_ZB_H1, p, 1, m, x, (p - 1) * (F + x[1] - x[2]), p, p);
                for (int v = 2; v <= 4; v *= 2)
                    expect(SCHEDULE_INTERLEAVED, p, v, m, x, whole / v,
                           i64_min(m * v, p * v + p - 1) / (double)v,
                           m * v > p * v ? ((v - 1) * p + 1) / (double)v
                                         : i64_min(m * v, (v - 1) * p + 1) / (double)v);
            }
}

/* Qi et al.: the memory of 1F1B and, at F = I = W, no waiting but for the first micro-batch
 * on its way to the last rank, p - 1 chunks from the first. */
TEST(the_v_keeps_p_micro_batches_and_nearly_never_waits)
{
    const double equal[] = { 1, 1, 1 };
    for (int i = 0; i < COUNT_OF(all_ranks); i++)
        for (int k = 0; k < COUNT_OF(all_batches); k++) {
            int p = all_ranks[i];
            expect(SCHEDULE_ZB_V, p, 2, all_batches[k], equal, (p - 1) * 0.5, p, p);
        }
}

TEST(every_number_of_ranks_and_micro_batches_has_a_proven_schedule)
{
    for (int kind = 0; kind < SCHEDULE_KINDS; kind++)
        for (int p = 1; p <= 9; p++)
            for (int m = 1; m <= 20; m++) {
                struct arena a;
                struct schedule s;
                if (kind == SCHEDULE_INTERLEAVED && m % p)
                    continue;
                arena_init(&a);
                make(&s, (enum schedule_kind)kind, p,
                     schedule_least_chunks((enum schedule_kind)kind), m, &a);
                arena_fini(&a);
            }
}

TEST(receives_may_be_begun_any_number_of_actions_early)
{
    for (int kind = 0; kind < SCHEDULE_KINDS; kind++)
        for (int ahead = 0; ahead <= 5; ahead++) {
            struct arena a;
            struct schedule s;
            arena_init(&a);
            CHECK_OK(schedule_new(&s, (enum schedule_kind)kind, 4,
                                  schedule_least_chunks((enum schedule_kind)kind), 8, &a));
            schedule_add_moves(&s, ahead);
            CHECK_OK(schedule_check(&s));
            arena_fini(&a);
        }
}

TEST(slow_links_and_uneven_stages_make_a_step_longer)
{
    struct arena a;
    struct schedule s;
    struct schedule_time t;
    arena_init(&a);
    make(&s, SCHEDULE_1F1B, 2, 1, 2, &a);
    struct stage_time uneven[] = { { 1, 1, 1 }, { 2, 2, 2 } };
    /* stage 1: F0 at 1..3, B0 3..7, F1 7..9, B1 9..13; stage 0: B1 13..15 */
    schedule_time(&s, uneven, 0, &t, &a);
    CHECK_NEAR(t.length, 15, 0);
    /* each way there and back adds one latency before and behind what stage 1 does */
    schedule_time(&s, uneven, 0.5, &t, &a);
    CHECK_NEAR(t.length, 16, 0);
    arena_fini(&a);
}

TEST(numbers_that_do_not_suit_are_refused_with_ones_that_do)
{
    struct arena a;
    struct schedule s;
    arena_init(&a);
    CHECK_FAILS(schedule_new(&s, SCHEDULE_INTERLEAVED, 4, 2, 10, &a), ERR_CONFIG, "12 would do");
    CHECK_FAILS(schedule_new(&s, SCHEDULE_ZB_V, 4, 1, 8, &a), ERR_CONFIG, "needs 2 stages");
    CHECK_FAILS(schedule_new(&s, SCHEDULE_1F1B, 4, 2, 8, &a), ERR_CONFIG, "needs 1 stage on");
    CHECK_EQ(schedule_kind_of("zb-v"), SCHEDULE_ZB_V);
    CHECK_EQ(schedule_kind_of("dualpipe"), SCHEDULE_KINDS);
    arena_fini(&a);
}

/* --- mutations ---------------------------------------------------------------------- */

static struct schedule_list copy_list(const struct schedule_list *l, struct arena *a)
{
    struct schedule_list c = { ARENA_ARRAY(a, struct schedule_action, l->n + 1), l->n, l->n + 1 };
    memcpy(c.actions, l->actions, sizeof *c.actions * (size_t)l->n);
    return c;
}

enum mutation { DROP, DUPLICATE, WRONG_BATCH, WRONG_STAGE, WRONG_OP, SWAP_SAME, MUTATIONS };

/* Another action of the same stage and op, further on in the list: swapping the two breaks the
 * ascending order. -1: none. */
static i64 later_twin(const struct schedule_list *l, i64 at)
{
    for (i64 i = at + 1; i < l->n; i++)
        if (l->actions[i].op == l->actions[at].op && l->actions[i].stage == l->actions[at].stage)
            return i;
    return -1;
}

static bool mutate(struct schedule *s, struct schedule_list *l, i64 at, enum mutation how)
{
    struct schedule_action *x = &l->actions[at], was = *x;
    i64 twin = later_twin(l, at);
    switch (how) {
    case DROP:
        memmove(x, x + 1, sizeof *x * (size_t)(--l->n - at));
        return true;
    case DUPLICATE:
        memmove(x + 1, x, sizeof *x * (size_t)(l->n++ - at));
        return true;
    case WRONG_BATCH: x->micro_batch = (x->micro_batch + 1) % s->micro_batches; return true;
    case WRONG_STAGE: x->stage = (x->stage + 1) % s->stages; return true;
    case WRONG_OP: x->op = (enum schedule_op)((x->op + 1) % SCHEDULE_OPS); return true;
    default:
        if (twin < 0)
            return false;
        *x = l->actions[twin];
        l->actions[twin] = was;
        return true;
    }
}

TEST(every_wrong_action_of_every_schedule_is_caught)
{
    i64 tried = 0;
    for (int kind = 0; kind < SCHEDULE_KINDS; kind++) {
        struct arena a;
        struct schedule s;
        arena_init(&a);
        make(&s, (enum schedule_kind)kind, 4, schedule_least_chunks((enum schedule_kind)kind), 8,
             &a);
        for (int r = 0; r < s.ranks; r++) {
            struct schedule_list good = s.lists[r];
            for (i64 at = 0; at < good.n; at++)
                for (int how = 0; how < MUTATIONS; how++) {
                    s.lists[r] = copy_list(&good, &a);
                    if (!mutate(&s, &s.lists[r], at, (enum mutation)how))
                        continue;
                    tried++;
                    if (schedule_check(&s) != ERR_CONFIG || !strstr(err_message(), "wrong"))
                        fail_msg("%s: mutation %d of action %d on rank %d was not caught",
                                 schedule_kind_name((enum schedule_kind)kind), how, (int)at, r);
                }
            s.lists[r] = good;
        }
        arena_fini(&a);
    }
    CHECK(tried > 5000);
}

/* Moving one action to another place keeps every action there once. It is either still a
 * schedule, and then simulating it ends, or it is caught. */
TEST(a_reordered_schedule_is_either_caught_or_runs_to_its_end)
{
    i64 caught = 0, kept = 0;
    for (int kind = 0; kind < SCHEDULE_KINDS; kind++) {
        struct arena a;
        struct schedule s;
        struct schedule_time t;
        arena_init(&a);
        make(&s, (enum schedule_kind)kind, 2, schedule_least_chunks((enum schedule_kind)kind), 4,
             &a);
        struct schedule_list good = s.lists[1];
        for (i64 from = 0; from < good.n; from++)
            for (i64 to = 0; to < good.n; to++) {
                s.lists[1] = copy_list(&good, &a);
                struct schedule_action *l = s.lists[1].actions, x = l[from];
                memmove(l + from, l + from + 1, sizeof x * (size_t)(good.n - from - 1));
                memmove(l + to + 1, l + to, sizeof x * (size_t)(good.n - to - 1));
                l[to] = x;
                if (schedule_check(&s) < 0) {
                    caught++;
                    continue;
                }
                kept++;
                time_it(&s, 1, 1, 1, 0, &t);
            }
        arena_fini(&a);
    }
    CHECK(caught > 1000 && kept > 300);
}

TEST(ranks_that_wait_for_each_other_are_named)
{
    struct arena a;
    struct schedule s;
    arena_init(&a);
    /* Rank 0 wants the first gradient before its second forward; rank 1 the second forward
     * before its first backward. */
    CHECK_FAILS(schedule_read_csv(&s, "0F0,0B0,0F1,0B1\n1F0,1F1,1B0,1B1\n", "x.csv", &a),
                ERR_CONFIG, "x.csv: the schedule is wrong: 0B0 on rank 0 waits for ever");
    CHECK_FAILS(schedule_read_csv(&s, "0F0,0B0,0F1\n1F0,1B0,1F1,1B1\n", "x.csv", &a), ERR_CONFIG,
                "there is no 0B1 (or 0I1 and 0W1)");
    /* A receive that stands too late holds up the sender's next output. */
    CHECK_FAILS(schedule_read_csv(&s, "0F0,0SEND_F0,0F1,0SEND_F1,0RECV_B0,0B0,0RECV_B1,0B1\n"
                                  "1RECV_F1,1RECV_F0,1F0,1F1,1B0,1SEND_B0,1B1,1SEND_B1\n",
                                  "x.csv", &a), ERR_CONFIG, "ascending");
    arena_fini(&a);
}

/* --- text --------------------------------------------------------------------------- */

TEST(a_schedule_reads_back_as_it_was_written)
{
    for (int kind = 0; kind < SCHEDULE_KINDS; kind++) {
        struct arena a;
        struct schedule s, back;
        struct text first = { 0 }, second = { 0 };
        arena_init(&a);
        make(&s, (enum schedule_kind)kind, 4, schedule_least_chunks((enum schedule_kind)kind), 8,
             &a);
        schedule_write_csv(&s, &first);
        CHECK_OK(schedule_read_csv(&back, first.data, "x.csv", &a));
        CHECK_EQ(back.ranks, s.ranks);
        CHECK_EQ(back.stages, s.stages);
        CHECK_EQ(memcmp(back.rank_of, s.rank_of, sizeof *s.rank_of * (size_t)s.stages), 0);
        schedule_write_csv(&back, &second);
        CHECK_STR(first.data, second.data);
        text_fini(&first);
        text_fini(&second);
        arena_fini(&a);
    }
}

TEST(bad_files_are_refused_with_their_line)
{
    struct arena a;
    struct schedule s;
    arena_init(&a);
    CHECK_FAILS(schedule_read_csv(&s, "0F0,0B0\n1F0,1X0\n", "x.csv", &a), ERR_CONFIG,
                "x.csv:2: '1X0' is no action");
    CHECK_FAILS(schedule_read_csv(&s, "0F0\n\x1b[2J\xff\n", "x.csv", &a), ERR_CONFIG,
                "x.csv:2: '?[2J?' is no action");
    CHECK_FAILS(schedule_read_csv(&s, "\n, ,\n", "x.csv", &a), ERR_CONFIG, "no action in it");
    CHECK_FAILS(schedule_read_csv(&s, "0F0,0B0\n2F0,2B0\n", "x.csv", &a), ERR_CONFIG,
                "no line computes stage 1");
    CHECK_FAILS(schedule_read_csv(&s, "0F0,0B0,0F99999999999\n", "x.csv", &a), ERR_CONFIG,
                "no action");
    CHECK_FAILS(schedule_read_file(&s, "/nowhere/x.csv", &a), ERR_CONFIG, "/nowhere/x.csv");
    CHECK_OK(schedule_read_csv(&s, " 0F0 , ,0B0,\r\n\n 1F0,1B0", "x.csv", &a));
    arena_fini(&a);
}

/* Damaged files: an error or a schedule that holds, never a crash. */
TEST(random_damage_never_gets_past_the_reader)
{
    struct arena a;
    struct schedule s, back;
    struct text csv = { 0 };
    arena_init(&a);
    make(&s, SCHEDULE_ZB_V, 2, 2, 4, &a);
    schedule_write_csv(&s, &csv);
    static const char alphabet[] = "0123456789FIWBSENDRCV_,\n \r\"-x";
    for (u64 round = 0; round < 4000; round++) {
        struct arena b;
        struct rng key = { 11, round };
        char *text = arena_strndup(&a, csv.data, csv.length);
        arena_init(&b);
        for (u64 k = 0; k <= round % 5; k++) {
            u64 where = rng_u64(&key, 2 * k) % (u64)csv.length;
            text[where] = alphabet[rng_u64(&key, 2 * k + 1) % (sizeof alphabet - 1)];
        }
        if (round % 7 == 0)
            text[rng_u64(&key, 99) % (u64)csv.length] = '\0';
        if (schedule_read_csv(&back, text, "x.csv", &b) >= 0)
            CHECK_OK(schedule_check(&back));
        arena_fini(&b);
    }
    text_fini(&csv);
    arena_fini(&a);
}

TEST(a_chart_shows_each_rank_in_its_row)
{
    struct arena a;
    struct schedule s;
    struct schedule_time t;
    struct text chart = { 0 };
    arena_init(&a);
    make(&s, SCHEDULE_1F1B, 2, 1, 2, &a);
    time_it(&s, 1, 1, 1, 0, &t);
    schedule_chart(&s, &t, 46, &chart);
    CHECK_STR(chart.data, "rank 0  |F0--F1--........B0------....B1------|\n"
                          "rank 1  |....F0--B0------F1--B1------........|\n");
    text_clear(&chart);
    schedule_chart(&s, &t, 22, &chart);
    CHECK_STR(chart.data, "rank 0  |FF..B0.B1|\nrank 1  |.FB0FB1..|\n");
    text_clear(&chart);
    schedule_chart_svg(&s, &t, "a <b>", &chart);
    CHECK(strstr(chart.data, "a &lt;b>") && strstr(chart.data, "<title>1B1</title>"));
    CHECK(!strstr(chart.data, "weight gradient"));
    text_fini(&chart);
    arena_fini(&a);
}

TEST_MAIN(ONE(idle_times_and_memory_are_those_of_the_closed_forms),
          ONE(the_v_keeps_p_micro_batches_and_nearly_never_waits),
          ONE(every_number_of_ranks_and_micro_batches_has_a_proven_schedule),
          ONE(receives_may_be_begun_any_number_of_actions_early),
          ONE(slow_links_and_uneven_stages_make_a_step_longer),
          ONE(numbers_that_do_not_suit_are_refused_with_ones_that_do),
          ONE(every_wrong_action_of_every_schedule_is_caught),
          ONE(a_reordered_schedule_is_either_caught_or_runs_to_its_end),
          ONE(ranks_that_wait_for_each_other_are_named),
          ONE(a_schedule_reads_back_as_it_was_written),
          ONE(bad_files_are_refused_with_their_line),
          ONE(random_damage_never_gets_past_the_reader),
          ONE(a_chart_shows_each_rank_in_its_row))
