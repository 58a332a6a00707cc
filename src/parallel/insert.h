/* parallel/insert.h - tasks to be put into a finished list.
 *
 * Passes say where, in positions of the list as it was; all are inserted at the end, those of one
 * position in the order in which they were made. */
#ifndef HEADWAY_INSERT_H
#define HEADWAY_INSERT_H

#include "graph/graph.h"
#include "parallel/mesh.h"

struct insertion {
    i64 at, order;
    struct task *task;
};

struct insertions {
    struct graph *g;
    const struct mesh *mesh;
    struct insertion *list;
    i64 n, room;
};

/* room: the most that will be made. */
struct insertions insertions_begin(struct graph *g, const struct mesh *mesh, i64 room);

/* Makes a task that stands nowhere yet; before position `at` later, and of that part. */
struct task *insert_task(struct insertions *s, i64 at, int part, const struct task *proto);
/* A collective on the lane. */
struct task *insert_exchange(struct insertions *s, i64 at, int part, const struct op_info *op,
                             enum lane lane, enum phase phase, struct tensor *in,
                             struct tensor *out);

int insertions_end(struct insertions *s);

#endif
