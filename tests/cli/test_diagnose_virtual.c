/* Eight ranks on a clock that is computed, slowed down in known ways: the cause must be named
 * first, its place be right, and the predicted gain hold what the run without the fault takes
 * less. */
#include "cli/program.h"
#include "test.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>

static int prepare(void **state)
{
    (void)state;
    setenv("D", "diagnose-virtual", 1);
    make_corpus();
    shell("cd $D && cat >r.yaml <<X\n"
          "model: {spec: laptop-5m}\n"
          "data: {sources: data, tokenizer: tok.json}\n"
          "train: {steps: 40, batch: 8, accumulate: 8, seq: 128, threads: 1}\n"
          "lr: {schedule: constant, warmup: 2}\neval: {every: 0}\ncheckpoint: {interval: 0}\nX\n",
          0);
    return 0;
}

static json_t *diagnose(const char *flags, const char *fault)
{
    json_error_t error;
    const char *text = shellf(0, "cd $D && rm -rf runs && $H train r.yaml --quiet --clock virtual "
                              "--set run.name=a %s %s%s >/dev/null && $H diagnose runs/a --json",
                              flags, fault ? "--inject " : "", fault ? fault : "");
    json_t *o = json_loads(text, 0, &error);
    if (!o)
        fail_msg("%s: %s", error.text, text);
    return o;
}

static double number(json_t *o, const char *key)
{
    return json_number_value(json_object_get(o, key));
}

#define DP "--layout dp=8,zero=1 "
#define BRIEF DP "--set train.steps=14 "
#define QUICK "--layout tp=4,dp=2 --set train.batch=4 --set train.accumulate=4 " \
              "--set train.seq=256 --rates flops=5e10,memory=1e10,link=2e9,latency=5e-5 "
#define PIPELINE "--layout pp=4,dp=2 --set train.accumulate=16 "
#define TENSOR "--layout dp=4,tp=2 "
#define CONTEXT "--layout cp=2 --set train.batch=2 --set train.accumulate=4 --set train.seq=512 " \
                "--rates flops=5e10,memory=2e10,link=4e9,latency=1e-5 "
#define INTERLEAVED "--layout pp=2,dp=2,schedule=interleaved,zero=1 --set train.batch=4 --set " \
                    "train.accumulate=16 --rates flops=5e10,memory=2e10,link=4e9,latency=1e-5 "
#define FULL "--layout pp=4,dp=2 --set train.accumulate=48 " /* hardly a bubble */
#define LONE "--layout pp=2 --set train.batch=4 --set train.accumulate=16 "
#define STAGES "--set train.batch=4 --set train.accumulate=24 --rates flops=5e10,memory=1e10 "
#define RINGS "--layout tp=4,dp=2,zero=1 --set train.batch=4 --set train.accumulate=4 "
#define SPACED "--layout dp=4,tp=2,zero=1 --set train.accumulate=2 --set train.seq=256 " \
               "--rates link=4e9 "
#define NARROW "--set train.batch=4 --set train.accumulate=2 --rates flops=2e10,link=5e8 "
#define EXPERTS "--layout dp=8,ep=2 --set model.spec=laptop-moe --set train.accumulate=2 --rates " \
                "flops=1e11,memory=1e10,link=1e9,latency=5e-5 "
#define WIDE "--layout dp=16,zero=2 --set train.batch=32 --set train.accumulate=4 --set " \
             "train.seed=91 --rates flops=5e10,latency=2e-5 "
#define FOUR "--layout pp=4,schedule=zb-h1 --set train.batch=4 --set train.accumulate=64 --set " \
             "train.seq=64 "
#define UNEVEN "--layout dp=4,zero=1 --set model.spec=laptop-2m --set train.batch=4 --set " \
               "train.accumulate=4 --set train.seq=512 --rates flops=2e10,latency=2e-5 "
#define LONE_TENSOR "--layout tp=4 --set train.batch=4 "
#define MIXED "--set train.batch=2 --set train.accumulate=4 --set train.seq=256 " \
              "--rates flops=5e10,memory=2e10,link=1e9,latency=1e-5 "
/* Products that read their weights for few rows; steps that are mostly updates. */
#define THIN "--set train.seq=32 --rates flops=2e11,memory=4e9,link=8e9 --layout "
#define SHORT "--set train.batch=8 --set train.accumulate=1 --set train.seq=32 " \
              "--rates flops=1e11 --layout dp=8,"

/* Names of place and value; NULL: everywhere. */
struct fault {
    const char *id, *flags, *inject, *place;
    int at;
};

