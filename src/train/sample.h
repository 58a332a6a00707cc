/* train/sample.h - one sequence, token by token, against a key-value cache.
 *
 * Two programs over the same decoder: one new token, and SAMPLE_CHUNK new tokens at a
 * time for the prompt. The cache's capacity is fixed when the sampler is made. */
#ifndef HEADWAY_SAMPLE_H
#define HEADWAY_SAMPLE_H

#include "backend/engine.h"
#include "model/decoder.h"

enum { SAMPLE_CHUNK = 64 };

struct sample_config {
    double temperature; /* 0: always the likeliest token */
    i64 top_k;          /* 0: off */
    double top_p;       /* 1: off */
    u64 seed;
    i64 ids; /* only tokens below it, where a model has more than its tokenizer knows; 0: all */
};

struct sample_program {
    struct program *program;
    struct graph graph;
    struct tensor *tokens, *positions, *logits; /* i32 (n), i32 (n), f32 (1,V) */
};

struct sampler {
    struct engine *engine;
    i64 vocab, capacity, length; /* tokens in the cache so far */
    struct sample_program one, chunk;
    struct tensor **cache_k, **cache_v; /* per layer (capacity, G D) */
    void *region;                       /* of the caches */
    i64 region_bytes;
    i32 *order;     /* [vocab] scratch for top-k and top-p */
    float *weight;  /* [vocab] scratch */
    u64 picks;      /* tokens drawn so far: the random counter */
};

/* Adds its programs to the engine, which the caller then commits. capacity: most tokens
 * of prompt and continuation; at most the model's positions. */
int sampler_init(struct sampler *s, const struct model *m, struct engine *e, i64 capacity,
                 struct arena *a);
void sampler_fini(struct sampler *s);
void sampler_reset(struct sampler *s); /* forgets the sequence */

/* Reads n more tokens; afterwards the logits of the next one are ready. ERR_LIMIT when
 * the cache is full, ERR_MODEL when a logit is not finite. */
int sampler_feed(struct sampler *s, const i32 *tokens, i64 n);
const float *sampler_logits(const struct sampler *s);

/* Draws the next token from the logits. Ties go to the lower id. */
i32 sampler_pick(struct sampler *s, const struct sample_config *c);

#endif
