/* Every layout that `headway train` takes, through the program itself: the same run as on one
 * rank, resumed on any other layout, and its checkpoints used by every other command. */
#include "cli/program.h"
#include "test.h"

#include "base/json.h"
#include "base/sys.h"

#include <math.h>
#include <stdlib.h>

#define TRAIN "cd $D && timeout 100 $H train r.yaml --quiet --set run.preflight=no "

enum { STEPS = 12 };

static int prepare(void **state)
{
    (void)state;
    setenv("D", "layouts-test", 1);
    make_documents();
    shell("cd $D && cat >r.yaml <<X\n"
          "model: {spec: laptop-2m, override: {layers: 2, width: 64, hidden: 96, heads: 4}}\n"
          "data: {sources: data, tokenizer: tok.json}\n"
          "train: {steps: 12, batch: 2, accumulate: 2, seq: 32, threads: 1, ema: 0.9}\n"
          "lr: {schedule: constant, warmup: 2}\nlog: {every: 1}\neval: {every: 6}\nX\n", 0);
    shell(TRAIN "--set run.name=one", 0);
    return 0;
}

/* Values of a key in a run's lines of an event, in order; returns how many. */
static int read_values(const char *run, const char *event, const char *key, double *out)
{
    int n = 0;
    const char *text = shellf(0, "grep -h '\"event\":\"%s\",' $D/runs/%s/metrics.jsonl | "
                              "sed 's/.*\"%s\":\\([-0-9.e]*\\).*/\\1/'", event, run, key);
    for (char *at = (char *)(uintptr_t)text, *end; n < STEPS; at = end) {
        out[n] = strtod(at, &end);
        if (end == at)
            break;
        n++;
    }
    return n;
}

/* The loss after every step and of every evaluation is that of the run on one rank. Sums are
 * made in another order: in fp32 by far less than 1e-5 of a loss near 5. */
static void expect_like_one(const char *run, const char *one, double bound)
{
    static const char *const events[] = { "step", "eval", "eval_ema" };
    static const int counts[] = { STEPS, 2, 2 };
    for (int e = 0; e < 3; e++) {
        double a[STEPS], b[STEPS];
        CHECK_EQ(read_values(one, events[e], "loss", a), counts[e]);
        CHECK_EQ(read_values(run, events[e], "loss", b), counts[e]);
        for (int i = 0; i < counts[e]; i++)
            if (!(fabs(a[i] - b[i]) <= bound))
                fail_msg("%s, %s %d: %.9f, one rank has %.9f", run, events[e], i + 1, b[i], a[i]);
    }
}

/* Where the data stand is to be the same exactly. */
static void expect_same_position(const char *a, const char *b)
{
    shellf(0, "cd $D/runs && p() { grep -o '\"position\":[0-9]*' $1/checkpoints/step-12/"
           "manifest.json; }; test -n \"$(p %s)\" && test \"$(p %s)\" = \"$(p %s)\"", a, a, b);
}

static int ranks_of(const char *layout)
{
    int ranks = 1;
    for (const char *at = layout; (at = strstr(at, "p=")); at++)
        ranks *= at[-1] == 'u' ? 1 : atoi(at + 2); /* zero_group */
    return ranks;
}

TEST(every_layout_trains_and_evaluates_what_one_rank_does)
{
    static const char *const layouts[] = { "dp=2", "tp=2", "tp=4", "dp=2,zero=1", "dp=4,zero=1",
                                           "dp=2,tp=2", "dp=2,tp=2,zero=1", "dp=2,zero=2",
                                           "dp=4,zero=3", "dp=2,tp=2,zero=3", "cp=2,dp=2",
                                           "cp=4,zero=3", "dp=4,zero=2,zero_group=2",
                                           "cp=2,cp_kind=ulysses,dp=2,zero=1",
                                           "dp=2,tp=2,zero=1,order=dp-tp-pp" };
    for (i64 i = 0; i < COUNT_OF(layouts); i++) {
        shellf(0, TRAIN "--set run.name=%s --ranks %d --layout %s", layouts[i],
               ranks_of(layouts[i]), layouts[i]);
        expect_like_one(layouts[i], "one", 1e-5);
        expect_same_position(layouts[i], "one");
    }
}

