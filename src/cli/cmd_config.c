/* The reference of every recipe key, and what a recipe resolves to. */
#include "base/err.h"
#include "base/text.h"
#include "cli/command.h"
#include "cli/help.h"
#include "parallel/layout.h"
#include "train/train_config.h"

#include <stdio.h>
#include <string.h>

struct config_options {
    const char *recipe;
    bool markdown, yaml;
};

static const struct option options[] = {
    { "recipe", OPTION_FIELD(PATH, struct config_options, recipe), NULL,
      .help = "Read this recipe, and show what every key is and who set it." },
    { "markdown", OPTION_FIELD(BOOL, struct config_options, markdown), "no",
      .help = "Print the reference as Markdown tables." },
    { "yaml", OPTION_FIELD(BOOL, struct config_options, yaml), "no",
      .help = "Print a complete recipe with every key, which headway reads back." },
    { 0 },
};

/* "train" of "train.steps". */
static int section_length(const char *key)
{
    return (int)strcspn(key, ".");
}

static bool selected(const struct option *o, const char *wanted)
{
    if (!wanted || strcmp(o->key, wanted) == 0)
        return true;
    size_t n = strlen(wanted);
    return strncmp(o->key, wanted, n) == 0 && o->key[n] == '.';
}

static void add_markdown_cell(const char *s, struct text *out)
{
    for (; *s; s++) {
        if (*s == '|')
            text_add(out, "\\");
        text_add_bytes(out, s, 1);
    }
}

static void add_markdown_row(const struct option *o, bool new_section, struct text *out)
{
    struct text range = { 0 };
    if (new_section)
        text_printf(out,
                    "\n## %.*s\n\n| key | type | default | unit | range | meaning |\n"
                    "|---|---|---|---|---|---|\n",
                    section_length(o->key), o->key);
    option_range(o, &range);
    text_printf(out, "| `%s` | ", o->key);
    add_markdown_cell(o->choices ? o->choices : option_type_name(o->type), out);
    text_printf(out, " | %s | %s | %s | ", o->default_text ? o->default_text : "",
                o->unit ? o->unit : "", range.data ? range.data : "");
    add_markdown_cell(o->help, out);
    text_add(out, " |\n");
    text_fini(&range);
}

static void add_row(const struct recipe *r, const struct option *o, bool new_section,
                    struct text *out)
{
    enum { WIDTH = 80 };
    struct text facts = { 0 };
    void *target;
    const char *where = recipe_where(r, o->key);
    recipe_find(r, o->key, &target);
    if (new_section)
        text_printf(out, "%s%.*s\n", out->length ? "\n" : "", section_length(o->key),
                    o->key);
    help_facts(o, &facts);
    text_printf(out, "  %s: %s", o->key,
                o->choices ? o->choices : option_type_name(o->type));
    text_printf(out, "%s%s\n      ", facts.length ? ", " : "",
                facts.length ? facts.data : "");
    text_wrap(out, o->help, 6, 6, WIDTH);
    text_add(out, "\n");
    if (where) {
        text_add(out, "      is ");
        option_format(o, target, out);
        text_printf(out, "   (%s)\n", where);
    }
    text_fini(&facts);
}

static int print_reference(const struct recipe *r, const char *wanted, bool markdown)
{
    struct text out = { 0 };
    const char *last = "";
    for (i64 g = 0; g < r->n_groups; g++) {
        for (const struct option *o = r->groups[g].table; o->key; o++) {
            if (!selected(o, wanted))
                continue;
            int n = section_length(o->key);
            bool new_section = strncmp(last, o->key, (size_t)n + 1) != 0;
            last = o->key;
            if (markdown)
                add_markdown_row(o, new_section, &out);
            else
                add_row(r, o, new_section, &out);
        }
    }
    if (!out.length) {
        struct nearest nearest = { .typed = wanted };
        for (i64 g = 0; g < r->n_groups; g++)
            for (const struct option *o = r->groups[g].table; o->key; o++)
                nearest_offer(&nearest, o->key);
        return option_unknown_key(wanted, nearest_found(&nearest), NULL);
    }
    if (markdown)
        fputs("# Recipe keys\n\nMade by `headway config --markdown`.\n", stdout);
    fputs(out.data, stdout);
    text_fini(&out);
    return OK;
}

static int run_config(struct invocation *v)
{
    const struct config_options *o = v->options;
    struct train_config config = { 0 };
    struct recipe r;
    struct layout layout;
    struct option_group groups[] = { { train_options, &config }, { layout_options, &layout } };
    recipe_init(&r, v->arena, groups, COUNT_OF(groups));
    if (o->recipe)
        TRY(recipe_load(&r, o->recipe));
    TRY(invocation_override(v, &r));
    if (!o->yaml)
        return print_reference(&r, v->n_args ? v->args[0] : NULL, o->markdown);
    if (v->n_args)
        return err_set(ERR_USAGE, "--yaml prints the whole recipe; leave '%.60s' out",
                       v->args[0]);
    struct text out = { 0 };
    recipe_write_yaml(&r, &out);
    fputs(out.data, stdout);
    text_fini(&out);
    return OK;
}

const struct command cmd_config = {
    .name = "config",
    .summary = "Explain recipe keys, and show what a recipe resolves to",
    .arguments = "[KEY]",
    .description =
        "Without KEY, every key that a training recipe may have: type, default, "
        "range and meaning. KEY is one key (train.steps) or a section (train).",
    .options = options,
    .options_bytes = sizeof(struct config_options),
    .max_args = 1,
    .argument_words = ARGUMENT_RECIPE_KEYS,
    .takes_set = true,
    .examples =
        (const struct example[]){
            { "headway config train", "The keys of the section train." },
            { "headway config optim.lr --recipe my.yaml",
              "What optim.lr means, and what my.yaml sets it to." },
            { "headway config --recipe my.yaml --set train.steps=100 --yaml",
              "The complete recipe after the change, with every default." },
            { 0 } },
    .run = run_config,
};
