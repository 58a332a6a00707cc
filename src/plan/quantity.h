/* plan/quantity.h - numbers that carry their unit: "989 TFLOP/s dense", "450 GB/s one-way".
 *
 * One sentence says what is wrong and what would be right: no unit, a unit of something else,
 * "80G" that is neither GB nor GiB, a peak that is not said to be dense, a link that is not said
 * to be one-way. */
#ifndef HEADWAY_PLAN_QUANTITY_H
#define HEADWAY_PLAN_QUANTITY_H

#include "base/base.h"

enum quantity {
    QUANTITY_FLOPS,   /* FLOP/s; "dense" must follow where a peak is meant (PEAK) */
    QUANTITY_PEAK,
    QUANTITY_BYTES,   /* B, kB, MB, GB, TB; KiB, MiB, GiB, TiB */
    QUANTITY_RATE,    /* B/s of memory */
    QUANTITY_LINK,    /* B/s, or Gb/s in bits; followed by "one-way" */
    QUANTITY_SECONDS, /* ns, us, ms, s, min, h, d */
    QUANTITY_WATTS,
    QUANTITY_RATIO,   /* a number without a unit, or % */
    QUANTITY_COUNT,   /* a number and what is counted: "8 devices" */
    QUANTITIES
};

/* Reads text into *out in base units (FLOP/s, bytes, bytes/s, seconds, W). rest, if not NULL,
 * gets the words behind the number of a COUNT. where stands before messages; ERR_CONFIG. */
int quantity_parse(const char *text, enum quantity kind, const char *where, double *out,
                   const char **rest);

/* "450 GB/s one-way": what quantity_parse reads back, to six digits. Not for COUNT. */
void quantity_text(double value, enum quantity kind, char *out, size_t size);

#endif