TEST(a_run_goes_on_on_any_other_layout)
{
    static const char *const layouts[] = { "dp=1", "cp=2,dp=2",
                                           "dp=2,tp=2,zero=1,order=dp-tp-pp", "tp=2",
                                           "cp=2,dp=2,zero=3", "dp=1" };
    for (int i = 0; i < COUNT_OF(layouts); i++) {
        int ranks = ranks_of(layouts[i]);
        shellf(0, TRAIN "--set run.name=chain --set train.steps=%d %s --ranks %d --layout %s "
               "--set eval.every=%d", 2 * (i + 1), i ? "--resume" : "", ranks > 1 ? ranks : 0,
               layouts[i], i < 5 ? 1000 : 6);
    }
    double a[STEPS], b[STEPS];
    CHECK_EQ(read_values("one", "step", "loss", a), STEPS);
    CHECK_EQ(read_values("chain", "step", "loss", b), STEPS);
    for (int i = 0; i < STEPS; i++)
        if (!(fabs(a[i] - b[i]) <= 1e-5))
            fail_msg("step %d: %.9f, without changes %.9f", i + 1, b[i], a[i]);
    expect_same_position("chain", "one");
}

static void hash_of(const char *run, char *out)
{
    memcpy(out, shellf(0, "cd $D/runs/%s/checkpoints/step-12 && cat *.safetensors | sha256sum",
                       run), 64);
}

/* bf16 with a split state: each rank has only its own slice of the fp32 weights up to date. */
TEST(split_state_in_bf16_resumes_to_the_bit)
{
    static const char *const half = TRAIN "--set train.precision=bf16 --set run.name=%s --ranks 4 "
                                    "--layout dp=2,tp=2,zero=%d %s";
    char whole[64], resumed[64], name[16], again[16];
    shell(TRAIN "--set run.name=h1 --set train.precision=bf16", 0);
    for (int zero = 1; zero <= 3; zero += 2) {
        snprintf(name, sizeof name, "h%d", 10 + zero);
        snprintf(again, sizeof again, "h%d", 20 + zero);
        shellf(0, half, name, zero, "");
        expect_like_one(name, "h1", 5e-3); /* bf16 keeps 8 bits of an activation */
        shellf(0, half, again, zero, "--set train.steps=5 --set eval.every=1000");
        shellf(0, half, again, zero, "--resume");
        hash_of(name, whole);
        hash_of(again, resumed);
        CHECK(memcmp(whole, resumed, sizeof whole) == 0);
    }
}

/* With sums in an order that no layout changes, nothing tells that the layout ever did. */
static void expect_same_weights(const char *optimizer, const char *const layouts[4])
{
    char a[64], b[64];
    shellf(0, TRAIN "--set run.name=%s --set train.steps=8 --set layout.exact=yes --set "
           "train.batch=1 --set train.accumulate=4 --set optim.name=%s", optimizer, optimizer);
    for (int i = 0; i < 4; i++) {
        int ranks = ranks_of(layouts[i]);
        shellf(0, TRAIN "--set run.name=%s-chain --set train.steps=%d %s --ranks %d --layout %s "
               "--set layout.exact=yes --set train.batch=1 --set train.accumulate=4 --set "
               "optim.name=%s", optimizer, 2 * (i + 1),
               i ? "--resume" : "", ranks > 1 ? ranks : 0, layouts[i], optimizer);
    }
    const char *hash = "cd $D && $H checkpoint export runs/%s%s --out x.safetensors "
                       "--quiet --overwrite >/dev/null && sha256sum <x.safetensors";
    memcpy(a, shellf(0, hash, optimizer, ""), sizeof a);
    memcpy(b, shellf(0, hash, optimizer, "-chain"), sizeof b);
    if (memcmp(a, b, sizeof a) != 0)
        fail_msg("%s: other weights after %s", optimizer, layouts[3]);
}

