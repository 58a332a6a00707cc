/* data/tokenizer.h - byte-level BPE: text to token ids and back.
 *
 * A tokenizer is immutable once opened and may be shared by threads; what an encoder or a
 * decoder remembers lives in objects of their own, one per thread (data/encoder.h, struct
 * text_decoder below). Ids are those of Hugging Face's `tokenizers` for the same file.
 *
 * Reads tokenizer.json, vocab.json with merges.txt beside it, and tiktoken files; writes
 * tokenizer.json. It reads byte-level BPE and nothing else: SentencePiece, Unigram,
 * WordPiece and byte-fallback tokenizers are refused in one sentence. */
#ifndef HEADWAY_DATA_TOKENIZER_H
#define HEADWAY_DATA_TOKENIZER_H

#include "base/base.h"
#include "data/buffer.h"

struct tokenizer;

/* path: one of those files, or a folder that holds one. Closed by tokenizer_free. */
int tokenizer_open(struct tokenizer **out, const char *path);
/* The contents of a tokenizer.json; name stands for it in messages. */
int tokenizer_parse(struct tokenizer **out, const void *json, i64 bytes, const char *name);
void tokenizer_free(struct tokenizer *t); /* NULL is fine */

/* What vocab.json + merges.txt and tiktoken files do not say themselves. */
struct tokenizer_import {
    const char *pattern; /* gpt2, cl100k, llama3 or qwen2; NULL: gpt2, tiktoken: cl100k */
    const char *const *specials; /* "TEXT" or "TEXT=ID", appended in order */
    i64 special_count;
};
int tokenizer_open_as(struct tokenizer **out, const char *path,
                      const struct tokenizer_import *how);

/* Ids are below this; some may be unused. The number of rows of an embedding. */
i32 tokenizer_size(const struct tokenizer *t);
/* The bytes of a token; NULL for an unused id or one out of range. */
const u8 *tokenizer_token(const struct tokenizer *t, i32 id, i64 *bytes);
/* The id of the added token or, failing that, the vocabulary entry with these bytes; -1. */
i32 tokenizer_find(const struct tokenizer *t, const char *token);
bool tokenizer_is_special(const struct tokenizer *t, i32 id);

/* Begin and end of a document, from the post-processor, tokenizer_config.json beside the
 * file, or a well-known name such as <|endoftext|>; -1 when there is none. */
i32 tokenizer_bos(const struct tokenizer *t);
i32 tokenizer_eos(const struct tokenizer *t);
/* What training puts around a document: one token before each that also ends the one before
 * it (*end is -1); or, when there are a begin and an end of text, one on each side. */
void tokenizer_separators(const struct tokenizer *t, i32 *begin, i32 *end);

/* Writes tokenizer.json, which Hugging Face's `tokenizers` loads with equal ids. */
int tokenizer_save(const struct tokenizer *t, const char *path);
/* Writes the tokenizer_config.json beside it, without which `transformers` guesses by the model's
 * family what to put before a text and what ends one; and in it how messages are laid out
 * (data/chat.h). */
int tokenizer_save_config(const struct tokenizer *t, i64 positions, const char *path);
/* Writes the generation_config.json beside it: where generating ends, at the end of a text and,
 * where messages end with a token of their own (data/chat.h), at that. */
int tokenizer_save_generation(const struct tokenizer *t, const char *path);
/* SHA-256 of exactly that file's bytes, 64 hex digits: for ledgers. */
const char *tokenizer_hash(const struct tokenizer *t);

/* Appends the bytes of the tokens to out; skip_specials leaves special tokens away. An id
 * that the tokenizer does not have is an error. */
int tokenizer_decode(const struct tokenizer *t, const i32 *ids, i64 count,
                     bool skip_specials, struct buffer *out);

/* Decodes token by token into well-formed UTF-8: bytes that may be the beginning of a
 * character wait for the rest, bytes that cannot be become U+FFFD. */
struct text_decoder {
    const struct tokenizer *tokenizer;
    struct buffer pending, out;
};
void text_decoder_init(struct text_decoder *d, const struct tokenizer *t);
void text_decoder_fini(struct text_decoder *d);
/* The text that id completes is in d->out, which every call replaces. */
int text_decoder_push(struct text_decoder *d, i32 id);
/* What was held back, at the end of the text. */
int text_decoder_end(struct text_decoder *d);

#endif
