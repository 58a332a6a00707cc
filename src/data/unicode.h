/* data/unicode.h - UTF-8 and the character classes that tokenizers split by.
 *
 * Categories are those of Unicode 16, which Hugging Face's regular expressions
 * (Oniguruma 6.9.10) use. The distribution's libraries know 14 (PCRE2) or 15
 * (utf8proc), so the ranges assigned since are a table here, and both libraries are
 * patched with it. Malformed text never gets this far: callers check with utf8_valid
 * first, and decide what to do by policy. */
#ifndef HEADWAY_DATA_UNICODE_H
#define HEADWAY_DATA_UNICODE_H

#include "base/base.h"

/* The four classes that the pre-tokenizers of GPT-2, GPT-4, Llama 3 and Qwen2 use. */
enum char_class { CHAR_OTHER, CHAR_LETTER, CHAR_NUMBER, CHAR_SPACE };

extern const u8 char_class_ascii[128];
enum char_class char_class_of(u32 c);

/* A word character in the sense of UTS #18 (\w of Rust's regex). */
bool char_is_word(u32 c);

/* Character at p and its length in bytes; p points into well-formed UTF-8. */
static inline u32 utf8_decode(const u8 *p, int *length)
{
    if (p[0] < 0x80)
        return *length = 1, p[0];
    if (p[0] < 0xE0)
        return *length = 2, (p[0] & 0x1Fu) << 6 | (p[1] & 0x3Fu);
    if (p[0] < 0xF0)
        return *length = 3, (p[0] & 0xFu) << 12 | (p[1] & 0x3Fu) << 6 | (p[2] & 0x3Fu);
    *length = 4;
    return (p[0] & 7u) << 18 | (p[1] & 0x3Fu) << 12 | (p[2] & 0x3Fu) << 6 | (p[3] & 0x3Fu);
}

/* Bytes written to out (1 to 4); c is at most 0x10FFFF. */
int utf8_put(u32 c, u8 out[4]);

/* How many bytes at the front of text are well-formed (no surrogates, no overlong forms,
 * nothing above U+10FFFF). */
i64 utf8_valid(const u8 *text, i64 bytes);

/* Length of the ill-formed sequence at the front of text: the "maximal subpart" of the
 * Unicode standard (section 3.9, U+FFFD substitution), 1 to 3 bytes. *incomplete tells
 * whether it is a correct beginning that more bytes could complete. */
int utf8_bad_length(const u8 *text, i64 bytes, bool *incomplete);

/* One range of code points assigned after Unicode 14, with its general category. */
struct unicode_range {
    u32 first, last;
    char category[3];
};
extern const struct unicode_range unicode_since_14[];
extern const i64 unicode_since_14_count;

#endif
