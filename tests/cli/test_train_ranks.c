/* Runs that several processes share, through the program itself. */
#include "base/sys.h"
#include "cli/program.h"
#include "test.h"

#include <math.h>
#include <stdlib.h>

#define TRAIN "cd $D && timeout 100 $H train r.yaml --quiet "
#define LAST_LOSS "| grep '\"step\":6,' | sed 's/.*\"loss\":\\([0-9.]*\\).*/\\1/'"

/* A folder with a small corpus as shards, and a recipe of six steps of four rows. */
static int prepare(void **state)
{
    (void)state;
    setenv("D", "ranks-test", 1);
    make_corpus();
    shell("cd $D && cat >r.yaml <<X\n"
          "model: {spec: laptop-2m, override: {layers: 2, width: 64, hidden: 96, heads: 4}}\n"
          "data: {sources: data, tokenizer: tok.json}\n"
          "train: {steps: 6, batch: 2, accumulate: 2, seq: 32, threads: 1}\n"
          "lr: {schedule: constant, warmup: 2}\nlog: {every: 1}\nX\n", 0);
    return 0;
}

static double last_loss(const char *run)
{
    char line[300];
    snprintf(line, sizeof line, "cat $D/runs/%s/metrics.jsonl " LAST_LOSS, run);
    return atof(shell(line, 0));
}

TEST(two_and_four_ranks_train_what_one_does)
{
    shell(TRAIN "--set run.name=one", 0);
    CHECK_STR(shell(TRAIN "--set run.name=two --ranks 2 --layout dp=2", 0), "runs/two\n");
    shell(TRAIN "--set run.name=four --ranks 4 --set layout.dp=4", 0);
    double one = last_loss("one"), two = last_loss("two"), four = last_loss("four");
    CHECK(one > 1);
    if (fabs(two - one) > 1e-5 || fabs(four - one) > 1e-5)
        fail_msg("losses after six steps: %.9f, two ranks %.9f, four %.9f", one, two, four);
}

static double peak_of(const char *run)
{
    char line[300];
    snprintf(line, sizeof line, "cat $D/runs/%s/manifest.json | tr -d ' \n' | "
             "sed 's/.*\"peak_flops\":\\([0-9.e+]*\\).*/\\1/'", run);
    return atof(shell(line, 0));
}

/* What is kept of this machine's peaks with so many threads. */
static double kept_peak(int threads)
{
    char line[400];
    snprintf(line, sizeof line, "cd $D/peaks/headway && cat /dev/null "
             "$(grep -l '\"threads\": %d,$' $(grep -l '\"backend\": \"generic\"' *.json)) "
             "| sed -n 's/.*\"f32_all_flops\": *//p'",
             threads);
    return atof(shell(line, 0));
}

/* Two ranks share this machine's cores: each is measured by its own. By what the peak is said to
 * be of: on two threads of one core two peaks may be hardly more than one. */
TEST(the_peak_is_that_of_a_ranks_own_threads)
{
    const int cores = sys_cpu_count();
    if (cores < 2)
        skip();
    shell("export XDG_CACHE_HOME=$PWD/$D/peaks; " TRAIN "--set run.name=all --set train.threads=0 "
          "--measure --backend generic", 0);
    const double all = kept_peak(cores);
    CHECK(all > 0);
    CHECK_NEAR(peak_of("all"), all, 1e-9 * all);
    CHECK_STR(shell("grep -c '\"generic\"' $D/peaks/headway/*.json | grep -c ':1$'", 0), "1\n");
    shell("export XDG_CACHE_HOME=$PWD/$D/peaks; " TRAIN "--set run.name=shared --set "
          "train.threads=0 --measure --backend generic --ranks 2 --layout dp=2", 0);
    const double shared = kept_peak(cores / 2);
    CHECK(shared > 0);
    CHECK_NEAR(peak_of("shared"), shared, 1e-9 * shared);
}

/* All weights and moments of the last checkpoint, as one hash. */
static void hash_of(const char *run, char *out)
{
    char line[300];
    snprintf(line, sizeof line, "cd $D/runs/%s/checkpoints/step-6 && cat *.safetensors | sha256sum",
             run);
    memcpy(out, shell(line, 0), 64);
}

