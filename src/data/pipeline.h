/* data/pipeline.h - documents read and encoded by many threads, delivered in order.
 *
 * Readers take the inputs one after another, decompress and split them, and collect
 * documents into *units* of about unit_bytes of text. Encoders turn units into token ids.
 * The caller receives units in the order of the inputs, whatever thread was first. A unit
 * never spans two inputs, and where it ends depends on the bytes alone: (input, unit) is
 * therefore a place to which a later run can return.
 *
 * Memory: each reader has a fixed number of units, which are reused. */
#ifndef HEADWAY_DATA_PIPELINE_H
#define HEADWAY_DATA_PIPELINE_H

#include "data/encoder.h"
#include "data/inputs.h"
#include "data/splitter.h"

struct pipeline_config {
    const struct inputs *inputs;
    const struct tokenizer *tokenizer;
    enum text_format format;
    struct splitter_options split;
    enum utf8_policy invalid;
    bool skip_bad_lines; /* of jsonl; else they are errors */
    i32 begin, end;      /* token before and after each document; -1: none */
    i64 unit_bytes;
    int threads;         /* that encode */
    i64 first_input, first_unit; /* where to begin */
};

struct unit_document {
    i64 begin, bytes, line; /* in unit.text */
    bool cut, piece; /* as in struct split_document */
    /* Filled in by the encoder. tokens 0: a bad line, skipped. */
    i64 first, tokens; /* in unit.ids */
    i64 text_bytes;
    u64 hash;
};

struct unit {
    i64 input, number;     /* the number-th unit of this input */
    bool last;             /* of this input */
    i64 input_bytes;       /* taken from the input so far */
    char sha256[65];       /* of the input, in its last unit */
    i64 malformed;         /* ill-formed UTF-8 sequences */
    struct buffer text;
    struct buffer documents; /* of struct unit_document */
    struct buffer ids;       /* of u32, SHARD_NO_LOSS set where the loss is masked */
    int state;
    int rc; /* reading or encoding failed, for this reason: */
    char message[1024];
};

struct pipeline;

int pipeline_start(struct pipeline **out, const struct pipeline_config *c);
/* 1: *out is the next unit, until the next call; 0: the end; negative: an error. */
int pipeline_next(struct pipeline *p, struct unit **out);
void pipeline_stop(struct pipeline *p); /* at any time; NULL is fine */

#endif
