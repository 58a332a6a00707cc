/* data/row.h - one row of a micro-batch: tokens, targets, weights, borders.
 *
 * A data set is cut into windows of `window` tokens; the last one may be shorter. A row
 * is a window, or one of its equal parts while the sequence length is being ramped up.
 * Each token of the stream is an input once per epoch, and its target is what follows it
 * in its document; after a document's last token that is the separator (nothing, when
 * the data set has none). So all of a split's text is predicted, once.
 *
 * Weights: 1 where the target counts in the loss, else 0. With loss on answers only, a
 * target counts when its mask bit is set, and the separator after a document when the
 * document's last token counts. Places beyond the end of the stream have weight 0. */
#ifndef HEADWAY_DATA_ROW_H
#define HEADWAY_DATA_ROW_H

#include "data/dataset.h"
#include "data/pack.h"

/* The order of each is that of the recipe's choices (data.packing, data.border). */
enum row_packing { ROW_CONTIGUOUS, ROW_DOCUMENTS };
enum row_border { ROW_BORDER_STOP, ROW_BORDER_CROSS };

/* How all rows of a run are cut; constant. */
struct row_rule {
    i64 window;
    enum row_packing packing;
    enum row_border border;
    bool loss_on_answers;
    u32 vocab;              /* ids must be below it */
    const u16 *token_bytes; /* [vocab] bytes of text of each token; NULL: unknown */
};

/* Where a row goes: T places of each. */
struct row {
    i32 *tokens, *targets, *positions, *begin;
    float *weights;
};

/* What a row holds, for normalisation and for bits per byte. */
struct row_sums {
    double weight;
    i64 bytes; /* of the targets that count; 0 when token_bytes is NULL */
};

struct row_maker; /* scratch of one thread, for any data set */

/* Borrows the rule. */
int row_maker_new(struct row_maker **out, const struct row_rule *rule);
void row_maker_free(struct row_maker *r);

/* Windows in one epoch of a split. */
i64 row_windows(const struct dataset *d, i64 window);

/* Fills a row with tokens [first, first + T) of the window; key is that of the source and
 * epoch, and orders documents when they are packed. */
int row_fill(struct row_maker *r, struct dataset_reader *from, const struct rng *key,
             i64 window, i64 first, i64 T, const struct row *out, struct row_sums *sums);
/* A row of weight 0. */
void row_clear(const struct row *out, i64 T);

#endif
