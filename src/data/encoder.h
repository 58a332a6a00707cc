/* data/encoder.h - text in, token ids out; one encoder per thread.
 *
 * An encoder owns what encoding needs besides the tokenizer, which is shared: the ids so
 * far, a cache of words met before, and scratch. Ids are appended call by call; the
 * caller clears them. Time is O(n log n) in the length of a text, whatever it holds.
 *
 * Text should be UTF-8. What is not is handled by policy:
 *   reject   the call fails and names the byte; nothing is appended
 *   replace  every ill-formed sequence becomes U+FFFD, as browsers and Python do
 *   bytes    it is cut out and encoded byte by byte, so that decoding gives the input
 *            back (given a tokenizer that has all 256 bytes and no normaliser) */
#ifndef HEADWAY_DATA_ENCODER_H
#define HEADWAY_DATA_ENCODER_H

#include "data/tokenizer.h"

enum utf8_policy { UTF8_REJECT, UTF8_REPLACE, UTF8_BYTES };

struct encoder_options {
    enum utf8_policy policy;
    bool specials_as_text; /* "<|endoftext|>" in a text is then just these letters */
    bool add_template;     /* put the post-processor's tokens around each text */
};

struct encoder;

int encoder_new(struct encoder **out, const struct tokenizer *t,
                const struct encoder_options *o);
void encoder_free(struct encoder *e); /* NULL is fine */

int encoder_text(struct encoder *e, const void *text, i64 bytes);
int encoder_push(struct encoder *e, i32 id); /* one id, such as the end of a document */

/* Borrowed until the next call. */
const i32 *encoder_ids(const struct encoder *e, i64 *count);
void encoder_clear(struct encoder *e);

/* Ill-formed sequences met so far. */
i64 encoder_malformed(const struct encoder *e);

#endif
