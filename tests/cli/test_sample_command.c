/* 'headway sample' through the program itself: how much text fits in a model, and answers. */
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
    CHECK_STR(shell(SAMPLE "--prompt a --tokens 33 --count 2 2>/dev/null; test $? = 2", 0), "");
    const char *said = shell(SAMPLE "--prompt a --tokens 33 2>&1", 2);
    CHECK(strstr(said, "the prompt's 1 tokens and --tokens 33 do not fit in the model's 32 "
                       "positions; give --tokens 32 or less"));
    said = shell(SAMPLE "--prompt \"$(seq 100 200)\" 2>&1", 2);
    CHECK(strstr(said, "tokens, the model only 32 positions; give a shorter prompt"));
}

TEST(texts_end_where_the_model_does)
{
    char full[2048];
    snprintf(full, sizeof full, "%.2000s", shell(SAMPLE "--prompt a --tokens 32 --count 2", 0));
    CHECK_STR(shell(SAMPLE "--prompt a --count 2", 0), full);
    shell(SAMPLE "--prompt a --tokens 31 --count 2", 0);
}

/* A text may be empty, or have blank lines: only what stands between says where the next begins. */
TEST(several_texts_are_told_apart)
{
    char one[1024], two[1024], both[4096];
    snprintf(one, sizeof one, "%.1000s", shell(SAMPLE "--prompt a --tokens 9 --seed 7", 0));
    CHECK(!strstr(one, "---"));
    snprintf(two, sizeof two, "%.1000s", shell(SAMPLE "--prompt a --tokens 9 --seed 8", 0));
    snprintf(both, sizeof both, "--- 1 of 2, seed 7 ---\n%s\n--- 2 of 2, seed 8 ---\n%s", one, two);
    CHECK_STR(shell(SAMPLE "--prompt a --tokens 9 --seed 7 --count 2", 0), both);
}

/* Trained until it knows its three conversations by heart, then asked. */
static void learn_answers(const char *name, const char *specials)
{
    shellf(0, "cd $D && $H tokenizer train c.jsonl --vocab-size 280 --specials '%s' "
           "--out %s.json --quiet && "
           "cat >%s.yaml <<X && $H train %s.yaml --quiet\n"
           "model: {spec: laptop-2m, override: {layers: 2, width: 64, hidden: 96, "
           "heads: 2, positions: 128}}\n"
           "data: {sources: chats.jsonl, tokenizer: %s.json, val_fraction: 0, "
           "loss_on: answers, cache: cache-%s}\n"
           "train: {steps: 200, batch: 4, seq: 96, threads: 1}\nlr: {warmup: 10}\n"
           "optim: {lr: 0.005}\neval: {every: 0}\nrun: {name: %s, preflight: no}\nX",
           specials, name, name, name, name, name, name);
}

TEST(questions_are_laid_out_as_in_training_and_answers_end)
{
    static const char *const styles[][2] = {
        { "plain", "<|endoftext|>" }, { "chatml", "<|endoftext|>,<|im_start|>,<|im_end|>" },
    };
    shell("cd $D && cat >c.jsonl <<'X'\n"
          "{\"messages\": [{\"role\": \"user\", \"content\": \"red\"}, "
          "{\"role\": \"assistant\", \"content\": \"A colour.\\n\\nOf roses.\"}, "
          "{\"role\": \"user\", \"content\": \"ten\"}, "
          "{\"role\": \"assistant\", \"content\": \"Many.\"}]}\n"
          "{\"messages\": [{\"role\": \"user\", \"content\": \"ten\"}, "
          "{\"role\": \"assistant\", \"content\": \"Many.\"}, "
          "{\"role\": \"user\", \"content\": \"red\"}, "
          "{\"role\": \"assistant\", \"content\": \"A colour.\\n\\nOf roses.\"}]}\n"
          "{\"messages\": [{\"role\": \"system\", \"content\": \"loud\"}, "
          "{\"role\": \"user\", \"content\": \"red\"}, "
          "{\"role\": \"assistant\", \"content\": \"LOUD.\"}]}\nX\n"
          "for i in 1 2 3 4 5 6 7 8 9 10; do cat c.jsonl; done >chats.jsonl", 0);
    for (int i = 0; i < COUNT_OF(styles); i++) {
        char ask[256];
        learn_answers(styles[i][0], styles[i][1]);
        snprintf(ask, sizeof ask, "cd $D && $H sample runs/%s --quiet --temperature 0 "
                 "--tokens 40 --threads 1", styles[i][0]);
        CHECK_STR(shellf(0, "%s --chat red", ask), "A colour.\n\nOf roses.\n");
        CHECK_STR(shellf(0, "%s --chat ten", ask), "Many.\n");
        CHECK_STR(shellf(0, "%s --chat red --system loud", ask), "LOUD.\n");
    }
    CHECK(strstr(shell(SAMPLE "--chat a --prompt b 2>&1", 2), "give one of them"));
    CHECK(strstr(shell(SAMPLE "--system a 2>&1", 2), "give that with --chat"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ONE(more_tokens_than_fit_are_refused_before_any_text),
        ONE(several_texts_are_told_apart), ONE(texts_end_where_the_model_does),
        ONE(questions_are_laid_out_as_in_training_and_answers_end),
    };
    return cmocka_run_group_tests(tests, prepare, NULL);
}
