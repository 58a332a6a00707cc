#include "test.h"

#include "base/sys.h"
#include "base/text.h"
#include "cli/command.h"
#include "cli/flags.h"
#include "cli/help.h"
#include "cli/program.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

typedef void (*visit)(const struct command *c, const char *path);

static void each_command(const struct command *const *list, const char *path, visit v)
{
    for (; list && *list; list++) {
        char below[128];
        snprintf(below, sizeof below, "%s %s", path, (*list)->name);
        v(*list, below);
        each_command((*list)->subcommands, below, v);
    }
}

static void check_row(const struct command *c, const char *path)
{
    CHECK(c->summary && isupper((unsigned char)c->summary[0]));
    CHECK(c->summary[strlen(c->summary) - 1] != '.');
    CHECK(c->run || c->subcommands);
    CHECK(!c->options == !c->options_bytes);
    CHECK(c->max_args == 0 || c->arguments);
    CHECK(c->examples && c->examples[0].line);
    for (const struct example *e = c->examples; e->line; e++) {
        CHECK(strstr(e->line, path) != NULL); /* an example shows its own command */
        CHECK(e->does && e->does[strlen(e->does) - 1] == '.');
    }
    for (const struct option *o = c->options; o && o->key; o++)
        CHECK(!option_find(common_options, o->key));
}

TEST(every_command_says_what_it_does_and_has_an_example)
{
    each_command(commands, "headway", check_row);
}

static void check_table(const struct option *table)
{
    for (const struct option *o = table; o && o->key; o++) {
        CHECK(o->help && o->help[strlen(o->help) - 1] == '.');
        CHECK(isupper((unsigned char)o->help[0]) || strncmp(o->help, "muon", 4) == 0);
        CHECK(option_find(table, o->key) == o); /* no key twice */
        CHECK((o->type == OPTION_CHOICE) == (o->choices != NULL));
        for (const char *p = o->key; *p; p++)
            CHECK(islower((unsigned char)*p) || isdigit((unsigned char)*p) || *p == '_' ||
                  *p == '.');
    }
}

static void check_options(const struct command *c, const char *path)
{
    (void)path;
    check_table(c->options);
}

TEST(every_option_has_a_help_sentence)
{
    check_table(common_options);
    each_command(commands, "headway", check_options);
    for (const struct option *const *table = recipe_tables; *table; table++)
        check_table(*table);
}

static void check_help_runs(const struct command *c, const char *path)
{
    static struct outcome o;
    char line[256];
    snprintf(line, sizeof line, "$H%s --help 2>&1", path + strlen("headway"));
    run_shell(&o, line);
    CHECK_EQ(o.code, 0);
    CHECK(strstr(o.text, "\nExamples:\n") && strstr(o.text, c->examples[0].line));
    CHECK(strstr(o.text, "\nUsage: headway"));
}

TEST(help_of_every_command_shows_an_example)
{
    each_command(commands, "headway", check_help_runs);
}

TEST(mistakes_on_the_command_line_get_one_sentence_and_exit_code_2)
{
    CHECK_RUN("$H cofnig 2>&1", 2, "headway: unknown command 'headway cofnig'; did you mean "
                                   "'config'?; see headway --help\n");
    CHECK_RUN("$H config --recpie x 2>&1", 2, "headway: unknown option --recpie; did you "
                                              "mean --recipe?; see headway config --help\n");
    CHECK_RUN("$H config --recipe 2>&1", 2, "headway: --recipe needs a value\n");
    CHECK_RUN("$H config -x 2>&1", 2, "headway: unknown option -x; see headway config "
                                      "--help\n");
    CHECK_RUN("$H config --yaml=maybe 2>&1", 2,
              "headway: --yaml: 'maybe' is neither true nor false, as yaml must be\n");
    CHECK_RUN("$H config a b 2>&1", 2,
              "headway: unexpected argument 'b'; see headway config --help\n");
    CHECK_RUN("$H help man 2>&1", 2, "headway: an argument is missing: headway help man DIR; "
                                     "see headway help man --help\n");
    CHECK_RUN("$H config --set train.batch=0 2>&1", 2, "headway: --set: value 0 is out of "
              "range: train.batch must be between 1 and 1000000\n");
}

