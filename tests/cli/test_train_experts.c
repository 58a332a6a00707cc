/* Experts over several processes, through the program itself: the same run as on one rank, resumed
 * on any other layout. */
#include "cli/program.h"
#include "test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define TRAIN "cd $D && timeout 100 $H train r.yaml --quiet --set run.preflight=no "

static int prepare(void **state)
{
    (void)state;
    setenv("D", "experts-test", 1);
    make_documents();
    shell("cd $D && cat >r.yaml <<X\n"
          "model: {spec: laptop-moe, override: {layers: 2, width: 64, hidden: 96, "
          "expert_hidden: 32}}\n"
          "data: {sources: data, tokenizer: tok.json}\n"
          "train: {steps: 6, batch: 2, accumulate: 2, seq: 32, threads: 1}\n"
          "lr: {schedule: constant, warmup: 2}\nlog: {every: 1}\neval: {every: 6}\nX\n", 0);
    shell(TRAIN "--set run.name=one", 0);
    return 0;
}

/* What the run's last line of that kind says of a step. */
static double loss_of(const char *run, const char *event, int step)
{
    char line[300];
    snprintf(line, sizeof line, "grep '\"%s\"' $D/runs/%s/metrics.jsonl | grep '\"step\":%d,' | "
             "sed 's/.*\"loss\":\\([0-9.]*\\).*/\\1/'", event, run, step);
    return atof(shell(line, 0));
}

static void expect_same(const char *alone, const char *run)
{
    for (int step = 1; step <= 6; step++) {
        double one = loss_of(alone, "step", step), many = loss_of(run, "step", step);
        if (!(one > 1 && fabs(many - one) <= 1e-5))
            fail_msg("step %d of %s: loss %.9f, one rank has %.9f", step, run, many, one);
    }
    CHECK_NEAR(loss_of(run, "eval", 6), loss_of(alone, "eval", 6), 1e-5);
}

static void expect_as_one(const char *run)
{
    expect_same("one", run);
}

TEST(experts_over_ranks_train_and_evaluate_as_one_rank_does)
{
    shell(TRAIN "--set run.name=a --ranks 2 --layout dp=2,ep=2", 0);
    expect_as_one("a");
    shell(TRAIN "--set run.name=b --ranks 4 --layout dp=4,ep=2,zero=1", 0);
    expect_as_one("b");
    shell(TRAIN "--set run.name=c --ranks 4 --layout pp=2,dp=2,ep=2", 0);
    expect_as_one("c");
    shell(TRAIN "--set run.name=d --ranks 4 --layout dp=2,cp=2,ep=4,zero=1", 0);
    expect_as_one("d");
}

TEST(a_run_goes_on_on_any_other_layout)
{
    static const struct { const char *layout; int ranks; } chain[] = {
        { "dp=4,ep=4", 4 }, { "dp=1", 0 }, { "dp=4,ep=2,zero=1", 4 }, { "pp=2,dp=2,ep=2", 4 },
        { "dp=2", 2 }, { "dp=2,ep=2,zero=1", 2 },
    };
    char line[400];
    for (int i = 0; i < COUNT_OF(chain); i++) {
        snprintf(line, sizeof line, TRAIN "--set run.name=chain --set train.steps=%d %s --ranks %d "
                 "--layout %s", i + 1, i ? "--resume" : "", chain[i].ranks, chain[i].layout);
        shell(line, 0);
    }
    expect_as_one("chain");
    shell("cd $D && $H model export runs/chain --out hf --quiet && $H model export runs/one --out "
          "hf1 --quiet && test $(stat -c %s hf/model.safetensors) = "
          "$(stat -c %s hf1/model.safetensors)", 0);
}

/* DeepSeek-V3's parts in small: experts, and attention with latents, of whose matrices tp leaves
 * some whole. */
