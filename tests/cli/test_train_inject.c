/* Ranks that are slowed down on purpose, and ranks that only sleep: what their records say. */
#include "cli/program.h"
#include "test.h"

#include "diagnose/record.h"

#include <math.h>
#include <stdlib.h>

#define TRAIN "cd $D && timeout 100 $H train r.yaml --quiet "
#define TWO TRAIN "--ranks 2 --layout dp=2 "

static int prepare(void **state)
{
    (void)state;
    setenv("D", "train-inject", 1);
    make_corpus();
    shell("cd $D && cat >r.yaml <<X\n"
          "model: {spec: laptop-2m, override: {layers: 2, width: 64, hidden: 96, heads: 4}}\n"
          "data: {sources: data, tokenizer: tok.json}\n"
          "train: {steps: 4, batch: 2, accumulate: 2, seq: 32, threads: 1}\n"
          "run: {preflight: no}\n"
          "lr: {schedule: constant, warmup: 2}\nlog: {every: 1}\nX\n", 0);
    return 0;
}

/* --- what a record says --------------------------------------------------------------- */

struct facts {
    i64 calls, waits;    /* of the lane, on one rank, in one step */
    double least_call_s; /* the shortest call */
    double compute_s;    /* of all tasks */
    double first_call_s, last_backward_s; /* when, since the step began */
    double message_bytes; /* of the shortest call */
};

static void see_span(struct facts *f, const struct record_span *p, int lane, i64 begin_ns)
{
    double took = 1e-9 * (double)(p->end_ns - p->begin_ns);
    double begin = 1e-9 * (double)(p->begin_ns - begin_ns);
    if (p->kind == SPAN_TASK) {
        f->compute_s += took;
        if (p->task->phase != PHASE_UPDATE)
            f->last_backward_s = fmax(f->last_backward_s, begin + took);
    }
    f->waits += p->kind == SPAN_WAIT && (int)p->detail == trace_of_lane(lane);
    if (p->kind != SPAN_CALL || p->lane != trace_of_lane(lane) || p->task->phase == PHASE_UPDATE)
        return;
    f->first_call_s = f->calls++ ? fmin(f->first_call_s, begin) : begin;
    if (took < f->least_call_s) {
        f->least_call_s = took;
        f->message_bytes = p->task->message_bytes / fmax(1, p->task->calls);
    }
}

/* Of one step of a run: calls of gradients on this lane, and computing. */
static struct facts facts_of(const char *run, i64 step, int rank, int lane)
{
    struct facts f = { .least_call_s = INFINITY };
    struct record r;
    struct record_step s = { 0 };
    char folder[128];
    snprintf(folder, sizeof folder, "%s/runs/%s", getenv("D"), run);
    CHECK_OK(record_open(&r, folder));
    CHECK_OK(record_step(&r, step, &s));
    const struct record_rank *k = &s.ranks[rank];
    CHECK(k->head != NULL);
    for (i64 i = 0; i < k->n_spans; i++)
        see_span(&f, &k->spans[i], lane, k->begin_ns);
    record_step_free(&s);
    record_close(&r);
    return f;
}

/* --- lanes ------------------------------------------------------------------------------ */

TEST(calls_take_the_delay_that_they_are_given)
{
    shell(TWO "--set run.name=delay --inject comm_delay=2ms@0-1:2-3", 0);
    CHECK(facts_of("delay", 0, 0, LANE_DP).calls > 0);
    for (int rank = 0; rank < 2; rank++) {
        struct facts f = facts_of("delay", 1, rank, LANE_DP);
        CHECK(f.calls > 0 && f.least_call_s >= 2e-3);
    }
}

TEST(a_link_carries_its_bytes_at_its_rate)
{
    shell(TWO "--set run.name=link --inject pair_bw=0-1:2MB/s", 0);
    struct facts f = facts_of("link", 1, 1, LANE_DP);
    CHECK(f.message_bytes > 0 && f.least_call_s >= f.message_bytes / 2e6);
}

TEST(messages_are_cut_into_buckets_and_nothing_else_changes)
{
    shell(TWO "--set run.name=layers --set train.steps=2", 0);
    shell(TWO "--set run.name=bucket --set train.steps=2 --inject bucket=8KiB", 0);
    struct facts whole = facts_of("layers", 1, 0, LANE_DP), cut = facts_of("bucket", 1, 0, LANE_DP);
    CHECK(cut.calls > whole.calls);
    CHECK(cut.message_bytes <= 8192);
    shell("cd $D/runs && for r in layers bucket; do cat $r/checkpoints/step-2/*.safetensors | "
          "sha256sum; done | uniq | wc -l | grep -qx 1", 0);
}