static const struct fault faults[] = {
    { "B1", DP, "slow_compute=1.15@5", "rank", 5 },
    { "B1", DP, "slow_compute=1.6@0", "rank", 0 },
    { "B1", PIPELINE, "slow_compute=1.7@5", "rank", 5 },
    { "B1", LONE, "slow_compute=1.3@1", "rank", 1 },
    { "B2", DP, "slow_compute=1.5@6:15-30", "rank", 6 },
    { "B2", DP, "slow_compute=1.5@6:8-20", "first_step", 8 }, /* behind four steady steps */
    { "B2", DP, "slow_compute=3.5@3:20-20", "first_step", 20 }, /* one step */
    { "B2", BRIEF, "slow_compute=1.3@2:8-10", "first_step", 8 },
    { "B2", BRIEF, "slow_compute=1.3@2:4-9", "last_step", 9 }, /* from the first that counts on */
    { "B2", FULL, "slow_compute=1.9@7:15-27", "rank", 7 },
    { "K4", FULL, "phi_override=0.5@7:15-27", "rank", 7 },
    { "B2", TENSOR, "jitter=90%:28-40", "first_step", 28 }, /* of all: of one by chance */
    { "K4", DP, "phi_override=0.85@2", "rank", 2 },
    { "K4", DP, "phi_override=0.6", NULL, 0 },
    { "B3", DP, "jitter=12%", NULL, 0 },
    { "B3", WIDE, "jitter=60%", NULL, 0 }, /* of few actions: by chance one rank's seem quiet */
    { "B3", LONE, "jitter=12%", NULL, 0 },
    { "B3", DP, "jitter=3%", NULL, 0 },
    { "B3", FOUR, "jitter=18%@1", "rank", 1 }, /* beside ranks of other stages: it has no peer */
    { "K4", DP, "phi_override=0.965", NULL, 0 },
    { "K4", DP, "phi_override=0.965@2", "rank", 2 },
    { "D1", CONTEXT, "loader_spin=1850ms@1:7-25", "first_step", 7 }, /* more than half of all */
    { "D1", CONTEXT, "loader_spin=1850ms@1:7-25", "last_step", 25 },
    { "B3", LONE_TENSOR, "jitter=12%", NULL, 0 },
    { "B3", "--layout pp=4,schedule=zb-h1 --set train.batch=4 --set train.accumulate=32 ",
      "jitter=16%", NULL, 0 }, /* of so many tasks a tenth is never quite undisturbed */
    { "D1", DP, "loader_spin=760ms", NULL, 0 },
    { "D1", DP, "loader_spin=1100ms@3", "rank", 3 },
    { "D1", DP, "loader_spin=1500ms@3:14-28", "first_step", 14 },
    { "D2", DP, "loader_bw=0.005MB/s@2", "rank", 2 },
    { "D4", DP "--set data.prefetch=1 ", "loader_lognormal=1500ms@1", "rank", 1 },
    { "C11", FULL, "pair_bw=2-4:60MB/s", "rank", 2 }, /* few ranks stand still for it */
    /* On average behind, too, by batches of which most come in time. */
    { "D4", DP, "loader_lognormal=3500ms@3", "rank", 3 },
    { "H9", DP, "pause=700ms/8@1", "rank", 1 },
    { "C4", DP, "comm_bw=70MB/s", NULL, 0 },
    { "C4", PIPELINE, "comm_bw=20MB/s", NULL, 0 },
    { "C4", PIPELINE, "comm_bw=20MB/s:28-40", "first_step", 28 },
    { "C5", DP, "comm_delay=20ms", NULL, 0 },
    { "C5", DP, "comm_delay=40ms:12-24", "first_step", 12 },
    { "C5", PIPELINE, "comm_delay=40ms", NULL, 0 },
    { "C5", INTERLEAVED, "comm_delay=3.4ms", NULL, 0 }, /* in no lane alone enough to be told */
    { "C5", CONTEXT, "comm_delay=4ms", NULL, 0 },
    { "C4", CONTEXT, "comm_bw=260MB/s", NULL, 0 },
    { "C11", TENSOR, "pair_bw=4-5:60MB/s", "peer", 5 },
    { "C11", TENSOR, "pair_bw=4-5:60MB/s:22-40", "first_step", 22 },
    { "C4", TENSOR, "comm_bw=300MB/s@5", "rank", 5 },
    { "C5", TENSOR, "comm_delay=1ms@2", "rank", 2 },
    { "C5", "--layout pp=2,dp=2 --set train.accumulate=32 ", "comm_delay=60ms@1", "rank", 1 },
    { "C11", PIPELINE, "pair_bw=1-3:8MB/s", "rank", 1 },
    { "C11", SPACED, "pair_bw=2-4:100MB/s", "peer", 4 }, /* in the ring of 0, 2, 4 and 6 */
    { "C11", "--layout pp=6 --set train.batch=4 --set train.accumulate=36 ",
      "pair_bw=1-2:20MB/s,pair_bw=4-5:20MB/s", "ranks", 1 }, /* and 2, 4 and 5 */
    { "C11", DP, "pair_bw=4-5:100MB/s", "peer", 5 }, /* the only ring: so said what was before */
    { "C4", DP, "pair_bw=4-5:100MB/s:6-40", "lane", 0 }, /* then it was not slow */
    { "B1", SPACED, "slow_compute=1.4@1,slow_compute=1.4@6", "ranks", 1 }, /* and 6 */
    { "K6", SPACED, "op=attention,delay=2ms", NULL, 0 },
    { "K6", SPACED, "op=linear,delay=0.4ms", NULL, 0 }, /* a tenth of what it takes */
    { "C5", QUICK, "comm_delay=0.279ms", NULL, 0 }, /* half of what beginning one takes */
    { "C5", QUICK, "comm_delay=0.279ms@2", "rank", 2 },
    { "B4", PIPELINE, "stage_skew=2", "stage", 3 },
    { "K10", DP, "recompute=full", NULL, 0 },
    { "K10", LONE_TENSOR, "recompute=full", NULL, 0 }, /* with its exchanges */
    /* Of two slow links neither is the one that was the slowest before the run. */
    { "C4", RINGS, "pair_bw=2-3:200MB/s,pair_bw=4-5:200MB/s", NULL, 0 },
    { "B1", RINGS, "op=attention,delay=2ms@5", "rank", 5 }, /* all of its ring are late to others */
    { "C3", "--layout dp=8 ", "bucket=all", NULL, 0 },
    { "C3", NARROW "--layout dp=4,zero=1 ", "bucket=all", NULL, 0 }, /* the gathers stay */
    { "C3", EXPERTS, "bucket=all", NULL, 0 },
    { "C1", EXPERTS, "overlap=off", NULL, 0 },
    { "C2", EXPERTS, "bucket=16KiB", NULL, 0 },
    { "C2", "--layout dp=8 --rates latency=1e-4 ", "bucket=64KiB", NULL, 0 },
    { "C2", "--layout dp=8 --rates latency=1e-4 ", "bucket=16KiB", NULL, 0 },
    { "C2", "--layout dp=4 --set train.batch=4 --set train.accumulate=4 --set train.seq=64 --rates "
            "flops=5e10,memory=2e10,link=2e9,latency=1e-4 ", "bucket=16KiB", NULL, 0 },
    { "C1", "--layout dp=8 --rates latency=1e-4 ", "overlap=off", NULL, 0 },
    /* What is begun behind such a wait is begun earlier without it. */
    { "C1", MIXED "--layout cp=2,tp=2 ", "overlap=off", NULL, 0 },
    { "C1", MIXED "--layout cp=4,pp=2 --set train.accumulate=64 ", "overlap=off", NULL, 0 },
    { "C10", "--layout pp=2,dp=2,zero=1 --set train.batch=4 --set train.accumulate=48 --set "
             "train.seq=64 --rates flops=1e11,link=3e8 ", "sync_every_microbatch=on", NULL, 0 },
    { "B6", THIN "pp=2,dp=2,zero=1 --set train.batch=16 --set train.accumulate=32 ",
      "micro_batch=2", NULL, 0 },
    { "K7", THIN "dp=4,zero=1 --set train.batch=64 --set train.accumulate=1 ", "micro_batch=4",
      NULL, 0 },
    { "K14", SHORT "zero=1 ", "zero=0", NULL, 0 },
    { "K14", SHORT "zero=1 --set train.seq=64 --rates flops=1e11,link=4e9 ", "zero=0", NULL, 0 },
    { "H6", SHORT "zero=1 ", "health_every=1", NULL, 0 },
    { "H2", DP "--set eval.tokens=32768 ", "eval_every=4", NULL, 0 },
    { "H3", DP "--rates disk=2e7 ", "ckpt_every=5", NULL, 0 },
};

