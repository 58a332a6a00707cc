#include "cli/cli.h"

#include "base/err.h"
#include "base/log.h"
#include "base/sys.h"
#include "base/text.h"
#include "cli/command.h"
#include "cli/flags.h"
#include "cli/help.h"
#include "cli/terminal.h"
#include "comm/world.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

int invocation_override(const struct invocation *v, struct recipe *r)
{
    for (int i = 0; i < v->n_sets; i++)
        TRY(recipe_override(r, v->sets[i]));
    return OK;
}

static const struct command *find_command(const struct command *const *list,
                                          const char *name)
{
    for (; list && *list; list++)
        if (strcmp((*list)->name, name) == 0)
            return *list;
    return NULL;
}

static int unknown_command(const struct command *const *list, const char *path,
                           const char *word)
{
    struct nearest nearest = { .typed = word };
    for (; *list; list++)
        nearest_offer(&nearest, (*list)->name);
    const char *found = nearest_found(&nearest);
    return err_set(ERR_USAGE, "unknown command '%s %.40s'%s%s%s; see %s --help", path,
                   word, found ? "; did you mean '" : "", found ? found : "",
                   found ? "'?" : "", path);
}

/* Goes down subcommands as far as words name them. */
static int find_invocation(struct invocation *v, int argc, char **argv, int *next)
{
    const struct command *const *list = commands;
    v->path = "headway";
    *next = 1;
    while (list && *next < argc) {
        const char *word = argv[*next];
        const struct command *c = find_command(list, word);
        if (!c && v->command && (v->command->run || *word == '-'))
            break;
        if (!c)
            return unknown_command(list, v->path, word);
        v->command = c;
        v->path = arena_printf(v->arena, "%s %s", v->path, c->name);
        list = c->subcommands;
        ++*next;
    }
    return OK;
}

static int run_command(struct invocation *v, int n_words, char **words)
{
    struct common_flags common;
    int rc = flags_parse(v, &common, n_words, words);
    v->absent = rc < 0 && v->command->joins_ranks;
    TRY(rc);
    if (common.help) {
        struct text out = { 0 };
        help_command(v->command, v->path, &out);
        fputs(out.data, stdout);
        text_fini(&out);
        return OK;
    }
    if (!v->command->run)
        return err_set(ERR_USAGE, "%s needs a subcommand; see %s --help", v->path,
                       v->path);
    v->terminal->quiet = common.quiet;
    enum log_level least = (enum log_level)common.log_level;
    if (common.quiet && least < LOG_WARN)
        least = LOG_WARN;
    log_add_sink(terminal_log, v->terminal, least);
    rc = v->command->run(v);
    log_remove_sink(terminal_log, v->terminal);
    return rc;
}

static bool is_one_of(const char *word, const char *a, const char *b)
{
    return strcmp(word, a) == 0 || strcmp(word, b) == 0;
}

static int run_program(struct invocation *v, int argc, char **argv)
{
    int next;
    if (argc < 2 || is_one_of(argv[1], "--help", "-h")) {
        struct text out = { 0 };
        help_program(&out);
        fputs(out.data, stdout);
        text_fini(&out);
        return OK;
    }
    if (is_one_of(argv[1], "--version", "-V")) {
        printf("headway %s\n", HEADWAY_VERSION);
        return OK;
    }
    TRY(find_invocation(v, argc, argv, &next));
    return run_command(v, argc - next, argv + next);
}

static int tell_unwritten(void)
{
    const bool closed = sys_write(fileno(stdout), "", 0) < 0 && errno == EBADF;
    return err_set(ERR_SYS, closed ? "standard output is closed"
                                   : "writing to standard output failed; is the disk full?");
}

int cli_run(int argc, char **argv, FILE *messages)
{
    struct arena arena;
    struct terminal terminal;
    arena_init(&arena);
    terminal_init(&terminal, messages);
    struct invocation v = { .arena = &arena, .terminal = &terminal };
    int rc = run_program(&v, argc, argv);
    if ((fflush(stdout) != 0 || ferror(stdout)) && rc >= 0)
        rc = tell_unwritten();
    if (rc < 0 && !terminal.follows) {
        struct text line = { 0 };
        text_printf(&line, "headway: %s", err_message());
        terminal_status(&terminal, NULL);
        terminal_line(&terminal, line.data);
        text_fini(&line);
    }
    if (v.absent)
        comm_world_refuse(rc);
    terminal_fini(&terminal);
    arena_fini(&arena);
    return err_exit_code(rc);
}
