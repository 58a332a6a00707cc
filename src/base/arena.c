#include "base/arena.h"

#include "base/err.h"
#include "base/sys.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct arena_block {
    struct arena_block *below;
    i64 used, capacity;
    _Alignas(64) char data[];
};

enum { BLOCK_BYTES = 64 * 1024 };

void arena_init(struct arena *a)
{
    *a = (struct arena){ 0 };
}

void arena_fini(struct arena *a)
{
    while (a->top) {
        struct arena_block *below = a->top->below;
        sys_free(a->top);
        a->top = below;
    }
    a->used_bytes = 0;
}

static struct arena_block *block_new(struct arena *a, i64 bytes)
{
    i64 capacity = i64_max(bytes, BLOCK_BYTES);
    struct arena_block *b = sys_alloc((i64)sizeof *b + capacity, 64);
    if (!b)
        err_panic("out of memory for %lld bytes of bookkeeping", (long long)capacity);
    *b = (struct arena_block){ .below = a->top, .capacity = capacity };
    a->top = b;
    return b;
}

void arena_clear(struct arena *a)
{
    i64 capacity = 0;
    for (const struct arena_block *b = a->top; b; b = b->below)
        capacity += b->capacity;
    if (a->top && a->top->below) {
        arena_fini(a);
        block_new(a, capacity);
    }
    if (a->top)
        a->top->used = 0;
    a->used_bytes = 0;
}

void *arena_alloc_unset(struct arena *a, i64 bytes)
{
    assert(bytes >= 0);
    i64 align = bytes >= 64 ? 64 : 16;
    struct arena_block *b = a->top;
    i64 begin = b ? round_up(b->used, align) : 0;
    if (!b || begin + bytes > b->capacity) {
        b = block_new(a, bytes);
        begin = 0;
    }
    b->used = begin + bytes;
    a->used_bytes += bytes;
    return b->data + begin;
}

void *arena_alloc(struct arena *a, i64 bytes)
{
    return memset(arena_alloc_unset(a, bytes), 0, (size_t)bytes);
}

char *arena_strndup(struct arena *a, const char *text, i64 length)
{
    char *copy = arena_alloc(a, length + 1);
    memcpy(copy, text, (size_t)length);
    return copy;
}

char *arena_strdup(struct arena *a, const char *text)
{
    return arena_strndup(a, text, (i64)strlen(text));
}

char *arena_printf(struct arena *a, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int length = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    char *text = arena_alloc(a, length + 1);
    vsnprintf(text, (size_t)length + 1, fmt, again);
    va_end(again);
    return text;
}