TEST(a_run_of_two_ranks_repeats_and_resumes_to_the_bit)
{
    char first[64], again[64], resumed[64];
    shell(TRAIN "--set run.name=a --ranks 2 --layout dp=2", 0);
    shell(TRAIN "--set run.name=b --ranks 2 --layout dp=2", 0);
    shell(TRAIN "--set run.name=c --set train.steps=3 --ranks 2 --layout dp=2", 0);
    shell(TRAIN "--set run.name=c --resume --ranks 2 --layout dp=2", 0);
    hash_of("a", first);
    hash_of("b", again);
    hash_of("c", resumed);
    CHECK(memcmp(first, again, sizeof first) == 0);
    CHECK(memcmp(first, resumed, sizeof first) == 0);
}

/* All ranks go on from the same older step, and the leading one puts the damaged one aside. */
TEST(ranks_pass_over_a_damaged_checkpoint_together)
{
    char first[64], resumed[64];
    shell(TRAIN "--set run.name=e --set checkpoint.every=2 --ranks 2 --layout dp=2", 0);
    shell(TRAIN "--set run.name=f --set checkpoint.every=2 --set train.steps=4 --ranks 2 "
          "--layout dp=2", 0);
    shell("cd $D/runs/f/checkpoints/step-4 && f=$(ls *-00001-of-00002.safetensors | tail -1) && "
          "printf damaged | dd of=$f bs=1 seek=$(($(stat -c %s $f) - 9)) conv=notrunc "
          "status=none", 0);
    shell(TRAIN "--set run.name=f --set checkpoint.every=2 --resume --ranks 2 --layout dp=2", 0);
    shell("cd $D/runs/f && grep -q 'at step 2$' log.txt && test -f "
          "checkpoints/step-4.damaged/manifest.json && $H checkpoint verify checkpoints", 0);
    hash_of("e", first);
    hash_of("f", resumed);
    CHECK(memcmp(first, resumed, sizeof first) == 0);
}

/* Loss and norm of every step, digit by digit, and the state: ranks save theirs in parts, so one
 * rank reads them, goes on for a step and saves all. */
static void everything_in(const char *layout, const char *run, char *out)
{
    char line[500];
    snprintf(line, sizeof line, TRAIN "--set run.name=%s --set train.steps=7 --resume --layout "
             "%s 2>&1", run, layout);
    shell(line, 0);
    snprintf(line, sizeof line, "cd $D/runs/%s && (sed 's/.*\\(\"loss\":[^,]*\\).*"
             "\\(\"grad_norm\":[^,]*\\).*/\\1 \\2/' metrics.jsonl | grep ^.loss; "
             "cat checkpoints/step-7/*.safetensors) | sha256sum", run);
    memcpy(out, shell(line, 0), 64);
}

static void everything_of(const char *run, char *out)
{
    everything_in("exact=true", run, out);
}

/* The order that cp shares too is another one, on one rank as well. */
TEST(ranks_along_cp_train_to_the_bits_of_one)
{
    static const char context[] = "exact=true,exact_context=true";
    char one[64], two[64], ulysses[64], other[64];
    shell(TRAIN "--set run.name=c1 --layout exact=true,exact_context=true", 0);
    shell(TRAIN "--set run.name=c2 --ranks 2 --layout cp=2,exact=true,exact_context=true", 0);
    shell(TRAIN "--set run.name=cu --ranks 4 --layout "
          "dp=2,cp=2,cp_kind=ulysses,zero=1,exact=true,exact_context=true", 0);
    shell(TRAIN "--set run.name=c0 --layout exact=true", 0);
    everything_in(context, "c1", one);
    everything_in(context, "c2", two);
    everything_in(context, "cu", ulysses);
    everything_of("c0", other);
    CHECK(memcmp(one, two, sizeof one) == 0);
    CHECK(memcmp(one, ulysses, sizeof one) == 0);
    CHECK(memcmp(one, other, sizeof one) != 0);
}

