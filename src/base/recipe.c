#include "base/recipe.h"

#include "base/err.h"
#include "base/json.h"
#include "base/text.h"

#include <stdio.h>
#include <string.h>

enum { MAX_KEY = 256 };

static i64 table_rows(const struct option *table)
{
    i64 n = 0;
    while (table[n].key)
        n++;
    return n;
}

static void init(struct recipe *r, struct arena *a, const struct option_group *groups, i64 n)
{
    *r = (struct recipe){ .arena = a, .n_groups = n };
    r->groups = ARENA_ARRAY(a, struct option_group, n);
    r->where = ARENA_ARRAY(a, const char **, n);
    for (i64 g = 0; g < n; g++) {
        r->groups[g] = groups[g];
        r->where[g] = ARENA_ARRAY(a, const char *, table_rows(groups[g].table));
    }
}

void recipe_init(struct recipe *r, struct arena *a, const struct option_group *groups,
                 i64 n)
{
    init(r, a, groups, n);
    for (i64 g = 0; g < n; g++)
        option_set_defaults(groups[g].table, groups[g].target, a);
}

/* --- finding --------------------------------------------------------------------- */

/* The cell that says who set the key; NULL when there is no such key. */
static const char **find_row(const struct recipe *r, const char *key,
                             const struct option **row, void **target)
{
    for (i64 g = 0; g < r->n_groups; g++) {
        const struct option *o = option_find(r->groups[g].table, key);
        if (!o)
            continue;
        *row = o;
        if (target)
            *target = r->groups[g].target;
        return &r->where[g][o - r->groups[g].table];
    }
    return NULL;
}

const struct option *recipe_find(const struct recipe *r, const char *key, void **target)
{
    const struct option *row;
    return find_row(r, key, &row, target) ? row : NULL;
}

const char *recipe_where(const struct recipe *r, const char *key)
{
    const struct option *row;
    const char **where = find_row(r, key, &row, NULL);
    if (!where)
        err_panic("recipe_where: no option is called %s", key);
    return *where;
}

/* Some key that lies below this section ("train" has "train.steps"), or NULL. */
static const char *key_in_section(const struct recipe *r, const char *section)
{
    size_t n = strlen(section);
    for (i64 g = 0; g < r->n_groups; g++)
        for (const struct option *o = r->groups[g].table; o->key; o++)
            if (strncmp(o->key, section, n) == 0 && o->key[n] == '.')
                return o->key;
    return NULL;
}

/* The keys of the section that a key was looked for in: "warmup, schedule"; "" where
 * there is none. */
static void list_section(const struct recipe *r, const char *key, char *out, i64 size)
{
    const char *dot = strchr(key, '.');
    const size_t n = dot ? (size_t)(dot - key + 1) : 0;
    *out = '\0';
    i64 used = 0;
    for (i64 g = 0; g < r->n_groups && n > 0; g++)
        for (const struct option *o = r->groups[g].table; o->key; o++)
            if (strncmp(o->key, key, n) == 0 && used < size)
                used += snprintf(out + used, (size_t)(size - used), "%s%s",
                                 used ? ", " : "", o->key + n);
}

/* Every prefix of a key that ends before a dot: "train", "train.run". */
static void offer_sections(const struct recipe *r, struct nearest *nearest)
{
    for (i64 g = 0; g < r->n_groups; g++)
        for (const struct option *o = r->groups[g].table; o->key; o++)
            for (const char *dot = strchr(o->key, '.'); dot; dot = strchr(dot + 1, '.'))
                nearest_offer(nearest, arena_strndup(r->arena, o->key, dot - o->key));
}

static bool same_section(const char *a, const char *b)
{
    const size_t n = strcspn(a, ".");
    return strcspn(b, ".") == n && strncmp(a, b, n) == 0;
}

/* The first words of all keys that have more than one: "model, data, train". */
static void list_sections(const struct recipe *r, char *out, i64 size)
{
    const char *last = "";
    i64 used = 0;
    *out = '\0';
    for (i64 g = 0; g < r->n_groups; g++) {
        for (const struct option *o = r->groups[g].table; o->key; o++) {
            const char *dot = strchr(o->key, '.');
            if (!dot || same_section(o->key, last) || used >= size)
                continue;
            used += snprintf(out + used, (size_t)(size - used), "%s%.*s", used ? ", " : "",
                             (int)(dot - o->key), o->key);
            last = o->key;
        }
    }
}

