#include "report/pack.h"

#include "base/text.h"

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void pack_bytes(struct json *j, const void *data, i64 bytes)
{
    const u8 *p = data;
    struct text out = { 0 };
    text_add(&out, "\"");
    for (i64 i = 0; i < bytes; i += 3) {
        i64 n = i64_min(3, bytes - i);
        u32 word = (u32)p[i] << 16 | (n > 1 ? (u32)p[i + 1] << 8 : 0) | (n > 2 ? p[i + 2] : 0u);
        char four[4] = { digits[word >> 18], digits[word >> 12 & 63],
                         n > 1 ? digits[word >> 6 & 63] : '=', n > 2 ? digits[word & 63] : '=' };
        text_add_bytes(&out, four, 4);
    }
    text_add(&out, "\"");
    json_literal(j, out.data);
    text_fini(&out);
}

void pack_f32(struct json *j, const float *values, i64 n)
{
    _Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "packed arrays are little endian");
    pack_bytes(j, values, n * (i64)sizeof *values);
}

void pack_deltas(struct json *j, const i64 *values, i64 n)
{
    struct text bytes = { 0 };
    i64 before = 0;
    for (i64 i = 0; i < n; i++) {
        i64 d = (i64)((u64)values[i] - (u64)before);
        text_add_varint(&bytes, (u64)d << 1 ^ (u64)(d >> 63));
        before = values[i];
    }
    pack_bytes(j, bytes.data, bytes.length);
    text_fini(&bytes);
}
