/* cli/flags.h - command-line words into an invocation, by the command's option table.
 *
 * --key value, --key=value; for true-or-false options --key, --no-key, --key=no;
 * --set k=v as often as needed, --section.key=v for short; "--" ends options; "-" alone
 * is an argument. Options and arguments may be mixed. */
#ifndef HEADWAY_FLAGS_H
#define HEADWAY_FLAGS_H

#include "cli/command.h"

/* What every command takes. */
struct common_flags {
    bool help, quiet;
    int log_level; /* enum log_level */
};
extern const struct option common_options[];

/* Words are those after the command's name. v->command, path and arena are set. */
int flags_parse(struct invocation *v, struct common_flags *common, int n_words,
                char *const *words);

/* "--max-time" for "max_time". */
void flag_name(const struct option *o, char out[64]);

#endif
