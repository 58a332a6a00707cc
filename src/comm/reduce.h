/* comm/reduce.h - sums and maxima in one fixed order.
 *
 * Element i of out is a binary tree over in[0][i], in[1][i], ...: neighbours first, then
 * pairs of neighbours; a rest without partner waits for the next level. So it depends on
 * the inputs and on n alone: not on how a buffer was cut into parts, nor on who computes. */
#ifndef HEADWAY_COMM_REDUCE_H
#define HEADWAY_COMM_REDUCE_H

#include "base/dtype.h"
#include "comm/comm.h"

bool comm_can_reduce(enum dtype d);

/* out may be one of the inputs, but not overlap one otherwise. A maximum with NaN is NaN.
 * 1 <= n <= 65536. */
void comm_reduce_tree(enum dtype d, enum comm_reduce op, int n, const void *const *in,
                      void *out, i64 count);

#endif