TEST(exact_ranks_train_to_the_bits_of_one)
{
    char one[64], two[64], four[64], cut[64], resumed[64], plain[64];
    shell(TRAIN "--set run.name=e1 --layout exact=true", 0);
    shell(TRAIN "--set run.name=e2 --ranks 2 --layout dp=2,exact=true", 0);
    shell(TRAIN "--set run.name=e4 --ranks 4 --layout dp=4,exact=true", 0);
    shell(TRAIN "--set run.name=et --ranks 4 --layout dp=2,tp=2,zero=1,exact=true", 0);
    shell(TRAIN "--set run.name=er --set train.steps=3 --ranks 4 --layout dp=4,exact=true", 0);
    shell(TRAIN "--set run.name=er --resume --layout exact=true", 0);
    shell(TRAIN "--set run.name=plain", 0);
    everything_of("e1", one);
    everything_of("e2", two);
    everything_of("e4", four);
    everything_of("et", cut);
    everything_of("er", resumed);
    everything_of("plain", plain);
    CHECK(memcmp(one, two, sizeof one) == 0);
    CHECK(memcmp(one, four, sizeof one) == 0);
    CHECK(memcmp(one, cut, sizeof one) == 0);
    CHECK(memcmp(one, resumed, sizeof one) == 0);
    CHECK(memcmp(one, plain, sizeof one) != 0);
}

/* Whatever carries the bytes. */
TEST(exact_ranks_of_mpi_train_to_the_bits_of_one)
{
    char one[64], two[64];
    if (strncmp(shell("command -v mpirun.mpich || echo none", 0), "none", 4) == 0)
        skip();
    shell(TRAIN "--set run.name=m1 --layout exact=true", 0);
    /* What MPI libraries never free is not ours to find (with AddressSanitizer). */
    shell("export ASAN_OPTIONS=detect_leaks=0; cd $D && timeout 100 mpirun.mpich -n 2 $H "
          "train r.yaml --quiet --set run.name=m2 --layout dp=2,exact=true", 0);
    everything_of("m1", one);
    everything_of("m2", two);
    CHECK(memcmp(one, two, sizeof one) == 0);
}

TEST(what_cannot_be_exact_is_refused)
{
    const char *text = shell(TRAIN "--ranks 3 --layout dp=3,exact=true "
                             "--set train.batch=3 2>&1", 2);
    CHECK(strstr(text, "dp=3 cannot be exact"));
    text = shell(TRAIN "--layout exact=true --set train.accumulate=3 2>&1", 2);
    CHECK(strstr(text, "3 micro-batches a step cannot be exact"));
    text = shell(TRAIN "--layout exact=true --backend reference 2>&1", 2);
    CHECK(strstr(text, "the reference backend sums in double and cannot be exact"));
}

TEST(a_layout_that_does_not_fit_is_refused_with_what_would)
{
    const char *text = shell(TRAIN "--ranks 2 --layout dp=4 2>&1", 2);
    CHECK(strstr(text, "needs 4 ranks, but 2 were started; dp=2 would fit"));
    text = shell(TRAIN "--ranks 3 --layout dp=3 2>&1", 2);
    CHECK(strstr(text, "dp=3 cannot share out the 2 micro-batches of 2 rows"));
    text = shell(TRAIN "--ranks 64 --layout dp=64 --dry-run 2>&1", 2);
    CHECK(strstr(text, "rows of a step; dp=4 can, or choose a larger train.batch"));
    text = shell(TRAIN "--ranks 2 --layout tp=3 2>&1", 2);
    CHECK(strstr(text, "4 attention heads"));
    CHECK(!strstr(text, "needs 3 ranks")); /* 3 would not do either */
    CHECK(!strstr(text, "rank 0") && !strstr(text, "rank 1")); /* all would say it */
    text = shell(TRAIN "--ranks 2 --layout pp=8,dp=1 2>&1", 2);
    CHECK(strstr(text, "more than the model's 2 layers; pp=2 has 2"));
    text = shell(TRAIN "--layout tp=2,exact=true 2>&1", 2);
    CHECK(strstr(text, "needs 2 ranks, but 1 was started; dp=1,exact=true would fit"));
    text = shell(TRAIN "--layout cp=2,cp_kind=ulysses 2>&1", 2);
    CHECK(strstr(text, "needs 2 ranks, but 1 was started; dp=1 would fit"));
    text = shell("export RANK=0 WORLD_SIZE=2; " TRAIN "--layout dp=2 2>&1", 2);
    CHECK(strstr(text, "needs 2 ranks, but 1 was started") && strstr(text, "torchrun sets"));
    text = shell(TRAIN "--ranks 2 --layout dp=1 2>&1", 2);
    CHECK(strstr(text, "needs 1 rank, but 2 were started"));
    text = shell(TRAIN "--ranks 2 --layout dp=2,dp=1 2>&1", 2);
    CHECK(strstr(text, "headway: --layout: dp is there twice; leave one out"));
    text = shell(TRAIN "--ranks 2 --layout islands=2 --set outer.every=4 "
                 "--set log.health=1 2>&1", 2);
    CHECK(strstr(text, "log.health measures one model, and islands have one each"));
    text = shell(TRAIN "--layout dp 2>&1", 2);
    CHECK(strstr(text, "a layout is written like dp=2"));
}