static void check(const struct fault *f, double clean)
{
    json_t *o = diagnose(f->flags, f->inject), *all = json_object_get(o, "findings");
    json_t *top = json_array_get(all, 0), *gain = json_object_get(top, "gain_s");
    char *text = json_dumps(all, JSON_INDENT(1) | JSON_REAL_PRECISION(5));
    double true_gain = number(o, "step_s") - clean;
    double lo = json_number_value(json_array_get(gain, 0));
    double mid = json_number_value(json_array_get(gain, 1));
    double hi = json_number_value(json_array_get(gain, 2));
    const char *id = json_string_value(json_object_get(top, "id"));
    if (!id || strcmp(id, f->id) != 0)
        fail_msg("%s %s: expected %s first of %s", f->flags, f->inject, f->id, text);
    json_t *place = json_object_get(top, "place");
    json_t *at = json_object_get(place, f->place ? f->place : "rank");
    if (json_is_array(at)) /* its first */
        at = json_array_get(at, 0);
    if (f->place ? json_integer_value(at) != f->at : !json_is_null(at))
        fail_msg("%s %s: the wrong place in %s", f->flags, f->inject, text);
    if (!(lo <= true_gain && true_gain <= hi && fabs(mid - true_gain) <= 0.25 * true_gain))
        fail_msg("%s %s: it takes %.4g s more, predicted %.4g [%.4g, %.4g]", f->flags, f->inject,
                 true_gain, mid, lo, hi);
    free(text);
    json_decref(o);
}

TEST(a_known_fault_is_named_first_with_its_place_and_what_it_costs)
{
    const char *flags = NULL;
    double clean = 0;
    for (i64 i = 0; i < COUNT_OF(faults); i++) {
        if (!flags || strcmp(flags, faults[i].flags) != 0) {
            json_t *o = diagnose(flags = faults[i].flags, NULL);
            clean = number(o, "step_s");
            json_decref(o);
        }
        check(&faults[i], clean);
    }
}

TEST(what_watches_learning_takes_time_in_its_steps_only)
{
    double s[3];
    const char *const faults_of[] = { NULL, "health_every=1", "health_every=4" };
    for (int i = 0; i < 3; i++) {
        json_t *o = diagnose(SHORT "zero=1 ", faults_of[i]);
        s[i] = number(o, "step_s");
        json_decref(o);
    }
    CHECK(s[1] > 1.02 * s[0]);
    CHECK_NEAR((s[2] - s[0]) / (s[1] - s[0]), 10. / 37, 1e-3); /* steps 4 to 40 */
}

/* What passes from stage to stage is gathered along tp, too: a rank may wait for a gathering of
 * whose task an earlier turn has not been settled. */
TEST(a_step_of_several_stages_a_rank_takes_as_long_replayed)
{
    static const char *const layouts[] = {
        "pp=2,tp=2,schedule=interleaved,chunks=3", "pp=2,tp=4,schedule=interleaved,chunks=3",
        "pp=2,dp=2,schedule=interleaved,chunks=3", "pp=2,tp=2,schedule=zb-v",
    };
    char flags[256];
    for (int i = 0; i < COUNT_OF(layouts); i++) {
        snprintf(flags, sizeof flags, "--layout %s --set 'model.override={\"layers\":6}' --set "
                 "train.steps=6 --set train.batch=4 ", layouts[i]);
        json_t *o = diagnose(flags, NULL);
        const double fidelity = number(o, "replay_fidelity");
        if (fabs(fidelity - 1) > 1e-6) /* spans are of whole nanoseconds */
            fail_msg("%s: a replay takes %g times as long", layouts[i], fidelity);
        json_decref(o);
    }
}

TEST(runs_without_a_fault_have_no_finding)
{
    static const char *const flags[] = { DP, TENSOR, "--layout dp=8 ", "--layout dp=2,cp=2,tp=2 ",
                                         "--layout dp=8,zero=3 ", "--layout dp=1 ",
        /* products are thin, and more rows at once would lengthen the bubble */
        THIN "pp=2,dp=2,zero=1 --set train.batch=16 --set train.accumulate=32 --rates "
             "flops=3e11,memory=4e9,link=4e9 " };
    for (i64 i = 0; i < COUNT_OF(flags); i++) {
        json_t *o = diagnose(flags[i], NULL);
        if (json_array_size(json_object_get(o, "findings")) > 0)
            fail_msg("%s: %s", flags[i], json_dumps(json_object_get(o, "findings"), 0));
        CHECK_NEAR(number(o, "replay_fidelity"), 1, 0.02);
        json_decref(o);
    }
}

