#include "train/schedule.h"

#include <math.h>

/* What the warm-up ends in: `progress` of the run is done, `rest` of what follows it. */
static double after_warmup(const struct train_config *c, double progress, double rest)
{
    double low = c->lr.min_ratio;
    switch ((enum train_schedule)c->lr.schedule) {
    case SCHEDULE_COSINE:
        return low + (1 - low) * 0.5 * (1 + cos(3.14159265358979323846 * rest));
    case SCHEDULE_LINEAR:
        return 1 - (1 - low) * rest;
    case SCHEDULE_WSD: {
        double begin = 1 - c->lr.decay_fraction;
        if (progress <= begin || c->lr.decay_fraction <= 0)
            return 1;
        /* 1 - sqrt cooldown (Haegele et al. 2024, eq. 1) */
        return low + (1 - low) * (1 - sqrt((progress - begin) / c->lr.decay_fraction));
    }
    default:
        return 1;
    }
}

double schedule_factor(const struct train_config *c, i64 step, double progress)
{
    double warmup = (double)c->lr.warmup, rest = 0;
    progress = progress < 0 ? 0 : progress > 1 ? 1 : progress;
    if (step >= c->lr.warmup && progress > 0) {
        /* The share of the run that the warm-up took, at this pace: warmup / steps where
         * steps end the run, and known without memory where the clock does. */
        double begin = progress * warmup / (double)step;
        rest = begin < 1 ? (progress - begin) / (1 - begin) : 1;
    }
    double factor = after_warmup(c, progress, rest);
    return step < c->lr.warmup ? fmin(factor, (double)(step + 1) / warmup) : factor;
}

i64 schedule_full_micro_batches(const struct train_config *c)
{
    if (c->train.global_batch > 0)
        return c->train.global_batch / (c->train.batch * c->train.seq);
    return c->train.accumulate;
}

i64 schedule_micro_batches(const struct train_config *c, i64 step)
{
    i64 full = schedule_full_micro_batches(c);
    i64 from = c->ramp.batch_from;
    if (from <= 0 || from >= full || step >= c->ramp.batch_steps)
        return full;
    return from + (full - from) * step / c->ramp.batch_steps;
}

i64 schedule_seq(const struct train_config *c, i64 step)
{
    i64 from = c->ramp.seq_from, full = c->train.seq;
    if (from <= 0 || from >= full || step >= c->ramp.seq_steps)
        return full;
    i64 stages = 1; /* lengths from, 2 from, 4 from ... below full */
    while (from << stages < full)
        stages++;
    return from << (step * stages / c->ramp.seq_steps);
}

i64 schedule_steps(const struct train_config *c)
{
    i64 steps = c->train.steps;
    if (c->train.tokens > 0) {
        i64 tokens = 0, n = 0;
        i64 ramps = i64_max(c->ramp.batch_steps, c->ramp.seq_steps);
        for (; n < ramps && tokens < c->train.tokens; n++)
            tokens += c->train.batch * schedule_seq(c, n) * schedule_micro_batches(c, n);
        i64 full = c->train.batch * c->train.seq * schedule_full_micro_batches(c);
        if (tokens < c->train.tokens)
            n += ceil_div(c->train.tokens - tokens, full);
        steps = steps > 0 ? i64_min(steps, n) : n;
    }
    return steps;
}

i64 schedule_steps_within(const struct train_config *c, i64 tokens)
{
    const i64 ramps = i64_max(c->ramp.batch_steps, c->ramp.seq_steps);
    for (i64 n = 0; n < ramps; n++) {
        tokens -= c->train.batch * schedule_seq(c, n) * schedule_micro_batches(c, n);
        if (tokens < 0)
            return n;
    }
    return ramps + tokens / (c->train.batch * c->train.seq * schedule_full_micro_batches(c));
}
