/* data/loader.h - micro-batches for a run, read ahead of the compute lane.
 *
 * The order of a run has no state but one number, the *position*: how many places (rows
 * times sequence length) were served before. From it everything follows:
 *
 *     window  g = position / window tokens          (the global sample index)
 *     source, n = mixture(g)                        (mixture.h)
 *     epoch   = n / windows of the source, and its (n mod windows)-th draw from a
 *               permutation keyed by (seed, source's name, epoch)
 *     row     = the window's tokens, or packed documents (row.h, pack.h)
 *
 * so it cannot depend on how many threads read. While the sequence length T is ramped up,
 * windows are split evenly: T must divide `window`, and rows of one window follow each
 * other. When T changes, the position is rounded up to a multiple of the new T.
 *
 * Use: loader_open, loader_seek to a checkpoint's cursor, then per step loader_start_step
 * (waits until the step's rows are there; an error comes out here, before anything was
 * computed) and the program, whose load_batch tasks run loader_kernel. A step's rows are
 * prepared together, because inv_weight needs the weights of all its micro-batches. The
 * next steps are read ahead on the guess that they have the same shape.
 *
 * One thread calls; the reading threads are inside. Nothing is allocated per step once
 * the largest step has been seen. */
#ifndef HEADWAY_DATA_LOADER_H
#define HEADWAY_DATA_LOADER_H

#include "backend/backend.h"
#include "data/row.h"

enum { LOADER_SOURCES = 64 };

struct loader_source {
    const char *name; /* NULL: the path's last part, or what loader_source_name says */
    const char *path;
    double weight;     /* 0: in proportion to its tokens */
    double max_epochs; /* 0: no limit */
    i32 separator;     /* token that begins documents, for files that do not say; -1 */
};

struct loader_config {
    const struct loader_source *sources;
    i64 n_sources;
    i64 window; /* longest sequence length */
    u64 seed;
    enum row_packing packing;
    enum row_border border;
    bool loss_on_answers;
    u32 vocab;              /* of the model */
    u64 tokenizer_hash;     /* 0: not compared */
    const u16 *token_bytes; /* [vocab] text bytes; NULL: loader_step_bytes is 0 */
    int threads;            /* that read; 0: 1 */
    int steps_ahead;        /* 0: 1 */
    struct trace *trace; /* may be NULL */
    const struct inject *inject; /* what is disturbed on purpose; NULL: nothing */
};

struct loader;

/* What loading has cost so far, and what the current step's rows here are. Sums only grow. */
struct loader_counts {
    i64 read_bytes, used_bytes; /* of tokens that were asked of files; that steps have taken */
    u64 busy_ns, cpu_ns;        /* of the reading threads in making rows: by the clock, computing */
    i64 ready, ahead, threads;  /* steps that lay ready when the last one was asked for; can lie */
    i64 tokens, idle, documents; /* of the step; those that no counted target depends on, behind the
                                  * last one of their document; parts of documents */
    double attended;            /* pairs of tokens that attend to each other */
};

/* The training split of every source. */
int loader_open(struct loader **out, const struct loader_config *c);
/* The validation split of every source, each token once in the order of the files, always
 * contiguous; at most about max_tokens of it (0: all), evenly spread windows. Rows beyond
 * the end have weight 0. */
int loader_open_eval(struct loader **out, const struct loader_config *c, i64 max_tokens);
void loader_close(struct loader *l); /* NULL is fine */

/* --- one step ----------------------------------------------------------------------- */

struct loader_step {
    u64 step; /* for spans */
    int micro_batches;
    i64 B, T;
    /* Where ranks share a step: its rows on all of them, which of them is the first here, and how
     * far apart those are that begin our micro-batches (0: B). 0 rows: all are ours. */
    i64 all_rows, first_row, stride;
    /* Where each row is cut over ranks (ops/zigzag.h): into how many parts, and which of them the
     * micro-batches hold; at most 1: rows are whole. T is still the whole row's, and all of a
     * row is read; its bytes and weight count for part 0 only: sums over ranks are right. */
    i64 cut, part;
    i64 pairs; /* of chunks in which a part lies, cut or not; 0: one */
};

