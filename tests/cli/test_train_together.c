/* Several processes begin and end together: signals to any of them, and what one of them
 * cannot do. */
#include "cli/program.h"
#include "test.h"

#include <stdlib.h>

#define MPI "export ASAN_OPTIONS=detect_leaks=0; cd $D && timeout 60 mpirun.mpich "

static int prepare(void **state)
{
    (void)state;
    setenv("D", "together-test", 1);
    make_corpus();
    shell("cd $D && cat >r.yaml <<X\n"
          "model: {spec: laptop-2m, override: {layers: 2, width: 64, hidden: 96, heads: 4}}\n"
          "data: {sources: data, tokenizer: tok.json}\n"
          "train: {steps: 100000, max_time: 60s, batch: 2, accumulate: 2, seq: 32, threads: 1}\n"
          "lr: {schedule: constant, warmup: 2}\nlog: {every: 1}\neval: {every: 0}\n"
          "checkpoint: {every: 100000}\nX\n", 0);
    return 0;
}

/* `kill` is a shell command that has $pid, of the process that was started. */
static void stop_by(const char *run, const char *kill)
{
    shellf(75, "cd $D && { $H train r.yaml --ranks 2 --layout dp=2 --set run.name=%s "
           ">%s.txt 2>&1 & pid=$!; for i in $(seq 600); do grep -q 'step [1-9]' %s.txt && break; "
           "sleep 0.1; done; %s; wait $pid; } 2>/dev/null",
           run, run, run, kill);
    shellf(0, "cd $D && grep -q 'the state is saved' %s.txt && ls runs/%s/checkpoints/step-*", run,
           run);
}

TEST(whoever_stops_the_first_process_stops_and_saves_the_run)
{
    stop_by("parent", "kill -TERM $pid");
    stop_by("both", "kill -TERM $pid $(cat /proc/$pid/task/$pid/children)");
}

TEST(a_second_signal_ends_the_run_at_once)
{
    static struct outcome o;
    run_shell(&o, "cd $D && { $H train r.yaml --ranks 2 --layout dp=2 --grace 600s "
                  "--set run.name=twice --set train.accumulate=20000 >twice.txt 2>&1 & pid=$!; "
                  "for i in $(seq 600); do grep -q 'step 0' twice.txt && break; "
                  "sleep 0.1; done; kill -TERM $pid; sleep 1; "
                  "kill -TERM $pid; wait $pid; } 2>/dev/null");
    CHECK_EQ(o.code, 143);
}

TEST(a_recipe_that_one_rank_cannot_read_is_told_with_the_rank)
{
    const char *said = shell("cd $D; export HEADWAY_SIZE=2 "
                             "HEADWAY_ADDRESS=127.0.0.1:$((20000 + $$ % 20000)); "
                             "{ (HEADWAY_RANK=1 timeout 60 $H train none.yaml --layout dp=2 2>&1; "
                             "echo code $?) >one.txt & }; "
                             "HEADWAY_RANK=0 timeout 60 $H train r.yaml --layout dp=2 2>&1; "
                             "code=$?; wait; cat one.txt; exit $code", 1);
    CHECK(strstr(said, "headway: rank 1: open none.yaml: No such file"));
    CHECK(strstr(said, "code 1"));
}

TEST(mpich_does_not_wait_for_a_rank_that_was_refused)
{
    if (strncmp(shell("command -v mpirun.mpich || echo none", 0), "none", 4) == 0)
        skip();
    const char *said = shell(MPI "-n 1 $H train r.yaml --layout dp=2 --set run.name=refused : "
                             "-n 1 $H train r.yaml --layout dp=2 --bogus 2>&1; "
                             "[ $? -ne 124 ]", 0);
    CHECK(strstr(said, "unknown option '--bogus'") || strstr(said, "--bogus"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ONE(whoever_stops_the_first_process_stops_and_saves_the_run),
        ONE(a_second_signal_ends_the_run_at_once),
        ONE(a_recipe_that_one_rank_cannot_read_is_told_with_the_rank),
        ONE(mpich_does_not_wait_for_a_rank_that_was_refused),
    };
    return cmocka_run_group_tests(tests, prepare, NULL);
}
