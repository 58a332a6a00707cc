#include "train/schedule.h"

#include <math.h>

static double after_warmup(const struct train_config *c, double progress)
{
    double low = c->lr.min_ratio;
    switch ((enum train_schedule)c->lr.schedule) {
    case SCHEDULE_COSINE:
        return low + (1 - low) * 0.5 * (1 + cos(3.14159265358979323846 * progress));
    case SCHEDULE_LINEAR:
        return 1 - (1 - low) * progress;
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
    progress = progress < 0 ? 0 : progress > 1 ? 1 : progress;
    double factor = after_warmup(c, progress);
    if (step < c->lr.warmup)
        factor = fmin(factor, (double)(step + 1) / (double)c->lr.warmup);
    return factor;
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
