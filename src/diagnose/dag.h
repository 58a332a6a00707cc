/* diagnose/dag.h - a recorded step as a graph of what waited for what, and how long it would have
 * taken otherwise.
 *
 * Nodes are what each rank did, in its order, and what its calls did beside it. A node begins when
 * the node before it on its chain has ended and `lead` seconds of the host's doings have passed,
 * and when all that it needs has ended; it takes `seconds`. So a step's length is the longest
 * path, and with other durations it is the length that the step would have had: nothing else is
 * assumed.
 *
 *     chain      what the rank's main thread did: tasks, waits, meetings, loads, host work
 *     begin      of a call, behind the task after which it was started
 *     ready      when all members of the call have begun it (one node per call of a group)
 *     end        of the call at one rank, behind ready, and behind the lane's call before it
 *     needs      a task needs the ends of calls that touch what it touches: the rules of
 *                backend/exec.c, found by walking the program as the executor does
 *
 * Whom a call has waited for and how long it took from then on are thus apart: the seconds of a
 * call's end are its transfer. Where a rank is missing, what others waited for it counts as
 * transfer. */
#ifndef HEADWAY_DIAGNOSE_DAG_H
#define HEADWAY_DIAGNOSE_DAG_H

#include "diagnose/record.h"

enum dag_kind {
    DAG_COMPUTE, /* a task of the compute lane */
    DAG_WAIT,    /* standing still for a call: its seconds are what passed after the call's end */
    DAG_DATA,    /* waiting for the loader */
    DAG_LOG, DAG_EVAL, DAG_CHECKPOINT, /* of the host, and what is behind the last of them */
    DAG_OUTER,   /* an outer step */
    DAG_MEET,    /* the end of a meeting of all ranks: its seconds are those after the last came */
    DAG_BEGIN,   /* a call begins: its seconds are those until its thread has taken it up */
    DAG_READY,   /* nobody's: all members have begun; takes no time */
    DAG_CALL,    /* a call ends: its seconds are those of the transfer */
    DAG_REST,    /* behind a rank's last span, until the next step */
    DAG_KINDS
};

struct dag_node { /* there are millions in a long record: in an order without holes */
    u8 kind;     /* enum dag_kind */
    u8 lane;     /* enum lane, of DAG_WAIT, DAG_BEGIN and DAG_CALL what it is for */
    u8 begun;    /* enum lane: of a call that the rank began in this node's lead; 0: none */
    bool early;  /* of DAG_WAIT: nothing needed the call yet, when the rank stood still for it */
    u16 action;
    i32 rank;    /* -1: DAG_READY */
    u32 task_id;
    const struct record_task *task; /* NULL: none */
    i32 before;  /* on its chain, an earlier call of the lane; -1: none */
    i32 needs, n_needs; /* in dag.needs: further nodes that must have ended */
};

/* No number of a graph is NaN, and fmax is a call. */
static inline double dag_larger(double a, double b)
{
    return a > b ? a : b;
}

struct dag {
    struct dag_node *nodes; /* what a node needs stands before it */
    i64 n;
    i32 *needs;
    double *seconds, *lead; /* [n] as measured */
    int n_ranks, missing;
    double *starts;  /* [n_ranks] when each rank's chain begins, seconds; not after 0 */
    i64 *last;       /* [n_ranks] its last node of the chain; -1: missing */
    double measured; /* length: from the last rank's begin to the last one's end */
    double length;   /* the same along the graph: dag_length with nothing changed */
    double *own_ends; /* [n] of the nodes then; NULL in a copy, as is */
    i64 strays;      /* spans that do not fit the program: they stand in the chain as they are */
    double *ends;    /* [n] room for dag_length */
    const struct computing_lists *computes; /* of a graph with the shape of another
                                             * (diagnose/dag_again.h); NULL: not known */
};

/* Everything lives in the step's arena. ERR_FORMAT when nothing can be made of it. */
int dag_new(struct dag **out, const struct record_step *s);

/* Sets length and own_ends anew, where seconds or leads were changed. */
void dag_settle(struct dag *g);

/* A copy of it in another arena, where the step's spans and what building it took need not
 * stay; its ends are not kept. */
struct dag *dag_keep(const struct dag *g, struct arena *a);

/* Seconds of the step when nodes take these (NULL: as measured), and ends[n] of all nodes (NULL:
 * not wanted). */
double dag_length(const struct dag *g, const double *seconds, const double *lead, double *ends);

/* The same, and a node ends no sooner than held[n] seconds behind all that it needs: what passes
 * beside the lane's call before it, such as a delay. */
double dag_length_held(const struct dag *g, const double *seconds, const double *lead,
                       const double *held, double *ends);

/* What stands before the spans of these ranks ([n_ranks]), times factor, in place. A call that
 * is begun in such a gap is taken up behind it: it then begins that much earlier, too. */
void dag_scale_gaps(const struct dag *g, const bool *ranks, double factor, double *seconds,
                    double *lead);

/* Whether the graph tells what was measured: predictions need |1 - length / measured| up to this. */
#define DAG_GATE 0.02

/* --- the critical path -------------------------------------------------------------- */

enum dag_part { DAG_IN_NODE, DAG_IN_LEAD }; /* in what it does; in what stood before it */

struct dag_segment {
    i64 node;
    int part; /* enum dag_part */
    double from, to;
};

/* The path whose segments, last first, follow each other without a gap from the step's end to its
 * begin: they sum to dag_length. Returns their number; at most 2 n. */
i64 dag_critical(const struct dag *g, const double *seconds, const double *lead,
                 struct dag_segment *out);

#endif
