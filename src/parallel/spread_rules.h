/* parallel/spread_rules.h - the rules of spread.h, op by op, and what they know of tensors.
 *
 * A check is of one axis (spread.c says who is along it) and goes through a list in order. */
#ifndef HEADWAY_SPREAD_RULES_H
#define HEADWAY_SPREAD_RULES_H

#include "parallel/spread.h"

enum spread {
    SPREAD_UNKNOWN, /* not written here, or by an op without a rule */
    SPREAD_SAME,    /* every rank has it */
    SPREAD_ROWS,    /* each rank has some rows (tokens, rows of a weight, a slice) */
    SPREAD_COLUMNS, /* each rank has some columns */
    SPREAD_EXPERTS, /* each rank has some experts, or all rows for these */
    SPREAD_STAGES,  /* each stage has its own */
    SPREAD_HEADS,   /* along tp some columns; several ranks have the same keys and values */
    SPREAD_PARTIAL, /* the sum over ranks is what is meant */
    SPREAD_HEAD_SUMS, /* some columns; those of keys and values are partial sums of their sharers */
    SPREAD_LARGEST, /* the largest over ranks is */
    SPREAD_OWN,     /* each island has its own (whose sum may be meant) */
    SPREAD_MIXED    /* parts of it differ */
};

/* Bytes [begin, end) of a tensor that owns them. */
struct piece {
    struct piece *next;
    i64 begin, end;
    enum spread is;
};

struct entry {
    const struct tensor *owner;
    struct piece *pieces;
};

struct check {
    const struct graph *g;
    const struct model *m;
    enum lane axis;
    bool batch;   /* ranks along it have other rows, or other tokens */
    bool tokens;  /* of the same rows, whose order matters */
    bool split;   /* and slices of what zero splits */
    bool experts; /* and other experts */
    u32 acts;     /* lanes whose tasks are among them */
    struct arena arena;
    struct entry *table; /* by address */
    u64 slots;           /* a power of two */
    int rc;
};

/* How a tensor is spread so far; SPREAD_MIXED where its parts differ. */
enum spread spread_of(struct check *c, const struct tensor *t);
void spread_set(struct check *c, const struct tensor *t, enum spread is);

/* "the same on all ranks" */
const char *spread_word(enum spread is);
const char *spread_axis_name(const struct check *c);

/* From how the task's inputs are spread follows how its outputs are, or c->rc. The axis
 * is the task's. */
void spread_apply(struct check *c, const struct task *t);

/* Whether every block of attention sees the keys that it says, each queries' blocks all parts, and
 * gradients of keys come back to whose they are. Of cp's ranks. */
int spread_check_ring(const struct graph *g, int ranks);

#endif
