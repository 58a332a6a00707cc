#include "data/hash_set.h"

#include "base/err.h"
#include "base/sys.h"

#include <string.h>

/* The slot that holds the hash, or the empty one where it belongs. */
static u64 *find(u64 *slots, i64 capacity, u64 hash)
{
    u64 at = hash & (u64)(capacity - 1);
    while (slots[at] != 0 && slots[at] != hash)
        at = (at + 1) & (u64)(capacity - 1);
    return &slots[at];
}

static int grow(struct hash_set *s)
{
    i64 capacity = i64_max(1024, 2 * s->capacity);
    u64 *slots = sys_alloc(capacity * (i64)sizeof *slots, 64);
    if (!slots)
        return err_set(ERR_LIMIT,
                       "no memory to remember %lld documents; --keep-duplicates needs "
                       "none",
                       (long long)s->count);
    memset(slots, 0, (size_t)capacity * sizeof *slots);
    for (i64 i = 0; i < s->capacity; i++)
        if (s->slots[i] != 0)
            *find(slots, capacity, s->slots[i]) = s->slots[i];
    sys_free(s->slots);
    s->slots = slots;
    s->capacity = capacity;
    return OK;
}

int hash_set_add(struct hash_set *s, u64 hash, bool *fresh)
{
    if (4 * (s->count + 1) > 3 * s->capacity)
        TRY(grow(s));
    hash += hash == 0;
    u64 *slot = find(s->slots, s->capacity, hash);
    *fresh = *slot == 0;
    s->count += *fresh;
    *slot = hash;
    return OK;
}

void hash_set_fini(struct hash_set *s)
{
    sys_free(s->slots);
    *s = (struct hash_set){ 0 };
}
