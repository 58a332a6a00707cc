/* Bash completion. The script is one table, "path of words|kind|words to offer", and a
 * fixed function that reads it: what depends on commands is data only. */
#include "cli/flags.h"
#include "cli/help.h"

#include <stdio.h>
#include <string.h>

static const char *const frame =
    "_headway() {\n"
    "    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]}\n"
    "    local path=headway word i\n"
    "    COMPREPLY=()\n"
    "    for ((i = 1; i < COMP_CWORD; i++)); do\n"
    "        word=${COMP_WORDS[i]}\n"
    "        [[ -n ${_headway_flags[$path $word]+x} ]] && path=\"$path $word\"\n"
    "    done\n"
    "    if [[ $current == = ]]; then current=; fi\n"
    "    if [[ $previous == = ]]; then previous=${COMP_WORDS[COMP_CWORD-2]}; fi\n"
    "    if [[ -n ${_headway_values[$path $previous]+x} ]]; then\n"
    "        word=${_headway_values[$path $previous]}\n"
    "        if [[ $word == @path ]]; then\n"
    "            compopt -o default 2>/dev/null\n"
    "        else\n"
    "            mapfile -t COMPREPLY < <(compgen -W \"${word//|/ }\" -- \"$current\")\n"
    "            [[ $previous == --set ]] && compopt -o nospace 2>/dev/null\n"
    "        fi\n"
    "    elif [[ $current == -* ]]; then\n"
    "        mapfile -t COMPREPLY < <(compgen -W \"${_headway_flags[$path]}\" -- "
    "\"$current\")\n"
    "    else\n"
    "        mapfile -t COMPREPLY < <(compgen -W \"${_headway_words[$path]}\" -- "
    "\"$current\")\n"
    "        [[ ${#COMPREPLY[@]} -eq 0 ]] && compopt -o default 2>/dev/null\n"
    "    fi\n"
    "    return 0\n"
    "}\n"
    "complete -F _headway headway\n";

static void add_flag_names(const struct option *table, struct text *out)
{
    for (const struct option *o = table; o && o->key; o++) {
        char flag[64];
        flag_name(o, flag);
        text_printf(out, " %s", flag);
    }
}

static void add_flag_values(const struct option *table, const char *path,
                            struct text *out)
{
    for (const struct option *o = table; o && o->key; o++) {
        char flag[64];
        flag_name(o, flag);
        const char *offer = o->type == OPTION_PATH ? "@path" : help_placeholder(o);
        if (o->type == OPTION_BOOL)
            continue;
        if (o->type != OPTION_PATH && o->type != OPTION_CHOICE)
            offer = ""; /* a value is expected, nothing to offer */
        text_printf(out, "_headway_values[%s %s]='%s'\n", path, flag, offer);
    }
}

static void add_recipe_keys(const char *after, struct text *out)
{
    for (const struct option *const *table = recipe_tables; *table; table++)
        for (const struct option *o = *table; o->key; o++)
            text_printf(out, " %s%s", o->key, after);
}

static void add_names(const struct command *const *list, struct text *out)
{
    for (; list && *list; list++)
        text_printf(out, " %s", (*list)->name);
}

/* Commands are nested two deep, never more. */
static void add_command(const struct command *c, const char *path, struct text *out)
{
    text_printf(out, "_headway_flags[%s]='", path);
    add_flag_names(c->options, out);
    add_flag_names(common_options, out);
    text_printf(out, "%s'\n_headway_words[%s]='", c->takes_set ? " --set" : "", path);
    add_names(c->subcommands, out);
    if (c->argument_words == ARGUMENT_RECIPE_KEYS)
        add_recipe_keys("", out);
    if (c->argument_words == ARGUMENT_COMMANDS)
        add_names(commands, out);
    text_add(out, "'\n");
    add_flag_values(c->options, path, out);
    add_flag_values(common_options, path, out);
    if (c->takes_set) {
        text_printf(out, "_headway_values[%s --set]='", path);
        add_recipe_keys("=", out);
        text_add(out, "'\n");
    }
    for (const struct command *const *sub = c->subcommands; sub && *sub; sub++) {
        char below[128];
        snprintf(below, sizeof below, "%s %s", path, (*sub)->name);
        add_command(*sub, below, out);
    }
}

void help_completion(struct text *out)
{
    text_add(out,
             "# bash completion for headway; made by `headway help completion`\n"
             "declare -gA _headway_flags=() _headway_words=() _headway_values=()\n"
             "_headway_flags[headway]='--help --version'\n_headway_words[headway]='");
    add_names(commands, out);
    text_add(out, "'\n");
    for (const struct command *const *c = commands; *c; c++) {
        char path[64];
        snprintf(path, sizeof path, "headway %s", (*c)->name);
        add_command(*c, path, out);
    }
    text_add(out, frame);
}
