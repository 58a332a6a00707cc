/* base/option.h - one typed table per module: the only description of a setting.
 *
 * A row names a setting and binds it to a field of a plain struct. The parser, the
 * command-line flags, --help, the reference page, the man pages and the run manifest are
 * all made from the same rows, so they cannot disagree.
 *
 *     static const struct option table[] = {
 *         { "train.steps", OPTION_FIELD(INT, struct train_config, train.steps), "1000",
 *           .unit = "steps", .min = 1, .help = "Optimizer steps to take." },
 *         { 0 } };
 *
 * OPTION_FIELD does not compile when the field's C type does not fit the option's type.
 * A table ends with an empty row. Keys are whole ("train.steps"), words joined by '_'.
 * Texts that a struct points to live in the arena given.
 *
 * Messages begin with `where` ("recipe.yaml:12:5", "--steps") unless it is NULL. */
#ifndef HEADWAY_OPTION_H
#define HEADWAY_OPTION_H

#include "base/arena.h"
#include "base/base.h"

struct text;
struct yaml_node;

struct option_strings { const char **at; i64 count; };
struct option_ints { i64 *at; i64 count; };
struct option_floats { double *at; i64 count; };

enum option_type {
    OPTION_BOOL,     /* bool: true/false, yes/no, on/off */
    OPTION_INT,      /* i64: 1000, 1_000, 1e6 */
    OPTION_FLOAT,    /* double */
    OPTION_STRING,   /* const char *; NULL when the default is NULL and nothing was given */
    OPTION_PATH,     /* const char *, as STRING; relative to the working directory */
    OPTION_CHOICE,   /* int: index into choices, "a|b|c" */
    OPTION_SIZE,     /* i64: 10K, 2.5M, 1G, 1T count in 1000s, 64KiB in 1024s */
    OPTION_DURATION, /* double, in seconds: 90, 90s, 250ms, 5m, 1h30m, 2d */
    OPTION_STRINGS,  /* struct option_strings: a, b or [a, b] */
    OPTION_INTS,     /* struct option_ints */
    OPTION_FLOATS,   /* struct option_floats */
    OPTION_NODE,     /* const struct yaml_node *: for the module to read; NULL: absent */
    OPTION_TYPES
};

typedef bool option_c_BOOL;
typedef i64 option_c_INT;
typedef double option_c_FLOAT;
typedef const char *option_c_STRING;
typedef const char *option_c_PATH;
typedef int option_c_CHOICE;
typedef i64 option_c_SIZE;
typedef double option_c_DURATION;
typedef struct option_strings option_c_STRINGS;
typedef struct option_ints option_c_INTS;
typedef struct option_floats option_c_FLOATS;
typedef const struct yaml_node *option_c_NODE;

/* The second and third members of a row; compares pointer types without evaluating. */
#define OPTION_FIELD(kind, type, field)                                                  \
    OPTION_##kind,                                                                       \
        offsetof(type, field) + 0 * sizeof((option_c_##kind *)0 == &((type *)0)->field)

struct option {
    const char *key;
    enum option_type type;
    size_t offset;
    const char *default_text; /* NULL: the field becomes zero, "not set" */
    const char *unit;         /* "steps", "bytes", "tokens" ...; NULL: none */
    double min, max;          /* both 0: no limits; max <= min: no upper limit */
    const char *choices;      /* "adamw|muon" for CHOICE */
    const char *help;         /* a sentence */
    /* Of a command line: "live|clock=virtual", options of the same table that have another value
     * than their default, or this one. Without one of `needs` the option has no effect; it, when it
     * is on, or one of `excludes` has none beside the other. Both are refused. */
    const char *needs, *excludes;
};

/* Fills every bound field from default_text, whatever was in it. The table's defaults must
 * be valid: a bad one stops the program. */
void option_set_defaults(const struct option *table, void *target, struct arena *a);

/* Reads text into the row's field after checking it. */
int option_set(const struct option *o, void *target, const char *text, const char *where,
               struct arena *a);

/* option_set for the row with this key; an unknown key names the nearest one. */
int option_parse_one(const struct option *table, void *target, const char *key,
                     const char *text, const char *where, struct arena *a);

/* Reads a YAML value: a scalar, a list of scalars for list types, anything for NODE.
 * Messages name the node's file, line and column. */
int option_set_node(const struct option *o, void *target, const struct yaml_node *node,
                    struct arena *a);

/* The error for a key that no table has; suggestion may be NULL. */
int option_unknown_key(const char *key, const char *suggestion, const char *where);

/* NULL when there is no such key. */
const struct option *option_find(const struct option *table, const char *key);

/* Appends the field's value as text that option_set would read back (NODE: flow YAML). */
void option_format(const struct option *o, const void *target, struct text *out);

/* "whole number", "duration" ... for help and messages. */
const char *option_type_name(enum option_type type);

/* Appends the allowed range in words ("at least 1", "between 0 and 1"); nothing if free. */
void option_range(const struct option *o, struct text *out);

/* The field, typed: OPTION_AT(i64, o, target). */
#define OPTION_AT(ctype, o, target) ((ctype *)((char *)(target) + (o)->offset))
#define OPTION_AT_CONST(ctype, o, target)                                                \
    ((const ctype *)((const char *)(target) + (o)->offset))

#endif
