/* plan/replay_layout.h - the replayed step of a priced layout.
 *
 * The same seconds that the closed form sums (plan_stages_of) are walked event by event. A cell is
 * the ranks that exchange within layers: tp x cp, or as many as share experts. What the software
 * does not hide (its stack says so) stands in the way of computing, the rest goes beside it over
 * links that stages and data ranks share: within the stage's own action layer by layer, which is taken
 * off beforehand, what is left beside other actions. What software is known to stall is in the update.
 *
 * Without chance and sharing the two agree but for what sums cannot see: that gathers and reduces
 * of several stages follow each other, and how stages that differ wait for each other. */
#ifndef HEADWAY_PLAN_REPLAY_LAYOUT_H
#define HEADWAY_PLAN_REPLAY_LAYOUT_H

#include "plan/cost.h"
#include "plan/replay.h"

struct plan_chance {
    u64 seed;
    double jitter, slow_share, slow_by; /* as in replay.h; slow_share is of nodes */
};

/* order gets the pipeline's schedule. ERR_CONFIG where it would be beyond what can be walked. */
int plan_replay_layout(const struct plan_job *job, const struct plan_layout *l,
                       const struct plan_table *table, const struct plan_chance *chance,
                       struct schedule *order, struct replay_time *out, struct arena *a);

#endif
