/* parallel/layout.h - how a training step is spread over ranks.
 *
 * A layout is data: a degree per axis and a few choices. It changes how a step is computed,
 * never which step: the recipe's batch is the batch of all ranks together. The axes of
 * the mesh, outermost first (`order` has pp, dp with cp, and tp otherwise):
 *
 *     islands  the ranks of each take steps of their own and meet now and then (islands.h)
 *     pp   pipeline: every rank has other layers; micro-batches pass through them
 *     dp   data: every rank has other rows of the batch
 *     cp   context: every rank has a part of the tokens of these rows (ops/zigzag.h)
 *     tp   tensor: matrices are cut; between them rows are (sequence parallel)
 *
 * ep is no axis of its own: of the ranks along dp (and cp), groups of ep neighbours share the
 * experts of sparse layers out, and send each other's rows there (expert parallelism).
 *
 * Pure arithmetic and texts: it talks to no one. */
#ifndef HEADWAY_LAYOUT_H
#define HEADWAY_LAYOUT_H

#include "base/option.h"
#include "base/recipe.h"
#include "model/spec.h"

/* What is split over the ranks of the data axis besides rows (Rajbhandari et al. 2020). */
enum zero_stage {
    ZERO_NONE,     /* nothing */
    ZERO_OPTIMIZER, /* moments: each rank updates its slice of the weights */
    ZERO_GRADIENTS, /* and keeps its slice of the gradients only */
    ZERO_WEIGHTS    /* and of the weights; those of a layer are gathered while they are used */
};

/* How attention gets at the tokens of other ranks: parallel/context_parallel.h. */
enum cp_kind { CP_RING, CP_ULYSSES };

/* When gradients are summed over dp: as soon as a layer's are ready, or when all are. */
enum layout_sums { SUMS_READY, SUMS_END };

/* Axes whose order is a choice; cp lies within dp. */
enum layout_axis { AXIS_TP, AXIS_ROWS, AXIS_PP, LAYOUT_AXES };

struct layout {
    i64 islands, pp, dp, cp, tp;
    i64 ep; /* divides dp cp */
    int cp_kind; /* enum cp_kind */
    i64 zero; /* enum zero_stage */
    i64 zero_group; /* ranks that split it: so many neighbours along dp and cp; 0: all */
    i64 bucket; /* bytes: largest message of a gradient's sum over dp; 0: a layer's */
    int sums;   /* enum layout_sums */
    bool exact; /* the bits of one rank: parallel/exact.h */
    bool exact_context; /* its sums over tokens are such that cp can share them */
    i64 chunks;           /* pipeline stages per rank; 0: as few as the schedule needs */
    const char *schedule; /* enum schedule_kind by name, or a file that ends in .csv */
    const char *stages;   /* "3+5+4": layers of each stage; NULL: evenly */
    int order; /* which axis has neighbours in rank order: one of LAYOUT_ORDERS */
    bool priced;          /* nobody runs it: what ranks cannot do yet, but whose tasks are
                           * those that they would have, is let through */
};

/* Innermost first, as they are written; the first is the usual one. */
enum { LAYOUT_ORDERS = 6 };
extern const char *const layout_orders[LAYOUT_ORDERS];
/* How far apart ranks are that are neighbours along the axis; of AXIS_ROWS, along cp, or along dp
 * where cp is 1. Islands lie outside of all. */
i64 layout_stride(const struct layout *l, enum layout_axis axis);

/* Keys "layout.dp" and so on, bound to struct layout. */
extern const struct option layout_options[];

struct layout layout_single(void);
/* Ranks that it needs. */
i64 layout_ranks(const struct layout *l);

/* "dp=2,tp=2,zero=1": sets these keys, each once. `where` begins messages ("--layout"). */
int layout_parse(struct layout *l, const char *text, const char *where, struct arena *a);
/* The same text back, axes of one left out; "single" for one rank. */
const char *layout_text(const struct layout *l, struct arena *a);

/* Pairs of chunks in which a rank's part of a row lies (ops/zigzag.h). */
enum { EXACT_PAIRS = 8 }; /* of a whole row */
i64 layout_pairs(const struct layout *l);

/* What a rank computes of the rows of one step. */
/* Whether so many ranks get equally many rows of a step's micro-batches of B rows. */
bool layout_rows_fit(i64 islands, i64 dp, i64 B, int micro_batches);

struct layout_rows {
    i64 B;             /* rows of a micro-batch */
    int micro_batches; /* per step */
    i64 first;         /* this rank's first row among the step's */
    i64 stride;        /* from there to the first of the next micro-batch: B where they follow */
};

/* rows: micro_batches x B of the recipe, which fit (layout_check); islands have as many each.
 * row_rank: island x dp + dp_rank, as in the mesh. */
struct layout_rows layout_rows(const struct layout *l, i64 B, int micro_batches, i64 row_rank);
/* first and stride, where B and micro_batches of a rank are known. */
void layout_place_rows(const struct layout *l, struct layout_rows *rows, i64 row_rank);

/* Ranks that share gradients and what zero splits: those along dp and cp; with exact_context those
 * along dp, since cp sums each row's gradient before. */
i64 layout_sharers(const struct layout *l);
/* Those of them that split what zero splits. */
i64 layout_split_ranks(const struct layout *l);
/* Of a group of ep, those with other rows: all of it, or with exact_context, where cp
 * cuts rows and is no part of the sharers, what ep has of dp. Groups lie within a row
 * first. */
i64 layout_expert_rows(const struct layout *l);
/* With exact_context, ranks with other tokens of the same rows and the same experts; else 1. */
i64 layout_expert_twins(const struct layout *l);
/* Neighbours whose rows take turns, micro-batch by micro-batch, because they sum over
 * each other before they sum over micro-batches, in an order that is that of the rows
 * (exact.h); 1: none do. */
i64 layout_turn_takers(const struct layout *l);

/* Refuses a layout that does not fit the ranks, the model or the batch, and says what would.
 * micro_batches: every number that occurs during the run must be passed once. */
int layout_check(const struct layout *l, const struct model_spec *s, i64 ranks, i64 B, i64 T,
                 int micro_batches);

#endif