TEST(sums_at_the_end_begin_behind_the_backward_pass)
{
    shell(TWO "--set run.name=end --inject bucket=all", 0);
    struct facts end = facts_of("end", 1, 0, LANE_DP), ready = facts_of("layers", 1, 0, LANE_DP);
    CHECK_EQ(end.calls, ready.calls);
    CHECK(end.first_call_s >= end.last_backward_s);
}

TEST(without_overlap_every_call_is_waited_for)
{
    shell(TWO "--set run.name=overlap --inject overlap=off --inject comm_delay=1ms", 0);
    struct facts f = facts_of("overlap", 1, 0, LANE_DP);
    CHECK(f.calls > 0 && f.waits >= f.calls);
}

TEST(sums_in_every_micro_batch_are_more_calls)
{
    shell(TWO "--set run.name=sync --set train.accumulate=8 --inject sync_every_microbatch=on", 0);
    shell(TWO "--set run.name=once --set train.accumulate=8 --set layout.zero=1", 0);
    struct facts sync = facts_of("sync", 1, 0, LANE_DP), once = facts_of("once", 1, 0, LANE_DP);
    CHECK_EQ(sync.calls, once.calls + 3 * 3); /* of three buckets, in three more micro-batches */
}

TEST(who_leaves_a_call_out_is_named)
{
    const char *text = shell(TWO "--set run.name=hang --deadline 3s --inject hang=1@1:2 2>&1; "
                             "echo code $?", 0);
    CHECK(strstr(text, "rank 1") != NULL);
    CHECK(strstr(text, "code 1\n") != NULL);
}

/* --- settings --------------------------------------------------------------------------- */

TEST(what_cannot_be_put_in_is_named_where_it_was_asked_for)
{
    CHECK(strstr(shell("cd $D && $H train r.yaml --dry-run --inject slow_computer=2 2>&1", 2),
                 "headway: --inject: there is nothing called 'slow_computer'"));
    CHECK(strstr(shell("cd $D && $H train r.yaml --dry-run --inject slow_compute=2 "
                       "--run.inject=slow_computer=2 2>&1", 2),
                 "headway: --set: there is nothing called 'slow_computer'"));
}

/* On a computed clock, too. */
TEST(an_op_that_there_is_not_is_refused)
{
    CHECK(strstr(shell("cd $D && $H train r.yaml --clock virtual --inject op=lineer,delay=2ms "
                       "2>&1", 2),
                 "there is no op called lineer to disturb; did you mean linear?"));
    CHECK(strstr(shell("cd $D && $H train r.yaml --clock virtual --inject probe=nosuchop,slower=9% "
                       "2>&1", 2), "to disturb; there are load_batch, "));
    CHECK(strstr(shell("cd $D && $H train r.yaml --dry-run --inject op=nosuchop,delay=2ms 2>&1", 2),
                 "there is no op called nosuchop"));
}

/* An op that there is, though not in this run's program, or not on the rank that is meant. */
TEST(an_op_that_the_program_does_not_have_is_refused)
{
    const char *text = shell("cd $D && $H train r.yaml --clock virtual --inject "
                             "op=expert_linear,delay=2ms 2>&1", 2);
    CHECK(strstr(text, "this run's program has no expert_linear to disturb; it has "));
    CHECK(strstr(text, "linear, ") && strstr(text, "rmsnorm"));
    CHECK(strstr(shell("cd $D && $H train r.yaml --dry-run --inject probe=expert_,slower=9% "
                       "2>&1", 2),
                 "this run's program has no expert_ to disturb; it has "));
    shell("cd $D && $H train r.yaml --quiet --dry-run --inject probe=all,slower=9%", 0);
    text = shell("cd $D && $H train r.yaml --clock virtual --layout pp=2 --inject "
                 "op=embed,delay=2ms@1 2>&1", 2);
    CHECK(strstr(text, "the program of these ranks has no embed to disturb; it has "));
    text = shell("cd $D && timeout 100 $H train r.yaml --quiet --ranks 2 --layout pp=2 --inject "
                 "op=embed,delay=2ms@1 2>&1", 2);
    CHECK(strstr(text, "the program of these ranks has no embed to disturb; it has "));
    shell("cd $D && $H train r.yaml --quiet --clock virtual --layout pp=2 --run.name=first "
          "--inject op=embed,delay=2ms", 0);
}

