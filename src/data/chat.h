/* data/chat.h - how a conversation is laid out as text, for training and for others.
 *
 * Messages are laid out in the style for which the tokenizer has special tokens:
 *
 *     ChatML    <|im_start|>ROLE\nCONTENT<|im_end|>\n
 *     Llama 3   <|start_header_id|>ROLE<|end_header_id|>\n\nCONTENT<|eot_id|>
 *     plain     ### ROLE\nCONTENT\n\n
 *
 * The same style makes documents (data/json_document.h) and the template that an exported
 * model carries, so who asks it lays questions out as it has learnt them. */
#ifndef HEADWAY_DATA_CHAT_H
#define HEADWAY_DATA_CHAT_H

#include "base/base.h"
#include "base/text.h"

struct tokenizer;

struct chat_style {
    const char *name; /* "chatml", "llama3", "plain" */
    i32 open, middle,
        close; /* special tokens before the role, after it, after the content; -1: none */
    const char *before, *after_role, *after; /* text in the same places */
};

struct chat_style chat_style_of(const struct tokenizer *t);

/* Appends a Jinja template for "chat_template" of tokenizer_config.json: `transformers`
 * renders messages with it to the tokens of a document, of which the first is begin (-1:
 * none), and with add_generation_prompt also to those before an answer.Where a
 * style has no token there, what counts in the loss is made into tokens apart from what
 * does not; line breaks at that very place may then be merged by `transformers` alone. */
void chat_template(struct text *out, const struct tokenizer *t, i32 begin);

#endif
