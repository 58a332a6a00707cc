/* cli/command.h - a subcommand is one row of data and one function.
 *
 * To add a command: write src/cli/cmd_NAME.c with a `const struct command cmd_NAME`, add
 * it to the list in commands.c. Its --help, man page and shell completion are made from
 * the row; flags come from an option table (base/option.h): key "max_time" is the flag
 * --max-time. Every command has at least one example; a test checks it.
 *
 * run() gets parsed and checked input and returns OK or an error code whose message was
 * recorded; the message is printed by the caller. Results go to stdout with printf,
 * messages to log_line, progress to cli/progress.h. */
#ifndef HEADWAY_COMMAND_H
#define HEADWAY_COMMAND_H

#include "base/arena.h"
#include "base/option.h"
#include "base/recipe.h"

struct terminal;
struct text;

struct example {
    const char *line; /* "headway train recipes/tiny.yaml" */
    const char *does; /* a sentence */
};

/* What shell completion offers for an argument. */
enum argument_words { ARGUMENT_PATHS, ARGUMENT_RECIPE_KEYS, ARGUMENT_COMMANDS };

struct invocation;

struct command {
    const char *name;
    const char *summary;          /* one line without a full stop */
    const char *arguments;        /* "RECIPE.yaml [KEY]"; NULL: none */
    const char *description;      /* paragraphs, separated by "\n\n" */
    const struct option *options; /* may be NULL */
    size_t options_bytes;         /* size of the struct that they are bound to */
    int min_args, max_args;       /* positional arguments; max -1: any number */
    enum argument_words argument_words;
    bool joins_ranks;               /* may be one rank of several that a launcher started */
    bool takes_set;               /* --set key=value, and --section.key=value for short */
    void (*more)(struct text *out); /* adds what --help says besides; may be NULL */
    const struct example *examples; /* ends with an empty row */
    const struct command *const *subcommands; /* ends with NULL; may be NULL */
    int (*run)(struct invocation *v);         /* NULL: a subcommand is required */
};

struct invocation {
    const struct command *command;
    const char *path; /* "headway data prepare" */
    struct arena *arena;
    struct terminal *terminal;
    bool absent;   /* a rank that others wait for, refused before it joined them */
    void *options; /* the bound struct, defaults set, flags applied */
    const char **args;
    int n_args;
    const char **sets; /* "key=value", in order */
    int n_sets;
};

/* Every command, ends with NULL; and every table of recipe keys, ends with NULL. */
extern const struct command *const commands[];
extern const struct option *const recipe_tables[];

/* Applies the invocation's --set to a recipe. */
int invocation_override(const struct invocation *v, struct recipe *r);

#endif