TEST(more_steps_than_can_be_walked_are_refused_in_a_sentence)
{
    const char *text = shell("cd $D && $H train r.yaml --clock virtual --train.steps 99999999999 "
                             "2>&1", 2);
    CHECK(strstr(text, "a virtual run walks each step: 99999999999 of 1 ranks are more than"));
    CHECK(strstr(text, "set train.steps to fewer\n"));
}

TEST(faults_that_are_settings_stand_in_the_manifest)
{
    shell(TRAIN "--set run.name=set --inject recompute=full --inject micro_batch=1 --inject "
          "isa=scalar --inject log_every=2 >/dev/null && grep -q '\"recompute\": \"full\"' "
          "runs/set/manifest.json && grep -q '\"batch\": 1,' runs/set/manifest.json && "
          "grep -q '\"accumulate\": 4,' runs/set/manifest.json && "
          "grep -q '\"backend\": \"generic\"' runs/set/manifest.json", 0);
    shell(TRAIN "--set run.name=skew --ranks 2 --layout pp=2 --set train.accumulate=2 --set "
          "'model.override={layers: 6, width: 64, hidden: 96, heads: 4}' --inject stage_skew=1 "
          ">/dev/null && grep -q '\"stages\": \"2+4\"' runs/skew/manifest.json", 0);
}

/* --- ranks that sleep ------------------------------------------------------------------- */

/* Sleeping takes no less time than priced, but for what earlier tasks took too long, and more only
 * where the machine is busy: the shortest of a rank's steps is near its price. */
static double least_compute(const char *run, int rank)
{
    double least = INFINITY;
    for (i64 step = 0; step < 4; step++)
        least = fmin(least, facts_of(run, step, rank, LANE_DP).compute_s);
    return least;
}

TEST(eight_ranks_sleep_as_long_as_their_tasks_are_worth)
{
    shell(TRAIN "--compute none --rates flops=2e8,memory=1e9 --ranks 8 --layout dp=8 --set "
          "train.batch=8 --set run.name=sleep --inject slow_compute=2@5 && "
          "$H train r.yaml --quiet --clock virtual --rates flops=2e8,memory=1e9 --layout dp=8 "
          "--set train.batch=8 --set run.name=virtual --inject slow_compute=2@5", 0);
    double priced = least_compute("virtual", 0);
    for (int rank = 0; rank < 8; rank++) {
        double took = least_compute("sleep", rank) / (rank == 5 ? 2 : 1);
        if (took < 0.9 * priced || took > 10 * priced)
            fail_msg("rank %d computes for %.4f s, and its tasks are worth %.4f s", rank, took,
                     priced);
    }
    i64 waits = 0; /* for the slow rank; one rank in one step may be later than that one */
    for (int rank = 0; rank < 5; rank++)
        for (i64 step = 0; step < 4; step++)
            waits += facts_of("sleep", step, rank, LANE_DP).waits;
    CHECK(waits > 0);
    shell("cd $D/runs/sleep && ! grep -q loss metrics.jsonl && test ! -e checkpoints", 0);
    shell(TRAIN "--compute none --resume --set run.name=sleep 2>&1 | grep -q 'computes nothing'",
          0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ONE(calls_take_the_delay_that_they_are_given), ONE(a_link_carries_its_bytes_at_its_rate),
        ONE(messages_are_cut_into_buckets_and_nothing_else_changes),
        ONE(sums_at_the_end_begin_behind_the_backward_pass),
        ONE(without_overlap_every_call_is_waited_for),
        ONE(sums_in_every_micro_batch_are_more_calls), ONE(who_leaves_a_call_out_is_named),
        ONE(what_cannot_be_put_in_is_named_where_it_was_asked_for),
        ONE(an_op_that_there_is_not_is_refused),
        ONE(an_op_that_the_program_does_not_have_is_refused),
        ONE(more_steps_than_can_be_walked_are_refused_in_a_sentence),
        ONE(faults_that_are_settings_stand_in_the_manifest),
        ONE(eight_ranks_sleep_as_long_as_their_tasks_are_worth),
    };
    return cmocka_run_group_tests(tests, prepare, NULL);
}
