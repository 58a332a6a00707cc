/* parallel/tensor_parallel.h - matrices cut over ranks, and the rows between them.
 *
 * A model whose parameters are shares (model_part) builds a forward list with fewer heads and
 * hidden units, but sums that ranks do not yet share. This pass rewrites that list
 * (Shoeybi et al. 2019; sequence parallel: Korthikanti et al. 2022, section 4.2):
 *
 *   - what works row by row (norms, residual stream) gets a cut of the rows: T/n tokens of
 *     every sequence;
 *   - before a product whose weight is cut by rows, rows are gathered;
 *   - a product whose weight is cut by columns gives partial sums, which are summed and cut
 *     in one reduce_scatter; bias and residual are added after it;
 *   - the embedding looks up its share of the tables and is summed the same way;
 *   - cross-entropy exchanges one maximum and two sums per row, never logits.
 *
 * With more ranks than key-value heads the list has a gathering among those who share one already
 * (decoder.c).
 *
 * Backward needs no pass: gathering and scattering are each other's gradient. Parameters that
 * are not cut (gains, some biases) see only the rank's rows, so their gradients are
 * partial until data_parallel_reduce sums them. */
#ifndef HEADWAY_TENSOR_PARALLEL_H
#define HEADWAY_TENSOR_PARALLEL_H

#include "model/model.h"
#include "parallel/mesh.h"

/* Right after the forward list was built, for B sequences. Nothing where tp is 1; in exact mode
 * the same list without what ranks exchange, so that one rank sums as many do. */
int tensor_parallel(struct graph *g, const struct model *m, const struct mesh *mesh, i64 B);

/* The sum over ranks of a number that each has for its shares; `total` itself where tp is 1. */
struct tensor *tensor_parallel_total(struct graph *g, struct tensor *total,
                                     const struct mesh *mesh);

#endif
