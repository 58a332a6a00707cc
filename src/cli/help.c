#include "cli/help.h"

#include "base/err.h"
#include "cli/flags.h"

#include <string.h>

enum { WIDTH = 80, INDENT = 26 };

const char help_program_summary[] =
    "trains language models, and explains every second of it";

const struct exit_meaning exit_meanings[] = {
    { EXIT_OK, "Success." },
    { EXIT_FAILED, "Failure: a file, memory, the system, or numbers that went wrong." },
    { EXIT_BAD_USAGE, "The command line or a recipe is wrong; nothing was done." },
    { EXIT_REQUEUE, "Stopped by a signal after saving: run again with --resume." },
    { EXIT_HANG, "Ranks waited for one that did not come; the message names it." },
    { EXIT_PEER_LOST, "Another rank died or failed; the message names it." },
    { 0, NULL },
};

const char *help_placeholder(const struct option *o)
{
    switch (o->type) {
    case OPTION_BOOL: return "";
    case OPTION_CHOICE: return o->choices;
    case OPTION_INT: return "N";
    case OPTION_FLOAT: return "X";
    case OPTION_SIZE: return "SIZE";
    case OPTION_DURATION: return "TIME";
    case OPTION_PATH: return "PATH";
    case OPTION_STRINGS: return "A,B";
    case OPTION_INTS:
    case OPTION_FLOATS: return "X,Y";
    case OPTION_NODE: return "YAML";
    default: return "TEXT";
    }
}

void help_facts(const struct option *o, struct text *out)
{
    bool common_bool =
        o->type == OPTION_BOOL && o->default_text && strcmp(o->default_text, "no") == 0;
    struct text range = { 0 };
    option_range(o, &range);
    if (o->default_text && !common_bool)
        text_printf(out, "default %s", o->default_text);
    if (o->default_text && !common_bool && o->unit && o->type != OPTION_DURATION)
        text_printf(out, " %s", o->unit);
    if (range.length)
        text_printf(out, "%s%s", out->length ? ", " : "", range.data);
    text_fini(&range);
}

static void each_row(const struct option *table, help_flag add, struct text *out)
{
    for (const struct option *o = table; o && o->key; o++) {
        char flag[64];
        struct text facts = { 0 };
        flag_name(o, flag);
        help_facts(o, &facts);
        add(flag, help_placeholder(o), o->help, facts.data ? facts.data : "", out);
        text_fini(&facts);
    }
}

void help_each_flag(const struct command *c, help_flag add, struct text *out)
{
    each_row(c->options, add, out);
    if (c->takes_set)
        add("--set", "KEY=VALUE",
            "Replace a key of the recipe; may be repeated. --train.steps=9 is short for "
            "--set train.steps=9. `headway config` lists every key.",
            "", out);
    each_row(common_options, add, out);
}

static void add_flag(const char *flag, const char *placeholder, const char *help,
                     const char *facts, struct text *out)
{
    i64 begin = out->length;
    text_printf(out, "  %s%s%s", flag, *placeholder ? " " : "", placeholder);
    i64 used = out->length - begin;
    if (used + 2 > INDENT) {
        text_add(out, "\n");
        used = 0;
    }
    text_repeat(out, ' ', INDENT - used);
    struct text words = { 0 };
    text_add(&words, help);
    if (*facts)
        text_printf(&words, " (%s)", facts);
    text_wrap(out, words.data, INDENT, INDENT, WIDTH);
    text_add(out, "\n");
    text_fini(&words);
}

static void add_command_list(const struct command *const *list, struct text *out)
{
    for (; *list; list++)
        add_flag((*list)->name, "", (*list)->summary, "", out);
}

static void add_paragraphs(const char *text, struct text *out)
{
    while (*text) {
        const char *end = strstr(text, "\n\n");
        struct text paragraph = { 0 };
        text_add_bytes(&paragraph, text, end ? end - text : (i64)strlen(text));
        text_wrap(out, paragraph.data, 0, 0, WIDTH);
        text_add(out, "\n");
        text_fini(&paragraph);
        if (!end)
            return;
        text_add(out, "\n");
        text = end + 2;
    }
}

static void add_examples(const struct example *e, struct text *out)
{
    text_add(out, "\nExamples:\n");
    for (; e->line; e++) {
        text_printf(out, "  %s\n      ", e->line);
        text_wrap(out, e->does, 6, 6, WIDTH);
        text_add(out, "\n");
    }
}

void help_program(struct text *out)
{
    text_printf(out, "headway - %s\n\n", help_program_summary);
    text_add(out, "Usage: headway COMMAND [arguments] [options]\n\nCommands:\n");
    add_command_list(commands, out);
    text_add(out, "\nEvery command explains itself: headway COMMAND --help\n"
                  "The version: headway --version\n\n"
                  "Example:\n  headway config train.steps\n"
                  "      What the recipe key train.steps means.\n");
}

void help_command(const struct command *c, const char *path, struct text *out)
{
    text_printf(out, "%s - %s\n\nUsage: %s", path, c->summary, path);
    if (c->subcommands)
        text_add(out, c->run ? " [SUBCOMMAND]" : " SUBCOMMAND");
    text_printf(out, "%s%s [options]\n", c->arguments ? " " : "",
                c->arguments ? c->arguments : "");
    if (c->description) {
        text_add(out, "\n");
        add_paragraphs(c->description, out);
    }
    if (c->subcommands) {
        text_add(out, "\nSubcommands:\n");
        add_command_list(c->subcommands, out);
    }
    text_add(out, "\nOptions:\n");
    help_each_flag(c, add_flag, out);
    if (c->more)
        c->more(out);
    add_examples(c->examples, out);
}
