#include "data/word_table.h"

#include "base/err.h"
#include "base/hash.h"
#include "base/sys.h"

#include <string.h>

enum { FIRST_CAPACITY = 1 << 12 };

void word_table_init(struct word_table *t)
{
    *t = (struct word_table){ 0 };
    arena_init(&t->arena);
}

void word_table_fini(struct word_table *t)
{
    arena_fini(&t->arena);
    sys_free(t->slots);
    *t = (struct word_table){ 0 };
}

i64 word_table_bytes(const struct word_table *t)
{
    return t->arena.used_bytes + t->capacity * (i64)sizeof *t->slots;
}

static struct word *slot_of(struct word *slots, i64 capacity, u64 hash, const u8 *bytes,
                            i64 length)
{
    u64 mask = (u64)capacity - 1;
    for (u64 i = hash & mask;; i = (i + 1) & mask) {
        struct word *w = &slots[i];
        if (!w->bytes || (w->hash == hash && w->length == length &&
                          !memcmp(w->bytes, bytes, (size_t)length)))
            return w;
    }
}

static int grow(struct word_table *t)
{
    i64 capacity = i64_max(FIRST_CAPACITY, 2 * t->capacity), bytes;
    struct word *slots = NULL;
    if (!size_mul(capacity, (i64)sizeof *slots, &bytes))
        slots = sys_alloc(bytes, 64);
    if (!slots)
        return err_set(ERR_LIMIT, "no memory to count %lld different words",
                       (long long)t->count);
    memset(slots, 0, (size_t)bytes);
    for (i64 i = 0; i < t->capacity; i++) {
        const struct word *w = &t->slots[i];
        if (w->bytes)
            *slot_of(slots, capacity, w->hash, w->bytes, w->length) = *w;
    }
    sys_free(t->slots);
    t->slots = slots;
    t->capacity = capacity;
    return OK;
}

int word_table_add(struct word_table *t, const u8 *bytes, i64 length, i64 times)
{
    if (2 * t->count >= t->capacity)
        TRY(grow(t));
    u64 hash = hash64(bytes, length, 0);
    struct word *w = slot_of(t->slots, t->capacity, hash, bytes, length);
    if (!w->bytes) {
        u8 *copy = arena_alloc(&t->arena, length);
        memcpy(copy, bytes, (size_t)length);
        *w = (struct word){ .hash = hash, .bytes = copy, .length = length };
        t->count++;
    }
    w->count += times;
    return OK;
}
