/* model/safetensors_scan.h - the few words of JSON that a safetensors header may use.
 *
 * Objects, strings, and whole numbers in [0, 2^48]. Not a JSON reader: what the grammar
 * does not need (true, null, fractions, deeper nesting) is an error here, which is what
 * keeps memory and stack bounded. Private to model/safetensors*.c. */
#ifndef HEADWAY_SAFETENSORS_SCAN_H
#define HEADWAY_SAFETENSORS_SCAN_H

#include "base/base.h"

struct scan {
    const u8 *begin, *at, *end;
};

/* ERR_FORMAT with the byte where it went wrong. */
int scan_fail(const struct scan *s, const char *expected);
/* The next thing is this character: taken, true. */
bool scan_take(struct scan *s, char c);
int scan_expect(struct scan *s, char c);
/* Unescapes into text (capacity bytes, NUL included; NULL and 0 to skip); *length is that
 * of the whole string, whether it fitted or not. */
int scan_string(struct scan *s, char *text, i64 capacity, i64 *length);
int scan_integer(struct scan *s, i64 *out);
/* Only padding (spaces) is left. */
int scan_end(struct scan *s);

#endif
