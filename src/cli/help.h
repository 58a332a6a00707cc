/* cli/help.h - help texts, man pages and shell completion, all from the command rows. */
#ifndef HEADWAY_HELP_H
#define HEADWAY_HELP_H

#include "base/text.h"
#include "cli/command.h"

/* `headway --help`. */
void help_program(struct text *out);
/* `headway data prepare --help`; path is "headway data prepare". */
void help_command(const struct command *c, const char *path, struct text *out);

/* groff source of a man page; c NULL: of the program itself. */
void help_man(const struct command *c, const char *path, struct text *out);
/* A bash script that defines the completion of `headway`. */
void help_completion(struct text *out);

/* Calls add for every flag that the command takes: its own, --set, the common ones.
 * placeholder stands for the value ("N", "TIME", "adamw|muon"; "" for true or false);
 * facts are "default 90s, at least 1s", or "". */
typedef void (*help_flag)(const char *flag, const char *placeholder, const char *help,
                          const char *facts, struct text *out);
void help_each_flag(const struct command *c, help_flag add, struct text *out);

/* The two texts above, of one row. */
void help_facts(const struct option *o, struct text *out);
const char *help_placeholder(const struct option *o);

extern const char help_program_summary[];

struct exit_meaning {
    int code;
    const char *meaning;
};
extern const struct exit_meaning exit_meanings[]; /* ends with meaning NULL */

#endif
