/* data/normalize.h - the Unicode normal forms that some tokenizers ask for (Qwen: NFC).
 *
 * Linear time whatever the text: a megabyte of combining marks is sorted by counting,
 * not by exchanging neighbours. Refuses nothing but a lack of memory. */
#ifndef HEADWAY_DATA_NORMALIZE_H
#define HEADWAY_DATA_NORMALIZE_H

#include "data/buffer.h"

enum normal_form { FORM_NONE, FORM_NFC, FORM_NFD, FORM_NFKC, FORM_NFKD, FORMS };

/* "NFC" ..., as tokenizer.json spells them; FORM_NONE for any other name. */
enum normal_form normal_form_from_name(const char *name);

struct normalizer {
    struct buffer chars, sorted; /* of i32 code points: scratch */
    struct buffer out;
};
void normalizer_fini(struct normalizer *n);

/* True when the well-formed text is certainly in this form already: the usual case, and
 * much quicker than finding out for sure. */
bool normalize_not_needed(enum normal_form form, const u8 *text, i64 bytes);

/* Writes the normalised form of well-formed text to n->out, replacing what was there. */
int normalize(struct normalizer *n, enum normal_form form, const u8 *text, i64 bytes);

#endif
