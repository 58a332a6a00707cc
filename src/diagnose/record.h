/* diagnose/record.h - a run as it was recorded, one step at a time.
 *
 * record_open reads what RUN/trace holds: who took part, what programs they ran, and where each
 * step lies in the files. record_step then gives all spans of one step, of all ranks, on one
 * clock. Memory does not grow with the length of the run, but for an index of 48 bytes per rank
 * and step, and 32 per sample. The run may still be going on, may have been killed or resumed,
 * ranks may lack, files may be torn or damaged: what is sound is given, and `damage` says in
 * sentences what is missing. Only a folder without any sound part of a record is an error.
 *
 * A resumed run has several parts; a step that was taken twice is given as it was taken last. */
#ifndef HEADWAY_DIAGNOSE_RECORD_H
#define HEADWAY_DIAGNOSE_RECORD_H

#include "graph/program.h"
#include "trace/record.h"

/* --- what a step consists of -------------------------------------------------------- */

enum { RECORD_TOUCHES = TASK_INS + 1 };

enum record_task_flag {
    RECORD_RECOMPUTE = 1, RECORD_HEAD_TASK = 2, RECORD_FIRST_TURN = 4, RECORD_LAST_TURN = 8,
    RECORD_WAITS = 16, RECORD_SENDS = 32, RECORD_RECEIVES = 64,
    RECORD_UP = 128, /* of a send or receive: to the later stage */
    RECORD_WATCHES = 256, /* measures how learning goes, in some steps: not stored, read off the
                           * condition */
    RECORD_MEETS = 512, /* touches a tensor that some call touches: not stored either */
};

struct record_tensor { /* an owner: views are their owner */
    const char *name;
    i64 bytes;
    int slots; /* places of so many micro-batches: micro-batch i has place i % slots */
    i64 place; /* the first of these among those of all tensors that calls touch; -1: none does so.
                * Not stored: read off the tasks */
};

struct record_task {
    const char *op;
    u64 op_hash; /* of the name: not stored */
    u64 kind_hash; /* of op, dtype, FLOPs and bytes: tasks that do as much. Not stored */
    int layer; /* -1 outside the blocks */
    int phase; /* enum phase */
    int part;  /* which of the rank's pipeline stages */
    int lane;  /* enum lane */
    int dtype; /* enum dtype, of what it computes with or moves */
    int flags; /* enum record_task_flag */
    double flops, model_flops, read_bytes, written_bytes, message_bytes;
    int calls;    /* that a task of another lane makes */
    int boundary; /* of a send or receive: between stages boundary and boundary + 1; else -1 */
    int moved;    /* tensor whose contents are exchanged, or computed first; -1 */
    int n_reads, n_writes;
    i32 reads[RECORD_TOUCHES]; /* tensors, by index; with the condition, if there is one, first */
    i32 writes[TASK_OUTS];
    bool conditional; /* reads[0] is the condition */
};

struct record_segment {
    int kind; /* enum segment_kind */
    int part;
    i64 first, n; /* tasks */
};

struct record_table {
    const char *name; /* "step", "outer step" */
    i64 B, T;         /* rows and tokens of a micro-batch on this rank */
    int micro_batches;
    struct record_tensor *tensors;
    i64 n_tensors, n_places;
    struct record_task *tasks; /* by id */
    i64 n_tasks;
    struct record_segment *segments;
    i64 n_segments;
    struct action *actions;
    i64 n_actions;
    double flops, model_flops; /* of a whole step: all actions */
};

/* --- who took part ------------------------------------------------------------------ */

struct record_group {
    int n;
    const i32 *ranks; /* of the whole run, in order of members */
};

/* One rank, in one part of the run. */
struct record_head {
    int part;  /* index in record.parts */
    int rank, ranks;
    i64 island, pp, dp, cp, tp; /* coordinates */
    i64 of_islands, of_pp, of_dp, of_cp, of_tp, of_ep; /* degrees */
    i64 zero;
    const char *layout, *host, *backend, *processor, *precision;
    i64 pid;
    int threads, cores;    /* of this rank; that it may use */
    int sharers;           /* ranks that may use these same cores, itself included */
    double flops_f32, flops_bf16; /* FLOP/s of this rank's threads at best; 0: not measured */
    double memory_bytes_per_s, launch_s; /* likewise */
    const char *widest;    /* the backend that this processor runs fastest; "": not known */
    double widest_f32, widest_bf16; /* FLOP/s with it, likewise */
    u64 begin_ns;      /* when the process began, on its clock */
    double wall_begin; /* seconds since the epoch, then */
    struct record_group groups[LANE_COUNT]; /* n = 0: the axis has one rank */
    struct record_group *boundaries; /* [of_pp x chunks - 1]: {earlier, later}; n = 0: neither */
    int n_boundaries;
    struct record_table **tables; /* without tasks where one could not be read */
    int n_tables;
};

/* --- a step ------------------------------------------------------------------------- */

/* On the common clock: nanoseconds since the run's first part began. Parts follow each other by the
 * wall clock. */
