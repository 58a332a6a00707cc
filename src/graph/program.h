/* graph/program.h - one step of one rank: segments, actions, and their memory.
 *
 * A segment is a flat array of tasks; an action runs one segment for one micro-batch.
 * Executor, pricer and memory plan walk the same expansion: actions in order, tasks in
 * order. Nothing here computes. */
#ifndef HEADWAY_PROGRAM_H
#define HEADWAY_PROGRAM_H

#include "graph/graph.h"

enum segment_kind { SEGMENT_FORWARD, SEGMENT_BACKWARD, SEGMENT_UPDATE, SEGMENTS };

struct segment {
    const char *name;
    struct task *tasks;
    i64 n_tasks;
};

struct action {
    u16 segment;     /* enum segment_kind */
    u16 micro_batch; /* 0-based within the step */
};

/* Where the activations lie. */
struct memory_plan {
    i64 bytes;       /* size of the activation region */
    i64 least_bytes; /* largest sum of live tensors at any task: no plan can beat it */
    i64 peak_task;   /* id of a task where that sum occurs */
};

struct program {
    const char *name;
    struct segment segments[SEGMENTS];
    struct action *actions;
    i64 n_actions;
    int micro_batches;
    struct task **by_id; /* [n_tasks] */
    i64 n_tasks;
    struct tensor **tensors; /* every activation, view and input of this program */
    i64 n_tensors;
    struct memory_plan memory;
    struct cost cost; /* one whole step: all actions */
};

/* Seals a graph: sorts tasks into segments by phase, settles who overwrites and who adds
 * in gradient sums, plans memory, expands micro_batches >= 1 into actions. A program with
 * forward tasks only (evaluation, sampling) has one action per micro-batch. */
int program_new(struct program **out, struct graph *g, const char *name, int micro_batches);

/* Points every activation, and every view, at its place; region has memory.bytes. Inputs
 * and results that have no data yet get some from the arena. May be called again with
 * another region. */
void program_bind(struct program *p, void *region, struct arena *arena);

/* Of inputs and results that program_bind allocates. */
i64 program_kept_bytes(const struct program *p);

/* Activations live at the moment of greatest use, largest first: up to n into out.
 * Returns how many. For the message of a run that cannot fit. */
i64 program_largest(const struct program *p, const struct tensor **out, i64 n);

/* --- passes (graph to graph, before program_new) ------------------------------------ */
enum recompute { RECOMPUTE_NONE, RECOMPUTE_SELECTIVE, RECOMPUTE_FULL };

/* Moves the loss head's chunks (task.head) into the backward segment, each chunk's
 * backward right after its forward, so that only one chunk of logits is ever live. */
int pass_chunk_head(struct graph *g);

/* Frees activations of the blocks after forward and clones their producers before their
 * backward readers: all of a block (full: only the block's input is kept), or only
 * those that are cheap to remake (selective: norms and activation functions). */
int pass_recompute(struct graph *g, enum recompute policy);

#endif
