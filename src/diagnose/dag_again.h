/* diagnose/dag_again.h - graphs of steps that did the same as an earlier one, at other times.
 *
 * Most steps of a run are the same tasks in the same order; what differs is when each began and
 * ended. Such a step's graph has the nodes and needs of the earlier one's, and only its seconds are
 * found anew: a tenth of the work. So nothing is taken for the same that might not be, building a
 * graph logs everything that times have decided in it (dag_log): which spans count, in which order
 * the rank's own doings stand, what lies within something else, which calls were taken up behind a
 * wait, or had ended before it. Whoever repeats it compares every span's task, action, lane and kind,
 * decides all of that again, and where anything differs the graph is built as usual. The numbers are
 * those that dag_new would find, to the bit. */
#ifndef HEADWAY_DIAGNOSE_DAG_AGAIN_H
#define HEADWAY_DIAGNOSE_DAG_AGAIN_H

#include "diagnose/dag.h"

/* The shapes of the latest steps; of one thread. */
struct dag_shapes;

/* dag_new, by the shapes of earlier steps where there is one; *shapes: NULL at first. The graph's
 * nodes and needs may be a shape's: they hold until the next call. */
int dag_new_again(struct dag **out, const struct record_step *s, struct dag_shapes **shapes);
void dag_shapes_free(struct dag_shapes *shapes);
/* How many steps have had the shape of an earlier one. */
i64 dag_shapes_used(const struct dag_shapes *shapes);

/* --- what dag.c logs for it ---------------------------------------------------------------- */

/* What the main thread did, in order. */
struct dag_item {
    i64 begin_ns, end_ns;
    int kind; /* enum dag_kind */
    const struct record_span *span;
};
int dag_by_begin(const void *a, const void *b);
/* enum dag_kind of the item that a span is; -1: none. */
int dag_item_kind(const struct record_span *s);

/* One member's call of a group. */
struct dag_call {
    i64 key;  /* of the group, and which way a move goes */
    i64 number; /* of this rank's calls with the key */
    i32 begin, end; /* nodes */
    i32 ready; /* of a group's first call, where all of them are one node; -1 */
    double began, ended;
    bool in_order; /* behind the lane's call before it */
};

/* A call that ends so long before its last member began it does not need that one: its data had
 * been taken by the transport. Clocks of ranks may be apart by some of this. */
static const double dag_early_s = 20e-6;

/* all: when the last of its n members began. */
static inline bool dag_is_early(const struct dag_call *c, i64 n, double all)
{
    return n > 1 && c->ended + dag_early_s < all;
}

/* Behind the last call of the group's call that begins at i. */
static inline i64 dag_call_end(const struct dag_call *c, i64 n, i64 i)
{
    i64 end = i + 1;
    while (end < n && c[end].key == c[i].key && c[end].number == c[i].number)
        end++;
    return end;
}

enum dag_entry_kind {
    DAG_ENTRY_CHAIN,    /* an item, as a node of the chain */
    DAG_ENTRY_WAIT,     /* an item that waited */
    DAG_ENTRY_MEET,     /* an item, and two nodes behind each other */
    DAG_ENTRY_PASSED,   /* an item within what is in the chain already */
    DAG_ENTRY_CALL,     /* a call's begin, and its end as the next node */
    DAG_ENTRY_TAKEN_UP, /* whether a call was taken up behind an item (`node`) */
    DAG_ENTRY_MEANT,    /* whether a call (`end`) had not ended when an item began */
    DAG_ENTRY_REST,     /* the chain's end */
};

struct dag_entry {
    u8 what;     /* enum dag_entry_kind */
    bool answer; /* of DAG_ENTRY_TAKEN_UP and DAG_ENTRY_MEANT */
    i32 item;    /* of the rank's items; of calls the first of n in the rank's calls */
    i32 n, node;
    i32 end; /* of calls and meetings: the node behind it */
};

struct dag_log_rank {
    i64 entry; /* its first */
    i64 n_items, n_calls;
    const struct dag_item *items;
    const struct record_span *const *calls;
};

/* One building's, in the step's arena. */
struct dag_log {
    struct arena *a;
    struct dag_log_rank *ranks; /* [n_ranks] all zero where one is missing */
    struct dag_entry *entries;
    i64 n, room;
    const struct dag_call *calls; /* by group */
    i64 n_calls;
    const i32 *place; /* of nodes as they were added, in the graph */
    bool odd;         /* it cannot be repeated: outer steps, calls that ended early */
};

void dag_log_rank(struct dag_log *log, const struct record_rank *k, int rank,
                  const struct dag_item *items, i64 n_items,
                  const struct record_span *const *calls, i64 n_calls);
void dag_log_entry(struct dag_log *log, const struct dag_entry *e);
void dag_log_end(struct dag_log *log, const struct dag_call *calls, i64 n_calls,
                 const i32 *place);

/* From where to where the step goes, in nanoseconds, by its windows. */
void dag_window(const struct record_step *s, i64 *zero_ns, i64 *end_ns);

/* dag_new, logged; log: NULL where nobody asks. */
int dag_build(struct dag **out, const struct record_step *s, struct dag_log *log);

#endif