struct record_span {
    i64 begin_ns, end_ns;
    const struct record_task *task; /* NULL where span_has_task(kind) is false */
    u32 task_id;
    u16 action;
    u8 lane, kind; /* enum trace_lane, enum span_kind */
    u32 step; /* loads of later steps lie in this step's window */
    u32 detail;
};

struct record_rank {
    const struct record_head *head;   /* NULL: this rank's spans are missing */
    const struct record_table *table; /* of the step's program */
    const struct record_span *spans;  /* by lane, and on a lane in order of their ends. Tasks are
                                       * those of the step, not of an evaluation behind it */
    i64 n_spans;
    i64 lane[TRACE_LANES + 1];        /* where each lane's spans begin, and end */
    bool rising;                      /* those of the lane that computes are in order of their
                                       * begins, too, but for empty ones: none lies in another */
    const struct record_span *outer;  /* of an outer step behind this one; n_outer 0: none */
    i64 n_outer;
    const struct record_table *outer_table;
    i64 begin_ns, end_ns;   /* of the step itself: its SPAN_STEP */
    i64 window_begin_ns, window_end_ns; /* with what was done since the step before: log,
                                         * evaluation, checkpoint. Windows follow each other */
    const struct sample *sample; /* NULL: none was taken, or */
    bool sample_lost;       /* it is damaged */
    bool incomplete;        /* spans were lost */
    int damaged;            /* chunks of spans that cannot be read */
};

/* Those of a lane, n of them. */
static inline const struct record_span *record_lane(const struct record_rank *k, int lane, i64 *n)
{
    *n = k->lane[lane + 1] - k->lane[lane];
    return *n > 0 ? k->spans + k->lane[lane] : NULL;
}

struct record_step {
    i64 step;
    int part;     /* index in record.parts */
    int n_ranks;
    struct record_rank *ranks; /* [n_ranks]: of the run's ranks in that part */
    int missing;  /* how many of them are NULL */
    bool apart;   /* ranks that meet in every step have no moment in common: a clock jumped, and who
                   * waited for whom is not known */
    i64 begin_ns, end_ns; /* from the first rank's begin to the last one's end */
    struct arena *arena; /* of all of it; reused by the next record_step into this struct */
};

struct record_event {
    i64 step;
    int rank;
    const char *kind; /* "slow step", "loss spike" ... */
    const char *text; /* a sentence */
};

struct record_part {
    i64 id;   /* wall clock of its begin, ns */
    int ranks;
    struct record_head **heads; /* [ranks], NULL where missing */
    i64 first_step, last_step;  /* that are there; last < first: none */
    i64 begin_ns, end_ns;       /* of what is recorded of it, with its start */
    i64 steps_ns;               /* when the first of these steps began, everywhere */
    i64 lost_ns; /* in steps that were taken again later, here or in a later part */
};

struct record {
    struct record_part *parts; /* in order of time */
    int n_parts;
    i64 *steps;   /* that any rank has, ascending, each once */
    i64 n_steps;
    const char **damage; /* sentences: what is missing or damaged */
    i64 n_damage;
    struct record_event *events; /* in order of steps */
    i64 n_events;
    i64 final_step; /* of a run that has ended, for who asks what a step takes: evaluations and
                     * checkpoints behind this one are done once, and its window ends before them.
                     * record_open sets -1: it does not */
    struct record_inside *inside;
};

/* folder: a run's, or its trace folder. ERR_CONFIG when it has no record, ERR_FORMAT when nothing
 * of it is sound. */
int record_open(struct record *r, const char *folder);
void record_close(struct record *r);
/* The same record for another thread, which reads with files of its own; closed before r is. */
int record_share(struct record *out, const struct record *r);

/* One of r->steps (ERR_CONFIG: it is not there). *out is all zero before its first use;
 * record_step_free ends its last. */
int record_step(struct record *r, i64 step, struct record_step *out);
void record_step_free(struct record_step *out);

/* What reading it has left in the system's memory goes. Pages here and there are islands: where all
 * of a file is read behind them, looking ahead ends at each, and half of the time is waiting. */
void record_step_forget(struct record *r, i64 step);

/* From the end of what was done before it to the end of what was done after it (evaluations, say),
 * of the rank that took longest: seconds of r->steps[index], from the index alone. */
double record_step_seconds(const struct record *r, i64 index);

/* What the spans of one of r->steps take in the files; 0: it is not there. */
double record_step_bytes(const struct record *r, i64 step);

/* How many ranks have spans of r->steps[index], from the index alone. */
int record_step_ranks(const struct record *r, i64 index);

/* Whether they have no moment in common (record_step.apart), from the index alone. */
bool record_step_apart(const struct record *r, i64 index);

/* Whether r->steps[index] is there only because a trigger kept it, after its neighbours went. */
bool record_step_kept(const struct record *r, i64 index);

/* Its tasks sleep as long as they would compute (headway train --compute none): what the system
 * counts of its threads says nothing of them. */
bool record_sleeps(const struct record_head *h);

#endif
