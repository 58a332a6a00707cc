/* parallel/context_parallel.h - rows of tokens cut over ranks, for sequences too long for one.
 *
 * Everything but attention works token by token, so a rank that has a part of each row (two chunks,
 * ops/zigzag.h) builds an ordinary list for its own tokens. This pass rewrites the attention
 * tasks of that list, for n ranks along the axis:
 *
 *   ulysses  (Jacobs et al. 2023) heads are exchanged for tokens: each rank computes an n-th of
 *            the heads over whole rows, between two all_to_all.
 *   ring     (Liu et al. 2023) keys and values go around: a rank's queries meet one part of the
 *            row after the other (attention_block), and the next part is on its way meanwhile.
 *
 * Backward needs no pass: the gradient of all_to_all is all_to_all; that of a chain of blocks
 * sends the keys' gradients back around the ring, in f32. begin is gathered once per micro-batch
 * for ulysses; the ring needs it for its own queries only.
 *
 * With layout.exact_context sums keep the order of one rank (parallel/exact.h): tokens
 * lie in pairs of chunks and are put in order around attention, also on one rank, and
 * instead of a ring each rank gathers the keys and values of whole rows, whose gradients
 * are scattered back in f32. That sends forward r a B T 2 k, backward r 4 B T 2 k, and
 * each row's gradient of the weights once over cp (of experts over ep: over those of a
 * row with the same; with ep > cp over ep instead, but for zero 2, 3).
 *
 * Of sparse layers, ranks sum what their routers did with their parts of the rows, once
 * per layer and micro-batch: 2 r 4 B (2 E + 1) bytes for E experts. With a capacity they
 * gather the choices too.
 *
 * Bytes that a rank sends, per layer and micro-batch of B rows of T tokens, with
 * (n-1)/n = r, a bytes of an activation, h and k the columns of queries and of keys here
 * (k = h for plain multi-head attention; both are shares where tp cuts heads; a whole
 * head where ranks share one, and with layout.exact all copies of its leaves):
 *
 *   ulysses  forward r a B (T/n) (2 h + 2 k), backward the same; once r 4 B T for begin
 *   ring     forward r a B T 2 k; backward r 4 B T 2 k for the gradients, and the forward's once
 *            more where the parts that came around are not kept (recompute other than none:
 *            else n - 1 parts of each layer's keys and values stay) */
#ifndef HEADWAY_CONTEXT_PARALLEL_H
#define HEADWAY_CONTEXT_PARALLEL_H

#include "parallel/mesh.h"

/* After tensor_parallel, on a forward list for a rank's own tokens. Nothing where cp
 * is 1 and sums need no order for it. */
int context_parallel(struct graph *g, const struct mesh *mesh);

/* Tokens of a row of T that a rank has. */
i64 context_tokens(const struct mesh *mesh, i64 T);

#endif
