/* data/vocab_map.h - from the bytes of a token to its id. */
#ifndef HEADWAY_DATA_VOCAB_MAP_H
#define HEADWAY_DATA_VOCAB_MAP_H

#include "base/arena.h"

struct vocab_map {
    struct vocab_slot *slots; /* open addressing, at most half full */
    u64 mask;
};

/* Room for `most` entries. Keys are borrowed and must outlive the map. raw keeps apart
 * what happens to have the same bytes: see struct draft_token. */
void vocab_map_init(struct vocab_map *m, struct arena *a, i64 most);
/* The id that is there already, or -1 after adding. */
i32 vocab_map_add(struct vocab_map *m, const u8 *bytes, i64 length, bool raw, i32 id);
/* -1 when there is none. */
i32 vocab_map_find(const struct vocab_map *m, const u8 *bytes, i64 length, bool raw);

#endif