TEST(so_does_a_run_with_latent_attention)
{
    static const struct { const char *layout; int ranks; } chain[] = {
        { "tp=2", 2 }, { "dp=2,tp=2,zero=3", 4 }, { "dp=1", 0 }, { "pp=2,tp=2", 4 },
        { "cp=2,tp=2,ep=2,zero=1", 4 }, { "dp=2,zero=2", 2 },
    };
    shell("cd $D && sed 's/spec:.*/spec: laptop-mla, override: {layers: 2, width: 64, hidden: 96, "
          "expert_hidden: 32, shared_hidden: 32}}/' r.yaml >m.yaml", 0);
    shell("cd $D && timeout 100 $H train m.yaml --quiet --set run.name=mla", 0);
    for (int i = 0; i < COUNT_OF(chain); i++)
        shellf(0, "cd $D && timeout 100 $H train m.yaml --quiet --set run.preflight=no --set "
               "run.name=latents --set train.steps=%d %s --ranks %d --layout %s", i + 1,
               i ? "--resume" : "", chain[i].ranks, chain[i].layout);
    expect_same("mla", "latents");
    shell("cd $D && $H model export runs/latents --out mla-hf --quiet && "
          "$H eval mla-hf --data data --seq 32 --tokens 200 --quiet >there && "
          "$H eval runs/latents --data data --seq 32 --tokens 200 --quiet >here && "
          "grep -q perplexity here && diff here there", 0);
    shell("cd $D && $H sample runs/latents --tokens 20 --quiet >/dev/null", 0);
    const char *text = shell("cd $D && $H layout check m.yaml --layout dp=2,tp=2,zero=2", 0);
    CHECK(strstr(text, "nothing but rounding differs"));
    text = shell("cd $D && timeout 100 $H train m.yaml --dry-run --ranks 2 "
                 "--layout tp=2,exact=true 2>&1", 2);
    CHECK(strstr(text, "tp=2 cannot be exact: laptop-mla has latent attention"));
    text = shell("cd $D && timeout 100 $H train m.yaml --dry-run --ranks 2 --layout auto 2>&1", 0);
    CHECK(strstr(text, " legal layouts that fit: an estimated "));
}

/* Loss and norm of every step, digit by digit, and the state: one rank reads it, goes on for a step
 * and saves all. */
static void everything_of(const char *run, const char *order, char *out)
{
    char line[500];
    snprintf(line, sizeof line, TRAIN "--set run.name=%s --set train.steps=7 --resume --layout "
             "%s 2>&1", run, order);
    shell(line, 0);
    snprintf(line, sizeof line, "cd $D/runs/%s && (sed 's/.*\\(\"loss\":[^,]*\\).*"
             "\\(\"grad_norm\":[^,]*\\).*/\\1 \\2/' metrics.jsonl | grep ^.loss; "
             "cat checkpoints/step-7/*.safetensors) | sha256sum", run);
    memcpy(out, shell(line, 0), 64);
}

TEST(exact_experts_over_ranks_train_to_the_bits_of_one)
{
    char one[64], many[64], plain[64];
    shell(TRAIN "--set run.name=e1 --layout exact=true", 0);
    shell(TRAIN "--set run.name=e4 --ranks 4 --layout dp=4,ep=2,zero=2,exact=true", 0);
    shell(TRAIN "--set run.name=et --ranks 4 --layout dp=2,ep=2,tp=2,exact=true", 0);
    shell(TRAIN "--set run.name=er --set train.steps=3 --ranks 2 --layout dp=2,ep=2,exact=true", 0);
    shell(TRAIN "--set run.name=er --resume --ranks 4 --layout pp=2,dp=2,ep=2,exact=true", 0);
    shell(TRAIN "--set run.name=plain", 0);
    everything_of("e1", "exact=true", one);
    everything_of("e4", "exact=true", many);
    CHECK(memcmp(one, many, sizeof one) == 0);
    everything_of("et", "exact=true", many);
    CHECK(memcmp(one, many, sizeof one) == 0);
    everything_of("er", "exact=true", many);
    CHECK(memcmp(one, many, sizeof one) == 0);
    everything_of("plain", "exact=true", plain);
    CHECK(memcmp(one, plain, sizeof one) != 0);
}