/* The last micro-batch's exchange stays, half hidden, and nothing is left to be added up. */
TEST(what_is_exchanged_in_each_turn_gives_back_all_but_the_last_one)
{
    const char *flags = "--layout pp=2,dp=2,zero=1 --set train.batch=4 --set train.accumulate=12 "
                        "--set train.seq=64 --rates flops=1e11,link=3e8 ";
    json_t *clean = diagnose(flags, NULL), *o = diagnose(flags, "sync_every_microbatch=on");
    json_t *top = json_array_get(json_object_get(o, "findings"), 0);
    const double true_gain = number(o, "step_s") - number(clean, "step_s");
    CHECK_STR(json_string_value(json_object_get(top, "id")), "C10");
    CHECK_NEAR(json_number_value(json_array_get(json_object_get(top, "gain_s"), 1)) / true_gain, 1,
               0.01);
    json_decref(clean);
    json_decref(o);
}

TEST(of_two_faults_both_are_among_the_first_three)
{
    static const struct { const char *flags, *inject, *one, *two; } pairs[] = {
        { DP, "slow_compute=1.4@1,comm_bw=80MB/s", "B1", "C4" },
        { DP, "loader_spin=1200ms@4,phi_override=0.7@1", "D1", "K4" },
        { PIPELINE, "stage_skew=1", "B4", "B5" },
        { DP, "slow_compute=1.6@0,phi_override=0.7@5", "B1", "K4" }, /* for whom none waits yet */
        { "--layout pp=2 --set train.batch=4 --set train.accumulate=24 ",
          "stage_skew=2,slow_compute=1.4@1", "B1", "B4" },
        /* In time for steps as long as the slow rank makes them, which are longer than a second. */
        { DP "--rates flops=2e10,memory=1e10,link=4e9,latency=1e-5 ",
          "slow_compute=1.6@7,loader_spin=2200ms@5", "B1", "D1" },
        { UNEVEN, "seqlen_zipf=0.8,jitter=10%", "B3", "D6" },
        { UNEVEN, "seqlen_zipf=0.8,jitter=50%", "B3", "D6" }, /* nobody waits for rows yet */
    };
    for (i64 i = 0; i < COUNT_OF(pairs); i++) {
        json_t *o = diagnose(pairs[i].flags, pairs[i].inject);
        json_t *all = json_object_get(o, "findings");
        int found = 0;
        for (size_t k = 0; k < 3 && k < json_array_size(all); k++) {
            const char *id = json_string_value(json_object_get(json_array_get(all, k), "id"));
            found += strcmp(id, pairs[i].one) == 0 || strcmp(id, pairs[i].two) == 0;
        }
        if (found != 2)
            fail_msg("%s: %s", pairs[i].inject, json_dumps(all, JSON_REAL_PRECISION(4)));
        json_decref(o);
    }
}

static const json_t *slow_rank_of(const json_t *all, int rank)
{
    size_t k;
    json_t *f;
    json_array_foreach(all, k, f) {
        const json_t *at = json_object_get(json_object_get(f, "place"), "rank");
        if (strcmp(json_string_value(json_object_get(f, "id")), "B1") == 0 &&
            json_integer_value(at) == rank)
            return f;
    }
    fail_msg("rank %d: %s", rank, json_dumps(all, JSON_REAL_PRECISION(4)));
    return NULL;
}

static double step_with(const char *flags, const char *fault)
{
    json_t *o = diagnose(flags, fault);
    const double step = number(o, "step_s");
    json_decref(o);
    return step;
}

static const json_t *finding_of(const json_t *o, const char *id)
{
    size_t k;
    json_t *f, *all = json_object_get(o, "findings");
    json_array_foreach(all, k, f)
        if (strcmp(json_string_value(json_object_get(f, "id")), id) == 0)
            return f;
    fail_msg("no %s: %s", id, json_dumps(all, JSON_REAL_PRECISION(4)));
    return NULL;
}

/* Bytes of exchanges pass one behind the other, what delays them side by side: by what either makes
 * a step longer its exchanges do not tell. */
TEST(low_bandwidth_and_high_latency_are_told_apart_and_priced)
{
    static const char *const injected[] = { "comm_bw=70MB/s", "comm_delay=100ms" };
    static const char *const kinds[] = { "C4", "C5" };
    char both[64];
    snprintf(both, sizeof both, "%s,%s", injected[0], injected[1]);
    json_t *o = diagnose(DP, both);
    for (i64 i = 0; i < COUNT_OF(injected); i++) {
        const json_t *gain = json_object_get(finding_of(o, kinds[i]), "gain_s");
        const double true_gain = number(o, "step_s") - step_with(DP, injected[1 - i]);
        CHECK(true_gain > 0.05 * number(o, "step_s"));
        CHECK_NEAR(json_number_value(json_array_get(gain, 1)) / true_gain, 1, 0.05);
    }
    json_decref(o);
}

/* Steps that get shorter wait for the loader instead: those that do, and no others. What is left to
 * gain is no surer for that. */
