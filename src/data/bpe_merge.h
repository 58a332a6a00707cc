/* data/bpe_merge.h - byte-pair merges of one piece of text.
 *
 * The rule with the lowest rank (its place in the list) goes first, leftmost first among
 * equals, until no rule applies. Short pieces are scanned; long ones use a linked list
 * and a heap, so that n symbols take O(n log n) whatever they are. */
#ifndef HEADWAY_DATA_BPE_MERGE_H
#define HEADWAY_DATA_BPE_MERGE_H

#include "base/arena.h"
#include "data/buffer.h"

struct bpe_rule {
    i32 left, right, result; /* token ids */
};

struct bpe_table {
    struct bpe_slot *slots; /* open addressing; the pair decides the place */
    u64 mask;
};

/* Of two rules for one pair the later one counts, as in Hugging Face's tokenizers. */
void bpe_table_init(struct bpe_table *t, struct arena *a, const struct bpe_rule *rules,
                    i64 count);

/* The rank of a pair's rule; INT32_MAX when there is none. */
i32 bpe_table_rank(const struct bpe_table *t, i32 left, i32 right);

struct bpe_scratch {
    struct buffer nodes, heap;
};
void bpe_scratch_fini(struct bpe_scratch *s);

/* Merges ids[0, *count) in place. Pre: *count < 2^31. */
int bpe_merge(const struct bpe_table *t, struct bpe_scratch *s, i32 *ids, i64 *count);

#endif
