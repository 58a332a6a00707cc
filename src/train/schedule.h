/* train/schedule.h - learning rate and ramps as functions of where the run is.
 *
 * Pure arithmetic, so that a resumed run gives what an uninterrupted one gives. Progress
 * is the share of the run that is done (of steps, tokens or time, whichever ends it). */
#ifndef HEADWAY_SCHEDULE_H
#define HEADWAY_SCHEDULE_H

#include "train/train_config.h"

/* Factor in [0, 1] on the peak learning rate of optimizer step `step` (0-based), when
 * `progress` in [0, 1] of the run is done before it. Cosine and line begin where the
 * warm-up ends, so the peak is reached; the cooldown of wsd is a share of the whole run. */
double schedule_factor(const struct train_config *c, i64 step, double progress);

/* Micro-batches and row length of a step, after the ramps. Row lengths double from
 * ramp.seq_from to train.seq; micro-batches grow evenly. */
i64 schedule_micro_batches(const struct train_config *c, i64 step);
i64 schedule_seq(const struct train_config *c, i64 step);

/* Steps of the whole run: train.steps, or what train.tokens needs after the ramps; 0 when
 * only the clock ends it. */
i64 schedule_steps(const struct train_config *c);
/* Whole steps that so many tokens are enough for. */
i64 schedule_steps_within(const struct train_config *c, i64 tokens);

/* Micro-batches of a full step: accumulate, or global_batch / (batch x seq). */
i64 schedule_full_micro_batches(const struct train_config *c);

#endif
