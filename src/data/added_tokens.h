/* data/added_tokens.h - tokens that are found in the text before anything else happens.
 *
 * Special tokens such as <|endoftext|>, and others that a fine-tuner added. The leftmost,
 * then longest, is taken; flags say whether it must stand alone as a word and whether it
 * swallows the white space around it. The rules follow Hugging Face's tokenizers. */
#ifndef HEADWAY_DATA_ADDED_TOKENS_H
#define HEADWAY_DATA_ADDED_TOKENS_H

#include "base/arena.h"

struct added_token {
    const char *content;
    i64 bytes;
    i32 id;
    bool special, single_word, lstrip, rstrip, normalized;
};

struct added_set {
    struct added_token *sorted; /* by content, bytewise */
    i64 count;
    bool begins[256]; /* some token begins with this byte */
    int only_begin;   /* the only such byte, or -1 */
};

/* Copies the tokens; what they point to stays the caller's. */
void added_set_init(struct added_set *s, struct arena *a, const struct added_token *tokens,
                    i64 count);

/* What lies between added tokens, and the tokens themselves, in order; a negative result
 * stops and is passed on. */
struct added_visitor {
    int (*text)(void *context, const u8 *text, i64 bytes);
    int (*token)(void *context, const struct added_token *token);
    void *context;
    bool specials_as_text; /* special tokens are not looked for */
};
int added_set_split(const struct added_set *s, const struct added_visitor *v, const u8 *text,
                    i64 bytes);

#endif