TEST(an_exact_run_keeps_its_bits_over_any_change_of_layout)
{
    expect_same_weights("adamw",
                        (const char *[]){ "dp=1", "dp=2,zero=3", "dp=2,tp=2,zero=1", "tp=2" });
    expect_same_weights("muon",
                        (const char *[]){ "dp=4,zero=3,zero_group=2", "tp=2", "dp=1",
                                          "dp=2,tp=2,zero=2" });
}

TEST(checkpoints_of_many_ranks_serve_every_other_command)
{
    char one[100], many[100];
    shell(TRAIN "--set run.name=many --ranks 4 --layout dp=2,tp=2,zero=1", 0);
    CHECK(strstr(shell("cd $D && $H checkpoint list runs/many", 0), "whole"));
    CHECK(strstr(shell("cd $D && $H checkpoint verify runs/many", 0), "every byte is right"));
    shell("cd $D && $H checkpoint export runs/many --out many.safetensors --quiet && $H checkpoint "
          "export runs/one --out one.safetensors --quiet && test $(stat -c %s one.safetensors) = "
          "$(stat -c %s many.safetensors)", 0);
    shell("cd $D && $H model export runs/many --out many.hf --quiet && ls many.hf/config.json", 0);
    const char *again = "cd $D && $H %s export runs/many --out %s --quiet%s 2>&1";
    CHECK(strstr(shellf(2, again, "model", "many.hf", ""),
                 "many.hf has a model already; choose another folder, or replace the model"));
    CHECK(strstr(shellf(2, again, "checkpoint", "many.safetensors", ""), "there already"));
    shell("cd $D && echo old >many.hf/config.json && echo old >many.safetensors", 0);
    shellf(0, again, "model", "many.hf", " --overwrite");
    shellf(0, again, "checkpoint", "many.safetensors", " --overwrite");
    shell("cd $D && cmp -s many.safetensors one.safetensors; ! grep -q old many.hf/config.json && "
          "! grep -q '^old' many.safetensors", 0);
    const char *eval = "cd $D && $H eval runs/%s --data data --quiet --seq 32 --batch 2 "
                       "| head -c 99";
    snprintf(one, sizeof one, "%s", shellf(0, eval, "one"));
    snprintf(many, sizeof many, "%s", shellf(0, eval, "many"));
    CHECK(strlen(one) > 20 && strncmp(one, many, 18) == 0);
    const char *sample = "cd $D && $H sample runs/%s --prompt 'the cat' --temperature 0 --tokens 8 "
                         "--quiet";
    snprintf(one, sizeof one, "%s", shellf(0, sample, "one"));
    CHECK_STR(shellf(0, sample, "many"), one);
}

TEST(weights_of_any_kind_start_a_run_on_any_layout)
{
    static const char *const from[] = { "runs/one", "runs/many", "many.hf" };
    double first[STEPS], loss[STEPS];
    for (i64 i = 0; i < COUNT_OF(from); i++) {
        const char *start = "cd $D && sed '/^model/d' r.yaml >f.yaml && timeout 100 $H "
                            "train f.yaml --quiet --set run.preflight=no "
                            "--set model.from=%s --set run.name=from%lld-%d "
                            "--set train.steps=2 --ranks %d --layout %s";
        shellf(0, start, from[i], (long long)i, 1, 0, "dp=1");
        shellf(0, start, from[i], (long long)i, 4, 4, i ? "dp=4,zero=3" : "dp=2,tp=2,zero=1");
        char name[40];
        snprintf(name, sizeof name, "from%lld-1", (long long)i);
        CHECK_EQ(read_values(name, "step", "loss", first), 2);
        snprintf(name, sizeof name, "from%lld-4", (long long)i);
        CHECK_EQ(read_values(name, "step", "loss", loss), 2);
        CHECK_NEAR(loss[0], first[0], 1e-5);
        CHECK_NEAR(loss[1], first[1], 1e-5);
        CHECK(loss[0] < 5); /* not from the beginning */
    }
}

