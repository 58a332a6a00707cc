/* data/pretoken.h - cuts text into the pieces that byte-pair merges may not cross.
 *
 * A pretokenizer is a list of steps, as tokenizer.json's "pre_tokenizer" has them: each
 * cuts every piece of the step before. The last is always ByteLevel. It is immutable;
 * each thread brings a pretoken_scratch. Refuses, in one sentence, whatever is not
 * byte-level (Metaspace, BertPreTokenizer, ...). */
#ifndef HEADWAY_DATA_PRETOKEN_H
#define HEADWAY_DATA_PRETOKEN_H

#include "data/buffer.h"
#include "data/scan.h"
#include "data/split_regex.h"

#include <jansson.h>

enum split_keep { KEEP_ALL, KEEP_MATCHES, KEEP_REST };

struct split_step {
    scan_fn scan;              /* a known pattern, or NULL: */
    struct split_regex *regex; /* any other */
    enum split_keep keep;
};

enum { PRETOKEN_STEPS = 16 };

struct pretokenizer {
    struct split_step steps[PRETOKEN_STEPS];
    int count;
    int prefix_at; /* before which step a piece gets a space in front; -1: never */
};

/* From the JSON value of "pre_tokenizer". */
int pretokenizer_init(struct pretokenizer *p, const json_t *json);
void pretokenizer_fini(struct pretokenizer *p);

/* The JSON of a pre-tokenizer that splits by one of data/scan.h's patterns: ByteLevel
 * for gpt2, Split and ByteLevel for the others. A new reference. */
json_t *pretokenizer_json(const struct scan_pattern *pattern);

struct pretoken_scratch {
    struct split_match *match; /* made when first needed */
    struct buffer prefixed;
};
void pretoken_scratch_fini(struct pretoken_scratch *s);

/* Called for every piece in order; a negative result stops and is passed on. */
typedef int (*piece_fn)(void *context, const u8 *piece, i64 bytes);

/* Pre: text is well-formed UTF-8. */
int pretokenize(const struct pretokenizer *p, struct pretoken_scratch *s, const u8 *text,
                i64 bytes, piece_fn piece, void *context);

#endif
