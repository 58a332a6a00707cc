/* data/bpe_learn.h - from words and their counts to merge rules.
 *
 * Counts of pairs are kept up to date incrementally: each pair knows the words it occurs
 * in, and a heap gives the most frequent one (Sennrich et al. 2016, with the usual
 * bookkeeping). Exact: after every merge the next pair is the true maximum. */
#ifndef HEADWAY_DATA_BPE_LEARN_H
#define HEADWAY_DATA_BPE_LEARN_H

#include "data/bpe_merge.h"
#include "data/bpe_train.h"
#include "data/word_table.h"

struct bpe_learn {
    const struct word_table *words;
    i64 min_count;
    i32 byte_id[256];
    i32 first_id;  /* of the first new token */
    i64 new_tokens; /* at most */
    /* Called for every rule in order; returns the id of what it makes: next, or that of a
     * special token with the same bytes. Negative: an error, learning stops. */
    i32 (*learnt)(void *context, i32 left, i32 right, i32 next);
    void *context;
};

int bpe_learn(const struct bpe_learn *in);

#endif
