/* data/mixture.h - which source sample g of a run comes from, as pure arithmetic.
 *
 * Samples are dealt in blocks of MIXTURE_BLOCK. Within a block every source has a fixed
 * number of places in proportion to its weight (largest remainders, at least one each),
 * spread as evenly as can be: after any number of samples each source is within one or
 * two of its share. So both questions - which source, and which sample of it - are
 * answered from g alone, without state.
 *
 * A source with an epoch cap leaves when it is used up; the others go on in proportion.
 * That begins a new *phase* with its own block. There are at most as many phases as
 * sources, all computed when the mixture is made. */
#ifndef HEADWAY_DATA_MIXTURE_H
#define HEADWAY_DATA_MIXTURE_H

#include "base/arena.h"

enum { MIXTURE_BLOCK = 4096, MIXTURE_SOURCES = 256 };

struct mixture_source {
    i64 windows;  /* in one epoch, at least 1 */
    double weight; /* > 0; only ratios matter */
    i64 limit;    /* samples until it leaves; INT64_MAX: never */
};

struct mixture_phase {
    i64 begin; /* first sample; the phase ends where the next begins */
    i64 *used; /* [sources] taken before the phase */
    i64 *share; /* [sources] places in a block; 0: has left */
    u16 *source; /* [MIXTURE_BLOCK] who has this place */
    u16 *rank; /* [MIXTURE_BLOCK] how many earlier places of the block that source has */
};

struct mixture {
    struct mixture_source *sources;
    i64 n_sources;
    struct mixture_phase *phases; /* [n_sources] */
    i64 n_phases;
    i64 samples; /* until every source has left; INT64_MAX: never */
};

/* 1 <= n <= MIXTURE_SOURCES. Copies sources. */
void mixture_init(struct mixture *m, const struct mixture_source *sources, i64 n,
                  struct arena *a);
/* Sample g, 0 <= g < samples: its source, and how many samples of that source precede it. */
void mixture_at(const struct mixture *m, i64 g, int *source, i64 *nth);
/* Whether a source has not left by sample g, 0 <= g < samples. */
bool mixture_has(const struct mixture *m, i64 g, int source);
/* Samples of a source before sample g. */
i64 mixture_used(const struct mixture *m, i64 g, int source);
/* Sets a source's limit, and with it all that comes after the limit is reached. */
void mixture_set_limit(struct mixture *m, int source, i64 limit);

#endif
