/* base/yaml.h - a YAML file as a small tree that remembers where everything stood.
 *
 * Recipes, model specs and machine files are read with it. It keeps to what such files
 * need: maps, lists, scalars; every node knows its file, line and column (from 1).
 * Scalars are text: types come from an option table (recipe.h reads a map by a table).
 *
 * It refuses, with file:line:column: anchors and aliases (bombs), tags, several
 * documents, duplicate keys, keys that are not scalars, NUL characters, and files beyond
 * 64 MiB, depth 64 or a million nodes. An empty file is an empty map. */
#ifndef HEADWAY_YAML_H
#define HEADWAY_YAML_H

#include "base/arena.h"
#include "base/base.h"

struct json;

enum yaml_kind { YAML_SCALAR, YAML_LIST, YAML_MAP };

struct yaml_node {
    enum yaml_kind kind;
    bool quoted;      /* a scalar in quotes or a block: never null by accident */
    int line, column; /* of the value */
    int key_line, key_column;
    const char *file;
    const char *key;  /* in a map: its key; else NULL */
    const char *text; /* scalar */
    i64 count;        /* children */
    struct yaml_node *first, *last, *next;
};

int yaml_load(const char *path, struct arena *a, const struct yaml_node **root);

/* name stands for the file in messages. */
int yaml_parse(const char *text, i64 bytes, const char *name, struct arena *a,
               const struct yaml_node **root);

/* The child with this key; NULL when absent or when node is no map. */
const struct yaml_node *yaml_get(const struct yaml_node *node, const char *key);

/* An unquoted empty value, null or ~. */
bool yaml_is_null(const struct yaml_node *node);

/* "file:line:column" of the value, or of the key. The text lives in the arena. */
const char *yaml_where(const struct yaml_node *node, struct arena *a);
const char *yaml_key_where(const struct yaml_node *node, struct arena *a);

/* Writes the tree as JSON, scalars that look like numbers, booleans or null as such. */
void yaml_write_json(const struct yaml_node *node, struct json *out);

#endif
