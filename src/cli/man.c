/* Man pages in the classic man macros, which every roff reads. */
#include "cli/help.h"

#include <ctype.h>
#include <string.h>

/* Text for roff: '-' as a real minus, '\' escaped, no line that begins as a request. */
static void add_roff(const char *s, struct text *out)
{
    if (*s == '.' || *s == '\'')
        text_add(out, "\\&");
    for (; *s; s++) {
        if (*s == '-')
            text_add(out, "\\-");
        else if (*s == '\\')
            text_add(out, "\\e");
        else if (*s == '`')
            text_add(out, "\\(cq");
        else if (*s == '\n' && s[1] == '\n')
            text_add(out, "\n.PP"), s++, text_add(out, "\n");
        else
            text_add_bytes(out, s, 1);
    }
}

/* "headway data prepare" is the page headway-data-prepare(1). */
static void add_page_name(const char *path, struct text *out)
{
    for (; *path; path++)
        text_add(out, *path == ' ' ? "\\-" : (char[]){ *path, '\0' });
}

static void add_title(const char *path, const char *summary, struct text *out)
{
    text_add(out, ".TH ");
    for (const char *p = path; *p; p++)
        text_add(out,
                 *p == ' ' ? "\\-" : (char[]){ (char)toupper((unsigned char)*p), '\0' });
    text_printf(out, " 1 \"\" \"headway %s\" \"Headway\"\n.SH NAME\n", HEADWAY_VERSION);
    add_page_name(path, out);
    text_add(out, " \\- ");
    add_roff(summary, out);
    text_add(out, "\n.SH SYNOPSIS\n.B ");
    text_add(out, path);
}

static void add_flag(const char *flag, const char *placeholder, const char *help,
                     const char *facts, struct text *out)
{
    text_add(out, "\n.TP\n.B ");
    add_roff(flag, out);
    if (*placeholder) {
        text_add(out, " \\fI");
        add_roff(placeholder, out);
        text_add(out, "\\fR");
    }
    text_add(out, "\n");
    add_roff(help, out);
    if (*facts) {
        text_add(out, " (");
        add_roff(facts, out);
        text_add(out, ")");
    }
}

static void add_command_list(const struct command *const *list, const char *path,
                             struct text *out)
{
    for (; *list; list++) {
        text_add(out, "\n.TP\n.BR ");
        add_page_name(path, out);
        text_add(out, "\\-");
        add_roff((*list)->name, out);
        text_add(out, " (1)\n");
        add_roff((*list)->summary, out);
    }
}

static void add_examples(const struct example *e, struct text *out)
{
    text_add(out, "\n.SH EXAMPLES");
    for (; e->line; e++) {
        text_add(out, "\n.TP\n.B ");
        add_roff(e->line, out);
        text_add(out, "\n");
        add_roff(e->does, out);
    }
}

static void add_exit_codes(struct text *out)
{
    text_add(out, "\n.SH EXIT STATUS");
    for (const struct exit_meaning *e = exit_meanings; e->meaning; e++) {
        text_printf(out, "\n.TP\n.B %d\n", e->code);
        add_roff(e->meaning, out);
    }
}

static void add_program(struct text *out)
{
    add_title("headway", help_program_summary, out);
    text_add(out, "\n.I COMMAND\n.RI [ arguments ]\n.RI [ options ]\n.SH COMMANDS");
    add_command_list(commands, "headway", out);
    add_exit_codes(out);
    text_add(out, "\n");
}

void help_man(const struct command *c, const char *path, struct text *out)
{
    if (!c) {
        add_program(out);
        return;
    }
    add_title(path, c->summary, out);
    if (c->subcommands)
        text_printf(out, "\n.I %s", c->run ? "[SUBCOMMAND]" : "SUBCOMMAND");
    if (c->arguments) {
        text_add(out, "\n.I ");
        add_roff(c->arguments, out);
    }
    text_add(out, "\n.RI [ options ]");
    if (c->description) {
        text_add(out, "\n.SH DESCRIPTION\n");
        add_roff(c->description, out);
    }
    if (c->subcommands) {
        text_add(out, "\n.SH SUBCOMMANDS");
        add_command_list(c->subcommands, path, out);
    }
    text_add(out, "\n.SH OPTIONS");
    help_each_flag(c, add_flag, out);
    add_examples(c->examples, out);
    add_exit_codes(out);
    text_add(out, "\n");
}
