#include "base/err.h"
#include "base/sys.h"
#include "cli/command.h"
#include "cli/help.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

static const struct command *find(const struct command *const *list, const char *name)
{
    for (; list && *list; list++)
        if (strcmp((*list)->name, name) == 0)
            return *list;
    return NULL;
}

static int run_help(struct invocation *v)
{
    const struct command *const *list = commands;
    const struct command *c = NULL;
    const char *path = "headway";
    struct text out = { 0 };
    for (int i = 0; i < v->n_args; i++) {
        c = find(list, v->args[i]);
        if (!c)
            return err_set(ERR_USAGE,
                           "there is no command '%s %.40s'; see headway --help", path,
                           v->args[i]);
        path = arena_printf(v->arena, "%s %s", path, c->name);
        list = c->subcommands;
    }
    if (c)
        help_command(c, path, &out);
    else
        help_program(&out);
    fputs(out.data, stdout);
    text_fini(&out);
    return OK;
}

/* --- man pages ------------------------------------------------------------------- */

static int write_page(const char *dir, const struct command *c, const char *path,
                      struct arena *a)
{
    struct text page = { 0 };
    char *name = arena_strdup(a, path);
    for (char *p = name; *p; p++)
        if (*p == ' ')
            *p = '-';
    const char *file = arena_printf(a, "%s/%s.1", dir, name);
    help_man(c, path, &page);
    int fd = sys_open(file, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    int rc = OK;
    if (fd < 0 || sys_write_full(fd, page.data, page.length) != 0)
        rc = err_set(ERR_SYS, "write %s: %s", file, strerror(errno));
    if (fd >= 0 && sys_close(fd) != 0 && rc == OK)
        rc = err_set(ERR_SYS, "close %s: %s", file, strerror(errno));
    text_fini(&page);
    if (rc == OK)
        printf("%s\n", file);
    return rc;
}

static int write_pages(const char *dir, const struct command *const *list,
                       const char *path, struct arena *a)
{
    for (; list && *list; list++) {
        const char *below = arena_printf(a, "%s %s", path, (*list)->name);
        TRY(write_page(dir, *list, below, a));
        TRY(write_pages(dir, (*list)->subcommands, below, a));
    }
    return OK;
}

static int run_man(struct invocation *v)
{
    const char *dir = v->args[0];
    if (sys_mkdirs(dir) != 0)
        return err_set(ERR_SYS, "create folder %s: %s", dir, strerror(errno));
    TRY(write_page(dir, NULL, "headway", v->arena));
    return write_pages(dir, commands, "headway", v->arena);
}

static const struct command cmd_help_man = {
    .name = "man",
    .summary = "Write a man page for every command",
    .arguments = "DIR",
    .description =
        "Writes headway.1, headway-config.1 and so on into the folder, which is "
        "created if needed, and prints their names.",
    .min_args = 1,
    .max_args = 1,
    .examples = (const struct example[]){ { "headway help man ~/.local/share/man/man1",
                                            "After this, `man headway` works." },
                                          { 0 } },
    .run = run_man,
};

/* --- completion ------------------------------------------------------------------ */

static int run_completion(struct invocation *v)
{
    (void)v;
    struct text out = { 0 };
    help_completion(&out);
    fputs(out.data, stdout);
    text_fini(&out);
    return OK;
}

static const struct command cmd_help_completion = {
    .name = "completion",
    .summary = "Print a bash completion script",
    .description =
        "Completes commands, options, their choices, and recipe keys after --set.",
    .examples =
        (const struct example[]){
            { "source <(headway help completion)", "Completion in this shell." },
            { "headway help completion > "
              "~/.local/share/bash-completion/completions/headway",
              "Completion in every new shell." },
            { 0 } },
    .run = run_completion,
};

const struct command cmd_help = {
    .name = "help",
    .summary = "Explain a command; make man pages and shell completion",
    .arguments = "[COMMAND...]",
    .max_args = 2,
    .argument_words = ARGUMENT_COMMANDS,
    .examples =
        (const struct example[]){
            { "headway help config", "The same as headway config --help." }, { 0 } },
    .subcommands =
        (const struct command *const[]){ &cmd_help_man, &cmd_help_completion, NULL },
    .run = run_help,
};