/* Ranks of one job that were not started alike: by our own three variables. */
#define ODD "cd $D && export HEADWAY_SIZE=2 HEADWAY_ADDRESS=127.0.0.1:$((20000 + $$ % 20000)) && " \
            "(HEADWAY_RANK=0 timeout 60 $H train r.yaml --quiet --layout dp=2 & a=$!; " \
            "HEADWAY_RANK=1 timeout 60 $H train r.yaml --quiet --layout dp=2 "
#define ODD_END "; b=$?; wait $a; exit $((b * 100 + $?))) 2>&1"

TEST(ranks_that_were_not_started_alike_are_named)
{
    const char *text = shell(ODD "--set optim.lr=0.5" ODD_END, 202);
    CHECK(strstr(text, "does not run the same as rank 0: in the recipe, its optim.lr is '0.5'"));
    text = shell(ODD "--backend reference" ODD_END, 202);
    CHECK(strstr(text, "in the program, its backend is 'reference'"));
    text = shell(ODD "--resume" ODD_END, 202);
    CHECK(strstr(text, "rank 1 does not run the same as rank 0: in the command line, its "
                 "--resume is 'yes', not 'no'"));
    text = shell(ODD "--dry-run" ODD_END, 202);
    CHECK(strstr(text, "in the command line, its --dry-run is 'yes'"));
    shell("cd $D && mkdir elsewhere && tac t.txt >u.txt && cp r.yaml tok.json elsewhere && $H data "
          "prepare u.txt --format text --tokenizer tok.json --licence none --val-fraction 0 "
          "--out elsewhere/data --quiet", 0);
    text = shell("cd $D && export HEADWAY_SIZE=2 "
                 "HEADWAY_ADDRESS=127.0.0.1:$((20000 + $$ % 20000)) && "
                 "(HEADWAY_RANK=0 timeout 60 $H train r.yaml --quiet --layout dp=2 & a=$!; "
                 "cd elsewhere; "
                 "HEADWAY_RANK=1 timeout 60 $H train r.yaml --quiet --layout dp=2; b=$?; "
                 "wait $a; exit $((b * 100 + $?))) 2>&1", 202);
    CHECK(strstr(text, "in the data (by checksum)"));
}

/* Tokens as another program keeps them, without checksums; two of 20,000 are changed. */
static void write_foreign(const char *path, bool header, bool changed)
{
    enum { TOKENS = 20000 };
    static u16 tokens[TOKENS];
    const i32 head[256] = { 20240520, 1, TOKENS };
    FILE *file = fopen(path, "w");
    CHECK(file != NULL);
    for (int i = 0; i < TOKENS; i++)
        tokens[i] = (u16)(changed && i % 9000 == 8999 ? 3 : 1 + i * 7 % 250);
    if (header)
        fwrite(head, sizeof head, 1, file);
    fwrite(tokens, sizeof tokens, 1, file);
    CHECK_EQ(fclose(file), 0);
}

TEST(ranks_with_other_tokens_of_other_programs_are_named)
{
    for (int header = 0; header < 2; header++) {
        shell("cd $D && rm -rf a b && mkdir a b && for n in a b; do cp tok.json $n && "
              "sed 's/sources: data,/sources: train.bin,/' r.yaml >$n/r.yaml; done", 0);
        write_foreign("ranks-test/a/train.bin", header, false);
        for (int changed = 0; changed < 2; changed++) {
            write_foreign("ranks-test/b/train.bin", header, changed);
            const char *text =
                shell("cd $D && export HEADWAY_SIZE=2 "
                      "HEADWAY_ADDRESS=127.0.0.1:$((20000 + $$ % 20000)) && "
                      "{ (cd a; HEADWAY_RANK=0 timeout 60 $H train r.yaml --quiet "
                      "--set run.name=x$$ --layout tp=2) & a=$!; "
                      "(cd b; HEADWAY_RANK=1 timeout 60 $H train r.yaml --quiet "
                      "--set run.name=x$$ --layout tp=2); b=$?; "
                      "wait $a; exit $((b * 100 + $?)); } 2>&1",
                      changed ? 202 : 101); /* 101: other folders of runs */
            if ((strstr(text, "in the data (by checksum)") != NULL) != changed)
                fail_msg("%s, %s: %s", header ? "llm.c" : "nanoGPT",
                         changed ? "changed" : "equal", text);
        }
    }
}

