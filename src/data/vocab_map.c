#include "data/vocab_map.h"

#include "base/hash.h"

#include <string.h>

struct vocab_slot {
    const u8 *bytes; /* NULL: empty */
    u32 length_raw;  /* length * 2 + raw */
    i32 id;
};

static struct vocab_slot *slot_of(const struct vocab_map *m, const u8 *bytes, i64 length,
                                  bool raw)
{
    u32 length_raw = (u32)length * 2 + raw;
    for (u64 i = hash64(bytes, length, raw) & m->mask;; i = (i + 1) & m->mask) {
        struct vocab_slot *s = &m->slots[i];
        if (!s->bytes ||
            (s->length_raw == length_raw && !memcmp(s->bytes, bytes, (size_t)length)))
            return s;
    }
}

void vocab_map_init(struct vocab_map *m, struct arena *a, i64 most)
{
    u64 slots = 16;
    while (slots < (u64)most * 2)
        slots *= 2;
    *m = (struct vocab_map){ ARENA_ARRAY(a, struct vocab_slot, slots), slots - 1 };
}

i32 vocab_map_add(struct vocab_map *m, const u8 *bytes, i64 length, bool raw, i32 id)
{
    assert(length < INT32_MAX / 2);
    struct vocab_slot *s = slot_of(m, bytes, length, raw);
    if (s->bytes)
        return s->id;
    *s = (struct vocab_slot){ bytes, (u32)length * 2 + raw, id };
    return -1;
}

i32 vocab_map_find(const struct vocab_map *m, const u8 *bytes, i64 length, bool raw)
{
    if (length >= INT32_MAX / 2)
        return -1;
    const struct vocab_slot *s = slot_of(m, bytes, length, raw);
    return s->bytes ? s->id : -1;
}