/* What would have no effect. */
TEST(options_that_do_not_go_together_are_refused)
{
    CHECK_RUN("$H diagnose runs/x --every 2s 2>&1", 2, "headway: --every has an effect only "
              "beside --live or --probe: give that, or leave --every out\n");
    CHECK_RUN("$H diagnose runs/x --pairs=9 2>&1", 2, "headway: --pairs has an effect only "
              "beside --probe: give that, or leave --pairs out\n");
    CHECK_RUN("$H diagnose --rules --kinds 2>&1", 2, "headway: --rules and --kinds do not go "
              "together: leave one of them out\n");
    CHECK_RUN("$H diagnose --kinds --steps 3-9 2>&1", 2, "headway: --kinds and --steps do not go "
              "together: leave one of them out\n");
    CHECK_RUN("$H train r.yaml --clock virtual --compute none 2>&1", 2, "headway: --clock virtual "
              "and --compute none do not go together: leave one of them out\n");
    CHECK_RUN("$H train r.yaml --clock real --compute real --rates flops=1e10 2>&1", 2, "headway: "
              "--rates has an effect only beside --clock virtual or --compute none: give that, or "
              "leave --rates out\n");
    CHECK_RUN("$H diagnose no-such-run --live --every 2s 2>&1 | head -c 30", 0,
              "headway: open no-such-run: No ");
}

/* Of each list that options of the table name others in. */
static void check_names(const struct option *table, const char *list)
{
    for (const char *at = list; at && *at; at += strcspn(at, "|"), at += *at == '|') {
        char key[64];
        snprintf(key, sizeof key, "%.*s", (int)strcspn(at, "=|"), at);
        const struct option *o = option_find(table, key);
        if (!o)
            fail_msg("there is no option %s, as in %s", key, list);
        CHECK(o->type == OPTION_CHOICE || at[strlen(key)] != '=');
    }
}

static void check_lists(const struct command *c, const char *path)
{
    (void)path;
    for (const struct option *o = c->options; o && o->key; o++) {
        check_names(c->options, o->needs);
        check_names(c->options, o->excludes);
    }
}

TEST(options_name_options_that_there_are)
{
    each_command(commands, "headway", check_lists);
}

TEST(mistakes_in_a_recipe_name_file_line_and_column)
{
    CHECK_RUN("printf 'train:\\n    seq: 5\\ntrian:\\n    steps: 1\\n' > r1.yaml;"
              "$H config --recipe r1.yaml 2>&1; code=$?; rm r1.yaml; exit $code", 2,
              "headway: r1.yaml:3:1: unknown section 'trian'; did you mean 'train'?\n");
    CHECK_RUN("$H config --recipe no.yaml 2>&1", 1,
              "headway: open no.yaml: No such file or directory\n");
}

TEST(control_characters_in_messages_do_not_reach_the_terminal)
{
    CHECK_RUN("$H \"$(printf 'a\\033[2Jb')\" 2>&1", 2,
              "headway: unknown command 'headway a?[2Jb'; see headway --help\n");
    CHECK_RUN("rm -rf odd && mkdir odd && cd odd && printf 'words and words' > "
              "\"$(printf 'a\\033[2J\\nb')\" && $H tokenizer train . --vocab-size 257 --quiet "
              ">/dev/null && $H data prepare a* --tokenizer tokenizer.json --out d --quiet "
              "--source \"$(printf 'x\\033[2J')\" >/dev/null 2>&1 && $H data info d | "
              "grep -c -e 'source *x?.2J$' -e '  a?.2J?b$'; cd .. && rm -r odd", 0, "2\n");
}

