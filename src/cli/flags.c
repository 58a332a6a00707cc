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
    bool *given; /* by row of the command's options */
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
    if (target == v->options)
        w->given[o - v->command->options] = true;
    if (o->type == OPTION_STRINGS)
        value = behind_earlier(o, target, value, v->arena);
    int rc = option_set(o, target, value, flag, v->arena);
    return rc == ERR_CONFIG ? ERR_USAGE : rc;
}

/* --- options that go together, or do not --------------------------------------------- */

/* Whether the option has another value than its default, or this one. */
static bool is_on(const struct invocation *v, const struct option *o, const char *value)
{
    void *defaults = arena_alloc(v->arena, (i64)v->command->options_bytes);
    struct text now = { 0 }, then = { 0 };
    option_set_defaults(v->command->options, defaults, v->arena);
    option_format(o, v->options, &now);
    option_format(o, defaults, &then);
    const char *is = now.data ? now.data : "", *was = then.data ? then.data : "";
    const bool on = value ? strcmp(is, value) == 0 : strcmp(is, was) != 0;
    text_fini(&now);
    text_fini(&then);
    return on;
}

/* As it is typed: "--clock virtual" of "clock=virtual". */
static void add_typed(struct text *out, const struct option *o, const char *value)
{
    char flag[64];
    flag_name(o, flag);
    text_printf(out, "%s%s%s", flag, value ? " " : "", value ? value : "");
}

static void add_as_it_is(struct text *out, const struct invocation *v, const struct option *o)
{
    add_typed(out, o, NULL);
    if (o->type == OPTION_CHOICE) {
        text_add(out, " ");
        option_format(o, v->options, out);
    }
}

/* The first of the list, "live|clock=virtual", that is on; NULL: none is. all: every one up to it
 * as it is typed, with "or"; typed: that one as it is. */
static const struct option *first_on(const struct invocation *v, const char *list,
                                     struct text *all, struct text *typed)
{
    const struct option *found = NULL;
    for (const char *at = list; at && *at && !found; at += *at == '|') {
        const char *end = at + strcspn(at, "|");
        char *key = arena_strndup(v->arena, at, end - at), *value = strchr(key, '=');
        if (value)
            *value++ = '\0';
        const struct option *o = option_find(v->command->options, key);
        at = end;
        if (!o)
            continue;
        text_add(all, all->length > 0 ? " or " : "");
        add_typed(all, o, value);
        if (!is_on(v, o, value))
            continue;
        found = o;
        add_as_it_is(typed, v, o);
    }
    return found;
}

static int check_option(const struct invocation *v, const struct option *o)
{
    struct text needed = { 0 }, other = { 0 }, own = { 0 };
    int rc = OK;
    add_typed(&own, o, NULL);
    if (o->needs && !first_on(v, o->needs, &needed, &other))
        rc = err_set(ERR_USAGE, "%s has an effect only beside %s: give that, or leave %s out",
                     own.data, needed.data, own.data);
    if (rc == OK && o->excludes && is_on(v, o, NULL)) {
        text_clear(&own);
        text_clear(&other);
        add_as_it_is(&own, v, o);
        if (first_on(v, o->excludes, &needed, &other))
            rc = err_set(ERR_USAGE, "%s and %s do not go together: leave one of them out",
                         own.data, other.data);
    }
    text_fini(&needed);
    text_fini(&other);
    text_fini(&own);
    return rc;
}

static int check_together(const struct invocation *v, const bool *given)
{
    const struct option *table = v->command->options;
    for (i64 i = 0; table && table[i].key; i++)
        if (given[i])
            TRY(check_option(v, &table[i]));
    return OK;
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
    struct words w = { words, n_words, 0, NULL };
    i64 rows = 0;
    for (const struct option *o = v->command->options; o && o->key; o++)
        rows++;
    w.given = ARENA_ARRAY(v->arena, bool, rows + 1);
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
    if (common->help)
        return OK;
    TRY(check_together(v, w.given));
    return check_count(v);
}
