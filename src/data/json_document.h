/* data/json_document.h - one line of a jsonl file as text with and without loss.
 *
 * Three shapes are understood; other keys are ignored:
 *
 *     {"text": "..."}                                   all of it counts in the loss
 *     {"prompt": "...", "answer": "..."}                the answer counts
 *     {"messages": [{"role": "user", "content": "..."}, ...]}   what the assistant says
 *
 * Instead of prompt and answer: prompt and completion, prompt and response, question and
 * answer, instruction and output. Prompt and answer follow each other as they are.
 *
 * Messages are laid out in a style (data/chat.h).
 *
 * In an assistant's message the content and the token (or the blank line) that ends it
 * count. Special tokens that occur in texts are text: data cannot forge a turn. */
#ifndef HEADWAY_DATA_JSON_DOCUMENT_H
#define HEADWAY_DATA_JSON_DOCUMENT_H

#include "data/buffer.h"
#include "data/chat.h"

/* A stretch of text, or one special token. */
struct json_part {
    i64 begin, bytes; /* in the document's text */
    i32 special;      /* -1: text */
    i32 counts;       /* 1: in the loss */
};

struct json_document {
    struct buffer text;  /* all text, one part after another */
    struct buffer parts; /* of struct json_part */
};

static inline i64 json_document_parts(const struct json_document *d)
{
    return d->parts.bytes / (i64)sizeof(struct json_part);
}

static inline const struct json_part *json_document_part(const struct json_document *d,
                                                         i64 i)
{
    return (const struct json_part *)d->parts.data + i;
}

/* Replaces what d holds. name and line are for messages. */
int json_document_parse(struct json_document *d, const struct chat_style *style,
                        const char *json, i64 bytes, const char *name, i64 line);
/* Replaces what d holds with a question, and what may stand before it (system, or NULL), up to
 * where the answer begins. */
int json_document_ask(struct json_document *d, const struct chat_style *style,
                      const char *system, const char *question);
void json_document_fini(struct json_document *d);

#endif
