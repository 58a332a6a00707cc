/* graph/program.h - one step of one rank: segments, actions, and their memory.
 *
 * A segment is a flat array of tasks; an action runs one segment for one micro-batch. In a
 * pipeline a rank has segments for each of its stages (parts), and others for what it sends
 * and receives; a schedule says in which order they take their turns.
 * Executor, pricer and memory plan walk the same expansion: actions in order, tasks in
 * order. Nothing here computes. */
#ifndef HEADWAY_PROGRAM_H
#define HEADWAY_PROGRAM_H

#include "graph/graph.h"

enum segment_kind {
    SEGMENT_RECV_F, SEGMENT_FORWARD, SEGMENT_SEND_F,
    SEGMENT_RECV_B, SEGMENT_BACKWARD, SEGMENT_SEND_B,
    SEGMENT_WEIGHT, /* weight gradients, where the schedule puts them off; else in BACKWARD */
    SEGMENT_UPDATE,
    SEGMENT_KINDS
};

struct segment {
    const char *name;
    enum segment_kind kind;
    int part; /* the rank's how-manieth stage */
    struct task *tasks;
    i64 n_tasks;
    struct tensor **moving; /* what its tasks touch that has slots, owners before views */
    i64 n_moving;
};

struct action {
    u16 segment;     /* index */
    u16 micro_batch; /* 0-based within the step */
};

/* What a schedule asks for: the next action. */
struct turn {
    enum segment_kind kind;
    int part, micro_batch;
};

/* Where the activations lie. */
struct memory_plan {
    i64 bytes;       /* size of the activation region */
    i64 least_bytes; /* largest sum of live tensors at any task: no plan can beat it */
    i64 peak_task;   /* id of a task where that sum occurs */
};

struct program {
    const char *name;
    struct segment *segments; /* in the order of their tasks; some are empty */
    int n_segments;
    struct action *actions;
    i64 n_actions;
    int micro_batches;
    struct task **by_id; /* [n_tasks] */
    u32 *took_us;        /* [n_tasks]: each one's last time; the executor's */
    i64 n_tasks;
    struct tensor **tensors; /* every activation, view and input of this program */
    i64 n_tensors;
    struct memory_plan memory;
    i64 away_bytes; /* of its tensors in slower memory */
    struct cost cost; /* one whole step: all actions */
};

/* Seals a graph: sorts tasks into segments by phase, settles who overwrites and who adds
 * in gradient sums, plans memory, expands micro_batches >= 1 into actions. A program with
 * forward tasks only (evaluation, sampling) has one action per micro-batch. */
int program_new(struct program **out, struct graph *g, const char *name, int micro_batches);

/* The same for turns in the order of a schedule, the update last. Every segment that is not
 * empty takes the micro-batches in ascending order (the update only the last), so that a
 * sum's first writer is the one in micro-batch 0, and sums have the order that they have
 * without a schedule. */
int program_new_scheduled(struct program **out, struct graph *g, const char *name,
                          int micro_batches, const struct turn *turns, i64 n);

/* Whether that action is the update rather than a part of the passes. */
static inline bool program_updates(const struct program *p, i64 action)
{
    return p->segments[p->actions[action].segment].kind == SEGMENT_UPDATE;
}

/* Points the tensors of the action's segment that have slots to those of its micro-batch.
 * Before its tasks run; doing it twice does nothing. */
void program_enter(const struct program *p, const struct action *a);
/* One tensor alone, not its views. */
void tensor_enter_slot(struct tensor *owner, int slot);

/* The same for ROLE_AWAY; region has away_bytes. */
void program_bind_away(struct program *p, void *region);
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