/* Groups of ep that are a part of a row, and two rows. */
TEST(exact_experts_over_parts_of_rows_train_to_the_bits_of_one)
{
    static const char context[] = "exact=true,exact_context=true";
    char one[64], many[64];
    shellf(0, TRAIN "--set run.name=x1 --layout %s", context);
    shellf(0, TRAIN "--set run.name=x4 --ranks 4 --layout cp=4,ep=2,%s", context);
    shellf(0, TRAIN "--set run.name=xr --set train.steps=3 --ranks 4 "
           "--layout dp=2,cp=2,ep=4,zero=1,%s", context);
    shellf(0, TRAIN "--set run.name=xr --resume --ranks 4 "
           "--layout dp=2,cp=2,ep=2,zero=3,%s", context);
    everything_of("x1", context, one);
    everything_of("x4", context, many);
    CHECK(memcmp(one, many, sizeof one) == 0);
    everything_of("xr", context, many);
    CHECK(memcmp(one, many, sizeof one) == 0);
}

TEST(a_layout_with_experts_is_shown_and_chosen)
{
    const char *text = shell("cd $D && $H layout show r.yaml --layout dp=4,ep=2", 0);
    CHECK(strstr(text, "\n  ep  {0 1} {2 3}\n") && strstr(text, "\n  edp {0 2} {1 3}\n"));
    CHECK(strstr(text, "experts 0-3 | experts 4-7"));
    CHECK(strstr(text, "activation has room for the rows of all 2 ranks at one"));
    text = shell("cd $D && $H layout show r.yaml --layout dp=2,ep=2,tp=2", 0);
    CHECK(strstr(text, "experts 0-3 | experts 4-7; of each rows 0-15, 32-47 | rows 16-31, 48-63"));
    text = shell("cd $D && $H layout show r.yaml "
                 "--layout cp=4,ep=2,exact=true,exact_context=true", 0);
    CHECK(strstr(text, "\n  ep  {0 1} {2 3}\n") && strstr(text, "\n  twins {0 2} {1 3}\n"));
    text = shell("cd $D && $H layout show r.yaml --layout tp=2", 0);
    CHECK(strstr(text, "of each columns 0-15 | columns 16-31"));
    text = shell("cd $D && timeout 100 $H train r.yaml --dry-run --ranks 2 --layout auto 2>&1", 0);
    CHECK(strstr(text, " legal layouts that fit: an estimated "));
    text = shell(TRAIN "--dry-run --ranks 4 --layout dp=4,ep=3 2>&1", 2);
    CHECK(strstr(text, "ep=2 and ep=4 do"));
    shell(TRAIN "--dry-run --ranks 2 --layout dp=2,ep=2,zero=1 --set optim.name=muon 2>&1", 0);
    text = shell("cd $D && $H layout check r.yaml --layout dp=4,ep=2,zero=2", 0);
    CHECK(strstr(text, "nothing but rounding differs"));
    text = shell("cd $D && $H layout check r.yaml --layout auto --ranks 2", 0);
    CHECK(strstr(text, "layout: ") && strstr(text, ", the fastest of the "));
    text = shell("cd $D && timeout 100 $H train r.yaml --dry-run --ranks 2 --layout dp=2,ep=2 2>&1",
                 0);
    CHECK(strstr(text, "with room for the rows of all 2 ranks of ep at one of them"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ONE(experts_over_ranks_train_and_evaluate_as_one_rank_does),
        ONE(a_run_goes_on_on_any_other_layout),
        ONE(so_does_a_run_with_latent_attention),
        ONE(exact_experts_over_ranks_train_to_the_bits_of_one),
        ONE(exact_experts_over_parts_of_rows_train_to_the_bits_of_one),
        ONE(a_layout_with_experts_is_shown_and_chosen),
    };
    return cmocka_run_group_tests(tests, prepare, NULL);
}
