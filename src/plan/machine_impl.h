/* plan/machine_impl.h - what the files that read machines share. */
#ifndef HEADWAY_PLAN_MACHINE_IMPL_H
#define HEADWAY_PLAN_MACHINE_IMPL_H

#include "plan/machine_file.h"

enum { MACHINE_FACTS = 96 };

/* A device by its name in machines/devices/, with its facts. */
int machine_device_load(struct plan_machine *out, const char *name, struct arena *a);

/* This machine, from the cache of `headway machine`; ERR_CONFIG before it ran. */
int machine_here(struct plan_machine *out, struct arena *a);

/* What a device or the tiers say against themselves; where stands before messages. */
int machine_check_device(const struct plan_device *d, const char *where);
/* Whether it has twice what a known device has: sparsity, or both directions. */
int machine_check_known(const struct plan_device *d, const char *where, struct arena *a);
int machine_check_tier(const struct plan_machine *m, int i, const char *where);
/* After the last tier: node_ranks and its like. */
int machine_check_whole(struct plan_machine *m, const char *where);

/* What a tier has before anything is said of it: the device's links, and an assumed latency. */
void machine_tier_begin(struct plan_machine *m, int i);
/* After it was read: assumed latencies inside are at most what is said outside. `said`: somebody
 * gave this tier's latency. */
void machine_tier_settle(struct plan_machine *m, int i, bool said);

#endif
