/* data/hash_set.h - which documents were seen, by the 64-bit hash of their text.
 *
 * About 12 to 24 bytes per document. Two different documents among 100 million share a
 * hash with probability 3e-4; one of them is then dropped as a duplicate. */
#ifndef HEADWAY_DATA_HASH_SET_H
#define HEADWAY_DATA_HASH_SET_H

#include "base/base.h"

struct hash_set {
    u64 *slots; /* 0: empty */
    i64 capacity, count;
};

/* *fresh: it was not there. ERR_LIMIT when there is no memory. */
int hash_set_add(struct hash_set *s, u64 hash, bool *fresh);
void hash_set_fini(struct hash_set *s);

#endif
