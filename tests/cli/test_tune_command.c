/* `headway tune` finds what was spoilt on purpose, and leaves alone what is well. */
#include "backend/backend.h"
#include "cli/program.h"
#include "test.h"

#include <stdlib.h>

#define TUNE "cd $D && timeout 200 $H tune r.yaml --quiet "

static int prepare(void **state)
{
    (void)state;
    setenv("D", "tune-test", 1);
    make_corpus();
    shell("cd $D && cat >r.yaml <<X\n"
          "model: {spec: laptop-2m, override: {layers: 2, width: 64, hidden: 96, heads: 4}}\n"
          "data: {sources: data, tokenizer: tok.json}\n"
          "train: {steps: 6, batch: 4, seq: 64, threads: 1}\nX\n", 0);
    return 0;
}

/* Kernels without vectors, where there are better ones (avx..., amx): several times slower. */
TEST(slow_kernels_are_found_proven_and_written_down)
{
    if (strcmp(backend_best(), "generic") == 0)
        skip();
    const char *said = shell(TUNE "--backend generic --knobs kernels --budget 60s 2>&1", 0);
    if (strstr(said, "too noisy to tell") || strstr(said, "the time was up"))
        skip(); /* this machine does not let one see even that */
    CHECK(strstr(said, "best: --backend generic -> a") != NULL);
    CHECK(strstr(said, "+++ r.tuned.yaml") && strstr(said, "+ start it with --backend a"));
    shell("cd $D && grep -q 'tuned: ' r.tuned.yaml && $H train r.tuned.yaml --dry-run --quiet", 0);
    shell("cd $D && rm r.tuned.yaml && [ -z \"$(ls -A runs)\" ]", 0); /* trials leave nothing */
}

/* Beside two programs that compute all the time; what is not a trial takes some time, too. */
TEST(the_budget_is_held_on_a_busy_machine)
{
    const char *said =
        shell("cd $D && (while :; do :; done) & a=$!; (while :; do :; done) & b=$!; cd $D; "
              "begin=$(date +%s); timeout 200 $H tune r.yaml --quiet --budget 15s --out t.yaml "
              "--knobs threads,recompute,bucket >tuned 2>&1; code=$?; end=$(date +%s); "
              "kill $a $b; cat tuned; rm -f t.yaml; echo \"took $((end - begin)) s\"; exit $code",
              0);
    const char *took = strstr(said, "took ");
    CHECK(took != NULL);
    if (atoi(took + 5) > 18)
        fail_msg("15 s were given:\n%s", said);
}

TEST(where_nothing_helps_nothing_is_written)
{
    const char *said = shell(TUNE "--knobs offload --budget 5s --json 2>&1", 0);
    CHECK(strstr(said, "\"trials\":[]") != NULL && !strstr(said, "\"best\""));
    shell("cd $D && [ ! -e r.tuned.yaml ]", 0);
}

TEST(what_cannot_be_tried_is_refused_with_a_sentence)
{
    CHECK(strstr(shell(TUNE "--knobs thread 2>&1", 2), "the nearest is threads"));
    CHECK(strstr(shell(TUNE "--layout dp=2 2>&1", 2), "say --ranks 2"));
    CHECK(strstr(shell(TUNE "--set train.seq=100000 --budget 5s 2>&1", 2), "positions"));
    shell("cd $D && [ ! -e runs ] || [ -z \"$(ls -A runs)\" ]", 0);
}

/* Of the recipe's own steps and of a change's; the signal comes to tune alone. */
TEST(a_signal_ends_a_trial_and_leaves_the_table_and_nothing_else)
{
    static const char line[] =
        "cd $D && rm -f said; $H tune r.yaml --knobs threads,recompute --budget 100s --folder left "
        "%s >said 2>said.too & t=$!; n=0; for i in $(seq 1200); do "
        "[ -e left/.tune-$t/trial-1.said ] && n=$((n + 1)); [ $n -gt %d ] && break; sleep 0.05; "
        "done; kill -%s $t; wait $t; code=$?; cat said said.too; exit $code";
    static const struct { const char *flags, *signal, *says; int slices; } cases[] = {
        { "", "INT", "stopped by a signal", 0 },
        { "", "INT", "ended early: this is what was measured until then", 120 },
        { "--json", "TERM", "\"stopped\":true", 120 },
    };
    for (i64 i = 0; i < COUNT_OF(cases); i++) {
        const char *said = shellf(75, line, cases[i].flags, cases[i].slices, cases[i].signal);
        if (!strstr(said, cases[i].says) || !strstr(said, "headway: stopped by a signal"))
            fail_msg("%s", said);
        shell("cd $D && [ -z \"$(ls -A left)\" ] && [ ! -e r.tuned.yaml ]", 0);
    }
}

TEST(a_recipe_that_cannot_be_written_is_refused_before_trials)
{
    CHECK(strstr(shell(TUNE "--out no/such/r.yaml 2>&1", 1), "cannot write the tuned recipe"));
    CHECK(strstr(shell(TUNE "--folder t.txt 2>&1", 1), "cannot make the folder"));
    CHECK(strstr(shell("cd $D && echo 'train: {steps: ' >bad.yaml && $H tune bad.yaml 2>&1", 2),
                 "bad.yaml:"));
}

/* Neither wins in silence. */
TEST(a_layout_that_is_given_twice_must_agree)
{
    static const char *const commands[] = { "train r.yaml --dry-run --ranks 2",
                                            "tune r.yaml --ranks 2" };
    static const char with_set[] = "cd $D && timeout 60 $H %s --layout dp=2,zero=2 --set "
                                   "layout.zero=1 2>&1";
    static const char for_short[] = "cd $D && timeout 60 $H %s --layout dp=2,zero=2 "
                                    "--layout.zero 1 2>&1";
    for (i64 i = 0; i < COUNT_OF(commands); i++) {
        CHECK(strstr(shellf(2, with_set, commands[i]),
                     "layout.zero 2, and --set (or --layout.zero) says 1"));
        CHECK(strstr(shellf(2, for_short, commands[i]), "leave one of them out"));
    }
    shell("cd $D && timeout 60 $H train r.yaml --dry-run --quiet --ranks 2 --layout dp=2,zero=2 "
          "--set layout.zero=2 --set layout.sums=end 2>&1", 0);
}

/* A change of the layout goes from what --layout says: it was lost behind it before. */
TEST(layouts_are_tried_where_one_is_given)
{
    const char *said = shell(TUNE "--ranks 2 --layout dp=2 --knobs layout,bucket --budget 12s "
                             "--trials 2 2>&1", 0);
    CHECK(strstr(said, "layout dp=2 -> "));
    CHECK(!strstr(said, "impossible") && !strstr(said, "failed"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ONE(slow_kernels_are_found_proven_and_written_down),
        ONE(the_budget_is_held_on_a_busy_machine),
          ONE(where_nothing_helps_nothing_is_written),
        ONE(what_cannot_be_tried_is_refused_with_a_sentence),
        ONE(a_signal_ends_a_trial_and_leaves_the_table_and_nothing_else),
        ONE(a_recipe_that_cannot_be_written_is_refused_before_trials),
        ONE(a_layout_that_is_given_twice_must_agree),
        ONE(layouts_are_tried_where_one_is_given),
    };
    return cmocka_run_group_tests(tests, prepare, NULL);
}