TEST(a_full_disk_behind_stdout_is_an_error)
{
    if (!sys_exists("/dev/full"))
        skip();
    CHECK_RUN("$H config 2>&1 >/dev/full", 1,
              "headway: writing to standard output failed; is the disk full?\n");
}

/* Files must not come under the numbers of what is closed: messages would go into them. */
TEST(closed_channels_stay_closed)
{
    CHECK_RUN("$H config 2>&1 >&-", 1, "headway: standard output is closed\n");
    shell("rm -rf cl; mkdir cl; cd cl; yes 'the cat sat on the mat' | head -300 >t; "
          "$H tokenizer train t --vocab-size 260 --out tok.json --quiet >/dev/null; "
          "cat >r.yaml <<X\n"
          "model: {spec: laptop-2m, override: {layers: 1, width: 32, hidden: 48, heads: 2}}\n"
          "data: {sources: t, tokenizer: tok.json, val_fraction: 0}\n"
          "train: {steps: 3, batch: 2, seq: 16, threads: 1}\nlog: {every: 1}\nX\n"
          "timeout 60 $H train r.yaml --run.name=a <&- >&- 2>&-", 1); /* the path was not written */
    shell("cd cl/runs/a; ! grep -v '^{.*}$' metrics.jsonl; grep -q finished metrics.jsonl && "
          "test $(wc -l <lock) = 1", 0);
    CHECK_RUN("cd cl; $H tokenizer encode --tokenizer tok.json <&- 2>&1", 1,
              "headway: read standard input: Bad file descriptor\n");
    CHECK_RUN("cd cl; (ulimit -f 1; $H model describe laptop-2m >d; $H train r.yaml --quiet "
              "--run.name=b 2>&1 | grep -c 'File too large')", 0, "1\n");
    shell("rm -rf cl", 0);
}

/* A device or a pipe is written to; a file in its place would be no device any more. */
TEST(what_is_no_ordinary_file_is_not_replaced_by_one)
{
    CHECK_RUN("rm -rf ch; mkdir ch; cd ch; yes 'the cat sat' | head -300 >t; mkfifo p; "
              "cat p >copy & $H tokenizer train t --vocab-size 260 --out p --quiet; wait; "
              "$H tokenizer train t --vocab-size 260 --out f --quiet; test -p p && cmp copy f", 0,
              "p: 260 tokens\nf: 260 tokens\n");
    CHECK_RUN("cd ch; echo '{}' >manifest.json; cat p >copy & $H report . --out p 2>/dev/null; "
              "wait; test -p p && grep -c '<!doctype html>' copy", 0, "p\n1\n");
    CHECK_RUN("cd ch; ln -s p q; cat p >copy & $H report . --out q 2>/dev/null; wait; "
              "test -p p && test -L q && ls *.tmp 2>/dev/null; grep -c '<!doctype html>' copy", 0,
              "q\n1\n");
    shell("rm -rf ch", 0);
}

TEST(overrides_can_be_written_in_three_ways)
{
    CHECK_RUN("for f in '--set train.batch=3' '--train.batch=3' '--train.batch 3'; do "
              "$H config --yaml $f | grep ' batch:'; done",
              0, "  batch: 3\n  batch: 3\n  batch: 3\n");
}

TEST(the_resolved_recipe_is_a_recipe)
{
    CHECK_RUN("$H config --yaml --set train.seq=64 --set data.sources='[{path: a b}]' "
              "> r2.yaml && $H config --yaml --recipe r2.yaml | diff r2.yaml - && "
              "grep 'seq:' r2.yaml; code=$?; rm r2.yaml; exit $code",
              0, "  seq: 64\n");
}

