/* What `headway diagnose` says will confirm a finding: a shell takes each line as it stands, and
 * the commands in it know every word. Nothing is run: stubs write down how they were called. */
#include "test.h"

#include "cli/command.h"
#include "cli/flags.h"
#include "cli/program.h"
#include "diagnose/plant.h"
#include "diagnose/rule.h"

#include <ctype.h>
#include <stdlib.h>

/* The stubs are all that a line finds. Those that start something else begin it without their own
 * words; headway writes down its words, one a line. */
static const char stubs[] =
    "rm -rf confirm && mkdir -p confirm/bin 'confirm/my run' && cd confirm/bin && "
    "for c in top perf cat tail sleep pgrep numastat; do printf '#!/bin/sh\\n' >$c; done && "
    "printf '#!/bin/sh\\n[ \"$1\" = \"${1#-}\" ] || exit 9\\nshift\\nexec \"$@\"\\n' >ssh && "
    "printf '#!/bin/sh\\n[ \"$1\" = -n ] && shift 2\\n[ \"$1\" = --host ] && shift 2\\n"
    "exec \"$@\"\\n' >mpirun && "
    "printf '#!/bin/sh\\n[ \"$1 $2\" = \"--scope -p\" ] || exit 9\\nshift 3\\nexec \"$@\"\\n' "
    ">systemd-run && "
    "printf '#!/bin/sh\\necho headway\\nfor w in \"$@\"; do echo \"=$w\"; done\\n' >headway && "
    "chmod +x *";

static int prepare(void **state)
{
    (void)state;
    shell(stubs, 0);
    shell("cd confirm && printf 'train: {steps: 10}\\n' >'my run/recipe.yaml'", 0);
    return 0;
}

/* --- headway's own words ------------------------------------------------------------- */

static const struct command *find_command(char **words, int n, int *next)
{
    const struct command *c = NULL;
    const struct command *const *list = commands;
    for (*next = 0; *next < n && list; ++*next) {
        const struct command *const *at = list;
        while (*at && strcmp((*at)->name, words[*next]) != 0)
            at++;
        if (!*at)
            break;
        c = *at;
        list = c->subcommands;
    }
    return c;
}

/* Every flag and setting is one that there is, with a value that it may have. */
static void check_headway(const char *line, char **words, int n)
{
    struct arena a;
    struct common_flags common;
    int next;
    arena_init(&a);
    struct invocation v = { .arena = &a, .path = "headway" };
    v.command = find_command(words, n, &next);
    if (!v.command || !v.command->run)
        fail_msg("%s\nnames no command", line);
    if (flags_parse(&v, &common, n - next, words + next) < 0)
        fail_msg("%s\n%s", line, err_message());
    struct option_group groups[2];
    struct recipe recipe;
    i64 n_groups = 0;
    for (; recipe_tables[n_groups]; n_groups++)
        groups[n_groups] = (struct option_group){ recipe_tables[n_groups], arena_alloc(&a, 16384) };
    recipe_init(&recipe, &a, groups, n_groups);
    if (v.command->takes_set && invocation_override(&v, &recipe) < 0)
        fail_msg("%s\n%s", line, err_message());
    if (v.command->takes_set && strcmp(v.args[0], "confirm/my run/recipe.yaml") != 0)
        fail_msg("%s\nthe recipe is %s", line, v.args[0]);
    arena_fini(&a);
}

static i64 check_calls(const char *line, char *said)
{
    enum { MOST = 64 };
    char *words[MOST];
    i64 calls = 0;
    int n = -1;
    for (char *at = strtok(said, "\n"); at; at = strtok(NULL, "\n")) {
        if (*at == '=') {
            CHECK(n >= 0 && n < MOST);
            words[n++] = at + 1;
            continue;
        }
        CHECK_STR(at, "headway");
        if (n >= 0)
            check_headway(line, words, n);
        n = 0;
        calls++;
    }
    if (n >= 0)
        check_headway(line, words, n);
    return calls;
}

/* --- lines --------------------------------------------------------------------------- */