TEST(what_a_loader_leaves_of_a_gain_is_told_and_has_an_interval)
{
    static const struct { const char *id, *fault, *loader; } cases[] = {
        { "B1", "slow_compute=1.8@3", "loader_spin=900ms@0" },
        { "B2", "slow_compute=2.2:15-30", "loader_spin=1200ms@0" },
        { "H9", "pause=3000ms/7@5", "loader_spin=1200ms@0" },
    };
    for (i64 i = 0; i < COUNT_OF(cases); i++) {
        char both[100];
        snprintf(both, sizeof both, "%s,%s", cases[i].fault, cases[i].loader);
        json_t *o = diagnose(DP, both);
        const double step = number(o, "step_s");
        const double gains[] = { step - step_with(DP, cases[i].loader),
                                 step - step_with(DP, cases[i].fault) };
        for (int k = 0; k < 2; k++) {
            if (gains[k] < 0.02 * step)
                continue;
            const json_t *f = finding_of(o, k ? "D1" : cases[i].id);
            const json_t *gain = json_object_get(f, "gain_s");
            const double mid = json_number_value(json_array_get(gain, 1));
            if (!(fabs(mid - gains[k]) < 0.06 * gains[k]) ||
                !(json_number_value(json_array_get(gain, 0)) < 0.95 * gains[k]) ||
                !(json_number_value(json_array_get(gain, 2)) > 1.05 * gains[k]))
                fail_msg("%s: %d gives back %.4g s: %s", both, k, gains[k],
                         json_dumps(json_object_get(o, "findings"), 0));
        }
        json_decref(o);
    }
}

/* A finding about a setting is right when its own fix gives back what it promises. */
TEST(settings_give_back_what_is_promised)
{
    static const struct { const char *id, *run, *before, *after, *fix; } settings[] = {
        /* Heads that are exchanged for tokens, and what goes round a ring, are no sums. */
        { "C1", "--set train.batch=4 --set train.accumulate=1 --set train.seq=256 --rates "
          "flops=5e10,memory=2e10,link=4e8,latency=1e-5 --layout ",
          "cp=2,dp=2,cp_kind=ulysses,zero=2",
          "cp=2,dp=2,cp_kind=ulysses,zero=1", "--layout.zero at most 1" },
        { "C1", "--set train.batch=8 --set train.accumulate=2 --set train.seq=256 --rates "
          "flops=5e10,memory=2e10,link=2e8,latency=1e-4 --layout ", "cp=2,dp=2,zero=2",
          "cp=2,dp=2,zero=1", "--layout.zero at most 1" },
        /* Of each rank's two stages one is named by the split that is even over ranks. */
        { "B4", STAGES "--layout pp=2,schedule=zb-v", ",stages=1+2+2+1", "",
          "--layout.stages 2+2+1+1" },
        { "B4", STAGES "--layout pp=2", ",stages=2+4", ",stages=3+3", "--layout.stages 3+3" },
    };
    for (i64 i = 0; i < COUNT_OF(settings); i++) {
        char before[400], after[400];
        snprintf(before, sizeof before, "%s%s ", settings[i].run, settings[i].before);
        snprintf(after, sizeof after, "%s%s ", settings[i].run, settings[i].after);
        json_t *o = diagnose(before, NULL);
        const json_t *f = finding_of(o, settings[i].id), *gain = json_object_get(f, "gain_s");
        const double true_gain = number(o, "step_s") - step_with(after, NULL);
        const double lo = json_number_value(json_array_get(gain, 0));
        const double hi = json_number_value(json_array_get(gain, 2));
        if (!(lo <= true_gain && true_gain <= hi) ||
            !strstr(json_string_value(json_object_get(f, "fix")), settings[i].fix))
            fail_msg("%s gives back %.4g s: %s", settings[i].fix, true_gain, json_dumps(f, 0));
        json_decref(o);
    }
}

/* Links between the two halves of eight ranks, as between two hosts. */
static const char *between_hosts(const char *rate)
{
    static char text[16 * 32];
    int n = 0;
    for (int a = 0; a < 4; a++)
        for (int b = 4; b < 8; b++)
            n += snprintf(text + n, sizeof text - (size_t)n, "%spair_bw=%d-%d:%s", n ? "," : "", a,
                          b, rate);
    return text;
}

static const json_t *axes_of(const json_t *o)
{
    size_t k;
    json_t *f;
    json_array_foreach(json_object_get(o, "findings"), k, f)
        if (strcmp(json_string_value(json_object_get(f, "id")), "C7") == 0)
            return f;
    return NULL;
}

/* What another order gives back is what it takes less with the same links. */
TEST(an_axis_that_crosses_hosts_is_named_with_an_order_in_which_it_does_not)
{
    static const struct { const char *run, *layout, *order, *rate, *lane; } cases[] = {
        { "--set train.accumulate=4 ", "dp=4,tp=2,zero=1", "dp-tp-pp", "200MB/s", "tp" },
        { "--set train.accumulate=4 ", "dp=4,tp=2,zero=1", "dp-tp-pp", "60MB/s", "tp" },
        { "--set train.accumulate=16 ", "pp=2,dp=2,tp=2", "pp-dp-tp", "100MB/s", "tp" },
        { "--set train.accumulate=4 --set train.batch=4 ", "dp=2,tp=4", "dp-tp-pp", "200MB/s",
          "tp" },
        { "--set train.accumulate=4 --set train.seq=512 ", "cp=2,dp=2,tp=2", "dp-tp-pp", "100MB/s",
          "tp" },
    };
    for (i64 i = 0; i < COUNT_OF(cases); i++) {
        char usual[200], other[200];
        const char *fault = between_hosts(cases[i].rate);
        snprintf(usual, sizeof usual, "%s--layout %s ", cases[i].run, cases[i].layout);
        snprintf(other, sizeof other, "%s--layout %s,order=%s ", cases[i].run, cases[i].layout,
                 cases[i].order);
        json_t *o = diagnose(other, fault), *well = diagnose(usual, fault);
        json_t *top = json_array_get(json_object_get(o, "findings"), 0);
        char *text = json_dumps(json_object_get(o, "findings"), JSON_INDENT(1));
        const double true_gain = number(o, "step_s") - number(well, "step_s");
        const json_t *gain = json_object_get(top, "gain_s"), *place = json_object_get(top, "place");
        const double mid = json_number_value(json_array_get(gain, 1));
        if (!axes_of(o) || axes_of(o) != top ||
            strcmp(json_string_value(json_object_get(place, "lane")), cases[i].lane) != 0 ||
            strncmp(json_string_value(json_object_get(top, "fix")), "--layout.order tp-", 18) != 0)
            fail_msg("%s: expected C7 first of %s", other, text);
        if (!(json_number_value(json_array_get(gain, 0)) <= true_gain &&
              true_gain <= json_number_value(json_array_get(gain, 2)) &&
              fabs(mid - true_gain) <= 0.25 * true_gain))
            fail_msg("%s: gives back %.4g s, not %s", other, true_gain, text);
        if (axes_of(well))
            fail_msg("%s has C7", usual);
        free(text);
        json_decref(well);
        json_decref(o);
    }
}