static int unknown_section(const struct recipe *r, const char *key, const char *where)
{
    struct nearest nearest = { .typed = key };
    offer_sections(r, &nearest);
    const char *found = nearest_found(&nearest);
    char sections[400];
    list_sections(r, sections, sizeof sections);
    if (found)
        return err_set(ERR_CONFIG, "%s: unknown section '%.80s'; did you mean '%s'?", where, key,
                       found);
    return err_set(ERR_CONFIG, "%s: unknown section '%.80s'%s%s", where, key,
                   *sections ? "; there are " : "", sections);
}

static int unknown_key(const struct recipe *r, const char *key, const char *where)
{
    const char *example = key_in_section(r, key);
    if (example)
        return err_set(ERR_CONFIG,
                       "%s: '%s' is a section: its keys go below it, such as %s", where,
                       key, example);
    struct nearest nearest = { .typed = key };
    for (i64 g = 0; g < r->n_groups; g++)
        for (const struct option *o = r->groups[g].table; o->key; o++)
            nearest_offer(&nearest, o->key);
    if (!strchr(key, '.'))
        offer_sections(r, &nearest);
    const char *found = nearest_found(&nearest);
    char keys[400];
    list_section(r, key, keys, sizeof keys);
    if (found || !*keys)
        return option_unknown_key(key, found, where);
    return err_set(ERR_CONFIG, "%s: unknown key '%.80s'; %.*s has %s", where, key,
                   (int)(strchr(key, '.') - key), key, keys);
}

/* --- reading --------------------------------------------------------------------- */

static int apply_value(struct recipe *r, const char *key, const struct yaml_node *node,
                       const char **cell, const struct option *o, void *target)
{
    const char *where = yaml_key_where(node, r->arena);
    if (*cell && strncmp(*cell, node->file, strlen(node->file)) == 0)
        return err_set(ERR_CONFIG, "%s: %s was already given at %s", where, key, *cell);
    TRY(option_set_node(o, target, node, r->arena));
    *cell = where;
    return OK;
}

/* Depth is limited by the YAML reader. */
static int apply_map(struct recipe *r, const char *prefix, const struct yaml_node *map)
{
    for (const struct yaml_node *node = map->first; node; node = node->next) {
        char key[MAX_KEY];
        const struct option *o;
        void *target;
        int n =
            snprintf(key, sizeof key, "%s%s%s", prefix, *prefix ? "." : "", node->key);
        const char **cell = n < MAX_KEY ? find_row(r, key, &o, &target) : NULL;
        if (cell)
            TRY(apply_value(r, key, node, cell, o, target));
        else if (n < MAX_KEY && node->kind == YAML_MAP && !key_in_section(r, key))
            return unknown_section(r, key, yaml_key_where(node, r->arena));
        else if (n < MAX_KEY && node->kind == YAML_MAP && node->count)
            TRY(apply_map(r, key, node));
        else
            return unknown_key(r, key, yaml_key_where(node, r->arena));
    }
    return OK;
}

int recipe_apply(struct recipe *r, const struct yaml_node *root)
{
    if (root->kind != YAML_MAP)
        return err_set(ERR_CONFIG, "%s: keys with values are expected, such as 'train:'",
                       yaml_where(root, r->arena));
    return apply_map(r, "", root);
}

int recipe_load(struct recipe *r, const char *path)
{
    const struct yaml_node *root;
    TRY(yaml_load(path, r->arena, &root));
    return recipe_apply(r, root);
}

int recipe_override(struct recipe *r, const char *assignment)
{
    const char *equals = strchr(assignment, '=');
    const struct option *o;
    void *target;
    if (!equals || equals == assignment)
        return err_set(ERR_USAGE,
                       "--set %.80s: expected key=value, such as train.steps=100",
                       assignment);
    const char *key = arena_strndup(r->arena, assignment, equals - assignment);
    const char **cell = find_row(r, key, &o, &target);
    if (!cell)
        return unknown_key(r, key, "--set");
    if (strcmp(equals + 1, "null") == 0 || strcmp(equals + 1, "~") == 0) { /* as in a file */
        const struct yaml_node *node;
        TRY(yaml_parse(equals + 1, (i64)strlen(equals + 1), "--set", r->arena, &node));
        TRY(option_set_node(o, target, node, r->arena));
    } else {
        TRY(option_set(o, target, equals + 1, "--set", r->arena));
    }
    *cell = "--set";
    return OK;
}

int recipe_read_map(const struct option *table, void *target, const struct yaml_node *map,
                    struct arena *a)
{
    struct recipe r;
    recipe_init(&r, a, &(struct option_group){ table, target }, 1);
    return recipe_apply(&r, map);
}

/* --- writing --------------------------------------------------------------------- */

/* Called for every key in table order. Sections open and close as the dotted prefix
 * changes: `keep` parts stay open. */
struct section_walk {
    char open[MAX_KEY]; /* "data.loader." for two open sections, "" for none */
};