/* 81: another rank was lost. What was saved before is whole, and fewer ranks go on from it. */
TEST(a_killed_rank_ends_the_run_and_the_rest_goes_on_from_what_was_saved)
{
    shell("cd $D && (timeout 100 $H train r.yaml --quiet --set run.name=killed --set "
          "run.preflight=no --set train.steps=100000 --set eval.every=0 --set checkpoint.every=2 "
          "--ranks 4 --layout dp=2,tp=2,zero=1 2>/dev/null & p=$!; "
          "until ls -d runs/killed/checkpoints/step-[0-9]*[0-9] >/dev/null 2>&1; do sleep 0.02; "
          "done; h=$(pgrep -P $p); kill -9 $(pgrep -P $h | tail -1); wait $p; exit $?)", 81);
    CHECK(strstr(shell("cd $D && $H checkpoint verify runs/killed", 0), "every byte is right"));
    shell("cd $D && s=$(ls -d runs/killed/checkpoints/step-[0-9]*[0-9] | sed 's/.*-//' | sort -n | "
          "tail -1) && timeout 100 $H train r.yaml --quiet --set run.name=killed --set "
          "train.steps=$((s + 2)) --resume --ranks 2 --layout dp=2 && "
          "test -e runs/killed/checkpoints/step-$((s + 2))/manifest.json", 0);
}

/* When the last step of a rank began and ended, in microseconds. */
struct last_step {
    double begin, end;
    i64 calls[2], bytes, waits; /* in it: calls along dp and tp, what they sent */
};

static void read_last_step(const json_t *trace, i64 rank, struct last_step *out)
{
    static const char *const axes[] = { "dp", "tp" };
    const json_t *e;
    size_t i;
    *out = (struct last_step){ 0 };
    json_array_foreach(json_object_get(trace, "traceEvents"), i, e) {
        const json_t *args = json_object_get(e, "args");
        const char *axis = json_string_value(json_object_get(args, "axis"));
        if (json_integer_value(json_object_get(e, "pid")) != rank ||
            json_integer_value(json_object_get(args, "step")) != STEPS - 1)
            continue;
        double begin = json_number_value(json_object_get(e, "ts"));
        double end = begin + json_number_value(json_object_get(e, "dur"));
        if (strcmp(json_string_value(json_object_get(e, "name")), "ProfilerStep#11") == 0) {
            out->begin = begin;
            out->end = end;
        }
        for (int k = 0; k < 2 && axis; k++)
            out->calls[k] += strcmp(axis, axes[k]) == 0;
        out->bytes += json_integer_value(json_object_get(args, "bytes"));
        out->waits += json_object_get(args, "for") != NULL;
    }
}

/* All ranks in one file, on one clock: the last step is the same moment for all, and each has
 * told every call. */
TEST(a_trace_shows_all_ranks_and_what_they_exchange)
{
    struct last_step first, other;
    json_t *trace;
    shell(TRAIN "--set run.name=traced --ranks 4 --layout dp=2,tp=2", 0);
    shell("cd $D && grep -q 'tp: busy for .* hidden behind computing' runs/traced/log.txt", 0);
    CHECK_OK(json_load("layouts-test/runs/traced/trace.json", 1 << 24, &trace));
    read_last_step(trace, 0, &first);
    CHECK(first.calls[0] > 0 && first.calls[1] > 0 && first.waits > 0 && first.bytes > 0);
    for (int rank = 1; rank < 4; rank++) {
        read_last_step(trace, rank, &other);
        CHECK(other.begin < first.end && first.begin < other.end);
        CHECK_EQ(other.calls[0], first.calls[0]);
        CHECK_EQ(other.calls[1], first.calls[1]);
        CHECK(other.bytes > 0 && other.waits > 0);
    }
    json_decref(trace);
}

