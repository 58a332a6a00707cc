/* More ranks along tp than key-value heads, over real processes: those that --ranks
 * starts and those of MPI train what one does, checkpoints go on elsewhere, and a folder
 * for others has the very bits. */
#include "cli/program.h"
#include "test.h"

#include <math.h>
#include <stdlib.h>

#define TRAIN "cd $D && timeout 300 $H train r.yaml --quiet --set run.preflight=no "
#define STEPS 6

/* Four query heads, two key-value heads: with tp=4 two ranks share each of these. */
static int prepare(void **state)
{
    (void)state;
    setenv("D", "heads-test", 1);
    make_corpus();
    shell("cd $D && cat >r.yaml <<X\n"
          "model: {spec: laptop-2m, override: {layers: 2, width: 64, hidden: 96, "
          "heads: 4, kv_heads: 2}}\n"
          "data: {sources: data, tokenizer: tok.json}\n"
          "train: {steps: 6, batch: 2, accumulate: 2, seq: 32, threads: 1}\n"
          "lr: {schedule: constant, warmup: 2}\nlog: {every: 1}\nX\n", 0);
    shell(TRAIN "--set run.name=one", 0);
    shell(TRAIN "--set run.name=exact --layout exact=true", 0);
    return 0;
}

static double loss_of(const char *run, int step)
{
    return atof(shellf(0, "grep '\"step\":%d,' $D/runs/%s/metrics.jsonl | sed "
                       "'s/.*\"loss\":\\([0-9.]*\\).*/\\1/'", step, run));
}

static void expect_as_one(const char *run)
{
    for (int step = 1; step <= STEPS; step++) {
        double one = loss_of("one", step), many = loss_of(run, step);
        if (!(one > 1 && fabs(many - one) <= 1e-5))
            fail_msg("step %d of %s: loss %.9f, one rank has %.9f", step, run, many, one);
    }
}

TEST(processes_that_share_heads_train_what_one_does)
{
    shell(TRAIN "--set run.name=four --ranks 4 --layout tp=4", 0);
    expect_as_one("four");
    shell(TRAIN "--set run.name=long --ranks 4 --layout tp=4,zero=1 --set optim.name=muon --set "
          "train.steps=2", 0);
}

static void under(const char *mpirun, const char *run)
{
    shellf(0, "export ASAN_OPTIONS=detect_leaks=0; cd $D && timeout 300 %s -n 4 $H train "
           "r.yaml --quiet --set run.preflight=no --set run.name=%s "
           "--layout tp=4,exact=true", mpirun, run);
}

static bool has(const char *program)
{
    return strncmp(shellf(0, "command -v %s || echo none", program), "none", 4) != 0;
}

/* Everything that a run saved at its end, digit by digit. */
static const char *weights_of(const char *run)
{
    return shellf(0, "cd $D && "
                  "$H model export runs/%s --out hf-%s --overwrite --quiet >/dev/null && "
                  "sha256sum <hf-%s/model.safetensors", run, run, run);
}

static void expect_bits(const char *run)
{
    char one[65] = "";
    memcpy(one, weights_of("exact"), 64);
    if (strncmp(weights_of(run), one, 64) != 0)
        fail_msg("%s has other weights than one exact rank", run);
    for (int step = 1; step <= STEPS; step++)
        CHECK(loss_of(run, step) == loss_of("exact", step));
}

TEST(processes_of_mpi_that_share_heads_have_the_bits_of_one)
{
    if (!has("mpirun.mpich") && !has("mpirun.openmpi"))
        skip();
    if (has("mpirun.mpich")) {
        under("mpirun.mpich", "mpich");
        expect_bits("mpich");
    }
    if (has("mpirun.openmpi")) {
        under("env OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 mpirun.openmpi "
              "--oversubscribe --bind-to none", "openmpi");
        expect_bits("openmpi");
    }
}

TEST(a_checkpoint_of_shared_heads_goes_on_on_any_other_layout)
{
    static const struct { const char *layout; int ranks; } chain[] = {
        { "tp=4", 4 }, { "dp=2,tp=2,zero=1", 4 }, { "tp=4,zero=1", 4 },
        { "dp=1", 0 }, { "tp=4", 4 }, { "dp=2", 2 },
    };
    for (int i = 0; i < STEPS; i++)
        shellf(0, TRAIN "--set run.name=chain --set train.steps=%d %s --ranks %d "
               "--layout %s,exact=true 2>&1",
               i + 1, i ? "--resume" : "", chain[i].ranks, chain[i].layout);
    expect_bits("chain");
}

TEST(a_folder_for_others_is_that_of_one_rank)
{
    shell(TRAIN "--set run.name=ef --ranks 4 --layout tp=4,exact=true", 0);
    expect_bits("ef");
    CHECK(strstr(shell("cat $D/hf-ef/config.json", 0), "\"num_key_value_heads\": 2"));
    char one[200];
    const char *sample = "cd $D && $H sample hf-%s --prompt 'the cat' --temperature 0 --tokens 8 "
                         "--quiet";
    snprintf(one, sizeof one, "%s", shellf(0, sample, "exact"));
    CHECK(strlen(one) > 8);
    CHECK_STR(shellf(0, sample, "ef"), one);
    memcpy(one, weights_of("exact"), 64);
    CHECK(strncmp(weights_of("one"), one, 64) != 0); /* another order of sums, other bits */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ONE(processes_that_share_heads_train_what_one_does),
        ONE(processes_of_mpi_that_share_heads_have_the_bits_of_one),
        ONE(a_checkpoint_of_shared_heads_goes_on_on_any_other_layout),
        ONE(a_folder_for_others_is_that_of_one_rank),
    };
    return cmocka_run_group_tests(tests, prepare, NULL);
}
