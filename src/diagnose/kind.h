/* diagnose/kind.h - every kind of bottleneck that is known of, and what becomes of it here.
 *
 * One row per kind, whether or not a rule names it: by what it is told, how it is put in on
 * purpose, and, where nothing names it, why. `headway diagnose --kinds` prints the table, a
 * test holds it against the rules and against what can be injected. */
#ifndef HEADWAY_KIND_H
#define HEADWAY_KIND_H

#include "base/text.h"

enum kind_state {
    KIND_NAMED, /* a rule names it */
    KIND_NEVER, /* it cannot occur with what this program does */
    KIND_BLIND  /* it can, and nothing here measures it */
};

struct kind {
    char id[5];
    const char *name;
    const char *measured; /* by what it is told; of what is not named: why not */
    const char *inject;   /* an example that puts it in; NULL: its numbers are planted in tests */
    enum kind_state state;
};

enum { KINDS = 54 };
extern const struct kind kinds[KINDS];

const char *kind_state_name(enum kind_state s);
/* The whole table, for people. */
void kinds_text(struct text *out);

#endif
