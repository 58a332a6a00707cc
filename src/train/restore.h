/* train/restore.h - a trained model from wherever it is: for evaluation, sampling, export,
 * and for training that starts from its weights.
 *
 * A path may be a Hugging Face folder, a run folder, a folder of checkpoints, or one
 * step-N of it. */
#ifndef HEADWAY_RESTORE_H
#define HEADWAY_RESTORE_H

#include "base/pool.h"
#include "data/tokenizer.h"
#include "model/model.h"

struct restore {
    char path[2048];           /* of the Hugging Face folder, or of the checkpoints */
    bool hf;
    i64 step;                  /* of the checkpoint */
    char tokenizer[2100];      /* where its tokenizer is; "" when there is none */
    struct model_spec spec;
    bool has_ema;
    char trained_with[65]; /* SHA-256 of the tokenizer of a checkpoint; "": not known */
};

/* Finds out what is at the path and reads its spec; nothing large is touched. */
int restore_find(struct restore *r, const char *path, struct arena *a);

/* The tokenizer given, or where that is NULL the one beside the model. One with more tokens than
 * the model is refused; another one than in training is told. */
int restore_tokenizer(struct tokenizer **out, const struct restore *r, const char *given);

/* The model with its weights; with ema, the averaged ones (ERR_CONFIG when there are
 * none). positions as in model_new, 0: the spec's. */
int restore_model(struct model **out, const struct restore *r, enum dtype compute,
                  i64 positions, bool ema, struct pool *pool, struct arena *a);

/* Only the weights, into a model that exists: its masters, then its compute copies. What
 * does not fit is refused by name. */
int restore_weights(struct model *m, const struct restore *r, bool ema, struct pool *pool,
                    struct arena *a);

#endif
