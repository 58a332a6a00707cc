#include "data/buffer.h"

#include "base/err.h"
#include "base/sys.h"

#include <string.h>

enum { FIRST_BYTES = 256 };

void buffer_fini(struct buffer *b)
{
    sys_free(b->data);
    *b = (struct buffer){ 0 };
}

int buffer_reserve(struct buffer *b, i64 more)
{
    i64 need, doubled;
    if (size_add(b->bytes, more, &need))
        return err_set(ERR_LIMIT, "a buffer of %lld more bytes is too large",
                       (long long)more);
    if (need <= b->capacity)
        return OK;
    if (size_mul(b->capacity, 2, &doubled))
        doubled = need;
    i64 capacity = i64_max(i64_max(need, doubled), FIRST_BYTES);
    u8 *data = sys_realloc(b->data, capacity);
    if (!data)
        return err_set(ERR_LIMIT, "no memory for a buffer of %lld bytes",
                       (long long)capacity);
    b->data = data;
    b->capacity = capacity;
    return OK;
}

int buffer_add(struct buffer *b, const void *data, i64 bytes)
{
    TRY(buffer_reserve(b, bytes));
    if (bytes > 0)
        memcpy(b->data + b->bytes, data, (size_t)bytes);
    b->bytes += bytes;
    return OK;
}
