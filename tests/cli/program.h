/* Runs the program itself and keeps what it said. */
#ifndef HEADWAY_TEST_PROGRAM_H
#define HEADWAY_TEST_PROGRAM_H

#include "test.h"

#include <stdio.h>
#include <sys/wait.h>

struct outcome {
    int code;
    char text[262144]; /* stdout and stderr, or what the shell command line leaves of them */
};

/* A shell command line in which $H is the program. */
static inline void run_shell(struct outcome *o, const char *line)
{
    char command[8192];
    snprintf(command, sizeof command, "H='%s'; %s", HEADWAY_PROGRAM, line);
    FILE *pipe = popen(command, "r");
    CHECK(pipe != NULL);
    size_t n = fread(o->text, 1, sizeof o->text - 1, pipe);
    o->text[n] = '\0';
    int status = pclose(pipe);
    o->code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* What the line said; the test fails if it ends otherwise than with `code`. */
static inline const char *shell(const char *line, int code)
{
    static struct outcome o;
    run_shell(&o, line);
    if (o.code != code)
        fail_msg("%s\ngave %d, expected %d:\n%s", line, o.code, code, o.text);
    return o.text;
}

static inline const char *shellf(int code, const char *fmt, ...) PRINTF_LIKE(2, 3);
static inline const char *shellf(int code, const char *fmt, ...)
{
    char line[2000];
    va_list args;
    va_start(args, fmt);
    vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    return shell(line, code);
}

/* A new folder $D with a small corpus as shards (data) and its tokenizer (tok.json). */
static inline void make_corpus(void)
{
    shell("rm -rf $D && mkdir $D && cd $D && for i in $(seq 300); do "
          "echo \"the cat number $i sat on mat $((i * 7 % 31)) and saw $((i * i % 97)) birds\"; "
          "done >t.txt && $H tokenizer train t.txt --vocab-size 300 --out tok.json --quiet "
          ">/dev/null && $H data prepare t.txt --format text --tokenizer tok.json --licence none "
          "--val-fraction 0 --out data --quiet >/dev/null", 0);
}

/* The same with a line to each document, and a tenth of these held out. */
static inline void make_documents(void)
{
    shell("rm -rf $D && mkdir $D && cd $D && for i in $(seq 300); do "
          "echo \"{\\\"text\\\": \\\"the cat number $i sat on mat $((i * 7 % 31)) and saw "
          "$((i * i % 97)) birds\\\"}\"; done >t.jsonl && for i in $(seq 300); do echo \"the cat "
          "number $i sat on mat and saw birds\"; done >t.txt && $H tokenizer train t.txt "
          "--vocab-size 300 --out tok.json --quiet >/dev/null && $H data prepare t.jsonl "
          "--tokenizer tok.json --licence none --val-fraction 0.1 --out data --quiet >/dev/null",
          0);
}

#define CHECK_RUN(line, expected_code, expected_text)                                    \
    do {                                                                                 \
        static struct outcome check_o_;                                                  \
        run_shell(&check_o_, line);                                                      \
        CHECK_EQ(check_o_.code, expected_code);                                          \
        CHECK_STR(check_o_.text, expected_text);                                         \
    } while (0)

#endif
