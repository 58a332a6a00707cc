/* backend/cpu/attend.h - the forward pass of attention for some queries of one head.
 *
 * Queries are taken TILE_COLS at a time, a *panel*, with queries along the vector:
 *   S' = K Q'   (keys x queries)     K as it lies, Q transposed once
 *   P' = exp(scale S' - top)         maxima and sums run down columns: no lane crosses
 *   O' += V' P' (D x queries)        V as it lies, read across
 * over blocks of ATTEND_KEYS keys at absolute positions, ascending, with the running
 * maximum and sum of online softmax (Milakov & Gimelshein 2018; Dao et al. 2022). A query's
 * bits depend on the keys it may see and their positions alone: keys beyond are either
 * skipped, or masked and then add exact zeros. */
#ifndef HEADWAY_ATTEND_H
#define HEADWAY_ATTEND_H

#include "backend/cpu/kernels.h"
#include "backend/cpu/tile.h"

enum { ATTEND_QUERIES = 256, ATTEND_KEYS = 96 };

/* Queries 0 .. n-1; query i sees keys first[i] .. last[i]. Strides in elements. */
struct attend {
    bool half;
    i64 D, n;
    const void *q, *k, *v; /* of query 0, of key 0 */
    i64 q_row, k_row, y_row;
    void *y;
    float *lse; /* NULL: not wanted */
    const i32 *first, *last;
    float scale;
};

i64 NAMED(attend_bytes)(i64 D);
/* n <= ATTEND_QUERIES; scratch has attend_bytes, aligned to 64. */
void NAMED(attend)(const struct attend *a, void *scratch);

#endif
