/* ops/zigzag.h - which tokens of a row a rank has when a row is cut over ranks.
 *
 * A row of T tokens is cut into 2 n chunks; part i of n has chunks i and 2 n - 1 - i, in this
 * order. Under a causal mask a late chunk has more keys to look at than an early one, so every
 * part has equally much to do. One part has the row as it is.
 *
 * A part can be cut finer: in pairs, each of which is a part of so many parts more. Its tokens then
 * lie pair by pair, and those of all parts, one behind the other, in one order that does not
 * depend on how many parts there are.
 *
 * Pure arithmetic, shared by data, ops and passes. */
#ifndef HEADWAY_ZIGZAG_H
#define HEADWAY_ZIGZAG_H

#include "base/base.h"

struct zigzag {
    i64 chunk;     /* tokens of each of the two */
    i64 low, high; /* where in the row they begin */
};

/* Part `part` of `parts` of a row, of which `tokens` are here. */
static inline struct zigzag zigzag_part(i64 parts, i64 part, i64 tokens)
{
    i64 chunk = parts == 1 ? tokens : tokens / 2;
    return (struct zigzag){ chunk, part * chunk, (2 * parts - 1 - part) * chunk };
}

/* Place in the row of the i-th token here. */
static inline i64 zigzag_place(const struct zigzag *z, i64 i)
{
    return i < z->chunk ? z->low + i : z->high + i - z->chunk;
}

/* The same where a part of `tokens` lies in `pairs` pairs of chunks. */
static inline i64 zigzag_pair_place(i64 parts, i64 part, i64 pairs, i64 tokens, i64 i)
{
    const i64 here = tokens / pairs;
    const struct zigzag z = zigzag_part(parts * pairs, part * pairs + i / here, here);
    return zigzag_place(&z, i % here);
}

/* Where the token at this place of a row of T lies in that order, of so many pairs in all. */
static inline i64 zigzag_row_at(i64 pairs, i64 T, i64 place)
{
    const i64 chunk = pairs == 1 ? T : T / pairs / 2, q = place / chunk, last = 2 * pairs - 1;
    if (pairs == 1)
        return place;
    return (q < pairs ? 2 * q : 2 * (last - q) + 1) * chunk + place % chunk;
}

/* How many of the tokens here stand before this place of the row. */
static inline i64 zigzag_before(const struct zigzag *z, i64 place)
{
    return i64_max(0, i64_min(place - z->low, z->chunk)) +
           i64_max(0, i64_min(place - z->high, z->chunk));
}

#endif
