/* Pipelines of several processes, through the program itself. */
#include "cli/program.h"
#include "test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define TRAIN "cd $D && timeout 100 $H train r.yaml --quiet "

#define EXPERTS "--set 'model.override={layers: 4, width: 64, hidden: 96, heads: 4, experts: 4}'"
#define FOREIGN "cd $D && sed 's/^model:.*/model: {from: hf}/' r.yaml >f.yaml && " \
                "timeout 100 $H train f.yaml --quiet "

/* A small corpus, part of it held out, and a recipe of four steps of eight rows. */
static int prepare(void **state)
{
    (void)state;
    setenv("D", "pipeline-test", 1);
    make_documents();
    shell("cd $D && cat >r.yaml <<X\n"
          "model: {spec: laptop-2m, override: {layers: 4, width: 64, hidden: 96, heads: 4}}\n"
          "data: {sources: data, tokenizer: tok.json}\n"
          "train: {steps: 4, batch: 2, accumulate: 4, seq: 32, threads: 1}\n"
          "lr: {schedule: constant, warmup: 2}\nlog: {every: 1}\neval: {every: 4}\nX\n", 0);
    shell(TRAIN "--set run.name=one", 0);
    return 0;
}

/* What the run's last line of that kind says of the fourth step. */
static double last_of(const char *run, const char *event)
{
    char line[300];
    snprintf(line, sizeof line, "grep '\"%s\"' $D/runs/%s/metrics.jsonl | grep '\"step\":4,' | "
             "sed 's/.*\"loss\":\\([0-9.]*\\).*/\\1/'", event, run);
    return atof(shell(line, 0));
}

static void expect_as_one(const char *run)
{
    static const char *const events[] = { "step", "eval" };
    for (int i = 0; i < COUNT_OF(events); i++) {
        double one = last_of("one", events[i]), many = last_of(run, events[i]);
        if (!(one > 1 && fabs(many - one) <= 1e-6 * one))
            fail_msg("%s of %s: loss %.9f, one rank has %.9f", events[i], run, many, one);
    }
}

TEST(pipelines_train_and_evaluate_as_one_rank_does)
{
    shell(TRAIN "--set run.name=a --ranks 4 --layout pp=2,dp=2,zero=2,schedule=zb-h1", 0);
    expect_as_one("a");
    shell(TRAIN "--set run.name=b --ranks 4 --layout pp=2,tp=2,schedule=zb-v", 0);
    expect_as_one("b");
    shell(TRAIN "--set run.name=c --ranks 2 --layout pp=2,schedule=interleaved", 0);
    expect_as_one("c");
}

TEST(stages_with_experts_and_foreign_weights_train_as_one_rank_does)
{
    shell(TRAIN "--set run.name=x " EXPERTS, 0);
    shell(TRAIN "--set run.name=y --ranks 2 --layout pp=2,schedule=zb-v " EXPERTS, 0);
    CHECK(fabs(last_of("x", "step") - last_of("y", "step")) < 1e-5);
    shell("cd $D && $H model export runs/one --out hf", 0);
    shell(FOREIGN "--set run.name=v", 0);
    const char *text = shell(FOREIGN "--set run.name=w --ranks 2 --layout pp=2 2>&1", 0);
    CHECK(!strstr(text, "left out"));
    CHECK(fabs(last_of("v", "step") - last_of("w", "step")) < 1e-5);
    CHECK(last_of("v", "step") < last_of("one", "step"));
}

TEST(a_pipeline_goes_on_as_one_rank_and_one_rank_as_a_pipeline)
{
    shell(TRAIN "--set run.name=d --set train.steps=2 --ranks 2 --layout pp=2,schedule=zb-h1", 0);
    const char *text = shell(TRAIN "--set run.name=d --resume 2>&1", 0);
    CHECK(strstr(text, "the layout was pp=2"));
    expect_as_one("d");
    shell(TRAIN "--set run.name=e --set train.steps=2", 0);
    shell(TRAIN "--set run.name=e --resume --ranks 4 --layout pp=2,dp=2,zero=3", 0);
    expect_as_one("e");
}

/* All weights and moments of the last checkpoint, as one hash. */
static void hash_of(const char *run, char *out)
{
    char line[300];
    snprintf(line, sizeof line, "cd $D/runs/%s/checkpoints/step-4 && cat *.safetensors | sha256sum",
             run);
    memcpy(out, shell(line, 0), 64);
}