/* Length of the prefix, ending in '.', that both share. */
static i64 shared_prefix(const char *a, const char *b)
{
    i64 shared = 0;
    for (i64 i = 0; a[i] && a[i] == b[i]; i++)
        if (a[i] == '.')
            shared = i + 1;
    return shared;
}

static int count_dots(const char *s)
{
    int n = 0;
    for (; *s; s++)
        n += *s == '.';
    return n;
}

/* Moves to the section of key. Returns the key's last word; *closed and *first_new say
 * how many sections ended and where the names of new ones begin in key. */
static const char *enter_section(struct section_walk *w, const char *key, int *closed,
                                 const char **first_new)
{
    const char *dot = strrchr(key, '.');
    const char *word = dot ? dot + 1 : key;
    i64 shared = shared_prefix(w->open, key);
    *closed = count_dots(w->open + shared);
    *first_new = key + shared;
    snprintf(w->open, sizeof w->open, "%.*s", (int)(word - key), key);
    return word;
}

static void write_json_value(const struct option *o, const void *target, struct json *out)
{
    struct text t = { 0 };
    option_format(o, target, &t);
    const char *text = t.data ? t.data : "";
    switch (o->type) {
    case OPTION_BOOL:
    case OPTION_INT:
    case OPTION_INTS:
    case OPTION_FLOATS:
        json_literal(out, text);
        break;
    case OPTION_SIZE:
        json_int(out, *OPTION_AT_CONST(i64, o, target));
        break;
    case OPTION_FLOAT:
    case OPTION_DURATION:
        json_double(out, *OPTION_AT_CONST(double, o, target));
        break;
    case OPTION_STRING:
    case OPTION_PATH:
        json_str(out, *OPTION_AT_CONST(char *, o, target));
        break;
    case OPTION_STRINGS:
        json_begin_array(out);
        for (i64 i = 0; i < OPTION_AT_CONST(struct option_strings, o, target)->count; i++)
            json_str(out, OPTION_AT_CONST(struct option_strings, o, target)->at[i]);
        json_end(out);
        break;
    case OPTION_NODE:
        if (*text)
            json_literal(out, text);
        else
            json_nothing(out);
        break;
    default:
        json_str(out, text);
    }
    text_fini(&t);
}

void recipe_write_json(const struct recipe *r, struct json *out)
{
    struct section_walk walk = { "" };
    json_begin_object(out);
    for (i64 g = 0; g < r->n_groups; g++) {
        for (const struct option *o = r->groups[g].table; o->key; o++) {
            int closed;
            const char *name, *word = enter_section(&walk, o->key, &closed, &name);
            while (closed-- > 0)
                json_end(out);
            for (const char *dot; name < word; name = dot + 1) {
                char section[MAX_KEY];
                dot = strchr(name, '.');
                snprintf(section, sizeof section, "%.*s", (int)(dot - name), name);
                json_key(out, section);
                json_begin_object(out);
            }
            json_key(out, word);
            write_json_value(o, r->groups[g].target, out);
        }
    }
    for (int open = count_dots(walk.open); open >= 0; open--)
        json_end(out);
}

static void write_yaml_value(const struct option *o, const void *target, struct text *out)
{
    bool as_json = o->type == OPTION_STRING || o->type == OPTION_PATH ||
                   o->type == OPTION_STRINGS || o->type == OPTION_NODE;
    if (!as_json) {
        option_format(o, target, out);
        return;
    }
    struct json j; /* JSON strings, lists and maps are YAML too */
    json_writer_init(&j);
    write_json_value(o, target, &j);
    text_add(out, j.out.data);
    json_writer_fini(&j);
}

void recipe_write_yaml(const struct recipe *r, struct text *out)
{
    struct section_walk walk = { "" };
    for (i64 g = 0; g < r->n_groups; g++) {
        for (const struct option *o = r->groups[g].table; o->key; o++) {
            int closed, level = 0;
            const char *name, *word = enter_section(&walk, o->key, &closed, &name);
            for (const char *p = o->key; p < name; p++)
                level += *p == '.';
            for (const char *dot; name < word; name = dot + 1) {
                dot = strchr(name, '.');
                text_repeat(out, ' ', 2 * level++);
                text_printf(out, "%.*s:\n", (int)(dot - name), name);
            }
            text_repeat(out, ' ', 2 * level);
            text_printf(out, "%s: ", word);
            write_yaml_value(o, r->groups[g].target, out);
            text_add(out, "\n");
        }
    }
}

int recipe_change_map(const struct option *table, void *target, const struct yaml_node *map,
                      struct arena *a)
{
    struct recipe r;
    init(&r, a, &(struct option_group){ table, target }, 1);
    return recipe_apply(&r, map);
}
