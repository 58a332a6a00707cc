/* parallel/exact.h - sums whose bits no layout changes.
 *
 * Every sum of a step that some layout shares out is taken in an order that is a function of
 * the global step alone, on one rank as on many; what ranks have is then a subtree of it, and
 * comm's tree over the members of a group completes it. This pass sets these orders on the
 * finished gradient list; tensor_parallel prepares it (one rank runs the same list, without
 * the exchanges). Orders, with tree(n) = tree(n/2) + tree(n/2) for even n, ascending for odd:
 *
 *   over the sequences of a step (gradients of weights): tree(all sequences) by their number.
 *     A rank's are contiguous (layout_rows). Within a micro-batch the product sums a tree with a
 *     sequence per leaf; over micro-batches `carry` is a binary counter; over dp, comm; within
 *     groups of neighbours and then across them (layout.zero_group) is the same tree.
 *     With zero 2 and 3 a micro-batch's gradient leaves the rank at once, so that the sum
 *     over ranks comes before that over micro-batches. There the ranks that split take
 *     turns instead: their i-th micro-batches lie side by side, B sequences of each, and
 *     the tree is again that of the sequences. `carry` counts slices in
 *     (data_parallel.c). Copies of these ranks come last. Ranks that share experts (ep)
 *     take turns in the same way, whatever zero is: an expert's product has the rows of
 *     all of them.
 *   over an expert's rows: a leaf has those of a sequence, often few or none (expert_linear.c), in
 *     the order of tokens; then as above. Rows of leaves of an odd number go through one chain.
 *   what a token's experts made of it: slot by slot, as ever. What a router sums (over
 *     the tokens of a sequence) never leaves a rank, and with exact_context is
 *     tree(8 pairs), which cp completes; tokens per expert are whole numbers.
 *   over tokens of a sequence: ascending, for matrices. For vectors, whose gradient a rank with
 *     sequence parallel sees part of: 16 leaves of T/16 tokens (fewer where 16 does not divide).
 *   over heads, hidden units, the vocabulary (what tp cuts): 8 leaves, or the largest of 1, 2, 4,
 *     8 that divides; leaf j of a fused weight is the j-th part of each of its pieces. Partial
 *     sums are f32 and rounded once. Bias and residual are added behind the tree.
 *     Where key-value heads are fewer, each of these leaves has its copy of one
 *     (decoder_head_copies), and the gradient of the head is a tree over its copies, each
 *     rounded before as gradients are.
 *   over the exponentials of a row: the same 8 leaves of the vocabulary.
 *   gradient of a tied embedding: that of the head, and that of the embedding, each summed over
 *     the whole step, then added.
 *   stages of a pipeline share no sum but a tied embedding's two parts.
 *   Muon's products are of whole matrices, on one rank (orthogonal.h).
 *   loss, and what routers did: terms are multiples of 2^-24; squares of the norm: whole
 *     numbers. Any order will do.
 *
 * With layout.exact_context, which cp needs (and the one rank beside it too), tokens of a row lie
 * as 8 pairs of 16 leaves, pair k being leaf k, then leaf 15 - k (ops/zigzag.h): with 2, 4 or 8
 * ranks along cp each has a subtree. A step has a power of two of rows. Its other orders:
 *
 *   over tokens of a sequence: tree(8 pairs), ascending within; for vectors, tree(64 leaves) of
 *     that order (fewer where T has fewer). Over sequences as above: so cp sums each row's gradient
 *     before any other is added, and a rank along cp takes one row per micro-batch.
 *     Experts over ep: leaves of an expert's rows are pairs, so a product is the subtree
 *     of the tokens of its group. Of a group that is a part of a row (1 < ep < cp) those
 *     with the same experts sum the rest of the row (mesh_row_lane); one that is several
 *     rows (ep > cp) takes turns with these, and sums all other gradients of their tokens
 *     and rows together.
 *   a query's sums over keys: as in whole rows, all keys in order. ring gathers them over cp then,
 *     instead of sending them around; ulysses has them anyway.
 *   sums over queries, of a key's gradient: tree(8 pairs), within a pair over the heads of a group
 *     and over tokens ascending. dk is scaled, partial sums are f32 and rounded once.
 *
 * Rounding: each sum still has fewer roundings in a row than the plain one. Between instruction
 * sets bits differ as ever: all ranks must use the same. The reference backend, which sums in
 * double, is not exact. */
#ifndef HEADWAY_EXACT_H
#define HEADWAY_EXACT_H

#include "model/model.h"
#include "parallel/mesh.h"

enum { EXACT_LEAVES = 8, EXACT_TOKEN_LEAVES = 16, EXACT_CONTEXT_LEAVES = 64 };

struct exact {
    const struct model *m;
    const struct mesh *mesh;
    i64 B, T; /* sequences of a rank's micro-batch, tokens of a whole one */
    int micro_batches;
    struct tensor *apart; /* gradient of a tied embedding by itself; set by exact_sums */
};

/* Tokens of a leaf of sums over a step's tokens, of rows of T; 0: the layout is not exact. */
i64 exact_leaf(const struct layout *l, i64 T);

/* Largest of 1, 2, 4, 8 ... up to most that divides n. */
i64 exact_leaves(i64 n, i64 most);

/* Right after graph_backward, or after a forward list that has none. Nothing, like
 * exact_join, where the layout is not exact. An op that sums and that this pass does
 * not know is an error. */
int exact_sums(struct graph *g, struct exact *x);

/* Right before the update: the parts of gradients that were kept apart come together. */
int exact_join(struct graph *g, const struct exact *x);

#endif
