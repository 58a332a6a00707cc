/* diagnose/critical.h - what the step's length consisted of: its critical path, added up.
 *
 * Walked back from what ended last: a task that was running, then whatever that one had waited
 * for. The segments of a step follow each other without a gap, so their sum over (rank, kind,
 * task) is the steps' time, exactly. A cause must stand both here and in the ladder. */
#ifndef HEADWAY_DIAGNOSE_CRITICAL_H
#define HEADWAY_DIAGNOSE_CRITICAL_H

#include "diagnose/dag.h"

struct critical_share {
    int rank;        /* -1: all members of a call */
    int kind;        /* enum dag_kind; DAG_KINDS: gaps of the host between tasks */
    int lane;        /* of calls, enum lane */
    const char *op;  /* of tasks and calls; "" where there is none */
    int phase, layer; /* of tasks; -1 */
    double seconds;
    u64 hash; /* of all of the above but the seconds */
    const char *same; /* another place where op's name stands, by which it was found last */
    i32 next; /* of those whose hashes end alike, 1 + index; 0: none */
};

enum { CRITICAL_LISTS = 256 }; /* some steps have a hundred shares */

struct critical {
    struct arena *arena; /* the caller's: of the list and its names */
    struct critical_share *shares;
    i64 n, capacity;
    i32 first[CRITICAL_LISTS]; /* of each list of shares, 1 + index; nothing once they are sorted */
    double weight;  /* the caller's: how many steps each taken one stands for; 0: itself alone */
    double seconds; /* of all steps: the sum of the shares, weighted */
    double steps;   /* likewise */
};

/* A step's path: its segments, some of which follow each other in the same share. */
struct critical_path {
    struct critical_share *shares; /* op: the task's own */
    i64 n;
};
/* From the step's arena. */
void critical_walk(struct critical_path *out, const struct record_step *s, const struct dag *g);
/* *c has an arena and is else zero at first. */
void critical_take(struct critical *c, const struct critical_path *p);
/* Both. */
void critical_add(struct critical *c, const struct record_step *s, const struct dag *g);
/* Most seconds first. */
void critical_sort(struct critical *c);
const char *critical_kind_name(int kind);

#endif
