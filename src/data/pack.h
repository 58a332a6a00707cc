/* data/pack.h - rows made of whole documents, without dropping or padding a token.
 *
 * The stream of a split is cut into blocks of PACK_ROWS rows' worth of whole documents:
 * block k holds the documents that begin in tokens [k S, (k+1) S), S = PACK_ROWS T. A
 * block's tokens stay where they are in the stream; within the block its documents are
 * put in another order, different in each epoch, in which few of them straddle the ends
 * of rows (multiples of T):
 *
 *     a new row begins with a document drawn at random;
 *     then the longest that still fits, or a shorter one if another then fits exactly;
 *     when none fits, the longest of all is cut, and goes on in the next row.
 *
 * So a row is found from its number alone: its block by one search in the table of
 * documents, its contents by packing that block. Best-fit packing as usually done crops
 * documents (nanochat reports about 35 % of all tokens lost); here each token is used
 * exactly once per epoch, and only documents that are longer than the space left are cut. */
#ifndef HEADWAY_DATA_PACK_H
#define HEADWAY_DATA_PACK_H

#include "base/rng.h"
#include "data/dataset.h"

enum { PACK_ROWS = 128 };

/* A run of tokens of one document in a row. */
struct pack_piece {
    i64 from;   /* first token in the stream */
    i64 tokens;
    bool ends;  /* it reaches the document's end */
};

struct pack; /* scratch of one thread for rows of T tokens */

int pack_new(struct pack **out, i64 T);
void pack_free(struct pack *p);

/* Pieces of row `row` (tokens [row T, row T + T) of the packed order), at most T of them,
 * into out. key: of this source and epoch. */
int pack_row(struct pack *p, struct dataset_reader *r, const struct rng *key, i64 row,
             struct pack_piece *out, i64 *pieces);

#endif
