/* parallel/schedule.h - who computes what in which order in a pipeline, as data.
 *
 * The layers of a model are cut into *stages*. A rank holds one stage or several (its
 * chunks). For each micro-batch every stage runs
 *
 *     F   forward
 *     I   gradients of its input: what the stage before waits for
 *     W   gradients of its weights: may be put off
 *     B   I and W at once, in schedules that do not tell them apart
 *
 * A schedule lists for every rank its actions in order. Generators emit computing only;
 * schedule_add_moves adds what ranks send each other; schedule_check proves a schedule, whoever
 * made it; schedule_time says how long it takes and what it keeps. The step's program
 * (pipeline.h) is made from the same lists, so what was proved and priced is what runs.
 *
 * Within a stage, F, I and W each go through the micro-batches in ascending order: sums over
 * micro-batches then have the order that one rank gives them.
 *
 * Pure data: no ranks, no tensors. */
#ifndef HEADWAY_PARALLEL_SCHEDULE_H
#define HEADWAY_PARALLEL_SCHEDULE_H

#include "base/arena.h"
#include "base/base.h"

enum schedule_op {
    SCHEDULE_F, SCHEDULE_I, SCHEDULE_W, SCHEDULE_B,
    SCHEDULE_SEND_F, /* the stage's output to the next stage */
    SCHEDULE_RECV_F, /* its input from the stage before */
    SCHEDULE_SEND_B, /* its input's gradient to the stage before */
    SCHEDULE_RECV_B, /* its output's gradient from the next stage */
    SCHEDULE_OPS
};

struct schedule_action {
    enum schedule_op op;
    int stage, micro_batch;
};

struct schedule_list {
    struct schedule_action *actions;
    i64 n, capacity;
};

struct schedule {
    int ranks, stages, micro_batches;
    int *rank_of;                /* [stages] */
    struct schedule_list *lists; /* [ranks] */
    struct arena *arena;
};

enum { SCHEDULE_MOST_RANKS = 1024, SCHEDULE_MOST_STAGES = 4096, SCHEDULE_MOST_BATCHES = 65536 };

/* --- generators: computing only ----------------------------------------------------- */

enum schedule_kind {
    SCHEDULE_GPIPE,       /* Huang et al. 2019: all F, then all B */
    SCHEDULE_1F1B,        /* Narayanan et al. 2019 (PipeDream-flush): F and B in turns */
    SCHEDULE_INTERLEAVED, /* Narayanan et al. 2021, section 2.2: the same with chunks */
    SCHEDULE_ZB_H1,       /* Qi et al. 2024, section 2.3: W fills the bubbles of 1F1B */
    SCHEDULE_ZB_V,        /* Qi et al. 2024 (controllable memory), two chunks in a V */
    SCHEDULE_KINDS
};
/* "gpipe", "1f1b", "interleaved", "zb-h1", "zb-v" */
const char *schedule_kind_name(enum schedule_kind kind);
/* SCHEDULE_KINDS when there is none of that name. */
enum schedule_kind schedule_kind_of(const char *name);
/* Chunks per rank that it needs at least, and at most (0: any number). */
int schedule_least_chunks(enum schedule_kind kind);
int schedule_most_chunks(enum schedule_kind kind);

/* ERR_CONFIG when the numbers do not suit the kind: chunks, or for interleaved, micro_batches
 * that are no multiple of the ranks. */
int schedule_new(struct schedule *out, enum schedule_kind kind, int ranks, int chunks,
                 int micro_batches, struct arena *a);

/* A forward pass alone, for evaluation: each micro-batch through the rank's stages in their
 * order. rank_of: [stages]. */
void schedule_new_forward(struct schedule *out, int ranks, int stages, const int *rank_of,
                          int micro_batches, struct arena *a);

/* Rank of each stage: round and round, or for ZB-V there and back. */
int schedule_place(enum schedule_kind kind, int ranks, int stage);

/* Adds sends right behind what makes the data, and receives before the computing that needs
 * them, `ahead` computing actions early so that data travel meanwhile. Between stages of one
 * rank nothing moves. */
void schedule_add_moves(struct schedule *s, int ahead);

bool schedule_moves(const struct schedule *s); /* it has sends or receives */
bool schedule_splits(const struct schedule *s); /* it has I and W rather than B */

/* --- proof -------------------------------------------------------------------------- */

/* ERR_CONFIG with one sentence unless every stage runs F and either B or I and W exactly once
 * for each micro-batch, on its own rank, in ascending and causal order; every send has its
 * receive, in the same order per pair of ranks; and nobody waits for ever. Moves are taken to
 * be a rendezvous: a send ends when its receive was begun, and a stage does not compute its
 * next output before its last one has left. A schedule without moves is judged by what
 * depends on what. */
int schedule_check(const struct schedule *s);

/* --- price -------------------------------------------------------------------------- */

/* Seconds, or any other unit, of one stage and micro-batch. */
struct stage_time {
    double F, I, W;
};

struct rank_time {
    double busy, idle; /* of the whole step */
    double peak;       /* micro-batches whose activations are here at once: between F and W, a
                        * stage's weighs one over the rank's number of stages */
};

struct schedule_time {
    double length;           /* from the first begin to the last end */
    double bubble;           /* idle share of all ranks' time */
    struct rank_time *ranks; /* [ranks] */
    double **begin, **end;   /* [ranks][n]; moves: both when what they wait for is there */
};

/* times: [stages]. Data need `latency` from rank to rank and nothing within one. The
 * schedule has been checked. */
void schedule_time(const struct schedule *s, const struct stage_time *times, double latency,
                   struct schedule_time *out, struct arena *a);

/* --- text --------------------------------------------------------------------------- */

/* One line per rank, cells like 0F3 (stage, op, micro-batch) or 1SEND_B2, separated by commas;
 * empty cells mean nothing. The notation that PyTorch's schedules have. */
struct text;
void schedule_write_csv(const struct schedule *s, struct text *out);
/* `where` begins messages. A stage is on the rank whose line computes it; the number of
 * micro-batches follows from the cells. Checked before it is returned. */
int schedule_read_csv(struct schedule *out, const char *text, const char *where,
                      struct arena *a);
int schedule_read_file(struct schedule *out, const char *path, struct arena *a);

/* "1SEND_B2" */
enum { SCHEDULE_CELL = 40 };
void schedule_cell(const struct schedule_action *a, char out[SCHEDULE_CELL]);

/* A picture: one row per rank, time to the right, at most `columns` characters wide. */
void schedule_chart(const struct schedule *s, const struct schedule_time *t, int columns,
                    struct text *out);
void schedule_chart_svg(const struct schedule *s, const struct schedule_time *t,
                        const char *title, struct text *out);

#endif