TEST(slow_links_that_no_order_avoids_are_no_matter_of_it)
{
    static const struct { const char *fault, *id; } others[] = {
        { "comm_bw=60MB/s", "C4" }, { "pair_bw=0-4:20MB/s", "C11" }, { NULL, NULL },
    };
    for (i64 i = 0; i < COUNT_OF(others); i++) {
        json_t *o = diagnose("--layout dp=4,tp=2,zero=1,order=dp-tp-pp --set train.accumulate=4 ",
                             others[i].fault);
        json_t *all = json_object_get(o, "findings"), *top = json_array_get(all, 0);
        const char *id = json_string_value(json_object_get(top, "id"));
        if (axes_of(o) || !id != !others[i].id || (id && strcmp(id, others[i].id) != 0))
            fail_msg("%s: %s", others[i].fault, json_dumps(all, 0));
        json_decref(o);
    }
}

/* Eight ranks of which one is slow, in a run with a ledger of 8 cores at 10 W each. */
static json_t *with_ledger(const char *flags, const char *fault)
{
    json_error_t error;
    const char *text = shellf(0, "cd $D && rm -rf runs && $H train r.yaml --quiet --clock virtual "
                              "--set run.name=a %s --inject %s >/dev/null && printf '{\"schema\": "
                              "1, \"J\": 800, \"J_lo\": 400, \"J_hi\": 2000, \"seconds\": 10, "
                              "\"core_seconds\": 72, \"cpus\": 8, \"nodes\": 1, \"ranks\": 8, "
                              "\"methods\": 2}' >runs/a/energy.json && $H diagnose runs/a --json",
                              flags, fault);
    json_t *o = json_loads(text, 0, &error);
    if (!o)
        fail_msg("%s: %s", error.text, text);
    return o;
}

/* What it would save takes no time: steps are as long when the others compute as it says. */
TEST(energy_of_ranks_that_have_time_stands_behind_and_costs_no_time)
{
    static const char others[] = "slow_compute=1.5@5,slow_compute=1.25@0,slow_compute=1.25@1,"
        "slow_compute=1.25@2,slow_compute=1.25@3,slow_compute=1.25@4,slow_compute=1.25@6,"
        "slow_compute=1.25@7";
    json_t *o = with_ledger(DP, "slow_compute=1.5@5"), *then = with_ledger(DP, others);
    const json_t *all = json_object_get(o, "findings");
    const size_t n = json_array_size(all);
    json_t *last = json_array_get(all, n - 1);
    const json_t *saves = json_object_get(last, "saves_j");
    CHECK(n == 2);
    CHECK_STR(json_string_value(json_object_get(json_array_get(all, 0), "id")), "B1");
    CHECK(!json_object_get(json_array_get(all, 0), "saves_j"));
    CHECK_STR(json_string_value(json_object_get(last, "id")), "R4");
    CHECK(json_number_value(json_array_get(json_object_get(last, "gain_s"), 2)) == 0);
    CHECK(json_number_value(json_array_get(saves, 1)) > 0.01 * 80 * number(o, "step_s"));
    CHECK(json_number_value(json_array_get(saves, 2)) >
          json_number_value(json_array_get(saves, 1)));
    CHECK_NEAR(number(then, "step_s") / number(o, "step_s"), 1, 0.002);
    json_decref(then);
    json_decref(o);
    /* What a pipeline's other stages do more slowly fills and empties it more slowly. */
    o = with_ledger(FULL, "stage_skew=1");
    last = json_array_get(json_object_get(o, "findings"), 1);
    CHECK_STR(json_string_value(json_object_get(last, "id")), "R4");
    CHECK(json_number_value(json_array_get(json_object_get(last, "saves_j"), 1)) <
          0.04 * 80 * number(o, "step_s"));
    json_decref(o);
    o = with_ledger(DP, "slow_compute=1.5"); /* nobody has time */
    CHECK_EQ(json_array_size(json_object_get(o, "findings")), 0);
    json_decref(o);
}

/* The slower one hides the other: what mending that gives back counts from there. What either
 * should take, the other does not show, nor whether its stage is too long. */
