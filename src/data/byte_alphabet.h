/* data/byte_alphabet.h - GPT-2's spelling of bytes as printable characters.
 *
 * Vocabulary files are JSON and cannot hold arbitrary bytes, so each byte is spelled as
 * one character: printable Latin-1 as itself, the other 68 as U+0100 and up in order
 * (a space becomes U+0120). */
#ifndef HEADWAY_DATA_BYTE_ALPHABET_H
#define HEADWAY_DATA_BYTE_ALPHABET_H

#include "data/buffer.h"

u32 byte_alphabet_char(u8 byte);

/* Appends the spelling of bytes to out. */
int byte_alphabet_spell(struct buffer *out, const u8 *bytes, i64 count);

/* The bytes that a spelling stands for; out has room for `length` of them. Returns how
 * many, or -1 when some character is not in the alphabet. Pre: well-formed UTF-8. */
i64 byte_alphabet_read(const char *spelling, i64 length, u8 *out);

#endif
