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
    const char *said = shell(TUNE "--backend generic --knobs kernels --budget 20s 2>&1", 0);
    CHECK(strstr(said, "best: --backend generic -> a") != NULL);
    CHECK(strstr(said, "+++ r.tuned.yaml") && strstr(said, "+ start it with --backend a"));
    shell("cd $D && grep -q 'tuned: ' r.tuned.yaml && $H train r.tuned.yaml --dry-run --quiet", 0);
    shell("cd $D && rm r.tuned.yaml && [ -z \"$(ls -A runs)\" ]", 0); /* trials leave nothing */
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        ONE(slow_kernels_are_found_proven_and_written_down),
        ONE(where_nothing_helps_nothing_is_written),
        ONE(what_cannot_be_tried_is_refused_with_a_sentence),
    };
    return cmocka_run_group_tests(tests, prepare, NULL);
}
