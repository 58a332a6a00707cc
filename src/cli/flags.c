#include "cli/flags.h"

#include "base/err.h"
#include "base/log.h"
#include "base/text.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

const struct option common_options[] = {
    { "help", OPTION_FIELD(BOOL, struct common_flags, help), "no",
      .help = "Show this help and stop." },
    { "quiet", OPTION_FIELD(BOOL, struct common_flags, quiet), "no",
      .help = "No progress, and only warnings and errors as messages." },
    { "log_level", OPTION_FIELD(CHOICE, struct common_flags, log_level), "info",
      .choices = "debug|info|warn|error", .help = "Least important messages to show." },
    { 0 },
};

void flag_name(const struct option *o, char out[64])
{
    i64 n = snprintf(out, 64, "--%s", o->key);
    for (i64 i = 0; i < n && i < 63; i++)
        if (out[i] == '_')
            out[i] = '-';
}

struct words {
    char *const *at;
    int count, next;
};

/* "--no-x=y" split: the name without dashes, '-' as '_'; value NULL when there is no '='.
 */
static const char *split_flag(const char *word, const char **value, struct arena *a)
{
    const char *equals = strchr(word, '=');
    char *name =
        arena_strndup(a, word + 2, equals ? equals - word - 2 : (i64)strlen(word) - 2);
    for (char *p = name; *p; p++)
        if (*p == '-')
            *p = '_';
    *value = equals ? equals + 1 : NULL;
    return name;
}

static const struct option *find_flag(const struct invocation *v,
                                      struct common_flags *common, const char *name,
                                      void **target)
{
    const struct option *o =
        v->command->options ? option_find(v->command->options, name) : NULL;
    *target = v->options;
    if (!o) {
        o = option_find(common_options, name);
        *target = common;
    }
    return o;
}

static void offer_flags(struct nearest *nearest, const struct option *table)
{
    for (const struct option *o = table; o && o->key; o++)
        nearest_offer(nearest, o->key);
}

static int unknown_flag(const struct invocation *v, const char *word, const char *name)
{
    struct nearest nearest = { .typed = name };
    offer_flags(&nearest, v->command->options);
    offer_flags(&nearest, common_options);
    const char *found = nearest_found(&nearest);
    char flag[64] = "";
    if (found)
        flag_name(&(struct option){ .key = found }, flag);
    return err_set(ERR_USAGE, "unknown option %.*s%s%s%s; see %s --help",
                   (int)strcspn(word, "="), word, found ? "; did you mean " : "", flag,
                   found ? "?" : "", v->path);
}

static void add_set(struct invocation *v, const char *assignment)
{
    v->sets[v->n_sets++] = assignment;
}

static int next_value(struct words *w, const char *word, const char **value)
{
    if (*value)
        return OK;
    if (w->next == w->count)
        return err_set(ERR_USAGE, "%s needs a value", word);
    *value = w->at[w->next++];
    return OK;
}

/* A flag that takes a list may be repeated. */
static const char *behind_earlier(const struct option *o, const void *target, const char *value,
                                  struct arena *a)
{
    const struct option_strings *earlier = OPTION_AT_CONST(struct option_strings, o, target);
    for (i64 i = earlier->count - 1; i >= 0 && !o->default_text; i--)
        value = arena_printf(a, "%s,%s", earlier->at[i], value);
    return value;
}

static int parse_flag(struct invocation *v, struct common_flags *common, struct words *w)
{
    const char *word = w->at[w->next++], *value;
    const char *name = split_flag(word, &value, v->arena);
    void *target;
    if (v->command->takes_set && strcmp(name, "set") == 0) {
        TRY(next_value(w, word, &value));
        add_set(v, value);
        return OK;
    }
    if (v->command->takes_set && strchr(name, '.')) {
        TRY(next_value(w, word, &value));
        add_set(v, arena_printf(v->arena, "%s=%s", name, value));
        return OK;
    }
    const struct option *o = find_flag(v, common, name, &target);
    if (!o && strncmp(name, "no_", 3) == 0 && !value) {
        o = find_flag(v, common, name + 3, &target);
        if (o && o->type == OPTION_BOOL)
            value = "no";
        else
            o = NULL;
    }
    if (!o)
        return unknown_flag(v, word, name);
    if (o->type == OPTION_BOOL && !value)
        value = "yes";
    TRY(next_value(w, word, &value));
    char flag[64];
    flag_name(o, flag);
    if (o->type == OPTION_STRINGS)
        value = behind_earlier(o, target, value, v->arena);
    int rc = option_set(o, target, value, flag, v->arena);
    return rc == ERR_CONFIG ? ERR_USAGE : rc;
}

static int check_count(const struct invocation *v)
{
    const struct command *c = v->command;
    if (v->n_args < c->min_args)
        return err_set(ERR_USAGE, "an argument is missing: %s %s; see %s --help", v->path,
                       c->arguments, v->path);
    if (c->max_args >= 0 && v->n_args > c->max_args)
        return err_set(ERR_USAGE, "unexpected argument '%.60s'; see %s --help",
                       v->args[c->max_args], v->path);
    return OK;
}

int flags_parse(struct invocation *v, struct common_flags *common, int n_words,
                char *const *words)
{
    struct words w = { words, n_words, 0 };
    v->args = ARENA_ARRAY(v->arena, const char *, n_words + 1);
    v->sets = ARENA_ARRAY(v->arena, const char *, n_words + 1);
    v->options = arena_alloc(v->arena, (i64)v->command->options_bytes);
    option_set_defaults(common_options, common, v->arena);
    if (v->command->options)
        option_set_defaults(v->command->options, v->options, v->arena);
    bool options_end = false;
    while (w.next < w.count) {
        const char *word = w.at[w.next];
        if (options_end || word[0] != '-' || !word[1] ||
            isdigit((unsigned char)word[1])) {
            v->args[v->n_args++] = word;
            w.next++;
        } else if (strcmp(word, "--") == 0) {
            options_end = true;
            w.next++;
        } else if (strcmp(word, "-h") == 0) {
            common->help = true;
            w.next++;
        } else if (word[1] != '-') {
            return unknown_flag(v, word, word + 1);
        } else {
            TRY(parse_flag(v, common, &w));
        }
    }
    return common->help ? OK : check_count(v);
}