TEST(config_explains_one_key_a_section_or_all)
{
    static struct outcome o;
    run_shell(&o, "$H config optim.lr --set optim.lr=0.1");
    CHECK_STR(o.text, "optim\n  optim.lr: number, default 6e-4, between 0 and 10\n"
                      "      Peak learning rate of AdamW.\n      is 0.1   (--set)\n");
    run_shell(&o, "$H config lr");
    CHECK(strstr(o.text, "  lr.schedule: ") && !strstr(o.text, "optim."));
    CHECK_RUN("$H config optm.lr 2>&1", 2,
              "headway: unknown key 'optm.lr'; did you mean 'optim.lr'?\n");
    run_shell(&o, "$H config --markdown");
    for (const struct option *const *table = recipe_tables; *table; table++) {
        for (const struct option *row = *table; row->key; row++) {
            char cell[128];
            snprintf(cell, sizeof cell, "\n| `%s` | ", row->key);
            CHECK(strstr(o.text, cell) != NULL);
        }
    }
}

/* Where a name is longer than others. */
TEST(an_empty_file_is_no_model)
{
    CHECK_RUN("echo '# nothing' >none.yaml; $H model describe none.yaml 2>&1; c=$?; rm none.yaml; "
              "exit $c", 2, "headway: none.yaml describes no model: it is empty\n");
    CHECK_RUN("echo hello >none.yaml; $H model describe none.yaml 2>&1; c=$?; rm none.yaml; "
              "exit $c", 2, "headway: none.yaml describes no model: it has no keys, such as "
              "'layers: 12'\n");
}

TEST(models_are_listed_in_columns)
{
    CHECK_RUN("$H model list | awk 'NR == 1 { at = index($0, \"parameters\") + 10 } "
              "/ M / { print index($0, \" M \") + 2 - at }' | sort -u", 0, "0\n");
}

TEST(a_tokenizer_is_not_learned_from_nothing)
{
    CHECK_RUN("$H tokenizer train /dev/null --out none.json --quiet 2>&1; code=$?; "
              "[ ! -e none.json ] && exit $code", 1,
              "headway: /dev/null holds no text to learn from; give files that have some\n");
}

/* The text cannot be read either, and is not reached. */
TEST(a_tokenizer_that_cannot_be_written_is_refused_before_text_is_read)
{
    CHECK_RUN("$H tokenizer train none.txt --out none/tok.json --quiet 2>&1", 1,
              "headway: create none/tok.json: No such file or directory\n");
    CHECK_RUN("$H tokenizer train none.txt --out . --quiet 2>&1", 2,
              "headway: --out . is a folder; name a file, such as ./tokenizer.json\n");
}

TEST(a_pattern_that_no_file_names_is_said_to_be_assumed)
{
    static struct outcome o;
    static const char files[] =
        "mkdir -p assumed && cd assumed && echo '{\"a\":0,\"b\":1,\"ab\":2}' >vocab.json && "
        "echo 'a b' >merges.txt && echo 'YQ== 0' >t.tiktoken; ";
    char line[800];
    snprintf(line, sizeof line, "%s$H tokenizer import --from vocab.json --out o.json 2>&1", files);
    run_shell(&o, line);
    CHECK(o.code == 0 && strstr(o.text, "vocab.json does not say how text is cut into "
                                        "words: gpt2's pattern is assumed"));
    run_shell(&o, "cd assumed; $H tokenizer import --from t.tiktoken --out o.json 2>&1");
    CHECK(o.code == 0 && strstr(o.text, "cl100k's pattern is assumed"));
    run_shell(&o, "cd assumed; for f in vocab.json t.tiktoken; do $H tokenizer import --from $f "
                  "--pattern qwen2 --out o.json 2>&1; done; cd ..; rm -r assumed");
    CHECK(o.code == 0 && !strstr(o.text, "assumed"));
}

/* Every warning that groff knows (-ww) is a fault of the generator. */
TEST(man_pages_are_clean_roff)
{
    static struct outcome o;
    run_shell(&o, "command -v groff >/dev/null && groff -man -Tutf8 </dev/null 2>/dev/null");
    if (o.code != 0)
        skip(); /* only groff can tell */
    run_shell(&o, "$H help man man_test >/dev/null && for f in man_test/*.1; do "
                  "groff -man -ww -Tutf8 $f 2>&1 >/dev/null; done; ls man_test | wc -l; "
                  "rm -r man_test");
    int pages = atoi(o.text);
    CHECK(pages >= 5);
    char expected[16];
    snprintf(expected, sizeof expected, "%d\n", pages);
    CHECK_STR(o.text, expected); /* nothing but the count: no warnings */
}

