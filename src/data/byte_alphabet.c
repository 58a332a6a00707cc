#include "data/byte_alphabet.h"

#include "base/err.h"
#include "data/unicode.h"

/* 0 to 32, 127 to 160 and 173 do not print. */
enum { GAP_1 = 33, GAP_2 = 127, GAP_2_END = 161, GAP_3 = 173, FIRST = 256 };

u32 byte_alphabet_char(u8 byte)
{
    if (byte < GAP_1)
        return FIRST + byte;
    if (byte >= GAP_2 && byte < GAP_2_END)
        return (u32)(FIRST + GAP_1 + byte - GAP_2);
    if (byte == GAP_3)
        return FIRST + GAP_1 + GAP_2_END - GAP_2;
    return byte;
}

static int alphabet_byte(u32 c)
{
    if (c < FIRST)
        return c < GAP_1 || (c >= GAP_2 && c < GAP_2_END) || c == GAP_3 ? -1 : (int)c;
    u32 n = c - FIRST;
    if (n < GAP_1)
        return (int)n;
    if (n < GAP_1 + GAP_2_END - GAP_2)
        return (int)(n - GAP_1 + GAP_2);
    return n == GAP_1 + GAP_2_END - GAP_2 ? GAP_3 : -1;
}

int byte_alphabet_spell(struct buffer *out, const u8 *bytes, i64 count)
{
    TRY(buffer_reserve(out, 2 * count));
    for (i64 i = 0; i < count; i++)
        out->bytes += utf8_put(byte_alphabet_char(bytes[i]), out->data + out->bytes);
    return OK;
}

i64 byte_alphabet_read(const char *spelling, i64 length, u8 *out)
{
    i64 count = 0;
    for (i64 i = 0; i < length;) {
        int step;
        int byte = alphabet_byte(utf8_decode((const u8 *)spelling + i, &step));
        if (byte < 0)
            return -1;
        out[count++] = (u8)byte;
        i += step;
    }
    return count;
}