/* On simulated ranks, in one process. */
TEST(a_layout_is_checked_beside_an_exact_rank)
{
    const char *check = "cd $D && $H layout check r.yaml --set train.ema=0 --layout ";
    CHECK(strstr(shellf(0, "%s dp=2,tp=2,zero=1 --steps 2", check),
                 "nothing but rounding differs"));
    CHECK(strstr(shellf(0, "%s dp=2", check), "beside one exact rank, on the recipe's rows;"));
    CHECK(strstr(shellf(0, "%s dp=2 --set data.sources=t.txt", check), "on the recipe's rows;"));
    CHECK(strstr(shellf(0, "%s dp=2,exact=true", check), " tensors are equal, bit for bit"));
    CHECK(strstr(shellf(0, "%s dp=2 --set offload.activations=yes "
                        "--set offload.optimizer=yes --set offload.least=1KiB", check),
                 "nothing but rounding differs"));
    shell("! ls $D/runs | grep layout-check", 0);
    CHECK(strstr(shellf(0, "%s dp=2 --set data.sources=nowhere", check), "on made-up rows, since"));
    shell("cd $D && cp -r data hurt && for f in hurt/*.shard; do truncate -s 3000 $f; done", 0);
    CHECK(strstr(shellf(1, "%s dp=2 --set data.sources=hurt 2>&1", check), "hurt/"));
    CHECK(strstr(shellf(1, "%s dp=8 --set 'model.override={layers: 4000, hidden: 2048, "
                        "width: 2048, heads: 16}' --set train.batch=8 2>&1", check),
                 "to check this layout takes about "));
    CHECK(strstr(shellf(2, "%s islands=2 --set outer.every=4 2>&1", check),
                 "islands take other steps than one rank does"));
}

/* Each rank by itself would fit: they share the machine's memory. */
TEST(ranks_that_do_not_fit_into_one_machine_are_refused_with_a_layout_that_does)
{
    /* Bytes of a layer's weights and their state: 16 (4 x 2048^2 + 3 x 2048^2). */
    const double layer = 472e6;
    const long long layers = (long long)(0.75 * (double)sys_machine_memory_bytes() / layer);
    const char *line = "cd $D && timeout 100 $H train r.yaml --dry-run --quiet --ranks 2 "
                       "--layout %s --set 'model.override={layers: %lld, hidden: 2048, "
                       "width: 2048, heads: 16}' 2>&1";
    char with[400];
    if (layers < 2 || layers > 2000)
        skip();
    snprintf(with, sizeof with, line, "dp=2", layers);
    const char *text = shell(with, 1);
    CHECK(strstr(text, "the 2 ranks of one machine (rank 0 is its first) need "));
    CHECK(strstr(text, ": --layout tp=2 would fit") || strstr(text, ": --layout pp=2 would fit"));
    snprintf(with, sizeof with, line, strstr(text, "tp=2") ? "tp=2" : "pp=2", layers);
    shell(with, 0);
    snprintf(with, sizeof with, line, "dp=2", 3 * layers);
    CHECK(strstr(shell(with, 1), "no layout of so many ranks would fit"));
}

TEST(what_a_layout_cannot_do_yet_is_refused)
{
    CHECK(strstr(shell(TRAIN "--set offload.activations=yes --ranks 2 --layout pp=2 2>&1", 2),
                 "offload.activations needs micro-batches that follow each other"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ONE(every_layout_trains_and_evaluates_what_one_rank_does),
        ONE(a_run_goes_on_on_any_other_layout),
        ONE(split_state_in_bf16_resumes_to_the_bit),
        ONE(an_exact_run_keeps_its_bits_over_any_change_of_layout),
        ONE(checkpoints_of_many_ranks_serve_every_other_command),
        ONE(weights_of_any_kind_start_a_run_on_any_layout),
        ONE(a_killed_rank_ends_the_run_and_the_rest_goes_on_from_what_was_saved),
        ONE(a_trace_shows_all_ranks_and_what_they_exchange),
        ONE(a_layout_is_checked_beside_an_exact_rank),
        ONE(ranks_that_do_not_fit_into_one_machine_are_refused_with_a_layout_that_does),
        ONE(what_a_layout_cannot_do_yet_is_refused),
    };
    return cmocka_run_group_tests(tests, prepare, NULL);
}
