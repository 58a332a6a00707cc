/* train/checkpoint_cover.h - whether boxes make up a tensor: each element in exactly one.
 *
 * Asked before a checkpoint gets its name and before it is believed. Private to
 * train/checkpoint*.c. */
#ifndef HEADWAY_CHECKPOINT_COVER_H
#define HEADWAY_CHECKPOINT_COVER_H

#include "train/checkpoint_manifest.h"

/* Of the n >= 1 boxes of tensor prefix/name. ERR_FORMAT names it and the first elements that
 * are in no box, or in more than one. n log n, and per cut of a dimension what lies there. */
int checkpoint_check_cover(const struct checkpoint_box *const *boxes, i64 n, const char *prefix);

/* The same for every tensor that the shards hold boxes of. */
int checkpoint_check_covers(const struct checkpoint_shard *shards, i64 n);

#endif