TEST(a_pipeline_repeats_and_resumes_to_the_bit)
{
    char first[64], resumed[64];
    shell(TRAIN "--set run.name=f --ranks 2 --layout pp=2,schedule=zb-v", 0);
    shell(TRAIN "--set run.name=g --set train.steps=2 --ranks 2 --layout pp=2,schedule=zb-v", 0);
    shell(TRAIN "--set run.name=g --resume --ranks 2 --layout pp=2,schedule=zb-v", 0);
    hash_of("f", first);
    hash_of("g", resumed);
    CHECK(memcmp(first, resumed, sizeof first) == 0);
}

TEST(a_pipeline_that_does_not_fit_is_refused)
{
    const char *text = shell(TRAIN "--ranks 8 --layout pp=8 2>&1", 2);
    CHECK(strstr(text, "more than the model's 4 layers"));
    text = shell(TRAIN "--ranks 2 --layout pp=2,schedule=zbv 2>&1", 2);
    CHECK(strstr(text, "neither gpipe"));
}

TEST(a_layout_is_shown_before_anything_runs)
{
    const char *text = shell("cd $D && $H layout show r.yaml --layout pp=2,dp=2,schedule=zb-h1 "
                             "--svg z.svg", 0);
    static const char *const parts[] = {
        "4 ranks", "pp  {0 2} {1 3}", "dp  {0 1} {2 3}", "parameters where pp=1",
        "schedule zb-h1: 2 stages, 2 micro-batches", "rank 1  |", "micro-batches in flight",
        "blocks.2-3.attn.qkv.weight", "activation", "simulated step: ",
    };
    for (int i = 0; i < COUNT_OF(parts); i++)
        if (!strstr(text, parts[i]))
            fail_msg("'%s' is not in:\n%s", parts[i], text);
    text = shell("cd $D && cat z.svg", 0);
    CHECK(strstr(text, "<svg") && strstr(text, "<title>1W1</title>") && strstr(text, "</svg>"));
    text = shell("cd $D && $H layout show r.yaml --layout tp=2", 0);
    CHECK(strstr(text, "rows 0-31, 64-95, 128-159 | rows 32-63, 96-127, 160-191"));
    text = shell("cd $D && $H layout show r.yaml --layout dp=4,zero=2,zero_group=2", 0);
    CHECK(strstr(text, "zero {0 1} {2 3}") && strstr(text, "copies {0 2} {1 3}"));
    CHECK(strstr(text, "optimizer state and gradients of matrices: 1/2 of each bucket"));
    long long count, begin[2], end[2];
    const char *slices = strstr(text, "rank 0 has ");
    CHECK(slices && sscanf(slices, "rank 0 has %lld-%lld | rank 1 has %lld-%lld", &begin[0],
                           &end[0], &begin[1], &end[1]) == 4);
    CHECK(begin[1] == end[0] + 1 && end[1] - begin[1] == end[0] - begin[0]);
    while (slices > text && strncmp(slices, " of ", 4) != 0)
        slices--;
    CHECK(sscanf(slices, " of %lld:", &count) == 1 && count == end[1] + 1);
    CHECK(!strstr(text, "would refuse"));
    text = shell("cd $D && $H layout show r.yaml --layout dp=2 --set 'model.override={layers: 4, "
                 "width: 16384, heads: 128, hidden: 1000000}'", 0);
    CHECK(strstr(text, "this machine has") && strstr(text, "would refuse"));
    text = shell("cd $D && $H layout show r.yaml --link 1e3 --layout dp=2", 0);
    CHECK(strstr(text, "links of 1e+03 bytes/s"));
    text = shell("cd $D && $H layout show r.yaml --layout pp=3,schedule=zb-v 2>&1", 2);
    CHECK(strstr(text, "6 pipeline stages are more"));
    text = shell("cd $D && $H layout show r.yaml --layout dp=2 --svg z.svg 2>&1", 2);
    CHECK(strstr(text, "the layout has pp=1"));
    shell("cd $D && test ! -e runs/r", 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ONE(pipelines_train_and_evaluate_as_one_rank_does),
        ONE(stages_with_experts_and_foreign_weights_train_as_one_rank_does),
        ONE(a_pipeline_goes_on_as_one_rank_and_one_rank_as_a_pipeline),
        ONE(a_pipeline_repeats_and_resumes_to_the_bit),
        ONE(a_pipeline_that_does_not_fit_is_refused),
        ONE(a_layout_is_shown_before_anything_runs),
    };
    return cmocka_run_group_tests(tests, prepare, NULL);
}
