/* data/bpe_train.h - learns a byte-level BPE tokenizer from text.
 *
 * Documents are added one by one and only counted: what stays in memory is one table of
 * different words. The merges are then those of Hugging Face's BpeTrainer on the same
 * texts: the pair that occurs most often, of equals the one with the smallest ids, until
 * the vocabulary is full. Neither the order of the documents nor the number of threads
 * changes the result. */
#ifndef HEADWAY_DATA_BPE_TRAIN_H
#define HEADWAY_DATA_BPE_TRAIN_H

#include "base/pool.h"
#include "data/tokenizer.h"

/* stage is "count words" (done: bytes so far, total 0: not known) or "merge pairs"
 * (done and total: tokens). */
typedef void (*bpe_progress)(void *context, const char *stage, i64 done, i64 total);

struct bpe_train_options {
    i64 vocab_size;      /* special tokens and the 256 bytes included */
    i64 min_count;       /* a pair that occurs less often is not merged; at least 1 */
    const char *pattern; /* gpt2, cl100k, llama3 or qwen2 (which brings NFC along) */
    const char *const *specials; /* get the first ids */
    i64 special_count;
    bpe_progress progress; /* NULL: none */
    void *context;
};

struct bpe_trainer;

/* The pool is used by every call; the options are copied, what they point to is not. */
int bpe_trainer_new(struct bpe_trainer **out, const struct bpe_train_options *o,
                    struct pool *pool);
void bpe_trainer_free(struct bpe_trainer *t); /* NULL is fine */

/* One document. Bytes that are not UTF-8 are learnt from as pieces of their own. */
int bpe_trainer_add(struct bpe_trainer *t, const void *text, i64 bytes);
int bpe_trainer_finish(struct bpe_trainer *t, struct tokenizer **out);

#endif
