/* Islands through the program itself: processes, MPI, runs that are killed between outer steps, and
 * what is refused. */
#include "cli/program.h"
#include "test.h"

#include <stdlib.h>

#define TRAIN "cd $D && timeout 100 $H train r.yaml --quiet --set run.preflight=no "

static int prepare(void **state)
{
    (void)state;
    setenv("D", "islands-test", 1);
    make_documents();
    shell("cd $D && cat >r.yaml <<X\n"
          "model: {spec: laptop-2m, override: {layers: 2, width: 64, hidden: 96, heads: 4}}\n"
          "data: {sources: data, tokenizer: tok.json}\n"
          "train: {steps: 10, batch: 4, accumulate: 2, seq: 32, threads: 1}\nouter: {every: 4}\n"
          "lr: {schedule: constant, warmup: 2}\nlog: {every: 1}\neval: {every: 6}\nX\n", 0);
    return 0;
}

/* The newest checkpoint's bytes. */
static void state_of(const char *run, char *out)
{
    memcpy(out, shellf(0, "cd $D && cat $(ls -d runs/%s/checkpoints/step-* | sort -V | tail "
                       "-1)/*.safetensors | sha256sum", run), 64);
}

/* The weights that islands have in common, however they are written. */
static void common_of(const char *run, char *out)
{
    memcpy(out, shellf(0, "cd $D && $H checkpoint export runs/%s --out x.safetensors --quiet "
                       "--overwrite >/dev/null && sha256sum <x.safetensors", run), 64);
}

/* Step 10 is two steps behind an outer one. */
TEST(a_run_that_stops_between_outer_steps_goes_on_to_the_bit)
{
    char whole[64], resumed[64];
    shell(TRAIN "--set run.name=whole --ranks 2 --layout islands=2", 0);
    shell(TRAIN "--set run.name=stopped --set train.steps=7 --ranks 2 --layout islands=2", 0);
    shell(TRAIN "--set run.name=stopped --resume --ranks 2 --layout islands=2", 0);
    state_of("whole", whole);
    state_of("stopped", resumed);
    CHECK(memcmp(whole, resumed, sizeof whole) == 0);
    CHECK(strstr(shell("cat $D/runs/whole/log.txt", 0),
                 "the run ends 2 steps after its last outer step"));
    CHECK_STR(shell("grep -c '\"event\":\"outer\".*\"outer_norm\".*\"divergence\"' "
                    "$D/runs/whole/metrics.jsonl", 0), "2\n");
}

TEST(killed_islands_go_on_as_if_they_had_not_been)
{
    char whole[64], resumed[64];
    shell("cd $D && (timeout 100 $H train r.yaml --quiet --set run.name=killed --set "
          "run.preflight=no --set train.steps=100000 --set eval.every=0 --set checkpoint.every=2 "
          "--ranks 4 --layout islands=2,dp=2,zero=1 2>/dev/null & p=$!; "
          "until ls -d runs/killed/checkpoints/step-[0-9]*[0-9] >/dev/null 2>&1; do sleep 0.02; "
          "done; h=$(pgrep -P $p); kill -9 $(pgrep -P $h | tail -1); wait $p; exit $?)", 81);
    const char *rest = TRAIN "--set eval.every=0 --set train.steps=$((s + 5)) --ranks 4 --layout "
                       "islands=2,dp=2,zero=1";
    shellf(0, "cd $D && s=$(ls -d runs/killed/checkpoints/step-[0-9]*[0-9] | "
           "sed 's/.*-//' | sort -n | tail -1) && cd .. && "
           "%s --set run.name=killed --resume && cd .. && %s --set run.name=never",
           rest, rest);
    state_of("killed", resumed);
    state_of("never", whole);
    CHECK(memcmp(whole, resumed, sizeof whole) == 0);
}

/* Exact islands have the bits of one rank each, and change their layout between outer steps. */
TEST(what_an_exact_island_is_made_of_changes_nothing)
{
    static const struct { int ranks, steps; const char *layout; } runs[] = {
        { 4, 3, "dp=2,zero=1" }, { 4, 6, "tp=2" }, { 8, 9, "dp=2,pp=2,zero=1" }, { 2, 12, "tp=1" },
    };
    char one[64], chain[64];
    shell(TRAIN "--set run.name=one --set train.steps=12 --ranks 2 "
          "--layout islands=2,exact=true", 0);
    for (i64 i = 0; i < COUNT_OF(runs); i++)
        shellf(0, TRAIN "--set run.name=chain --set train.steps=%d %s --ranks %d --layout "
               "islands=2,exact=true,%s", runs[i].steps, i ? "--resume" : "", runs[i].ranks,
               runs[i].layout);
    common_of("one", one);
    common_of("chain", chain);
    CHECK(memcmp(one, chain, sizeof one) == 0);
    const char *sample = "cd $D && $H sample runs/chain --prompt 'the cat' --tokens 4 --quiet";
    CHECK(strlen(shell(sample, 0)) > 7);
}

TEST(islands_of_mpi_go_where_others_do)
{
    char one[64], two[64];
    if (strncmp(shell("command -v mpirun.mpich || echo none", 0), "none", 4) == 0)
        skip();
    shell(TRAIN "--set run.name=processes --ranks 2 --layout islands=2", 0);
    shell("export ASAN_OPTIONS=detect_leaks=0; cd $D && timeout 100 mpirun.mpich -n 2 $H "
          "train r.yaml --quiet --set run.preflight=no --set run.name=mpi "
          "--layout islands=2", 0);
    state_of("processes", one);
    state_of("mpi", two);
    CHECK(memcmp(one, two, sizeof one) == 0);
}

TEST(what_islands_send_is_shown)
{
    const char *text = shell("cd $D && $H layout show r.yaml --layout islands=2,dp=2", 0);
    CHECK(strstr(text, "islands {0 2} {1 3}"));
    CHECK(strstr(text, "outer step, after 4 steps"));
}

TEST(what_islands_cannot_do_is_refused)
{
    shell(TRAIN "--set run.name=two --set train.steps=2 --ranks 2 --layout islands=2", 0);
    CHECK(strstr(shell(TRAIN "--set run.name=two --resume --ranks 4 --layout islands=4 2>&1", 2),
                 "the optimizer state of 2 islands; resume with layout.islands=2"));
    CHECK(strstr(shell(TRAIN "--set run.name=two --resume --set outer.every=0 2>&1", 2),
                 "was trained with outer steps"));
    CHECK(strstr(shell(TRAIN "--set outer.every=0 --ranks 2 --layout islands=2 2>&1", 2),
                 "islands=2 would never meet"));
    CHECK(strstr(shell(TRAIN "--ranks 3 --layout islands=3 2>&1", 2),
                 "islands=3 cannot share out the 2 micro-batches of 4 rows"));
    CHECK(strstr(shell(TRAIN "--set train.ema=0.9 2>&1", 2), "leave train.ema or outer.every out"));
    shell("cd $D && sed '/^model/d' r.yaml >f.yaml && timeout 100 $H "
          "train f.yaml --quiet --set model.from=runs/two --set run.name=from --set train.steps=1 "
          "--set run.preflight=no --ranks 4 --layout islands=4", 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ONE(a_run_that_stops_between_outer_steps_goes_on_to_the_bit),
        ONE(killed_islands_go_on_as_if_they_had_not_been),
        ONE(what_an_exact_island_is_made_of_changes_nothing),
        ONE(islands_of_mpi_go_where_others_do),
        ONE(what_islands_send_is_shown),
        ONE(what_islands_cannot_do_is_refused),
    };
    return cmocka_run_group_tests(tests, prepare, NULL);
}