TEST(two_ranks_that_are_slow_by_different_amounts_are_both_named)
{
    static const struct {
        const char *flags, *slower, *slow;
        int ranks[2];
    } pairs[] = {
        { DP, "slow_compute=1.4@1", "slow_compute=1.3@4", { 1, 4 } },
        { "--layout dp=3 --set train.batch=6 --set train.accumulate=4 ", "slow_compute=1.58@1",
          "slow_compute=1.37@2", { 1, 2 } },
        { STAGES "--layout pp=3 ", "slow_compute=1.71@2", "slow_compute=1.44@0", { 2, 0 } },
        { STAGES "--layout pp=4,schedule=zb-h1 --set train.accumulate=32 ", "slow_compute=1.7@2",
          "slow_compute=1.3@1", { 2, 1 } },
    };
    for (i64 i = 0; i < COUNT_OF(pairs); i++) {
        char both[64];
        snprintf(both, sizeof both, "%s,%s", pairs[i].slower, pairs[i].slow);
        const double clean = step_with(pairs[i].flags, NULL);
        const double one = step_with(pairs[i].flags, pairs[i].slow);
        json_t *o = diagnose(pairs[i].flags, both), *all = json_object_get(o, "findings"), *f;
        const double gains[] = { number(o, "step_s") - one, one - clean };
        size_t n;
        for (size_t k = 0; k < 2; k++) {
            const json_t *x = slow_rank_of(all, pairs[i].ranks[k]);
            const double gain = json_number_value(json_array_get(json_object_get(x, "gain_s"), 1));
            CHECK_NEAR(gain, gains[k], 0.1 * gains[k]);
        }
        json_array_foreach(all, n, f)
            CHECK(strcmp(json_string_value(json_object_get(f, "id")), "B4") != 0);
        json_decref(o);
    }
}

static bool has_ranks(json_t *finding, const int *ranks)
{
    json_t *place = json_object_get(finding, "place"), *list = json_object_get(place, "ranks");
    const i64 first = json_integer_value(json_object_get(place, "rank"));
    i64 last = json_integer_value(json_object_get(place, "last_rank"));
    const i64 n = ranks[1] < 0 ? 1 : 2; /* one, or two */
    last = last > first ? last : first;
    if (json_array_size(list) > 0)
        return (i64)json_array_size(list) == n &&
               json_integer_value(json_array_get(list, 0)) == ranks[0] &&
               json_integer_value(json_array_get(list, 1)) == ranks[1];
    return first == ranks[0] && last - first + 1 == n && last == ranks[n - 1];
}

/* Sets of ranks, ranges or not, each behind those that must be mended first. */
TEST(sets_of_ranks_that_are_slow_by_different_amounts_are_all_named)
{
    static const struct {
        const char *flags, *faults[3];
        int ranks[3][2];
    } sets[] = {
        { DP, { "slow_compute=1.3@2-3", "slow_compute=1.6@1,slow_compute=1.6@4", NULL },
          { { 2, 3 }, { 1, 4 } } },
        { DP, { "slow_compute=1.3@0,slow_compute=1.3@6", "slow_compute=1.7@2-3", NULL },
          { { 0, 6 }, { 2, 3 } } },
        { DP, { "slow_compute=1.25@0,slow_compute=1.25@7", "slow_compute=1.5@3",
                "slow_compute=1.9@1,slow_compute=1.9@5" },
          { { 0, 7 }, { 3, -1 }, { 1, 5 } } },
    };
    for (i64 i = 0; i < COUNT_OF(sets); i++) {
        const i64 n = sets[i].faults[2] ? 3 : 2;
        char all[256] = "";
        double before = step_with(sets[i].flags, NULL), gains[3];
        for (i64 k = 0; k < n; k++) {
            snprintf(all + strlen(all), sizeof all - strlen(all), "%s%s", k > 0 ? "," : "",
                     sets[i].faults[k]);
            const double step = step_with(sets[i].flags, all);
            gains[k] = step - before;
            before = step;
        }
        json_t *o = diagnose(sets[i].flags, all), *list = json_object_get(o, "findings");
        for (i64 k = 0; k < n; k++) {
            json_t *f = json_array_get(list, (size_t)(n - 1 - k));
            CHECK_STR(json_string_value(json_object_get(f, "id")), "B1");
            CHECK(has_ranks(f, sets[i].ranks[k]));
            CHECK_NEAR(json_number_value(json_array_get(json_object_get(f, "gain_s"), 1)), gains[k],
                       0.1 * gains[k]);
        }
        json_decref(o);
    }
}

/* And two episodes, each in its own steps. */
TEST(two_ranks_that_become_slow_are_both_named)
{
    json_t *o = diagnose(DP, "slow_compute=1.5@1:9-17,slow_compute=1.3@6:24-36");
    json_t *all = json_object_get(o, "findings");
    static const int where[][3] = { { 1, 9, 17 }, { 6, 24, 36 } };
    for (size_t k = 0; k < 2; k++) {
        json_t *f = json_array_get(all, k), *place = json_object_get(f, "place");
        CHECK_STR(json_string_value(json_object_get(f, "id")), "B2");
        CHECK_EQ(json_integer_value(json_object_get(place, "rank")), where[k][0]);
        CHECK_EQ(json_integer_value(json_object_get(place, "first_step")), where[k][1]);
        CHECK_EQ(json_integer_value(json_object_get(place, "last_step")), where[k][2]);
    }
    json_decref(o);
}

struct probing {
    const char *flags, *fault;
    double critical; /* share of what was added that the step takes longer */
};

/* On a computed clock nothing wanders: the run answers as the replay says, and no gain that the
 * replay promises exceeds what the answer allows. */
/* Evaluations fall among the steps that are replayed more or less often than among all. */
TEST(the_path_has_as_much_of_what_is_seldom_done_as_the_step)
{
    json_t *o = diagnose(DP "--set train.steps=200 ", "eval_every=9");
    json_t *path = json_object_get(o, "critical_path"), *p;
    const double eval_s = number(json_object_get(o, "times"), "eval_s");
    double found = 0;
    size_t i;
    json_array_foreach(path, i, p) {
        const char *what = json_string_value(json_object_get(p, "what"));
        found += what && strcmp(what, "eval") == 0 ? number(p, "seconds") : 0;
    }
    CHECK(eval_s > 0);
    CHECK_NEAR(found, eval_s, 0.01 * eval_s);
    json_decref(o);
}