TEST(a_layout_can_be_left_to_the_program)
{
    const char *text = shell("cd $D && timeout 100 $H train r.yaml --set run.name=auto --ranks 4 "
                             "--layout auto 2>&1", 0);
    CHECK(strstr(text, "layout: ") && strstr(text, ", the fastest of the "));
    CHECK(strstr(text, " legal layouts that fit: an estimated "));
    if (fabs(last_loss("auto") - last_loss("one")) > 1e-5)
        fail_msg("loss %.9f, one rank has %.9f", last_loss("auto"), last_loss("one"));
    text = shell("cd $D && timeout 100 $H train r.yaml --dry-run --ranks 5 --layout auto 2>&1", 2);
    CHECK(strstr(text, "no layout of 5 ranks fits this model and batch"));
    text = shell("cd $D && $H layout show r.yaml --layout auto --ranks 4 --set train.batch=1 --set "
                 "train.accumulate=1 --set train.seq=8192 "
                 "--set model.override='{positions: 8192, heads: 1, layers: 1}'", 0);
    CHECK(strstr(text, "layout: cp=4, the fastest of the "));
    text = shell("cd $D && $H layout show r.yaml --layout auto 2>&1", 2);
    CHECK(strstr(text, "say it, such as --ranks 8"));
    text = shell("cd $D && $H layout show r.yaml --layout dp=2 --ranks 2 2>&1", 2);
    CHECK(strstr(text, "a layout says how many it needs"));
}

TEST(ranks_get_cores_of_their_own_and_are_timed)
{
    const char *text = shell("cd $D && timeout 100 $H train r.yaml --set run.name=timed --ranks 2 "
                             "--layout dp=2 2>&1", 0);
    CHECK(strstr(text, "preflight: 2 ranks; products at "));
    text = shell("cd $D && timeout 100 $H train r.yaml --set run.name=untimed --ranks 2 "
                 "--layout dp=2 --set run.preflight=no 2>&1", 0);
    CHECK(!strstr(text, "preflight"));
}

/* The leading rank, whose log it is, cannot write why the others end. */
TEST(a_leading_rank_that_dies_is_named_in_the_log)
{
    shell("cd $D; timeout 100 $H train r.yaml --quiet --ranks 2 --layout dp=2 --set run.name=lost "
          "--set train.steps=1000000 >o 2>&1 & "
          "for i in $(seq 300); do "
          "grep -q '\"step\":5,' runs/lost/metrics.jsonl 2>/dev/null && break; "
          "sleep 0.1; done; h=$(cat /proc/$!/task/*/children); "
          "set -- $(cat /proc/${h% }/task/*/children); "
          "kill -KILL $1; wait $!", 81);
    const char *text = shell("cat $D/runs/lost/log.txt", 0);
    CHECK(strstr(text, "error rank 0 (pid ") && strstr(text, ") died "));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ONE(the_peak_is_that_of_a_ranks_own_threads),
        ONE(two_and_four_ranks_train_what_one_does),
        ONE(a_run_of_two_ranks_repeats_and_resumes_to_the_bit),
        ONE(ranks_pass_over_a_damaged_checkpoint_together),
        ONE(ranks_along_cp_train_to_the_bits_of_one),
        ONE(exact_ranks_train_to_the_bits_of_one),
        ONE(exact_ranks_of_mpi_train_to_the_bits_of_one),
        ONE(what_cannot_be_exact_is_refused),
        ONE(a_layout_that_does_not_fit_is_refused_with_what_would),
        ONE(ranks_that_were_not_started_alike_are_named),
        ONE(ranks_with_other_tokens_of_other_programs_are_named),
        ONE(a_layout_can_be_left_to_the_program),
        ONE(ranks_get_cores_of_their_own_and_are_timed),
        ONE(a_leading_rank_that_dies_is_named_in_the_log),
    };
    return cmocka_run_group_tests(tests, prepare, NULL);
}