/* What bash offers after these words, the last of which is being typed. */
static void check_completion(const char *words, int last, const char *expected)
{
    static struct outcome o;
    char line[1024];
    snprintf(line, sizeof line,
             "bash -c 'source <(\"$0\" help completion) && COMP_WORDS=(headway %s) && "
             "COMP_CWORD=%d && _headway && echo \"${COMPREPLY[*]}\"' $H 2>&1",
             words, last);
    run_shell(&o, line);
    CHECK_EQ(o.code, 0);
    CHECK_STR(o.text, expected);
}

TEST(bash_completes_commands_options_choices_and_keys)
{
    static struct outcome o;
    run_shell(&o, "command -v bash");
    if (o.code != 0)
        skip();
    check_completion("conf", 1, "config\n");
    check_completion("config --mark", 2, "--markdown\n");
    check_completion("config --log-level d", 3, "debug\n");
    check_completion("config --set optim.muon_n", 3, "optim.muon_ns_steps=\n");
    check_completion("config lr.sch", 2, "lr.schedule\n");
    check_completion("help comp", 2, "completion\n");
    check_completion("help man --q", 3, "--quiet\n");
    check_completion("--ver", 1, "--version\n");
}

TEST(an_imported_folder_is_a_spec_that_can_be_named)
{
    CHECK_RUN("rm -rf import-test && mkdir -p import-test/hf && "
              "cp " SOURCE_DIR "/tests/vectors/qwen3/* import-test/hf && cd import-test && "
              "$H model import hf --out x.yaml | head -1 | cut -c 1-8 && "
              "$H model describe x.yaml > a && $H model describe hf > b && diff a b && "
              "$H model import hf --out x.yaml 2>&1",
              1, "x.yaml: \nheadway: create x.yaml: File exists\n");
    CHECK_RUN("cd import-test && "
              "sed -i 's/attention_dropout\": 0.0/attention_dropout\": 0.1/' hf/config.json && "
              "$H model import hf 2>&1 >/dev/null", 0,
              "warning: hf/config.json asks for dropout (attention_dropout 0.1); training here has "
              "none, so it is left out\n");
    CHECK_RUN("cd import-test && truncate -s 1000 hf/model.safetensors && "
              "$H model import hf > /dev/null 2>&1", 1, "");
    CHECK_RUN("rm -rf import-test", 0, "");
}

TEST_MAIN(ONE(an_imported_folder_is_a_spec_that_can_be_named),
          ONE(every_command_says_what_it_does_and_has_an_example),
          ONE(every_option_has_a_help_sentence), ONE(help_of_every_command_shows_an_example),
          ONE(mistakes_on_the_command_line_get_one_sentence_and_exit_code_2),
          ONE(options_that_do_not_go_together_are_refused),
          ONE(options_name_options_that_there_are),
          ONE(mistakes_in_a_recipe_name_file_line_and_column),
          ONE(control_characters_in_messages_do_not_reach_the_terminal),
          ONE(a_full_disk_behind_stdout_is_an_error),
          ONE(closed_channels_stay_closed),
          ONE(what_is_no_ordinary_file_is_not_replaced_by_one),
          ONE(overrides_can_be_written_in_three_ways),
          ONE(the_resolved_recipe_is_a_recipe), ONE(config_explains_one_key_a_section_or_all),
          ONE(an_empty_file_is_no_model), ONE(models_are_listed_in_columns),
          ONE(a_tokenizer_is_not_learned_from_nothing),
          ONE(a_tokenizer_that_cannot_be_written_is_refused_before_text_is_read),
          ONE(a_pattern_that_no_file_names_is_said_to_be_assumed), ONE(man_pages_are_clean_roff),
          ONE(bash_completes_commands_options_choices_and_keys))
