/* 'headway sample' through the program itself: how much text fits in a model. */
#include "cli/program.h"
#include "test.h"

#include <stdlib.h>

#define SAMPLE "cd $D && $H sample runs/small --quiet --no-stop --threads 1 "

static int prepare(void **state)
{
    (void)state;
    setenv("D", "sample-test", 1);
    make_corpus();
    shell("cd $D && cat >r.yaml <<X\n"
          "model: {spec: laptop-2m, override: {layers: 1, width: 32, hidden: 48, heads: 2, "
          "positions: 32}}\ndata: {sources: data, tokenizer: tok.json}\n"
          "train: {steps: 1, batch: 2, seq: 16, threads: 1}\nX\n"
          "$H train r.yaml --quiet --set run.name=small --set run.preflight=no", 0);
    return 0;
}

/* "a" is a token of its own: room for 32 more, the last of which the model does not read. */
TEST(more_tokens_than_fit_are_refused_before_any_text)
{
    CHECK_STR(shell(SAMPLE "--prompt a --tokens 33 --count 2 2>/dev/null; test $? = 1", 0), "");
    const char *said = shell(SAMPLE "--prompt a --tokens 33 2>&1", 1);
    CHECK(strstr(said, "the prompt's 1 tokens and --tokens 33 do not fit in the model's 32 "
                       "positions; give --tokens 32 or less"));
    said = shell(SAMPLE "--prompt \"$(seq 100 200)\" 2>&1", 1);
    CHECK(strstr(said, "tokens, the model only 32 positions; give a shorter prompt"));
}

TEST(texts_end_where_the_model_does)
{
    char full[2048];
    snprintf(full, sizeof full, "%.2000s", shell(SAMPLE "--prompt a --tokens 32 --count 2", 0));
    CHECK_STR(shell(SAMPLE "--prompt a --count 2", 0), full);
    shell(SAMPLE "--prompt a --tokens 31 --count 2", 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ONE(more_tokens_than_fit_are_refused_before_any_text),
        ONE(texts_end_where_the_model_does),
    };
    return cmocka_run_group_tests(tests, prepare, NULL);
}
