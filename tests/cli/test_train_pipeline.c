/* Pipelines of several processes, through the program itself. */
#include "cli/program.h"
#include "test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define TRAIN "cd $D && timeout 100 $H train r.yaml --quiet "

static struct outcome o;

static const char *shell(const char *line, int code)
{
    run_shell(&o, line);
    if (o.code != code)
        fail_msg("%s\ngave %d, expected %d:\n%s", line, o.code, code, o.text);
    return o.text;
}

/* A small corpus, part of it held out, and a recipe of four steps of eight rows. */
static int prepare(void **state)
{
    (void)state;
    setenv("D", "pipeline-test", 1);
    shell("rm -rf $D && mkdir $D && cd $D && for i in $(seq 300); do "
          "echo \"the cat number $i sat on mat $((i * 7 % 31)) and saw $((i * i % 97)) birds\"; "
          "echo; done >t.txt && $H tokenizer train t.txt --vocab-size 300 --out tok.json --quiet "
          ">/dev/null && $H data prepare t.txt --format paragraphs --tokenizer tok.json "
          "--licence none --val-fraction 0.2 --out data --quiet >/dev/null && cat >r.yaml <<X\n"
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
    shell(TRAIN "--set run.name=a --ranks 4 --layout pp=2,dp=2,schedule=zb-h1", 0);
    expect_as_one("a");
    shell(TRAIN "--set run.name=b --ranks 4 --layout pp=2,tp=2,schedule=zb-v", 0);
    expect_as_one("b");
    shell(TRAIN "--set run.name=c --ranks 2 --layout pp=2,schedule=interleaved", 0);
    expect_as_one("c");
}

TEST(a_pipeline_goes_on_as_one_rank_and_one_rank_as_a_pipeline)
{
    shell(TRAIN "--set run.name=d --set train.steps=2 --ranks 2 --layout pp=2,schedule=zb-h1", 0);
    const char *text = shell(TRAIN "--set run.name=d --resume 2>&1", 0);
    CHECK(strstr(text, "the layout was pp=2"));
    expect_as_one("d");
    shell(TRAIN "--set run.name=e --set train.steps=2", 0);
    shell(TRAIN "--set run.name=e --resume --ranks 4 --layout pp=2,dp=2,zero=1", 0);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        ONE(pipelines_train_and_evaluate_as_one_rank_does),
        ONE(a_pipeline_goes_on_as_one_rank_and_one_rank_as_a_pipeline),
        ONE(a_pipeline_repeats_and_resumes_to_the_bit),
        ONE(a_pipeline_that_does_not_fit_is_refused),
    };
    return cmocka_run_group_tests(tests, prepare, NULL);
}