/* A word in capitals stands for something that one has to know. */
static bool has_placeholder(const char *line)
{
    for (const char *at = line; *at;) {
        const size_t n = strspn(at, "ABCDEFGHIJKLMNOPQRSTUVWXYZ");
        const bool of_more = isalnum((unsigned char)at[n]) || at[n] == '_' ||
                             (at > line && at[-1] == '_');
        if (n > 1 && !of_more)
            return true;
        at += n > 0 ? n : 1;
    }
    return strstr(line, "...") != NULL || strchr(line, '<') != NULL;
}

static void check_line(const struct finding *f)
{
    static struct outcome o;
    char line[FINDING_COMMAND + 64];
    if (!*f->confirm || has_placeholder(f->confirm) || strchr(f->confirm, '\n'))
        fail_msg("%s: %s", f->id, f->confirm);
    snprintf(line, sizeof line, "PATH=$PWD/confirm/bin; %s", f->confirm);
    run_shell(&o, line);
    if (o.code != 0)
        fail_msg("%s: %s\ngave %d: %s", f->id, f->confirm, o.code, o.text);
    const i64 calls = check_calls(f->confirm, o.text);
    CHECK_EQ(calls > 0, strstr(f->confirm, "headway ") != NULL);
}

enum { APART, ON_ONE_HOST, SIMULATED, WAYS };

static void check_planted(const struct planted *p, int way, bool *seen)
{
    static struct findings f;
    struct arena a;
    bool there = false;
    arena_init(&a);
    struct measure *m = usual_run(p->ranks, STEPS, &a);
    p->plant(m, &a);
    for (i64 r = 0; r < m->n_ranks && way == ON_ONE_HOST; r++)
        snprintf(m->ranks[r].host, sizeof m->ranks[r].host, "it; rm -r"); /* a record may say so */
    m->config.simulated = m->config.simulated || way == SIMULATED;
    make_findings(&f, m, p);
    findings_name_run(&f, "confirm/my run", m);
    for (int i = 0; i < f.n; i++) {
        check_line(&f.at[i]);
        there = there || strcmp(f.at[i].id, p->id) == 0;
        for (i64 k = 0, at = 0; rule_families[k]; k++)
            for (const struct rule *r = rule_families[k]; r->look; r++, at++)
                seen[at] = seen[at] || strcmp(r->id, f.at[i].id) == 0;
    }
    if (!there && way == APART)
        fail_msg("%s is not there", p->id);
    arena_fini(&a);
}

TEST(every_rules_command_can_be_pasted_into_a_shell)
{
    bool seen[256] = { false };
    for (int way = 0; way < WAYS; way++)
        for (i64 i = 0; i < COUNT_OF(all); i++)
            check_planted(&all[i], way, seen);
    for (i64 k = 0, at = 0; rule_families[k]; k++)
        for (const struct rule *r = rule_families[k]; r->look; r++, at++)
            if (!seen[at])
                fail_msg("no command of %s was tried", r->id);
}

/* A host's name that is none gets into no command. */
TEST(what_a_record_calls_a_host_is_not_run)
{
    static struct findings f;
    struct arena a;
    arena_init(&a);
    struct measure *m = usual_run(2, STEPS, &a);
    h9(m, &a);
    snprintf(m->ranks[1].host, sizeof m->ranks[1].host, "x; touch confirm/owned");
    findings_make(&f, m, NULL);
    CHECK_STR(f.at[0].id, "H9");
    CHECK(strncmp(f.at[0].confirm, "perf trace -a sleep ", 20) == 0);
    check_line(&f.at[0]);
    shell("[ ! -e confirm/owned ]", 0);
    arena_fini(&a);
}

TEST(placeholders_are_seen)
{
    CHECK(has_placeholder("headway train RECIPE --layout.zero 1") && has_placeholder("top -p PID"));
    CHECK(has_placeholder("headway layout show x --layout.stages A+B+..."));
    CHECK(!has_placeholder("MALLOC_TRIM_THRESHOLD_=4294967296 headway train x/recipe.yaml"));
    CHECK(!has_placeholder("systemd-run --scope -p MemoryMax=16384M headway train x"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ONE(every_rules_command_can_be_pasted_into_a_shell),
        ONE(what_a_record_calls_a_host_is_not_run),
        ONE(placeholders_are_seen),
    };
    return cmocka_run_group_tests(tests, prepare, NULL);
}