TEST(a_probe_is_answered_by_what_is_critical_and_bounds_the_gain)
{
    static const struct probing all[] = {
        { DP, "probe=linear,slower=10%", 1 },
        { DP, "probe=linear,slower=10%:11-30", 1 },
        { DP, "probe=all,slower=10%@3,slow_compute=1.5@3", 1 }, /* the slow one paces all */
        { DP, "probe=all,slower=10%@2,slow_compute=1.5@3", 0 }, /* the others have time */
        { TENSOR, "probe=attention,slower=20%", 1 },
        { PIPELINE, "probe=linear,slower=5%", NAN },
    };
    for (i64 i = 0; i < COUNT_OF(all); i++) {
        json_t *o = diagnose(all[i].flags, all[i].fault), *probes = json_object_get(o, "probes");
        json_t *p = json_array_get(probes, 0), *plain;
        double response = number(p, "response_s");
        double added = number(p, "slower") * number(p, "tasks_s");
        double step = number(o, "step_s"), bound = number(p, "bound_s");
        CHECK_EQ(json_array_size(probes), 1);
        CHECK_EQ(json_integer_value(json_object_get(p, "pairs")), i == 1 ? 10 : 18);
        CHECK_NEAR(response, number(p, "replayed_response_s"), 1e-3 * step);
        if (isfinite(all[i].critical))
            CHECK_NEAR(response / added, all[i].critical, 0.01);
        else
            CHECK(response / added > 0.2);
        CHECK_NEAR(bound, fmax(0, response) / number(p, "slower"), 1e-12);
        CHECK(number(p, "replayed_gain_s") <= bound + 1e-3 * step);
        json_decref(o);
        const char *rest = strstr(all[i].fault, "slow_compute");
        /* What was slowed on purpose counts in nothing else. */
        plain = diagnose(all[i].flags, rest);
        CHECK_NEAR(step, number(plain, "step_s"), 1e-9 * step);
        json_decref(plain);
    }
}

/* The command is run as it stands, on the recipe that the run left, which says to spoil it. */
TEST(what_confirms_a_setting_gives_back_what_was_promised)
{
    static const struct { const char *id, *fault; } cases[] = {
        { "K10", "recompute=full" }, { "H2", "eval_every=2" }, { "C2", "bucket=16KiB" },
    };
    for (i64 i = 0; i < COUNT_OF(cases); i++) {
        json_t *o = diagnose("--layout dp=8 --set train.batch=16 ", cases[i].fault);
        json_t *f = json_array_get(json_object_get(o, "findings"), 0);
        json_t *gain = json_object_get(f, "gain_s");
        json_error_t error;
        char folder[200];
        CHECK_STR(json_string_value(json_object_get(f, "id")), cases[i].id);
        const char *confirm = json_string_value(json_object_get(f, "confirm"));
        snprintf(folder, sizeof folder, "%s", shellf(0, "cd $D && $H%s --quiet",
                                                     confirm + strlen("headway")));
        folder[strcspn(folder, "\n")] = '\0';
        const char *text = shellf(0, "cd $D && $H diagnose %s --json", folder);
        json_t *then = json_loads(text, 0, &error);
        const double saved = number(o, "step_s") - number(then, "step_s");
        CHECK(saved >= json_number_value(json_array_get(gain, 0)) &&
              saved <= json_number_value(json_array_get(gain, 2)));
        json_decref(then);
        json_decref(o);
    }
}

/* Six layers on four stages: what they wait for each other is no riddle, and no setting mends it
 * but another number of stages. */
TEST(stages_that_no_whole_layers_make_even_are_told_and_are_no_finding)
{
    json_t *o = diagnose(FULL, NULL), *stages = json_object_get(o, "uneven_stages");
    CHECK_EQ(json_array_size(json_object_get(o, "findings")), 0);
    CHECK(number(json_object_get(o, "unexplained"), "wait_s") > 0.1 * number(o, "step_s"));
    CHECK(number(stages, "most_s") > 1.05 * number(stages, "mean_s"));
    json_decref(o);
    const char *text = shell("cd $D && $H diagnose runs/a", 0);
    CHECK(strstr(text, " of waiting for ranks is for stages of unequal length: "));
    CHECK(!strstr(text, "No kind"));
    o = diagnose("--layout pp=2,dp=4 --set train.accumulate=48 ", NULL);
    CHECK(!json_object_get(o, "uneven_stages"));
    json_decref(o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ONE(a_known_fault_is_named_first_with_its_place_and_what_it_costs),
        ONE(what_watches_learning_takes_time_in_its_steps_only),
        ONE(a_step_of_several_stages_a_rank_takes_as_long_replayed),
        ONE(runs_without_a_fault_have_no_finding),
        ONE(what_is_exchanged_in_each_turn_gives_back_all_but_the_last_one),
        ONE(of_two_faults_both_are_among_the_first_three),
        ONE(low_bandwidth_and_high_latency_are_told_apart_and_priced),
        ONE(what_a_loader_leaves_of_a_gain_is_told_and_has_an_interval),
        ONE(settings_give_back_what_is_promised),
        ONE(energy_of_ranks_that_have_time_stands_behind_and_costs_no_time),
        ONE(an_axis_that_crosses_hosts_is_named_with_an_order_in_which_it_does_not),
        ONE(slow_links_that_no_order_avoids_are_no_matter_of_it),
        ONE(two_ranks_that_are_slow_by_different_amounts_are_both_named),
        ONE(sets_of_ranks_that_are_slow_by_different_amounts_are_all_named),
          ONE(two_ranks_that_become_slow_are_both_named),
        ONE(what_confirms_a_setting_gives_back_what_was_promised),
        ONE(stages_that_no_whole_layers_make_even_are_told_and_are_no_finding),
        ONE(the_path_has_as_much_of_what_is_seldom_done_as_the_step),
        ONE(a_probe_is_answered_by_what_is_critical_and_bounds_the_gain),
    };
    return cmocka_run_group_tests(tests, prepare, NULL);
}