/* Makes the next step's micro-batches current. The time waited is a span in c->trace.
 * Errors: ERR_FORMAT or ERR_SYS for shards, ERR_LIMIT when all sources reached their
 * caps, ERR_CONFIG when T does not divide the window. After an error the position is
 * unchanged. */
int loader_start_step(struct loader *l, const struct loader_step *s);
/* The same step of rows that count in nothing: for a rank that lacks its rows where others need it
 * all the same. */
int loader_start_blank(struct loader *l, const struct loader_step *s);
/* True when the sources' caps leave no room for this step: the end of the data, no fault. */
bool loader_ended(struct loader *l, const struct loader_step *s);
/* For backend_set(&backend, &op_load_batch, loader_kernel(l)). */
struct kernel loader_kernel(struct loader *l);

void loader_get_counts(struct loader *l, struct loader_counts *out);
/* Bytes that steps up to this size will take to read ahead. */
i64 loader_bytes(const struct loader *l, const struct loader_step *largest);

/* Of the current step: text bytes of its counted targets, per source; sum of weights;
 * nanoseconds that loader_start_step waited. */
const i64 *loader_step_bytes(const struct loader *l);
double loader_step_weight(const struct loader *l);
/* The weight of all ranks' rows together, where they share the step: what losses and
 * gradients are divided by. Between loader_start_step and the program. */
void loader_set_weight(struct loader *l, double weight);
u64 loader_wait_ns(const struct loader *l);

struct loader_origin {
    i64 sample; /* global index: position / window */
    const char *source;
    i64 window; /* of the source's split: tokens [window x longest length, ...) */
};

/* The sources that the current step's last sample is chosen among, a bit for each: other ones than
 * before when one has reached its cap or is skipped. The same on all ranks that share the step. */
u64 loader_mix(const struct loader *l);

/* Where a row of the current step comes from; rows count through its micro-batches. */
void loader_origin(const struct loader *l, i64 row, struct loader_origin *out);

/* --- where the run is --------------------------------------------------------------- */

/* All that a checkpoint keeps. limit[s] counts windows of source s when it was skipped, else it is
 * INT64_MAX: caps are the recipe's, which may have others when the run goes on. */
struct loader_cursor {
    i64 position;
    i64 limit[LOADER_SOURCES];
};

/* Of the next step. */
void loader_get_cursor(const struct loader *l, struct loader_cursor *out);
int loader_seek(struct loader *l, const struct loader_cursor *cursor);
/* Only the position; limits stay. */
int loader_seek_position(struct loader *l, i64 position);

/* Places that all sources together can serve; INT64_MAX without caps. For evaluation: the
 * places that hold the whole split (or its chosen part). */
i64 loader_places(const struct loader *l);

/* The source whose text could not be read when loader_start_step failed last; -1: none. */
i64 loader_failed_source(const struct loader *l);
/* From the next step on only the other sources give text, as far as their caps allow.
 * Ranks that share a step call it at the same position for the same source, or their rows
 * are of different steps. In an evaluation, seek before the next step. */
void loader_leave_out(struct loader *l, i64 source);
/* Whether it has text to give from here on: it is within its cap, and was not left out. */
bool loader_gives(const struct loader *l, i64 source);

i64 loader_sources(const struct loader *l);
/* No two of those without a name given have one that another source has: where their paths
 * end alike, it is the whole path, with a number where that is equal too. */
const char *loader_source_name(const struct loader *l, i64 source);
const struct dataset *loader_dataset(const struct loader *l, i64 source);
/* Share of the samples at the start. */
double loader_weight(const struct loader *l, i64 source);
/* Passes over it so far. */
double loader_epochs(const struct loader *l, i64 source);

#endif
